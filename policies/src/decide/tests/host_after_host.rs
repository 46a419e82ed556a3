//! Who is told that hosts fail one after another, each soon after the same guest has come there.

use super::*;
use crate::state::Wanted;

const KEY: &str = "host_after_host";

/// What people would be told in this round.
fn told(scene: &mut Scene) -> Option<Change> {
    scene.later(1_000);
    let of_it = |change: &Change| matches!(change, Change::IncidentOpened { key, .. } if key == KEY);
    scene.decide().commands.into_iter().find(of_it)
}

fn summary(told: Option<&Change>) -> &str {
    let Some(Change::IncidentOpened { summary, .. }) = told else { panic!("nobody is told: {told:?}") };
    summary
}

fn runs_and_fails(scene: &mut Scene, on: &str) {
    scene.stage.run("web", on);
    let gone = scene.stage.gone(on);
    scene.stage.must(gone);
}

#[test]
fn a_guest_of_which_two_hosts_fail_soon_after_it_came_is_told_of_until_it_is_stopped_or_an_hour_has_passed() {
    let mut scene = Scene::new(&["a", "b", "c", "d"], &["web", "other"]);
    scene.stage.run("other", "d");
    runs_and_fails(&mut scene, "c");
    assert_eq!(told(&mut scene), None, "one host has failed");
    runs_and_fails(&mut scene, "d");
    let opened = told(&mut scene);
    assert!(summary(opened.as_ref()).ends_with(": web (c, d)"), "{opened:?}");
    scene.stage.must(opened.unwrap());
    assert_eq!(told(&mut scene), None, "that is known");
    let (over, before) = (Change::IncidentResolved { key: KEY.to_owned() }, scene.stage.state.clone());
    let (guest, wanted, by) = (name("web"), Wanted::Stopped, "ann".to_owned());
    scene.stage.must(Change::WantedSet { guest, wanted, by });
    scene.later(1_000);
    assert!(scene.decide().commands.contains(&over), "{:?}", scene.words());
    scene.stage.state = before;
    scene.later(3_600_000);
    assert!(scene.decide().commands.contains(&over), "{:?}", scene.words());
}

#[test]
fn a_host_that_boots_anew_soon_after_a_guest_came_counts_as_well() {
    let mut scene = Scene::new(&["a", "b", "c"], &["web"]);
    for on in ["b", "c"] {
        scene.stage.run("web", on);
        assert_eq!(told(&mut scene), None, "before {on} has booted anew");
        scene.stage.join(on, &format!("{on}.2"));
        scene.stage.end(on, done());
    }
    let opened = told(&mut scene);
    assert!(summary(opened.as_ref()).ends_with(": web (b, c)"), "{opened:?}");
}

#[test]
fn a_host_that_has_borne_a_guest_for_long_and_one_that_fails_twice_are_no_row() {
    let mut scene = Scene::new(&["a", "b", "c"], &["web"]);
    runs_and_fails(&mut scene, "c");
    scene.stage.run("web", "b");
    scene.stage.index += 601;
    scene.now += 601_000;
    let gone = scene.stage.gone("b");
    scene.stage.must(gone);
    assert_eq!(told(&mut scene), None, "b has had it for longer than ten minutes");
    scene.stage.join("c", "c.2");
    runs_and_fails(&mut scene, "c");
    assert_eq!(told(&mut scene), None, "it was c alone, twice");
}
