//! Ladders: which rung comes next for a trouble (S8: the smallest kill that can help).

use std::time::Duration;

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

/// The ladder of a guest: its policy's, or one for guests that have only themselves.
#[must_use]
pub fn ladder_of(policies: &Policies, guest: &GuestName) -> Vec<Rung> {
    match policies.policy_of(guest) {
        Some((_, policy)) if !policy.ladder.is_empty() => policy.ladder.clone(),
        _ => vec![
            Rung::ResetGuest { tries: 2, wait: Span::secs(60) },
            Rung::Failover { tries: 2, wait: Span::secs(90) },
            Rung::Page { severity: Severity::Critical },
        ],
    }
}

/// Chooses the next step. `age` is the time since the newest try, or since the recovery after it.
#[must_use]
pub fn next_step(rungs: &[Rung], position: Option<&Position>, age: Duration, trouble: Trouble) -> NextStep {
    let applies = |rung: &Rung| match (rung, trouble) {
        (Rung::RestartService { .. } | Rung::Migrate { .. }, Trouble::Guest) => false,
        (
            Rung::RestartService { .. }
            | Rung::ResetGuest { .. }
            | Rung::Failover { .. }
            | Rung::Migrate { .. }
            | Rung::Page { .. },
            _,
        ) => true,
    };
    let from = |start: usize| {
        let found = rungs.iter().enumerate().skip(start).find(|(_, rung)| applies(rung));
        found.map_or(NextStep::Exhausted, |(rung, _)| NextStep::Take { rung })
    };
    let Some(position) = position else { return from(0) };
    let Some(rung) = rungs.get(position.rung) else { return NextStep::Exhausted };
    let waits = !position.recovered && !position.failed && trouble == Trouble::Service;
    if waits && age < rung.wait().0 {
        return NextStep::Wait { left: rung.wait().0.saturating_sub(age) };
    }
    if position.tries < rung.tries() && applies(rung) {
        NextStep::Take { rung: position.rung }
    } else {
        from(position.rung + 1)
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
        Position { rung, tries, acted: 1, recovered: false, failed: false }
    }

    #[test]
    fn the_smallest_kill_that_can_help_comes_first() {
        let first = |trouble| next_step(&rungs(), None, Duration::ZERO, trouble);
        assert_eq!(first(Trouble::Service), NextStep::Take { rung: 0 });
        assert_eq!(first(Trouble::Guest), NextStep::Take { rung: 1 });
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
    fn a_try_that_could_not_be_made_is_not_waited_for() {
        let position = Position { failed: true, ..at(0, 1) };
        assert_eq!(next_step(&rungs(), Some(&position), Duration::ZERO, Trouble::Service), NextStep::Take { rung: 0 });
    }
}
