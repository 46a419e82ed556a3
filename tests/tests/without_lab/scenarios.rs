//! Scenarios of our own (`tests/scenarios/*.json`): each is run and judged, and the judge itself is shown to see.

#![expect(clippy::unwrap_used, clippy::panic, reason = "what a test's helper cannot do fails the test")]

use std::{fs, path::PathBuf, process::Command};

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
            Ran::Outcome(outcome) => {
                let refused = outcome.refused.iter().map(|plan| format!("a plan was refused: {plan}"));
                judge(&scenario, &outcome).into_iter().chain(refused).collect()
            }
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

/// A scenario of one host, with this in it.
fn with(more: &str) -> Scenario {
    let vm = r#"{"name": "v", "host": "a", "state": "running", "max_restart": 2.0, "demand": null}"#;
    let hosts = r#"[{"name": "a", "state": "up"}]"#;
    let text =
        format!(r#"{{"name": "x", "mode": "timeline", "hosts": {hosts}, "vms": [{vm}], "rules": null, {more}}}"#);
    scenario::read(&text).unwrap()
}

fn lacks(more: &str) -> Vec<String> {
    match scenario::run(&with(more)) {
        Ran::Unsupported(words) => words,
        Ran::Outcome(_) | Ran::Answer(_) => Vec::new(),
    }
}

#[test]
fn what_a_scenario_needs_and_holdfast_has_not_is_told() {
    let needs = r#""needs": ["cluster:auto_rebalance", "event:vm-load", "event:power-off", "rule:order:preferred",
        "cluster:no-fencing", "no-quorum-policy:stop", "vm:load", "vm:priority", "host:standby"]"#;
    assert_eq!(lacks(needs), ["cluster:auto_rebalance", "event:vm-load", "vm:load"]);
    assert_eq!(lacks(r#""needs": []"#), Vec::<String>::new());
    let unknown = r#""cluster": {"phase_of_the_moon": "full"}, "needs": ["cluster:phase_of_the_moon"]"#;
    assert_eq!(lacks(unknown), ["cluster:phase_of_the_moon"]);
}

#[test]
fn a_knob_that_holdfast_has_not_is_told_where_the_outcome_follows_from_it() {
    let turned = |on: &str, strength: &str| {
        let knobs = format!(r#"{{"auto_rebalance": {on}, "rebalance_on_start": {on}}}"#);
        lacks(&format!(r#""strength": "{strength}", "cluster": {knobs}"#))
    };
    assert_eq!(turned("true", "policy"), ["cluster:auto_rebalance"], "Holdfast chooses a host at every start");
    assert_eq!(turned("false", "policy"), Vec::<String>::new());
    assert_eq!(turned("true", "core"), Vec::<String>::new(), "any sound supervisor comes to that");
    assert_eq!(lacks(r#""events": [{"at": 1, "kind": "vm-load", "vm": "v", "cpu": 4}]"#), ["event:vm-load"]);
}

#[test]
fn what_is_done_with_a_guest_that_was_found_twice_is_not_guessed_at() {
    let found = |then: &str| {
        let vm = format!(r#"{{"name": "v", "host": "a", "state": "running", "multiple_active": "{then}"}}"#);
        let hosts = r#"[{"name": "a", "state": "up"}]"#;
        let text = format!(r#"{{"name": "x", "mode": "snapshot", "hosts": {hosts}, "vms": [{vm}]}}"#);
        match scenario::run(&scenario::read(&text).unwrap()) {
            Ran::Unsupported(words) => words,
            Ran::Outcome(_) | Ran::Answer(_) => Vec::new(),
        }
    };
    for known in ["block", "stop_only", "stop-start", "stop_unexpected"] {
        assert_eq!(found(known), Vec::<String>::new());
    }
    assert_eq!(found("toss_a_coin"), ["vm:multiple_active:toss_a_coin"]);
}

#[test]
fn what_is_null_is_not_said_and_a_whole_number_is_one_however_it_is_written() {
    let scenario = with(r#""cluster": {"recover_unmarked_vms": null}, "settle_seconds": 10.0"#);
    assert_eq!(scenario.vms[0].max_restart, Some(2));
    assert!(scenario.vms[0].demand.is_empty() && scenario.rules.is_empty() && !scenario.cluster.recover_unmarked_vms);
    let text = "{\"name\": \"x\",\n\"mode\": \"timeline\", \"hosts\": [], \"vms\": 3}";
    assert!(scenario::read(text).unwrap_err().to_string().contains("line 2"));
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

#[test]
fn all_mistakes_of_form_are_told_at_once_each_with_its_place_and_what_would_be_right() {
    let text = r#"{"mode": "Timeline", "hosts": [{"name": "a"}, 7, {"name": "b", "state": "up", "capacity": false}],
        "vms": [{"name": "v", "max_restart": -1, "failed_ops": [{"host": "a"}]}], "cluster": {"shutdown_policy": 3},
        "rules": [{"kind": "host-affinity", "hosts": [true]}], "events": [{"at": "soon"}], "settle_seconds": []}"#;
    let told = scenario::read(text).unwrap_err().to_string();
    let expected = [
        "there is no `name`",
        "mode: it is `Timeline`, where one of `timeline`, `snapshot`, `question` should be",
        "hosts[0]: there is no `state`",
        "hosts[1]: it is a number, where an object should be",
        "hosts[2].capacity: it is `false`, where an object should be",
        "vms[0].max_restart: it is the number `-1`, where a whole number that is not negative should be",
        "vms[0].failed_ops: there is no `op`",
        "cluster.shutdown_policy: it is the number `3`, where a text should be",
        "rules[0].hosts: each host is its name, or an object with its `name` and `weight`",
        "events[0]: there is no `kind`",
        r#"events[0].at: it is the text "soon", where a number should be"#,
        "settle_seconds: it is a list, where a number should be",
    ];
    let missing: Vec<&str> = expected.into_iter().filter(|text| !told.contains(text)).collect();
    assert!(missing.is_empty(), "{missing:?} is not in {told}");
}

#[test]
fn of_very_many_mistakes_some_are_told_and_how_many_more_there_are() {
    let hosts = vec!["1"; 100].join(", ");
    let text = format!(r#"{{"name": "x", "mode": "timeline", "hosts": [{hosts}], "vms": []}}"#);
    let told = scenario::read(&text).unwrap_err().to_string();
    assert!(told.contains("hosts[19]: it is a number") && told.ends_with("; and 80 more"), "{told}");
}

#[test]
fn what_has_one_name_twice_what_happens_to_nothing_and_times_that_are_none_are_mistakes() {
    let text = r#"{"name": "x", "mode": "timeline", "settle_seconds": -1, "vms": [{"name": "v"}, {"name": "v"}],
        "hosts": [{"name": "a", "state": "up"}, {"name": "a", "state": "up"}], "events": [{"at": 1, "kind": "power-off"},
        {"at": 1, "kind": "vm-crash"}, {"at": 2e6, "kind": "resume-ha"}, {"at": 1, "kind": "agent-dead"}]}"#;
    let told = scenario::read(text).unwrap_err().to_string();
    let expected = [
        r#"hosts: two hosts have the name "a""#,
        r#"vms: two guests have the name "v""#,
        "events[0] (power-off): `host` has to say to which host it happens",
        "events[1] (vm-crash): `vm` has to say to which guest it happens",
        "events[2] (resume-ha): 2000000 is not a second of a scenario",
        "settle_seconds: -1 is not between 0 and 1000000",
    ];
    let missing: Vec<&str> = expected.into_iter().filter(|text| !told.contains(text)).collect();
    assert!(missing.is_empty(), "{missing:?} is not in {told}");
    assert!(!told.contains("agent-dead"), "{told}");
}

#[test]
fn an_event_that_may_say_no_host_is_told_to_play_no_part_without_one() {
    let events = r#"[{"at": 1, "kind": "agent-dead"}, {"at": 2, "kind": "vm-move", "vm": "v"}]"#;
    let told = scenario::check::notes(&with(&format!(r#""events": {events}"#)));
    let expected =
        ["events[0] (agent-dead): the host that is not named", "events[1] (vm-move): the host that `to` does not name"];
    assert_eq!(told, expected);
}

#[test]
fn a_name_that_nothing_has_in_a_rule_or_a_command_is_told_and_plays_no_part() {
    let scenario = named("commands-about-what-nothing-has-are-refused");
    let told = scenario::check::notes(&scenario);
    let expected = [
        r#"vms[1]: the host "gone""#,
        r#"rules[0]: the host "gone""#,
        r#"rules[1]: the guest "gone""#,
        r#"events[0] (vm-move): the host "gone""#,
        r#"events[2] (vm-desired): the guest "gone""#,
    ];
    assert!(expected.iter().all(|text| told.iter().any(|known| known == text)), "{told:?}");
}

#[test]
fn a_question_that_is_not_asked_is_a_mistake_and_a_mark_before_the_file_is_none() {
    let asks = |expect: &str| {
        format!("\u{feff}{{\"name\": \"x\", \"mode\": \"question\", \"hosts\": [], \"vms\": []{expect}}}")
    };
    assert!(scenario::read(&asks("")).unwrap_err().to_string().contains("there is no question"));
    scenario::read(&asks(r#", "expect": {"question": {"kind": "max-host-failures"}}"#)).unwrap();
}

#[test]
fn a_question_about_a_guest_that_nothing_has_is_a_mistake() {
    let asks = |vm: &str| {
        let question = format!(r#"{{"kind": "admit-vm", "vm": {vm}, "n": 1}}"#);
        let text = format!(
            r#"{{"name": "x", "mode": "question", "hosts": [], "vms": [{{"name": "v"}}], "expect": {{"question": {question}}}}}"#
        );
        scenario::read(&text).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(asks(r#""v""#), Ok(()));
    assert_eq!(asks(r#"{"name": "new"}"#), Ok(()), "the question describes it");
    assert!(asks(r#""gone""#).unwrap_err().contains(r#"expect.question: there is no guest "gone""#));
}

#[test]
fn a_way_of_suspending_or_moving_that_is_not_known_is_told() {
    let lacks_in = |event: &str| lacks(&format!(r#""events": [{{"at": 1, {event}}}]"#));
    assert_eq!(lacks_in(r#""kind": "suspend-ha", "mode": "nap""#), ["event:suspend-ha:nap"]);
    assert_eq!(lacks_in(r#""kind": "suspend-ha", "mode": "ignore""#), Vec::<String>::new());
    let moves = |how: &str| lacks_in(&format!(r#""kind": "vm-move", "vm": "v", "to": "a", "how": "{how}""#));
    assert_eq!(moves("by post"), ["event:vm-move:by post"]);
    assert_eq!(moves("cold"), Vec::<String>::new());
}

#[test]
fn what_a_rule_does_not_say_or_says_in_words_that_are_none_is_told_to_play_no_part() {
    let rules = r#"[{"kind": "order", "first": "v"}, {"kind": "host-score", "vms": ["v"], "scores": {"a": "often"}}]"#;
    let text = format!(
        r#"{{"name": "x", "mode": "snapshot", "hosts": [{{"name": "a", "state": "up"}}], "vms": [{{"name": "v"}}], "rules": {rules}}}"#
    );
    let told = scenario::check::notes(&scenario::read(&text).unwrap());
    let expected = ["rules[0] (order): the guest that `then` does not name", r#"rules[1]: the score "often" of "a""#];
    assert_eq!(told, expected);
}

#[test]
fn an_outcome_that_cannot_be_written_is_told_and_no_reason_to_panic() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut simulator = Command::new(env!("CARGO_BIN_EXE_simulator"));
    let ran = simulator.arg("scenario").arg(folder().join("power-loss.json")).stdout(full).output().unwrap();
    let told = String::from_utf8(ran.stderr).unwrap();
    assert!(told.contains("the outcome cannot be written: "), "{told}");
    assert_eq!(ran.status.code(), Some(2));
}
