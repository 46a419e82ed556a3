//! Many guests that cease to answer at once, in worlds whose vantages remember when they got their last answer, as the product's do
//! (S8, S9): a switch of the guests' network fails, or a database that all services ask, or they hang together. The first two are no
//! matter of any guest, and no order helps against them; hosts hear each other, and their guests run.
//!
//! ```text
//!  all well --one cause--> held, a person is called --the cause is gone--> all well, and no guest has lost its life
//!                           +--they hang: held for five minutes from when each last answered--> let go, helped
//! ```
//! Whether they are held rightly is looked at by [`super::held_checks`], and that none is killed in a storm by the checker beside the
//! planner.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_policies::names::GuestName;

use super::{
    Ms,
    faults::{Happening, Plan, heals},
    held_checks::GUESTS_MIN,
    oddities::before,
    random::Random,
    setup::Setup,
    world::World,
};

/// The incident of a storm of services.
const INCIDENT: &str = "service_storm";

/// Has vantages remember, and has many guests cease to answer at once before one of the heals: in a third of the cases all of them hang,
/// and are held for as long as guests are. Once in a world, since that takes minutes.
pub fn draw(setup: &mut Setup, random: &mut Random, mut plan: Plan) -> Plan {
    setup.passes_remembered = true;
    let healed = heals(&plan);
    if healed.is_empty() || setup.policies.guests.len() < GUESTS_MIN {
        return plan;
    }
    let healed = healed[random.index(healed.len())];
    let at = before(random, healed, 10_000, 60_000);
    let guests = setup.policies.guests.keys();
    if random.one_in(3) {
        plan.extend(guests.map(|guest| (at, Happening::GuestHangs { guest: guest.clone() })));
    } else {
        let all = random.one_in(2);
        let guests: BTreeSet<GuestName> = guests.filter(|_| all || !random.one_in(3)).cloned().collect();
        let (everywhere, time) = (random.one_in(2), random.between(15_000, 90_000));
        plan.push((at, Happening::CommonCause { guests, everywhere, time }));
    }
    plan.sort_by_key(|(at, _)| *at);
    plan
}

/// What keeps guests from answering that is no matter of theirs.
#[derive(Debug, Default)]
pub struct Causes {
    lost: BTreeMap<GuestName, Lost>,
}

#[derive(Debug, Clone, Copy)]
struct Lost {
    until: Ms,
    /// It does not answer on its own host either.
    everywhere: bool,
}

impl Causes {
    pub(super) fn begin(&mut self, guests: &BTreeSet<GuestName>, everywhere: bool, until: Ms) {
        self.lost.extend(guests.iter().map(|guest| (guest.clone(), Lost { until, everywhere })));
    }

    pub(super) fn end(&mut self) {
        self.lost.clear();
    }

    /// Whether one keeps a guest from answering a host, which may be its own.
    pub(super) fn keep(&self, guest: &GuestName, is_home: bool, now: Ms) -> bool {
        self.lost.get(guest).is_some_and(|lost| now < lost.until && (lost.everywhere || !is_home))
    }

    fn are_over(&self, now: Ms) -> bool {
        self.lost.values().all(|lost| lost.until <= now)
    }
}

impl World {
    /// Whether no guests share a trouble, and nobody is told that they do. Their machines may be well meanwhile.
    pub(super) fn shares_no_trouble(&self) -> bool {
        self.causes.are_over(self.now) && self.truth.state.open_incident(INCIDENT).is_none()
    }

    /// Notes that people are told of a storm, or of how it goes on.
    pub(super) fn note_incident(&mut self, key: &str) {
        self.seen.service_storms += u64::from(key == INCIDENT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::report::Options;

    #[test]
    fn a_share_of_the_random_worlds_has_vantages_that_remember_and_many_guests_that_cease_to_answer_at_once() {
        let worlds: Vec<(Setup, Plan)> = (1..=200).map(|seed| Options::default().of(seed)).collect();
        let remember = worlds.iter().filter(|(setup, _)| setup.passes_remembered).count();
        assert!((40..=100).contains(&remember), "{remember} of 200");
        let cause = |everywhere: bool| {
            let is_it = move |what: &Happening| match what {
                Happening::CommonCause { guests, everywhere: known, .. } => {
                    *known == everywhere && guests.len() >= GUESTS_MIN
                }
                _ => false,
            };
            worlds.iter().filter(|(_, plan)| plan.iter().any(|(_, what)| is_it(what))).count()
        };
        assert!(cause(false) >= 5 && cause(true) >= 5, "{} {}", cause(false), cause(true));
    }
}
