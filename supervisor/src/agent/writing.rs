//! What waits until the agent's memory is written (R7). Pure.
//!
//! A disk that mostly takes milliseconds may take seconds when something else writes. Whatever needs nothing on it, the lease
//! above all, does not wait meanwhile; what does need it waits here, and is written together next.
//!
//! ```text
//!  memory, orders ──► waiting ──► under way ──┬─ written: its orders are carried out
//!                                             └─ not written: its orders are considered again, and it is wanted still
//! ```

use std::time::Duration;

use tokio::time::Instant;

/// How long one write may take until this host says so. A host that is not well is moved away from where policies say so, which is
/// not worth it for a moment.
const LATE_AFTER: Duration = Duration::from_secs(5);

/// How long one write may take until this host does not sync any more. One that can carry nothing out must not keep its guests for
/// ever: without its lease others act for it. Before that, a stall is cheaper than a failover.
const STUCK_AFTER: Duration = Duration::from_secs(20);

/// The memory that is to be written, and what follows it.
#[derive(Debug)]
pub struct Writing<T> {
    /// The memory has changed since the write under way has begun.
    wanted: bool,
    /// What follows the next write.
    following: Vec<T>,
    under_way: Option<UnderWay<T>>,
}

#[derive(Debug)]
struct UnderWay<T> {
    began: Instant,
    following: Vec<T>,
}

impl<T> Default for Writing<T> {
    fn default() -> Self {
        Self { wanted: false, following: Vec::new(), under_way: None }
    }
}

impl<T> Writing<T> {
    /// The memory has changed and is to be written.
    pub fn want(&mut self) {
        self.wanted = true;
    }

    /// This is to be done once the memory, as it is now, is on disk.
    pub fn then(&mut self, what: T) {
        self.wanted = true;
        self.following.push(what);
    }

    /// Whether a write is to begin now, of the memory as it is now.
    #[must_use]
    pub fn begin(&mut self, now: Instant) -> bool {
        if !self.wanted || self.under_way.is_some() {
            return false;
        }
        self.wanted = false;
        self.under_way = Some(UnderWay { began: now, following: std::mem::take(&mut self.following) });
        true
    }

    /// The write under way has ended; returns what was to follow it.
    #[must_use]
    pub fn end(&mut self) -> Vec<T> {
        self.under_way.take().map(|under_way| under_way.following).unwrap_or_default()
    }

    /// The write under way has failed. The memory is still to be written; what was to follow it, or the next, is returned and does
    /// not.
    #[must_use]
    pub fn fail(&mut self) -> Vec<T> {
        self.wanted = true;
        let mut undone = self.end();
        undone.append(&mut self.following);
        undone
    }

    /// Whether nothing waits for the disk.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        !self.wanted && self.under_way.is_none()
    }

    /// Whether the write under way takes so long that people should know.
    #[must_use]
    pub fn is_late(&self, now: Instant) -> bool {
        self.takes(now) >= LATE_AFTER
    }

    /// Whether it takes so long that others should act for this host.
    #[must_use]
    pub fn is_stuck(&self, now: Instant) -> bool {
        self.takes(now) >= STUCK_AFTER
    }

    fn takes(&self, now: Instant) -> Duration {
        self.under_way.as_ref().map(|under_way| now.duration_since(under_way.began)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_the_disk_waits_for_it_and_what_comes_meanwhile_is_written_together_next() {
        let (mut writing, now) = (Writing::default(), Instant::now());
        assert!(writing.is_idle() && !writing.begin(now), "nothing is written unasked");
        writing.then(1);
        assert!(!writing.is_idle());
        assert!(writing.begin(now));
        for order in [2, 3] {
            writing.then(order);
            assert!(!writing.begin(now), "two writes at once");
        }
        assert_eq!(writing.end(), [1]);
        assert!(!writing.is_idle(), "the next waits");
        assert!(writing.begin(now));
        assert_eq!(writing.end(), [2, 3]);
        assert!(writing.is_idle() && writing.end().is_empty());
        writing.want();
        assert!(writing.begin(now) && !writing.is_idle());
        assert!(writing.end().is_empty() && writing.is_idle());
    }

    #[test]
    fn what_could_not_be_written_is_tried_again_though_nothing_follows_it() {
        let (mut writing, now) = (Writing::default(), Instant::now());
        writing.then(1);
        assert!(writing.begin(now));
        writing.then(2);
        assert_eq!(writing.fail(), [1, 2]);
        assert!(!writing.is_idle() && writing.begin(now));
        assert!(writing.end().is_empty() && writing.is_idle());
    }

    #[test]
    fn a_disk_that_stalls_is_told_of_and_one_that_stalls_for_long_keeps_no_lease() {
        let (mut writing, now) = (Writing::default(), Instant::now());
        writing.then(1);
        let much_later = now + 10 * STUCK_AFTER;
        assert!(!writing.is_late(much_later), "it has not begun");
        assert!(writing.begin(now));
        for (after, late, stuck) in
            [(0, false, false), (4, false, false), (5, true, false), (19, true, false), (20, true, true)]
        {
            let then = now + Duration::from_secs(after);
            assert_eq!((writing.is_late(then), writing.is_stuck(then)), (late, stuck), "after {after} s");
        }
        assert_eq!(writing.end(), [1]);
        assert!(!writing.is_late(much_later) && !writing.is_stuck(much_later));
    }
}
