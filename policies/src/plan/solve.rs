//! Placing many guests at once.
//!
//! Greedy by priority, the least free to choose first, and with repair: a guest that finds no room may push what this
//! very round has placed to other hosts, and at last asks guests of best effort to give way. What runs stays.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use super::{
    Placement, Preemption,
    choose::Rank,
    problem::{Problem, Stage},
    reason::{Reason, Reasons, Why},
    room::Room,
    sets::is_set_of,
    table::{GuestAt, HostAt, Table},
};

/// Starts that one host carries out at once (boot storm).
pub const STARTS_PER_HOST: u32 = 2;

/// Turns of starts on a host after which a patient guest ([`Ask::patient`]) still starts there, if that leaves hosts more evenly
/// loaded. A turn is over when machines run, mostly within a second or two, while nothing that runs is moved for balance later. With
/// none at all, every loss would give each host that is left as many guests as it can start at once, however full it is. With any
/// number, a host that is much emptier than others would start all of them, two by two, while the others do nothing.
pub const TURNS_WAITED: u32 = 2;

/// How often one call looks at a guest on a host in search of a repair before it gives up. About ten milliseconds. What
/// was placed until then stays; the answer says that the search was cut short.
pub const LOOKS_MAX: u32 = 100_000;

/// Guests for which a reason per host is worked out in one call, those of the highest priority; operators read no more.
const EXPLAINED_MAX: usize = 32;

/// What one call asks for.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// The guests to be placed. One that runs is looked at as if it did not; one of a set only together with it.
    pub guests: Vec<GuestAt>,
    /// Hosts that are not to be chosen.
    pub excluded: BTreeSet<HostAt>,
    /// Guests that run nowhere, and are taken for running where the room has them.
    pub settled: BTreeSet<GuestAt>,
    /// Starts that this round has begun already, by host: they count towards [`STARTS_PER_HOST`].
    pub begun: BTreeMap<HostAt, u32>,
    /// Guests of best effort stay, whoever waits.
    pub keep_best_effort: bool,
    /// Guests that wait for up to [`TURNS_WAITED`] turns of starts on a host that is less loaded than others. All others take a host
    /// that can start them at once, if rules like it as much as any. Of a set, all have to be patient.
    pub patient: BTreeSet<GuestAt>,
    /// The guests go on running while they move: they start nothing, and so wait for nobody who starts before them.
    pub live: bool,
}

/// Where a guest goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// To this host.
    On {
        /// The host.
        host: HostAt,
        /// Why there.
        why: Why,
    },
    /// To this host, when something there has passed.
    Later {
        /// The host.
        host: HostAt,
        /// What has to pass.
        until: Until,
    },
    /// Nowhere.
    Nowhere {
        /// Why.
        reasons: Reasons,
    },
}

/// What has to pass before a guest starts on its host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Until {
    /// The host has as many starts to carry out as it may have.
    Busy {
        /// How many.
        starting: u32,
    },
    /// Guests that make room are gone.
    Gone {
        /// The guests.
        guests: Vec<GuestAt>,
    },
    /// The rest of its set has come there.
    SetMoved {
        /// Who has to move.
        guests: Vec<GuestAt>,
    },
}

/// Guests that are placed on one host together.
#[derive(Debug, Clone)]
pub(super) struct Unit {
    pub guests: Vec<GuestAt>,
    pub host: HostAt,
    pub why: Why,
    /// What has to pass, if anything.
    pub until: Option<Until>,
    /// It may be placed elsewhere for the sake of others of this round.
    pub loose: bool,
}

/// One call, as far as it has come.
pub(super) struct Solver<'p, 'a> {
    pub problem: &'p Problem<'a>,
    /// With all that has been placed so far.
    pub room: Room,
    pub ask: &'p Ask,
    /// Who is to be placed.
    pub wanted: Table<GuestAt, bool>,
    pub patient: Table<GuestAt, bool>,
    pub units: Vec<Unit>,
    pub nowhere: Vec<(GuestAt, Reasons)>,
    pub preempted: Vec<Preemption>,
    pub moves: Vec<(GuestAt, HostAt)>,
    /// How many are left of [`LOOKS_MAX`].
    pub looks: u32,
    pub best_effort_here: Option<Table<HostAt, Vec<GuestAt>>>,
}

/// Places guests, on top of what the room holds. The room then holds them too.
#[must_use]
pub fn place(problem: &Problem<'_>, room: &mut Room, ask: &Ask) -> Placement {
    // Of most rounds of deciding this is all.
    if ask.guests.is_empty() {
        return Placement::default();
    }
    let mut blocked: Vec<(GuestAt, Reasons)> = Vec::new();
    loop {
        let mut solver = Solver::new(problem, room.clone(), ask, &blocked);
        solver.run();
        let waiting = solver.waits_for_first();
        // Each turn takes at least one guest out, so that this ends.
        if waiting.is_empty() {
            let (placement, taken) = solver.finish(blocked);
            *room = taken;
            return placement;
        }
        blocked.extend(waiting);
    }
}

