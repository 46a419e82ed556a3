//! Quarantine (R11), and hosts that are fenced often.

use super::*;
use crate::feature_level::FeatureLevel;

#[test]
fn a_quarantined_host_gets_no_guests_until_it_has_been_calm() {
    let mut scene = Scene::new(&["a", "b"], &["web"]);
    scene.stage.state.level = FeatureLevel::HIGHEST;
    let mut policies = scene.stage.state.policies.clone();
    policies.cluster.quarantine_after_fences = Some(1);
    scene.stage.declare(policies);
    scene.stage.fence("a");
    scene.stage.must(Change::FenceAttempted { host: host("a"), executor: host("b"), level: 0 });
    scene.stage.end("b", done());
    let gone = scene.stage.gone("a");
    scene.stage.must(gone);
    scene.stage.join("a", "a.2");
    let mut policies = scene.stage.state.policies.clone();
    policies.guests.get_mut(&name("web")).unwrap().qemu.memory_mib = 4_096;
    scene.stage.declare(policies);
    scene.later(1_000);
    scene.settle();
    assert_eq!(scene.stage.may_run("web"), ["b".to_owned()].into());
    let (what, left) = scene.decide().report.hosts[&host("a")].waits.clone().unwrap();
    assert!(what.contains("it was fenced 1 times") && (3_590_000..3_600_000).contains(&left), "{what} {left}");
    scene.later(3_598_000);
    assert!(scene.words().is_empty(), "{:?}", scene.words());
    scene.later(2_000);
    assert_eq!(scene.settle(), ["FenceForgotten", "QuarantineLifted"]);
}

/// A guest runs on `d`, and another machine has come under the name of `d`.
fn contested() -> Scene {
    let mut scene = four();
    let facts = crate::state::HostFacts { machine_id: "other".to_owned(), ..crate::fixture::facts("d", "d.9") };
    scene.stage.must(Change::HostJoined { host: host("d"), facts, follows: None });
    scene.later(60_000);
    scene
}

#[test]
fn a_contested_host_is_neither_fenced_nor_proven_off_nor_given_anything_to_do() {
    let mut scene = contested();
    let waits = |scene: &Scene| {
        let report = scene.decide().report;
        [report.hosts[&host("d")].waits.clone().unwrap(), report.guests[&name("web")].waits.clone().unwrap()]
    };
    let of_a_person = |(what, ms): (String, u64)| what.contains("machine other") && ms == FOREVER;
    assert!(waits(&scene).into_iter().all(of_a_person), "while it answers: {:?}", waits(&scene));
    scene.silent("d", 2_000);
    assert!(scene.words().is_empty(), "{:?}", scene.words());
    assert!(waits(&scene).into_iter().all(of_a_person), "and when it is silent: {:?}", waits(&scene));
    scene.power("d", off("d", Moment(scene.now)));
    assert!(scene.words().is_empty(), "R11: {:?}", scene.words());
    scene.stage.must(Change::QuarantineLifted { host: host("d"), machine_id: None, by: Some("ann".to_owned()) });
    assert_eq!(scene.words()[0], "HostGone");
}

#[test]
fn a_boot_that_lives_beside_the_one_that_has_joined_never_joins_and_is_another_machine_in_the_end() {
    let mut scene = four();
    scene.later(60_000);
    scene.evidence.authority_since = Some(Moment(0));
    for _ in 0..10 {
        heard_anew(&mut scene);
        assert!(!may_follow(&scene), "the boot before it is alive");
        assert!(scene.words().is_empty(), "{:?}", scene.words());
        scene.later(1_000);
    }
    heard_anew(&mut scene);
    assert_eq!(scene.settle(), ["NameContested"]);
    assert!(scene.stage.state.hosts[&host("d")].is_contested());
}

/// The boot `d.2` is heard at this moment, and a round of deciding begins.
fn heard_anew(scene: &mut Scene) {
    let now = Moment(scene.now);
    scene.evidence.hosts.entry(host("d")).or_default().hear_other(&boot("d.2"), now, now);
    scene.evidence.note_beside(&scene.stage.state.hosts, now);
}

/// Whether `d.2` may join.
fn may_follow(scene: &Scene) -> bool {
    let (known, next) = (&scene.stage.state.hosts[&host("d")], crate::fixture::facts("d", "d.2"));
    scene.evidence.may_follow(&host("d"), known, &next, Moment(scene.now))
}

