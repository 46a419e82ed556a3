//! What if: the loss of hosts played through for people, with places, the order of starts and an estimate of the time.
//!
//! Places come from [`if_lost`](super::if_lost) and [`admission`](super::admission). The time of a guest is that of the
//! proof about its host, then of its turn among the starts of its new host, then of its boot. Two estimates are given:
//! the soonest, where the power device says off at once, and a slow one, where every device takes its whole time and
//! hosts are fenced one after another (S9), at the first attempt each. Beside them stands what is guaranteed: the bound (L1) of
//! this loss, which is the one that is explained before the host fails.

mod estimate;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use self::estimate::unproven;
use super::{
    problem::Problem,
    survive::{Fate, Survival, Verdict, WhatIf, admission_within, if_lost},
    table::HostAt,
};
use crate::{
    bound::{Bound, Limits, Loss, when_lost},
    decide::supposed_storm,
    hostfile::Timing,
    model::Policies,
    names::{GuestName, HostName, Incarnation},
    state::{ClusterState, Host, HostFacts, Life},
    time::{Span, millis},
};

/// Starts of one loss of which the bound is worked out: some kilobytes each, and nothing is decided meanwhile. A rack of forty hosts
/// has fewer.
pub const BOUNDS_MAX: usize = 500;

/// What is supposed to be lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Lose {
    /// These, all at once.
    These {
        /// Hosts by name.
        hosts: BTreeSet<HostName>,
        /// All hosts with any of these labels: key and value.
        domains: BTreeSet<(String, String)>,
    },
    /// Any so many at once.
    Any {
        /// How many.
        losses: u32,
        /// Failure domains, by the label of the settings, instead of hosts.
        by_domain: bool,
    },
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// What is lost.
    pub lose: Lose,
    /// How long a guest takes from the order to start until it answers.
    pub boot: Span,
}

/// What a running cluster knows beside its state.
#[derive(Debug, Clone, Default)]
pub struct Circumstances {
    /// Hosts with a vote; empty where nobody knows.
    pub voters: BTreeSet<HostName>,
    /// Those of them that are not heard at present: they decide nothing.
    pub away: BTreeSet<HostName>,
    /// Who coordinates.
    pub coordinator: Option<HostName>,
    /// Levels of fencing that have not been proven to work for long ([`ClusterState::stale_paths`]).
    pub stale: BTreeSet<(HostName, usize)>,
}

/// The answer. Of a question about any hosts, the worst case is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Simulation {
    /// Whether every guest that does not run by best effort comes back without a person.
    pub survives: bool,
    /// Whether every guest that does not run by best effort has a place.
    pub places: Verdict,
    /// The hosts that are lost, with how they are proven off.
    pub lost: BTreeMap<HostName, ProofEstimate>,
    /// Guests that start elsewhere, in the order of their starts.
    pub starts: Vec<Start>,
    /// Guests that stay where they are.
    pub stays: usize,
    /// Guests of best effort that are stopped for others.
    pub gives_way: Vec<GuestName>,
    /// Guests that find no place, and why.
    pub nowhere: BTreeMap<GuestName, String>,
    /// Of a question about any hosts: what was tried.
    pub tried: Option<Tried>,
    /// What else has to be known.
    pub notes: Vec<String>,
}

/// What was tried of a question about any hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// How many are lost at once.
    pub losses: usize,
    /// The label that names what is lost; `None`: single hosts.
    pub domain: Option<String>,
    /// Cases tried.
    pub cases: usize,
    /// Cases that there are.
    pub of: usize,
    /// Guests that some case leaves without a place: the hosts lost in the first such case, and why.
    pub unplaced: BTreeMap<GuestName, (Vec<HostName>, String)>,
}

/// How a lost host is proven off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProofEstimate {
    /// By a power device, so long after the loss.
    Device {
        /// When the device says off at once, in milliseconds.
        soonest_ms: u64,
        /// When it takes its whole time, and those of hosts before it too.
        slow_ms: u64,
    },
    /// By its lease and its watchdog alone, so long after its last lease at most.
    Lease {
        /// In milliseconds.
        ms: u64,
    },
    /// Nothing runs there, so that nothing waits for proof.
    NotNeeded,
    /// Only by a person.
    Person,
}

/// A guest that starts elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Who.
    pub guest: GuestName,
    /// The host that is lost.
    pub from: HostName,
    /// Where it starts.
    pub to: HostName,
    /// Why there.
    pub why: String,
    /// When it answers, in milliseconds after the loss: an estimate. `None`: it does not come back by itself, because a person
    /// has to confirm first that its host is off, it is left alone, or nothing is decided.
    pub soonest_ms: Option<u64>,
    /// The same when power devices take their whole time. `None` beside a soonest time: fencing is held, so that a person decides
    /// where they do not say off by themselves.
    pub slow_ms: Option<u64>,
    /// Within which time it is back at most, part by part, or why nothing bounds that (L1). `None` from a supervisor of before
    /// there was one, and beyond the first [`BOUNDS_MAX`] starts.
    #[serde(default)]
    pub bound: Option<Bound>,
}

