//! Reads `cluster: { capacities: … }`: which capacities of hosts are hard, and how much each weighs where a host is chosen.

use std::collections::BTreeMap;

use super::{
    across::Seen,
    fields::Keys,
    finding::Findings,
    hosts,
    text::{nearest, quoted},
    value::Value,
};
use crate::{
    model::Policies,
    plan::{CPUS, MEMORY},
    rules::CapacitySettings,
};

const CAPACITY: Keys = Keys { known: &["hard", "weight"], later: &[], renamed: &[] };

/// Most capacities of which is said how they count: four times as many as one host may have.
const CAPACITIES_MAX: usize = 64;
/// Largest weight, in percent: with it a tenth of one thing outweighs all of another, and sums of shares do not overflow.
const WEIGHT_MAX: u32 = 1_000;

/// Reads all of them.
pub(super) fn read(value: &Value<'_>, seen: &mut Seen) -> Option<BTreeMap<String, CapacitySettings>> {
    let entries = value.map()?;
    if entries.len() > CAPACITIES_MAX {
        let what = format!("{} names {} capacities", quoted(value.name), entries.len());
        return value.wrong(what, format!("name at most {CAPACITIES_MAX}"));
    }
    let read: Vec<Option<(String, CapacitySettings)>> = entries.iter().map(|entry| one(entry, seen)).collect();
    read.into_iter().collect()
}

fn one(entry: &Value<'_>, seen: &mut Seen) -> Option<(String, CapacitySettings)> {
    let name = hosts::dimension(entry)?;
    seen.capacities.push((name.clone(), entry.at));
    let fields = entry.fields(&CAPACITY)?;
    let default = CapacitySettings::default();
    let hard = fields.or("hard", default.hard, Value::boolean);
    let weight = fields.or("weight", default.weight, |v| v.number(0..=WEIGHT_MAX));
    let (hard, weight) = (hard?, weight?);
    if !hard && name == MEMORY {
        let what = format!("{} is always hard", quoted(&name));
        entry.findings.hint(fields.place("hard"), what, "take `hard` away; `weight` says how much memory counts");
        return None;
    }
    if !hard && weight == 0 {
        let what = format!("{} is neither hard nor has a weight, so that it counts for nothing", quoted(&name));
        entry.findings.hint(entry.at, what, "give it a `weight`, such as 100, or take it out of the files");
        return None;
    }
    Some((name, CapacitySettings { hard, weight }))
}

/// What is said of a capacity that no host has would come to nothing, silently.
pub(super) fn check(policies: &Policies, seen: &Seen, findings: &Findings<'_>) {
    let declared = || policies.hosts.values().flat_map(|host| host.capacity.keys()).map(String::as_str);
    for (name, place) in &seen.capacities {
        if [MEMORY, CPUS].contains(&name.as_str()) || declared().any(|known| known == name.as_str()) {
            continue;
        }
        let guess =
            nearest(name, declared().chain([MEMORY, CPUS])).map(|known| format!("; did you mean {}?", quoted(known)));
        let what = format!("no host has the capacity {}{}", quoted(name), guess.unwrap_or_default());
        findings.hint(*place, what, format!("add `hosts: {{ hv-a: {{ capacity: {{ {name}: 4 }} }} }}`"));
    }
}
