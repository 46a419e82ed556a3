//! Guests that are found where they have no right to be, or twice.

use std::collections::BTreeMap;

use super::*;
use crate::{
    change::Refused,
    decide::tests::four,
    feature_level::FeatureLevel,
    fixture::{declaration, done, failed, off},
    names::Epoch,
    observe::{GuestCondition, GuestReport},
    state::Phase,
    time::Moment,
};

/// The host's newest sync says that it has the guest under this epoch.
fn has(scene: &mut Scene, guest: &str, on: &str, epoch: Epoch) {
    let report = GuestReport::new(name(guest), epoch, GuestCondition::Running);
    scene.evidence.hosts.get_mut(&host(on)).unwrap().reports.insert(name(guest), report);
}

/// `new` was just declared, and runs on `b` and `c` already.
fn twice() -> Scene {
    let mut scene = four();
    let hosts: Vec<_> = scene.stage.state.hosts.keys().cloned().collect();
    scene.stage.declare(declaration(&[name("web"), name("new")], &hosts));
    scene.later(1_000);
    for on in ["b", "c"] {
        has(&mut scene, "new", on, Epoch::default());
    }
    scene.seen("web", SightState::Passing);
    scene
}

fn stopped_on(scene: &Scene) -> Vec<String> {
    let hosts = ["a", "b", "c", "d"].into_iter();
    hosts
        .filter(|on| scene.stage.orders(on).iter().any(|order| order.starts_with("release new")))
        .map(str::to_owned)
        .collect()
}

#[test]
fn of_a_guest_that_is_found_twice_one_is_kept_the_other_is_stopped_and_then_the_kept_one_is_adopted() {
    let mut scene = twice();
    assert_eq!(scene.settle(), ["IncidentOpened", "StrayFound"]);
    assert_eq!(stopped_on(&scene), ["c"]);
    assert!(matches!(scene.stage.phase("new"), Phase::Unplaced), "nothing is adopted while both are there");
    let waits = scene.decide().report.guests[&name("new")].waits.clone();
    assert_eq!(waits, Some(("the word that nothing of it is left, by c".to_owned(), 20_000)));
    scene.stage.end("c", done());
    scene.evidence.hosts.get_mut(&host("c")).unwrap().reports.remove(&name("new"));
    assert_eq!(scene.settle(), ["IncidentResolved", "GuestAdopted"]);
    assert_eq!(home(&scene, "new"), "b");
}

#[test]
fn a_guest_that_is_left_alone_and_was_started_by_hand_after_it_lost_its_host_is_not_told_of_as_down() {
    let mut scene = four();
    want(&mut scene, "web", Wanted::Unmanaged);
    let gone = scene.stage.gone("d");
    scene.stage.must(gone);
    later_without(&mut scene, "d", 60_000);
    assert_eq!(scene.settle(), Vec::<String>::new());
    assert!(scene.stage.state.open_incident("guest/web").is_some(), "it is down, and nobody brings it back");
    has(&mut scene, "web", "b", Epoch::default());
    has(&mut scene, "web", "c", Epoch::default());
    assert_eq!(scene.settle(), Vec::<String>::new(), "it runs twice");
    scene.evidence.hosts.get_mut(&host("c")).unwrap().reports.remove(&name("web"));
    assert!(doing(&scene, "web").contains("found on b"), "{}", doing(&scene, "web"));
    assert_eq!(scene.settle(), ["IncidentResolved"]);
    assert!(matches!(scene.stage.phase("web"), Phase::Free { .. }), "it is left there");
}

#[test]
fn the_one_that_rules_allow_is_kept() {
    let mut scene = twice();
    rule(&mut scene, hosts_rule("new", &[("b", Score::Never)], false));
    scene.settle();
    assert_eq!(stopped_on(&scene), ["b"]);
}

