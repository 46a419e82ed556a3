//! Placing, situation by situation.

use std::collections::BTreeMap;

use super::*;
use crate::{
    change::Change,
    fixture::{Stage, done, failed, host, name},
    model::{GuestDeclaration, Policies},
    names::RuleName,
    rules::{Guests, Hosts, Rule, Score},
    state::{MigrationStep, Mode, Wanted},
};

pub fn change(stage: &mut Stage, how: impl FnOnce(&mut Policies)) {
    let mut policies = stage.state.policies.clone();
    how(&mut policies);
    stage.declare(policies);
}

pub fn guest<'a>(policies: &'a mut Policies, of: &str) -> &'a mut GuestDeclaration {
    policies.guests.get_mut(&name(of)).unwrap()
}

pub fn rule(stage: &mut Stage, of: &str, rule: Rule) {
    change(stage, |policies| {
        policies.rules.insert(RuleName::new(of).unwrap(), rule);
    });
}

pub fn capacity(policies: &mut Policies, on: &str, what: &str, much: u64) {
    policies.hosts.entry(host(on)).or_default().capacity.insert(what.to_owned(), much);
}

pub fn named(guests: &[&str]) -> Guests {
    Guests::Named(guests.iter().map(|text| name(text)).collect())
}

pub fn scores(scores: &[(&str, Score)]) -> Hosts {
    Hosts::Named(scores.iter().map(|(on, score)| (host(on), *score)).collect())
}

fn together(guests: &[&str]) -> Rule {
    Rule::Together { guests: named(guests), required: true, yields: None, weight: 0 }
}

fn apart(guests: &[&str]) -> Rule {
    Rule::Apart { guests: named(guests), required: true, yields: None, weight: 0, by: None }
}

fn only(guests: &[&str], on: &str) -> Rule {
    Rule::Hosts { guests: named(guests), hosts: scores(&[(on, Score::Must)]), required: true }
}

/// What becomes of the homeless: `host`, `host later`, or `nowhere`.
pub fn placed(stage: &Stage) -> BTreeMap<String, String> {
    let problem = Problem::of(&stage.state, |_| Standing::Well);
    let ask = Ask { guests: problem.homeless(), ..Ask::default() };
    let placement = place(&problem, &mut Room::of(&problem), &ask);
    let places = placement.places.iter();
    places.map(|(guest, place)| (problem.guest_name(*guest).to_string(), in_words(&problem, place))).collect()
}

pub fn in_words(problem: &Problem<'_>, place: &Place) -> String {
    match place {
        Place::On { host, .. } => problem.host_name(*host).to_string(),
        Place::Later { host, .. } => format!("{} later", problem.host_name(*host)),
        Place::Nowhere { .. } => "nowhere".to_owned(),
    }
}

fn words(stage: &Stage) -> Vec<String> {
    placed(stage).into_values().collect()
}

pub fn told(stage: &Stage, of: &str) -> String {
    let problem = Problem::of(&stage.state, |_| Standing::Well);
    let ask = Ask { guests: problem.homeless(), ..Ask::default() };
    let placement = place(&problem, &mut Room::of(&problem), &ask);
    match &placement.places[&problem.guest(&name(of)).unwrap()] {
        Place::On { why, .. } => why.to_string(),
        Place::Later { until, .. } => problem.until(until),
        Place::Nowhere { reasons } => reasons.to_string(),
    }
}

#[test]
fn guests_spread_over_equal_hosts() {
    let stage = Stage::new(&["a", "b", "c"], &["g1", "g2", "g3"]);
    assert_eq!(words(&stage), ["a", "b", "c"]);
}

#[test]
fn a_host_that_is_full_is_said_to_be_full_and_by_how_much() {
    let mut stage = Stage::new(&["a", "b"], &["web"]);
    change(&mut stage, |policies| guest(policies, "web").qemu.memory_mib = 9_000);
    assert_eq!(told(&stage, "web"), "a, b: the best of them has 8192 MiB of memory left, 9000 MiB are needed");
}

#[test]
fn declared_capacities_are_hard_and_what_is_not_declared_is_not_limited() {
    let mut stage = Stage::new(&["a", "b"], &["g1", "g2"]);
    change(&mut stage, |policies| {
        capacity(policies, "a", "gpus", 1);
        for of in ["g1", "g2"] {
            guest(policies, of).needs.demand.insert("gpus".to_owned(), 1);
            guest(policies, of).needs.demand.insert("floppies".to_owned(), 99);
        }
        capacity(policies, "b", "gpus", 0);
    });
    assert_eq!(words(&stage), ["a", "nowhere"]);
}

