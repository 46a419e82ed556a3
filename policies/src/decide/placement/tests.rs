//! Placement in whole rounds of deciding.

use crate::{
    change::Change,
    check::check,
    decide::{Decision, decide},
    evidence::{Evidence, Heard, Marks, Sight, SightState},
    fixture::{Stage, done, failed, host, name, place_on},
    hostfile::Timing,
    names::{RuleName, ServiceName, Vantage},
    observe::{GuestCondition, GuestReport},
    rules::{CapacitySettings, Guests, Hosts, Rule, Score},
    state::{Mode, Wanted},
    time::{Moment, Now, WallTime, millis},
};

use super::BALANCE_PATIENCE;

mod heading;
mod leaving;

const NOW: Moment = Moment(100_000);

/// All hosts sync and every guest that runs answers; what has happened did so long ago.
fn all_well(stage: &Stage) -> Evidence {
    all_well_since(stage, Moment(2_000))
}

/// The same, and everything has happened at that moment.
fn all_well_since(stage: &Stage, applied: Moment) -> Evidence {
    let mut evidence = Evidence { quorum_since: Some(Moment(1_000)), me: Some(host("a")), ..Evidence::default() };
    evidence.marks.applied(stage.index, applied);
    for (on, known) in &stage.state.hosts {
        let heard = Some(Heard { at: NOW, incarnation: known.facts.incarnation.clone() });
        let seen = evidence.hosts.entry(on.clone()).or_default();
        (seen.sync, seen.heard) = (heard.clone(), heard);
    }
    for (of, guest) in &stage.state.guests {
        for tenure in guest.tenures() {
            let report = GuestReport::new(of.clone(), tenure.epoch, GuestCondition::Running);
            evidence.hosts.entry(tenure.host.clone()).or_default().reports.insert(of.clone(), report);
            let (state, epoch) = (SightState::Passing, tenure.epoch);
            let (passed, detail) = (Some(NOW), String::new());
            let sight = Sight { epoch, state, at: NOW, since: NOW, passed, warns: false, detail };
            let services = evidence.services.entry(of.clone()).or_default();
            let sights = services.entry(ServiceName::new("http").unwrap()).or_default();
            sights.insert(Vantage::Host(host("c")), sight);
        }
    }
    evidence
}

fn round(stage: &Stage) -> Decision {
    decide(&stage.state, &all_well(stage), &Timing::default(), Now { moment: NOW, wall: WallTime(NOW.0) })
}

fn declare(stage: &mut Stage, rules: Vec<Rule>, best_effort: &[&str]) {
    let mut policies = stage.state.policies.clone();
    for (number, rule) in rules.into_iter().enumerate() {
        policies.rules.insert(RuleName::new(format!("rule-{number}")).unwrap(), rule);
    }
    for of in best_effort {
        let guest = policies.guests.get_mut(&name(of)).unwrap();
        (guest.needs.best_effort, guest.priority) = (true, 10);
    }
    stage.declare(policies);
}

fn named(guests: &[&str]) -> Guests {
    Guests::Named(guests.iter().map(|text| name(text)).collect())
}

#[test]
fn all_free_guests_are_placed_in_one_round_as_their_rules_want_it() {
    let mut stage = Stage::new(&["a", "b", "c"], &["g1", "g2", "g3"]);
    let apart = Rule::Apart { guests: named(&["g1", "g2"]), required: true, yields: None, weight: 0, by: None };
    let together = Rule::Together { guests: named(&["g2", "g3"]), required: true, yields: None, weight: 0 };
    declare(&mut stage, vec![apart, together], &[]);
    let placed = round(&stage).commands;
    assert_eq!(placed.len(), 3, "{placed:?}");
    let on = |of: &str| {
        placed.iter().find_map(|change| match change {
            Change::Place { guest, host, .. } if *guest == name(of) => Some(host.clone()),
            _ => None,
        })
    };
    assert_eq!(on("g2"), on("g3"));
    assert_ne!(on("g1"), on("g2"));
}

