//! Whether a supervisor trusts itself, and what it complains of.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use holdfast_policies::time::Moment;

/// How long a supervisor distrusts itself after its own loop was late.
const UNWELL_FOR: Duration = Duration::from_secs(5);

/// What a supervisor can complain of for longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Complaint {
    /// It should vote and cannot.
    Vote,
    /// The agent's memory cannot be written.
    Memory,
}

/// Whether a supervisor trusts itself: one whose own loop was late, or whose link loses much, doubts what it thinks it has
/// seen.
#[derive(Debug, Clone, Default)]
pub struct Health {
    unwell_until: Arc<AtomicU64>,
    complaints: Arc<Mutex<BTreeMap<Complaint, String>>>,
    /// 0: it does not hear a majority.
    connected_since: Arc<AtomicU64>,
    /// What its link loses, in percent; 0 while that is not too much.
    losing: Arc<AtomicU64>,
    /// When a coordinator last answered this host; 0: never.
    answered: Arc<AtomicU64>,
    /// When a majority last confirmed that this host coordinates; 0: never.
    led: Arc<AtomicU64>,
    /// When the loop that notices that it is late last ran; 0: never.
    looked: Arc<AtomicU64>,
}

impl Health {
    /// The loop was late by so much that silence may be its own.
    pub fn doubt(&self, now: Moment) {
        self.unwell_until.store(now.plus(UNWELL_FOR).0, Ordering::Relaxed);
    }

    /// When the loop was late last.
    #[must_use]
    pub fn doubted_at(&self) -> Option<Moment> {
        let until = self.unwell_until.load(Ordering::Relaxed);
        (until > 0).then(|| Moment(until).minus(UNWELL_FOR))
    }

    /// Whether it has doubted itself within `time`.
    #[must_use]
    pub fn doubted_within(&self, now: Moment, time: Duration) -> bool {
        self.doubted_at().is_some_and(|at| now.since(at) < time)
    }

    /// The loop that notices that it is late has run.
    pub fn looked(&self, now: Moment) {
        self.looked.store(now.0, Ordering::Relaxed);
    }

    /// Whether this process may have stood still for `late` or longer until `within` ago: what reaches anybody here may have waited as
    /// long. The loop that would notice it may be woken later than whoever asks.
    #[must_use]
    pub fn may_have_stood_still(&self, now: Moment, late: Duration, within: Duration) -> bool {
        let looked = self.looked.load(Ordering::Relaxed);
        (looked > 0 && now.since(Moment(looked)) >= late) || self.doubted_within(now, within)
    }

    /// Notes how much its link loses, in percent, if that is too much. Tens of percents are told, so that what is said does
    /// not change with every beacon.
    pub fn note_losing(&self, percent: Option<u64>) {
        self.losing.store(percent.map_or(0, |percent| (percent / 10 * 10).max(1)), Ordering::Relaxed);
    }

    /// Notes whether a majority of the voters is heard.
    pub fn note_connected(&self, connected: bool, now: Moment) {
        if !connected {
            self.connected_since.store(0, Ordering::Relaxed);
        } else if self.connected_since.load(Ordering::Relaxed) == 0 {
            self.connected_since.store(now.0, Ordering::Relaxed);
        }
    }

    /// Since when a majority of the voters has been heard without a break.
    #[must_use]
    pub fn connected_since(&self) -> Option<Moment> {
        Some(self.connected_since.load(Ordering::Relaxed)).filter(|since| *since > 0).map(Moment)
    }

    /// Notes that a coordinator has answered this host, with a majority behind it (R2).
    pub fn note_answered(&self, now: Moment) {
        self.answered.store(now.0, Ordering::Relaxed);
    }

    /// Whether one has within `time`.
    #[must_use]
    pub fn answered_within(&self, now: Moment, time: Duration) -> bool {
        is_within(&self.answered, now, time)
    }

    /// Notes that a majority was asked at this moment, and has confirmed that this host coordinates (R2). One that is cut off is
    /// called the leader all the same.
    pub fn note_led(&self, at: Moment) {
        self.led.store(at.0, Ordering::Relaxed);
    }

    /// Whether one has within `time`.
    #[must_use]
    pub fn led_within(&self, now: Moment, time: Duration) -> bool {
        is_within(&self.led, now, time)
    }

    /// Notes what is wrong with this host until [`Self::settle`].
    pub fn complain(&self, complaint: Complaint, why: String) {
        self.complaints().insert(complaint, why);
    }

    /// That is well again.
    pub fn settle(&self, complaint: Complaint) {
        self.complaints().remove(&complaint);
    }

    /// What was complained of last in this matter.
    #[must_use]
    pub fn complaint(&self, complaint: Complaint) -> Option<String> {
        self.complaints().get(&complaint).cloned()
    }

