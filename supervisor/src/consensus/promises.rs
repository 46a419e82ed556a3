//! What voters have promised, remembered by those who were promised (R24).
//!
//! A store that was restored from an older copy has forgotten promises, and voting again it would give them twice. Every
//! message says what its sender was promised; a store that knows less takes part in nothing any more. A healthy one never
//! does: a vote and entries are on disk before they are acknowledged, and what is committed is never taken back.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use openraft::{entry::RaftEntry, raft::AppendEntriesRequest};
use serde::{Deserialize, Serialize};

use super::types::{LogId, Types, Vote};

/// How far a voter has gone: both only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Promised {
    /// The newest term in which it has taken a leader's word.
    term: u64,
    /// The newest entry that it has.
    index: u64,
}

impl Promised {
    /// What is on a store.
    pub(super) fn on_disk(vote: Option<&Vote>, ends: &[Option<LogId>]) -> Self {
        let index = ends.iter().flatten().map(LogId::index).max().unwrap_or(0);
        Self { term: vote.map_or(0, |vote| vote.leader_id().term), index }
    }

    /// What a voter has when it has taken these entries.
    pub(super) fn with(request: &AppendEntriesRequest<Types>) -> Self {
        let last = request.entries.last().map(RaftEntry::index);
        let last = last.or(request.prev_log_id.as_ref().map(LogId::index));
        Self { term: request.vote.leader_id().term, index: last.unwrap_or(0) }
    }

    /// What of it cannot be taken back: entries that are not committed may be replaced by another leader's.
    pub(super) fn for_good(self, request: &AppendEntriesRequest<Types>) -> Self {
        let committed = request.leader_commit.as_ref().map_or(0, LogId::index);
        Self { index: self.index.min(committed), ..self }
    }

    /// The further of each.
    pub(super) fn max(self, other: Self) -> Self {
        Self { term: self.term.max(other.term), index: self.index.max(other.index) }
    }

    /// Whether a voter that has gone so far has forgotten nothing of `other`.
    pub(super) fn covers(self, other: Self) -> bool {
        self.max(other) == self
    }
}

/// What was promised to this node, by node. Only ids of voters that were sent something: a handful.
#[derive(Debug, Default)]
pub(super) struct Promises(Mutex<BTreeMap<u64, Promised>>);

impl Promises {
    /// What a node has promised.
    pub(super) fn of(&self, node_id: u64) -> Promised {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&node_id).copied().unwrap_or_default()
    }

    /// Notes a promise.
    pub(super) fn note(&self, node_id: u64, promised: Promised) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.entry(node_id).or_default();
        *before = before.max(promised);
    }
}
