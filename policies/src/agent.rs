//! The agent's brain: which orders it carries out, which it refuses, and what it must write down first (R3, R7, R9, R12).
//!
//! Pure: a reply or a result goes in, actions come out, in order. An action that follows a [`Action::Persist`] may be
//! carried out only when that has reached the disk.

mod disk;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

pub use self::disk::Disk;
use crate::{
    go_ahead::{GoAhead, withdrawn},
    hostfile::Timing,
    names::{Epoch, GuestName, Incarnation, OrderId},
    order::{Order, OrderKind, OrderOutcome},
    power_device::SETTLE,
    sync::{AgedReading, Authority, OrderResult, SyncReply, View},
    time::{Moment, Span},
};

/// Results kept for the coordinator; it has at most a few orders per guest open at once.
const RESULTS_MAX: usize = 4_096;

/// How long an act may take for which the lease was found to be valid: QEMU is run, or told to go on, in a moment.
const ACT: Duration = Duration::from_millis(100);

/// What the shell is to do, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Write this to disk and sync it, before anything that follows.
    Persist(Disk),
    /// Tell the guard that the lease lasts until then.
    Grant(Moment),
    /// Carry an order out and bring the result back.
    Carry(Box<Order>),
    /// Stop a guest whose assignment has been replaced, if it runs under this epoch or an older one.
    StopSuperseded {
        /// The guest.
        guest: GuestName,
        /// Up to which epoch.
        epoch: Epoch,
    },
    /// Give the prober a new view.
    Look(Box<View>),
    /// Sync without waiting for the next turn.
    SyncNow,
}

/// Why a reply was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stale {
    /// It answers another request.
    #[error("the reply answers request {got}, not {sent}")]
    Nonce {
        /// The reply's nonce.
        got: u64,
        /// The request's.
        sent: u64,
    },
    /// It comes from an older authority than one seen before (R3).
    #[error("the reply's authority {got:?} is older than {seen:?}; was an old store restored?")]
    Authority {
        /// The reply's authority.
        got: Authority,
        /// The newest one seen.
        seen: Authority,
    },
}

/// The agent of one boot of one host.
#[derive(Debug)]
pub struct Agent {
    incarnation: Incarnation,
    timing: Timing,
    disk: Disk,
    lease: Option<Moment>,
    carried: BTreeSet<OrderId>,
    results: BTreeMap<OrderId, (OrderOutcome, Option<AgedReading>)>,
    view: u64,
    /// Orders that are not wanted any more, by the newest reply: fences (R20), sends that were given up, and whatever is in
    /// `outranked`.
    withdrawn: BTreeSet<OrderId>,
    /// Orders that were being carried out when a new generation was learned of: nobody waits for them any more (R25).
    outranked: BTreeSet<OrderId>,
    /// Orders to send a guest that are being carried out. One that the coordinator lists no more was given up, and ends at once: the
    /// guest runs on here, and must not be handed over any more (R22).
    sends: BTreeSet<OrderId>,
    /// When the first reply's request was sent: what an earlier process of this boot has begun, it began before.
    began: Option<Moment>,
    /// Orders that an earlier process of this boot has begun to switch a host off for: what it has sent to the device may
    /// still arrive, whatever comes of this process's own try.
    shots_before: BTreeMap<OrderId, Span>,
}

impl Agent {
    /// An agent with what it found on disk, and the lease that the guard holds for it.
    #[must_use]
    pub fn new(incarnation: Incarnation, timing: Timing, disk: Disk, lease: Option<Moment>) -> Self {
        let (carried, results) = (BTreeSet::new(), BTreeMap::new());
        let (withdrawn, outranked, sends) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let shots_before = disk.shots.clone();
        Self {
            incarnation,
            timing,
            disk,
            lease,
            carried,
            results,
            view: 0,
            withdrawn,
            outranked,
            sends,
            began: None,
            shots_before,
        }
    }

    /// Orders that are not wanted any more: no further `off` is sent for them (R20), and no guest is handed over (R22, R25).
    #[must_use]
    pub fn withdrawn(&self) -> &BTreeSet<OrderId> {
        &self.withdrawn
    }

    /// What it keeps on disk.
    #[must_use]
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// The index of the newest view that it has.
    #[must_use]
    pub fn view(&self) -> u64 {
        self.view
    }

    /// When the lease runs out.
    #[must_use]
    pub fn lease(&self) -> Option<Moment> {
        self.lease
    }

    /// Whether the lease is valid with its [`margin`].
    #[must_use]
    pub fn may_act(&self, now: Moment) -> bool {
        let margin = margin(self.timing.lease.0);
        self.lease.is_some_and(|deadline| now.plus(margin) < deadline)
    }

