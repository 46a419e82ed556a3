//! A guest that goes from one of its ladders to the other and back, because its storage fails and then its services, again and again.
//!
//! Where it stands is remembered of one ladder at a time, and each time the other one is climbed from its beginning: by that alone it
//! would come to the end of neither, and nobody would be called. Both together take no more tries than they have: the journal says how
//! many there were. What is further apart than the policy's cool-down, or before a person's word, is another story.

use std::collections::BTreeMap;

use super::{
    super::Round,
    Pass,
    running::{COOL_DOWN, Run},
};
use crate::{
    journal::Event,
    ladder::{LadderKind, Trouble, ladder_of},
    model::Rung,
    names::GuestName,
    state::ClusterState,
    time::Moment,
};

/// The rungs that the journal says were taken for a guest since a person's word on it.
#[derive(Default)]
pub(super) struct Tries {
    /// Their log indices, the newest first.
    taken: Vec<u64>,
    /// A person's word was met: what is older is another story.
    is_whole: bool,
}

impl<'b> Pass<'_, 'b> {
    /// Whether a guest that comes from its other ladder has had as many tries as both have. Where many guests do, as with the storage of
    /// all of them, the journal is walked over once in a round.
    pub(super) fn has_spent_both(&self, run: &Run<'_>, trouble: Trouble) -> bool {
        let ladder = trouble.ladder();
        let comes_from_the_other = run.guest.ladder.position.as_ref().is_some_and(|position| position.ladder != ladder);
        if !comes_from_the_other {
            return false;
        }
        let state: &'b ClusterState = self.round.state;
        let tries = self.tries.get_or_init(|| tries_of_all(state)).get(run.name);
        tries.is_some_and(|tries| lately(self.round, run.name, tries) >= tries_of_both(state, run.name))
    }
}

fn tries_of_both(state: &ClusterState, name: &GuestName) -> u64 {
    let kinds = [LadderKind::Recovery, LadderKind::Storage].into_iter();
    let rungs: Vec<Rung> = kinds.flat_map(|kind| ladder_of(&state.policies, name, kind)).collect();
    rungs.iter().map(|rung| u64::from(rung.tries())).fold(0, u64::saturating_add)
}

fn tries_of_all(state: &ClusterState) -> BTreeMap<&GuestName, Tries> {
    let mut all: BTreeMap<&GuestName, Tries> = BTreeMap::new();
    for entry in state.journal.entries().rev() {
        let is_word = matches!(entry.what, Event::LookedAfter { .. } | Event::WantedSet { .. });
        let is_try = matches!(entry.what, Event::RungTaken { .. });
        let Some(guest) = entry.what.guest().filter(|_| is_word || is_try) else { continue };
        let tries = all.entry(guest).or_default();
        tries.is_whole |= is_word;
        if is_try && !tries.is_whole {
            tries.taken.push(entry.index);
        }
    }
    all
}

/// How many of them there were, back to the first of which nothing tells that the guest had been well for long before it. Of when those
/// were taken that this process has not seen committed nothing is known, and they are left out.
fn lately(round: &Round<'_>, name: &GuestName, tries: &Tries) -> u64 {
    let (state, marks) = (round.state, &round.evidence.marks);
    let cool_down = state.policies.policy_of(name).map_or(COOL_DOWN, |(_, policy)| policy.cool_down.0);
    let unknown = marks.at(0);
    let mut newest: Option<Moment> = None;
    let mut count = 0;
    for index in &tries.taken {
        let at = marks.at(*index);
        if at <= unknown || newest.is_some_and(|newest| newest.since(at) >= cool_down) {
            break;
        }
        newest = Some(at);
        count += 1;
    }
    count
}
