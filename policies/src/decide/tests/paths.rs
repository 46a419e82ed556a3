//! Ways to switch hosts off are tried while nothing is wrong, and drills (R9).

use super::*;
use crate::{
    decide::{DRILL_LIMIT, drill},
    evidence::TestedOff,
    fence_path::{DeviceTest, DrillStep, LevelTest, Machine, WIRED_MAX, Wired, WiredBy},
    model::Severity,
};

const EVERY_MS: u64 = 24 * 3_600_000;

impl Stage {
    /// Nobody has verified any wiring.
    fn unverify(&mut self) {
        let mut policies = self.state.policies.clone();
        for levels in policies.fencing.values_mut() {
            if let [crate::model::FenceLevel::Power(devices)] = &mut levels[..]
                && let [crate::model::PowerDevice::Ipmi(device)] = &mut devices[..]
            {
                device.wiring_verified_by = None;
            }
        }
        self.declare(policies);
    }
}

fn unknown() -> Power {
    Power::Unknown { detail: "no route".to_owned() }
}

impl Scene {
    /// What the first level of a host says, as its executor reports it under the policies of now.
    fn answer(&self, target: &str, executor: &str, power: Power, machine: Machine) -> Change {
        let device = DeviceTest { device: "bmc".to_owned(), power, took_ms: 40, machine, denied: false };
        Change::FenceTested {
            host: host(target),
            executor: host(executor),
            machine_id: crate::fixture::facts(target, "x").machine_id,
            policy_version: Some(self.stage.state.policy_version),
            levels: vec![LevelTest { level: 0, devices: vec![device] }],
        }
    }

    fn tested(&mut self, target: &str, executor: &str, power: Power, machine: Machine) {
        let answer = self.answer(target, executor, power, machine);
        self.tell(answer);
    }

    /// The first level of a host does not let its executor in.
    fn denied(&mut self, target: &str, executor: &str) {
        let power = Power::Unknown { detail: "not with this password".to_owned() };
        let mut answer = self.answer(target, executor, power, Machine::Unknown { why: String::new() });
        if let Change::FenceTested { levels, .. } = &mut answer {
            levels[0].devices[0].denied = true;
        }
        self.tell(answer);
    }

    /// The first level of a host, as it is declared now, has called it off in a test that ends at this moment.
    fn tested_off(&mut self, target: &str) {
        let incarnation = self.stage.state.hosts[&host(target)].facts.incarnation.clone();
        let declared = self.stage.state.policies.levels_of(&host(target))[0].clone();
        let off = TestedOff { incarnation, answered: Moment(self.now), declared };
        self.evidence.hosts.entry(host(target)).or_default().tested_off.insert(0, off);
    }

    /// Who is to ask whose devices.
    fn test(&self) -> Option<(String, String)> {
        self.decide().test.map(|test| (test.host.to_string(), test.executor.to_string()))
    }

    fn tell(&mut self, change: Change) {
        self.stage.must(change);
        self.evidence.marks.applied(self.stage.index, Moment(self.now));
    }

    /// Tries every way that is due, successfully; returns them.
    fn test_all(&mut self) -> Vec<(String, String)> {
        let mut all = Vec::new();
        while let Some((target, executor)) = self.test() {
            self.tested(&target, &executor, Power::On, Machine::Same);
            all.push((target, executor));
            assert!(all.len() < 100, "{all:?}");
        }
        all
    }
}

#[test]
fn every_host_is_tried_by_two_others_and_then_again_after_a_day_by_whoever_did_it_longest_ago() {
    let mut scene = Scene::new(&["a", "b", "c", "d"], &[]);
    let first = scene.test_all();
    assert_eq!(first.len(), 8, "{first:?}");
    assert!(first.iter().all(|(target, executor)| target != executor));
    scene.later(EVERY_MS - 1);
    assert_eq!(scene.test(), None);
    scene.later(EVERY_MS / 8 + 1);
    let again = scene.test_all();
    assert_eq!(again.len(), 4, "{again:?}");
    assert!(again.iter().all(|pair| !first.contains(pair)), "by somebody else: {again:?}");
}

