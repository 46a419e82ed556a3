//! Reads the two clocks: CLOCK_BOOTTIME, which decides, and the wall clock, which people read (R1).

use std::time::{SystemTime, UNIX_EPOCH};

use holdfast_policies::time::{Moment, Now, WallTime, millis};
use nix::time::{ClockId, clock_gettime};

/// This machine's CLOCK_BOOTTIME. It goes on while the machine is suspended.
///
/// # Panics
/// When the kernel has no such clock: any made-up answer would make leases look valid.
#[must_use]
#[expect(
    clippy::expect_used,
    reason = "a supervisor without this clock must not go on; every Linux since 2.6.39 has it"
)]
pub fn moment() -> Moment {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("CLOCK_BOOTTIME can be read");
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec()).unwrap_or(0);
    Moment(seconds.saturating_mul(1_000).saturating_add(nanoseconds / 1_000_000))
}

/// The wall clock; a clock before 1970 reads as 1970.
#[must_use]
pub fn wall() -> WallTime {
    WallTime(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis))
}

/// Both clocks.
#[must_use]
pub fn now() -> Now {
    Now { moment: moment(), wall: wall() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_never_goes_back() {
        let first = moment();
        assert!(first.0 > 0);
        assert!(moment() >= first);
    }
}
