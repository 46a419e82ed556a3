//! What starts after what, and stops before it.

use super::*;
use crate::{
    decide::placement::where_to,
    fixture::{done, failed},
    model::{FenceLevel, LeaseLevel},
    observe::GuestCondition,
    state::Phase,
    time::{Moment, Now, WallTime},
};

fn order(first: &str, then: &str, required: bool, symmetrical: bool) -> Rule {
    Rule::Order { first: name(first), then: name(then), required, symmetrical }
}

fn db_first(required: bool) -> Scene {
    let mut scene = Scene::new(&["a", "b"], &["db", "web"]);
    rule(&mut scene, order("db", "web", required, true));
    redeclare(&mut scene, |policies| policies.guests.get_mut(&name("web")).unwrap().priority = 200);
    scene.later(1_000);
    scene
}

#[test]
fn a_guest_starts_when_the_one_that_it_needs_runs_and_answers() {
    for required in [true, false] {
        let mut scene = db_first(required);
        assert_eq!(scene.settle(), ["Place"]);
        assert!(matches!(scene.stage.phase("db"), Phase::Starting { .. }));
        let takes_part = |scene: &Scene| {
            let age = |index| scene.evidence.marks.age(index, Moment(scene.now));
            crate::decide::guests::free::is_to_be_placed(&scene.stage.state, &name("web"), true, age)
        };
        assert!(!takes_part(&scene), "what waits takes no room from others");
        assert!(doing(&scene, "web").contains("db"), "{}", doing(&scene, "web"));
        let on = home(&scene, "db");
        scene.stage.end(&on, done());
        scene.later(1_000);
        assert_eq!(scene.settle(), Vec::<String>::new(), "it runs, and nobody has seen it answer");
        scene.seen("db", SightState::Passing);
        scene.stage.must(Change::Verified { guest: name("db"), unasked: Vec::new() });
        assert!(takes_part(&scene));
        assert_eq!(scene.settle(), ["Place"]);
        assert!(matches!(scene.stage.phase("web"), Phase::Starting { .. }));
    }
}

#[test]
fn without_what_it_needs_a_guest_waits_and_without_what_it_would_like_it_starts() {
    for (required, expected) in [(true, vec![]), (false, vec!["Place"])] {
        let mut scene = db_first(required);
        want(&mut scene, "db", Wanted::Stopped);
        assert_eq!(scene.settle(), expected, "{required}");
    }
    let mut unplaceable = db_first(false);
    redeclare(&mut unplaceable, |policies| policies.guests.get_mut(&name("db")).unwrap().qemu.memory_mib = 100_000);
    assert_eq!(unplaceable.settle(), Vec::<String>::new());
    unplaceable.later(6_000);
    let words = unplaceable.settle();
    assert!(words.contains(&"Place".to_owned()), "db cannot be started, so web does not wait for it: {words:?}");
}

#[test]
fn a_guest_that_would_only_like_to_start_after_another_does_not_wait_for_ever() {
    let mut scene = db_first(false);
    scene.settle();
    let on = home(&scene, "db");
    scene.stage.end(&on, done());
    scene.later(100_000);
    assert_eq!(scene.settle(), Vec::<String>::new());
    scene.later(30_000);
    assert_eq!(scene.settle(), ["Place"]);
}

/// `db` runs on `b`, and `web` runs nowhere.
fn db_on_b(required: bool) -> Scene {
    let mut scene = Scene::new(&["a", "b", "c"], &["db", "web"]);
    scene.stage.run("db", "b");
    rule(&mut scene, order("db", "web", required, true));
    scene.later(1_000);
    scene.seen("db", SightState::Passing);
    scene
}

#[test]
fn nobody_starts_after_a_guest_that_has_ended_or_whose_host_is_not_heard() {
    let starts = |scene: &Scene| scene.words().contains(&"Place".to_owned());
    for required in [true, false] {
        assert!(starts(&db_on_b(required)), "it is up");
        let mut ended = db_on_b(required);
        ended.report("db", "b", GuestCondition::Exited { detail: "killed".to_owned() });
        assert!(!starts(&ended), "{required}");
        assert!(doing(&ended, "web").contains("that one has ended on b"), "{}", doing(&ended, "web"));
        let mut silent = db_on_b(required);
        // What was seen of its services is as old.
        silent.now += 2_000;
        silent.all_well();
        silent.silent("b", 2_000);
        assert!(!starts(&silent), "{required}");
        assert!(doing(&silent, "web").contains("b, where that one ran, is not heard"), "{}", doing(&silent, "web"));
        silent.heard("b", 100);
        assert!(starts(&silent), "R16: its supervisor alone is down");
        silent.silent("b", 6_000);
        silent.heard("b", 100);
        assert!(starts(&silent), "its guests run on");
        let by_lease = vec![FenceLevel::Lease(LeaseLevel::default())];
        redeclare(&mut silent, |policies| policies.fencing.extend([(host("b"), by_lease)]));
        assert!(!starts(&silent), "R14: its lease has run out");
        assert!(doing(&silent, "web").contains("cut off and stops its guests"), "{}", doing(&silent, "web"));
        let mut fenced = db_on_b(required);
        fenced.stage.fence("b");
        assert!(!starts(&fenced), "{required}");
    }
}

