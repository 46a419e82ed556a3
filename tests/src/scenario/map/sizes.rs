//! How much hosts have and guests ask for.
//!
//! - Resources other than memory may have fractions; they are counted in thousandths.
//! - Capacities weigh in the choice of a host only where the scenario says that its placement balances; elsewhere they are limits
//!   alone.
//! - How many processors a guest has is no demand: hosts may have fewer than all their guests together. They are counted
//!   where guests demand them by name, and tell how busy a host is where not. So it is with the memory of guests in a
//!   timeline: hosts take more than they have where no host has enough, and sooner the emptier ones.

use std::collections::BTreeMap;

use holdfast_policies::rules::{CapacitySettings, HostDeclaration};
use serde_json::Value;

use super::super::format::{self, Scenario};

/// Memory of a host whose memory is not limited, in MiB.
const UNLIMITED_MIB: u64 = 1 << 40;
/// Memory, as a demand and as what a host has.
pub(super) const MEMORY: &str = "memory_mib";
/// Memory that is only weighed, as what a host has.
pub(super) const MEMORY_SIZE: &str = "memory_size";
/// Words for processors.
const PROCESSORS: &[&str] = &["cpu", "cpus"];
/// Processor cores of a host of which nothing is said.
const CORES: u32 = 64;

pub(super) fn capacities(scenario: &Scenario) -> BTreeMap<String, CapacitySettings> {
    let sized = is_sized(scenario).then(|| (MEMORY_SIZE.to_owned(), CapacitySettings { hard: false, weight: 100 }));
    let placement = scenario.cluster.placement.as_ref().and_then(Value::as_str);
    if placement.is_some_and(|text| text.contains("balance")) {
        return sized.into_iter().collect();
    }
    // Memory and processors weigh without a declaration too.
    let named = scenario.hosts.iter().flat_map(|host| host.capacity.keys());
    let named = named.filter(|name| ![MEMORY, "cpus"].contains(&name.as_str()));
    named.map(|name| (name.clone(), CapacitySettings { hard: true, weight: 0 })).chain(sized).collect()
}

pub(super) fn host_declaration(scenario: &Scenario, host: &format::Host) -> HostDeclaration {
    let counted = host.capacity.iter().filter(|(name, _)| *name != MEMORY && is_counted(scenario, name));
    let counted = counted.map(|(name, amount)| (name.clone(), thousandths(*amount)));
    let memory = host.capacity.get(MEMORY).filter(|_| is_sized(scenario));
    let sized = memory.map(|mib| (MEMORY_SIZE.to_owned(), thousandths(*mib)));
    HostDeclaration { capacity: counted.chain(sized).collect(), ..HostDeclaration::default() }
}

/// Memory for guests of a host, in MiB.
#[must_use]
pub fn host_memory(scenario: &Scenario, host: &format::Host) -> u64 {
    let memory = host.capacity.get(MEMORY).filter(|_| !is_sized(scenario));
    memory.map_or(UNLIMITED_MIB, |mib| whole(*mib))
}

/// Whether the memory of hosts is only weighed: what happens to guests is told that have a size and demand nothing.
pub(super) fn is_sized(scenario: &Scenario) -> bool {
    let is_said = scenario.hosts.iter().any(|host| host.capacity.contains_key(MEMORY));
    is_said && scenario.mode == format::Kind::Timeline && !is_demanded(scenario, MEMORY)
}

/// Processor cores of a host.
#[must_use]
pub fn host_cores(scenario: &Scenario, host: &format::Host) -> u32 {
    let mut told = PROCESSORS.iter().filter(|name| !is_counted(scenario, name));
    let named = told.find_map(|name| host.capacity.get(*name));
    named.map_or(CORES, |cores| processors(*cores))
}

/// Whether a host can be full of what has this name.
fn is_counted(scenario: &Scenario, name: &str) -> bool {
    !PROCESSORS.contains(&name) || is_demanded(scenario, name)
}

/// Whether a guest demands what has this name, from the beginning or later.
fn is_demanded(scenario: &Scenario, name: &str) -> bool {
    let demanded = || scenario.vms.iter().any(|vm| vm.demand.contains_key(name));
    let sized = || {
        scenario.events.iter().filter_map(|event| event.more.get("demand")?.as_object()).any(|it| it.contains_key(name))
    };
    demanded() || sized()
}

pub(super) fn processors(amount: f64) -> u32 {
    u32::try_from(whole(amount.ceil())).unwrap_or(u32::MAX).max(1)
}

pub(super) fn thousandths(amount: f64) -> u64 {
    whole((amount * 1_000.0).round())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what fits")]
pub(super) fn whole(amount: f64) -> u64 {
    amount.clamp(0.0, 1e15) as u64
}
