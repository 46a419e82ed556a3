//! What running guests have to move, situation by situation.

use super::tests::{capacity, change, guest, named, placed, rule, scores};
use super::*;
use crate::{
    change::Change,
    fixture::{Stage, boot, done, failed, host, name},
    model::Policies,
    rules::{Hosts, Rule, Score},
    state::Mode,
};

/// Each move as `guest from to`.
fn wanted(stage: &Stage) -> Vec<String> {
    let problem = Problem::of(&stage.state, |_| Standing::Well);
    let word = |found: &Move| {
        let to = found.to.map_or("nowhere", |to| problem.host_name(to).as_str());
        format!("{} {} {to}", problem.guest_name(found.guest), problem.host_name(found.from))
    };
    moves(&problem, &Room::of(&problem)).iter().map(word).collect()
}

/// The same, with those that make way.
fn wanted_with_way(stage: &Stage) -> Vec<String> {
    wanted_with_way_but(stage, None)
}

/// The same, while one guest is left alone where it is.
fn wanted_with_way_but(stage: &Stage, left_alone: Option<&str>) -> Vec<String> {
    let problem = Problem::of(&stage.state, |_| Standing::Well);
    let mut found = moves(&problem, &Room::of(&problem));
    let may_go = |guest: &GuestName| left_alone.is_none_or(|other| *guest != name(other));
    make_way(&problem, &Room::of(&problem), &mut found, may_go);
    let to = |found: &Move| found.to.map_or("nowhere", |to| problem.host_name(to).as_str());
    found.iter().map(|found| format!("{} {}", problem.guest_name(found.guest), to(found))).collect()
}

fn likes(guests: &[&str], hosts: Hosts) -> Rule {
    Rule::Hosts { guests: named(guests), hosts, required: false }
}

#[test]
fn nothing_that_runs_is_disturbed_because_elsewhere_is_a_little_nicer() {
    let mut stage = Stage::new(&["a", "b"], &["g1", "g2"]);
    stage.run("g1", "a");
    stage.run("g2", "a");
    assert!(wanted(&stage).is_empty(), "room is no reason");
    rule(&mut stage, "liked", likes(&["g1"], scores(&[("b", Score::By(1_000))])));
    assert!(wanted(&stage).is_empty(), "as much as its stickiness is not more");
    rule(&mut stage, "liked", likes(&["g1"], scores(&[("b", Score::By(1_001))])));
    assert_eq!(wanted(&stage), ["g1 a b"]);
    rule(&mut stage, "liked", likes(&["g1"], scores(&[("b", Score::By(1))])));
    change(&mut stage, |policies| guest(policies, "g1").needs.failback = true);
    assert_eq!(wanted(&stage), ["g1 a b"], "it goes back");
}

#[test]
fn of_guests_that_would_rather_be_together_only_the_one_that_gives_way_moves_for_it() {
    let mut stage = Stage::new(&["a", "b"], &["g1", "g2"]);
    stage.run("g1", "a");
    stage.run("g2", "b");
    let together = |yields| Rule::Together { guests: named(&["g1", "g2"]), required: false, yields, weight: 2_000 };
    for (yields, expected) in [("g1", "g1 a b"), ("g2", "g2 b a")] {
        rule(&mut stage, "near", together(Some(name(yields))));
        assert_eq!(wanted(&stage), [expected]);
    }
    rule(&mut stage, "liked", likes(&["g2"], scores(&[("b", Score::By(3_000))])));
    assert!(wanted(&stage).is_empty(), "g2 gives way and is liked where it is, and g1 does not move for its sake");
}

/// A hundred guests that may be nowhere, and `x`, more important than they, that has to leave: all of them run on `a`.
fn with_many_stuck() -> (Stage, Vec<String>) {
    let stuck: Vec<String> = (0..100).map(|number| format!("s{number:02}")).collect();
    let guests: Vec<&str> = stuck.iter().map(String::as_str).collect();
    let mut stage = Stage::new(&["a", "b"], &[guests.as_slice(), &["x"]].concat());
    guests.iter().chain(&["x"]).for_each(|guest| stage.run(guest, "a"));
    rule(&mut stage, "nowhere", likes(&guests, scores(&[("a", Score::Never), ("b", Score::Never)])));
    rule(&mut stage, "leaves", likes(&["x"], scores(&[("a", Score::Never)])));
    change(&mut stage, |policies| guest(policies, "x").priority = 200);
    (stage, stuck)
}

