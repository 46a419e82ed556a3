//! When one service is asked, again and again.
//!
//! Where little is to be done, waking a thread costs more than the question that it wakes for. So services that are asked as often
//! share their moments: what would be asked within a hundredth of its interval is asked together, as timers of the kernel with
//! slack are (prctl(2), `PR_SET_TIMERSLACK`).

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// How many parts of an interval have a moment of their own. A hundredth is less than answers differ by.
const MOMENTS: u32 = 100;
/// Largest distance of two moments: with longer ones, what a host asks at once would take it longer than the services take to answer.
const APART_MAX: Duration = Duration::from_millis(100);
/// From here on a question is late, and the next one comes a whole interval after it: as much as two wakings of a busy host are
/// apart.
const LATE: Duration = Duration::from_millis(5);

/// When one service is asked: at every interval or a little sooner, never later by it, and never twice for a moment that was missed.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// From where moments are counted.
    origin: Instant,
    every: Duration,
    due: Instant,
}

impl Schedule {
    /// Asks `every` so often, for the first time at `first`, or a little sooner. Schedules with the same `origin` have their moments
    /// in common; it has to be in the past.
    #[must_use]
    pub fn new(origin: Instant, first: Instant, every: Duration) -> Self {
        let schedule = Self { origin, every, due: first };
        Self { due: schedule.moment(first), ..schedule }
    }

    /// Waits until it is time to ask, and returns since when it is.
    pub async fn turn(&mut self) -> Instant {
        let due = self.due;
        sleep_until(due).await;
        let now = Instant::now();
        let from = if now.saturating_duration_since(due) > LATE { now } else { due };
        self.due = self.moment(from + self.every);
        due
    }

    /// Brings the next question forward, to `at` or a little sooner. Where that is past, it is due now, and not late.
    pub fn sooner(&mut self, at: Instant) {
        self.due = self.due.min(self.moment(at)).max(Instant::now());
    }

    /// The last moment until then.
    fn moment(&self, at: Instant) -> Instant {
        let apart = (self.every / MOMENTS).min(APART_MAX).as_nanos().max(1);
        let since = at.saturating_duration_since(self.origin);
        let over = u64::try_from(since.as_nanos() % apart).unwrap_or(0);
        at.checked_sub(Duration::from_nanos(over)).unwrap_or(at)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tokio::task::JoinSet;

    use super::*;

    const EVERY: Duration = Duration::from_secs(10);

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[tokio::test(start_paused = true)]
    async fn services_that_are_asked_as_often_are_asked_together() {
        let origin = Instant::now();
        let mut asking = JoinSet::new();
        for number in 0..1_000 {
            let mut schedule = Schedule::new(origin, origin + EVERY * number / 1_000, EVERY);
            asking.spawn(async move { [schedule.turn().await, schedule.turn().await, schedule.turn().await] });
        }
        let wakings: BTreeSet<Instant> = asking.join_all().await.into_iter().flatten().collect();
        assert!(wakings.len() <= 301, "{} wakings for 3 000 questions", wakings.len());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_asked_later_than_an_interval_after_the_question_before_nor_much_sooner() {
        for every in [20, 250, 333, 1_000, 2_000, 10_000, 15_050, 60_000].map(ms) {
            let origin = Instant::now();
            tokio::time::advance(ms(7)).await;
            let began = Instant::now();
            let mut schedule = Schedule::new(origin, began + every / 3, every);
            let mut before = schedule.turn().await;
            assert!(before <= began + every / 3 && before + every / 50 >= began + every / 3, "{every:?}");
            for _ in 0..5 {
                let due = schedule.turn().await;
                let waited = due - before;
                assert!(waited <= every && waited >= every - every / 50, "{waited:?} of {every:?}");
                before = due;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_missed_is_not_asked_for() {
        let origin = Instant::now();
        let mut schedule = Schedule::new(origin, origin + ms(1_000), EVERY);
        schedule.turn().await;
        // An answer that took two intervals and a half.
        tokio::time::advance(ms(25_050)).await;
        let asked = Instant::now();
        assert_eq!(schedule.turn().await, origin + ms(11_000), "it is late, and says how much");
        assert_eq!(Instant::now(), asked, "and comes at once");
        assert_eq!(schedule.turn().await, origin + ms(36_000), "the next one comes an interval later");
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_may_be_brought_forward_and_not_put_off() {
        let origin = Instant::now();
        let mut schedule = Schedule::new(origin, origin, EVERY);
        schedule.turn().await;
        schedule.sooner(origin + ms(12_000));
        schedule.sooner(origin + ms(2_540));
        assert_eq!(schedule.turn().await, origin + ms(2_500));
    }
}
