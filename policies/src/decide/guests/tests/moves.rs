//! Operators' moves, cold moves, drains and going back.

use super::*;
use crate::{
    change::Refused,
    decide::tests::four,
    feature_level::FeatureLevel,
    fit::Unfit,
    fixture::{done, facts, failed},
    model::Rung,
    observe::GuestCondition,
    state::Phase,
    time::Span,
};

#[test]
fn a_guest_that_cannot_move_while_it_runs_is_stopped_and_starts_at_the_target() {
    let mut scene = four();
    cold_only(&mut scene, "web");
    scene.stage.must(ask_move("web", "b"));
    assert!(scene.stage.orders("d")[0].starts_with("release"), "{:?}", scene.stage.orders("d"));
    scene.later(1_000);
    assert!(scene.words().is_empty(), "S2: not before the word that nothing of it is left");
    scene.stage.end("d", done());
    scene.later(1_000);
    assert_eq!(scene.settle(), ["Place"]);
    assert_eq!(home(&scene, "web"), "b");
    scene.stage.end("b", done());
    let known = &scene.stage.state.guests[&name("web")];
    assert_eq!((&known.heading, &known.settled), (&None, &Some(host("b"))));
}

#[test]
fn an_operator_may_ask_for_a_cold_move_of_a_guest_that_could_move_live() {
    let mut scene = four();
    scene.stage.must(Change::MoveAsked { guest: name("web"), to: host("b"), cold: true, by: "ann".to_owned() });
    assert!(matches!(scene.stage.phase("web"), Phase::Releasing { .. }));
}

#[test]
fn a_cold_move_whose_target_has_died_meanwhile_starts_at_another_host() {
    let mut scene = four();
    cold_only(&mut scene, "web");
    scene.stage.must(ask_move("web", "b"));
    let gone = scene.stage.gone("b");
    scene.stage.must(gone);
    scene.stage.end("d", done());
    later_without(&mut scene, "b", 1_000);
    assert!(scene.settle().is_empty());
    assert!(doing(&scene, "web").contains("waiting to start on b"), "{}", doing(&scene, "web"));
    later_without(&mut scene, "b", 5_000);
    assert_eq!(scene.settle(), ["Place"]);
    assert_ne!(home(&scene, "web"), "b");
}

#[test]
fn a_cold_move_whose_start_fails_goes_on_like_any_start_that_failed() {
    let mut scene = four();
    cold_only(&mut scene, "web");
    scene.stage.must(ask_move("web", "b"));
    scene.stage.end("d", done());
    scene.later(1_000);
    scene.settle();
    for _ in 0..2 {
        assert_eq!(scene.stage.state.orders.len(), 1);
        let on = home(&scene, "web");
        scene.stage.end(&on, failed());
        scene.stage.end(&on, done());
        scene.later(5_000);
        scene.settle();
    }
    assert_ne!(home(&scene, "web"), "b", "two tries there are enough");
}

#[test]
fn a_move_is_ignored_where_it_is_so_already() {
    let mut scene = four();
    assert!(matches!(scene.stage.refused(ask_move("web", "d")), Refused::Already { .. }));
    scene.stage.must(ask_move("web", "b"));
    assert!(matches!(scene.stage.refused(ask_move("web", "b")), Refused::Already { .. }));
    assert!(matches!(scene.stage.refused(ask_move("web", "a")), Refused::Phase { .. }));
}

#[test]
fn a_move_is_denied_with_the_reason() {
    let why = |scene: &mut Scene, to: &str| match scene.stage.refused(ask_move("web", to)) {
        Refused::Target { why, .. } => why,
        other => panic!("{other}"),
    };
    let mut scene = four();
    let witness = crate::state::HostFacts { guests: false, ..facts("w", "w.1") };
    scene.stage.must(Change::HostJoined { host: host("w"), facts: witness, follows: None });
    assert_eq!(why(&mut scene, "w"), Unfit::Witness);
    set_mode(&mut scene, "a", Mode::Draining);
    assert_eq!(why(&mut scene, "a"), Unfit::Mode { mode: "draining".to_owned() });
    scene.stage.fence("b");
    assert_eq!(why(&mut scene, "b"), Unfit::NotUp);
    rule(&mut scene, hosts_rule("web", &[("c", Score::Never)], false));
    assert!(matches!(why(&mut scene, "c"), Unfit::Rule { .. }));
    assert!(matches!(scene.stage.refused(ask_move("web", "x")), Refused::NoHost { .. }));
    assert!(matches!(scene.stage.refused(ask_move("x", "a")), Refused::NoGuest { .. }));
}

#[test]
fn a_move_to_a_host_without_room_or_beside_a_guest_to_keep_apart_from_is_denied() {
    let mut scene = Scene::new(&["a", "b"], &["web", "db"]);
    scene.stage.run("web", "a");
    scene.stage.run("db", "b");
    let apart = |by: Option<&str>| Rule::Apart {
        guests: Guests::Named(vec![name("web"), name("db")]),
        required: true,
        yields: None,
        weight: 0,
        by: by.map(str::to_owned),
    };
    rule(&mut scene, apart(None));
    let refused = scene.stage.refused(ask_move("web", "b"));
    assert!(matches!(refused, Refused::Target { why: Unfit::Rule { .. }, .. }), "{refused}");
    redeclare(&mut scene, |policies| {
        policies.rules.clear();
        policies.guests.get_mut(&name("db")).unwrap().qemu.memory_mib = 8_000;
    });
    let refused = scene.stage.refused(ask_move("web", "b"));
    let no_room = Unfit::NoRoom { what: "memory_mib".to_owned(), free: 192, needed: 1_024 };
    assert!(matches!(&refused, Refused::Target { why, .. } if *why == no_room), "{refused}");
}

/// `web` and `db` run on `a`; `b` has room for one of them.
fn room_for_one() -> Scene {
    let mut scene = Scene::new(&["a", "b"], &["big", "db", "web"]);
    redeclare(&mut scene, |policies| {
        policies.guests.values_mut().for_each(|guest| guest.qemu.memory_mib = 3_000);
    });
    for (guest, on) in [("big", "b"), ("db", "a"), ("web", "a")] {
        scene.stage.run(guest, on);
    }
    scene
}

