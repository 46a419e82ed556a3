//! What guests wait for, and for how long at most: everything that waits says so.

use super::*;
use crate::{
    decide::{FOREVER, tests::four},
    fixture::{declaration, done, failed},
    observe::GuestCondition,
};

fn waits(scene: &Scene, guest: &str) -> (String, u64) {
    let waits = scene.decide().report.guests[&name(guest)].waits.clone();
    waits.unwrap_or_else(|| panic!("{guest} waits for nothing: {}", doing(scene, guest)))
}

fn forever(what: &str) -> (String, u64) {
    (what.to_owned(), FOREVER)
}

#[test]
fn a_guest_that_was_never_placed_waits_for_the_hosts_that_have_not_said_what_they_run() {
    let mut scene = Scene::new(&["a", "b", "c"], &[]);
    let hosts: Vec<_> = scene.stage.state.hosts.keys().cloned().collect();
    scene.stage.declare(declaration(&[name("new")], &hosts));
    scene.later(1_000);
    for on in ["b", "c"] {
        scene.evidence.hosts.remove(&host(on));
    }
    assert_eq!(waits(&scene, "new"), forever("the word of b and c on what runs there"));
    suspend(&mut scene, true);
    assert_eq!(waits(&scene, "new"), forever("deciding to be resumed"));
}

#[test]
fn a_guest_that_no_host_can_run_waits_for_one_however_long() {
    let mut scene = Scene::new(&["a", "b"], &["web"]);
    redeclare(&mut scene, |policies| policies.guests.get_mut(&name("web")).unwrap().qemu.memory_mib = 100_000);
    assert_eq!(waits(&scene, "web"), forever("a host that can run it"));
}

#[test]
fn a_guest_that_starts_after_another_by_a_required_rule_waits_for_it_however_long() {
    let mut scene = Scene::new(&["a", "b"], &["db", "web"]);
    rule(&mut scene, Rule::Order { first: name("db"), then: name("web"), required: true, symmetrical: false });
    assert_eq!(waits(&scene, "web"), forever("db to run and answer"));
}

#[test]
fn the_last_steps_of_a_move_wait_for_the_host_that_may_take_longest() {
    let mut scene = four();
    scene.stage.migrate("web", "a");
    scene.stage.end("a", done());
    scene.stage.end("d", done());
    let (what, left) = waits(&scene, "web");
    assert!(what.ends_with("by a") || what.ends_with("by d"), "{what}");
    assert!(left > 0 && left < FOREVER, "{left}");
    scene.stage.end("a", done());
    let (what, left) = waits(&scene, "web");
    assert!(what == "the word that nothing of it is left, by d" && left > 0 && left < FOREVER, "{what} {left}");
    scene.now += 5_000;
    scene.all_well();
    scene.silent("d", 2_000);
    assert_eq!(waits(&scene, "web"), forever("the word that nothing of it is left, by d, which is not well heard"));
}

#[test]
fn a_move_that_was_given_up_waits_for_what_is_left_of_it_to_be_removed() {
    let mut scene = four();
    scene.stage.migrate("web", "a");
    scene.stage.end("a", failed());
    let (what, left) = waits(&scene, "web");
    assert!(what == "the word that nothing of it is left, by a" && left > 0 && left < FOREVER, "{what} {left}");
    scene.stage.end("a", failed());
    assert_eq!(waits(&scene, "web"), ("the next try to remove what is left of it".to_owned(), 10_000));
    let gone = scene.stage.gone("d");
    scene.stage.must(gone);
    let (what, left) = waits(&scene, "web");
    assert!(what == "the word that nothing of it is left, by a" && left < FOREVER, "cleared for good: {what} {left}");
}

#[test]
fn a_guest_whose_host_does_not_answer_waits_for_what_its_host_waits_for() {
    let mut running = four();
    running.later(10_000);
    let mut starting = Scene::new(&["a", "b", "c", "d"], &["web"]);
    starting.stage.place("web", "d");
    starting.later(10_000);
    let mut stopping = four();
    want(&mut stopping, "web", Wanted::Stopped);
    stopping.settle();
    stopping.later(10_000);
    let mut restarting = four();
    let restart = restarting.stage.climb("web", 0);
    restarting.stage.must(restart);
    restarting.later(10_000);
    for mut scene in [running, starting, stopping, restarting] {
        scene.silent("d", 10_000);
        scene.heard("d", 100);
        let of_host = scene.decide().report.hosts[&host("d")].waits.clone();
        let (what, left) = of_host.unwrap();
        assert!(left > 0 && left < FOREVER, "{what} {left}");
        assert_eq!(waits(&scene, "web"), (format!("d, which waits for {what}"), left));
    }
}

