//! Guests that a situation forbids on every host that is up.
//!
//! Holdfast moves what a rule forbids where it runs, and never just stops it: one that has nowhere to go runs on. Where a scenario
//! says of every host that the guest must never run there, an operator would have wanted it stopped.

use holdfast_policies::state::Wanted;
use serde_json::Value;

use super::{
    build,
    format::{Host, Scenario, Vm},
    map,
};

/// The situation with those wanted stopped.
#[must_use]
pub fn stopped(mut scenario: Scenario) -> Scenario {
    let ignores = scenario.cluster.no_quorum_policy.as_deref() == Some("ignore");
    if scenario.cluster.quorum == Some(Value::Bool(false)) && !ignores {
        return scenario;
    }
    let forbidden: Vec<String> =
        scenario.vms.iter().filter(|vm| is_forbidden(&scenario, vm)).map(|vm| vm.name.clone()).collect();
    for vm in scenario.vms.iter_mut().filter(|vm| forbidden.contains(&vm.name)) {
        vm.desired = Some("stopped".to_owned());
    }
    scenario
}

/// Whether no host that is up may run it. What is somewhere else waits for what becomes of its host.
fn is_forbidden(scenario: &Scenario, vm: &Vm) -> bool {
    let up: Vec<&Host> = scenario.hosts.iter().filter(|host| ["up", "spare"].contains(&host.state.as_str())).collect();
    let is_elsewhere = vm.host.as_ref().is_some_and(|at| up.iter().all(|host| host.name != *at));
    let looked_after = build::wanted(scenario, vm) == Wanted::Running;
    looked_after && !is_elsewhere && !up.is_empty() && up.iter().all(|host| map::is_banned(scenario, vm, &host.name))
}