#[test]
fn many_guests_that_can_go_nowhere_do_not_keep_another_from_being_looked_at_for_ever() {
    let (stage, stuck) = with_many_stuck();
    let is_found = |turn| {
        let problem = Problem::of(&stage.state, |_| Standing::Well).at_turn(turn);
        let Looked { moves, unseen } = look_for_moves(&problem, &Room::of(&problem));
        let x = problem.guest(&name("x")).unwrap();
        let goes = moves.iter().any(|found| found.guest == x && found.to.is_some());
        assert!(moves.len() <= 64 && goes != unseen.contains(&x), "{turn}");
        assert_eq!(moves.len() + unseen.len(), stuck.len() + 1, "each of them is to go, or was not looked at");
        goes
    };
    assert_eq!([0, 1, 2].map(is_found), [false, false, true]);
}

#[test]
fn a_large_set_that_can_go_nowhere_does_not_keep_others_from_being_looked_at() {
    let (mut stage, stuck) = with_many_stuck();
    let guests: Vec<&str> = stuck.iter().map(String::as_str).collect();
    let set = Rule::Together { guests: named(&guests[..70]), required: true, yields: None, weight: 0 };
    rule(&mut stage, "set", set);
    let problem = Problem::of(&stage.state, |_| Standing::Well);
    let Looked { moves, unseen } = look_for_moves(&problem, &Room::of(&problem));
    let x = problem.guest(&name("x")).unwrap();
    assert!(moves.iter().any(|found| found.guest == x && found.to.is_some()), "{moves:?}");
    assert!(unseen.is_empty(), "{unseen:?}");
}

#[test]
fn a_required_rule_that_a_running_guest_breaks_moves_it() {
    let mut stage = Stage::new(&["a", "b"], &["g1"]);
    stage.run("g1", "a");
    rule(&mut stage, "never", likes(&["g1"], scores(&[("a", Score::Never)])));
    assert_eq!(wanted(&stage), ["g1 a b"]);
    rule(&mut stage, "never", likes(&["g1"], scores(&[("a", Score::Never), ("b", Score::Never)])));
    assert_eq!(wanted(&stage), ["g1 a nowhere"]);
}

#[test]
fn of_guests_too_near_to_each_other_the_least_important_move() {
    let mut stage = Stage::new(&["a", "b", "c"], &["g1", "g2", "g3"]);
    for of in ["g1", "g2", "g3"] {
        stage.run(of, "a");
    }
    change(&mut stage, |policies| guest(policies, "g2").priority = 50);
    let all = || named(&["g1", "g2", "g3"]);
    rule(&mut stage, "apart", Rule::Apart { guests: all(), required: true, yields: None, weight: 0, by: None });
    assert_eq!(wanted(&stage), ["g2 a b", "g3 a c"]);
    let yields = Some(name("g1"));
    rule(&mut stage, "apart", Rule::Apart { guests: all(), required: true, yields, weight: 0, by: None });
    assert_eq!(wanted(&stage), ["g1 a b", "g2 a c"]);
}

#[test]
fn a_set_that_is_split_comes_together_where_most_of_it_is_and_moves_as_one() {
    let mut stage = Stage::new(&["a", "b", "c"], &["g1", "g2", "g3"]);
    stage.run("g1", "a");
    stage.run("g2", "b");
    stage.run("g3", "b");
    let guests = named(&["g1", "g2", "g3"]);
    rule(&mut stage, "set", Rule::Together { guests, required: true, yields: None, weight: 0 });
    assert_eq!(wanted(&stage), ["g1 a b"]);
    rule(&mut stage, "never", likes(&["g3"], scores(&[("a", Score::Never), ("b", Score::Never)])));
    assert_eq!(wanted(&stage), ["g1 a c", "g2 b c", "g3 b c"]);
}

