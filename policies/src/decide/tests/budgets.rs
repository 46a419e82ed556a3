//! Budgets of fences: what is held beyond them, until when, and what passes (S8, S9).

use super::*;
use crate::{
    change::Refused,
    feature_level::FeatureLevel,
    rules::{FencesAtOnce, HostDeclaration},
};

/// `d` runs `web`, was fenced a minute ago, and has failed again; an hour has room for one fence of a host.
fn fenced_before() -> Scene {
    let mut scene = four();
    scene.stage.must(Change::LevelRaised { to: FeatureLevel::HIGHEST });
    let mut policies = scene.stage.state.policies.clone();
    policies.cluster.fences_per_hour = Some(1);
    scene.stage.declare(policies);
    let fenced = scene.stage.index;
    scene.stage.state.hosts.get_mut(&host("d")).unwrap().fences.push(fenced);
    scene.later(60_000);
    scene.silent("d", 2_000);
    scene
}

fn allow() -> Change {
    Change::FenceAllowed { host: host("d"), by: "ann".to_owned() }
}

/// Whether a person is called because of `d`.
fn is_called(scene: &Scene) -> bool {
    scene.stage.state.open_incident("host/d").is_some_and(|open| open.human.is_some())
}

#[test]
fn a_host_whose_budget_is_used_up_is_not_switched_off_before_the_hour_has_room_and_a_person_is_called() {
    let mut scene = fenced_before();
    assert_eq!(scene.settle(), ["FenceOpened", "IncidentOpened"]);
    let incident = scene.stage.state.open_incident("host/d").unwrap();
    assert_eq!(incident.summary, "d has failed, and is not switched off: `fences_per_hour: 1` is used up for d");
    assert!(incident.human.as_ref().unwrap().contains("holdfast fence allow d"), "{incident:?}");

    let report = scene.decide().report;
    let (what, left) = report.hosts[&host("d")].waits.clone().unwrap();
    let room = "room in the hour at 01:01:40Z, or an operator: `fences_per_hour: 1` is used up for d";
    assert_eq!((what.as_str(), left), (room, 3_540_000));
    let of_guest = report.guests[&name("web")].waits.clone().unwrap();
    assert_eq!(of_guest, (format!("the fence of d, which waits for {room}"), 3_540_000));

    scene.later(3_539_000);
    scene.silent("d", 60_000);
    assert!(scene.settle().is_empty(), "nobody is told twice, and there is no room yet");
    scene.later(1_000);
    scene.silent("d", 60_000);
    assert_eq!(scene.settle(), ["FenceForgotten", "FenceAttempted"]);
    assert!(!is_called(&scene), "it goes on");
}

#[test]
fn proof_needs_no_room_in_the_hour() {
    let mut scene = fenced_before();
    scene.settle();
    scene.power("d", off("d", Moment(scene.now)));
    assert!(scene.settle().contains(&"HostGone".to_owned()));
}

#[test]
fn an_operator_lets_a_fence_go_on_that_a_budget_holds_and_the_next_one_is_held_again() {
    let mut scene = fenced_before();
    assert!(matches!(scene.stage.refused(allow()), Refused::Already { .. }), "not in advance");
    scene.settle();
    assert!(is_called(&scene));
    scene.stage.must(allow());
    assert!(!is_called(&scene));
    assert_eq!(scene.settle(), ["FenceAttempted"]);
    assert!(matches!(scene.stage.refused(allow()), Refused::Already { .. }), "it is being carried out");

    scene.stage.end("a", failed());
    scene.later(60_000);
    assert!(scene.settle().contains(&"FenceSuperseded".to_owned()));
    scene.later(60_000);
    scene.silent("d", 2_000);
    let decided = scene.settle();
    let opened = decided.contains(&"FenceOpened".to_owned());
    assert!(opened && !decided.contains(&"FenceAttempted".to_owned()), "{decided:?}");
}

#[test]
fn fences_that_could_begin_at_once_are_counted_one_by_one_where_all_hosts_share_a_budget() {
    let mut scene = Scene::new(&["a", "b", "c", "d", "e", "f", "g"], &["web", "db"]);
    let mut policies = scene.stage.state.policies.clone();
    policies.cluster.failure_domain = Some("rack".to_owned());
    policies.cluster.fences_at_once = FencesAtOnce::OnePerFailureDomain;
    policies.cluster.fences_per_hour_in_all = Some(1);
    for (on, rack) in [("f", "r1"), ("g", "r2")] {
        let labels = [("rack".to_owned(), rack.to_owned())].into();
        policies.hosts.insert(host(on), HostDeclaration { labels, ..HostDeclaration::default() });
    }
    scene.stage.declare(policies);
    for (guest, on) in [("web", "f"), ("db", "g")] {
        scene.stage.run(guest, on);
    }
    scene.later(600_000);
    for on in ["f", "g"] {
        scene.stage.fence(on);
    }
    // One long after the other, so that they are no storm.
    scene.silent("f", 200_000);
    scene.silent("g", 2_000);
    let attempts = scene.settle().into_iter().filter(|word| word == "FenceAttempted").count();
    assert_eq!(attempts, 1);
    let held = scene.decide().report.hosts[&host("g")].waits.clone().unwrap().0;
    assert!(held.ends_with("`fences_per_hour_in_all: 1` is used up"), "{held}");
}
