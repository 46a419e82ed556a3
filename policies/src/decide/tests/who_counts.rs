//! Whose word counts for a verdict (R17), and who may lead (R29).

use super::{restraint::set_mode, *};

#[test]
fn a_voter_that_does_not_count_is_no_voice_even_after_the_time_to_join() {
    let mut scene = four();
    scene.evidence.quorum_since = Some(Moment(scene.now));
    scene.evidence.hosts.remove(&host("d"));
    scene.later(120_000);
    scene.evidence.hosts.remove(&host("d"));
    scene.asked("d", None);
    assert_eq!(scene.verdict("d"), HostVerdict::Failed);
    for answer in scene.evidence.hosts.get_mut(&host("d")).unwrap().answers.values_mut() {
        answer.counts = false;
    }
    assert_eq!(scene.verdict("d"), HostVerdict::Suspect, "R17: they have not been up for long enough to have heard it");
    scene.asked("d", None);
    scene.now += 1_001;
    assert_eq!(scene.verdict("d"), HostVerdict::Suspect, "R17: nor do answers count that are old");
}

#[test]
fn voters_that_were_restarted_since_a_host_was_heard_count_when_the_time_to_join_has_passed() {
    // By the age of the coordinator's newest sign of it, in milliseconds; both other voters have never heard this boot.
    for (own, verdict) in [
        (Some(1_000), HostVerdict::Healthy),
        (Some(2_000), HostVerdict::Suspect),
        (Some(61_499), HostVerdict::Suspect),
        (Some(61_500), HostVerdict::Failed),
        (None, HostVerdict::Failed),
    ] {
        let mut scene = four();
        scene.later(600_000);
        match own {
            Some(ago) => scene.synced("d", scene.now - ago),
            None => drop(scene.evidence.hosts.remove(&host("d"))),
        }
        scene.evidence.services.clear();
        scene.asked("d", None);
        assert_eq!(scene.verdict("d"), verdict, "R19: last heard {own:?} ms ago");
        scene.evidence.quorum_since = Some(Moment(scene.now - 59_000));
        assert_ne!(scene.verdict("d"), HostVerdict::Failed, "not before the time to join has passed");
    }
}

#[test]
fn the_suspicion_of_a_coordinator_that_doubts_itself_does_not_count() {
    let mut scene = Scene::new(&["a", "b", "c"], &["web"]);
    scene.stage.run("web", "c");
    scene.later(10_000);
    scene.silent("c", 2_000);
    assert_eq!(scene.verdict("c"), HostVerdict::Failed);
    scene.evidence.hosts.get_mut(&host("a")).unwrap().unwell = Some("its event loop was late".to_owned());
    assert_eq!(scene.verdict("c"), HostVerdict::Suspect);
    assert!(scene.words().is_empty(), "{:?}", scene.words());
}

fn handed_to(scene: &Scene) -> Option<String> {
    scene.decide().hand_over.map(|hand_over| hand_over.to.to_string())
}

#[test]
fn a_coordinator_that_doubts_itself_hands_the_lead_to_a_well_voter_once_a_minute() {
    let mut scene = four();
    assert_eq!(handed_to(&scene), None);
    let unwell = |scene: &mut Scene, on: &str| {
        scene.evidence.hosts.get_mut(&host(on)).unwrap().unwell = Some("its event loop was late".to_owned());
    };
    unwell(&mut scene, "a");
    assert_eq!(handed_to(&scene).as_deref(), Some("b"));
    unwell(&mut scene, "b");
    assert_eq!(handed_to(&scene).as_deref(), Some("c"), "R29: not to one that doubts itself too");
    scene.evidence.voters.remove(&host("c"));
    assert_eq!(handed_to(&scene).as_deref(), Some("d"), "nor to one without a vote");
    scene.evidence.handed_over = Some(Moment(scene.now));
    scene.later(59_999);
    assert_eq!(handed_to(&scene), None, "R29: at most once a minute");
    scene.later(1);
    scene.synced("d", scene.now - 2_000);
    assert_eq!(handed_to(&scene), None, "nor to one that is not heard");
    scene.later(0);
    assert_eq!(handed_to(&scene).as_deref(), Some("d"));
}

#[test]
fn a_coordinator_that_is_about_to_go_hands_the_lead_to_one_that_stays() {
    let mut scene = four();
    set_mode(&mut scene, "a", Mode::Leaving { reboot: true });
    set_mode(&mut scene, "b", Mode::Leaving { reboot: true });
    set_mode(&mut scene, "c", Mode::Maintenance);
    assert_eq!(handed_to(&scene).as_deref(), Some("d"));
}
