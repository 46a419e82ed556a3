//! Admission: what the cluster survives, and where every guest would go.
//!
//! A question is answered by planning: the hosts in question are taken away, and what ran there is placed on what is
//! left, while everything else stays where it is. So "yes" is always true; it comes with a place for each guest. "No" is
//! said only when every way of placing them was tried (at most [`EXHAUSTIVE_UNITS`] guests, and nobody who could give
//! way), or when some guest alone would find no place; else it is "unknown". What runs on the other hosts is not moved
//! to make room, here as in a real failure.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use serde::{Deserialize, Serialize};

use super::{
    EXHAUSTIVE_UNITS, Placement,
    problem::Problem,
    reason::Reasons,
    room::Room,
    solve::{Ask, Place, Until, place},
    table::{GuestAt, HostAt},
};
use crate::names::{GuestName, HostName};

/// Combinations of lost hosts that one question tries: all pairs of 200 hosts. Beyond, those that take the most guests
/// down with them are tried, and what is found well then is "unknown".
pub const COMBINATIONS_MAX: usize = 20_000;

/// Looks at a guest on a host that one question may take, about a second or two; the first combination is always tried.
pub const QUESTION_LOOKS_MAX: u64 = 30_000_000;

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every guest finds a place, whichever are lost.
    Yes,
    /// Some guest finds none, and the worst case says which.
    No,
    /// Not everything was tried.
    Unknown,
}

/// What becomes of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Its host is not among the lost, and it stays.
    Stays,
    /// It starts there, and why.
    Starts {
        /// Where.
        host: HostName,
        /// Why there, or what it waits for.
        why: String,
    },
    /// It gives way to guests of higher priority.
    GivesWay,
    /// It finds no place.
    Nowhere {
        /// Why.
        reasons: Reasons,
    },
}

/// How room is made for a guest on its new host before it starts there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoomMade {
    /// Guests of best effort are stopped.
    ByStopping {
        /// Who.
        guests: Vec<GuestName>,
    },
    /// Guests that are kept together with it move there.
    ByMoving,
}

/// What happens when certain hosts are lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhatIf {
    /// The hosts.
    pub lost: Vec<HostName>,
    /// What becomes of each guest that is wanted.
    pub guests: BTreeMap<GuestName, Fate>,
    /// The guests to be started, in the order of their starts.
    pub starts: Vec<GuestName>,
    /// Those of them for which room is made first.
    pub room_made: BTreeMap<GuestName, RoomMade>,
    /// Where guests of lost hosts were, or would have been.
    pub from: BTreeMap<GuestName, HostName>,
    /// Whether every guest that does not run by best effort has a place.
    pub verdict: Verdict,
}

/// Whether a number of losses is survived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survival {
    /// How many are lost at once.
    pub losses: usize,
    /// The label that names what is lost; `None`: single hosts.
    pub domain: Option<String>,
    /// The answer.
    pub verdict: Verdict,
    /// The case in which the most guests, by priority, find no place; of those with places for all, one that takes the
    /// most guests down. `None` when there is nothing to lose.
    pub worst: Option<WhatIf>,
    /// For each guest that some case leaves without a place: the hosts lost in the first such case, and why.
    pub unplaced: BTreeMap<GuestName, (Vec<HostName>, Reasons)>,
    /// Cases that were tried, of how many.
    pub tried: (usize, usize),
}

/// Whether every guest finds a place when any `losses` hosts are lost at once, or failure domains where the settings
/// name a label for them and `by_domain` asks for it. Guests that run nowhere yet are placed first. Guests of best
/// effort may be left without a place.
#[must_use]
pub fn admission(problem: &Problem<'_>, losses: usize, by_domain: bool) -> Survival {
    admission_within(problem, losses, by_domain, QUESTION_LOOKS_MAX)
}

/// Like [`admission`], with so many looks at a guest on a host instead of [`QUESTION_LOOKS_MAX`].
#[must_use]
pub fn admission_within(problem: &Problem<'_>, losses: usize, by_domain: bool, looks: u64) -> Survival {
    let domain = problem.failure_domain.filter(|_| by_domain);
    let base = Base::of(problem);
    let domains = problem.domains(domain);
    let losses_possible = losses.min(domains.len());
    let total = combinations(domains.len(), losses_possible);
    let mut survival = Survival {
        losses,
        domain: domain.map(str::to_owned),
        verdict: Verdict::Yes,
        worst: None,
        unplaced: BTreeMap::new(),
        tried: (0, total),
    };
    let mut looks = looks;
    let mut worst: Option<(u64, usize, WhatIf)> = None;
    let mut chosen = Choice::first(domains.len(), losses_possible);
    while let Some(rows) = &chosen.rows {
        let lost: BTreeSet<HostAt> = rows.iter().filter_map(|row| domains.get(*row)).flatten().copied().collect();
        let case = what_if(problem, &base, &lost);
        survival.tried.0 += 1;
        survival.verdict = worse(survival.verdict, case.verdict);
        let weight = weight(problem, &case);
        for (guest, fate) in &case.guests {
            if let Fate::Nowhere { reasons } = fate
                && !survival.unplaced.contains_key(guest)
            {
                survival.unplaced.insert(guest.clone(), (case.lost.clone(), reasons.clone()));
            }
        }
        let size = (weight, case.starts.len());
        let cost = (case.starts.len() + 1).saturating_mul(problem.hosts.len());
        looks = looks.saturating_sub(u64::try_from(cost).unwrap_or(u64::MAX));
        if worst.as_ref().is_none_or(|(weight, starts, _)| size > (*weight, *starts)) {
            worst = Some((size.0, size.1, case));
        }
        if survival.tried.0 >= COMBINATIONS_MAX || looks == 0 {
            break;
        }
        chosen.advance();
    }
    if survival.tried.0 < total && survival.verdict == Verdict::Yes {
        survival.verdict = Verdict::Unknown;
    }
    survival.worst = worst.map(|(_, _, case)| case);
    survival
}

