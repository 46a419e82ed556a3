//! Making room for a guest that found none: by placing others of this round elsewhere, and by asking guests of best
//! effort to give way.

use std::{cmp::Reverse, collections::BTreeSet};

use super::{
    Preemption,
    choose::Rank,
    problem::Stage,
    solve::{Solver, Unit, Until},
    table::{GuestAt, HostAt, Table},
};
use crate::state::{Guest, Phase, Wanted};

/// Units of this round up to which every way of placing them is tried, while [`super::LOOKS_MAX`] lasts. Six units on
/// six hosts have 46,656 ways.
pub const EXHAUSTIVE_UNITS: usize = 8;

/// How many units one unit may push aside, each pushing the next.
const PUSHES_MAX: usize = 3;

/// A way of having a host take guests by others being gone from there.
struct Way {
    /// What it costs, the dearest part first: whether anybody has to be asked to go, the highest priority of those, how many they
    /// are, and how well the host suits.
    cost: (bool, u32, usize, Rank),
    host: HostAt,
    /// Who has to be gone.
    gone: Vec<GuestAt>,
}

impl Solver<'_, '_> {
    /// Finds a place by placing others of this round elsewhere: all ways for few, chains of pushes for many.
    pub(super) fn repair(&mut self, guests: &[GuestAt]) -> bool {
        // Whom no host would take even if nothing of this round were there, nobody can make room for.
        let loose: Vec<usize> = (0..self.units.len()).filter(|row| self.is_loose(*row)).collect();
        if loose.is_empty() || !self.could_fit(guests, &loose) {
            return false;
        }
        if loose.len() < EXHAUSTIVE_UNITS { self.try_all(guests, &loose) } else { self.push(guests, PUSHES_MAX) }
    }

    fn is_loose(&self, row: usize) -> bool {
        self.units.get(row).is_some_and(|unit| unit.loose)
    }

    fn could_fit(&mut self, guests: &[GuestAt], loose: &[usize]) -> bool {
        self.lift(loose);
        let fits = self.best(guests, None).is_some();
        self.put_back(loose);
        fits
    }

    fn lift(&mut self, rows: &[usize]) {
        for unit in rows.iter().filter_map(|row| self.units.get(*row)) {
            self.room.give_all(self.problem, &unit.guests, unit.host);
        }
    }

    fn put_back(&mut self, rows: &[usize]) {
        for unit in rows.iter().filter_map(|row| self.units.get(*row)) {
            for guest in &unit.guests {
                self.room.take(self.problem, *guest, unit.host);
            }
        }
    }

    /// Tries every way of placing these units and the new one.
    fn try_all(&mut self, guests: &[GuestAt], loose: &[usize]) -> bool {
        self.lift(loose);
        let members = |row: &usize| self.units.get(*row).map(|unit| (Some(*row), unit.guests.clone()));
        let mut todo: Vec<(Option<usize>, Vec<GuestAt>)> = loose.iter().filter_map(members).collect();
        todo.push((None, guests.to_vec()));
        // The largest first: it has the fewest hosts left, and what is left over suits the small ones.
        todo.sort_by_key(|(row, unit)| (Reverse(self.memory(unit)), *row));
        let mut chosen = Vec::new();
        if !self.descend(&todo, &mut chosen) {
            self.put_back(loose);
            return false;
        }
        for ((row, unit), host) in todo.into_iter().zip(chosen) {
            self.resettle(row, unit, host);
        }
        true
    }

    /// Notes where a unit has come to; its room is taken already.
    fn resettle(&mut self, row: Option<usize>, guests: Vec<GuestAt>, host: HostAt) {
        let mut why = self.why(&guests, host, false, false);
        (why.fullest, why.repaired) = (None, true);
        match row.and_then(|row| self.units.get_mut(row)) {
            Some(unit) => (unit.host, unit.why) = (host, why),
            None => self.units.push(Unit { guests, host, why, until: None, loose: true }),
        }
    }

    fn descend(&mut self, todo: &[(Option<usize>, Vec<GuestAt>)], chosen: &mut Vec<HostAt>) -> bool {
        let Some(((_, unit), rest)) = todo.split_first() else { return true };
        for rank in self.ranked(unit) {
            let host = rank.host;
            if self.room.take_all(self.problem, unit, host).is_err() {
                continue;
            }
            chosen.push(host);
            if self.descend(rest, chosen) {
                return true;
            }
            chosen.pop();
            self.room.give_all(self.problem, unit, host);
            if self.looks == 0 {
                return false;
            }
        }
        false
    }

