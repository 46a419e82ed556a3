//! The coordinator's task: takes in what comes, decides on all of it, and has the decisions committed.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use holdfast_policies::{
    change::{Applied, Change, Command},
    decide::{Report, decide},
    evidence::{Evidence, Marks},
    model::Severity,
    names::HostName,
    sync::SyncRequest,
    time::{Moment, Now},
};
use tokio::{
    sync::{mpsc, watch},
    time::MissedTickBehavior,
};

use super::{Input, gather, numbers::Numbers, rounds::Round, wishes::Wishes};
use crate::{
    alerts::{AlertState, Delivered, Trouble},
    clock,
    consensus::Consensus,
    node::Node,
};

/// Inputs taken in before deciding again.
const INPUTS_PER_TURN: usize = 128;

/// How often it decides when nothing happens: waits end at this precision.
const TICK: Duration = Duration::from_millis(50);

/// Leadership is handed over for being unwell at most this often (R29).
const HAND_OVER_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// How long a refused change is not proposed again: each proposal is an entry of the log, refused or not.
const REFUSED_FOR: Duration = Duration::from_secs(1);

/// Refused changes remembered: a few per host that may not join.
const REFUSED_MAX: usize = 64;

/// How often numbers are brought up to date.
const EXPORT_EVERY: Duration = Duration::from_secs(1);

/// What the task owns.
pub(super) struct Brain {
    pub(super) node: Arc<Node>,
    pub(super) consensus: Consensus,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) rounds: watch::Receiver<Option<Round>>,
    pub(super) evidence: Evidence,
    pub(super) wishes: Wishes,
    pub(super) report: Report,
    pub(super) alerts: watch::Sender<Arc<AlertState>>,
    pub(super) troubles: watch::Receiver<Vec<Trouble>>,
    pub(super) handed_over: Option<Moment>,
    pub(super) led_term: Option<u64>,
    pub(super) refused: VecDeque<(Change, Moment)>,
    pub(super) doubting: bool,
    pub(super) numbers: Numbers,
    pub(super) exported: Moment,
    /// The newest sync of each host: its boot and nonce.
    pub(super) nonces: BTreeMap<HostName, (String, u64)>,
    /// The state that alerts were last told of: its index, and whether this host led.
    pub(super) published: Option<(u64, bool)>,
    /// An agent is ahead of this leader (R3).
    pub(super) halted: bool,
}

impl Brain {
    /// A brain that has seen nothing yet.
    pub(super) fn new(
        node: Arc<Node>,
        consensus: Consensus,
        inputs: mpsc::Sender<Input>,
        rounds: watch::Receiver<Option<Round>>,
        (alerts, troubles): (watch::Sender<Arc<AlertState>>, watch::Receiver<Vec<Trouble>>),
    ) -> Self {
        let evidence =
            Evidence { me: Some(node.host().clone()), marks: Marks::new(node.started), ..Evidence::default() };
        Self {
            node,
            consensus,
            inputs,
            rounds,
            evidence,
            wishes: Wishes::default(),
            report: Report::default(),
            alerts,
            troubles,
            handed_over: None,
            led_term: None,
            refused: VecDeque::new(),
            doubting: false,
            numbers: Numbers::default(),
            exported: Moment(0),
            nonces: BTreeMap::new(),
            published: None,
            halted: false,
        }
    }