#[test]
fn nothing_is_tried_while_a_host_is_silent_or_deciding_is_suspended_or_just_after_an_election() {
    let mut scene = Scene::new(&["a", "b", "c", "d"], &[]);
    scene.evidence.quorum_since = Some(Moment(scene.now - 9_999));
    assert_eq!(scene.test(), None);
    scene.evidence.quorum_since = Some(Moment(1_000));
    scene.now += 60_000;
    scene.all_well();
    for silent in ["b", "c", "d"] {
        scene.silent(silent, 60_000);
    }
    assert_eq!(scene.test(), None, "nobody else is there to ask");
    scene.all_well();
    scene.stage.must(Change::SuspensionSet { suspended: true, by: "ann".to_owned() });
    assert_eq!(scene.test(), None);
}

#[test]
fn a_way_that_fails_is_told_and_tried_again_and_one_that_works_ends_it() {
    let mut scene = Scene::new(&["a", "b", "c", "d"], &[]);
    scene.test_all();
    for executor in ["a", "b", "c"] {
        scene.tested("d", executor, unknown(), Machine::Unknown { why: String::new() });
    }
    assert_eq!(scene.settle(), ["IncidentOpened"]);
    let incident = scene.stage.state.open_incident("path/d").unwrap();
    assert_eq!(incident.severity, Severity::Warning);
    assert!(incident.summary.contains("level 1: a got no answer: bmc: no route"), "{}", incident.summary);
    assert_eq!(scene.test(), None);
    for rest in [30_000, 60_000, 120_000, 240_000, 300_000] {
        scene.later(rest - 1);
        assert_eq!(scene.test(), None, "too early for a try {rest} ms after the last");
        scene.later(1);
        let (target, executor) = scene.test().unwrap();
        assert_eq!(target, "d");
        scene.tested("d", &executor, unknown(), Machine::Unknown { why: String::new() });
        assert!(scene.words().is_empty(), "that another one got no answer either is no news");
    }
    for _ in 0..20 {
        scene.later(300_000);
        let (_, executor) = scene.test().unwrap();
        scene.tested("d", &executor, unknown(), Machine::Unknown { why: String::new() });
    }
    scene.later(299_999);
    assert_eq!(scene.test(), None, "a controller that is dead is asked every five minutes");
    let told = |entry: &&crate::journal::Entry| matches!(&entry.what, crate::journal::Event::FenceTested { host: of, error: Some(_), .. } if *of == host("d"));
    assert_eq!(scene.stage.state.journal.entries().filter(told).count(), 1, "what is as it was is no news");
    scene.later(1);
    let (_, executor) = scene.test().unwrap();
    scene.tested("d", &executor, Power::On, Machine::Same);
    assert_eq!(scene.settle(), ["IncidentResolved"]);
}

/// The device of `d` has let none of the others in.
fn locked_out(mut scene: Scene) -> Scene {
    scene.test_all();
    for executor in ["a", "b", "c"] {
        scene.denied("d", executor);
    }
    assert_eq!(scene.settle(), ["IncidentOpened"]);
    scene
}

#[test]
fn a_device_that_lets_nobody_in_is_tried_ever_more_seldom_and_people_are_told_so() {
    let mut scene = locked_out(Scene::new(&["a", "b", "c", "d"], &[]));
    let human = scene.stage.state.open_incident("path/d").unwrap().human.clone().unwrap();
    assert!(human.contains("may lock that user out") && human.contains("holdfast fence test d"), "{human}");
    // One after the first, two after the second.
    for minutes in [4, 8, 16, 32, 60, 60] {
        scene.later(minutes * 60_000 - 1);
        assert_eq!(scene.test(), None, "too early for a try {minutes} minutes after the last");
        scene.later(1);
        let (target, executor) = scene.test().unwrap();
        assert_eq!(target, "d");
        scene.denied("d", &executor);
        assert!(scene.words().is_empty(), "that another one was not let in either is no news");
    }
    scene.tested("d", "a", Power::On, Machine::Same);
    assert_eq!(scene.settle(), ["IncidentResolved"], "somebody has put the password right, and had it tested");
    scene.later(3_600_000);
    assert_eq!(scene.test(), None);
}

#[test]
fn whoever_was_not_let_in_is_followed_by_another_after_a_minute_and_not_at_once() {
    let mut scene = Scene::new(&["a", "b", "c", "d"], &[]);
    let mut tries = Vec::new();
    while let Some((target, executor)) = scene.test() {
        if target == "d" {
            scene.denied("d", &executor);
            tries.push(executor);
        } else {
            scene.tested(&target, &executor, Power::On, Machine::Same);
        }
        assert!(tries.len() < 10, "{tries:?}");
    }
    assert_eq!(tries.len(), 1, "each try may count against the user: {tries:?}");
    scene.later(59_999);
    assert_eq!(scene.test(), None);
    scene.later(1);
    let (target, executor) = scene.test().unwrap();
    assert!(target == "d" && !tries.contains(&executor), "whose password may be the right one: {executor}");
    scene.tested("d", &executor, unknown(), Machine::Unknown { why: String::new() });
    scene.later(59_999);
    assert_eq!(scene.test(), None, "a controller that has locked somebody out may say nothing at all");
    scene.later(1);
    let (_, executor) = scene.test().unwrap();
    scene.tested("d", &executor, Power::On, Machine::Same);
    scene.later(60_000);
    assert_eq!(scene.test(), None, "{:?}", scene.test());
}

