//! What starts while others leave their hosts.

use super::*;

/// `big` runs on `a` and fits on `b` alone, `small` waits and fits on `c` as well.
fn big_and_small() -> Stage {
    let mut stage = Stage::new(&["a", "b", "c"], &["big", "f1", "small"]);
    let mut policies = stage.state.policies.clone();
    for (of, memory_mib) in [("big", 8_000), ("f1", 5_000), ("small", 1_000)] {
        policies.guests.get_mut(&name(of)).unwrap().qemu.memory_mib = memory_mib;
    }
    stage.declare(policies);
    stage.run("big", "a");
    stage.run("f1", "c");
    stage
}

#[test]
fn what_is_placed_leaves_guests_of_hosts_that_are_drained_or_being_fenced_the_only_place_that_they_have() {
    let place_of = |stage: &Stage, of: &str| {
        round(stage).commands.into_iter().find_map(|change| match change {
            Change::Place { guest, host: on, .. } if guest == name(of) => Some(on),
            _ => None,
        })
    };
    let mut stage = big_and_small();
    assert_eq!(place_of(&stage, "small"), Some(host("b")), "the emptiest host");
    let drain = |on: &str| Change::ModeSet { host: host(on), mode: Mode::Draining, by: "ann".to_owned() };
    stage.must(drain("a"));
    assert_eq!(place_of(&stage, "small"), Some(host("c")));
    let commands = round(&stage).commands;
    let goes = commands
        .iter()
        .any(|change| matches!(change, Change::Migrate { guest, to, .. } if *guest == name("big") && *to == host("b")));
    assert!(goes, "its own room is not taken twice: {commands:?}");
    let mut stage = big_and_small();
    stage.fence("a");
    assert_eq!(place_of(&stage, "small"), Some(host("c")));
    let mut stage = big_and_small();
    stage.must(drain("a"));
    stage.must(drain("c"));
    assert_eq!(place_of(&stage, "small"), Some(host("b")), "it has no other place, and waits for nobody");
}

/// A plan in which one starts too near to another is refused as a whole, and nothing would be decided for as long as the drain lasts.
#[test]
fn what_is_placed_around_a_guest_that_leaves_keeps_apart_from_it_where_it_still_is() {
    let mut stage = big_and_small();
    let mut policies = stage.state.policies.clone();
    for (on, rack) in [("a", "r1"), ("b", "r2"), ("c", "r1")] {
        policies.hosts.entry(host(on)).or_default().labels.insert("rack".to_owned(), rack.to_owned());
    }
    stage.declare(policies);
    let (guests, by) = (named(&["big", "small"]), Some("rack".to_owned()));
    declare(&mut stage, vec![Rule::Apart { guests, required: true, yields: None, weight: 0, by }], &[]);
    stage.must(Change::ModeSet { host: host("a"), mode: Mode::Draining, by: "ann".to_owned() });
    let commands = round(&stage).commands;
    let starts = commands.iter().any(
        |change| matches!(change, Change::Place { guest, host: on, .. } if *guest == name("small") && *on == host("b")),
    );
    assert!(starts, "big is in the rack of c yet, and takes b only later: {commands:?}");
    let found = check(&stage.state, &all_well(&stage), &Timing::default(), NOW, &commands);
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn nobody_of_a_set_leaves_those_of_it_that_start_in_the_same_round() {
    let mut stage = Stage::new(&["a", "b", "c"], &["f1", "g1", "g2", "g3", "g4"]);
    let mut policies = stage.state.policies.clone();
    for (of, memory_mib) in [("f1", 2_000), ("g1", 4_000), ("g2", 2_000), ("g3", 2_000), ("g4", 2_000)] {
        policies.guests.get_mut(&name(of)).unwrap().qemu.memory_mib = memory_mib;
    }
    stage.declare(policies);
    for (of, on) in [("f1", "a"), ("g1", "b"), ("g2", "c")] {
        stage.run(of, on);
    }
    let guests = named(&["g1", "g2", "g3", "g4"]);
    declare(&mut stage, vec![Rule::Together { guests, required: true, yields: None, weight: 0 }], &[]);
    stage.must(Change::ModeSet { host: host("c"), mode: Mode::Draining, by: "ann".to_owned() });
    let commands = round(&stage).commands;
    let starts = |of: &str| {
        commands.iter().any(
            |change| matches!(change, Change::Place { guest, host: on, .. } if *guest == name(of) && *on == host("b")),
        )
    };
    assert!(starts("g3") && starts("g4"), "{commands:?}");
    let moves = |change: &Change| matches!(change, Change::Migrate { .. });
    assert!(!commands.iter().any(moves), "g1 and g2 would have room on a, without them: {commands:?}");
}
