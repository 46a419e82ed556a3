//! Starts that fail, and what they count for.

use super::*;
use crate::{
    change::Refused,
    feature_level::FeatureLevel,
    fixture::{done, failed},
    state::Phase,
    sync::Authority,
    time::Span,
};

/// A guest whose starts all fail; the scene is brought to the next start each time.
fn failing(start_tries: u32, relocations: Option<u32>) -> Scene {
    let mut scene = Scene::new(&["a", "b", "c"], &["web"]);
    redeclare(&mut scene, |policies| {
        policies.policies.values_mut().for_each(|policy| policy.cool_down = Span::secs(600));
        let needs = &mut policies.guests.get_mut(&name("web")).unwrap().needs;
        (needs.start_tries, needs.relocations) = (start_tries, relocations);
    });
    scene
}

/// Tries until nothing is tried any more, at most so often; where.
fn tries(scene: &mut Scene, most: usize) -> Vec<String> {
    let mut tried = Vec::new();
    while tried.len() < most {
        scene.later(61_000);
        scene.settle();
        let on = home(scene, "web");
        if on == "nowhere" {
            break;
        }
        scene.stage.end(&on, failed());
        scene.stage.end(&on, done());
        tried.push(on);
    }
    tried
}

#[test]
fn a_guest_that_has_had_its_relocations_waits_for_a_person() {
    for (start_tries, relocations, expected) in [
        (1, Some(0), vec!["a"]),
        (3, Some(0), vec!["a", "a", "a"]),
        (2, Some(1), vec!["a", "a", "b", "b"]),
        (1, Some(4), vec!["a", "b", "c", "a", "b"]),
    ] {
        let mut scene = failing(start_tries, relocations);
        assert_eq!(tries(&mut scene, 20), expected, "{start_tries} {relocations:?}");
        assert_eq!(scene.stage.state.guests[&name("web")].word(), "failed");
        assert!(doing(&scene, "web").starts_with("failed, needs a person"), "{}", doing(&scene, "web"));
        let waits = scene.decide().report.guests[&name("web")].waits.clone();
        assert!(waits.is_some_and(|(what, left)| what.starts_with("a person") && left == crate::decide::FOREVER));
        let incident = scene.stage.state.open_incident("guest/web").unwrap();
        assert_eq!(incident.severity, crate::model::Severity::Critical);
        assert!(incident.human.is_some());
        let place = Change::Place { guest: name("web"), host: host("c"), why: String::new() };
        assert!(matches!(scene.stage.refused(place), Refused::Guest { .. }), "a proposal of before");
    }
}

#[test]
fn without_a_bound_every_host_is_tried_again_and_again() {
    let mut scene = failing(1, None);
    assert_eq!(tries(&mut scene, 7), ["a", "b", "c", "a", "b", "c", "a"]);
}

#[test]
fn a_guest_that_starts_nowhere_is_not_tried_again_while_deciding_is_suspended() {
    let mut scene = failing(1, None);
    assert_eq!(tries(&mut scene, 2), ["a", "b"]);
    suspend(&mut scene, true);
    assert_eq!(tries(&mut scene, 7), ["c"], "it is brought back if any host can");
    suspend(&mut scene, false);
    assert_eq!(tries(&mut scene, 1), ["a"]);
}

#[test]
fn a_person_who_has_looked_has_the_guest_tried_anew() {
    let by = || "ann".to_owned();
    for change in [
        Change::WantedSet { guest: name("web"), wanted: Wanted::Running, by: by() },
        Change::LookedAfter { guest: name("web"), by: by() },
    ] {
        let mut scene = failing(1, Some(1));
        tries(&mut scene, 20);
        assert!(matches!(scene.stage.refused(Change::LadderReset { guest: name("web") }), Refused::Already { .. }));
        scene.stage.must(change.clone());
        assert!(matches!(scene.stage.refused(change), Refused::Already { .. }));
        assert_eq!(tries(&mut scene, 20), ["a", "b"]);
    }
}

#[test]
fn whoever_moves_a_guest_that_has_been_given_up_is_told_what_comes_first() {
    let mut scene = failing(1, Some(0));
    tries(&mut scene, 20);
    let before = scene.stage.state.clone();
    scene.stage.must(ask_move("web", "b"));
    assert_eq!(scene.stage.state.guests[&name("web")].word(), "failed", "an earlier version takes it in for nothing");
    scene.stage.state = before;
    scene.stage.must(Change::LevelRaised { to: FeatureLevel::HIGHEST });
    let said = scene.stage.refused(ask_move("web", "b")).to_string();
    assert!(said.ends_with(": `holdfast guest cleanup web` comes first"), "{said}");
    scene.stage.must(Change::LookedAfter { guest: name("web"), by: "ann".to_owned() });
    scene.stage.must(ask_move("web", "b"));
}

