//! Ladders: which rung comes next for a trouble (S8: the smallest kill that can help).
//!
//! ```text
//! (start) --take--> rung 1, try 1 --its wait is over--> try 2 ... --its tries are spent--> rung 2 ... --> a human
//!    ^                  | recovered
//!    +---- well for the whole cool-down ----+      failing again within it goes on where the ladder stood
//! ```
//! `next_step` is the machine; how long each wait lasts is its answer. Where the ladder stands is [`Position`] in the guest's state:
//! `apply/guests.rs` `climb` moves it on, `verified` notes that the guest has recovered, `ladder_reset` begins anew.
//! `decide/guests/running.rs` asks, and leaves out rungs that would be in vain.
//!
//! A try counts within the cool-down only; a human may have the ladder begin anew at any time. Where another ladder is declared while one
//! is climbed, `stands_on` says how much of it counts as tried, and the newest try keeps its wait (`apply/ladders.rs`).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    model::{Policies, Rung, Severity},
    names::GuestName,
    state::Position,
    time::Span,
};

/// What is wrong with a guest, as far as choosing a rung goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// A service does not answer; the guest is there.
    Service,
    /// The guest itself is gone or stuck.
    Guest,
    /// The guest is there, stopped by QEMU because its storage failed: neither it nor its services are at fault.
    Storage,
}

/// One of a guest's ladders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum LadderKind {
    /// For services and guests that fail.
    #[default]
    Recovery,
    /// For storage that fails.
    Storage,
}

impl Trouble {
    /// The ladder that is climbed for it.
    #[must_use]
    pub fn ladder(self) -> LadderKind {
        match self {
            Self::Service | Self::Guest => LadderKind::Recovery,
            Self::Storage => LadderKind::Storage,
        }
    }
}

/// What the ladder says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextStep {
    /// Take this rung.
    Take {
        /// Its index.
        rung: usize,
    },
    /// The newest try may still help.
    Wait {
        /// For how much longer.
        left: Duration,
    },
    /// Every rung was taken: a human has been called.
    Exhausted,
}

/// A ladder of a guest: its policy's, or one for guests that have only themselves.
#[must_use]
pub fn ladder_of(policies: &Policies, guest: &GuestName, kind: LadderKind) -> Vec<Rung> {
    let policy = policies.policy_of(guest).map(|(_, policy)| policy);
    let declared = policy.map(|policy| match kind {
        LadderKind::Recovery => &policy.ladder,
        LadderKind::Storage => &policy.on_storage_error,
    });
    match (declared.filter(|rungs| !rungs.is_empty()), kind) {
        (Some(rungs), _) => rungs.clone(),
        (None, LadderKind::Recovery) => vec![
            Rung::ResetGuest { tries: 2, wait: Span::secs(60) },
            Rung::Failover { tries: 2, wait: Span::secs(90) },
            Rung::Page { severity: Severity::Critical },
        ],
        // Storage that hiccuped is often back within seconds. Nothing is killed: whatever is started anew finds the same
        // storage, and has lost what the stopped guest still holds in its memory.
        (None, LadderKind::Storage) => {
            vec![Rung::ResumeGuest { tries: 2, wait: Span::secs(10) }, Rung::Page { severity: Severity::Critical }]
        }
    }
}

/// Chooses the next step. `age` is the time since the newest try, or since the recovery after it.
#[must_use]
pub fn next_step(rungs: &[Rung], position: Option<&Position>, age: Duration, trouble: Trouble) -> NextStep {
    let from = |start: usize| {
        let found = rungs.iter().enumerate().skip(start).find(|(_, rung)| applies(rung, trouble));
        found.map_or(NextStep::Exhausted, |(rung, _)| NextStep::Take { rung })
    };
    let Some(position) = position else { return from(0) };
    // A shorter ladder was declared since: nobody has climbed that one, and its end calls people whom nobody has called.
    let Some(rung) = rungs.get(position.rung) else { return from(0) };
    let waits = !position.recovered && !position.failed && trouble != Trouble::Guest;
    let wait = wait_of(position, rung);
    if waits && age < wait {
        return NextStep::Wait { left: wait.saturating_sub(age) };
    }
    if position.tries < rung.tries() && applies(rung, trouble) {
        NextStep::Take { rung: position.rung }
    } else {
        from(position.rung + 1)
    }
}