    /// Results to be sent, again and again until the coordinator has committed them.
    #[must_use]
    pub fn results(&self, now: Moment, reading_at: impl Fn(OrderId) -> Option<Moment>) -> Vec<OrderResult> {
        let aged = |id: OrderId, reading: &AgedReading| {
            let asked_ago_ms = reading_at(id).map_or(reading.asked_ago_ms, |at| crate::time::millis(now.since(at)));
            AgedReading { asked_ago_ms, ..reading.clone() }
        };
        let told = self.results.iter().filter(|(id, (outcome, _))| !self.may_be_late(**id, outcome, now));
        let results = told.map(|(id, (outcome, reading))| OrderResult {
            order: *id,
            outcome: outcome.clone(),
            reading: reading.as_ref().map(|reading| aged(*id, reading)),
        });
        results.collect()
    }

    /// Whether a failure is not told yet, because an earlier process may have sent the device what it does late (R20).
    fn may_be_late(&self, order: OrderId, outcome: &OrderOutcome, now: Moment) -> bool {
        let failed = matches!(outcome, OrderOutcome::Failed { .. });
        let Some(takes) = self.shots_before.get(&order).filter(|_| failed) else { return false };
        self.began.is_none_or(|began| now.since(began) < takes.0 + SETTLE)
    }

    /// A reply has come to the request that was sent at `sent` with `nonce`.
    ///
    /// # Errors
    /// [`Stale`] when it must not be used; nothing has changed then.
    pub fn on_reply(&mut self, reply: SyncReply, nonce: u64, sent: Moment, now: Moment) -> Result<Vec<Action>, Stale> {
        if reply.nonce != nonce {
            return Err(Stale::Nonce { got: reply.nonce, sent: nonce });
        }
        let seen = self.disk.authority;
        if is_older(reply.authority, seen) {
            return Err(Stale::Authority { got: reply.authority, seen });
        }
        let mut actions = Vec::new();
        let knew_floors = self.disk.floors_known;
        self.follow(reply.authority, reply.floors, &mut actions);
        // R12: the request that this answers was made without floors, so whoever granted it a lease was mistaken.
        if let Some(lease_ms) = reply.lease_ms.filter(|_| knew_floors) {
            self.extend_lease(sent.plus(Duration::from_millis(lease_ms)), &mut actions);
        }
        self.began.get_or_insert(sent);
        self.withdrawn = withdrawn(&reply.go_aheads);
        self.withdrawn.extend(&self.outranked);
        let open: BTreeSet<OrderId> = reply.orders.iter().map(|order| order.id).collect();
        self.withdrawn.extend(self.sends.difference(&open));
        self.forget(&reply.orders);
        // R10: what has been given up is never started again, also by an order that was taken before.
        if self.disk.raise_floors(reply.superseded.iter().map(|(guest, epoch)| (guest, epoch))) {
            actions.push(Action::Persist(self.disk.clone()));
        }
        for (guest, epoch) in reply.superseded {
            actions.push(Action::StopSuperseded { guest, epoch });
        }
        for order in reply.orders {
            match reply.go_aheads.get(&order.id).copied() {
                Some(GoAhead::Given) | None => self.consider(order, now, &mut actions),
                // It stays listed, and is considered again at the next sync.
                Some(GoAhead::Waits) => {}
                Some(GoAhead::Withdrawn) => self.withdraw(&order, now, &mut actions),
            }
        }
        if let Some(view) = reply.view {
            actions.extend(self.on_view(view));
        }
        Ok(actions)
    }

    /// Takes over the authority of a reply, and the floors that come to whoever has none. A new term, and floors, are on disk before
    /// anything that follows.
    fn follow(&mut self, authority: Authority, floors: Option<BTreeMap<GuestName, Epoch>>, actions: &mut Vec<Action>) {
        let seen = std::mem::replace(&mut self.disk.authority, authority);
        let new_term = authority.term != seen.term || authority.generation != seen.generation;
        // The first one of all has nothing before it.
        if seen.generation > 0 && authority.generation > seen.generation {
            self.outranked.extend(&self.carried);
            // Who ordered it is gone; a number that comes again is another order's.
            self.results.clear();
            // An index of the one says nothing of the other.
            self.view = 0;
        }
        if let Some(floors) = floors.filter(|_| !self.disk.floors_known) {
            // A release that came before them may have set higher ones.
            self.disk.raise_floors(&floors);
            self.disk.floors_known = true;
            actions.extend([Action::Persist(self.disk.clone()), Action::SyncNow]);
        } else if new_term {
            actions.push(Action::Persist(self.disk.clone()));
        }
    }

    fn extend_lease(&mut self, deadline: Moment, actions: &mut Vec<Action>) {
        if self.lease.is_none_or(|lease| lease < deadline) {
            self.lease = Some(deadline);
            actions.push(Action::Grant(deadline));
        }
    }

