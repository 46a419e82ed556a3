//! The coordinator: one task that owns the evidence, decides, and has its decisions committed.
//!
//! It runs on every voter and acts only on the one that leads. Nothing that it holds has to survive: all work is
//! derived again from the replicated state (R4).

mod applying;
mod brain;
mod commit;
mod counter;
mod declared;
mod desk;
mod gather;
mod grants;
mod inbox;
mod lead;
mod numbers;
mod pace;
pub mod paths;
mod patience;
mod replies;
mod rounds;
mod syncs;
mod tolerance;
mod views;
mod voters;
mod waking;
pub mod wishes;

use std::{sync::Arc, time::Duration};

pub use counter::Counter;
use holdfast_policies::{
    decide::Wish,
    evidence::Answer,
    names::{HostName, Incarnation},
    proof::PowerReading,
    sync::{SyncReply, SyncRequest},
    time::Moment,
};
use tokio::sync::{mpsc, oneshot, watch};
pub use voters::VoterWish;

use self::{
    brain::Brain,
    grants::Grants,
    inbox::{INPUTS, Inbox},
    replies::Said,
    rounds::Round,
    views::Views,
    voters::OneChange,
};
use crate::{
    alerts::{AlertState, Delivered},
    clock,
    consensus::Consensus,
    node::Node,
    rpc::Seat,
};

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
        /// Its place among those of its host that wait.
        place: Seat<HostName>,
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
        /// A boot that has not joined, and how long ago the voter heard it.
        other_boot: Option<(Incarnation, Duration)>,
    },
    /// A question has ended.
    Asked(Wish),
    /// Power devices have been asked while nothing was wrong; `None` when there was nothing to ask any more.
    Tested(Option<Box<paths::Tested>>),
    /// A receiver has confirmed an alert.
    Delivered(Delivered),
    /// An operator wants something.
    Desk {
        /// What.
        request: crate::desk::Request,
        /// Who vouches for it.
        voucher: crate::desk::Voucher,
        /// Where the answer goes.
        answer: oneshot::Sender<Result<crate::desk::Answer, crate::desk::Denied>>,
    },
}

/// The way to the coordinator of this host; cheap to clone.
#[derive(Clone)]
pub struct Coordinator {
    node: Arc<Node>,
    inbox: Inbox,
    rounds: watch::Receiver<Option<Round>>,
    said: watch::Receiver<Said>,
    change: OneChange,
    consensus: Consensus,
    grants: Grants,
    views: Views,
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
        let (said_sender, said) = watch::channel(Said::default());
        node.duties.begin_vital("authority", rounds::keep(consensus.clone(), Arc::new(round_sender)));
        let handle = Self {
            node: Arc::clone(&node),
            inbox: Inbox::of(inputs.clone()),
            rounds: rounds.clone(),
            said,
            change: OneChange::default(),
            consensus: consensus.clone(),
            grants: Grants::default(),
            views: Views::default(),
        };
        let (grants, beside) = (handle.grants.clone(), handle.inbox.beside());
        let brain = Brain::new(node, consensus, (inputs, beside), (rounds, said_sender), (alerts, troubles), grants);
        tokio::spawn(brain.run(receiver));
        handle
    }

    /// Hands something in; waits when too much is waiting already.
    pub async fn tell(&self, input: Input) {
        self.inbox.tell(input).await;
    }

    /// Waits until the coordinator's task has ended, which it does only by a bug or when consensus has stopped: syncs
    /// that nobody takes in must not keep a lead.
    pub async fn ended(&self) {
        self.inbox.closed().await;
    }

    fn leads_in(&self, term: u64) -> bool {
        let status = self.consensus.status();
        status.term == term && status.leader.is_some_and(|(_, host)| host == *self.node.host())
    }

    /// Serves one sync, if this host has authority.
    ///
    /// # Errors
    /// Why it cannot: the agent asks another voter.
    pub async fn sync(&self, request: SyncRequest) -> Result<SyncReply, String> {
        self.inbox.sync(&request, clock::moment())?;
        let declared = self.views.declared(&self.node, &request).await;
        let round = rounds::fresh(self.rounds.clone(), AUTHORITY_PATIENCE).await;
        let round = round.ok_or("this voter has no confirmed authority")?;
        let lease = self.node.file.timing.lease.0;
        let said = self.said.borrow().clone();
        let reply = self.node.read(|state| {
            let halted = replies::halted(state) || replies::is_ahead(state, request.seen, round);
            if halted {
                return None;
            }
            let now = clock::moment();
            let reply = replies::reply(state, &request, round, lease, now, &said);
            self.grants.note(&request, &reply, round.began);
            let news = self.views.news(state, &request, round.term, declared.as_ref(), now);
            Some(SyncReply { news, ..reply })
        });
        // What was read may be another leader's already; it must not go out under this one's term (R3).
        if !self.leads_in(round.term) {
            return Err("this voter has lost the lead".to_owned());
        }
        reply.ok_or_else(|| "nothing is decided: an old copy of a store was restored".to_owned())
    }
}
