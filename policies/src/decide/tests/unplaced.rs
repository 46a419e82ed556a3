//! Guests that were never placed, and hosts that are not heard.

use super::*;
use crate::{model::Severity, names::Epoch};

/// `web` runs on `d`, was removed from the policies, and has just been declared again; under which assignment it is there.
fn added_again() -> (Scene, Epoch) {
    let mut scene = four();
    let epoch = scene.stage.state.guests[&name("web")].tenures()[0].epoch;
    let hosts: Vec<HostName> = scene.stage.state.hosts.keys().cloned().collect();
    scene.stage.declare(declaration(&[], &hosts));
    scene.stage.declare(declaration(&[name("web")], &hosts));
    assert!(matches!(scene.stage.phase("web"), Phase::Unplaced));
    scene.later(1_000_000);
    (scene, epoch)
}

#[test]
fn what_hosts_said_before_a_guest_was_declared_counts_for_no_first_placement() {
    let mut scene = four();
    let hosts: Vec<HostName> = scene.stage.state.hosts.keys().cloned().collect();
    scene.stage.declare(declaration(&[name("web"), name("new")], &hosts));
    assert_eq!(scene.words(), Vec::<String>::new(), "all are well, and nobody knew of it when it spoke");
    for on in ["a", "b", "d"] {
        scene.synced(on, scene.now);
    }
    // It may have been started on `c` since, which has fallen silent.
    assert_eq!(scene.words(), Vec::<String>::new());
    let waits = scene.decide().report.guests[&name("new")].waits.clone();
    assert!(waits.is_some_and(|(what, _)| what.starts_with("the word of c on what runs there")));
    scene.synced("c", scene.now);
    assert_eq!(scene.settle(), ["GuestFree", "Place"]);
}

/// In its last word `d` had `web`.
fn had(scene: &mut Scene, epoch: Epoch) {
    let report = GuestReport::new(name("web"), epoch, GuestCondition::Running);
    scene.evidence.hosts.get_mut(&host("d")).unwrap().reports.insert(name("web"), report);
}

#[test]
fn a_host_that_had_a_guest_which_was_removed_and_declared_again_is_fenced_for_it() {
    let (mut scene, epoch) = added_again();
    scene.silent("d", 2_000);
    had(&mut scene, epoch);
    let commands = scene.decide().commands;
    let said = |change: &Change| matches!(change, Change::FenceOpened { evidence, .. } if evidence.iter().any(|said| said.contains("web")));
    assert!(commands.iter().any(said), "{commands:?}");
    assert_eq!(scene.settle(), ["FenceOpened", "FenceAttempted"]);
    scene.stage.end("a", done());
    scene.power("d", off("d", Moment(scene.now)));
    assert_eq!(scene.settle(), ["HostGone", "GuestFree", "Place"]);
}

#[test]
fn a_guest_that_was_declared_again_is_adopted_when_its_host_is_heard_before_it_is_switched_off() {
    let (mut scene, epoch) = added_again();
    scene.silent("d", 2_000);
    had(&mut scene, epoch);
    let fence =
        scene.decide().commands.into_iter().find(|change| matches!(change, Change::FenceOpened { .. })).unwrap();
    scene.stage.must(fence);
    scene.later(1_000);
    had(&mut scene, epoch);
    let all = scene.settle();
    assert!(all.contains(&"FenceSuperseded".to_owned()) && all.contains(&"GuestAdopted".to_owned()), "{all:?}");
    assert!(scene.stage.may_run("web").contains("d"));
}

#[test]
fn a_silent_host_that_had_nothing_of_a_guest_is_not_fenced_for_it_and_people_are_told_that_its_word_is_waited_for() {
    let (mut scene, _) = added_again();
    scene.silent("d", 29_000);
    assert_eq!(scene.settle(), Vec::<String>::new());
    scene.silent("d", 30_000);
    assert_eq!(scene.settle(), ["IncidentOpened"]);
    let told = scene.stage.state.open_incident("supervisor/d").unwrap();
    assert!(told.severity == Severity::Critical && told.human.is_some(), "{told:?}");
    scene.later(1_000);
    assert_eq!(scene.settle(), ["IncidentResolved", "GuestFree", "Place"]);
}