/// What happens when exactly these hosts are lost, for the cluster as it is.
#[must_use]
pub fn if_lost(problem: &Problem<'_>, lost: &BTreeSet<HostAt>) -> WhatIf {
    let base = Base::of(problem);
    what_if(problem, &base, lost)
}

/// The cluster once all that runs nowhere has been placed.
struct Base {
    room: Room,
    placement: Placement,
    verdict: Verdict,
}

impl Base {
    fn of(problem: &Problem<'_>) -> Self {
        let before = Room::of(problem);
        let mut room = before.clone();
        let guests = problem.homeless();
        let patient = problem.least_important(&guests);
        let ask = Ask { guests, patient, ..Ask::default() };
        let placement = place(problem, &mut room, &ask);
        let verdict = verdict(problem, &before, &placement, ask.guests.len());
        room.starts = problem.starts.clone();
        Self { room, placement, verdict }
    }
}

fn what_if(problem: &Problem<'_>, base: &Base, lost: &BTreeSet<HostAt>) -> WhatIf {
    let first = &base.placement;
    let mut room = base.room.clone();
    for host in lost {
        room.lost[*host] = true;
    }
    let mut ask = Ask::default();
    let mut fates = BTreeMap::new();
    let mut from = BTreeMap::new();
    for (at, guest) in problem.guests.iter().filter(|(_, guest)| guest.wanted) {
        let (home, planned) = match first.places.get(&at) {
            Some(Place::On { host, .. } | Place::Later { host, .. }) => (Some(*host), true),
            // What has no place now has none with fewer hosts.
            Some(place @ Place::Nowhere { .. }) => {
                fates.insert(guest.name.clone(), fate(problem, place));
                continue;
            }
            None => (guest.bound, false),
        };
        if home.is_none_or(|home| !lost.contains(&home)) {
            fates.insert(guest.name.clone(), Fate::Stays);
            ask.settled.extend(planned.then_some(at));
            continue;
        }
        from.extend(home.map(|home| (guest.name.clone(), problem.host_name(home).clone())));
        if let (Some(home), true) = (home, planned) {
            room.give(problem, at, home);
        }
        ask.guests.push(at);
    }
    room.starts = problem.starts.clone();
    ask.patient = problem.least_important(&ask.guests);
    let before = room.clone();
    let placement = place(problem, &mut room, &ask);
    for (guest, place) in &placement.places {
        fates.insert(problem.guest_name(*guest).clone(), fate(problem, place));
    }
    for preemption in &placement.preempted {
        fates.insert(problem.guest_name(preemption.guest).clone(), Fate::GivesWay);
    }
    let verdict = worse(base.verdict, verdict(problem, &before, &placement, ask.guests.len()));
    let started = |guest: &GuestAt| !matches!(placement.places.get(guest), Some(Place::Nowhere { .. }) | None);
    let starts: Vec<GuestAt> = ask.guests.iter().copied().filter(started).collect();
    let starts = problem.start_order(&starts).into_iter().map(|guest| problem.guest_name(guest).clone()).collect();
    let lost = lost.iter().map(|host| problem.host_name(*host).clone()).collect();
    let made = placement.places.iter().filter_map(|(guest, place)| Some((*guest, room_made(problem, place)?)));
    let room_made = made.map(|(guest, made)| (problem.guest_name(guest).clone(), made)).collect();
    WhatIf { lost, guests: fates, starts, room_made, from, verdict }
}

fn fate(problem: &Problem<'_>, place: &Place) -> Fate {
    match place {
        Place::On { host, why } => Fate::Starts { host: problem.host_name(*host).clone(), why: why.to_string() },
        Place::Later { host, until } => {
            let name = problem.host_name(*host);
            Fate::Starts { host: name.clone(), why: format!("{name} {}", problem.until(until)) }
        }
        Place::Nowhere { reasons } => Fate::Nowhere { reasons: reasons.clone() },
    }
}

fn room_made(problem: &Problem<'_>, place: &Place) -> Option<RoomMade> {
    match place {
        Place::Later { until: Until::Gone { guests }, .. } => {
            let guests = guests.iter().map(|guest| problem.guest_name(*guest).clone()).collect();
            Some(RoomMade::ByStopping { guests })
        }
        Place::Later { until: Until::SetMoved { .. }, .. } => Some(RoomMade::ByMoving),
        Place::Later { until: Until::Busy { .. }, .. } | Place::On { .. } | Place::Nowhere { .. } => None,
    }
}

