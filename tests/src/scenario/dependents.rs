//! Guests that a scenario keeps together with one that is wanted stopped, and that give way to it: an operator would have
//! said that they do not run without it.
//!
//! Keeping together speaks of hosts alone, so that Holdfast lets the others run on; what runs only beside another is an
//! order. It is declared only where it has something to say, because an order also has starts wait for each other.

use std::collections::BTreeSet;

use super::{
    format::{Kind, Rule, Scenario, Vm},
    map,
};

/// Pairs of guests, the second of which does not run without the first. Of a situation alone: what is wanted later, an
/// event says.
#[must_use]
pub fn dependents(scenario: &Scenario) -> Vec<(&str, &str)> {
    let mut pairs = Vec::new();
    if scenario.mode != Kind::Snapshot {
        return pairs;
    }
    let mut down: BTreeSet<&str> = scenario.vms.iter().filter(|vm| is_stopped(vm)).map(|vm| vm.name.as_str()).collect();
    let looked_after = |name: &str| scenario.vms.iter().any(|vm| vm.name == name && vm.managed != Some(false));
    let yielding = scenario.rules.iter().filter_map(|rule| Some((rule, yields(rule)?)));
    let rules: Vec<(&Rule, &str)> = yielding.filter(|(_, dependent)| looked_after(dependent)).collect();
    // Each round but the last adds a guest.
    for _ in 0..=scenario.vms.len() {
        let known = down.len();
        for (rule, dependent) in &rules {
            for first in rule.vms.iter().map(String::as_str).filter(|vm| vm != dependent) {
                let pair = (first, *dependent);
                if down.contains(first) && !pairs.contains(&pair) && !is_first(scenario, dependent, first) {
                    pairs.push(pair);
                    down.insert(*dependent);
                }
            }
        }
        if down.len() == known {
            break;
        }
    }
    pairs
}

fn is_stopped(vm: &Vm) -> bool {
    vm.managed != Some(false) && matches!(vm.desired.as_deref(), Some("stopped" | "disabled"))
}

/// Who gives way in a rule that requires guests to be together.
pub(super) fn yields(rule: &Rule) -> Option<&str> {
    let weight = rule.weight.as_ref().and_then(map::weight);
    let required = rule.required.unwrap_or_else(|| weight.is_none_or(|weight| weight >= map::INFINITE));
    let together = rule.kind == "together" && weight.is_none_or(|weight| weight >= 0);
    rule.dependent.as_deref().filter(|_| together && required)
}

/// Whether an order says the opposite.
fn is_first(scenario: &Scenario, first: &str, then: &str) -> bool {
    let says = |rule: &Rule| rule.first.as_deref() == Some(first) && rule.then.as_deref() == Some(then);
    scenario.rules.iter().any(says)
}
