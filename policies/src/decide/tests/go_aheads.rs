//! Whether a fence that was ordered is still wanted (S3, S6, S9, R20).

use super::*;
use crate::{evidence::OtherBoot, go_ahead::GoAhead};

/// `d` is being switched off, and the executor has not reported.
fn fencing() -> Scene {
    let mut scene = Scene::new(&["a", "b", "c", "d"], &["web"]);
    scene.stage.run("web", "d");
    scene.later(10_000);
    scene.silent("d", 5_000);
    scene.settle();
    assert!(scene.stage.state.fence_under_way(&host("d")).is_some(), "it is on its way");
    scene
}

fn said(scene: &Scene) -> GoAhead {
    scene.decide().go_aheads.of(&host("d"))
}

#[test]
fn a_fence_is_wanted_while_its_target_has_failed_and_no_longer_than_that() {
    let mut scene = fencing();
    assert_eq!(said(&scene), GoAhead::Given);
    scene.asked("d", Some(100));
    assert_eq!(said(&scene), GoAhead::Withdrawn, "S3: another voter hears it");
    scene.silent("d", 5_000);
    assert_eq!(said(&scene), GoAhead::Given, "and no more");
    scene.evidence.hosts.get_mut(&host("d")).unwrap().answers.clear();
    assert_eq!(said(&scene), GoAhead::Waits, "R17: nobody else has said anything");
    scene.synced("d", scene.now);
    assert_eq!(said(&scene), GoAhead::Withdrawn, "it is well");
}

#[test]
fn a_new_leader_gives_no_go_ahead_before_it_knows_anything() {
    let mut scene = fencing();
    scene.evidence = Evidence { me: Some(host("a")), voters: scene.evidence.voters.clone(), ..Evidence::default() };
    assert_eq!(said(&scene), GoAhead::Waits);
    scene.evidence.quorum_since = Some(Moment(scene.now));
    assert_eq!(said(&scene), GoAhead::Waits);
}

#[test]
fn a_fence_is_not_wanted_against_a_new_boot_of_its_target() {
    let mut scene = fencing();
    let now = Moment(scene.now);
    scene.evidence.hosts.get_mut(&host("d")).unwrap().other_boot =
        Some(OtherBoot { incarnation: boot("d.2"), since: now, at: now });
    assert_eq!(said(&scene), GoAhead::Withdrawn, "BMCs know no incarnations");
    scene.now += 60_000;
    scene.synced("a", scene.now);
    scene.evidence.hosts.get_mut(&host("d")).unwrap().other_boot.as_mut().unwrap().at = Moment(scene.now);
    assert_eq!(
        said(&scene),
        GoAhead::Withdrawn,
        "it cannot join before the attempt has ended, and is not blamed for it"
    );
    let (before, reading) = (boot("d.1"), off("d", now));
    let proof = Proof::power_off(&host("d"), &before, &reading, Some("ann"), None, crate::proof::QUIET).unwrap();
    scene.stage.apply(Change::HostGone { proof, last_well: None, last_words: None });
    scene.evidence.hosts.get_mut(&host("d")).unwrap().other_boot = None;
    assert_eq!(said(&scene), GoAhead::Withdrawn, "what is proven gone needs no shot");
}

#[test]
fn a_storm_holds_what_has_been_ordered_and_not_begun() {
    let mut scene = fencing();
    scene.silent("c", 3_000);
    assert!(scene.decide().report.storm_hold.is_some(), "two of four are silent");
    assert_eq!(said(&scene), GoAhead::Waits, "S9");
}

#[test]
fn a_coordinator_that_is_a_new_boot_of_the_target_does_not_wait_for_the_attempt_on_the_boot_before() {
    let mut scene = fencing();
    scene.evidence = Evidence {
        me: Some(host("d")),
        quorum_since: Some(Moment(scene.now - 10_000)),
        voters: scene.evidence.voters.clone(),
        ..Evidence::default()
    };
    assert_eq!(said(&scene), GoAhead::Withdrawn, "nobody answers for it, and it knows that it lives");
}
