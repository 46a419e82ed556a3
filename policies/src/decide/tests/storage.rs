//! Guests that QEMU has stopped because their storage failed, reboots by the guest's agent, and stops in order.

use super::*;
use crate::{model::Rung, order::StopHow, time::Span};

fn stopped_by_storage(scene: &mut Scene) {
    scene.report("web", "d", GuestCondition::IoError { detail: "write on disk0: gone".to_owned() });
}

#[test]
fn a_guest_whose_storage_failed_is_let_run_again_twice_then_a_human_is_called_and_nothing_is_killed() {
    let mut scene = four();
    let mut taken = Vec::new();
    for _ in 0..4 {
        stopped_by_storage(&mut scene);
        scene.seen("web", SightState::Failing);
        if scene.words() == ["Climb"] {
            scene.settle();
            taken.extend(scene.stage.orders("d"));
            if !scene.stage.orders("d").is_empty() {
                scene.stage.end("d", failed());
            }
        }
        scene.later(10_500);
    }
    assert!(taken.len() == 2 && taken.iter().all(|order| order.starts_with("resume web")), "{taken:?}");
    assert!(matches!(scene.stage.phase("web"), Phase::Running { .. }));
    let incident = scene.stage.state.open_incident("guest/web").unwrap();
    let human = incident.human.clone().unwrap();
    assert!(human.contains("Mend the storage, then run `holdfast guest cleanup web`"), "{human}");
    scene.stage.must(Change::LookedAfter { guest: name("web"), by: "ann".to_owned() });
    stopped_by_storage(&mut scene);
    assert_eq!(scene.settle(), ["Climb"]);
    assert!(scene.stage.orders("d")[0].starts_with("resume web"), "what the human was told to do lets it run again");
}

#[test]
fn nothing_is_restarted_before_a_guest_that_was_let_run_again_has_had_its_time_to_answer() {
    let mut scene = four();
    stopped_by_storage(&mut scene);
    scene.seen("web", SightState::Failing);
    assert_eq!(scene.settle(), ["Climb"]);
    scene.stage.end("d", done());
    // It runs, and what was seen of its services is from when it stood still.
    scene.later(1_000);
    scene.seen("web", SightState::Failing);
    assert_eq!(scene.words(), Vec::<String>::new());
    let judged = scene.decide().report.guests[&name("web")].clone();
    assert!(judged.doing.contains("waiting for the newest try to help"), "{}", judged.doing);
    let (what, left) = judged.waits.unwrap();
    assert!(what.contains("let run again") && left > 0 && left < 10_000, "{what} {left}");
    scene.later(9_500);
    scene.seen("web", SightState::Failing);
    assert_eq!(scene.settle(), ["Climb"], "they still do not answer");
    assert_eq!(scene.stage.orders("d"), ["run `restart` in web"]);
}

#[test]
fn a_guest_that_goes_from_one_ladder_to_the_other_and_back_calls_a_human_when_both_could_have_come_to_their_end() {
    let mut scene = four();
    scene.later(1_000);
    let mut taken = 0;
    for round in 0..20 {
        if round % 2 == 0 {
            stopped_by_storage(&mut scene);
        }
        scene.seen("web", SightState::Failing);
        let climbs = scene.settle().iter().filter(|word| *word == "Climb").count();
        taken += climbs;
        if climbs == 0 {
            break;
        }
        scene.stage.end("d", done());
        scene.later(10_500);
    }
    // A restart, a reset, two failovers and a call; two times it is let run again, and a call.
    assert_eq!(taken, 8);
    let told = scene.stage.state.open_incident("guest/web").unwrap();
    assert!(told.human.is_some() && told.severity == crate::model::Severity::Critical, "{told:?}");
    assert_eq!(scene.settle(), Vec::<String>::new(), "once");
    scene.stage.must(Change::LookedAfter { guest: name("web"), by: "ann".to_owned() });
    assert_eq!(scene.settle(), ["Climb"], "a person has looked");
}

/// What the host of web says in a sync, while its service goes on failing.
fn says(scene: &mut Scene, condition: GuestCondition) {
    let epoch = scene.stage.state.guests[&name("web")].tenures()[0].epoch;
    let (report, now) = (GuestReport::new(name("web"), epoch, condition), Moment(scene.now));
    scene.evidence.hosts.get_mut(&host("d")).unwrap().report(BTreeMap::from([(name("web"), report)]), now);
    scene.seen("web", SightState::Failing);
}

#[test]
fn a_guest_that_was_paused_by_hand_is_judged_by_what_is_seen_of_it_since_it_runs_again() {
    for stood_still in [
        GuestCondition::Paused { reason: "by hand".to_owned() },
        GuestCondition::IoError { detail: "and a person let it run again".to_owned() },
    ] {
        let mut scene = four();
        says(&mut scene, stood_still);
        scene.now += 500;
        says(&mut scene, GuestCondition::Running);
        assert_eq!(scene.words(), Vec::<String>::new());
        let judged = scene.decide().report.guests[&name("web")].clone();
        assert!(judged.doing.contains("stood still"), "{}", judged.doing);
        assert!(judged.waits.is_some_and(|(what, left)| what.ends_with("since it was let run again") && left > 0));
        // Three answers, half a second from one to the next, the last one as late as may be; and two syncs.
        scene.later(2_400);
        scene.seen("web", SightState::Failing);
        assert_eq!(scene.words(), Vec::<String>::new());
        scene.later(200);
        scene.seen("web", SightState::Failing);
        assert_eq!(scene.words(), ["Climb"], "it has failed anew");
    }
}

