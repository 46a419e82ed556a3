//! Receivers' clocks, as their answers show them.
//!
//! Alertmanager ends an alert at the time that it is told. By a clock that is behind, an alert would have ended before it was told,
//! and nobody would hear of it; by one that is ahead, its end would not have come when it is told. The wall clock of a host is for
//! people (R1), and may be years off: so times are said by the receiver's own clock, which stands in each of its answers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use holdfast_policies::time::{WallTime, millis};

/// Clocks that differ by less are the same: answers take their time, and a minute of the five after which an open alert ends by
/// itself may be missing.
const SAME_WITHIN: Duration = Duration::from_secs(60);

/// Receivers remembered: more than anybody declares. Beyond it, all are learned of anew.
const RECEIVERS_MAX: usize = 64;

/// By how many milliseconds the clock of each receiver is ahead of this host's, where that is not the same; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Clocks(Arc<Mutex<BTreeMap<String, i64>>>);

impl Clocks {
    /// What time it is at a receiver, as far as is known, when it is `here` on this host.
    pub(super) fn there(&self, receiver: &str, here: WallTime) -> WallTime {
        let ahead = self.known().get(receiver).copied().unwrap_or(0);
        WallTime(here.0.saturating_add_signed(ahead))
    }

    /// Takes in what time a receiver has `said` that it is, when it was `here` on this host and the receiver was `told` another
    /// or the same. Returns whether it was another: several may be told at once before anything is known.
    pub(super) fn note(&self, receiver: &str, told: WallTime, said: WallTime, here: WallTime) -> bool {
        if told.0.abs_diff(said.0) < millis(SAME_WITHIN) {
            return false;
        }
        let [said, here] = [said, here].map(|time| i64::try_from(time.0).unwrap_or(i64::MAX));
        let mut known = self.known();
        if known.len() >= RECEIVERS_MAX {
            known.clear();
        }
        known.insert(receiver.to_owned(), said.saturating_sub(here));
        true
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receivers_clock_is_learned_once_and_anew_when_either_is_set() {
        let (clocks, year) = (Clocks::default(), 365 * 24 * 3_600_000);
        let at = |ms: u64| WallTime(10 * year + ms);
        let tell = |said: WallTime, here: WallTime| clocks.note("am", clocks.there("am", here), said, here);
        assert_eq!(clocks.there("am", at(0)), at(0), "nothing is known");
        assert!(!tell(at(59_000), at(0)), "that is the same");
        let told_at_once = clocks.there("am", at(0));
        assert!(tell(at(year), at(0)));
        assert!(clocks.note("am", told_at_once, at(year), at(0)), "another that was on its way meanwhile");
        assert_eq!(clocks.there("am", at(5)), at(year + 5));
        assert_eq!(clocks.there("other", at(5)), at(5));
        assert!(!tell(at(year + 60_000), at(59_000)));
        assert!(tell(at(year + 90_000), at(year + 90_000)), "this host's has been put right");
        assert_eq!(clocks.there("am", at(year)), at(year));
        assert!(tell(WallTime(7), at(0)));
        assert_eq!(clocks.there("am", at(3)), WallTime(10));
    }
}
