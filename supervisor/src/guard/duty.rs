//! What the guard has to do at a moment, as a function of what it knows. Nothing else decides whether guests are killed
//! and the watchdog is petted.
//!
//! ```text
//!                    lease ends, in stop mode, with guests registered
//!        ┌───────┐ ──────────────────────────────────────────────────► ┌──────┐  kill; pet only while
//!   ────►│ Watch │                                                     │ Stop │  every cgroup is empty
//!        └───────┘ ◄────────────────────────────────────────────────── └──────┘
//!         pet         a new lease, a committed end of stop mode, or no guest registered
//! ```
//!
//! The arithmetic of `LeaseExpired` (R9): the last pet is decided before the lease ends, so that the watchdog fires at the
//! latest [`GUARD_MAX`] and its time-out after that end, unless the guests are gone. All of that is counted on this host's
//! clocks, without a margin for drift (R1): whoever waits for it adds that to the whole.

use std::time::Duration;

use holdfast_policies::time::Moment;

/// Longest time from the end of the lease to the last pet, or until every guest's cgroup is empty.
///
/// The guard wakes at that end and pets no more while a guest runs. What can come between is a pet that was decided right
/// before it and reaches the driver late: a few instructions at real-time priority with memory locked, which need
/// microseconds. A second forgives an interrupt storm and a stalled bus to the device. Raising it delays every start
/// elsewhere by lease alone.
pub(super) const GUARD_MAX: Duration = Duration::from_secs(1);

/// What has to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Duty {
    /// The lease is valid, or there is nothing that it protects (R13): pet, and leave the guests alone.
    Watch,
    /// The guests must not outlive the lease, and it has run out: kill them, and pet only while none is left.
    Stop {
        /// When it ran out; none: it was taken back, or never recorded.
        since: Option<Moment>,
    },
}

/// The duty at `now`. `stops`: the host is in stop mode (R14). `deadline`: when the lease ends, if one was granted.
/// `guests`: whether any guest is registered.
pub(super) fn duty(stops: bool, deadline: Option<Moment>, guests: bool, now: Moment) -> Duty {
    let valid = deadline.is_some_and(|deadline| now < deadline);
    if stops && guests && !valid { Duty::Stop { since: deadline } } else { Duty::Watch }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_are_stopped_exactly_when_stop_mode_a_guest_and_a_lost_lease_meet() {
        let now = Moment(1_000);
        for stops in [false, true] {
            for guests in [false, true] {
                for (deadline, valid) in [
                    (None, false),
                    (Some(999), false),
                    (Some(1_000), false),
                    (Some(1_001), true),
                    (Some(u64::MAX), true),
                ] {
                    let deadline = deadline.map(Moment);
                    let stop = stops && guests && !valid;
                    let wanted = if stop { Duty::Stop { since: deadline } } else { Duty::Watch };
                    assert_eq!(duty(stops, deadline, guests, now), wanted, "{stops} {guests} {deadline:?}");
                }
            }
        }
    }

    #[test]
    fn a_host_without_guests_or_without_a_lease_since_boot_has_nothing_to_protect() {
        assert_eq!(duty(true, Some(Moment(1)), false, Moment(9)), Duty::Watch);
        assert_eq!(duty(false, None, false, Moment(9)), Duty::Watch);
    }
}
