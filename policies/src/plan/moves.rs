//! What running guests would have to move: those on hosts that rules forbid, too near to others or away from their set,
//! and those that are liked so much more elsewhere that their stickiness does not hold them. What a preference between guests
//! names as the one that gives way moves for it; the others stay.

use std::collections::BTreeSet;

use super::{
    make_way::is_movable,
    problem::{Problem, Stage},
    room::Room,
    solve::{Ask, Solver},
    table::{GuestAt, HostAt},
};
use crate::state::{Migration, MigrationStep, Phase};

/// Moves named in one call, and the rest of the sets that reach that. They are carried out a few at a time, and looked for anew each time.
const MOVES_MAX: usize = 64;

/// Guests and sets for which all hosts are looked at in one call, those of the least priority first: only those that break
/// a rule, or that some rule could like elsewhere by more than their stickiness, need it.
const SEARCHED_MAX: usize = 100;

/// By how many guests those that are looked at after the first half of these bounds begin further on in the next turn: as many as are
/// looked at in a turn at least, sets aside. These may end a turn sooner, so that each time around it begins one further on.
const TURN_STEP: usize = MOVES_MAX / 2;

/// A running guest that is not where rules want it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Who.
    pub guest: GuestAt,
    /// Where it runs.
    pub from: HostAt,
    /// Where it goes; `None`: a required rule is broken, and no host would keep it.
    pub to: Option<HostAt>,
    /// Why.
    pub why: String,
    /// A required rule is broken where it runs; otherwise it is only liked better elsewhere.
    pub required: bool,
    /// It can move while it runs; otherwise it is stopped and started.
    pub live: bool,
}

/// What was found in one call.
#[derive(Debug, Clone, Default)]
pub struct Looked {
    /// What rules want.
    pub moves: Vec<Move>,
    /// Guests that were not looked at, because there are too many for one call.
    pub unseen: BTreeSet<GuestAt>,
}

/// Moves that rules want of running guests. Room alone is never a reason, and a guest about which no rule speaks stays.
#[must_use]
pub fn moves(problem: &Problem<'_>, room: &Room) -> Vec<Move> {
    look_for_moves(problem, room).moves
}

/// The same, with whom nobody has looked at. Many that can go nowhere use the bounds of a call up, and would keep those behind them from
/// a place for ever: the first half of the bounds is for guests in order, and the other half begins elsewhere among the rest in each turn.
#[must_use]
pub fn look_for_moves(problem: &Problem<'_>, room: &Room) -> Looked {
    if !problem.has_rules() {
        return Looked::default();
    }
    let ask = Ask { keep_best_effort: true, ..Ask::default() };
    let mut solver = Solver::new(problem, room.clone(), &ask, &[]);
    let mut so_far = SoFar { found: Vec::new(), searched: 0, seen: vec![false; problem.sets.len()] };
    let mut guests: Vec<GuestAt> = problem.guests.keys().filter(|guest| is_bound(problem, *guest)).collect();
    // The least important of those that are too near to each other moves.
    guests.sort_by_key(|guest| {
        (problem.guests[*guest].rank.0, !problem.guests[*guest].rank.1, std::cmp::Reverse(*guest))
    });
    let in_order = so_far.look_at(&mut solver, &guests, (MOVES_MAX / 2, SEARCHED_MAX / 2));
    let mut rest = guests.split_off(in_order);
    let turn = usize::try_from(problem.turn).unwrap_or(0);
    let around = turn.checked_div(rest.len().div_ceil(TURN_STEP)).unwrap_or(0);
    let begin = turn.wrapping_mul(TURN_STEP).wrapping_add(around).checked_rem(rest.len()).unwrap_or(0);
    rest.rotate_left(begin);
    // A set may have gone far beyond its half, which is no matter of the others.
    let half = (so_far.found.len() + MOVES_MAX / 2, so_far.searched + SEARCHED_MAX / 2);
    let in_turn = so_far.look_at(&mut solver, &rest, half);
    Looked { moves: so_far.found, unseen: rest.into_iter().skip(in_turn).collect() }
}

/// How far a call has come.
struct SoFar {
    found: Vec<Move>,
    searched: usize,
    /// Sets of which one has been looked at, and so all.
    seen: Vec<bool>,
}

