//! The lease as a level of fencing: closed when its host is silent, a proof by time, and the way back.

use super::*;
use crate::{
    armed::{Armed, ArmedWatchdog},
    evidence::Heard,
    model::{FenceLevel, LeaseLevel},
    state::Life,
};

fn armed() -> Armed {
    let watchdog = ArmedWatchdog { identity: "iTCO_wdt".to_owned(), timeout_ms: 10_000, is_virtual: false };
    Armed { stops: true, guard_ms: 1_000, watchdog: Some(watchdog) }
}

/// Four hosts and a guest that runs on `d`, whose fencing is these levels, and whose boot has said what it has armed.
fn with(levels: Vec<FenceLevel>, armed: Option<Armed>) -> Scene {
    let mut scene = four();
    scene.evidence.authority_since = Some(Moment(1_000));
    let mut policies = scene.stage.state.policies.clone();
    policies.fencing.insert(host("d"), levels);
    scene.stage.declare(policies);
    arm(&mut scene, armed);
    scene.later(10_000);
    scene
}

fn arm(scene: &mut Scene, armed: Option<Armed>) {
    let (incarnation, index) = (scene.stage.state.hosts[&host("d")].facts.incarnation.clone(), scene.stage.index);
    scene.stage.must(Change::HostArmed {
        host: host("d"),
        incarnation,
        armed,
        lease_ms: 4_000,
        known_view: index,
        seen: index,
    });
    scene.evidence.marks.applied(scene.stage.index, Moment(scene.now));
}

fn lease_only() -> Scene {
    with(vec![FenceLevel::Lease(LeaseLevel::default())], Some(armed()))
}

/// `d` is heard, and has been without a sync and a lease for five seconds.
fn isolated() -> Scene {
    let mut scene = lease_only();
    scene.silent("d", 5_000);
    granted(&mut scene, 5_000);
    scene.heard("d", 100);
    scene
}

/// The newest lease was granted so long ago.
fn granted(scene: &mut Scene, ago: u64) {
    let incarnation = scene.stage.state.hosts[&host("d")].facts.incarnation.clone();
    let heard = Heard { at: Moment(scene.now - ago), incarnation };
    scene.evidence.hosts.entry(host("d")).or_default().granted = Some(heard);
}

#[test]
fn a_host_that_is_armed_and_syncs_is_left_alone() {
    let mut scene = lease_only();
    granted(&mut scene, 100);
    assert!(scene.words().is_empty(), "{:?}", scene.words());
    assert_eq!(scene.decide().report.hosts[&host("d")].safe_at, None);
}

#[test]
fn nobody_is_called_for_a_silent_host_of_which_too_few_can_say_so_where_its_lease_ends_the_wait() {
    let watchdog = ArmedWatchdog { identity: "iTCO_wdt".to_owned(), timeout_ms: 300_000, is_virtual: false };
    let armed = Armed { watchdog: Some(watchdog), ..armed() };
    let mut scene = with(vec![FenceLevel::Lease(LeaseLevel::default())], Some(armed));
    let fell_silent = scene.now;
    for (ms, expected) in [(2_000, vec!["LeaseClosed"]), (100_000, Vec::new())] {
        scene.now = fell_silent + ms;
        scene.all_well();
        scene.silent("d", ms);
        granted(&mut scene, ms);
        let answers = &mut scene.evidence.hosts.get_mut(&host("d")).unwrap().answers;
        answers.values_mut().for_each(|answer| answer.counts = false);
        assert_eq!(scene.verdict("d"), HostVerdict::Suspect);
        assert!(ms < 90_000 || scene.decide().report.hosts[&host("d")].safe_at.is_some());
        assert_eq!(scene.settle(), expected, "silent for {ms} ms");
    }
}