#[test]
fn a_running_guest_that_breaks_a_required_rule_moves_to_where_it_does_not() {
    let mut stage = Stage::new(&["a", "b", "c"], &["g1"]);
    stage.run("g1", "a");
    assert!(round(&stage).commands.is_empty());
    let hosts = Hosts::Named([(host("c"), Score::Must)].into());
    declare(&mut stage, vec![Rule::Hosts { guests: named(&["g1"]), hosts, required: true }], &[]);
    let commands = round(&stage).commands;
    assert!(matches!(&commands[..], [Change::Migrate { to, .. }] if *to == host("c")), "{commands:?}");
}

#[test]
fn a_guest_of_best_effort_is_stopped_for_the_one_that_finds_no_other_room_and_nobody_is_paged() {
    let mut stage = Stage::new(&["a"], &["g1", "spare"]);
    let mut policies = stage.state.policies.clone();
    for guest in policies.guests.values_mut() {
        guest.qemu.memory_mib = 5_000;
    }
    stage.declare(policies);
    declare(&mut stage, Vec::new(), &["spare"]);
    stage.run("spare", "a");
    let decision = round(&stage);
    assert!(matches!(&decision.commands[..], [Change::Stop { guest, .. }] if *guest == name("spare")), "{decision:?}");
    assert!(decision.report.guests[&name("g1")].doing.contains("spare has given way"), "{:?}", decision.report);
    assert!(decision.report.guests[&name("spare")].doing.contains("no other room for g1"), "{:?}", decision.report);
}

#[test]
fn a_member_whose_set_has_to_move_waits_while_the_set_goes_first() {
    // 8192 MiB there are enough for both of the set, and not for one of them twice.
    for each in [1_024, 4_000] {
        let mut stage = Stage::new(&["a", "b"], &["big", "g1", "g2"]);
        let mut policies = stage.state.policies.clone();
        for (of, memory_mib) in [("big", 8_000 - each), ("g1", each), ("g2", each)] {
            policies.guests.get_mut(&name(of)).unwrap().qemu.memory_mib = memory_mib;
        }
        stage.declare(policies);
        stage.run("big", "a");
        stage.run("g1", "a");
        let set = Rule::Together { guests: named(&["g1", "g2"]), required: true, yields: None, weight: 0 };
        declare(&mut stage, vec![set], &[]);
        let commands = round(&stage).commands;
        assert!(
            matches!(&commands[..], [Change::Migrate { guest, to, .. }] if *guest == name("g1") && *to == host("b")),
            "{each}: {commands:?}"
        );
    }
}

#[test]
fn what_is_placed_leaves_guests_that_cannot_stay_the_only_place_that_they_have() {
    let mut stage = Stage::new(&["a", "b", "c"], &["f1", "f2", "w", "x", "y"]);
    let mut policies = stage.state.policies.clone();
    for (of, memory_mib) in [("f1", 3_000), ("f2", 4_000), ("w", 3_000), ("x", 3_000), ("y", 3_000)] {
        policies.guests.get_mut(&name(of)).unwrap().qemu.memory_mib = memory_mib;
    }
    stage.declare(policies);
    for (of, on) in [("f1", "a"), ("x", "a"), ("y", "b"), ("f2", "c")] {
        stage.run(of, on);
    }
    let set = Rule::Together { guests: named(&["x", "y"]), required: true, yields: None, weight: 0 };
    let hosts = Hosts::Named([(host("b"), Score::By(5))].into());
    let liked = Rule::Hosts { guests: named(&["w"]), hosts, required: false };
    declare(&mut stage, vec![set, liked], &[]);
    let commands = round(&stage).commands;
    let is_placed = commands.iter().any(
        |change| matches!(change, Change::Place { guest, host: on, .. } if *guest == name("w") && *on == host("c")),
    );
    let is_moved = commands
        .iter()
        .any(|change| matches!(change, Change::Migrate { guest, to, .. } if *guest == name("x") && *to == host("b")));
    assert!(is_placed && is_moved, "w would like b, and x has no other place than there: {commands:?}");
}

