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

use std::{collections::BTreeMap, sync::Arc, time::Duration};

pub use desk::Counter;
use holdfast_policies::{
    change::{Applied, Change, Command},
    decide::{Report, Wish, decide},
    evidence::{Answer, Evidence, Marks},
    names::HostName,
    proof::PowerReading,
    sync::{SyncReply, SyncRequest},
    time::Now,
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

/// How often numbers are brought up to date.
const EXPORT_EVERY: Duration = Duration::from_secs(1);

/// Something for the coordinator.
pub enum Input {
    /// An agent has synced.
    Sync(Box<SyncRequest>),
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
            doubting: false,
            numbers: Numbers::default(),
            exported: holdfast_policies::time::Moment(0),
            nonces: BTreeMap::new(),
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

    /// Serves one sync, if this host has authority.
    ///
    /// # Errors
    /// Why it cannot: the agent asks another voter.
    pub async fn sync(&self, request: SyncRequest) -> Result<SyncReply, String> {
        let boxed = Box::new(request.clone());
        self.inputs.try_send(Input::Sync(boxed)).map_err(|_| "the coordinator is overloaded".to_owned())?;
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
    handed_over: Option<holdfast_policies::time::Moment>,
    led_term: Option<u64>,
    doubting: bool,
    numbers: Numbers,
    exported: holdfast_policies::time::Moment,
    /// The newest sync of each host: its boot and nonce.
    nonces: BTreeMap<HostName, (String, u64)>,
}

impl Brain {
    async fn run(mut self, mut inputs: mpsc::Receiver<Input>) {
        let mut applied = self.consensus.applied();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                input = inputs.recv() => match input {
                    Some(input) => self.take(input).await,
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
            Input::Sync(request) => self.take_sync(*request).await,
            Input::Power { host, reading } => gather::power(&mut self.evidence, &host, reading),
            Input::Answer { host, voter, answer } => gather::answer(&mut self.evidence, &host, voter, answer),
            Input::Asked(wish) => self.wishes.done(wish, now),
            Input::Delivered(Delivered { incident, receiver, seq }) => {
                self.propose(Change::Delivered { incident, receiver, seq }).await;
            }
            Input::Desk { request, answer } => {
                let answered = self.serve(request).await;
                // The asker may have gone; what was decided stays decided.
                let _ = answer.send(answered);
            }
        }
    }

    fn leads(&self) -> bool {
        self.consensus.leadership().borrow().is_me
    }

    async fn take_sync(&mut self, request: SyncRequest) {
        if !self.leads() {
            return;
        }
        if !self.is_newest(&request) {
            return;
        }
        gather::sync(&mut self.evidence, &request, clock::moment());
        let joined = self.node.read(|state| state.hosts.get(&request.host).is_some_and(|known| known.facts == request.facts));
        if !joined {
            self.propose(Change::HostJoined { host: request.host.clone(), facts: request.facts.clone() }).await;
        }
        for result in request.results {
            let open = self.node.read(|state| {
                let order = state.orders.get(&result.order);
                order.is_some_and(|order| order.host == request.host && order.incarnation == request.facts.incarnation)
            });
            if open {
                self.propose(Change::OrderEnded { order: result.order, outcome: result.outcome }).await;
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
        for change in decision.commands {
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
        match self.commit(what).await {
            Ok(Applied { refused: None, .. }) => true,
            Ok(Applied { refused: Some(refused), .. }) => {
                tracing::debug!(%refused, "a decision did not fit the state any more");
                false
            }
            Err(error) => {
                tracing::warn!(%error, "a decision was not committed");
                false
            }
        }
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

    fn publish(&self, active: bool) {
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
    async fn doubt_oneself(&mut self, now: holdfast_policies::time::Moment) {
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

    async fn hand_over(&self, now: holdfast_policies::time::Moment) {
        let fresh = self.node.file.timing.suspect_after.0;
        let well = self.node.voters().into_keys().find(|voter| {
            voter != self.node.host() && self.node.heard.last_any(voter).is_some_and(|at| now.since(at) < fresh)
        });
        if let Some(voter) = well {
            match self.consensus.transfer_to(&voter).await {
                Ok(()) => tracing::warn!(to = %voter, "handed the lead over"),
                Err(error) => tracing::warn!(%error, "the lead could not be handed over"),
            }
        }
    }
}
