//! Whether a live migration gets anywhere, and what is done about one that does not. Pure.
//!
//! QEMU sends memory in rounds: all of it, then again and again what the guest has written to meanwhile. Once the rest takes no longer
//! to send than the downtime limit, it stops the guest and sends that. A guest that writes faster than the network carries never comes
//! to that point.
//!
//! ```text
//! a round needs less than all before ──> it goes on
//! several in a row do not:
//!     a longer stop would do, and is allowed ──> the limit is doubled, up to DOWNTIME_MS_MAX
//!     else, and for PATIENCE nothing has helped ──> it is given up; the guest runs on where it is
//! ```
//! The guest is never slowed down for it; docs/decisions/0025-a-busy-guest-stands-still-for-longer-and-is-not-slowed-down.md says why.

use std::time::Duration;

/// The guest is stopped when the rest takes no longer than this to send, in milliseconds.
pub const DOWNTIME_MS: u64 = 100;

/// The longest stop for the rest, in milliseconds. It costs a service that is asked every two seconds one answer, and by default none
/// fails for that; clusters within guests bear it too (Corosync 3 waits three seconds for a token).
pub const DOWNTIME_MS_MAX: u64 = 1_600;

/// A round that needs no less than this share of the best before it has not helped, in eighths: what is measured varies by some.
const HELPS_BELOW_EIGHTHS: u64 = 7;

/// So many rounds in a row that have not helped are no chance.
const VAIN_ROUNDS: u32 = 3;

/// How long nothing may help before the migration is given up: a guest that was busy for a moment has gone on by then, and other moves
/// wait for no longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// The first round that is measured: the one before it sends everything.
const FIRST_MEASURED: u64 = 2;

/// How far a migration is at one moment, as QEMU says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Which round; 0 before the first.
    pub round: u64,
    /// What is left of the round, in bytes.
    pub left_bytes: u64,
    /// For how long the guest would have had to be stopped for all of this round, in milliseconds. Until QEMU has measured it, the
    /// downtime limit.
    pub needs_ms: u64,
}

/// What follows from a look at a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Nothing.
    GoOn,
    /// The guest may be stopped for longer.
    Raise {
        /// The new downtime limit, in milliseconds.
        downtime_ms: u64,
    },
    /// It never ends.
    GiveUp(Busy),
}

/// Why it never ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "its memory changes faster than it is copied: after {rounds} rounds the rest would take a stop of {needs_ms} ms, and \
     {DOWNTIME_MS_MAX} ms is the most"
)]
pub struct Busy {
    /// How many rounds there were.
    pub rounds: u64,
    /// For how long the guest would have had to be stopped for the last of them, in milliseconds.
    pub needs_ms: u64,
}

/// What is remembered of one migration.
#[derive(Debug)]
pub struct Convergence {
    latest: Standing,
    /// The least that any round has needed.
    best_ms: Option<u64>,
    /// Rounds in a row that have not helped.
    vain: u32,
    /// When something has helped last, or was tried last.
    helped: Duration,
    limit_ms: u64,
}

impl Default for Convergence {
    fn default() -> Self {
        let (latest, best_ms, helped) = (Standing::default(), None, Duration::ZERO);
        Self { latest, best_ms, vain: 0, helped, limit_ms: DOWNTIME_MS }
    }
}

impl Convergence {
    /// The downtime limit that is in force, in milliseconds.
    pub fn limit_ms(&self) -> u64 {
        self.limit_ms
    }

    /// A look at the migration, so long after it began. What QEMU says of a round is judged when the next one has begun, since it
    /// has measured it by then.
    pub fn look(&mut self, standing: Standing, elapsed: Duration) -> Pace {
        let over = std::mem::replace(&mut self.latest, standing);
        // What fits into the limit ends by itself, or was not measured yet.
        if standing.round <= over.round || over.round < FIRST_MEASURED || over.needs_ms <= self.limit_ms {
            return Pace::GoOn;
        }
        self.round_over(over, elapsed)
    }

    fn round_over(&mut self, over: Standing, elapsed: Duration) -> Pace {
        let best_ms = match self.best_ms {
            Some(best_ms) if over.needs_ms >= best_ms / 8 * HELPS_BELOW_EIGHTHS => best_ms,
            Some(_) | None => {
                (self.best_ms, self.vain, self.helped) = (Some(over.needs_ms), 0, elapsed);
                return Pace::GoOn;
            }
        };
        self.vain = self.vain.saturating_add(1);
        if self.vain < VAIN_ROUNDS {
            return Pace::GoOn;
        }
        if best_ms <= DOWNTIME_MS_MAX && self.limit_ms < DOWNTIME_MS_MAX {
            (self.vain, self.helped) = (0, elapsed);
            self.limit_ms = self.limit_ms.saturating_mul(2).min(DOWNTIME_MS_MAX);
            return Pace::Raise { downtime_ms: self.limit_ms };
        }
        if elapsed.saturating_sub(self.helped) < PATIENCE {
            return Pace::GoOn;
        }
        Pace::GiveUp(Busy { rounds: over.round, needs_ms: over.needs_ms })
    }
}

#[cfg(test)]
mod tests;