#[test]
fn never_are_both_stopped_even_when_two_coordinators_choose_differently() {
    let mut scene = twice();
    scene.settle();
    assert_eq!(stopped_on(&scene), ["c"]);
    let other =
        Change::StrayFound { guest: name("new"), host: host("b"), epoch: Epoch::default(), keep: Some(host("c")) };
    assert!(matches!(scene.stage.refused(other), Refused::Host { .. }));
    let none = Change::StrayFound { guest: name("new"), host: host("b"), epoch: Epoch::default(), keep: None };
    assert!(matches!(scene.stage.refused(none), Refused::Phase { .. }));
    // Its evidence says otherwise, and still the choice that is being carried out stands.
    rule(&mut scene, hosts_rule("new", &[("b", Score::Never)], false));
    assert_eq!(scene.settle(), Vec::<String>::new());
    let epoch = Epoch::default();
    let tenure = crate::state::Tenure { host: host("c"), incarnation: crate::fixture::boot("c.1"), epoch };
    let adopt = Change::GuestAdopted { guest: name("new"), tenure };
    assert!(matches!(scene.stage.refused(adopt), Refused::Host { .. }), "it is being stopped there");
}

#[test]
fn a_stray_that_cannot_be_stopped_is_told_and_asked_again_and_nothing_starts() {
    let mut scene = twice();
    scene.settle();
    scene.stage.end("c", failed());
    assert!(scene.stage.state.open_incident("guest/new").unwrap().human.is_some());
    assert_eq!(scene.settle(), Vec::<String>::new());
    scene.later(10_000);
    for on in ["b", "c"] {
        has(&mut scene, "new", on, Epoch::default());
    }
    scene.seen("web", SightState::Passing);
    assert_eq!(scene.settle(), ["StrayFound"]);
}

#[test]
fn a_guest_that_somebody_else_moves_is_not_touched() {
    let mut scene = twice();
    let report = GuestReport::new(name("new"), Epoch::default(), GuestCondition::Incoming);
    scene.evidence.hosts.get_mut(&host("c")).unwrap().reports.insert(name("new"), report);
    assert_eq!(scene.words(), ["IncidentOpened"]);
}

#[test]
fn a_guest_that_is_left_alone_is_not_stopped_where_it_is_found_twice() {
    let mut scene = twice();
    want(&mut scene, "new", Wanted::Unmanaged);
    assert_eq!(scene.words(), ["IncidentOpened"]);
}

/// `web` is proven to run nowhere, and `b` has it.
fn with_a_stray() -> Scene {
    let mut scene = four();
    let gone = scene.stage.gone("d");
    scene.stage.must(gone);
    later_without(&mut scene, "d", 2_000);
    has(&mut scene, "web", "b", Epoch::default());
    scene
}

/// The same, and `b` is ordered to stop it.
fn with_a_stray_that_is_to_stop() -> Scene {
    let mut scene = with_a_stray();
    assert_eq!(scene.settle(), ["IncidentOpened", "StrayFound"]);
    scene
}

/// Settles, and says whether `web` starts.
fn starts(scene: &mut Scene) -> bool {
    scene.settle().contains(&"Place".to_owned())
}

/// `b`, where nothing runs but what it may have of `web`, is fenced for that, and `web` starts once it is off and no sooner: only
/// proof that it is off ends the wait (L1).
fn b_is_fenced_for_it(mut scene: Scene) {
    let words = scene.settle();
    assert!(words.contains(&"FenceAttempted".to_owned()) && !words.contains(&"Place".to_owned()), "{words:?}");
    let attempt = scene.stage.state.fence_under_way(&host("b")).unwrap();
    scene.stage.must(Change::OrderEnded { order: attempt, outcome: done() });
    scene.power("b", off("b", Moment(scene.now)));
    let words = scene.settle();
    assert!(words.contains(&"HostGone".to_owned()) && words.contains(&"Place".to_owned()), "{words:?}");
}

#[test]
fn nothing_starts_while_a_host_has_a_guest_that_is_proven_to_run_nowhere() {
    let mut scene = with_a_stray_that_is_to_stop();
    scene.stage.end("b", done());
    assert_eq!(scene.settle(), Vec::<String>::new(), "it is still reported, and was just asked");
    later_without(&mut scene, "d", 1_000);
    assert_eq!(scene.settle(), ["IncidentResolved", "Place"]);
}

