//! Fence attempts and power devices (R9, R20, R21), and what each host waits for.

use super::{restraint::set_mode, *};
use crate::{
    fence_path::{DeviceTest, LevelTest, Machine},
    lease::{Ground, Longest},
    model::{FenceLevel, LeaseLevel},
    order::OrderKind,
};

/// `d` is being fenced by `a`, and `b` coordinates by now.
fn fenced_by_a() -> Scene {
    let mut scene = Scene::new(&["a", "b", "c", "d", "e", "f", "g"], &["web", "db"]);
    scene.stage.run("web", "d");
    scene.stage.run("db", "e");
    scene.later(600_000);
    scene.silent("d", 2_000);
    assert_eq!(scene.settle(), ["FenceOpened", "FenceAttempted"]);
    scene.evidence.me = Some(host("b"));
    scene
}

/// The same, and `a` has booted anew (`true`) or is proven gone.
fn executor_over(reboots: bool) -> Scene {
    let mut scene = fenced_by_a();
    if reboots {
        scene.stage.join("a", "a.2");
    } else {
        let gone = scene.stage.gone("a");
        scene.stage.must(gone);
    }
    scene.evidence.marks.applied(scene.stage.index, Moment(scene.now));
    scene
}

#[test]
fn the_attempt_of_an_executor_that_is_over_counts_until_its_shot_cannot_be_late() {
    for reboots in [true, false] {
        let mut scene = executor_over(reboots);
        for (ms, over) in [(34_999, false), (1, true)] {
            scene.later(ms);
            scene.silent("d", 35_000);
            let ended = scene.words().contains(&"OrderEnded".to_owned());
            assert_eq!(ended, over, "R20: its deadline and the device's settling; reboots: {reboots}");
        }
        scene.settle();
        scene.later(1_000);
        scene.silent("d", 60_000);
        assert_eq!(scene.settle(), ["FenceAttempted"], "then another tries");
    }
}

/// That the lease of `a` has run out is proven at this moment.
fn lease_of_a_has_run_out(scene: &mut Scene) {
    let longest = Longest { lease_ms: 4_000, guard_ms: 1_000, watchdog_ms: 2_000 };
    let ground = Ground { longest, watchdog: "iTCO_wdt".to_owned(), closed: Some(1) };
    let proof = Proof::lease_expired(&host("a"), &boot("a.1"), &ground, Moment(0), Moment(scene.now)).unwrap();
    scene.stage.index += 1;
    let executor = scene.stage.state.hosts.get_mut(&host("a")).unwrap();
    (executor.life, executor.life_since) = (Life::Gone { proof }, scene.stage.index);
    scene.evidence.marks.applied(scene.stage.index, Moment(scene.now));
}

/// That its lease has run out ends its guests, not its supervisor: it may have begun with the end of that lease.
#[test]
fn the_attempt_of_an_executor_whose_lease_has_run_out_counts_until_what_it_began_last_cannot_be_late() {
    let mut scene = fenced_by_a();
    scene.later(60_000);
    lease_of_a_has_run_out(&mut scene);
    for (ms, over) in [(34_999, false), (1, true)] {
        scene.later(ms);
        scene.silent("d", 35_000);
        assert_eq!(
            scene.words().contains(&"OrderEnded".to_owned()),
            over,
            "R20: its deadline and the device's settling"
        );
    }
}

#[test]
fn an_attempt_counts_for_no_longer_because_its_executor_is_proven_gone_beside_being_silent() {
    for by_lease in [true, false] {
        let mut scene = fenced_by_a();
        scene.later(60_000);
        if by_lease {
            lease_of_a_has_run_out(&mut scene);
        } else {
            let gone = scene.stage.gone("a");
            scene.stage.must(gone);
            scene.evidence.marks.applied(scene.stage.index, Moment(scene.now));
        }
        // A lease with its margin, the deadline and the device's settling after its last sync.
        for (silent_ms, over) in [(39_199, false), (39_200, true)] {
            scene.silent("a", silent_ms);
            scene.silent("d", 60_000);
            assert_eq!(scene.words().contains(&"OrderEnded".to_owned()), over, "by lease: {by_lease}, {silent_ms} ms");
        }
    }
}

