//! The world of a scenario: the product's own [`decide`], [`ClusterState::apply`] and agents, on simulated hosts.
//!
//! The log is perfect, messages take no time, and nothing goes wrong but what the scenario says. One step:
//! ```text
//! events -> hosts that lose their right -> orders carried out -> syncs -> a round of deciding, committed at once
//! ```
//! A host that fences itself does so when it has had no authority for as long as its lease and watchdog allow; from then
//! on its power device says off. What hosts do for themselves (stop guests without a quorum) is the world's, not the brain's.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_policies::{
    change::{Applied, Change, Command},
    check::check,
    decide::{Wish, decide},
    evidence::{Answer, Evidence, Heard, Sight},
    feature_level::FeatureLevel,
    go_ahead::GoAheads,
    hostfile::Timing,
    names::{GuestName, HostName, Incarnation},
    order::OrderKind,
    proof::{Power, PowerReading, Proof},
    reply::reply,
    state::{ClusterState, Host, Life, Phase, Wanted},
    sync::{AgedReading, SyncReply, SyncRequest},
    time::{Moment, Now, WallTime, millis},
};

use super::{
    format::{Deed, Vm as Declared},
    host::{Node, Vm},
    map::Fencing,
    names::Names,
};

/// Milliseconds of one step: as often as an agent syncs.
pub const STEP: u64 = 250;
/// The scenario's second 0, in milliseconds of the simulated clock: the situation is made before it.
pub const ZERO: u64 = 1_000_000;

/// Milliseconds without any change after which syncs and decisions come only once a second: it saves time, and nothing else.
const CALM_AFTER: u64 = 15_000;
/// Milliseconds between them then; shorter than any span of the protocols.
const CALM_STEP: u64 = 1_000;

/// Who decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quorum {
    /// More than half of all hosts, if they are heard.
    Majority,
    /// The hosts that are heard, by decree.
    Given,
    /// Nobody.
    Lost,
}

/// What hosts do by themselves when they have lost their authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alone {
    /// Their guests run on.
    Keep,
    /// They stop their guests after so many milliseconds.
    StopGuests(u64),
    /// They switch themselves off after so many milliseconds.
    GoDown(u64),
}

/// How a guest misbehaves.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Starts that are still to fail.
    pub starts: u64,
    /// Moves that are still to fail.
    pub moves: u64,
    /// Stopping it fails, always.
    pub stop: bool,
    /// It starts on no other host.
    pub only_on: Option<HostName>,
    /// A lock keeps it where it is, for as long as its host is up: in this boot.
    pub locked: Option<Incarnation>,
}

/// The world.
pub struct World {
    /// Both directions of names.
    pub names: Names,
    /// Timing of the protocols.
    pub timing: Timing,
    /// Milliseconds of the simulated clock.
    pub now: u64,
    /// Hosts, in the scenario's order.
    pub nodes: Vec<Node>,
    /// What the voters agree on.
    pub state: ClusterState,
    /// What the coordinator has heard.
    pub evidence: Evidence,
    /// Which fences are still wanted.
    go_aheads: GoAheads,
    /// Who decides.
    pub quorum: Quorum,
    /// What hosts do without authority.
    pub alone: Alone,
    /// How hosts are fenced.
    pub fencing: Fencing,
    /// Guests that are declared at the moment.
    pub declared: BTreeMap<String, Declared>,
    /// How guests misbehave.
    pub faults: BTreeMap<GuestName, Faults>,
    /// Nothing is decided yet: the situation is still being made.
    pub held: bool,
    /// Deeds are kept.
    pub recording: bool,
    /// What was done.
    pub history: Vec<Deed>,
    /// Hosts that were confirmed off.
    pub fenced: BTreeSet<HostName>,
    /// Hosts whose death somebody outside has confirmed, until the cluster takes their word.
    pub confirmed: BTreeSet<HostName>,
    /// How deciding was suspended.
    pub frozen_as: Option<String>,
    /// Plans that the checker beside the planner has refused: what is wrong with each. Bounded by the steps of a scenario.
    pub refused: Vec<String>,
    stirred: u64,
    index: u64,
    term: u64,
    leader: Option<usize>,
}

