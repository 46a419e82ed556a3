//! The coordinator's shell on a simulated voter: gathers evidence, has the product's `decide` decide, proposes one command
//! after the other, and answers syncs from confirmed read rounds. It mirrors `supervisor/src/coordinator`.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use holdfast_policies::{
    change::{Applied, Change, Command},
    check::check,
    decide::{Report, Wish, decide},
    evidence::{Answer, Evidence, Heard, Sight},
    go_ahead::GoAheads,
    lease::to_record,
    model::FenceLevel,
    names::{GuestName, HostName, Incarnation},
    order::OrderKind,
    proof::{Power, PowerReading, Proof},
    reply::reply,
    state::{ClusterState, Life, Mode},
    sync::{AgedReading, OrderResult, SyncReply, SyncRequest},
    time::{Moment, Now, WallTime, millis},
};

use super::{
    Ms,
    breaks::{Break, is_said_off, read_afresh},
    device::device_names,
    network::Transit,
    queue::Event,
    waits::{forget_waits, unexplained},
    world::World,
};

/// How often it decides when something is odd; and when nothing is.
const THINK: Ms = 50;
const THINK_CALM: Ms = 200;
/// Oldest round that an answer may rest on, and how long a sync waits for one.
const FRESH: Ms = 400;
/// Without a confirmed round for this long there is no authority.
const ROUND_LOST: Ms = 700;
/// How long a refused change is not proposed again.
const REFUSED_FOR: Ms = 1_000;
/// A proposal without an end after this is given up; it may still be committed.
const PROPOSAL_PATIENCE: Ms = 2_000;
/// Rest before the same question is asked again.
const ASK_AGAIN: Ms = 200;

/// A sync that waits for authority: since when, of which host, forwarded by whom, of which life, and what it says.
type Parked = (Ms, usize, Option<usize>, u32, Box<SyncRequest>);

/// What the task owns, while it leads.
#[derive(Default)]
pub struct Brain {
    /// What it has gathered.
    pub evidence: Evidence,
    nonces: BTreeMap<HostName, (Incarnation, u64)>,
    /// Results and joins to be committed.
    results: VecDeque<Change>,
    /// What has been decided and not been proposed yet.
    decided: VecDeque<Change>,
    waiting: Option<(u64, Ms, Change, bool)>,
    refused: Vec<(Change, Ms)>,
    asked: BTreeMap<Wish, Ms>,
    parked: Vec<Parked>,
    thought_at: Ms,
    /// An agent is ahead of this leader (R3).
    halted: bool,
    /// What the last round of deciding wanted, for people.
    wanted: Vec<Change>,
    /// What the last round of deciding said of hosts and guests.
    pub(super) report: Option<Report>,
    /// Which fences are still wanted.
    go_aheads: GoAheads,
    /// It doubts itself, because its link loses much.
    pub(super) doubts: bool,
    /// The last round of deciding wanted nothing and wondered about nothing.
    pub calm: bool,
}

impl World {
    /// The voter with confirmed authority, if there is one.
    #[must_use]
    pub fn coordinator(&self) -> Option<usize> {
        (0..self.voters.len())
            .filter(|voter| self.voters[*voter].leads() && self.has_authority(*voter))
            .max_by_key(|voter| self.voters[*voter].term)
    }

    pub(super) fn has_authority(&self, voter: usize) -> bool {
        let known = &self.voters[voter];
        known.confirmed.is_some_and(|(began, term)| term == known.term && self.now.saturating_sub(began) < ROUND_LOST)
    }

    pub(super) fn think(&mut self, voter: usize, life: u32, term: u64) {
        let now = self.now;
        if !self.voters[voter].leads() || self.voters[voter].term != term {
            return;
        }
        self.turn(voter);
        let again = if self.voters[voter].brain.calm { THINK_CALM } else { THINK };
        self.queue.push(now + again, Event::Think { voter, life, term });
    }

