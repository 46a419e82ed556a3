//! One clock for the lab, its client and its watcher: monotonic, and the same in every process of the machine.

use nix::time::{ClockId, clock_gettime};

/// Milliseconds on the machine's monotonic clock, with fractions.
#[must_use]
pub fn now_ms() -> f64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0.0, |t| t.tv_sec() as f64 * 1e3 + t.tv_nsec() as f64 / 1e6)
}