#[test]
fn a_guest_that_waits_loses_its_only_place_neither_to_one_that_cannot_stay_nor_to_a_less_important_one() {
    let mut stage = Stage::new(&["a", "b", "c"], &["f1", "f2", "low", "w", "x", "y"]);
    let mut policies = stage.state.policies.clone();
    let sizes = [("f1", 3_000), ("f2", 4_000), ("low", 2_000), ("w", 5_000), ("x", 3_000), ("y", 3_000)];
    for (of, memory_mib) in sizes {
        policies.guests.get_mut(&name(of)).unwrap().qemu.memory_mib = memory_mib;
    }
    policies.guests.get_mut(&name("w")).unwrap().priority = 200;
    stage.declare(policies);
    for (of, on) in [("f1", "a"), ("x", "a"), ("y", "b"), ("f2", "c")] {
        stage.run(of, on);
    }
    let set = Rule::Together { guests: named(&["x", "y"]), required: true, yields: None, weight: 0 };
    let only = Hosts::Named([(host("b"), Score::By(5))].into());
    let low = Rule::Hosts { guests: named(&["low"]), hosts: only, required: true };
    declare(&mut stage, vec![set, low], &[]);
    let commands = round(&stage).commands;
    let places: Vec<String> = commands
        .iter()
        .filter_map(|change| match change {
            Change::Place { guest, host: on, .. } => Some(format!("{guest} {on}")),
            _ => None,
        })
        .collect();
    assert_eq!(places, ["w b"], "without w there would be room for x, and for low beside it: {commands:?}");
}

#[test]
fn a_set_goes_only_where_a_member_that_waits_can_run_too() {
    let mut stage = Stage::new(&["a", "b", "c"], &["g1", "g2", "g3"]);
    stage.run("g1", "a");
    stage.run("g2", "a");
    let set = Rule::Together { guests: named(&["g1", "g2", "g3"]), required: true, yields: None, weight: 0 };
    let hosts = Hosts::Named([(host("c"), Score::By(0))].into());
    let there = Rule::Hosts { guests: named(&["g3"]), hosts, required: true };
    declare(&mut stage, vec![set, there], &[]);
    let commands = round(&stage).commands;
    assert!(
        matches!(&commands[..], [Change::Migrate { guest, to, .. }] if *guest == name("g1") && *to == host("c")),
        "{commands:?}"
    );
}

#[test]
fn a_host_where_a_start_has_failed_gets_its_other_tries_before_another_host_is_tried() {
    let mut stage = Stage::new(&["a", "b"], &["g1", "g2"]);
    let mut policies = stage.state.policies.clone();
    policies.guests.get_mut(&name("g1")).unwrap().needs.start_tries = 3;
    stage.declare(policies);
    // There is more room on b.
    stage.run("g2", "a");
    stage.place("g1", "a");
    for expected in ["a", "a", "b"] {
        stage.end("a", failed());
        stage.end("a", done());
        let commands = round(&stage).commands;
        let to = commands.iter().find_map(|command| match command {
            Change::Place { guest, host, .. } if *guest == name("g1") => Some(host.clone()),
            _ => None,
        });
        assert_eq!(to, Some(host(expected)), "{commands:?}");
        if expected == "a" {
            stage.place("g1", "a");
        }
    }
}

/// Who starts where, of guests that have been free for so many milliseconds.
fn started_after(stage: &Stage, ms: u64) -> Vec<(String, String)> {
    started(stage, &all_well_since(stage, Moment(NOW.0 - ms)))
}

fn started(stage: &Stage, evidence: &Evidence) -> Vec<(String, String)> {
    let now = Now { moment: NOW, wall: WallTime(NOW.0) };
    let place = |change: &Change| match change {
        Change::Place { guest, host, .. } => Some((guest.to_string(), host.to_string())),
        _ => None,
    };
    let commands = decide(&stage.state, evidence, &Timing::default(), now).commands;
    let mut places: Vec<(String, String)> = commands.iter().filter_map(place).collect();
    places.sort();
    places
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(guest, host)| ((*guest).to_owned(), (*host).to_owned())).collect()
}