    fn turn(&mut self, voter: usize) {
        let now = self.now;
        let clock = self.hosts[voter].clock(now);
        let confirmed = self.has_authority(voter);
        let known = &mut self.voters[voter];
        if confirmed && known.brain.evidence.quorum_since.is_none() {
            known.brain.evidence.quorum_since = Some(clock);
            known.brain.evidence.authority_since = Some(clock);
            known.brain.evidence.me = Some(self.hosts[voter].name.clone());
        }
        // It never rests for longer than a tick, unless it was suspended or starved: it accuses nobody then (R29).
        let late = known.brain.thought_at != 0 && now - known.brain.thought_at > THINK_CALM + 750;
        known.brain.thought_at = now;
        if late {
            known.brain.evidence.quorum_since = known.brain.evidence.quorum_since.map(|_| clock);
            self.hosts[voter].doubted_at = Some(now);
        }
        self.doubt_oneself(voter);
        let brain = &mut self.voters[voter].brain;
        brain.parked.retain(|(at, ..)| now - at < FRESH);
        if brain.waiting.as_ref().is_some_and(|(_, since, ..)| now - since > PROPOSAL_PATIENCE) {
            brain.waiting = None;
            brain.decided.clear();
        }
        if brain.waiting.is_some() || !brain.results.is_empty() {
            self.propose_next(voter);
            return;
        }
        self.refresh(voter);
        self.lose_lies(voter);
        let reads_reports = self.reads_reports();
        let known = &mut self.voters[voter];
        let brain = &mut known.brain;
        brain.evidence.marks = std::mem::take(&mut known.marks);
        let wall = WallTime(self.skipped + now + self.hosts[voter].wall_jump);
        let mut decision = decide(&known.state, &brain.evidence, &self.timing, Now { moment: clock, wall });
        if self.broken == Some(Break::R19Unsaid) {
            forget_waits(&mut decision.report);
        }
        known.marks = std::mem::take(&mut brain.evidence.marks);
        self.decisions += 1;
        brain.calm = decision.commands.is_empty() && decision.wishes.is_empty();
        if self.broken.is_none()
            && let Some(broken) = check(&known.state, &brain.evidence, &self.timing, clock, &decision.commands).first()
        {
            let plan: String = format!("{:?}", decision.commands).chars().take(2_000).collect();
            let what = format!("the checker beside the planner refuses a plan: {broken}: {plan}");
            self.violate("plan", what);
            return;
        }
        // A leader without authority commands nothing, whatever it has decided.
        if reads_reports
            && confirmed
            && !brain.halted
            && decision.commands.is_empty()
            && let Some(what) = unexplained(&known.state, &decision.report)
        {
            self.violate("R19", what);
            return;
        }
        brain.wanted.clone_from(&decision.commands);
        brain.go_aheads = decision.go_aheads;
        let mut commands = if confirmed && !brain.halted { decision.commands } else { Vec::new() };
        if self.broken == Some(Break::R21) && confirmed && decision.report.storm_hold.is_some() {
            super::breaks::ignore_the_hold(&known.state, &decision.report, &mut commands);
        }
        let listened = self.hosts[voter].has_listened(now) || self.broken == Some(Break::R18);
        for change in commands {
            let accuses = matches!(change, Change::FenceOpened { .. } | Change::FenceAttempted { .. });
            if (!accuses || listened) && !self.is_refused(voter, &change) {
                self.voters[voter].brain.decided.push_back(change);
            }
        }
        if let Some(raise) = self.level_to_raise(voter).filter(|_| confirmed) {
            self.voters[voter].brain.calm = false;
            if !self.voters[voter].brain.halted && !self.is_refused(voter, &raise) {
                self.voters[voter].brain.decided.push_back(raise);
            }
        }
        self.propose_next(voter);
        for wish in decision.wishes {
            self.ask(voter, wish);
        }
        self.voters[voter].brain.report = Some(decision.report);
        if let Some(to) = decision.hand_over.filter(|_| confirmed).and_then(|wanted| self.host_index(&wanted.to)) {
            self.voters[voter].brain.evidence.handed_over = Some(clock);
            let next = (voter + 1) % self.voters.len();
            self.hand_over(voter, if self.broken == Some(Break::R29) { next } else { to });
        }
    }

