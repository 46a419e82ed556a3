//! An agent that is well, and that the coordinator reaches, knows an order long before its next turn to sync: the commit sends
//! it a nudge (R5).

use holdfast_policies::{names::OrderId, order::Order, state::Life, time::millis};

use super::{Ms, breaks::Break, host::boot_of, queue::Event, world::World};

/// How old the newest round may be when an order is committed: the next one is confirmed well before syncs have to wait for
/// it.
const ROUND_AGE_MAX: Ms = 250;

/// Who is to know an order soon, and by whom: nothing is expected of another life of the agent or of another leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Untold {
    host: usize,
    life: u32,
    leader: usize,
    term: u64,
}

impl World {
    /// An entry was committed: the agents of the orders that it gives are to know them soon.
    pub(super) fn expect_told(&mut self, number: u64) {
        if !matches!(self.broken, None | Some(Break::R5)) {
            return;
        }
        let orders = self.truth.state.orders.values();
        let given: Vec<(OrderId, Untold)> =
            orders.filter_map(|order| Some((order.id, self.is_reached(order, number)?))).collect();
        let by = self.now + self.told_within();
        for (order, untold) in given {
            self.untold.insert(order, untold);
            self.queue.push(by, Event::Told { order });
        }
    }

    /// By the next turn to sync alone, half of all orders would be known only later. A nudge, and a sync with its reply that
    /// are forwarded, are five messages of two milliseconds at most.
    fn told_within(&self) -> Ms {
        millis(self.timing.sync_every.0) / 2
    }

    /// A reply has told an agent of orders.
    pub(super) fn note_told(&mut self, orders: &[OrderId]) {
        for order in orders {
            self.untold.remove(order);
        }
    }

    /// R5: an agent that was well and reached when an order was committed, and is, knows it by now. No fault is shorter than
    /// this, so that none has come and gone meanwhile.
    pub(super) fn check_told(&mut self, order: OrderId) {
        let Some(untold) = self.untold.remove(&order) else { return };
        let Some(known) = self.truth.state.orders.get(&order) else { return };
        if self.is_reached(known, known.issued) == Some(untold) {
            let (host, within) = (known.host.clone(), self.told_within());
            self.violate("R5", format!("{host} does not know of {order} {within} ms after its commit"));
        }
    }

    /// Who is to know an order of this entry soon, if nothing at all stands between: its host, all voters and all links between
    /// them are well, and the coordinator answers from rounds that have just been confirmed.
    fn is_reached(&self, order: &Order, number: u64) -> Option<Untold> {
        if order.issued != number {
            return None;
        }
        let (host, leader) = (self.host_index(&order.host)?, self.coordinator()?);
        let known = &self.voters[leader];
        let fresh = known.confirmed.is_some_and(|(began, _)| self.now.saturating_sub(began) < ROUND_AGE_MAX);
        let committed = self.truth.state.hosts.get(&order.host)?;
        let boot = self.hosts[host].boot_number();
        let is_it = [&order.incarnation, &committed.facts.incarnation].into_iter().all(|of| boot_of(of) == boot);
        // A second machine under the name is told, or not, by chance.
        let alone = self.twin.is_none_or(|twin| twin.of != host);
        let serves = self.hosts[host].serves(self.now) && !self.disk_is_stuck(host);
        let up = committed.life == Life::Up && alone && is_it && serves;
        let open = (0..self.voters.len()).all(|voter| {
            let follows = voter == leader || self.voters[voter].leader == Some(leader);
            // One that stood still a moment ago hands nothing on.
            let forwards = follows && self.hosts[voter].serves(self.now) && !self.stood_still(voter);
            forwards && self.is_open(host, voter) && self.is_open(leader, voter)
        });
        (fresh && up && open && self.base + known.applied as u64 >= number).then(|| Untold {
            host,
            life: self.hosts[host].life,
            leader,
            term: known.term,
        })
    }

    /// Whether both directions between two hosts are without a fault.
    fn is_open(&self, one: usize, other: usize) -> bool {
        self.network.good(one, other, self.now) && self.network.good(other, one, self.now)
    }
}
