//! Services that answer, and not as they should: slowly, or only now and then; and services that another one holds up.

use super::*;
use crate::{
    model::{OnDegraded, Policy, Vantages},
    time::Span,
    tuning::{Flaps, Slow},
};

fn service(text: &str) -> ServiceName {
    ServiceName::new(text).unwrap()
}

/// Four hosts and a guest on `d`, under a policy as the test wants it.
fn under(change: impl Fn(&mut Policy)) -> Scene {
    let mut scene = four();
    let mut policies = scene.stage.state.policies.clone();
    policies.policies.values_mut().for_each(|policy| {
        for service in policy.services.values_mut() {
            service.tuning.slow = Some(Slow { above: Span::ms(300), share: 50, over: Span::secs(30) });
            service.tuning.flaps = Some(Flaps { more_than: 4, over: Span::secs(120) });
        }
        change(policy);
    });
    scene.stage.declare(policies);
    scene.later(60_000);
    scene
}

fn judged(scene: &Scene) -> ServiceJudgement {
    scene.decide().report.guests[&name("web")].services[&service("http")].clone()
}

fn open_summaries(scene: &Scene) -> Vec<String> {
    scene.stage.state.incidents.values().filter(|one| one.is_open()).map(|one| one.summary.clone()).collect()
}

#[test]
fn a_slow_service_is_degraded_and_told_with_who_sees_it_and_nothing_is_restarted() {
    let mut scene = under(|_| {});
    scene.seen("web", SightState::Slow);
    assert_eq!((judged(&scene).verdict, judged(&scene).degraded), (ServiceVerdict::Degraded, Some(Degradation::Slow)));
    assert_eq!(judged(&scene).word(), "degraded (slow)");
    assert_eq!(scene.settle(), ["IncidentOpened"]);
    assert_eq!(open_summaries(&scene), ["http of web is slow, as seen by host:a, host:b"]);
    scene.seen("web", SightState::Passing);
    assert_eq!(scene.settle(), ["IncidentResolved"]);
}

#[test]
fn one_slow_vantage_of_two_is_a_disagreement_that_names_it() {
    for on_degraded in [OnDegraded::Alert, OnDegraded::Migrate, OnDegraded::Ladder] {
        let mut scene = under(|policy| policy.on_degraded = on_degraded);
        scene.later(600_000);
        scene.sight("web", "a", SightState::Passing);
        scene.sight("web", "b", SightState::Slow);
        assert_eq!(scene.settle(), ["IncidentOpened"], "{on_degraded:?}");
        assert_eq!(open_summaries(&scene), ["http of web is slow for host:b, and answers the others well"]);
    }
}

/// As where it has come up while a question waited for an answer, which fails a moment later.
#[test]
fn a_vantage_that_has_not_seen_yet_that_a_service_has_come_up_disagrees_with_nobody() {
    let mut scene = under(|_| {});
    scene.seen("web", SightState::Unknown);
    scene.settle();
    scene.later(1_000);
    scene.sight("web", "a", SightState::Passing);
    scene.sight("web", "b", SightState::Failing);
    assert!(scene.settle().is_empty(), "{:?}", open_summaries(&scene));
    for _ in 0..10 {
        scene.later(1_000);
        scene.sight("web", "a", SightState::Passing);
        scene.sight("web", "b", SightState::Failing);
    }
    assert_eq!(scene.settle(), ["IncidentOpened"]);
    assert_eq!(open_summaries(&scene), ["http of web does not answer host:b, and answers the others"]);
}

/// One vantage gets answers, and the other one does not.
fn goes_on(scene: &mut Scene, ms: u64) -> Vec<String> {
    scene.later(ms);
    scene.sight("web", "a", SightState::Passing);
    scene.sight("web", "b", SightState::Failing);
    scene.settle()
}

#[test]
fn a_guest_that_answers_some_and_will_not_answer_all_does_not_hold_up_a_drain() {
    let mut scene = started();
    restraint::set_mode(&mut scene, "d", Mode::Draining);
    assert_eq!(goes_on(&mut scene, 5_900), Vec::<String>::new());
    assert_eq!(goes_on(&mut scene, 4_200), ["IncidentOpened", "Migrate"]);
}