    /// Hosts that take a unit, the best first.
    fn ranked(&mut self, guests: &[GuestAt]) -> Vec<Rank> {
        let mut ranks = Vec::new();
        for host in self.problem.hosts.keys() {
            if self.look() && self.takes(guests, host).is_ok() {
                ranks.push(self.rank(guests, host));
            }
        }
        ranks.sort_unstable();
        ranks
    }

    fn look(&mut self) -> bool {
        self.looks = self.looks.saturating_sub(1);
        self.looks > 0
    }

    /// Takes a host by pushing one unit of this round off it, which finds another host, pushing in its turn if need be.
    fn push(&mut self, guests: &[GuestAt], pushes: usize) -> bool {
        let Some(left) = pushes.checked_sub(1) else { return false };
        for row in 0..self.units.len() {
            let Some(unit) = self.units.get(row).filter(|unit| unit.loose).cloned() else { continue };
            if !self.look() {
                return false;
            }
            let host = unit.host;
            self.lift(&[row]);
            if self.takes(guests, host).is_err() {
                self.put_back(&[row]);
                continue;
            }
            for guest in guests {
                self.room.take(self.problem, *guest, host);
            }
            self.looks = self.looks.saturating_sub(u32::try_from(self.problem.hosts.len()).unwrap_or(u32::MAX));
            let elsewhere = self.best(&unit.guests, None).map(|(rank, _)| rank.host);
            if let Some(elsewhere) = elsewhere {
                for guest in &unit.guests {
                    self.room.take(self.problem, *guest, elsewhere);
                }
                self.resettle(Some(row), unit.guests, elsewhere);
                self.resettle(None, guests.to_vec(), host);
                return true;
            }
            // It is not on the list while it looks for a place itself.
            let pushed = self.units.remove(row);
            if self.push(&pushed.guests, left) {
                self.resettle(None, guests.to_vec(), host);
                return true;
            }
            self.units.insert(row, pushed);
            self.room.give_all(self.problem, guests, host);
            self.put_back(&[row]);
        }
        false
    }

    /// Finds a host where guests of best effort and of lower priority make room, and as few and unimportant ones as can
    /// be: those that are on their way out first, for then nobody has to be asked. Nobody makes room for a guest that gives
    /// way to it, or that does not start without it: it would be placed first again, and so on for ever. Nor is anybody asked
    /// for one that has failed to start there: it would be stopped in vain again and again.
    pub(super) fn give_way(&mut self, guests: &[GuestAt]) -> bool {
        let here = self.best_effort_here.take().unwrap_or_else(|| self.best_effort());
        let needed = self.needed(guests);
        let mut best: Option<Way> = None;
        for (host, on_it) in here.iter().filter(|(_, on_it)| !on_it.is_empty()) {
            if self.allowed(guests, host).is_err() {
                continue;
            }
            if let Some(found) = self.without(guests, host, on_it, &needed)
                && best.as_ref().is_none_or(|best| found.cost < best.cost)
            {
                best = Some(found);
            }
        }
        self.best_effort_here = Some(here);
        let Some(Way { host, gone, .. }) = best else { return false };
        let why = self.why(guests, host, false, false);
        // Those who leave stay counted, so that nobody else takes the room which they make.
        for guest in guests {
            self.room.take(self.problem, *guest, host);
        }
        for guest in &gone {
            if self.problem.guests[*guest].stage == Stage::Running {
                let with_it = self.followers(*guest);
                for guest in std::iter::once(*guest).chain(with_it) {
                    self.preempted.push(Preemption { guest, host, below: guests.to_vec() });
                }
            }
        }
        if let Some(table) = &mut self.best_effort_here {
            table[host].retain(|guest| !gone.contains(guest));
        }
        let until = Some(Until::Gone { guests: gone });
        self.units.push(Unit { guests: guests.to_vec(), host, why, until, loose: false });
        true
    }

    /// Guests by host that make room for others, the least first.
    fn best_effort(&self) -> Table<HostAt, Vec<GuestAt>> {
        let mut table = Table::filled(self.problem.hosts.len(), Vec::new());
        for (at, guest) in self.problem.guests.iter().filter(|(at, _)| !self.wanted[*at]) {
            let makes_room = match guest.stage {
                Stage::Running => guest.best_effort && !self.ask.keep_best_effort,
                Stage::Stopping => guest.best_effort || !guest.wanted,
                Stage::Free | Stage::Starting | Stage::Moving => false,
            };
            let makes_room = makes_room && !guest.known.is_some_and(stays);
            for host in guest.hosts().filter(|_| makes_room) {
                table[host].push(at);
            }
        }
        for host in self.problem.hosts.keys() {
            table[host].sort_by_key(|guest| (self.problem.guests[*guest].priority, Reverse(*guest)));
        }
        table
    }