#[test]
fn a_lease_that_has_run_out_with_guard_and_watchdog_frees_the_guests_to_the_millisecond() {
    let mut scene = lease_only();
    scene.silent("d", 2_000);
    granted(&mut scene, 2_100);
    assert_eq!(scene.settle(), ["LeaseClosed", "FenceOpened"]);
    let granted_at = scene.now - 2_100;
    scene.now = granted_at + 15_750 - 1;
    scene.all_well();
    scene.silent("d", 15_000);
    granted(&mut scene, 15_749);
    let judged = scene.decide();
    assert!(judged.commands.is_empty(), "a millisecond too early: {:?}", judged.commands);
    let safe = judged.report.hosts[&host("d")].safe_at.clone().unwrap();
    assert_eq!((safe.left_ms, safe.at.0), (1, scene.now + 1));
    scene.now += 1;
    scene.all_well();
    scene.silent("d", 15_000);
    granted(&mut scene, 15_750);
    assert_eq!(scene.settle(), ["HostGone", "Place"]);
}

#[test]
fn what_is_waited_for_is_told_with_its_time_and_its_parts() {
    let mut scene = lease_only();
    scene.silent("d", 2_000);
    granted(&mut scene, 2_000);
    scene.settle();
    let waits = scene.decide().report.hosts[&host("d")].waits.clone().unwrap();
    assert_eq!(
        waits.0,
        "safe at 00:02:03Z: lease 4s + guard 1s + watchdog 10s + 5 % for clocks, last granted 00:01:48Z"
    );
    assert_eq!(waits.1, 13_750);
}

#[test]
fn nobody_is_called_while_a_lease_ends_the_wait_and_somebody_where_it_does_not() {
    let paged =
        |scene: &Scene| scene.stage.state.open_incident("host/d").is_some_and(|incident| incident.human.is_some());
    for (what, calls) in [(Some(armed()), false), (None, true)] {
        let mut scene = with(vec![FenceLevel::Lease(LeaseLevel::default())], what);
        scene.settle();
        scene.silent("d", 2_000);
        granted(&mut scene, 2_000);
        scene.settle();
        assert_eq!(paged(&scene), calls);
    }
}

#[test]
fn a_host_whose_budget_is_used_up_waits_for_its_lease_where_that_ends_before_the_hour_has_room() {
    let mut levels = four().stage.state.policies.fencing[&host("d")].clone();
    levels.push(FenceLevel::Lease(LeaseLevel::default()));
    let mut scene = with(levels, Some(armed()));
    scene.stage.state.policies.cluster.fences_per_hour = Some(1);
    let fenced = scene.stage.index;
    scene.stage.state.hosts.get_mut(&host("d")).unwrap().fences.push(fenced);
    scene.silent("d", 2_000);
    granted(&mut scene, 2_000);
    scene.settle();
    assert!(scene.stage.state.open_incident("host/d").is_some_and(|open| open.human.is_none()), "nobody is called");
    let (what, left) = scene.decide().report.hosts[&host("d")].waits.clone().unwrap();
    assert!(what.starts_with("safe at ") && left == 13_750, "{what} {left}");
}

#[test]
fn a_host_that_relies_on_its_lease_and_has_no_watchdog_is_told_of_at_once() {
    let mut scene = with(vec![FenceLevel::Lease(LeaseLevel::default())], Some(Armed { watchdog: None, ..armed() }));
    assert_eq!(scene.settle(), ["IncidentOpened"]);
    let told = scene.stage.state.open_incident("lease/d").unwrap().summary.clone();
    assert_eq!(told, "d relies on its lease, and it has no watchdog armed");
    arm(&mut scene, Some(armed()));
    assert_eq!(scene.settle(), ["IncidentResolved"]);
}

#[test]
fn without_a_ground_no_time_is_long_enough() {
    for what in [None, Some(Armed { stops: false, ..armed() }), Some(Armed { watchdog: None, ..armed() })] {
        let mut scene = with(vec![FenceLevel::Lease(LeaseLevel::default())], what);
        scene.settle();
        scene.now += 1_000_000;
        scene.all_well();
        scene.silent("d", 900_000);
        scene.settle();
        assert!(!matches!(scene.stage.state.hosts[&host("d")].life, Life::Gone { .. }));
    }
}