#[test]
fn an_executor_that_dies_late_still_leaves_its_device_time_to_settle() {
    let mut scene = Scene::new(&["a", "b", "c", "d", "e"], &["web"]);
    scene.stage.run("web", "d");
    scene.later(600_000);
    scene.silent("d", 2_000);
    scene.settle();
    scene.evidence.me = Some(host("b"));
    scene.later(28_000);
    scene.silent("d", 30_000);
    scene.stage.join("a", "a.2");
    scene.evidence.marks.applied(scene.stage.index, Moment(scene.now));
    scene.later(14_999);
    scene.silent("d", 45_000);
    assert!(!scene.words().contains(&"OrderEnded".to_owned()), "{:?}", scene.words());
    scene.later(1);
    scene.silent("d", 45_000);
    assert!(scene.words().contains(&"OrderEnded".to_owned()));
}

#[test]
fn the_attempt_of_an_executor_that_is_over_does_not_hold_up_the_fence_of_another_host() {
    let mut scene = executor_over(true);
    scene.later(1_000);
    scene.silent("d", 60_000);
    scene.silent("e", 2_000);
    assert_eq!(scene.settle(), ["FenceOpened", "FenceAttempted"], "R21: no device call runs");
    assert_eq!(scene.stage.orders("b"), ["fence e by level 1"]);
}

#[test]
fn an_off_reading_frees_the_guests_while_an_attempt_is_under_way_and_keeps_the_next_boot_out() {
    let mut scene = executor_over(true);
    scene.later(1_000);
    scene.silent("d", 3_000);
    scene.power("d", off("d", Moment(scene.now)));
    assert_eq!(scene.settle(), ["HostGone", "Place"]);
    let (what, left) = scene.decide().report.hosts[&host("d")].waits.clone().unwrap();
    assert!(what.contains("before it may join again") && left == 34_000, "{what} {left}");
    scene.later(34_000);
    assert!(scene.words().contains(&"OrderEnded".to_owned()));
}

#[test]
fn a_device_that_called_a_living_host_off_proves_nothing_any_more_and_is_not_asked_to_switch_off() {
    let mut scene = four();
    scene.later(60_000);
    scene.power("d", off("d", Moment(scene.now - 9_999)));
    assert!(scene.words().is_empty(), "what is heard may have been late on its way");
    scene.later(1);
    assert_eq!(scene.settle(), ["DeviceDistrusted", "IncidentOpened"]);
    assert!(scene.words().is_empty(), "it is told once, and stays told");
    scene.later(60_000);
    scene.silent("d", 2_000);
    scene.power("d", off("d", Moment(scene.now)));
    assert_eq!(
        scene.settle(),
        ["FenceOpened", "IncidentOpened"],
        "R9: no proof, and no shot that hits another machine"
    );
    scene.stage.must(Change::DeviceTrusted { host: host("d"), by: "ann".to_owned() });
    assert_eq!(scene.words()[0], "HostGone");
}

/// `d` lives without a supervisor, and was fenced for a guest that failed there. Its beacon came 100 ms ago; its device has
/// said "off" since.
fn off_between_two_beacons() -> Scene {
    let mut scene = four();
    scene.now += 31_000;
    scene.all_well();
    scene.silent("d", 31_000);
    scene.heard("d", 100);
    assert_eq!(scene.settle(), ["IncidentOpened"], "its supervisor is silent");
    scene.seen("web", SightState::Failing);
    assert_eq!(scene.settle(), ["FenceOpened", "FenceAttempted"]);
    scene.stage.end("a", done());
    scene.evidence.marks.applied(scene.stage.index, Moment(scene.now));
    scene.power("d", off("d", Moment(scene.now - 50)));
    scene
}

#[test]
fn an_off_between_two_beacons_is_proof_only_when_the_next_two_have_not_come() {
    let mut scene = off_between_two_beacons();
    assert_eq!(scene.words(), [""; 0], "neither is the fence given up, nor the next attempt begun");
    let waits = scene.decide().report.hosts[&host("d")].waits.clone();
    assert!(waits.is_some_and(|(what, left)| what.contains("its next beacons") && left == 500));
    scene.now += 499;
    assert_eq!(scene.words(), [""; 0]);
    scene.now += 1;
    assert_eq!(scene.words()[0], "HostGone");
}

#[test]
fn the_next_beacon_of_a_living_host_voids_the_word_of_its_device() {
    let mut scene = off_between_two_beacons();
    scene.now += 150;
    scene.heard("d", 0);
    for quiet in [0, 600, 5_000] {
        scene.now += quiet;
        for on in ["a", "b", "c"] {
            scene.synced(on, scene.now);
        }
        assert!(!scene.words().contains(&"HostGone".to_owned()), "{quiet}: {:?}", scene.words());
    }
}

