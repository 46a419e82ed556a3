//! What a failed operation leads to, where a scenario says so by operation: rewritten into the situation that follows.
//!
//! Holdfast has one answer to each kind of failure (a guest that fails is started again, one that cannot be stopped waits
//! for a person, who has its host switched off where that can be done). What a scenario wants instead is what an operator
//! would then have said: leave it alone, stop it, put the host on standby, switch the host off.

use super::{
    format::{Op, Scenario, Vm},
    map::{Fencing, fencing},
};

/// What failures can lead to; others are not guessed at. Nothing that a guest does could be demoted, so that `demote` means what
/// is done where nothing is said.
pub const KNOWN: &[&str] = &[
    "ignore",
    "block",
    "stop",
    "restart",
    "standby",
    "fence",
    "stonith",
    "restart-container",
    "migrate",
    "relocate",
    "demote",
];

/// What is to become of a guest that was found on several hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundTwice {
    /// A person looks after it.
    LeftAlone,
    /// It is stopped everywhere, and stays so.
    Stopped,
    /// It runs on one host: what Holdfast does by itself.
    RunsOnce,
}

/// What a word for it means, if it is known.
#[must_use]
pub fn found_twice(word: &str) -> Option<FoundTwice> {
    match word.replace('-', "_").as_str() {
        "block" => Some(FoundTwice::LeftAlone),
        "stop_only" => Some(FoundTwice::Stopped),
        "stop_start" | "stop_unexpected" => Some(FoundTwice::RunsOnce),
        _ => None,
    }
}

/// The scenario after what its failures have led to.
#[must_use]
pub fn followed(scenario: &Scenario) -> Scenario {
    let mut followed = scenario.clone();
    let fenced = fencing(scenario) != Fencing::Nobody;
    for index in 0..followed.vms.len() {
        let Some(vm) = followed.vms.get_mut(index) else { continue };
        // Where it is active, it is.
        if vm.host.is_none() && vm.state.as_deref() != Some("stopped") {
            vm.host = vm.active_on.first().cloned();
        }
        match vm.multiple_active.as_deref().filter(|_| vm.active_on.len() > 1).and_then(found_twice) {
            Some(FoundTwice::LeftAlone) => vm.managed = Some(false),
            Some(FoundTwice::Stopped) => vm.desired = Some("stopped".to_owned()),
            Some(FoundTwice::RunsOnce) | None => {}
        }
        for (host, then) in failures(vm) {
            match then.as_str() {
                "ignore" => ignored(vm),
                "block" if !stop_failed(vm) => vm.managed = Some(false),
                "stop" if !stop_failed(vm) => vm.desired = Some("stopped".to_owned()),
                "standby" | "fence" | "stonith" => {
                    let state = if then == "standby" { "standby" } else { "failed" };
                    let is_up = |state: &str| ["up", "standby"].contains(&state);
                    let leaves = |known: &str| fenced && (is_up(known) || known == "shutting-down");
                    let may_be = |known: &str| if state == "standby" { is_up(known) } else { leaves(known) };
                    let known = followed.hosts.iter_mut().find(|known| Some(&known.name) == host.as_ref());
                    if let Some(known) = known.filter(|known| may_be(&known.state)) {
                        state.clone_into(&mut known.state);
                    }
                }
                _ => {}
            }
        }
    }
    followed
}

/// Where something failed, and what that is to lead to.
fn failures(vm: &Vm) -> Vec<(Option<String>, String)> {
    let mut found: Vec<_> = vm
        .failed_ops
        .iter()
        .filter(|op| op.has_failed())
        .filter_map(|op| Some((place(vm, op), leads_to(vm, op)?)))
        .collect();
    // A guest that has failed without a word about an operation was found to have failed.
    if found.is_empty() && vm.failed_ops.is_empty() && vm.state.as_deref() == Some("failed") {
        found.extend(vm.on_fail.get("monitor").map(|then| (vm.host.clone(), then.clone())));
    }
    found
}

/// Where an operation was carried out.
fn place(vm: &Vm, op: &Op) -> Option<String> {
    op.host.clone().or_else(|| vm.host.clone())
}

/// What an operation that has failed is to lead to, if anything. Where nothing is said of a stop, whoever is called because of it has
/// the host switched off: nothing else ends that wait.
fn leads_to(vm: &Vm, op: &Op) -> Option<String> {
    let unsaid = || (op.op == "stop" && vm.managed != Some(false)).then(|| "fence".to_owned());
    vm.on_fail.get(&op.op).cloned().or_else(unsaid)
}

/// Whether a stop of the guest has failed.
#[must_use]
pub fn stop_failed(vm: &Vm) -> bool {
    vm.failed_ops.iter().any(|op| op.op == "stop" && op.has_failed())
}

/// As if the operation had succeeded: what nobody minds is not counted either.
fn ignored(vm: &mut Vm) {
    let stopped = stop_failed(vm);
    let is_ignored = |op: &&Op| vm.on_fail.get(&op.op).map(String::as_str) == Some("ignore");
    let places: Vec<String> = vm.failed_ops.iter().filter(is_ignored).filter_map(|op| place(vm, op)).collect();
    vm.failures.retain(|host, _| !places.contains(host));
    vm.failed_ops.retain(|op| vm.on_fail.get(&op.op).map(String::as_str) != Some("ignore"));
    if vm.state.as_deref() == Some("failed") && !stopped {
        vm.state = Some("running".to_owned());
    }
}