#[test]
fn a_device_that_let_nobody_in_is_tried_at_once_when_it_is_declared_anew() {
    let mut scene = locked_out(Scene::new(&["a", "b", "c", "d"], &[]));
    assert_eq!(scene.test(), None);
    let mut policies = scene.stage.state.policies.clone();
    policies.fencing.get_mut(&host("d")).unwrap().push(crate::model::FenceLevel::Operator {});
    scene.stage.declare(policies);
    scene.all_well();
    assert_eq!(scene.test().map(|(target, _)| target).as_deref(), Some("d"));
}

/// What is at stake is a guest then, and the password may have been put right since.
#[test]
fn a_host_whose_device_let_nobody_in_is_fenced_like_any_other() {
    let mut scene = Scene::new(&["a", "b", "c", "d"], &["web"]);
    scene.stage.run("web", "d");
    let mut scene = locked_out(scene);
    scene.later(600_000);
    scene.silent("d", 2_000);
    assert_eq!(scene.settle(), ["FenceOpened", "FenceAttempted"]);
}

#[test]
fn a_way_that_fails_as_before_is_no_news_however_long_it_took() {
    let mut scene = Scene::new(&["a", "b", "c", "d"], &[]);
    scene.test_all();
    let after = |took: &str| Power::Unknown { detail: format!("failed with exit code 1 after {took}: no route") };
    for executor in ["a", "b", "c"] {
        scene.tested("d", executor, after("3.1s"), Machine::Unknown { why: String::new() });
    }
    assert_eq!(scene.settle(), ["IncidentOpened"]);
    scene.tested("d", "a", after("12s"), Machine::Unknown { why: String::new() });
    assert!(scene.words().is_empty(), "{:?}", scene.words());
    scene.tested("d", "a", unknown(), Machine::Unknown { why: String::new() });
    assert_eq!(scene.settle(), ["IncidentOpened"], "other words are news");
}

#[test]
fn a_way_that_nobody_has_tried_for_an_interval_is_told_once_for_each_host_until_it_is_tried() {
    let mut scene = Scene::new(&["a", "b"], &[]);
    scene.later(EVERY_MS - 1);
    assert_eq!(scene.settle(), Vec::<String>::new());
    scene.later(1);
    assert_eq!(scene.settle(), ["IncidentOpened", "IncidentOpened"]);
    let incident = scene.stage.state.open_incident("path/b").unwrap();
    assert_eq!(incident.severity, Severity::Warning);
    assert!(incident.summary.contains("level 1: nobody has tried it, 24h after"), "{}", incident.summary);
    assert!(incident.human.as_ref().unwrap().contains("holdfast fence test b"), "{incident:?}");
    scene.later(EVERY_MS);
    assert_eq!(scene.settle(), Vec::<String>::new(), "that it lasts is no news");
    scene.evidence.marks = crate::evidence::Marks::new(Moment(scene.now));
    assert_eq!(scene.settle(), Vec::<String>::new(), "nor does it end with the coordinator that has found it out");
    scene.test_all();
    assert_eq!(scene.settle(), ["IncidentResolved", "IncidentResolved"]);
}

#[test]
fn a_way_that_is_declared_anew_has_an_interval_to_be_tried() {
    let mut scene = Scene::new(&["a", "b"], &[]);
    scene.test_all();
    scene.later(EVERY_MS);
    let mut policies = scene.stage.state.policies.clone();
    policies.fencing.get_mut(&host("b")).unwrap().push(crate::model::FenceLevel::Operator {});
    scene.stage.declare(policies);
    scene.all_well();
    assert_eq!(scene.settle(), Vec::<String>::new());
    scene.later(EVERY_MS);
    assert_eq!(scene.settle(), ["IncidentOpened"]);
    let told = &scene.stage.state.open_incident("path/b").unwrap().summary;
    assert!(!told.contains("level 2"), "a person is asked by no test: {told}");
}

