//! `holdfast init`: keys, certificates and host files of a new cluster, one folder per host.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use holdfast_policies::names::HostName;
use serde_json::json;

use super::{
    super::{
        datagram::create_key,
        desk::voters_warning,
        pki::{self, Authority},
    },
    init_files,
    key_folder::{make_folder, must_be_empty, write_new},
    making::Init,
    outcome::{Failure, Reply},
};
use crate::causes::with_causes;

/// Most voters: more make every commit slower and no cluster safer.
const VOTERS_MAX: usize = 7;
/// Folder of the certificate authority; no host may be called so.
const AUTHORITY: &str = "authority";
/// The authority's certificate in its folder.
pub(super) const AUTHORITY_CERTIFICATE: &str = "ca.pem";
/// The authority's key in its folder.
pub(super) const AUTHORITY_KEY: &str = "ca.key";

/// A cluster as it is to be.
pub(super) struct Plan {
    /// Its id.
    pub(super) cluster: String,
    /// All hosts.
    pub(super) hosts: BTreeMap<HostName, IpAddr>,
    /// Those that vote.
    pub(super) voters: BTreeMap<HostName, SocketAddr>,
    /// Those that run no guests.
    pub(super) witnesses: BTreeSet<HostName>,
    /// Port of gossip and calls.
    pub(super) port: u16,
    /// Port of the read-only pages.
    pub(super) api_port: u16,
}

/// Makes a cluster's files.
pub(super) fn init(order: &Init) -> Result<Reply, Failure> {
    let plan = plan(order).map_err(|why| Failure::Usage(format!("error: {why}")))?;
    let folder = &order.out;
    let fail = |error: &dyn std::error::Error| {
        Failure::Failed(format!("cannot make {}: {}", folder.display(), with_causes(error)))
    };
    must_be_empty(folder)?;
    let authority = pki::make_authority().map_err(|error| fail(&error))?;
    // Issued before anything is written, because a name may be refused.
    let issued = plan.hosts.keys().map(|host| Ok((host, pki::issue(&authority, host)?))).collect::<Result<Vec<_>, _>>();
    let issued = issued.map_err(|error: pki::PkiError| fail(&error))?;
    write_authority(&folder.join(AUTHORITY), &authority).map_err(|error| fail(&error))?;
    for (host, certificate) in issued {
        write_host(&plan, folder, host, &authority, &certificate).map_err(|error| fail(&error))?;
    }
    write_gossip_keys(&plan, folder)
        .map_err(|why| Failure::Failed(format!("cannot make {}: {why}", folder.display())))?;
    Ok(told(&plan, folder))
}

fn plan(order: &Init) -> Result<Plan, String> {
    let hosts: BTreeMap<HostName, IpAddr> = order.hosts.iter().cloned().collect();
    let addresses: BTreeSet<IpAddr> = hosts.values().copied().collect();
    if hosts.len() != order.hosts.len() || addresses.len() != hosts.len() {
        return Err("two hosts have the same name or the same address".to_owned());
    }
    if hosts.keys().any(|host| host.as_str() == AUTHORITY) {
        return Err(format!("no host can be called {AUTHORITY}: the certificate authority has that folder"));
    }
    if order.port == order.api_port {
        return Err(format!("--port and --api-port are both {}", order.port));
    }
    let names = if order.voters.is_empty() { default_voters(order) } else { order.voters.clone() };
    let mut voters = BTreeMap::new();
    for name in &names {
        let address = *hosts.get(name).ok_or_else(|| format!("the voter {name} is not among the hosts"))?;
        voters.insert(name.clone(), SocketAddr::new(address, order.port));
    }
    if voters.len() != names.len() || voters.len() % 2 == 0 || voters.len() > VOTERS_MAX {
        return Err(format!("there are {} voters; 1, 3, 5 or 7 different ones can be", names.len()));
    }
    if let Some(mute) = order.witnesses.iter().find(|witness| !voters.contains_key(*witness)) {
        return Err(format!("the witness {mute} has no vote, so it would do nothing; name it in --voters"));
    }
    let cluster = format!("{:016x}", rand::random::<u64>());
    let witnesses = order.witnesses.iter().cloned().collect();
    Ok(Plan { cluster, hosts, voters, witnesses, port: order.port, api_port: order.api_port })
}