#[test]
fn nobody_starts_after_a_guest_that_is_about_to_be_stopped_and_started_elsewhere() {
    let starts = |scene: &Scene| scene.words().contains(&"Place".to_owned());
    let mut scene = db_on_b(true);
    set_mode(&mut scene, "b", Mode::Draining);
    assert!(starts(&scene), "it moves while it runs");
    cold_only(&mut scene, "db");
    assert!(!starts(&scene));
    assert!(doing(&scene, "web").contains("about to be stopped to start elsewhere"), "{}", doing(&scene, "web"));
    scene.later(130_000);
    scene.seen("db", SightState::Passing);
    assert!(starts(&scene), "two minutes are enough");
}

#[test]
fn nobody_waits_for_a_guest_that_no_other_host_takes() {
    let mut scene = db_on_b(true);
    cold_only(&mut scene, "db");
    rule(&mut scene, hosts_rule("db", &[("a", Score::Never), ("c", Score::Never)], false));
    set_mode(&mut scene, "b", Mode::Draining);
    scene.later(20_000);
    scene.seen("db", SightState::Passing);
    assert_eq!(scene.settle(), ["IncidentOpened", "Place"], "the first is that db cannot leave");
}

#[test]
fn who_waits_for_a_guest_that_is_to_start_elsewhere_takes_no_room_from_it() {
    let mut scene = Scene::new(&["a", "b"], &["db", "web"]);
    scene.stage.run("db", "b");
    rule(&mut scene, order("db", "web", true, true));
    redeclare(&mut scene, |policies| {
        for of in ["db", "web"] {
            policies.guests.get_mut(&name(of)).unwrap().qemu.memory_mib = 5_000;
        }
    });
    cold_only(&mut scene, "db");
    set_mode(&mut scene, "b", Mode::Draining);
    scene.later(20_000);
    scene.seen("db", SightState::Passing);
    assert_eq!(scene.settle(), ["Migrate"], "there is room for one of them");
}

#[test]
fn a_guest_that_moves_itself_is_not_down_until_the_one_before_it_has_its_turn() {
    let mut scene = Scene::new(&["a", "b", "c"], &["db", "web"]);
    for guest in ["db", "web"] {
        scene.stage.run(guest, "b");
        cold_only(&mut scene, guest);
    }
    rule(&mut scene, order("db", "web", true, true));
    set_mode(&mut scene, "b", Mode::Draining);
    scene.later(20_000);
    for guest in ["db", "web"] {
        scene.seen(guest, SightState::Passing);
    }
    scene.stage.must(ask_move("web", "a"));
    assert!(matches!(scene.stage.phase("web"), Phase::Releasing { .. }));
    assert_eq!(scene.settle(), Vec::<String>::new(), "db waits for its turn");
    scene.stage.end("b", done());
    scene.later(1_000);
    scene.seen("db", SightState::Passing);
    assert_eq!(scene.settle(), ["Place"]);
    assert!(matches!(scene.stage.phase("web"), Phase::Starting { .. }));
}

/// Both have to leave `b`, and `db` is to be up before `app`, which is more important and the first by name.
fn both_leave(required: bool, cold: bool) -> Scene {
    let mut scene = Scene::new(&["a", "b", "c"], &["app", "db"]);
    for guest in ["app", "db"] {
        scene.stage.run(guest, "b");
        if cold {
            cold_only(&mut scene, guest);
        }
    }
    rule(&mut scene, order("db", "app", required, true));
    redeclare(&mut scene, |policies| policies.guests.get_mut(&name("app")).unwrap().priority = 200);
    set_mode(&mut scene, "b", Mode::Draining);
    scene.later(20_000);
    for guest in ["app", "db"] {
        scene.seen(guest, SightState::Passing);
    }
    scene
}

