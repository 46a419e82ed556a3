//! The coordinator: one task that owns the evidence, decides, and has its decisions committed.
//!
//! It runs on every voter and acts only on the one that leads. Nothing that it holds has to survive: all work is
//! derived again from the replicated state (R4).

mod brain;
mod desk;
mod gather;
mod numbers;
mod replies;
mod rounds;
pub mod wishes;

use std::{sync::Arc, time::Duration};

pub use desk::Counter;
use holdfast_policies::{
    decide::Wish,
    evidence::Answer,
    names::HostName,
    proof::PowerReading,
    sync::{SyncReply, SyncRequest},
    time::Moment,
};
use tokio::sync::{mpsc, oneshot, watch};

use self::{brain::Brain, rounds::Round};
use crate::{
    alerts::{AlertState, Delivered},
    clock,
    consensus::Consensus,
    node::Node,
};

/// Inputs that may wait: every agent's sync and every answer of one bad second in a large cluster. More wait outside.
const INPUTS: usize = 1_024;

/// How long a sync may wait for authority; agents ask another voter after that.
const AUTHORITY_PATIENCE: Duration = Duration::from_millis(400);

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
        let brain = Brain::new(node, consensus, inputs, rounds, (alerts, troubles));
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