#[test]
fn what_nobody_can_ask_beside_what_will_not_answer_all_does_not_hold_up_a_drain_either() {
    let mut scene = started();
    let mut policies = scene.stage.state.policies.clone();
    policies.policies.values_mut().for_each(|policy| {
        let mail = policy.services[&service("http")].clone();
        policy.services.insert(service("mail"), mail);
    });
    scene.stage.declare(policies);
    restraint::set_mode(&mut scene, "d", Mode::Draining);
    let moved = (0..12).any(|_| {
        scene.later(5_000);
        scene.sight("web", "a", SightState::Passing);
        scene.sight("web", "b", SightState::Failing);
        let services = scene.evidence.services.get_mut(&name("web")).unwrap();
        let mut mail = services[&service("http")].clone();
        mail.values_mut().for_each(|sight| (sight.state, sight.passed) = (SightState::Unknown, None));
        services.insert(service("mail"), mail);
        scene.settle().contains(&"Migrate".to_owned())
    });
    assert!(moved, "{}", scene.decide().report.guests[&name("web")].doing);
}

/// It has not come up, so that whoever starts after it waits for it.
#[test]
fn vantages_that_disagree_of_a_guest_that_was_started_are_told_of_when_its_time_to_boot_has_passed() {
    let mut scene = started();
    assert_eq!(goes_on(&mut scene, 1_000), Vec::<String>::new());
    assert_eq!(goes_on(&mut scene, 4_900), Vec::<String>::new(), "it has six seconds");
    assert_eq!(goes_on(&mut scene, 200), ["IncidentOpened"]);
    assert_eq!(open_summaries(&scene), ["http of web does not answer host:b, and answers the others"]);
    assert_eq!(goes_on(&mut scene, 10_000), Vec::<String>::new(), "once");
    scene.later(1_000);
    scene.seen("web", SightState::Passing);
    assert_eq!(scene.settle(), ["Verified", "IncidentResolved"]);
}

#[test]
fn what_a_service_says_of_itself_is_not_taken_for_what_a_vantage_sees() {
    let mut scene = under(|_| {});
    scene.sight("web", "a", SightState::Passing);
    scene.sight("web", "b", SightState::Slow);
    let sights = scene.evidence.services.get_mut(&name("web")).unwrap();
    for sight in sights.values_mut().flat_map(BTreeMap::values_mut) {
        "the replica fails over, and is slow at that".clone_into(&mut sight.detail);
    }
    assert_eq!(scene.settle(), ["IncidentOpened"]);
    assert_eq!(open_summaries(&scene), ["http of web is slow for host:b, and answers the others well"]);
}

/// Makes all that is seen of the guest's services come with a warning, or without.
fn warn(scene: &mut Scene, warns: bool) {
    let services = scene.evidence.services.get_mut(&name("web")).unwrap();
    for sight in services.values_mut().flat_map(BTreeMap::values_mut) {
        sight.warns = warns;
        "the certificate is valid for only 9 more days, wanted 14".clone_into(&mut sight.detail);
    }
}

#[test]
fn a_service_that_answers_with_a_warning_is_well_and_somebody_is_told_and_nothing_is_done_to_it() {
    for on_degraded in [OnDegraded::Alert, OnDegraded::Migrate, OnDegraded::Ladder] {
        let mut scene = under(|policy| policy.on_degraded = on_degraded);
        scene.later(600_000);
        scene.seen("web", SightState::Passing);
        warn(&mut scene, true);
        assert_eq!((judged(&scene).verdict, judged(&scene).warns), (ServiceVerdict::Healthy, true));
        assert_eq!(scene.settle(), ["IncidentOpened"], "{on_degraded:?}");
        assert_eq!(open_summaries(&scene), ["http of web: what is answered comes with a warning"]);
        let incident = scene.stage.state.open_incident("warned/web").unwrap();
        assert!(incident.seen[0].what[0].contains("passes with a warning"), "{:?}", incident.seen);
        warn(&mut scene, false);
        assert_eq!(scene.settle(), ["IncidentResolved"], "{on_degraded:?}");
    }
}

#[test]
fn slowness_is_never_counted_as_failure() {
    let mut scene = under(|_| {});
    scene.sight("web", "a", SightState::Slow);
    scene.later(10_000);
    scene.sight("web", "a", SightState::Slow);
    scene.sight("web", "b", SightState::Failing);
    assert_eq!(judged(&scene).degraded, Some(Degradation::Disagreement));
    assert_eq!(scene.settle(), ["IncidentOpened"]);
    assert_eq!(open_summaries(&scene), ["http of web does not answer host:b, and answers the others"]);
}