/// `web` ran on `d`, which is proven gone; `b` was to stop what it had of it beside that, and has fallen silent before it said
/// that it has.
fn left_on_a_silent_host() -> Scene {
    let mut scene = four();
    scene.later(2_000);
    scene.seen("web", SightState::Passing);
    let newest = Epoch { generation: 9, index: 9 };
    has(&mut scene, "web", "b", newest);
    assert_eq!(scene.settle(), ["StrayFound", "IncidentOpened"]);
    scene.later(5_000);
    scene.silent("b", 5_000);
    has(&mut scene, "web", "b", newest);
    let gone = scene.stage.gone("d");
    scene.stage.must(gone);
    scene.evidence.hosts.remove(&host("d"));
    scene
}

#[test]
fn nothing_starts_while_a_host_that_had_the_guest_when_it_was_last_heard_is_silent() {
    let mut scene = left_on_a_silent_host();
    assert!(!starts(&mut scene));
    assert!(doing(&scene, "web").contains("b had something of it"), "{}", doing(&scene, "web"));
    let told = scene.stage.state.open_incident("twice/web").expect("a person is told what it waits for");
    assert!(told.summary.contains("b had something of it"), "{}", told.summary);
    let gone = scene.stage.gone("b");
    scene.stage.must(gone);
    assert!(starts(&mut scene), "proof that it is off ends it");
    assert_eq!(scene.stage.state.open_incident("twice/web"), None);

    let mut heard = left_on_a_silent_host();
    heard.settle();
    later_without(&mut heard, "d", 1_000);
    assert!(starts(&mut heard), "and so does its word that nothing is left");
}

/// `web` is proven to run nowhere, and `b`, which was found with it, has fallen silent before it was ordered to stop it.
fn silent_with_a_stray() -> Scene {
    let mut scene = with_a_stray();
    scene.now += 2_000;
    for on in ["a", "c"] {
        scene.synced(on, scene.now);
    }
    scene
}

#[test]
fn a_host_that_falls_silent_before_it_is_ordered_to_stop_a_guest_is_waited_for_too() {
    let mut scene = silent_with_a_stray();
    assert!(!starts(&mut scene));
    assert!(doing(&scene, "web").contains("b had something of it"), "{}", doing(&scene, "web"));
}

#[test]
fn a_host_that_dies_before_it_is_ordered_to_stop_a_stray_is_fenced_for_it() {
    let mut scene = silent_with_a_stray();
    scene.asked("b", Some(2_000));
    b_is_fenced_for_it(scene);
}

#[test]
fn what_a_silent_host_may_have_is_known_to_the_next_coordinator_and_told_for_as_long_as_it_is_waited_for() {
    let mut scene = silent_with_a_stray();
    scene.settle();
    scene.evidence.hosts.get_mut(&host("b")).unwrap().reports.clear();
    assert!(!starts(&mut scene), "S6: whoever decides");
    assert!(scene.stage.state.open_incident("twice/web").is_some(), "a person is told what it waits for");
    later_without(&mut scene, "d", 1_000);
    scene.stage.end("b", done());
    assert!(starts(&mut scene), "nothing of it is left there");
    assert_eq!(scene.stage.state.open_incident("twice/web"), None);
}

/// Other tools were moving it to `b` when `d` gave it up.
#[test]
fn a_guest_starts_nowhere_before_a_host_that_had_something_of_it_a_moment_ago_has_spoken_again() {
    let mut scene = four();
    has(&mut scene, "web", "b", Epoch::default());
    let gone = scene.stage.gone("d");
    scene.stage.must(gone);
    scene.evidence.marks.applied(scene.stage.index, Moment(scene.now));
    assert!(!starts(&mut scene));
    assert!(doing(&scene, "web").contains("b had something of it a moment ago"), "{}", doing(&scene, "web"));
    let mut left = scene;
    left.later(1_000);
    assert!(starts(&mut left), "nothing of it is there any more");
}

