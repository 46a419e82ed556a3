//! A guest as an operator would have declared it: its size, its priority, what it needs, and whether it gives way.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_policies::{
    model::{GuestDeclaration, QemuDefinition},
    rules::GuestNeeds,
};

use super::{
    super::format::{self, Scenario, Vm},
    sizes::{MEMORY, MEMORY_SIZE, is_sized, processors, thousandths, whole},
    weights::{ABSOLUTE, INFINITE, weight},
};

pub(super) fn guest(scenario: &Scenario, vm: &Vm) -> GuestDeclaration {
    let mut demand: BTreeMap<String, f64> = vm.demand.clone();
    let memory = demand.remove(MEMORY).or(vm.memory_mib).unwrap_or(0.0);
    if is_sized(scenario) {
        demand.insert(MEMORY_SIZE.to_owned(), memory);
    }
    let demand: BTreeMap<String, u64> =
        demand.iter().map(|(name, amount)| (name.clone(), thousandths(*amount))).collect();
    let bare = QemuDefinition::bare(u32::try_from(whole(memory)).unwrap_or(u32::MAX));
    GuestDeclaration {
        labels: BTreeMap::from([("app".to_owned(), "guest".to_owned())]),
        priority: priority(scenario, vm),
        address: None,
        qemu: QemuDefinition { cpus: vm.cpu.map_or(bare.cpus, processors), ..bare },
        needs: needs(scenario, vm, demand),
    }
}

/// The rank among the scenario's priorities, which may be negative or broken. Of equals, one that gives way comes last.
fn priority(scenario: &Scenario, vm: &Vm) -> u32 {
    let mine = vm.priority.unwrap_or(0.0);
    let lower: BTreeSet<u64> = scenario
        .vms
        .iter()
        .map(|other| other.priority.unwrap_or(0.0))
        .filter(|other| *other < mine)
        .map(f64::to_bits)
        .collect();
    let rank = u32::try_from(lower.len()).unwrap_or(u32::MAX).min(1_000_000);
    100 + 2 * rank + u32::from(!gives_way_apart(scenario, vm))
}

fn needs(scenario: &Scenario, vm: &Vm, demand: BTreeMap<String, u64>) -> GuestNeeds {
    let default = GuestNeeds::default();
    let said = vm.stickiness.as_ref().and_then(weight);
    // What does not go back is not moved to where it would be liked better either.
    let stickiness = match (said, vm.failback) {
        (Some(said), _) => said,
        (None, Some(false)) => ABSOLUTE / 10,
        (None, _) => default.stickiness,
    };
    let hosts = u32::try_from(scenario.hosts.len()).unwrap_or(u32::MAX);
    let per_host = vm.max_failures_per_host.as_ref().and_then(weight).and_then(|n| u32::try_from(n).ok());
    GuestNeeds {
        demand,
        stickiness,
        live_migration: vm.live_migratable.unwrap_or(true),
        failback: vm.failback.unwrap_or(false),
        start_tries: match (vm.max_restart, per_host) {
            (Some(again), _) => again.saturating_add(1),
            (None, Some(per_host)) => per_host.max(1),
            (None, None) => default.start_tries,
        },
        relocations: vm.max_relocate.or(per_host.map(|_| hosts.saturating_sub(1))),
        stop_timeout: default.stop_timeout,
        best_effort: gives_way(scenario, vm),
    }
}

/// Whether a running guest gives way to those of higher priority: where the scenario ranks its guests and looks at one
/// situation, that is what the ranks are for, and so is saying which of those that are kept apart gives way. Not while it may have
/// another place to move to.
fn gives_way(scenario: &Scenario, vm: &Vm) -> bool {
    let rank = |vm: &Vm| vm.priority.unwrap_or(0.0);
    let is_below = || scenario.vms.iter().any(|other| rank(other) > rank(vm));
    scenario.mode == format::Kind::Snapshot && !vm.moves_first && (is_below() || gives_way_apart(scenario, vm))
}

/// Whether the guest is the one that gives way where a rule of a situation requires guests to be apart, or does not run without
/// that one.
fn gives_way_apart(scenario: &Scenario, vm: &Vm) -> bool {
    if scenario.mode != format::Kind::Snapshot {
        return false;
    }
    let mut found: BTreeSet<&str> = scenario.rules.iter().filter_map(who_gives_way).collect();
    let mut known = 0;
    // Each round but the last adds a guest.
    while found.len() > known {
        known = found.len();
        for rule in scenario.rules.iter().filter(|rule| rule.kind == "order") {
            let stops_first = rule.required.unwrap_or(true) && rule.symmetrical.unwrap_or(true);
            let (first, then) = (rule.first.as_deref(), rule.then.as_deref());
            if let (true, Some(then)) = (stops_first && first.is_some_and(|first| found.contains(first)), then) {
                found.insert(then);
            }
        }
    }
    found.contains(vm.name.as_str())
}

/// Who gives way in a rule that requires guests to be apart.
fn who_gives_way(rule: &format::Rule) -> Option<&str> {
    let said = rule.weight.as_ref().and_then(weight);
    let required = rule.required.unwrap_or_else(|| said.is_none_or(|weight| weight.abs() >= INFINITE));
    let apart = if said.is_some_and(|weight| weight < 0) { "together" } else { "apart" };
    rule.dependent.as_deref().filter(|_| required && rule.kind == apart)
}
