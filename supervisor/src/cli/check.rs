//! `holdfast check`: every mistake of policy files and host files, without asking anybody.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use holdfast_policies::yaml::{self, Finding, Source};
use serde_json::json;

use super::{
    hostfile::load_host_file,
    outcome::{Failure, Reply},
    sources::{SourceFile, collect},
};
use crate::{
    causes::with_causes,
    datagram::Keyring,
    pki::{self, TlsFiles},
};

/// Keys that stand at the top of every host file and of no policy file. Both may have `cluster`.
const HOST_KEYS: [&str; 5] = ["host", "listen", "voters", "tls", "gossip_keys"];

/// Checks policy files, all together, and host files, each by itself.
pub(super) fn check(given: &[PathBuf]) -> Result<Reply, Failure> {
    let files = collect(given)?;
    let (hosts, policies): (Vec<&SourceFile>, Vec<&SourceFile>) =
        files.iter().partition(|file| is_host_file(&file.text));
    let mut findings: Vec<Finding> =
        hosts.iter().filter_map(|file| yaml::parse_host(&file.source()).err()).flatten().collect();
    let sources: Vec<Source<'_>> = policies.iter().map(|file| file.source()).collect();
    let mut notes = Vec::new();
    match yaml::parse_with_doubts(&sources) {
        Ok((policies, doubts)) => notes.extend(doubts.into_iter().chain(policies.unmet())),
        Err(mistakes) => findings.extend(mistakes),
    }
    if !findings.is_empty() {
        return Err(Failure::Findings(findings));
    }
    if !policies.is_empty() && policies.iter().all(|file| file.is_blank()) {
        let names: Vec<&str> = policies.iter().map(|file| file.path.as_str()).collect();
        notes.push(format!("? nothing is declared in {}: `apply` refuses that", names.join(", ")));
    }
    notes.extend(hosts.iter().flat_map(|file| unusable(file)));
    let names: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let told: String = notes.iter().map(|note| format!("{note}\n")).collect();
    let text = format!("{told}no mistakes in {}\n", names.join(", "));
    Ok(Reply { text, json: json!({ "files": names, "findings": [], "notes": notes }), code: 0 })
}

/// Why the certificate and the keys that a host file names cannot be used. That is no mistake in it: it may be looked at where they
/// are not.
fn unusable(file: &SourceFile) -> Vec<String> {
    let Ok(host) = load_host_file(Path::new(&file.path)) else { return Vec::new() };
    let files = TlsFiles { authority: host.tls.ca, certificate: host.tls.certificate, key: host.tls.key };
    let owner = match pki::own_host(&files) {
        Ok(own) if own.host == host.host => None,
        Ok(own) => Some(format!("the certificate is {}'s, but the host file says {}", own.host, host.host)),
        Err(error) => Some(with_causes(&error)),
    };
    let tls = pki::server_config(&files).err().map(|error| with_causes(&error));
    let keys = Keyring::load(&host.gossip_keys).err().map(|error| with_causes(&error));
    // One missing file may be told twice.
    let reasons: BTreeSet<String> = [owner, tls, keys].into_iter().flatten().collect();
    reasons.into_iter().map(|why| format!("? {}: {why}", file.path)).collect()
}

fn is_host_file(text: &str) -> bool {
    text.lines().any(|line| line.split_once(':').is_some_and(|(key, _)| HOST_KEYS.contains(&key)))
}