#[test]
fn two_guests_that_go_to_one_host_with_room_for_one_do_not_go_there_both() {
    let mut scene = room_for_one();
    for guest in ["db", "web"] {
        scene.stage.must(Change::MoveAsked { guest: name(guest), to: host("b"), cold: true, by: "ann".to_owned() });
    }
    let orders: Vec<_> = scene.stage.state.orders.keys().copied().collect();
    for order in orders {
        scene.stage.must(Change::OrderEnded { order, outcome: done() });
    }
    scene.later(1_000);
    scene.seen("big", SightState::Passing);
    assert_eq!(scene.settle(), ["Place"]);
    assert_eq!((home(&scene, "db"), home(&scene, "web")), ("b".to_owned(), "nowhere".to_owned()));
    scene.later(5_000);
    scene.seen("big", SightState::Passing);
    assert_eq!(scene.settle(), ["Place"]);
    assert_eq!(home(&scene, "web"), "a", "there is no other room");
}

#[test]
fn a_move_is_denied_where_the_room_is_promised_to_a_guest_that_is_being_stopped_to_start_there() {
    let mut scene = room_for_one();
    let cold = |of: &str| Change::MoveAsked { guest: name(of), to: host("b"), cold: true, by: "ann".to_owned() };
    scene.stage.must(Change::LevelRaised { to: FeatureLevel::HIGHEST });
    scene.stage.must(cold("db"));
    let refused = scene.stage.refused(cold("web"));
    let no_room = Unfit::NoRoom { what: "memory_mib".to_owned(), free: 2_192, needed: 3_000 };
    assert!(matches!(&refused, Refused::Target { why, .. } if *why == no_room), "{refused}");
    scene.stage.end("a", failed());
    scene.stage.must(cold("web"));
}

#[test]
fn two_ladders_that_say_migrate_at_once_do_not_fill_one_host_twice() {
    let mut scene = room_for_one();
    let ladder = vec![
        Rung::Migrate { tries: 1, wait: Span::secs(60) },
        Rung::Page { severity: crate::model::Severity::Critical },
    ];
    redeclare(&mut scene, |policies| {
        policies.policies.values_mut().for_each(|policy| policy.ladder.clone_from(&ladder));
    });
    scene.later(20_000);
    scene.seen("big", SightState::Passing);
    for guest in ["db", "web"] {
        scene.seen(guest, SightState::Failing);
    }
    let climbs = |words: Vec<String>| words.into_iter().filter(|word| word == "Climb").count();
    assert_eq!(climbs(scene.words()), 1);
    assert!(doing(&scene, "web").contains("another guest is sent on its way first"), "{}", doing(&scene, "web"));
    scene.settle();
    assert!(matches!(scene.stage.phase("db"), Phase::Migrating(_)));
    assert_eq!(home(&scene, "web"), "a");
}

#[test]
fn a_ladder_that_says_migrate_waits_for_a_host_that_is_busy_and_kills_nothing_meanwhile() {
    let mut scene = Scene::new(&["a", "b"], &["web", "g1", "g2"]);
    let wait = Span::secs(60);
    let ladder = vec![Rung::Migrate { tries: 1, wait }, Rung::ResetGuest { tries: 1, wait }];
    redeclare(&mut scene, |policies| {
        policies.policies.values_mut().for_each(|policy| policy.ladder.clone_from(&ladder));
    });
    scene.stage.run("web", "a");
    for guest in ["g1", "g2"] {
        scene.stage.place(guest, "b");
    }
    scene.later(1_000);
    scene.seen("web", SightState::Failing);
    assert_eq!(scene.words(), Vec::<String>::new());
    assert!(doing(&scene, "web").contains("b is busy starting 2 other guests"), "{}", doing(&scene, "web"));
    let starts: Vec<_> = scene.stage.state.orders.keys().copied().collect();
    for order in starts {
        scene.stage.must(Change::OrderEnded { order, outcome: done() });
    }
    scene.later(1_000);
    scene.seen("web", SightState::Failing);
    let commands = scene.decide().commands;
    assert!(matches!(&commands[..], [Change::Climb { rung: 0, to: Some(to), .. }] if *to == host("b")), "{commands:?}");
}

#[test]
fn a_ladder_that_says_migrate_goes_on_where_no_host_can_take_the_guest() {
    let mut scene = Scene::new(&["a", "b"], &["web"]);
    let wait = Span::secs(60);
    let ladder = vec![Rung::Migrate { tries: 1, wait }, Rung::ResetGuest { tries: 1, wait }];
    redeclare(&mut scene, |policies| {
        policies.policies.values_mut().for_each(|policy| policy.ladder.clone_from(&ladder));
    });
    rule(&mut scene, hosts_rule("web", &[("b", Score::Never)], false));
    scene.stage.run("web", "a");
    scene.later(1_000);
    scene.seen("web", SightState::Failing);
    let commands = scene.decide().commands;
    assert!(matches!(&commands[..], [Change::Climb { rung: 1, to: None, .. }]), "{commands:?}");
}

/// `web` and `db` run on `a` and are kept together.
fn together() -> Scene {
    let mut scene = Scene::new(&["a", "b"], &["web", "db"]);
    for guest in ["web", "db"] {
        scene.stage.run(guest, "a");
    }
    let guests = Guests::Named(vec![name("web"), name("db")]);
    rule(&mut scene, Rule::Together { guests, required: true, yields: None, weight: 0 });
    scene
}

#[test]
fn an_operators_move_takes_along_what_is_kept_together() {
    let mut scene = together();
    scene.stage.must(ask_move("web", "b"));
    for on in ["b", "a", "b", "a"] {
        scene.stage.end(on, done());
    }
    scene.stage.must(Change::Verified { guest: name("web"), unasked: Vec::new() });
    scene.later(20_000);
    for guest in ["web", "db"] {
        scene.seen(guest, SightState::Passing);
    }
    assert_eq!(scene.settle(), ["Migrate"]);
    assert!(matches!(scene.stage.phase("db"), Phase::Migrating(m) if m.target.as_ref().unwrap().host == host("b")));
}

