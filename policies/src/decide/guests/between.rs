//! A guest that goes from one of its ladders to the other and back, because its storage fails and then its services, again and again.
//!
//! Where it stands is remembered of one ladder at a time, and each time the other one is climbed from its beginning: by that alone it
//! would come to the end of neither, and nobody would be called. Both together take no more tries than they have: the journal says how
//! many there were. What is further apart than the policy's cool-down, or before a person's word, is another story.

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

impl Pass<'_, '_> {
    /// Whether a guest that comes from its other ladder has had as many tries as both have. Asked last: it walks over the journal.
    pub(super) fn has_spent_both(&self, run: &Run<'_>, trouble: Trouble) -> bool {
        let ladder = trouble.ladder();
        let comes_from_the_other = run.guest.ladder.position.as_ref().is_some_and(|position| position.ladder != ladder);
        comes_from_the_other && tries_lately(self.round, run.name) >= tries_of_both(self.round.state, run.name)
    }
}

fn tries_of_both(state: &ClusterState, name: &GuestName) -> u64 {
    let kinds = [LadderKind::Recovery, LadderKind::Storage].into_iter();
    let rungs: Vec<Rung> = kinds.flat_map(|kind| ladder_of(&state.policies, name, kind)).collect();
    rungs.iter().map(|rung| u64::from(rung.tries())).fold(0, u64::saturating_add)
}

/// The rungs that were taken for a guest, back to the first of which nothing tells that the guest had been well for long before it. Of
/// when those were taken that this process has not seen committed nothing is known, and they are left out.
fn tries_lately(round: &Round<'_>, name: &GuestName) -> u64 {
    let (state, marks) = (round.state, &round.evidence.marks);
    let cool_down = state.policies.policy_of(name).map_or(COOL_DOWN, |(_, policy)| policy.cool_down.0);
    let unknown = marks.at(0);
    let mut newest: Option<Moment> = None;
    let mut tries = 0;
    for entry in state.journal.entries().rev().filter(|entry| entry.what.guest() == Some(name)) {
        if matches!(entry.what, Event::LookedAfter { .. } | Event::WantedSet { .. }) {
            break;
        }
        if matches!(entry.what, Event::RungTaken { .. }) {
            let at = marks.at(entry.index);
            if at <= unknown || newest.is_some_and(|newest| newest.since(at) >= cool_down) {
                break;
            }
            newest = Some(at);
            tries += 1;
        }
    }
    tries
}
