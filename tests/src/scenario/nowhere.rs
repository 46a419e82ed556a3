//! Guests that a situation forbids on every host that is up, and those that run without one that they need.
//!
//! Holdfast moves what a rule forbids where it runs, and never just stops it: one that has nowhere to go runs on. Where a scenario
//! says of every host that the guest must never run there, an operator would have wanted it stopped.

use holdfast_policies::state::Wanted;
use serde_json::Value;

use super::{
    build,
    dependents::yields,
    format::{Host, Rule, Scenario, Vm},
    map,
};

/// The situation with those wanted stopped.
#[must_use]
pub fn stopped(mut scenario: Scenario) -> Scenario {
    let ignores = scenario.cluster.no_quorum_policy.as_deref() == Some("ignore");
    if scenario.cluster.quorum == Some(Value::Bool(false)) && !ignores {
        return scenario;
    }
    let forbidden: Vec<String> = scenario
        .vms
        .iter()
        .filter(|vm| is_forbidden(&scenario, vm) || lacks_its_first(&scenario, vm))
        .map(|vm| vm.name.clone())
        .collect();
    for vm in scenario.vms.iter_mut().filter(|vm| forbidden.contains(&vm.name)) {
        vm.desired = Some("stopped".to_owned());
    }
    scenario
}

/// Whether no host that is up may run it. What is on a host that is lost waits for what becomes of that.
fn is_forbidden(scenario: &Scenario, vm: &Vm) -> bool {
    let is_up = |host: &Host| ["up", "spare"].contains(&host.state.as_str());
    let is_alive = |host: &Host| is_up(host) || ["standby", "shutting-down"].contains(&host.state.as_str());
    let up: Vec<&Host> = scenario.hosts.iter().filter(|host| is_up(host)).collect();
    let at = vm.host.as_ref().and_then(|at| scenario.hosts.iter().find(|host| host.name == *at));
    let is_elsewhere = at.is_some_and(|host| !is_alive(host));
    if !is_looked_after(scenario, vm) || is_elsewhere || up.is_empty() {
        return false;
    }
    let set = with_its_firsts(scenario, vm);
    up.iter().all(|host| set.iter().any(|one| map::is_banned(scenario, one, &host.name)))
}

/// The guest, and those that it gives way to where rules require it to be with them: it runs only where all of them may.
fn with_its_firsts<'a>(scenario: &'a Scenario, vm: &'a Vm) -> Vec<&'a Vm> {
    let mut found = vec![vm];
    let mut row = 0;
    while let Some(then) = found.get(row).copied() {
        row += 1;
        let rules = scenario.rules.iter().filter(|rule| yields(rule) == Some(then.name.as_str()));
        for name in rules.flat_map(|rule| &rule.vms) {
            let first = scenario.vms.iter().find(|vm| vm.name == *name && is_looked_after(scenario, vm));
            found.extend(first.filter(|first| found.iter().all(|vm| vm.name != first.name)));
        }
    }
    found
}

/// Whether it runs, and does not run without a guest that is down and that nobody starts, because it is left alone. Holdfast stops
/// nothing for what it leaves alone; whoever says that one needs the other would have it stopped.
fn lacks_its_first(scenario: &Scenario, vm: &Vm) -> bool {
    let is_then = |rule: &&Rule| rule.kind == "order" && rule.then.as_deref() == Some(vm.name.as_str());
    let stops = |rule: &&Rule| rule.required.unwrap_or(true) && rule.symmetrical.unwrap_or(true);
    let mut firsts = scenario.rules.iter().filter(is_then).filter(stops).filter_map(|rule| rule.first.as_deref());
    let is_down = |first: &str| {
        let known = scenario.vms.iter().find(|known| known.name == first && known.managed == Some(false));
        known.is_some_and(|known| known.state.as_deref() == Some("stopped") && known.active_on.is_empty())
    };
    is_looked_after(scenario, vm) && vm.state.as_deref() == Some("running") && firsts.any(is_down)
}

fn is_looked_after(scenario: &Scenario, vm: &Vm) -> bool {
    build::wanted(scenario, vm) == Wanted::Running
}
