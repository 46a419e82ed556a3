//! Migrations round by round, each look at one of them told as QEMU would.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// What is made of a migration whose rounds take a second each and need so long, from the second one on.
fn paces(needs_ms: impl IntoIterator<Item = u64>) -> Vec<Pace> {
    let mut convergence = Convergence::default();
    assert_eq!(convergence.look(standing(1, DOWNTIME_MS), SECOND), Pace::GoOn);
    let rounds = needs_ms.into_iter().zip(2_u32..);
    let looks = rounds.map(|(needs_ms, round)| convergence.look(standing(round.into(), needs_ms), SECOND * round));
    looks.collect()
}

fn standing(round: u64, needs_ms: u64) -> Standing {
    Standing { round, left_bytes: 1 << 20, needs_ms }
}

/// The limits that were set, and with which look.
fn raised(paces: &[Pace]) -> Vec<(usize, u64)> {
    let raised = paces.iter().enumerate().filter_map(|(look, pace)| match pace {
        Pace::Raise { downtime_ms } => Some((look, *downtime_ms)),
        Pace::GoOn | Pace::GiveUp(_) => None,
    });
    raised.collect()
}

fn given_up(paces: &[Pace]) -> Option<(usize, Busy)> {
    paces.iter().enumerate().find_map(|(look, pace)| match pace {
        Pace::GiveUp(busy) => Some((look, *busy)),
        Pace::GoOn | Pace::Raise { .. } => None,
    })
}

#[test]
fn a_migration_whose_rounds_shrink_is_left_alone_however_long_it_takes() {
    let shrinking =
        std::iter::successors(Some(1_000_000_u64), |needs| Some(needs / 6 * 5)).take_while(|needs| *needs > 5);
    assert!(paces(shrinking).iter().all(|pace| *pace == Pace::GoOn));
}

#[test]
fn the_guest_may_stand_still_for_longer_step_by_step_once_rounds_shrink_no_more() {
    // It is judged when the next round has begun: the first of them is the best, three more do not help.
    let paces = paces([700; 40]);
    assert_eq!(raised(&paces), [(4, 200), (7, 400), (10, 800)], "and no more: what is left fits into that");
    assert_eq!(given_up(&paces), None);
}

#[test]
fn no_guest_stands_still_for_longer_than_the_most() {
    let paces = paces(std::iter::repeat_n(1_590, 20).chain([1_700; 400]));
    assert_eq!(raised(&paces).last().unwrap().1, DOWNTIME_MS_MAX);
    let (look, busy) = given_up(&paces).unwrap();
    assert!(look < 160, "two minutes after the last step: {look}");
    assert_eq!(busy.needs_ms, 1_700);
}

#[test]
fn a_guest_that_would_have_to_stand_still_for_far_too_long_is_not_stopped_for_longer_and_is_given_up_in_time() {
    let paces = paces([40_000; 200]);
    assert_eq!(raised(&paces), []);
    let (look, busy) = given_up(&paces).unwrap();
    // The first measured round ends with the second look, two minutes before.
    assert_eq!((look, busy), (121, Busy { rounds: 122, needs_ms: 40_000 }));
    let told = busy.to_string();
    assert!(told.contains("faster than it is copied") && told.contains("40000 ms"), "{told}");
    assert!(told.len() < 180, "an outcome has room for so much: {told}");
}

#[test]
fn long_rounds_are_not_given_up_before_enough_of_them_have_not_helped() {
    let mut convergence = Convergence::default();
    let mut look = |round: u64, minutes: u32| convergence.look(standing(round, 600_000), SECOND * 60 * minutes);
    for round in 1..6 {
        assert_eq!(look(round, 10 * u32::try_from(round).unwrap()), Pace::GoOn, "{round}");
    }
    assert!(matches!(look(6, 60), Pace::GiveUp(_)));
}

#[test]
fn a_guest_that_is_busy_for_a_minute_is_sent_all_the_same() {
    let paces = paces(std::iter::repeat_n(9_000, 60).chain([6_000, 3_000, 1_000, 300]).chain([90; 200]));
    assert!(paces.iter().all(|pace| *pace == Pace::GoOn), "{:?}", given_up(&paces));
}

#[test]
fn the_same_round_is_judged_once_however_often_it_is_looked_at() {
    let mut convergence = Convergence::default();
    for second in 1..1_000 {
        assert_eq!(convergence.look(standing(3, 700), SECOND * second), Pace::GoOn);
    }
}

#[test]
fn what_qemu_has_not_measured_is_not_taken_for_the_best() {
    // Until it has measured, it tells the limit, and bulk rounds tell nothing of what follows.
    let mut convergence = Convergence::default();
    let mut look = |round, needs_ms| convergence.look(standing(round, needs_ms), SECOND);
    for (round, needs_ms) in [(1, 100), (1, 5), (2, 100), (3, 5_000), (4, 3_000), (5, 2_000), (6, 1_500), (7, 1_100)] {
        assert_eq!(look(round, needs_ms), Pace::GoOn, "{round}");
    }
}