/// Time passes; then the boot of `d` that has joined was heard last so long ago, and the next one is heard.
fn heard_last(scene: &mut Scene, later: u64, ago: u64) {
    scene.later(later);
    scene.silent("d", ago);
    heard_anew(scene);
}

fn is_to_be_contested(scene: &Scene) -> bool {
    scene.words().contains(&"NameContested".to_owned())
}

#[test]
fn what_a_voter_held_over_a_reboot_makes_no_second_machine_of_it_and_the_next_boot_joins() {
    let mut scene = four();
    scene.later(60_000);
    scene.evidence.authority_since = Some(Moment(0));
    heard_last(&mut scene, 0, 1_500);
    assert!(may_follow(&scene), "it was not heard after the next boot was");
    // Nobody takes that in for a while. Then what was held is handed on, in one burst.
    for (later, ago) in [(1_000, 2_500), (11_000, 13_500), (0, 0), (200, 0), (4_999, 4_999)] {
        heard_last(&mut scene, later, ago);
        assert!(!is_to_be_contested(&scene), "heard {ago} ms ago");
    }
    assert!(!may_follow(&scene), "what was handed on counts as a sign of life");
    heard_last(&mut scene, 1, 5_000);
    assert!(!is_to_be_contested(&scene) && may_follow(&scene));
    scene.stage.join("d", "d.2");
    assert!(!scene.stage.state.hosts[&host("d")].is_contested());
}

#[test]
fn a_copy_is_another_machine_in_the_end_however_seldom_both_are_heard_at_once() {
    let mut scene = four();
    scene.later(60_000);
    for ago in [0, 60_000, 0, 60_000] {
        heard_last(&mut scene, 30_000, ago);
        assert!(!is_to_be_contested(&scene));
    }
    heard_last(&mut scene, 30_000, 0);
    assert!(is_to_be_contested(&scene));
}

#[test]
fn two_copies_of_which_now_the_one_and_now_the_other_is_heard_last_are_found_like_one() {
    let mut scene = four();
    scene.later(60_000);
    let (mut rounds, start) = (0_u32, scene.now);
    while !is_to_be_contested(&scene) {
        assert!(scene.now < start + 20_000, "nobody has noticed");
        scene.later(250);
        rounds += 1;
        let copy = if rounds.is_multiple_of(2) { "d.2" } else { "d.3" };
        let now = Moment(scene.now);
        scene.evidence.hosts.entry(host("d")).or_default().hear_other(&boot(copy), now, now);
        scene.evidence.note_beside(&scene.stage.state.hosts, now);
    }
    assert!(scene.now >= start + 10_000, "one burst says nothing");
}

#[test]
fn a_boot_follows_one_that_is_not_heard_any_more_once_the_coordinator_has_listened() {
    let mut scene = four();
    scene.later(60_000);
    scene.silent("d", 1_000);
    let next = crate::fixture::facts("d", "d.2");
    let known = scene.stage.state.hosts[&host("d")].clone();
    for (since, follows) in [(scene.now - 999, false), (scene.now - 1_000, true)] {
        scene.evidence.authority_since = Some(Moment(since));
        assert_eq!(scene.evidence.may_follow(&host("d"), &known, &next, Moment(scene.now)), follows);
    }
}

#[test]
fn the_boot_that_is_left_when_a_quarantine_is_lifted_joins_again_and_is_not_fenced_meanwhile() {
    let mut scene = four();
    scene.stage.join("d", "d.2");
    scene.stage.must(Change::HostJoined { host: host("d"), facts: crate::fixture::facts("d", "d.1"), follows: None });
    assert!(scene.stage.state.hosts[&host("d")].is_contested(), "d.1 should be over");
    scene.later(60_000);
    scene.silent("d", 5_000);
    let now = Moment(scene.now);
    let left = crate::fixture::facts("d", "d.1").incarnation;
    scene.evidence.hosts.get_mut(&host("d")).unwrap().hear_other(&left, now, now);
    scene.stage.must(Change::QuarantineLifted { host: host("d"), machine_id: None, by: Some("ann".to_owned()) });
    assert!(!scene.words().contains(&"FenceOpened".to_owned()), "R16: {:?}", scene.words());
    scene.stage.join("d", "d.1");
    assert!(!scene.stage.state.hosts[&host("d")].is_contested());
}
