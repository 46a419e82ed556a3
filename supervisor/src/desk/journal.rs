//! The journal as people read it: one sentence per decision.

use holdfast_policies::{state::ClusterState, time::WallTime};
use serde::{Deserialize, Serialize};

use super::words::rfc3339;

/// Most lines answered at once: a whole bad night, and about 300 KB.
pub const JOURNAL_LINES_MAX: usize = 2_000;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalLine {
    /// The log index that committed it.
    pub index: u64,
    /// When, in Unix milliseconds.
    pub at_ms: u64,
    /// When, for people.
    pub at: String,
    /// What, as a sentence.
    pub what: String,
}

impl JournalLine {
    pub(super) fn new(index: u64, at: WallTime, what: String) -> Self {
        Self { index, at_ms: at.0, at: rfc3339(at), what }
    }
}

/// The newest `last` entries, oldest first; at most [`JOURNAL_LINES_MAX`].
#[must_use]
pub fn journal(state: &ClusterState, last: usize) -> Vec<JournalLine> {
    let newest = state.journal.entries().rev().take(last.min(JOURNAL_LINES_MAX));
    let mut lines: Vec<JournalLine> =
        newest.map(|entry| JournalLine::new(entry.index, entry.at, entry.what.to_string())).collect();
    lines.reverse();
    lines
}
