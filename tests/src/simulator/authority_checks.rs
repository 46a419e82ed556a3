//! What must be so of the coordinators' word: it never goes back, no lease outlasts what a majority confirmed, whoever reaches the
//! coordinator has a lease, and the lead is handed only to who is fit for it.

use holdfast_policies::{
    state::{Host, Life, Mode},
    sync::Authority,
    time::millis,
};

use super::{Ms, host::boot_of, oddities::FASTEST, views::KNOWN_WITHIN, world::World};

/// A supervisor hands the lead over once in a minute at most, as its clock counts: the fastest is done with that so early.
const HANDED_OVER_AGAIN: Ms = 60_000 * 1_000 / FASTEST - 1;
/// A well host that reaches the coordinator has a lease after this.
const LEASE_PATIENCE: Ms = 12_000;

impl World {
    /// R3: an agent's word never goes back.
    pub(super) fn check_reply(&mut self, host: usize, _by: usize, _began: Ms, seen: Authority, got: Authority) {
        let newest = &mut self.authorities[host];
        let before = *newest;
        *newest = Authority {
            generation: before.generation.max(got.generation),
            term: before.term.max(got.term),
            index: before.index.max(got.index),
        };
        let back = got.term < seen.term || got.index < seen.index;
        if got.generation < seen.generation || (got.generation == seen.generation && back) {
            let name = self.hosts[host].name.clone();
            self.violate("R3", format!("{name} accepts {got:?} after {seen:?}"));
        }
    }

    /// R2, R10, R12, R20: no lease outlasts what a majority confirmed.
    pub(super) fn check_lease(&mut self, host: usize, sent: Ms, lease_ms: u64) {
        // The agent counts on its own clock, which may be slow.
        let until = sent + self.hosts[host].lasts(lease_ms);
        let lease = millis(self.timing.lease.0);
        if self.hosts[host].floors_lost {
            let name = self.hosts[host].name.clone();
            self.violate("R12", format!("{name} has lost its floors and takes a lease"));
        }
        if let Some(since) = self.truth.shut_since[host]
            && until > since + lease * 21 / 20 + 5
        {
            let name = self.hosts[host].name.clone();
            let ago = self.now - since;
            self.violate("R2", format!("{name} takes a lease {ago} ms after a fence of it was committed (R20)"));
        }
        self.hosts[host].lease_until = self.hosts[host].lease_until.max(until);
    }

    /// R29: who is asked to lead means to stay, and has nothing against it; and nobody asks again within a minute.
    pub(super) fn check_handed_over(&mut self, by: usize, to: usize) {
        let before = self.voters[by].handed_over.replace(self.now);
        if let Some(ago) = before.map(|before| self.now - before).filter(|ago| *ago < HANDED_OVER_AGAIN) {
            let name = self.hosts[by].name.clone();
            self.violate("R29", format!("{name} hands the lead over again {ago} ms after the last time"));
        }
        let name = self.hosts[to].name.clone();
        let stays = |mode| matches!(mode, Mode::Active | Mode::Draining);
        let fit = |host: &Host| host.life == Life::Up && stays(host.mode);
        if !self.truth.state.hosts.get(&name).is_some_and(fit) {
            self.violate("R29", format!("the lead is handed to {name}, which is gone, going, or not to be relied on"));
        }
    }

    /// R4, R6: a host that reaches a majority of the voters, and so the coordinator, has a lease, and knows what is committed.
    pub(super) fn check_reach(&mut self) {
        let now = self.now;
        let leader = self.coordinator();
        if leader.is_none() {
            self.led_since = now;
        }
        for host in 0..self.hosts.len() {
            if !leader.is_some_and(|leader| self.reaches(host, leader)) {
                self.reaching[host] = now;
                continue;
            }
            let reaches_for = now - self.reaching[host].max(self.led_since);
            if reaches_for >= LEASE_PATIENCE && self.hosts[host].lease_until < now {
                let name = self.hosts[host].name.clone();
                self.violate("R6", format!("{name} reaches the coordinator through a voter, and has no lease"));
            }
            if reaches_for >= KNOWN_WITHIN {
                self.check_told_views(host);
            }
        }
        self.check_lies();
    }

    /// Whether a host is well, and reaches a majority of the voters over links without a fault, each of which reaches
    /// the coordinator so.
    fn reaches(&self, host: usize, leader: usize) -> bool {
        let now = self.now;
        let both = |one: usize, other: usize| self.network.good(one, other, now) && self.network.good(other, one, now);
        let open = |voter: &usize| self.hosts[*voter].serves(now) && both(host, *voter) && both(leader, *voter);
        let reached = (0..self.voters.len()).filter(open).count();
        let up = self.truth.state.hosts.get(&self.hosts[host].name).is_some_and(|known| {
            let boot = boot_of(&known.facts.incarnation);
            known.life == Life::Up && !known.is_contested() && boot == self.hosts[host].boot_number()
        });
        // A lease is nothing before the guard has it.
        let guarded = !self.guarded || self.hosts[host].guard.down_until <= now;
        // After a recovery a revoked host may be known all the same, and one that has seen a later generation obeys nobody.
        let obeys = self.admits(leader, host) && !self.is_ahead(host);
        let serves = self.hosts[host].serves(now) && !self.disk_is_stuck(host);
        serves && guarded && up && obeys && self.tells_newest_arming(host) && reached * 2 > self.voters.len()
    }

    /// Whether what a host tells that it has seen, or its view, is of after what is committed of its arming. What it has seen waits for
    /// its disk: before, what it says of its guard may have been sent before that was committed, or be of a generation that has ended.
    fn tells_newest_arming(&self, host: usize) -> bool {
        let state = &self.truth.state;
        let record = state.hosts.get(&self.hosts[host].name).and_then(|known| known.lease.record.as_ref());
        let since = record.map_or(0, |record| record.since);
        let supervisor = self.hosts[host].supervisor.as_ref();
        let view = supervisor.map_or(0, |known| known.agent.view().min(known.guard_knows));
        self.told(host).is_some_and(|(seen, _)| state.is_known_by(seen) && seen.index.max(view) >= since)
    }
}