#[test]
fn a_device_that_called_a_host_off_whose_guard_is_heard_is_distrusted_though_its_supervisor_is_silent() {
    let mut scene = four();
    scene.now += 20_000;
    scene.all_well();
    scene.silent("d", 20_000);
    scene.power("d", off("d", Moment(scene.now - 10_100)));
    scene.sight("web", "b", SightState::Passing);
    scene.settle();
    let distrusted = |scene: &Scene| scene.stage.state.hosts[&host("d")].distrusted.contains(&0);
    assert!(!distrusted(&scene), "what answers for its guest may be something else");
    scene.heard("d", 100);
    scene.settle();
    assert!(distrusted(&scene));
    assert!(scene.stage.state.open_incident("fencing/d").is_some(), "somebody is told");
    assert_eq!(scene.words(), [""; 0], "once");
}

#[test]
fn a_device_that_somebody_trusts_again_is_not_distrusted_for_what_it_had_said_before() {
    let mut scene = four();
    scene.later(60_000);
    scene.power("d", off("d", Moment(scene.now - 10_000)));
    assert_eq!(scene.settle(), ["DeviceDistrusted", "IncidentOpened"]);
    scene.stage.must(Change::DeviceTrusted { host: host("d"), by: "ann".to_owned() });
    scene.evidence.marks.applied(scene.stage.index, Moment(scene.now));
    assert_eq!(scene.settle(), ["IncidentResolved"]);
}

#[test]
fn a_device_beside_one_that_is_declared_anew_is_not_distrusted_again_for_what_it_had_said_before() {
    let mut scene = two_levels();
    scene.power("d", PowerReading { level: 1, ..off("d", Moment(scene.now - 10_000)) });
    assert_eq!(scene.settle(), ["DeviceDistrusted", "IncidentOpened"]);
    let mut policies = scene.stage.state.policies.clone();
    policies.fencing.get_mut(&host("d")).unwrap()[0] = FenceLevel::Operator {};
    scene.stage.declare(policies);
    scene.evidence.marks.applied(scene.stage.index, Moment(scene.now));
    assert_eq!(scene.settle(), ["IncidentResolved"]);
    scene.power("d", PowerReading { level: 1, ..off("d", Moment(scene.now + 1)) });
    scene.later(10_001);
    assert_eq!(scene.settle(), ["DeviceDistrusted", "IncidentOpened"], "what it says from then on counts");
}

/// `d` has two levels, and nobody has verified the wiring of the first.
fn two_levels() -> Scene {
    let mut scene = four();
    let mut policies = scene.stage.state.policies.clone();
    let levels = policies.fencing.get_mut(&host("d")).unwrap();
    let second = levels[0].clone();
    let crate::model::FenceLevel::Power(devices) = &mut levels[0] else { unreachable!() };
    let crate::model::PowerDevice::Ipmi(device) = &mut devices[0] else { unreachable!() };
    device.wiring_verified_by = None;
    levels.push(second);
    scene.stage.declare(policies);
    scene.later(60_000);
    scene
}

#[test]
fn a_level_that_nobody_has_verified_does_not_stand_in_the_way_of_one_that_is_verified() {
    let mut scene = two_levels();
    scene.silent("d", 2_000);
    scene.power("d", off("d", Moment(scene.now)));
    assert_eq!(scene.settle(), ["FenceOpened", "FenceAttempted"], "nobody has to get up before the second's turn");
    scene.stage.end("a", done());
    scene.later(1_000);
    scene.silent("d", 3_000);
    assert_eq!(scene.settle(), ["FenceAttempted"]);
    assert_eq!(scene.stage.orders("b"), ["fence d by level 2"]);
    scene.power("d", PowerReading { level: 1, ..off("d", Moment(scene.now)) });
    assert_eq!(scene.settle(), ["HostGone", "Place"]);
}

/// The levels of `d` whose power devices are to be asked now.
fn asked(scene: &Scene) -> Vec<usize> {
    let levels = scene.decide().wishes.into_iter().filter_map(|wish| match wish {
        Wish::AskPower { host: about, level, .. } => (about == host("d")).then_some(level),
        Wish::AskVoters { .. } => None,
    });
    levels.collect()
}

