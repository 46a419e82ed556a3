//! Plans that break a promise, and those that do not.

use std::time::Duration;

use super::*;
use crate::{
    armed::{Armed, ArmedWatchdog},
    evidence::{Answer, Heard},
    fixture::{Stage, boot, host, name, off, place_on},
    model::{FenceLevel, LeaseLevel},
    proof::{PowerReading, Proof, QUIET},
};

fn well(stage: &Stage) -> Evidence {
    let mut evidence = Evidence { quorum_since: Some(Moment(0)), me: Some(host("a")), ..Evidence::default() };
    evidence.voters = stage.state.hosts.keys().cloned().collect();
    for (name, known) in &stage.state.hosts {
        let heard = Heard { at: Moment(9_900), incarnation: known.facts.incarnation.clone() };
        evidence.hosts.entry(name.clone()).or_default().sync = Some(heard);
    }
    evidence
}

fn promises(stage: &Stage, evidence: &Evidence, plan: &[Change]) -> Vec<String> {
    let found = check(&stage.state, evidence, &Timing::default(), Moment(10_000), plan);
    found.into_iter().map(|violation| violation.promise).collect()
}

fn fence(of: &str, evidence: &[&str]) -> Change {
    let evidence = evidence.iter().map(|said| (*said).to_owned()).collect();
    let incarnation = crate::fixture::boot(&format!("{of}.1"));
    Change::FenceOpened { host: host(of), incarnation, evidence, last_well: None, safe_at: None }
}

#[test]
fn a_guest_that_may_run_somewhere_is_never_placed() {
    let mut stage = Stage::new(&["a", "b"], &["g"]);
    stage.run("g", "a");
    let evidence = well(&stage);
    assert_eq!(promises(&stage, &evidence, &[place_on("g", "b")]), ["S2"]);
    assert_eq!(promises(&stage, &evidence, &[]), [""; 0]);
}

#[test]
fn a_guest_is_neither_placed_nor_climbed_for_while_another_host_has_something_of_it() {
    let mut stage = Stage::new(&["a", "b", "c"], &["g"]);
    stage.run("g", "a");
    let climb = Change::Climb {
        guest: name("g"),
        rung: 0,
        ladder: crate::ladder::LadderKind::Recovery,
        to: None,
        why: String::new(),
        evidence: Vec::new(),
        last_well: None,
    };
    let mut evidence = well(&stage);
    assert_eq!(promises(&stage, &evidence, std::slice::from_ref(&climb)), [""; 0]);
    let epoch = stage.state.guests[&name("g")].tenures()[0].epoch;
    let found = Change::StrayFound { guest: name("g"), host: host("b"), epoch, keep: Some(host("a")) };
    assert_eq!(promises(&stage, &evidence, &[found.clone(), climb.clone()]), ["S1"], "both in one plan");

    let report = |condition| crate::observe::GuestReport::new(name("g"), epoch, condition);
    let reports = |evidence: &mut Evidence, condition| {
        evidence.hosts.get_mut(&host("b")).unwrap().reports.insert(name("g"), report(condition));
    };
    reports(&mut evidence, crate::observe::GuestCondition::Running);
    assert_eq!(promises(&stage, &evidence, std::slice::from_ref(&climb)), ["S1"], "b has it");
    reports(&mut evidence, crate::observe::GuestCondition::Exited { detail: String::new() });
    assert_eq!(promises(&stage, &evidence, std::slice::from_ref(&climb)), [""; 0], "b had it");

    stage.must(found);
    assert_eq!(promises(&stage, &evidence, std::slice::from_ref(&climb)), ["S2"], "b has not reported");
    stage.end("b", crate::fixture::done());
    assert_eq!(promises(&stage, &evidence, &[climb]), [""; 0]);
}

#[test]
fn nothing_is_decided_without_a_quorum() {
    let stage = Stage::new(&["a", "b"], &["g"]);
    let evidence = Evidence { quorum_since: None, ..well(&stage) };
    assert!(promises(&stage, &evidence, &[place_on("g", "b")]).contains(&"S4".to_owned()));
}

