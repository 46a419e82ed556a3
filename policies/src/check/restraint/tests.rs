//! Storms, budgets, suspensions and maintenance: plans that go too far, and those that do not.

use super::*;
use crate::{
    check::check,
    evidence::{Answer, Evidence, Heard},
    fixture::{Stage, boot, done, host, name, off, place_on},
    hostfile::Timing,
    model::Severity,
    time::Moment,
};

/// Everybody has just synced, at second 100.
fn well(stage: &Stage) -> Evidence {
    let mut evidence = Evidence { quorum_since: Some(Moment(0)), me: Some(host("a")), ..Evidence::default() };
    for (name, known) in &stage.state.hosts {
        let heard = Heard { at: Moment(99_900), incarnation: known.facts.incarnation.clone() };
        evidence.hosts.entry(name.clone()).or_default().sync = Some(heard);
    }
    evidence
}

fn silent(evidence: &mut Evidence, on: &str, ms: u64) {
    evidence.hosts.get_mut(&host(on)).unwrap().sync.as_mut().unwrap().at = Moment(100_000 - ms);
}

/// Which of the promises that this file judges a change would break.
fn broken(stage: &Stage, evidence: &Evidence, change: &Change) -> Vec<String> {
    let found = check(&stage.state, evidence, &Timing::default(), Moment(100_000), std::slice::from_ref(change));
    let promises = found.into_iter().map(|violation| violation.promise);
    promises.filter(|promise| ["S8", "S9"].contains(&promise.as_str())).collect()
}

fn fence(of: &str) -> Change {
    let (incarnation, evidence) = (boot(&format!("{of}.1")), vec!["nobody hears it".to_owned()]);
    Change::FenceOpened { host: host(of), incarnation, evidence, last_well: None, safe_at: None }
}

fn attempt(of: &str) -> Change {
    Change::FenceAttempted { host: host(of), executor: host("a"), level: 0 }
}

fn suspend(stage: &mut Stage) {
    stage.must(Change::SuspensionSet { suspended: true, by: "ann".to_owned() });
}

fn maintain(stage: &mut Stage, on: &str) {
    stage.must(Change::ModeSet { host: host(on), mode: Mode::Maintenance, by: "ann".to_owned() });
}

/// Four hosts, of which `c` and `d` run a guest each and have been silent for two seconds.
fn storm() -> (Stage, Evidence) {
    let mut stage = Stage::new(&["a", "b", "c", "d"], &["g", "h"]);
    stage.run("g", "c");
    stage.run("h", "d");
    let mut evidence = well(&stage);
    for on in ["c", "d"] {
        silent(&mut evidence, on, 2_000);
    }
    (stage, evidence)
}

#[test]
fn no_fence_is_opened_or_attempted_in_a_storm_and_proof_passes() {
    let (mut stage, evidence) = storm();
    assert_eq!(broken(&stage, &evidence, &fence("c")), ["S9"]);
    let gone = stage.gone("c");
    assert_eq!(broken(&stage, &evidence, &gone), [""; 0]);
    stage.fence("d");
    assert_eq!(broken(&stage, &evidence, &attempt("d")), ["S9"]);
    let open = Change::IncidentOpened {
        key: "storm".to_owned(),
        severity: Severity::Critical,
        summary: String::new(),
        human: None,
        guests: Vec::new(),
        evidence: Vec::new(),
    };
    stage.must(open);
    stage.must(Change::StormHoldReleased { by: "ann".to_owned() });
    assert_eq!(broken(&stage, &evidence, &attempt("d")), [""; 0], "an operator has looked");
}

