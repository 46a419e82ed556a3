//! What an announced departure does to the guests of the host.

use super::{restraint::set_mode, *};
use crate::{
    feature_level::FeatureLevel,
    names::RuleName,
    rules::{Guests, OnShutdown, Rule},
};

/// Every order that is open has been carried out.
fn end_all(scene: &mut Scene) {
    let orders: Vec<_> = scene.stage.state.orders.keys().copied().collect();
    for order in orders {
        scene.stage.must(Change::OrderEnded { order, outcome: done() });
    }
}

/// `d` runs `web` and announces to go; everything that is decided is carried out.
fn announced(on_shutdown: OnShutdown, reboot: bool) -> (Scene, Vec<String>) {
    let mut scene = four();
    let mut policies = scene.stage.state.policies.clone();
    policies.cluster.on_shutdown = on_shutdown;
    scene.stage.declare(policies);
    scene.later(60_000);
    scene.seen("web", SightState::Passing);
    set_mode(&mut scene, "d", Mode::Leaving { reboot });
    let words = scene.settle();
    if scene.stage.orders("d").iter().any(|order| order.starts_with("release")) {
        scene.stage.end("d", done());
    }
    scene.all_well();
    (scene, words)
}

#[test]
fn guests_are_released_before_the_host_goes_and_start_elsewhere_or_wait_for_it() {
    use OnShutdown::{Conditional, Failover, Freeze, Migrate};
    for (on_shutdown, reboot, first, then) in [
        (Conditional, true, "Vacated", None),
        (Conditional, false, "Vacated", Some("Place")),
        (Failover, true, "Vacated", Some("Place")),
        (Failover, false, "Vacated", Some("Place")),
        (Freeze, true, "Vacated", None),
        (Freeze, false, "Vacated", None),
        (Migrate, true, "Migrate", None),
        (Migrate, false, "Migrate", None),
    ] {
        let (scene, words) = announced(on_shutdown, reboot);
        assert_eq!(words, [first], "{on_shutdown:?} reboot: {reboot}");
        assert_eq!(scene.words(), then.into_iter().collect::<Vec<_>>(), "{on_shutdown:?} reboot: {reboot}");
    }
}

#[test]
fn a_host_that_has_released_its_guests_and_goes_silent_needs_no_fence() {
    let (mut scene, _) = announced(OnShutdown::Conditional, true);
    scene.later(1_000_000);
    scene.silent("d", 900_000);
    assert_eq!(scene.verdict("d"), HostVerdict::Failed);
    assert!(!scene.words().contains(&"FenceOpened".to_owned()), "{:?}", scene.words());
}

#[test]
fn guests_that_wait_for_a_reboot_start_on_their_host_when_it_is_back() {
    let (mut scene, _) = announced(OnShutdown::Conditional, true);
    scene.later(100_000);
    assert!(scene.words().is_empty(), "{:?}", scene.words());
    let waits = scene.decide().report.guests[&name("web")].waits.clone();
    assert_eq!(waits, Some(("d to come back".to_owned(), 320_000)));
    scene.stage.join("d", "d.2");
    scene.later(1_000);
    assert_eq!(scene.settle(), ["Place"]);
    assert_eq!(scene.stage.may_run("web"), ["d".to_owned()].into());
    assert!(scene.stage.state.hosts[&host("d")].kept.is_empty(), "the next failure is an ordinary one");
}

#[test]
fn guests_wait_no_longer_for_a_host_that_fails_when_it_is_back_unless_they_are_frozen() {
    for (on_shutdown, expected) in [(OnShutdown::Conditional, true), (OnShutdown::Freeze, false)] {
        let (mut scene, _) = announced(on_shutdown, true);
        scene.later(100_000);
        scene.silent("d", 90_000);
        assert!(!scene.words().contains(&"Place".to_owned()), "its silence is expected");
        scene.stage.join("d", "d.2");
        scene.later(5_000);
        scene.silent("d", 4_000);
        assert_eq!(scene.verdict("d"), HostVerdict::Failed);
        assert_eq!(scene.words().contains(&"Place".to_owned()), expected, "{on_shutdown:?}");
    }
}

#[test]
fn a_guest_that_is_kept_for_its_host_and_is_to_start_on_another_says_why_that_does_not_take_it() {
    let (mut scene, _) = announced(OnShutdown::Freeze, true);
    let moved = Change::MoveAsked { guest: name("web"), to: host("b"), cold: false, by: "ann".to_owned() };
    scene.stage.must(moved);
    let doing = |scene: &Scene| scene.decide().report.guests[&name("web")].doing.clone();
    assert!(doing(&scene).contains("about to start on b"), "{}", doing(&scene));
    set_mode(&mut scene, "b", Mode::Maintenance);
    scene.later(10_000);
    scene.silent("d", 9_000);
    let said = doing(&scene);
    assert!(
        said.contains("kept for d") && said.contains("it is to start on b") && said.contains("maintenance"),
        "{said}"
    );
}

