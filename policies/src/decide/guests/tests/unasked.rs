//! Services that nobody can ask.

use std::collections::BTreeMap;

use super::*;
use crate::{
    decide::tests::started,
    model::Severity,
    observe::{GuestCondition, GuestReport},
    time::Moment,
};

/// It was just started, and those who look at it cannot ask it from the beginning.
fn unseen() -> Scene {
    let mut scene = started();
    scene.seen("web", SightState::Unknown);
    scene
}

fn later_unseen(scene: &mut Scene, ms: u64) -> Vec<String> {
    scene.later(ms);
    scene.seen("web", SightState::Unknown);
    scene.settle()
}

#[test]
fn what_nobody_can_ask_holds_a_started_guest_up_for_its_time_to_boot_and_no_longer() {
    let mut scene = unseen();
    assert_eq!(later_unseen(&mut scene, 5_900), Vec::<String>::new());
    assert!(doing(&scene, "web").contains("waiting for its services"), "{}", doing(&scene, "web"));
    assert_eq!(later_unseen(&mut scene, 200), ["Verified"]);
    let told = scene.stage.state.journal.entries().next_back().unwrap().what.to_string();
    assert_eq!(told, "all services of web on d answer that can be asked; http cannot");
}

#[test]
fn one_vantage_that_gets_no_answer_holds_a_started_guest_up_whatever_the_others_cannot_tell() {
    let mut scene = started();
    scene.later(100_000);
    scene.sight("web", "a", SightState::Failing);
    scene.sight("web", "b", SightState::Unknown);
    assert_eq!(scene.words(), Vec::<String>::new());
}

#[test]
fn silence_of_those_who_ask_verifies_nothing() {
    let mut scene = started();
    scene.later(100_000);
    assert_eq!(scene.words(), Vec::<String>::new());
}

#[test]
fn a_service_that_is_long_beyond_asking_is_told_once_and_taken_back_when_somebody_can_ask() {
    let mut scene = unseen();
    later_unseen(&mut scene, 6_100);
    assert_eq!(later_unseen(&mut scene, 59_000), Vec::<String>::new());
    assert_eq!(later_unseen(&mut scene, 1_000), ["IncidentOpened"]);
    let incident = scene.stage.state.open_incident("unasked/web").unwrap();
    assert_eq!(incident.severity, Severity::Warning);
    assert!(incident.summary.contains("http of web"), "{}", incident.summary);
    assert_eq!(later_unseen(&mut scene, 10_000), Vec::<String>::new());
    scene.later(10_000);
    assert_eq!(scene.settle(), Vec::<String>::new(), "that nobody says anything takes nothing back");
    scene.seen("web", SightState::Passing);
    assert_eq!(scene.settle(), ["IncidentResolved"]);
}

#[test]
fn a_new_coordinator_hears_for_itself_for_how_long_nobody_can_ask() {
    let mut scene = unseen();
    scene.later(100_000);
    scene.evidence.quorum_since = Some(Moment(scene.now));
    assert_eq!(later_unseen(&mut scene, 5_900), Vec::<String>::new());
    assert_eq!(later_unseen(&mut scene, 200), ["Verified"]);
    assert_eq!(later_unseen(&mut scene, 59_000), Vec::<String>::new());
    assert_eq!(later_unseen(&mut scene, 1_000), ["IncidentOpened"]);
}

#[test]
fn a_vantage_that_has_only_begun_to_look_has_yet_to_see_whether_a_started_guest_fails() {
    let mut scene = started();
    scene.later(50_000);
    scene.seen("web", SightState::Failing);
    scene.later(50_000);
    scene.sight("web", "c", SightState::Unknown);
    assert_eq!(scene.words(), Vec::<String>::new(), "another one looks in place of those who saw it fail");
    scene.later(6_100);
    scene.sight("web", "c", SightState::Unknown);
    assert_eq!(scene.settle(), ["Verified"]);
}

