//! The replicated state as raft sees it: applies committed entries in order, and takes and installs snapshots.

use std::{
    io,
    sync::{Arc, RwLock},
};

use futures_util::{Stream, StreamExt};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder,
    storage::{EntryResponder, RaftStateMachine},
};
use tokio::sync::watch;

use super::{
    health::Cause,
    store::{Store, blocking},
    types::{LogId, Membership, Snapshot, SnapshotMeta, Types},
};

/// Why the machine cannot go on: a command that it does not know (R26), or a snapshot that it cannot read. This node
/// stops applying; guessing would let its state differ from the others'.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Halt(pub String);

/// The replicated state. It lives in memory: after a restart it is made again from the last snapshot and the log.
pub trait Machine: Send + Sync + 'static {
    /// Applies a committed entry. It must depend on nothing but the state and the arguments. The reply goes to the
    /// proposer, if that is this node.
    ///
    /// # Errors
    /// [`Halt`] stops this node; an entry that is merely not allowed is an `Ok` reply that says so.
    fn apply(&mut self, index: u64, entry: &[u8]) -> Result<Vec<u8>, Halt>;

    /// The cluster's generation, as the state has it; it grows only with a recovery (R25).
    fn generation(&self) -> u32 {
        1
    }

    /// The whole state.
    ///
    /// # Errors
    /// [`Halt`] stops this node.
    fn snapshot(&self) -> Result<Vec<u8>, Halt>;

    /// Replaces the whole state.
    ///
    /// # Errors
    /// [`Halt`] stops this node.
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), Halt>;
}

/// The machine with what raft wants to know about it.
pub(super) struct Applier {
    machine: Arc<RwLock<dyn Machine>>,
    store: Arc<Store>,
    applied: Option<LogId>,
    membership: Membership,
    applied_index: watch::Sender<u64>,
}

impl Applier {
    pub(super) fn new(machine: Arc<RwLock<dyn Machine>>, store: Arc<Store>, applied_index: watch::Sender<u64>) -> Self {
        Self { machine, store, applied: None, membership: Membership::default(), applied_index }
    }

    fn halt(&self, doing: &str, reason: &str) -> io::Error {
        let reason = format!("cannot {doing}: {reason}");
        self.store.health().fail(Cause::Machine, &reason);
        io::Error::other(reason)
    }

    fn apply_one(&self, index: u64, entry: &[u8]) -> io::Result<Vec<u8>> {
        let applied = self.change(|machine| machine.apply(index, entry));
        applied.map_err(|reason| self.halt(&format!("apply the log entry {index}"), &reason))
    }

    fn restore(&self, data: &[u8]) -> io::Result<()> {
        self.change(|machine| machine.restore(data)).map_err(|reason| self.halt("restore a snapshot", &reason))
    }

    /// Changes the machine. A panic leaves a state that nobody can vouch for: it halts, now and at the poisoned lock.
    fn change<T>(&self, change: impl FnOnce(&mut dyn Machine) -> Result<T, Halt>) -> Result<T, String> {
        let changed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| match self.machine.write() {
            Ok(mut machine) => change(&mut *machine).map_err(|halt| halt.0),
            Err(_) => Err("a panic left the state unfinished".to_owned()),
        }));
        changed.unwrap_or_else(|_| Err("a panic left the state unfinished".to_owned()))
    }

    fn advance(&mut self, to: Option<LogId>) {
        self.applied = to;
        self.applied_index.send_replace(to.map_or(0, |applied| applied.index()));
    }
}

impl RaftStateMachine<Types> for Applier {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let log_id = entry.log_id;
            let reply = match entry.payload {
                EntryPayload::Blank => Vec::new(),
                EntryPayload::Normal(bytes) => self.apply_one(log_id.index(), &bytes.0)?,
                EntryPayload::Membership(membership) => {
                    self.membership = Membership::new(Some(log_id), membership);
                    Vec::new()
                }
            };
            self.advance(Some(log_id));
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        // Taken here, between two entries, so that the snapshot is of exactly this log id.
        let data = match self.machine.read() {
            Ok(machine) => machine.snapshot().map_err(|halt| halt.0),
            Err(_) => Err("a panic left the state unfinished".to_owned()),
        };
        let data = data.map_err(|reason| self.halt("take a snapshot", &reason).to_string());
        let meta = SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() };
        Builder { store: Arc::clone(&self.store), meta, data }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: Vec<u8>) -> Result<(), io::Error> {
        self.restore(&data)?;
        let wanted = meta.clone();
        blocking(&self.store, move |store| put(store, &wanted, &data)).await?;
        self.membership = meta.last_membership.clone();
        self.advance(meta.last_log_id);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let found = blocking(&self.store, |store| store.snapshot::<SnapshotMeta>()).await?;
        Ok(found.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

fn put(store: &Store, meta: &SnapshotMeta, data: &[u8]) -> io::Result<()> {
    store.put_snapshot(meta, data, |stored| stored.last_log_id >= meta.last_log_id)
}

/// A snapshot that was taken and is yet to be stored.
pub(super) struct Builder {
    store: Arc<Store>,
    meta: SnapshotMeta,
    data: Result<Vec<u8>, String>,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let data = self.data.clone().map_err(io::Error::other)?;
        let meta = self.meta.clone();
        blocking(&self.store, move |store| {
            put(store, &meta, &data)?;
            Ok(Snapshot { meta, snapshot: data })
        })
        .await
    }
}