    fn is_refused(&mut self, voter: usize, change: &Change) -> bool {
        let now = self.now;
        let refused = &mut self.voters[voter].brain.refused;
        refused.retain(|(_, at)| now - at < REFUSED_FOR);
        refused.iter().any(|(known, _)| known == change)
    }

    /// Brings the evidence up to date with what came by datagram.
    pub(super) fn refresh(&mut self, voter: usize) {
        let count = self.voters.len();
        if self.voters[voter].brain.evidence.voters.len() != count {
            let names = self.hosts.iter().take(count).map(|host| host.name.clone()).collect();
            self.voters[voter].brain.evidence.voters = names;
        }
        for of in 0..self.hosts.len() {
            if self.hosts[voter].heard[of].is_none() || self.broken == Some(Break::R16) {
                continue;
            }
            self.hear_unjoined(voter, of);
            let name = &self.hosts[of].name;
            let known = &self.voters[voter];
            if self.broken == Some(Break::R9) && is_said_off(&known.state, &known.brain.evidence, name) {
                continue;
            }
            let Some(host) = self.voters[voter].state.hosts.get(name) else { continue };
            let incarnation = &host.facts.incarnation;
            let Some(at) = self.hosts[voter].heard_at(of, super::host::boot_of(incarnation)) else { continue };
            let at = self.hosts[voter].clock(at);
            let known = &mut self.voters[voter];
            let Some(host) = known.state.hosts.get(name) else { continue };
            let incarnation = &host.facts.incarnation;
            if known
                .brain
                .evidence
                .hosts
                .get(name)
                .and_then(|seen| seen.heard.as_ref())
                .is_some_and(|seen| seen.at == at && seen.incarnation == *incarnation)
            {
                continue;
            }
            let heard = Heard { at, incarnation: incarnation.clone() };
            known.brain.evidence.hosts.entry(name.clone()).or_default().heard = Some(heard);
        }
        let known = &mut self.voters[voter];
        let state = &known.state;
        known.brain.evidence.hosts.retain(|name, _| state.hosts.contains_key(name));
    }

    /// A boot that has not joined is a sign of life of its machine (R16).
    fn hear_unjoined(&mut self, voter: usize, of: usize) {
        let now = self.hosts[voter].clock(self.now);
        let Some((at, boot)) = self.heard_unjoined(voter, of) else { return };
        let (at, incarnation) = (self.hosts[voter].clock(at), self.hosts[of].incarnation(boot));
        let name = self.hosts[of].name.clone();
        self.voters[voter].brain.evidence.hosts.entry(name).or_default().hear_other(&incarnation, at, now);
    }

    fn heard_unjoined(&self, voter: usize, of: usize) -> Option<(Ms, u32)> {
        let host = self.voters[voter].state.hosts.get(&self.hosts[of].name)?;
        self.hosts[voter].heard_unjoined(of, |boot| host.knows_boot(&self.hosts[of].incarnation(boot)))
    }

    /// Proposes the next command, when the one before has its end.
    pub(super) fn propose_next(&mut self, voter: usize) {
        let wall = WallTime(self.skipped + self.now + self.hosts[voter].wall_jump);
        let brain = &mut self.voters[voter].brain;
        if brain.waiting.is_some() {
            return;
        }
        let (change, decided) = match brain.results.pop_front() {
            Some(change) => (change, false),
            None => match brain.decided.pop_front() {
                Some(change) => (change, true),
                None => return,
            },
        };
        let command = Command { at: wall, what: change.clone() };
        let length = self.append_own(voter, Some(Box::new(command)));
        self.voters[voter].brain.waiting = Some((length as u64, self.now, change, decided));
    }

