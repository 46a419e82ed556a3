//! Syncs at a simulated voter: whoever does not lead forwards them; the leader takes them in, and answers from confirmed rounds.

use std::time::Duration;

use holdfast_policies::{
    change::Change,
    evidence::{Heard, Sight},
    lease::to_record,
    names::{GuestName, HostName},
    proof::PowerReading,
    reply::reply,
    state::{ClusterState, Life},
    sync::{SightReport, SyncReply, SyncRequest},
    time::millis,
};

use super::{
    breaks::{Break, accuse, read_afresh},
    coordinator::FRESH,
    network::Transit,
    queue::Event,
    world::World,
};

impl World {
    pub(super) fn on_sync(
        &mut self,
        voter: usize,
        via: Option<usize>,
        from: usize,
        life: u32,
        request: Box<SyncRequest>,
    ) {
        if !self.admits(voter, from) {
            return;
        }
        if !self.voters[voter].leads() {
            self.forward(voter, via, from, life, request);
            return;
        }
        self.take_sync(voter, &request);
        let fresh = self.voters[voter]
            .confirmed
            .is_some_and(|(began, term)| term == self.voters[voter].term && self.now.saturating_sub(began) < FRESH);
        if fresh || self.broken == Some(Break::R2) {
            self.answer(voter, via, from, life, &request);
        } else {
            self.voters[voter].brain.parked.push((self.now, from, via, life, request));
        }
    }

    /// R6: any voter forwards, once.
    fn forward(&mut self, voter: usize, via: Option<usize>, from: usize, life: u32, request: Box<SyncRequest>) {
        let Some(leader) = self.voters[voter].leader.filter(|leader| *leader != voter) else { return };
        if via.is_some() || self.broken == Some(Break::R6) || self.stood_still(voter) {
            return;
        }
        match self.network.send(voter, leader, self.now, &mut self.random) {
            Transit::Lost => {}
            Transit::After(wait) | Transit::Twice(wait, _) => {
                let event = Event::Sync { voter: leader, via: Some(voter), from, life, request };
                self.queue.push(self.now + wait, event);
            }
        }
    }

    /// Whether a voter stood still until a moment ago: what it would hand on may be as old. Breaks are looked for at seeds where they
    /// have shown, and chance would go another way there.
    pub(super) fn stood_still(&self, voter: usize) -> bool {
        let host = &self.hosts[voter];
        let until = host.supervisor.as_ref().map_or(0, |supervisor| supervisor.frozen_until).max(host.frozen_until);
        self.broken.is_none() && until > 0 && self.now < until + millis(self.timing.sync_every.0) * 2
    }

    /// A round has been confirmed: whoever waited for authority is answered.
    pub(super) fn authority(&mut self, voter: usize) {
        let parked = std::mem::take(&mut self.voters[voter].brain.parked);
        for (at, from, via, life, request) in parked {
            if self.now - at < FRESH {
                self.answer(voter, via, from, life, &request);
            }
        }
    }

    fn answer(&mut self, voter: usize, via: Option<usize>, from: usize, life: u32, request: &SyncRequest) {
        let reply = self.reply(voter, request);
        let began = self.voters[voter].confirmed.map_or(self.now, |(began, _)| began);
        let hops = [(voter, via.unwrap_or(voter)), (via.unwrap_or(voter), from)];
        let mut wait = 0;
        for (here, there) in hops {
            match self.network.send(here, there, self.now, &mut self.random) {
                Transit::Lost => return,
                Transit::After(time) | Transit::Twice(time, _) => wait += time,
            }
        }
        let reply = Box::new(reply);
        self.queue.push(self.now + wait, Event::Reply { host: from, life, by: voter, began, reply });
    }

