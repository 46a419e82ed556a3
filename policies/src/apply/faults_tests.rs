//! Moves under every fault: whatever comes in whichever order, a guest ends in exactly one place.
//!
//! A walk through all sequences of a few events from each step of a move. The events are the results of the orders, either
//! way, and what may befall either host; a result that comes late, twice or never is one of a sequence without it. After
//! each event what must always hold is checked; after each sequence the faults end, every order is carried out, and the
//! guest has to come to rest.

use super::*;
use crate::{
    fixture::{Stage, done, failed, host, name},
    order::OrderOutcome,
    state::{MigrationStep, Wanted},
};

/// Events in a sequence. Each one more multiplies the time by about eight.
const DEPTH: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The host's oldest order ends like this.
    Ends { on: &'static str, well: bool },
    /// The host is proven gone.
    Gone { on: &'static str },
    /// The host has booted anew.
    Boots { on: &'static str },
    /// The coordinator, or the next one, asks again for what failed.
    AsksAgain,
    /// The result of an order that is not open any more.
    Late,
}

const FAULTS: [Fault; 10] = [
    Fault::Ends { on: "a", well: true },
    Fault::Ends { on: "a", well: false },
    Fault::Ends { on: "b", well: true },
    Fault::Ends { on: "b", well: false },
    Fault::Gone { on: "a" },
    Fault::Gone { on: "b" },
    Fault::Boots { on: "a" },
    Fault::Boots { on: "b" },
    Fault::AsksAgain,
    Fault::Late,
];

/// The stage after the event; `None` when it cannot happen there.
fn after(stage: &Stage, fault: Fault) -> Option<Stage> {
    let mut stage = Stage { state: stage.state.clone(), index: stage.index };
    let refused = match fault {
        Fault::Ends { on, well } => {
            let order = stage.state.orders.values().find(|order| order.host == host(on))?.id;
            stage.apply(Change::OrderEnded { order, outcome: outcome(well) }).refused
        }
        Fault::Gone { on } => {
            let gone = stage.gone(on);
            stage.apply(gone).refused
        }
        Fault::Boots { on } => {
            let known = &stage.state.hosts[&host(on)];
            let boot = format!("{on}.{}", known.past.len() + 2);
            stage.join(on, &boot);
            None
        }
        Fault::AsksAgain => stage.apply(Change::ReleaseAgain { guest: name("web") }).refused,
        Fault::Late => {
            let before = stage.state.clone();
            let refused = stage.apply(Change::OrderEnded { order: OrderId(1), outcome: done() }).refused;
            assert!(refused.is_some(), "a result of before changes nothing (S7)");
            assert_eq!(ClusterState { applied: stage.index, ..before }, stage.state);
            return None;
        }
    };
    refused.is_none().then_some(stage)
}

fn outcome(well: bool) -> OrderOutcome {
    if well { done() } else { failed() }
}

/// What must hold at every moment.
fn check(before: &Stage, stage: &Stage, path: &[Fault]) {
    let guest = &stage.state.guests[&name("web")];
    let resumes = stage.state.orders.values().filter(|order| {
        matches!(order.kind, OrderKind::Resume { .. } | OrderKind::Send { .. } | OrderKind::Start { .. })
    });
    assert!(resumes.count() <= 1, "R22: at most one half may run at a time: {:?} {path:?}", stage.state.orders);
    if let Phase::Migrating(migration) = &guest.phase {
        assert!(migration.source.is_some() || migration.target.is_some(), "it is free: {path:?}");
        let resumed = stage.state.orders.values().find_map(|order| match &order.kind {
            OrderKind::Resume { epoch, .. } => Some(*epoch),
            _ => None,
        });
        let half = match &migration.step {
            MigrationStep::Switched { .. } => migration.target.as_ref(),
            MigrationStep::Receiving { .. } | MigrationStep::Sending { .. } | MigrationStep::Returning { .. } => {
                migration.source.as_ref()
            }
            MigrationStep::Clearing { .. } => None,
        };
        let right = resumed.is_none_or(|epoch| half.is_some_and(|half| half.epoch == epoch));
        assert!(right, "R22: only the target after the switch, only the source before it: {migration:?} {path:?}");
    }
    // S2: a right to run ends only with the host, with its word, or in the move's own end.
    let lost = before.may_run("web").into_iter().filter(|on| !stage.may_run("web").contains(on));
    for on in lost {
        let proven = match path.last() {
            Some(Fault::Gone { on: gone }) => *gone == on,
            Some(Fault::Ends { on: answered, well: true }) => *answered == on,
            Some(Fault::Ends { well: false, .. } | Fault::Boots { .. } | Fault::AsksAgain | Fault::Late) | None => {
                false
            }
        };
        assert!(proven, "{on} lost its right without proof: {path:?}");
    }
}

/// The faults end: every order is carried out, and what is not ordered is asked for again.
fn comes_to_rest(stage: &Stage, path: &[Fault]) {
    let mut stage = Stage { state: stage.state.clone(), index: stage.index };
    for _ in 0..20 {
        match stage.state.orders.values().next().map(|order| order.id) {
            Some(order) => stage.must(Change::OrderEnded { order, outcome: done() }),
            None if stage.apply(Change::ReleaseAgain { guest: name("web") }).refused.is_none() => {}
            None => break,
        }
    }
    match stage.phase("web") {
        Phase::Running { tenure, .. } => assert_eq!(stage.may_run("web"), [tenure.host.to_string()].into()),
        Phase::Free { .. } => assert!(stage.may_run("web").is_empty()),
        other => panic!("not at rest: {other:?} after {path:?}"),
    }
    assert!(stage.state.orders.is_empty(), "{:?} after {path:?}", stage.state.orders);
}

fn walk(stage: &Stage, path: &mut Vec<Fault>, ends: &mut usize) {
    comes_to_rest(stage, path);
    *ends += 1;
    if path.len() == DEPTH {
        return;
    }
    for fault in FAULTS {
        if let Some(next) = after(stage, fault) {
            path.push(fault);
            check(stage, &next, path);
            walk(&next, path, ends);
            path.pop();
        }
    }
}

#[test]
fn a_guest_that_moves_ends_in_exactly_one_place_whatever_happens_on_the_way() {
    let mut stage = Stage::new(&["a", "b", "c"], &["web"]);
    stage.run("web", "a");
    let mut ends = 0;
    stage.migrate("web", "b");
    walk(&stage, &mut Vec::new(), &mut ends);
    stage.end("b", done());
    walk(&stage, &mut Vec::new(), &mut ends);
    stage.end("a", done());
    walk(&stage, &mut Vec::new(), &mut ends);
    assert!(ends > 1_000, "only {ends} sequences");
}

#[test]
fn a_cold_move_ends_in_exactly_one_place_whatever_happens_on_the_way() {
    let mut stage = Stage::new(&["a", "b", "c"], &["web"]);
    stage.run("web", "a");
    stage.must(Change::MoveAsked { guest: name("web"), to: host("b"), cold: true, by: "ann".to_owned() });
    let mut ends = 0;
    walk(&stage, &mut Vec::new(), &mut ends);
    stage.end("a", done());
    stage.place("web", "b");
    walk(&stage, &mut Vec::new(), &mut ends);
    assert!(ends > 100, "only {ends} sequences");
}

#[test]
fn a_guest_that_is_wanted_stopped_while_it_moves_ends_its_move_first() {
    let mut stage = Stage::new(&["a", "b", "c"], &["web"]);
    stage.run("web", "a");
    stage.migrate("web", "b");
    stage.must(Change::WantedSet { guest: name("web"), wanted: Wanted::Stopped, by: "ann".to_owned() });
    walk(&stage, &mut Vec::new(), &mut 0);
}
