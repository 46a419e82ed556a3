//! What can go wrong with consensus, as its callers see it.

use std::{io, path::PathBuf, time::Duration};

use holdfast_policies::names::HostName;

/// Why consensus did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no store, and making one was not allowed: an amnesiac voter must not vote again under its id (R24).
    #[error("there is no raft store at {path}; a host whose store was lost rejoins under a new node id", path = path.display())]
    NoStore {
        /// Where it should be.
        path: PathBuf,
    },
    /// The store belongs to another cluster (R23).
    #[error("the raft store {path} belongs to the cluster {found:?} and not to {wanted:?}", path = path.display())]
    OtherCluster {
        /// The store.
        path: PathBuf,
        /// What the store says.
        found: String,
        /// What the configuration says.
        wanted: String,
    },
    /// The store belongs to another node.
    #[error("the raft store {path} belongs to node {found} and not to {wanted}", path = path.display())]
    OtherNode {
        /// The store.
        path: PathBuf,
        /// What the store says.
        found: u64,
        /// What the configuration says.
        wanted: u64,
    },
    /// The store was written by a later version (R26).
    #[error("the raft store {path} has format {found}; this version reads up to {known}", path = path.display())]
    Format {
        /// The store.
        path: PathBuf,
        /// What the store says.
        found: u32,
        /// What this version knows.
        known: u32,
    },
    /// The store cannot be opened, read or written.
    #[error("the raft store {path} cannot be used", path = path.display())]
    Store {
        /// The store.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The timing makes no sense.
    #[error("the raft timing is not usable: {0}")]
    Tuning(String),
    /// What is committed cannot be applied, or raft refuses what is stored.
    #[error("consensus cannot start: {0}")]
    Halted(String),
}

/// Why an entry was not committed, or leadership not confirmed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This node does not lead; the leader, if it is known. Nothing was appended.
    #[error("this host does not lead; the leader is {}", .0.as_ref().map_or("not known", HostName::as_str))]
    NotLeader(Option<HostName>),
    /// No quorum answered in time, or leadership was lost meanwhile: the entry may yet be committed.
    #[error("not confirmed: {0}")]
    Unavailable(String),
    /// The entry is larger than an entry may be. Nothing was appended.
    #[error("the entry has {bytes} bytes, but at most {limit} are possible")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// This node stopped for good, until it is restarted.
    #[error("consensus stopped on this host: {0}")]
    Halted(String),
}

/// Why the membership was not changed, or leadership not handed over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// `initialize` happens once (R23).
    #[error("the cluster is initialised already")]
    AlreadyInitialised,
    /// Nobody of that name is a voter.
    #[error("{0} is not a voter")]
    NotVoter(HostName),
    /// It was chosen by a membership that has been changed since, and was not begun; or it was begun, and another one came into it.
    #[error("another change of the voters came first; look at `holdfast voter list` again")]
    Overtaken,
    /// This host leads, and has something that is not committed yet: whoever is to lead may lack it. Or it has just given way for such a
    /// thing. Nothing was begun.
    #[error("this host has something that is not committed yet, and whoever is to lead may lack it")]
    Uncommitted,
    /// No quorum answered in time: the change may yet be committed.
    #[error("the change of the membership was not confirmed within {0:?}; it may yet happen")]
    Unconfirmed(Duration),
    /// Anything else.
    #[error("the membership was not changed: {0}")]
    Raft(String),
}