#[test]
fn a_guest_that_is_wanted_stopped_is_stopped_again_where_it_was_started_past_the_cluster() {
    let mut scene = four();
    want(&mut scene, "web", Wanted::Stopped);
    assert_eq!(scene.settle(), ["Stop"]);
    scene.stage.end("d", done());
    scene.later(2_000);
    assert_eq!(scene.settle(), Vec::<String>::new());
    has(&mut scene, "web", "b", Epoch::default());
    assert!(doing(&scene, "web").contains("found on b, although"), "{}", doing(&scene, "web"));
    assert_eq!(scene.settle(), ["IncidentOpened", "StrayFound"]);
    assert!(scene.stage.orders("b")[0].starts_with("release web"), "{:?}", scene.stage.orders("b"));
    scene.stage.end("b", done());
    scene.later(1_000);
    assert_eq!(scene.settle(), ["IncidentResolved"]);
    assert!(doing(&scene, "web").starts_with("stopped"), "{}", doing(&scene, "web"));
}

#[test]
fn a_guest_that_is_left_alone_is_not_stopped_where_it_was_started_past_the_cluster() {
    let mut scene = with_a_stray();
    want(&mut scene, "web", Wanted::Unmanaged);
    assert!(!scene.words().contains(&"StrayFound".to_owned()), "{:?}", scene.words());
}

#[test]
fn what_is_wanted_stopped_is_left_alone_where_it_was_started_on_a_host_in_maintenance() {
    let mut scene = with_a_stray();
    want(&mut scene, "web", Wanted::Stopped);
    set_mode(&mut scene, "b", Mode::Maintenance);
    assert_eq!(scene.settle(), ["IncidentOpened"]);
    let says = doing(&scene, "web");
    assert!(says.starts_with("found on b") && says.ends_with("b is in maintenance, so it is left alone"), "{says}");
    set_mode(&mut scene, "b", Mode::Active);
    assert!(scene.words().contains(&"StrayFound".to_owned()), "{:?}", scene.words());
}

#[test]
fn a_stray_behind_a_dead_supervisor_costs_its_host_if_a_guest_waits_for_it() {
    for (wanted, costs) in [(Wanted::Running, true), (Wanted::Stopped, false)] {
        let mut scene = with_a_stray_that_is_to_stop();
        if wanted != Wanted::Running {
            want(&mut scene, "web", wanted);
        }
        later_without(&mut scene, "d", 60_000);
        for (ms, fenced) in [(29_999, false), (30_000, costs)] {
            scene.silent("b", ms);
            scene.heard("b", 100);
            let words = scene.settle();
            assert_eq!(words.contains(&"FenceAttempted".to_owned()), fenced, "{wanted:?}, {ms} ms: {words:?}");
            assert!(!words.contains(&"Place".to_owned()), "{words:?}");
        }
    }
}

#[test]
fn a_host_that_dies_with_a_stray_is_fenced_for_it_and_the_guest_starts_after_that() {
    let mut scene = with_a_stray_that_is_to_stop();
    later_without(&mut scene, "d", 5_000);
    scene.silent("b", 2_000);
    b_is_fenced_for_it(scene);
}

#[test]
fn a_host_that_dies_after_it_has_stopped_a_stray_is_not_fenced_for_it() {
    let mut scene = with_a_stray_that_is_to_stop();
    scene.stage.end("b", done());
    later_without(&mut scene, "d", 5_000);
    scene.silent("b", 2_000);
    let words = scene.settle();
    assert!(!words.contains(&"FenceOpened".to_owned()), "nothing may run there: {words:?}");
    assert!(words.contains(&"Place".to_owned()), "{words:?}");
}

#[test]
fn what_the_state_says_is_kept_of_a_guest_that_is_reported_elsewhere_too() {
    let mut scene = four();
    scene.later(2_000);
    scene.seen("web", SightState::Passing);
    let newest = Epoch { generation: 9, index: 9 };
    has(&mut scene, "web", "b", newest);
    assert_eq!(scene.settle(), ["StrayFound", "IncidentOpened"]);
    assert!(scene.stage.orders("b")[0].starts_with("release web"), "{:?}", scene.stage.orders("b"));
    assert!(scene.stage.orders("d").is_empty());
    let mut older = four();
    older.later(2_000);
    older.seen("web", SightState::Passing);
    has(&mut older, "web", "b", Epoch::default());
    assert_eq!(older.settle(), ["IncidentOpened"], "R10: the agent of b stops it when it syncs");
}

