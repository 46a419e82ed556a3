//! Guests that reset themselves: their services get time to come up again, and not for ever.

use super::*;
use crate::happened::{Happened, Happening};

/// `web` has run on `d` for long, does not answer any more, and has reset itself so many milliseconds before its host's
/// newest sync. It has 6 s to boot, and a cool-down of 20 s.
fn failing_after_resets(ago_ms: &[u64]) -> Scene {
    let mut scene = four();
    scene.settle();
    scene.later(60_000);
    told(&mut scene, ago_ms);
    scene
}

fn told(scene: &mut Scene, ago_ms: &[u64]) {
    let reset = |ago_ms: &u64| Happened { ago_ms: *ago_ms, what: Happening::Reset { watchdog: true } };
    let reports = &mut scene.evidence.hosts.get_mut(&host("d")).unwrap().reports;
    reports.get_mut(&name("web")).unwrap().happened = ago_ms.iter().map(reset).collect();
    ["a", "b"].iter().for_each(|from| scene.sight("web", from, SightState::Failing));
}

#[test]
fn a_guest_that_was_up_and_fails_is_helped_at_once_if_it_has_not_reset_itself() {
    assert_eq!(failing_after_resets(&[]).words(), ["Climb"]);
}

#[test]
fn a_guest_that_has_reset_itself_gets_its_time_to_boot_again() {
    let scene = failing_after_resets(&[2_000]);
    let decision = scene.decide();
    assert!(decision.commands.is_empty(), "{:?}", decision.commands);
    let expected = "http does not answer yet; it reset itself 2s ago (watchdog), and has 6s to boot";
    assert_eq!(decision.report.guests[&name("web")].doing, expected);
}

#[test]
fn the_time_counts_from_the_reset_and_not_from_when_it_was_told() {
    let mut scene = failing_after_resets(&[5_500]);
    scene.now += 400;
    assert_eq!(scene.words(), Vec::<String>::new());
    scene.now += 100;
    assert_eq!(scene.words(), ["Climb"]);
}

#[test]
fn a_reset_after_a_rung_was_taken_counts_too_and_one_before_it_is_over_by_then() {
    let mut scene = failing_after_resets(&[]);
    scene.settle();
    assert_eq!(scene.stage.state.guests[&name("web")].word(), "running");
    scene.stage.end("d", done());
    scene.later(10_000);
    told(&mut scene, &[1_000]);
    assert_eq!(scene.words(), Vec::<String>::new());
    told(&mut scene, &[]);
    assert_eq!(scene.words(), ["Climb"]);
}

#[test]
fn a_guest_that_resets_itself_again_and_again_is_helped_at_last() {
    assert_eq!(failing_after_resets(&[12_000, 7_000, 1_000]).words(), Vec::<String>::new());
    assert_eq!(failing_after_resets(&[18_000, 12_000, 7_000, 1_000]).words(), ["Climb"]);
    assert_eq!(failing_after_resets(&[20_000, 12_000, 7_000, 1_000]).words(), Vec::<String>::new(), "cooled down");
}

#[test]
fn resets_under_an_earlier_assignment_count_for_nothing() {
    let mut scene = failing_after_resets(&[1_000]);
    let reports = &mut scene.evidence.hosts.get_mut(&host("d")).unwrap().reports;
    reports.get_mut(&name("web")).unwrap().epoch.index -= 1;
    assert!(!scene.decide().report.guests[&name("web")].doing.contains("reset itself"));
}

#[test]
fn what_happened_is_told_to_whoever_asks() {
    let mut scene = failing_after_resets(&[2_000]);
    let (report, now) = (scene.decide().report, Moment(scene.now + 1_000));
    assert!(report.guests[&name("web")].happened.is_empty());
    let timing = Timing::default();
    let shown = report.with_words(&scene.stage.state, &scene.evidence, &timing, now);
    assert_eq!(shown.guests[&name("web")].happened, ["it reset itself 3s ago (watchdog)"]);
    told(&mut scene, &[]);
    let shown = report.with_words(&scene.stage.state, &scene.evidence, &timing, now);
    assert!(shown.guests[&name("web")].happened.is_empty());
}
