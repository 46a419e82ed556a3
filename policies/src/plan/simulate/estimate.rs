//! The times of a loss that is played through: when hosts are proven off, and when guests answer. They are estimates; none is
//! beyond the bound, which is worked out elsewhere ([`when_lost`](crate::bound::when_lost)).

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{
        STARTS_PER_HOST,
        survive::{Fate, WhatIf},
    },
    ProofEstimate, Start,
};
use crate::{
    bound::{Bound, contested, left_alone, levels_to_proof},
    hostfile::Timing,
    names::{GuestName, HostName},
    state::{ClusterState, Host, Life},
    time::millis,
};

/// Levels of fencing that do not answer now, and those that have not for long: they take their time and prove nothing.
pub(super) fn silent(state: &ClusterState, stale: &BTreeSet<(HostName, usize)>) -> BTreeSet<(HostName, usize)> {
    let mut silent = stale.clone();
    for (name, known) in &state.hosts {
        let rows = 0..state.policies.levels_of(name).len();
        silent.extend(rows.filter(|row| known.fails(*row).is_some()).map(|row| (name.clone(), row)));
    }
    silent
}

/// The levels' time up to the first whose device is proof; `None` when no device is.
fn device_ms(state: &ClusterState, silent: &BTreeSet<(HostName, usize)>, host: &HostName) -> Option<u64> {
    if contested(state, host).is_some() {
        return None;
    }
    let turns = levels_to_proof(state, host, silent)?;
    Some(turns.iter().map(|level| millis(level.timeout().0)).fold(0, u64::saturating_add))
}

/// How long after its last grant the host's lease is proof, where it is (R9).
fn lease_ms(state: &ClusterState, host: &HostName) -> Option<u64> {
    let ground = state.lease_ground(host).ok().filter(|_| contested(state, host).is_none());
    ground.map(|ground| millis(ground.longest.wait()))
}

/// Hosts that run guests and that only a person can prove off: nothing else is declared for them, armed, or has answered of late.
#[must_use]
pub fn unproven<'a>(state: &'a ClusterState, stale: &BTreeSet<(HostName, usize)>) -> Vec<&'a HostName> {
    let silent = silent(state, stale);
    let may_run = |known: &Host| known.facts.guests && known.life == Life::Up;
    let by_nothing = |name: &HostName| device_ms(state, &silent, name).is_none() && lease_ms(state, name).is_none();
    state.hosts.iter().filter(|(name, known)| may_run(known) && by_nothing(name)).map(|(name, _)| name).collect()
}

pub(super) fn proofs(
    state: &ClusterState,
    timing: &Timing,
    silent: &BTreeSet<(HostName, usize)>,
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
        } else if let Some(device) = device_ms(state, silent, host) {
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

/// The starts with their times.
pub(super) fn starts(
    state: &ClusterState,
    case: &WhatIf,
    proofs: &BTreeMap<HostName, ProofEstimate>,
    mut bounds: BTreeMap<GuestName, Bound>,
    boot_ms: u64,
    held: bool,
) -> Vec<Start> {
    let mut starts = Vec::new();
    for guest in &case.starts {
        if let (Some(Fate::Starts { host, why }), Some(from)) = (case.guests.get(guest), case.from.get(guest)) {
            let (guest, from, to, why) = (guest.clone(), from.clone(), host.clone(), why.clone());
            let bound = bounds.remove(&guest);
            starts.push(Start { guest, from, to, why, soonest_ms: None, slow_ms: None, bound });
        }
    }
    let soonest = answers_at(state, &starts, |start| proven(state, proofs, start, Pace::Soonest), boot_ms);
    let pace = if held { Pace::Held } else { Pace::Slow };
    let slow = answers_at(state, &starts, |start| proven(state, proofs, start, pace), boot_ms);
    for start in &mut starts {
        // All that has to boot before it is supposed to take as long as it does; nothing takes longer than it may.
        let longest = start.bound.as_ref().and_then(|bound| bound.within_ms).unwrap_or(u64::MAX);
        start.soonest_ms = soonest.get(&start.guest).map(|ms| longest.min(*ms));
        start.slow_ms = slow.get(&start.guest).map(|ms| longest.min(*ms));
    }
    starts
}

/// Whether every guest that has a place starts there without a person. Those of best effort do not count.
pub(super) fn come_back(
    state: &ClusterState,
    proofs: &BTreeMap<HostName, ProofEstimate>,
    starts: &[Start],
    held: bool,
) -> bool {
    let best_effort =
        |guest: &GuestName| state.policies.guests.get(guest).is_some_and(|declared| declared.needs.best_effort);
    let pace = if held { Pace::Held } else { Pace::Slow };
    starts.iter().all(|start| best_effort(&start.guest) || proven(state, proofs, start, pace).is_some())
}

/// How power devices do.
#[derive(Debug, Clone, Copy)]
enum Pace {
    /// They say off by themselves.
    Soonest,
    /// They have to switch hosts off, and take their whole time.
    Slow,
    /// They would have to, and fencing is held: a lease alone is proof.
    Held,
}

/// When a guest may start elsewhere; `None`: not by itself.
fn proven(state: &ClusterState, proofs: &BTreeMap<HostName, ProofEstimate>, start: &Start, pace: Pace) -> Option<u64> {
    if left_alone(state, &start.guest).is_some() {
        return None;
    }
    match proofs.get(&start.from)? {
        ProofEstimate::Device { soonest_ms, slow_ms } => match pace {
            Pace::Soonest => Some(*soonest_ms),
            Pace::Slow => Some(*slow_ms),
            Pace::Held => lease_ms(state, &start.from),
        },
        ProofEstimate::Lease { ms } => Some(*ms),
        ProofEstimate::NotNeeded => Some(0),
        ProofEstimate::Person => None,
    }
}

/// When each guest answers: those that can start first do, a few at once on each host, and after those that rules put
/// first. Guests that wait for a person are left out, and those behind them.
fn answers_at(
    state: &ClusterState,
    starts: &[Start],
    proven: impl Fn(&Start) -> Option<u64>,
    boot_ms: u64,
) -> BTreeMap<GuestName, u64> {
    let before = state.policies.orders_among(starts.iter().map(|start| &start.guest));
    let mut slots: BTreeMap<&HostName, Vec<u64>> = BTreeMap::new();
    let mut answers: BTreeMap<GuestName, u64> = BTreeMap::new();
    let ready = |answers: &BTreeMap<GuestName, u64>, start: &Start| {
        let mut at = proven(start)?;
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