impl SoFar {
    /// Looks at guests until so many moves are found, or all hosts were looked at for so many. Returns how many it came to.
    fn look_at(&mut self, solver: &mut Solver<'_, '_>, guests: &[GuestAt], (found, searched): (usize, usize)) -> usize {
        let problem = solver.problem;
        let mut looked_at = 0;
        for guest in guests.iter().copied() {
            if self.found.len() >= found || self.searched >= searched {
                break;
            }
            looked_at += 1;
            let unit = match problem.guests[guest].set {
                None => vec![guest],
                Some(set) => {
                    let first = self.seen.get_mut(set).is_some_and(|seen| !std::mem::replace(seen, true));
                    let members = problem.sets.get(set).into_iter().flatten().copied();
                    members.filter(|member| first && is_bound(problem, *member)).collect()
                }
            };
            if !unit.is_empty() {
                self.searched += usize::from(look(solver, &unit, &mut self.found));
            }
        }
        looked_at
    }
}

/// How many guests cannot stay where they are, would be moved, and have no other place.
#[must_use]
pub fn stuck(problem: &Problem<'_>, moves: &[Move]) -> usize {
    moves.iter().filter(|found| found.required && found.to.is_none() && problem.lets_go(found.from)).count()
}

/// The moves of guests that cannot stay where they are, as if nothing else were placed; the room holds their places then.
#[must_use]
pub fn moves_first(problem: &Problem<'_>, room: &mut Room) -> Vec<Move> {
    let mut found = moves(problem, room);
    found.retain(|found| found.required && problem.lets_go(found.from));
    for (guest, to) in found.iter().filter_map(|found| Some((found.guest, found.to?))) {
        room.take(problem, guest, to);
    }
    found
}

/// Whether it runs undisturbed, and rules have a say in where.
fn is_bound(problem: &Problem<'_>, guest: GuestAt) -> bool {
    let known = &problem.guests[guest];
    known.stage == Stage::Running && known.wanted && !(known.host_rules.is_empty() && known.groups.is_empty())
}

/// Looks at guests that belong together as one. Returns whether all hosts had to be looked at.
fn look(solver: &mut Solver<'_, '_>, unit: &[GuestAt], found: &mut Vec<Move>) -> bool {
    let problem = solver.problem;
    let at: Vec<(GuestAt, HostAt)> =
        unit.iter().filter_map(|guest| Some((*guest, problem.guests[*guest].home?))).collect();
    let Some((_, first)) = at.first().copied() else { return false };
    // Where a set has to be while one of it is under way.
    let anchors = solver.anchors(unit);
    // One whose move has failed is about to run again where it was: then all of it is looked at as one.
    if anchors.iter().any(|guest| returns(problem, *guest)) {
        return false;
    }
    let mut reach: Vec<HostAt> = anchors.iter().filter_map(|guest| solver.where_is(*guest)).collect();
    for guest in unit {
        solver.room.leave(problem, *guest);
    }
    let broken = broken(solver, &at, &anchors);
    let here = own_score(solver, unit, first);
    if broken.is_none() && !could_be_worth_it(solver, unit, first) {
        for guest in unit {
            solver.room.enter(problem, *guest);
        }
        return false;
    }
    if broken.is_some() && reach.is_empty() {
        reach = gather(solver, unit, &at).into_iter().collect();
    }
    let best = solver.best(unit, (!reach.is_empty()).then_some(&reach));
    let there = best.map(|(rank, _)| (rank.host, own_score(solver, unit, rank.host)));
    for guest in unit {
        solver.room.enter(problem, *guest);
    }
    match (broken, there) {
        (Some(why), there) => {
            for (guest, from) in at.into_iter().filter(|(_, from)| Some(*from) != there.map(|(host, _)| host)) {
                note(solver, found, guest, from, there.map(|(host, _)| host), why.clone(), true);
            }
        }
        // Where an operator has put one of a set, all of it stays.
        (None, Some(_)) if at.iter().any(|(guest, _)| put_there(problem, *guest).is_some()) => {}
        (None, Some((host, score))) if host != first && is_worth_it(problem, unit, first, (host, score), here) => {
            // One whose moves fail goes before the others of its set: if it does not arrive, they would have to come back.
            let one_is_stuck = at.iter().any(|(guest, _)| is_stuck(problem, *guest));
            for (guest, from) in at.into_iter().filter(|(guest, _)| !one_is_stuck || is_stuck(problem, *guest)) {
                let why = format!(
                    "rules score {} {score} for it, and {} {here}",
                    problem.host_name(host),
                    problem.host_name(from)
                );
                note(solver, found, guest, from, Some(host), why, false);
            }
        }
        (None, _) => {}
    }
    true
}

fn returns(problem: &Problem<'_>, guest: GuestAt) -> bool {
    let phase = problem.guests[guest].known.map(|known| &known.phase);
    matches!(phase, Some(Phase::Migrating(Migration { step: MigrationStep::Returning { .. }, .. })))
}

