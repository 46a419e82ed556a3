//! Guests: where each one may run, what is under way with it, and what is wanted of it.
//!
//! ```text
//!            not here             place                started             migrate
//! Unplaced -------------> Free -------------> Starting ----------> Running ----------> Migrating
//!    |                     ^                   ^   |               |  ^ |  ^              |
//!    |                     |                   |   | start failed  |  | |  +--------------+
//!    |                     |                   +---|---- reset ----+  | |    ended on one host
//!    |                     |                       v                  | |
//!    |                     +--- released ----- Releasing <------------|-+ stop, failover, lease lost
//!    +------------------------ found on one host ---------------------+
//!
//! Starting, Running, Releasing --- the host is proven gone ---> Free
//! Migrating --- of both hosts: gone, or nothing left of it ---> Free
//! ```
//! While a guest is released its host may boot anew: then the new boot is asked, in the same phase. A guest that is declared no
//! more is forgotten from any phase that is not between two others; a new generation makes each `Unplaced` (R25).
//!
//! The state is here; what is decided in each phase, and until when it waits for what, is in `decide/guests`, a file for each; and
//! each arrow is applied in one place:
//!
//! | arrow | applied by | decided in |
//! | --- | --- | --- |
//! | not here, found on one host | `apply/guests.rs` `guest_free`, `guest_adopted` | `decide/guests/first.rs` |
//! | place | `apply/guests.rs` `place` | `decide/guests/free.rs` |
//! | started, start failed | `apply/orders.rs` `start_ended`, `apply/failures.rs` `start_failed` | by the host's report |
//! | reset, failover | `apply/guests.rs` `climb` | `decide/guests/running.rs`, by the ladder |
//! | stop, lease lost | `apply/guests.rs` `stop`, `apply/leases.rs` `stopped_by_lease` | `decide/guests/wanted.rs`, `running.rs` |
//! | released | `apply/orders.rs` `release_ended` | by the host's report; again after a failure: `decide/guests/mod.rs` |
//! | migrate, ended | `apply/moves.rs`, then as `migration.rs` says, which has the steps of a move | `decide/guests/moves.rs` |
//! | the host is proven gone | `apply/guests.rs` `tenure_gone`, `apply/halves.rs` `half_gone` | `decide/fences.rs` |
//!
//! The only ways to [`Phase::Free`] carry a proof (S2).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    ladder::LadderKind,
    names::{Epoch, HostName, Incarnation, OrderId},
    proof::Proof,
    time::Span,
};

/// What operators want of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// It runs and answers.
    #[default]
    Running,
    /// It does not run.
    Stopped,
    /// It is left alone, however it is.
    Unmanaged,
}

impl Wanted {
    /// The word for it, as in status, journal and metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Unmanaged => "unmanaged",
        }
    }
}

/// One guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// Where it is in its life.
    pub phase: Phase,
    /// How far its ladder has been climbed.
    pub ladder: Ladder,
    /// Starts that failed since it last ran, by host.
    pub start_failures: BTreeMap<HostName, u32>,
    /// What operators want of it.
    #[serde(default)]
    pub wanted: Wanted,
    /// Where it is going, from the commit of a move until it runs or the move has failed.
    #[serde(default)]
    pub heading: Option<Heading>,
    /// The host that an operator has moved it to, while it runs there: only a required rule or a drain moves it away.
    #[serde(default)]
    pub settled: Option<HostName>,
    /// Why it is not started any more before a person has looked after it, if so.
    #[serde(default)]
    pub given_up: Option<String>,
    /// Hosts, by their boot, where its starts failed as often as they are tried before it came to run elsewhere. No liking
    /// takes it there again until it has run there, the host has booted anew, or a person has looked after the guest: it
    /// would be stopped where it runs, fail there and come back, for ever.
    #[serde(default)]
    pub shuns: BTreeMap<HostName, Incarnation>,
    /// Live moves in a row that were given up, since it last arrived or started anywhere: what it would only like is tried ever
    /// more seldom.
    #[serde(default)]
    pub failed_moves: u32,
    /// Hosts that were ordered to stop what they had of it without a right, with the log index of the newest such order.
    #[serde(default)]
    pub strays: BTreeMap<HostName, u64>,
    /// The log index that declared it: what hosts said before says nothing of it (R8). `None` where a version declared it that did not
    /// note that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declared_at: Option<u64>,
}

