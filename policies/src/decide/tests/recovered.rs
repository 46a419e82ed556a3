//! After a recovery: what is adopted, what waits, and for whom (R25).

use super::*;
use crate::{evidence::HostEvidence, feature_level::FeatureLevel, names::Epoch, proof::NoProof, sync::Authority};

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

/// The boot with which `d` had joined is off, as a person says, and then another machine comes under its name.
fn taken_over(scene: &mut Scene) {
    let proof = Proof::operator(&host("d"), &boot("d.1"), "ann", None, 1_500).unwrap();
    scene.stage.must(Change::HostGone { proof, last_well: None, last_words: None });
    scene.stage.must(Change::HostJoined { host: host("d"), facts: of_another_machine(), follows: None });
    scene.later(1_000);
    scene.evidence.hosts.insert(host("d"), HostEvidence::default());
}

fn of_another_machine() -> crate::state::HostFacts {
    crate::state::HostFacts { machine_id: "other".to_owned(), ..crate::fixture::facts("d", "d.9") }
}

#[test]
fn what_the_lost_history_may_have_started_on_a_machine_that_took_a_name_over_is_not_started_beside_it() {
    let free = "GuestFree".to_owned();
    let mut scene = recovered();
    taken_over(&mut scene);
    assert!(scene.stage.state.hosts[&host("d")].is_contested());
    assert!(!scene.words().contains(&free), "the proof is of the machine before it: {:?}", scene.words());
    // A person says that it has the name from here on. It has yet to join.
    let (machine_id, by) = (Some("other".to_owned()), Some("ann".to_owned()));
    scene.stage.must(Change::QuarantineLifted { host: host("d"), machine_id, by });
    let now = Moment(scene.now);
    scene.evidence.hosts.get_mut(&host("d")).unwrap().hear_other(&boot("d.9"), now, now);
    assert!(!scene.words().contains(&free), "{:?}", scene.words());
    scene.stage.must(Change::HostJoined { host: host("d"), facts: of_another_machine(), follows: None });
    scene.later(1_000);
    learned(&mut scene, "d");
    has(&mut scene, "d", old(500), GuestCondition::Running);
    assert!(scene.words().contains(&"GuestAdopted".to_owned()), "{:?}", scene.words());
}

#[test]
fn another_machine_under_the_name_of_a_host_that_is_gone_holds_up_no_first_placement_where_nothing_is_lost() {
    let mut scene = Scene::new(&["a", "b", "c", "d"], &["web"]);
    taken_over(&mut scene);
    let mut policies = scene.stage.state.policies.clone();
    let web = policies.guests[&name("web")].clone();
    policies.guests.insert(name("db"), web);
    scene.stage.declare(policies);
    scene.later(1_000);
    assert!(scene.words().contains(&"GuestFree".to_owned()), "{:?}", scene.words());
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

/// A guest that was found running has no assignment while it is moved; the half that receives it has one.
#[test]
fn of_a_move_of_a_guest_that_was_found_running_one_side_is_kept_too_and_only_where_nobody_else_moves_it() {
    for received in [GuestCondition::Incoming, GuestCondition::Running] {
        let mut scene = recovered();
        has(&mut scene, "b", Epoch::default(), GuestCondition::Sent);
        has(&mut scene, "c", old(401), received);
        assert!(scene.settle().contains(&"StrayFound".to_owned()), "nobody ends that move");
        assert_eq!((scene.stage.orders("b").len(), scene.stage.orders("c").len()), (1, 0));
    }
    let mut scene = recovered();
    has(&mut scene, "b", Epoch::default(), GuestCondition::Sent);
    has(&mut scene, "c", old(401), GuestCondition::Incoming);
    has(&mut scene, "d", Epoch::default(), GuestCondition::Incoming);
    assert!(!scene.settle().contains(&"StrayFound".to_owned()), "other tools move it to d");
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

/// Nothing has been heard of `d` since the survivor's newest entry. It may have booted since, and guests may have been started there.
fn unheard() -> Scene {
    let mut scene = recovered();
    scene.later(10_000);
    scene.evidence.hosts.insert(host("d"), HostEvidence::default());
    scene.asked("d", None);
    scene
}

/// A boot of `d` that has not joined was heard so many milliseconds ago.
fn other_boot(scene: &mut Scene, ago: u64) {
    let (at, now) = (Moment(scene.now - ago), Moment(scene.now));
    scene.evidence.hosts.get_mut(&host("d")).unwrap().hear_other(&boot("d.2"), at, now);
}

#[test]
fn an_off_is_no_proof_after_a_recovery_when_a_boot_that_has_not_joined_was_heard_since() {
    let gone = "HostGone".to_owned();
    let mut scene = unheard();
    scene.power("d", off("d", Moment(scene.now - 2_000)));
    assert!(scene.words().contains(&gone), "{:?}", scene.words());
    other_boot(&mut scene, 1_000);
    assert!(!scene.words().contains(&gone), "{:?}", scene.words());
    scene.power("d", off("d", Moment(scene.now - 900)));
    assert!(scene.words().contains(&gone), "{:?}", scene.words());
    // Where nothing is lost, a boot that has not joined has been ordered nothing.
    let mut scene = Scene::new(&["a", "b", "c", "d"], &["web"]);
    scene.stage.run("web", "d");
    scene.later(10_000);
    scene.silent("d", 3_000);
    scene.power("d", off("d", Moment(scene.now - 2_000)));
    other_boot(&mut scene, 1_000);
    assert!(scene.words().contains(&gone), "{:?}", scene.words());
}

#[test]
fn a_person_is_not_believed_that_a_host_is_off_while_any_boot_of_it_is_heard() {
    let confirm = |scene: &Scene| {
        let (state, d) = (&scene.stage.state, host("d"));
        let known = (&d, &state.hosts[&d]);
        confirm_off(state, &scene.evidence, &Timing::default(), Moment(scene.now), known, "ann")
    };
    let fresh = |ago_ms| Err(NoProof::Fresh { host: host("d"), ago_ms });
    let mut scene = unheard();
    assert!(confirm(&scene).is_ok());
    other_boot(&mut scene, 400);
    assert_eq!(confirm(&scene), fresh(400));
    scene.now += 10_000;
    assert!(confirm(&scene).is_ok());
    scene.asked("d", Some(300));
    assert_eq!(confirm(&scene), fresh(300), "another voter has heard the boot that has joined");
    scene.asked("d", None);
    scene.evidence.quorum_since = Some(Moment(scene.now - 200));
    assert_eq!(confirm(&scene), fresh(200), "nobody has listened for long enough");
}
