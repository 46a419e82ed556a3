//! Wanted stopped, and started again.

use super::*;
use crate::{
    decide::tests::four,
    feature_level::FeatureLevel,
    fixture::{done, failed},
    model::Severity,
    state::Phase,
};

#[test]
fn a_guest_that_is_wanted_stopped_is_stopped_and_stays_down() {
    let mut scene = four();
    want(&mut scene, "web", Wanted::Stopped);
    assert_eq!(scene.settle(), ["Stop"]);
    assert!(scene.stage.orders("d")[0].starts_with("release"), "{:?}", scene.stage.orders("d"));
    scene.stage.end("d", done());
    scene.later(60_000);
    assert_eq!(scene.settle(), Vec::<String>::new());
    assert_eq!(scene.stage.state.guests[&name("web")].word(), "stopped");
    assert!(doing(&scene, "web").starts_with("stopped"), "{}", doing(&scene, "web"));
}

#[test]
fn a_stopped_guest_that_is_wanted_running_is_placed_again() {
    let mut scene = four();
    want(&mut scene, "web", Wanted::Stopped);
    scene.settle();
    scene.stage.end("d", done());
    want(&mut scene, "web", Wanted::Running);
    scene.later(1_000);
    assert_eq!(scene.settle(), ["Place"]);
}

#[test]
fn a_stop_that_fails_is_told_and_tried_again_and_starts_nothing_elsewhere() {
    let mut scene = four();
    want(&mut scene, "web", Wanted::Stopped);
    scene.settle();
    scene.stage.end("d", failed());
    let incident = scene.stage.state.open_incident("guest/web").unwrap();
    assert!(incident.human.as_ref().unwrap().contains("may still run on d"), "{incident:?}");
    want(&mut scene, "web", Wanted::Running);
    scene.later(9_000);
    assert_eq!(scene.settle(), Vec::<String>::new());
    assert!(doing(&scene, "web").contains("could not be stopped on d"), "{}", doing(&scene, "web"));
    want(&mut scene, "web", Wanted::Stopped);
    scene.later(1_000);
    assert_eq!(scene.settle(), ["ReleaseAgain"]);
    scene.stage.end("d", done());
    scene.later(1_000);
    assert_eq!(scene.settle(), ["IncidentResolved"]);
    assert!(matches!(scene.stage.phase("web"), Phase::Free { .. }));
}

/// As many changes of an incident as receivers are told of. An earlier version counts every try (R26).
#[test]
fn a_stop_that_fails_again_and_again_is_told_once() {
    for (level, changes) in [(FeatureLevel::CALLED_OFF, 4), (FeatureLevel::TOLD_ONCE, 1)] {
        let mut scene = four();
        scene.stage.state.level = level;
        want(&mut scene, "web", Wanted::Stopped);
        assert_eq!(scene.settle(), ["Stop"]);
        scene.stage.end("d", failed());
        for _ in 0..3 {
            scene.later(11_000);
            assert_eq!(scene.settle(), ["ReleaseAgain"]);
            scene.stage.end("d", failed());
        }
        let told = scene.stage.state.open_incident("guest/web").unwrap();
        assert_eq!((told.severity, told.seq), (Severity::Critical, changes), "{level}");
    }
}

/// Where both halves of a move cannot be stopped, each of the two is tried again and again.
#[test]
fn two_stops_that_fail_in_turn_are_told_of_one_after_the_other() {
    let mut scene = four();
    scene.stage.state.level = FeatureLevel::TOLD_ONCE;
    scene.stage.migrate("web", "a");
    scene.stage.end("a", done());
    scene.stage.end("d", done());
    scene.stage.end("a", failed());
    scene.stage.end("d", failed());
    scene.stage.end("a", failed());
    let told = |scene: &Scene| {
        let open = scene.stage.state.open_incident("guest/web").unwrap();
        (open.seq, open.summary.contains("cannot be stopped on d"))
    };
    let (changes, of_source) = told(&scene);
    assert!(of_source);
    for _ in 0..3 {
        scene.stage.must(Change::ReleaseAgain { guest: name("web") });
        scene.stage.end("d", failed());
        scene.stage.end("a", failed());
    }
    assert_eq!(told(&scene), (changes, true));
    scene.stage.must(Change::ReleaseAgain { guest: name("web") });
    scene.stage.end("d", done());
    scene.stage.end("a", failed());
    assert!(scene.stage.state.open_incident("guest/web").unwrap().summary.contains("cannot be stopped on a"));
}