/// Where a guest is going.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heading {
    /// The host.
    pub to: HostName,
    /// The operator who asked for it; `None` when it was decided here.
    pub by: Option<String>,
}

/// A host's right to run a guest, from the commit of its start until proof (R8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenure {
    /// The host.
    pub host: HostName,
    /// Its boot.
    pub incarnation: Incarnation,
    /// The assignment.
    pub epoch: Epoch,
}

/// Where a guest is in its life. Each variant owns what is true in it, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Declared, and never placed by this cluster.
    Unplaced,
    /// Proven to run nowhere.
    Free {
        /// Why we know.
        proof: Proof,
        /// Where it ran last.
        last: Option<HostName>,
        /// Hosts that it should not start on, if there are others.
        avoid: BTreeSet<HostName>,
        /// The log index of the proof.
        since: u64,
    },
    /// Ordered to start; it may run.
    Starting {
        /// Whose right it is.
        tenure: Tenure,
        /// The order.
        order: OrderId,
    },
    /// Reported to run.
    Running {
        /// Whose right it is.
        tenure: Tenure,
        /// The log index of the report.
        since: u64,
        /// The probes have confirmed it since then.
        verified: bool,
        /// A service restart that is being carried out.
        action: Option<OrderId>,
    },
    /// Ordered to stop; it may run until the report.
    Releasing {
        /// Whose right it was.
        tenure: Tenure,
        /// The order; `None` when a new boot of the host has to be asked instead, or the last attempt failed.
        order: Option<OrderId>,
        /// Hosts that it should not start on next.
        avoid: BTreeSet<HostName>,
        /// The log index of the newest failed attempt, and why it failed.
        failed: Option<(u64, String)>,
    },
    /// Moving while it runs; both may run it.
    Migrating(Migration),
}

/// A live migration. A half that is proven not to run is `None`; when both are, the guest is free.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migration {
    /// Where it ran.
    pub source: Option<Tenure>,
    /// Where it goes.
    pub target: Option<Tenure>,
    /// How far it has come.
    pub step: MigrationStep,
    /// Why the move failed, once it has.
    pub failure: Option<String>,
    /// The log index of the newest release of a half that failed.
    #[serde(default)]
    pub release_failed: Option<u64>,
    /// Where it goes by a stop and a start once it runs on where it was: an operator did not want to wait for the live move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<Heading>,
}

/// How far a migration has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MigrationStep {
    /// The target is to start a paused QEMU.
    Receiving {
        /// The order to the target.
        order: OrderId,
    },
    /// The source is to send. Only the source may resume.
    Sending {
        /// The order to the source.
        order: OrderId,
    },
    /// Committed: only the target may resume; the source's remains are to be removed.
    Switched {
        /// The order to the target; `None` once it runs.
        resume: Option<OrderId>,
        /// The order to the source; `None` once it is released.
        release: Option<OrderId>,
    },
    /// Given up before the switch: the source is to resume, the target's remains are to be removed.
    Returning {
        /// The order to the source; `None` once it runs.
        resume: Option<OrderId>,
        /// The order to the target; `None` once it is released.
        release: Option<OrderId>,
    },
    /// Given up for good: whatever is left of both halves is to be removed, then the guest is free.
    Clearing {
        /// The order to the source; `None` when there is none.
        source: Option<OrderId>,
        /// The order to the target; `None` when there is none.
        target: Option<OrderId>,
    },
}

/// How far a guest's ladder has been climbed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Ladder {
    /// Position of the rung taken last and tries on it; `None` when nothing was tried since the last calm.
    pub position: Option<Position>,
}

