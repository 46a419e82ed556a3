//! The coordinator: one task that owns the evidence, decides, and has its decisions committed.
//!
//! It runs on every voter and acts only on the one that leads. Nothing that it holds has to survive: all work is
//! derived again from the replicated state (R4).

mod desk;
mod gather;
mod numbers;
mod replies;
mod rounds;
pub mod wishes;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

pub use desk::Counter;
use holdfast_policies::{
    change::{Applied, Change, Command},
    decide::{Report, Wish, decide},
    evidence::{Answer, Evidence, Marks},
    names::HostName,
    proof::PowerReading,
    sync::{SyncReply, SyncRequest},
    time::{Moment, Now},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::MissedTickBehavior,
};

use self::{numbers::Numbers, rounds::Round, wishes::Wishes};
use crate::{
    alerts::{AlertState, Delivered},
    clock,
    consensus::Consensus,
    node::Node,
};

/// Inputs that may wait: every agent's sync and every answer of one bad second in a large cluster. More wait outside.
const INPUTS: usize = 1_024;

/// Inputs taken in before deciding again.
const INPUTS_PER_TURN: usize = 128;

/// How often it decides when nothing happens: waits end at this precision.
const TICK: Duration = Duration::from_millis(50);

/// How long a sync may wait for authority; agents ask another voter after that.
const AUTHORITY_PATIENCE: Duration = Duration::from_millis(400);

/// Leadership is handed over for being unwell at most this often (R29).
const HAND_OVER_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// How long a refused change is not proposed again: each proposal is an entry of the log, refused or not.
const REFUSED_FOR: Duration = Duration::from_secs(1);

/// Refused changes remembered: a few per host that may not join.
const REFUSED_MAX: usize = 64;

/// How often numbers are brought up to date.
const EXPORT_EVERY: Duration = Duration::from_secs(1);

/// Something for the coordinator.
pub enum Input {
    /// An agent has synced.
    Sync {
        /// What it said.
        request: Box<SyncRequest>,
        /// When that arrived: its ages count from then, however long it waits here.
        received: Moment,
    },
    /// A power device was read.
    Power {
        /// The host.
        host: HostName,
        /// The reading.
        reading: PowerReading,
    },
    /// A voter has answered.
    Answer {
        /// The host that it was asked about.
        host: HostName,
        /// Who answered.
        voter: HostName,
        /// The answer.
        answer: Answer,
    },
    /// A question has ended.
    Asked(Wish),
    /// A receiver has confirmed an alert.
    Delivered(Delivered),
    /// An operator wants something.
    Desk {
        /// What.
        request: crate::desk::Request,
        /// Where the answer goes.
        answer: oneshot::Sender<Result<crate::desk::Answer, crate::desk::Denied>>,
    },
}

/// The way to the coordinator of this host; cheap to clone.
#[derive(Clone)]
pub struct Coordinator {
    node: Arc<Node>,
    inputs: mpsc::Sender<Input>,
    rounds: watch::Receiver<Option<Round>>,
}

impl Coordinator {
    /// Starts the coordinator's task on a voter.
    #[must_use]
    pub fn start(
        node: Arc<Node>,
        consensus: Consensus,
        alerts: watch::Sender<Arc<AlertState>>,
        troubles: watch::Receiver<Vec<crate::alerts::Trouble>>,
    ) -> Self {
        let (inputs, receiver) = mpsc::channel(INPUTS);
        let (round_sender, rounds) = watch::channel(None);
        tokio::spawn(rounds::keep(consensus.clone(), Arc::new(round_sender)));
        let handle = Self { node: Arc::clone(&node), inputs: inputs.clone(), rounds: rounds.clone() };
        let evidence = Evidence { me: Some(node.host().clone()), marks: Marks::new(node.started), ..Evidence::default() };
        let brain = Brain {
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
        };
        tokio::spawn(brain.run(receiver));
        handle
    }

    /// Hands something in; waits when too much is waiting already.
    pub async fn tell(&self, input: Input) {
        if self.inputs.send(input).await.is_err() {
            tracing::error!("the coordinator's task has ended");
        }
    }

    /// Waits until the coordinator's task has ended, which it does only by a bug or when consensus has stopped: syncs
    /// that nobody takes in must not keep a lead.
    pub async fn ended(&self) {
        self.inputs.closed().await;
    }

    /// Serves one sync, if this host has authority.
    ///
    /// # Errors
    /// Why it cannot: the agent asks another voter.
    pub async fn sync(&self, request: SyncRequest) -> Result<SyncReply, String> {
        let input = Input::Sync { request: Box::new(request.clone()), received: clock::moment() };
        self.inputs.try_send(input).map_err(|_| "the coordinator is overloaded".to_owned())?;
        let round = rounds::fresh(self.rounds.clone(), AUTHORITY_PATIENCE).await;
        let round = round.ok_or("this voter has no confirmed authority")?;
        let lease = self.node.file.timing.lease.0;
        Ok(self.node.read(|state| replies::reply(state, &request, round, lease, clock::moment())))
    }
}

struct Brain {
    node: Arc<Node>,
    consensus: Consensus,
    inputs: mpsc::Sender<Input>,
    rounds: watch::Receiver<Option<Round>>,
    evidence: Evidence,
    wishes: Wishes,
    report: Report,
    alerts: watch::Sender<Arc<AlertState>>,
    troubles: watch::Receiver<Vec<crate::alerts::Trouble>>,
    handed_over: Option<Moment>,
    led_term: Option<u64>,
    refused: VecDeque<(Change, Moment)>,
    doubting: bool,
    numbers: Numbers,
    exported: Moment,
    /// The newest sync of each host: its boot and nonce.
    nonces: BTreeMap<HostName, (String, u64)>,
    /// The state that alerts were last told of: its index, and whether this host led.
    published: Option<(u64, bool)>,
}

impl Brain {
    async fn run(mut self, mut inputs: mpsc::Receiver<Input>) {
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

    fn leads(&self) -> bool {
        self.consensus.leadership().borrow().is_me
    }

    async fn take_sync(&mut self, request: SyncRequest, received: Moment) {
        if !self.leads() {
            return;
        }
        // Without authority a proposal would wait for a quorum; agents say it all again.
        let confirmed = self.rounds.borrow().is_some();
        let joined = self.node.read(|state| state.hosts.get(&request.host).is_some_and(|known| known.facts == request.facts));
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
            let own = self.node.read(|state| state.orders.get(&result.order).is_some_and(|order| gather::is_own(order, &request)));
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
        let commands = if confirmed { decision.commands } else { Vec::new() };
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

    async fn commit(&mut self, what: Change) -> Result<Applied, String> {
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
            let same = known.active == state.active && known.receivers == state.receivers && known.incidents == state.incidents;
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
            voter != self.node.host() && !unwell && self.node.heard.last_any(voter).is_some_and(|at| now.since(at) < fresh)
        });
        if let Some(voter) = well {
            match self.consensus.transfer_to(&voter).await {
                Ok(()) => tracing::warn!(to = %voter, "handed the lead over"),
                Err(error) => tracing::warn!(%error, "the lead could not be handed over"),
            }
        }
    }
}
