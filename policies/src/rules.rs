//! What operators declare about places: hosts' labels and capacities, what guests need, and rules between them.
//!
//! A rule says what must or should hold; [`Score`] says how much. What is required is never broken: a guest for which no
//! host is left waits. What is preferred gives way, the smallest weight first.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    model::{Labels, Policies},
    names::{GuestName, HostName},
    operators::{Certificates, Revoked},
    plan::MEMORY,
    time::Span,
};

/// Most hosts that nobody knows and of which is told at `apply`: more are one mistake repeated.
const STRANGERS_MAX: usize = 10;

/// What is said of a host beyond what it reports of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct HostDeclaration {
    /// What rules and failure domains match on.
    pub labels: Labels,
    /// Capacities by name, in units of the operator's choice; a guest's demand of the same name counts against it. What
    /// is not named here is not limited. `memory_mib` and `cpus` override what the host reports. How they count is said for
    /// all hosts at once, by [`ClusterSettings::capacities`].
    pub capacity: BTreeMap<String, u64>,
}

/// What placement, starting and moving must know of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestNeeds {
    /// What it takes of its host's declared capacities, by name.
    pub demand: BTreeMap<String, u64>,
    /// How much better another host must be before a guest that runs well is moved there: it is weighed against the
    /// scores of rules. Default 1000: nothing that runs is disturbed because elsewhere would be a little nicer.
    pub stickiness: i64,
    /// It may be stopped when a guest of higher priority finds no room otherwise.
    pub best_effort: bool,
    /// It can move while it runs. Where not, a move is a stop and a start.
    pub live_migration: bool,
    /// It goes back to the host that its rules prefer when that host is there again.
    pub failback: bool,
    /// Starts on one host before another is tried. Default 2.
    pub start_tries: u32,
    /// Hosts that are tried after the first one before a human is called; `None`: all of them, again and again.
    pub relocations: Option<u32>,
    /// How long it may take to shut down when it is stopped or moved in order; then its plug is pulled. `0s` pulls it at
    /// once. Raising it makes drains of hosts whose guests hang take longer.
    #[serde(default = "stop_timeout")]
    pub stop_timeout: Span,
}

/// Most guests shut down in some seconds; one whose services hang would take systemd's 90 seconds for each, and a drain or
/// an operator should not wait so long for what is killed then anyway.
fn stop_timeout() -> Span {
    Span::secs(30)
}

impl Default for GuestNeeds {
    fn default() -> Self {
        Self {
            demand: BTreeMap::new(),
            stickiness: 1_000,
            best_effort: false,
            live_migration: true,
            failback: false,
            start_tries: 2,
            relocations: None,
            stop_timeout: stop_timeout(),
        }
    }
}

/// How much a host is liked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Score {
    /// The guest runs nowhere else.
    Must,
    /// The guest never runs there.
    Never,
    /// More is better; negative is worse than a host that is not named.
    By(i64),
}

/// Which guests a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guests {
    /// These.
    Named(Vec<GuestName>),
    /// Those with all these labels.
    Labelled(Labels),
}

/// Which hosts a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hosts {
    /// These, each with how much it is liked.
    Named(BTreeMap<HostName, Score>),
    /// Those with all these labels.
    Labelled(Labels, Score),
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Where guests run.
    Hosts {
        /// Which guests.
        guests: Guests,
        /// How much each host is liked.
        hosts: Hosts,
        /// They run on no host that is not named.
        required: bool,
    },
    /// Guests that share a host.
    Together {
        /// Which guests.
        guests: Guests,
        /// Whether it must be so.
        required: bool,
        /// The one that gives way where not all can run; by default the one with the least priority.
        #[serde(default)]
        yields: Option<GuestName>,
        /// How much it weighs where it is not required.
        weight: i64,
    },
    /// Guests that do not share a host.
    Apart {
        /// Which guests.
        guests: Guests,
        /// Whether it must be so.
        required: bool,
        /// The one that gives way where not all can run; by default the one with the least priority.
        #[serde(default)]
        yields: Option<GuestName>,
        /// How much it weighs where it is not required.
        weight: i64,
        /// Apart by this label of the hosts, such as `rack`, instead of by host.
        #[serde(default)]
        by: Option<String>,
    },
    /// A guest that starts when another one is ready.
    Order {
        /// What has to be ready.
        first: GuestName,
        /// What starts then.
        then: GuestName,
        /// The second does not run without the first; where not, the order matters only when both are to be started.
        required: bool,
        /// The second is also stopped before the first.
        symmetrical: bool,
    },
}

