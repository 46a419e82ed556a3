//! What is declared and meets nothing: a policy that matches no guest, a guest that no policy matches. It may be meant, so it is no
//! mistake. As a rule it is a label with a typo, and then nobody would ask the services of a guest for years.

use std::{collections::BTreeSet, fmt::Display};

use crate::{
    model::{Labels, Policies},
    names::{GuestName, HostName, PolicyName},
    rules::{Guests, Hosts, Rule, has_all},
    some_of::some_of,
};

/// Most lines of one kind, and most names in a line: more are one mistake repeated.
const TOLD_MAX: usize = 10;

impl Policies {
    /// What somebody who declares these policies should know of what meets nothing, a line each. Files without guests, or without
    /// policies, are taken for a part of what is declared: it is not known what they meet.
    #[must_use]
    pub fn unmet(&self) -> Vec<String> {
        if self.guests.is_empty() {
            return Vec::new();
        }
        let used: BTreeSet<&PolicyName> =
            self.guests.values().filter_map(|guest| self.policy_for(guest)).map(|(name, _)| name).collect();
        let unused = self.policies.iter().filter(|(name, _)| !used.contains(name));
        let policies = unused.map(|(name, policy)| {
            format!("? policy {name} matches no guest: none is labelled {}", shown(&policy.matches))
        });
        let rules = self
            .rules
            .iter()
            .flat_map(|(name, rule)| self.unmet_by(rule).map(move |why| format!("? rule {name} {why}")));
        let mut lines: Vec<String> = policies.take(TOLD_MAX).collect();
        lines.extend(self.unwatched());
        lines.extend(rules.take(TOLD_MAX));
        lines
    }

    /// The guests of `before` that are declared no more, as a line.
    #[must_use]
    pub fn left_behind(&self, before: &Self) -> Option<String> {
        let left: Vec<&GuestName> = before.guests.keys().filter(|guest| !self.guests.contains_key(*guest)).collect();
        let names = names(&left)?;
        Some(format!("? declared no more, so that what runs of them runs on, and nobody looks after it: {names}"))
    }

    /// Those among the hosts that may run guests for which no fencing is declared, as a line; not where there is no other host to start
    /// a guest on. Who means it declares `operator`.
    #[must_use]
    pub fn unfenced<'h>(&self, hosts: impl IntoIterator<Item = &'h HostName>) -> Option<String> {
        let hosts: Vec<&HostName> = hosts.into_iter().collect();
        if self.guests.is_empty() || hosts.len() < 2 {
            return None;
        }
        let unfenced = hosts.into_iter().filter(|host| self.fencing.get(*host).is_none_or(Vec::is_empty));
        let names = names(&unfenced.collect::<Vec<_>>())?;
        Some(format!(
            "? no `fencing` is declared for these hosts: when one of them fails, its guests wait until a person has made sure that it is \
             off: {names}"
        ))
    }

    /// The guests that fall under no policy, as a line.
    fn unwatched(&self) -> Option<String> {
        if self.policies.is_empty() {
            return None;
        }
        let unwatched = self.guests.iter().filter(|(_, guest)| self.policy_for(guest).is_none());
        let unwatched: Vec<&GuestName> = unwatched.map(|(name, _)| name).collect();
        let names = names(&unwatched)?;
        Some(format!(
            "? no policy matches these guests, so that nothing in them is asked, only their machines are looked after: {names}"
        ))
    }

    /// Why a rule that goes by labels is about nothing.
    fn unmet_by(&self, rule: &Rule) -> impl Iterator<Item = String> {
        let (guests, hosts) = match rule {
            Rule::Hosts { guests, hosts, .. } => (Some(guests), Some(hosts)),
            Rule::Together { guests, .. } | Rule::Apart { guests, .. } => (Some(guests), None),
            Rule::Order { .. } => (None, None),
        };
        // Of a policy that matches no guest, its placement is not told as well.
        let is_told = |labels: &Labels| self.policies.values().any(|policy| policy.matches == *labels);
        let guests = guests.and_then(|guests| match guests {
            Guests::Labelled(labels) if guests.among(&self.guests).is_empty() && !is_told(labels) => {
                Some(format!("is about no guest: none is labelled {}", shown(labels)))
            }
            Guests::Labelled(_) | Guests::Named(_) => None,
        });
        let hosts = hosts.and_then(|hosts| match hosts {
            Hosts::Labelled(labels, _) if !self.hosts.values().any(|host| has_all(&host.labels, labels)) => {
                Some(format!("is about no host: `hosts` labels none {}", shown(labels)))
            }
            Hosts::Labelled(..) | Hosts::Named(_) => None,
        });
        guests.into_iter().chain(hosts)
    }
}