#[test]
fn what_a_silent_host_was_told_to_stop_is_not_forgotten_when_the_guests_own_host_dies() {
    let mut scene = four();
    scene.stage.state.level = FeatureLevel::HIGHEST;
    scene.later(2_000);
    scene.seen("web", SightState::Passing);
    has(&mut scene, "web", "b", Epoch { generation: 9, index: 9 });
    assert_eq!(scene.settle(), ["StrayFound", "IncidentOpened"]);
    let gone = scene.stage.gone("d");
    scene.stage.must(gone);
    later_without(&mut scene, "d", 500);
    scene.silent("b", 1_000);
    let words = scene.settle();
    assert!(!words.contains(&"Place".to_owned()), "b may run it, and has not said otherwise: {words:?}");
    assert!(scene.stage.orders("b")[0].starts_with("release web"), "{:?}", scene.stage.orders("b"));
    scene.stage.end("b", done());
    assert!(starts(&mut scene), "nothing of it is left there");
}

#[test]
fn nothing_is_started_or_moved_before_a_stray_elsewhere_is_reported_to_be_stopped() {
    for epoch in [Epoch { generation: 9, index: 9 }, Epoch::default()] {
        let mut scene = four();
        scene.later(20_000);
        // Somebody has moved it by hand: its host has nothing of it, and another host runs it.
        scene.evidence.hosts.get_mut(&host("d")).unwrap().reports.remove(&name("web"));
        has(&mut scene, "web", "b", epoch);
        let words = scene.settle();
        assert!(!words.contains(&"Climb".to_owned()), "{epoch:?}: {words:?}");
        assert!(doing(&scene, "web").contains("b"), "{}", doing(&scene, "web"));
        scene.evidence.hosts.get_mut(&host("b")).unwrap().reports.remove(&name("web"));
        if epoch != Epoch::default() {
            assert!(!scene.settle().contains(&"Climb".to_owned()), "b has not reported yet");
            assert!(doing(&scene, "web").contains("b has not said"), "{}", doing(&scene, "web"));
            scene.stage.end("b", done());
        }
        assert!(scene.settle().contains(&"Climb".to_owned()), "{epoch:?}: then it is brought back");
    }
}

#[test]
fn a_drain_waits_for_a_stray_too() {
    let mut scene = four();
    scene.later(20_000);
    scene.seen("web", SightState::Passing);
    scene.settle();
    set_mode(&mut scene, "d", crate::state::Mode::Draining);
    assert!(scene.words().contains(&"Migrate".to_owned()), "{:?}", scene.words());
    has(&mut scene, "web", "b", Epoch { generation: 9, index: 9 });
    let words = scene.settle();
    assert!(words.contains(&"StrayFound".to_owned()) && !words.contains(&"Migrate".to_owned()), "{words:?}");
}

/// The assignment of `web` that is committed.
fn committed(scene: &Scene) -> Epoch {
    scene.stage.state.guests[&name("web")].tenures()[0].epoch
}

/// Somebody has moved `web` from `d` to `b` with other tools.
fn moved() -> Scene {
    let mut scene = four();
    scene.later(20_000);
    scene.seen("web", SightState::Passing);
    let epoch = committed(&scene);
    has(&mut scene, "web", "b", epoch);
    scene.evidence.hosts.get_mut(&host("d")).unwrap().reports.remove(&name("web"));
    scene
}

#[test]
fn a_guest_that_vanishes_is_started_nowhere_before_the_others_have_said_since_then_that_they_have_nothing_of_it() {
    let mut scene = four();
    scene.later(20_000);
    scene.seen("web", SightState::Passing);
    scene.evidence.hosts.get_mut(&host("d")).unwrap().report(BTreeMap::new(), Moment(scene.now));
    let said = |scene: &mut Scene| (scene.settle(), doing(scene, "web"));
    let (words, doing) = said(&mut scene);
    assert!(words.is_empty() && doing.contains("other tools may have moved it"), "{words:?}: {doing}");
    later_with_nothing(&mut scene, 600);
    assert!(scene.settle().contains(&"Climb".to_owned()), "it is nowhere");
}