#[test]
fn a_set_that_is_split_comes_together_where_those_are_that_do_not_give_way() {
    let mut stage = Stage::new(&["a", "b", "c"], &["g1", "g2", "g3"]);
    stage.run("g1", "a");
    stage.run("g2", "b");
    stage.run("g3", "c");
    let together = |guests: &[&str], yields: &str| Rule::Together {
        guests: named(guests),
        required: true,
        yields: Some(name(yields)),
        weight: 0,
    };
    rule(&mut stage, "set", together(&["g1", "g2"], "g1"));
    assert_eq!(wanted(&stage), ["g1 a b"]);
    rule(&mut stage, "set", together(&["g1", "g2"], "g2"));
    assert_eq!(wanted(&stage), ["g2 b a"]);
    rule(&mut stage, "chain", together(&["g2", "g3"], "g3"));
    assert_eq!(wanted(&stage), ["g2 b a", "g3 c a"], "who gives way to one that gives way comes along");
    let mut stage = Stage::new(&["a", "b"], &["g1", "g2", "g3"]);
    for (of, on) in [("g1", "a"), ("g2", "a"), ("g3", "b")] {
        stage.run(of, on);
    }
    rule(&mut stage, "set", together(&["g1", "g3"], "g1"));
    rule(&mut stage, "chain", together(&["g1", "g2"], "g2"));
    assert_eq!(wanted(&stage), ["g1 a b", "g2 a b"], "although most of it is elsewhere");
}

#[test]
fn who_is_left_out_of_a_set_that_moves_is_not_started_where_the_set_leaves() {
    let mut stage = Stage::new(&["a", "b"], &["g1", "g2", "g3"]);
    change(&mut stage, |policies| {
        for (on, much) in [("a", 3), ("b", 4)] {
            capacity(policies, on, "gpus", much);
        }
        for (of, much) in [("g1", 2), ("g2", 2), ("g3", 1)] {
            guest(policies, of).needs.demand.insert("gpus".to_owned(), much);
        }
    });
    stage.run("g1", "a");
    let guests = named(&["g1", "g2", "g3"]);
    rule(&mut stage, "set", Rule::Together { guests, required: true, yields: None, weight: 0 });
    let words: Vec<String> = placed(&stage).into_values().collect();
    assert_eq!(words, ["b later", "nowhere"], "g1 and g2 have room on b, and g3 would be alone on a");
}

#[test]
fn who_starts_beside_its_set_has_its_place_before_those_that_have_other_hosts() {
    let mut stage = Stage::new(&["a", "b"], &["g1", "g2", "old"]);
    change(&mut stage, |policies| {
        for (on, much) in [("a", 2), ("b", 1)] {
            capacity(policies, on, "gpus", much);
        }
        for of in ["g1", "g2", "old"] {
            guest(policies, of).needs.demand.insert("gpus".to_owned(), 1);
        }
    });
    stage.run("old", "a");
    let guests = named(&["g2", "old"]);
    rule(&mut stage, "set", Rule::Together { guests, required: true, yields: None, weight: 0 });
    rule(&mut stage, "liked", likes(&["g1"], scores(&[("a", Score::By(5))])));
    let words: Vec<String> = placed(&stage).into_values().collect();
    assert_eq!(words, ["b", "a"], "g1 would like a");
}

#[test]
fn who_starts_beside_a_set_that_has_to_move_has_as_many_hosts_as_the_set() {
    let mut stage = Stage::new(&["a", "b", "c"], &["g1", "g2", "old"]);
    change(&mut stage, |policies| {
        for on in ["b", "c"] {
            capacity(policies, on, "gpus", 2);
        }
        for of in ["g1", "g2", "old"] {
            guest(policies, of).needs.demand.insert("gpus".to_owned(), 1);
        }
    });
    stage.run("old", "a");
    let guests = named(&["g2", "old"]);
    rule(&mut stage, "set", Rule::Together { guests, required: true, yields: None, weight: 0 });
    rule(&mut stage, "liked", likes(&["g2"], scores(&[("b", Score::By(5))])));
    let hosts = scores(&[("b", Score::Must)]);
    rule(&mut stage, "only", Rule::Hosts { guests: named(&["g1"]), hosts, required: true });
    stage.must(Change::ModeSet { host: host("a"), mode: Mode::Draining, by: "ann".to_owned() });
    let words: Vec<String> = placed(&stage).into_values().collect();
    assert_eq!(words, ["b", "c later"], "g1 has no other host, and the set would like b");
}

