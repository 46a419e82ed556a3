//! Agreement among the voters: proposed entries are committed by a quorum and applied to the [`Machine`] in one order.
//!
//! Openraft does the work and does not show outside this folder, but for how it is configured and what an entry is: by those,
//! voters are simulated as they are (`tests/src/voters`). Nothing is answered from a leader's lease: authority
//! is proven by a round to a quorum each time ([`Consensus::read_index`], R2), and a restarted leader is elected anew.

mod config;
mod errors;
mod health;
mod leadership;
mod log;
mod machine;
mod membership;
mod network;
mod promises;
mod propose;
mod receive;
mod remains;
mod silence;
mod standing;
mod store;
mod strangers;
#[cfg(test)]
mod tests;
mod types;

pub use config::{ConsensusConfig, Tuning};
pub use errors::{MembershipError, ProposeError, StartError};
pub use health::Cause;
pub use leadership::{Leadership, Status, progress};
pub use machine::{Halt, Machine};
pub use membership::{Roster, RosterEntry};
pub use propose::{Applied, Authority, ENTRY_BYTES_MAX};
pub use remains::{Anew, Remains};
pub use standing::{Heard, Standing, ask, no_vote};
pub use types::{EntryBytes, Place};

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, RwLock},
    time::Duration,
};

use holdfast_policies::{giving_way::Progress, names::HostName};
use openraft::{
    Raft, RaftLogReader as _,
    async_runtime::watch::WatchReceiver,
    errors::{InitializeError, RaftError},
    storage::RaftLogStorage as _,
};
use tokio::{sync::watch, task::JoinHandle};

use self::{
    log::Log,
    machine::Applier,
    network::{Network, Sender},
    promises::{Promised, Promises},
    receive::Receiver,
    silence::Silence,
    standing::Generation,
    store::Store,
    strangers::Strangers,
    types::{SnapshotMeta, Types},
};
use super::rpc::Client;

/// How often it is looked whether this node still takes part.
const HEALTH_EVERY: Duration = Duration::from_millis(200);

/// This host's part in the agreement; cheap to clone.
#[derive(Clone)]
pub struct Consensus {
    inner: Arc<Inner>,
}

struct Inner {
    raft: Raft<Types, Applier>,
    store: Arc<Store>,
    receiver: Arc<Receiver>,
    silence: Silence,
    applied: watch::Receiver<u64>,
    leadership: watch::Receiver<Leadership>,
    watching: JoinHandle<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

impl Consensus {
    /// Opens or makes the store, restores the machine from it up to what was known to be committed, and takes part.
    ///
    /// # Errors
    /// See [`StartError`]; nothing runs then.
    pub async fn start(
        config: ConsensusConfig,
        machine: Arc<RwLock<dyn Machine>>,
        client: Client,
    ) -> Result<Self, StartError> {
        let (directory, cluster, node_id, create) =
            (config.store_dir.clone(), config.cluster.clone(), config.node_id, config.create);
        let store = tokio::task::spawn_blocking(move || Store::open(&directory, &cluster, node_id, create))
            .await
            .map_err(|error| StartError::Halted(error.to_string()))??;
        Self::start_on(store, config, machine, client).await
    }

    async fn start_on(
        store: Store,
        config: ConsensusConfig,
        machine: Arc<RwLock<dyn Machine>>,
        client: Client,
    ) -> Result<Self, StartError> {
        let raft_config = Arc::new(config.tuning.raft_config(&config.cluster)?);
        let store = Arc::new(store);
        let (applied_sender, applied) = watch::channel(0);
        let generation = Generation::of(Arc::clone(&machine));
        let applier = Applier::new(machine, Arc::clone(&store), applied_sender);
        let reached = reached(&store).await.map_err(|error| StartError::Halted(error.to_string()))?;
        let promises = Promises::default();
        let health = store.health().clone();
        let silence = Silence::default();
        let sender = Arc::new(Sender {
            cluster: config.cluster.clone(),
            node_id: config.node_id,
            generation: generation.clone(),
            client,
            promises,
            health: health.clone(),
            silence: silence.clone(),
        });
        let network = Network(Arc::clone(&sender));
        let raft = Raft::new(config.node_id, raft_config, network, Log::new(Arc::clone(&store)), applier)
            .await
            .map_err(|error| {
                let cause = store.health().failure().map_or_else(|| error.to_string(), str::to_owned);
                StartError::Halted(cause)
            })?;
        let (leadership, watching) = leadership::follow(&raft);
        let receiver = Receiver::new(
            config.cluster,
            (config.node_id, generation),
            raft.clone(),
            (reached, health, silence.clone()),
            Strangers::new(sender),
        );
        Ok(Self { inner: Arc::new(Inner { raft, store, receiver, silence, applied, leadership, watching }) })
    }

    /// Answers a request on [`super::rpc::Channel::Raft`]; `peer` is who the certificate says sent it.
    ///
    /// # Errors
    /// The reason, for the peer: not a raft message, another cluster or node, or consensus stopped here.
    pub async fn handle_rpc(&self, peer: &HostName, body: &[u8]) -> Result<Vec<u8>, String> {
        // Raft would refuse it too, and log an error for each of the leader's heartbeats.
        self.health()?;
        self.inner.receiver.handle(peer, body).await
    }