    /// Runs for as long as the supervisor runs.
    pub(super) async fn run(mut self, mut inputs: mpsc::Receiver<Input>) {
        let mut applied = self.consensus.applied();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let (idle_since, mut first) = (clock::moment(), None);
            tokio::select! {
                input = inputs.recv() => match input {
                    Some(input) => first = Some(input),
                    None => return,
                },
                changed = applied.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let index = *applied.borrow_and_update();
                    self.evidence.marks.applied(index, clock::moment());
                }
                _ = tick.tick() => {}
            }
            self.notice_lateness(idle_since);
            if let Some(input) = first {
                self.take(input).await;
            }
            for _ in 0..INPUTS_PER_TURN {
                let Ok(input) = inputs.try_recv() else { break };
                self.take(input).await;
            }
            self.turn().await;
        }
    }

    async fn take(&mut self, input: Input) {
        let now = clock::moment();
        match input {
            Input::Sync { request, received } => self.take_sync(*request, received).await,
            Input::Power { host, reading } => gather::power(&mut self.evidence, &host, reading),
            Input::Answer { host, voter, answer } => gather::answer(&mut self.evidence, &host, voter, answer),
            Input::Asked(wish) => self.wishes.done(wish, now),
            Input::Delivered(Delivered { incident, receiver, seq }) => {
                self.propose(Change::Delivered { incident, receiver, seq }).await;
            }
            // Whoever asked was told that there was no answer: what they wanted then must not happen later.
            Input::Desk { answer, .. } if answer.is_closed() => {}
            Input::Desk { request, answer } => {
                let answered = self.serve(request).await;
                // The asker may have gone; what was decided stays decided.
                let _ = answer.send(answered);
            }
        }
    }

    /// It never rests for longer than a tick, unless this process was suspended or starved. That is noticed here too,
    /// because the task that watches for it may be woken later than this one.
    fn notice_lateness(&self, idle_since: Moment) {
        let now = clock::moment();
        if now.since(idle_since).saturating_sub(TICK) >= self.node.file.timing.wonder_after.0 {
            self.node.health.doubt(now);
        }
    }

    pub(super) fn leads(&self) -> bool {
        self.consensus.leadership().borrow().is_me
    }

    async fn take_sync(&mut self, request: SyncRequest, received: Moment) {
        if !self.leads() {
            return;
        }
        // Without authority a proposal would wait for a quorum; agents say it all again.
        // A round of an earlier term of this host says nothing of this one.
        let confirmed = self.rounds.borrow().is_some_and(|round| Some(round.term) == self.led_term);
        if confirmed && self.is_ahead(&request) {
            self.halt(&request.host).await;
        }
        let joined =
            self.node.read(|state| state.hosts.get(&request.host).is_some_and(|known| known.facts == request.facts));
        if !joined && confirmed {
            self.join(&request).await;
        }
        // R11: another boot, or another machine under the same name, does not push aside what the joined one says.
        let current = self.node.read(|state| state.is_current(&request.host, &request.facts.incarnation));
        if !current || !self.is_newest(&request) {
            return;
        }
        let evidence = &mut self.evidence;
        self.node.read(|state| gather::sync(evidence, state, &request, received));
        for result in &request.results {
            let own = self
                .node
                .read(|state| state.orders.get(&result.order).is_some_and(|order| gather::is_own(order, &request)));
            if own && confirmed {
                let (order, outcome) = (result.order, gather::clean_outcome(&result.outcome));
                self.propose(Change::OrderEnded { order, outcome }).await;
            }
        }
    }

    /// Syncs may overtake each other on their way; what an older one says of a host is not true any more.
    fn is_newest(&mut self, request: &SyncRequest) -> bool {
        let newest = self.nonces.entry(request.host.clone()).or_default();
        let newer = newest.0 != request.facts.incarnation.as_str() || newest.1 < request.nonce;
        if newer {
            *newest = (request.facts.incarnation.to_string(), request.nonce);
        }
        newer
    }

    /// Whether an agent has seen more than a confirmed leader has: somebody has restored an old store (R3).
    fn is_ahead(&self, request: &SyncRequest) -> bool {
        let seen = request.seen;
        self.node.read(|state| (seen.generation, seen.index) > (state.generation, state.applied))
    }

    /// Halts every decision of this leadership and calls a human: what is missing from the state may be a guest's
    /// assignment (R3).
    async fn halt(&mut self, host: &HostName) {
        if self.halted {
            return;
        }
        self.halted = true;
        tracing::error!(%host, "an agent has seen more than this leader has; nothing is decided any more");
        let human = "Somebody has restored an old copy of a voter's store. Stop that voter, let the others lead, and bring it \
                     back under a new id. Until then nothing is started, moved or fenced.";
        self.propose(Change::IncidentOpened {
            key: "store".to_owned(),
            severity: Severity::Critical,
            summary: format!("{host} has seen decisions that this coordinator does not know"),
            human: Some(human.to_owned()),
            guests: Vec::new(),
        })
        .await;
    }

    /// Has a host join, unless it may not.
    async fn join(&mut self, request: &SyncRequest) {
        let (host, facts) = (request.host.clone(), request.facts.clone());
        let may = self.node.read(|state| state.may_join(&host, &facts.incarnation, request.seen));
        let change = Change::HostJoined { host, facts };
        if may && !self.is_refused(&change) {
            self.propose(change).await;
        }
    }

    /// One turn: bring the evidence up to date, decide, have it committed, ask what is wondered about.
    async fn turn(&mut self) {
        let (leads, term) = {
            let leadership = self.consensus.leadership();
            let leadership = leadership.borrow();
            (leadership.is_me, leadership.term)
        };
        if !leads {
            if self.led_term.take().is_some() {
                gather::begin_anew(&mut self.evidence);
                self.numbers.clear(&self.node.metrics);
            }
            self.publish(false);
            return;
        }
        if self.led_term != Some(term) {
            gather::begin_anew(&mut self.evidence);
            self.led_term = Some(term);
            self.halted = false;
        }
        let now = clock::now();
        let confirmed = self.rounds.borrow().is_some_and(|round| round.term == term);
        if confirmed && self.evidence.quorum_since.is_none() {
            tracing::info!(term, "this host coordinates");
            self.evidence.quorum_since = Some(now.moment);
        }
        self.doubt_oneself(now.moment).await;
        let decision = self.decide(now);
        self.report = decision.report;
        // Without authority a proposal would wait for a quorum, and be committed when it fits no more.
        let commands = if confirmed && !self.halted { decision.commands } else { Vec::new() };
        let listened = self.node.has_listened(now.moment);
        for change in commands {
            // What a supervisor has not heard that slept, or was cut off, may be its own doing.
            let accuses = matches!(change, Change::FenceOpened { .. } | Change::FenceAttempted { .. });
            if (accuses && !listened) || self.is_refused(&change) {
                continue;
            }
            if !self.propose(change).await {
                break;
            }
        }
        self.wishes.fulfil(decision.wishes, &self.node, &self.inputs, clock::moment());
        self.publish(true);
        if clock::moment().since(self.exported) >= EXPORT_EVERY {
            self.exported = clock::moment();
            let (node, numbers, report) = (&self.node, &mut self.numbers, &self.report);
            node.read(|state| numbers.export(&node.metrics, state, report));
        }
    }

    fn decide(&mut self, now: Now) -> holdfast_policies::decide::Decision {
        let (node, evidence) = (&self.node, &mut self.evidence);
        node.read(|state| {
            gather::refresh(evidence, node, state);
            decide(state, evidence, &node.file.timing, now)
        })
    }

    /// Has a change committed and wakes the agents that it concerns. Returns whether it was committed and accepted.
    async fn propose(&mut self, what: Change) -> bool {
        match self.commit(what.clone()).await {
            Ok(Applied { refused: None, .. }) => true,
            Ok(Applied { refused: Some(refused), .. }) => {
                tracing::debug!(%refused, "a decision did not fit the state any more");
                if self.refused.len() >= REFUSED_MAX {
                    self.refused.pop_front();
                }
                self.refused.push_back((what, clock::moment()));
                false
            }
            Err(error) => {
                tracing::warn!(%error, "a decision was not committed");
                false
            }
        }
    }

    /// Whether this very change was refused a moment ago.
    fn is_refused(&mut self, change: &Change) -> bool {
        let now = clock::moment();
        self.refused.retain(|(_, at)| now.since(*at) < REFUSED_FOR);
        self.refused.iter().any(|(refused, _)| refused == change)
    }

    pub(super) async fn commit(&mut self, what: Change) -> Result<Applied, String> {
        tracing::debug!(?what, "proposing");
        let command = Command { at: clock::wall(), what };
        let entry = serde_json::to_vec(&command).map_err(|error| error.to_string())?;
        let committed = self.consensus.propose(entry).await.map_err(|error| error.to_string())?;
        self.evidence.marks.applied(committed.index, clock::moment());
        let applied: Applied = serde_json::from_slice(&committed.reply).map_err(|error| error.to_string())?;
        for host in &applied.nudge {
            if host == self.node.host() {
                self.node.sync_now.notify_one();
            } else if let Some(address) = self.node.address(host) {
                self.node.sender.send_nudge(address, host).await;
            }
        }
        Ok(applied)
    }

    fn publish(&mut self, active: bool) {
        // Copying every incident is not free; nothing has changed where nothing was committed.
        let version = (self.node.read(|state| state.applied), active);
        if self.published == Some(version) {
            return;
        }
        self.published = Some(version);
        let state = self.node.read(|state| AlertState {
            cluster: self.node.file.cluster.clone(),
            receivers: if active { state.policies.alerts.clone() } else { Vec::new() },
            incidents: if active { state.incidents.values().cloned().collect() } else { Vec::new() },
            active,
        });
        self.alerts.send_if_modified(|known| {
            let same = known.active == state.active
                && known.receivers == state.receivers
                && known.incidents == state.incidents;
            if !same {
                *known = Arc::new(state);
            }
            !same
        });
    }

    /// A supervisor that doubts itself accuses nobody on what it gathered while it slept, and hands the lead over (R29).
    async fn doubt_oneself(&mut self, now: Moment) {
        let unwell = self.node.health.unwell(now).is_some();
        if unwell && !self.doubting {
            self.evidence.quorum_since = self.evidence.quorum_since.map(|_| now);
            if self.handed_over.is_none_or(|at| now.since(at) >= HAND_OVER_AGAIN_AFTER) {
                self.handed_over = Some(now);
                self.hand_over(now).await;
            }
        }
        self.doubting = unwell;
    }

    async fn hand_over(&self, now: Moment) {
        let fresh = self.node.file.timing.suspect_after.0;
        let well = self.node.voters().into_keys().find(|voter| {
            let unwell = self.evidence.hosts.get(voter).is_some_and(|known| known.unwell.is_some());
            voter != self.node.host()
                && !unwell
                && self.node.heard.last_any(voter).is_some_and(|at| now.since(at) < fresh)
        });
        if let Some(voter) = well {
            match self.consensus.transfer_to(&voter).await {
                Ok(()) => tracing::warn!(to = %voter, "handed the lead over"),
                Err(error) => tracing::warn!(%error, "the lead could not be handed over"),
            }
        }
    }
}