#[test]
fn a_fence_names_its_evidence_and_spares_who_synced() {
    let stage = Stage::new(&["a", "b", "c"], &["g"]);
    let mut evidence = well(&stage);
    assert_eq!(promises(&stage, &evidence, &[fence("b", &["c says so"])]), ["R16", "R17"]);
    let seen = evidence.hosts.get_mut(&host("b")).unwrap();
    seen.sync.as_mut().unwrap().at = Moment(7_000);
    assert_eq!(promises(&stage, &evidence, &[fence("b", &["c says so"])]), ["R17"]);
    let (asked, age) = (Moment(9_900), Some(Duration::from_millis(2_900)));
    let answers = &mut evidence.hosts.get_mut(&host("b")).unwrap().answers;
    answers.insert(host("c"), Answer { asked, age, counts: false });
    assert_eq!(promises(&stage, &evidence, &[fence("b", &["c says so"])]), ["R17"]);
    evidence.hosts.get_mut(&host("b")).unwrap().answers.get_mut(&host("c")).unwrap().counts = true;
    assert_eq!(promises(&stage, &evidence, &[fence("b", &["c says so"])]), [""; 0]);
    assert_eq!(promises(&stage, &evidence, &[fence("b", &[])]), ["S3"]);
    evidence.hosts.get_mut(&host("a")).unwrap().sync = None;
    assert!(promises(&stage, &evidence, &[fence("a", &["c says so"])]).contains(&"S3".to_owned()));
}

/// A plan that takes `b` for gone by an "off" asked then breaks this, by when the host was heard last.
fn off_proves(asked: u64, cases: &[(u64, &[&str])]) {
    let stage = Stage::new(&["a", "b", "c"], &["g"]);
    let mut evidence = well(&stage);
    let declared = stage.state.policies.levels_of(&host("b"))[0].clone();
    let reading = PowerReading { declared, ..off("b", Moment(asked)) };
    let boot = crate::fixture::boot("b.1");
    let proof = Proof::power_off(&host("b"), &boot, &reading, Some("ann"), None, QUIET).unwrap();
    let plan = [Change::HostGone { proof, last_well: None, last_words: None }];
    evidence.hosts.get_mut(&host("b")).unwrap().read(reading);
    for (heard, broken) in cases {
        evidence.hosts.get_mut(&host("b")).unwrap().sync.as_mut().unwrap().at = Moment(*heard);
        assert_eq!(promises(&stage, &evidence, &plan), *broken, "{heard}");
    }
}

#[test]
fn a_reading_older_than_a_sign_of_life_proves_nothing() {
    off_proves(9_350, &[(9_349, &[]), (9_350, &["R9"])]);
}

#[test]
fn an_off_between_two_beacons_proves_nothing() {
    off_proves(9_500, &[(9_400, &[]), (9_401, &["R9"])]);
}

/// R25: which boot of it the voters that are lost had taken in nobody knows.
#[test]
fn an_off_between_signs_of_a_boot_that_has_not_joined_proves_nothing_after_a_recovery() {
    let mut stage = Stage::new(&["a", "b", "c"], &["g"]);
    for (recovered, broken) in [(false, &[][..]), (true, &["R9"][..])] {
        if recovered {
            stage.recover();
            stage.must(Change::SuspensionSet { suspended: false, by: "ann".to_owned() });
        }
        let mut evidence = well(&stage);
        let declared = stage.state.policies.levels_of(&host("b"))[0].clone();
        let reading = PowerReading { declared, ..off("b", Moment(8_000)) };
        let boot = crate::fixture::boot("b.1");
        let proof = Proof::power_off(&host("b"), &boot, &reading, Some("ann"), None, QUIET).unwrap();
        let known = evidence.hosts.get_mut(&host("b")).unwrap();
        (known.sync, known.heard) = (None, None);
        known.read(reading);
        known.hear_other(&crate::fixture::boot("b.2"), Moment(9_000), Moment(9_000));
        let plan = [Change::HostGone { proof, last_well: None, last_words: None }];
        assert_eq!(promises(&stage, &evidence, &plan), broken, "{recovered}");
    }
}

