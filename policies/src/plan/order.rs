//! The order in which guests start: by priority, and after those which rules put first.

use std::collections::BTreeSet;

use super::{
    problem::Problem,
    table::{GuestAt, Table},
};

impl Problem<'_> {
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
        let key = |guest: &GuestAt| (std::cmp::Reverse(urgency[*guest]), *guest);
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
