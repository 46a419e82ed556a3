//! What is survived, by table.

use super::*;
use crate::{
    fixture::{Stage, host, name},
    plan::{
        Standing,
        tests::{capacity, change, guest, named, rule},
    },
    rules::Rule,
};

fn ask(stage: &Stage, losses: usize) -> Survival {
    admission(&Problem::of(&stage.state, |_| Standing::Well), losses, true)
}

#[test]
fn a_guest_of_half_a_host_survives_the_loss_of_either_of_two() {
    let mut stage = Stage::new(&["a", "b"], &["web"]);
    stage.run("web", "a");
    let survival = ask(&stage, 1);
    assert_eq!((survival.verdict, survival.tried), (Verdict::Yes, (2, 2)));
    let worst = survival.worst.unwrap();
    assert_eq!(worst.lost, [host("a")], "the one that takes something down");
    assert!(matches!(&worst.guests[&name("web")], Fate::Starts { host: on, .. } if *on == host("b")));
    assert_eq!(ask(&stage, 2).verdict, Verdict::No);
}

#[test]
fn what_is_not_survived_is_named_with_the_worst_case_and_the_reason() {
    let mut stage = Stage::new(&["a", "b", "c"], &["g1", "g2", "g3"]);
    change(&mut stage, |policies| {
        for of in ["g1", "g2", "g3"] {
            guest(policies, of).qemu.memory_mib = 5_000;
        }
        guest(policies, "g2").priority = 300;
    });
    for (of, on) in [("g1", "a"), ("g2", "b"), ("g3", "c")] {
        stage.run(of, on);
    }
    let survival = ask(&stage, 1);
    assert_eq!(survival.verdict, Verdict::No);
    assert_eq!(survival.worst.unwrap().lost, [host("b")], "the highest priority");
    assert_eq!(survival.unplaced.len(), 3);
    let (lost, reasons) = &survival.unplaced[&name("g1")];
    assert_eq!(*lost, [host("a")]);
    assert_eq!(
        reasons.to_string(),
        "a is lost; b, c: the best of them has 3192 MiB of memory left, 5000 MiB are needed"
    );
}

#[test]
fn failure_domains_are_lost_as_a_whole() {
    let mut stage = Stage::new(&["a", "b", "c", "d"], &["g1", "g2"]);
    change(&mut stage, |policies| {
        for (on, rack) in [("a", "r1"), ("b", "r1"), ("c", "r2"), ("d", "r2")] {
            policies.hosts.entry(host(on)).or_default().labels.insert("rack".to_owned(), rack.to_owned());
            capacity(policies, on, "slots", 1);
        }
        for of in ["g1", "g2"] {
            guest(policies, of).needs.demand.insert("slots".to_owned(), 1);
        }
        policies.cluster.failure_domain = Some("rack".to_owned());
    });
    stage.run("g1", "a");
    stage.run("g2", "b");
    assert_eq!((ask(&stage, 1).verdict, ask(&stage, 1).tried), (Verdict::Yes, (2, 2)));
    change(&mut stage, |policies| capacity(policies, "d", "slots", 0));
    assert_eq!(ask(&stage, 1).verdict, Verdict::No);
    let hosts = admission(&Problem::of(&stage.state, |_| Standing::Well), 1, false);
    assert_eq!((hosts.verdict, hosts.tried), (Verdict::Yes, (4, 4)));
}

#[test]
fn guests_of_best_effort_give_way_and_do_not_count() {
    let mut stage = Stage::new(&["a", "b"], &["spare", "web"]);
    change(&mut stage, |policies| {
        for of in ["spare", "web"] {
            guest(policies, of).qemu.memory_mib = 5_000;
        }
        guest(policies, "web").priority = 200;
        guest(policies, "spare").needs.best_effort = true;
    });
    stage.run("web", "a");
    stage.run("spare", "b");
    let survival = ask(&stage, 1);
    assert_eq!(survival.verdict, Verdict::Yes, "{survival:?}");
    let problem = Problem::of(&stage.state, |_| Standing::Well);
    let case = if_lost(&problem, &BTreeSet::from([problem.host(&host("a")).unwrap()]));
    assert_eq!(case.guests[&name("spare")], Fate::GivesWay);
    assert_eq!(case.starts, [name("web")]);
}

#[test]
fn what_has_no_place_even_now_is_not_survived_and_what_is_only_declared_is_placed_first() {
    let mut stage = Stage::new(&["a", "b"], &["g1", "g2"]);
    assert_eq!(ask(&stage, 1).verdict, Verdict::Yes);
    change(&mut stage, |policies| guest(policies, "g1").qemu.memory_mib = 9_000);
    assert_eq!(ask(&stage, 0).verdict, Verdict::No);
}

#[test]
fn what_was_not_tried_is_unknown() {
    let hosts: Vec<String> = (0..30).map(|number| format!("h{number:02}")).collect();
    let names: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let mut stage = Stage::new(&names, &["web"]);
    stage.run("web", "h00");
    let survival = ask(&stage, 5);
    assert_eq!(survival.tried, (COMBINATIONS_MAX, 142_506));
    assert_eq!(survival.verdict, Verdict::Unknown);
}

#[test]
fn starts_follow_priorities_and_rules_of_order() {
    let mut stage = Stage::new(&["a", "b"], &["cache", "db", "low", "web"]);
    for of in ["cache", "db", "low", "web"] {
        stage.run(of, "a");
    }
    change(&mut stage, |policies| {
        guest(policies, "web").priority = 300;
        guest(policies, "cache").priority = 200;
    });
    let order = Rule::Order { first: name("db"), then: name("web"), required: true, symmetrical: true };
    rule(&mut stage, "order", order);
    let problem = Problem::of(&stage.state, |_| Standing::Well);
    let case = if_lost(&problem, &BTreeSet::from([problem.host(&host("a")).unwrap()]));
    assert_eq!(case.starts, ["db", "web", "cache", "low"].map(name));
    let circle = Rule::Order { first: name("web"), then: name("db"), required: false, symmetrical: true };
    rule(&mut stage, "circle", circle);
    let problem = Problem::of(&stage.state, |_| Standing::Well);
    let all = ["cache", "db", "low", "web"].map(|of| problem.guest(&name(of)).unwrap());
    assert_eq!(problem.start_order(&all).len(), 4);
}

#[test]
fn a_set_is_lost_and_placed_as_one() {
    let mut stage = Stage::new(&["a", "b", "c"], &["g1", "g2", "old"]);
    change(&mut stage, |policies| guest(policies, "old").qemu.memory_mib = 7_000);
    stage.run("g1", "a");
    stage.run("g2", "a");
    stage.run("old", "b");
    let guests = named(&["g1", "g2"]);
    rule(&mut stage, "set", Rule::Together { guests, required: true, yields: None, weight: 0 });
    assert_eq!(ask(&stage, 1).verdict, Verdict::Yes);
    assert_eq!(ask(&stage, 2).verdict, Verdict::No);
}
