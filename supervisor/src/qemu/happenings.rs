//! What has happened to a guest, kept for the coordinator: a few of each sort, with when it was.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use holdfast_policies::{
    happened::{Happened, Happening, TOLD_MAX},
    time::{Moment, millis},
};

/// QEMU resets a machine within milliseconds after its watchdog has run out.
const WATCHDOG_RESETS_WITHIN: Duration = Duration::from_secs(1);

/// The newest happenings of one guest; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Happenings(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    /// Oldest first.
    events: Vec<(Moment, Happening)>,
    /// When its watchdog ran out and was to reset it.
    ran_out: Option<Moment>,
    /// Until when the next reset is one that was asked for.
    asked_until: Option<Moment>,
}

impl Happenings {
    /// Notes something. The oldest of its sort makes room for it.
    pub fn note(&self, at: Moment, what: Happening) {
        note(&mut self.kept(), at, what);
    }

    /// Notes that the guest's watchdog has run out. One that resets it is told by the reset.
    pub fn watchdog(&self, at: Moment, action: &str) {
        let mut kept = self.kept();
        if action == "reset" {
            kept.ran_out = Some(at);
        } else {
            note(&mut kept, at, Happening::Watchdog { action: action.to_owned() });
        }
    }

    /// Notes that the guest has reset itself, unless that was asked for.
    pub fn reset(&self, at: Moment) {
        let mut kept = self.kept();
        let watchdog = kept.ran_out.take().is_some_and(|ran_out| at.since(ran_out) <= WATCHDOG_RESETS_WITHIN);
        let asked = kept.asked_until.take().is_some_and(|until| at <= until);
        // A watchdog asks nobody.
        if watchdog || !asked {
            note(&mut kept, at, Happening::Reset { watchdog });
        }
    }

    /// Says that the next reset until `until` was asked for.
    pub fn expect_reset(&self, until: Moment) {
        self.kept().asked_until = Some(until);
    }

    /// Takes that back: it will not come, and the next one is the guest's own.
    pub fn expect_no_reset(&self) {
        self.kept().asked_until = None;
    }

    /// What has happened, oldest first, each with how long before `now` it was.
    pub fn told(&self, now: Moment) -> Vec<Happened> {
        let kept = self.kept();
        kept.events.iter().map(|(at, what)| Happened { ago_ms: millis(now.since(*at)), what: what.clone() }).collect()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn note(kept: &mut Kept, at: Moment, what: Happening) {
    let alike = kept.events.iter().filter(|(_, known)| known.is_like(&what)).count();
    if alike >= TOLD_MAX
        && let Some(oldest) = kept.events.iter().position(|(_, known)| known.is_like(&what))
    {
        kept.events.remove(oldest);
    }
    kept.events.push((at, what));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(happenings: &Happenings) -> Vec<String> {
        happenings.told(Moment(10_000)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_reset_by_the_watchdog_is_told_from_one_by_the_guest() {
        let happenings = Happenings::default();
        happenings.reset(Moment(1_000));
        happenings.watchdog(Moment(2_000), "reset");
        happenings.reset(Moment(2_004));
        happenings.watchdog(Moment(3_000), "reset");
        happenings.reset(Moment(8_000));
        happenings.watchdog(Moment(9_000), "pause");
        let expected = [
            "it reset itself 9s ago",
            "it reset itself 7s ago (watchdog)",
            "it reset itself 2s ago",
            "its watchdog was not fed 1s ago (action: pause)",
        ];
        assert_eq!(told(&happenings), expected);
    }

    #[test]
    fn a_reset_that_was_asked_for_is_not_the_guests_own_and_the_next_one_is() {
        let happenings = Happenings::default();
        happenings.expect_reset(Moment(5_000));
        happenings.reset(Moment(3_000));
        assert!(told(&happenings).is_empty());
        happenings.reset(Moment(4_000));
        assert_eq!(told(&happenings), ["it reset itself 6s ago"]);
        happenings.expect_reset(Moment(5_000));
        happenings.reset(Moment(6_000));
        assert_eq!(told(&happenings).len(), 2, "what was asked for did not come in its time");
    }

    #[test]
    fn an_agent_that_comes_and_goes_does_not_displace_the_resets() {
        let happenings = Happenings::default();
        happenings.reset(Moment(1_000));
        for at in 2..1_000 {
            happenings.note(Moment(at * 1_000), Happening::AgentLeft { own: false });
        }
        assert_eq!(told(&happenings).len(), 1 + TOLD_MAX);
        assert_eq!(told(&happenings)[0], "it reset itself 9s ago");
    }
}