#[test]
fn a_host_that_no_verified_device_could_prove_off_is_told_of_while_all_is_well() {
    let mut scene = Scene::new(&["a", "b", "c", "d"], &[]);
    let verified = scene.stage.state.policies.fencing[&host("a")].clone();
    scene.stage.unverify();
    let mut policies = scene.stage.state.policies.clone();
    policies.fencing.get_mut(&host("c")).unwrap().extend(verified);
    scene.stage.declare(policies);
    scene.stage.state.hosts.get_mut(&host("b")).unwrap().facts.guests = false;
    scene.all_well();
    for (target, executor) in [("a", "b"), ("b", "a"), ("c", "a"), ("d", "a")] {
        scene.tested(target, executor, Power::On, Machine::Untold { why: "it cannot".to_owned() });
    }
    scene.later(3_599_999);
    assert_eq!(scene.settle(), Vec::<String>::new(), "whoever has just declared it is about to drill it");
    scene.later(1);
    assert_eq!(scene.settle(), ["IncidentOpened", "IncidentOpened"], "not of b, which runs no guests, nor of c");
    for told in ["path/a", "path/d"] {
        let incident = scene.stage.state.open_incident(told).unwrap();
        assert_eq!(incident.severity, Severity::Warning);
        assert!(incident.summary.contains("level 1: nobody has verified that it is wired to"), "{}", incident.summary);
        assert!(incident.human.as_ref().unwrap().contains("holdfast fence drill"), "{incident:?}");
    }
    scene.tested("d", "a", Power::On, Machine::Same);
    assert_eq!(scene.settle(), ["IncidentResolved"]);
    let own = scene.stage.state.hosts[&host("d")].facts.machine_id.clone();
    scene.stage.state.hosts.get_mut(&host("c")).unwrap().facts.machine_id = own.to_uppercase();
    assert_eq!(scene.settle(), ["IncidentOpened"], "an id that another host has too tells nothing");
}

#[test]
fn what_is_asked_of_every_host_in_every_round_is_what_a_proof_asks() {
    let mut scene = four();
    scene.stage.unverify();
    scene.tested("d", "a", Power::On, Machine::Same);
    let id = |scene: &Scene, of: &str| scene.stage.state.hosts[&host(of)].facts.machine_id.clone();
    let others = id(&scene, "c");
    for shared in [others, id(&scene, "d").to_uppercase()] {
        scene.stage.state.hosts.get_mut(&host("c")).unwrap().facts.machine_id = shared;
        let state = &scene.stage.state;
        for of in ["c", "d"].map(host) {
            for (level, declared) in state.policies.levels_of(&of).iter().enumerate() {
                let shared = state.shared_machine_ids();
                let knows = state.hosts[&of].is_wired(level, declared, |id| shared.contains(id));
                assert_eq!(knows, state.wiring_of(&of, level).is_some(), "{of}, level {level}");
            }
        }
    }
}

#[test]
fn one_executor_of_two_that_cannot_reach_a_device_is_no_incident_and_is_not_asked_first() {
    let mut scene = Scene::new(&["a", "b", "c", "d"], &["web"]);
    scene.stage.run("web", "d");
    scene.test_all();
    scene.tested("d", "a", unknown(), Machine::Unknown { why: String::new() });
    assert_eq!(scene.settle(), Vec::<String>::new());
    scene.later(600_000);
    scene.silent("d", 2_000);
    assert_eq!(scene.settle(), ["FenceOpened", "FenceAttempted"]);
    let order = scene.stage.state.orders.values().next().unwrap();
    assert_ne!(order.host, host("a"), "the coordinator is known not to reach it");
}

#[test]
fn a_device_that_tells_the_hosts_machine_id_needs_no_persons_word() {
    let mut scene = four();
    scene.stage.unverify();
    scene.now += 1_000;
    scene.all_well();
    assert_eq!(scene.stage.state.wiring_of(&host("d"), 0), None);
    scene.tested("d", "a", Power::On, Machine::Same);
    assert_eq!(scene.stage.state.wiring_of(&host("d"), 0).as_deref(), Some("its machine id"));
    scene.now += 1_000;
    scene.all_well();
    scene.synced("d", scene.now - 900);
    scene.power("d", off("d", Moment(scene.now - 100)));
    assert_eq!(scene.settle(), ["HostGone", "Place"]);
}

