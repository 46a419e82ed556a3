//! The host file of a host that comes later, made from that of one that is there: what is the same on all hosts is taken over.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::IpAddr,
    path::Path,
};

use holdfast_policies::{
    hostfile::{HostFile, Timing},
    names::HostName,
    yaml::{self, Source},
};

use super::{
    hostfile::load_host_file, init::Plan, init_files, key_folder::write_new, outcome::Failure, sources::unreadable,
};

/// What a new host gets beside its certificate.
pub(super) struct HostFiles {
    /// Its host file.
    text: String,
    /// Gossip keys by the names that it has for them.
    gossip_keys: Vec<(String, String)>,
}

impl HostFiles {
    /// Those of a host with this name and address, in the cluster of the host whose file is given.
    pub(super) fn like(like: &Path, host: &HostName, address: IpAddr) -> Result<Self, Failure> {
        let known = load_host_file(like)?;
        let gossip_keys =
            (1_usize..).zip(&known.gossip_keys).map(|(number, path)| -> Result<(String, String), Failure> {
                let name = if number == 1 { "gossip.key".to_owned() } else { format!("gossip-{number}.key") };
                Ok((name, fs::read_to_string(path).map_err(|error| unreadable(path, &error))?))
            });
        let gossip_keys = gossip_keys.collect::<Result<Vec<_>, _>>()?;
        let names: Vec<&str> = gossip_keys.iter().map(|(name, _)| name.as_str()).collect();
        let text = text(&known, host, address, &names);
        // Such as a voter's name with another address than the voters have.
        yaml::parse_host(&Source { name: "holdfast.yaml", text: &text }).map_err(Failure::Findings)?;
        Ok(Self { text, gossip_keys })
    }

    /// Writes them into a folder that is there.
    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        write_new(&folder.join("holdfast.yaml"), &self.text, 0o644)?;
        self.gossip_keys.iter().try_for_each(|(name, key)| write_new(&folder.join(name), key, 0o600))
    }
}

fn text(known: &HostFile, host: &HostName, address: IpAddr, gossip_keys: &[&str]) -> String {
    let plan = Plan {
        cluster: known.cluster.clone(),
        hosts: BTreeMap::from([(host.clone(), address)]),
        voters: known.voters.clone(),
        witnesses: BTreeSet::new(),
        port: known.listen.port(),
        api_port: known.api.map(|api| api.port()).unwrap_or_default(),
    };
    let made = init_files::host_file(&plan, host);
    let lines = made.lines().filter(|line| known.api.is_some() || !line.starts_with("api:"));
    let mut text: String = lines.map(|line| format!("{line}\n")).collect();
    text = text.replace("made by `holdfast init`", "made by `holdfast host certificate` with --like");
    text = text.replace("gossip_keys: [gossip.key]", &format!("gossip_keys: [{}]", gossip_keys.join(", ")));
    if known.timing != Timing::default() {
        // JSON in one line is YAML as well.
        let timing = serde_json::to_string(&known.timing).unwrap_or_default();
        text.push_str(&format!("# The same on every host of the cluster.\ntiming: {timing}\n"));
    }
    text
}
