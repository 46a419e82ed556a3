//! Guests that were on a host and are there no more, with no word of an end: other tools may have moved them, and whoever has them now
//! says so a moment later.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    names::{Epoch, GuestName},
    observe::{GuestCondition, GuestReport},
    time::Moment,
};

/// For how long it is remembered that a guest has left: much longer than the other hosts take to say that it is there now.
const REMEMBERED: Duration = Duration::from_secs(60);

/// For how long after a host was first heard nobody knows what it had just before: the other hosts have said by then what they have.
pub const JUST_HEARD: Duration = Duration::from_secs(3);

/// The guests that have left one host: under which assignment, and when its supervisor first said so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Left {
    gone: BTreeMap<GuestName, (Epoch, Moment)>,
    /// Guests of which the host cannot tell how they are, and whether they may have been sent away before that: what becomes of them
    /// meanwhile nobody sees.
    hidden: BTreeMap<GuestName, (Epoch, bool)>,
    /// When the host first said what it has.
    heard: Option<Moment>,
}

impl Left {
    /// Takes in what a host says of all its guests in a sync that came at `now`, and what it said before.
    pub(super) fn take(
        &mut self,
        before: &BTreeMap<GuestName, GuestReport>,
        after: &BTreeMap<GuestName, GuestReport>,
        now: Moment,
    ) {
        self.heard.get_or_insert(now);
        let is_back = |guest: &GuestName, epoch: &Epoch| {
            after.get(guest).is_some_and(|report| report.epoch == *epoch && is_movable(&report.condition))
        };
        self.gone.retain(|guest, (epoch, since)| now.since(*since) < REMEMBERED && !is_back(guest, epoch));
        let hidden = std::mem::take(&mut self.hidden);
        for (guest, was) in before {
            let Some(may_be_sent) = may_be_sent(was, hidden.get(guest)) else { continue };
            let is = after.get(guest).filter(|report| report.epoch == was.epoch).map(|report| &report.condition);
            match is {
                Some(GuestCondition::Unknown { .. }) => {
                    self.hidden.insert(guest.clone(), (was.epoch, may_be_sent));
                }
                // One that ends where it ran has crashed, unless it was sent away first.
                Some(GuestCondition::Exited { .. }) if !may_be_sent => {}
                Some(GuestCondition::Exited { .. }) | None => self.note(guest, was.epoch, now),
                Some(
                    GuestCondition::Running
                    | GuestCondition::Paused { .. }
                    | GuestCondition::IoError { .. }
                    | GuestCondition::Panicked
                    | GuestCondition::Incoming
                    | GuestCondition::Sent,
                ) => {}
            }
        }
    }

    fn note(&mut self, guest: &GuestName, epoch: Epoch, now: Moment) {
        // That it has left under an earlier assignment says nothing of this one.
        if self.gone.get(guest).is_none_or(|(under, _)| *under != epoch) {
            self.gone.insert(guest.clone(), (epoch, now));
        }
    }

    /// Since when a guest has left this assignment.
    #[must_use]
    pub fn since(&self, guest: &GuestName, epoch: Epoch) -> Option<Moment> {
        self.gone.get(guest).filter(|(under, _)| *under == epoch).map(|(_, since)| *since)
    }

    /// When the host was first heard, for as long as what leaves is remembered: a guest that was to be there, and was not, had left before.
    #[must_use]
    pub(crate) fn first_heard(&self, now: Moment) -> Option<Moment> {
        self.heard.filter(|heard| now.since(*heard) < REMEMBERED)
    }

    /// When the host was first heard, while that is so shortly ago that any of its guests may have left just before: whoever has heard
    /// it until then coordinates no more.
    #[must_use]
    pub(crate) fn heard_lately(&self, now: Moment) -> Option<Moment> {
        self.heard.filter(|heard| now.since(*heard) < JUST_HEARD)
    }
}

/// Whether a guest of which this was said last may have been sent away, if it ends now; `None` where there was nothing of it. What
/// nobody could tell from the beginning may be anything.
fn may_be_sent(was: &GuestReport, hidden: Option<&(Epoch, bool)>) -> Option<bool> {
    match &was.condition {
        GuestCondition::Exited { .. } => None,
        GuestCondition::Unknown { .. } => {
            Some(hidden.filter(|(epoch, _)| *epoch == was.epoch).is_none_or(|(_, may_be_sent)| *may_be_sent))
        }
        GuestCondition::Sent => Some(true),
        GuestCondition::Running
        | GuestCondition::Paused { .. }
        | GuestCondition::IoError { .. }
        | GuestCondition::Panicked
        | GuestCondition::Incoming => Some(false),
    }
}