impl World {
    /// A world in which nothing has happened.
    #[must_use]
    pub fn new(names: Names, nodes: Vec<Node>, fencing: Fencing) -> Self {
        Self {
            names,
            timing: Timing::default(),
            now: ZERO - 400_000,
            nodes,
            state: ClusterState { level: FeatureLevel::HIGHEST, ..ClusterState::born() },
            evidence: Evidence::default(),
            go_aheads: GoAheads::default(),
            quorum: Quorum::Given,
            alone: Alone::Keep,
            fencing,
            declared: BTreeMap::new(),
            faults: BTreeMap::new(),
            held: true,
            recording: false,
            history: Vec::new(),
            fenced: BTreeSet::new(),
            confirmed: BTreeSet::new(),
            frozen_as: None,
            refused: Vec::new(),
            stirred: 0,
            index: 0,
            term: 0,
            leader: None,
        }
    }

    /// One step.
    pub fn step(&mut self) {
        self.now += STEP;
        self.hear();
        self.lose_right();
        self.work();
        self.lead();
        if self.is_calm() && !self.now.is_multiple_of(CALM_STEP) {
            return;
        }
        self.sync_all();
        self.take_confirmations();
        if !self.held {
            self.think();
        }
    }

    /// Something happens: for a while nothing is left out.
    pub fn stir(&mut self) {
        self.stirred = self.now;
    }

    /// Whether nothing has happened and nothing was decided for so long that rarer rounds see the same.
    pub(super) fn is_calm(&self) -> bool {
        self.now.saturating_sub(self.stirred) >= CALM_AFTER
    }

