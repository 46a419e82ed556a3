//! The types that openraft is instantiated with: the product's entries and places, on a runtime that a seed rules.

use holdfast::consensus::{EntryBytes, Place};
use openraft_rt_sim::SimRuntime;

use super::machine::Applier;

openraft::declare_raft_types!(
    /// As the product has them, but for the runtime.
    pub(super) Types:
        D = EntryBytes,
        R = Vec<u8>,
        NodeId = u64,
        Node = Place,
        AsyncRuntime = SimRuntime,
);

/// A voter's raft.
pub(super) type Voter = openraft::Raft<Types, Applier>;
pub(super) type Vote = openraft::alias::VoteOf<Types>;
pub(super) type Entry = openraft::alias::EntryOf<Types>;
pub(super) type LogId = openraft::alias::LogIdOf<Types>;
/// Who led when an entry was made: a term and a node. Two leaders may share a term; the greater node comes later.
pub(super) type LeaderId = openraft::alias::LeaderIdOf<Types>;
pub(super) type Membership = openraft::alias::StoredMembershipOf<Types>;
pub(super) type SnapshotMeta = openraft::alias::SnapshotMetaOf<Types>;
pub(super) type Snapshot = openraft::alias::SnapshotOf<Types, Vec<u8>>;
