//! After a recovery: what is adopted, what waits, and for whom (R25).

use super::*;
use crate::{evidence::HostEvidence, feature_level::FeatureLevel, names::Epoch, sync::Authority};

/// Guest `web` runs on `d` as far as the survivor knows; `a` coordinates after the recovery, and has been resumed.
fn recovered() -> Scene {
    let mut scene = Scene::new(&["a", "b", "c", "d"], &["web"]);
    scene.stage.run("web", "d");
    scene.stage.recover();
    resume(&mut scene);
    for on in ["a", "b", "c", "d"] {
        learned(&mut scene, on);
    }
    scene
}

fn resume(scene: &mut Scene) {
    scene.stage.must(Change::SuspensionSet { suspended: false, by: "ann".to_owned() });
    scene.later(1_000);
}

/// The agent of a host has seen the new generation.
fn learned(scene: &mut Scene, on: &str) {
    let index = scene.stage.state.applied;
    let heard = scene.evidence.hosts.entry(host(on)).or_default();
    heard.seen = Authority { generation: scene.stage.state.generation, term: 1, index };
    heard.level = FeatureLevel::HIGHEST;
}

fn has(scene: &mut Scene, on: &str, epoch: Epoch, condition: GuestCondition) {
    let report = GuestReport::new(name("web"), epoch, condition);
    scene.evidence.hosts.get_mut(&host(on)).unwrap().reports.insert(name("web"), report);
}

fn old(index: u64) -> Epoch {
    Epoch { generation: 1, index }
}

#[test]
fn nothing_is_begun_after_a_recovery_before_an_operator_resumes() {
    let mut scene = Scene::new(&["a", "b", "c", "d"], &["web"]);
    scene.stage.run("web", "d");
    scene.stage.recover();
    scene.later(1_000);
    for on in ["a", "b", "c", "d"] {
        learned(&mut scene, on);
    }
    assert!(scene.words().is_empty(), "{:?}", scene.words());
    resume(&mut scene);
    assert_eq!(scene.settle(), ["GuestFree", "Place"], "nobody has it");
}

#[test]
fn a_guest_that_has_moved_in_the_lost_history_is_adopted_where_it_is_found() {
    let mut scene = recovered();
    has(&mut scene, "b", old(500), GuestCondition::Running);
    assert_eq!(scene.words(), ["GuestAdopted"]);
    scene.settle();
    assert_eq!(scene.stage.may_run("web"), ["b".to_owned()].into());
}

#[test]
fn a_guest_that_nobody_has_waits_for_every_host_that_could_run_it_or_for_proof() {
    let mut scene = recovered();
    // It ran on `d`, as far as the survivor knows; it is `c` that is not heard, and where it may have gone.
    scene.evidence.hosts.insert(host("c"), HostEvidence::default());
    assert!(scene.words().is_empty(), "{:?}", scene.words());
    let doing = scene.decide().report.guests[&name("web")].doing.clone();
    assert!(doing.contains("c has not said"), "{doing}");
    let proof = Proof::operator(&host("c"), &boot("c.1"), "ann", None, 1_500).unwrap();
    scene.stage.must(Change::HostGone { proof, last_well: None, last_words: None });
    assert_eq!(scene.words(), ["GuestFree"]);
}

#[test]
fn a_host_that_has_not_learned_of_the_generation_has_said_nothing() {
    let mut scene = recovered();
    // It may yet begin what the old generation has ordered.
    scene.evidence.hosts.get_mut(&host("c")).unwrap().seen = Authority { generation: 1, term: 9, index: u64::MAX };
    assert!(scene.words().is_empty(), "{:?}", scene.words());
    learned(&mut scene, "c");
    assert_eq!(scene.words(), ["GuestFree"]);
}

#[test]
fn a_move_that_other_tools_have_begun_is_waited_for_in_any_generation() {
    let mut scene = recovered();
    has(&mut scene, "b", Epoch::default(), GuestCondition::Running);
    has(&mut scene, "c", Epoch::default(), GuestCondition::Incoming);
    assert_eq!(scene.settle(), ["IncidentOpened"]);
    assert!(scene.stage.orders("b").is_empty() && scene.stage.orders("c").is_empty());
}

#[test]
fn an_agent_of_a_version_that_knows_no_generations_has_said_nothing() {
    let mut scene = recovered();
    // It takes the authority over as it is told, and begins what it was ordered before all the same.
    scene.evidence.hosts.get_mut(&host("c")).unwrap().level = FeatureLevel::BIRTH;
    assert!(scene.words().is_empty(), "{:?}", scene.words());
    let waits = scene.decide().report.guests[&name("web")].waits.clone();
    assert!(waits.is_some_and(|(what, _)| what.contains("that of c counts when")), "whoever upgrades it is told");
    learned(&mut scene, "c");
    assert_eq!(scene.words(), ["GuestFree"]);
}

#[test]
fn of_a_move_that_the_old_generation_had_begun_the_side_that_runs_is_kept() {
    let mut scene = recovered();
    has(&mut scene, "b", old(400), GuestCondition::Running);
    has(&mut scene, "c", old(401), GuestCondition::Incoming);
    let all = scene.settle();
    assert!(all.contains(&"StrayFound".to_owned()), "{all:?}");
    assert_eq!(scene.stage.orders("c").len(), 1);
    assert!(scene.stage.orders("b").is_empty());
    scene.stage.end("c", done());
    scene.evidence.hosts.get_mut(&host("c")).unwrap().reports.clear();
    assert!(scene.settle().contains(&"GuestAdopted".to_owned()));
    assert_eq!(scene.stage.may_run("web"), ["b".to_owned()].into());
}

#[test]
fn of_a_move_for_which_the_old_generation_had_sent_all_one_side_is_kept() {
    let mut scene = recovered();
    has(&mut scene, "b", old(400), GuestCondition::Sent);
    has(&mut scene, "c", old(401), GuestCondition::Incoming);
    let all = scene.settle();
    assert!(all.contains(&"StrayFound".to_owned()), "nobody ends that move: {all:?}");
    let stopped: Vec<&str> = ["b", "c"].into_iter().filter(|on| !scene.stage.orders(on).is_empty()).collect();
    let [stopped] = stopped.as_slice() else { panic!("both are stopped, or none: {stopped:?}") };
    scene.stage.end(stopped, done());
    scene.evidence.hosts.get_mut(&host(stopped)).unwrap().reports.clear();
    assert!(scene.settle().contains(&"GuestAdopted".to_owned()));
}

#[test]
fn half_a_guest_that_waits_for_a_generation_that_has_ended_is_started_anew() {
    let mut scene = recovered();
    has(&mut scene, "b", old(400), GuestCondition::Incoming);
    assert_eq!(scene.words(), ["GuestAdopted"], "its other half is gone");
    scene.settle();
    scene.report("web", "b", GuestCondition::Incoming);
    assert!(scene.words().is_empty(), "an order to let it run may have been on its way: {:?}", scene.words());
    scene.later(11_000);
    scene.report("web", "b", GuestCondition::Incoming);
    assert!(scene.words().contains(&"Climb".to_owned()), "{:?}", scene.words());
}
