//! The rules of a scenario, and what else says where its guests may run: spare hosts, ill hosts, and hosts on which they have failed.
//!
//! - A host's score is what a rule weighs; `must` is a weight that nothing else outweighs, because the guest may still
//!   run elsewhere when that host is gone; hosts that are required are a required rule.
//! - A spare host is one that every guest would rather not start on; what runs there stays.

use std::collections::BTreeMap;

use holdfast_policies::{
    names::{GuestName, HostName, RuleName},
    rules::{Guests, Hosts, Rule, Score},
};

use super::{
    super::{
        build::may_run_on,
        dependents::dependents,
        format::{self, Scenario, Vm},
        names::Names,
    },
    health::health_score,
    weights::{ABSOLUTE, INFINITE, score, weight},
};

/// One step of a preference, so that it counts more than ties do.
const PREFERENCE: i64 = 10_000;

pub(super) fn rules(scenario: &Scenario, names: &Names, vms: &BTreeMap<String, Vm>) -> BTreeMap<RuleName, Rule> {
    let mut rules: Vec<Rule> = scenario.rules.iter().filter_map(|rule| mapped(rule, names)).collect();
    let declared: Vec<GuestName> = vms.keys().filter_map(|vm| names.guest(vm).cloned()).collect();
    let spare = scenario.hosts.iter().filter(|host| host.state == "spare");
    rules.extend(spare.filter_map(|host| not_on_spare(names, vms, host)));
    let ill = scenario.hosts.iter().filter_map(|host| Some((names.host(&host.name)?.clone(), health_score(host)?)));
    let ill: BTreeMap<HostName, Score> = ill.collect();
    if !ill.is_empty() {
        rules.push(Rule::Hosts { guests: Guests::Named(declared.clone()), hosts: Hosts::Named(ill), required: false });
    }
    if scenario.cluster.run_only_where_allowed {
        rules.extend(declared.into_iter().map(|guest| only_where_allowed(scenario, names, guest)));
    }
    rules.extend(vms.values().filter_map(|vm| where_it_failed(names, vm)));
    rules.extend(dependents(scenario).into_iter().filter_map(|(first, then)| {
        let (first, then) = (names.guest(first)?.clone(), names.guest(then)?.clone());
        Some(Rule::Order { first, then, required: true, symmetrical: true })
    }));
    let named = rules.into_iter().enumerate();
    named.filter_map(|(index, rule)| Some((RuleName::new(format!("rule-{:03}", index + 1)).ok()?, rule))).collect()
}

/// A spare host is liked by nobody. What runs there when the scenario begins has nowhere that it would be better off: a host that has
/// taken over is none that is spared.
fn not_on_spare(names: &Names, vms: &BTreeMap<String, Vm>, host: &format::Host) -> Option<Rule> {
    let others = vms.values().filter(|vm| !may_run_on(vm, host));
    let guests: Vec<GuestName> = others.filter_map(|vm| names.guest(&vm.name).cloned()).collect();
    if guests.is_empty() {
        return None;
    }
    let hosts = BTreeMap::from([(names.host(&host.name)?.clone(), Score::By(-ABSOLUTE / 100))]);
    Some(Rule::Hosts { guests: Guests::Named(guests), hosts: Hosts::Named(hosts), required: false })
}

/// Hosts on which a guest has failed as often as it may are out of the question for it.
fn where_it_failed(names: &Names, vm: &Vm) -> Option<Rule> {
    let most = vm.max_failures_per_host.as_ref().and_then(weight).filter(|most| *most > 0).unwrap_or(INFINITE);
    let failed = vm.failures.iter().filter(|(_, count)| weight(count).is_some_and(|count| count >= most));
    let hosts: BTreeMap<HostName, Score> =
        failed.filter_map(|(host, _)| Some((names.host(host)?.clone(), Score::Never))).collect();
    let guests = Guests::Named(vec![names.guest(&vm.name)?.clone()]);
    (!hosts.is_empty()).then_some(Rule::Hosts { guests, hosts: Hosts::Named(hosts), required: false })
}