/// What an announced shutdown of a host does to its guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum OnShutdown {
    /// A reboot keeps them for the host; a shutdown starts them elsewhere.
    #[default]
    Conditional,
    /// They move away first.
    Migrate,
    /// They start elsewhere, whether the host comes back or not.
    Failover,
    /// They wait for the host.
    Freeze,
}

/// What holds for the whole cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct ClusterSettings {
    /// Hosts (or failure domains) that may be lost at once with every guest still finding a place. Default 0: not asked.
    pub tolerate: u32,
    /// The label of hosts that names a failure domain, such as `rack`; without it each host is one.
    pub failure_domain: Option<String>,
    /// Policies under which `tolerate` would cease to hold, and starts of guests by operators with which it would, are refused,
    /// instead of accepted with an alert.
    pub refuse_beyond: bool,
    /// What an announced shutdown does.
    pub on_shutdown: OnShutdown,
    /// Fences of one host within an hour; another one waits for room. `None`: no limit.
    pub fences_per_hour: Option<u32>,
    /// Guests are moved to better hosts while nothing is wrong.
    pub rebalance: bool,
    /// A host that was fenced is switched on again, unless it is quarantined.
    #[serde(default)]
    pub power_on_after_fence: bool,
    /// Fences of all hosts together within an hour; another one waits for room. `None`: no limit.
    #[serde(default)]
    pub fences_per_hour_in_all: Option<u32>,
    /// Fences of one host within an hour with which it is quarantined, and gets no guests; `None`: never.
    #[serde(default)]
    pub quarantine_after_fences: Option<u32>,
    /// Whether one fence runs at a time in the cluster, or one in each failure domain.
    #[serde(default)]
    pub fences_at_once: FencesAtOnce,
    /// How often power devices are asked while nothing is wrong; `None`: every day.
    #[serde(default)]
    pub test_fencing_every: Option<Span>,
    /// Whether orders need an operator's certificate. Required, a stolen key of a host gives none, and neither does root on
    /// a host without one.
    #[serde(default)]
    pub operators: Certificates,
    /// Operators' certificates that count no more.
    #[serde(default)]
    pub revoked_operators: BTreeSet<Revoked>,
    /// How capacities count, by name. One that is not named here is hard and weighs 100.
    #[serde(default)]
    pub capacities: BTreeMap<String, CapacitySettings>,
}

/// How a capacity counts, on all hosts alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapacitySettings {
    /// No host is given more than it has. Where not, a host with too little left is only liked less; memory is hard
    /// whatever is said here.
    pub hard: bool,
    /// How much the share that is taken counts where a host is chosen, in percent: 200 has half full weigh like full, 0 has
    /// it weigh nothing. Raising it spreads guests by this and lets others fill up less evenly.
    pub weight: u32,
}

impl Default for CapacitySettings {
    fn default() -> Self {
        Self { hard: true, weight: 100 }
    }
}

impl ClusterSettings {
    /// Whether hosts are given no more of a capacity than they have.
    #[must_use]
    pub fn is_hard(&self, capacity: &str) -> bool {
        capacity == MEMORY || self.capacities.get(capacity).is_none_or(|counts| counts.hard)
    }

    /// How much the share of a capacity that is taken counts where a host is chosen, in percent.
    #[must_use]
    pub fn weight(&self, capacity: &str) -> u32 {
        self.capacities.get(capacity).copied().unwrap_or_default().weight
    }
}

/// How many device calls may switch hosts off at a time (R21).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum FencesAtOnce {
    /// One in the cluster: whatever is wrong with the evidence costs one host at most before somebody looks.
    #[default]
    One,
    /// One in each failure domain.
    OnePerFailureDomain,
}

impl Guests {
    /// Whether this guest is meant. Unlike [`among`](Self::among) it looks at no other: guests are asked one by one, and there may be
    /// thousands.
    #[must_use]
    pub(crate) fn include(
        &self,
        declared: &BTreeMap<GuestName, crate::model::GuestDeclaration>,
        guest: &GuestName,
    ) -> bool {
        let Some(known) = declared.get(guest) else { return false };
        match self {
            Self::Named(names) => names.contains(guest),
            Self::Labelled(labels) => has_all(&known.labels, labels),
        }
    }