    /// The guests that are up and do not run without this one, be it through others: they stop before it.
    fn followers(&self, guest: GuestAt) -> BTreeSet<GuestAt> {
        let mut found = BTreeSet::new();
        let mut open = vec![guest];
        while let Some(first) = open.pop() {
            for order in self.problem.orders.iter().filter(|order| order.required && order.symmetrical) {
                let then = &self.problem.guests[order.then];
                let is_up = order.first == first && order.then != guest && then.wanted && then.hosts().next().is_some();
                if is_up && found.insert(order.then) {
                    open.push(order.then);
                }
            }
        }
        found
    }

    /// The guests without which these do not start, be it through others.
    fn needed(&self, guests: &[GuestAt]) -> BTreeSet<GuestAt> {
        let mut needed = BTreeSet::new();
        let mut open = guests.to_vec();
        while let Some(then) = open.pop() {
            let orders = self.problem.orders.iter().filter(|order| order.required && order.then == then);
            open.extend(orders.map(|order| order.first).filter(|first| needed.insert(*first)));
        }
        needed
    }

    /// What it takes to have a host take guests; `None` where it does not whoever is gone.
    fn without(
        &mut self,
        guests: &[GuestAt],
        host: HostAt,
        on_it: &[GuestAt],
        needed: &BTreeSet<GuestAt>,
    ) -> Option<Way> {
        let problem = self.problem;
        let (mut gone, asked) = self.may_go(guests, host, on_it, needed);
        for guest in &gone {
            self.room.leave(problem, *guest);
        }
        let mut fits = self.takes(guests, host).is_ok();
        if !fits {
            for guest in &asked {
                self.room.leave(problem, *guest);
            }
            fits = self.takes(guests, host).is_ok();
            // Whoever need not go stays: the most important ones are let back first.
            for guest in asked.iter().rev() {
                self.room.enter(problem, *guest);
                if fits && self.takes(guests, host).is_err() {
                    self.room.leave(problem, *guest);
                    gone.push(*guest);
                }
            }
        }
        let rank = self.rank(guests, host);
        for guest in &gone {
            self.room.enter(problem, *guest);
        }
        let victims = gone.iter().filter(|guest| problem.guests[**guest].stage != Stage::Stopping);
        let dearest = victims.clone().map(|guest| problem.guests[*guest].priority).max().unwrap_or(0);
        let count = victims.count();
        fits.then_some(Way { cost: (count > 0, dearest, count, rank), host, gone })
    }

    /// The guests that leave a host anyway and whose room may be waited for, and those that may be asked to leave it.
    fn may_go(
        &self,
        guests: &[GuestAt],
        host: HostAt,
        on_it: &[GuestAt],
        needed: &BTreeSet<GuestAt>,
    ) -> (Vec<GuestAt>, Vec<GuestAt>) {
        let problem = self.problem;
        let priority = self.priority(guests);
        let turn = |guest: &GuestAt| {
            let (priority, yields) = problem.guests[*guest].rank;
            (priority, Reverse(yields))
        };
        let ours = guests.iter().map(turn).max();
        let stops = |guest: &GuestAt| problem.guests[*guest].stage == Stage::Stopping;
        let below = |guest: &GuestAt| {
            let known = &problem.guests[*guest];
            let comes_later = known.priority < priority && Some(turn(guest)) < ours && !needed.contains(guest);
            comes_later || !known.wanted
        };
        let (stopping, running): (Vec<GuestAt>, Vec<GuestAt>) = on_it.iter().copied().filter(below).partition(stops);
        let in_vain = guests.iter().any(|guest| problem.guests[*guest].failed_rounds(host) > 0);
        let can_go = |guest: &GuestAt| !in_vain && self.can_stop(*guest, priority, needed);
        (stopping, running.into_iter().filter(can_go).collect())
    }

    /// Whether all that have to stop before a guest do so already, or give way too.
    fn can_stop(&self, guest: GuestAt, priority: u32, needed: &BTreeSet<GuestAt>) -> bool {
        self.followers(guest).iter().all(|then| {
            let known = &self.problem.guests[*then];
            let gives_way = known.best_effort && known.stage == Stage::Running && known.priority < priority;
            known.stage == Stage::Stopping || (gives_way && !needed.contains(then))
        })
    }
}

/// Whether a guest does not go for others, or has not gone when it was to: it is left alone, or could not be stopped. Whoever waited for
/// its room would do so for ever, and nobody would be told.
fn stays(guest: &Guest) -> bool {
    match &guest.phase {
        Phase::Releasing { failed, .. } => failed.is_some(),
        Phase::Migrating(migration) => migration.release_failed.is_some(),
        Phase::Unplaced | Phase::Free { .. } | Phase::Starting { .. } | Phase::Running { .. } => {
            guest.wanted == Wanted::Unmanaged
        }
    }
}