/// Whether a situation forbids a guest on a host: by a score, by how often it has failed there, because no rule allows it there, or
/// because nothing may run on a host in that health.
#[must_use]
pub fn is_banned(scenario: &Scenario, vm: &Vm, host: &str) -> bool {
    let mine = || scenario.rules.iter().filter(|rule| rule.vms.contains(&vm.name));
    let scores = || mine().filter_map(|rule| rule.scores.get(host));
    let is_named = || mine().any(|rule| rule.hosts.iter().any(|known| known.parts().0 == host));
    let is_allowed = || is_named() || scores().filter_map(weight).any(|weight| weight >= 0);
    let most = vm.max_failures_per_host.as_ref().and_then(weight).filter(|most| *most > 0).unwrap_or(INFINITE);
    let is_ill = |known: &format::Host| known.name == host && matches!(health_score(known), Some(Score::Never));
    vm.failures.get(host).and_then(weight).is_some_and(|count| count >= most)
        || scenario.hosts.iter().any(is_ill)
        || scores().filter_map(score).any(|score| matches!(score, Score::Never))
        || (scenario.cluster.run_only_where_allowed && !is_allowed())
}

/// The hosts that any rule allows the guest, and no others.
fn only_where_allowed(scenario: &Scenario, names: &Names, guest: GuestName) -> Rule {
    let text = names.of_guest(&guest);
    let mine = scenario.rules.iter().filter(|rule| rule.vms.contains(&text));
    let scored = mine.clone().flat_map(|rule| {
        rule.scores
            .iter()
            .filter(|(_, value)| weight(value).is_some_and(|weight| weight >= 0))
            .map(|(host, _)| host.as_str())
    });
    let affine = mine.clone().flat_map(|rule| rule.hosts.iter().map(|host| host.parts().0));
    let hosts = scored.chain(affine).filter_map(|host| names.host(host));
    Rule::Hosts {
        guests: Guests::Named(vec![guest]),
        hosts: Hosts::Named(hosts.map(|host| (host.clone(), Score::By(0))).collect()),
        required: true,
    }
}

fn mapped(rule: &format::Rule, names: &Names) -> Option<Rule> {
    let guests = || Guests::Named(rule.vms.iter().filter_map(|vm| names.guest(vm).cloned()).collect());
    let yields = rule.dependent.as_ref().and_then(|vm| names.guest(vm).cloned());
    let said = rule.weight.as_ref().and_then(weight);
    let opposite = said.is_some_and(|weight| weight < 0);
    let required = rule.required.unwrap_or_else(|| said.is_none_or(|weight| weight.abs() >= INFINITE));
    let weight = said.map_or(PREFERENCE, i64::abs);
    match rule.kind.as_str() {
        "host-affinity" => {
            let required = rule.required.unwrap_or(true);
            let hosts = rule.hosts.iter().filter_map(|host| {
                let (name, weight) = host.parts();
                #[expect(clippy::cast_possible_truncation, reason = "clamped to what fits")]
                let weight = weight.clamp(-10_000.0, 10_000.0) as i64;
                let liked = if required { weight } else { weight.saturating_add(1) };
                Some((names.host(name)?.clone(), Score::By(liked * PREFERENCE)))
            });
            Some(Rule::Hosts { guests: guests(), hosts: Hosts::Named(hosts.collect()), required })
        }
        "host-score" => {
            let scores =
                rule.scores.iter().filter_map(|(host, value)| Some((names.host(host)?.clone(), score(value)?)));
            Some(Rule::Hosts { guests: guests(), hosts: Hosts::Named(scores.collect()), required: false })
        }
        "together" if !opposite => Some(Rule::Together { guests: guests(), required, yields, weight }),
        "apart" if opposite => Some(Rule::Together { guests: guests(), required, yields, weight }),
        // What likes to be together with less than nothing likes to be apart.
        "together" | "apart" => Some(Rule::Apart { guests: guests(), required, yields, weight, by: None }),
        "order" => Some(Rule::Order {
            first: names.guest(rule.first.as_ref()?)?.clone(),
            then: names.guest(rule.then.as_ref()?)?.clone(),
            required: rule.required.unwrap_or(true),
            symmetrical: rule.symmetrical.unwrap_or(true),
        }),
        _ => None,
    }
}
