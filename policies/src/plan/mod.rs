//! Planning: where guests go, what would have to move, and what the cluster survives. Pure, and the same every time.
//!
//! For an operator who knows Pacemaker:
//!
//! | here | there | differs in |
//! | --- | --- | --- |
//! | `required` rules, [`Score::Must`](crate::rules::Score::Must), `Never` | scores of (minus) infinity | a guest for which no host is left waits; one that runs is moved, and never just stopped |
//! | [`Score::By`](crate::rules::Score::By), weights | finite scores | they are summed, and the highest sum wins before anything about room is looked at |
//! | stickiness | `resource-stickiness` | default 1000; it is weighed only against rules: room alone never moves what runs |
//! | keep-together | colocation with infinity, in both directions | the set is looked at as one guest, so that no order of placing paints it into a corner |
//! | keep-apart | colocation with minus infinity | also by a label of the hosts, such as `rack`; a host without the label is a domain of its own |
//! | priority | `priority` | the higher one is placed first; a guest that *runs* gives way only if it is `best_effort` |
//! | capacity | `placement-strategy=balanced` with utilization | memory is always hard, declared capacities are hard unless settings say otherwise, processors are hard where they are declared and a weight elsewhere; what is taken is compared by share, not by amount |
//! | `start_tries` | `migration-threshold` | a host where starts failed is not banned: it comes after those where fewer rounds of starts failed |
//! | starts at once per host | `batch-limit`, per host | a host that is busy starting is told apart from one that cannot take a guest; it is waited for, a little, where it is the less loaded one |
//!
//! How a host is chosen, the first difference decides:
//! 1. it takes guests at all, no required rule is broken, and there is room: else it is out, and the reason is kept;
//! 2. it is not one to be avoided (the guest has just failed there);
//! 3. fewer rounds of starts have failed there, those before it came to run elsewhere among them;
//! 4. it does not doubt itself;
//! 5. rules like it more (the sum of scores and of the weights of preferred rules);
//! 6. no more starts come first there than the guest waits for: none, or two turns of them ([`TURNS_WAITED`]);
//! 7. its processors are less overcommitted, unless settings weigh them like the rest;
//! 8. it is less full with the guest on it: by the largest share that is taken of anything which the guest takes and the host
//!    has (memory, declared capacities), each times its weight;
//! 9. more of its memory is free; then fewer guests; then fewer turns of starts that come first: among equals nobody waits; then
//!    its name.
//!
//! Who waits, in step 6: of the guests that were freed a moment ago, and whose starts have not failed, those of the least priority
//! ([`Ask::patient`]); so nobody waits while a less important one starts that was freed with it. What is about to start counts as load like
//! what runs, so that a loss leaves the others evenly loaded. Without the wait each host that is left got as many guests as it starts at
//! once before any got more, however full it was, and nothing moves them later. The wait is short, because a plan is only one round's: who
//! has no turn yet is placed anew in each, and after [`BALANCE_PATIENCE`](crate::decide::placement::BALANCE_PATIENCE) by the first turn
//! that is free anywhere. So neither slow starts nor a host that hangs hold up anybody for long. Guests that move wait for no start: a
//! drain is to end.
//!
//! How many guests are placed at once ([`place`]): by priority; of equals, those with fewest hosts to choose from, then
//! the largest. One that finds no room may push what *this round* has placed to other hosts: while fewer than
//! [`EXHAUSTIVE_UNITS`] sets or guests have been placed, every way is tried, so that whenever there is a place for all,
//! all are placed; beyond, chains of up to three pushes are tried. Both end after [`LOOKS_MAX`] looks in one call; then
//! [`Placement::cut`] is set, and "nowhere" means "not found". Guests that run are not moved to make room, except that a
//! keep-together set moves as one when a member of it can start only elsewhere, and none of it is left alone. At last guests
//! of best effort and of lower priority are asked to give way, as few and as unimportant ones as will do; the guest that
//! needs their room waits until they are proven gone.
//!
//! What runs is looked at by [`moves`]: a guest on a host that a required rule forbids, too near to another, or away from
//! its set, is to move; also one that rules like elsewhere by more than its stickiness, or whose `failback` takes it
//! home. Of a set that is split the rest follows where it is liked enough, or where one of it was sent for its own sake, so that a set
//! which moves does not turn round; and it comes to the one of it whose moves fail again and again. Where what is placed would leave one that is to move without a place,
//! it is placed around that ([`moves_first`]), if nobody who waits is worse off.
//! The same holds for guests whose host takes none any more, because it is drained or lost: what starts meanwhile is placed around the
//! only place that one of them has ([`around_leaving`]).
//! Where a required rule is broken and only others keep the guest from the hosts that are left, one of those that are not more
//! important makes way first ([`make_way`]).
//! [`admission`] and [`if_lost`] answer what the loss of hosts would come to.
//!
//! A guest that moves counts on both of its hosts. One that was stopped for that counts where it goes for what starts and for what moves,
//! as long as this keeps nobody down ([`Promised`]). A rule that names a required first guest keeps the second from being
//! placed while the first one neither runs nor gets a place.

