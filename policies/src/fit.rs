//! Whether a guest may go to a host, as far as the replicated state tells: what an operator's move is checked against.
//!
//! Placement knows more (who answers, what else is planned, what would be better); what is refused here is wrong whatever
//! placement says.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    feature_level::FeatureLevel,
    model::{GuestDeclaration, Policies},
    names::{GuestName, HostName, RuleName},
    rules::{Hosts, Rule, Score},
    state::{ClusterState, Guest, Life, Mode, Phase, Wanted},
};

/// Why a guest may not go to a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Unfit {
    /// The host runs no guests.
    #[error("it is a witness and runs no guests")]
    Witness,
    /// The host is fenced or gone.
    #[error("it is fenced or gone")]
    NotUp,
    /// The host takes no guests.
    #[error("it is {mode} and takes no guests")]
    Mode {
        /// The word for its mode.
        mode: String,
    },
    /// The host is quarantined.
    #[error("it is quarantined: {why}")]
    Quarantined {
        /// Why.
        why: String,
    },
    /// A required rule forbids it.
    #[error("the required rule {rule} forbids it")]
    Rule {
        /// The rule.
        rule: RuleName,
    },
    /// The host has no room.
    #[error("it has {free} of {what} left, and {needed} are needed")]
    NoRoom {
        /// The name of the capacity.
        what: String,
        /// How much is left.
        free: u64,
        /// How much the guest takes.
        needed: u64,
    },
}

/// The required rule about hosts that a guest breaks by being on this one, if any. [`Score::Must`] and [`Score::Never`] are
/// meant even where a rule is only preferred otherwise.
#[must_use]
pub fn host_rule_broken<'a>(policies: &'a Policies, guest: &GuestName, host: &HostName) -> Option<&'a RuleName> {
    if policies.rules.is_empty() {
        return None;
    }
    let labels = policies.hosts.get(host).map(|declared| &declared.labels);
    let broken = |rule: &Rule| match rule {
        Rule::Hosts { guests, hosts, required } => {
            guests.include(&policies.guests, guest)
                && match hosts.score(host, labels) {
                    Some(Score::Never) => true,
                    Some(Score::Must) => false,
                    Some(Score::By(_)) => has_must(hosts),
                    None => *required || has_must(hosts),
                }
        }
        Rule::Together { .. } | Rule::Apart { .. } | Rule::Order { .. } => false,
    };
    policies.rules.iter().find(|(_, rule)| broken(rule)).map(|(name, _)| name)
}

fn has_must(hosts: &Hosts) -> bool {
    match hosts {
        Hosts::Named(scores) => scores.values().any(|score| *score == Score::Must),
        Hosts::Labelled(_, score) => *score == Score::Must,
    }
}

impl ClusterState {
    /// Why the host takes no guests at all.
    #[must_use]
    pub(crate) fn takes_no_guests(&self, host: &HostName) -> Option<Unfit> {
        let known = self.hosts.get(host)?;
        if !known.facts.guests {
            return Some(Unfit::Witness);
        }
        if let Some(quarantine) = &known.quarantine {
            return Some(Unfit::Quarantined { why: quarantine.to_string() });
        }
        match (&known.life, known.mode) {
            (Life::Fencing(_) | Life::Gone { .. }, _) => Some(Unfit::NotUp),
            (Life::Up, Mode::Active) => None,
            (Life::Up, mode @ (Mode::Draining | Mode::Maintenance | Mode::Leaving { .. })) => {
                Some(Unfit::Mode { mode: mode.word().to_owned() })
            }
        }
    }

    /// Why this guest may not go to this host; `None` when nothing in the state speaks against it. Guests that required
    /// rules keep together with it, and that run elsewhere, have to be able to follow it there.
    #[must_use]
    pub fn unfit(&self, guest: &GuestName, host: &HostName) -> Option<Unfit> {
        let rule = |rule: &RuleName| Unfit::Rule { rule: rule.clone() };
        let followers = self.followers(guest, host);
        let movers: BTreeSet<&GuestName> = followers.keys().copied().chain([guest]).collect();
        let stuck = || followers.iter().find(|(follower, _)| !self.can_follow(follower, host)).map(|(_, rule)| *rule);
        self.takes_no_guests(host)
            .or_else(|| host_rule_broken(&self.policies, guest, host).map(rule))
            .or_else(|| stuck().map(rule))
            .or_else(|| self.too_near(&movers, host).map(rule))
            .or_else(|| self.no_room(&movers, host))
    }