#[test]
fn processors_are_a_weight_unless_they_are_declared() {
    let mut stage = Stage::new(&["a", "b"], &["g1", "g2", "g3"]);
    change(&mut stage, |policies| {
        guest(policies, "g1").qemu.cpus = 64;
        guest(policies, "g2").qemu.cpus = 8;
        guest(policies, "g1").priority = 200;
    });
    assert_eq!(words(&stage), ["a", "b", "b"], "overcommitted, and not refused");
    change(&mut stage, |policies| capacity(policies, "a", "cpus", 8));
    assert_eq!(words(&stage), ["b", "a", "b"], "hard where it is declared");
}

#[test]
fn a_required_host_is_kept_although_others_have_more_room() {
    let mut stage = Stage::new(&["a", "b", "c"], &["web", "old"]);
    stage.run("old", "b");
    rule(&mut stage, "there", only(&["web"], "b"));
    assert_eq!(placed(&stage)["web"], "b");
    assert!(told(&stage, "web").contains("no other host"), "{}", told(&stage, "web"));
    stage.must(crate::change::Change::ModeSet { host: host("b"), mode: Mode::Draining, by: "ann".to_owned() });
    assert_eq!(told(&stage, "web"), "a, c: each is ruled out by there; b is being drained");
}

#[test]
fn a_must_that_names_no_joined_host_leaves_no_host() {
    let mut stage = Stage::new(&["a"], &["web"]);
    rule(&mut stage, "there", only(&["web"], "z"));
    assert_eq!(words(&stage), ["nowhere"]);
}

#[test]
fn the_highest_available_weight_wins_before_room() {
    let mut stage = Stage::new(&["a", "b", "c"], &["web", "old"]);
    stage.run("old", "b");
    let hosts = scores(&[("b", Score::By(20)), ("c", Score::By(10)), ("a", Score::Never)]);
    rule(&mut stage, "liked", Rule::Hosts { guests: named(&["web"]), hosts, required: false });
    assert_eq!(placed(&stage)["web"], "b");
    let gone = stage.gone("b");
    stage.must(gone);
    assert_eq!(placed(&stage)["web"], "c");
    let gone = stage.gone("c");
    stage.must(gone);
    assert_eq!(placed(&stage)["web"], "nowhere");
}

#[test]
fn a_set_is_placed_as_one_where_its_most_bound_member_must_be() {
    let mut stage = Stage::new(&["a", "b", "c"], &["g1", "g2"]);
    rule(&mut stage, "bound", only(&["g2"], "c"));
    rule(&mut stage, "set", together(&["g1", "g2"]));
    assert_eq!(words(&stage), ["c", "c"]);
}

#[test]
fn a_set_that_fits_on_no_host_leaves_out_who_yields() {
    let mut stage = Stage::new(&["a", "b"], &["g1", "g2", "g3"]);
    change(&mut stage, |policies| {
        for of in ["g1", "g2", "g3"] {
            guest(policies, of).qemu.memory_mib = 4_000;
        }
        guest(policies, "g3").priority = 300;
    });
    rule(&mut stage, "set", together(&["g1", "g2", "g3"]));
    assert_eq!(words(&stage), ["a", "nowhere", "a"]);
    assert!(told(&stage, "g2").contains("b is not where g"), "{}", told(&stage, "g2"));
    let yields = Some(name("g3"));
    rule(&mut stage, "set", Rule::Together { guests: named(&["g1", "g2", "g3"]), required: true, yields, weight: 0 });
    assert_eq!(words(&stage), ["a", "a", "nowhere"]);
}

#[test]
fn a_member_joins_its_set_where_it_runs_and_the_set_moves_as_one_when_that_cannot_be() {
    let mut stage = Stage::new(&["a", "b"], &["g1", "g2"]);
    stage.run("g1", "b");
    rule(&mut stage, "set", together(&["g1", "g2"]));
    assert_eq!(placed(&stage)["g2"], "b");
    for _ in 0..2 {
        stage.place("g2", "b");
        stage.end("b", failed());
        stage.end("b", done());
    }
    assert_eq!(placed(&stage)["g2"], "a later");
    assert!(told(&stage, "g2").contains("g1 is to move there first"), "{}", told(&stage, "g2"));
}

