//! The world of a scenario: the product's own `decide`, [`ClusterState::apply`] and agents, on simulated hosts.
//!
//! The log is perfect, messages take no time, and nothing goes wrong but what the scenario says. One step:
//! ```text
//! events -> hosts that lose their right -> orders carried out -> syncs -> a round of deciding, committed at once
//! ```
//! Hosts that lose their right are in `alone.rs`, orders in `orders.rs`, syncs and decisions in `lead.rs`.
//!
//! A host that fences itself does so when it has had no authority for as long as its lease and watchdog allow; from then
//! on its power device says off. What hosts do for themselves (stop guests without a quorum) is the world's, not the brain's.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_policies::{
    change::{Applied, Change, Command},
    evidence::Evidence,
    feature_level::FeatureLevel,
    go_ahead::GoAheads,
    hostfile::Timing,
    names::{GuestName, HostName, Incarnation},
    state::{ClusterState, Life, Phase},
    time::{Moment, WallTime},
};

use super::{
    format::{Deed, Vm as Declared},
    host::Node,
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
    /// Where starts and moves fail, if not everywhere.
    pub at: Option<HostName>,
    /// A lock keeps it where it is, for as long as its host is up: in this boot.
    pub locked: Option<Incarnation>,
}

impl Faults {
    /// Whether starts on this host, and moves from it, are those that fail.
    #[must_use]
    pub fn is_at(&self, host: &HostName) -> bool {
        self.at.as_ref().is_none_or(|at| at == host)
    }
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
    pub(super) go_aheads: GoAheads,
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
    /// Guests that people have stopped for the sake of others, and want again when they have room.
    pub(super) stopped_for_others: BTreeSet<GuestName>,
    /// Where guests have been sent from, until they run where they have arrived.
    pub(super) sent_from: BTreeMap<GuestName, HostName>,
    /// Guests whose newest stop has failed.
    pub(super) stops_failed: BTreeSet<GuestName>,
    /// Where guests were, or may have been, when they were removed.
    pub(super) removed_from: BTreeMap<GuestName, HostName>,
    /// Plans that the checker beside the planner has refused: what is wrong with each. Bounded by the steps of a scenario.
    pub refused: Vec<String>,
    /// When something happened last.
    pub(super) stirred: u64,
    /// How long before `now` deeds are done, in milliseconds.
    before_now: u64,
    index: u64,
    pub(super) term: u64,
    /// Who leads, by position.
    pub(super) leader: Option<usize>,
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
            stopped_for_others: BTreeSet::new(),
            sent_from: BTreeMap::new(),
            stops_failed: BTreeSet::new(),
            removed_from: BTreeMap::new(),
            refused: Vec::new(),
            stirred: 0,
            before_now: 0,
            index: 0,
            term: 0,
            leader: None,
        }
    }

    /// One step. What is done in it is done before its end: an event of that moment comes after it, and is told so.
    pub fn step(&mut self) {
        self.now += STEP;
        self.before_now = STEP / 2;
        self.go_on();
        self.before_now = 0;
    }

    fn go_on(&mut self) {
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
            let at = self.now.saturating_sub(ZERO + self.before_now);
            #[expect(clippy::cast_precision_loss, reason = "milliseconds of minutes")]
            self.history.push(Deed { at: at as f64 / 1_000.0, ..deed });
        }
    }

    /// Keeps a deed that is about a guest on a host.
    pub fn tell_of(&mut self, kind: &str, guest: &GuestName, host: &HostName, ok: Option<bool>) {
        let (vm, host) = (Some(self.names.of_guest(guest)), Some(self.names.of_host(host)));
        self.tell(Deed { kind: kind.to_owned(), vm, host, ok, ..Deed::default() });
    }

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

    /// Guests that the scenario speaks of.
    #[must_use]
    pub fn spoken_of(&self) -> Vec<String> {
        self.names.guests()
    }

    /// Whether a lock keeps the guest where it is.
    #[must_use]
    pub fn is_locked(&self, guest: &GuestName) -> bool {
        let lock = self.faults.get(guest).and_then(|faults| faults.locked.as_ref());
        let holds = |node: &Node| node.on && node.machines.contains_key(guest) && node.incarnation().as_ref() == lock;
        lock.is_some() && self.nodes.iter().any(holds)
    }

    /// Whether the guest is reported to run.
    #[must_use]
    pub fn is_reported_running(&self, guest: &GuestName) -> bool {
        self.state.guests.get(guest).is_some_and(|known| matches!(known.phase, Phase::Running { .. }))
    }
}