#[test]
fn a_failed_start_counts_within_the_cool_down_only() {
    let mut scene = failing(2, Some(0));
    tries(&mut scene, 1);
    // No host takes it for longer than the cool-down.
    for on in ["a", "b", "c"] {
        set_mode(&mut scene, on, Mode::Draining);
    }
    scene.later(599_000);
    scene.settle();
    assert!(!scene.stage.state.guests[&name("web")].start_failures.is_empty());
    scene.later(3_000);
    scene.settle();
    assert!(scene.stage.state.guests[&name("web")].start_failures.is_empty());
}

#[test]
fn a_try_of_the_ladder_counts_until_the_guest_has_been_well_for_its_cool_down() {
    let mut scene = crate::decide::tests::four();
    let restart = scene.stage.climb("web", 0);
    scene.stage.must(restart);
    scene.stage.end("d", done());
    scene.stage.must(Change::Verified { guest: name("web"), unasked: Vec::new() });
    scene.later(19_000);
    scene.seen("web", SightState::Passing);
    assert_eq!(scene.settle(), Vec::<String>::new());
    scene.later(1_000);
    scene.seen("web", SightState::Passing);
    assert_eq!(scene.settle(), ["LadderReset"]);
}

#[test]
fn the_call_that_a_guest_starts_nowhere_stands_until_it_runs() {
    let mut scene = failing(1, None);
    tries(&mut scene, 3);
    assert!(scene.stage.state.open_incident("guest/web").unwrap().human.is_some());
}

#[test]
fn a_rung_that_would_start_a_guest_where_a_rule_forbids_it_is_passed_over() {
    for (forbidden, rung) in [(None, 0), (Some("b"), 0), (Some("d"), 1)] {
        let mut scene = crate::decide::tests::four();
        redeclare(&mut scene, |policies| {
            let wait = Span::secs(60);
            for policy in policies.policies.values_mut() {
                policy.ladder = vec![
                    crate::model::Rung::ResetGuest { tries: 2, wait },
                    crate::model::Rung::Failover { tries: 2, wait },
                ];
            }
        });
        if let Some(on) = forbidden {
            rule(&mut scene, hosts_rule("web", &[(on, Score::Never)], false));
        }
        scene.later(20_000);
        scene.report("web", "d", crate::observe::GuestCondition::Panicked);
        let climbs = scene.decide().commands;
        let taken = climbs.iter().find_map(|change| match change {
            Change::Climb { rung, .. } => Some(*rung),
            _ => None,
        });
        assert_eq!(taken, Some(rung), "{forbidden:?} is forbidden");
    }
}

/// The checker refuses a plan as a whole, with what all other guests and hosts need: it has to think the same of such a ladder.
#[test]
fn a_ladder_that_is_made_shorter_while_it_is_climbed_is_climbed_from_its_beginning_and_holds_up_no_plan() {
    let reset = crate::model::Rung::ResetGuest { tries: 1, wait: Span::secs(8) };
    let page = crate::model::Rung::Page { severity: crate::model::Severity::Critical };
    for (ladder, expected) in [(vec![reset, page.clone()], "starting"), (vec![page], "running")] {
        let mut scene = crate::decide::tests::four();
        let page = scene.stage.climb("web", 3);
        scene.stage.must(page);
        redeclare(&mut scene, |policies| {
            policies.policies.values_mut().for_each(|policy| policy.ladder.clone_from(&ladder));
        });
        scene.later(20_000);
        scene.seen("web", SightState::Failing);
        assert_eq!(scene.settle(), ["Climb"], "{ladder:?}");
        let web = &scene.stage.state.guests[&name("web")];
        assert_eq!((web.word(), web.ladder.position.as_ref().unwrap().rung), (expected, 0), "{ladder:?}");
    }
}

/// `page` was taken, and then all of `web` answered again.
fn paged_and_well_again() -> Scene {
    let mut scene = crate::decide::tests::four();
    let page = scene.stage.climb("web", 3);
    scene.stage.must(page);
    assert!(scene.stage.state.open_incident("guest/web").unwrap().human.is_some());
    scene.later(1_000);
    scene.seen("web", SightState::Passing);
    assert_eq!(scene.settle(), ["Verified"]);
    assert!(scene.stage.state.open_incident("guest/web").is_none());
    scene
}

/// `d` is drained, and no other host takes anything.
fn drain_without_a_way_out(scene: &mut Scene) {
    for on in ["a", "b", "c"] {
        set_mode(scene, on, Mode::Maintenance);
    }
    set_mode(scene, "d", Mode::Draining);
}

#[test]
fn that_a_guest_cannot_leave_its_host_is_over_when_it_may_stay_although_nobody_can_heal_it() {
    let mut scene = crate::decide::tests::four();
    let page = scene.stage.climb("web", 3);
    scene.stage.must(page);
    drain_without_a_way_out(&mut scene);
    scene.later(60_000);
    scene.seen("web", SightState::Failing);
    scene.settle();
    assert!(scene.stage.state.open_incident("leave/web").is_some(), "no other host takes it");
    set_mode(&mut scene, "d", Mode::Active);
    scene.settle();
    assert!(scene.stage.state.open_incident("leave/web").is_none());
    assert!(scene.stage.state.open_incident("guest/web").is_some(), "it does not answer yet");
}