mod choose;
mod leaving;
mod make_way;
mod moves;
mod order;
mod problem;
mod promised;
mod reason;
mod repair;
mod room;
mod rows;
mod rules;
mod sets;
mod simulate;
mod solve;
mod survive;
mod table;
mod tolerate;

use std::collections::{BTreeMap, BTreeSet};

pub use leaving::around_leaving;
pub use make_way::make_way;
pub use moves::{Looked, Move, is_held, look_for_moves, moves, moves_first, stuck};
pub use problem::{CPUS, MEMORY, Problem, Standing, Subject};
pub use promised::Promised;
pub use reason::{Fullest, Reason, Reasons, Why};
pub use repair::EXHAUSTIVE_UNITS;
pub use room::Room;
pub use sets::starts_elsewhere;
pub use simulate::{
    BOUNDS_MAX, BadQuestion, Circumstances, Lose, ProofEstimate, Question, Simulation, Start, Tried, imagine, simulate,
    unproven,
};
pub use solve::{Ask, LOOKS_MAX, Place, STARTS_PER_HOST, TURNS_WAITED, Until, place};
pub use survive::{
    COMBINATIONS_MAX, Fate, QUESTION_LOOKS_MAX, RoomMade, Survival, Verdict, WhatIf, admission, admission_within,
    if_lost,
};
pub use table::{GuestAt, HostAt, Table};
pub use tolerate::{Beyond, intolerance, may_start, waiting_for_people};

use crate::names::{GuestName, HostName};

/// What one call came to.
#[derive(Debug, Clone, Default)]
pub struct Placement {
    /// Where each guest goes.
    pub places: BTreeMap<GuestAt, Place>,
    /// The guests in the order in which they are to be placed; those that go nowhere last.
    pub order: Vec<GuestAt>,
    /// Running guests of best effort that have to give way.
    pub preempted: Vec<Preemption>,
    /// Running guests that have to follow, so that their set stays together.
    pub moves: Vec<(GuestAt, HostAt)>,
    /// The search for ways to make room was cut short: what goes nowhere may have had a place.
    pub cut: bool,
}

impl Placement {
    /// Adds what was placed after it.
    pub fn add(&mut self, then: Self) {
        self.places.extend(then.places);
        self.order.extend(then.order);
        self.preempted.extend(then.preempted);
        self.moves.extend(then.moves);
        self.cut |= then.cut;
    }

    /// The guests that have a place, at once or later.
    #[must_use]
    pub fn settled(&self) -> BTreeSet<GuestAt> {
        let has = |(at, place): (&GuestAt, &Place)| match place {
            Place::On { .. } | Place::Later { .. } => Some(*at),
            Place::Nowhere { .. } => None,
        };
        self.places.iter().filter_map(has).collect()
    }

    /// How many starts it begins on each host.
    #[must_use]
    pub fn begun(&self) -> BTreeMap<HostAt, u32> {
        let mut begun = BTreeMap::new();
        for place in self.places.values() {
            if let Place::On { host, .. } = place {
                *begun.entry(*host).or_insert(0) += 1;
            }
        }
        begun
    }

