//! Consecutive passes and failures of one service at one vantage.

use holdfast_policies::observe::Outcome;
use serde::{Deserialize, Serialize};

/// What a row of observations has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streak {
    /// What the last observation came to.
    pub outcome: Outcome,
    /// Failures since the last pass.
    pub fails_in_row: u32,
    /// Passes, slow ones included, since the last failure.
    pub passes_in_row: u32,
}

impl Default for Streak {
    fn default() -> Self {
        Self { outcome: Outcome::Unknown, fails_in_row: 0, passes_in_row: 0 }
    }
}

impl Streak {
    /// Adds one observation. `Unknown` leaves both counters as they are (S5).
    pub fn fold(&mut self, outcome: Outcome) {
        self.outcome = outcome;
        match outcome {
            Outcome::Pass | Outcome::Slow => {
                self.passes_in_row = self.passes_in_row.saturating_add(1);
                self.fails_in_row = 0;
            }
            Outcome::Fail => {
                self.fails_in_row = self.fails_in_row.saturating_add(1);
                self.passes_in_row = 0;
            }
            Outcome::Unknown => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fold(outcomes: &[Outcome]) -> (u32, u32) {
        let mut streak = Streak::default();
        outcomes.iter().for_each(|outcome| streak.fold(*outcome));
        (streak.fails_in_row, streak.passes_in_row)
    }

    #[test]
    fn unknown_neither_adds_to_a_streak_nor_breaks_it() {
        use Outcome::{Fail, Pass, Unknown};
        assert_eq!(fold(&[Fail, Unknown, Fail]), (2, 0));
        assert_eq!(fold(&[Pass, Unknown, Unknown, Pass]), (0, 2));
        assert_eq!(fold(&[Unknown]), (0, 0));
    }

    #[test]
    fn slow_counts_as_a_pass_and_ends_a_row_of_failures() {
        assert_eq!(fold(&[Outcome::Fail, Outcome::Slow, Outcome::Pass]), (0, 2));
    }
}
