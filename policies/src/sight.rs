//! What the answers that one vantage gets amount to: rows of failures and passes, slowness, and unsteadiness.
//!
//! ```text
//! Unknown --first pass--> Passing --`fails_after` failures in a row--> Failing
//!                            ^  <---`recovers_after` passes in a row-----'
//! Passing --a share of slow answers--> Slow --half that share--> Passing       (Slow fails as Passing does)
//! any --more changes between answering and not than `flaps` allows--> Flapping --it has kept still--> what it is
//! ```
//! Beside that it warns, or does not: answers that say themselves that not all is well (a certificate that soon ends, the
//! WARNING of a plugin) are passes. `fails_after` of them in a row begin it, and `recovers_after` passes without end it.
//!
//! `Unknown` answers change nothing (S5), but a vantage that could not ask for longer than an answer stays fresh does not go
//! on saying that the service answers, and what failed before that is in no row with what fails after it. That it fails it goes on
//! saying: a guest that hangs altogether after its service has failed is not cured by that. Memory is bounded, however often a service
//! is asked.

use std::time::Duration;

use crate::{
    evidence::SightState,
    model::Service,
    observe::Outcome,
    time::Moment,
    tuning::{ANSWERS_MIN, Flaps, Slow},
    window::Window,
};

/// One service as one vantage sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Track {
    fails_in_row: u32,
    passes_in_row: u32,
    warns: bool,
    /// Passes in a row that say the contrary of `warns`.
    otherwise_in_row: u32,
    answering: Answering,
    passed: Option<Moment>,
    /// When it last gave an answer that was one, or died.
    known: Option<Moment>,
    is_slow: bool,
    answers: Window,
    changes: Window,
    changed: Option<Moment>,
    state: SightState,
}

/// Whether it answers, leaving slowness and flapping aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answering {
    NotKnown,
    Yes,
    No,
}

impl Default for Track {
    fn default() -> Self {
        Self {
            fails_in_row: 0,
            passes_in_row: 0,
            warns: false,
            otherwise_in_row: 0,
            answering: Answering::NotKnown,
            passed: None,
            known: None,
            is_slow: false,
            answers: Window::default(),
            changes: Window::default(),
            changed: None,
            state: SightState::Unknown,
        }
    }
}

/// The outcome of one answer under the service's own limit: a pass that took longer than `slow.above` is slow.
#[must_use]
pub fn timed(outcome: Outcome, latency: Duration, service: &Service) -> Outcome {
    match outcome {
        Outcome::Pass if service.tuning.slow.is_some_and(|slow| latency > slow.above.0) => Outcome::Slow,
        Outcome::Pass | Outcome::Slow | Outcome::Fail | Outcome::Unknown => outcome,
    }
}

impl Track {
    /// What it amounts to.
    #[must_use]
    pub fn state(&self) -> SightState {
        self.state
    }

    /// When it last passed.
    #[must_use]
    pub fn passed(&self) -> Option<Moment> {
        self.passed
    }

    /// Whether its answers come with a warning.
    #[must_use]
    pub fn warns(&self) -> bool {
        self.warns
    }

    /// Folds one answer in, by the probe's own word: how slow it was is judged here, unless how long it took says nothing of the
    /// service (`None`). Returns the new state when it has changed.
    pub fn fold(
        &mut self,
        service: &Service,
        outcome: Outcome,
        latency: Option<Duration>,
        now: Moment,
    ) -> Option<SightState> {
        let first_pass = self.passed.is_none();
        match outcome {
            Outcome::Pass | Outcome::Slow => {
                self.passes_in_row = self.passes_in_row.saturating_add(1);
                self.fails_in_row = 0;
                self.passed = Some(now);
                self.warn(service, outcome == Outcome::Slow);
            }
            Outcome::Fail => {
                self.fails_in_row = self.fails_in_row.saturating_add(1);
                self.passes_in_row = 0;
            }
            Outcome::Unknown => {
                let is_old = self.known.is_some_and(|known| now.since(known) > service.fresh_for());
                match self.answering {
                    Answering::Yes | Answering::NotKnown if is_old => {
                        (self.fails_in_row, self.passes_in_row) = (0, 0);
                        self.answering = Answering::NotKnown;
                    }
                    Answering::Yes | Answering::NotKnown | Answering::No => {}
                }
                return self.settle(service, now);
            }
        }
        self.known = Some(now);
        if let (Some(slow), Some(latency)) = (service.tuning.slow, latency) {
            // A question that was given up after longer than that is as slow as an answer that came so late.
            self.answers.note(now, slow.over.0, latency > slow.above.0);
        }
        let answering = self.row(service, first_pass);
        self.turn(answering, service, now);
        self.settle(service, now)
    }

