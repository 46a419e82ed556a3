//! Reads what operators write: cluster policies and the host file, with every mistake shown where it stands.
//!
//! Text becomes a tree that knows the line and column of every key and value ([`tree`]), and hand-written readers
//! check that tree and collect findings. Deriving the readers would be shorter, but a derived reader stops at the
//! first mistake, and an operator wants all of them at once.

mod across;
mod alerts;
mod capacities;
mod cluster;
mod cpu;
mod device;
mod diff;
mod fencing;
mod fields;
mod finding;
mod guests;
mod hasty;
mod host;
mod hosts;
mod ladder;
mod outside_device;
mod policy;
mod probes;
mod qemu;
mod rules;
mod text;
mod tree;
mod tuning;
mod value;
mod virtual_device;
mod vsock;

#[cfg(test)]
mod tests;

pub use self::{diff::diff, finding::Finding, text::nearest};

use self::{
    across::Seen,
    fields::Keys,
    finding::{Findings, Place},
    value::Value,
};
use crate::{
    hostfile::{HostFile, IdentityFile},
    model::Policies,
};

/// Most bytes of YAML that one call reads, all sources together. Policies are replicated as one entry; ten thousand guests need
/// about half of this.
pub const INPUT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// One file's text and the name under which its mistakes are shown.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// File name, for people.
    pub name: &'a str,
    /// The text.
    pub text: &'a str,
}

/// What may stand at the top of a policy file.
const TOP: Keys = Keys {
    known: &["guests", "policies", "fencing", "alerts", "hosts", "rules", "cluster"],
    later: &[],
    renamed: &[
        ("services", "services belong to a policy: write them below one in `policies`"),
        ("watch", GUEST_CONFIG),
        ("allow", GUEST_CONFIG),
        ("heartbeat", GUEST_CONFIG),
    ],
};

/// What stands at the top of `/etc/holdfast/guest.yaml` in guests.
const GUEST_CONFIG: &str = "the config of the agent in a guest is checked by `holdfast-guest --check --config FILE`";

/// Reads the files of `holdfast apply` as one declaration. Their sections merge; a name may be declared once.
///
/// # Errors
/// All mistakes of all files, in the order of the files, from top to bottom.
pub fn parse(sources: &[Source<'_>]) -> Result<Policies, Vec<Finding>> {
    parse_with_doubts(sources).map(|(policies, _)| policies)
}

/// The same, and what may not be meant though it is no mistake: a line each, which begins with `?` and the place.
///
/// # Errors
/// Those of [`parse`].
pub fn parse_with_doubts(sources: &[Source<'_>]) -> Result<(Policies, Vec<String>), Vec<Finding>> {
    let findings = Findings::new(sources);
    let mut policies = Policies::default();
    let mut seen = Seen::default();
    if fits(sources, &findings) {
        for (file, source) in sources.iter().enumerate() {
            for document in tree::read(file, source.text, &findings) {
                section(&Value::root(&document, &findings), &mut policies, &mut seen);
            }
        }
        across::check(&seen, &findings);
        rules::settle(&mut policies, &seen, &findings);
        cluster::check(&policies, &seen, &findings);
        capacities::check(&policies, &seen, &findings);
    }
    let doubts = findings.doubts();
    findings.into_result((policies, doubts))
}

/// Reads one document of one policy file into `policies`.
fn section(root: &Value<'_>, policies: &mut Policies, seen: &mut Seen) {
    let Some(top) = root.fields(&TOP) else { return };
    if let Some(value) = top.section("guests") {
        guests::read(&value, &mut policies.guests, seen);
    }
    if let Some(value) = top.section("policies") {
        policy::read(&value, &mut policies.policies, seen);
    }
    if let Some(value) = top.section("fencing") {
        fencing::read(&value, &mut policies.fencing, seen);
    }
    if let Some(value) = top.section("hosts") {
        hosts::read(&value, &mut policies.hosts, seen);
    }
    if let Some(value) = top.section("rules") {
        rules::read(&value, &mut policies.rules, seen);
    }
    if let Some(value) = top.section("cluster") {
        cluster::read(&value, &mut policies.cluster, seen);
    }
    if let Some(value) = top.section("alerts") {
        alerts::read(&value, &mut policies.alerts, seen);
    }
}

/// Reads a host file.
///
/// # Errors
/// All its mistakes, from top to bottom.
pub fn parse_host(source: &Source<'_>) -> Result<HostFile, Vec<Finding>> {
    parse_one(source, "host file", "see examples/host.yaml", host::read)
}

/// Reads an operator's identity file.
///
/// # Errors
/// All its mistakes, from top to bottom.
pub fn parse_identity(source: &Source<'_>) -> Result<IdentityFile, Vec<Finding>> {
    parse_one(source, "identity file", "`holdfast operator add` makes one", host::identity)
}

/// Reads a file that is one document.
fn parse_one<T>(
    source: &Source<'_>,
    kind: &str,
    example: &str,
    read: impl FnOnce(&Value<'_>) -> Option<T>,
) -> Result<T, Vec<Finding>> {
    let sources = [*source];
    let findings = Findings::new(&sources);
    let mut parsed = None;
    if fits(&sources, &findings) {
        let documents = tree::read(0, source.text, &findings);
        match documents.as_slice() {
            [document] => parsed = read(&Value::root(document, &findings)),
            // A syntax error has been reported already.
            [] if !findings.is_empty() => {}
            [] => findings.hint(Place::start(0), format!("the {kind} is empty"), example),
            [_, second, ..] => {
                findings.add(second.place, format!("the {kind} is one YAML document; here begins a second one"));
            }
        }
    }
    match parsed {
        Some(parsed) => findings.into_result(parsed),
        None => Err(findings.finish()),
    }
}

/// Whether the input is small enough to be read at all.
fn fits(sources: &[Source<'_>], findings: &Findings<'_>) -> bool {
    let mut bytes = 0_usize;
    for (file, source) in sources.iter().enumerate() {
        bytes = bytes.saturating_add(source.text.len());
        if bytes > INPUT_BYTES_MAX {
            findings.hint(
                Place::start(file),
                format!("the input is larger than {INPUT_BYTES_MAX} bytes; nothing of it was read"),
                "look whether this is the file that you mean: ten thousand guests need half of that, all files together",
            );
            return false;
        }
    }
    true
}