#[test]
fn of_guests_that_have_to_leave_their_host_the_one_before_the_others_goes_first() {
    for (required, cold) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut scene = both_leave(required, cold);
        assert_eq!(scene.settle(), ["Migrate"], "{required} {cold}");
        assert!(!matches!(scene.stage.phase("db"), Phase::Running { .. }), "{required} {cold}");
        assert!(matches!(scene.stage.phase("app"), Phase::Running { .. }), "{required} {cold}");
    }
}

#[test]
fn nobody_stays_on_a_drained_host_for_one_before_it_that_cannot_leave() {
    let mut scene = both_leave(true, false);
    rule(&mut scene, hosts_rule("db", &[("a", Score::Never), ("c", Score::Never)], false));
    let words = scene.settle();
    assert!(words.contains(&"Migrate".to_owned()), "{words:?}");
    assert!(matches!(scene.stage.phase("db"), Phase::Running { .. }));
}

/// Both run.
fn both(first: Rule) -> Scene {
    let mut scene = Scene::new(&["a", "b"], &["db", "web"]);
    scene.stage.run("db", "a");
    scene.stage.run("web", "b");
    rule(&mut scene, first);
    scene.later(1_000);
    for guest in ["db", "web"] {
        scene.seen(guest, SightState::Passing);
    }
    scene
}

#[test]
fn a_guest_is_stopped_before_the_one_that_it_needs() {
    let mut scene = both(order("db", "web", true, true));
    want(&mut scene, "db", Wanted::Stopped);
    assert_eq!(scene.settle(), ["Stop"]);
    assert!(matches!(scene.stage.phase("web"), Phase::Releasing { .. }));
    assert!(matches!(scene.stage.phase("db"), Phase::Running { .. }));
    assert!(doing(&scene, "db").contains("stops when web is down"), "{}", doing(&scene, "db"));
    scene.stage.end("b", done());
    assert_eq!(scene.settle(), ["Stop"]);
    scene.stage.end("a", done());
    scene.later(60_000);
    assert_eq!(scene.settle(), Vec::<String>::new(), "web waits for db");
    want(&mut scene, "db", Wanted::Running);
    assert_eq!(scene.settle(), ["Place"]);
}

#[test]
fn that_a_guest_is_to_stop_before_the_one_that_it_needs_costs_no_host_whose_supervisor_is_down() {
    let mut scene = both(order("db", "web", true, true));
    want(&mut scene, "db", Wanted::Stopped);
    assert_eq!(scene.settle(), ["Stop"]);
    assert!(matches!(scene.stage.phase("web"), Phase::Releasing { .. }));
    scene.later(60_000);
    scene.silent("b", 31_000);
    scene.heard("b", 100);
    let words = scene.settle();
    assert!(!words.contains(&"FenceOpened".to_owned()), "{words:?}");
    want(&mut scene, "db", Wanted::Running);
    let words = scene.settle();
    assert!(words.contains(&"FenceOpened".to_owned()), "web is to start, and waits for b: {words:?}");
}

/// `web` could not be stopped, and `db`, which it needs and which moves by a stop and a start, is on a drained host.
fn second_cannot_be_stopped() -> Scene {
    let mut scene = both(order("db", "web", true, true));
    cold_only(&mut scene, "db");
    scene.later(20_000);
    scene.stage.must(Change::Stop { guest: name("web"), why: "the test wants it".to_owned() });
    scene.stage.end("b", failed());
    set_mode(&mut scene, "a", Mode::Draining);
    scene.later(1_000);
    scene.seen("db", SightState::Passing);
    scene
}

#[test]
fn a_guest_is_not_stopped_to_start_elsewhere_while_one_that_needs_it_could_not_be_stopped() {
    let mut scene = second_cannot_be_stopped();
    let words = scene.settle();
    assert!(!words.contains(&"Migrate".to_owned()), "web may still run, and would run without db: {words:?}");
    assert!(doing(&scene, "db").contains("waits for web to stop"), "{}", doing(&scene, "db"));
    redeclare(&mut scene, |policies| policies.rules.clear());
    scene.later(1_000);
    scene.seen("db", SightState::Passing);
    assert!(scene.settle().contains(&"Migrate".to_owned()), "nothing keeps it any more");
}

#[test]
fn a_guest_that_is_left_alone_although_it_could_not_be_stopped_keeps_nobody_on_a_drained_host() {
    let mut scene = second_cannot_be_stopped();
    want(&mut scene, "web", Wanted::Unmanaged);
    assert!(scene.settle().contains(&"Migrate".to_owned()), "nobody stops web any more: {}", doing(&scene, "db"));
}