#[test]
fn an_isolated_host_is_not_fenced_and_its_guests_are_freed_by_its_lease() {
    let mut scene = isolated();
    scene.seen("web", SightState::Failing);
    assert_eq!(scene.verdict("d"), HostVerdict::Isolated);
    assert_eq!(scene.settle(), ["LeaseClosed", "IncidentOpened"]);
    scene.now += 10_800;
    scene.all_well();
    scene.silent("d", 15_800);
    scene.heard("d", 100);
    granted(&mut scene, 15_800);
    assert_eq!(scene.settle(), ["HostGone", "IncidentResolved", "Place"]);
    let told = scene.stage.state.open_incident("fencing/d");
    assert_eq!(told, None, "that it is alive contradicts nothing");
}

#[test]
fn a_storm_holds_no_proof_by_lease() {
    let mut scene = lease_only();
    for on in ["b", "c", "d"] {
        scene.silent(on, 3_000);
    }
    granted(&mut scene, 3_000);
    let words = scene.settle();
    assert!(words.contains(&"LeaseClosed".to_owned()) && !words.contains(&"FenceOpened".to_owned()), "{words:?}");
    scene.now += 13_000;
    scene.all_well();
    for on in ["b", "c", "d"] {
        scene.silent(on, 16_000);
    }
    granted(&mut scene, 16_000);
    assert!(scene.decide().report.storm_hold.is_some());
    assert!(scene.words().contains(&"HostGone".to_owned()));
}

#[test]
fn a_new_leader_counts_from_its_own_authority() {
    let mut scene = lease_only();
    scene.silent("d", 2_000);
    granted(&mut scene, 2_000);
    scene.settle();
    scene.now += 60_000;
    scene.all_well();
    scene.silent("d", 62_000);
    scene.evidence.hosts.get_mut(&host("d")).unwrap().granted = None;
    scene.evidence.authority_since = Some(Moment(scene.now - 15_749));
    assert!(!scene.words().contains(&"HostGone".to_owned()));
    scene.evidence.authority_since = Some(Moment(scene.now - 15_750));
    assert!(scene.words().contains(&"HostGone".to_owned()));
}

#[test]
fn a_power_device_that_is_faster_is_not_waited_with() {
    let device = scene_device();
    let mut scene = with(vec![device, FenceLevel::Lease(LeaseLevel::default())], Some(armed()));
    scene.silent("d", 2_000);
    granted(&mut scene, 2_000);
    assert_eq!(scene.settle(), ["LeaseClosed", "FenceOpened", "FenceAttempted"]);
    scene.stage.end("a", failed());
    let incident = scene.stage.state.open_incident("host/d").unwrap();
    assert_eq!(incident.human, None, "the lease ends the wait");
    let ends = "; safe at 00:02:03Z: lease 4s + guard 1s + watchdog 10s + 5 % for clocks, last granted 00:01:48Z";
    assert!(incident.summary.contains("could not be switched off") && incident.summary.ends_with(ends), "{incident:?}");
    scene.power("d", off("d", Moment(scene.now)));
    assert_eq!(scene.settle(), ["HostGone", "Place"]);
    let proof = match &scene.stage.state.hosts[&host("d")].life {
        Life::Gone { proof } => proof.word(),
        other => panic!("{other:?}"),
    };
    assert_eq!(proof, "power_off");
}

fn scene_device() -> FenceLevel {
    declaration(&[name("web")], &[host("d")]).fencing[&host("d")][0].clone()
}

/// `d` is proven gone by its lease, and `web` runs elsewhere.
fn gone() -> Scene {
    let mut scene = lease_only();
    scene.silent("d", 2_000);
    granted(&mut scene, 2_000);
    scene.settle();
    scene.now += 20_000;
    scene.all_well();
    scene.silent("d", 22_000);
    scene.settle();
    assert!(matches!(scene.stage.state.hosts[&host("d")].life, Life::Gone { .. }));
    scene
}