/// R1: the planner's sum is not taken over. A watchdog of a minute shows what a margin on the lease alone would forget.
#[test]
fn a_proof_by_lease_is_refused_while_a_slow_watchdog_may_not_have_fired() {
    let mut stage = Stage::new(&["a", "b"], &[]);
    let mut policies = stage.state.policies.clone();
    policies.fencing.insert(host("b"), vec![FenceLevel::Lease(LeaseLevel::default())]);
    stage.declare(policies);
    let watchdog = ArmedWatchdog { identity: "iTCO_wdt".to_owned(), timeout_ms: 60_000, is_virtual: false };
    let armed = Some(Armed { stops: true, guard_ms: 1_000, watchdog: Some(watchdog) });
    let (of, incarnation, index) = (host("b"), boot("b.1"), stage.index);
    stage.must(Change::HostArmed { host: of, incarnation, armed, lease_ms: 4_000, known_view: index, seen: index });
    stage.must(Change::LeaseClosed { host: host("b"), incarnation: boot("b.1") });
    let ground = stage.state.lease_ground(&host("b")).unwrap();
    let proof = Proof::lease_expired(&host("b"), &boot("b.1"), &ground, Moment(0), Moment(1_000_000)).unwrap();
    let gone = [Change::HostGone { proof, last_well: None, last_words: None }];
    let broken = |since: u64| {
        let mut evidence = well(&stage);
        evidence.authority_since = Some(Moment(100_000 - since));
        evidence.hosts.get_mut(&host("b")).unwrap().sync = None;
        let found = check(&stage.state, &evidence, &Timing::default(), Moment(100_000), &gone);
        found.into_iter().map(|violation| violation.promise).collect::<Vec<_>>()
    };
    assert_eq!(broken(4_200 + 1_000 + 60_000), ["R9"]);
    assert_eq!(broken(68_249), ["R9"]);
    assert_eq!(broken(68_250), [""; 0]);
}

#[test]
fn memory_is_counted_once_more() {
    let mut stage = Stage::new(&["a", "b"], &["g", "h"]);
    for declared in stage.state.policies.guests.values_mut() {
        declared.qemu.memory_mib = 5_000;
    }
    let evidence = well(&stage);
    assert_eq!(promises(&stage, &evidence, &[place_on("g", "a"), place_on("h", "b")]), [""; 0]);
    assert_eq!(promises(&stage, &evidence, &[place_on("g", "a"), place_on("h", "a")]), ["L1"]);
    assert_eq!(promises(&stage, &evidence, &[place_on("g", "a"), place_on("g", "b")]), ["S1"]);
}

#[test]
fn a_guest_is_followed_only_where_it_is_alone_and_its_own_host_has_nothing_of_it() {
    let mut stage = Stage::new(&["a", "b", "c"], &["g"]);
    stage.run("g", "a");
    let epoch = stage.state.guests[&name("g")].tenures()[0].epoch;
    let report = |epoch| crate::observe::GuestReport::new(name("g"), epoch, crate::observe::GuestCondition::Running);
    let has = |evidence: &mut Evidence, on: &str, epoch| {
        evidence.hosts.get_mut(&host(on)).unwrap().reports.insert(name("g"), report(epoch));
    };
    let to = |on: &str, epoch| {
        let tenure =
            crate::state::Tenure { host: host(on), incarnation: crate::fixture::boot(&format!("{on}.1")), epoch };
        [Change::MovedOutside { guest: name("g"), tenure }]
    };
    let mut evidence = well(&stage);
    assert_eq!(promises(&stage, &evidence, &to("b", epoch)), ["S2"], "b does not say so");
    has(&mut evidence, "b", epoch);
    assert_eq!(promises(&stage, &evidence, &to("b", epoch)), [""; 0]);
    assert_eq!(promises(&stage, &evidence, &to("b", crate::names::Epoch::default())), ["R7", "S2"]);
    has(&mut evidence, "c", epoch);
    assert_eq!(promises(&stage, &evidence, &to("b", epoch)), ["S1"], "c has it too");
    evidence.hosts.get_mut(&host("c")).unwrap().reports.clear();
    has(&mut evidence, "a", epoch);
    assert_eq!(promises(&stage, &evidence, &to("b", epoch)), ["S2"], "it is where it was");
    evidence.hosts.get_mut(&host("a")).unwrap().reports.clear();
    evidence.hosts.get_mut(&host("a")).unwrap().sync.as_mut().unwrap().at = Moment(5_000);
    assert_eq!(promises(&stage, &evidence, &to("b", epoch)), ["S2"], "a has not said so lately");
}
