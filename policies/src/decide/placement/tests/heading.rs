//! What starts while a guest is stopped to start elsewhere.

use super::*;

/// `g1` runs on `a` and fits on `b` alone, `w` waits and fits on `c` as well, where `f1` runs.
fn big_and_small() -> Stage {
    let mut stage = Stage::new(&["a", "b", "c"], &["f1", "g1", "w"]);
    let mut policies = stage.state.policies.clone();
    for (of, memory_mib) in [("f1", 5_000), ("g1", 8_000), ("w", 1_000)] {
        policies.guests.get_mut(&name(of)).unwrap().qemu.memory_mib = memory_mib;
    }
    stage.declare(policies);
    stage.run("g1", "a");
    stage.run("f1", "c");
    stage
}

/// The same, where `w` may run on `b` alone, and is as important as that.
fn with_one_place(priority: u32) -> Stage {
    let mut stage = big_and_small();
    let mut policies = stage.state.policies.clone();
    policies.guests.get_mut(&name("w")).unwrap().priority = priority;
    stage.declare(policies);
    let hosts = Hosts::Named([(host("b"), Score::Must)].into());
    declare(&mut stage, vec![Rule::Hosts { guests: named(&["w"]), hosts, required: true }], &[]);
    stage
}

fn move_cold(stage: &mut Stage, of: &str, to: &str) {
    stage.must(Change::MoveAsked { guest: name(of), to: host(to), cold: true, by: "ann".to_owned() });
}

fn drain(stage: &mut Stage, on: &str) {
    stage.must(Change::ModeSet { host: host(on), mode: Mode::Draining, by: "ann".to_owned() });
}

/// Who is started where, as `guest host`, where everything has happened at that moment.
fn placed_since(stage: &Stage, applied: Moment) -> Vec<String> {
    let (evidence, now) = (all_well_since(stage, applied), Now { moment: NOW, wall: WallTime(NOW.0) });
    let commands = decide(&stage.state, &evidence, &Timing::default(), now).commands;
    let found = check(&stage.state, &evidence, &Timing::default(), NOW, &commands);
    assert!(found.is_empty(), "{found:?}");
    let placed = commands.into_iter().filter_map(|change| match change {
        Change::Place { guest, host, .. } => Some(format!("{guest} {host}")),
        _ => None,
    });
    placed.collect()
}

/// The same, where everything has just happened.
fn placed(stage: &Stage) -> Vec<String> {
    placed_since(stage, NOW)
}

#[test]
fn a_guest_that_is_stopped_to_start_elsewhere_keeps_its_place_there() {
    let mut stage = big_and_small();
    assert_eq!(placed(&stage), ["w b"], "the emptiest host");
    move_cold(&mut stage, "g1", "b");
    assert_eq!(placed(&stage), ["w c"]);
    stage.end("a", done());
    let mut both = placed(&stage);
    both.sort_unstable();
    assert_eq!(both, ["g1 b", "w a"], "its own room is not taken twice, and a is empty then");
}

#[test]
fn a_guest_that_has_waited_for_its_host_for_long_keeps_no_place_and_is_placed_like_any_other() {
    let mut stage = big_and_small();
    move_cold(&mut stage, "g1", "b");
    stage.end("a", done());
    let mut both = placed_since(&stage, Moment(2_000));
    both.sort_unstable();
    assert_eq!(both, ["g1 a", "w b"], "both find the emptiest host that is left");
    drain(&mut stage, "b");
    let mut both = placed_since(&stage, Moment(2_000));
    both.sort_unstable();
    assert_eq!(both, ["g1 a", "w c"], "its own room is not taken twice");
}

