//! What a host can hold, and which required rules keep a guest off it: counted by the checker itself (L1).
//!
//! Nothing of the planner is used here, so that a mistake in its tables shows.

use super::Check;
use crate::{
    model::GuestDeclaration,
    names::{GuestName, HostName},
    rules::{Guests, Hosts, Rule, Score},
};

impl<'a> Check<'a> {
    /// Judges the sending of a guest to a host, beside all that the plan has sent there before, and notes it.
    pub(super) fn holds(&mut self, guest: &'a GuestName, host: &'a HostName) {
        let Some(declared) = self.state.policies.guests.get(guest) else { return };
        let others = self.present(|other| other == host).into_iter().filter(|other| *other != guest);
        let others: Vec<_> = others.filter_map(|other| self.state.policies.guests.get(other)).collect();
        for (what, has) in self.capacities(host) {
            let own = wants(declared, what);
            let total = others.iter().map(|other| wants(other, what)).fold(own, u64::saturating_add);
            if own > 0 && total > has {
                let unit = if what == MEMORY { "MiB".to_owned() } else { what.to_owned() };
                self.breaks("L1", format!("gives {host} guests of {total} {unit}, and it has {has} {unit}"));
            }
        }
        for (name, rule) in &self.state.policies.rules {
            if let Some(why) = self.forbids(rule, guest, declared, host) {
                self.breaks("L1", format!("sends {guest} to {host}, {why} (rule {name})"));
            }
        }
        self.sent.push((guest, host));
    }

    /// Guests that may run on certain hosts, or that this plan sends there.
    fn present(&self, on: impl Fn(&HostName) -> bool) -> std::collections::BTreeSet<&'a GuestName> {
        let here = self.state.guests.iter().filter(|(_, known)| known.tenures().iter().any(|tenure| on(&tenure.host)));
        let sent = self.sent.iter().filter(|(_, host)| on(host)).map(|(guest, _)| *guest);
        here.map(|(name, _)| name).chain(sent).collect()
    }

    /// Memory, and what operators have declared of the host, but for what they say is not hard.
    fn capacities(&self, host: &HostName) -> Vec<(&'a str, u64)> {
        let declared = self.state.policies.hosts.get(host).map(|declared| &declared.capacity);
        let mut all: Vec<(&str, u64)> =
            declared.into_iter().flatten().map(|(name, has)| (name.as_str(), *has)).collect();
        if !all.iter().any(|(name, _)| *name == MEMORY) {
            all.extend(self.state.hosts.get(host).map(|known| (MEMORY, known.facts.memory_mib)));
        }
        let settings = &self.state.policies.cluster.capacities;
        all.retain(|(name, _)| *name == MEMORY || settings.get(*name).is_none_or(|counts| counts.hard));
        all
    }

    /// Why a required rule keeps a guest off a host, if it does.
    fn forbids(&self, rule: &Rule, guest: &GuestName, declared: &GuestDeclaration, host: &HostName) -> Option<String> {
        match rule {
            Rule::Hosts { guests, hosts, required } if means(guests, guest, declared) => {
                let labels = self.state.policies.hosts.get(host).map(|declared| &declared.labels);
                let only = match hosts {
                    Hosts::Named(scores) => scores.values().any(|score| *score == Score::Must),
                    Hosts::Labelled(_, score) => *score == Score::Must,
                };
                match hosts.score(host, labels) {
                    Some(Score::Never) => Some("where it never runs".to_owned()),
                    Some(Score::Must) => None,
                    Some(Score::By(_)) if only => Some("and it runs only on others".to_owned()),
                    None if only || *required => Some("and it runs only on others".to_owned()),
                    Some(Score::By(_)) | None => None,
                }
            }
            Rule::Apart { guests, required: true, by, .. } if means(guests, guest, declared) => {
                let near = self.present(|other| self.is_near(other, host, by.as_deref()));
                let other = near.into_iter().find(|other| {
                    let known = self.state.policies.guests.get(*other);
                    *other != guest && known.is_some_and(|known| means(guests, other, known))
                })?;
                Some(format!("too near to {other}"))
            }
            Rule::Hosts { .. } | Rule::Apart { .. } | Rule::Together { .. } | Rule::Order { .. } => None,
        }
    }

    /// Whether two hosts are the same, or have the same value of a label.
    fn is_near(&self, one: &HostName, other: &HostName, by: Option<&str>) -> bool {
        let value = |host| by.and_then(|label| self.state.policies.hosts.get(host)?.labels.get(label));
        one == other || value(one).is_some_and(|found| value(other) == Some(found))
    }
}

const MEMORY: &str = "memory_mib";

/// What a guest takes: what is declared, else what its machine has.
fn wants(declared: &GuestDeclaration, what: &str) -> u64 {
    match (declared.needs.demand.get(what), what) {
        (Some(demand), _) => *demand,
        (None, MEMORY) => u64::from(declared.qemu.memory_mib),
        (None, "cpus") => u64::from(declared.qemu.cpus),
        (None, _) => 0,
    }
}

