//! Scenarios of our own (`tests/scenarios/*.json`): each is run and judged, and the judge itself is shown to see.

#![expect(clippy::unwrap_used, clippy::panic, reason = "what a test's helper cannot do fails the test")]

use std::{fs, path::PathBuf};

use holdfast_tests::scenario::{
    self, BadScenario, Ran,
    format::{Deed, Outcome, Scenario},
    judge::judge,
};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

fn scenarios() -> Vec<Scenario> {
    let mut names: Vec<String> =
        fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names.iter().filter_map(|name| name.strip_suffix(".json")).map(named).collect()
}

fn named(name: &str) -> Scenario {
    scenario::read(&fs::read_to_string(folder().join(format!("{name}.json"))).unwrap()).unwrap()
}

fn outcome(scenario: &Scenario) -> Outcome {
    match scenario::run(scenario) {
        Ran::Outcome(outcome) => *outcome,
        other => panic!("{}: {other:?}", scenario.name),
    }
}

#[test]
fn every_scenario_comes_out_as_it_expects() {
    let mut failures = Vec::new();
    for scenario in scenarios() {
        let found = match scenario::run(&scenario) {
            Ran::Outcome(outcome) => judge(&scenario, &outcome),
            Ran::Answer(answer) if Some(&answer) == scenario.expect.answer.as_ref() => Vec::new(),
            Ran::Answer(answer) => vec![format!("the answer is {answer}")],
            Ran::Unsupported(words) => vec![format!("unsupported: {words:?}")],
        };
        failures.extend(found.into_iter().map(|failure| format!("{}: {failure}", scenario.name)));
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn a_scenario_comes_out_the_same_twice() {
    let scenario = named("power-loss");
    assert_eq!(outcome(&scenario), outcome(&scenario));
}

#[test]
fn the_judge_sees_a_guest_that_starts_while_its_host_is_not_confirmed_off() {
    let scenario = named("power-loss");
    let mut outcome = outcome(&scenario);
    assert_eq!(judge(&scenario, &outcome), Vec::<String>::new());
    outcome.history.retain(|deed| deed.kind != "fence");
    outcome.fenced.clear();
    let found = judge(&scenario, &outcome);
    assert!(found.iter().any(|failure| failure.contains("before node3 was confirmed fenced")), "{found:?}");
    assert!(found.iter().any(|failure| failure == "node3 was not fenced"), "{found:?}");
}

#[test]
fn the_judge_sees_a_guest_that_runs_twice_or_is_disturbed() {
    let scenario = named("quiet-cluster");
    let mut outcome = outcome(&scenario);
    let deed = |kind: &str, host: &str| Deed {
        at: 100.0,
        kind: kind.to_owned(),
        vm: Some("vm-1".to_owned()),
        host: Some(host.to_owned()),
        ok: Some(true),
        ..Deed::default()
    };
    outcome.history.push(deed("start", "node2"));
    let found = judge(&scenario, &outcome);
    assert!(found.iter().any(|failure| failure.contains("while it may still run on node1")), "{found:?}");
    assert!(found.iter().any(|failure| failure.contains("was disturbed")), "{found:?}");
    assert!(found.iter().any(|failure| failure.contains("when nothing was to be done")), "{found:?}");
}

#[test]
fn words_that_holdfast_has_nothing_for_are_told() {
    let text = r#"{"name": "x", "mode": "snapshot", "hosts": [{"name": "a", "state": "haunted"}], "vms": [],
        "rules": [{"kind": "moon-phase"}], "events": []}"#;
    let ran = scenario::run(&scenario::read(text).unwrap());
    assert_eq!(ran, Ran::Unsupported(vec!["host:haunted".to_owned(), "rule:moon-phase".to_owned()]));
}

#[test]
fn a_mistake_is_told_with_its_place() {
    let text = r#"{"name": "x", "mode": "timeline", "hosts": [{"name": "a", "state": "up"}],
        "vms": [{"name": "v", "host": "b"}], "events": [{"at": 1, "kind": "power-off", "host": "c"}]}"#;
    let told = scenario::read(text).unwrap_err().to_string();
    assert!(told.contains(r#"vms[0]: there is no host "b""#), "{told}");
    assert!(told.contains(r#"events[0] (power-off): there is no host "c""#), "{told}");
    assert!(matches!(scenario::read("{"), Err(BadScenario::Shape { .. })));
}
