//! Rules resolved: which guests and which hosts each one is about, by row.

use std::collections::BTreeMap;

use super::{
    problem::Problem,
    table::{GroupAt, GuestAt, HostAt, Key, Table},
};
use crate::{
    model::Policies,
    names::RuleName,
    rules::{Guests, Hosts, Rule, Score},
};

/// A rule about guests and hosts.
#[derive(Debug)]
pub struct HostRule<'a> {
    pub(super) name: &'a RuleName,
    /// How much each host is liked; `None`: forbidden.
    pub(super) scores: Table<HostAt, Option<i64>>,
    /// The highest of them.
    pub(super) highest: i64,
}

/// A rule about guests that share a host, or do not.
#[derive(Debug)]
pub struct Group<'a> {
    pub(super) name: &'a RuleName,
    pub(super) together: bool,
    pub(super) required: bool,
    pub(super) weight: i64,
    pub(super) yields: Option<GuestAt>,
    pub(super) members: Vec<GuestAt>,
    /// The label by which it counts; `None`: by host.
    pub(super) by: Option<&'a str>,
    /// The domain of each host.
    pub(super) domain: Table<HostAt, u32>,
}

/// A rule about the order of starts.
#[derive(Debug)]
pub struct OrderRule<'a> {
    pub(super) name: &'a RuleName,
    pub(super) first: GuestAt,
    pub(super) then: GuestAt,
    pub(super) required: bool,
    /// The second one stops before the first.
    pub(super) symmetrical: bool,
}

/// Resolves guests by label through an index, so that many rules over many guests stay cheap.
pub(super) struct Resolver<'a> {
    labelled: BTreeMap<(&'a str, &'a str), Vec<GuestAt>>,
}

impl<'a> Resolver<'a> {
    pub(super) fn resolve(problem: &mut Problem<'a>, policies: &'a Policies) {
        if policies.rules.is_empty() {
            return;
        }
        let resolver = Self::of(problem, policies);
        let mut groups = Vec::new();
        for (name, rule) in &policies.rules {
            match rule {
                Rule::Hosts { guests, hosts, required } => {
                    let row = problem.host_rules.len();
                    for guest in resolver.guests(problem, guests) {
                        problem.guests[guest].host_rules.push(row);
                    }
                    let scores = scores(problem, hosts, *required);
                    let highest = scores.rows().iter().flatten().max().copied().unwrap_or(0);
                    problem.host_rules.push(HostRule { name, scores, highest });
                }
                Rule::Together { guests, required, yields, weight } => {
                    let members = resolver.guests(problem, guests);
                    let yields = yields.as_ref().and_then(|name| problem.guest(name));
                    let domain = domains(problem, None);
                    let (together, required, weight) = (true, *required, *weight);
                    groups.push(Group { name, together, required, weight, yields, members, by: None, domain });
                }
                Rule::Apart { guests, required, yields, weight, by } => {
                    let members = resolver.guests(problem, guests);
                    let yields = yields.as_ref().and_then(|name| problem.guest(name));
                    let by = by.as_deref();
                    let domain = domains(problem, by);
                    let (together, required, weight) = (false, *required, *weight);
                    groups.push(Group { name, together, required, weight, yields, members, by, domain });
                }
                Rule::Order { first, then, required, symmetrical } => {
                    if let (Some(first), Some(then)) = (problem.guest(first), problem.guest(then)) {
                        let (required, symmetrical) = (*required, *symmetrical);
                        problem.orders.push(OrderRule { name, first, then, required, symmetrical });
                    }
                }
            }
        }
        groups.retain(|group| group.members.len() > 1);
        problem.groups = Table::new(groups);
        for (at, group) in problem.groups.iter() {
            for guest in &group.members {
                problem.guests[*guest].groups.push(at);
            }
        }
        rank(problem);
        sets(problem);
    }

    fn of(problem: &Problem<'a>, policies: &'a Policies) -> Self {
        let by_label = |guests: &Guests| matches!(guests, Guests::Labelled(_));
        let any = policies.rules.values().any(|rule| match rule {
            Rule::Hosts { guests, .. } | Rule::Together { guests, .. } | Rule::Apart { guests, .. } => by_label(guests),
            Rule::Order { .. } => false,
        });
        let mut labelled: BTreeMap<(&str, &str), Vec<GuestAt>> = BTreeMap::new();
        for (at, guest) in problem.guests.iter().filter(|_| any) {
            for (key, value) in guest.declared.into_iter().flat_map(|declared| &declared.labels) {
                labelled.entry((key, value)).or_default().push(at);
            }
        }
        Self { labelled }
    }