    /// Guests that run elsewhere than on the host, and that required rules keep together with this one, directly or through
    /// others; each with such a rule.
    fn followers<'a>(&'a self, guest: &'a GuestName, host: &HostName) -> BTreeMap<&'a GuestName, &'a RuleName> {
        let together = self.policies.rules.iter().filter_map(|(name, rule)| match rule {
            Rule::Together { guests, required: true, .. } => Some((name, guests.among(&self.policies.guests))),
            Rule::Together { .. } | Rule::Apart { .. } | Rule::Hosts { .. } | Rule::Order { .. } => None,
        });
        let mut rules: Vec<(&RuleName, BTreeSet<&GuestName>)> = together.collect();
        let mut set: BTreeMap<&GuestName, &RuleName> = BTreeMap::new();
        let mut open = vec![guest];
        while let Some(at) = open.pop() {
            // What a rule says is taken in once, by whichever of its guests comes first.
            let (with, without): (Vec<_>, Vec<_>) = rules.into_iter().partition(|(_, guests)| guests.contains(at));
            rules = without;
            for (name, guests) in with {
                for other in guests.into_iter().filter(|other| *other != guest) {
                    if set.insert(other, name).is_none() {
                        open.push(other);
                    }
                }
            }
        }
        set.retain(|other, _| self.runs(other, |on| on != host));
        set
    }

    /// Whether a guest comes after one that it is kept together with: it is on its way already, or nothing holds it.
    fn can_follow(&self, guest: &GuestName, host: &HostName) -> bool {
        let Some(known) = self.guests.get(guest) else { return false };
        let comes = known.heading.as_ref().is_some_and(|heading| heading.to == *host);
        let runs = matches!(known.phase, Phase::Running { .. }) && known.wanted == Wanted::Running;
        let held = self.hands_off_of(guest, known).is_some();
        (comes || (runs && !held)) && host_rule_broken(&self.policies, guest, host).is_none()
    }

    /// The required rule that would have guests on the host kept apart, from each other or from who runs there, if any.
    fn too_near(&self, movers: &BTreeSet<&GuestName>, host: &HostName) -> Option<&RuleName> {
        let broken = |rule: &Rule| match rule {
            Rule::Apart { guests, required: true, by, .. } => {
                let near = |other: &HostName| other == host || self.shares(by.as_deref(), other, host);
                let guests = guests.among(&self.policies.guests);
                let meets = |mover: &GuestName| {
                    let is_near =
                        |other: &GuestName| movers.contains(other) || self.runs(other, near) || self.comes(other, near);
                    guests.iter().any(|&other| other != mover && is_near(other))
                };
                movers.iter().any(|&mover| guests.contains(mover) && meets(mover))
            }
            Rule::Apart { .. } | Rule::Together { .. } | Rule::Hosts { .. } | Rule::Order { .. } => false,
        };
        self.policies.rules.iter().find(|(_, rule)| broken(rule)).map(|(name, _)| name)
    }

    /// Whether the guest may run on a host like this.
    fn runs(&self, guest: &GuestName, place: impl Fn(&HostName) -> bool) -> bool {
        let halves = self.guests.get(guest).map(Guest::halves).unwrap_or_default();
        halves.into_iter().flatten().any(|tenure| place(&tenure.host))
    }

    /// Whether the guest is being stopped to start on a host like this: its place there is promised to it. Once it has stopped it is
    /// about to start, there or after a while elsewhere, which nothing here tells. An earlier version counts it nowhere (R26).
    fn comes(&self, guest: &GuestName, place: impl Fn(&HostName) -> bool) -> bool {
        let Some(known) = self.guests.get(guest).filter(|_| self.level >= FeatureLevel::PROMISED) else { return false };
        let Phase::Releasing { tenure, order: Some(_), failed: None, .. } = &known.phase else { return false };
        let stops = self.hosts.get(&tenure.host).is_some_and(|on| on.life == Life::Up);
        let goes = |to: &HostName| *to != tenure.host && place(to);
        stops && known.wanted == Wanted::Running && known.heading.as_ref().is_some_and(|heading| goes(&heading.to))
    }

    /// Whether two hosts have the same value of a label.
    fn shares(&self, label: Option<&str>, one: &HostName, other: &HostName) -> bool {
        let Some(label) = label else { return false };
        let value = |host: &HostName| self.policies.hosts.get(host).and_then(|declared| declared.labels.get(label));
        value(one).is_some_and(|value_of_one| value(other) == Some(value_of_one))
    }

    fn no_room(&self, movers: &BTreeSet<&GuestName>, host: &HostName) -> Option<Unfit> {
        let capacity = self.policies.hosts.get(host).map(|known| known.capacity.clone()).unwrap_or_default();
        let reported = self.hosts.get(host).map(|known| ("memory_mib".to_owned(), known.facts.memory_mib));
        let capacity: BTreeMap<String, u64> = reported.into_iter().chain(capacity).collect();
        let taken =
            |guest: &GuestName, what: &str| self.policies.guests.get(guest).map_or(0, |declared| takes(declared, what));
        let coming = self.guests.keys().filter(|guest| self.comes(guest, |to| to == host));
        let there = self.guests_of(host).map(|(name, _)| name).chain(coming);
        let others: Vec<&GuestName> = there.filter(|name| !movers.contains(name)).collect();
        let mut hard = capacity.into_iter().filter(|(what, _)| self.policies.cluster.is_hard(what));
        hard.find_map(|(what, all)| {
            let used = others.iter().map(|name| taken(name, &what)).fold(0, u64::saturating_add);
            let needed = movers.iter().map(|mover| taken(mover, &what)).fold(0, u64::saturating_add);
            let free = all.saturating_sub(used);
            (free < needed).then_some(Unfit::NoRoom { what, free, needed })
        })
    }
}

/// How much of a capacity a guest takes.
fn takes(guest: &GuestDeclaration, what: &str) -> u64 {
    let own = match what {
        "memory_mib" => u64::from(guest.qemu.memory_mib),
        "cpus" => u64::from(guest.qemu.cpus),
        _ => 0,
    };
    guest.needs.demand.get(what).copied().unwrap_or(own)
}
