//! Reads `hosts:`: labels and capacities of hosts, beyond what they report of themselves.

use std::collections::BTreeMap;

use super::{across::Seen, fields::Keys, guests, text::quoted, value::Value};
use crate::{
    names::{BadName, HostName},
    rules::HostDeclaration,
};

const HOST: Keys = Keys { known: &["labels", "capacity"], later: &[], renamed: &[] };

/// Most capacities of one host, and most demands of one guest: each is a dimension that placement counts.
const DIMENSIONS_MAX: usize = 16;
/// Longest name of a capacity, in bytes.
const DIMENSION_BYTES_MAX: usize = 63;
/// Largest amount: sums over ten thousand guests must not overflow.
const AMOUNT_MAX: u64 = 1 << 40;

/// Reads all hosts of a section.
pub(super) fn read(section: &Value<'_>, into: &mut BTreeMap<HostName, HostDeclaration>, seen: &mut Seen) {
    let first = |seen: &Seen, name: &HostName| seen.hosts.get(name).copied();
    seen.read_each(section, "host", into, first, |value, name, seen| {
        seen.hosts.insert(name.clone(), value.at);
        host(value)
    });
}

fn host(value: &Value<'_>) -> Option<HostDeclaration> {
    let fields = value.fields(&HOST)?;
    let labels = fields.or("labels", BTreeMap::new(), guests::labels);
    let capacity = fields.or("capacity", BTreeMap::new(), amounts);
    Some(HostDeclaration { labels: labels?, capacity: capacity? })
}

/// Reads amounts by the name of their dimension: what a host has, or what a guest takes.
pub(super) fn amounts(value: &Value<'_>) -> Option<BTreeMap<String, u64>> {
    let entries = value.map()?;
    if entries.len() > DIMENSIONS_MAX {
        let what = format!("{} has {} dimensions", quoted(value.name), entries.len());
        return value.wrong(what, format!("name at most {DIMENSIONS_MAX}"));
    }
    let read = entries.iter().map(|entry| Some((dimension(entry)?, entry.number(0..=AMOUNT_MAX)?)));
    let read: Vec<Option<(String, u64)>> = read.collect();
    read.into_iter().collect()
}

/// Reads the name of a capacity.
pub(super) fn dimension(entry: &Value<'_>) -> Option<String> {
    // It would be a capacity of its own, which no guest takes.
    if entry.name == "memory" {
        let hint = "a host's is `memory_mib: 65536`, a guest's is the `memory` of its `qemu`";
        entry.findings.hint(entry.at, "`memory` is no capacity: memory is counted in MiB, as `memory_mib`", hint);
        return None;
    }
    let name: Result<HostName, BadName> = entry.name.parse();
    if name.is_ok() && entry.name.len() <= DIMENSION_BYTES_MAX {
        return Some(entry.name.to_owned());
    }
    entry.findings.hint(
        entry.at,
        format!("{} cannot be the name of a capacity", quoted(entry.name)),
        "letters, digits, `-`, `_` and `.`, such as `gpu` or `iops`",
    );
    None
}
