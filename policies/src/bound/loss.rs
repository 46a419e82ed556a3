//! The bound of a loss that somebody supposes (`holdfast simulate`): certain hosts, all at once, and where their guests were.
//!
//! It is the bound of the failure of a host ([`bounds`](super::bounds)), with what is known of this loss in its parts instead
//! of beside them: that others are lost too, that the coordinator is among them, which guests others wait for. So what
//! `simulate` says of one host is what `explain` says before it fails.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Bound, Case, Limits, Part, Stage, back::priority, contested, hosts, left_alone, rounded_up};
use crate::{
    hostfile::Timing,
    names::{GuestName, HostName},
    plan::RoomMade,
    state::ClusterState,
    time::Span,
};

/// Hosts that are supposed to be lost, and what is known beside.
#[derive(Debug, Clone)]
pub struct Loss<'a> {
    /// Those of which proof is needed, because guests of them are to start elsewhere.
    pub hosts: BTreeSet<&'a HostName>,
    /// Where each guest of them is, or would be.
    pub from: &'a BTreeMap<GuestName, HostName>,
    /// The guests that are to start elsewhere, in the order of their starts.
    pub starts: &'a [GuestName],
    /// Those of them for which room is made first.
    pub room_made: &'a BTreeMap<GuestName, RoomMade>,
    /// Levels of fencing that are known not to answer, by their position.
    pub silent: &'a BTreeSet<(HostName, usize)>,
    /// Whether the coordinator is among the lost; `None`: nobody knows who coordinates.
    pub coordinator: Option<bool>,
    /// How long a guest takes from the order to start until it answers.
    pub boot: Span,
    /// Why no host is switched off, if none is.
    pub held: Option<String>,
    /// Why nothing at all is decided, if nothing is.
    pub undecided: Option<String>,
}

/// A loss, and which guests each host has: looked up once for all guests.
pub(super) struct Supposed<'a> {
    pub loss: &'a Loss<'a>,
    on: BTreeMap<&'a HostName, BTreeSet<&'a GuestName>>,
    /// The priorities of those guests, the lowest first.
    priorities: BTreeMap<&'a HostName, Vec<u32>>,
}

impl<'a> Supposed<'a> {
    fn of(state: &'a ClusterState, loss: &'a Loss<'a>) -> Self {
        let mut on: BTreeMap<&HostName, BTreeSet<&GuestName>> = BTreeMap::new();
        for (name, known) in &state.guests {
            for half in known.halves().into_iter().flatten() {
                on.entry(&half.host).or_default().insert(name);
            }
        }
        for (name, host) in loss.from {
            on.entry(host).or_default().insert(name);
        }
        let sorted = |guests: &BTreeSet<&GuestName>| {
            let mut priorities: Vec<u32> = guests.iter().map(|guest| priority(state, guest)).collect();
            priorities.sort_unstable();
            priorities
        };
        let priorities = on.iter().map(|(host, guests)| (*host, sorted(guests))).collect();
        Self { loss, on, priorities }
    }

    /// Whether a host has the guest.
    pub fn is_on(&self, guest: &GuestName, host: &HostName) -> bool {
        self.on.get(host).is_some_and(|guests| guests.contains(guest))
    }

    /// How many guests of at least that priority a host has.
    pub fn at_least(&self, host: &HostName, least: u32) -> usize {
        let below = |priorities: &Vec<u32>| priorities.partition_point(|own| *own < least);
        self.priorities.get(host).map_or(0, |priorities| priorities.len() - below(priorities))
    }
}

/// Within which time each guest that starts elsewhere is back at most.
#[must_use]
pub fn when_lost(
    state: &ClusterState,
    timing: &Timing,
    limits: &Limits,
    loss: &Loss<'_>,
) -> BTreeMap<GuestName, Bound> {
    let supposed = Supposed::of(state, loss);
    let waits = state.policies.orders_among(loss.starts);
    let mut found: BTreeMap<GuestName, Bound> = BTreeMap::new();
    let mut left: BTreeSet<&GuestName> = loss.starts.iter().collect();
    while !left.is_empty() {
        let waits_for = |guest: &GuestName| waits.get(guest).into_iter().flatten().copied();
        let mut able: BTreeSet<&GuestName> =
            left.iter().copied().filter(|guest| waits_for(guest).all(|first| found.contains_key(first))).collect();
        // Guests that wait for each other in a circle of rules: nothing bounds what they wait for.
        if able.is_empty() {
            able.clone_from(&left);
        }
        let mut of_these = BTreeMap::new();
        for guest in able {
            left.remove(guest);
            let policy = state.policies.policy_of(guest).map(|(_, policy)| policy);
            let case = Case { state, guest, policy, timing, limits, loss: Some(&supposed) };
            let Some(mut bound) = loss.from.get(guest).and_then(|from| hosts::of_loss(&case, from)) else { continue };
            let back = |first: &GuestName| found.get(first).and_then(|other| other.within_ms);
            wait(&mut bound, waits_for(guest).map(|first| (first, back(first))));
            if let Some(room) = loss.room_made.get(guest) {
                bound.add_after_proof(making_room(&case, room));
            }
            let on_contested = || contested(state, loss.from.get(guest)?);
            if let Some(why) = left_alone(state, guest).or_else(|| loss.undecided.clone()).or_else(on_contested) {
                bound.never(why);
            }
            of_these.insert(guest.clone(), bound);
        }
        found.extend(of_these);
    }
    found
}

/// What passes before there is room for it on its new host.
fn making_room(case: &Case<'_>, room: &RoomMade) -> Part {
    match room {
        RoomMade::ByStopping { guests } => {
            let declared = guests.iter().filter_map(|guest| case.state.policies.guests.get(guest));
            let shutdown = declared.map(|declared| declared.needs.stop_timeout.0).max().unwrap_or_default();
            let because = "guests of best effort on its new host give way to it, and are stopped first".to_owned();
            Part::of(Stage::Queue, case.turn() + shutdown + case.limits.stop, because)
        }
        RoomMade::ByMoving => {
            let because = "guests that rules keep together with it move to its new host first: nothing bounds how often that \
                           is tried";
            Part::without_bound(Stage::Queue, because.to_owned())
        }
    }
}

/// Adds what the guest waits for others beyond the proof about its own host. Each is given with when it is back at most.
fn wait<'a>(bound: &mut Bound, firsts: impl Iterator<Item = (&'a GuestName, Option<u64>)>) {
    let Some((first, back)) = firsts.max_by_key(|(_, back)| back.unwrap_or(u64::MAX)) else { return };
    let Some(back) = back else {
        let because = format!("it starts after {first}, and nothing bounds when that is back");
        bound.add_after_proof(Part::without_bound(Stage::Queue, because));
        return;
    };
    let until_proven = |part: &&Part| matches!(part.stage, Stage::Detect | Stage::Prove);
    let proven = bound.parts.iter().filter(until_proven).filter_map(|part| part.within_ms).fold(0, u64::saturating_add);
    let longer = back.saturating_sub(proven);
    if longer > 0 {
        let because = format!("it starts after {first}, which is back within {} at most", rounded_up(back));
        bound.add_after_proof(Part::of(Stage::Queue, Duration::from_millis(longer), because));
    }
}