    /// Whether none of the guests that wait, and none that runs, is worse off by this one than by another placement of the same. Guests
    /// are not weighed against each other: one of them may be more important than all the others.
    #[must_use]
    pub fn is_as_good_as(&self, other: &Self) -> bool {
        self.worse_off(other).next().is_none() && self.stops_no_others(other)
    }

    /// The guests that wait and are worse off by this one than by another placement of the same.
    fn worse_off(&self, other: &Self) -> impl Iterator<Item = GuestAt> {
        let has = |of: Option<&Place>| match of {
            Some(Place::On { .. }) => 2,
            Some(Place::Later { .. }) => 1,
            Some(Place::Nowhere { .. }) | None => 0,
        };
        let is_worse = move |(guest, place): &(&GuestAt, &Place)| has(self.places.get(*guest)) < has(Some(*place));
        other.places.iter().filter(is_worse).map(|(guest, _)| *guest)
    }

    /// Whether only those give way for it that do for another placement of the same.
    fn stops_no_others(&self, other: &Self) -> bool {
        let gives_way = |of: &Self, guest: GuestAt| of.preempted.iter().any(|found| found.guest == guest);
        self.preempted.iter().all(|found| gives_way(other, found.guest))
    }

    /// The guests that have none.
    pub fn nowhere(&self) -> impl Iterator<Item = GuestAt> {
        self.places.iter().filter(|(_, place)| matches!(place, Place::Nowhere { .. })).map(|(at, _)| *at)
    }
}

/// A running guest of best effort that has to give way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preemption {
    /// Who.
    pub guest: GuestAt,
    /// Where it runs.
    pub host: HostAt,
    /// For whom.
    pub below: Vec<GuestAt>,
}

impl<'a> Problem<'a> {
    /// The name of a guest.
    #[must_use]
    pub fn guest_name(&self, guest: GuestAt) -> &'a GuestName {
        self.guests[guest].name
    }

    /// The name of a host.
    #[must_use]
    pub fn host_name(&self, host: HostAt) -> &'a HostName {
        self.hosts[host].name
    }

    /// A row for every host, made from its name.
    #[must_use]
    pub fn for_each_host<V>(&self, make: impl FnMut(&'a HostName) -> V) -> Table<HostAt, V> {
        Table::new(self.hosts.rows().iter().map(|host| host.name).map(make).collect())
    }

    /// All hosts.
    pub fn hosts(&self) -> impl Iterator<Item = HostAt> + use<'a> {
        self.hosts.keys()
    }

    /// A guest's priority.
    #[must_use]
    pub fn priority(&self, guest: GuestAt) -> u32 {
        self.guests[guest].priority
    }

    /// Whether required rules keep the guest together with one of these.
    #[must_use]
    pub fn is_kept_with(&self, guest: GuestAt, others: &BTreeSet<GuestAt>) -> bool {
        let set = self.guests[guest].set.and_then(|set| self.sets.get(set));
        set.is_some_and(|set| set.iter().any(|other| *other != guest && others.contains(other)))
    }

    /// Whether required rules keep the guest together with any other.
    #[must_use]
    pub fn has_set(&self, guest: GuestAt) -> bool {
        self.guests[guest].set.is_some()
    }

    /// What has to pass, in words.
    #[must_use]
    pub fn until(&self, until: &Until) -> String {
        let names = |guests: &[GuestAt]| {
            let names: Vec<&str> = guests.iter().map(|guest| self.guest_name(*guest).as_str()).collect();
            names.join(", ")
        };
        match until {
            Until::Busy { starting } => format!("is busy starting {starting} other guests"),
            Until::Gone { guests } => format!("has room when {} has given way", names(guests)),
            Until::SetMoved { guests } => {
                format!("has room for its whole set: {} is to move there first", names(guests))
            }
        }
    }
}

#[cfg(test)]
mod balance;
#[cfg(test)]
mod moving;
#[cfg(test)]
mod property;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod weights;