#[test]
fn no_place_is_kept_on_a_host_that_takes_no_guests_or_for_one_whose_stop_has_failed() {
    let mut stage = with_one_place(50);
    move_cold(&mut stage, "g1", "b");
    drain(&mut stage, "a");
    assert!(placed(&stage).is_empty(), "g1 could not go back to a");
    let before = stage.state.clone();
    stage.end("a", failed());
    assert_eq!(placed(&stage), ["w b"], "nobody knows when g1 comes");
    stage.state = before;
    drain(&mut stage, "b");
    assert!(placed(&stage).is_empty());
    let said = round(&stage).report.guests[&name("w")].doing.clone();
    assert!(!said.contains("room is kept"), "{said}");
}

#[test]
fn whoever_has_no_other_place_does_not_wait_for_a_guest_that_is_moved() {
    for (priority, drained, waits) in [(50, false, false), (50, true, true), (100, true, false), (200, true, false)] {
        let mut stage = with_one_place(priority);
        move_cold(&mut stage, "g1", "b");
        if drained {
            drain(&mut stage, "a");
        }
        let expected: &[&str] = if waits { &[] } else { &["w b"] };
        assert_eq!(placed(&stage), expected, "priority {priority}, drained: {drained}");
        let said = round(&stage).report.guests[&name("w")].doing.clone();
        assert_eq!(said.contains("room is kept for g1"), waits, "{said}");
    }
}

#[test]
fn nobody_waits_for_a_guest_on_its_way_that_finds_another_place() {
    let mut stage = with_one_place(50);
    move_cold(&mut stage, "g1", "b");
    drain(&mut stage, "a");
    assert!(placed(&stage).is_empty(), "neither has another place");
    let mut policies = stage.state.policies.clone();
    policies.guests.get_mut(&name("f1")).unwrap().qemu.memory_mib = 100;
    stage.declare(policies);
    assert_eq!(placed(&stage), ["w b"], "for g1 there is room on c");
    stage.must(place_on("w", "b"));
    stage.end("a", done());
    assert_eq!(placed_since(&stage, Moment(2_000)), ["g1 c"], "both run in the end");
}

#[test]
fn nobody_of_best_effort_is_stopped_for_a_place_that_is_kept() {
    let mut stage = big_and_small();
    let mut policies = stage.state.policies.clone();
    policies.guests.get_mut(&name("w")).unwrap().qemu.memory_mib = 5_000;
    stage.declare(policies);
    declare(&mut stage, Vec::new(), &["f1"]);
    move_cold(&mut stage, "g1", "b");
    assert_eq!(placed(&stage), ["w b"]);
    let stops = |change: &Change| matches!(change, Change::Stop { .. });
    assert!(!round(&stage).commands.iter().any(stops), "f1 would have to make room on c");
}

#[test]
fn the_rest_of_a_set_that_is_moved_keeps_its_room_as_long_as_nobody_is_down_for_it() {
    let mut stage = Stage::new(&["a", "b", "c"], &["f1", "g1", "g2", "w"]);
    let mut policies = stage.state.policies.clone();
    for (of, memory_mib) in [("f1", 5_000), ("g1", 4_000), ("g2", 4_000), ("w", 1_000)] {
        policies.guests.get_mut(&name(of)).unwrap().qemu.memory_mib = memory_mib;
    }
    stage.declare(policies);
    for (of, on) in [("g1", "a"), ("g2", "a"), ("f1", "c")] {
        stage.run(of, on);
    }
    let set = Rule::Together { guests: named(&["g1", "g2"]), required: true, yields: None, weight: 0 };
    declare(&mut stage, vec![set], &[]);
    move_cold(&mut stage, "g1", "b");
    assert_eq!(placed(&stage), ["w c"], "b has room for w and g1, and then none for g2");
    stage.end("a", done());
    let mut both = placed(&stage);
    both.sort_unstable();
    assert_eq!(both, ["g1 b", "w a"], "where g1 goes there is room for all of its set");
    let mut policies = stage.state.policies.clone();
    policies.guests.get_mut(&name("f1")).unwrap().qemu.memory_mib = 8_000;
    stage.declare(policies);
    drain(&mut stage, "a");
    assert!(placed(&stage).contains(&"w b".to_owned()), "it has no other place: {:?}", placed(&stage));
}