impl<'p, 'a> Solver<'p, 'a> {
    pub fn new(problem: &'p Problem<'a>, room: Room, ask: &'p Ask, blocked: &[(GuestAt, Reasons)]) -> Self {
        let mut solver = Self {
            problem,
            room,
            ask,
            wanted: Table::filled(problem.guests.len(), false),
            patient: Table::filled(problem.guests.len(), false),
            units: Vec::new(),
            nowhere: Vec::new(),
            preempted: Vec::new(),
            moves: Vec::new(),
            looks: LOOKS_MAX,
            best_effort_here: None,
        };
        for guest in &ask.patient {
            solver.patient[*guest] = true;
        }
        for guest in &ask.guests {
            let is_blocked = blocked.iter().any(|(other, _)| other == guest);
            if !is_blocked && !solver.wanted[*guest] {
                solver.wanted[*guest] = true;
                solver.room.leave(problem, *guest);
            }
        }
        solver
    }

    fn run(&mut self) {
        for guests in self.in_order() {
            self.settle(guests);
        }
        // Pushing others elsewhere may have left room for one that found none before.
        if self.units.iter().any(|unit| unit.why.repaired) {
            for (guest, reasons) in std::mem::take(&mut self.nowhere) {
                if !self.settle_direct(&[guest]) {
                    self.nowhere.push((guest, reasons));
                }
            }
        }
    }

    /// Places guests where they fit as things are, beside others of their set.
    fn settle_direct(&mut self, guests: &[GuestAt]) -> bool {
        let anchors = self.anchors(guests);
        let hosts = self.beside(guests, &anchors);
        let found = self.best(guests, (!anchors.is_empty()).then_some(&hosts));
        if let Some((rank, only)) = found {
            self.commit(guests, rank, only, !anchors.is_empty());
        }
        found.is_some()
    }

    /// Sets and single guests: the highest priority first, then whoever has the fewest hosts to choose from, then the
    /// largest.
    fn in_order(&self) -> Vec<Vec<GuestAt>> {
        let mut units: Vec<Vec<GuestAt>> = Vec::new();
        let mut sets: BTreeSet<usize> = BTreeSet::new();
        for guest in self.wanted.keys().filter(|guest| self.wanted[*guest]) {
            match self.problem.guests[guest].set {
                None => units.push(vec![guest]),
                Some(set) if sets.insert(set) => {
                    let members = self.problem.sets.get(set).into_iter().flatten().copied();
                    units.push(members.filter(|member| self.wanted[*member]).collect());
                }
                Some(_) => {}
            }
        }
        let key = |unit: &Vec<GuestAt>| {
            let of = |guest: &GuestAt| &self.problem.guests[*guest];
            let rank =
                unit.iter().map(|guest| of(guest).rank).map(|(priority, yields)| (priority, Reverse(yields))).max();
            let best_effort = unit.iter().all(|guest| of(guest).best_effort);
            let open = self.problem.hosts.keys().filter(|host| self.allowed(unit, *host).is_ok());
            // Who joins others of its set has no hosts but theirs, unless all of it has to move.
            let beside: Vec<Option<HostAt>> =
                self.anchors(unit).into_iter().map(|other| self.where_is(other)).collect();
            let (theirs, others) = open.fold((0_usize, 0_usize), |(theirs, others), host| {
                if beside.contains(&Some(host)) { (theirs + 1, others) } else { (theirs, others + 1) }
            });
            let choices = if theirs == 0 { others } else { theirs };
            (Reverse(rank), best_effort, choices, Reverse(self.memory(unit)), unit.first().copied())
        };
        units.sort_by_cached_key(key);
        units
    }

    pub fn memory(&self, guests: &[GuestAt]) -> u64 {
        guests.iter().map(|guest| self.problem.demand(*guest, 0)).fold(0, u64::saturating_add)
    }

    pub fn priority(&self, guests: &[GuestAt]) -> u32 {
        guests.iter().map(|guest| self.problem.guests[*guest].priority).max().unwrap_or(0)
    }

    /// Places one unit; of a set that cannot run as one, who yields is left out.
    fn settle(&mut self, guests: Vec<GuestAt>) {
        let mut rest = guests;
        let mut dropped = Vec::new();
        while let Some(last) = self.who_yields(&rest) {
            if self.settle_whole(&rest) {
                break;
            }
            rest.retain(|guest| *guest != last);
            dropped.push(last);
        }
        // What yielded to one that was left out itself may find room after all.
        for guest in dropped.into_iter().rev() {
            if !self.settle_whole(&[guest]) {
                let reasons = self.explain(guest);
                self.nowhere.push((guest, reasons));
            }
        }
    }