fn back(scene: &mut Scene, seen: u64) {
    scene.now += 1_000;
    scene.evidence.marks.applied(scene.stage.index, Moment(scene.now - 900));
    scene.all_well();
    scene.evidence.hosts.entry(host("d")).or_default().seen =
        crate::sync::Authority { generation: 1, term: 1, index: seen };
}

#[test]
fn a_boot_that_is_back_joins_again_once_it_has_learned_of_the_proof_and_runs_nothing() {
    let mut scene = gone();
    let since = scene.stage.state.hosts[&host("d")].life_since;
    let index = scene.stage.index;
    back(&mut scene, since - 1);
    assert!(!scene.words().contains(&"HostReturned".to_owned()), "it has not learned of the proof");
    back(&mut scene, index);
    let owed = scene.stage.state.hosts[&host("d")].lease.owes[&name("web")];
    let report = GuestReport::new(name("web"), owed, GuestCondition::Running);
    scene.evidence.hosts.entry(host("d")).or_default().reports.insert(name("web"), report);
    assert!(!scene.words().contains(&"HostReturned".to_owned()), "it runs what it may not run");
    back(&mut scene, index);
    assert!(scene.words().contains(&"HostReturned".to_owned()));
    scene.settle();
    let known = &scene.stage.state.hosts[&host("d")];
    assert_eq!((&known.life, known.lease.owes.is_empty()), (&Life::Up, true));
    assert!(known.lease.record.as_ref().unwrap().closed.is_some(), "no lease before it has said what it has armed");
}

#[test]
fn a_boot_that_is_back_is_told_all_that_it_may_not_run_any_more() {
    use crate::{
        reply::reply,
        sync::{Authority, SyncRequest},
    };
    let scene = gone();
    let known = &scene.stage.state.hosts[&host("d")];
    let request = |index: u64| SyncRequest {
        seen: Authority { generation: 1, term: 1, index },
        armed: Some(armed()),
        ..SyncRequest::of(host("d"), known.facts.clone())
    };
    let answer = |seen| {
        reply(&scene.stage.state, &request(seen), 1, Duration::from_secs(4), &crate::go_ahead::GoAheads::nothing())
    };
    assert_eq!(answer(known.life_since - 1).superseded, [(name("web"), known.lease.owes[&name("web")])]);
    assert_eq!(answer(known.life_since - 1).lease_ms, None);
    assert_eq!(answer(known.life_since).superseded, [], "it has been told");
}

#[test]
fn a_boot_that_was_called_off_wrongly_comes_back_only_after_its_last_start_must_have_ended() {
    let mut scene = four();
    scene.now += 10_000;
    scene.all_well();
    let change = scene.stage.gone("d");
    scene.stage.must(change);
    scene.evidence.marks.applied(scene.stage.index, Moment(scene.now));
    let index = scene.stage.index;
    for (after, returns) in [(34_000, false), (300, true)] {
        scene.now += after;
        scene.synced("d", scene.now);
        scene.evidence.hosts.entry(host("d")).or_default().seen =
            crate::sync::Authority { generation: 1, term: 1, index };
        assert_eq!(scene.words().contains(&"HostReturned".to_owned()), returns, "after {after} ms more");
    }
}

#[test]
fn a_guest_that_its_host_stopped_by_lease_is_started_anew_and_climbs_no_rung() {
    let mut scene = isolated();
    scene.settle();
    // It is back before anything was proven.
    arm(&mut scene, Some(armed()));
    scene.later(1_000);
    scene.report("web", "d", GuestCondition::Exited { detail: "killed".to_owned() });
    let words = scene.settle();
    assert!(words.contains(&"StoppedByLease".to_owned()) && !words.contains(&"Climb".to_owned()), "{words:?}");
    assert!(matches!(scene.stage.phase("web"), Phase::Releasing { .. }));
    scene.stage.end("d", done());
    scene.settle();
    assert!(matches!(scene.stage.phase("web"), Phase::Starting { .. }));
    assert_eq!(scene.stage.state.guests[&name("web")].ladder.position, None);
}