    /// The leader has applied an entry: agents are woken, and the next command may be proposed.
    pub(super) fn own_applied(&mut self, voter: usize, index: u64, applied: &Applied) {
        let now = self.now;
        for host in &applied.nudge {
            let Some(host) = self.host_index(host) else { continue };
            if self.broken != Some(Break::R5)
                && let Transit::After(wait) | Transit::Twice(wait, _) =
                    self.network.send(voter, host, now, &mut self.random)
            {
                self.queue.push(now + wait, Event::Nudge { host });
            }
        }
        let brain = &mut self.voters[voter].brain;
        let Some((waited, _, _, decided)) = &brain.waiting else { return };
        if *waited != index {
            return;
        }
        let decided = *decided;
        if let Some((_, _, change, _)) = brain.waiting.take()
            && applied.refused.is_some()
        {
            brain.refused.push((change, now));
            if decided {
                brain.decided.clear();
            }
        }
        self.propose_next(voter);
    }

    // ---- syncs ----

    pub(super) fn on_sync(
        &mut self,
        voter: usize,
        via: Option<usize>,
        from: usize,
        life: u32,
        request: Box<SyncRequest>,
    ) {
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
        if via.is_some() || self.broken == Some(Break::R6) {
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
            let change = Change::HostJoined { host, facts, follows: known.map(|known| known.joined) };
            self.result(voter, change);
        }
        let state = &self.voters[voter].state;
        if !state.is_current(&request.host, &request.facts.incarnation) && may && self.broken != Some(Break::R16) {
            let now = self.hosts[voter].clock(self.now);
            let evidence = &mut self.voters[voter].brain.evidence;
            let known = evidence.hosts.entry(request.host.clone()).or_default();
            known.hear_other(&request.facts.incarnation, now, now);
        }
        let state = &self.voters[voter].state;
        if !state.is_current(&request.host, &request.facts.incarnation) || !self.is_newest(voter, request) {
            return;
        }
        self.gather(voter, request);
        let armed = to_record(&self.voters[voter].state, request, self.timing.lease.0);
        if let Some(change) = armed.filter(|_| confirmed) {
            self.result(voter, change);
        }
        for result in &request.results {
            let known = &self.voters[voter];
            let own = known
                .state
                .orders
                .get(&result.order)
                .is_some_and(|order| order.host == request.host && order.incarnation == request.facts.incarnation);
            if own && confirmed {
                let change = Change::OrderEnded { order: result.order, outcome: result.outcome.clone() };
                self.result(voter, change);
            }
        }
    }

