//! What one asker remembers from one question to the next: the little that a single look at a guest cannot tell, and the
//! figures that came with the newest answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::channel::Named;

/// The memory of one asker; cheap to clone. It may be lost at any time, and then nothing is held against anybody.
#[derive(Clone, Default)]
pub struct Memory {
    /// By unit: as many as one asker asks for.
    units: Arc<Mutex<BTreeMap<String, Seen>>>,
    /// By file with a process number: as many, too.
    named: Arc<Mutex<BTreeMap<String, Named>>>,
    /// By file that is to be fresh: as many, too.
    written: Arc<Mutex<BTreeMap<String, Writing>>>,
    figures: Arc<Mutex<Vec<Figure>>>,
    /// Pages that are too large for the way out of the guest: as many as one asker asks for.
    large: Arc<Mutex<BTreeSet<String>>>,
}

/// A number that a plugin tells besides its verdict. Nothing is decided by it.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// What it is of.
    pub label: String,
    /// How much.
    pub value: f64,
    /// Of what: `s`, `%`, `B`; empty for a plain number.
    pub unit: String,
}

/// One run of a systemd unit; times count from the guest's boot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// How often systemd has restarted the unit by itself.
    pub restarts: u64,
    /// When it began.
    pub entered: Duration,
    /// When the run before it ended.
    pub left: Duration,
    /// When it was looked at.
    pub asked: Duration,
}

/// One writing of a file, as it was when it was seen first.
struct Writing {
    of: String,
    age: Duration,
    /// It was of the future then, or has been since.
    of_future: bool,
    seen: Instant,
}

struct Seen {
    run: Run,
    before: Option<Duration>,
}

impl Memory {
    /// The figures of the newest answer; few kinds have any.
    #[must_use]
    pub fn figures(&self) -> Vec<Figure> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    #[cfg(feature = "network")]
    pub(crate) fn set_figures(&self, figures: Vec<Figure>) {
        *self.figures.lock().unwrap_or_else(PoisonError::into_inner) = figures;
    }

    /// Whether a page was too large for the way out of the guest.
    pub(crate) fn is_large(&self, url: &str) -> bool {
        self.large.lock().unwrap_or_else(PoisonError::into_inner).contains(url)
    }

    /// Notes that a page was too large for that.
    pub(crate) fn note_large(&self, url: &str) {
        self.large.lock().unwrap_or_else(PoisonError::into_inner).insert(url.to_owned());
    }

    /// Notes a run. Returns how long the one before it lasted, if that had begun with a restart by systemd too; `None` where
    /// that is not known.
    pub(crate) fn run_before(&self, unit: &str, run: Run) -> Option<Duration> {
        let mut units = self.units.lock().unwrap_or_else(PoisonError::into_inner);
        // The guest has been rebooted when its time begins anew.
        let seen = units.get(unit).filter(|seen| seen.run.asked <= run.asked);
        let before = seen.and_then(|seen| seen.before(run));
        units.insert(unit.to_owned(), Seen { run, before });
        before
    }

    /// How old a writing of a file is that is of this `age` by the guest's clock, or `of_future`.
    ///
    /// A clock that was set must neither make everything old at a stroke, nor keep what has ceased to be written fresh until it
    /// has caught up. So no writing is older than it was when it was seen first and the time since, and one of the future is as
    /// old as that.
    pub(crate) fn age(&self, file: &str, written: &str, age: Duration, of_future: bool, now: Instant) -> Duration {
        if written.is_empty() {
            return age;
        }
        let mut files = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        match files.get_mut(file).filter(|known| known.of == written) {
            Some(known) => {
                known.of_future |= of_future;
                let by_us = known.age.saturating_add(now.saturating_duration_since(known.seen));
                if known.of_future { by_us } else { age.min(by_us) }
            }
            None => {
                files.insert(file.to_owned(), Writing { of: written.to_owned(), age, of_future, seen: now });
                age
            }
        }
    }