#[test]
fn a_set_that_has_begun_to_move_to_where_it_is_liked_better_does_not_turn_round() {
    for (begun, expected) in [("a", vec!["g1 a b", "g2 a b", "g3 a b"]), ("b", vec!["g2 a b", "g3 a b"])] {
        let mut stage = Stage::new(&["a", "b"], &["g1", "g2", "g3"]);
        for (of, on) in [("g1", begun), ("g2", "a"), ("g3", "a")] {
            stage.run(of, on);
        }
        let guests = named(&["g1", "g2", "g3"]);
        rule(&mut stage, "set", Rule::Together { guests, required: true, yields: None, weight: 0 });
        rule(&mut stage, "liked", likes(&["g1"], scores(&[("b", Score::By(9_999))])));
        assert_eq!(wanted(&stage), expected);
    }
}

#[test]
fn a_set_follows_the_one_of_it_that_was_sent_elsewhere_last_for_its_own_sake() {
    let mut stage = Stage::new(&["a", "b"], &["db", "web", "x"]);
    for (of, on) in [("db", "a"), ("web", "b"), ("x", "a")] {
        stage.run(of, on);
    }
    let guests = named(&["db", "web", "x"]);
    rule(&mut stage, "set", Rule::Together { guests, required: true, yields: None, weight: 0 });
    assert_eq!(wanted(&stage), ["web b a"], "most of it is there");
    let sent = |to: &[(&str, u64)]| {
        let problem = Problem::of(&stage.state, |_| Standing::Well);
        let at = |of: &str| problem.guest(&name(of)).unwrap();
        let arrived: BTreeMap<GuestAt, u64> = to.iter().map(|&(of, index)| (at(of), index)).collect();
        let problem = problem.with_arrivals(arrived);
        let moves = moves(&problem, &Room::of(&problem));
        moves.iter().map(|found| problem.guest_name(found.guest).to_string()).collect::<Vec<_>>()
    };
    assert_eq!(sent(&[("web", 7)]), ["db", "x"]);
    assert_eq!(sent(&[("web", 7), ("db", 8)]), ["web"], "the newest counts");
}

#[test]
fn nobody_follows_the_one_of_a_set_that_is_named_as_the_one_that_moves() {
    let mut stage = Stage::new(&["a", "b"], &["db", "web"]);
    stage.run("db", "a");
    stage.run("web", "b");
    for (yields, expected) in [(None, "db"), (Some("db"), "db"), (Some("web"), "web")] {
        let guests = named(&["db", "web"]);
        rule(&mut stage, "set", Rule::Together { guests, required: true, yields: yields.map(name), weight: 0 });
        let problem = Problem::of(&stage.state, |_| Standing::Well);
        let web = problem.guest(&name("web")).unwrap();
        let problem = problem.with_arrivals([(web, 7)].into());
        let found = moves(&problem, &Room::of(&problem));
        let moved: Vec<&str> = found.iter().map(|found| problem.guest_name(found.guest).as_str()).collect();
        assert_eq!(moved, [expected], "{yields:?}");
    }
}

/// An operator's live move from one host to another, carried out.
fn moved(stage: &mut Stage, of: &str, from: &str, to: &str) {
    stage.must(Change::MoveAsked { guest: name(of), to: host(to), cold: false, by: "ann".to_owned() });
    for on in [to, from, to, from] {
        stage.end(on, done());
    }
}

#[test]
fn a_set_follows_the_one_that_an_operator_has_moved_last() {
    let mut stage = Stage::new(&["a", "b", "c"], &["g1", "g2", "g3"]);
    for of in ["g1", "g2", "g3"] {
        stage.run(of, "a");
    }
    let guests = named(&["g1", "g2", "g3"]);
    rule(&mut stage, "set", Rule::Together { guests, required: true, yields: None, weight: 0 });
    moved(&mut stage, "g2", "a", "c");
    assert_eq!(wanted(&stage), ["g1 a c", "g3 a c"], "most of it is elsewhere, and follows");
    moved(&mut stage, "g3", "a", "b");
    assert_eq!(wanted(&stage), ["g1 a b", "g2 c b"], "the newest word counts");
    rule(&mut stage, "never", likes(&["g1"], scores(&[("b", Score::Never)])));
    assert_eq!(wanted(&stage), ["g1 a c", "g3 b c"], "where not all of it can be, it does not come together");
    for of in ["g1", "g3"] {
        moved(&mut stage, of, if of == "g1" { "a" } else { "b" }, "c");
    }
    rule(&mut stage, "liked", likes(&["g1"], scores(&[("a", Score::By(9_999))])));
    change(&mut stage, |policies| guest(policies, "g1").needs.failback = true);
    assert!(wanted(&stage).is_empty(), "it does not go back from where it was put");
}