#[test]
fn nobody_leaves_the_one_of_its_set_that_cannot_be_moved_for_a_host_that_is_merely_better() {
    let mut scene = Scene::new(&["a", "b", "c"], &["db", "web"]);
    for guest in ["db", "web"] {
        scene.stage.run(guest, "c");
    }
    let guests = Guests::Named(vec![name("db"), name("web")]);
    rule(&mut scene, Rule::Together { guests, required: true, yields: None, weight: 0 });
    redeclare(&mut scene, |policies| {
        policies.policies.values_mut().for_each(|policy| policy.on_degraded = crate::model::OnDegraded::Migrate);
    });
    scene.evidence.hosts.get_mut(&host("c")).unwrap().unwell = Some("late".to_owned());
    scene.later(60_000);
    for guest in ["db", "web"] {
        scene.seen(guest, SightState::Passing);
    }
    let moved = |scene: &Scene| {
        let commands = scene.decide().commands.into_iter();
        let moved = commands.filter_map(|change| match change {
            Change::Migrate { guest, .. } => Some(guest.to_string()),
            _ => None,
        });
        moved.collect::<Vec<_>>()
    };
    assert_eq!(moved(&scene), ["db"], "the other one follows");
    scene.stage.state.guests.get_mut(&name("web")).unwrap().failed_moves = 3;
    assert_eq!(moved(&scene), ["web"], "where that does not go, db would come back to it, and leave again, for ever");
    set_mode(&mut scene, "c", Mode::Draining);
    assert_eq!(moved(&scene), ["db"], "whoever cannot stay goes");
}

/// `web` is slow on `a`, where `db` and `x` are kept together with it; what is decided for that is carried out, and `web` runs on `b`.
fn slow_one_of_three(cold: bool) -> Scene {
    let mut scene = Scene::new(&["a", "b"], &["db", "web", "x"]);
    for guest in ["db", "web", "x"] {
        scene.stage.run(guest, "a");
    }
    if cold {
        cold_only(&mut scene, "web");
    }
    let guests = Guests::Named(["db", "web", "x"].map(name).to_vec());
    rule(&mut scene, Rule::Together { guests, required: true, yields: None, weight: 0 });
    redeclare(&mut scene, |policies| {
        let policy = policies.policies.values_mut().next().unwrap();
        (policy.on_degraded, policy.cool_down) = (crate::model::OnDegraded::Migrate, Span::secs(60));
    });
    scene.later(60_000);
    for guest in ["db", "x"] {
        scene.seen(guest, SightState::Passing);
    }
    scene.seen("web", SightState::Slow);
    assert_eq!(scene.settle(), ["IncidentOpened", "Migrate"]);
    arrive(&mut scene, cold);
    scene.stage.must(Change::Verified { guest: name("web"), unasked: Vec::new() });
    assert_eq!(home(&scene, "web"), "b");
    scene
}

/// The guest that has set out from `a` comes to run on `b`.
fn arrive(scene: &mut Scene, cold: bool) {
    if cold {
        scene.stage.end("a", done());
        rest(scene, 1_000);
        assert_eq!(scene.settle(), ["Place"]);
        scene.stage.end("b", done());
    } else {
        for on in ["b", "a", "b", "a"] {
            scene.stage.end(on, done());
        }
    }
}

/// Who is moved now, and where to.
fn moves_to(scene: &Scene) -> Vec<(String, String)> {
    let moved = scene.decide().commands.into_iter().filter_map(|change| match change {
        Change::Migrate { guest, to, .. } => Some((guest.to_string(), to.to_string())),
        _ => None,
    });
    moved.collect()
}

/// Time passes, and what runs answers.
fn rest(scene: &mut Scene, ms: u64) {
    scene.later(ms);
    for guest in ["db", "web", "x"] {
        if home(scene, guest) != "nowhere" {
            scene.seen(guest, SightState::Passing);
        }
    }
}

#[test]
fn a_set_follows_the_one_of_it_that_was_slow_where_they_were_and_does_not_call_it_back() {
    for cold in [false, true] {
        let mut scene = slow_one_of_three(cold);
        rest(&mut scene, 11_000);
        assert_eq!(moves_to(&scene), [("db".to_owned(), "b".to_owned())], "{cold}");
        scene.settle();
        for on in ["b", "a", "b", "a"] {
            scene.stage.end(on, done());
        }
        scene.stage.must(Change::Verified { guest: name("db"), unasked: Vec::new() });
        rest(&mut scene, 1_000);
        assert_eq!(moves_to(&scene), [("x".to_owned(), "b".to_owned())], "{cold}");
    }
}

#[test]
fn a_set_does_not_follow_the_one_of_it_that_had_left_for_a_drain_which_has_ended() {
    for cold in [false, true] {
        let mut scene = Scene::new(&["a", "b"], &["db", "web", "x"]);
        for guest in ["db", "web", "x"] {
            scene.stage.run(guest, "a");
            if cold {
                cold_only(&mut scene, guest);
            }
        }
        let guests = Guests::Named(["db", "web", "x"].map(name).to_vec());
        rule(&mut scene, Rule::Together { guests, required: true, yields: None, weight: 0 });
        set_mode(&mut scene, "a", Mode::Draining);
        rest(&mut scene, 60_000);
        assert_eq!(scene.settle(), ["Migrate"], "{cold}");
        arrive(&mut scene, cold);
        let moved = ["db", "web", "x"].into_iter().find(|guest| home(&scene, guest) == "b").unwrap();
        scene.stage.must(Change::Verified { guest: name(moved), unasked: Vec::new() });
        set_mode(&mut scene, "a", Mode::Active);
        rest(&mut scene, 30_000);
        assert_eq!(moves_to(&scene), [(moved.to_owned(), "a".to_owned())], "{cold}");
    }
}

