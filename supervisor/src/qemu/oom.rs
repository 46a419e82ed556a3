//! Whether the kernel has ended processes of this host for want of memory lately. A QEMU that it has ended says no more than "signal 9",
//! which an operator's hand leaves as well, and why stands in the kernel's log alone.

use std::{
    fs,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use holdfast_policies::time::Moment;

/// What is said of the end of a guest meanwhile. Which process it was is not known here.
pub const SAID: &str = "the kernel of its host has just ended a process for want of memory";

/// How often it is looked, however many guests ask.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long after it was counted an end may be of that: a process with much memory takes its time to give it back.
const LATELY: Duration = Duration::from_secs(30);

/// Where the kernel counts, and what it calls that; since Linux 4.13.
const COUNTED: (&str, &str) = ("/proc/vmstat", "oom_kill ");

/// Such ends on this host; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Kills(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    looked: Option<Moment>,
    count: Option<u64>,
    newest: Option<Moment>,
}

impl Kills {
    /// Looks whether there is another one.
    pub fn look(&self, now: Moment) {
        let mut seen = self.seen();
        if seen.looked.is_none_or(|looked| now.since(looked) >= LOOK_EVERY) {
            seen.note(count(), now);
        }
    }

    /// Whether there was one lately.
    pub fn lately(&self, now: Moment) -> bool {
        let mut seen = self.seen();
        seen.note(count(), now);
        seen.newest.is_some_and(|newest| now.since(newest) < LATELY)
    }

    /// As if there had been one at this moment.
    #[cfg(test)]
    pub fn suppose(&self, now: Moment) {
        self.seen().newest = Some(now);
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// Of what was counted before the first look nobody knows when it was.
    fn note(&mut self, count: Option<u64>, now: Moment) {
        self.looked = Some(now);
        let Some(count) = count else { return };
        if self.count.is_some_and(|before| before < count) {
            self.newest = Some(now);
        }
        self.count = Some(count);
    }
}

/// How many there were since the host has booted; `None` where the kernel does not say.
fn count() -> Option<u64> {
    counted(&fs::read_to_string(COUNTED.0).ok()?)
}

fn counted(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(COUNTED.1)?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_counts_is_found_among_the_rest() {
        assert_eq!(counted("nr_free_pages 7\noom_kill_disable 1\noom_kill 3\nnr_unstable 0\n"), Some(3));
        assert_eq!(counted("nr_free_pages 7\n"), None);
    }

    #[test]
    fn only_a_count_that_grows_is_a_new_end() {
        let mut seen = Seen::default();
        for (at, count, newest) in [(1, Some(4), None), (2, None, None), (3, Some(4), None), (4, Some(6), Some(4))] {
            seen.note(count, Moment(at));
            assert_eq!(seen.newest, newest.map(Moment), "at {at}");
        }
    }

    #[test]
    fn an_end_for_want_of_memory_is_soon_none_of_late() {
        let kills = Kills::default();
        kills.suppose(Moment(1_000));
        assert!(kills.lately(Moment(30_999)));
        assert!(!kills.lately(Moment(31_000)));
    }
}