    fn result(&mut self, voter: usize, change: Change) {
        if self.is_refused(voter, &change) {
            return;
        }
        let brain = &mut self.voters[voter].brain;
        let waits = brain.waiting.as_ref().is_some_and(|(_, _, waited, _)| *waited == change);
        if !waits && !brain.results.contains(&change) {
            brain.results.push_back(change);
            self.propose_next(voter);
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
        for report in &request.sights {
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
            match vantages.get_mut(&report.vantage) {
                Some(sight) => {
                    let same = sight.state == report.state && sight.epoch == report.epoch;
                    brain.calm &= same;
                    if !same {
                        sight.since = at;
                    }
                    (sight.epoch, sight.state, sight.at, sight.passed) = (report.epoch, report.state, at, passed);
                }
                None => {
                    let (epoch, state, detail) = (report.epoch, report.state, String::new());
                    let sight = Sight { epoch, state, at, since: at, passed, warns: report.warns, detail };
                    vantages.insert(report.vantage.clone(), sight);
                }
            }
        }
        for result in &request.results {
            if let Some(reading) = &result.reading
                && let Some(declared) = self.asked_about(voter, request, result, reading)
            {
                let AgedReading { host, incarnation, asked_ago_ms, power, devices, level } = reading.clone();
                let asked = clock.minus(Duration::from_millis(asked_ago_ms));
                let asker = Some(request.host.clone());
                let reading = PowerReading { incarnation, asked, power, devices, level, declared, asker };
                self.take_reading(voter, &host, reading);
            }
        }
    }

    /// Only the executor of an open fence order has a reading, and only of what that order names.
    fn asked_about(
        &self,
        voter: usize,
        request: &SyncRequest,
        result: &OrderResult,
        reading: &AgedReading,
    ) -> Option<FenceLevel> {
        let order = self.voters[voter].state.orders.get(&result.order)?;
        let own = order.host == request.host && order.incarnation == request.facts.incarnation;
        match &order.kind {
            OrderKind::Fence { target, target_incarnation, level, device, .. }
                if own
                    && *target == reading.host
                    && *target_incarnation == reading.incarnation
                    && *level == reading.level =>
            {
                Some(device.clone())
            }
            _ => None,
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
        reply
    }

    /// R4 broken: a leader tells agents only of orders that it committed itself.
    fn is_told(&self, voter: usize, issued: u64) -> bool {
        let known = &self.voters[voter];
        let index = usize::try_from(issued).unwrap_or(0).saturating_sub(1);
        self.broken != Some(Break::R4) || known.log.get(index).is_some_and(|entry| entry.term == known.term)
    }

    // ---- questions ----

    fn ask(&mut self, voter: usize, wish: Wish) {
        let now = self.now;
        let asked = &mut self.voters[voter].brain.asked;
        if asked.get(&wish).is_some_and(|at| now - at < ASK_AGAIN) {
            return;
        }
        asked.retain(|_, at| now - *at < 10 * ASK_AGAIN);
        asked.insert(wish.clone(), now);
        match wish {
            Wish::AskPower { host, incarnation, level } => self.ask_power(voter, &host, incarnation, level),
            Wish::AskVoters { host, incarnation } => self.ask_voters(voter, &host, &incarnation),
        }
    }

    fn ask_power(&mut self, voter: usize, host: &HostName, incarnation: Incarnation, level: usize) {
        let Some(about) = self.host_index(host) else { return };
        let declared = self.voters[voter].state.policies.levels_of(host).get(level).cloned();
        let Some(declared) = declared else { return };
        let asked = self.hosts[voter].clock(self.now);
        let (wait, power) = self.read_level(about, &declared, 2_500);
        let devices = device_names(&declared, host);
        let asker = Some(self.hosts[voter].name.clone());
        let reading = PowerReading { incarnation, asked, power, devices, level, declared, asker };
        let term = self.voters[voter].term;
        self.queue.push(self.now + wait, Event::Power { voter, term, about, reading });
    }

    pub(super) fn power_read(&mut self, voter: usize, term: u64, about: usize, reading: PowerReading) {
        if self.voters[voter].leads() && self.voters[voter].term == term {
            let name = self.hosts[about].name.clone();
            if reading.power == Power::Off {
                self.story.note(self.real(), || format!("the BMC of {name} says that it is off"));
            }
            self.take_reading(voter, &name, reading);
        }
    }

    fn ask_voters(&mut self, voter: usize, host: &HostName, incarnation: &Incarnation) {
        let Some(about) = self.host_index(host) else { return };
        let asked = self.hosts[voter].clock(self.now).0;
        let term = self.voters[voter].term;
        for other in (0..self.voters.len()).filter(|other| *other != voter && *other != about) {
            let boot = incarnation.to_string();
            if self.broken == Some(Break::R17) {
                // The leader's own ears count for everybody.
                let age = self.hosts[voter].heard_age(about, incarnation, self.now);
                let answer = Answer { asked: Moment(asked), age, counts: true };
                let name = self.hosts[other].name.clone();
                self.voters[voter].brain.evidence.hosts.entry(host.clone()).or_default().answers.insert(name, answer);
                continue;
            }
            if let Transit::After(wait) = self.network.send(voter, other, self.now, &mut self.random) {
                let event = Event::Ask { voter: other, by: voter, term, about, boot, asked };
                self.queue.push(self.now + wait, event);
            }
        }
    }

    pub(super) fn asked(&mut self, voter: usize, by: usize, term: u64, about: usize, boot: String, asked: u64) {
        let Ok(incarnation) = Incarnation::new(boot.clone()) else { return };
        let mut age = self.hosts[voter].heard_age(about, &incarnation, self.now);
        if self.broken == Some(Break::R16) {
            age = Some(Duration::from_secs(60));
        }
        let counts = self.is_voice(voter, self.now) || self.broken == Some(Break::R18);
        let answer = Answer { asked: Moment(asked), age, counts };
        let other = self.heard_unjoined(voter, about);
        let other = other.filter(|_| self.broken != Some(Break::R16));
        let other =
            other.map(|(at, boot)| (boot, self.hosts[voter].clock(self.now).since(self.hosts[voter].clock(at))));
        if let Transit::After(wait) = self.network.send(voter, by, self.now, &mut self.random) {
            let from = self.hosts[voter].name.clone();
            let said = Box::new((answer, other));
            self.queue.push(self.now + wait, Event::Answered { voter: by, term, from, about, boot, said });
        }
    }

    pub(super) fn answered(
        &mut self,
        voter: usize,
        term: u64,
        from: HostName,
        about: usize,
        boot: &str,
        (answer, other): (Answer, Option<(u32, Duration)>),
    ) {
        let name = self.hosts[about].name.clone();
        let now = self.hosts[voter].clock(self.now);
        let other = other.map(|(boot, age)| (self.hosts[about].incarnation(boot), age));
        let known = &mut self.voters[voter];
        let current = known.state.hosts.get(&name).is_some_and(|host| host.facts.incarnation.as_str() == boot);
        if known.leads() && known.term == term && current {
            let seen = known.brain.evidence.hosts.entry(name).or_default();
            if let Some((incarnation, age)) = other {
                seen.hear_other(&incarnation, answer.asked.minus(age), now);
            }
            seen.answers.insert(from, answer);
            known.brain.calm = false;
        }
    }

    // ---- the desk ----

    /// An operator's command at the coordinator; `false` when there is none that could take it.
    pub(super) fn operate(&mut self, change: Change) -> bool {
        let Some(voter) = self.coordinator() else { return false };
        if !self.hosts[voter].serves(self.now) {
            return false;
        }
        self.result(voter, change);
        true
    }

    /// `holdfast host confirm-off`: the person has looked, and the host is off.
    pub(super) fn confirm_off(&mut self, host: usize) -> bool {
        let Some(voter) = self.coordinator() else { return false };
        let name = self.hosts[host].name.clone();
        let known = &self.voters[voter];
        let Some(incarnation) = known.state.hosts.get(&name).map(|known| known.facts.incarnation.clone()) else {
            return true;
        };
        let clock = self.hosts[voter].clock(self.now);
        let evidence = &known.brain.evidence;
        let own = evidence.last_life(&name, &incarnation).map(|at| millis(clock.since(at)));
        let listened = evidence.quorum_since.map(|since| millis(clock.since(since)));
        let others = evidence
            .hosts
            .get(&name)
            .into_iter()
            .flat_map(|seen| seen.answers.values())
            .filter_map(|answer| answer.age.map(|age| millis(age + clock.since(answer.asked))));
        let heard_ago = own.into_iter().chain(listened).chain(others).min();
        let fresh = millis(self.timing.suspect_after.0);
        match Proof::operator(&name, &incarnation, "ann", heard_ago, fresh) {
            Ok(proof) => {
                self.result(voter, Change::HostGone { proof, last_well: None, last_words: None });
                true
            }
            Err(_) => false,
        }
    }

    /// Whether nothing is under way in the coordinator.
    pub(super) fn brain_rests(&self, voter: usize) -> bool {
        let brain = &self.voters[voter].brain;
        brain.calm && brain.waiting.is_none() && brain.results.is_empty() && brain.decided.is_empty()
    }

    pub(super) fn brain_wants(&self, voter: usize) -> String {
        let brain = &self.voters[voter].brain;
        let halted = if brain.halted { ", halted: an agent is ahead" } else { "" };
        format!("waits for {:?}, {} results, wanted {:?}{halted}", brain.waiting, brain.results.len(), brain.wanted)
    }

    /// Modes that operators have set and not taken back.
    pub(super) fn all_active(&self) -> bool {
        self.truth.state.hosts.values().all(|host| host.mode == Mode::Active)
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