#[test]
fn a_guest_that_people_keep_stopped_or_leave_alone_does_not_say_that_it_waits_for_its_host() {
    use crate::state::Wanted;
    for (wanted, expected) in [
        (Wanted::Running, "kept for d"),
        (Wanted::Stopped, "an operator wants it"),
        (Wanted::Unmanaged, "it is unmanaged"),
    ] {
        let (mut scene, _) = announced(OnShutdown::Freeze, true);
        if wanted != Wanted::Running {
            scene.stage.must(Change::WantedSet { guest: name("web"), wanted, by: "ann".to_owned() });
        }
        scene.later(1_000);
        scene.silent("d", 900);
        let judged = scene.decide().report.guests[&name("web")].clone();
        assert!(judged.doing.contains(expected), "{wanted:?}: {}", judged.doing);
        let waits_for_host = judged.waits.is_some_and(|(what, _)| what.contains("to come back"));
        assert_eq!(waits_for_host, wanted == Wanted::Running, "{wanted:?}");
    }
}

#[test]
fn guests_that_wait_in_vain_start_elsewhere_unless_they_are_frozen() {
    for (on_shutdown, after) in [(OnShutdown::Conditional, ["Place"]), (OnShutdown::Freeze, ["IncidentOpened"])] {
        let (mut scene, _) = announced(on_shutdown, true);
        scene.later(419_999);
        scene.silent("d", 400_000);
        assert!(scene.words().is_empty(), "{:?}", scene.words());
        scene.later(1);
        scene.silent("d", 400_000);
        assert_eq!(scene.words(), after, "{on_shutdown:?}");
    }
}

#[test]
fn people_are_told_of_frozen_guests_whose_host_does_not_come_back_from_its_reboot() {
    for (reboot, wanted, is_told) in [
        (true, crate::state::Wanted::Running, true),
        (true, crate::state::Wanted::Stopped, false),
        (false, crate::state::Wanted::Running, false),
    ] {
        let (mut scene, _) = announced(OnShutdown::Freeze, reboot);
        if wanted != crate::state::Wanted::Running {
            scene.stage.must(Change::WantedSet { guest: name("web"), wanted, by: "ann".to_owned() });
        }
        scene.later(421_000);
        scene.silent("d", 400_000);
        scene.settle();
        let told = |scene: &Scene| scene.stage.state.open_incident("leaving/d").map(|told| told.summary.clone());
        let summary = told(&scene);
        assert_eq!(summary.is_some(), is_told, "a reboot: {reboot}, {wanted:?}: {summary:?}");
        assert!(summary.is_none_or(|summary| summary.contains("the guests that are kept for it are down")));
        scene.stage.join("d", "d.2");
        scene.later(1_000);
        scene.settle();
        assert_eq!(told(&scene), None, "it is back");
    }
}

#[test]
fn people_are_told_of_frozen_guests_whose_host_has_failed_when_it_was_back() {
    let (mut scene, _) = announced(OnShutdown::Freeze, true);
    scene.later(100_000);
    scene.stage.join("d", "d.2");
    scene.later(421_000);
    scene.silent("d", 420_500);
    scene.settle();
    let told = |scene: &Scene| scene.stage.state.open_incident("leaving/d").map(|told| told.summary.clone());
    assert_eq!(told(&scene).as_deref(), Some("d is not well heard, and the guests that are kept for it are down"));
    scene.later(1_000);
    assert!(scene.settle().contains(&"Place".to_owned()));
    assert_eq!(told(&scene), None, "it is heard again");
}

#[test]
fn nobody_is_told_of_frozen_guests_whose_host_is_back_and_silent_for_a_moment() {
    let (mut scene, _) = announced(OnShutdown::Freeze, true);
    scene.later(100_000);
    scene.stage.join("d", "d.2");
    scene.later(421_000);
    let told = |scene: &Scene| scene.stage.state.open_incident("leaving/d").is_some();
    for (ms, is_told) in [(4_000, false), (31_000, true), (4_000, true)] {
        scene.silent("d", ms);
        scene.settle();
        assert_eq!(told(&scene), is_told, "silent for {ms} ms: another coordinator ends nothing that people were told");
    }
}