    /// The guests meant, in order, each once.
    fn guests(&self, problem: &Problem<'_>, guests: &Guests) -> Vec<GuestAt> {
        let mut found = match guests {
            Guests::Named(names) => names.iter().filter_map(|name| problem.guest(name)).collect(),
            Guests::Labelled(labels) => {
                let with = labels.iter().map(|(key, value)| self.labelled.get(&(key.as_str(), value.as_str())));
                let Some(mut lists) = with.collect::<Option<Vec<&Vec<GuestAt>>>>() else { return Vec::new() };
                lists.sort_by_key(|list| list.len());
                match lists.split_first() {
                    None => problem.guests.keys().collect(),
                    Some((fewest, others)) => {
                        let in_all = |guest: &GuestAt| others.iter().all(|list| list.binary_search(guest).is_ok());
                        fewest.iter().copied().filter(in_all).collect::<Vec<GuestAt>>()
                    }
                }
            }
        };
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// `Must` anywhere forbids every host that is not a `Must`, also when no such host has joined.
fn scores(problem: &Problem<'_>, hosts: &Hosts, required: bool) -> Table<HostAt, Option<i64>> {
    let must = match hosts {
        Hosts::Named(scores) => scores.values().any(|score| *score == Score::Must),
        Hosts::Labelled(_, score) => *score == Score::Must,
    };
    let liking = |(_, host): (HostAt, &super::problem::PlanHost<'_>)| match hosts.score(host.name, host.labels) {
        Some(Score::Never) => None,
        Some(Score::Must) => Some(0),
        Some(Score::By(score)) => (!must).then_some(score),
        None => (!must && !required).then_some(0),
    };
    Table::new(problem.hosts.iter().map(liking).collect())
}

/// A host without the label is a domain of its own.
fn domains(problem: &Problem<'_>, by: Option<&str>) -> Table<HostAt, u32> {
    let number = |row: usize| u32::try_from(row).unwrap_or(u32::MAX);
    let mut values: BTreeMap<&str, u32> = BTreeMap::new();
    let mut rows = Vec::new();
    for (at, host) in problem.hosts.iter() {
        let value = by.and_then(|label| host.labels?.get(label));
        rows.push(value.map_or(number(at.row()), |value| *values.entry(value).or_insert(number(at.row()))));
    }
    Table::new(rows)
}

/// Who gives way is placed after those it gives way to. Chains of giving way are followed so many times.
const YIELD_CHAIN_MAX: usize = 8;

fn rank(problem: &mut Problem<'_>) {
    for _ in 0..YIELD_CHAIN_MAX {
        let mut changed = false;
        for at in problem.groups.keys().collect::<Vec<GroupAt>>() {
            let Some(yields) = problem.groups[at].yields.filter(|guest| problem.groups[at].members.contains(guest))
            else {
                continue;
            };
            let others = problem.groups[at].members.iter().filter(|guest| **guest != yields);
            let Some((priority, _)) = others.map(|guest| problem.guests[*guest].rank).min() else { continue };
            let rank = (problem.guests[yields].rank.0.min(priority), true);
            changed |= problem.guests[yields].rank != rank;
            problem.guests[yields].rank = rank;
        }
        if !changed {
            return;
        }
    }
}

/// Guests that are kept together directly or through others form one set.
fn sets(problem: &mut Problem<'_>) {
    let mut sets: Vec<Vec<GuestAt>> = Vec::new();
    for at in problem.groups.keys().collect::<Vec<GroupAt>>() {
        let group = &problem.groups[at];
        if !group.together || !group.required {
            continue;
        }
        let mut set = group.members.clone();
        let (joined, apart): (Vec<_>, Vec<_>) =
            sets.into_iter().partition(|other| other.iter().any(|guest| set.contains(guest)));
        set.extend(joined.into_iter().flatten());
        set.sort_unstable();
        set.dedup();
        sets = apart;
        sets.push(set);
    }
    for (row, set) in sets.iter().enumerate() {
        for guest in set {
            problem.guests[*guest].set = Some(row);
        }
    }
    problem.sets = sets;
}