#[test]
fn a_device_of_another_machine_is_distrusted_whatever_a_person_has_said() {
    let mut scene = four();
    scene.tested("d", "a", Power::On, Machine::Other { says: "m-9".to_owned() });
    assert!(scene.stage.state.hosts[&host("d")].distrusted.contains(&0));
    assert_eq!(scene.settle(), ["IncidentOpened"]);
    scene.power("d", off("d", Moment(scene.now)));
    scene.now += 1_000;
    scene.synced("d", scene.now - 1_500);
    assert!(!scene.words().contains(&"HostGone".to_owned()));
}

#[test]
fn a_device_that_calls_a_living_host_off_when_it_is_tried_is_distrusted_before_anybody_relies_on_it() {
    let mut scene = four();
    scene.later(60_000);
    scene.tested_off("d");
    scene.later(9_999);
    assert_eq!(scene.words(), [""; 0], "what is heard may have been late on its way");
    scene.later(1);
    assert_eq!(scene.settle(), ["DeviceDistrusted", "IncidentOpened"]);
    assert!(scene.stage.state.open_incident("fencing/d").is_some(), "somebody is told");
    scene.later(60_000);
    assert_eq!(scene.words(), [""; 0], "once");
    scene.silent("d", 2_000);
    scene.power("d", off("d", Moment(scene.now)));
    assert!(!scene.words().contains(&"HostGone".to_owned()), "R9: it says so of a host that lives, too");
    scene.all_well();
    scene.stage.must(Change::DeviceTrusted { host: host("d"), by: "ann".to_owned() });
    scene.evidence.marks.applied(scene.stage.index, Moment(scene.now));
    assert_eq!(scene.settle(), ["IncidentResolved"], "what it had said before somebody checked it was looked at then");
}

#[test]
fn a_device_is_not_distrusted_for_a_test_during_which_its_host_was_off_or_of_one_that_is_declared_no_more() {
    let mut scene = Scene::new(&["a", "b", "c", "d"], &[]);
    scene.later(60_000);
    scene.tested_off("d");
    scene.stage.join("d", "d.2");
    scene.later(60_000);
    assert_eq!(scene.words(), [""; 0], "its next boot was not there yet");
    scene.tested_off("d");
    let mut policies = scene.stage.state.policies.clone();
    policies.fencing.get_mut(&host("d")).unwrap()[0] = crate::model::FenceLevel::Operator {};
    scene.stage.declare(policies);
    scene.later(60_000);
    assert_eq!(scene.words(), [""; 0], "another level stands in its place");
    scene.tested_off("c");
    scene.later(5_000);
    scene.silent("c", 60_000);
    assert!(!scene.words().contains(&"DeviceDistrusted".to_owned()), "it is right of a host that has died");
}

#[test]
fn what_was_found_counts_for_the_declaration_and_machine_it_was_found_of() {
    let mut scene = four();
    scene.stage.unverify();
    scene.tested("d", "a", Power::On, Machine::Same);
    let mut policies = scene.stage.state.policies.clone();
    policies.fencing.get_mut(&host("d")).unwrap().push(crate::model::FenceLevel::Operator {});
    let asked_before = scene.answer("d", "a", Power::On, Machine::Same);
    scene.stage.declare(policies);
    assert_eq!(scene.stage.state.wiring_of(&host("d"), 0), None);
    assert!(matches!(scene.stage.refused(asked_before), crate::change::Refused::Host { .. }));
    assert_eq!(scene.stage.state.wiring_of(&host("d"), 0), None, "another device may have answered");
    let mut other = scene.answer("d", "a", Power::On, Machine::Same);
    if let Change::FenceTested { machine_id, .. } = &mut other {
        machine_id.push('x');
    }
    assert!(matches!(scene.stage.refused(other), crate::change::Refused::Host { .. }));
}

#[test]
fn an_off_of_a_device_that_is_not_declared_any_more_is_no_proof_for_the_one_that_is() {
    let mut scene = four();
    scene.stage.unverify();
    scene.now += 10_000;
    scene.all_well();
    scene.silent("d", 2_000);
    scene.power("d", off("d", Moment(scene.now)));
    assert!(!scene.words().contains(&"HostGone".to_owned()), "nobody has verified it");
    let mut policies = scene.stage.state.policies.clone();
    let levels = policies.fencing.get_mut(&host("d")).unwrap();
    let crate::model::FenceLevel::Power(devices) = &mut levels[0] else { unreachable!() };
    let crate::model::PowerDevice::Ipmi(device) = &mut devices[0] else { unreachable!() };
    device.address = "10.0.9.99".to_owned();
    device.wiring_verified_by = Some("ann".to_owned());
    scene.stage.declare(policies);
    assert!(!scene.words().contains(&"HostGone".to_owned()), "the right device has not been asked");
    scene.power("d", off("d", Moment(scene.now)));
    assert!(scene.words().contains(&"HostGone".to_owned()), "{:?}", scene.words());
}

