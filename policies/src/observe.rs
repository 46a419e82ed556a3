//! What probes and hypervisors report: observations and guest reports.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    happened::Happened,
    names::{Epoch, GuestName},
};

/// Longest detail kept with an observation, in bytes: enough for an error text, small enough for gossip.
pub const DETAIL_BYTES_MAX: usize = 200;

/// What one question came to. `Unknown` means that it could not be asked, and is never counted as a failure (S5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The right answer.
    Pass,
    /// The right answer, too late to be pleasant.
    Slow,
    /// A wrong answer, a refusal or silence until the deadline.
    Fail,
    /// Could not ask.
    Unknown,
}

/// One answer to one question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// What it came to.
    pub outcome: Outcome,
    /// How long it took.
    pub latency: Duration,
    /// Why, in a few words; at most [`DETAIL_BYTES_MAX`] bytes without control characters.
    pub detail: String,
}

impl Observation {
    /// An observation with its detail cut and cleaned.
    #[must_use]
    pub fn new(outcome: Outcome, latency: Duration, detail: impl AsRef<str>) -> Self {
        Self { outcome, latency, detail: clean(detail.as_ref()) }
    }
}

/// Text from outside, cut to [`DETAIL_BYTES_MAX`] bytes and with control characters replaced by spaces.
#[must_use]
pub fn clean(text: &str) -> String {
    clean_to(text, DETAIL_BYTES_MAX)
}

/// Text from outside, cut to `bytes_max` bytes and with control characters replaced by spaces.
#[must_use]
pub fn clean_to(text: &str, bytes_max: usize) -> String {
    let mut out = String::new();
    for c in text.chars() {
        let c = if c.is_control() { ' ' } else { c };
        if out.len() + c.len_utf8() > bytes_max {
            break;
        }
        out.push(c);
    }
    out
}

/// What a hypervisor says of one guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestCondition {
    /// Its virtual CPUs run.
    Running,
    /// It is there, but its virtual CPUs do not run; not a failure by itself (S5), unless it [is broken](Self::is_broken).
    Paused {
        /// QEMU's word for why.
        reason: String,
    },
    /// Its storage failed; QEMU has stopped it.
    IoError {
        /// Which device.
        detail: String,
    },
    /// The guest's kernel has panicked.
    Panicked,
    /// It waits for an incoming migration.
    Incoming,
    /// The source half of a finished migration: everything sent, paused, not to be resumed without an order.
    Sent,
    /// Its process is gone and its cgroup is empty.
    Exited {
        /// Exit status or signal, as text.
        detail: String,
    },
    /// The hypervisor could not be asked.
    Unknown {
        /// Why.
        detail: String,
    },
}

/// QEMU's word (`RunState`) for a guest whose virtual CPUs it cannot run on, because KVM has refused to.
const BROKEN: &str = "internal-error";

impl GuestCondition {
    /// Whether its virtual CPUs stand still and nobody has stopped them: QEMU could not run them on, and takes no word to go on
    /// before a reset.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        matches!(self, Self::Paused { reason } if reason == BROKEN)
    }
}

/// What one host says of one guest that it has, or had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestReport {
    /// Which guest.
    pub guest: GuestName,
    /// Under which assignment it was started.
    pub epoch: Epoch,
    /// How it is.
    pub condition: GuestCondition,
    /// What has happened to it lately and does not show in that, oldest first; of each sort the newest
    /// [`TOLD_MAX`](crate::happened::TOLD_MAX). Nothing from a supervisor that does not tell it.
    #[serde(default)]
    pub happened: Vec<Happened>,
    /// How far it has come, while it is sent to another host. Nothing from a supervisor that does not tell it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sending: Option<Sending>,
    /// For how long its host has been seeing that its file systems are frozen, as for a backup, in milliseconds. Nothing where they are
    /// not, where nobody can tell, and from a supervisor that does not tell it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen_ms: Option<u64>,
}

/// For how long the services of a guest need not answer because its file systems are frozen. Tools for backups thaw them after seconds, or
/// a minute; one that has died in between never does, and then a reset is what helps. Raising it has such guests wait for longer.
pub const FROZEN_MAX: Duration = Duration::from_secs(300);

/// How far a guest has come that is sent to another host while it runs. For people: nothing is decided by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sending {
    /// In which round: the first one sends all of its memory, each other one what it has written to during the one before.
    pub round: u64,
    /// How much of this round is left, in MiB.
    pub left_mib: u64,
    /// For how long it may be stopped to send the rest, in milliseconds.
    pub downtime_ms: u64,
}

impl fmt::Display for Sending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { round, left_mib, downtime_ms } = self;
        write!(
            f,
            "{left_mib} MiB are left of round {round}, and it stops once the rest takes no more than {downtime_ms} ms"
        )
    }
}

impl GuestReport {
    /// A report of a guest to which nothing has happened.
    #[must_use]
    pub fn new(guest: GuestName, epoch: Epoch, condition: GuestCondition) -> Self {
        Self { guest, epoch, condition, happened: Vec::new(), sending: None, frozen_ms: None }
    }

    /// For how much longer its services need not answer because its file systems are frozen; `None` where they are not, and where they
    /// have been for too long. What was told is `old` by now.
    #[must_use]
    pub fn frozen_left(&self, old: Duration) -> Option<Duration> {
        let frozen = Duration::from_millis(self.frozen_ms?).saturating_add(old);
        FROZEN_MAX.checked_sub(frozen).filter(|left| !left.is_zero())
    }
}