#[test]
fn guests_kept_apart_share_no_host_and_no_label() {
    let mut stage = Stage::new(&["a", "b", "c"], &["g1", "g2", "g3"]);
    rule(&mut stage, "apart", apart(&["g1", "g2", "g3"]));
    assert_eq!(words(&stage), ["a", "b", "c"]);
    change(&mut stage, |policies| {
        for on in ["a", "b"] {
            policies.hosts.entry(host(on)).or_default().labels.insert("rack".to_owned(), "r1".to_owned());
        }
    });
    let by = Some("rack".to_owned());
    rule(
        &mut stage,
        "apart",
        Rule::Apart { guests: named(&["g1", "g2", "g3"]), required: true, yields: None, weight: 0, by },
    );
    assert_eq!(words(&stage), ["a", "c", "nowhere"]);
    assert!(
        told(&stage, "g3").contains("each has a rack with a guest that apart keeps apart"),
        "{}",
        told(&stage, "g3")
    );
}

#[test]
fn of_guests_kept_apart_the_one_that_yields_waits() {
    let mut stage = Stage::new(&["a"], &["g1", "g2"]);
    let yields = Some(name("g1"));
    rule(
        &mut stage,
        "apart",
        Rule::Apart { guests: named(&["g1", "g2"]), required: true, yields, weight: 0, by: None },
    );
    assert_eq!(words(&stage), ["nowhere", "a"]);
}

#[test]
fn a_guest_that_moves_keeps_others_away_from_both_hosts() {
    let mut stage = Stage::new(&["a", "b", "c"], &["g1", "g2"]);
    stage.run("g1", "a");
    rule(&mut stage, "apart", apart(&["g1", "g2"]));
    stage.migrate("g1", "b");
    assert_eq!(placed(&stage)["g2"], "c");
}

#[test]
fn preferred_rules_give_way_the_smallest_weight_first() {
    let mut stage = Stage::new(&["a", "b"], &["g1", "g2", "old"]);
    stage.run("old", "b");
    rule(
        &mut stage,
        "near",
        Rule::Together { guests: named(&["g1", "old"]), required: false, yields: None, weight: 5 },
    );
    assert_eq!(placed(&stage)["g1"], "b");
    let far = Rule::Apart { guests: named(&["g1", "old"]), required: false, yields: None, weight: 6, by: None };
    rule(&mut stage, "far", far);
    assert_eq!(placed(&stage)["g1"], "a");
}

#[test]
fn a_place_for_all_is_found_where_the_greedy_choice_would_leave_one_out() {
    let mut stage = Stage::new(&["a", "b"], &["g1", "g2", "g3", "g4"]);
    change(&mut stage, |policies| {
        // 3 + 5 and 4 + 4 fit; by priority and room it is 3 + 4 and 4, and the 5 finds nothing.
        for (of, memory, priority) in [("g1", 3_000, 400), ("g2", 4_000, 300), ("g3", 4_000, 200), ("g4", 5_000, 100)] {
            guest(policies, of).qemu.memory_mib = memory;
            guest(policies, of).priority = priority;
        }
    });
    let found = placed(&stage);
    assert!(found.values().all(|word| word != "nowhere"), "{found:?}");
    assert_ne!(found["g1"].get(..1), found["g2"].get(..1));
}

#[test]
fn with_scarcity_the_higher_priority_runs_and_what_runs_is_not_disturbed() {
    let mut stage = Stage::new(&["a"], &["old", "low", "high"]);
    change(&mut stage, |policies| {
        for of in ["old", "low", "high"] {
            guest(policies, of).qemu.memory_mib = 4_096;
        }
        guest(policies, "high").priority = 500;
    });
    stage.run("old", "a");
    assert_eq!(
        placed(&stage),
        BTreeMap::from([("high", "a"), ("low", "nowhere")].map(|(of, word)| (of.to_owned(), word.to_owned())))
    );
    stage.run("low", "a");
    assert_eq!(placed(&stage)["high"], "nowhere");
}