/// A place on a ladder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Position {
    /// Index of the rung.
    pub rung: usize,
    /// Tries made on it; none where it is the first one of a ladder that was declared since the newest try, and of which none was taken.
    pub tries: u32,
    /// The log index of the newest try, or of the newest recovery after it.
    pub acted: u64,
    /// The guest has recovered since the newest try.
    pub recovered: bool,
    /// The newest try could not be carried out, so there is nothing to wait for.
    pub failed: bool,
    /// Which ladder.
    #[serde(default)]
    pub ladder: LadderKind,
    /// How long the newest try is waited for, where that was of a rung that is not at this place since another ladder was declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Span>,
}

impl Guest {
    /// A guest that this log index has declared.
    #[must_use]
    pub fn declared(index: u64) -> Self {
        Self {
            phase: Phase::Unplaced,
            ladder: Ladder::default(),
            start_failures: BTreeMap::new(),
            wanted: Wanted::default(),
            heading: None,
            settled: None,
            given_up: None,
            shuns: BTreeMap::new(),
            failed_moves: 0,
            strays: BTreeMap::new(),
            declared_at: Some(index),
        }
    }

    /// Every host that may run it.
    #[must_use]
    pub fn tenures(&self) -> Vec<&Tenure> {
        self.halves().into_iter().flatten().collect()
    }

    /// The same, without an allocation: of ten thousand guests many are asked for it in every round.
    #[must_use]
    pub fn halves(&self) -> [Option<&Tenure>; 2] {
        match &self.phase {
            Phase::Unplaced | Phase::Free { .. } => [None, None],
            Phase::Starting { tenure, .. } | Phase::Running { tenure, .. } | Phase::Releasing { tenure, .. } => {
                [Some(tenure), None]
            }
            Phase::Migrating(migration) => [migration.source.as_ref(), migration.target.as_ref()],
        }
    }

    /// Hosts that were ordered to stop what they had of it without a right, and are not among those that may run it.
    #[must_use]
    pub(crate) fn strays_elsewhere(&self) -> BTreeSet<HostName> {
        let is_here = |host: &HostName| self.halves().into_iter().flatten().any(|half| half.host == *host);
        self.strays.keys().filter(|host| !is_here(host)).cloned().collect()
    }

    /// The assignments of which an answer of its services is a sign: those that may run it. A guest that other tools have moved
    /// has one number in both places, and is followed only when its old host has said that nothing of it is there.
    #[must_use]
    pub fn answering(&self) -> [Option<&Tenure>; 2] {
        match self.halves() {
            [Some(source), Some(target)] if source.epoch == target.epoch => [None, Some(target)],
            halves => halves,
        }
    }

    /// Where its services should answer: the host that runs it, as far as is committed.
    #[must_use]
    pub fn home(&self) -> Option<&Tenure> {
        match &self.phase {
            Phase::Running { tenure, .. } => Some(tenure),
            Phase::Migrating(migration) => match &migration.step {
                MigrationStep::Switched { .. } => migration.target.as_ref(),
                MigrationStep::Receiving { .. } | MigrationStep::Sending { .. } | MigrationStep::Returning { .. } => {
                    migration.source.as_ref()
                }
                MigrationStep::Clearing { .. } => None,
            },
            Phase::Unplaced | Phase::Free { .. } | Phase::Starting { .. } | Phase::Releasing { .. } => None,
        }
    }

    /// Whether something is under way whose end has to be known before the guest may be forgotten.
    #[must_use]
    pub(crate) fn is_between(&self) -> bool {
        matches!(self.phase, Phase::Starting { .. } | Phase::Releasing { .. } | Phase::Migrating(_))
    }

    /// The word for its phase, as in status and API. Metrics have fewer.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match &self.phase {
            Phase::Unplaced => "unplaced",
            Phase::Free { .. } if self.wanted == Wanted::Stopped => "stopped",
            Phase::Free { .. } if self.given_up.is_some() => "failed",
            Phase::Free { .. } => "waiting",
            Phase::Starting { .. } => "starting",
            Phase::Running { .. } => "running",
            Phase::Releasing { .. } => "stopping",
            Phase::Migrating(_) => "migrating",
        }
    }
}