#[test]
fn a_supervisor_that_has_just_started_raises_no_alarm_of_what_it_has_yet_to_ask() {
    let mut scene = started();
    scene.seen("web", SightState::Passing);
    assert_eq!(scene.settle(), ["Verified"]);
    scene.later(100_000);
    scene.seen("web", SightState::Passing);
    assert_eq!(later_unseen(&mut scene, 1_000), Vec::<String>::new());
    assert_eq!(later_unseen(&mut scene, 65_000), Vec::<String>::new());
    assert_eq!(later_unseen(&mut scene, 2_000), ["IncidentOpened"]);
}

#[test]
fn a_service_that_one_vantage_fails_and_no_other_can_ask_is_told_of_once_whether_its_guest_has_come_up_or_not() {
    for has_come_up in [false, true] {
        let mut scene = started();
        if has_come_up {
            scene.seen("web", SightState::Passing);
            assert_eq!(scene.settle(), ["Verified"]);
        }
        let goes_on = |scene: &mut Scene, ms: u64| {
            scene.later(ms);
            scene.sight("web", "a", SightState::Failing);
            scene.sight("web", "b", SightState::Unknown);
            scene.settle()
        };
        assert_eq!(goes_on(&mut scene, 1_000), Vec::<String>::new());
        assert_eq!(goes_on(&mut scene, 65_900), Vec::<String>::new());
        assert_eq!(goes_on(&mut scene, 200), ["IncidentOpened"], "{has_come_up}");
        let told = scene.stage.state.open_incident("unasked/web").unwrap();
        assert!(told.summary.starts_with("too few can ask http of web"), "{}", told.summary);
        assert_eq!(goes_on(&mut scene, 10_000), Vec::<String>::new(), "once");
        scene.seen("web", SightState::Passing);
        assert!(scene.settle().contains(&"IncidentResolved".to_owned()));
    }
}

/// What the host of web says in a sync.
fn says(scene: &mut Scene, condition: GuestCondition) {
    let epoch = scene.stage.state.guests[&name("web")].tenures()[0].epoch;
    let report = GuestReport::new(name("web"), epoch, condition);
    let now = Moment(scene.now);
    scene.evidence.hosts.get_mut(&host("d")).unwrap().report(BTreeMap::from([(name("web"), report)]), now);
}

#[test]
fn that_a_guest_is_long_paused_is_over_when_it_is_unmanaged_as_people_are_told_to_have_it() {
    let mut scene = crate::decide::tests::four();
    let paused = GuestCondition::Paused { reason: "by hand".to_owned() };
    says(&mut scene, paused.clone());
    scene.later(300_000);
    says(&mut scene, paused.clone());
    assert_eq!(scene.settle(), ["IncidentOpened"]);
    want(&mut scene, "web", Wanted::Unmanaged);
    assert_eq!(scene.settle(), ["IncidentResolved"]);
    want(&mut scene, "web", Wanted::Running);
    assert_eq!(scene.settle(), ["IncidentOpened"], "it is paused still");
}

#[test]
fn a_guest_that_is_long_paused_or_of_which_its_host_cannot_tell_is_told_of_once_and_left_as_it_is() {
    for condition in [
        GuestCondition::Paused { reason: "by hand".to_owned() },
        GuestCondition::Unknown { detail: "no answer".to_owned() },
    ] {
        let mut scene = crate::decide::tests::four();
        says(&mut scene, condition.clone());
        let goes_on = |scene: &mut Scene, ms: u64| {
            scene.later(ms);
            says(scene, condition.clone());
            scene.seen("web", SightState::Failing);
            scene.settle()
        };
        assert_eq!(goes_on(&mut scene, 299_000), Vec::<String>::new(), "{condition:?}");
        assert_eq!(goes_on(&mut scene, 1_000), ["IncidentOpened"], "{condition:?}");
        let told = scene.stage.state.open_incident("unasked/web").unwrap();
        assert!(told.severity == Severity::Warning && told.human.is_some(), "{told:?}");
        assert_eq!(goes_on(&mut scene, 60_000), Vec::<String>::new(), "once");
        scene.later(10_000);
        says(&mut scene, GuestCondition::Running);
        scene.seen("web", SightState::Passing);
        assert_eq!(scene.settle(), ["IncidentResolved"]);
        says(&mut scene, condition.clone());
        assert_eq!(goes_on(&mut scene, 299_000), Vec::<String>::new(), "it counts from the beginning");
    }
}