/// `app=web, tier=gold`
fn shown(labels: &Labels) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", ")
}

/// `db-1, web-2`, or the first of many and how many more there are; nothing where there is none.
pub(crate) fn names<N: Display>(all: &[&N]) -> Option<String> {
    (!all.is_empty()).then(|| some_of(all, TOLD_MAX, ", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::{Source, parse};

    fn declared(text: &str) -> Policies {
        parse(&[Source { name: "a.yaml", text }]).unwrap()
    }

    const GUESTS: &str = "
guests:
  db-1: { labels: { app: db }, qemu: { memory: 1GiB, kernel: /boot/vmlinuz } }
  web-1: { labels: { app: web }, qemu: { memory: 1GiB, kernel: /boot/vmlinuz } }
  web-2: { labels: { app: wbe }, qemu: { memory: 1GiB, kernel: /boot/vmlinuz } }
";

    #[test]
    fn a_label_with_a_typo_is_told_on_both_sides() {
        let policies = "
policies:
  db: { match: { app: dbb, tier: gold }, ladder: [page] }
  web: { match: { app: web }, ladder: [page] }
";
        assert_eq!(
            declared(&format!("{GUESTS}{policies}")).unmet(),
            [
                "? policy db matches no guest: none is labelled app=dbb, tier=gold",
                "? no policy matches these guests, so that nothing in them is asked, only their machines are looked after: \
                 db-1, web-2",
            ]
        );
    }

    #[test]
    fn what_meets_something_is_not_told_and_neither_is_a_part_of_what_is_declared() {
        let all = "
policies:
  db: { match: { app: db }, ladder: [page] }
  web: { match: { app: web }, placement: { apart: { app: web }, prefer: { zone: a } }, ladder: [page] }
  other: { match: { app: wbe }, ladder: [page] }
hosts:
  hv-a: { labels: { zone: a } }
";
        let nothing = Vec::<String>::new();
        assert_eq!(declared(&format!("{GUESTS}{all}")).unmet(), nothing);
        assert_eq!(declared(GUESTS).unmet(), nothing, "policies may stand elsewhere");
        assert_eq!(declared("policies:\n  db: { match: { app: db }, ladder: [page] }\n").unmet(), nothing, "a kit");
    }

    #[test]
    fn a_rule_about_labels_that_nobody_has_is_told_once() {
        let policies = "
policies:
  all: { match: { app: web }, placement: { require: { zone: q }, apart: { app: wbb } }, ladder: [page] }
  gone: { match: { app: gone }, placement: { apart: { app: gone } }, ladder: [page] }
hosts:
  hv-a: { labels: { zone: a } }
";
        let told = declared(&format!("{GUESTS}{policies}")).unmet();
        let rules: Vec<&String> = told.iter().filter(|line| line.starts_with("? rule")).collect();
        assert_eq!(
            rules,
            [
                "? rule all.placement.0 is about no guest: none is labelled app=wbb",
                "? rule all.placement.1 is about no host: `hosts` labels none zone=q",
            ]
        );
    }

    #[test]
    fn hosts_without_fencing_are_named_where_guests_could_start_elsewhere() {
        let fenced = declared(&format!("{GUESTS}fencing:\n  hv-a: [operator]\n"));
        let [a, b, c] = ["hv-a", "hv-b", "hv-c"].map(|name| HostName::new(name).unwrap());
        let line = fenced.unfenced([&a, &b, &c]).unwrap();
        assert!(line.starts_with("? no `fencing` is declared") && line.ends_with("off: hv-b, hv-c"), "{line}");
        assert_eq!(fenced.unfenced([&a]), None, "a person is meant");
        assert_eq!(declared(GUESTS).unfenced([&b]), None, "no other host");
        assert_eq!(Policies::default().unfenced([&b, &c]), None, "no guests");
    }

    #[test]
    fn guests_that_are_declared_no_more_are_named_and_many_are_counted() {
        let before = declared(GUESTS);
        let after = declared("guests:\n  web-1: { qemu: { memory: 1GiB, kernel: /boot/vmlinuz } }\n");
        let line = after.left_behind(&before).unwrap();
        assert!(line.ends_with("looks after it: db-1, web-2"), "{line}");
        assert_eq!(before.left_behind(&after), None);
        let many: String =
            (0..13).map(|n| format!("  g{n:02}: {{ qemu: {{ memory: 1GiB, kernel: /k }} }}\n")).collect();
        let line = after.left_behind(&declared(&format!("guests:\n{many}"))).unwrap();
        assert!(line.ends_with("g08, g09 and 3 more"), "{line}");
    }
}