/// Whether there is something that can be moved away. Narrower than [`super::is_there`]: of what nobody can tell, nobody can tell that it left.
fn is_movable(condition: &GuestCondition) -> bool {
    !matches!(condition, GuestCondition::Exited { .. } | GuestCondition::Unknown { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::name;

    fn says(condition: Option<GuestCondition>) -> BTreeMap<GuestName, GuestReport> {
        let report = |condition| (name("web"), GuestReport::new(name("web"), Epoch::default(), condition));
        condition.map(report).into_iter().collect()
    }

    fn left(story: &[Option<GuestCondition>]) -> Option<Moment> {
        let mut left = Left::default();
        for (at, two) in (1_000_u64..).zip(story.windows(2)) {
            let [before, after] = two else { continue };
            left.take(&says(before.clone()), &says(after.clone()), Moment(at));
        }
        left.since(&name("web"), Epoch::default())
    }

    fn exited() -> GuestCondition {
        GuestCondition::Exited { detail: "status 0".to_owned() }
    }

    #[test]
    fn a_guest_that_vanishes_or_ends_after_it_was_sent_has_left_and_one_that_ends_where_it_ran_has_not() {
        use GuestCondition::{Running, Sent};
        assert_eq!(left(&[Some(Running), None, None]), Some(Moment(1_000)));
        assert_eq!(left(&[Some(Running), Some(Sent), Some(exited()), Some(exited())]), Some(Moment(1_001)));
        assert_eq!(left(&[Some(Running), Some(exited()), None]), None);
        assert_eq!(left(&[Some(Running), None, Some(Running)]), None, "it is back");
        assert_eq!(left(&[None, None]), None);
    }

    #[test]
    fn what_a_guest_was_before_its_host_could_not_tell_how_it_is_says_whether_it_has_left() {
        use GuestCondition::{Running, Sent};
        let unknown = || Some(GuestCondition::Unknown { detail: "no answer".to_owned() });
        assert_eq!(left(&[Some(Running), unknown(), unknown(), None]), Some(Moment(1_002)));
        assert_eq!(left(&[Some(Running), unknown(), Some(exited())]), None, "it has crashed");
        assert_eq!(left(&[Some(Sent), unknown(), Some(exited())]), Some(Moment(1_001)));
        assert_eq!(left(&[Some(Sent), unknown(), Some(Running), unknown(), Some(exited())]), None, "it had come back");
        assert_eq!(left(&[unknown(), Some(exited())]), Some(Moment(1_000)), "nobody knows what it was");
        assert_eq!(left(&[Some(Running), unknown(), unknown()]), None, "it may be there");
    }

    #[test]
    fn a_guest_that_has_left_once_leaves_anew_under_its_next_assignment() {
        let epoch = |index| Epoch { generation: 1, index };
        let runs = |index| {
            let report = GuestReport::new(name("web"), epoch(index), GuestCondition::Running);
            BTreeMap::from([(name("web"), report)])
        };
        let mut left = Left::default();
        left.take(&runs(1), &says(None), Moment(1_000));
        left.take(&says(None), &runs(2), Moment(2_000));
        left.take(&runs(2), &says(None), Moment(3_000));
        assert_eq!(left.since(&name("web"), epoch(2)), Some(Moment(3_000)));
    }

    #[test]
    fn a_host_is_lately_heard_from_the_first_that_it_says_for_a_moment() {
        let mut left = Left::default();
        assert_eq!(left.heard_lately(Moment(900)), None);
        left.take(&says(None), &says(None), Moment(1_000));
        left.take(&says(None), &says(None), Moment(2_000));
        assert_eq!(left.heard_lately(Moment(3_999)), Some(Moment(1_000)));
        assert_eq!(left.heard_lately(Moment(4_000)), None);
    }

    #[test]
    fn what_has_left_is_forgotten_after_a_minute() {
        let mut left = Left::default();
        left.take(&says(Some(GuestCondition::Running)), &says(None), Moment(1_000));
        left.take(&says(None), &says(None), Moment(60_000));
        assert!(left.since(&name("web"), Epoch::default()).is_some());
        left.take(&says(None), &says(None), Moment(61_000));
        assert!(left.since(&name("web"), Epoch::default()).is_none());
    }
}