fn note(
    solver: &mut Solver<'_, '_>,
    found: &mut Vec<Move>,
    guest: GuestAt,
    from: HostAt,
    to: Option<HostAt>,
    why: String,
    required: bool,
) {
    if let Some(to) = to {
        // It counts on both, so that no later move takes the room.
        solver.room.take(solver.problem, guest, to);
        solver.moves.push((guest, to));
    }
    found.push(Move { guest, from, to, why, required, live: solver.problem.guests[guest].live_migration });
}

/// Where a set that is split comes together: the first of its hosts that takes all of it, unless rules like another so much
/// better that the set would leave at once. So a set that has begun to move goes on, and does not turn round half-way.
fn gather(solver: &mut Solver<'_, '_>, unit: &[GuestAt], at: &[(GuestAt, HostAt)]) -> Option<HostAt> {
    let problem = solver.problem;
    let homes: Vec<HostAt> = homes(problem, at).into_iter().filter(|host| solver.takes(unit, *host).is_ok()).collect();
    let first = homes.first().copied()?;
    let holds = |guest: GuestAt| put_there(problem, guest).is_some() || is_stuck(problem, guest);
    if at.iter().any(|(guest, host)| *host == first && holds(*guest)) {
        return Some(first);
    }
    let here = own_score(solver, unit, first);
    let scored = homes.into_iter().map(|host| (host, own_score(solver, unit, host)));
    let better = scored.filter(|(host, score)| {
        problem.hosts[*host].unwell <= problem.hosts[first].unwell
            && failed_rounds(problem, at, *host) <= failed_rounds(problem, at, first)
            && is_worth_it(problem, unit, first, (*host, *score), here)
    });
    better.max_by_key(|(host, score)| (*score, std::cmp::Reverse(*host))).map(|(host, _)| host).or(Some(first))
}

/// How often starts of any of them there have failed as often as they are tried in a row.
fn failed_rounds(problem: &Problem<'_>, at: &[(GuestAt, HostAt)], host: HostAt) -> u32 {
    at.iter().map(|(guest, _)| problem.guests[*guest].failed_rounds(host)).max().unwrap_or(0)
}

/// The hosts of a set, the one where it comes together first: where one of it is stuck, because its moves fail, unless another
/// of it does not start there; else where an operator has put one of it, by the newest move; else one where none of it has failed
/// to start, that does not doubt itself, where one of it was lately sent for its own sake (it would leave again, and for ever) that does
/// not give way to others of it, where most of those are that do not, and where most of it is, so that as few as can be are disturbed.
fn homes(problem: &Problem<'_>, at: &[(GuestAt, HostAt)]) -> Vec<HostAt> {
    let on = |host: HostAt| at.iter().filter(move |(_, other)| *other == host).map(|(guest, _)| *guest);
    let put = |host: HostAt| on(host).filter_map(|guest| put_there(problem, guest)).max();
    let mut homes: Vec<HostAt> = at.iter().map(|(_, host)| *host).collect();
    let key = |host: &HostAt| {
        let (put, most) = (put(*host), on(*host).count());
        let leads = |guest: &GuestAt| !gives_way(problem, at, *guest);
        let firm = on(*host).filter(leads).count();
        let failed = failed_rounds(problem, at, *host);
        let stuck = failed == 0 && on(*host).any(|guest| is_stuck(problem, guest));
        let sent = on(*host).filter(leads).filter_map(|guest| problem.arrived.get(&guest).copied()).max();
        let (sent, firm, most) = (std::cmp::Reverse(sent), std::cmp::Reverse(firm), std::cmp::Reverse(most));
        (!stuck, std::cmp::Reverse(put), failed, problem.hosts[*host].unwell, sent, firm, most, *host)
    };
    homes.sort_by_cached_key(key);
    homes.dedup();
    homes
}

/// Whether a rule that keeps a guest together with any of the others names it as the one that gives way.
fn gives_way(problem: &Problem<'_>, at: &[(GuestAt, HostAt)], guest: GuestAt) -> bool {
    problem.guests[guest].groups.iter().map(|row| &problem.groups[*row]).any(|group| {
        let is_other = |(other, _): &(GuestAt, HostAt)| *other != guest && group.members.contains(other);
        group.together && group.required && group.yields == Some(guest) && at.iter().any(is_other)
    })
}

/// Whether a guest stays where it is, whoever wants it elsewhere: its moves have failed too often.
fn is_stuck(problem: &Problem<'_>, guest: GuestAt) -> bool {
    problem.guests[guest].known.is_some_and(|known| !is_movable(known))
}

