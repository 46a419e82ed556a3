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

/// The guests that have left one host: under which assignment, and when its supervisor first said so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Left(BTreeMap<GuestName, (Epoch, Moment)>);

impl Left {
    /// Takes in what a host says of all its guests in a sync that came at `now`, and what it said before.
    pub(super) fn take(
        &mut self,
        before: &BTreeMap<GuestName, GuestReport>,
        after: &BTreeMap<GuestName, GuestReport>,
        now: Moment,
    ) {
        let is_back = |guest: &GuestName, epoch: &Epoch| {
            after.get(guest).is_some_and(|report| report.epoch == *epoch && is_movable(&report.condition))
        };
        self.0.retain(|guest, (epoch, since)| now.since(*since) < REMEMBERED && !is_back(guest, epoch));
        for (guest, was) in before.iter().filter(|(_, was)| is_movable(&was.condition)) {
            let is = after.get(guest).filter(|report| report.epoch == was.epoch);
            // One that ends where it ran has crashed, unless it was sent away first.
            if is.is_none_or(|is| was.condition == GuestCondition::Sent && !is_movable(&is.condition)) {
                self.0.entry(guest.clone()).or_insert((was.epoch, now));
            }
        }
    }

    /// Since when a guest has left this assignment.
    #[must_use]
    pub fn since(&self, guest: &GuestName, epoch: Epoch) -> Option<Moment> {
        self.0.get(guest).filter(|(under, _)| *under == epoch).map(|(_, since)| *since)
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
    fn what_has_left_is_forgotten_after_a_minute() {
        let mut left = Left::default();
        left.take(&says(Some(GuestCondition::Running)), &says(None), Moment(1_000));
        left.take(&says(None), &says(None), Moment(60_000));
        assert!(left.since(&name("web"), Epoch::default()).is_some());
        left.take(&says(None), &says(None), Moment(61_000));
        assert!(left.since(&name("web"), Epoch::default()).is_none());
    }
}
