//! Storm hold (S9, R21).

use super::*;

/// Six hosts; guests run on `d`, `e` and `f`, which are in one rack.
fn racks(label: bool) -> Scene {
    let mut scene = Scene::new(&["a", "b", "c", "d", "e", "f"], &["g1", "g2", "g3"]);
    let mut policies = scene.stage.state.policies.clone();
    policies.cluster.failure_domain = label.then(|| "rack".to_owned());
    for (index, on) in ["a", "b", "c", "d", "e", "f"].iter().enumerate() {
        let rack = if index < 3 { format!("r{index}") } else { "r9".to_owned() };
        let declared = policies.hosts.entry(host(on)).or_default();
        declared.labels.insert("rack".to_owned(), rack);
    }
    scene.stage.declare(policies);
    for (guest, on) in [("g1", "d"), ("g2", "e"), ("g3", "f")] {
        scene.stage.run(guest, on);
    }
    scene.later(600_000);
    scene
}

#[test]
fn a_declared_failure_domain_counts_once() {
    for (label, held) in [(false, true), (true, false)] {
        let mut scene = racks(label);
        for on in ["d", "e", "f"] {
            scene.silent(on, 2_000);
        }
        assert_eq!(scene.decide().report.storm_hold.is_some(), held, "label: {label}");
    }
    let mut two = racks(true);
    for on in ["c", "d", "e", "f"] {
        two.silent(on, 2_000);
    }
    assert!(two.decide().report.storm_hold.is_some(), "two racks of four");
}

#[test]
fn what_is_proven_off_is_no_part_of_a_storm_and_what_is_only_said_to_be_off_is() {
    for (verified, held) in [(true, false), (false, true)] {
        let mut scene = four();
        let mut policies = scene.stage.state.policies.clone();
        if let [crate::model::FenceLevel::Power(devices)] = &mut policies.fencing.get_mut(&host("c")).unwrap()[..]
            && let [crate::model::PowerDevice::Ipmi(device)] = &mut devices[..]
        {
            device.wiring_verified_by = verified.then(|| "ann".to_owned());
        }
        scene.stage.declare(policies);
        scene.later(60_000);
        scene.silent("c", 2_000);
        scene.silent("d", 2_000);
        scene.power("c", off("c", Moment(scene.now)));
        assert_eq!(scene.decide().report.storm_hold.is_some(), held, "verified: {verified}");
    }
}

#[test]
fn hosts_that_are_gone_do_not_make_the_whole_look_larger() {
    let mut scene = Scene::new(&["a", "b", "c", "d", "e", "f", "g"], &["web"]);
    scene.stage.run("web", "d");
    scene.later(60_000);
    scene.silent("c", 2_000);
    scene.silent("d", 2_000);
    assert!(scene.decide().report.storm_hold.is_none(), "two of seven");
    for on in ["e", "f"] {
        let gone = scene.stage.gone(on);
        scene.stage.must(gone);
    }
    assert!(scene.decide().report.storm_hold.is_some(), "two of five");
}

#[test]
fn an_operator_releases_the_hold_for_the_present_storm_only() {
    let mut scene = four();
    scene.later(60_000);
    scene.silent("c", 2_000);
    scene.silent("d", 2_000);
    assert_eq!(scene.settle(), ["IncidentOpened"]);
    scene.stage.must(Change::StormHoldReleased { by: "ann".to_owned() });
    assert_eq!(scene.settle(), ["IncidentOpened", "FenceOpened", "FenceAttempted"]);
    let summary = &scene.stage.state.open_incident("storm").unwrap().summary;
    assert!(summary.contains("ann has released the hold"), "{summary}");
    scene.stage.end("a", failed());
    scene.all_well();
    assert!(scene.settle().contains(&"StormEnded".to_owned()));
    scene.later(60_000);
    scene.silent("c", 2_000);
    scene.silent("d", 2_000);
    assert!(scene.decide().report.storm_hold.is_some(), "the next storm holds again");
}

#[test]
fn a_new_coordinator_ends_neither_a_hold_nor_its_release_before_it_has_heard_who_is_silent() {
    let ends = |scene: &Scene| {
        let words = scene.words();
        ["IncidentResolved", "StormEnded"].iter().any(|word| words.contains(&(*word).to_owned()))
    };
    for released in [false, true] {
        let mut scene = four();
        scene.later(60_000);
        scene.silent("c", 2_000);
        scene.silent("d", 2_000);
        assert_eq!(scene.settle(), ["IncidentOpened"]);
        if released {
            scene.stage.must(Change::StormHoldReleased { by: "ann".to_owned() });
            scene.settle();
        }
        scene.evidence.hosts.clear();
        scene.evidence.quorum_since = Some(Moment(scene.now));
        assert!(!ends(&scene), "released: {released}: it has heard nobody yet");
        assert_eq!(scene.decide().report.storm_hold.is_some(), !released);
        scene.later(2_000);
        scene.silent("c", 4_000);
        scene.silent("d", 4_000);
        assert!(!ends(&scene), "released: {released}: they are silent still");
        scene.all_well();
        assert!(ends(&scene), "released: {released}: all are heard");
    }
}