#[test]
fn hosts_that_were_dead_before_a_guest_vanished_do_not_keep_it_from_its_start() {
    let mut scene = four();
    scene.later(20_000);
    scene.seen("web", SightState::Passing);
    scene.evidence.hosts.get_mut(&host("d")).unwrap().report(BTreeMap::new(), Moment(scene.now));
    later_with_nothing(&mut scene, 3_000);
    // It died three seconds and a half before.
    scene.silent("c", 6_500);
    assert!(scene.settle().contains(&"Climb".to_owned()), "{}", doing(&scene, "web"));
}

#[test]
fn a_coordinator_that_has_just_begun_to_listen_starts_no_guest_that_has_vanished_before_it_has_heard_the_others() {
    let mut scene = four();
    scene.later(20_000);
    scene.seen("web", SightState::Passing);
    // What was heard before the election is not known here.
    scene.evidence.hosts.clear();
    scene.evidence.quorum_since = Some(Moment(scene.now));
    scene.synced("d", scene.now);
    let here = scene.evidence.hosts.get_mut(&host("d")).unwrap();
    here.reports.clear();
    here.report(BTreeMap::new(), Moment(scene.now));
    let said = doing(&scene, "web");
    assert!(!scene.words().contains(&"Climb".to_owned()), "{:?}", scene.words());
    assert!(said.contains("other tools may have moved it"), "{said}");
    scene.now += 600;
    for on in ["a", "b", "c"] {
        scene.synced(on, scene.now);
    }
    assert!(scene.words().contains(&"Climb".to_owned()), "it is nowhere: {}", doing(&scene, "web"));
}

#[test]
fn people_stay_told_of_a_guest_that_was_found_twice_while_the_host_that_is_to_stop_it_is_silent() {
    let mut scene = four();
    scene.later(20_000);
    scene.seen("web", SightState::Passing);
    let epoch = committed(&scene);
    has(&mut scene, "web", "b", epoch);
    scene.settle();
    let told = |scene: &Scene| scene.stage.state.open_incident("twice/web").is_some();
    assert!(told(&scene) && scene.stage.orders("b")[0].starts_with("release web"), "{:?}", scene.stage.orders("b"));
    scene.later(3_000);
    scene.synced("b", scene.now - 3_000);
    scene.heard("b", 100);
    scene.seen("web", SightState::Passing);
    scene.settle();
    assert!(told(&scene), "it may run on b still");
    assert!(doing(&scene, "web").contains("b has not said yet"), "{}", doing(&scene, "web"));
    scene.stage.end("b", done());
    scene.later(1_000);
    scene.seen("web", SightState::Passing);
    scene.settle();
    assert!(!told(&scene));
}

#[test]
fn a_guest_that_other_tools_have_moved_is_followed_once_its_old_host_has_said_that_nothing_is_left() {
    let mut scene = moved();
    assert_eq!(scene.settle(), ["MovedOutside"]);
    let epoch = committed(&scene);
    assert!(scene.stage.orders("d")[0].starts_with("release web"), "{:?}", scene.stage.orders("d"));
    assert_eq!(scene.stage.orders("b"), [format!("resume web under epoch {epoch}")]);
    scene.stage.end("b", done());
    assert_eq!(scene.stage.may_run("web"), ["b".to_owned(), "d".to_owned()].into(), "d has not said so yet");
    assert_eq!(scene.settle(), Vec::<String>::new(), "nobody starts it meanwhile");
    scene.stage.end("d", done());
    assert!(
        matches!(scene.stage.phase("web"), Phase::Running { tenure, .. } if tenure.host == host("b") && tenure.epoch == epoch)
    );
    scene.later(1_000);
    scene.seen("web", SightState::Passing);
    assert_eq!(scene.settle(), ["Verified"]);
    assert_eq!(scene.stage.state.guests[&name("web")].settled, Some(host("b")), "whoever moved it wants it there");
}