#[test]
fn a_running_guest_of_best_effort_gives_way_and_room_is_waited_for() {
    let mut stage = Stage::new(&["a", "b"], &["spare", "dear", "high"]);
    change(&mut stage, |policies| {
        for of in ["spare", "dear", "high"] {
            guest(policies, of).qemu.memory_mib = 5_000;
            guest(policies, of).needs.best_effort = of != "high";
        }
        guest(policies, "high").priority = 500;
        guest(policies, "dear").priority = 400;
    });
    stage.run("dear", "a");
    stage.run("spare", "b");
    let problem = Problem::of(&stage.state, |_| Standing::Well);
    let ask = Ask { guests: problem.homeless(), ..Ask::default() };
    let placement = place(&problem, &mut Room::of(&problem), &ask);
    let spare = problem.guest(&name("spare")).unwrap();
    assert_eq!(placement.preempted.iter().map(|preemption| preemption.guest).collect::<Vec<_>>(), [spare]);
    assert_eq!(placed(&stage)["high"], "b later");
    // While it is being stopped, nobody else is asked.
    let failover = stage.climb("spare", 2);
    stage.must(failover);
    let problem = Problem::of(&stage.state, |_| Standing::Well);
    let placement = place(&problem, &mut Room::of(&problem), &Ask { guests: problem.homeless(), ..Ask::default() });
    assert!(placement.preempted.is_empty());
    assert_eq!(placed(&stage)["high"], "b later");
    assert!(told(&stage, "high").contains("spare has given way"), "{}", told(&stage, "high"));
}

#[test]
fn a_member_starts_nowhere_where_it_would_be_torn_from_the_rest_of_a_rule_that_is_kept() {
    let mut stage = Stage::new(&["a", "b"], &["g1", "g2", "g3", "g4"]);
    stage.run("g1", "a");
    stage.run("g2", "b");
    change(&mut stage, |policies| {
        for on in ["a", "b"] {
            capacity(policies, on, "slots", 3);
        }
        for (of, slots) in [("g1", 2), ("g2", 2), ("g3", 1), ("g4", 1)] {
            guest(policies, of).needs.demand.insert("slots".to_owned(), slots);
        }
    });
    // Both rules are kept while `g3` does not run, and wherever it ran one of them would be broken: the two hosts are too small for all.
    rule(&mut stage, "one", together(&["g1", "g3"]));
    rule(&mut stage, "two", together(&["g2", "g3", "g4"]));
    assert_eq!(words(&stage), ["nowhere", "b"]);
    let why = told(&stage, "g3");
    assert!(why.contains("g1") && why.contains("g2"), "each host has its reason: {why}");
    // What is split already keeps nobody of it down.
    rule(&mut stage, "one", together(&["g1", "g2", "g3"]));
    rule(&mut stage, "two", together(&["g2", "g4"]));
    assert_ne!(placed(&stage)["g3"], "nowhere");
}

#[test]
fn a_set_holds_no_place_for_a_member_that_is_left_alone() {
    let unmanaged = Change::WantedSet { guest: name("g1"), wanted: Wanted::Unmanaged, by: "ann".to_owned() };
    let mode = |mode| Change::ModeSet { host: host("a"), mode, by: "ann".to_owned() };
    let leaving = Mode::Leaving { reboot: false };
    let cases = [
        (vec![], ["b later", "nowhere"]),
        (vec![unmanaged], ["nowhere", "b"]),
        (vec![mode(Mode::Maintenance)], ["nowhere", "b"]),
        // That it goes does not end its maintenance, and it may be away for weeks.
        (vec![mode(Mode::Maintenance), mode(leaving)], ["nowhere", "b"]),
        (vec![mode(leaving)], ["b later", "nowhere"]),
    ];
    for (said, expected) in cases {
        let mut stage = Stage::new(&["a", "b"], &["filler", "g1", "g2", "other"]);
        change(&mut stage, |policies| {
            for (of, memory) in [("filler", 1_000), ("g1", 5_500), ("g2", 2_500), ("other", 3_000)] {
                guest(policies, of).qemu.memory_mib = memory;
            }
            guest(policies, "g2").priority = 200;
        });
        stage.run("filler", "a");
        stage.run("g1", "a");
        rule(&mut stage, "set", together(&["g1", "g2"]));
        let of = format!("{said:?}");
        said.into_iter().for_each(|said| stage.must(said));
        assert_eq!(words(&stage), expected, "{of}");
    }
}

