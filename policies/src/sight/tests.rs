//! What answers in a row, slow answers and changes of mind come to.

use super::*;
use crate::{
    model::{Probe, Vantages},
    time::Span,
    tuning::Tuning,
};

fn service(tuning: Tuning) -> Service {
    Service {
        probe: Probe::AgentPing {},
        every: Span::secs(1),
        timeout: Span::ms(900),
        fails_after: 3,
        recovers_after: 2,
        from: Vantages { inside: true, hosts: 0, agree: 1 },
        tuning,
    }
}

struct Watched {
    track: Track,
    service: Service,
    now: u64,
}

impl Watched {
    fn new(tuning: Tuning) -> Self {
        Self { track: Track::default(), service: service(tuning), now: 100_000 }
    }

    fn answer(&mut self, outcome: Outcome, latency_ms: u64) -> SightState {
        self.now += 1_000;
        self.track.fold(&self.service, outcome, Some(Duration::from_millis(latency_ms)), Moment(self.now));
        self.track.state()
    }

    fn answers(&mut self, outcomes: &[Outcome]) -> SightState {
        outcomes.iter().for_each(|outcome| _ = self.answer(*outcome, 1));
        self.track.state()
    }
}

const SLOW: Slow = Slow { above: Span::ms(300), share: 50, over: Span::secs(30) };
const FLAPS: Flaps = Flaps { more_than: 3, over: Span::secs(60) };
use Outcome::{Fail, Pass, Unknown};

#[test]
fn unknown_neither_adds_to_a_row_nor_breaks_it() {
    assert_eq!(Watched::new(Tuning::default()).answers(&[Fail, Unknown, Fail, Unknown, Fail]), SightState::Failing);
    assert_eq!(Watched::new(Tuning::default()).answers(&[Unknown, Unknown, Unknown]), SightState::Unknown);
    assert_eq!(Watched::new(Tuning::default()).answers(&[Pass, Fail, Unknown, Fail]), SightState::Passing);
}

#[test]
fn warnings_in_a_row_count_as_passes_and_are_known_until_answers_come_without() {
    let mut watched = Watched::new(Tuning::default());
    assert_eq!(watched.answers(&[Outcome::Slow, Outcome::Slow]), SightState::Passing);
    assert!(!watched.track.warns(), "as with failures, it takes as many as the policy wants");
    watched.answers(&[Outcome::Slow]);
    assert!(watched.track.warns());
    assert_eq!(watched.answers(&[Pass, Outcome::Slow, Pass]), SightState::Passing);
    assert!(watched.track.warns(), "one answer without is none in a row");
    assert_eq!(watched.answers(&[Fail, Unknown, Pass]), SightState::Passing);
    assert!(!watched.track.warns(), "what is no pass neither adds to the row nor breaks it");
}

#[test]
fn an_answer_that_is_merely_late_is_no_warning() {
    let mut watched = Watched::new(Tuning { slow: Some(SLOW), ..Tuning::default() });
    (0..10).for_each(|_| _ = watched.answer(Pass, 800));
    assert_eq!(watched.track.state(), SightState::Slow);
    assert!(!watched.track.warns());
}

#[test]
fn who_could_not_ask_for_longer_than_an_answer_stays_fresh_does_not_say_that_it_answers() {
    let mut watched = Watched::new(Tuning::default());
    watched.answer(Pass, 1);
    // 3 s, the time-out and a second: an answer is good for 4.9 s.
    assert_eq!(watched.answers(&[Unknown, Unknown, Unknown, Unknown]), SightState::Passing);
    assert_eq!(watched.answer(Unknown, 1), SightState::Unknown);
    // And what it says then counts as on the first day.
    assert_eq!(watched.answers(&[Fail, Fail]), SightState::Unknown);
    assert_eq!(watched.answer(Fail, 1), SightState::Failing);
}

#[test]
fn failures_before_and_after_a_long_time_in_which_nobody_could_ask_are_not_in_a_row() {
    for (unasked, expected) in [(4, SightState::Failing), (5, SightState::Unknown)] {
        let mut watched = Watched::new(Tuning::default());
        assert_eq!(watched.answers(&[Fail, Fail]), SightState::Unknown, "nothing is known yet");
        // An answer is good for 4.9 s.
        watched.answers(&vec![Unknown; unasked]);
        assert_eq!(watched.answer(Fail, 1), expected, "{unasked} s without an answer");
        watched.answer(Fail, 1);
        assert_eq!(watched.answer(Fail, 1), SightState::Failing, "three in a row are");
    }
}

#[test]
fn a_guest_that_hangs_after_its_service_has_failed_is_not_cured_by_that() {
    let mut watched = Watched::new(Tuning::default());
    watched.answers(&[Pass, Fail, Fail, Fail]);
    assert_eq!(watched.answers(&[Unknown; 20]), SightState::Failing);
    assert_eq!(watched.answer(Pass, 1), SightState::Failing, "one pass is none in a row");
    assert_eq!(watched.answer(Pass, 1), SightState::Passing);
}

#[test]
fn the_first_pass_counts_at_once_and_later_ones_in_a_row() {
    let mut watched = Watched::new(Tuning::default());
    assert_eq!(watched.answers(&[Fail, Fail, Fail]), SightState::Failing);
    assert_eq!(watched.answers(&[Pass]), SightState::Passing, "it has come up");
    assert_eq!(watched.answers(&[Fail, Fail, Fail, Pass]), SightState::Failing);
    assert_eq!(watched.answers(&[Pass]), SightState::Passing);
}