#[test]
fn on_degraded_ladder_climbs_for_slowness_and_gives_a_try_the_whole_window() {
    let mut scene = under(|policy| policy.on_degraded = OnDegraded::Ladder);
    scene.seen("web", SightState::Slow);
    assert_eq!(scene.settle(), ["Climb"]);
    assert_eq!(scene.stage.orders("d"), ["run `restart` in web"]);
    scene.stage.end("d", done());
    // The rung waits 3s; what was slow before it is still in the window of 30s.
    scene.later(5_000);
    scene.seen("web", SightState::Slow);
    assert_eq!(scene.words(), Vec::<String>::new());
    let (what, left) = scene.decide().report.guests[&name("web")].waits.clone().unwrap();
    assert!(what.contains("out of the window") && left > 0 && left <= 25_000, "{what} {left}");
    scene.later(26_000);
    scene.seen("web", SightState::Slow);
    assert_eq!(scene.settle(), ["Climb"]);
    assert!(matches!(scene.stage.phase("web"), Phase::Starting { .. }), "the next rung resets the guest");
}

#[test]
fn a_ladder_that_is_climbed_for_slowness_ends_when_it_is_quick_again() {
    let mut scene = under(|policy| policy.on_degraded = OnDegraded::Ladder);
    scene.seen("web", SightState::Slow);
    scene.settle();
    scene.stage.end("d", done());
    scene.later(1_000);
    scene.seen("web", SightState::Passing);
    assert_eq!(scene.settle(), ["Verified"]);
}

#[test]
fn a_failure_amid_slowness_is_not_kept_waiting_by_the_window() {
    let mut scene = under(|policy| policy.on_degraded = OnDegraded::Ladder);
    scene.seen("web", SightState::Slow);
    scene.settle();
    scene.stage.end("d", done());
    scene.later(4_000);
    scene.seen("web", SightState::Failing);
    assert_eq!(scene.settle(), ["Climb"]);
}

#[test]
fn a_service_that_comes_up_slow_has_come_up_where_slowness_is_only_told() {
    for (on_degraded, expected) in [(OnDegraded::Alert, true), (OnDegraded::Migrate, true), (OnDegraded::Ladder, false)]
    {
        let mut scene = under(|policy| policy.on_degraded = on_degraded);
        let climb = scene.stage.climb("web", 0);
        scene.stage.must(climb);
        scene.stage.end("d", done());
        scene.later(100);
        scene.seen("web", SightState::Slow);
        assert_eq!(scene.words().contains(&"Verified".to_owned()), expected, "{on_degraded:?}");
    }
}

#[test]
fn on_degraded_migrate_moves_a_slow_guest_once_in_a_cool_down() {
    let mut scene = under(|policy| policy.on_degraded = OnDegraded::Migrate);
    scene.later(100);
    scene.seen("web", SightState::Slow);
    assert_eq!(scene.settle(), ["IncidentOpened", "Migrate"]);
    let mut scene = under(|policy| {
        policy.on_degraded = OnDegraded::Migrate;
        policy.cool_down = Span::secs(3_600);
    });
    scene.seen("web", SightState::Slow);
    assert_eq!(scene.settle(), ["IncidentOpened"], "it has not run here for the cool-down");
}

/// Makes the guest's service answer in the guest.
fn inside(scene: &mut Scene, state: SightState) {
    scene.sight("web", "x", state);
    let services = scene.evidence.services.get_mut(&name("web")).unwrap();
    let sights = services.get_mut(&service("http")).unwrap();
    let sight = sights.remove(&Vantage::Host(host("x"))).unwrap();
    let sight = sight.following(sights.get(&Vantage::Inside));
    sights.insert(Vantage::Inside, sight);
}