#[test]
fn an_order_of_starts_alone_stops_nobody() {
    let mut scene = both(order("db", "web", true, false));
    want(&mut scene, "db", Wanted::Stopped);
    assert_eq!(scene.settle(), ["Stop"]);
    assert!(matches!(scene.stage.phase("web"), Phase::Running { .. }));
}

#[test]
fn a_guest_that_is_left_alone_holds_up_no_stop() {
    let mut scene = both(order("db", "web", true, true));
    want(&mut scene, "web", Wanted::Unmanaged);
    want(&mut scene, "db", Wanted::Stopped);
    assert_eq!(scene.settle(), ["Stop"]);
    assert!(matches!(scene.stage.phase("web"), Phase::Running { .. }));
}

/// `web` needs `app`, and `app` needs `db`; all run.
fn three_in_a_row() -> Scene {
    let mut scene = Scene::new(&["a", "b", "c"], &["db", "app", "web"]);
    for (guest, on) in [("db", "a"), ("app", "b"), ("web", "c")] {
        scene.stage.run(guest, on);
    }
    rule(&mut scene, order("db", "app", true, true));
    rule(&mut scene, order("app", "web", true, true));
    scene.later(1_000);
    for guest in ["db", "app", "web"] {
        scene.seen(guest, SightState::Passing);
    }
    scene
}

#[test]
fn a_row_of_guests_stops_from_its_end_when_the_first_one_is_wanted_stopped() {
    let mut scene = three_in_a_row();
    want(&mut scene, "db", Wanted::Stopped);
    for (guest, on) in [("web", "c"), ("app", "b"), ("db", "a")] {
        assert_eq!(scene.settle(), ["Stop"], "{guest}");
        assert!(matches!(scene.stage.phase(guest), Phase::Releasing { .. }), "{guest} stops next");
        scene.stage.end(on, done());
    }
    scene.later(60_000);
    assert_eq!(scene.settle(), Vec::<String>::new(), "nothing of it starts again");
}

#[test]
fn what_is_left_alone_keeps_up_those_that_need_it() {
    let mut scene = three_in_a_row();
    want(&mut scene, "app", Wanted::Unmanaged);
    want(&mut scene, "db", Wanted::Stopped);
    assert_eq!(scene.settle(), ["Stop"]);
    assert!(matches!(scene.stage.phase("db"), Phase::Releasing { .. }));
    assert!(matches!(scene.stage.phase("web"), Phase::Running { .. }), "app runs on, which is all that it needs");
}

#[test]
fn a_failure_of_the_first_guest_does_not_stop_the_second() {
    let mut scene = both(order("db", "web", true, true));
    let gone = scene.stage.gone("a");
    scene.stage.must(gone);
    later_without(&mut scene, "a", 1_000);
    scene.sight("web", "b", SightState::Passing);
    assert_eq!(scene.settle(), ["Place"]);
    assert!(matches!(scene.stage.phase("web"), Phase::Running { .. }));
}

fn has_ended() -> GuestCondition {
    GuestCondition::Exited { detail: "killed".to_owned() }
}

/// `db` is stopped, as an operator wants it, and `web` runs on `b`.
fn second_runs_alone(required: bool) -> Scene {
    let mut scene = both(order("db", "web", required, false));
    want(&mut scene, "db", Wanted::Stopped);
    assert_eq!(scene.settle(), ["Stop"]);
    scene.stage.end("a", done());
    scene.later(1_000);
    scene
}

#[test]
fn a_guest_that_has_ended_starts_anew_only_when_the_one_that_it_needs_is_ready() {
    let mut scene = second_runs_alone(true);
    scene.report("web", "b", has_ended());
    assert_eq!(scene.settle(), ["IncidentOpened", "Stop"], "people are told that it is down");
    scene.stage.end("b", done());
    scene.later(60_000);
    assert_eq!(scene.settle(), Vec::<String>::new());
    assert!(doing(&scene, "web").contains("it starts when db is ready"), "{}", doing(&scene, "web"));
    want(&mut scene, "db", Wanted::Running);
    assert_eq!(scene.settle(), ["Place"]);
    let on = home(&scene, "db");
    scene.stage.end(&on, done());
    scene.later(1_000);
    scene.seen("db", SightState::Passing);
    scene.stage.must(Change::Verified { guest: name("db"), unasked: Vec::new() });
    assert_eq!(scene.settle(), ["Place"]);
    assert!(matches!(scene.stage.phase("web"), Phase::Starting { .. }));
}

