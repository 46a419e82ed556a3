//! What if: the loss of hosts played through for people, with places, the order of starts and an estimate of the time.
//!
//! Places come from [`if_lost`](super::if_lost) and [`admission`](super::admission). The time of a guest is that of the
//! proof about its host, then of its turn among the starts of its new host, then of its boot. Two estimates are given:
//! the soonest, where the power device says off at once, and a slow one, where every device takes its whole time and
//! hosts are fenced one after another (S9), at the first attempt each.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    STARTS_PER_HOST,
    problem::Problem,
    survive::{Fate, Survival, Verdict, WhatIf, admission_within, if_lost},
    table::HostAt,
};
use crate::{
    hostfile::Timing,
    model::{FenceLevel, Policies},
    names::{GuestName, HostName, Incarnation},
    rules::Rule,
    state::{ClusterState, Host, HostFacts, Life},
    time::{Span, millis},
};

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
    /// When it answers, in milliseconds after the loss; `None`: a person has to confirm first that its host is off.
    pub soonest_ms: Option<u64>,
    /// The same when power devices take their whole time.
    pub slow_ms: Option<u64>,
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
    let (case, tried, places) = match &question.lose {
        Lose::These { hosts, domains } => {
            let case = if_lost(problem, &named(problem, hosts, domains)?);
            let places = case.verdict;
            (case, None, places)
        }
        Lose::Any { losses, by_domain } => {
            let losses = usize::try_from(*losses).unwrap_or(usize::MAX);
            let survival = admission_within(problem, losses, *by_domain, looks);
            let places = survival.verdict;
            let tried = tried(&survival);
            let case = survival.worst.unwrap_or_else(|| if_lost(problem, &BTreeSet::new()));
            (case, Some(tried), places)
        }
    };
    let lost = proofs(state, timing, around, &case);
    let (starts, alone) = starts(state, &case, &lost, millis(question.boot.0));
    let mut simulation = Simulation {
        survives: false,
        places,
        lost,
        starts,
        stays: case.guests.values().filter(|fate| matches!(fate, Fate::Stays)).count(),
        gives_way: Vec::new(),
        nowhere: BTreeMap::new(),
        tried,
        notes: notes(problem, around, &case, question),
    };
    for (guest, fate) in &case.guests {
        match fate {
            Fate::GivesWay => simulation.gives_way.push(guest.clone()),
            Fate::Nowhere { reasons } => {
                simulation.nowhere.insert(guest.clone(), reasons.to_string());
            }
            Fate::Stays | Fate::Starts { .. } => {}
        }
    }
    // Of any hosts each could be the one that only a person can prove off, not only those of the worst case.
    let unproven = if simulation.tried.is_some() { unproven(state, &around.stale) } else { Default::default() };
    if !unproven.is_empty() {
        let names: Vec<&str> = unproven.iter().map(|host| host.as_str()).collect();
        simulation.notes.push(format!("no power device that answers proves {} off: a person has to", names.join(", ")));
    }
    let quorum = has_quorum(around, &case);
    simulation.survives = places == Verdict::Yes && alone && quorum && unproven.is_empty();
    Ok(simulation)
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

/// The levels' time up to the first whose device is proof; `None` when no device is. One that does not answer now takes
/// its time and proves nothing, and so does one that has not answered for long.
fn device_ms(state: &ClusterState, stale: &BTreeSet<(HostName, usize)>, host: &HostName) -> Option<u64> {
    let known = state.hosts.get(host);
    let distrusted = |level: &usize| known.is_some_and(|known| known.distrusted.contains(level));
    let fails = |level: usize| known.is_some_and(|known| known.fails(level).is_some());
    let is_stale = |level: usize| stale.contains(&(host.clone(), level));
    let mut spent = 0_u64;
    for (row, level) in state.policies.fencing.get(host)?.iter().enumerate() {
        match level {
            FenceLevel::Power(_) if distrusted(&row) => {}
            FenceLevel::Power(_) => {
                spent = spent.saturating_add(millis(level.timeout().0));
                if state.wiring_of(host, row).is_some() && !fails(row) && !is_stale(row) {
                    return Some(spent);
                }
            }
            FenceLevel::Lease(_) | FenceLevel::Operator {} => {}
        }
    }
    None
}