#[test]
fn a_less_loaded_host_is_waited_for_a_moment_and_then_whichever_is_free_starts_the_guest() {
    let mut stage = Stage::new(&["a", "b"], &["g1", "g2", "g3", "g4", "w1", "w2", "w3"]);
    for of in ["w1", "w2", "w3"] {
        stage.run(of, "a");
    }
    let patience = millis(BALANCE_PATIENCE);
    for ms in [1_000, patience - 1] {
        assert_eq!(started_after(&stage, ms), pairs(&[("g1", "b"), ("g2", "b"), ("g4", "a")]), "{ms} ms");
    }
    assert_eq!(started_after(&stage, patience), pairs(&[("g1", "b"), ("g2", "b"), ("g3", "a"), ("g4", "a")]));
    let evidence = all_well_since(&stage, Moment(NOW.0 - 1_000));
    let now = Now { moment: NOW, wall: WallTime(NOW.0) };
    let report = decide(&stage.state, &evidence, &Timing::default(), now).report;
    assert_eq!(report.guests[&name("g3")].doing, "waiting to start: b is busy starting 2 other guests");
}

#[test]
fn a_guest_whose_starts_have_failed_waits_for_no_other_start() {
    let mut stage = Stage::new(&["a", "b", "c"], &["g1", "g2", "g3", "g4", "w1", "w2", "w3"]);
    for of in ["w1", "w2", "w3"] {
        stage.run(of, "a");
    }
    for _ in 0..2 {
        stage.place("g3", "c");
        stage.end("c", failed());
        stage.end("c", done());
    }
    stage.must(Change::ModeSet { host: host("c"), mode: Mode::Draining, by: "ann".to_owned() });
    assert_eq!(started_after(&stage, 3_000), pairs(&[("g1", "b"), ("g2", "b"), ("g3", "a")]), "g4 waits for b");
}

#[test]
fn a_guest_that_has_long_found_no_host_keeps_nobody_from_waiting_although_it_is_less_important() {
    let mut stage = Stage::new(&["a", "b", "c"], &["g1", "g2", "g3", "g4", "huge", "w1", "w2", "w3"]);
    for (of, on) in [("w1", "a"), ("w2", "a"), ("w3", "a"), ("g1", "c"), ("g2", "c"), ("g3", "c"), ("g4", "c")] {
        stage.run(of, on);
    }
    let mut policies = stage.state.policies.clone();
    let huge = policies.guests.get_mut(&name("huge")).unwrap();
    (huge.qemu.memory_mib, huge.priority) = (100_000, 10);
    stage.declare(policies);
    let before = stage.index;
    let gone = stage.gone("c");
    stage.must(gone);
    let now = Moment(NOW.0 - 1_000);
    let mut evidence = all_well_since(&stage, now);
    evidence.hosts.remove(&host("c"));
    let nobody_waits = [("g1", "b"), ("g2", "b"), ("g3", "a"), ("g4", "a")];
    assert_eq!(started(&stage, &evidence), pairs(&nobody_waits), "they would before one that is freed with them");
    evidence.marks = Marks::new(Moment(1_000));
    evidence.marks.applied(before, Moment(2_000));
    evidence.marks.applied(stage.index, now);
    assert_eq!(started(&stage, &evidence), pairs(&[("g1", "b"), ("g2", "b"), ("g4", "a")]), "g3 waits for b");
}

fn opened(decision: &Decision) -> Vec<(&str, &str)> {
    let opened = decision.commands.iter().filter_map(|change| match change {
        Change::IncidentOpened { key, summary, .. } => Some((key.as_str(), summary.as_str())),
        _ => None,
    });
    opened.collect()
}