#[test]
fn a_move_is_denied_when_what_is_kept_together_cannot_follow() {
    let mut scene = together();
    rule(&mut scene, hosts_rule("db", &[("b", Score::Never)], false));
    let refused = scene.stage.refused(ask_move("web", "b"));
    assert!(matches!(refused, Refused::Target { why: Unfit::Rule { .. }, .. }), "its host is forbidden to db");
    let mut scene = together();
    want(&mut scene, "db", Wanted::Unmanaged);
    let refused = scene.stage.refused(ask_move("web", "b"));
    assert!(matches!(refused, Refused::Target { why: Unfit::Rule { .. }, .. }), "db is left alone");
    let mut scene = together();
    redeclare(&mut scene, |policies| policies.guests.get_mut(&name("db")).unwrap().qemu.memory_mib = 7_500);
    let refused = scene.stage.refused(ask_move("web", "b"));
    let no_room = Unfit::NoRoom { what: "memory_mib".to_owned(), free: 8_192, needed: 8_524 };
    assert!(matches!(&refused, Refused::Target { why, .. } if *why == no_room), "{refused}");
}

#[test]
fn whoever_asks_for_a_move_that_a_word_of_theirs_forbids_is_told_which_word_comes_first() {
    let first = |scene: &mut Scene| scene.stage.refused(ask_move("web", "b")).to_string();
    for (wanted, told) in [
        (Wanted::Stopped, ": `holdfast guest start web` comes first"),
        (Wanted::Unmanaged, ": `holdfast guest manage web` comes first"),
    ] {
        let mut scene = four();
        want(&mut scene, "web", wanted);
        let said = first(&mut scene);
        assert!(said.ends_with(told), "{said}");
    }
    let mut scene = four();
    suspend(&mut scene, true);
    let said = first(&mut scene);
    assert!(said.ends_with("deciding is suspended by ann: `holdfast resume` comes first"), "{said}");
}

#[test]
fn what_is_kept_together_through_others_has_to_follow_too() {
    let mut scene = Scene::new(&["a", "b"], &["db", "mail", "web"]);
    for guest in ["db", "mail", "web"] {
        scene.stage.run(guest, "a");
    }
    for pair in [["web", "db"], ["mail", "db"]] {
        let guests = Guests::Named(pair.map(name).to_vec());
        rule(&mut scene, Rule::Together { guests, required: true, yields: None, weight: 0 });
    }
    let before = scene.stage.state.clone();
    scene.stage.must(ask_move("web", "b"));
    scene.stage.state = before;
    rule(&mut scene, hosts_rule("mail", &[("b", Score::Never)], false));
    let refused = scene.stage.refused(ask_move("web", "b"));
    assert!(matches!(refused, Refused::Target { why: Unfit::Rule { .. }, .. }), "{refused}");
}

#[test]
fn a_guest_that_is_stopped_unmanaged_or_suspended_is_not_moved_and_one_in_maintenance_is() {
    let mut scene = four();
    suspend(&mut scene, true);
    assert!(matches!(scene.stage.refused(ask_move("web", "a")), Refused::Guest { .. }));
    suspend(&mut scene, false);
    for wanted in [Wanted::Stopped, Wanted::Unmanaged] {
        want(&mut scene, "web", wanted);
        assert!(matches!(scene.stage.refused(ask_move("web", "a")), Refused::Guest { .. }));
    }
    want(&mut scene, "web", Wanted::Running);
    set_mode(&mut scene, "d", Mode::Maintenance);
    cold_only(&mut scene, "web");
    scene.stage.must(ask_move("web", "a"));
    scene.stage.end("d", done());
    scene.later(1_000);
    assert_eq!(scene.settle(), ["Place"], "what an operator moves is not left down");
}

#[test]
fn a_waiting_guest_is_placed_where_an_operator_says() {
    let mut scene = Scene::new(&["a", "b", "c"], &["web"]);
    scene.stage.must(ask_move("web", "c"));
    scene.settle();
    assert_eq!(home(&scene, "web"), "c");
}

/// `web` prefers `d`, goes back there, and runs on `a`, where `moved` has put it.
fn away(moved: impl Fn(&mut Scene)) -> Scene {
    let mut scene = four();
    rule(&mut scene, hosts_rule("web", &[("d", Score::By(100))], false));
    redeclare(&mut scene, |policies| policies.guests.get_mut(&name("web")).unwrap().needs.failback = true);
    moved(&mut scene);
    scene.stage.end("a", done());
    scene.stage.end("d", done());
    scene.stage.end("a", done());
    scene.stage.end("d", done());
    scene.stage.must(Change::Verified { guest: name("web"), unasked: Vec::new() });
    assert_eq!(home(&scene, "web"), "a");
    scene.later(120_000);
    scene.seen("web", SightState::Passing);
    scene
}

#[test]
fn a_guest_that_fails_back_goes_to_the_host_that_it_prefers_when_that_is_well_again() {
    let mut scene = away(|scene| scene.stage.migrate("web", "a"));
    scene.stage.join("d", "d.2");
    scene.evidence.marks.applied(scene.stage.index, crate::time::Moment(scene.now));
    scene.later(30_000);
    scene.seen("web", SightState::Passing);
    assert_eq!(scene.words(), Vec::<String>::new(), "it could fall again at once");
    scene.later(31_000);
    scene.seen("web", SightState::Passing);
    assert_eq!(scene.settle(), ["Migrate"]);
    assert!(matches!(scene.stage.phase("web"), Phase::Migrating(m) if m.target.as_ref().unwrap().host == host("d")));
}

/// `web` is moved to where it likes to be when that has been well for a minute, and no sooner.
fn goes_when_calm(mut scene: Scene, from: &str, to: &str) {
    scene.evidence.hosts.get_mut(&host(to)).unwrap().unwell_at = Some(crate::time::Moment(scene.now));
    let mut moves_after = |ms: u64| {
        scene.later(ms);
        scene.seen("web", SightState::Passing);
        (home(&scene, "web"), scene.words().contains(&"Migrate".to_owned()))
    };
    assert_eq!(moves_after(30_000), (from.to_owned(), false), "it would leave again at once");
    assert_eq!(moves_after(31_000), (from.to_owned(), true));
}

