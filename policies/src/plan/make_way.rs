//! Making way: where a running guest breaks a required rule, and the only hosts that it may run on are kept from it by others,
//! one of those others goes elsewhere first.
//!
//! Nobody more important than the guest makes way, nobody whom an operator has put there, and nobody of a set: a set moves
//! as a whole or not at all. Guests that run nowhere have no such claim, because room alone never moves what runs.

use std::cmp::Reverse;

use super::{
    moves::Move,
    problem::{PlanGuest, Problem, Stage},
    room::Room,
    solve::{Ask, Solver},
    table::{GuestAt, HostAt},
};
use crate::{
    names::GuestName,
    state::{Guest, Phase},
};

/// Guests for which one call looks for somebody who makes way, those of the highest priority.
const STUCK_MAX: usize = 8;

/// Guests that are looked at for one that is stuck, the least important first.
const ASKED_MAX: usize = 256;

/// Moves of a guest in a row that failed, after which nobody makes way for it any more, nor it for anybody: it would not come, or
/// not go. The others of its set come to it.
const FAILED_MOVES_MAX: u32 = 3;

/// Adds the move of one that makes way, if there is any. One in a call: what it frees shows when it has gone. `may_go` says
/// whether a guest would be moved at this moment: for one that is left alone where it is nobody is disturbed.
///
/// Where only other moves of this call have taken the place of one that must leave, it has that place, and what is merely
/// liked better elsewhere stays for now: else whoever has made way would come back before the other one has gone there.
pub fn make_way(problem: &Problem<'_>, room: &Room, moves: &mut Vec<Move>, may_go: impl Fn(&GuestName) -> bool) {
    let is_stuck = |found: &&Move| {
        let known = &problem.guests[found.guest];
        let comes = known.set.is_none() && known.known.is_some_and(is_movable) && may_go(known.name);
        found.required && found.to.is_none() && comes
    };
    let mut stuck: Vec<GuestAt> = moves.iter().filter(is_stuck).map(|found| found.guest).collect();
    if stuck.is_empty() {
        return;
    }
    stuck.sort_by_key(|guest| (Reverse(problem.guests[*guest].priority), *guest));
    stuck.truncate(STUCK_MAX);
    let ask = Ask { keep_best_effort: true, ..Ask::default() };
    let mut solver = Solver::new(problem, room.clone(), &ask, &[]);
    stuck.retain(|guest| match place(&mut solver, *guest) {
        Some(host) => {
            moves.retain(|found| found.required);
            if let Some(own) = moves.iter_mut().find(|found| found.guest == *guest) {
                own.to = Some(host);
            }
            false
        }
        None => true,
    });
    // Whoever is on the way may be the one that makes way.
    if problem.guests.rows().iter().any(is_on_its_way) {
        return;
    }
    let found = stuck.into_iter().find_map(|guest| who_makes_way(&mut solver, guest, moves));
    moves.extend(found);
}

/// Whether a guest is between two hosts: not one of whose move only something is left that cannot be removed, which may be so for days.
fn is_on_its_way(guest: &PlanGuest<'_>) -> bool {
    let is_over = match guest.known.map(|known| &known.phase) {
        Some(Phase::Migrating(migration)) => migration.release_failed.is_some(),
        Some(_) | None => false,
    };
    guest.stage == Stage::Moving && !is_over
}

/// Where a guest that runs would find a place beside what runs and what this round has placed.
fn place(solver: &mut Solver<'_, '_>, guest: GuestAt) -> Option<HostAt> {
    let problem = solver.problem;
    solver.room.leave(problem, guest);
    let best = solver.best(&[guest], None);
    solver.room.enter(problem, guest);
    best.map(|(rank, _)| rank.host)
}

/// Whether a guest that is to move does so, going by its newest moves.
pub(super) fn is_movable(guest: &Guest) -> bool {
    guest.failed_moves < FAILED_MOVES_MAX
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

/// One that is not up yet, or to which something is being done, would not go now: somebody else may.
fn may_be_asked(problem: &Problem<'_>, guest: GuestAt, other: GuestAt) -> bool {
    let known = &problem.guests[other];
    let Some(state) = known.known.filter(|state| is_movable(state)) else { return false };
    let Phase::Running { tenure, verified: true, action: None, .. } = &state.phase else { return false };
    let is_put_there = state.settled.as_ref() == Some(&tenure.host);
    known.wanted && known.set.is_none() && !is_put_there && known.priority <= problem.guests[guest].priority
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
    if is_enough && solver.looks > 0 {
        solver.looks = solver.looks.saturating_sub(u32::try_from(problem.hosts.len()).unwrap_or(u32::MAX));
        solver.room.take(problem, guest, from);
        let elsewhere: Vec<HostAt> = problem.hosts.keys().filter(|host| *host != from).collect();
        best = solver.best(&[other], Some(&elsewhere)).filter(|(rank, _)| rank.failed == 0);
        solver.room.give(problem, guest, from);
    }
    solver.room.enter(problem, other);
    best.map(|(rank, _)| rank.host)
}
