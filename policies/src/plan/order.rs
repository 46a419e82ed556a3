//! The order in which guests start, and in which they come to their turn: by priority, and after those which rules put first.

use std::{cmp::Reverse, collections::BTreeSet};

use super::{
    problem::Problem,
    table::{GuestAt, Table},
};

/// When a guest comes to its turn where one is decided about after another: those of the highest priority first, and after how many
/// others in a row.
pub(super) type Turn = (Reverse<u32>, usize);

impl Problem<'_> {
    /// When each guest comes to its turn. Of guests that have to leave a host one after another, what others wait for so goes first, as it
    /// would start: whatever it is called, and as if it had the highest of their priorities.
    pub(super) fn turns(&self) -> Table<GuestAt, Turn> {
        let orders: Vec<(GuestAt, GuestAt)> =
            self.orders.iter().map(|order| (order.first, order.then)).filter(|(first, then)| first != then).collect();
        let urgency = self.urgency(&orders);
        let mut after: Table<GuestAt, usize> = Table::filled(self.guests.len(), 0);
        // No row is longer than there are rules, so that rules which go round in a circle end as well.
        for _ in 0..orders.len() {
            let mut changed = false;
            for (first, then) in &orders {
                let place = after[*first].saturating_add(1).min(orders.len());
                changed |= after[*then] < place;
                after[*then] = after[*then].max(place);
            }
            if !changed {
                break;
            }
        }
        Table::new(self.guests.keys().map(|guest| (Reverse(urgency[guest]), after[guest])).collect())
    }

    /// Sorts guests into the order of their starts. A guest that others wait for starts as if it had the highest of
    /// their priorities. Rules that go round in a circle are broken at the guest of the highest priority.
    #[must_use]
    pub fn start_order(&self, guests: &[GuestAt]) -> Vec<GuestAt> {
        let asked: BTreeSet<GuestAt> = guests.iter().copied().collect();
        let orders: Vec<(GuestAt, GuestAt)> = self
            .orders
            .iter()
            .map(|order| (order.first, order.then))
            .filter(|(first, then)| first != then && asked.contains(first) && asked.contains(then))
            .collect();
        let urgency = self.urgency(&orders);
        let key = |guest: &GuestAt| (Reverse(urgency[*guest]), *guest);
        let mut rest: Vec<GuestAt> = asked.iter().copied().collect();
        rest.sort_by_key(key);
        if orders.is_empty() {
            return rest;
        }
        let mut waits: Table<GuestAt, u32> = Table::filled(self.guests.len(), 0);
        for (_, then) in &orders {
            waits[*then] += 1;
        }
        let mut ready: BTreeSet<_> = rest.iter().filter(|guest| waits[**guest] == 0).map(key).collect();
        let mut left: BTreeSet<_> = rest.iter().map(key).collect();
        let mut sorted = Vec::new();
        while let Some(next) = ready.pop_first().or_else(|| left.first().copied()) {
            if !left.remove(&next) {
                continue;
            }
            sorted.push(next.1);
            for (_, then) in orders.iter().filter(|(first, _)| *first == next.1) {
                waits[*then] = waits[*then].saturating_sub(1);
                if waits[*then] == 0 {
                    ready.insert(key(then));
                }
            }
        }
        sorted
    }

    /// Priorities, each raised to the highest of those that wait for it, directly or through others.
    fn urgency(&self, orders: &[(GuestAt, GuestAt)]) -> Table<GuestAt, u32> {
        let mut urgency = Table::new(self.guests.rows().iter().map(|guest| guest.priority).collect());
        // Each turn carries priorities one rule further, so that so many turns reach the end of the longest chain.
        for _ in 0..orders.len() {
            let mut changed = false;
            for (first, then) in orders {
                changed |= urgency[*first] < urgency[*then];
                urgency[*first] = urgency[*first].max(urgency[*then]);
            }
            if !changed {
                break;
            }
        }
        urgency
    }
}