#[test]
fn a_machine_id_that_another_host_has_too_verifies_no_wiring() {
    let mut scene = four();
    scene.stage.unverify();
    scene.tested("d", "a", Power::On, Machine::Same);
    assert!(scene.stage.state.wiring_of(&host("d"), 0).is_some());
    let own = scene.stage.state.hosts[&host("d")].facts.machine_id.clone();
    scene.stage.state.hosts.get_mut(&host("c")).unwrap().facts.machine_id = own.to_uppercase();
    assert_eq!(scene.stage.state.wiring_of(&host("d"), 0), None);
}

#[test]
fn a_drill_verifies_what_a_machine_id_cannot_any_more() {
    let mut scene = drilled();
    scene.tested("d", "a", Power::On, Machine::Same);
    let own = scene.stage.state.hosts[&host("d")].facts.machine_id.clone();
    scene.stage.state.hosts.get_mut(&host("c")).unwrap().facts.machine_id = own;
    let executor = scene.stage.state.orders.values().next().unwrap().host.to_string();
    scene.stage.end(&executor, done());
    scene.stage.join("d", "d.2");
    scene.later(1_000);
    assert_eq!(scene.settle(), ["DrillEnded"]);
    assert_eq!(scene.stage.state.wiring_of(&host("d"), 0).as_deref(), Some("a drill of ann"));
}

#[test]
fn a_drill_of_a_device_that_is_declared_anew_meanwhile_verifies_nothing() {
    let mut scene = drilled();
    let executor = scene.stage.state.orders.values().next().unwrap().host.to_string();
    let mut policies = scene.stage.state.policies.clone();
    policies.fencing.get_mut(&host("d")).unwrap().push(crate::model::FenceLevel::Operator {});
    scene.stage.declare(policies);
    assert!(scene.stage.state.hosts[&host("d")].drill.is_none());
    assert!(scene.stage.state.open_incident("drill/d").unwrap().summary.contains("declared anew"));
    scene.stage.end(&executor, done());
    scene.stage.join("d", "d.2");
    scene.later(1_000);
    scene.settle();
    assert_eq!(scene.stage.state.wiring_of(&host("d"), 0), None);
}

fn drilled() -> Scene {
    let mut scene = Scene::new(&["a", "b", "c", "d"], &[]);
    scene.stage.unverify();
    scene.test_all();
    scene.stage.state.hosts.get_mut(&host("d")).unwrap().wired.clear();
    super::restraint::set_mode(&mut scene, "d", Mode::Draining);
    scene.later(60_000);
    let executor = drill(&scene.stage.state, &scene.decide().report, &host("a"), &host("d"), 0).unwrap();
    let begun = Change::DrillBegun { host: host("d"), executor, level: 0, by: "ann".to_owned() };
    scene.tell(begun);
    scene
}

#[test]
fn a_device_that_is_not_trusted_is_not_drilled_because_it_would_switch_another_machine_off() {
    let mut scene = Scene::new(&["a", "b", "c", "d"], &[]);
    scene.stage.state.level = crate::feature_level::FeatureLevel::HIGHEST;
    super::restraint::set_mode(&mut scene, "d", Mode::Draining);
    scene.later(60_000);
    let may = |scene: &Scene| drill(&scene.stage.state, &scene.decide().report, &host("a"), &host("d"), 0);
    assert!(may(&scene).is_ok());
    scene.tested("d", "a", Power::On, Machine::Other { says: "another".to_owned() });
    let why = may(&scene).unwrap_err();
    assert!(why.contains("is not trusted") && why.contains("trust-device d"), "{why}");
    let begun = Change::DrillBegun { host: host("d"), executor: host("b"), level: 0, by: "ann".to_owned() };
    assert!(matches!(scene.stage.refused(begun), crate::change::Refused::Host { .. }));
    scene.tell(Change::DeviceTrusted { host: host("d"), by: "ann".to_owned() });
    assert!(may(&scene).is_ok());
}

