//! Sets, which required rules keep together: where the rest of one is, who of it is left out, and when all of it moves.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{
    Placement,
    choose::Rank,
    problem::{Problem, Stage},
    solve::{Place, Solver, Unit, Until},
    table::{GuestAt, HostAt},
};

impl Solver<'_, '_> {
    /// Others of the guests' set that are somewhere already, and are not to be placed.
    pub fn anchors(&self, guests: &[GuestAt]) -> Vec<GuestAt> {
        let Some(set) = guests.first().and_then(|guest| self.problem.guests[*guest].set) else { return Vec::new() };
        let members = self.problem.sets.get(set).into_iter().flatten().copied();
        let placed = |guest: GuestAt| self.units.iter().any(|unit| unit.guests.contains(&guest));
        let anchored = |guest: GuestAt| !self.wanted[guest] && self.problem.guests[guest].is_anchored();
        members.filter(|guest| !guests.contains(guest) && (placed(*guest) || anchored(*guest))).collect()
    }

    /// The hosts of these others of the guests' set, each once, but for those where the guests would break a rule anew.
    pub(super) fn beside(&self, guests: &[GuestAt], anchors: &[GuestAt]) -> Vec<HostAt> {
        let mut hosts: Vec<HostAt> = anchors.iter().filter_map(|guest| self.where_is(*guest)).collect();
        hosts.sort_unstable();
        hosts.dedup();
        // Mostly a set is on one host, and nothing has to be asked.
        if hosts.len() > 1 {
            let kept = self.kept_with(guests, anchors);
            hosts.retain(|host| kept.iter().all(|(_, home)| *home == Some(*host)));
        }
        hosts
    }

    /// From which of the others of their set the guests would be torn anywhere else than there: for each required rule that is not broken
    /// so far one of its others, and where all of them are. What a rule has on several hosts is split wherever one more of it starts.
    pub(super) fn kept_with(&self, guests: &[GuestAt], anchors: &[GuestAt]) -> Vec<(GuestAt, Option<HostAt>)> {
        let homes: Vec<(GuestAt, Option<HostAt>)> =
            anchors.iter().map(|other| (*other, self.where_is(*other))).collect();
        let rows = guests.iter().flat_map(|guest| &self.problem.guests[*guest].groups);
        let groups = rows.map(|row| &self.problem.groups[*row]).filter(|group| group.together && group.required);
        let together = groups.filter_map(|group| {
            let mut others = homes.iter().filter(|(other, _)| group.members.binary_search(other).is_ok());
            let first = others.next()?;
            others.all(|(_, home)| *home == first.1).then_some(*first)
        });
        together.collect()
    }

    /// Where a guest is placed or moved to by this round, else where it will be when what is under way has succeeded.
    pub fn where_is(&self, guest: GuestAt) -> Option<HostAt> {
        let placed = self.units.iter().find(|unit| unit.guests.contains(&guest)).map(|unit| unit.host);
        let moved = || self.moves.iter().find(|(mover, _)| *mover == guest).map(|(_, to)| *to);
        let known = &self.problem.guests[guest];
        placed.or_else(moved).or(known.bound).or_else(|| known.hosts().next())
    }

    /// Moves a set that runs to where all of it can run. What is to be placed waits for it there.
    pub(super) fn move_set(&mut self, guests: &[GuestAt], anchors: &[GuestAt], there: Option<Rank>) -> bool {
        let movable = |guest: &GuestAt| !self.wanted[*guest] && self.problem.can_go(*guest);
        if !anchors.iter().all(movable) {
            return false;
        }
        let whole: Vec<GuestAt> = anchors.iter().chain(guests).copied().collect();
        for guest in anchors {
            self.room.leave(self.problem, *guest);
        }
        let found = self.best(&whole, None);
        for guest in anchors {
            self.room.enter(self.problem, *guest);
        }
        let better = found.filter(|(rank, _)| there.is_none_or(|there| rank.failed < there.failed));
        let Some((Rank { host, .. }, _)) = better else { return false };
        let movers: Vec<GuestAt> =
            anchors.iter().copied().filter(|guest| self.where_is(*guest) != Some(host)).collect();
        self.moves.extend(movers.iter().map(|guest| (*guest, host)));
        for guest in &movers {
            self.room.take(self.problem, *guest, host);
        }
        let why = self.why(guests, host, false, true);
        for guest in guests {
            self.room.take(self.problem, *guest, host);
        }
        let until = Some(Until::SetMoved { guests: movers });
        self.units.push(Unit { guests: guests.to_vec(), host, why, until, loose: false });
        true
    }

    /// The one that a rule names, else the one with the least priority; `None` when there is nobody.
    pub(super) fn who_yields(&self, guests: &[GuestAt]) -> Option<GuestAt> {
        let yields = |guest: &GuestAt| {
            let groups = &self.problem.guests[*guest].groups;
            groups.iter().any(|group| self.problem.groups[*group].yields == Some(*guest))
        };
        let key = |guest: &&GuestAt| (!yields(guest), self.problem.guests[**guest].priority, Reverse(**guest));
        guests.iter().min_by_key(key).copied()
    }
}

impl Problem<'_> {
    /// Whether a guest that runs would be moved: not one that is left alone, for itself or with its host. Others of its set would wait
    /// for it for ever, and hold their place.
    pub(super) fn can_go(&self, guest: GuestAt) -> bool {
        let known = &self.guests[guest];
        known.stage == Stage::Running && known.wanted && known.home.is_none_or(|host| self.lets_go(host))
    }

    /// The guests that run, and of whose sets others run on other hosts; where each of them does.
    #[must_use]
    pub fn split(&self) -> BTreeMap<GuestAt, HostAt> {
        let runs = |guest: GuestAt| {
            let known = &self.guests[guest];
            Some((guest, known.home.filter(|_| known.stage == Stage::Running)?))
        };
        let mut split = BTreeMap::new();
        for set in &self.sets {
            let at: Vec<(GuestAt, HostAt)> = set.iter().copied().filter_map(runs).collect();
            let first = at.first().map(|(_, host)| *host);
            if at.iter().any(|(_, host)| Some(*host) != first) {
                split.extend(at);
            }
        }
        split
    }

    /// Whether a guest goes on running while it moves.
    #[must_use]
    pub fn moves_live(&self, guest: GuestAt) -> bool {
        let known = &self.guests[guest];
        known.stage == Stage::Running && known.live_migration
    }
}

/// Whether another one of a guest's set is placed somewhere else in the same round: what is looked for by itself does not know of that,
/// and would split the set.
#[must_use]
pub fn starts_elsewhere(problem: &Problem<'_>, placement: &Placement, guest: GuestAt, host: HostAt) -> bool {
    let Some(set) = problem.guests[guest].set.filter(|_| !placement.places.is_empty()) else { return false };
    placement.places.iter().any(|(other, place)| match place {
        Place::On { host: on, .. } | Place::Later { host: on, .. } => {
            *other != guest && *on != host && problem.guests[*other].set == Some(set)
        }
        Place::Nowhere { .. } => false,
    })
}

/// Whether a unit is of the same set as these guests.
pub(super) fn is_set_of(problem: &Problem<'_>, unit: &Unit, guests: &[GuestAt]) -> bool {
    let set = |guests: &[GuestAt]| guests.first().and_then(|guest| problem.guests[*guest].set);
    set(guests).is_some() && set(&unit.guests) == set(guests)
}
