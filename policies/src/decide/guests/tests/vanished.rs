//! Guests that leave their host as one does that other tools move, while another host is silent.

use std::collections::BTreeMap;

use super::*;
use crate::{
    decide::{hosts::HostVerdict, tests::four},
    evidence::Left,
    feature_level::FeatureLevel,
    fixture::done,
    time::Moment,
};

/// `web` has vanished from `d` at this moment, and nobody has said yet whether it is elsewhere.
fn vanished() -> Scene {
    let mut scene = four();
    scene.later(20_000);
    scene.seen("web", SightState::Passing);
    scene.evidence.hosts.get_mut(&host("d")).unwrap().report(BTreeMap::new(), Moment(scene.now));
    scene
}

/// What is decided, in which nothing starts `web`; `c` is to stop what it may have of it, and people are told.
fn waits_for_c(scene: &mut Scene) -> Vec<String> {
    let said = doing(scene, "web");
    assert!(said.contains("other tools may have moved it to c, which is silent"), "{said}");
    let all = scene.settle();
    assert!(all.contains(&"StrayFound".to_owned()) && !all.contains(&"Climb".to_owned()), "{all:?}");
    assert!(scene.stage.orders("c").iter().any(|order| order.starts_with("release web")), "{all:?}");
    let told = scene.stage.state.open_incident("twice/web").expect("people are told");
    assert!(told.summary.contains("may run on c"), "{}", told.summary);
    all
}

#[test]
fn a_guest_that_vanishes_while_a_supervisor_is_down_starts_once_that_has_said_that_nothing_of_it_is_there() {
    let mut scene = vanished();
    later_with_nothing(&mut scene, 3_000);
    scene.silent("c", 3_000);
    scene.heard("c", 100);
    let all = waits_for_c(&mut scene);
    assert!(!all.contains(&"FenceOpened".to_owned()), "c lives (R16): {all:?}");
    // It outlasts what a coordinator remembers, and nobody who lives is fenced for it.
    later_with_nothing(&mut scene, 100_000);
    scene.silent("c", 103_000);
    scene.heard("c", 100);
    let all = scene.settle();
    assert!(!all.iter().any(|word| word == "Climb" || word == "FenceOpened"), "{all:?}");
    scene.stage.end("c", done());
    later_with_nothing(&mut scene, 1_000);
    let all = scene.settle();
    assert!(all.contains(&"Climb".to_owned()) && all.contains(&"IncidentResolved".to_owned()), "{all:?}");
}

#[test]
fn a_guest_that_vanishes_in_the_moment_in_which_another_host_dies_starts_once_that_is_proven_off() {
    let mut scene = vanished();
    later_with_nothing(&mut scene, 3_000);
    scene.silent("c", 3_000);
    let all = waits_for_c(&mut scene);
    assert!(all.contains(&"FenceOpened".to_owned()), "nothing else would end the wait (L1): {all:?}");
    let gone = scene.stage.gone("c");
    scene.stage.must(gone);
    later_with_nothing(&mut scene, 1_000);
    scene.evidence.hosts.remove(&host("c"));
    assert!(scene.settle().contains(&"Climb".to_owned()), "{}", doing(&scene, "web"));
}

#[test]
fn a_coordinator_that_finds_a_guest_gone_waits_for_a_host_that_may_have_died_with_the_one_before() {
    let mut scene = four();
    scene.later(20_000);
    // What was heard before the election is not known here.
    scene.evidence.hosts.clear();
    scene.evidence.quorum_since = Some(Moment(scene.now));
    scene.now += 3_500;
    for on in ["a", "b", "d"] {
        scene.synced(on, scene.now);
    }
    let here = scene.evidence.hosts.get_mut(&host("d")).unwrap();
    here.reports.clear();
    here.report(BTreeMap::new(), Moment(scene.now - 3_400));
    assert_eq!(scene.verdict("c"), HostVerdict::Unknown);
    waits_for_c(&mut scene);
}

#[test]
fn a_guest_that_vanishes_waits_for_no_host_that_was_dead_before_its_coordinator_began() {
    for (since, verdict) in [(3_000, HostVerdict::Unknown), (100_000, HostVerdict::Failed)] {
        let mut scene = vanished();
        later_with_nothing(&mut scene, since);
        scene.evidence.hosts.remove(&host("c"));
        scene.asked("c", None);
        assert_eq!(scene.verdict("c"), verdict);
        assert!(scene.settle().contains(&"Climb".to_owned()), "{}", doing(&scene, "web"));
    }
}

#[test]
fn a_guest_that_vanishes_as_a_host_with_guests_dies_waits_for_as_long_as_that_is_fenced() {
    let mut scene = Scene::new(&["a", "b", "c", "d"], &["db", "web"]);
    scene.stage.state.level = FeatureLevel::HIGHEST;
    scene.stage.run("db", "c");
    scene.stage.run("web", "d");
    scene.later(20_000);
    scene.seen("web", SightState::Passing);
    scene.evidence.hosts.get_mut(&host("d")).unwrap().report(BTreeMap::new(), Moment(scene.now));
    later_with_nothing(&mut scene, 3_000);
    scene.silent("c", 3_000);
    let all = waits_for_c(&mut scene);
    assert!(all.contains(&"FenceOpened".to_owned()), "for its own guest: {all:?}");
    // The fence lasts longer than what a coordinator remembers.
    later_with_nothing(&mut scene, 100_000);
    scene.evidence.hosts.get_mut(&host("d")).unwrap().left = Left::default();
    scene.silent("c", 103_000);
    let words = scene.words();
    assert!(!words.contains(&"Climb".to_owned()), "{words:?}");
}