#[test]
fn a_guest_that_its_host_keeps_others_from_moves_if_its_policy_says_so_and_once_in_a_cool_down() {
    let cut_off = |on_degraded, cool_down, sights: &[(&str, SightState)], within| {
        let mut scene = under(|policy| {
            policy.on_degraded = on_degraded;
            policy.cool_down = Span::secs(cool_down);
            policy.services.values_mut().for_each(|service| service.from.agree = 3);
        });
        for _ in 0..2 {
            scene.later(10_000);
            sights.iter().for_each(|(from, state)| scene.sight("web", from, *state));
            inside(&mut scene, within);
        }
        assert_eq!(judged(&scene).degraded, Some(Degradation::Disagreement), "{sights:?}, inside {within:?}");
        scene.settle()
    };
    let (failing, passing, slow) = (SightState::Failing, SightState::Passing, SightState::Slow);
    let all = [("a", failing), ("b", failing)];
    let moved = ["IncidentOpened", "Migrate"];
    let told = ["IncidentOpened"];
    assert_eq!(cut_off(OnDegraded::Migrate, 20, &all, passing), moved);
    assert_eq!(cut_off(OnDegraded::Migrate, 20, &[("a", failing), ("b", failing), ("c", passing)], passing), moved);
    assert_eq!(cut_off(OnDegraded::Migrate, 3_600, &all, passing), told, "it has not run here for the cool-down");
    assert_eq!(cut_off(OnDegraded::Alert, 20, &all, passing), told);
    assert_eq!(cut_off(OnDegraded::Ladder, 20, &all, passing), told);
    assert_eq!(cut_off(OnDegraded::Migrate, 20, &[("a", failing), ("b", passing)], passing), told, "one bad path");
    assert_eq!(cut_off(OnDegraded::Migrate, 20, &all, slow), told, "it is not well inside either");
}

#[test]
fn who_saw_what_is_kept_when_a_degraded_service_is_well_again() {
    let mut scene = under(|_| {});
    scene.sight("web", "a", SightState::Passing);
    scene.sight("web", "b", SightState::Slow);
    scene.settle();
    scene.seen("web", SightState::Passing);
    assert_eq!(scene.settle(), ["IncidentResolved"]);
    let incident = scene.stage.state.incidents.values().find(|one| one.key == "degraded/web").unwrap();
    let kept: Vec<&[String]> = incident.seen.iter().map(|seen| seen.what.as_slice()).collect();
    assert_eq!(kept, [["host:a passes 0s ago ()", "host:b is slow 0s ago ()"]]);
}

#[test]
fn the_beginning_and_the_newest_sights_of_a_long_incident_are_kept() {
    let mut scene = under(|_| {});
    for turn in 0..20 {
        let (one, other) = if turn % 2 == 0 { ("a", "b") } else { ("b", "a") };
        scene.sight("web", one, SightState::Passing);
        scene.sight("web", other, SightState::Slow);
        assert_eq!(scene.settle(), ["IncidentOpened"], "another side is slow");
    }
    let incident = scene.stage.state.incidents.values().find(|one| one.key == "degraded/web").unwrap();
    assert_eq!(incident.seen.len(), crate::incident::SEEN_MAX);
    assert!(incident.seen[0].what[0].contains("host:a passes"), "{:?}", incident.seen);
}

#[test]
fn a_flapping_service_is_one_alert_and_no_restarts() {
    let mut scene = under(|_| {});
    for state in [SightState::Flapping, SightState::Flapping] {
        scene.later(1_000);
        scene.seen("web", state);
        scene.settle();
    }
    assert_eq!(judged(&scene).word(), "degraded (flapping)");
    let told = open_summaries(&scene);
    assert!(told.len() == 1 && told[0].contains("http of web is flapping"), "{told:?}");
    assert!(scene.stage.orders("d").is_empty());
    scene.seen("web", SightState::Failing);
    assert_eq!(scene.words(), ["Climb"], "one that stays down is down");
}

/// `http` needs `net`; both are seen from `a` and `b`.
fn with_need() -> Scene {
    under(|policy| {
        let mut http = policy.services[&service("http")].clone();
        policy.services.insert(service("net"), http.clone());
        http.tuning.needs.insert(service("net"));
        policy.services.insert(service("http"), http);
    })
}

fn sees(scene: &mut Scene, of: &str, state: SightState, passed_ago: Option<u64>) {
    let epoch = scene.stage.state.guests[&name("web")].tenures()[0].epoch;
    let passed = passed_ago.map(|ago| Moment(scene.now - ago));
    for from in ["a", "b"] {
        let at = Moment(scene.now);
        let sight = Sight { epoch, state, at, since: at, passed, warns: false, detail: String::new() };
        let services = scene.evidence.services.entry(name("web")).or_default();
        services.entry(service(of)).or_default().insert(Vantage::Host(host(from)), sight);
    }
}

