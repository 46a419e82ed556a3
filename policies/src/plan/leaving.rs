//! Guests whose host takes none any more: it is being drained, has announced to go, is being fenced, or is not heard. They start elsewhere
//! a little later, and what starts now is placed around the only place that one of them has.

use super::{
    Placement,
    problem::{PlanGuest, Problem, Stage},
    promised::Promised,
    room::Room,
    solve::{Ask, Place, place},
    table::{GuestAt, HostAt},
};

/// For how many guests that leave their hosts places are held, those of the highest priority. Each is looked for three times in a round
/// that begins starts; where more leave, the others find what room there is when they go.
const LEAVING_MAX: usize = 64;

impl Problem<'_> {
    /// Guests that run, and are to, on hosts that take no guests. What is on a host in maintenance stays there.
    fn leaving(&self) -> Vec<GuestAt> {
        let leaves = |guest: &PlanGuest<'_>| {
            let is_out = guest.home.is_some_and(|home| self.hosts[home].out.is_some() && self.lets_go(home));
            guest.stage == Stage::Running && guest.wanted && is_out
        };
        let mut leaving: Vec<GuestAt> =
            self.guests.iter().filter(|(_, guest)| leaves(guest)).map(|(at, _)| at).collect();
        leaving.sort_by_key(|at| (std::cmp::Reverse(self.priority(*at)), *at));
        leaving.truncate(LEAVING_MAX);
        leaving
    }
}

/// Places what starts once more, around guests that leave their hosts, where some of them have lost their last place to it; `room` is
/// what `placement` has left. `None` where that helps none of them, or where one that starts would be worse off.
#[must_use]
pub fn around_leaving(
    problem: &Problem<'_>,
    promised: &Promised,
    room: &Room,
    placement: &Placement,
    placing: impl Fn(&mut Room) -> Placement,
) -> Option<(Room, Placement)> {
    let begins = placement.places.values().any(|place| matches!(place, Place::On { .. }));
    let leaving = if begins { problem.leaving() } else { Vec::new() };
    if leaving.is_empty() {
        return None;
    }
    let ask = Ask { guests: leaving, keep_best_effort: true, ..Ask::default() };
    let without = place(problem, &mut room.clone(), &ask).nowhere().count();
    if without == 0 {
        return None;
    }
    let mut held = promised.room(problem);
    let first = place(problem, &mut held, &ask);
    // Where others of their sets have to move for them, that is decided when they go.
    if first.nowhere().count() >= without || !first.moves.is_empty() {
        return None;
    }
    // They start later: what starts now does not wait for them.
    held.starts.clone_from(&problem.starts);
    // Until they go they count where they are as well: what starts now keeps apart from them there, too.
    for guest in &ask.guests {
        held.enter(problem, *guest);
    }
    let then = placing(&mut held);
    if !then.is_as_good_as(placement) {
        return None;
    }
    // Each of them asks for its host by itself when it goes: held here as well, it would take its own room twice.
    let starts = held.starts.clone();
    for (guest, host) in first.places.iter().filter_map(|(guest, found)| Some((*guest, host_of(found)?))) {
        held.give(problem, guest, host);
    }
    held.starts = starts;
    Some((held, then))
}

fn host_of(place: &Place) -> Option<HostAt> {
    match place {
        Place::On { host, .. } | Place::Later { host, .. } => Some(*host),
        Place::Nowhere { .. } => None,
    }
}