/// How long the newest try of a guest is waited for, where `rung` is the one that its position names.
pub(crate) fn wait_of(position: &Position, rung: &Rung) -> Duration {
    position.wait.unwrap_or_else(|| rung.wait()).0
}

/// Where a guest stands on a ladder that is declared in place of the one that it has climbed so far. What the new one begins with counts
/// as tried as far as it was, in this order; what follows on it does not, whatever was at its place before. So no smaller kill is passed
/// over, and none is repeated because one before it was taken out. The newest try is waited for as long as its own rung says, or a kill
/// would come while the guest comes up after the one before. `None`: nothing of it was tried.
#[must_use]
pub(crate) fn stands_on(now: &[Rung], before: &[Rung], position: &Position) -> Option<Position> {
    // The one before was declared shorter than what had been climbed by then, by an earlier version: nothing of it was tried.
    let newest = before.get(position.rung)?;
    let tried: &[Rung] = if position.tries == 0 { &[] } else { before.get(..=position.rung)? };
    let mut tried = tried.iter().enumerate();
    // Each is looked for among those after the one that was found for the rung before it.
    let found = |rung| tried.find(|(_, one)| does_the_same(one, rung)).map(|(was, _)| was);
    let again: Vec<usize> = now.iter().map_while(found).collect();
    let rung = again.len().saturating_sub(1);
    if again.last() == Some(&position.rung) {
        return Some(Position { rung, ..position.clone() });
    }
    let wait = position.wait.or_else(|| Some(newest.wait()));
    let tries = if again.is_empty() { 0 } else { now.get(rung)?.tries() };
    Some(Position { rung, tries, wait, ..position.clone() })
}

/// The same as a version before [`WAITS`](crate::feature_level::FeatureLevel::WAITS) has it: what both begin with has been tried; what
/// follows on the new one has not, whatever was at its place before.
pub(crate) fn stood_on(now: &[Rung], before: &[Rung], position: &Position) -> Option<Position> {
    before.get(position.rung)?;
    let alike = before.iter().zip(now).take_while(|(one, other)| does_the_same(one, other)).count();
    if position.rung < alike {
        return Some(position.clone());
    }
    let rung = alike.checked_sub(1)?;
    let tries = now.get(rung)?.tries();
    Some(Position { rung, tries, ..position.clone() })
}

/// Whether two rungs do the same, however often, and however long they are waited for.
fn does_the_same(one: &Rung, other: &Rung) -> bool {
    match (one, other) {
        (Rung::RestartService { run: one, .. }, Rung::RestartService { run: other, .. }) => one == other,
        _ => one.name() == other.name(),
    }
}

