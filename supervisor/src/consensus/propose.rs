//! What only the leader can do: commit an entry, and prove that it still leads.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use openraft::{
    ReadPolicy,
    errors::{ClientWriteError, ForwardToLeader, LinearizableReadError, RaftError},
};

use super::{
    Consensus,
    errors::ProposeError,
    types::{EntryBytes, Types},
};

/// Largest entry, in bytes. Decisions are a few kilobytes; what operators declare is the largest thing that is committed, and takes
/// some 1.4 MiB for 10,000 guests. Much more would hold up what is sent after it on the same connections, heartbeats among that,
/// and the disk: so much takes 20 ms at 1 Gbit/s.
pub const ENTRY_BYTES_MAX: usize = 2 * 1024 * 1024;

/// An entry that is not committed within this will probably not be soon: there is no quorum.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// A quorum that does not confirm within this is not there; agents ask again long before.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);
/// A fresh leader does not know for a moment that it leads; so long it is asked again.
const FRESH_LEADER: Duration = Duration::from_millis(500);
/// Rest between such questions.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// A committed entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Its index in the log.
    pub index: u64,
    /// What the machine answered.
    pub reply: Vec<u8>,
}

/// Proof that this node led after the call began, and how far its state reaches (R2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Authority {
    /// Term and node id of the leader, in the order in which leaders supersede each other.
    pub vote: (u64, u64),
    /// Everything committed before the call began has at most this index, and is applied here.
    pub index: u64,
}

/// How one attempt failed.
enum Failed {
    /// Nothing happened; this node may be about to lead.
    Again,
    /// Final.
    For(ProposeError),
}

impl Consensus {
    /// Commits an entry and returns the machine's reply.
    ///
    /// # Errors
    /// [`ProposeError::Unavailable`] leaves open whether the entry is or will be committed; the others mean it is not.
    pub async fn propose(&self, entry: Vec<u8>) -> Result<Applied, ProposeError> {
        if entry.len() > ENTRY_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes: entry.len(), limit: ENTRY_BYTES_MAX });
        }
        self.lead(PROPOSE_TIMEOUT, || async {
            match self.inner.raft.client_write(EntryBytes(entry.clone())).await {
                Ok(written) => Ok(Applied { index: written.log_id.index(), reply: written.data }),
                Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => Err(self.forward(forward)),
                Err(RaftError::APIError(other)) => Err(Failed::For(ProposeError::Unavailable(other.to_string()))),
                Err(RaftError::Fatal(fatal)) => Err(Failed::For(self.halted(&fatal.to_string()))),
            }
        })
        .await
    }

    /// Proves by a round to a quorum, begun after this call, that this node leads, and waits until all that was
    /// committed before is applied here. The caller notes the time before the call: that is when the proof dates from.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn read_index(&self) -> Result<Authority, ProposeError> {
        self.lead(CONFIRM_TIMEOUT, || async {
            match self.inner.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
                Ok(read) => {
                    let log_id = read.log_id();
                    let leader = log_id.committed_leader_id();
                    Ok(Authority { vote: (leader.term, leader.node_id), index: log_id.index() })
                }
                Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => Err(self.forward(forward)),
                Err(RaftError::APIError(other)) => Err(Failed::For(ProposeError::Unavailable(other.to_string()))),
                Err(RaftError::Fatal(fatal)) => Err(Failed::For(self.halted(&fatal.to_string()))),
            }
        })
        .await
    }

    /// Tries `attempt` within `timeout`, and again while this node may be about to lead.
    async fn lead<T, F>(&self, timeout: Duration, attempt: impl Fn() -> F) -> Result<T, ProposeError>
    where
        F: Future<Output = Result<T, Failed>>,
    {
        if let Err(reason) = self.health() {
            return Err(ProposeError::Halted(reason));
        }
        if self.gives_way() {
            return Err(ProposeError::NotLeader(None));
        }
        let began = Instant::now();
        loop {
            let left = timeout.saturating_sub(began.elapsed());
            match tokio::time::timeout(left, attempt()).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(Failed::For(error))) => return Err(error),
                Ok(Err(Failed::Again)) if began.elapsed() < FRESH_LEADER => tokio::time::sleep(ASK_AGAIN).await,
                Ok(Err(Failed::Again)) => return Err(ProposeError::NotLeader(None)),
                Err(_) => return Err(ProposeError::Unavailable(format!("no quorum answered within {timeout:?}"))),
            }
        }
    }

    fn forward(&self, forward: ForwardToLeader<Types>) -> Failed {
        match forward.leader_node {
            // A leader that waits for its first or next word from a quorum names itself.
            Some(place) if forward.leader_id != Some(*self.inner.raft.node_id()) => {
                Failed::For(ProposeError::NotLeader(Some(place.host)))
            }
            _ => Failed::Again,
        }
    }

    fn halted(&self, fatal: &str) -> ProposeError {
        let cause = self.inner.store.health().failure().unwrap_or(fatal);
        ProposeError::Halted(cause.to_owned())
    }
}
