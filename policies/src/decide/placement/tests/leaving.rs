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