    fn settle_whole(&mut self, guests: &[GuestAt]) -> bool {
        let anchors = self.anchors(guests);
        if anchors.is_empty() {
            return match self.best(guests, None) {
                Some((rank, only)) => {
                    self.commit(guests, rank, only, false);
                    true
                }
                None => self.repair(guests) || self.give_way(guests),
            };
        }
        let hosts = self.beside(guests, &anchors);
        let there = self.best(guests, Some(&hosts));
        let failed = there.is_none_or(|(rank, _)| rank.failed > 0);
        // If one member of a set cannot start, the set moves as one.
        if failed && self.move_set(guests, &anchors, there.map(|(rank, _)| rank)) {
            return true;
        }
        match there {
            Some((rank, _)) => {
                self.commit(guests, rank, false, true);
                true
            }
            None => false,
        }
    }

    fn commit(&mut self, guests: &[GuestAt], rank: Rank, only: bool, with_set: bool) {
        let host = rank.host;
        let why = self.why(guests, host, only, with_set);
        for guest in guests {
            self.room.take(self.problem, *guest, host);
        }
        // Who joins others of this round goes wherever they are pushed.
        let joined = self.units.iter_mut().find(|unit| with_set && unit.loose && is_set_of(self.problem, unit, guests));
        match joined {
            Some(unit) => unit.guests.extend(guests),
            None => self.units.push(Unit { guests: guests.to_vec(), host, why, until: None, loose: !with_set }),
        }
    }

    /// A reason for each host, for the first guests; counting them keeps a round short when nothing fits.
    fn explain(&mut self, guest: GuestAt) -> Reasons {
        if self.nowhere.len() >= EXPLAINED_MAX {
            return Reasons::noted(format!("no host takes it, nor {EXPLAINED_MAX} others before it"));
        }
        let mut reasons = Reasons::default();
        let anchors = self.anchors(&[guest]);
        // Looked up once: of a large set that would take longer than all else for hundreds of hosts.
        let first = anchors.first().map(|anchor| (*anchor, self.where_is(*anchor)));
        let kept: Vec<_> = self.kept_with(&[guest], &anchors).into_iter().chain(first).collect();
        for host in self.problem.hosts.keys() {
            let name = self.problem.hosts[host].name;
            let astray = kept.iter().find(|(_, home)| *home != Some(host)).map(|(anchor, _)| *anchor);
            let astray = astray.map(|anchor| Reason::Astray { other: self.problem.guests[anchor].name.clone() });
            match (self.takes(&[guest], host), astray) {
                (Err(reason), _) | (Ok(()), Some(reason)) => reasons.add(name, reason),
                // Only its set as a whole finds no place.
                (Ok(()), None) => {}
            }
        }
        if self.looks == 0 {
            reasons.note("the search for a way to make room was cut short".to_owned());
        }
        reasons
    }

    /// Guests of this round whose required first one neither runs nor gets a place.
    fn waits_for_first(&self) -> Vec<(GuestAt, Reasons)> {
        let mut waiting = Vec::new();
        for order in self.problem.orders.iter().filter(|order| order.required && !self.ask.live) {
            let first = &self.problem.guests[order.first];
            let runs =
                first.home.is_some() || first.stage == Stage::Starting || self.ask.settled.contains(&order.first);
            let leaves = self.preempted.iter().any(|preemption| preemption.guest == order.first);
            let comes = (runs && !leaves && !self.ask.guests.contains(&order.first))
                || self.units.iter().any(|unit| unit.guests.contains(&order.first));
            let placed = self.units.iter().any(|unit| unit.guests.contains(&order.then));
            if placed && !comes && !waiting.iter().any(|(guest, _)| *guest == order.then) {
                let note = format!("{} has no place, without which {} does not let it run", first.name, order.name);
                waiting.push((order.then, Reasons::noted(note)));
            }
        }
        waiting
    }

    fn finish(mut self, blocked: Vec<(GuestAt, Reasons)>) -> (Placement, Room) {
        // Repairs have changed the order.
        let guests = &self.problem.guests;
        let rank = |guest: &GuestAt| (guests[*guest].rank.0, Reverse(guests[*guest].rank.1), Reverse(*guest));
        self.units.sort_by_cached_key(|unit| Reverse(unit.guests.iter().map(rank).max()));
        let mut placement = Placement { cut: self.looks == 0, ..Placement::default() };
        let mut starts = self.problem.starts.clone();
        for (host, begun) in &self.ask.begun {
            starts[*host] = starts[*host].saturating_add(*begun);
        }
        for unit in &self.units {
            for guest in &unit.guests {
                let host = unit.host;
                let starting = starts[host];
                let place = match &unit.until {
                    Some(until) => Place::Later { host, until: until.clone() },
                    None if starting >= STARTS_PER_HOST => Place::Later { host, until: Until::Busy { starting } },
                    None => {
                        starts[host] += 1;
                        Place::On { host, why: unit.why.clone() }
                    }
                };
                placement.order.push(*guest);
                placement.places.insert(*guest, place);
            }
        }
        for (guest, reasons) in self.nowhere.into_iter().chain(blocked) {
            placement.order.push(guest);
            placement.places.insert(guest, Place::Nowhere { reasons });
        }
        placement.preempted = self.preempted;
        placement.moves = self.moves;
        (placement, self.room)
    }
}
