//! A judge of outcomes: what a scenario expects, held against what came of it.
//!
//! It knows nothing of how the outcome was made, and reads the history again by itself (`judge/replay.rs`).

mod replay;

use std::collections::{BTreeMap, BTreeSet};

use self::replay::Replay;
use super::format::{Outcome, Scenario};

/// What the judge found; empty is passed.
#[must_use]
pub fn judge(scenario: &Scenario, outcome: &Outcome) -> Vec<String> {
    let mut judge = Judge { scenario, outcome, at: BTreeMap::new(), failures: Vec::new() };
    for (host, vms) in &outcome.hosts {
        for vm in vms {
            judge.at.entry(vm).or_default().push(host);
        }
    }
    judge.names();
    judge.ends();
    judge.constraints();
    judge.fencing();
    Replay::of(&mut judge).run();
    judge.failures
}

struct Judge<'a> {
    scenario: &'a Scenario,
    outcome: &'a Outcome,
    at: BTreeMap<&'a str, Vec<&'a str>>,
    failures: Vec<String>,
}

impl<'a> Judge<'a> {
    fn fail(&mut self, text: String) {
        self.failures.push(text);
    }

    fn names(&mut self) {
        let (scenario, outcome) = (self.scenario, self.outcome);
        for host in outcome.hosts.keys().filter(|host| !scenario.hosts.iter().any(|known| known.name == **host)) {
            self.fail(format!("the outcome names the unknown host {host}"));
        }
        let known = |vm: &str| {
            scenario.expect.ends.contains_key(vm)
                || scenario.vms.iter().any(|known| known.name == vm)
                || scenario.events.iter().any(|event| event.vm.as_deref() == Some(vm))
        };
        let strangers: Vec<&str> = self.at.keys().copied().filter(|vm| !known(vm)).collect();
        for vm in strangers {
            self.fail(format!("the outcome names the unknown guest {vm}"));
        }
    }

    fn ends(&mut self) {
        for (vm, end) in &self.scenario.expect.ends {
            let mut at: Vec<String> =
                self.at.get(vm.as_str()).into_iter().flatten().map(|host| (*host).to_owned()).collect();
            at.sort();
            if let Some(all) = &end.on_all_of {
                let mut all = all.clone();
                all.sort();
                if at != all {
                    self.fail(format!("{vm} is on {at:?}, expected {all:?}"));
                }
            } else {
                match at.as_slice() {
                    [] if !end.on_any_of.is_empty() && !end.may_be_absent => {
                        self.fail(format!("{vm} runs nowhere, expected one of {:?}", end.on_any_of));
                    }
                    [] => {}
                    [host] if end.on_any_of.contains(host) => {}
                    [host] => self.fail(format!("{vm} ends on {host}, allowed: {:?}", end.on_any_of)),
                    many => self.fail(format!("{vm} ends on several hosts: {many:?}")),
                }
            }
            let absence_is_fine =
                end.state_any_of.iter().any(|s| ["stopped", "unmanaged", "lost"].contains(&s.as_str()));
            match self.outcome.vm_states.get(vm) {
                None if at.is_empty() && !absence_is_fine && !end.may_be_absent => {
                    self.fail(format!("{vm}: no state reported, expected {:?}", end.state_any_of));
                }
                Some(state) if !end.state_any_of.contains(state) => {
                    self.fail(format!("{vm} is {state}, expected {:?}", end.state_any_of));
                }
                None | Some(_) => {}
            }
        }
    }

    fn constraints(&mut self) {
        for constraint in self.scenario.expect.constraints.iter().filter(|constraint| !constraint.soft) {
            let at: Vec<&str> =
                constraint.vms.iter().filter_map(|vm| self.at.get(vm.as_str())?.first().copied()).collect();
            let distinct: BTreeSet<&str> = at.iter().copied().collect();
            let broken = match constraint.kind.as_str() {
                "same-host" => distinct.len() > 1,
                "different-hosts" => distinct.len() < at.len(),
                "not-all-on-one-host" => at.len() > 1 && distinct.len() == 1,
                "running-count" => !(constraint.min..=constraint.max).contains(&at.len()),
                "count-per-host" => constraint.hosts.iter().any(|(host, (least, most))| {
                    !(*least..=*most).contains(&at.iter().filter(|on| *on == host).count())
                }),
                "capacity" => self.over_capacity(),
                "balanced-memory" => self.uneven(constraint.max_ratio),
                _ => false,
            };
            if broken {
                self.failures.push(format!("{} of {:?} does not hold: {at:?}", constraint.kind, constraint.vms));
            }
        }
    }

    fn over_capacity(&self) -> bool {
        let demand = |vm: &str, resource: &str| {
            let known = self.scenario.vms.iter().find(|known| known.name == vm);
            known.and_then(|known| known.demand.get(resource)).copied().unwrap_or_default()
        };
        self.scenario.hosts.iter().any(|host| {
            host.capacity.iter().any(|(resource, capacity)| {
                let vms = self.outcome.hosts.get(&host.name).into_iter().flatten();
                vms.map(|vm| demand(vm, resource)).sum::<f64>() > *capacity
            })
        })
    }

    fn uneven(&self, ratio: f64) -> bool {
        let memory = |vm: &String| {
            self.scenario.vms.iter().find(|known| known.name == *vm).and_then(|known| known.memory_mib).unwrap_or(0.0)
        };
        let alive = self.scenario.hosts.iter().filter(|host| !self.outcome.fenced.contains(&host.name));
        let loads: Vec<f64> = alive
            .map(|host| self.outcome.hosts.get(&host.name).into_iter().flatten().map(memory).sum::<f64>())
            .collect();
        let most = loads.iter().copied().fold(0.0, f64::max);
        let least = loads.iter().copied().fold(f64::INFINITY, f64::min);
        !loads.is_empty() && most > ratio * least.max(1.0)
    }

    fn fencing(&mut self) {
        let (expect, outcome) = (&self.scenario.expect, self.outcome);
        for host in expect.must_fence.iter().filter(|host| !outcome.fenced.contains(host)) {
            self.fail(format!("{host} was not fenced"));
        }
        for host in expect.must_not_fence.iter().filter(|host| outcome.fenced.contains(host)) {
            self.fail(format!("{host} was fenced needlessly"));
        }
        for host in &expect.must_go_down {
            if outcome.hosts.get(host).is_some_and(|vms| !vms.is_empty()) {
                self.fail(format!("guests still run on {host}, which has lost the right to run them"));
            }
        }
    }
}