#[test]
fn a_guest_that_is_being_stopped_waits_for_its_host_where_that_does_not_answer() {
    for fails in [false, true] {
        let mut scene = four();
        want(&mut scene, "web", Wanted::Stopped);
        assert_eq!(scene.settle(), ["Stop"]);
        if fails {
            scene.stage.end("d", failed());
        } else {
            let (what, left) = waits(&scene, "web");
            assert!(what == "the word that nothing of it is left, by d" && left < FOREVER, "{what} {left}");
        }
        scene.later(20_000);
        scene.silent("d", 20_000);
        scene.heard("d", 100);
        let (what, left) = scene.decide().report.hosts[&host("d")].waits.clone().unwrap();
        assert_eq!(waits(&scene, "web"), (format!("d, which waits for {what}"), left), "fails: {fails}");
    }
}

#[test]
fn a_guest_of_which_nothing_can_be_said_waits_for_whoever_can_end_that() {
    let mut scene = four();
    scene.report("web", "d", GuestCondition::Paused { reason: "by hand".to_owned() });
    assert_eq!(waits(&scene, "web"), forever("whoever paused it to let it go on"));
    scene.report("web", "d", GuestCondition::Unknown { detail: "no answer".to_owned() });
    assert_eq!(waits(&scene, "web"), forever("d to tell how it is"));
}

#[test]
fn a_guest_that_is_ill_and_to_be_left_alone_waits_for_whoever_has_it_left_alone() {
    let ill = |by: fn(&mut Scene)| {
        let mut scene = four();
        by(&mut scene);
        scene.report("web", "d", GuestCondition::Panicked);
        waits(&scene, "web")
    };
    assert_eq!(ill(|scene| want(scene, "web", Wanted::Unmanaged)), forever("an operator to have it managed again"));
    assert_eq!(ill(|scene| set_mode(scene, "d", Mode::Maintenance)), forever("the end of the maintenance of d"));
    assert_eq!(ill(|scene| suspend(scene, true)), forever("deciding to be resumed"));
}

#[test]
fn a_guest_that_boots_waits_for_its_services_for_its_time_to_boot_and_then_for_those_who_look() {
    let started = || {
        let mut scene = Scene::new(&["a", "b", "c", "d"], &["web"]);
        scene.stage.place("web", "d");
        scene.stage.end("d", done());
        scene.all_well();
        scene
    };
    let booting = ("its services to answer, or its time to boot to pass".to_owned(), 6_000);
    let mut failing = started();
    assert_eq!(waits(&failing, "web"), booting, "nobody has looked yet");
    failing.seen("web", SightState::Failing);
    assert_eq!(waits(&failing, "web"), booting);
    let mut unclear = started();
    unclear.later(100_000);
    unclear.sight("web", "a", SightState::Failing);
    unclear.sight("web", "b", SightState::Unknown);
    assert_eq!(waits(&unclear, "web"), forever("its services to answer"));
}

#[test]
fn a_guest_whose_ladder_is_at_its_end_waits_for_a_person() {
    let mut scene = four();
    let page = scene.stage.climb("web", 3);
    scene.stage.must(page);
    scene.later(20_000);
    scene.seen("web", SightState::Failing);
    assert_eq!(waits(&scene, "web"), forever("a person, or that it recovers"));
}

#[test]
fn a_guest_that_cannot_leave_waits_for_a_host_however_long() {
    let mut scene = Scene::new(&["a", "b"], &["web"]);
    scene.stage.run("web", "a");
    set_mode(&mut scene, "b", Mode::Maintenance);
    set_mode(&mut scene, "a", Mode::Draining);
    scene.later(20_000);
    scene.seen("web", SightState::Passing);
    assert_eq!(waits(&scene, "web"), forever("a host that can take it"));
}

#[test]
fn a_host_that_is_proven_gone_is_waited_for() {
    let mut scene = four();
    let gone = scene.stage.gone("d");
    scene.stage.must(gone);
    later_without(&mut scene, "d", 1_000);
    let waits = scene.decide().report.hosts[&host("d")].waits.clone();
    assert_eq!(waits, Some(forever("it to come back")));
}