/// All hosts, or as many of the first as make an odd number.
fn default_voters(order: &Init) -> Vec<HostName> {
    let most = order.hosts.len().min(VOTERS_MAX);
    let odd = if most.is_multiple_of(2) { most.saturating_sub(1) } else { most };
    order.hosts.iter().take(odd).map(|(name, _)| name.clone()).collect()
}

fn write_authority(folder: &Path, authority: &Authority) -> io::Result<()> {
    make_folder(folder)?;
    write_new(&folder.join(AUTHORITY_CERTIFICATE), authority.certificate_pem(), 0o644)?;
    write_new(&folder.join(AUTHORITY_KEY), &authority.key_pem(), 0o600)
}

fn write_host(
    plan: &Plan,
    out: &Path,
    host: &HostName,
    authority: &Authority,
    certificate: &pki::Issued,
) -> io::Result<()> {
    let folder = out.join(host.as_str());
    make_folder(&folder)?;
    write_new(&folder.join("holdfast.yaml"), &init_files::host_file(plan, host), 0o644)?;
    write_new(&folder.join("ca.pem"), authority.certificate_pem(), 0o644)?;
    write_new(&folder.join(format!("{host}.pem")), &certificate.certificate_pem, 0o644)?;
    write_new(&folder.join(format!("{host}.key")), &certificate.key_pem, 0o600)?;
    // Raft node ids follow the order of the voters' names, so that every voter knows those of all (R23).
    match plan.voters.keys().position(|voter| voter == host) {
        Some(position) => write_new(&folder.join("bootstrap"), &init_files::bootstrap(position), 0o600),
        None => Ok(()),
    }
}

/// One key for all hosts.
fn write_gossip_keys(plan: &Plan, out: &Path) -> Result<(), String> {
    let mut made: Option<String> = None;
    for host in plan.hosts.keys() {
        let path = out.join(host.as_str()).join("gossip.key");
        match &made {
            Some(key) => write_new(&path, key, 0o600).map_err(|error| error.to_string())?,
            None => {
                create_key(&path).map_err(|error| with_causes(&error))?;
                made = Some(fs::read_to_string(&path).map_err(|error| error.to_string())?);
            }
        }
    }
    Ok(())
}

fn told(plan: &Plan, folder: &Path) -> Reply {
    let voters: Vec<&str> = plan.voters.keys().map(HostName::as_str).collect();
    let hosts: Vec<&str> = plan.hosts.keys().map(HostName::as_str).collect();
    let (cluster, out) = (&plan.cluster, folder.display());
    // Of a single host it need not be said: there is none to decide about but itself.
    let few = voters_warning(plan.voters.len()).filter(|_| hosts.len() > 1);
    let note = few.as_ref().map(|why| {
        format!(
            "\nNote: {why}. Make it three: one that votes and runs no guests may be a small machine (--host NAME=IP --witness NAME).\n"
        )
    });
    let text = format!(
        "Made cluster {cluster} in {out}: hosts {}; voters {}.\n{}\n\
         {out}/authority  is the certificate authority: keep its key off the hosts, where few can read it\n\
         {out}/HOST       belongs on each host as /etc/holdfast\n\n\
         Then, on every host, with the units of examples/packaging: `systemctl enable --now holdfast-guard holdfast`. On one of\n\
         them `holdfast apply DIR` makes your policies those of the cluster.\n",
        hosts.join(", "),
        voters.join(", "),
        note.unwrap_or_default(),
    );
    let witnesses: Vec<&str> = plan.witnesses.iter().map(HostName::as_str).collect();
    let json = json!({
        "cluster": cluster, "out": out.to_string(), "hosts": hosts, "voters": voters, "witnesses": witnesses, "note": few,
    });
    Reply { text, json, code: 0 }
}