    /// A view was made of what the coordinator has told. Replies may overtake each other, and news take their time to be read: one that
    /// is older than what is known, or of a generation that has ended, is not looked at. What is armed must not follow what was
    /// declared before.
    pub fn on_view(&mut self, view: View) -> Option<Action> {
        let generation = self.disk.authority.generation;
        let is_of_another = view.mark.is_some_and(|mark| mark.generation != generation);
        if is_of_another || view.index < self.view {
            return None;
        }
        self.view = view.index;
        Some(Action::Look(Box::new(view)))
    }

    /// An order has been carried out, or could not be.
    pub fn on_done(&mut self, order: OrderId, outcome: OrderOutcome, reading: Option<AgedReading>) -> Vec<Action> {
        self.carried.remove(&order);
        self.sends.remove(&order);
        if self.outranked.remove(&order) {
            return vec![Action::SyncNow];
        }
        if self.results.len() < RESULTS_MAX {
            self.results.insert(order, (outcome, reading));
        }
        vec![Action::SyncNow]
    }

    /// Whether it keeps the epochs of more than so many guests, and nothing is being carried out that goes by them.
    #[must_use]
    pub fn may_forget(&self, guests: usize) -> bool {
        self.carried.is_empty() && self.disk.floors.len().max(self.disk.highest.len()) > guests
    }

    /// Forgets the epochs of guests that are declared no more, while nothing is being carried out. `kept` are the
    /// guests of which something is here, and those that the newest reply has orders for. What is left is written with whatever is
    /// written next.
    pub fn forget_undeclared(&mut self, view: &View, kept: &BTreeSet<GuestName>) {
        if self.carried.is_empty() {
            self.disk.forget_undeclared(view, kept);
        }
    }

    /// The memory could not be written: what was to follow has not been done, and is considered again (R7).
    pub fn unwritten(&mut self, undone: &[OrderId]) {
        for order in undone {
            self.carried.remove(order);
            self.sends.remove(order);
            self.outranked.remove(order);
            self.disk.begun.remove(order);
            self.disk.shots.remove(order);
        }
    }

    /// Orders that the coordinator does not list any more have been committed or superseded.
    fn forget(&mut self, open: &[Order]) {
        let open: BTreeSet<OrderId> = open.iter().map(|order| order.id).collect();
        self.results.retain(|id, _| open.contains(id));
        self.disk.begun.retain(|id| open.contains(id));
        self.disk.shots.retain(|id, _| open.contains(id));
        self.shots_before.retain(|id, _| open.contains(id));
    }

    /// Ends an order that is not wanted any more and has not begun. What has begun ends by itself, without a further
    /// `off`; and what an earlier process of this boot may have begun is given the time to end (R20).
    fn withdraw(&mut self, order: &Order, now: Moment, actions: &mut Vec<Action>) {
        let settled = order.deadline.0 + SETTLE;
        let over = self.began.is_some_and(|began| now.since(began) >= settled);
        if !self.knows(order.id) && over && order.incarnation == self.incarnation {
            let detail = "the coordinator has withdrawn it, and it was not begun".to_owned();
            actions.extend(self.on_done(order.id, OrderOutcome::done(detail), None));
        }
    }

    /// Whether this process carries the order out, or has done so.
    fn knows(&self, order: OrderId) -> bool {
        self.carried.contains(&order) || self.results.contains_key(&order)
    }

    fn consider(&mut self, order: Order, now: Moment, actions: &mut Vec<Action>) {
        if self.knows(order.id) || order.incarnation != self.incarnation {
            return;
        }
        if self.disk.begun.contains(&order.id) {
            let detail = "it was interrupted by a restart of the supervisor and is not done twice".to_owned();
            actions.extend(self.on_done(order.id, OrderOutcome::Failed { detail }, None));
            return;
        }
        // Without a valid lease it stays listed, and is considered again at the next sync.
        if order.kind.needs_lease() && !self.may_act(now) {
            return;
        }
        if let Err(detail) = self.disk.write_down(&order) {
            actions.extend(self.on_done(order.id, OrderOutcome::Failed { detail }, None));
            return;
        }
        self.carried.insert(order.id);
        if matches!(order.kind, OrderKind::Send { .. }) {
            self.sends.insert(order.id);
        }
        actions.extend([Action::Persist(self.disk.clone()), Action::Carry(Box::new(order))]);
    }
}

/// How long before the end of a lease that lasts so long nothing is begun under it any more: 5 % for drift (R1), and a little for the
/// act itself.
#[must_use]
pub fn margin(lease: Duration) -> Duration {
    lease / 20 + ACT
}

/// Whether an authority is no successor of one that was seen (R3). Also the index of a newer term must not go back: what is committed
/// stays so.
fn is_older(got: Authority, seen: Authority) -> bool {
    got.generation < seen.generation
        || (got.generation == seen.generation && (got.term < seen.term || got.index < seen.index))
}

#[cfg(test)]
mod tests;
