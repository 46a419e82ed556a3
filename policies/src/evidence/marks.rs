//! When log entries were applied on this machine, so that what waits since one is measured on its clock.

use std::{collections::VecDeque, time::Duration};

use crate::time::Moment;

/// Entries remembered by [`Marks`]: some minutes of the busiest failover.
const MARKS_MAX: usize = 20_000;

/// Where there are more, marks are thinned out to such a part of their age. In a busy log a wait may end later by that, and by a few
/// times that where it is so long that they are thinned out again and again.
const THINNED_TO: u32 = 64;

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
                self.thin_out(now);
            }
            self.marks.push_back((index, now));
        }
    }

    /// Makes room: of marks that lie close together for their age the last one stays, since what was applied at another one counts from
    /// the next that is left. Were the oldest dropped instead, no wait would end that is longer than a busy log takes for so many
    /// entries.
    fn thin_out(&mut self, now: Moment) {
        let mut next: Option<Moment> = None;
        let mut left = VecDeque::with_capacity(MARKS_MAX);
        for (index, at) in self.marks.drain(..).rev() {
            if next.is_none_or(|next| next.since(at) >= now.since(at) / THINNED_TO) {
                next = Some(at);
                left.push_front((index, at));
            }
        }
        self.marks = left;
        // Where nearly all are of one moment, none of them is close for its age.
        if self.marks.len() > MARKS_MAX / 4 * 3 {
            self.marks.drain(..MARKS_MAX / 4);
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

    #[test]
    fn a_long_wait_ends_however_busy_the_log_is() {
        let mut marks = Marks::new(Moment(0));
        // Ten entries a second for two hours.
        for entry in 0..72_000_u64 {
            marks.applied(entry, Moment(entry * 100));
        }
        let now = Moment(7_200_000);
        for entry in [0, 10_000, 36_000, 70_000] {
            let (age, whole) = (marks.age(entry, now), now.since(Moment(entry * 100)));
            assert!(age <= whole && age >= whole - whole / 16, "{entry}: {age:?} of {whole:?}");
        }
        assert!(marks.marks.len() <= MARKS_MAX);
    }

    #[test]
    fn a_wait_that_began_before_a_quiet_hour_is_not_shorter_by_that_hour_when_the_log_is_busy_again() {
        let mut marks = Marks::new(Moment(0));
        for entry in 0..500_u64 {
            marks.applied(entry, Moment(entry * 100));
        }
        for entry in 500..30_000_u64 {
            marks.applied(entry, Moment(3_600_000 + entry * 100));
        }
        let now = Moment(6_600_000);
        let (age, whole) = (marks.age(250, now), now.since(Moment(25_000)));
        assert!(age <= whole && age >= whole - whole / 16, "{age:?} of {whole:?}");
    }

    #[test]
    fn marks_of_one_moment_are_bounded_too() {
        let mut marks = Marks::new(Moment(0));
        for entry in 0..30_000_u64 {
            marks.applied(entry, Moment(1_000));
        }
        assert!(marks.marks.len() <= MARKS_MAX);
        assert_eq!(marks.age(1, Moment(3_000)), Duration::from_secs(2));
    }
}
