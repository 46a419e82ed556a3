//! Who of a set that is split has lately come where it runs by itself: because it was slow where it was, say, or its ladder has sent it
//! away. The others follow it. Were it called back to where more of them are, it would leave again, and come back, for ever.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::super::guests::{COOL_DOWN, drained};
use crate::{
    journal::Event,
    names::{GuestName, HostName},
    plan::{GuestAt, HostAt, Problem},
    state::ClusterState,
};

/// Those guests, with the log index by which each of them was sent there. Nobody leaves a host for its own sake more often than once in
/// its cool-down; what is older says nothing of why a set is split. Whoever has left for a drain may come back when that has ended. `age`
/// is the time since a log index was applied.
pub(super) fn of(state: &ClusterState, problem: &Problem<'_>, age: impl Fn(u64) -> Duration) -> BTreeMap<GuestAt, u64> {
    let mut arrived: BTreeMap<GuestAt, u64> = BTreeMap::new();
    // Of most rounds this is all.
    let split = problem.split();
    if split.is_empty() {
        return arrived;
    }
    let longest = split.keys().map(|at| cool_down(state, problem.guest_name(*at))).max().unwrap_or_default();
    let (mut started, mut seen) = (BTreeMap::<GuestAt, u64>::new(), BTreeSet::<GuestAt>::new());
    for entry in state.journal.entries().rev().take_while(|entry| age(entry.index) < longest) {
        let Some((at, home)) = of_split(problem, &split, &entry.what).filter(|(at, _)| !seen.contains(at)) else {
            continue;
        };
        let is_home = |host: &HostName| problem.host_name(home) == host;
        let is_drain = |from: &HostName, why: &str| why.ends_with(&drained(from));
        let sent = match &entry.what {
            Event::MigrationOrdered { from, to, why, .. } => {
                (is_home(to) && !is_drain(from, why)).then_some(entry.index)
            }
            Event::GuestPlaced { host, .. } if is_home(host) => {
                started.entry(at).or_insert(entry.index);
                continue;
            }
            // Stopped elsewhere, and then started where it runs.
            Event::GuestReleasing { host, why, .. } => match started.get(&at) {
                Some(index) => (!is_home(host) && !is_drain(host, why)).then_some(*index),
                None => continue,
            },
            _ => continue,
        };
        seen.insert(at);
        let lately = sent.filter(|index| age(*index) < cool_down(state, problem.guest_name(at)));
        arrived.extend(lately.map(|index| (at, index)));
        if seen.len() == split.len() {
            break;
        }
    }
    arrived
}

/// The guest of a split set that an event is about, and where it runs.
fn of_split(problem: &Problem<'_>, split: &BTreeMap<GuestAt, HostAt>, what: &Event) -> Option<(GuestAt, HostAt)> {
    let at = problem.guest(what.guest()?)?;
    Some((at, *split.get(&at)?))
}

fn cool_down(state: &ClusterState, guest: &GuestName) -> Duration {
    state.policies.policy_of(guest).map_or(COOL_DOWN, |(_, policy)| policy.cool_down.0)
}