/// The fences of `c` and `d` are open, and each was fenced once within the hour.
fn fenced_before(own: Option<u32>, all: Option<u32>) -> Stage {
    let mut stage = Stage::new(&["a", "b", "c", "d"], &[]);
    let mut policies = stage.state.policies.clone();
    (policies.cluster.fences_per_hour, policies.cluster.fences_per_hour_in_all) = (own, all);
    policies.cluster.failure_domain = Some("rack".to_owned());
    policies.cluster.fences_at_once = crate::rules::FencesAtOnce::OnePerFailureDomain;
    stage.declare(policies);
    for (on, fenced) in [("c", 1), ("d", 2)] {
        stage.fence(on);
        stage.state.hosts.get_mut(&host(on)).unwrap().fences.push(fenced);
    }
    stage
}

#[test]
fn no_fence_begins_beyond_a_budget_unless_an_operator_lets_it_go_on() {
    let cases: [(Option<u32>, Option<u32>, &[&str]); 5] = [
        (None, None, &[]),
        (Some(2), Some(3), &[]),
        (Some(1), Some(3), &["S8"]),
        (Some(2), Some(2), &["S9"]),
        (Some(1), Some(1), &["S8", "S9"]),
    ];
    let fence = |stage: &mut Stage, change: fn(&mut crate::state::Fence)| {
        let Life::Fencing(fence) = &mut stage.state.hosts.get_mut(&host("c")).unwrap().life else { panic!() };
        change(fence);
    };
    for (own, all, expected) in cases {
        let stage = fenced_before(own, all);
        let evidence = well(&stage);
        assert_eq!(broken(&stage, &evidence, &attempt("c")), expected, "{own:?} {all:?}");
        let mut begun = stage;
        fence(&mut begun, |fence| fence.attempts = 1);
        assert_eq!(broken(&begun, &evidence, &attempt("c")), [""; 0], "it goes on");
        let mut allowed = fenced_before(own, all);
        fence(&mut allowed, |fence| fence.allowed = Some("ann".to_owned()));
        assert_eq!(broken(&allowed, &evidence, &attempt("c")), [""; 0], "ann has said so");
    }
}

#[test]
fn fences_of_one_plan_count_for_each_other_and_those_of_an_hour_ago_for_nobody() {
    let stage = fenced_before(None, Some(3));
    let evidence = well(&stage);
    let judge = |now: Moment, plan: &[Change]| {
        let found = check(&stage.state, &evidence, &Timing::default(), now, plan);
        found.into_iter().filter(|found| found.what.contains("within an hour")).count()
    };
    assert_eq!(judge(Moment(100_000), &[attempt("c"), attempt("d")]), 1);
    assert_eq!(judge(Moment(3_600_000), &[attempt("c"), attempt("d")]), 0);
}

#[test]
fn what_may_be_no_storm_is_none() {
    type Set = fn(&mut Stage, &mut Evidence);
    let cases: [(&str, Set); 7] = [
        ("one host", |_, evidence| silent(evidence, "c", 100)),
        ("long after each other", |_, evidence| silent(evidence, "c", 40_000)),
        ("another voter hears it", |_, evidence| {
            let answer = Answer { asked: Moment(99_900), age: Some(Duration::from_millis(300)), counts: false };
            evidence.hosts.get_mut(&host("c")).unwrap().answers.insert(host("b"), answer);
        }),
        ("a device says that it is off", |_, evidence| {
            evidence.hosts.get_mut(&host("c")).unwrap().power.insert(0, off("c", Moment(99_000)));
        }),
        ("it was never heard", |_, evidence| evidence.hosts.get_mut(&host("c")).unwrap().sync = None),
        ("it is in maintenance", |stage, _| maintain(stage, "c")),
        ("one rack", |stage, _| {
            let policies = &mut stage.state.policies;
            policies.cluster.failure_domain = Some("rack".to_owned());
            for on in ["c", "d"] {
                let labels = &mut policies.hosts.entry(host(on)).or_default().labels;
                labels.insert("rack".to_owned(), "r1".to_owned());
            }
        }),
    ];
    for (case, change) in cases {
        let (mut stage, mut evidence) = storm();
        change(&mut stage, &mut evidence);
        assert_eq!(broken(&stage, &evidence, &fence("d")), [""; 0], "{case}");
    }
}

