//! What a host has armed against itself, so that its guests cannot outlive its lease (R9 `LeaseExpired`, R14).
//!
//! The guard says it, the agent passes it on with every sync, and the coordinator has it committed: `LeaseExpired` rests
//! on the committed record alone.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::time::Span;

/// What the guard of a host has armed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Armed {
    /// Whether the guard stops the guests when the lease runs out.
    pub stops: bool,
    /// Longest time, in milliseconds, from the end of the lease until every guest's cgroup is empty, or else until the
    /// watchdog has been petted for the last time.
    pub guard_ms: u64,
    /// The watchdog: in stop mode when it is open and armed, else when a trial has shown that it can be.
    pub watchdog: Option<ArmedWatchdog>,
}

/// A watchdog as its driver describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmedWatchdog {
    /// The driver's name for it, as `WDIOC_GETSUPPORT` tells.
    pub identity: String,
    /// The time-out in milliseconds as read back from the driver, which may have changed what it was told.
    pub timeout_ms: u64,
    /// Whether it is no hardware of the host's own: softdog, or the emulated one of a host that is itself a virtual
    /// machine. Such a watchdog counts only by an operator's word.
    pub is_virtual: bool,
}

impl fmt::Display for Armed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let guard = Span::ms(self.guard_ms);
        if self.stops {
            write!(f, "its guard, which stops the guests within {guard} of the lease's end")?;
        } else {
            write!(f, "no end of its guests with the lease")?;
        }
        match &self.watchdog {
            Some(ArmedWatchdog { identity, timeout_ms, is_virtual }) => {
                let kind = if *is_virtual { "virtual watchdog" } else { "watchdog" };
                write!(f, ", and the {kind} {identity}, which fires after {}", Span::ms(*timeout_ms))
            }
            None => write!(f, ", and no watchdog"),
        }
    }
}