/// How long after its last grant the host's lease is proof, where it is (R9).
fn lease_ms(state: &ClusterState, host: &HostName) -> Option<u64> {
    state.lease_ground(host).ok().map(|ground| millis(ground.longest.wait()))
}

/// Hosts that run guests and that only a person can prove off: nothing else is declared for them, armed, or has answered of late.
#[must_use]
pub fn unproven<'a>(state: &'a ClusterState, stale: &BTreeSet<(HostName, usize)>) -> Vec<&'a HostName> {
    let may_run = |known: &Host| known.facts.guests && known.life == Life::Up;
    let by_nothing = |name: &HostName| device_ms(state, stale, name).is_none() && lease_ms(state, name).is_none();
    state.hosts.iter().filter(|(name, known)| may_run(known) && by_nothing(name)).map(|(name, _)| name).collect()
}

fn proofs(
    state: &ClusterState,
    timing: &Timing,
    around: &Circumstances,
    case: &WhatIf,
) -> BTreeMap<HostName, ProofEstimate> {
    let needed: BTreeSet<&HostName> = case.from.values().collect();
    // A device that says off by itself is asked early; one that has to switch the host off waits for the verdict.
    let asked = millis(timing.wonder_after.0);
    let mut fenced = millis(timing.suspect_after.0);
    let mut proofs = BTreeMap::new();
    for host in &case.lost {
        let gone = state.hosts.get(host).is_some_and(|known| matches!(known.life, Life::Gone { .. }));
        let proof = if gone || !needed.contains(host) {
            ProofEstimate::NotNeeded
        } else if let Some(device) = device_ms(state, &around.stale, host) {
            fenced = fenced.saturating_add(device);
            // Whichever comes first; the lease waits for no other host's device.
            let slow_ms = lease_ms(state, host).map_or(fenced, |lease| lease.min(fenced));
            ProofEstimate::Device { soonest_ms: asked, slow_ms }
        } else if let Some(ms) = lease_ms(state, host) {
            ProofEstimate::Lease { ms }
        } else {
            ProofEstimate::Person
        };
        proofs.insert(host.clone(), proof);
    }
    proofs
}

/// The starts with their times, and whether all of them come without a person.
fn starts(
    state: &ClusterState,
    case: &WhatIf,
    proofs: &BTreeMap<HostName, ProofEstimate>,
    boot_ms: u64,
) -> (Vec<Start>, bool) {
    let proven = |from: &HostName, slow: bool| match proofs.get(from) {
        Some(ProofEstimate::Device { soonest_ms, slow_ms }) => Some(if slow { *slow_ms } else { *soonest_ms }),
        Some(ProofEstimate::Lease { ms }) => Some(*ms),
        Some(ProofEstimate::NotNeeded) => Some(0),
        Some(ProofEstimate::Person) | None => None,
    };
    let mut starts = Vec::new();
    for guest in &case.starts {
        if let (Some(Fate::Starts { host, why }), Some(from)) = (case.guests.get(guest), case.from.get(guest)) {
            let (guest, from, to, why) = (guest.clone(), from.clone(), host.clone(), why.clone());
            starts.push(Start { guest, from, to, why, soonest_ms: None, slow_ms: None });
        }
    }
    let soonest = answers_at(state, &starts, |from| proven(from, false), boot_ms);
    let slow = answers_at(state, &starts, |from| proven(from, true), boot_ms);
    for start in &mut starts {
        start.soonest_ms = soonest.get(&start.guest).copied();
        start.slow_ms = slow.get(&start.guest).copied();
    }
    let alone = starts.iter().all(|start| proven(&start.from, true).is_some());
    (starts, alone)
}