#[test]
fn a_set_comes_to_the_one_of_it_that_cannot_be_moved_wherever_an_operator_has_put_another() {
    let mut stage = Stage::new(&["a", "b"], &["g1", "g2", "g3"]);
    for of in ["g1", "g2", "g3"] {
        stage.run(of, "a");
    }
    let guests = named(&["g1", "g2", "g3"]);
    rule(&mut stage, "set", Rule::Together { guests, required: true, yields: None, weight: 0 });
    moved(&mut stage, "g1", "a", "b");
    assert_eq!(wanted(&stage), ["g2 a b", "g3 a b"], "they follow it");
    stage.state.guests.get_mut(&name("g3")).unwrap().failed_moves = 2;
    assert_eq!(wanted(&stage), ["g2 a b", "g3 a b"], "it is tried once more");
    stage.state.guests.get_mut(&name("g3")).unwrap().failed_moves = 3;
    assert_eq!(wanted(&stage), ["g1 b a"], "it does not follow");
    let before = stage.state.clone();
    stage.state.guests.get_mut(&name("g1")).unwrap().shuns.insert(host("a"), boot("a.1"));
    assert_eq!(wanted(&stage), ["g2 a b", "g3 a b"], "nobody is taken to where it does not start");
    stage.state = before;
    rule(&mut stage, "never", likes(&["g1"], scores(&[("a", Score::Never)])));
    assert_eq!(wanted(&stage), ["g2 a b", "g3 a b"], "where not all of it can be, it does not come together");
}

#[test]
fn a_set_goes_to_where_it_is_liked_better_only_after_the_one_of_it_whose_moves_fail() {
    let mut stage = Stage::new(&["a", "b"], &["g1", "g2"]);
    stage.run("g1", "a");
    stage.run("g2", "a");
    let guests = named(&["g1", "g2"]);
    rule(&mut stage, "set", Rule::Together { guests, required: true, yields: None, weight: 0 });
    rule(&mut stage, "liked", likes(&["g1"], scores(&[("b", Score::By(9_999))])));
    assert_eq!(wanted(&stage), ["g1 a b", "g2 a b"]);
    stage.state.guests.get_mut(&name("g2")).unwrap().failed_moves = 3;
    assert_eq!(wanted(&stage), ["g2 a b"], "the other one would have to come back");
}

#[test]
fn a_move_goes_only_where_there_is_room() {
    let mut stage = Stage::new(&["a", "b"], &["g1", "old"]);
    change(&mut stage, |policies| guest(policies, "old").qemu.memory_mib = 8_000);
    stage.run("old", "b");
    stage.run("g1", "a");
    rule(&mut stage, "liked", likes(&["g1"], scores(&[("b", Score::By(9_999))])));
    assert!(wanted(&stage).is_empty());
    assert_eq!(stage.may_run("g1").into_iter().collect::<Vec<_>>(), [host("a").to_string()]);
}

/// `g1` runs on `a` and may run on `b` alone, where `g2` is; `g3` runs nowhere.
fn kept_from_b() -> Stage {
    let mut stage = Stage::new(&["a", "b", "c"], &["g1", "g2", "g3"]);
    stage.run("g1", "a");
    stage.run("g2", "c");
    moved(&mut stage, "g2", "c", "b");
    stage.state.guests.get_mut(&name("g2")).unwrap().settled = None;
    stage.must(Change::Verified { guest: name("g2"), unasked: Vec::new() });
    rule(&mut stage, "never", likes(&["g1"], scores(&[("a", Score::Never), ("c", Score::Never)])));
    stage
}

