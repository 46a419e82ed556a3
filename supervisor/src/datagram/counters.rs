//! Why datagrams are dropped, and how often.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a datagram, or a message, was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The seal does not fit the content.
    #[error("the seal does not fit")]
    Unauthenticated,
    /// Its sequence number was seen already, or is older than the window.
    #[error("seen before, or too old to tell")]
    Replayed,
    /// It belongs to an earlier session of its sender.
    #[error("from a superseded session")]
    Superseded,
    /// It cannot be read.
    #[error("malformed")]
    Malformed,
    /// It is longer than any that we send.
    #[error("too long")]
    Oversize,
    /// It is sealed under a key that we do not hold.
    #[error("sealed under an unknown key")]
    UnknownKey,
    /// Its sender was taken out of the cluster.
    #[error("from a revoked host")]
    Revoked,
    /// Too many senders, or too many unfinished messages.
    #[error("too many senders or unfinished messages")]
    Crowded,
    /// Whoever shall read it does not keep up.
    #[error("the reader does not keep up")]
    Overrun,
}

/// What one socket has dropped, for metrics.
#[derive(Debug, Default)]
pub struct Counters {
    /// The seal did not fit.
    pub unauthenticated: AtomicU64,
    /// Seen before, or older than the window.
    pub replayed: AtomicU64,
    /// From an earlier session; when this grows steadily, two machines bear one name.
    pub superseded: AtomicU64,
    /// Could not be read.
    pub malformed: AtomicU64,
    /// Longer than any that we send; also messages of ours that were too long to send.
    pub oversize: AtomicU64,
    /// Sealed under a key that we do not hold.
    pub unknown_key: AtomicU64,
    /// From a host that was taken out of the cluster.
    pub revoked: AtomicU64,
    /// Refused because there were too many senders or unfinished messages.
    pub crowded: AtomicU64,
    /// Dropped because the reader did not keep up.
    pub overrun: AtomicU64,
    /// Datagrams of ours that the kernel would not send.
    pub unsent: AtomicU64,
}

impl Counters {
    /// Counts one drop.
    pub fn count(&self, refusal: Refusal) {
        let counter = match refusal {
            Refusal::Unauthenticated => &self.unauthenticated,
            Refusal::Replayed => &self.replayed,
            Refusal::Superseded => &self.superseded,
            Refusal::Malformed => &self.malformed,
            Refusal::Oversize => &self.oversize,
            Refusal::UnknownKey => &self.unknown_key,
            Refusal::Revoked => &self.revoked,
            Refusal::Crowded => &self.crowded,
            Refusal::Overrun => &self.overrun,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// How many were dropped, by the reason as metrics name it.
    #[must_use]
    pub fn dropped(&self) -> [(&'static str, u64); 10] {
        [
            ("unauthenticated", &self.unauthenticated),
            ("replayed", &self.replayed),
            ("superseded", &self.superseded),
            ("malformed", &self.malformed),
            ("oversize", &self.oversize),
            ("unknown_key", &self.unknown_key),
            ("revoked", &self.revoked),
            ("crowded", &self.crowded),
            ("overrun", &self.overrun),
            ("unsent", &self.unsent),
        ]
        .map(|(name, counter)| (name, counter.load(Ordering::Relaxed)))
    }
}