#[test]
fn half_of_the_answers_slow_over_the_window_is_slow_and_not_failing() {
    let mut watched = Watched::new(Tuning { slow: Some(SLOW), ..Tuning::default() });
    for round in 0..20 {
        let state = watched.answer(Pass, if round % 2 == 0 { 500 } else { 10 });
        let expected = if round < 4 { SightState::Passing } else { SightState::Slow };
        assert_eq!(state, expected, "answer {round}");
    }
    let reason = watched.track.reason(&watched.service, Moment(watched.now)).unwrap();
    assert!(reason.contains("50 % of 20 answers in 30s took longer than 300ms"), "{reason}");
}

#[test]
fn a_slow_service_is_quick_again_when_the_share_has_halved_and_not_before() {
    let mut watched = Watched::new(Tuning { slow: Some(SLOW), ..Tuning::default() });
    (0..30).for_each(|_| _ = watched.answer(Pass, 400));
    assert_eq!(watched.track.state(), SightState::Slow);
    let quick_after = (1..60).find(|_| watched.answer(Pass, 10) == SightState::Passing).unwrap();
    assert!((20..=26).contains(&quick_after), "{quick_after}");
}

#[test]
fn one_slow_answer_after_a_start_is_no_slowness_and_a_failure_is_not_hidden_by_it() {
    let mut watched = Watched::new(Tuning { slow: Some(SLOW), ..Tuning::default() });
    assert_eq!(watched.answer(Pass, 800), SightState::Passing);
    (0..20).for_each(|_| _ = watched.answer(Pass, 800));
    assert_eq!(watched.answers(&[Fail, Fail, Fail]), SightState::Failing);
}

#[test]
fn time_outs_that_never_come_three_in_a_row_make_a_service_slow() {
    let mut watched = Watched::new(Tuning { slow: Some(SLOW), ..Tuning::default() });
    for _ in 0..6 {
        watched.answer(Pass, 10);
        watched.answer(Fail, 900);
        watched.answer(Fail, 900);
    }
    watched.answer(Pass, 10);
    assert_eq!(watched.track.state(), SightState::Slow);
}

#[test]
fn only_a_pass_beyond_the_limit_is_a_slow_answer() {
    let with = service(Tuning { slow: Some(SLOW), ..Tuning::default() });
    let late = Duration::from_millis(301);
    assert_eq!(timed(Pass, late, &with), Outcome::Slow);
    assert_eq!(timed(Pass, Duration::from_millis(300), &with), Pass);
    assert_eq!((timed(Fail, late, &with), timed(Unknown, late, &with)), (Fail, Unknown));
    assert_eq!(timed(Pass, late, &service(Tuning::default())), Pass);
}

#[test]
fn how_long_an_answer_took_counts_only_where_it_says_something_of_the_service() {
    let mut watched = Watched::new(Tuning { slow: Some(SLOW), ..Tuning::default() });
    for _ in 0..100 {
        watched.now += 1_000;
        watched.track.fold(&watched.service, Pass, None, Moment(watched.now));
    }
    assert_eq!((watched.track.state(), watched.track.passed()), (SightState::Passing, Some(Moment(watched.now))));
    for _ in 0..100 {
        watched.answer(Pass, 900);
    }
    assert_eq!(watched.track.state(), SightState::Slow);
}

#[test]
fn a_service_that_comes_and_goes_flaps_until_it_keeps_still() {
    let mut watched = Watched::new(Tuning { flaps: Some(FLAPS), ..Tuning::default() });
    watched.answer(Pass, 1);
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(watched.answers(&[Fail, Fail, Fail]));
        seen.push(watched.answers(&[Pass, Pass]));
    }
    use SightState::{Failing, Flapping, Passing};
    assert_eq!(seen, [Failing, Passing, Failing, Flapping, Flapping, Flapping]);
    let settled = (1..60).find(|_| watched.answer(Pass, 1) == Passing).unwrap();
    assert_eq!(settled, 20, "a third of the window without a change");
}

#[test]
fn a_flapping_service_that_stays_down_is_failing_in_the_end() {
    let mut watched = Watched::new(Tuning { flaps: Some(FLAPS), ..Tuning::default() });
    watched.answers(&[Pass, Fail, Fail, Fail, Pass, Pass, Fail, Fail, Fail, Pass, Pass, Fail, Fail, Fail]);
    assert_eq!(watched.track.state(), SightState::Flapping);
    let failing = (1..60).find(|_| watched.answer(Fail, 1) == SightState::Failing).unwrap();
    assert!(failing <= 20, "{failing}");
}

#[test]
fn a_death_that_was_seen_is_worth_as_many_failures_as_the_policy_asks_for() {
    let mut watched = Watched::new(Tuning::default());
    watched.answers(&[Pass, Pass]);
    assert_eq!(watched.track.died(&watched.service, Moment(watched.now)), Some(SightState::Failing));
    assert_eq!(watched.answers(&[Pass]), SightState::Failing);
    assert_eq!(watched.answers(&[Pass]), SightState::Passing);
}