#[test]
fn nobody_waits_for_the_room_of_a_guest_that_is_left_alone_or_could_not_be_stopped() {
    for is_left_alone in [true, false] {
        let mut stage = Stage::new(&["a"], &["g1", "spare"]);
        let mut policies = stage.state.policies.clone();
        for guest in policies.guests.values_mut() {
            guest.qemu.memory_mib = 5_000;
        }
        stage.declare(policies);
        declare(&mut stage, Vec::new(), &["spare"]);
        stage.run("spare", "a");
        if is_left_alone {
            let (guest, by) = (name("spare"), "ann".to_owned());
            stage.must(Change::WantedSet { guest, wanted: Wanted::Unmanaged, by });
        } else {
            stage.must(Change::Stop { guest: name("spare"), why: "there is no other room for g1".to_owned() });
            stage.end("a", failed());
        }
        let decision = round(&stage);
        let said = &decision.report.guests[&name("g1")].doing;
        assert!(said.contains("no host can run it"), "left alone: {is_left_alone}: {said}");
        assert!(opened(&decision).iter().any(|(key, _)| *key == "placement/g1"), "{decision:?}");
    }
}

#[test]
fn while_deciding_is_suspended_nobody_waits_for_a_guest_to_give_way() {
    let mut stage = Stage::new(&["a", "b"], &["g1", "spare"]);
    let mut policies = stage.state.policies.clone();
    for guest in policies.guests.values_mut() {
        guest.qemu.memory_mib = 5_000;
    }
    stage.declare(policies);
    declare(&mut stage, Vec::new(), &["spare"]);
    stage.run("spare", "a");
    stage.run("g1", "b");
    let gone = stage.gone("b");
    stage.must(gone);
    let said = |stage: &Stage| round(stage).report.guests[&name("g1")].doing.clone();
    assert!(said(&stage).contains("spare has given way"), "{}", said(&stage));
    stage.must(Change::SuspensionSet { suspended: true, by: "ann".to_owned() });
    assert!(said(&stage).contains("no host can run it"), "{}", said(&stage));
    assert!(opened(&round(&stage)).iter().any(|(key, _)| *key == "placement/g1"), "people are told");
}

#[test]
fn many_guests_that_find_no_host_do_not_keep_a_less_important_one_from_its_place_for_ever() {
    let names: Vec<String> = (0..300).map(|number| format!("big-{number:03}")).collect();
    let mut guests: Vec<&str> = names.iter().map(String::as_str).collect();
    guests.push("small");
    let mut stage = Stage::new(&["a", "b"], &guests);
    let mut policies = stage.state.policies.clone();
    for (_, guest) in policies.guests.iter_mut().filter(|(of, _)| **of != name("small")) {
        (guest.qemu.memory_mib, guest.priority) = (100_000, 200);
    }
    stage.declare(policies);
    let places = |change: &Change| matches!(change, Change::Place { guest, .. } if *guest == name("small"));
    let mut is_placed = false;
    for _ in 0..8 {
        let commands = round(&stage).commands;
        is_placed |= commands.iter().any(places);
        for command in commands {
            stage.apply(command);
        }
    }
    assert!(is_placed, "all others are too large for any host");
}

#[test]
fn a_running_guest_that_rules_allow_nowhere_goes_on_and_people_are_told() {
    let mut stage = Stage::new(&["a", "b"], &["g1", "g2", "g3"]);
    stage.run("g1", "a");
    stage.run("g2", "a");
    stage.run("g3", "b");
    let apart = Rule::Apart { guests: named(&["g1", "g2", "g3"]), required: true, yields: None, weight: 0, by: None };
    declare(&mut stage, vec![apart], &[]);
    let decision = round(&stage);
    let told = opened(&decision);
    let stays =
        |(key, summary): &(&str, &str)| key.starts_with("leave/") && summary.contains("no other host can take it");
    assert!(!told.is_empty() && told.iter().all(stays), "{decision:?}");
    assert_eq!(decision.commands.len(), told.len(), "nothing is stopped for it: {:?}", decision.commands);
}