    /// The guests meant, among the declared ones.
    pub fn among<'a>(
        &'a self,
        declared: &'a BTreeMap<GuestName, crate::model::GuestDeclaration>,
    ) -> BTreeSet<&'a GuestName> {
        match self {
            Self::Named(names) => names.iter().filter(|name| declared.contains_key(*name)).collect(),
            Self::Labelled(labels) => {
                let meant = declared.iter().filter(|(_, guest)| has_all(&guest.labels, labels));
                meant.map(|(name, _)| name).collect()
            }
        }
    }
}

/// Whether these labels have all that are wanted.
pub(crate) fn has_all(labels: &Labels, wanted: &Labels) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

impl Policies {
    /// What somebody who declares these policies should know of hosts in `rules` and `hosts` that nobody has heard of. They may
    /// come later, so they are no mistake; until then what is said of them comes to nothing.
    #[must_use]
    pub fn strangers_named(&self, is_known: impl Fn(&HostName) -> bool) -> Vec<String> {
        let in_rules = self.rules.iter().flat_map(|(name, rule)| {
            let scores = match rule {
                Rule::Hosts { hosts: Hosts::Named(scores), .. } => Some(scores),
                Rule::Hosts { hosts: Hosts::Labelled(..), .. }
                | Rule::Together { .. }
                | Rule::Apart { .. }
                | Rule::Order { .. } => None,
            };
            scores.into_iter().flat_map(BTreeMap::keys).map(move |host| (format!("rule {name}"), host))
        });
        let in_hosts = self.hosts.keys().map(|host| ("`hosts`".to_owned(), host));
        let strangers = in_rules.chain(in_hosts).filter(|(_, host)| !is_known(host)).take(STRANGERS_MAX);
        strangers
            .map(|(place, host)| {
                format!("? {place} names the host {host}, which has never joined: until it has, that comes to nothing")
            })
            .collect()
    }

    /// For each of these guests that rules start after others of them: those others. None of them waits for itself; they may
    /// wait for each other in a circle.
    #[must_use]
    pub(crate) fn orders_among<'a>(
        &'a self,
        guests: impl IntoIterator<Item = &'a GuestName>,
    ) -> BTreeMap<&'a GuestName, BTreeSet<&'a GuestName>> {
        let guests: BTreeSet<&GuestName> = guests.into_iter().collect();
        let mut firsts: BTreeMap<&GuestName, BTreeSet<&GuestName>> = BTreeMap::new();
        for rule in self.rules.values() {
            match rule {
                Rule::Order { first, then, .. } if guests.contains(first) && guests.contains(then) && first != then => {
                    firsts.entry(then).or_default().insert(first);
                }
                Rule::Order { .. } | Rule::Hosts { .. } | Rule::Together { .. } | Rule::Apart { .. } => {}
            }
        }
        firsts
    }
}

impl Hosts {
    /// How much a host is liked; `None` when the rule does not speak of it.
    #[must_use]
    pub fn score(&self, host: &HostName, labels: Option<&Labels>) -> Option<Score> {
        match self {
            Self::Named(scores) => scores.get(host).copied(),
            Self::Labelled(wanted, score) => {
                let has = |key: &String, value: &String| labels.is_some_and(|labels| labels.get(key) == Some(value));
                wanted.iter().all(|(key, value)| has(key, value)).then_some(*score)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{declaration, name};

    #[test]
    fn a_guest_is_included_where_it_is_among_those_that_are_meant() {
        let known = ["db", "web"].map(name);
        let mut declared = declaration(&known, &[]).guests;
        if let Some(db) = declared.get_mut(&name("db")) {
            db.labels = [("app".to_owned(), "db".to_owned()), ("tier".to_owned(), "gold".to_owned())].into();
        }
        let labelled = |labels: &[(&str, &str)]| {
            Guests::Labelled(labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
        };
        let all = [
            Guests::Named(vec![name("web"), name("gone")]),
            labelled(&[("app", "db")]),
            labelled(&[("app", "db"), ("tier", "gold")]),
            labelled(&[("app", "web"), ("tier", "gold")]),
            labelled(&[]),
        ];
        for guests in &all {
            for guest in ["db", "gone", "web"].map(name) {
                let is_among = guests.among(&declared).contains(&guest);
                assert_eq!(guests.include(&declared, &guest), is_among, "{guest} {guests:?}");
            }
        }
    }
}
