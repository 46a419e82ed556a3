//! One clock for the lab, its client and its watcher: that of leases and deadlines, and the same in every process of the machine.

use nix::time::{ClockId, clock_gettime};

/// Milliseconds on the clock that guards tell deadlines on, with fractions. It is ahead of the monotonic one where the machine was
/// ever suspended.
#[must_use]
pub fn now_ms() -> f64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0.0, |t| t.tv_sec() as f64 * 1e3 + t.tv_nsec() as f64 / 1e6)
}