#[test]
fn a_host_whose_guests_take_more_than_it_has_is_told_of_until_they_do_not() {
    let mut stage = Stage::new(&["a", "b"], &["g1", "g2"]);
    stage.run("g1", "a");
    stage.run("g2", "a");
    let declare_slots = |stage: &mut Stage, slots: u64| {
        let mut policies = stage.state.policies.clone();
        policies.hosts.entry(host("a")).or_default().capacity.insert("slots".to_owned(), slots);
        for guest in policies.guests.values_mut() {
            guest.needs.demand.insert("slots".to_owned(), 2);
        }
        stage.declare(policies);
    };
    declare_slots(&mut stage, 4);
    assert!(round(&stage).commands.is_empty(), "they fit");
    declare_slots(&mut stage, 3);
    let decision = round(&stage);
    assert_eq!(opened(&decision), [("capacity/a", "the guests of a take 4 of slots, and it has 3")]);
    assert_eq!(decision.commands.len(), 1, "nothing that runs is disturbed: {:?}", decision.commands);
    stage.apply(decision.commands[0].clone());
    assert!(round(&stage).commands.is_empty(), "told once");
    declare_slots(&mut stage, 4);
    let commands = round(&stage).commands;
    assert!(matches!(&commands[..], [Change::IncidentResolved { key }] if key == "capacity/a"), "{commands:?}");
}

#[test]
fn a_guest_starts_beyond_a_capacity_that_is_not_hard_and_the_checker_and_people_are_content() {
    let mut stage = Stage::new(&["a"], &["g1", "g2"]);
    stage.run("g1", "a");
    let declare_slots = |stage: &mut Stage, hard: bool| {
        let mut policies = stage.state.policies.clone();
        policies.hosts.entry(host("a")).or_default().capacity.insert("slots".to_owned(), 3);
        for guest in policies.guests.values_mut() {
            guest.needs.demand.insert("slots".to_owned(), 2);
        }
        policies.cluster.capacities.insert("slots".to_owned(), CapacitySettings { hard, weight: 100 });
        stage.declare(policies);
    };
    declare_slots(&mut stage, true);
    assert!(!round(&stage).commands.iter().any(|command| matches!(command, Change::Place { .. })));
    declare_slots(&mut stage, false);
    let commands = round(&stage).commands;
    assert!(matches!(&commands[..], [Change::Place { guest, .. }] if *guest == name("g2")), "{commands:?}");
    assert!(check(&stage.state, &all_well(&stage), &Timing::default(), NOW, &commands).is_empty());
    stage.run("g2", "a");
    assert!(round(&stage).commands.is_empty(), "nobody is called");
}

#[test]
fn what_is_said_of_healthy_services_is_told_when_somebody_asks() {
    let mut stage = Stage::new(&["a", "b", "c"], &["g1"]);
    stage.run("g1", "a");
    let evidence = all_well(&stage);
    let report = round(&stage).report;
    let said = |report: &crate::decide::Report| {
        report.guests[&name("g1")].services[&ServiceName::new("http").unwrap()].evidence.clone()
    };
    assert!(said(&report).is_empty(), "most rounds are shown to nobody");
    let told = report.with_words(&stage.state, &evidence, &Timing::default(), NOW);
    assert_eq!(said(&told), ["host:c passes 0s ago ()"]);
}

#[test]
fn who_heard_a_host_that_is_well_is_told_when_somebody_asks() {
    let stage = Stage::new(&["a", "b", "c"], &["g1"]);
    let evidence = Evidence { voters: ["a", "b", "c"].map(host).into_iter().collect(), ..all_well(&stage) };
    let now = Now { moment: NOW, wall: WallTime(NOW.0) };
    let report = decide(&stage.state, &evidence, &Timing::default(), now).report;
    assert_eq!(report.hosts[&host("b")].verdict, crate::decide::HostVerdict::Healthy);
    assert!(report.hosts[&host("b")].evidence.is_empty(), "most rounds are shown to nobody");
    let told = report.with_words(&stage.state, &evidence, &Timing::default(), NOW);
    assert_eq!(told.hosts[&host("b")].evidence, ["a last heard it 0s ago"]);
}