/// When each guest answers: those that can start first do, a few at once on each host, and after those that rules put
/// first. Guests that wait for a person are left out, and those behind them.
fn answers_at(
    state: &ClusterState,
    starts: &[Start],
    proven: impl Fn(&HostName) -> Option<u64>,
    boot_ms: u64,
) -> BTreeMap<GuestName, u64> {
    let going: BTreeSet<&GuestName> = starts.iter().map(|start| &start.guest).collect();
    let mut before: BTreeMap<&GuestName, Vec<&GuestName>> = BTreeMap::new();
    for rule in state.policies.rules.values() {
        match rule {
            Rule::Order { first, then, .. } if going.contains(first) && going.contains(then) && first != then => {
                before.entry(then).or_default().push(first);
            }
            Rule::Order { .. } | Rule::Hosts { .. } | Rule::Together { .. } | Rule::Apart { .. } => {}
        }
    }
    let mut slots: BTreeMap<&HostName, Vec<u64>> = BTreeMap::new();
    let mut answers: BTreeMap<GuestName, u64> = BTreeMap::new();
    let ready = |answers: &BTreeMap<GuestName, u64>, start: &Start| {
        let mut at = proven(&start.from)?;
        for first in before.get(&start.guest).into_iter().flatten() {
            at = at.max(*answers.get(*first)?);
        }
        Some(at)
    };
    // Guests that wait for each other in a circle of rules get no estimate.
    let mut queue: BTreeSet<(u64, usize)> = BTreeSet::new();
    let mut waiting: BTreeSet<usize> = (0..starts.len()).collect();
    loop {
        let able: Vec<(u64, usize)> =
            waiting.iter().filter_map(|row| Some((ready(&answers, starts.get(*row)?)?, *row))).collect();
        waiting.retain(|row| !able.iter().any(|(_, able)| able == row));
        queue.extend(able);
        if queue.is_empty() {
            return answers;
        }
        let mut released = false;
        while let Some((at, row)) = queue.pop_first() {
            let Some(start) = starts.get(row) else { continue };
            let most = usize::try_from(STARTS_PER_HOST).unwrap_or(1).max(1);
            let busy = slots.entry(&start.to).or_insert_with(|| vec![0; most]);
            let Some(slot) = busy.iter_mut().min() else { continue };
            // Its turn may come later than its proof; then others are looked at first.
            if *slot > at {
                queue.insert((*slot, row));
                continue;
            }
            *slot = at.saturating_add(boot_ms);
            answers.insert(start.guest.clone(), *slot);
            released = before.values().flatten().any(|first| **first == start.guest);
            if released {
                break;
            }
        }
        if !released {
            return answers;
        }
    }
}

fn has_quorum(around: &Circumstances, case: &WhatIf) -> bool {
    let left = around.voters.iter().filter(|voter| !case.lost.contains(voter)).count();
    around.voters.is_empty() || left * 2 > around.voters.len()
}

fn notes(problem: &Problem<'_>, around: &Circumstances, case: &WhatIf, question: &Question) -> Vec<String> {
    let mut notes = Vec::new();
    if !has_quorum(around, case) {
        notes.push("the voters that are left are no majority: nothing is decided until others are back".to_owned());
    }
    if around.coordinator.as_ref().is_some_and(|coordinator| case.lost.contains(coordinator)) {
        notes.push(
            "the coordinator is among them: a new one is elected first, which takes some seconds more".to_owned(),
        );
    }
    let domains = problem.domains(problem.failure_domain);
    let hit = domains.iter().filter(|hosts| hosts.iter().any(|at| case.lost.contains(problem.host_name(*at)))).count();
    if hit > 1 && hit * 3 > domains.len() {
        notes.push(format!(
            "{hit} of {} failure domains at once look like a storm: fencing is held until a person decides, except \
             where power devices say off by themselves",
            domains.len()
        ));
    }
    if problem.failure_domain.is_none() && matches!(question.lose, Lose::Any { by_domain: true, .. }) {
        notes.push("`cluster.failure_domain` is not set: each host counts as a domain".to_owned());
    }
    notes
}

#[cfg(test)]
mod tests;