#[test]
fn nobody_goes_to_a_host_for_liking_it_that_is_unwell_now_and_then() {
    goes_when_calm(away(|scene| scene.stage.migrate("web", "a")), "a", "d");
    let mut scene = four();
    redeclare(&mut scene, |policies| policies.guests.get_mut(&name("web")).unwrap().needs.failback = false);
    rule(&mut scene, hosts_rule("web", &[("a", Score::By(9_999))], false));
    scene.later(20_000);
    goes_when_calm(scene, "d", "a");
}

#[test]
fn a_guest_does_not_fail_back_to_a_host_where_it_does_not_start_before_that_has_booted_anew() {
    let mut scene = away(|scene| scene.stage.migrate("web", "a"));
    scene.stage.state.guests.get_mut(&name("web")).unwrap().shuns.insert(host("d"), crate::fixture::boot("d.1"));
    assert_eq!(scene.words(), Vec::<String>::new());
    scene.stage.join("d", "d.2");
    scene.evidence.marks.applied(scene.stage.index, crate::time::Moment(scene.now));
    scene.later(61_000);
    scene.seen("web", SightState::Passing);
    assert_eq!(scene.words(), ["Migrate"]);
}

#[test]
fn a_move_to_where_a_guest_is_merely_liked_better_is_tried_ever_more_seldom_while_it_fails() {
    let mut scene = four();
    redeclare(&mut scene, |policies| policies.guests.get_mut(&name("web")).unwrap().needs.failback = false);
    rule(&mut scene, hosts_rule("web", &[("a", Score::By(9_999))], false));
    let calm = |scene: &mut Scene, ms: u64| {
        scene.later(ms);
        scene.seen("web", SightState::Passing);
    };
    let moves = |scene: &Scene| scene.words().contains(&"Migrate".to_owned());
    calm(&mut scene, 20_000);
    for pause in [10_000, 20_000, 40_000] {
        assert!(moves(&scene), "{pause}");
        scene.settle();
        scene.stage.end("a", failed());
        scene.stage.end("a", done());
        calm(&mut scene, 5_000);
        scene.settle();
        calm(&mut scene, pause - 6_000);
        assert!(!moves(&scene), "{pause}");
        calm(&mut scene, 2_000);
    }
    let view = scene.stage.state.view_changed;
    scene.stage.must(Change::LookedAfter { guest: name("web"), by: "ann".to_owned() });
    assert_eq!(scene.stage.state.guests[&name("web")].failed_moves, 0, "it is tried anew");
    assert_eq!(scene.stage.state.view_changed, view, "R26: a voter that counts no moves refuses this");
}

#[test]
fn a_guest_that_takes_long_to_be_sent_is_tried_as_seldom_where_it_is_merely_liked_better() {
    for (large, pause) in [(false, 300_000), (true, 1_310_000)] {
        let mut scene = four();
        if large {
            grow(&mut scene, "web");
        }
        rule(&mut scene, hosts_rule("web", &[("a", Score::By(9_999))], false));
        scene.stage.state.guests.get_mut(&name("web")).unwrap().failed_moves = 20;
        let mut moves_after = |ms: u64| {
            scene.later(ms);
            scene.seen("web", SightState::Passing);
            scene.words().contains(&"Migrate".to_owned())
        };
        assert!(!moves_after(pause - 1_000), "{pause}");
        assert!(moves_after(2_000), "{pause}");
    }
}

#[test]
fn a_guest_that_does_not_fail_back_stays() {
    let mut scene = away(|scene| scene.stage.migrate("web", "a"));
    redeclare(&mut scene, |policies| policies.guests.get_mut(&name("web")).unwrap().needs.failback = false);
    assert_eq!(scene.words(), Vec::<String>::new());
}

#[test]
fn an_operators_move_is_not_undone_but_by_a_required_rule_or_a_drain() {
    let mut scene = away(|scene| scene.stage.must(ask_move("web", "a")));
    assert_eq!(scene.words(), Vec::<String>::new());
    scene.evidence.hosts.get_mut(&host("a")).unwrap().unwell = Some("late".to_owned());
    redeclare(&mut scene, |policies| {
        policies.policies.values_mut().for_each(|policy| policy.on_degraded = crate::model::OnDegraded::Migrate);
    });
    assert_eq!(scene.words(), Vec::<String>::new());
    let before = scene.stage.state.clone();
    rule(&mut scene, hosts_rule("web", &[("a", Score::Never)], false));
    assert_eq!(scene.words(), ["Migrate"]);
    scene.stage.state = before;
    set_mode(&mut scene, "a", Mode::Draining);
    assert_eq!(scene.words(), ["Migrate"]);
}

#[test]
fn a_drain_moves_cold_what_cannot_move_live_and_one_guest_at_a_time() {
    let mut scene = Scene::new(&["a", "b"], &["g1", "g2"]);
    for guest in ["g1", "g2"] {
        scene.stage.run(guest, "a");
        cold_only(&mut scene, guest);
    }
    set_mode(&mut scene, "a", Mode::Draining);
    let calm = |scene: &mut Scene| {
        scene.later(20_000);
        for guest in ["g1", "g2"] {
            if home(scene, guest) != "nowhere" {
                scene.seen(guest, SightState::Passing);
            }
        }
    };
    calm(&mut scene);
    assert_eq!(scene.settle(), ["Migrate"]);
    assert!(doing(&scene, "g2").ends_with("waits for another move to end, that of g1"), "{}", doing(&scene, "g2"));
    scene.stage.end("a", done());
    scene.later(1_000);
    scene.seen("g2", SightState::Passing);
    assert_eq!(scene.settle(), ["Place"], "the first one starts before the second one stops");
    calm(&mut scene);
    assert_eq!(scene.settle(), Vec::<String>::new());
    scene.stage.end("b", done());
    calm(&mut scene);
    assert_eq!(scene.settle(), ["Verified", "Migrate"]);
}

