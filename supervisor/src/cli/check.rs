//! `holdfast check`: every mistake of policy files and host files, without asking anybody.

use std::path::PathBuf;

use holdfast_policies::{
    model::Policies,
    yaml::{self, Finding, Source},
};
use serde_json::json;

use super::{
    outcome::{Failure, Reply},
    sources::{SourceFile, collect},
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
    let parsed = yaml::parse(&sources);
    let notes = parsed.as_ref().map(Policies::unmet).unwrap_or_default();
    findings.extend(parsed.err().into_iter().flatten());
    if !findings.is_empty() {
        return Err(Failure::Findings(findings));
    }
    let names: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let told: String = notes.iter().map(|note| format!("{note}\n")).collect();
    let text = format!("{told}no mistakes in {}\n", names.join(", "));
    Ok(Reply { text, json: json!({ "files": names, "findings": [], "notes": notes }), code: 0 })
}

fn is_host_file(text: &str) -> bool {
    text.lines().any(|line| line.split_once(':').is_some_and(|(key, _)| HOST_KEYS.contains(&key)))
}
