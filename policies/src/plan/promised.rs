//! Guests that were stopped to start elsewhere: until their start is ordered they run nowhere, and the place that they go to is promised
//! to them. What starts meanwhile is placed around it, and around places for the rest of their sets, so that a set which moves comes
//! together where it goes.
//!
//! What is to be brought back goes before a move: where somebody who waits would be worse off for a promise, it does not count in that
//! round. Only for guests on their way that could not stay where they were, and find no other place beside those who wait, do those wait
//! who are less important. For the rest of a set nobody waits at all: it may never come.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Placement,
    problem::Problem,
    room::Room,
    solve::{Ask, Place, place},
    table::{GuestAt, HostAt},
};
use crate::state::Phase;

/// Guests on their way that are named to somebody who waits for them; operators read no more.
const NAMED_MAX: usize = 8;

/// The places that are promised in one round, and counted in its room.
#[derive(Debug, Default)]
pub struct Promised {
    to: BTreeMap<GuestAt, HostAt>,
    /// What would be placed if nothing were promised.
    without: Placement,
}

impl Promised {
    /// Places what starts around the places to which guests on their way go. They are promised these, the first ones first, where there
    /// is room, and where that leaves nobody worse off who is as important; the room, in which nothing is placed yet, then holds them,
    /// and what is placed. None of them may be among those that `placing` places: it would take its room twice.
    #[must_use]
    pub fn place(
        problem: &Problem<'_>,
        room: &mut Room,
        heading: &[(GuestAt, HostAt)],
        placing: impl Fn(&mut Room) -> Placement,
    ) -> (Self, Placement) {
        // Of most rounds this is all.
        if heading.is_empty() {
            return (Self::default(), placing(room));
        }
        let mut held = room.clone();
        let has_room = |(guest, host): &(GuestAt, HostAt)| held.promise(problem, *guest, *host);
        let to: BTreeMap<GuestAt, HostAt> = heading.iter().copied().filter(has_room).collect();
        let without = placing(room);
        if to.is_empty() {
            return (Self::default(), without);
        }
        let mut around = held.clone();
        let placement = placing(&mut around);
        let waits = placement.worse_off(&without).map(|guest| problem.priority(guest)).max();
        let may_wait = waits.is_none_or(|most| most < claim(problem, &to, room));
        if !may_wait || !placement.stops_no_others(&without) {
            return (Self::default(), without);
        }
        let promised = Self { to, without };
        let (around, placement) = promised.around_rest(problem, held, (around, placement), placing);
        *room = around;
        (promised, placement)
    }

    /// What is taken before anything is placed, the promised places among it.
    #[must_use]
    pub fn room(&self, problem: &Problem<'_>) -> Room {
        let mut room = Room::of(problem);
        for (guest, host) in &self.to {
            room.count_promised(problem, *guest, *host, 1);
        }
        room
    }

    /// Leaves the rest of the sets that are on their way room where they go, unless somebody would be worse off than `placed` leaves them.
    /// The room that is answered holds the promised places, as `held` does, and what is placed, and nothing for that rest.
    fn around_rest(
        &self,
        problem: &Problem<'_>,
        mut held: Room,
        placed: (Room, Placement),
        placing: impl Fn(&mut Room) -> Placement,
    ) -> (Room, Placement) {
        let rest = self.promise_rest(problem, &mut held);
        if rest.is_empty() || placed.1.places.is_empty() {
            return placed;
        }
        let then = placing(&mut held);
        // Where a set is to move for one that starts, those of it would count twice where they go.
        if then.moves != placed.1.moves || !then.is_as_good_as(&placed.1) {
            return placed;
        }
        for (guest, host) in rest {
            held.count_promised(problem, guest, host, -1);
        }
        (held, then)
    }

    /// Promises those of the sets that run elsewhere, and would follow, places beside the one of them that is on its way: all of them, or
    /// none.
    fn promise_rest(&self, problem: &Problem<'_>, room: &mut Room) -> BTreeMap<GuestAt, HostAt> {
        let mut rest: BTreeMap<GuestAt, HostAt> = BTreeMap::new();
        for (guest, host) in &self.to {
            let set = problem.guests[*guest].set.and_then(|set| problem.sets.get(set)).into_iter().flatten().copied();
            let follows = |other: &GuestAt| {
                let is_elsewhere = problem.guests[*other].home.is_some_and(|home| home != *host);
                is_elsewhere && problem.can_go(*other) && !self.to.contains_key(other) && !rest.contains_key(other)
            };
            let others: Vec<GuestAt> = set.filter(follows).collect();
            let fit = others.iter().take_while(|other| room.promise(problem, **other, *host)).count();
            if fit == others.len() {
                rest.extend(others.into_iter().map(|other| (other, *host)));
            } else {
                for other in others.into_iter().take(fit) {
                    room.count_promised(problem, other, *host, -1);
                }
            }
        }
        rest
    }

    /// Takes the place of a guest out of a room that holds it, so that it can be placed there itself.
    pub fn take_out(&self, problem: &Problem<'_>, room: &mut Room, guest: GuestAt) {
        if let Some(host) = self.to.get(&guest) {
            room.count_promised(problem, guest, *host, -1);
        }
    }

    /// Has those who find no place say what is so: what is promised is not taken yet.
    pub fn tell(&self, problem: &Problem<'_>, placement: &mut Placement) {
        if self.to.is_empty() {
            return;
        }
        let names: Vec<&str> =
            self.to.keys().take(NAMED_MAX).map(|guest| problem.guest_name(*guest).as_str()).collect();
        let note = format!("room is kept for {}, on the way from another host", names.join(", "));
        for (guest, place) in &mut placement.places {
            let Place::Nowhere { reasons } = place else { continue };
            match self.without.places.get(guest) {
                Some(Place::Nowhere { reasons: without }) => *reasons = without.clone(),
                Some(Place::On { .. } | Place::Later { .. }) => reasons.note(note.clone()),
                None => {}
            }
        }
    }
}

/// Below which priority others wait for guests on their way: that of the least important one. For one that may go back to where it was,
/// or finds another place beside what `room` holds, in which those others are placed, nobody waits: it does so.
fn claim(problem: &Problem<'_>, to: &BTreeMap<GuestAt, HostAt>, room: &Room) -> u32 {
    let ask = Ask { guests: to.keys().copied().collect(), keep_best_effort: true, ..Ask::default() };
    let found = place(problem, &mut room.clone(), &ask);
    // Where the rest of a set would have to turn round with it, it stays split meanwhile.
    let elsewhere = if found.moves.is_empty() { found.settled() } else { BTreeSet::new() };
    let claims = |guest: &GuestAt| {
        let waits_for_none = elsewhere.contains(guest) || may_go_back(problem, *guest);
        if waits_for_none { 0 } else { problem.priority(*guest) }
    };
    to.keys().map(claims).min().unwrap_or(0)
}

fn may_go_back(problem: &Problem<'_>, guest: GuestAt) -> bool {
    let left = problem.guests[guest].known.and_then(|known| match &known.phase {
        Phase::Free { last, .. } => last.as_ref(),
        Phase::Releasing { tenure, .. } => Some(&tenure.host),
        Phase::Unplaced | Phase::Starting { .. } | Phase::Running { .. } | Phase::Migrating(_) => None,
    });
    let takes_it = |host: HostAt| problem.hosts[host].out.is_none() && problem.liking(guest, host).is_ok();
    left.and_then(|host| problem.host(host)).is_some_and(takes_it)
}