    /// Whether the process that a file names is the one that it named when this writing of the file was seen first. One that has
    /// taken its number since is another, and so is one that has taken it when nobody had it.
    pub(crate) fn is_still(&self, file: &str, named: &Named) -> bool {
        let mut known = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |known: &&Named| known.number == named.number && known.written == named.written;
        let first = known.get(file).filter(same).filter(|known| !known.written.is_empty());
        let began = first.map_or(named.began, |first| first.began);
        known.insert(file.to_owned(), Named { began, ..named.clone() });
        named.began.is_some() && named.began == began
    }
}

impl Seen {
    fn before(&self, run: Run) -> Option<Duration> {
        // Somebody has started it by hand when there are fewer.
        match run.restarts.checked_sub(self.run.restarts)? {
            0 => self.before,
            1 if self.run.restarts == 0 => None,
            1 => Some(run.left.saturating_sub(self.run.entered)),
            // Nobody has seen the runs between; on average they lasted no longer than this.
            more => Some(run.entered.saturating_sub(self.run.asked) / u32::try_from(more).unwrap_or(u32::MAX)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "/run/app.pid";

    fn named(number: u32, written: &str, began: Option<u64>) -> Named {
        Named { number, written: written.to_owned(), began }
    }

    #[test]
    fn a_number_that_somebody_else_has_got_is_not_the_process_of_the_file() {
        let memory = Memory::default();
        let is_still = |number, written, began| memory.is_still(FILE, &named(number, written, began));
        assert!(is_still(7, "a", Some(100)) && is_still(7, "a", Some(100)));
        assert!(!is_still(7, "a", None), "it has ended");
        assert!(!is_still(7, "a", Some(900)), "its number was given away");
        assert!(!is_still(7, "a", Some(900)), "and that stays so");
        assert!(is_still(7, "b", Some(900)), "the file was written anew: that is its process");
        assert!(is_still(8, "b", Some(950)), "and so is another number");
        assert!(memory.is_still("/run/other.pid", &named(7, "a", Some(900))), "each file is one of its own");
    }

    #[test]
    fn a_number_that_nobody_had_when_the_file_was_seen_first_is_not_made_good_by_whoever_gets_it() {
        let memory = Memory::default();
        assert!(!memory.is_still(FILE, &named(7, "a", None)));
        assert!(!memory.is_still(FILE, &named(7, "a", Some(100))));
    }

    #[test]
    fn a_clock_that_is_set_makes_no_file_old_and_keeps_none_fresh() {
        let (memory, start) = (Memory::default(), Instant::now());
        // The age by the guest's clock, in seconds, and what it comes to at this second of ours.
        let age = |written: &str, by_clock: i64, second: u64| {
            let age = Duration::from_secs(u64::try_from(by_clock).unwrap_or(0));
            memory.age(FILE, written, age, by_clock < 0, start + Duration::from_secs(second)).as_secs()
        };
        assert_eq!((age("a", 2, 0), age("a", 3, 1)), (2, 3), "nobody has set it");
        assert_eq!(age("a", 7_205, 3), 5, "it was set two hours ahead");
        assert_eq!((age("b", 0, 10), age("b", 4, 14)), (0, 4), "the next one is as old as it is");
        assert_eq!(age("b", -7_190, 20), 10, "it was set back, and nothing was written since");
        assert_eq!(age("b", 1, 7_220), 7_210, "it has caught up");
        assert_eq!((age("c", -60, 8_000), age("c", -50, 8_010)), (0, 10), "one of the future ages as any does");
        // A guest that was stopped has not aged.
        assert_eq!((age("d", 1, 9_000), age("d", 2, 9_600)), (1, 2));
    }

    #[test]
    fn where_writings_of_a_file_cannot_be_told_apart_nothing_is_held_against_anybody() {
        let memory = Memory::default();
        assert!(memory.is_still(FILE, &named(7, "", Some(100))));
        assert!(memory.is_still(FILE, &named(7, "", Some(200))));
        let (age, now) = (Duration::from_secs(7), Instant::now());
        assert_eq!(memory.age(FILE, "", age, false, now), age);
        assert_eq!(memory.age(FILE, "", age * 2, false, now), age * 2);
    }
}