#[test]
fn that_a_guest_cannot_leave_its_host_is_over_when_it_may_stay_although_it_has_not_come_up() {
    let mut scene = crate::decide::tests::started();
    drain_without_a_way_out(&mut scene);
    for ms in [5_900, 4_200] {
        scene.later(ms);
        scene.sight("web", "a", SightState::Passing);
        scene.sight("web", "b", SightState::Failing);
        scene.settle();
    }
    assert!(scene.stage.state.open_incident("leave/web").is_some(), "no other host takes it");
    set_mode(&mut scene, "d", Mode::Active);
    scene.settle();
    assert!(scene.stage.state.open_incident("leave/web").is_none());
    assert!(scene.stage.state.open_incident("degraded/web").is_some(), "it does not answer everybody yet");
}

#[test]
fn that_a_guest_cannot_leave_its_host_is_over_when_it_may_stay_and_would_merely_like_to_go() {
    let mut scene = crate::decide::tests::four();
    redeclare(&mut scene, |policies| {
        policies.policies.values_mut().for_each(|policy| policy.on_degraded = crate::model::OnDegraded::Migrate);
    });
    drain_without_a_way_out(&mut scene);
    scene.later(20_000);
    scene.seen("web", SightState::Passing);
    scene.settle();
    assert!(scene.stage.state.open_incident("leave/web").is_some(), "no other host takes it");
    set_mode(&mut scene, "d", Mode::Active);
    scene.evidence.hosts.get_mut(&host("d")).unwrap().unwell = Some("its disk is slow".to_owned());
    scene.settle();
    assert!(
        scene.stage.state.open_incident("leave/web").is_none(),
        "it goes when another host takes it, and nobody waits for that"
    );
}

#[test]
fn people_are_called_anew_when_a_guest_fails_again_whose_ladder_is_at_its_end() {
    let mut scene = paged_and_well_again();
    scene.later(5_000);
    scene.seen("web", SightState::Failing);
    assert_eq!(scene.settle(), ["IncidentOpened"]);
    let told = scene.stage.state.open_incident("guest/web").unwrap();
    assert_eq!(told.severity, crate::model::Severity::Critical, "as its `page` says");
    assert!(told.human.is_some() && told.summary.contains("every rung"), "{told:?}");
    scene.later(5_000);
    scene.seen("web", SightState::Failing);
    assert_eq!(scene.settle(), Vec::<String>::new(), "once");
    scene.later(5_000);
    scene.seen("web", SightState::Unknown);
    assert_eq!(scene.settle(), Vec::<String>::new(), "nobody knows that it is well");
    scene.later(5_000);
    scene.seen("web", SightState::Passing);
    assert!(scene.settle().contains(&"IncidentResolved".to_owned()));
    assert!(scene.stage.state.open_incident("guest/web").is_none());
}

#[test]
fn a_guest_that_comes_and_goes_at_the_end_of_its_ladder_has_people_called_once_and_not_each_time() {
    let mut scene = paged_and_well_again();
    redeclare(&mut scene, |policies| {
        policies.policies.values_mut().for_each(|policy| policy.cool_down = Span::secs(300));
    });
    let turns = |scene: &mut Scene, ms: u64, state: SightState| {
        scene.later(ms);
        scene.seen("web", state);
        scene.settle()
    };
    assert_eq!(turns(&mut scene, 5_000, SightState::Failing), ["IncidentOpened"]);
    for _ in 0..5 {
        assert_eq!(turns(&mut scene, 6_000, SightState::Passing), Vec::<String>::new());
        assert_eq!(turns(&mut scene, 4_000, SightState::Failing), Vec::<String>::new());
    }
    assert_eq!(turns(&mut scene, 6_000, SightState::Passing), Vec::<String>::new());
    assert_eq!(turns(&mut scene, 59_000, SightState::Passing), Vec::<String>::new());
    assert_eq!(turns(&mut scene, 1_000, SightState::Passing), ["IncidentResolved"]);
}

/// What a host has sent before an election may reach the new coordinator first, after all that was sent later: whatever carried it
/// stood still, or had to send it again.
#[test]
fn an_inventory_of_before_the_guest_ran_does_not_make_it_ill_however_late_it_arrives() {
    let mut scene = crate::decide::tests::four();
    scene.later(20_000);
    scene.seen("web", SightState::Passing);
    let Phase::Running { since, .. } = scene.stage.phase("web") else { panic!("it runs") };
    let since = *since;
    for (index, is_ill) in [(since - 1, false), (since, true)] {
        let known = scene.evidence.hosts.get_mut(&host("d")).unwrap();
        known.reports.remove(&name("web"));
        known.seen = Authority { generation: scene.stage.state.generation, term: 1, index };
        let words = scene.words();
        assert_eq!(words.contains(&"Climb".to_owned()), is_ill, "the host has learned of {index}: {words:?}");
    }
}