/// Whether a rung can help against a trouble.
pub(crate) fn applies(rung: &Rung, trouble: Trouble) -> bool {
    match (rung, trouble) {
        (Rung::RestartService { .. } | Rung::RebootGuest { .. } | Rung::Migrate { .. }, trouble) => {
            trouble == Trouble::Service
        }
        (Rung::ResumeGuest { .. }, trouble) => trouble == Trouble::Storage,
        (Rung::ResetGuest { .. } | Rung::Failover { .. } | Rung::Page { .. }, _) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rungs() -> Vec<Rung> {
        vec![
            Rung::RestartService { run: vec!["x".into()], tries: 2, wait: Span::secs(10) },
            Rung::ResetGuest { tries: 1, wait: Span::secs(60) },
            Rung::Page { severity: Severity::Critical },
        ]
    }

    fn at(rung: usize, tries: u32) -> Position {
        Position { rung, tries, acted: 1, ..Position::default() }
    }

    #[test]
    fn the_smallest_kill_that_can_help_comes_first() {
        let first = |trouble| next_step(&rungs(), None, Duration::ZERO, trouble);
        assert_eq!(first(Trouble::Service), NextStep::Take { rung: 0 });
        assert_eq!(first(Trouble::Guest), NextStep::Take { rung: 1 });
    }

    #[test]
    fn failed_storage_is_waited_for_and_nothing_that_needs_a_running_guest_is_tried() {
        let rungs = [
            Rung::ResumeGuest { tries: 2, wait: Span::secs(10) },
            Rung::RebootGuest { tries: 1, wait: Span::secs(10) },
            Rung::Page { severity: Severity::Critical },
        ];
        let step = |position: Option<&Position>, secs, trouble| {
            next_step(&rungs, position, Duration::from_secs(secs), trouble)
        };
        assert_eq!(step(None, 0, Trouble::Storage), NextStep::Take { rung: 0 });
        assert_eq!(step(Some(&at(0, 1)), 3, Trouble::Storage), NextStep::Wait { left: Duration::from_secs(7) });
        assert_eq!(step(Some(&at(0, 1)), 10, Trouble::Storage), NextStep::Take { rung: 0 });
        assert_eq!(step(Some(&at(0, 2)), 10, Trouble::Storage), NextStep::Take { rung: 2 });
        assert_eq!(step(None, 0, Trouble::Service), NextStep::Take { rung: 1 });
        assert_eq!(step(None, 0, Trouble::Guest), NextStep::Take { rung: 2 });
    }

    #[test]
    fn a_try_gets_its_wait_then_its_budget_then_the_next_rung() {
        let step = |position: &Position, secs| {
            next_step(&rungs(), Some(position), Duration::from_secs(secs), Trouble::Service)
        };
        assert_eq!(step(&at(0, 1), 4), NextStep::Wait { left: Duration::from_secs(6) });
        assert_eq!(step(&at(0, 1), 10), NextStep::Take { rung: 0 });
        assert_eq!(step(&at(0, 2), 10), NextStep::Take { rung: 1 });
        assert_eq!(step(&at(1, 1), 60), NextStep::Take { rung: 2 });
        assert_eq!(step(&at(2, 1), 60), NextStep::Exhausted);
    }

    #[test]
    fn a_guest_that_is_gone_is_not_waited_for() {
        let step = next_step(&rungs(), Some(&at(0, 1)), Duration::ZERO, Trouble::Guest);
        assert_eq!(step, NextStep::Take { rung: 1 });
    }

    #[test]
    fn failing_again_after_recovery_goes_on_where_the_ladder_stood() {
        let position = Position { recovered: true, ..at(0, 2) };
        assert_eq!(next_step(&rungs(), Some(&position), Duration::ZERO, Trouble::Service), NextStep::Take { rung: 1 });
    }

    #[test]
    fn a_ladder_that_was_made_shorter_while_it_was_climbed_is_climbed_from_its_beginning() {
        let step = |trouble| next_step(&rungs(), Some(&at(3, 1)), Duration::ZERO, trouble);
        assert_eq!(step(Trouble::Service), NextStep::Take { rung: 0 });
        assert_eq!(step(Trouble::Guest), NextStep::Take { rung: 1 });
    }

    #[test]
    fn a_ladder_that_is_declared_anew_goes_on_where_it_begins_to_differ() {
        let restart =
            |run: &str, tries: u32| Rung::RestartService { run: vec![run.into()], tries, wait: Span::secs(10) };
        let reboot = || Rung::RebootGuest { tries: 1, wait: Span::secs(60) };
        let reset = || Rung::ResetGuest { tries: 1, wait: Span::secs(60) };
        let page = || Rung::Page { severity: Severity::Critical };
        let before = [restart("x", 2), page()];
        let next = |now: &[Rung], rung: usize, tries: u32| {
            let position = stands_on(now, &before, &at(rung, tries));
            next_step(now, position.as_ref(), Duration::from_secs(60), Trouble::Service)
        };
        let take = |rung: usize| NextStep::Take { rung };
        assert_eq!(
            next(&[restart("x", 2), reboot(), page()], 1, 1),
            take(1),
            "what was added after a person was called"
        );
        assert_eq!(next(&[restart("x", 2), reset(), page()], 0, 1), take(0), "a try is left");
        assert_eq!(next(&[restart("x", 1), reset(), page()], 0, 1), take(1), "no try is left any more");
        assert_eq!(next(&[restart("y", 2), page()], 1, 1), take(0), "another command has not been tried");
        assert_eq!(next(&[reboot(), page()], 1, 1), take(0), "nothing of it has been tried");
        assert_eq!(next(&[restart("x", 2)], 1, 1), NextStep::Exhausted, "all of it has been tried");
        assert_eq!(next(&before, 1, 1), NextStep::Exhausted);
        assert_eq!(
            next(&[restart("x", 2), reset(), page()], 4, 1),
            take(0),
            "nothing of the one before has been tried"
        );
    }

    #[test]
    fn rungs_that_are_taken_out_while_a_ladder_is_climbed_have_nothing_repeated_that_follows_them() {
        let restart = || Rung::RestartService { run: vec!["x".into()], tries: 2, wait: Span::secs(10) };
        let reboot = || Rung::RebootGuest { tries: 1, wait: Span::secs(60) };
        let reset = |tries| Rung::ResetGuest { tries, wait: Span::secs(60) };
        let failover = || Rung::Failover { tries: 1, wait: Span::secs(90) };
        let page = || Rung::Page { severity: Severity::Critical };
        let before = [restart(), reboot(), reset(2), failover(), page()];
        let next = |now: &[Rung], rung: usize, tries: u32| {
            let position = stands_on(now, &before, &at(rung, tries));
            next_step(now, position.as_ref(), Duration::from_secs(90), Trouble::Service)
        };
        let take = |rung: usize| NextStep::Take { rung };
        assert_eq!(next(&[reboot(), reset(2), failover(), page()], 2, 2), take(2), "it goes on with failover");
        assert_eq!(next(&[reset(2), page()], 2, 1), take(0), "a try is left");
        assert_eq!(next(&[reset(2), page()], 2, 2), take(1));
        assert_eq!(next(&[failover(), page()], 2, 2), take(0), "that was not taken yet");
        assert_eq!(next(&[restart(), reset(1), page()], 3, 1), take(2), "what was taken last was taken out");
        assert_eq!(next(&[page()], 4, 1), NextStep::Exhausted, "a person was called");
        assert_eq!(next(&[reboot(), restart(), reset(2), page()], 2, 2), take(1), "in this order it was not tried");
        assert_eq!(next(&[reset(2), reset(2), page()], 2, 2), take(1), "one of both was");
    }

    #[test]
    fn a_ladder_that_is_declared_anew_does_not_cut_the_wait_of_the_newest_try_short() {
        let restart = |run: &str| Rung::RestartService { run: vec![run.into()], tries: 1, wait: Span::secs(10) };
        let reset = || Rung::ResetGuest { tries: 1, wait: Span::secs(60) };
        let failover = || Rung::Failover { tries: 1, wait: Span::secs(90) };
        let before = [restart("x"), reset(), failover()];
        let step = |now: &[Rung], position: &Position, secs: u64| {
            next_step(now, Some(position), Duration::from_secs(secs), Trouble::Service)
        };
        let reboot = Rung::RebootGuest { tries: 1, wait: Span::secs(30) };
        for now in [vec![restart("x"), reboot], vec![restart("x"), failover()], vec![restart("y"), failover()]] {
            let position = stands_on(&now, &before, &at(1, 1)).unwrap();
            assert_eq!(step(&now, &position, 15), NextStep::Wait { left: Duration::from_secs(45) }, "{now:?}");
            assert!(matches!(step(&now, &position, 60), NextStep::Take { .. }), "{now:?}");
            // Once more: it is still the reset that is waited for, and nothing of a ladder that none was taken of counts as tried.
            let next = [restart("y"), restart("x"), reset()];
            let again = stands_on(&next, &now, &position).unwrap();
            assert_eq!(step(&next, &again, 15), NextStep::Wait { left: Duration::from_secs(45) }, "{now:?}");
            assert_eq!(step(&next, &again, 60), NextStep::Take { rung: 0 }, "{now:?}");
        }
        let longer = [restart("x"), Rung::ResetGuest { tries: 1, wait: Span::secs(120) }, failover()];
        let position = stands_on(&longer, &before, &at(1, 1)).unwrap();
        assert_eq!(step(&longer, &position, 60), NextStep::Wait { left: Duration::from_secs(60) }, "its own says so");
    }

    #[test]
    fn a_try_that_could_not_be_made_is_not_waited_for() {
        let position = Position { failed: true, ..at(0, 1) };
        assert_eq!(next_step(&rungs(), Some(&position), Duration::ZERO, Trouble::Service), NextStep::Take { rung: 0 });
    }
}