fn means(guests: &Guests, guest: &GuestName, declared: &GuestDeclaration) -> bool {
    match guests {
        Guests::Named(names) => names.contains(guest),
        Guests::Labelled(labels) => labels.iter().all(|(key, value)| declared.labels.get(key) == Some(value)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        change::Change,
        check::check,
        evidence::Evidence,
        fixture::{Stage, host, name},
        hostfile::Timing,
        names::RuleName,
        rules::CapacitySettings,
        time::Moment,
    };

    fn judged(stage: &Stage, plan: &[(&str, &str)]) -> Vec<String> {
        let evidence = Evidence { quorum_since: Some(Moment(0)), ..Evidence::default() };
        let place =
            |(guest, on): &(&str, &str)| Change::Place { guest: name(guest), host: host(on), why: String::new() };
        let plan: Vec<Change> = plan.iter().map(place).collect();
        let found = check(&stage.state, &evidence, &Timing::default(), Moment(10_000), &plan);
        found.into_iter().map(|violation| violation.what).collect()
    }

    fn rule(stage: &mut Stage, rule: Rule) {
        stage.state.policies.rules.insert(RuleName::new("the-rule").unwrap(), rule);
    }

    fn named(guests: &[&str]) -> Guests {
        Guests::Named(guests.iter().map(|guest| name(guest)).collect())
    }

    #[test]
    fn declared_capacities_and_demands_count_and_override_the_machine() {
        let mut stage = Stage::new(&["a", "b"], &["g", "h"]);
        let capacity = &mut stage.state.policies.hosts.entry(host("a")).or_default().capacity;
        capacity.extend([("gpu".to_owned(), 1), ("memory_mib".to_owned(), 1_500)]);
        for of in ["g", "h"] {
            let declared = stage.state.policies.guests.get_mut(&name(of)).unwrap();
            declared.qemu.memory_mib = 100_000;
            declared.needs.demand.extend([("gpu".to_owned(), 1), ("memory_mib".to_owned(), 700)]);
        }
        assert_eq!(judged(&stage, &[("g", "a"), ("h", "b")]), [""; 0], "what is not declared is not limited");
        assert_eq!(judged(&stage, &[("g", "a"), ("h", "a")]), ["gives a guests of 2 gpu, and it has 1 gpu"]);
        stage.state.policies.guests.get_mut(&name("h")).unwrap().needs.demand.remove("gpu");
        assert_eq!(judged(&stage, &[("g", "a"), ("h", "a")]), [""; 0], "1400 of 1500 MiB");
        stage.state.policies.guests.get_mut(&name("h")).unwrap().needs.demand.clear();
        assert_eq!(judged(&stage, &[("h", "a")]), ["gives a guests of 100000 MiB, and it has 1500 MiB"]);
    }

    #[test]
    fn a_capacity_that_is_not_hard_may_be_exceeded_and_memory_never() {
        let mut stage = Stage::new(&["a"], &["g"]);
        let policies = &mut stage.state.policies;
        let capacity = &mut policies.hosts.entry(host("a")).or_default().capacity;
        capacity.extend([("iops".to_owned(), 100), ("memory_mib".to_owned(), 500)]);
        policies.guests.get_mut(&name("g")).unwrap().needs.demand.insert("iops".to_owned(), 101);
        let memory = "gives a guests of 1024 MiB, and it has 500 MiB";
        assert_eq!(judged(&stage, &[("g", "a")]), ["gives a guests of 101 iops, and it has 100 iops", memory]);
        let soft = CapacitySettings { hard: false, ..CapacitySettings::default() };
        let settings = &mut stage.state.policies.cluster.capacities;
        settings.extend(["iops", MEMORY].map(|what| (what.to_owned(), soft)));
        assert_eq!(judged(&stage, &[("g", "a")]), [memory]);
    }

    #[test]
    fn a_required_rule_about_hosts_is_never_broken() {
        let mut stage = Stage::new(&["a", "b"], &["g", "h"]);
        let on = |score| Hosts::Named(BTreeMap::from([(host("a"), score)]));
        rule(&mut stage, Rule::Hosts { guests: named(&["g"]), hosts: on(Score::Never), required: false });
        assert_eq!(judged(&stage, &[("g", "a")]), ["sends g to a, where it never runs (rule the-rule)"]);
        assert_eq!(judged(&stage, &[("g", "b"), ("h", "a")]), [""; 0]);
        for (score, required, broken) in [(Score::Must, false, 1), (Score::By(5), true, 1), (Score::By(5), false, 0)] {
            rule(&mut stage, Rule::Hosts { guests: named(&["g"]), hosts: on(score), required });
            assert_eq!(judged(&stage, &[("g", "a")]), [""; 0]);
            assert_eq!(judged(&stage, &[("g", "b")]).len(), broken, "{score:?} {required}");
        }
    }

    #[test]
    fn guests_that_rules_keep_apart_never_share_a_host_or_a_domain() {
        let mut stage = Stage::new(&["a", "b", "c"], &["g", "h"]);
        for of in ["g", "h"] {
            stage.state.policies.guests.get_mut(&name(of)).unwrap().qemu.memory_mib = 100;
        }
        for (on, rack) in [("a", "r1"), ("b", "r1"), ("c", "r2")] {
            let labels = &mut stage.state.policies.hosts.entry(host(on)).or_default().labels;
            labels.insert("rack".to_owned(), rack.to_owned());
        }
        let apart = |required, by: Option<&str>| Rule::Apart {
            guests: named(&["g", "h"]),
            required,
            yields: None,
            weight: 1,
            by: by.map(str::to_owned),
        };
        rule(&mut stage, apart(true, None));
        assert_eq!(judged(&stage, &[("g", "a"), ("h", "a")]), ["sends h to a, too near to g (rule the-rule)"]);
        assert_eq!(judged(&stage, &[("g", "a"), ("h", "b")]), [""; 0]);
        rule(&mut stage, apart(true, Some("rack")));
        assert_eq!(judged(&stage, &[("g", "a"), ("h", "b")]).len(), 1);
        assert_eq!(judged(&stage, &[("g", "a"), ("h", "c")]), [""; 0]);
        rule(&mut stage, apart(false, None));
        assert_eq!(judged(&stage, &[("g", "a"), ("h", "a")]), [""; 0], "what is preferred gives way");
    }
}