#[test]
fn a_guest_that_its_host_stopped_by_lease_waits_for_deciding_to_be_resumed() {
    let mut scene = isolated();
    scene.settle();
    arm(&mut scene, Some(armed()));
    scene.stage.must(Change::SuspensionSet { suspended: true, by: "ann".to_owned() });
    scene.later(1_000);
    scene.report("web", "d", GuestCondition::Exited { detail: "killed".to_owned() });
    let words = scene.settle();
    assert!(!words.contains(&"StoppedByLease".to_owned()), "{words:?}");
    let judged = scene.decide().report.guests[&name("web")].clone();
    assert!(judged.doing.starts_with("d stopped it when its lease ran out; "), "{}", judged.doing);
    assert_eq!(judged.waits, Some(("deciding to be resumed".to_owned(), FOREVER)));
}

#[test]
fn a_host_in_maintenance_keeps_its_guests_whatever_its_lease() {
    let mut scene = lease_only();
    restraint::set_mode(&mut scene, "d", Mode::Maintenance);
    scene.silent("d", 5_000);
    granted(&mut scene, 5_000);
    scene.now += 100_000;
    scene.all_well();
    scene.silent("d", 100_000);
    assert!(scene.words().is_empty(), "{:?}", scene.words());
}

#[test]
fn the_last_words_of_a_host_are_told_with_what_is_decided_about_it_and_decide_nothing() {
    let mut scene = lease_only();
    granted(&mut scene, 100);
    scene.evidence.hosts.get_mut(&host("d")).unwrap().last_words = Some("no coordinator answers".to_owned());
    assert!(scene.words().is_empty(), "a host that is well may say what it likes: {:?}", scene.words());
    scene.silent("d", 2_000);
    granted(&mut scene, 2_000);
    assert_eq!(scene.settle(), ["LeaseClosed", "FenceOpened"]);
    scene.now += 14_000;
    scene.all_well();
    scene.silent("d", 16_000);
    granted(&mut scene, 16_000);
    assert_eq!(scene.settle(), ["HostGone", "Place"]);
    let told: Vec<String> = scene.stage.state.journal.entries().map(|entry| entry.what.to_string()).collect();
    for begin in ["d has failed: ", "d is proven gone: "] {
        let line = told.iter().find(|line| line.starts_with(begin)).unwrap();
        assert!(line.ends_with("; its last words: no coordinator answers"), "{line}");
    }
}

/// Its lease was over first; then the attempt of its fence came through.
#[test]
fn a_host_that_was_switched_off_after_its_lease_had_proven_it_gone_is_switched_on_again() {
    let device = four().stage.state.policies.levels_of(&host("d"))[0].clone();
    let mut scene = with(vec![device, FenceLevel::Lease(LeaseLevel::default())], Some(armed()));
    scene.stage.state.level = crate::feature_level::FeatureLevel::HIGHEST;
    let mut policies = scene.stage.state.policies.clone();
    policies.cluster.power_on_after_fence = true;
    scene.stage.declare(policies);
    scene.silent("d", 2_000);
    granted(&mut scene, 2_000);
    assert!(scene.settle().contains(&"FenceAttempted".to_owned()));
    let attempt = scene.stage.state.fence_under_way(&host("d")).unwrap();
    scene.later(15_000);
    scene.silent("d", 17_000);
    granted(&mut scene, 17_000);
    assert!(scene.settle().contains(&"HostGone".to_owned()));
    scene.stage.must(Change::OrderEnded { order: attempt, outcome: done() });
    let known = scene.evidence.hosts[&host("d")].clone();
    scene.later(30_000);
    scene.evidence.hosts.insert(host("d"), known);
    let switched_on = |scene: &Scene| scene.words().contains(&"PowerOnOrdered".to_owned());
    assert!(!switched_on(&scene), "as far as is known it is on");
    scene.power("d", off("d", Moment(scene.now - 25_000)));
    assert!(switched_on(&scene), "{:?}", scene.words());
}
