//! What guests wait for, and for how long at most: everything that waits says so.

use super::*;
use crate::{
    decide::{FOREVER, tests::four},
    fixture::{declaration, done, failed},
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