#[test]
fn a_device_is_asked_at_once_then_ever_more_rarely_and_every_second_while_it_switches_off() {
    let mut scene = Scene::new(&["a", "b", "c", "d", "e"], &["web"]);
    scene.stage.run("web", "d");
    scene.later(600_000);
    let due_after = |scene: &mut Scene, ms: u64| -> bool {
        scene.power("d", PowerReading { power: Power::On, ..off("d", Moment(scene.now)) });
        let at = scene.now;
        scene.now += ms;
        let due = asked(scene) == [0];
        scene.now = at;
        due
    };
    scene.synced("d", scene.now - 1_000);
    assert_eq!(asked(&scene), [0], "it has not been asked yet");
    assert!(!due_after(&mut scene, 50) && due_after(&mut scene, 80), "a sixteenth of the silence");
    scene.silent("d", 160_000);
    assert!(!due_after(&mut scene, 9_000) && due_after(&mut scene, 11_000));
    scene.silent("d", 500_000);
    assert!(!due_after(&mut scene, 14_999) && due_after(&mut scene, 15_000), "and at least so often");
    assert_eq!(scene.settle(), ["FenceOpened", "FenceAttempted"]);
    assert!(!due_after(&mut scene, 999) && due_after(&mut scene, 1_000));
}

#[test]
fn all_levels_are_asked_at_once_but_for_those_that_are_not_trusted() {
    let mut scene = two_levels();
    scene.synced("d", scene.now - 900);
    assert_eq!(asked(&scene), [0, 1]);
    let why = "it is of another machine".to_owned();
    scene.stage.must(Change::DeviceDistrusted { host: host("d"), level: 0, why });
    assert_eq!(asked(&scene), [1]);
}

#[test]
fn a_human_is_asked_when_no_level_has_proven_what_one_says_that_nobody_has_verified() {
    let mut scene = two_levels();
    scene.silent("d", 2_000);
    scene.power("d", off("d", Moment(scene.now)));
    scene.settle();
    scene.stage.end("a", done());
    scene.later(1_000);
    scene.silent("d", 3_000);
    scene.settle();
    scene.stage.end("b", failed());
    scene.evidence.marks.applied(scene.stage.index, Moment(scene.now));
    assert_eq!(scene.settle(), ["IncidentOpened"]);
    assert!(scene.stage.state.open_incident("fencing/d").is_some());
}

#[test]
fn a_level_that_is_not_trusted_proves_nothing_and_hides_nothing() {
    let mut scene = two_levels();
    let why = "it is of another machine".to_owned();
    scene.stage.must(Change::DeviceDistrusted { host: host("d"), level: 0, why });
    scene.silent("d", 2_000);
    scene.power("d", off("d", Moment(scene.now)));
    assert!(!scene.words().contains(&"HostGone".to_owned()));
    scene.power("d", PowerReading { level: 1, ..off("d", Moment(scene.now)) });
    assert_eq!(scene.words()[0], "HostGone");
}

#[test]
fn every_wait_has_its_reason_and_its_bound() {
    let waits = |scene: &Scene| scene.decide().report.hosts[&host("d")].waits.clone().unwrap();
    let mut scene = four();
    assert_eq!(scene.decide().report.hosts[&host("d")].waits, None);
    scene.later(10_000);
    scene.silent("d", 10_000);
    scene.heard("d", 100);
    assert_eq!(waits(&scene).1, 20_000, "{:?}", waits(&scene));
    set_mode(&mut scene, "d", Mode::Leaving { reboot: false });
    scene.silent("d", 10_000);
    let (what, left) = waits(&scene);
    assert!(what.contains("has announced its shutdown") && left == 110_000, "{what} {left}");
    set_mode(&mut scene, "d", Mode::Maintenance);
    let (what, left) = waits(&scene);
    assert!(what.contains("d is in maintenance") && left == FOREVER, "{what} {left}");
    set_mode(&mut scene, "d", Mode::Active);
    scene.settle();
    let (what, left) = waits(&scene);
    assert!(what.contains("the report of the fence attempt") && left == 39_200, "{what} {left}");
    scene.stage.end("a", failed());
    scene.evidence.marks.applied(scene.stage.index, Moment(scene.now));
    let (what, left) = waits(&scene);
    assert!(what.contains("the pause after attempt 1") && left == 1_000, "{what} {left}");
}

#[test]
fn who_is_about_to_go_is_the_last_to_be_asked_to_switch_a_host_off() {
    let mut scene = Scene::new(&["a", "b", "c", "d", "e"], &["web"]);
    scene.stage.run("web", "d");
    scene.later(600_000);
    for leaves in ["a", "b"] {
        set_mode(&mut scene, leaves, Mode::Leaving { reboot: true });
    }
    scene.silent("d", 2_000);
    assert_eq!(scene.settle(), ["FenceOpened", "FenceAttempted"]);
    assert_eq!(scene.stage.orders("c").len(), 1, "not a, which coordinates, and not b");
}

