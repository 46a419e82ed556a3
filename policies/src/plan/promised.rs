//! Guests that were stopped to start elsewhere: until their start is ordered they run nowhere, and the place that they go to is promised
//! to them. What starts meanwhile is placed around it, and around places for the rest of their sets, so that a set which moves comes
//! together where it goes.
//!
//! What is to be brought back goes before a move: where somebody who waits would be worse off for a promise, it does not count in that
//! round. Only for guests on their way that could not stay where they were do those wait who are less important: these would have no
//! other place, either. For the rest of a set nobody waits at all: it may never come.

use std::collections::BTreeMap;

use super::{
    Placement,
    problem::Problem,
    room::Room,
    solve::Place,
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
    /// Promises guests on their way the hosts that they go to, the first ones first, where there is room, and where that leaves nobody
    /// worse off who is as important; the room, in which nothing is placed yet, holds their places then. None of them may be among
    /// those that `placing` places: it would take its room twice.
    #[must_use]
    pub fn of(
        problem: &Problem<'_>,
        room: &mut Room,
        heading: &[(GuestAt, HostAt)],
        placing: impl Fn(&mut Room) -> Placement,
    ) -> Self {
        // Of most rounds this is all.
        if heading.is_empty() {
            return Self::default();
        }
        let mut held = room.clone();
        let has_room = |(guest, host): &(GuestAt, HostAt)| held.promise(problem, *guest, *host);
        let to: BTreeMap<GuestAt, HostAt> = heading.iter().copied().filter(has_room).collect();
        let Some(least) = to.keys().map(|guest| claim(problem, *guest)).min() else { return Self::default() };
        let without = placing(&mut room.clone());
        let around = placing(&mut held.clone());
        let may_wait = |guest: GuestAt| problem.priority(guest) < least;
        if around.worse_off(&without).all(may_wait) && around.stops_no_others(&without) {
            *room = held;
            Self { to, without }
        } else {
            Self::default()
        }
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

    /// Places what starts, and leaves the rest of the sets that are on their way room where they go, unless somebody would be worse off.
    /// The room, which holds the promised places, holds what is placed then, and nothing for that rest.
    #[must_use]
    pub fn place(&self, problem: &Problem<'_>, room: &mut Room, placing: impl Fn(&mut Room) -> Placement) -> Placement {
        let mut around = if self.to.is_empty() { None } else { Some(room.clone()) };
        let rest = around.as_mut().map(|around| self.promise_rest(problem, around)).unwrap_or_default();
        let placement = placing(room);
        let Some(mut around) = around.filter(|_| !rest.is_empty() && !placement.places.is_empty()) else {
            return placement;
        };
        let then = placing(&mut around);
        // Where a set is to move for one that starts, those of it would count twice where they go.
        if then.moves != placement.moves || !then.is_as_good_as(&placement) {
            return placement;
        }
        for (guest, host) in rest {
            around.count_promised(problem, guest, host, -1);
        }
        *room = around;
        then
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

/// Below which priority others wait for a guest on its way: its own, where it could not stay. One that may go back to where it was does
/// so.
fn claim(problem: &Problem<'_>, guest: GuestAt) -> u32 {
    let left = problem.guests[guest].known.and_then(|known| match &known.phase {
        Phase::Free { last, .. } => last.as_ref(),
        Phase::Releasing { tenure, .. } => Some(&tenure.host),
        Phase::Unplaced | Phase::Starting { .. } | Phase::Running { .. } | Phase::Migrating(_) => None,
    });
    let takes_it = |host: HostAt| problem.hosts[host].out.is_none() && problem.liking(guest, host).is_ok();
    let may_go_back = left.and_then(|host| problem.host(host)).is_some_and(takes_it);
    if may_go_back { 0 } else { problem.priority(guest) }
}