/// Everything that may be begun with the guest `g`, which runs on `a`.
fn beginnings(stage: &mut Stage) -> Vec<Change> {
    let epoch = stage.state.guests[&name("g")].tenures()[0].epoch;
    vec![
        stage.climb("g", 0),
        Change::Migrate { guest: name("g"), to: host("b"), why: String::new() },
        Change::Stop { guest: name("g"), why: String::new() },
        Change::StoppedByLease { guest: name("g") },
        Change::StrayFound { guest: name("g"), host: host("b"), epoch, keep: Some(host("a")) },
    ]
}

#[test]
fn nothing_is_begun_while_deciding_is_suspended_and_what_is_under_way_is_finished() {
    let mut stage = Stage::new(&["a", "b", "c"], &["g", "h", "new"]);
    stage.run("g", "a");
    stage.run("h", "b");
    stage.fence("b");
    suspend(&mut stage);
    let evidence = well(&stage);
    let mut begun = beginnings(&mut stage);
    begun.extend([fence("c"), place_on("new", "c"), stage.gone("c")]);
    for change in &begun {
        assert_eq!(broken(&stage, &evidence, change), ["S8"], "{change:?}");
    }
    let gone = stage.gone("b");
    for change in [attempt("b"), Change::ReleaseAgain { guest: name("g") }, gone.clone()] {
        assert_eq!(broken(&stage, &evidence, &change), [""; 0], "{change:?}");
    }
    stage.must(gone);
    assert_eq!(broken(&stage, &evidence, &place_on("h", "c")), [""; 0], "its host was being fenced");
}

#[test]
fn hosts_in_maintenance_and_their_guests_are_left_alone() {
    let mut stage = Stage::new(&["a", "b", "c"], &["g"]);
    stage.run("g", "a");
    maintain(&mut stage, "a");
    let evidence = well(&stage);
    let mut begun = beginnings(&mut stage);
    begun.push(stage.gone("a"));
    for change in &begun {
        assert_eq!(broken(&stage, &evidence, change), ["S8"], "{change:?}");
    }
    let gone = stage.gone("a");
    stage.must(gone);
    assert_eq!(broken(&stage, &evidence, &place_on("g", "b")), ["S8"], "it was left down there");
}

#[test]
fn a_guest_that_was_being_sent_away_from_a_host_in_maintenance_starts_elsewhere() {
    let mut stage = Stage::new(&["a", "b", "c"], &["g"]);
    stage.run("g", "a");
    let failover = stage.climb("g", 2);
    stage.must(failover);
    maintain(&mut stage, "a");
    let evidence = well(&stage);
    assert_eq!(broken(&stage, &evidence, &Change::ReleaseAgain { guest: name("g") }), [""; 0]);
    stage.end("a", done());
    assert_eq!(broken(&stage, &evidence, &place_on("g", "b")), [""; 0]);
}

#[test]
fn a_guest_that_is_left_alone_is_found_while_deciding_is_suspended_and_others_are_not() {
    for (wanted, expected) in [(Wanted::Unmanaged, vec![]), (Wanted::Stopped, vec!["S8"])] {
        let mut stage = Stage::new(&["a", "b"], &[]);
        let hosts: Vec<_> = stage.state.hosts.keys().cloned().collect();
        stage.declare(crate::fixture::declaration(&[name("new")], &hosts));
        stage.must(Change::WantedSet { guest: name("new"), wanted, by: "ann".to_owned() });
        suspend(&mut stage);
        let epoch = crate::names::Epoch::default();
        let tenure = crate::state::Tenure { host: host("a"), incarnation: boot("a.1"), epoch };
        let adopt = Change::GuestAdopted { guest: name("new"), tenure };
        assert_eq!(broken(&stage, &well(&stage), &adopt), expected, "{wanted:?}");
    }
}