#[test]
fn whoever_keeps_a_guest_from_the_only_hosts_that_rules_leave_it_makes_way() {
    let apart = || Rule::Apart { guests: named(&["g1", "g2"]), required: true, yields: None, weight: 0, by: None };
    let crowd = |policies: &mut Policies| {
        for of in ["g1", "g2"] {
            guest(policies, of).qemu.memory_mib = 5_000;
        }
    };
    for by_room in [true, false] {
        let mut stage = kept_from_b();
        assert_eq!(wanted_with_way(&stage), ["g1 b"], "nobody is in its way");
        if by_room {
            change(&mut stage, crowd);
        } else {
            rule(&mut stage, "apart", apart());
        }
        assert_eq!(wanted(&stage), ["g1 a nowhere"]);
        assert_eq!(wanted_with_way(&stage), ["g1 nowhere", "g2 c"]);
        let before = stage.state.clone();
        change(&mut stage, |policies| guest(policies, "g2").priority = 10_000);
        assert_eq!(wanted_with_way(&stage), ["g1 nowhere"], "it is more important");
        stage.state = before.clone();
        stage.state.guests.get_mut(&name("g2")).unwrap().settled = Some(host("b"));
        assert_eq!(wanted_with_way(&stage), ["g1 nowhere"], "an operator has put it there");
        stage.state = before.clone();
        stage.state.guests.get_mut(&name("g1")).unwrap().failed_moves = 3;
        assert_eq!(wanted_with_way(&stage), ["g1 nowhere"], "it would not come");
        stage.state = before;
        rule(&mut stage, "stays", likes(&["g2"], scores(&[("c", Score::Never)])));
        assert_eq!(wanted_with_way(&stage), ["g1 nowhere"], "it has nowhere to go either");
    }
}

#[test]
fn nobody_makes_way_for_a_guest_that_is_left_alone_and_who_could_not_go_is_not_asked() {
    let apart = Rule::Apart { guests: named(&["g1", "g2"]), required: true, yields: None, weight: 0, by: None };
    let mut stage = kept_from_b();
    rule(&mut stage, "apart", apart);
    assert_eq!(wanted_with_way(&stage), ["g1 nowhere", "g2 c"]);
    assert_eq!(wanted_with_way_but(&stage, Some("g1")), ["g1 nowhere"]);
    stage.state.guests.get_mut(&name("g2")).unwrap().failed_moves = 3;
    assert_eq!(wanted_with_way(&stage), ["g1 nowhere"], "its moves fail again and again");
}

#[test]
fn what_cannot_be_removed_after_a_move_keeps_nobody_from_making_way() {
    let mut stage = kept_from_b();
    let apart = Rule::Apart { guests: named(&["g1", "g2"]), required: true, yields: None, weight: 0, by: None };
    rule(&mut stage, "apart", apart);
    stage.run("g3", "c");
    stage.migrate("g3", "a");
    assert_eq!(wanted_with_way(&stage), ["g1 nowhere"], "it may be the one that makes way");
    // Its target was not ready, and what is left of it there is still there.
    for _ in 0..2 {
        stage.end("a", failed());
    }
    assert_eq!(wanted_with_way(&stage), ["g1 nowhere", "g2 c"]);
}

#[test]
fn a_guest_that_has_made_way_does_not_come_back_before_the_other_one_has_gone_there() {
    let mut stage = Stage::new(&["a", "b", "c"], &["g1", "g2"]);
    stage.run("g1", "a");
    stage.run("g2", "c");
    rule(&mut stage, "never", likes(&["g1"], scores(&[("a", Score::Never), ("c", Score::Never)])));
    let apart = Rule::Apart { guests: named(&["g1", "g2"]), required: true, yields: None, weight: 0, by: None };
    rule(&mut stage, "apart", apart);
    rule(&mut stage, "liked", likes(&["g2"], scores(&[("b", Score::By(9_999))])));
    assert_eq!(wanted(&stage), ["g2 c b", "g1 a nowhere"]);
    assert_eq!(wanted_with_way(&stage), ["g1 b"]);
    assert_eq!(
        wanted_with_way_but(&stage, Some("g1")),
        ["g2 b", "g1 nowhere"],
        "nobody waits for one that does not go"
    );
}