/// A question about what is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadQuestion {
    /// No such host.
    #[error("there is no host {host}")]
    NoHost {
        /// The name.
        host: HostName,
    },
    /// No host has such a label.
    #[error("no host has the label {key}={value}")]
    NoDomain {
        /// The label's key.
        key: String,
        /// The label's value.
        value: String,
    },
}

/// A cluster that nobody has built: hosts that are well, and guests that run nowhere yet.
#[must_use]
pub fn imagine(
    policies: Policies,
    hosts: &BTreeMap<HostName, (u64, u32)>,
    boot: &Incarnation,
    address: std::net::SocketAddr,
) -> ClusterState {
    let imagined = |(name, (memory_mib, cores)): (&HostName, &(u64, u32))| {
        let facts = HostFacts {
            incarnation: boot.clone(),
            machine_id: String::new(),
            address,
            memory_mib: *memory_mib,
            cores: *cores,
            guests: true,
        };
        let host = Host::joined(facts, 0);
        (name.clone(), host)
    };
    ClusterState { policies, hosts: hosts.iter().map(imagined).collect(), ..ClusterState::default() }
}

/// Plays a loss through; a question about any hosts may take so many looks at a guest on a host.
///
/// # Errors
/// [`BadQuestion`] when something is to be lost that is not there.
pub fn simulate(
    problem: &Problem<'_>,
    state: &ClusterState,
    timing: &Timing,
    around: &Circumstances,
    question: &Question,
    looks: u64,
) -> Result<Simulation, BadQuestion> {
    let (case, places, tried) = case(problem, &question.lose, looks)?;
    let silent = estimate::silent(state, &around.stale);
    let lost = estimate::proofs(state, timing, &silent, &case);
    let undecided = minority(state, around, &case);
    let held = storm(state, &case);
    // They are in the order of their starts, so that nobody in it waits for one that is left out.
    let bounded = case.starts.get(..case.starts.len().min(BOUNDS_MAX)).unwrap_or_default();
    let loss = Loss {
        hosts: lost.iter().filter(|(_, proof)| **proof != ProofEstimate::NotNeeded).map(|(host, _)| host).collect(),
        from: &case.from,
        starts: bounded,
        room_made: &case.room_made,
        silent: &silent,
        coordinator: around.coordinator.as_ref().map(|coordinator| case.lost.contains(coordinator)),
        boot: question.boot,
        held: held.clone(),
        undecided: undecided.clone(),
    };
    let bounds = when_lost(state, timing, &Limits::default(), &loss);
    let mut starts = estimate::starts(state, &case, &lost, bounds, millis(question.boot.0), held.is_some());
    let over = beyond_budgets(state, &lost).filter(|_| held.is_none());
    let alone = estimate::come_back(state, &lost, &starts, held.is_some());
    if undecided.is_some() {
        starts.iter_mut().for_each(|start| (start.soonest_ms, start.slow_ms) = (None, None));
    }
    // Of any hosts each could be the one that only a person can prove off, not only those of the worst case.
    let unproven = if tried.is_some() { unproven(state, &around.stale) } else { Vec::new() };
    let mut notes = notes(problem, around, &case, question, [undecided.clone(), held]);
    notes.extend(over);
    if !unproven.is_empty() {
        let names: Vec<&str> = unproven.iter().map(|host| host.as_str()).collect();
        notes.push(format!("no power device that answers proves {} off: a person has to", names.join(", ")));
    }
    let (gives_way, nowhere) = without_a_place(&case);
    Ok(Simulation {
        survives: places == Verdict::Yes && alone && undecided.is_none() && unproven.is_empty(),
        places,
        lost,
        starts,
        stays: case.guests.values().filter(|fate| matches!(fate, Fate::Stays)).count(),
        gives_way,
        nowhere,
        tried,
        notes,
    })
}

/// The case that is shown, and whether every guest has a place in all those that were tried.
fn case(problem: &Problem<'_>, lose: &Lose, looks: u64) -> Result<(WhatIf, Verdict, Option<Tried>), BadQuestion> {
    match lose {
        Lose::These { hosts, domains } => {
            let case = if_lost(problem, &named(problem, hosts, domains)?);
            let places = case.verdict;
            Ok((case, places, None))
        }
        Lose::Any { losses, by_domain } => {
            let losses = usize::try_from(*losses).unwrap_or(usize::MAX);
            let survival = admission_within(problem, losses, *by_domain, looks);
            let places = survival.verdict;
            let tried = tried(&survival);
            let worst = survival.worst.unwrap_or_else(|| if_lost(problem, &BTreeSet::new()));
            Ok((worst, places, Some(tried)))
        }
    }
}