#[test]
fn a_guest_that_has_ended_beside_one_that_it_would_merely_like_is_reset_at_once() {
    let mut scene = second_runs_alone(false);
    scene.report("web", "b", has_ended());
    assert_eq!(scene.words(), ["Climb"]);
}

#[test]
fn of_two_guests_that_end_at_once_the_one_that_needs_the_other_starts_after_it() {
    let mut scene = both(order("db", "web", true, true));
    scene.report("db", "a", has_ended());
    scene.report("web", "b", has_ended());
    assert_eq!(scene.words(), ["Climb", "IncidentOpened", "Stop"]);
}

#[test]
fn a_guest_whose_service_fails_without_the_guest_that_it_needs_is_left_as_it_is() {
    let mut scene = second_runs_alone(true);
    let restart = scene.stage.climb("web", 0);
    scene.stage.must(restart);
    scene.stage.end("b", done());
    scene.later(10_000);
    scene.seen("web", SightState::Failing);
    assert_eq!(scene.settle(), Vec::<String>::new(), "a reset would help nobody");
    assert!(doing(&scene, "web").contains("it starts when db is ready"), "{}", doing(&scene, "web"));
    assert!(matches!(scene.stage.phase("web"), Phase::Running { .. }));
    redeclare(&mut scene, |policies| policies.rules.clear());
    assert_eq!(scene.words(), ["Climb"]);
}

#[test]
fn a_guest_leaves_a_drained_host_while_it_runs_although_the_one_without_which_it_does_not_start_is_stopped() {
    let mut scene = second_runs_alone(true);
    set_mode(&mut scene, "b", Mode::Draining);
    scene.later(20_000);
    scene.seen("web", SightState::Passing);
    assert_eq!(scene.settle(), ["Migrate"]);
    assert!(matches!(scene.stage.phase("web"), Phase::Migrating(_)), "it starts nothing");
    let mut scene = second_runs_alone(true);
    cold_only(&mut scene, "web");
    set_mode(&mut scene, "b", Mode::Draining);
    scene.later(20_000);
    scene.seen("web", SightState::Passing);
    assert_eq!(scene.settle(), ["IncidentOpened"], "it would be stopped, and not start again");
}

#[test]
fn an_operators_move_by_a_stop_and_a_start_finds_no_host_for_a_guest_that_would_not_start_again() {
    let mut scene = second_runs_alone(true);
    scene.later(20_000);
    scene.seen("web", SightState::Passing);
    let judged = scene.decide().report.hosts;
    let now = Now { moment: Moment(scene.now), wall: WallTime(scene.now) };
    let found = |cold| where_to(&scene.stage.state, &scene.evidence, now, &judged, &name("web"), cold).ok();
    assert_eq!((found(false), found(true)), (Some(host("a")), None));
}

#[test]
fn people_are_told_of_a_guest_whose_service_fails_while_the_one_that_it_needs_is_stopped() {
    let mut scene = second_runs_alone(true);
    redeclare(&mut scene, |policies| {
        policies.policies.values_mut().for_each(|policy| drop(policy.ladder.remove(0)));
    });
    scene.later(10_000);
    scene.seen("web", SightState::Failing);
    assert_eq!(scene.settle(), ["IncidentOpened"], "a reset would help nobody");
    let told = scene.stage.state.open_incident("guest/web").unwrap().summary.clone();
    assert!(told.contains("it starts when db is ready"), "{told}");
    scene.later(10_000);
    scene.seen("web", SightState::Failing);
    assert_eq!(scene.settle(), Vec::<String>::new(), "once");
    scene.later(10_000);
    scene.seen("web", SightState::Passing);
    assert_eq!(scene.settle(), ["IncidentResolved"]);
}

#[test]
fn rules_that_go_round_in_a_circle_hold_nobody_and_are_told() {
    let mut scene = Scene::new(&["a", "b"], &["x", "y", "z"]);
    for (first, then) in [("x", "y"), ("y", "z"), ("z", "x")] {
        rule(&mut scene, order(first, then, true, true));
    }
    let words = scene.settle();
    assert_eq!(words.iter().filter(|word| *word == "Place").count(), 3, "{words:?}");
    assert_eq!(words.iter().filter(|word| *word == "IncidentOpened").count(), 3, "{words:?}");
    redeclare(&mut scene, |policies| policies.rules.clear());
    assert_eq!(scene.settle(), ["IncidentResolved"; 3]);
}