#[test]
fn nobody_makes_room_for_a_guest_that_gives_way_to_it_or_needs_it() {
    let mut stage = Stage::new(&["a"], &["low", "high"]);
    change(&mut stage, |policies| {
        guest(policies, "low").needs.best_effort = true;
        guest(policies, "high").priority = 500;
    });
    stage.run("low", "a");
    let asked = |stage: &Stage| {
        let problem = Problem::of(&stage.state, |_| Standing::Well);
        let ask = Ask { guests: problem.homeless(), ..Ask::default() };
        place(&problem, &mut Room::of(&problem), &ask).preempted.len()
    };
    rule(&mut stage, "near", apart(&["low", "high"]));
    assert_eq!(asked(&stage), 1);
    let yields = Some(name("high"));
    let guests = named(&["low", "high"]);
    rule(&mut stage, "near", Rule::Apart { guests, required: true, yields, weight: 0, by: None });
    assert_eq!(asked(&stage), 0, "high gives way to low, which would be placed first again");
    rule(&mut stage, "near", apart(&["low", "high"]));
    let order = Rule::Order { first: name("low"), then: name("high"), required: true, symmetrical: false };
    rule(&mut stage, "order", order);
    assert_eq!(asked(&stage), 0, "high does not start without low");
}

#[test]
fn a_guest_gives_way_with_those_that_do_not_run_without_it_or_not_at_all() {
    let mut stage = Stage::new(&["a"], &["high", "low", "then"]);
    change(&mut stage, |policies| {
        for (of, memory) in [("high", 5_000), ("low", 5_000), ("then", 100)] {
            guest(policies, of).qemu.memory_mib = memory;
            guest(policies, of).needs.best_effort = of != "high";
        }
        guest(policies, "high").priority = 500;
    });
    stage.run("low", "a");
    stage.run("then", "a");
    let order = Rule::Order { first: name("low"), then: name("then"), required: true, symmetrical: true };
    rule(&mut stage, "order", order);
    let asked = |stage: &Stage| -> Vec<String> {
        let problem = Problem::of(&stage.state, |_| Standing::Well);
        let ask = Ask { guests: problem.homeless(), ..Ask::default() };
        let preempted = place(&problem, &mut Room::of(&problem), &ask).preempted;
        preempted.iter().map(|preemption| problem.guest_name(preemption.guest).to_string()).collect()
    };
    assert_eq!(asked(&stage), ["low", "then"]);
    change(&mut stage, |policies| guest(policies, "then").needs.best_effort = false);
    assert_eq!(asked(&stage), Vec::<String>::new(), "low would wait for then, which has no reason to stop");
}

#[test]
fn nobody_is_stopped_for_a_guest_that_has_failed_to_start_there() {
    let mut stage = Stage::new(&["a"], &["low", "high"]);
    change(&mut stage, |policies| {
        for of in ["low", "high"] {
            guest(policies, of).qemu.memory_mib = 5_000;
        }
        guest(policies, "low").needs.best_effort = true;
        guest(policies, "high").priority = 500;
    });
    for _ in 0..2 {
        stage.place("high", "a");
        stage.end("a", failed());
        stage.end("a", done());
    }
    stage.run("low", "a");
    let asked = |stage: &Stage| {
        let problem = Problem::of(&stage.state, |_| Standing::Well);
        let ask = Ask { guests: problem.homeless(), ..Ask::default() };
        place(&problem, &mut Room::of(&problem), &ask).preempted.len()
    };
    assert_eq!(asked(&stage), 0, "low would be stopped in vain");
    stage.must(Change::LookedAfter { guest: name("high"), by: "ann".to_owned() });
    assert_eq!(asked(&stage), 1);
}

#[test]
fn a_guest_whose_required_first_one_has_no_place_takes_none() {
    let mut stage = Stage::new(&["a"], &["db", "web"]);
    let order = Rule::Order { first: name("db"), then: name("web"), required: true, symmetrical: true };
    rule(&mut stage, "order", order);
    assert_eq!(words(&stage), ["a", "a"]);
    change(&mut stage, |policies| guest(policies, "db").qemu.memory_mib = 100_000);
    assert_eq!(words(&stage), ["nowhere", "nowhere"]);
    assert!(told(&stage, "web").contains("db has no place"), "{}", told(&stage, "web"));
}

#[test]
fn more_starts_than_a_host_may_have_wait_and_are_not_said_to_have_no_host() {
    let stage = Stage::new(&["a"], &["g1", "g2", "g3"]);
    assert_eq!(words(&stage), ["a", "a", "a later"]);
    assert_eq!(told(&stage, "g3"), "is busy starting 2 other guests");
}