#[test]
fn a_drained_guest_that_has_nowhere_to_go_runs_on_and_says_what_holds_it() {
    let mut scene = Scene::new(&["a", "b"], &["web"]);
    scene.stage.run("web", "a");
    redeclare(&mut scene, |policies| policies.guests.get_mut(&name("web")).unwrap().qemu.memory_mib = 6_000);
    set_mode(&mut scene, "b", Mode::Maintenance);
    set_mode(&mut scene, "a", Mode::Draining);
    scene.later(20_000);
    scene.seen("web", SightState::Passing);
    assert_eq!(scene.settle(), ["IncidentOpened"]);
    assert_eq!(home(&scene, "web"), "a");
    let said = doing(&scene, "web");
    assert!(said.contains("a is being drained") && said.contains("b "), "{said}");
    set_mode(&mut scene, "a", Mode::Active);
    assert_eq!(scene.settle(), ["IncidentResolved"]);
}

#[test]
fn nobody_is_told_any_more_that_a_guest_cannot_leave_which_is_to_be_left_alone() {
    let mut scene = Scene::new(&["a", "b"], &["web"]);
    scene.stage.run("web", "a");
    set_mode(&mut scene, "b", Mode::Maintenance);
    set_mode(&mut scene, "a", Mode::Draining);
    scene.later(20_000);
    scene.seen("web", SightState::Passing);
    assert_eq!(scene.settle(), ["IncidentOpened"]);
    want(&mut scene, "web", Wanted::Unmanaged);
    assert_eq!(scene.settle(), ["IncidentResolved"]);
}

#[test]
fn a_guest_whose_ladder_is_at_its_end_does_not_hold_up_a_drain() {
    let mut scene = four();
    let page = scene.stage.climb("web", 3);
    scene.stage.must(page);
    set_mode(&mut scene, "d", Mode::Draining);
    scene.later(20_000);
    scene.seen("web", SightState::Failing);
    assert_eq!(scene.settle(), ["Migrate"]);
}

#[test]
fn whoever_drains_a_host_is_told_of_a_guest_there_that_has_ended_and_that_nobody_can_heal() {
    let mut scene = four();
    let page = scene.stage.climb("web", 3);
    scene.stage.must(page);
    set_mode(&mut scene, "d", Mode::Draining);
    scene.later(20_000);
    scene.report("web", "d", GuestCondition::Exited { detail: "killed".to_owned() });
    assert_eq!(scene.settle(), ["IncidentOpened"]);
    let told = scene.stage.state.open_incident("leave/web").unwrap().summary.clone();
    assert!(told.contains("d is being drained") && told.contains("killed"), "{told}");
    assert!(doing(&scene, "web").contains("d is being drained"), "{}", doing(&scene, "web"));
    set_mode(&mut scene, "d", Mode::Active);
    assert_eq!(scene.settle(), ["IncidentResolved"], "it may stay");
}

#[test]
fn a_move_whose_host_has_fallen_silent_is_given_up_and_frees_nobody() {
    let mut scene = four();
    scene.stage.migrate("web", "a");
    scene.later(1_000);
    scene.now += 59_000;
    for on in ["b", "c", "d"] {
        scene.synced(on, scene.now);
    }
    scene.heard("a", 100);
    assert!(scene.words().contains(&"OrderEnded".to_owned()), "{:?}", scene.words());
    for command in scene.decide().commands {
        scene.stage.apply(command);
    }
    assert_eq!(scene.stage.may_run("web"), ["a".to_owned(), "d".to_owned()].into(), "R8: until there is proof");
}

/// All can give guests longer to be sent, and this one has 32 GiB and so 1310 s for it; every host has room for it.
fn grow(scene: &mut Scene, guest: &str) {
    scene.stage.must(Change::LevelRaised { to: FeatureLevel::LONG_SENDS });
    scene.stage.state.hosts.values_mut().for_each(|host| host.facts.memory_mib = 65_536);
    redeclare(scene, |policies| policies.guests.get_mut(&name(guest)).unwrap().qemu.memory_mib = 32_768);
}

#[test]
fn a_large_guest_has_its_time_to_be_sent_and_other_moves_do_not_wait_for_it_where_its_host_is_not_heard() {
    let mut scene = Scene::new(&["a", "b", "c", "d"], &["big", "web"]);
    scene.stage.run("big", "d");
    scene.stage.run("web", "c");
    grow(&mut scene, "big");
    scene.stage.migrate("big", "a");
    scene.stage.end("a", done());
    set_mode(&mut scene, "c", Mode::Draining);
    scene.later(20_000);
    let mut words_after = |ms: u64| {
        scene.now += ms;
        for on in ["a", "b", "c"] {
            scene.synced(on, scene.now);
        }
        scene.heard("d", 100);
        scene.seen("web", SightState::Passing);
        (scene.words(), doing(&scene, "web"))
    };
    let moves = |words: &[String]| words.contains(&"Migrate".to_owned());
    let ends = |words: &[String]| words.contains(&"OrderEnded".to_owned());
    let (words, said) = words_after(329_000);
    assert!(!moves(&words) && said.contains("waits for another move to end"), "{words:?} {said}");
    let (words, said) = words_after(2_000);
    assert!(moves(&words) && !ends(&words), "it may be sending yet: {words:?} {said}");
    assert!(!ends(&words_after(980_000).0), "1310 s and 30 s since it was ordered are not over");
    assert!(ends(&words_after(10_000).0));
}

#[test]
fn a_guest_that_has_arrived_and_waits_for_the_word_of_a_silent_host_alone_holds_up_no_other_move() {
    let mut scene = Scene::new(&["a", "b", "c", "d"], &["db", "web"]);
    scene.stage.run("db", "d");
    scene.stage.run("web", "c");
    scene.stage.migrate("db", "a");
    // It is waited for, has been sent, and goes on; `d` is to say that nothing of it is left there.
    for on in ["a", "d", "a"] {
        scene.stage.end(on, done());
    }
    set_mode(&mut scene, "c", Mode::Draining);
    scene.later(20_000);
    scene.seen("web", SightState::Passing);
    let said = doing(&scene, "web");
    assert!(said.contains("waits for another move to end, that of db"), "{said}");
    scene.now += 10_000;
    for on in ["a", "b", "c"] {
        scene.synced(on, scene.now);
    }
    scene.heard("d", 100);
    scene.seen("web", SightState::Passing);
    assert!(scene.words().contains(&"Migrate".to_owned()), "{}", doing(&scene, "web"));
}

