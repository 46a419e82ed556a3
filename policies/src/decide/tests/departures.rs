//! What an announced departure does to the guests of the host.

use super::{restraint::set_mode, *};
use crate::rules::OnShutdown;

/// `d` runs `web` and announces to go; everything that is decided is carried out.
fn announced(on_shutdown: OnShutdown, reboot: bool) -> (Scene, Vec<String>) {
    let mut scene = four();
    let mut policies = scene.stage.state.policies.clone();
    policies.cluster.on_shutdown = on_shutdown;
    scene.stage.declare(policies);
    scene.later(60_000);
    for from in ["a", "b"] {
        scene.sight("web", from, SightState::Passing);
    }
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
fn guests_that_wait_in_vain_start_elsewhere_unless_they_are_frozen() {
    for (on_shutdown, after) in [(OnShutdown::Conditional, vec!["Place"]), (OnShutdown::Freeze, vec![])] {
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
fn guests_that_come_back_together_do_not_start_all_at_once() {
    let guests = ["g1", "g2", "g3", "g4", "g5"];
    let mut scene = Scene::new(&["a", "b"], &guests);
    for guest in guests {
        scene.stage.run(guest, "b");
    }
    scene.later(60_000);
    set_mode(&mut scene, "b", Mode::Leaving { reboot: true });
    assert_eq!(scene.settle(), ["Vacated"]);
    let orders: Vec<_> = scene.stage.state.orders.keys().copied().collect();
    for order in orders {
        scene.stage.must(Change::OrderEnded { order, outcome: done() });
    }
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
        scene.stage.must(Change::HostJoined { host: host("d"), facts });
        scene.later(1_000);
        let words = scene.settle();
        assert_eq!(words.iter().filter(|word| **word == "Place").count(), after.len(), "{on_shutdown:?}: {words:?}");
        let elsewhere = !scene.stage.may_run("web").contains("d");
        assert!(elsewhere, "{on_shutdown:?}: there is no room for it any more");
    }
}
