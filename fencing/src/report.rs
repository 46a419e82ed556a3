//! What came of switching a host off, with every attempt, for the journal.

use std::time::Duration;

use crate::device::Answer;

/// Most attempts that a report keeps: the first half shows how it began, the second how it ended.
pub const ATTEMPTS_MAX: usize = 64;

/// What came of it, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PowerOffReport {
    /// What came of it.
    pub outcome: Outcome,
    /// What was asked and answered, oldest first; at most [`ATTEMPTS_MAX`].
    pub attempts: Vec<Attempt>,
    /// How many attempts from the middle are not among them.
    pub attempts_left_out: u32,
}

/// What came of switching a host off. Only `Off` is proof, and only until something of the host is heard that was sent later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All devices of the level say off.
    Off {
        /// From the start to the last of the readings.
        took: Duration,
        /// The reading of each device that proves it.
        readings: Vec<Reading>,
    },
    /// At least one device still says on.
    StillOn {
        /// What each device said last.
        detail: String,
    },
    /// Nobody knows.
    Unknown {
        /// What each device said last.
        detail: String,
    },
    /// The coordinator's go-ahead was missing or too old before an off had been sent to some device.
    NoGoAhead,
}

/// One device's word that the host is off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Which device.
    pub device: String,
    /// When it was asked, since the start. Anything heard of the host after this makes the reading void (R9).
    pub asked_after: Duration,
    /// When it answered, since the start.
    pub answered_after: Duration,
}

/// What a device was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Whether the host has power.
    Status,
    /// To switch it off.
    Off,
}

/// One question to one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Which device.
    pub device: String,
    /// What it was asked.
    pub asked: Asked,
    /// When, since the start.
    pub began_after: Duration,
    /// How long the answer took.
    pub took: Duration,
    /// The answer in a few words.
    pub answer: String,
}

/// Attempts with a bound.
#[derive(Debug, Default)]
pub(crate) struct History {
    attempts: Vec<Attempt>,
    left_out: u32,
}

impl History {
    pub fn add(&mut self, attempt: Attempt) {
        if self.attempts.len() >= ATTEMPTS_MAX {
            self.attempts.remove(ATTEMPTS_MAX / 2);
            self.left_out = self.left_out.saturating_add(1);
        }
        self.attempts.push(attempt);
    }

    pub fn into_report(self, outcome: Outcome) -> PowerOffReport {
        PowerOffReport { outcome, attempts: self.attempts, attempts_left_out: self.left_out }
    }
}

/// An answer in a few words.
pub(crate) fn in_words<T>(answer: &Answer<T>, confirmed: fn(&T) -> &'static str) -> String {
    match answer {
        Answer::Confirmed(value) => confirmed(value).to_owned(),
        Answer::Refused { detail, .. } => format!("refused: {detail}"),
        Answer::Unknown { detail } => format!("unknown: {detail}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_history_keeps_its_beginning_and_its_end() {
        let mut history = History::default();
        for second in 0..1000 {
            let began_after = Duration::from_secs(second);
            let took = Duration::ZERO;
            history.add(Attempt {
                device: String::new(),
                asked: Asked::Status,
                began_after,
                took,
                answer: String::new(),
            });
        }
        let report = history.into_report(Outcome::NoGoAhead);
        assert_eq!((report.attempts.len(), report.attempts_left_out), (ATTEMPTS_MAX, 1000 - 64));
        assert_eq!(report.attempts[0].began_after.as_secs(), 0);
        assert_eq!(report.attempts[ATTEMPTS_MAX - 1].began_after.as_secs(), 999);
    }
}