#[test]
fn a_guest_that_is_stopped_or_started_for_its_move_by_a_silent_host_holds_up_no_other_move() {
    for silent in ["d", "b"] {
        let mut scene = Scene::new(&["a", "b", "c", "d"], &["db", "web"]);
        scene.stage.run("db", "d");
        scene.stage.run("web", "c");
        cold_only(&mut scene, "db");
        scene.stage.migrate("db", "b");
        if silent == "b" {
            scene.stage.end("d", done());
            scene.stage.place("db", "b");
        }
        set_mode(&mut scene, "c", Mode::Draining);
        scene.later(20_000);
        scene.seen("web", SightState::Passing);
        let said = doing(&scene, "web");
        assert!(said.contains("waits for another move to end, that of db"), "{said}");
        scene.now += 10_000;
        for on in ["a", "b", "c", "d"].into_iter().filter(|on| *on != silent) {
            scene.synced(on, scene.now);
        }
        // Its supervisor is down, and for that nobody switches it off yet.
        scene.heard(silent, 100);
        scene.seen("web", SightState::Passing);
        assert!(scene.words().contains(&"Migrate".to_owned()), "{silent}: {}", doing(&scene, "web"));
    }
}

#[test]
fn a_guest_that_has_arrived_and_whose_remains_cannot_be_removed_holds_up_no_other_move() {
    let mut scene = Scene::new(&["a", "b", "c", "d"], &["db", "web"]);
    scene.stage.run("db", "d");
    scene.stage.run("web", "c");
    scene.stage.migrate("db", "a");
    for on in ["a", "d", "a"] {
        scene.stage.end(on, done());
    }
    scene.stage.end("d", failed());
    set_mode(&mut scene, "c", Mode::Draining);
    scene.later(20_000);
    scene.seen("web", SightState::Passing);
    assert!(scene.words().contains(&"Migrate".to_owned()), "{}", doing(&scene, "web"));
}

#[test]
fn a_guest_that_is_moved_does_not_take_the_last_room_at_its_target_twice() {
    let mut scene = four();
    cold_only(&mut scene, "web");
    // There is room for one of this size on each host, and it would be placed where it is going.
    redeclare(&mut scene, |policies| {
        policies.guests.get_mut(&name("web")).unwrap().qemu.memory_mib = 5_000;
    });
    rule(&mut scene, hosts_rule("web", &[("b", Score::By(100))], false));
    scene.stage.must(ask_move("web", "b"));
    scene.stage.end("d", done());
    scene.later(1_000);
    assert_eq!(scene.settle(), ["Place"], "{}", doing(&scene, "web"));
    assert_eq!(home(&scene, "web"), "b");
}

#[test]
fn a_guest_that_is_sent_says_how_far_it_has_come() {
    let mut scene = four();
    scene.stage.migrate("web", "a");
    scene.stage.end("a", done());
    scene.later(1_000);
    assert_eq!(doing(&scene, "web"), "moving from d to a");
    let sending = Some(crate::observe::Sending { round: 7, left_mib: 312, downtime_ms: 400 });
    scene.evidence.hosts.get_mut(&host("d")).unwrap().reports.get_mut(&name("web")).unwrap().sending = sending;
    let said = "moving from d to a; 312 MiB are left of round 7, and it stops once the rest takes no more than 400 ms";
    assert_eq!(doing(&scene, "web"), said);
}

/// `web` moves from `d` to `a`, and as much of its move has been done: nothing, or `a` waits for it.
fn under_way(waits: bool) -> Scene {
    let mut scene = four();
    scene.stage.must(Change::LevelRaised { to: FeatureLevel::HIGHEST });
    scene.stage.migrate("web", "a");
    if waits {
        scene.stage.end("a", done());
    }
    scene.later(1_000);
    scene
}

/// Both hosts do what is left of a move that was given up.
fn returned(scene: &mut Scene, waits: bool) {
    scene.stage.end("a", done());
    if waits {
        assert_eq!(scene.stage.orders("d").len(), 1, "the order to send is not open any more");
        scene.stage.end("d", done());
    }
    scene.later(1_000);
}

#[test]
fn a_guest_that_is_to_stop_while_it_moves_does_not_wait_for_the_end_of_its_move() {
    for waits in [false, true] {
        let mut scene = under_way(waits);
        want(&mut scene, "web", Wanted::Stopped);
        assert_eq!(scene.settle(), ["OrderEnded"], "{waits}");
        assert_eq!(scene.settle(), Vec::<String>::new(), "once is enough");
        assert!(doing(&scene, "web").contains("an operator wants the guest stopped"), "{}", doing(&scene, "web"));
        returned(&mut scene, waits);
        assert_eq!(home(&scene, "web"), "d");
        assert_eq!(scene.settle(), ["Stop"]);
    }
}

#[test]
fn a_move_that_has_switched_is_not_called_off() {
    let mut scene = under_way(true);
    scene.stage.end("d", done());
    want(&mut scene, "web", Wanted::Stopped);
    assert_eq!(scene.settle(), Vec::<String>::new());
    want(&mut scene, "web", Wanted::Running);
    let cold = Change::MoveAsked { guest: name("web"), to: host("b"), cold: true, by: "ann".to_owned() };
    assert!(matches!(scene.stage.refused(cold), Refused::Phase { .. }));
}