#[test]
fn a_host_that_is_heard_a_moment_after_the_others_of_its_storm_is_not_fenced() {
    for released in [false, true] {
        let mut scene = four();
        scene.later(60_000);
        scene.silent("c", 8_000);
        scene.silent("d", 8_000);
        assert_eq!(scene.settle(), ["IncidentOpened"]);
        if released {
            scene.stage.must(Change::StormHoldReleased { by: "ann".to_owned() });
        }
        scene.later(0);
        scene.silent("d", 8_000);
        let words = scene.settle();
        assert_eq!(words.contains(&"FenceOpened".to_owned()), released, "released: {released}: {words:?}");
        if !released {
            scene.later(250);
            assert_eq!(scene.settle(), ["IncidentResolved"], "and all is well");
        }
    }
}

#[test]
fn a_host_that_stays_silent_after_a_storm_is_fenced_when_the_others_have_been_back_for_a_moment() {
    let mut scene = four();
    scene.later(60_000);
    scene.silent("c", 8_000);
    scene.silent("d", 8_000);
    scene.settle();
    scene.later(1_000);
    scene.silent("d", 9_000);
    assert_eq!(scene.settle(), ["IncidentOpened"], "the wait begins when the others are heard, not before");
    for (ms, expected) in [(1_499, [].as_slice()), (1, &["IncidentResolved", "FenceOpened", "FenceAttempted"])] {
        scene.now += ms;
        for on in ["a", "b", "c"] {
            scene.synced(on, scene.now);
        }
        scene.asked("d", Some(10_500));
        assert_eq!(scene.settle(), expected, "after {ms} ms more");
    }
}

/// A switch dies between two turns: nothing of any host behind it comes any more, and the last word of one is younger than
/// that of another by what lies between two of their signs of life.
#[test]
fn the_first_host_of_a_storm_that_is_missed_is_not_fenced_before_the_others_are() {
    for is_heard in [false, true] {
        let mut scene = four();
        scene.later(60_000);
        scene.silent("d", 1_500);
        scene.silent("c", 1_350);
        assert!(scene.settle().is_empty(), "S9: what c comes to is known in a moment, and nobody is called for that");
        scene.now += 150;
        for on in ["a", "b"] {
            scene.synced(on, scene.now);
        }
        scene.asked("d", Some(1_650));
        scene.asked("c", Some(1_500));
        if is_heard {
            scene.synced("c", scene.now);
            assert_eq!(scene.settle(), ["FenceOpened", "FenceAttempted"], "it is no storm");
        } else {
            assert_eq!(scene.settle(), ["IncidentOpened"], "it is one");
        }
    }
}

#[test]
fn a_host_that_is_late_now_and_then_holds_no_fence_for_longer_than_it_takes_to_miss_it() {
    let mut scene = four();
    scene.later(60_000);
    for (silent_ms, held) in [(749, false), (750, true), (1_499, true)] {
        scene.silent("d", 3_000);
        scene.synced("c", scene.now - silent_ms);
        assert_eq!(scene.decide().report.storm_hold.is_some(), held, "{silent_ms} ms");
    }
}

/// A host that has been off for days is unknown to a coordinator that has just begun, where no voter has heard it since it was
/// started anew. It is not missed with the others, before it has had its time to join.
#[test]
fn a_host_that_nobody_has_ever_heard_makes_no_storm_with_one_that_has_just_failed() {
    for is_known in [false, true] {
        let mut scene = four();
        scene.later(60_000);
        scene.silent("d", 3_000);
        scene.evidence.quorum_since = Some(Moment(scene.now - 1_000));
        let seen = scene.evidence.hosts.get_mut(&host("c")).unwrap();
        (seen.sync, seen.heard) = (None, None);
        if is_known {
            scene.heard("c", 1_000);
        }
        assert_eq!(scene.verdict("c"), HostVerdict::Unknown);
        assert_eq!(scene.decide().report.storm_hold.is_some(), is_known, "heard before: {is_known}");
    }
}