#[test]
fn nothing_waits_for_a_host_that_is_gone_and_was_not_to_go() {
    for taken_back_first in [true, false] {
        let (mut scene, _) = announced(OnShutdown::Conditional, true);
        scene.later(10_000);
        scene.silent("d", 5_000);
        let gone = scene.stage.gone("d");
        if taken_back_first {
            set_mode(&mut scene, "d", Mode::Active);
            scene.stage.must(gone);
        } else {
            scene.stage.must(gone);
            assert!(scene.words().is_empty(), "a reboot may look like this: {:?}", scene.words());
            set_mode(&mut scene, "d", Mode::Active);
        }
        assert_eq!(scene.settle(), ["Place"], "taken back first: {taken_back_first}");
    }
}

#[test]
fn guests_of_a_host_that_rebooted_before_it_had_released_them_wait_for_it_too() {
    let mut scene = four();
    set_mode(&mut scene, "d", Mode::Leaving { reboot: true });
    scene.stage.join("d", "d.2");
    scene.stage.end("d", done());
    scene.later(1_000);
    scene.settle();
    assert_eq!(scene.stage.may_run("web"), ["d".to_owned()].into());
}

#[test]
fn a_guest_that_its_ladder_has_sent_away_from_a_host_does_not_wait_for_the_announced_reboot_of_that() {
    // An earlier version has it wait, and forgets where it was sent away from (R26).
    for (level, starts_there) in [(FeatureLevel::KEPT_AWAY, true), (FeatureLevel::NOT_KEPT, false)] {
        let mut scene = four();
        scene.stage.state.level = level;
        let failover = scene.stage.climb("web", 2);
        scene.stage.must(failover);
        set_mode(&mut scene, "d", Mode::Leaving { reboot: true });
        // It has rebooted before it has said that nothing of the guest is left.
        scene.stage.join("d", "d.2");
        scene.stage.end("d", done());
        scene.later(1_000);
        assert_eq!(scene.settle(), ["Place"]);
        assert_eq!(scene.stage.may_run("web").contains("d"), starts_there, "level {level}");
    }
}

#[test]
fn a_guest_that_is_moved_away_from_a_host_is_not_kept_for_it_when_that_goes_first() {
    // In an earlier version it is (R26).
    for (level, is_kept) in [(FeatureLevel::KEPT_AWAY, true), (FeatureLevel::NOT_KEPT, false)] {
        let mut scene = four();
        scene.stage.state.level = level;
        scene.stage.must(Change::MoveAsked { guest: name("web"), to: host("b"), cold: true, by: "ann".to_owned() });
        set_mode(&mut scene, "d", Mode::Leaving { reboot: true });
        scene.stage.join("d", "d.2");
        let kept = &scene.stage.state.hosts[&host("d")].kept;
        assert_eq!(kept.contains(&name("web")), is_kept, "level {level}");
    }
}

#[test]
fn guests_that_come_back_together_do_not_start_all_at_once() {
    let guests = ["g1", "g2", "g3", "g4", "g5"];
    let mut scene = Scene::new(&["a", "b"], &guests);
    for guest in guests {
        scene.stage.run(guest, "b");
    }
    scene.later(60_000);
    set_mode(&mut scene, "b", Mode::Leaving { reboot: true });
    assert_eq!(scene.settle(), ["Vacated"]);
    end_all(&mut scene);
    scene.stage.join("b", "b.2");
    scene.later(1_000);
    assert_eq!(scene.settle(), ["Place"; 2]);
    assert!(guests.iter().all(|guest| !scene.stage.may_run(guest).contains("a")));
}

#[test]
fn a_host_that_announced_to_go_and_stays_is_told_of() {
    let (mut scene, _) = announced(OnShutdown::Failover, true);
    scene.settle();
    scene.later(420_000);
    assert!(scene.settle().contains(&"IncidentOpened".to_owned()));
    set_mode(&mut scene, "d", Mode::Active);
    assert!(scene.settle().contains(&"IncidentResolved".to_owned()));
}

#[test]
fn a_guest_that_its_host_cannot_take_back_starts_elsewhere_unless_it_is_frozen() {
    for (on_shutdown, after) in [(OnShutdown::Conditional, vec!["Place"]), (OnShutdown::Freeze, vec![])] {
        let (mut scene, _) = announced(on_shutdown, true);
        scene.later(100_000);
        let facts = crate::state::HostFacts { memory_mib: 1, ..crate::fixture::facts("d", "d.2") };
        scene.stage.must(Change::HostJoined { host: host("d"), facts, follows: None });
        scene.later(1_000);
        let words = scene.settle();
        assert_eq!(words.iter().filter(|word| **word == "Place").count(), after.len(), "{on_shutdown:?}: {words:?}");
        let elsewhere = !scene.stage.may_run("web").contains("d");
        assert!(elsewhere, "{on_shutdown:?}: there is no room for it any more");
    }
}