/// An earlier version has it wait for the end of the maintenance, and refuses its start (R26).
#[test]
fn a_guest_that_was_stopped_on_a_host_in_maintenance_starts_elsewhere_when_an_operator_starts_it() {
    for (level, words) in [(FeatureLevel::CALLED_OFF, vec![]), (FeatureLevel::SENT_AWAY, vec!["Place"])] {
        let mut scene = four();
        scene.stage.state.level = level;
        want(&mut scene, "web", Wanted::Stopped);
        assert_eq!(scene.settle(), ["Stop"]);
        scene.stage.end("d", done());
        set_mode(&mut scene, "d", Mode::Maintenance);
        scene.later(60_000);
        want(&mut scene, "web", Wanted::Unmanaged);
        want(&mut scene, "web", Wanted::Running);
        assert_eq!(scene.settle(), Vec::<String>::new(), "that it is managed again starts nothing there");
        want(&mut scene, "web", Wanted::Stopped);
        want(&mut scene, "web", Wanted::Running);
        assert_eq!(scene.settle(), words, "{level}");
        assert_ne!(home(&scene, "web"), "d");
    }
}

#[test]
fn a_guest_that_is_started_while_it_is_being_stopped_on_a_host_in_maintenance_starts_elsewhere() {
    let mut scene = four();
    scene.stage.state.level = FeatureLevel::SENT_AWAY;
    want(&mut scene, "web", Wanted::Stopped);
    assert_eq!(scene.settle(), ["Stop"]);
    set_mode(&mut scene, "d", Mode::Maintenance);
    want(&mut scene, "web", Wanted::Running);
    scene.stage.end("d", done());
    scene.later(60_000);
    assert_eq!(scene.settle(), ["Place"]);
    assert_ne!(home(&scene, "web"), "d");
}

#[test]
fn a_guest_that_is_wanted_stopped_while_it_starts_is_stopped_when_it_runs() {
    let mut scene = Scene::new(&["a", "b"], &["web"]);
    scene.stage.place("web", "a");
    want(&mut scene, "web", Wanted::Stopped);
    scene.later(1_000);
    assert_eq!(scene.settle(), Vec::<String>::new());
    scene.stage.end("a", done());
    scene.later(1_000);
    assert_eq!(scene.settle(), ["Stop"]);
}

#[test]
fn a_stopped_guest_is_not_started_by_a_proposal_of_before() {
    let mut scene = Scene::new(&["a", "b"], &["web"]);
    let place = scene.decide().commands;
    want(&mut scene, "web", Wanted::Stopped);
    assert!(matches!(scene.stage.refused(place[0].clone()), crate::change::Refused::Guest { .. }));
}

#[test]
fn a_guest_that_is_wanted_stopped_is_not_restarted_when_its_host_dies() {
    let mut scene = four();
    want(&mut scene, "web", Wanted::Stopped);
    let gone = scene.stage.gone("d");
    scene.stage.must(gone);
    later_without(&mut scene, "d", 60_000);
    assert_eq!(scene.settle(), ["IncidentResolved"]);
    assert!(matches!(scene.stage.phase("web"), Phase::Free { .. }));
}

#[test]
fn a_service_that_fails_does_not_keep_a_guest_from_being_stopped() {
    let mut scene = four();
    want(&mut scene, "web", Wanted::Stopped);
    scene.seen("web", SightState::Failing);
    assert_eq!(scene.words(), ["Stop"]);
}

#[test]
fn that_no_host_can_run_a_guest_is_over_when_it_runs_however_it_came_to() {
    let mut scene = four();
    scene.stage.must(Change::IncidentOpened {
        key: "placement/web".to_owned(),
        severity: Severity::Critical,
        summary: "web waits: no host can run it".to_owned(),
        human: None,
        guests: Vec::new(),
        evidence: Vec::new(),
    });
    assert_eq!(scene.settle(), ["IncidentResolved"], "who placed it could not say so any more");
}

#[test]
fn nobody_is_told_that_a_guest_is_tried_on_which_is_left_alone() {
    let mut scene = Scene::new(&["a", "b"], &["web"]);
    redeclare(&mut scene, |policies| policies.guests.get_mut(&name("web")).unwrap().qemu.memory_mib = 100_000);
    scene.later(6_000);
    assert_eq!(scene.settle(), ["IncidentOpened"]);
    suspend(&mut scene, true);
    assert_eq!(scene.settle(), Vec::<String>::new(), "it goes on after that");
    suspend(&mut scene, false);
    want(&mut scene, "web", Wanted::Unmanaged);
    assert_eq!(scene.settle(), ["IncidentResolved"]);
    want(&mut scene, "web", Wanted::Running);
    assert_eq!(scene.settle(), ["IncidentOpened"]);
}
