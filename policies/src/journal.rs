//! The journal: every decision with its evidence, typed and rendered (S3, "every decision explains itself").

use std::{collections::VecDeque, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    names::{Epoch, GuestName, HostName, Incarnation, OrderId},
    order::OrderOutcome,
    proof::Proof,
    time::WallTime,
};

/// Entries kept: at a few per incident that is months of a small cluster, and about 3 MB of snapshot.
pub const ENTRIES_MAX: usize = 10_000;

/// One decision, or one fact that a decision rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The log index that committed it.
    pub index: u64,
    /// When, on the wall clock of the coordinator that proposed it.
    pub at: WallTime,
    /// What.
    pub what: Event,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are the words of the sentence that Display makes of each")]
pub enum Event {
    HostJoined { host: HostName, incarnation: Incarnation },
    HostFailed { host: HostName, incarnation: Incarnation, evidence: Vec<String> },
    FenceOrdered { host: HostName, executor: HostName, level: usize },
    FenceFailed { host: HostName, detail: String },
    FenceSuperseded { host: HostName, why: String },
    HostGone { host: HostName, incarnation: Incarnation, proof: Proof },
    GuestFree { guest: GuestName, proof: Proof },
    GuestAdopted { guest: GuestName, host: HostName, epoch: Epoch },
    GuestPlaced { guest: GuestName, host: HostName, epoch: Epoch, why: String },
    GuestStarted { guest: GuestName, host: HostName, detail: String },
    GuestVerified { guest: GuestName, host: HostName },
    GuestReleasing { guest: GuestName, host: HostName, why: String },
    RungTaken { guest: GuestName, rung: String, attempt: u32, why: String, evidence: Vec<String> },
    MigrationOrdered { guest: GuestName, from: HostName, to: HostName, why: String },
    MigrationSwitched { guest: GuestName, from: HostName, to: HostName },
    MigrationEnded { guest: GuestName, host: HostName, detail: String },
    OrderEnded { order: OrderId, host: HostName, what: String, outcome: OrderOutcome },
    PoliciesApplied { version: u64, by: String },
    ModeSet { host: HostName, mode: String, by: String },
    IncidentResolved { key: String },
}

impl Event {
    /// The guest that it is about, if any.
    #[must_use]
    pub fn guest(&self) -> Option<&GuestName> {
        match self {
            Self::GuestFree { guest, .. }
            | Self::GuestAdopted { guest, .. }
            | Self::GuestPlaced { guest, .. }
            | Self::GuestStarted { guest, .. }
            | Self::GuestVerified { guest, .. }
            | Self::GuestReleasing { guest, .. }
            | Self::RungTaken { guest, .. }
            | Self::MigrationOrdered { guest, .. }
            | Self::MigrationSwitched { guest, .. }
            | Self::MigrationEnded { guest, .. } => Some(guest),
            Self::HostJoined { .. }
            | Self::HostFailed { .. }
            | Self::FenceOrdered { .. }
            | Self::FenceFailed { .. }
            | Self::FenceSuperseded { .. }
            | Self::HostGone { .. }
            | Self::OrderEnded { .. }
            | Self::PoliciesApplied { .. }
            | Self::ModeSet { .. }
            | Self::IncidentResolved { .. } => None,
        }
    }

    /// Whether it belongs to the story of `host`.
    #[must_use]
    pub fn concerns_host(&self, name: &HostName) -> bool {
        match self {
            Self::HostJoined { host, .. }
            | Self::HostFailed { host, .. }
            | Self::FenceOrdered { host, .. }
            | Self::FenceFailed { host, .. }
            | Self::FenceSuperseded { host, .. }
            | Self::HostGone { host, .. }
            | Self::ModeSet { host, .. } => host == name,
            _ => false,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostJoined { host, incarnation } => write!(f, "{host} joined (boot {incarnation})"),
            Self::HostFailed { host, evidence, .. } => write!(f, "{host} has failed: {}", evidence.join("; ")),
            Self::FenceOrdered { host, executor, level } => {
                write!(f, "{executor} is ordered to switch {host} off (level {})", level + 1)
            }
            Self::FenceFailed { host, detail } => write!(f, "fencing {host} failed: {detail}"),
            Self::FenceSuperseded { host, why } => write!(f, "the fence of {host} is superseded: {why}"),
            Self::HostGone { host, proof, .. } => write!(f, "{host} is proven gone: {proof}"),
            Self::GuestFree { guest, proof } => write!(f, "{guest} may be started: {proof}"),
            Self::GuestAdopted { guest, host, epoch } => {
                write!(f, "{guest} was found running on {host} (epoch {epoch})")
            }
            Self::GuestPlaced { guest, host, epoch, why } => {
                write!(f, "{guest} is to start on {host} under epoch {epoch}: {why}")
            }
            Self::GuestStarted { guest, host, detail } => write!(f, "{guest} runs on {host}: {detail}"),
            Self::GuestVerified { guest, host } => write!(f, "all services of {guest} on {host} answer"),
            Self::GuestReleasing { guest, host, why } => write!(f, "{host} is to stop {guest}: {why}"),
            Self::RungTaken { guest, rung, attempt, why, evidence } => {
                write!(f, "{rung} of {guest} (try {attempt}): {why}")?;
                if evidence.is_empty() { Ok(()) } else { write!(f, "; {}", evidence.join("; ")) }
            }
            Self::MigrationOrdered { guest, from, to, why } => {
                write!(f, "{guest} is to move from {from} to {to}: {why}")
            }
            Self::MigrationSwitched { guest, from, to } => {
                write!(f, "{guest} has arrived on {to}; from here on only {to} may run it, {from} may not")
            }
            Self::MigrationEnded { guest, host, detail } => write!(f, "the move of {guest} ended on {host}: {detail}"),
            Self::OrderEnded { order, host, what, outcome } => match outcome {
                OrderOutcome::Done { detail, .. } => write!(f, "{host} has done {order} ({what}): {detail}"),
                OrderOutcome::Failed { detail } => write!(f, "{host} could not {what} ({order}): {detail}"),
            },
            Self::PoliciesApplied { version, by } => write!(f, "policies version {version} applied by {by}"),
            Self::ModeSet { host, mode, by } => write!(f, "{host} is set to {mode} by {by}"),
            Self::IncidentResolved { key } => write!(f, "{key} is well again"),
        }
    }
}

/// The newest entries, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Journal {
    entries: VecDeque<Entry>,
}

impl Journal {
    /// Adds an entry; the oldest goes when there are [`ENTRIES_MAX`].
    pub fn add(&mut self, index: u64, at: WallTime, what: Event) {
        if self.entries.len() >= ENTRIES_MAX {
            self.entries.pop_front();
        }
        self.entries.push_back(Entry { index, at, what });
    }

    /// The entries, oldest first.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.iter()
    }
}