#[test]
fn a_host_in_maintenance_whose_word_guests_wait_for_is_told_of_when_it_could_have_rebooted() {
    for there in [false, true] {
        let (mut scene, epoch) = added_again();
        restraint::set_mode(&mut scene, "d", Mode::Maintenance);
        for (ms, expected) in [(419_000, 0), (420_000, 1)] {
            scene.silent("d", ms);
            if there {
                had(&mut scene, epoch);
            }
            let all = scene.settle();
            assert_eq!(all, vec!["IncidentOpened"; expected], "silent for {ms} ms, was there: {there}");
        }
    }
}

#[test]
fn a_new_coordinator_neither_ends_nor_repeats_that_the_word_of_a_silent_host_is_waited_for() {
    for mode in [Mode::Active, Mode::Maintenance] {
        let (mut scene, _) = added_again();
        if mode != Mode::Active {
            restraint::set_mode(&mut scene, "d", mode);
        }
        scene.silent("d", 420_000);
        assert_eq!(scene.settle(), ["IncidentOpened"], "{mode:?}");
        // It has never heard `d` itself.
        scene.evidence.quorum_since = Some(Moment(scene.now));
        scene.evidence.hosts.remove(&host("d"));
        for passed in (10_000..=90_000).step_by(10_000) {
            scene.now += 10_000;
            for on in ["a", "b", "c"] {
                scene.synced(on, scene.now);
            }
            scene.asked("d", Some(420_000 + passed));
            assert_eq!(scene.settle(), Vec::<String>::new(), "{mode:?}, {passed} ms");
        }
    }
}

/// Who carries the drill out has fallen silent, so that its call does not keep others from theirs any more.
#[test]
fn a_host_that_a_drill_may_yet_switch_off_is_not_ordered_off_a_second_time() {
    let mut scene = four();
    scene.stage.declare(declaration(&[name("new"), name("web")], &["a", "b", "c", "d"].map(host)));
    restraint::set_mode(&mut scene, "c", Mode::Draining);
    let (by, level) = ("ann".to_owned(), 0);
    scene.stage.must(Change::DrillBegun { host: host("c"), executor: host("b"), level, by });
    scene.later(6_000);
    scene.silent("c", 2_000);
    let report = GuestReport::new(name("new"), Epoch::default(), GuestCondition::Running);
    scene.evidence.hosts.get_mut(&host("c")).unwrap().reports.insert(name("new"), report);
    scene.silent("b", 5_000);
    scene.heard("b", 100);
    let words = scene.settle();
    let has = |word: &str| words.contains(&word.to_owned());
    assert!(has("FenceOpened") && !has("FenceAttempted"), "{words:?}");
}

/// `d` has another guest, so that its own silence ends nothing.
#[test]
fn that_guests_wait_for_the_word_of_a_host_is_over_when_none_does_although_the_host_is_silent_yet() {
    let hosts = ["a", "b", "c", "d"].map(host);
    let mut scene = four();
    scene.stage.declare(declaration(&[name("new"), name("web")], &hosts));
    restraint::set_mode(&mut scene, "d", Mode::Maintenance);
    scene.later(1_000_000);
    scene.silent("d", 420_000);
    assert_eq!(scene.settle(), ["IncidentOpened"]);
    assert!(scene.stage.state.open_incident("supervisor/d").is_some());
    scene.stage.declare(declaration(&[name("web")], &hosts));
    assert_eq!(scene.settle(), ["IncidentResolved"]);
}

#[test]
fn people_are_told_of_one_host_at_a_time_where_guests_wait_for_the_word_of_many() {
    let (mut scene, _) = added_again();
    for on in ["c", "d"] {
        restraint::set_mode(&mut scene, on, Mode::Maintenance);
        scene.silent(on, 420_000);
    }
    assert_eq!(scene.settle(), ["IncidentOpened"]);
    assert!(scene.stage.state.open_incident("supervisor/c").is_some());
    scene.synced("c", scene.now);
    assert_eq!(scene.settle(), ["IncidentResolved", "IncidentOpened"], "the next one");
    assert!(scene.stage.state.open_incident("supervisor/d").is_some());
}