#[test]
fn a_drill_that_ends_well_verifies_the_wiring() {
    let mut scene = drilled();
    let executor = scene.stage.state.orders.values().next().unwrap().host.to_string();
    scene.now += 5_000;
    scene.all_well();
    scene.silent("d", 5_000);
    scene.power("d", off("d", Moment(scene.now)));
    assert_eq!(scene.settle(), Vec::<String>::new(), "nothing is made of its silence");
    scene.stage.end(&executor, done());
    let step = &scene.stage.state.hosts[&host("d")].drill.as_ref().unwrap().step;
    assert!(matches!(step, DrillStep::Returning { .. }));
    scene.stage.join("d", "d.2");
    scene.later(1_000);
    assert_eq!(scene.settle(), ["DrillEnded"]);
    assert_eq!(scene.stage.state.wiring_of(&host("d"), 0).as_deref(), Some("a drill of ann"));
}

#[test]
fn a_drill_during_which_another_host_went_away_verifies_nothing() {
    let mut scene = drilled();
    let executor = scene.stage.state.orders.values().next().unwrap().host.to_string();
    scene.stage.end(&executor, done());
    scene.stage.join("d", "d.2");
    scene.stage.join("c", "c.2");
    scene.later(1_000);
    assert_eq!(scene.settle(), ["DrillEnded"]);
    assert_eq!(scene.stage.state.wiring_of(&host("d"), 0), None, "one switch feeds two hosts");
}

#[test]
fn a_drill_that_fails_or_lasts_too_long_is_told() {
    for lasts in [false, true] {
        let mut scene = drilled();
        let executor = scene.stage.state.orders.values().next().unwrap().host.to_string();
        if lasts {
            scene.stage.end(&executor, done());
            scene.later(u64::try_from(DRILL_LIMIT.as_millis()).unwrap());
            assert!(scene.settle().contains(&"DrillEnded".to_owned()));
        } else {
            scene.stage.end(&executor, failed());
        }
        assert!(scene.stage.state.open_incident("drill/d").unwrap().human.is_some(), "lasts: {lasts}");
        assert!(scene.stage.state.hosts[&host("d")].drill.is_none());
    }
}

#[test]
fn that_a_drill_failed_is_over_when_no_power_device_is_declared_any_more() {
    let mut scene = drilled();
    let executor = scene.stage.state.orders.values().next().unwrap().host.to_string();
    scene.stage.end(&executor, failed());
    scene.later(1_000);
    scene.settle();
    assert!(scene.stage.state.open_incident("drill/d").is_some(), "it can be drilled again");
    let mut policies = scene.stage.state.policies.clone();
    policies.fencing.insert(host("d"), vec![crate::model::FenceLevel::Operator {}]);
    scene.stage.declare(policies);
    scene.settle();
    assert!(scene.stage.state.open_incident("drill/d").is_none());
}

#[test]
fn only_a_drained_host_among_well_ones_is_drilled_and_never_by_itself() {
    let mut scene = four();
    let may =
        |scene: &Scene, target: &str| drill(&scene.stage.state, &scene.decide().report, &host("a"), &host(target), 0);
    assert!(may(&scene, "d").unwrap_err().contains("is not drained (1 guests)"));
    super::restraint::set_mode(&mut scene, "a", Mode::Draining);
    super::restraint::set_mode(&mut scene, "c", Mode::Draining);
    assert!(may(&scene, "a").unwrap_err().contains("coordinates"));
    assert_ne!(may(&scene, "c").unwrap(), host("c"));
    let second = drill(&scene.stage.state, &scene.decide().report, &host("a"), &host("c"), 1).unwrap_err();
    assert_eq!(second, "c has no power device at level 2; it has them at level 1");
    scene.tell(Change::SuspensionSet { suspended: true, by: "ann".to_owned() });
    assert!(may(&scene, "c").unwrap_err().contains("run `holdfast resume` first"));
    scene.tell(Change::SuspensionSet { suspended: false, by: "ann".to_owned() });
    scene.later(60_000);
    scene.silent("b", 60_000);
    assert!(may(&scene, "c").unwrap_err().contains("b is not well"));
    let by_itself = Change::DrillBegun { host: host("c"), executor: host("c"), level: 0, by: "ann".to_owned() };
    assert!(matches!(scene.stage.refused(by_itself), crate::change::Refused::Host { .. }));
}