#[test]
fn a_host_that_is_back_and_is_being_drained_keeps_nobody_waiting() {
    for on_shutdown in [OnShutdown::Conditional, OnShutdown::Freeze] {
        let (mut scene, _) = announced(on_shutdown, true);
        scene.stage.state.hosts.get_mut(&host("d")).unwrap().mode_on_return = Mode::Draining;
        scene.later(100_000);
        assert_eq!(scene.words(), [""; 0], "{on_shutdown:?}");
        scene.stage.join("d", "d.2");
        scene.later(1_000);
        assert_eq!(scene.settle(), ["Place"], "{on_shutdown:?}");
        assert!(!scene.stage.may_run("web").contains("d"), "{on_shutdown:?}");
    }
}

#[test]
fn guests_that_wait_for_a_host_keep_nobody_else_from_being_placed() {
    let kept: Vec<String> = (0..260).map(|number| format!("g{number}")).collect();
    let guests: Vec<&str> = kept.iter().map(String::as_str).chain(["z"]).collect();
    let mut scene = Scene::new(&["a", "b", "c"], &guests);
    let mut policies = scene.stage.state.policies.clone();
    policies.guests.values_mut().for_each(|guest| guest.qemu.memory_mib = 1);
    scene.stage.declare(policies);
    for guest in &kept {
        scene.stage.run(guest, "c");
    }
    scene.stage.run("z", "b");
    scene.later(60_000);
    set_mode(&mut scene, "c", Mode::Leaving { reboot: true });
    scene.settle();
    end_all(&mut scene);
    let gone = scene.stage.gone("b");
    scene.stage.must(gone);
    scene.later(1_000);
    scene.evidence.hosts.remove(&host("b"));
    let placed = scene.decide().commands.into_iter().filter_map(|command| match command {
        Change::Place { guest, .. } => Some(guest),
        _ => None,
    });
    assert_eq!(placed.collect::<Vec<_>>(), [name("z")]);
}

#[test]
fn guests_that_come_back_and_others_share_the_starts_of_a_host() {
    let mut scene = Scene::new(&["a", "b"], &["back1", "back2", "other1", "other2"]);
    for (guest, on) in [("back1", "b"), ("back2", "b"), ("other1", "a"), ("other2", "a")] {
        scene.stage.run(guest, on);
    }
    scene.later(60_000);
    for (on, reboot) in [("b", true), ("a", false)] {
        set_mode(&mut scene, on, Mode::Leaving { reboot });
        assert_eq!(scene.settle(), ["Vacated"], "{on}");
        end_all(&mut scene);
    }
    scene.stage.join("b", "b.2");
    scene.later(1_000);
    assert_eq!(scene.settle(), ["Place"; 2]);
    for guest in ["back1", "back2"] {
        assert_eq!(scene.stage.may_run(guest), ["b".to_owned()].into());
    }
}

#[test]
fn a_set_that_its_host_cannot_take_back_as_a_whole_is_not_torn_apart() {
    let mut scene = Scene::new(&["a", "b"], &["g1", "g2"]);
    let mut policies = scene.stage.state.policies.clone();
    policies.guests.values_mut().for_each(|guest| guest.qemu.memory_mib = 3_000);
    let guests = Guests::Named(vec![name("g1"), name("g2")]);
    let set = Rule::Together { guests, required: true, yields: None, weight: 0 };
    policies.rules.insert(RuleName::new("set").unwrap(), set);
    scene.stage.declare(policies);
    for guest in ["g1", "g2"] {
        scene.stage.run(guest, "b");
    }
    scene.later(60_000);
    set_mode(&mut scene, "b", Mode::Leaving { reboot: true });
    assert_eq!(scene.settle(), ["Vacated"]);
    end_all(&mut scene);
    let facts = crate::state::HostFacts { memory_mib: 4_000, ..crate::fixture::facts("b", "b.2") };
    scene.stage.must(Change::HostJoined { host: host("b"), facts, follows: None });
    scene.later(1_000);
    assert_eq!(scene.settle(), ["Place"], "the other one waits until its set can move as one");
    assert_eq!(scene.stage.may_run("g1"), ["b".to_owned()].into());
}
