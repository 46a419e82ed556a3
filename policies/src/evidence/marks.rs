//! When log entries were applied on this machine, so that what waits since one is measured on its clock.

use std::{collections::VecDeque, time::Duration};

use crate::time::Moment;

/// Entries remembered by [`Marks`]: some minutes of the busiest failover.
const MARKS_MAX: usize = 20_000;

/// When log entries were applied on this machine, so that waits are measured on its boot-time clock (R1).
#[derive(Debug, Clone, Default)]
pub struct Marks {
    marks: VecDeque<(u64, Moment)>,
    started: Moment,
}

impl Marks {
    /// Marks for a process that started at `started`.
    #[must_use]
    pub fn new(started: Moment) -> Self {
        Self { marks: VecDeque::new(), started }
    }

    /// Notes that entries up to `index` were applied at `now`.
    pub fn applied(&mut self, index: u64, now: Moment) {
        if self.marks.back().is_none_or(|(last, _)| *last < index) {
            if self.marks.len() >= MARKS_MAX {
                self.marks.pop_front();
            }
            self.marks.push_back((index, now));
        }
    }

    /// Time since the entry was applied here. An entry from before this process counts from the process's start, so
    /// that a wait is at most repeated, never cut short.
    #[must_use]
    pub fn age(&self, index: u64, now: Moment) -> Duration {
        now.since(self.at(index))
    }

    /// When the entry was applied here. An entry newer than every mark counts from the newest mark: it cannot be older.
    #[must_use]
    pub fn at(&self, index: u64) -> Moment {
        let position = self.marks.partition_point(|(marked, _)| *marked < index);
        self.marks.get(position).or(self.marks.back()).map_or(self.started, |(_, at)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_never_cut_short_by_a_restart() {
        let mut marks = Marks::new(Moment(1_000));
        marks.applied(10, Moment(5_000));
        marks.applied(20, Moment(7_000));
        assert_eq!(marks.age(10, Moment(8_000)), Duration::from_millis(3_000));
        assert_eq!(marks.age(15, Moment(8_000)), Duration::from_millis(1_000));
        assert_eq!(marks.age(99, Moment(8_000)), Duration::from_millis(1_000));
        assert_eq!(Marks::new(Moment(1_000)).age(99, Moment(8_000)), Duration::from_millis(7_000));
    }
}
