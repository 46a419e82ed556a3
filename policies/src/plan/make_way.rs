//! Making way: where a running guest breaks a required rule, and the only hosts that it may run on are kept from it by others,
//! one of those others goes elsewhere first.
//!
//! Nobody more important than the guest makes way, nobody whom an operator has put there, and nobody of a set: a set moves
//! as a whole or not at all. Guests that run nowhere have no such claim, because room alone never moves what runs.

use std::cmp::Reverse;

use super::{
    moves::Move,
    problem::{Problem, Stage},
    room::Room,
    solve::{Ask, Solver},
    table::{GuestAt, HostAt},
};

/// Guests for which one call looks for somebody who makes way, those of the highest priority.
const STUCK_MAX: usize = 8;

/// Guests that are looked at for one that is stuck, the least important first.
const ASKED_MAX: usize = 256;

/// Moves of a guest in a row that failed, after which nobody makes way for it any more: it would not come.
const FAILED_MOVES_MAX: u32 = 3;

/// Adds the move of one that makes way, if there is any. One in a call: what it frees shows when it has gone.
pub fn make_way(problem: &Problem<'_>, room: &Room, moves: &mut Vec<Move>) {
    let may_come = |guest: &GuestAt| {
        let known = &problem.guests[*guest];
        known.set.is_none() && known.known.is_some_and(|state| state.failed_moves < FAILED_MOVES_MAX)
    };
    let stuck = moves.iter().filter(|found| found.required && found.to.is_none()).map(|found| found.guest);
    let mut stuck: Vec<GuestAt> = stuck.filter(may_come).collect();
    // Whoever is on the way may be the one that makes way.
    if stuck.is_empty() || problem.guests.rows().iter().any(|guest| guest.stage == Stage::Moving) {
        return;
    }
    stuck.sort_by_key(|guest| (Reverse(problem.guests[*guest].priority), *guest));
    let ask = Ask { keep_best_effort: true, ..Ask::default() };
    let mut solver = Solver::new(problem, room.clone(), &ask, &[]);
    let found = stuck.into_iter().take(STUCK_MAX).find_map(|guest| who_makes_way(&mut solver, guest, moves));
    moves.extend(found);
}

/// The least important one that can go elsewhere, and after which the guest finds its place.
fn who_makes_way(solver: &mut Solver<'_, '_>, guest: GuestAt, moves: &[Move]) -> Option<Move> {
    let problem = solver.problem;
    let mut asked: Vec<(GuestAt, HostAt)> = Vec::new();
    for (other, known) in problem.guests.iter() {
        let Some(from) = known.home.filter(|_| other != guest && may_be_asked(problem, guest, other)) else { continue };
        let goes_anyway = moves.iter().any(|found| found.guest == other);
        let in_vain = problem.guests[guest].failed_rounds(from) > 0;
        if !goes_anyway && !in_vain && solver.allowed(&[guest], from).is_ok() {
            asked.push((other, from));
        }
    }
    asked.sort_by_key(|(other, _)| {
        let known = &problem.guests[*other];
        (known.priority, !known.live_migration, *other)
    });
    asked.into_iter().take(ASKED_MAX).find_map(|(other, from)| {
        let to = way(solver, guest, other, from)?;
        let (host, name) = (problem.host_name(from), problem.guest_name(guest));
        let why = format!("it makes way on {host} for {name}, which rules keep from where it runs");
        let live = problem.guests[other].live_migration;
        Some(Move { guest: other, from, to: Some(to), why, required: true, live })
    })
}

fn may_be_asked(problem: &Problem<'_>, guest: GuestAt, other: GuestAt) -> bool {
    let known = &problem.guests[other];
    let host = known.home.map(|home| problem.host_name(home));
    let is_put_there = known.known.and_then(|state| state.settled.as_ref()).is_some_and(|put| Some(put) == host);
    let undisturbed = known.stage == Stage::Running && known.wanted && known.set.is_none();
    undisturbed && !is_put_there && known.priority <= problem.guests[guest].priority
}

/// Where the other one would go so that its host takes the guest; `None` when that is of no use, or there is no such place.
fn way(solver: &mut Solver<'_, '_>, guest: GuestAt, other: GuestAt, from: HostAt) -> Option<HostAt> {
    let problem = solver.problem;
    solver.room.leave(problem, other);
    solver.room.leave(problem, guest);
    let is_enough = solver.takes(&[guest], from).is_ok();
    // It stays where it is until the other one has gone.
    solver.room.enter(problem, guest);
    let mut best = None;
    if is_enough {
        solver.room.take(problem, guest, from);
        let elsewhere: Vec<HostAt> = problem.hosts.keys().filter(|host| *host != from).collect();
        best = solver.best(&[other], Some(&elsewhere)).filter(|(rank, _)| rank.failed == 0);
        solver.room.give(problem, guest, from);
    }
    solver.room.enter(problem, other);
    best.map(|(rank, _)| rank.host)
}