/// The devices of `d` are sockets: on each host that asks, what is there. `web` runs on `d`.
fn local() -> Scene {
    let mut scene = four();
    let mut policies = scene.stage.state.policies.clone();
    let device = crate::model::QemuDevice {
        socket: "/run/d/qmp".into(),
        pidfile: "/run/d/pid".into(),
        start: None,
        wiring_verified_by: None,
        timeout: crate::time::Span::secs(20),
    };
    let level = crate::model::FenceLevel::Power(vec![crate::model::PowerDevice::Qemu(device)]);
    policies.fencing.insert(host("d"), vec![level]);
    scene.stage.declare(policies);
    scene.later(60_000);
    scene
}

#[test]
fn what_one_host_has_found_of_a_local_device_proves_nothing_to_another() {
    let mut scene = local();
    scene.tested("d", "b", Power::On, Machine::Same);
    scene.silent("d", 2_000);
    for (ago, asker, proven) in [(30, "a", false), (20, "c", false), (10, "b", true)] {
        let reading = PowerReading { asker: Some(host(asker)), ..off("d", Moment(scene.now - ago)) };
        scene.power("d", reading);
        assert_eq!(scene.words().contains(&"HostGone".to_owned()), proven, "{asker}");
    }
}

#[test]
fn what_a_host_has_found_of_a_local_device_proves_nothing_to_another_machine_of_its_name() {
    let mut scene = local();
    scene.stage.state.level = crate::feature_level::FeatureLevel::HIGHEST;
    scene.tested("d", "b", Power::On, Machine::Same);
    scene.silent("d", 2_000);
    assert!(scene.stage.state.wiring_for(&host("d"), 0, Some(&host("b"))).is_some());
    let facts = crate::state::HostFacts { machine_id: "m-9".to_owned(), ..crate::fixture::facts("b", "b.9") };
    scene.tell(Change::HostJoined { host: host("b"), facts, follows: None });
    let (machine_id, by) = (Some("m-9".to_owned()), Some("ann".to_owned()));
    scene.tell(Change::QuarantineLifted { host: host("b"), machine_id, by });
    scene.power("d", PowerReading { asker: Some(host("b")), ..off("d", Moment(scene.now)) });
    assert!(!scene.words().contains(&"HostGone".to_owned()), "{:?}", scene.words());
    assert!(scene.stage.state.hosts[&host("d")].path(0, &host("b")).is_none(), "it is asked anew");
}

#[test]
fn a_local_device_is_asked_and_switched_by_those_who_know_that_it_is_the_hosts_own() {
    let mut scene = local();
    scene.tested("d", "b", Power::On, Machine::Same);
    scene.silent("d", 2_000);
    let asks_power = |scene: &Scene| scene.decide().wishes.iter().any(|wish| matches!(wish, Wish::AskPower { .. }));
    assert!(!asks_power(&scene), "a coordinates, and does not know");
    assert_eq!(scene.settle(), ["FenceOpened", "FenceAttempted"]);
    assert_eq!(scene.stage.orders("b").len(), 1);
    scene.tested("d", "a", Power::On, Machine::Same);
    assert!(asks_power(&scene));
}

#[test]
fn every_host_finds_out_for_itself_what_a_local_device_is() {
    let mut scene = local();
    let all = scene.test_all();
    let of_d: std::collections::BTreeSet<_> =
        all.iter().filter(|(of, _)| of == "d").map(|(_, by)| by.as_str()).collect();
    assert_eq!(of_d, ["a", "b", "c"].into(), "{all:?}");
    for asker in ["a", "b", "c"] {
        assert!(scene.stage.state.wiring_for(&host("d"), 0, Some(&host(asker))).is_some(), "{asker}");
    }
    assert!(scene.stage.state.wiring_for(&host("d"), 0, None).is_none(), "nobody else's word counts");
}

#[test]
fn what_counts_for_all_who_ask_is_not_forgotten_for_what_many_hosts_have_found_for_themselves() {
    let mut scene = local();
    let wired = |level, asker| Wired { level, device: 0, how: WiredBy::MachineId, since: 1, asker };
    let known = scene.stage.state.hosts.get_mut(&host("d")).unwrap();
    known.wired = vec![wired(1, None)];
    known.wired.extend((1..WIRED_MAX).map(|number| wired(0, Some(host(&format!("h-{number}"))))));
    scene.tested("d", "b", Power::On, Machine::Same);
    let known = &scene.stage.state.hosts[&host("d")].wired;
    assert!(known.len() == WIRED_MAX && known.contains(&wired(1, None)), "{known:?}");
    assert!(scene.stage.state.wiring_for(&host("d"), 0, Some(&host("b"))).is_some());
}