#[test]
fn a_fence_whose_executor_may_not_act_any_more_does_not_hold_up_the_next_one() {
    let mut scene = fenced_by_a();
    for (ms, next) in [(4_000, false), (300, true)] {
        scene.later(ms);
        scene.silent("d", 6_000);
        scene.silent("a", if next { 4_300 } else { 4_000 });
        scene.asked("a", Some(100));
        scene.silent("e", 2_000);
        let attempted = scene.settle().contains(&"FenceAttempted".to_owned());
        assert_eq!(attempted, next, "R20: a lease of 4 s and its margin");
    }
}

/// The levels and the executors of the next tries to switch a host off, none of which succeeds.
fn tries(scene: &mut Scene, target: &str, count: usize) -> Vec<(usize, String)> {
    let mut tries = Vec::new();
    for _ in 0..count {
        scene.later(30_000);
        scene.silent(target, 30_000);
        scene.settle();
        let order = scene.stage.state.orders.values().next().unwrap();
        let OrderKind::Fence { level, .. } = order.kind else { panic!("{order:?}") };
        let executor = order.host.to_string();
        scene.stage.end(&executor, failed());
        tries.push((level, executor));
    }
    tries
}

#[test]
fn every_level_has_its_turn_before_the_first_has_its_next_whatever_stands_between_them() {
    for between in [FenceLevel::Operator {}, FenceLevel::Lease(LeaseLevel::default())] {
        let mut scene = four();
        let mut policies = scene.stage.state.policies.clone();
        let levels = policies.fencing.get_mut(&host("d")).unwrap();
        let device = levels[0].clone();
        levels.extend([between, device]);
        scene.stage.declare(policies);
        let levels: Vec<usize> = tries(&mut scene, "d", 4).into_iter().map(|(level, _)| level).collect();
        assert_eq!(levels, [0, 2, 0, 2]);
    }
}

/// `c` has two levels of power devices, and `a` and `b` are there to ask them.
fn two_levels_and_two_to_ask() -> Scene {
    let mut scene = Scene::new(&["a", "b", "c"], &["web"]);
    scene.stage.run("web", "c");
    let mut policies = scene.stage.state.policies.clone();
    let levels = policies.fencing.get_mut(&host("c")).unwrap();
    let second = levels[0].clone();
    levels.push(second);
    scene.stage.declare(policies);
    scene.later(60_000);
    scene
}

fn by(tries: &[(usize, &str)]) -> Vec<(usize, String)> {
    tries.iter().map(|(level, executor)| (*level, (*executor).to_owned())).collect()
}

#[test]
fn each_level_is_tried_by_one_host_after_the_other() {
    let mut scene = two_levels_and_two_to_ask();
    let tried = tries(&mut scene, "c", 6);
    assert_eq!(tried, by(&[(0, "a"), (1, "b"), (0, "b"), (1, "a"), (0, "a"), (1, "b")]));
}

#[test]
fn each_level_is_tried_first_by_who_is_not_known_to_fail() {
    let mut scene = two_levels_and_two_to_ask();
    let (power, why) = (Power::Unknown { detail: "no route".to_owned() }, "no route".to_owned());
    let machine = Machine::Unknown { why };
    let device = DeviceTest { device: "bmc".to_owned(), power, took_ms: 40, machine, denied: false };
    scene.stage.must(Change::FenceTested {
        host: host("c"),
        executor: host("b"),
        machine_id: crate::fixture::facts("c", "x").machine_id,
        policy_version: Some(scene.stage.state.policy_version),
        levels: vec![LevelTest { level: 1, devices: vec![device] }],
    });
    let tried = tries(&mut scene, "c", 4);
    assert_eq!(tried, by(&[(0, "a"), (1, "a"), (0, "b"), (1, "b")]));
}

#[test]
fn a_fence_that_no_host_can_carry_out_calls_a_person_when_that_lasts() {
    let mut scene = Scene::new(&["a", "b"], &["web"]);
    scene.stage.run("web", "b");
    scene.stage.fence("b");
    scene.later(1_000);
    for (ms, calls) in [(28_999, false), (1, true)] {
        scene.later(ms);
        scene.silent("b", 20_000);
        // It coordinates, and its agent does not sync.
        scene.synced("a", scene.now - 2_000);
        scene.heard("a", 100);
        let all = scene.settle();
        assert!(!all.contains(&"FenceAttempted".to_owned()), "{all:?}");
        let told = scene.stage.state.open_incident("host/b").unwrap();
        let asks = told.human.as_ref().is_some_and(|human| human.contains("confirm-off b"));
        assert_eq!(asks, calls, "{told:?}");
    }
}
