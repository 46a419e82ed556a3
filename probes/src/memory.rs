//! What one asker remembers from one question to the next: the little that a single look at a guest cannot tell, and the
//! figures that came with the newest answer.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// The memory of one asker; cheap to clone. It may be lost at any time, and then nothing is held against anybody.
#[derive(Clone, Default)]
pub struct Memory {
    /// By unit: as many as one asker asks for.
    units: Arc<Mutex<BTreeMap<String, Seen>>>,
    figures: Arc<Mutex<Vec<Figure>>>,
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
