//! Guests whose file systems are frozen, as for a backup: their services hang, and nothing is done for that.

use std::collections::BTreeSet;

use super::*;
use crate::state::Wanted;

/// What the host of web says of it in a sync, while its service goes on failing.
fn says(scene: &mut Scene, condition: GuestCondition, frozen_ms: Option<u64>) {
    let epoch = scene.stage.state.guests[&name("web")].tenures()[0].epoch;
    let report = GuestReport { frozen_ms, ..GuestReport::new(name("web"), epoch, condition) };
    let now = Moment(scene.now);
    scene.evidence.hosts.get_mut(&host("d")).unwrap().report(BTreeMap::from([(name("web"), report)]), now);
    scene.seen("web", SightState::Failing);
}

fn judged(scene: &Scene) -> GuestJudgement {
    scene.decide().report.guests[&name("web")].clone()
}

#[test]
fn nothing_is_done_for_services_of_a_frozen_guest_and_it_is_said_for_how_long_at_most() {
    let mut scene = four();
    let mut before = 0;
    for frozen_ms in [0, 60_000, 299_000] {
        scene.later(frozen_ms - before);
        before = frozen_ms;
        says(&mut scene, GuestCondition::Running, Some(frozen_ms));
        assert_eq!(scene.words(), Vec::<String>::new(), "after {frozen_ms} ms");
        let judged = judged(&scene);
        assert!(judged.doing.contains("the guest's file systems are frozen"), "{}", judged.doing);
        assert_eq!(judged.waits, Some(("its file systems to be thawed".to_owned(), 300_000 - frozen_ms)));
    }
}

#[test]
fn a_guest_that_stays_frozen_is_helped_after_five_minutes_and_it_is_said_why() {
    let mut scene = four();
    says(&mut scene, GuestCondition::Running, Some(299_000));
    scene.later(5_000);
    says(&mut scene, GuestCondition::Running, Some(304_000));
    let commands = scene.decide().commands;
    let [Change::Climb { why, .. }] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!(why, "http does not answer, and the guest's file systems have been frozen for more than 5m");
}

#[test]
fn a_guest_that_was_thawed_is_judged_by_what_is_seen_of_it_since() {
    let mut scene = four();
    says(&mut scene, GuestCondition::Running, Some(20_000));
    scene.now += 500;
    says(&mut scene, GuestCondition::Running, None);
    assert_eq!(scene.words(), Vec::<String>::new());
    assert!(judged(&scene).doing.contains("stood still"), "{}", judged(&scene).doing);
    // Three answers, half a second from one to the next, the last one as late as may be; and two syncs.
    scene.later(2_400);
    scene.seen("web", SightState::Failing);
    assert_eq!(scene.words(), Vec::<String>::new());
    scene.later(200);
    scene.seen("web", SightState::Failing);
    assert_eq!(scene.words(), ["Climb"], "it has failed anew");
}

#[test]
fn a_frozen_guest_of_which_more_is_known_than_that_it_is_silent_is_helped_as_ever() {
    for condition in [GuestCondition::Panicked, GuestCondition::IoError { detail: "write on disk0".to_owned() }] {
        let mut scene = four();
        says(&mut scene, condition.clone(), Some(1_000));
        assert_eq!(scene.words(), ["Climb"], "{condition:?}");
    }
}

#[test]
fn a_guest_that_was_frozen_when_its_supervisor_fell_silent_costs_its_host_nothing_for_five_minutes() {
    for (frozen_ms, fenced) in [(268_000, false), (269_000, true)] {
        let mut scene = four();
        scene.now += 31_000;
        scene.all_well();
        scene.silent("d", 31_000);
        scene.heard("d", 100);
        says(&mut scene, GuestCondition::Running, Some(frozen_ms));
        let words = scene.words();
        assert_eq!(words.contains(&"FenceOpened".to_owned()), fenced, "{frozen_ms} ms: {words:?}");
    }
}

#[test]
fn the_report_of_a_guest_that_is_not_frozen_is_as_earlier_versions_write_and_read_it() {
    let report = GuestReport::new(name("web"), crate::names::Epoch::default(), GuestCondition::Running);
    let written = serde_json::to_value(&report).unwrap();
    assert!(written.get("frozen_ms").is_none(), "{written}");
    assert_eq!(serde_json::from_value::<GuestReport>(written).unwrap(), report);
}

/// What `a` saw of the service when it last asked: its answer, or none for the first time.
fn asked(scene: &mut Scene, answers: bool) {
    let now = Moment(scene.now);
    let services = scene.evidence.services.get_mut(&name("web")).unwrap();
    let sights = services.get_mut(&ServiceName::new("http").unwrap()).unwrap();
    let sight = sights.get_mut(&Vantage::Host(host("a"))).unwrap();
    sight.at = now;
    if answers {
        sight.passed = Some(now);
    }
}

fn in_doubt(scene: &Scene) -> BTreeMap<HostName, BTreeSet<GuestName>> {
    guests_in_doubt(&scene.stage.state, &scene.evidence, Moment(scene.now))
}

#[test]
fn the_host_of_a_guest_is_to_look_whether_it_is_frozen_from_the_first_question_on_that_gets_no_answer() {
    let web_on_d = BTreeMap::from([(host("d"), BTreeSet::from([name("web")]))]);
    let mut scene = four();
    assert!(in_doubt(&scene).is_empty());
    scene.later(500);
    asked(&mut scene, false);
    assert_eq!((in_doubt(&scene), scene.words()), (web_on_d.clone(), Vec::new()), "before anything is done");
    scene.later(500);
    asked(&mut scene, true);
    assert!(in_doubt(&scene).is_empty());
    scene.seen("web", SightState::Failing);
    assert_eq!(in_doubt(&scene), web_on_d);
    scene.later(600_000);
    assert!(in_doubt(&scene).is_empty(), "nobody has said so lately");
}

#[test]
fn nobody_looks_whether_a_guest_is_frozen_that_is_left_alone_or_of_which_nothing_can_be_said() {
    let mut scene = four();
    scene.seen("web", SightState::Failing);
    scene.stage.must(Change::WantedSet { guest: name("web"), wanted: Wanted::Unmanaged, by: "ann".to_owned() });
    assert!(in_doubt(&scene).is_empty());
    let mut scene = four();
    for from in ["a", "b"] {
        scene.sight("web", from, SightState::Unknown);
    }
    assert!(in_doubt(&scene).is_empty());
}