    fn take_sync(&mut self, voter: usize, request: &SyncRequest) {
        let confirmed = self.has_authority(voter);
        let state = &self.voters[voter].state;
        let seen = request.seen;
        if confirmed && (seen.generation, seen.index) > (state.generation, state.applied) {
            self.voters[voter].brain.halted = true;
        }
        let state = &self.voters[voter].state;
        let joined = state.hosts.get(&request.host).is_some_and(|known| known.facts == request.facts);
        let may = state.may_join(&request.host, &request.facts.incarnation, request.seen);
        if !joined {
            self.refresh(voter);
        }
        let clock = self.hosts[voter].clock(self.now);
        let (state, evidence) = (&self.voters[voter].state, &self.voters[voter].brain.evidence);
        let known = state.hosts.get(&request.host);
        let follows = known.is_none_or(|known| evidence.may_follow(&request.host, known, &request.facts, clock))
            || self.broken == Some(Break::R11Copy);
        if follows && !joined && confirmed && may {
            let (host, facts) = (request.host.clone(), request.facts.clone());
            let change = Change::HostJoined { follows: state.follows(&host), host, facts };
            self.result(voter, change);
        }
        let state = &self.voters[voter].state;
        let machine = state.hosts.get(&request.host).map(|known| &known.facts.machine_id);
        let same = machine == Some(&request.facts.machine_id);
        if !state.speaks_for(&request.host, &request.facts) && same && may && self.broken != Some(Break::R16) {
            let now = self.hosts[voter].clock(self.now);
            let evidence = &mut self.voters[voter].brain.evidence;
            let known = evidence.hosts.entry(request.host.clone()).or_default();
            known.hear_other(&request.facts.incarnation, now, now);
        }
        let state = &self.voters[voter].state;
        if !state.speaks_for(&request.host, &request.facts) || !self.is_newest(voter, request) {
            return;
        }
        self.gather(voter, request);
        let armed = to_record(&self.voters[voter].state, request, self.timing.lease.0);
        if let Some(change) = armed.filter(|_| confirmed) {
            self.result(voter, change);
        }
        for result in &request.results {
            let own = request.order_given(&self.voters[voter].state, result.order).is_some();
            if own && confirmed {
                let change = Change::OrderEnded { order: result.order, outcome: result.outcome.clone() };
                self.result(voter, change);
            }
        }
    }

    fn is_newest(&mut self, voter: usize, request: &SyncRequest) -> bool {
        let nonces = &mut self.voters[voter].brain.nonces;
        match nonces.get_mut(&request.host) {
            Some((boot, nonce)) if *boot == request.facts.incarnation => {
                let newer = *nonce < request.nonce;
                *nonce = (*nonce).max(request.nonce);
                newer
            }
            _ => {
                nonces.insert(request.host.clone(), (request.facts.incarnation.clone(), request.nonce));
                true
            }
        }
    }

    fn gather(&mut self, voter: usize, request: &SyncRequest) {
        let clock = self.hosts[voter].clock(self.now);
        let hidden = self.broken == Some(Break::R8);
        let unknown_fails = self.broken == Some(Break::S5);
        let known = &mut self.voters[voter];
        let (brain, state) = (&mut known.brain, &known.state);
        let host = brain.evidence.hosts.entry(request.host.clone()).or_default();
        host.sync = Some(Heard { at: clock, incarnation: request.facts.incarnation.clone() });
        let unchanged = host.reports.len() == request.reports.len()
            && request.reports.iter().all(|report| host.reports.get(&report.guest) == Some(report));
        if !unchanged {
            // R8 broken: a host's word on guests that the cluster never placed is taken for an empty one.
            let placed = |guest: &GuestName| {
                state
                    .guests
                    .get(guest)
                    .is_some_and(|known| !matches!(known.phase, holdfast_policies::state::Phase::Unplaced))
            };
            let reports = request.reports.iter().filter(|report| !hidden || placed(&report.guest));
            host.report(reports.map(|report| (report.guest.clone(), report.clone())).collect(), clock);
            brain.calm = false;
        }
        host.level = request.level;
        host.unwell.clone_from(&request.unwell);
        brain.calm &= host.seen.index >= request.seen.index || !self.guarded;
        (host.seen, host.armed, host.has_watchdog) = (request.seen, request.armed.clone(), request.has_watchdog);
        host.timing = request.timing;
        let taken = if brain.evidence.may_have_waited(clock) { &[] } else { &request.sights[..] };
        // What is declared here may be something else than what it was told.
        let is_declared = |report: &&SightReport| {
            let policy = state.policies.policy_of(&report.guest);
            policy.is_some_and(|(_, policy)| policy.services.contains_key(&report.service))
        };
        for report in taken.iter().filter(is_declared) {
            let ago = |ms: u64| clock.minus(Duration::from_millis(ms));
            let services = match brain.evidence.services.get_mut(&report.guest) {
                Some(services) => services,
                None => brain.evidence.services.entry(report.guest.clone()).or_default(),
            };
            let vantages = match services.get_mut(&report.service) {
                Some(vantages) => vantages,
                None => services.entry(report.service.clone()).or_default(),
            };
            let (at, passed) = (ago(report.age_ms), report.passed_ago_ms.map(ago));
            let said = if unknown_fails { accuse(report.state) } else { report.state };
            match vantages.get_mut(&report.vantage) {
                Some(sight) => {
                    let same = sight.state == said && sight.epoch == report.epoch;
                    brain.calm &= same;
                    if !same {
                        sight.since = at;
                    }
                    (sight.epoch, sight.state, sight.at, sight.passed) = (report.epoch, said, at, passed);
                }
                None => {
                    let (epoch, state, detail) = (report.epoch, said, String::new());
                    let sight = Sight { epoch, state, at, since: at, passed, warns: report.warns, detail };
                    vantages.insert(report.vantage.clone(), sight);
                }
            }
        }
        for result in &request.results {
            if let Some(reading) = &result.reading
                && let Some(taken) = request.reading_asked_for(&self.voters[voter].state, result.order, reading, clock)
            {
                self.take_reading(voter, &reading.host, taken);
            }
        }
    }