    fn complaints(&self) -> MutexGuard<'_, BTreeMap<Complaint, String>> {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it doubts what it sees, because its loop was late or its link loses much.
    #[must_use]
    pub fn doubts(&self, now: Moment) -> bool {
        self.was_late(now) || self.is_losing()
    }

    pub(crate) fn is_losing(&self) -> bool {
        self.losing.load(Ordering::Relaxed) > 0
    }

    fn was_late(&self, now: Moment) -> bool {
        now.0 < self.unwell_until.load(Ordering::Relaxed)
    }

    /// Why this host is not well, if it is not: it doubts what it sees, or complains of something else.
    #[must_use]
    pub fn unwell(&self, now: Moment) -> Option<String> {
        let late = self.was_late(now).then(|| "its own event loop was late".to_owned());
        let lossy = match self.losing.load(Ordering::Relaxed) {
            0 => None,
            percent => Some(format!("its link loses {percent}% and more of what most voters send")),
        };
        let all: Vec<String> = late.into_iter().chain(lossy).chain(self.complaints().values().cloned()).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}

/// Whether what was noted there was so within `time`.
fn is_within(noted: &AtomicU64, now: Moment, time: Duration) -> bool {
    let at = noted.load(Ordering::Relaxed);
    at > 0 && now.since(Moment(at)) < time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_voter_that_was_cut_off_counts_only_after_it_has_listened_again() {
        let health = Health::default();
        health.note_connected(true, Moment(100));
        health.note_connected(true, Moment(200));
        assert_eq!(health.connected_since(), Some(Moment(100)));
        health.note_connected(false, Moment(300));
        assert_eq!(health.connected_since(), None);
        health.note_connected(true, Moment(400));
        assert_eq!(health.connected_since(), Some(Moment(400)));
    }

    #[test]
    fn a_coordinator_is_known_for_as_long_as_its_answers_are_fresh() {
        let (health, time) = (Health::default(), Duration::from_secs(4));
        assert!(!health.answered_within(Moment(100), time), "nobody has answered yet");
        health.note_answered(Moment(1_000));
        assert!(health.answered_within(Moment(4_999), time) && !health.answered_within(Moment(5_000), time));
        assert!(!health.led_within(Moment(4_999), time), "it was another one");
        health.note_led(Moment(2_000));
        assert!(health.led_within(Moment(5_999), time) && !health.led_within(Moment(6_000), time));
    }

    #[test]
    fn a_process_that_has_stood_still_is_known_for_that_before_its_own_loop_has_noticed_it() {
        let health = Health::default();
        let stood_still =
            |at| health.may_have_stood_still(Moment(at), Duration::from_millis(750), Duration::from_millis(500));
        assert!(!stood_still(10_000), "the loop has not begun");
        health.looked(Moment(10_000));
        assert!(!stood_still(10_749));
        assert!(stood_still(10_750));
        // It notices.
        health.doubt(Moment(10_800));
        health.looked(Moment(10_800));
        assert!(stood_still(11_299));
        health.looked(Moment(11_250));
        assert!(!stood_still(11_300));
    }

    #[test]
    fn a_supervisor_that_slept_doubts_itself_for_a_while() {
        let (health, time) = (Health::default(), Duration::from_millis(1_500));
        assert!(!health.doubted_within(Moment(10), time));
        health.doubt(Moment(10_000));
        assert!(health.doubted_within(Moment(11_000), time) && !health.doubted_within(Moment(11_500), time));
        assert!(health.unwell(Moment(14_000)).is_some() && health.unwell(Moment(15_000)).is_none());
        health.doubt(Moment(12_000));
        assert_eq!(health.doubted_at(), Some(Moment(12_000)), "once more, while it still doubts itself");
    }

    #[test]
    fn a_supervisor_whose_link_loses_much_doubts_itself_until_it_loses_little() {
        let (health, now) = (Health::default(), Moment(10));
        health.note_losing(Some(47));
        assert!(health.doubts(now));
        assert_eq!(health.unwell(now).as_deref(), Some("its link loses 40% and more of what most voters send"));
        health.note_losing(None);
        assert!(!health.doubts(now) && health.unwell(now).is_none());
    }

    #[test]
    fn a_supervisor_without_its_vote_is_unwell_and_still_trusts_its_ears() {
        let (health, now) = (Health::default(), Moment(10));
        health.complain(Complaint::Vote, "no room".to_owned());
        health.complain(Complaint::Memory, "no room either".to_owned());
        assert_eq!(health.unwell(now).as_deref(), Some("no room; no room either"));
        assert!(!health.doubts(now));
        health.settle(Complaint::Memory);
        assert_eq!(health.unwell(now).as_deref(), Some("no room"));
    }
}