    /// The guest's own agent has seen the service die: that is worth as many failures as the policy asks for.
    pub fn died(&mut self, service: &Service, now: Moment) -> Option<SightState> {
        self.fails_in_row = service.fails_after;
        self.passes_in_row = 0;
        self.known = Some(now);
        self.turn(Answering::No, service, now);
        self.settle(service, now)
    }

    /// Why it is slow or flapping, in a few words.
    #[must_use]
    pub fn reason(&self, service: &Service, now: Moment) -> Option<String> {
        match self.state {
            SightState::Slow => service.tuning.slow.map(|slow| {
                let counts = self.answers.counts(now, slow.over.0);
                format!(
                    "{} % of {} answers in {} took longer than {}",
                    counts.share(),
                    counts.all,
                    slow.over,
                    slow.above
                )
            }),
            SightState::Flapping => service.tuning.flaps.map(|flaps| {
                let changes = self.changes.counts(now, flaps.over.0).all;
                let word = if self.answering == Answering::No { "fails" } else { "answers" };
                format!("it began or ceased to answer {changes} times in {}, and {word} at the moment", flaps.over)
            }),
            SightState::Passing | SightState::Failing | SightState::Unknown => None,
        }
    }

    /// The first pass after a start counts at once, whatever failed while it booted; later it takes as many as the policy says.
    fn row(&self, service: &Service, first_pass: bool) -> Answering {
        let needed = if self.answering == Answering::No && !first_pass { service.recovers_after } else { 1 };
        if self.fails_in_row >= service.fails_after {
            Answering::No
        } else if self.passes_in_row >= needed {
            Answering::Yes
        } else {
            self.answering
        }
    }

    fn warn(&mut self, service: &Service, warned: bool) {
        if warned == self.warns {
            self.otherwise_in_row = 0;
            return;
        }
        self.otherwise_in_row = self.otherwise_in_row.saturating_add(1);
        let needed = if warned { service.fails_after } else { service.recovers_after };
        if self.otherwise_in_row >= needed {
            (self.warns, self.otherwise_in_row) = (warned, 0);
        }
    }

    fn turn(&mut self, answering: Answering, service: &Service, now: Moment) {
        if answering == self.answering {
            return;
        }
        // Coming up for the first time is no change of mind.
        if let (Some(flaps), true) = (service.tuning.flaps, self.answering != Answering::NotKnown) {
            self.changes.note(now, flaps.over.0, true);
            self.changed = Some(now);
        }
        self.answering = answering;
    }

    fn settle(&mut self, service: &Service, now: Moment) -> Option<SightState> {
        let before = self.state;
        self.is_slow = service.tuning.slow.is_some_and(|slow| self.slow(slow, now));
        self.state = if service.tuning.flaps.is_some_and(|flaps| self.flaps(flaps, now)) {
            SightState::Flapping
        } else {
            match self.answering {
                Answering::NotKnown => SightState::Unknown,
                Answering::No => SightState::Failing,
                Answering::Yes if self.is_slow => SightState::Slow,
                Answering::Yes => SightState::Passing,
            }
        };
        (self.state != before).then_some(self.state)
    }

    /// It becomes slow at the share, and ceases to be at half of it, so that it does not waver about one number.
    fn slow(&self, slow: Slow, now: Moment) -> bool {
        let counts = self.answers.counts(now, slow.over.0);
        let share = u64::from(if self.is_slow { slow.share / 2 } else { slow.share }).max(1);
        (self.is_slow || counts.all >= ANSWERS_MIN) && counts.share() >= share
    }

    /// One that has kept still for long enough is what it is, also when that is dead.
    fn flaps(&self, flaps: Flaps, now: Moment) -> bool {
        let still = self.changed.map_or(Duration::MAX, |changed| now.since(changed));
        still < flaps.settled_after() && self.changes.counts(now, flaps.over.0).all > flaps.more_than
    }
}

#[cfg(test)]
mod tests;