/// Whether another one of the guest's set is stuck beside it: if it went elsewhere by itself, it would come back.
#[must_use]
pub fn is_held(problem: &Problem<'_>, guest: GuestAt) -> bool {
    let known = &problem.guests[guest];
    let Some(home) = known.home.filter(|_| !is_stuck(problem, guest)) else { return false };
    let set = known.set.and_then(|set| problem.sets.get(set)).into_iter().flatten();
    set.copied().any(|other| problem.guests[other].home == Some(home) && is_stuck(problem, other))
}

/// Since which log index a guest runs where an operator has put it, if it does.
fn put_there(problem: &Problem<'_>, guest: GuestAt) -> Option<u64> {
    let known = problem.guests[guest].known?;
    let Phase::Running { tenure, since, .. } = &known.phase else { return None };
    (known.settled.as_ref() == Some(&tenure.host)).then_some(*since)
}

/// The required rule that guests break where they run, if any. They are not counted in the room.
fn broken(solver: &Solver<'_, '_>, at: &[(GuestAt, HostAt)], anchors: &[GuestAt]) -> Option<String> {
    let problem = solver.problem;
    for (guest, host) in at {
        if let Err(reason) = problem.liking(*guest, *host) {
            return Some(format!("{} {reason}", problem.host_name(*host)));
        }
        for row in &problem.guests[*guest].groups {
            let group = &problem.groups[*row];
            // One that is about to move away is not near any more.
            let leaves = |other: &(GuestAt, HostAt)| {
                let from = problem.guests[other.0].home;
                group.members.contains(&other.0) && from.is_some_and(|from| group.domain[from] == group.domain[*host])
            };
            let leaving = u32::try_from(solver.moves.iter().filter(|other| leaves(other)).count()).unwrap_or(u32::MAX);
            if group.required && !group.together && solver.room.near(problem, *row, *host) > leaving {
                return Some(format!("{} keeps it apart from another guest that runs there", group.name));
            }
        }
    }
    let home = at.first().map(|(_, host)| *host);
    let set_is_split =
        at.iter().any(|(_, host)| Some(*host) != home) || anchors.iter().any(|anchor| solver.where_is(*anchor) != home);
    set_is_split.then(|| "it is kept together with others that run elsewhere".to_owned())
}

/// Whether any host could be liked so much more than theirs, going by what rules could give at most.
fn could_be_worth_it(solver: &Solver<'_, '_>, unit: &[GuestAt], from: HostAt) -> bool {
    let problem = solver.problem;
    let mut most = 0_i64;
    for guest in unit {
        let known = &problem.guests[*guest];
        for rule in known.host_rules.iter().filter_map(|row| problem.host_rules.get(*row)) {
            most = most.saturating_add(rule.highest);
        }
        for group in known.groups.iter().map(|row| &problem.groups[*row]).filter(|group| !group.required) {
            let others = i64::try_from(group.members.len()).unwrap_or(i64::MAX);
            most = most.saturating_add(group.weight.saturating_abs().saturating_mul(others));
        }
    }
    let liked = |guest: &GuestAt| problem.liking(*guest, from).unwrap_or(0);
    let here = unit.iter().map(liked).fold(0, i64::saturating_add).min(own_score(solver, unit, from));
    let goes_back = unit.iter().any(|guest| problem.guests[*guest].failback);
    most > here && (goes_back || most.saturating_sub(here) > hold(problem, unit))
}

/// What rules make of a host for guests that run, going by what could be a reason for them to move.
fn own_score(solver: &Solver<'_, '_>, unit: &[GuestAt], host: HostAt) -> i64 {
    let scores = unit.iter().map(|guest| solver.room.own_score(solver.problem, *guest, host));
    scores.fold(0, i64::saturating_add)
}

fn hold(problem: &Problem<'_>, unit: &[GuestAt]) -> i64 {
    unit.iter().map(|guest| problem.guests[*guest].stickiness).fold(0, i64::saturating_add)
}

/// Whether what rules make of another host outweighs what holds a guest where it is: nothing, if it is to go back to the
/// host that rules prefer.
fn is_worth_it(problem: &Problem<'_>, unit: &[GuestAt], from: HostAt, (to, score): (HostAt, i64), here: i64) -> bool {
    let liked =
        |host: HostAt| unit.iter().map(|guest| problem.liking(*guest, host).unwrap_or(0)).fold(0, i64::saturating_add);
    let goes_back = unit.iter().any(|guest| problem.guests[*guest].failback) && liked(to) > liked(from);
    score > here && (goes_back || score.saturating_sub(here) > hold(problem, unit))
}