#[test]
fn in_doubt_a_guest_that_other_tools_have_moved_is_not_followed() {
    type Doubt = fn(&mut Scene);
    let doubts: [(&str, Doubt); 7] = [
        ("its own host has it", |scene| scene.report("web", "d", GuestCondition::Running)),
        ("its own host is silent", |scene| {
            scene.evidence.hosts.get_mut(&host("d")).unwrap().sync.as_mut().unwrap().at.0 -= 2_000;
        }),
        ("its own host doubts itself", |scene| {
            scene.evidence.hosts.get_mut(&host("d")).unwrap().unwell = Some("late".to_owned());
        }),
        ("the other host doubts itself", |scene| {
            scene.evidence.hosts.get_mut(&host("b")).unwrap().unwell = Some("late".to_owned());
        }),
        ("a third host has it too", |scene| {
            let epoch = committed(scene);
            has(scene, "web", "c", epoch);
        }),
        ("it is another assignment", |scene| has(scene, "web", "b", Epoch { generation: 9, index: 9 })),
        ("it does not run there", |scene| {
            let seen = scene.evidence.hosts.get_mut(&host("b")).unwrap();
            let report = seen.reports.get_mut(&name("web")).unwrap();
            report.condition = GuestCondition::Paused { reason: "on purpose".to_owned() };
        }),
    ];
    for (doubt, happens) in doubts {
        let mut scene = moved();
        assert_eq!(scene.words(), ["MovedOutside"], "{doubt}: not yet");
        happens(&mut scene);
        let words = scene.words();
        assert!(
            !words.contains(&"MovedOutside".to_owned()) && !words.contains(&"Climb".to_owned()),
            "{doubt}: {words:?}"
        );
    }
}

#[test]
fn a_guest_that_was_moved_while_nobody_was_to_touch_it_is_followed_when_that_is_over() {
    let mut scene = moved();
    suspend(&mut scene, true);
    assert_eq!(scene.words(), Vec::<String>::new());
    assert!(doing(&scene, "web").contains("other tools have moved it"), "{}", doing(&scene, "web"));
    assert!(doing(&scene, "web").contains("suspended by ann"), "{}", doing(&scene, "web"));
    suspend(&mut scene, false);
    assert_eq!(scene.settle(), ["MovedOutside"]);
}

#[test]
fn a_guest_that_was_moved_to_where_a_floor_forbids_its_assignment_is_released_and_starts_anew() {
    let mut scene = moved();
    scene.settle();
    scene.stage.end("b", failed());
    assert!(scene.stage.orders("b")[0].starts_with("release web"), "{:?}", scene.stage.orders("b"));
    scene.stage.end("b", done());
    assert_eq!(scene.settle(), Vec::<String>::new(), "d may still run it");
    scene.stage.end("d", done());
    scene.later(1_000);
    assert_eq!(scene.settle(), ["Place"]);
}

#[test]
fn a_guest_that_other_tools_have_moved_is_not_followed_while_a_third_host_is_still_to_stop_it() {
    let mut scene = four();
    scene.later(20_000);
    scene.seen("web", SightState::Passing);
    let epoch = committed(&scene);
    has(&mut scene, "web", "c", epoch);
    assert!(scene.settle().contains(&"StrayFound".to_owned()), "c is to stop it");
    for on in ["c", "d"] {
        scene.evidence.hosts.get_mut(&host(on)).unwrap().reports.remove(&name("web"));
    }
    has(&mut scene, "web", "b", epoch);
    let words = scene.words();
    assert!(!words.iter().any(|word| ["MovedOutside", "StrayFound", "Climb"].contains(&word.as_str())), "{words:?}");
    assert!(doing(&scene, "web").contains("c has not said yet"), "{}", doing(&scene, "web"));
    scene.stage.end("c", done());
    assert!(scene.settle().contains(&"MovedOutside".to_owned()));
}

#[test]
fn a_guest_that_was_moved_away_is_no_sign_of_life_of_its_old_host() {
    let mut scene = moved();
    assert_eq!(scene.settle(), ["MovedOutside"]);
    scene.stage.end("b", done());
    scene.later(2_000);
    // It dies before it has said that nothing is left, and the guest goes on to answer where it is.
    scene.silent("d", 2_000);
    scene.seen("web", SightState::Passing);
    assert_eq!(scene.verdict("d"), crate::decide::hosts::HostVerdict::Failed);
}