#[test]
fn while_the_network_fails_what_needs_it_neither_climbs_nor_alerts() {
    let mut scene = with_need();
    sees(&mut scene, "net", SightState::Passing, Some(0));
    sees(&mut scene, "http", SightState::Failing, Some(5_000));
    let decision = scene.decide();
    assert!(matches!(&decision.commands[..], [Change::Climb { why, .. }] if why == "http does not answer"));
    sees(&mut scene, "net", SightState::Failing, Some(5_000));
    let decision = scene.decide();
    assert!(matches!(&decision.commands[..], [Change::Climb { why, .. }] if why == "net does not answer"));
    let judged = &decision.report.guests[&name("web")].services[&service("http")];
    assert_eq!((judged.verdict, judged.word()), (ServiceVerdict::Failed, "waits for net".to_owned()));
}

/// As where a switch between hosts and guests dies: `net` answers inside, and nothing to any host.
#[test]
fn what_fails_wherever_its_need_fails_too_waits_for_that_though_the_need_answers_elsewhere() {
    let mut scene = under(|policy| {
        let mut net = policy.services[&service("http")].clone();
        net.from = Vantages { inside: true, hosts: 2, agree: 3 };
        policy.services.insert(service("net"), net);
        policy.services.values_mut().next().unwrap().tuning.needs.insert(service("net"));
    });
    for of in ["net", "http"] {
        sees(&mut scene, of, SightState::Failing, Some(5_000));
    }
    let (epoch, at) = (scene.stage.state.guests[&name("web")].tenures()[0].epoch, Moment(scene.now));
    let (state, passed) = (SightState::Passing, Some(at));
    let passes = Sight { epoch, state, at, since: at, passed, warns: false, detail: String::new() };
    let pass = |scene: &mut Scene, vantage| {
        let services = scene.evidence.services.entry(name("web")).or_default();
        services.entry(service("net")).or_default().insert(vantage, passes.clone());
    };
    pass(&mut scene, Vantage::Inside);
    let decision = scene.decide();
    let judged = &decision.report.guests[&name("web")].services;
    assert_eq!(judged[&service("net")].word(), "degraded (vantages disagree)");
    assert_eq!(judged[&service("http")].word(), "waits for net");
    assert!(!scene.words().contains(&"Climb".to_owned()), "{:?}", scene.words());
    // Where one host gets an answer of the need and none of the service, it is the service.
    pass(&mut scene, Vantage::Host(host("b")));
    assert!(scene.words().contains(&"Climb".to_owned()), "{:?}", scene.words());
}

#[test]
fn one_that_fails_first_waits_until_what_it_needs_has_been_asked_since() {
    let mut scene = with_need();
    sees(&mut scene, "http", SightState::Failing, Some(2_000));
    sees(&mut scene, "net", SightState::Passing, Some(2_500));
    assert_eq!(scene.words(), Vec::<String>::new(), "nobody has heard net since http last passed");
    sees(&mut scene, "net", SightState::Passing, Some(400));
    assert_eq!(scene.words(), ["Climb"]);
}

#[test]
fn a_need_that_nobody_could_ask_holds_nothing_up() {
    let mut scene = with_need();
    sees(&mut scene, "http", SightState::Failing, Some(2_000));
    sees(&mut scene, "net", SightState::Unknown, None);
    assert_eq!(scene.words(), ["Climb"]);
}

#[test]
fn a_service_has_its_own_grace_after_the_start() {
    for (grace, expected) in [(Some(Span::secs(30)), 0), (None, 1)] {
        let mut scene = under(|policy| {
            policy.services.values_mut().for_each(|service| service.tuning.grace = grace);
        });
        scene.stage.must(Change::Stop { guest: name("web"), why: "anew".to_owned() });
        scene.stage.end("d", done());
        scene.stage.place("web", "d");
        scene.stage.end("d", done());
        scene.all_well();
        scene.later(10_000);
        scene.seen("web", SightState::Failing);
        assert_eq!(scene.words().len(), expected, "{grace:?}: the policy's own grace is 6s");
    }
}