/// What a placement of so many guests on a room says.
fn verdict(problem: &Problem<'_>, before: &Room, placement: &Placement, guests: usize) -> Verdict {
    let counts = |(guest, place): (&GuestAt, &Place)| {
        matches!(place, Place::Nowhere { .. }) && !problem.guests[*guest].best_effort
    };
    let every_way = || {
        let gives_way = problem.guests.rows().iter().any(|guest| guest.best_effort);
        !placement.cut && guests <= EXHAUSTIVE_UNITS && placement.moves.is_empty() && !gives_way
    };
    if !placement.places.iter().any(counts) {
        Verdict::Yes
    } else if every_way() || hopeless(problem, before, placement) {
        Verdict::No
    } else {
        Verdict::Unknown
    }
}

/// Guests of one case that are looked at alone: one that is too large for every host is among the first.
const ALONE_MAX: usize = 4;

/// Whether some guest would find no place even if it were the only one to be placed: then no search finds one.
fn hopeless(problem: &Problem<'_>, before: &Room, placement: &Placement) -> bool {
    let mut nowhere: Vec<GuestAt> = Vec::new();
    for (guest, place) in &placement.places {
        if matches!(place, Place::Nowhere { .. }) && !problem.guests[*guest].best_effort {
            nowhere.push(*guest);
        }
    }
    nowhere.sort_by_key(|guest| (Reverse(problem.demand(*guest, 0)), *guest));
    nowhere.into_iter().take(ALONE_MAX).any(|guest| {
        let ask = Ask { guests: vec![guest], ..Ask::default() };
        let alone = place(problem, &mut before.clone(), &ask);
        !alone.cut && matches!(alone.places.get(&guest), Some(Place::Nowhere { .. }))
    })
}

fn worse(one: Verdict, other: Verdict) -> Verdict {
    match (one, other) {
        (Verdict::No, _) | (_, Verdict::No) => Verdict::No,
        (Verdict::Unknown, _) | (_, Verdict::Unknown) => Verdict::Unknown,
        (Verdict::Yes, Verdict::Yes) => Verdict::Yes,
    }
}

/// The priorities of the guests without a place, in sum; one more each, so that priority 0 counts.
fn weight(problem: &Problem<'_>, case: &WhatIf) -> u64 {
    let nowhere = case.guests.iter().filter(|(_, fate)| matches!(fate, Fate::Nowhere { .. }));
    let priorities = nowhere.filter_map(|(name, _)| problem.guest(name));
    priorities.map(|guest| u64::from(problem.priority(guest)) + 1).fold(0, u64::saturating_add)
}

impl Problem<'_> {
    /// What can be lost at once, each as the hosts in it: those with the most guests' memory first. Hosts that are
    /// proven gone, and witnesses, are nothing to lose. A host without the label is a domain of its own.
    #[must_use]
    pub fn domains(&self, label: Option<&str>) -> Vec<Vec<HostAt>> {
        let mut by_value: BTreeMap<(Option<&str>, Option<HostAt>), Vec<HostAt>> = BTreeMap::new();
        for (at, host) in self.hosts.iter().filter(|(_, host)| !host.gone) {
            let value = label.and_then(|label| host.labels?.get(label)).map(String::as_str);
            by_value.entry((value, value.is_none().then_some(at))).or_default().push(at);
        }
        let room = Room::of(self);
        let load = |hosts: &Vec<HostAt>| {
            let guests: u64 = hosts.iter().map(|host| u64::from(room.guests(*host))).sum();
            let memory = hosts.iter().map(|host| room.used_memory(*host)).fold(0, u64::saturating_add);
            (Reverse(memory), Reverse(guests), hosts.first().copied())
        };
        let mut domains: Vec<Vec<HostAt>> = by_value.into_values().collect();
        domains.sort_by_cached_key(load);
        domains
    }
}

/// The number of ways to choose, as far as it can be counted.
fn combinations(of: usize, choose: usize) -> usize {
    let mut count: usize = 1;
    for step in 0..choose.min(of) {
        count = count.saturating_mul(of - step) / (step + 1);
    }
    count
}

/// All ways to choose rows, the first rows first.
struct Choice {
    of: usize,
    /// `None` when there are no more.
    rows: Option<Vec<usize>>,
}

impl Choice {
    fn first(of: usize, choose: usize) -> Self {
        Self { of, rows: Some((0..choose).collect()) }
    }

    fn advance(&mut self) {
        let Some(rows) = &mut self.rows else { return };
        let count = rows.len();
        // The last row that can go on does, and those after it follow closely.
        let last = (0..count).rev().find(|row| rows.get(*row).is_some_and(|value| value + count < self.of + row));
        let Some((row, value)) = last.and_then(|row| Some((row, *rows.get(row)?))) else {
            self.rows = None;
            return;
        };
        for (step, slot) in rows.iter_mut().skip(row).enumerate() {
            *slot = value + 1 + step;
        }
    }
}

#[cfg(test)]
mod tests;