/// Guests that are stopped for others, and those that find no place, with why.
fn without_a_place(case: &WhatIf) -> (Vec<GuestName>, BTreeMap<GuestName, String>) {
    let (mut gives_way, mut nowhere) = (Vec::new(), BTreeMap::new());
    for (guest, fate) in &case.guests {
        match fate {
            Fate::GivesWay => gives_way.push(guest.clone()),
            Fate::Nowhere { reasons } => {
                nowhere.insert(guest.clone(), reasons.to_string());
            }
            Fate::Stays | Fate::Starts { .. } => {}
        }
    }
    (gives_way, nowhere)
}

fn named(
    problem: &Problem<'_>,
    hosts: &BTreeSet<HostName>,
    domains: &BTreeSet<(String, String)>,
) -> Result<BTreeSet<HostAt>, BadQuestion> {
    let mut lost = BTreeSet::new();
    for host in hosts {
        lost.insert(problem.host(host).ok_or_else(|| BadQuestion::NoHost { host: host.clone() })?);
    }
    for (key, value) in domains {
        let has = |at: &HostAt| problem.hosts[*at].labels.is_some_and(|labels| labels.get(key) == Some(value));
        let before = lost.len();
        let found: Vec<HostAt> = problem.hosts().filter(has).collect();
        lost.extend(&found);
        if found.is_empty() && lost.len() == before {
            return Err(BadQuestion::NoDomain { key: key.clone(), value: value.clone() });
        }
    }
    Ok(lost)
}

fn tried(survival: &Survival) -> Tried {
    let unplaced = survival.unplaced.iter();
    Tried {
        losses: survival.losses,
        domain: survival.domain.clone(),
        cases: survival.tried.0,
        of: survival.tried.1,
        unplaced: unplaced.map(|(name, (lost, why))| (name.clone(), (lost.clone(), why.to_string()))).collect(),
    }
}

/// Why nothing is decided, where too few voters are left for that.
fn minority(state: &ClusterState, around: &Circumstances, case: &WhatIf) -> Option<String> {
    let is_gone = |voter: &HostName| match state.hosts.get(voter).map(|known| &known.life) {
        Some(Life::Gone { .. } | Life::Fencing(_)) => true,
        Some(Life::Up) | None => false,
    };
    let is_left = |voter: &HostName| !case.lost.contains(voter) && !around.away.contains(voter) && !is_gone(voter);
    let left = around.voters.iter().filter(|voter| is_left(voter)).count();
    let enough = around.voters.is_empty() || left * 2 > around.voters.len();
    let why = "the voters that are left are no majority: nothing is decided until others are back";
    (!enough).then(|| why.to_owned())
}

/// Why no host is switched off, where so much is lost at once that it looks like a storm (S9).
fn storm(state: &ClusterState, case: &WhatIf) -> Option<String> {
    let (hit, of) = supposed_storm(state, &case.lost)?;
    Some(format!(
        "{hit} of {of} failure domains at once look like a storm: fencing is held until a person decides, except where power \
         devices say off by themselves"
    ))
}

/// That hosts are not switched off before the hour has room, where so much is lost at once that the budgets hold it.
fn beyond_budgets(state: &ClusterState, lost: &BTreeMap<HostName, ProofEstimate>) -> Option<String> {
    let by_device = lost.iter().filter(|(_, proof)| matches!(proof, ProofEstimate::Device { .. }));
    let fences: Vec<&HostName> = by_device.map(|(host, _)| host).collect();
    let over = state.beyond_budgets(&fences)?;
    Some(format!(
        "{over}: hosts beyond it whose power devices do not say off by themselves are switched off when the hour has room again, \
         or when a person allows it; the slow times and the bounds are without that"
    ))
}

fn notes(
    problem: &Problem<'_>,
    around: &Circumstances,
    case: &WhatIf,
    question: &Question,
    [undecided, held]: [Option<String>; 2],
) -> Vec<String> {
    let mut notes: Vec<String> = undecided.into_iter().collect();
    if around.coordinator.as_ref().is_some_and(|coordinator| case.lost.contains(coordinator)) {
        notes.push(
            "the coordinator is among them: a new one is elected first, which takes some seconds more".to_owned(),
        );
    }
    notes.extend(held);
    if case.starts.len() > BOUNDS_MAX {
        notes.push(format!(
            "{} guests start elsewhere: only of the first {BOUNDS_MAX} is said within which time they are back at most",
            case.starts.len()
        ));
    }
    if problem.failure_domain.is_none() && matches!(question.lose, Lose::Any { by_domain: true, .. }) {
        notes.push("`cluster.failure_domain` is not set: each host counts as a domain".to_owned());
    }
    notes
}

#[cfg(test)]
mod tests;
