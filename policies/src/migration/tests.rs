//! The machine of moves by table: each step, and everything that may befall a move in it.

use super::{Half::*, *};
use crate::{
    fixture::{boot, host},
    names::Epoch,
};

const RECEIVE: OrderId = OrderId(1);
const SEND: OrderId = OrderId(2);
const RESUME: OrderId = OrderId(3);
/// The only release of a step, or that of the source.
const RELEASE: OrderId = OrderId(4);
const RELEASE_TARGET: OrderId = OrderId(5);

fn tenure(on: &str, index: u64) -> Tenure {
    Tenure { host: host(on), incarnation: boot(&format!("{on}.1")), epoch: Epoch { generation: 1, index } }
}

/// A guest that moves from `a` to `b`.
fn moving(step: MigrationStep) -> Migration {
    let (source, target) = (Some(tenure("a", 1)), Some(tenure("b", 2)));
    Migration { source, target, step, failure: None, release_failed: None, then: None }
}

/// The machine that waits.
fn machine() -> Box<QemuDefinition> {
    Box::new(QemuDefinition::bare(512))
}

/// Everything that may befall a move, with the orders that its steps wait for.
fn events() -> [(&'static str, Event); 12] {
    [
        ("the target waits", Event::Received { order: RECEIVE, uri: Some("tcp:b".to_owned()), machine: machine() }),
        ("the target does not wait", Event::Received { order: RECEIVE, uri: None, machine: machine() }),
        ("all is sent", Event::Sent { order: SEND, all: true }),
        ("it was not sent", Event::Sent { order: SEND, all: false }),
        ("it runs", Event::Resumed { order: RESUME, runs: true }),
        ("it does not run", Event::Resumed { order: RESUME, runs: false }),
        ("a release has ended", Event::Released { order: RELEASE }),
        ("the source is gone", Event::Gone(Source)),
        ("the target is gone", Event::Gone(Target)),
        ("the source has booted anew", Event::Rebooted(Source)),
        ("the target has booted anew", Event::Rebooted(Target)),
        ("it is asked again", Event::AskedAgain),
    ]
}

fn word(next: &Next) -> &'static str {
    match next {
        Next::Nothing => "-",
        Next::Send { source, uri, machine: theirs } => {
            assert_eq!((source, uri.as_str(), theirs), (&tenure("a", 1), "tcp:b", &machine()));
            "send"
        }
        Next::Switch { source, target } => {
            assert_eq!((source, target), (&tenure("a", 1), &tenure("b", 2)));
            "switch"
        }
        Next::Return { resume: false } => "return",
        Next::Return { resume: true } => "resume",
        Next::Clear => "clear",
        Next::Ask { source: true, target: false } => "ask source",
        Next::Ask { source: false, target: true } => "ask target",
        Next::Ask { source: true, target: true } => "ask both",
        Next::Ask { source: false, target: false } => "ask nobody",
        Next::Settle => "settle",
    }
}

#[test]
fn every_step_of_a_move_has_one_answer_to_everything_that_may_befall_it() {
    let (resume, release, target) = (Some(RESUME), Some(RELEASE), Some(RELEASE_TARGET));
    let steps = [
        MigrationStep::Receiving { order: RECEIVE },
        MigrationStep::Sending { order: SEND },
        MigrationStep::Switched { resume, release },
        MigrationStep::Switched { resume: None, release: None },
        MigrationStep::Returning { resume, release },
        MigrationStep::Returning { resume: None, release: None },
        MigrationStep::Clearing { source: release, target },
        MigrationStep::Clearing { source: None, target: None },
    ];
    // Columns as in `events`.
    let table = [
        ["send", "return", "-", "-", "-", "-", "-", "clear", "resume", "clear", "resume", "-"],
        ["-", "-", "switch", "resume", "-", "-", "-", "clear", "resume", "clear", "resume", "-"],
        ["-", "-", "-", "-", "settle", "clear", "settle", "settle", "clear", "ask source", "clear", "-"],
        ["-", "-", "-", "-", "-", "-", "-", "settle", "clear", "ask source", "clear", "ask source"],
        ["-", "-", "-", "-", "settle", "clear", "settle", "clear", "settle", "clear", "ask target", "-"],
        ["-", "-", "-", "-", "-", "-", "-", "clear", "settle", "clear", "ask target", "ask target"],
        ["-", "-", "-", "-", "-", "-", "settle", "settle", "settle", "ask source", "ask target", "-"],
        ["-", "-", "-", "-", "-", "-", "-", "settle", "settle", "ask source", "ask target", "ask both"],
    ];
    for (step, row) in steps.into_iter().zip(table) {
        let migration = moving(step);
        for ((what, event), expected) in events().into_iter().zip(row) {
            assert_eq!(word(&next_step(&migration, event)), expected, "{:?}: {what}", migration.step);
        }
    }
}

#[test]
fn the_answer_to_an_order_that_is_not_waited_for_changes_nothing() {
    let late = OrderId(99);
    let answers = [
        Event::Received { order: late, uri: Some("tcp:b".to_owned()), machine: machine() },
        Event::Sent { order: late, all: true },
        Event::Resumed { order: late, runs: false },
        Event::Released { order: late },
    ];
    let (resume, release, target) = (Some(RESUME), Some(RELEASE), Some(RELEASE_TARGET));
    let steps = [
        MigrationStep::Receiving { order: RECEIVE },
        MigrationStep::Sending { order: SEND },
        MigrationStep::Switched { resume, release },
        MigrationStep::Returning { resume, release },
        MigrationStep::Clearing { source: release, target },
    ];
    for step in steps {
        for event in answers.clone() {
            let migration = moving(step.clone());
            assert_eq!(next_step(&migration, event.clone()), Next::Nothing, "{step:?}: {event:?}");
            let mut books = step.clone();
            books.forget(late);
            assert_eq!(books, step);
        }
    }
}

#[test]
fn nobody_is_asked_for_a_half_that_is_proven_gone() {
    let ask = |step: MigrationStep, gone: Half| {
        let mut migration = moving(step);
        migration.lose(gone);
        word(&next_step(&migration, Event::AskedAgain))
    };
    let (resume, release) = (Some(RESUME), Some(RELEASE));
    assert_eq!(ask(MigrationStep::Switched { resume, release }, Source), "-");
    assert_eq!(ask(MigrationStep::Returning { resume, release }, Target), "-");
    let clearing = MigrationStep::Clearing { source: None, target: None };
    assert_eq!(ask(clearing.clone(), Source), "ask target");
    assert_eq!(ask(clearing, Target), "ask source");
}

#[test]
fn what_was_answered_and_whoever_is_gone_is_not_waited_for() {
    let (resume, release) = (Some(RESUME), Some(RELEASE));
    let mut switched = moving(MigrationStep::Switched { resume, release });
    switched.step.forget(RESUME);
    assert_eq!(switched.step, MigrationStep::Switched { resume: None, release });
    assert_eq!((switched.half_on(&host("a")), switched.half_on(&host("b"))), (Source, Target));
    switched.lose(Source);
    assert_eq!((switched.source, switched.step), (None, MigrationStep::Switched { resume: None, release: None }));
    let mut clearing = moving(MigrationStep::Clearing { source: release, target: Some(RELEASE_TARGET) });
    clearing.lose(Target);
    assert_eq!((clearing.target, clearing.step), (None, MigrationStep::Clearing { source: release, target: None }));
}