    pub(super) fn take_reading(&mut self, voter: usize, host: &HostName, mut reading: PowerReading) {
        if !self.is_heard_out(voter, host, &reading) {
            return;
        }
        if self.broken == Some(Break::R9) {
            let clock = self.hosts[voter].clock(self.now);
            let known = &mut self.voters[voter];
            read_afresh(&known.state, &mut known.brain.evidence, host, clock, &mut reading);
        }
        self.voters[voter].brain.evidence.hosts.entry(host.clone()).or_default().read(reading);
        self.voters[voter].brain.calm = false;
    }

    fn reply(&mut self, voter: usize, request: &SyncRequest) -> SyncReply {
        let older = self.as_it_is_read(voter, request);
        let request = older.as_ref().unwrap_or(request);
        let known = &self.voters[voter];
        let state = &known.state;
        let began = match known.confirmed {
            Some((began, _)) if self.broken != Some(Break::R2) => began,
            _ => self.now,
        };
        let age = self.hosts[voter].clock(self.now).since(self.hosts[voter].clock(began));
        let left = self.timing.lease.0.saturating_sub(age);
        let mut reply = reply(state, request, known.term, left, &known.brain.go_aheads);
        if self.broken == Some(Break::R20Late) {
            reply.go_aheads.clear();
        }
        if self.broken == Some(Break::R20) && is_only_being_fenced(state, request) {
            (reply.lease_ms, reply.why_no_lease) = (Some(millis(left)), None);
        }
        if self.broken == Some(Break::R10Lease) && is_gone(state, request) {
            (reply.lease_ms, reply.why_no_lease) = (Some(millis(left)), None);
        }
        reply.orders.retain(|order| self.is_told(voter, order.issued));
        if reply.lease_ms.is_some() && self.broken != Some(Break::R9Grant) {
            let granted = Heard { at: self.hosts[voter].clock(began), incarnation: request.facts.incarnation.clone() };
            let seen = self.voters[voter].brain.evidence.hosts.entry(request.host.clone()).or_default();
            let older = seen.granted.as_ref().filter(|older| older.incarnation == granted.incarnation);
            if older.is_none_or(|older| older.at < granted.at) {
                seen.granted = Some(granted);
            }
        }
        self.tell_news(voter, request, &mut reply);
        reply
    }

    /// R4 broken: a leader tells agents only of orders that it committed itself.
    fn is_told(&self, voter: usize, issued: u64) -> bool {
        let known = &self.voters[voter];
        let index = usize::try_from(issued.saturating_sub(self.base)).unwrap_or(0).saturating_sub(1);
        self.broken != Some(Break::R4) || known.log.get(index).is_some_and(|entry| entry.term == known.term)
    }
}

/// Whether this very boot is proven gone.
fn is_gone(state: &ClusterState, request: &SyncRequest) -> bool {
    let gone = state.hosts.get(&request.host).is_some_and(|host| matches!(host.life, Life::Gone { .. }));
    gone && state.is_current(&request.host, &request.facts.incarnation)
}

/// Whether nothing but an open fence speaks against a lease.
fn is_only_being_fenced(state: &ClusterState, request: &SyncRequest) -> bool {
    let fenced = state.hosts.get(&request.host).is_some_and(|host| matches!(host.life, Life::Fencing(_)));
    fenced && request.floors_known && state.is_current(&request.host, &request.facts.incarnation)
}