#[test]
fn a_guest_that_is_not_patient_waits_for_a_busy_host_only_where_rules_like_it_more() {
    let mut stage = Stage::new(&["a", "b"], &["g1", "g2", "g3", "g4", "g5"]);
    assert_eq!(placed(&stage).values().filter(|word| word.contains("later")).count(), 1);
    let hosts = scores(&[("a", Score::By(1))]);
    rule(&mut stage, "liked", Rule::Hosts { guests: named(&["g1", "g2", "g3", "g4"]), hosts, required: false });
    assert_eq!(words(&stage), ["a", "a", "a later", "a later", "b"]);
}

#[test]
fn guests_are_found_by_all_their_labels() {
    let mut stage = Stage::new(&["a", "b"], &["g1", "g2", "g3"]);
    change(&mut stage, |policies| {
        guest(policies, "g1").labels.insert("tier".to_owned(), "front".to_owned());
        guest(policies, "g3").labels.insert("tier".to_owned(), "front".to_owned());
        guest(policies, "g3").labels.remove("app");
    });
    let labels = [("app", "web"), ("tier", "front")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    let guests = Guests::Labelled(BTreeMap::from(labels));
    rule(&mut stage, "there", Rule::Hosts { guests, hosts: scores(&[("b", Score::Must)]), required: true });
    let problem = Problem::of(&stage.state, |_| Standing::Well);
    let bound: Vec<usize> = problem.guests.rows().iter().map(|guest| guest.host_rules.len()).collect();
    assert_eq!(bound, [1, 0, 0]);
}

#[test]
fn what_is_left_of_a_set_stays_together_when_it_is_pushed_elsewhere() {
    let mut stage = Stage::new(&["a", "b", "c"], &["g0", "g1", "g2", "g3", "g4"]);
    change(&mut stage, |policies| {
        for (on, slots) in [("a", 2), ("b", 3), ("c", 1)] {
            capacity(policies, on, "slots", slots);
        }
        for (of, slots, memory) in [("g0", 2, 500), ("g1", 1, 3_272), ("g2", 0, 4_921), ("g3", 0, 500), ("g4", 2, 500)]
        {
            guest(policies, of).qemu.memory_mib = memory;
            guest(policies, of).needs.demand.insert("slots".to_owned(), slots);
        }
        guest(policies, "g1").priority = 200;
    });
    rule(&mut stage, "set", together(&["g1", "g2", "g3"]));
    let found = placed(&stage);
    assert_eq!(found["g1"].get(..1), found["g3"].get(..1), "{found:?}");
    assert_eq!(found.values().filter(|word| *word == "nowhere").count(), 1, "{found:?}");
}

/// Whether a liking takes anybody elsewhere.
fn draws(stage: &Stage) -> bool {
    let problem = Problem::of(&stage.state, |_| Standing::Well);
    moves(&problem, &Room::of(&problem)).iter().any(|found| !found.required)
}

#[test]
fn a_liking_takes_nobody_to_a_host_where_its_starts_have_failed() {
    let looked_after = |stage: &mut Stage| {
        stage.must(Change::LookedAfter { guest: name("g1"), by: "ann".to_owned() });
    };
    let boots_anew = |stage: &mut Stage| {
        let gone = stage.gone("a");
        stage.must(gone);
        stage.join("a", "a.2");
    };
    let ends: [&dyn Fn(&mut Stage); 2] = [&looked_after, &boots_anew];
    for end in ends {
        let mut stage = Stage::new(&["a", "b"], &["g1"]);
        let hosts = scores(&[("a", Score::By(5_000))]);
        rule(&mut stage, "home", Rule::Hosts { guests: named(&["g1"]), hosts, required: false });
        for _ in 0..2 {
            stage.place("g1", "a");
            stage.end("a", failed());
            stage.end("a", done());
        }
        stage.run("g1", "b");
        assert!(!draws(&stage), "it would be stopped on b, fail on a, and come back");
        end(&mut stage);
        assert!(draws(&stage));
    }
}

#[test]
fn a_set_does_not_turn_round_because_the_move_of_one_of_it_has_failed() {
    let mut stage = Stage::new(&["a", "b"], &["g1", "g2"]);
    rule(&mut stage, "set", together(&["g1", "g2"]));
    stage.run("g1", "b");
    stage.run("g2", "a");
    stage.migrate("g2", "b");
    stage.end("b", failed());
    assert!(matches!(stage.migration("g2").step, MigrationStep::Returning { .. }));
    let problem = Problem::of(&stage.state, |_| Standing::Well);
    assert!(moves(&problem, &Room::of(&problem)).is_empty());
}