    /// Steps until that many milliseconds have passed.
    pub fn pass(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            self.step();
        }
    }

    /// The host with this name.
    pub fn node(&mut self, name: &HostName) -> Option<&mut Node> {
        self.nodes.iter_mut().find(|node| node.name == *name)
    }

    /// The position of the host with this name.
    #[must_use]
    pub fn position(&self, name: &HostName) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == *name)
    }

    /// Keeps a deed.
    pub fn tell(&mut self, deed: Deed) {
        if self.recording {
            let at = self.now.saturating_sub(ZERO);
            #[expect(clippy::cast_precision_loss, reason = "milliseconds of minutes")]
            self.history.push(Deed { at: at as f64 / 1_000.0, ..deed });
        }
    }

    /// Keeps a deed that is about a guest on a host.
    pub fn tell_of(&mut self, kind: &str, guest: &GuestName, host: &HostName, ok: Option<bool>) {
        let (vm, host) = (Some(self.names.of_guest(guest)), Some(self.names.of_host(host)));
        self.tell(Deed { kind: kind.to_owned(), vm, host, ok, ..Deed::default() });
    }

    // ---- the log ----

    /// Commits a change.
    pub fn commit(&mut self, what: Change) -> Applied {
        self.index += 1;
        self.stir();
        let gone = match &what {
            Change::HostGone { proof, .. } => proof.host_gone().map(|(host, _)| host.clone()),
            _ => None,
        };
        self.trace(|| format!("{what:?}"));
        let again = match &what {
            Change::HostJoined { host, .. } => {
                self.state.hosts.get(host).filter(|known| !matches!(known.life, Life::Gone { .. }))
            }
            _ => None,
        };
        let again = again.map(|known| (known.facts.incarnation.clone(), what.clone()));
        let applied = self.state.apply(self.index, Command { at: WallTime(self.now), what });
        if let Some((before, Change::HostJoined { host, facts, .. })) = again
            && applied.refused.is_none()
            && facts.incarnation != before
        {
            self.booted_anew(&host);
        }
        if let Some(refused) = &applied.refused {
            self.trace(|| format!("  refused: {refused}"));
        }
        self.evidence.marks.applied(self.index, Moment(self.now));
        if let Some(host) = gone.filter(|_| applied.refused.is_none()) {
            self.confirmed_off(&host);
        }
        applied
    }

    fn trace(&self, what: impl FnOnce() -> String) {
        if std::env::var_os("HOLDFAST_STORY").is_some() {
            let text: String = what().chars().take(300).collect();
            eprintln!("{:>9} {text}", self.now.cast_signed() - ZERO.cast_signed());
        }
    }

    /// A host is proven off; one that went in an orderly way was not fenced.
    fn confirmed_off(&mut self, host: &HostName) {
        if self.node(host).is_some_and(|node| node.orderly) || !self.recording {
            return;
        }
        self.fenced.insert(host.clone());
        let host = Some(self.names.of_host(host));
        self.tell(Deed { kind: "fence".to_owned(), host, ..Deed::default() });
    }

    /// The new boot of a host proves that the old one is over: a death confirmed, and no fence, unless somebody outside has switched
    /// it off before. What was said of the old boot says nothing of the new one.
    fn booted_anew(&mut self, host: &HostName) {
        if self.confirmed.remove(host) {
            self.fenced.insert(host.clone());
        }
        let host = Some(self.names.of_host(host));
        self.tell(Deed { kind: "fence".to_owned(), host, ..Deed::default() });
    }

    // ---- the coordinator ----

    fn hear(&mut self) {
        let now = self.now;
        for node in self.nodes.iter_mut().filter(|node| node.connected()) {
            node.heard = now;
        }
        for node in &mut self.nodes {
            if !node.on && node.back_on.is_some_and(|at| at <= now) {
                node.power_on(self.timing, now);
            }
        }
    }

    fn lead(&mut self) {
        let able = |node: &Node| node.connected() && node.may_lead && node.supervisor.is_some();
        // The agent is what dies in a host whose agent is dead; what votes there goes on.
        let heard = self.nodes.iter().filter(|node| node.connected()).count();
        let quorum = match self.quorum {
            Quorum::Majority => heard * 2 > self.nodes.len(),
            Quorum::Given => heard > 0,
            Quorum::Lost => false,
        };
        let stays = self.leader.and_then(|leader| self.nodes.get(leader)).is_some_and(able);
        if !quorum || !stays {
            self.leader = None;
        }
        if quorum && self.leader.is_none() {
            self.leader = self.nodes.iter().position(able);
            self.stirred = self.now;
            if let Some(leader) = self.leader {
                self.term += 1;
                let marks = std::mem::take(&mut self.evidence.marks);
                let (quorum_since, me) = (Some(Moment(self.now)), self.nodes.get(leader).map(|node| node.name.clone()));
                self.evidence = Evidence { quorum_since, me, marks, ..Evidence::default() };
            }
        }
        let votes = |node: &&Node| self.quorum == Quorum::Majority || node.connected();
        self.evidence.voters = self.nodes.iter().filter(votes).map(|node| node.name.clone()).collect();
    }

    /// The coordinator changes, and knows only what is committed.
    pub fn depose(&mut self) {
        self.stir();
        self.leader = None;
    }

    /// Guests that the scenario speaks of.
    #[must_use]
    pub fn spoken_of(&self) -> Vec<String> {
        self.names.guests()
    }

    fn think(&mut self) {
        if self.leader.is_none() {
            return;
        }
        for node in &self.nodes {
            if let Some(incarnation) = node.incarnation().filter(|boot| self.state.is_current(&node.name, boot)) {
                let heard = Some(Heard { at: Moment(node.heard), incarnation });
                self.evidence.hosts.entry(node.name.clone()).or_default().heard = heard;
            }
        }
        let now = Now { moment: Moment(self.now), wall: WallTime(self.now) };
        let decision = decide(&self.state, &self.evidence, &self.timing, now);
        self.go_aheads = decision.go_aheads;
        for wish in decision.wishes {
            self.fulfil(wish);
        }
        let broken = check(&self.state, &self.evidence, &self.timing, now.moment, &decision.commands);
        if let Some(first) = broken.first() {
            // As in the product: nobody knows what else is wrong with such a plan.
            self.refused.push(format!("{first}: {:?}", decision.commands));
            return;
        }
        for change in decision.commands {
            self.commit(change);
        }
    }

    fn fulfil(&mut self, wish: Wish) {
        let asked = Moment(self.now);
        match wish {
            Wish::AskPower { host, incarnation, level } => {
                let power = self.power_of(&host);
                let Some(declared) = self.state.policies.levels_of(&host).get(level).cloned() else { return };
                let devices = vec!["bmc".to_owned()];
                let asker = self.evidence.me.clone();
                let reading = PowerReading { incarnation, asked, power, devices, level, declared, asker };
                self.evidence.hosts.entry(host).or_default().read(reading);
            }
            Wish::AskVoters { host, incarnation } => {
                let Some(about) = self.nodes.iter().find(|node| node.name == host) else { return };
                let same = about.incarnation() == Some(incarnation);
                let age = same.then(|| asked.since(Moment(about.heard)));
                let others =
                    self.nodes.iter().filter(|node| node.connected() && Some(&node.name) != self.evidence.me.as_ref());
                let answers: Vec<HostName> = others.map(|node| node.name.clone()).collect();
                let known = self.evidence.hosts.entry(host).or_default();
                for voter in answers {
                    known.answers.insert(voter, Answer { asked, age, counts: true });
                }
            }
        }
    }

    /// What the power device of a host says.
    #[must_use]
    pub fn power_of(&self, host: &HostName) -> Power {
        let unknown = |detail: &str| Power::Unknown { detail: detail.to_owned() };
        let Some(node) = self.nodes.iter().find(|node| node.name == *host) else { return unknown("no such host") };
        match self.fencing {
            Fencing::Device if node.on => Power::On,
            Fencing::Device => Power::Off,
            Fencing::Itself(seconds) => {
                let over = self.now.saturating_sub(node.authority) >= millis(self.timing.lease.0) + seconds * 1_000;
                // A new boot has none of the right of the one that is asked about.
                let anew = node.incarnation().is_some_and(|boot| !self.state.is_current(host, &boot));
                let off = if node.on { anew && over } else { node.orderly || over };
                if off { Power::Off } else { unknown("its lease may be valid") }
            }
            Fencing::External | Fencing::Nobody => unknown("no device"),
        }
    }

    /// Somebody outside has switched the host off and says so; the cluster takes the word when the host is not heard.
    fn take_confirmations(&mut self) {
        for host in self.confirmed.clone() {
            let Some(known) = self.state.hosts.get(&host).filter(|_| self.leader.is_some()) else { continue };
            let (incarnation, fresh) = (known.facts.incarnation.clone(), millis(self.timing.suspect_after.0));
            let heard = self.nodes.iter().find(|node| node.name == host).map(|node| self.now - node.heard);
            if let Ok(proof) = Proof::operator(&host, &incarnation, "whoever fenced it", heard, fresh) {
                self.confirmed.remove(&host);
                self.commit(Change::HostGone { proof, last_well: None, last_words: None });
            }
        }
    }

    // ---- syncs ----

    fn sync_all(&mut self) {
        for index in 0..self.nodes.len() {
            let now = self.now;
            let Some(node) = self.nodes.get_mut(index).filter(|node| node.connected() && self.leader.is_some()) else {
                continue;
            };
            let Some(request) = node.request(now) else { continue };
            let Some(reply) = self.on_sync(request) else { continue };
            let Some(node) = self.nodes.get_mut(index) else { continue };
            let (host, stopped) = (node.name.clone(), node.on_reply(reply, now));
            for guest in stopped {
                self.tell_of("stop", &guest, &host, None);
            }
        }
    }

    fn on_sync(&mut self, request: SyncRequest) -> Option<SyncReply> {
        let (host, boot) = (request.host.clone(), request.facts.incarnation.clone());
        let joined = self.state.hosts.get(&host).is_some_and(|known| known.facts == request.facts);
        if !joined && self.state.may_join(&host, &boot, request.seen) {
            self.commit(Change::HostJoined { host: host.clone(), facts: request.facts.clone(), follows: None });
        }
        if self.state.is_current(&host, &boot) {
            self.gather(&host, &boot, &request);
        }
        Some(reply(&self.state, &request, self.term, self.timing.lease.0, &self.go_aheads))
    }

    fn gather(&mut self, host: &HostName, boot: &Incarnation, request: &SyncRequest) {
        let moment = Moment(self.now);
        let known = self.evidence.hosts.entry(host.clone()).or_default();
        known.sync = Some(Heard { at: moment, incarnation: boot.clone() });
        known.seen = request.seen;
        known.report(request.reports.iter().map(|report| (report.guest.clone(), report.clone())).collect(), moment);
        for sight in request.sights.clone() {
            let passed = sight.passed_ago_ms.map(|_| moment);
            let (epoch, state, detail) = (sight.epoch, sight.state, sight.detail);
            let seen = Sight { epoch, state, at: moment, since: moment, passed, warns: sight.warns, detail };
            let services = self.evidence.services.entry(sight.guest).or_default();
            let vantages = services.entry(sight.service).or_default();
            let seen = seen.following(vantages.get(&sight.vantage));
            vantages.insert(sight.vantage, seen);
        }
        for result in request.results.clone() {
            let declared = self.state.orders.get(&result.order).and_then(|order| match &order.kind {
                OrderKind::Fence { device, .. } => Some(device.clone()),
                _ => None,
            });
            if let (Some(reading), Some(declared)) = (result.reading, declared) {
                let AgedReading { host, incarnation, asked_ago_ms, power, devices, level } = reading;
                let asked = Moment(moment.0.saturating_sub(asked_ago_ms));
                let asker = Some(request.host.clone());
                let reading = PowerReading { incarnation, asked, power, devices, level, declared, asker };
                self.evidence.hosts.entry(host).or_default().read(reading);
            }
            let order = self.state.orders.get(&result.order);
            if order.is_some_and(|order| order.host == *host && order.incarnation == *boot) {
                self.commit(Change::OrderEnded { order: result.order, outcome: result.outcome });
            }
        }
    }

    // ---- hosts without authority ----

    fn lose_right(&mut self) {
        let (goes_down, after) = match self.alone {
            Alone::Keep => return,
            Alone::StopGuests(after) => (false, after),
            Alone::GoDown(after) => (true, after),
        };
        if self.held {
            return;
        }
        for index in 0..self.nodes.len() {
            let Some(node) = self.nodes.get(index) else { continue };
            let own = self.looked_after(node);
            if !node.on || own.is_empty() || self.now.saturating_sub(node.authority) < after {
                continue;
            }
            // What a host that nobody hears does with its guests, nobody knows; only its watchdog is certain. Without an agent
            // nobody is there to stop them.
            let can_stop = node.connected() && node.supervisor.is_some();
            if !(goes_down || can_stop) {
                continue;
            }
            if goes_down {
                self.darken(index);
            } else {
                self.stop_these(index, &own);
            }
        }
    }

    /// The guests that run on a host and are looked after there: while deciding is suspended, only those of a host that
    /// was being fenced before.
    fn looked_after(&self, node: &Node) -> Vec<GuestName> {
        let known = self.state.hosts.get(&node.name);
        let hands_off = known.is_some_and(Host::in_maintenance);
        let fenced = known.is_some_and(|known| matches!(known.life, Life::Fencing(_)));
        if hands_off || (self.state.suspended.is_some() && !fenced) {
            return Vec::new();
        }
        let managed =
            |guest: &&GuestName| self.state.guests.get(*guest).is_some_and(|known| known.wanted != Wanted::Unmanaged);
        node.machines.keys().filter(managed).cloned().collect()
    }

    /// Whether a lock keeps the guest where it is.
    #[must_use]
    pub fn is_locked(&self, guest: &GuestName) -> bool {
        let lock = self.faults.get(guest).and_then(|faults| faults.locked.as_ref());
        let holds = |node: &Node| node.on && node.machines.contains_key(guest) && node.incarnation().as_ref() == lock;
        lock.is_some() && self.nodes.iter().any(holds)
    }

    /// A host goes dark, and says nothing.
    pub fn darken(&mut self, index: usize) {
        let Some(node) = self.nodes.get_mut(index).filter(|node| node.on) else { return };
        node.power_off();
        let host = Some(self.names.of_host(&node.name.clone()));
        self.tell(Deed { kind: "power-off".to_owned(), host, ..Deed::default() });
    }

    /// A host stops all its guests by itself.
    pub fn stop_all(&mut self, index: usize) {
        let all: Vec<GuestName> =
            self.nodes.get(index).map(|node| node.machines.keys().cloned().collect()).unwrap_or_default();
        self.stop_these(index, &all);
    }

    fn stop_these(&mut self, index: usize, guests: &[GuestName]) {
        for guest in guests {
            let Some(node) = self.nodes.get_mut(index) else { return };
            let (host, stopped) = (node.name.clone(), node.machines.remove(guest));
            if stopped.is_some_and(|machine| matches!(machine.state, Vm::Running | Vm::Paused | Vm::Failed)) {
                self.tell_of("stop", guest, &host, None);
            }
        }
    }

    /// Whether the guest is reported to run.
    #[must_use]
    pub fn is_reported_running(&self, guest: &GuestName) -> bool {
        self.state.guests.get(guest).is_some_and(|known| matches!(known.phase, Phase::Running { .. }))
    }
}