#[test]
fn storage_has_a_ladder_of_its_own_and_does_not_spend_the_other_ones_tries() {
    let mut scene = four();
    let mut policies = scene.stage.state.policies.clone();
    for policy in policies.policies.values_mut() {
        policy.on_storage_error = vec![Rung::Failover { tries: 1, wait: Span::secs(9) }];
    }
    scene.stage.declare(policies);
    stopped_by_storage(&mut scene);
    assert_eq!(scene.settle(), ["Climb"]);
    assert!(matches!(scene.stage.phase("web"), Phase::Releasing { .. }));
    assert_eq!(scene.stage.orders("d").len(), 1);
    assert!(scene.stage.orders("d")[0].starts_with("release web"), "an ill guest's plug is pulled");
    let position = scene.stage.state.guests[&name("web")].ladder.position.clone().unwrap();
    assert_eq!((position.ladder, position.rung), (crate::ladder::LadderKind::Storage, 0));
    scene.stage.end("d", done());
    scene.later(100);
    scene.settle();
    let Phase::Starting { tenure, .. } = scene.stage.phase("web").clone() else { panic!() };
    scene.stage.end(tenure.host.as_str(), done());
    scene.later(60_000);
    scene.seen("web", SightState::Failing);
    let commands = scene.decide().commands;
    assert!(
        matches!(&commands[..], [Change::Climb { rung: 0, .. }]),
        "the first rung of the other ladder: {commands:?}"
    );
}

/// The guest of [`four`], with a ladder that begins with a reboot.
fn rebooted() -> Scene {
    let mut scene = four();
    let mut policies = scene.stage.state.policies.clone();
    for policy in policies.policies.values_mut() {
        policy.ladder.insert(0, Rung::RebootGuest { tries: 1, wait: Span::secs(20) });
    }
    scene.stage.declare(policies);
    scene.later(60_000);
    scene.seen("web", SightState::Failing);
    assert_eq!(scene.settle(), ["Climb"]);
    scene
}

#[test]
fn a_reboot_is_an_order_with_its_rungs_wait_as_deadline_and_is_not_done_twice() {
    let scene = rebooted();
    let order = scene.stage.order("d");
    assert_eq!(order.kind.to_string(), "reboot web within 20s");
    assert_eq!(order.deadline, Span::secs(20));
    assert!(order.kind.needs_lease() && !order.kind.is_idempotent());
    assert_eq!(scene.decide().report.guests[&name("web")].doing, "rebooting");
}

#[test]
fn after_a_reboot_the_ladder_waits_and_then_goes_on_and_after_a_failed_one_it_goes_on_at_once() {
    let mut scene = rebooted();
    scene.stage.end("d", done());
    scene.later(15_000);
    scene.seen("web", SightState::Failing);
    assert_eq!(scene.words(), Vec::<String>::new());
    scene.later(6_000);
    scene.seen("web", SightState::Failing);
    assert_eq!(scene.settle(), ["Climb"]);
    assert_eq!(scene.stage.orders("d"), ["run `restart` in web"]);
    let mut scene = rebooted();
    scene.stage.end("d", failed());
    scene.later(100);
    scene.seen("web", SightState::Failing);
    assert_eq!(scene.settle(), ["Climb"]);
}

#[test]
fn a_guest_that_is_gone_is_not_asked_to_reboot() {
    let mut scene = four();
    let mut policies = scene.stage.state.policies.clone();
    for policy in policies.policies.values_mut() {
        policy.ladder = vec![Rung::RebootGuest { tries: 1, wait: Span::secs(20) }, policy.ladder[1].clone()];
    }
    scene.stage.declare(policies);
    scene.report("web", "d", GuestCondition::Panicked);
    assert!(matches!(scene.decide().commands[..], [Change::Climb { rung: 1, .. }]));
}

fn how(scene: &Scene) -> StopHow {
    match &scene.stage.order("d").kind {
        crate::order::OrderKind::Release { how, .. } => *how,
        other => panic!("{other}"),
    }
}

#[test]
fn what_is_well_stops_in_order_and_what_is_ill_or_in_a_hurry_has_its_plug_pulled() {
    let mut scene = four();
    scene.stage.must(Change::Stop { guest: name("web"), why: "ann wants it".to_owned() });
    assert_eq!(how(&scene), StopHow::ShutDown { within: Span::secs(30) });
    assert_eq!(scene.stage.order("d").deadline, Span::secs(50));
    scene.stage.end("d", failed());
    scene.stage.must(Change::ReleaseAgain { guest: name("web") });
    assert_eq!(how(&scene), StopHow::PullPlug, "one that could not be stopped is not asked again");

    let mut scene = four();
    let asked = Change::MoveAsked { guest: name("web"), to: host("c"), cold: true, by: "ann".to_owned() };
    scene.stage.must(asked);
    assert_eq!(how(&scene), StopHow::ShutDown { within: Span::secs(30) });

    let mut scene = four();
    let climb = scene.stage.climb("web", 2);
    scene.stage.must(climb);
    assert_eq!(how(&scene), StopHow::PullPlug, "a failover is in a hurry");

    let mut scene = four();
    let mut policies = scene.stage.state.policies.clone();
    policies.guests.values_mut().for_each(|guest| guest.needs.stop_timeout = Span::ms(0));
    scene.stage.declare(policies);
    scene.stage.must(Change::Stop { guest: name("web"), why: "ann wants it".to_owned() });
    assert_eq!(how(&scene), StopHow::PullPlug, "its operator wants it so");
}

#[test]
fn an_order_of_an_older_version_pulls_the_plug() {
    let kind = serde_json::json!({ "release": { "guest": "web", "epoch": crate::names::Epoch::default() } });
    let kind: crate::order::OrderKind = serde_json::from_value(kind).unwrap();
    assert!(matches!(kind, crate::order::OrderKind::Release { how: StopHow::PullPlug, .. }));
}