#[test]
fn an_operator_who_does_not_wait_for_a_live_move_has_the_guest_stopped_and_started_instead() {
    for waits in [false, true] {
        for to in ["a", "b"] {
            let mut scene = under_way(waits);
            scene.stage.must(Change::MoveAsked { guest: name("web"), to: host(to), cold: true, by: "ann".to_owned() });
            assert!(scene.settle().is_empty());
            assert_eq!(scene.stage.may_run("web"), ["a".to_owned(), "d".to_owned()].into(), "R8: until there is proof");
            returned(&mut scene, waits);
            assert!(matches!(scene.stage.phase("web"), Phase::Releasing { tenure, .. } if tenure.host == host("d")));
            assert_eq!(scene.stage.state.guests[&name("web")].failed_moves, 0, "it has not failed");
            scene.stage.end("d", done());
            scene.later(1_000);
            assert_eq!(scene.settle(), ["Place"]);
            assert_eq!(home(&scene, "web"), to);
        }
    }
}

#[test]
fn a_live_move_is_called_off_by_a_move_to_where_the_guest_runs() {
    for waits in [false, true] {
        let mut scene = under_way(waits);
        set_mode(&mut scene, "d", Mode::Draining);
        scene.stage.must(ask_move("web", "d"));
        returned(&mut scene, waits);
        assert!(matches!(scene.stage.phase("web"), Phase::Running { tenure, .. } if tenure.host == host("d")));
        assert_eq!(scene.stage.state.guests[&name("web")].failed_moves, 0, "it has not failed");
    }
}

#[test]
fn what_calls_a_move_off_is_refused_where_its_own_target_is_unfit_and_before_all_voters_know_it() {
    let cold = |to: &str| Change::MoveAsked { guest: name("web"), to: host(to), cold: true, by: "ann".to_owned() };
    let mut scene = under_way(true);
    set_mode(&mut scene, "b", Mode::Maintenance);
    assert!(matches!(scene.stage.refused(cold("b")), Refused::Target { .. }));
    assert!(matches!(scene.stage.refused(cold("x")), Refused::NoHost { .. }));
    for level in [FeatureLevel::BIRTH, FeatureLevel::REVOCATION] {
        let mut scene = four();
        scene.stage.state.level = level;
        scene.stage.migrate("web", "a");
        for change in [cold("b"), ask_move("web", "d")] {
            assert!(matches!(scene.stage.refused(change), Refused::Phase { .. }), "R26, level {level}");
        }
        want(&mut scene, "web", Wanted::Stopped);
        scene.later(1_000);
        assert!(scene.words().is_empty(), "R26: its host would hand it over all the same, level {level}");
    }
}

#[test]
fn whoever_stops_a_guest_that_was_to_be_moved_by_a_stop_and_a_start_finds_it_stopped() {
    let mut scene = under_way(true);
    scene.stage.must(Change::MoveAsked { guest: name("web"), to: host("b"), cold: true, by: "ann".to_owned() });
    want(&mut scene, "web", Wanted::Stopped);
    returned(&mut scene, true);
    assert_eq!(scene.settle(), ["Stop"]);
    scene.stage.end("d", done());
    scene.later(1_000);
    assert_eq!(scene.settle(), Vec::<String>::new());
    assert_eq!(scene.stage.state.guests[&name("web")].word(), "stopped");
}

#[test]
fn people_are_told_of_a_guest_whose_moves_off_a_drained_host_fail_again_and_again() {
    let mut scene = four();
    set_mode(&mut scene, "d", Mode::Draining);
    let calm = |scene: &mut Scene, ms: u64| {
        scene.later(ms);
        scene.seen("web", SightState::Passing);
    };
    calm(&mut scene, 20_000);
    for (failed_before, pause) in [(0, 10_000), (1, 10_000), (2, 20_000), (3, 40_000), (4, 60_000)] {
        assert!(scene.words().contains(&"Migrate".to_owned()), "after {failed_before}: {:?}", scene.words());
        scene.settle();
        let open = scene.stage.state.open_incident("leave/web");
        assert_eq!(open.is_some(), failed_before >= 3, "after {failed_before}");
        let target = scene.stage.migration("web").target.clone().unwrap().host.to_string();
        scene.stage.end(&target, failed());
        scene.stage.end(&target, done());
        calm(&mut scene, 1_000);
        scene.settle();
        calm(&mut scene, pause - 2_000);
        scene.settle();
        assert!(!scene.words().contains(&"Migrate".to_owned()), "after {failed_before}");
        calm(&mut scene, 2_000);
    }
    let told = scene.stage.state.open_incident("leave/web").unwrap();
    assert!(told.human.as_ref().unwrap().contains("`holdfast guest migrate web --cold`"), "{told:?}");
    set_mode(&mut scene, "d", Mode::Active);
    assert_eq!(scene.settle(), ["IncidentResolved"]);
}

/// `web` was sent from `d` to `a`, where it does not run; meanwhile `d` has been set to maintenance.
fn lost_off_a_host_in_maintenance(level: FeatureLevel, answers: [&str; 2]) -> Scene {
    let mut scene = four();
    scene.stage.state.level = level;
    scene.stage.migrate("web", "a");
    scene.stage.end("a", done());
    scene.stage.end("d", done());
    set_mode(&mut scene, "d", Mode::Maintenance);
    scene.stage.end("a", failed());
    for on in answers {
        scene.stage.end(on, done());
    }
    assert!(matches!(scene.stage.phase("web"), Phase::Free { .. }), "{answers:?}");
    scene.later(1_000);
    scene
}

#[test]
fn a_guest_whose_move_off_a_host_in_maintenance_has_failed_starts_elsewhere_whichever_host_answers_last() {
    for answers in [["a", "d"], ["d", "a"]] {
        let mut scene = lost_off_a_host_in_maintenance(FeatureLevel::SENT_AWAY, answers);
        assert_eq!(scene.settle(), ["Place"], "{answers:?}");
        assert_ne!(home(&scene, "web"), "d");
    }
    // What an earlier version refuses is not ordered before all voters do it (R26).
    let mut before = lost_off_a_host_in_maintenance(FeatureLevel::CALLED_OFF, ["a", "d"]);
    assert_eq!(before.settle(), Vec::<String>::new());
}