    /// Founds the cluster with these voters; called on one of them, once (R23).
    ///
    /// # Errors
    /// [`MembershipError::AlreadyInitialised`] when this node has a log already.
    pub async fn initialize(&self, voters: BTreeMap<u64, Place>) -> Result<(), MembershipError> {
        match self.inner.raft.initialize(voters).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Err(MembershipError::AlreadyInitialised),
            Err(error) => Err(MembershipError::Raft(error.to_string())),
        }
    }

    /// Asks the voter `host` to take the lead; on the leader. Whether it did is seen in [`Self::leadership`].
    ///
    /// # Errors
    /// [`MembershipError::NotVoter`] when it is none; [`MembershipError::Uncommitted`] while others may lack what this node has, or it gives
    /// way, and nobody would be told. Raft has a leader that was asked this lead no more in its term, and one without whom there is no
    /// majority would be missed for ever.
    pub async fn transfer_to(&self, host: &HostName) -> Result<(), MembershipError> {
        let voters = self.status().voters;
        let found = voters.iter().find(|(_, place)| place.host == *host);
        let (node_id, _) = found.ok_or_else(|| MembershipError::NotVoter(host.clone()))?;
        if self.gives_way() || self.progress().is_some_and(|progress| progress.applied < progress.last) {
            return Err(MembershipError::Uncommitted);
        }
        let asked = self.inner.raft.trigger().transfer_leader(*node_id).await;
        asked.map_err(|error| MembershipError::Raft(error.to_string()))
    }

    /// How far this node has come as the leader; `None` when it does not lead.
    #[must_use]
    pub fn progress(&self) -> Option<Progress> {
        leadership::progress(&self.inner.raft.metrics().borrow_watched())
    }

    /// Gives way to another leader: for so long this node says nothing to the other voters, takes no part in their election, and has no
    /// authority. A host that is elected meanwhile is followed at once; if none is, this one leads on afterwards.
    pub fn give_way(&self, time: Duration) {
        self.inner.silence.keep(time);
    }

    /// Whether this node gives way at present.
    #[must_use]
    pub fn gives_way(&self) -> bool {
        self.inner.silence.holds()
    }

    /// Who leads, as far as this node knows; changes wake the receiver.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.clone()
    }

    /// The index of the last entry applied to the machine; changes wake the receiver.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.inner.applied.clone()
    }

    /// Numbers for metrics and operators.
    #[must_use]
    pub fn status(&self) -> Status {
        leadership::status(&self.inner.raft.metrics().borrow_watched())
    }

    /// Who votes and where they listen, by the newest membership that this node knows; nobody before birth.
    #[must_use]
    pub fn voters(&self) -> BTreeMap<HostName, SocketAddr> {
        leadership::voters(&self.inner.raft.metrics().borrow_watched())
    }

    /// The random number that this store got when it was made (R23, R24).
    #[must_use]
    pub fn store_id(&self) -> u64 {
        self.inner.store.identity().store_id
    }

    /// Whether this node can take part.
    ///
    /// # Errors
    /// Why it stopped; only a restart helps, after the cause is gone.
    pub fn health(&self) -> Result<(), String> {
        if let Some(failure) = self.inner.store.health().failure() {
            return Err(failure.to_owned());
        }
        let metrics = self.inner.raft.metrics();
        let running = metrics.borrow_watched().running_state.clone();
        running.map_err(|error| error.to_string())
    }

    /// What stopped this node, if its store or its machine did.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        self.inner.store.health().cause()
    }

    /// Stops this node for good: the cluster was recovered and goes on in a later generation, as `by` says (R25).
    pub fn supersede(&self, own: u32, later: u32, by: &HostName) {
        self.inner.store.health().fail(Cause::Superseded, &network::superseded(own, later, by));
    }

    /// Waits until this node takes no part any more; returns why.
    pub async fn stopped(&self) -> String {
        loop {
            if let Err(reason) = self.health() {
                return reason;
            }
            // Raft tells nobody why it stops; what it says last is not always that it has.
            tokio::time::sleep(HEALTH_EVERY).await;
        }
    }

    /// Stops taking part and makes the store's tail durable.
    pub async fn shutdown(&self) {
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::warn!(%error, "raft did not stop cleanly");
        }
        if self.inner.store.health().failure().is_none() {
            // A failure is logged where it happens, and costs nothing but a longer replay.
            let _ = Log::new(Arc::clone(&self.inner.store)).flush().await;
        }
    }
}

/// How far a store had gone when it was opened.
async fn reached(store: &Arc<Store>) -> std::io::Result<Promised> {
    let mut log = Log::new(Arc::clone(store));
    let (vote, state) = (log.read_vote().await?, log.get_log_state().await?);
    let snapshot = store::blocking(store, |store| store.snapshot_meta::<SnapshotMeta>()).await?;
    // After a crash a snapshot may be stored and the log before it not yet purged.
    let snapshot = snapshot.and_then(|meta| meta.last_log_id);
    Ok(Promised::on_disk(vote.as_ref(), &[state.last_log_id, snapshot]))
}
