//! The product's replicated state as raft sees it, and what was applied to it. As in the product it lives in memory: after a
//! restart it is made again from the last snapshot and the log.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::{Stream, StreamExt as _};
use holdfast::{consensus::Machine as _, replica::Replica};
use holdfast_policies::{change::Command, state::ClusterState};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder,
    storage::{EntryResponder, RaftStateMachine},
};
use serde::{Deserialize, Serialize};

use super::{
    disk::{Store, Write},
    ledger::Ledger,
    types::{Entry, LogId, Membership, Snapshot, SnapshotMeta, Types},
};

/// One voter's copy of the state.
pub(super) struct Mirror {
    voter: u64,
    ledger: Ledger,
    pub(super) replica: Replica,
    /// Index and number of every proposal that was applied, from the first on: snapshots take it along.
    pub(super) history: Vec<(u64, u64)>,
    /// The last entry that was applied, of whatever kind.
    pub(super) applied: Option<LogId>,
}

/// A mirror as it is shared: raft changes it, the checks look at it.
pub(super) type SharedMirror = Arc<Mutex<Mirror>>;

/// Looks at a mirror, or changes it.
pub(super) fn locked(mirror: &SharedMirror) -> MutexGuard<'_, Mirror> {
    mirror.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is in a snapshot.
#[derive(Serialize, Deserialize)]
struct Written {
    /// As the product writes it.
    state: String,
    history: Vec<(u64, u64)>,
}

impl Mirror {
    pub(super) fn new(voter: u64, ledger: Ledger) -> SharedMirror {
        let replica = Replica { state: ClusterState::born() };
        Arc::new(Mutex::new(Self { voter, ledger, replica, history: Vec::new(), applied: None }))
    }

    fn apply(&mut self, log_id: LogId, proposal: Option<&[u8]>) -> io::Result<Vec<u8>> {
        let next = self.applied.map_or(0, |applied| applied.index() + 1);
        if log_id.index() != next {
            self.ledger.fail(&format!("S6: voter {} applies {log_id} where entry {next} is next", self.voter));
        }
        let (number, reply) = match proposal {
            Some(proposal) => {
                let command: Command = serde_json::from_slice(proposal)?;
                let reply = self.replica.apply(log_id.index(), proposal).map_err(io::Error::other)?;
                self.history.push((log_id.index(), command.at.0));
                (Some(command.at.0), reply)
            }
            None => (None, Vec::new()),
        };
        self.applied = Some(log_id);
        self.ledger.applied(self.voter, log_id, number, &reply);
        Ok(reply)
    }

    fn write_down(&self) -> io::Result<Vec<u8>> {
        let state = self.replica.snapshot().map_err(io::Error::other)?;
        let state = String::from_utf8(state).map_err(io::Error::other)?;
        Ok(serde_json::to_vec(&Written { state, history: self.history.clone() })?)
    }

    fn restore(&mut self, last: Option<LogId>, data: &[u8]) -> io::Result<()> {
        let written: Written = serde_json::from_slice(data)?;
        self.replica.restore(written.state.as_bytes()).map_err(io::Error::other)?;
        self.ledger.restored(self.voter, self.applied, last, &written.history);
        self.history = written.history;
        self.applied = last;
        Ok(())
    }
}

/// A mirror with what raft wants to know about it.
pub(super) struct Applier {
    mirror: SharedMirror,
    store: Store,
    membership: Membership,
}

impl Applier {
    pub(super) fn new(mirror: SharedMirror, store: Store) -> Self {
        Self { mirror, store, membership: Membership::default() }
    }

    fn apply_one(&mut self, entry: Entry) -> io::Result<Vec<u8>> {
        // A process that has ended applies nothing.
        self.store.look(|_| ())?;
        let log_id = entry.log_id;
        match entry.payload {
            EntryPayload::Blank => locked(&self.mirror).apply(log_id, None),
            EntryPayload::Normal(bytes) => locked(&self.mirror).apply(log_id, Some(&bytes.0)),
            EntryPayload::Membership(membership) => {
                self.membership = Membership::new(Some(log_id), membership);
                locked(&self.mirror).apply(log_id, None)
            }
        }
    }
}

impl RaftStateMachine<Types> for Applier {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), io::Error> {
        Ok((locked(&self.mirror).applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let reply = self.apply_one(entry)?;
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        // Taken here, between two entries, so that the snapshot is of exactly this log id.
        let (last_log_id, data) = {
            let mirror = locked(&self.mirror);
            (mirror.applied, mirror.write_down().map_err(|error| error.to_string()))
        };
        let meta = SnapshotMeta { last_log_id, last_membership: self.membership.clone() };
        Builder { store: self.store.clone(), meta, data }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: Vec<u8>) -> Result<(), io::Error> {
        self.store.look(|_| ())?;
        locked(&self.mirror).restore(meta.last_log_id, &data)?;
        self.store.keep(Write::Snapshot(meta.clone(), data)).await?;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let found = self.store.look(|image| image.snapshot.clone())?;
        Ok(found.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

/// A snapshot that was taken and is yet to be stored.
pub(super) struct Builder {
    store: Store,
    meta: SnapshotMeta,
    data: Result<Vec<u8>, String>,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let data = self.data.clone().map_err(io::Error::other)?;
        self.store.keep(Write::Snapshot(self.meta.clone(), data.clone())).await?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: data })
    }
}
