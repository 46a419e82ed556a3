//! While voters of two versions apply one log, this version does what the earlier one does (R26). Orders and incidents are numbered by
//! the state: what some take in and the others refuse would give each later number another meaning here than there.

use super::*;
use crate::{
    feature_level::FeatureLevel,
    fence_path::{PathTest, Wired, WiredBy},
    incident::RESOLVED_KEPT_MAX,
    model::{FenceLevel, PowerDevice, QemuDevice, Rung},
    rules::ClusterSettings,
    state::{HostFacts, Mode, POWER_ON_TRIES_MAX, Suspension},
    time::{Span, WallTime},
};

/// One situation while not all voters are of this version, and when they are.
fn before_and_after(make: impl Fn() -> Stage) -> [Stage; 2] {
    let (before, mut after) = (make(), make());
    after.state.level = FeatureLevel::HIGHEST;
    [before, after]
}

/// `a` has a power device that means another machine on each host that asks.
fn local() -> Stage {
    let mut stage = Stage::new(&["a", "b", "c"], &["web"]);
    let device = QemuDevice {
        socket: "/run/a/qmp".into(),
        pidfile: "/run/a/pid".into(),
        start: None,
        wiring_verified_by: None,
        timeout: Span::secs(20),
    };
    let mut policies = stage.state.policies.clone();
    policies.fencing.insert(host("a"), vec![FenceLevel::Power(vec![PowerDevice::Qemu(device)])]);
    stage.declare(policies);
    stage
}

fn opened(key: &str) -> Change {
    let (severity, summary, human) = (Severity::Warning, "it is so".to_owned(), Some("Look.".to_owned()));
    Change::IncidentOpened { key: key.to_owned(), severity, summary, human, guests: Vec::new(), evidence: Vec::new() }
}

#[test]
fn a_device_that_is_not_trusted_is_drilled_by_all_voters_or_by_none() {
    let [mut before, mut after] = before_and_after(|| {
        let mut stage = Stage::new(&["a", "b"], &[]);
        stage.must(Change::DeviceDistrusted { host: host("a"), level: 0, why: "it lied".to_owned() });
        stage.must(Change::ModeSet { host: host("a"), mode: Mode::Draining, by: "ann".to_owned() });
        stage
    });
    let drill = Change::DrillBegun { host: host("a"), executor: host("b"), level: 0, by: "ann".to_owned() };
    before.must(drill.clone());
    assert!(matches!(after.refused(drill), Refused::Host { .. }));
}

#[test]
fn a_host_is_quarantined_by_all_voters_or_by_none() {
    let by_budget = quarantined(|cluster| cluster.fences_per_hour = Some(1));
    assert_eq!(by_budget, [true, false], "to an earlier version that is what quarantines");
    assert_eq!(quarantined(|cluster| cluster.quarantine_after_fences = Some(1)), [false, true]);
}

/// Whether `a` is quarantined when it is fenced, with these settings.
fn quarantined(change: fn(&mut ClusterSettings)) -> [bool; 2] {
    before_and_after(|| Stage::new(&["a", "b"], &[])).map(|mut stage| {
        let mut policies = stage.state.policies.clone();
        change(&mut policies.cluster);
        stage.declare(policies);
        stage.fence("a");
        attempt(&mut stage, "a", "b");
        stage.state.hosts[&host("a")].quarantine.is_some()
    })
}

#[test]
fn a_guest_that_starts_nowhere_is_started_by_all_voters_or_by_none_while_deciding_is_suspended() {
    let [mut before, mut after] = before_and_after(|| {
        let mut stage = Stage::new(&["a"], &["web", "db"]);
        for guest in ["web", "db"] {
            stage.state.guests.get_mut(&name(guest)).unwrap().start_failures.insert(host("a"), 9);
        }
        let (by, under_way) = ("ann".to_owned(), [name("web")].into());
        stage.state.suspended = Some(Suspension { by, since: stage.index, under_way });
        stage
    });
    for stage in [&mut before, &mut after] {
        assert!(matches!(stage.refused(place_on("db", "a")), Refused::Guest { .. }), "it was not being brought back");
    }
    before.must(place_on("web", "a"));
    assert!(matches!(after.refused(place_on("web", "a")), Refused::Guest { .. }));
}

#[test]
fn a_person_who_has_looked_changes_what_leases_hang_on_for_all_voters_or_for_none() {
    let views = before_and_after(|| Stage::new(&["a"], &["web"])).map(|mut stage| {
        stage.state.guests.get_mut(&name("web")).unwrap().shuns.insert(host("a"), boot("a.1"));
        let before = stage.state.view_changed;
        stage.must(Change::LookedAfter { guest: name("web"), by: "ann".to_owned() });
        stage.state.view_changed > before
    });
    assert_eq!(views, [false, true], "an earlier version shuns nothing, and refuses this");
}

#[test]
fn all_voters_count_the_same_changes_of_an_incident() {
    let called = before_and_after(|| Stage::new(&["a", "b"], &[])).map(|mut stage| {
        stage.fence("a");
        stage.must(opened("host/a"));
        attempt(&mut stage, "a", "b");
        stage.state.open_incident("host/a").unwrap().human.is_some()
    });
    assert_eq!(called, [true, false], "an earlier version does not take it back that a person was called");
}

#[test]
fn what_was_tried_to_switch_a_host_on_ends_with_its_return_for_all_voters_or_for_none() {
    let kept = before_and_after(|| Stage::new(&["a", "b"], &[])).map(|mut stage| {
        let gone = stage.gone("a");
        stage.must(gone);
        for _ in 0..POWER_ON_TRIES_MAX {
            stage.must(Change::PowerOnOrdered { host: host("a"), executor: host("b"), level: 0 });
            stage.end("b", failed());
        }
        assert!(stage.state.open_incident("power_on/a").is_some());
        let (incarnation, seen) = (boot("a.1"), stage.index);
        stage.must(Change::HostReturned { host: host("a"), incarnation, seen });
        let is_told = stage.state.open_incident("power_on/a").is_some();
        [is_told, stage.state.hosts[&host("a")].powered_on.is_some()]
    });
    assert_eq!(kept, [[true; 2], [false; 2]], "to an earlier version it ends with the next boot alone");
}

#[test]
fn a_guest_that_is_sent_away_from_a_host_keeps_away_when_that_boots_anew_for_all_voters_or_for_none() {
    let avoids = before_and_after(|| Stage::new(&["a", "b"], &["web"])).map(|mut stage| {
        stage.run("web", "a");
        let failover = stage.climb("web", 2);
        stage.must(failover);
        stage.join("a", "a.2");
        stage.end("a", done());
        let Phase::Free { avoid, .. } = stage.phase("web") else { panic!("nothing of it is left") };
        avoid.contains(&host("a"))
    });
    assert_eq!(avoids, [false, true], "an earlier version forgets where it was sent away from");
}

#[test]
fn a_guest_that_is_moved_a_little_after_it_has_recovered_is_told_to_be_down_by_all_voters_or_by_none() {
    let told = before_and_after(|| Stage::new(&["a", "b"], &["web"])).map(|mut stage| {
        stage.run("web", "a");
        let restart = stage.climb("web", 0);
        stage.must(restart);
        stage.end("a", done());
        stage.must(Change::Verified { guest: name("web"), unasked: Vec::new() });
        stage.must(Change::MoveAsked { guest: name("web"), to: host("b"), cold: true, by: "ann".to_owned() });
        stage.end("a", done());
        stage.place("web", "b");
        stage.state.open_incident("guest/web").is_some()
    });
    assert_eq!(told, [true, false], "to an earlier version whatever starts while its ladder is remembered was down");
}

#[test]
fn a_start_on_a_host_that_has_been_taken_out_of_use_since_it_was_decided_is_refused_by_all_voters_or_by_none() {
    for mode in [Mode::Draining, Mode::Maintenance, Mode::Leaving { reboot: true }] {
        let refused = before_and_after(|| Stage::new(&["a", "b"], &["web"])).map(|mut stage| {
            stage.must(Change::ModeSet { host: host("a"), mode, by: "ann".to_owned() });
            stage.apply(place_on("web", "a")).refused.is_some()
        });
        assert_eq!(refused, [false, true], "{mode:?}");
    }
}

#[test]
fn a_host_that_is_being_fenced_is_told_to_stop_what_it_has_of_a_guest_by_all_voters_or_by_none() {
    let refused = before_and_after(|| Stage::new(&["a", "b"], &["web"])).map(|mut stage| {
        stage.run("web", "a");
        stage.fence("b");
        let (guest, epoch) = (name("web"), crate::names::Epoch::default());
        stage.apply(Change::StrayFound { guest, host: host("b"), epoch, keep: Some(host("a")) }).refused.is_some()
    });
    assert_eq!(refused, [true, false]);
}

#[test]
fn the_warnings_of_a_guest_end_with_it_for_all_voters_alike() {
    let [mut before, after] = before_and_after(|| Stage::new(&["a"], &["web"])).map(|mut stage| {
        stage.must(opened("warned/web"));
        stage.declare(declaration(&[], &[host("a")]));
        stage
    });
    assert!(after.state.open_incident("warned/web").is_none());
    assert!(before.state.open_incident("warned/web").is_some(), "an earlier version knows of no warnings");
    before.must(Change::LevelRaised { to: FeatureLevel::HIGHEST });
    assert!(before.state.open_incident("warned/web").is_none());
}

/// Whoever was paged for it has to hear that it is over, which takes until it is told.
#[test]
fn an_incident_that_has_just_ended_is_forgotten_after_those_that_ended_before_it_by_all_voters_or_by_none() {
    let kept = before_and_after(|| Stage::new(&["a"], &[])).map(|mut stage| {
        stage.must(opened("path/a"));
        for number in 0..=RESOLVED_KEPT_MAX {
            let key = format!("host/{number}");
            stage.must(opened(&key));
            stage.must(Change::IncidentResolved { key });
        }
        stage.must(Change::IncidentResolved { key: "path/a".to_owned() });
        assert_eq!(stage.state.incidents.len(), RESOLVED_KEPT_MAX, "no more are kept");
        stage.state.incidents.values().any(|incident| incident.key == "path/a")
    });
    assert_eq!(kept, [false, true], "an earlier version forgets what began first");
}

#[test]
fn what_a_machine_has_found_is_forgotten_with_it_by_all_voters_or_by_none() {
    let kept = before_and_after(|| Stage::new(&["a", "b"], &[])).map(|mut stage| {
        let facts = HostFacts { machine_id: "other".to_owned(), ..facts("a", "a.2") };
        stage.must(Change::HostJoined { host: host("a"), facts, follows: None });
        let known = stage.state.hosts.get_mut(&host("b")).unwrap();
        known.paths.push(path_by("a"));
        known.wired.push(wired_for(Some("a")));
        let (machine_id, by) = (Some("other".to_owned()), Some("ann".to_owned()));
        stage.must(Change::QuarantineLifted { host: host("a"), machine_id, by });
        let known = &stage.state.hosts[&host("b")];
        assert!(known.wired.is_empty(), "no earlier version knows that it held for one host alone");
        !known.paths.is_empty()
    });
    assert_eq!(kept, [true, false]);
}

fn path_by(executor: &str) -> PathTest {
    let (executor, error) = (host(executor), Some("no answer".to_owned()));
    PathTest {
        level: 0,
        executor,
        index: 1,
        at: WallTime(1),
        took_ms: 40,
        error,
        failures: 2,
        denials: 2,
        proven: None,
    }
}

fn wired_for(asker: Option<&str>) -> Wired {
    Wired { level: 0, device: 0, how: WiredBy::MachineId, since: 1, asker: asker.map(host) }
}

/// A voter that was upgraded earlier has noted what one that was upgraded later has not.
#[test]
fn what_an_earlier_version_does_not_note_begins_anew_when_all_voters_note_it() {
    let mut stage = local();
    for (of, found) in [("a", vec![wired_for(None), wired_for(Some("c"))]), ("b", vec![wired_for(None)])] {
        let known = stage.state.hosts.get_mut(&host(of)).unwrap();
        (known.wired, known.paths) = (found, vec![path_by("c")]);
    }
    let guest = stage.state.guests.get_mut(&name("web")).unwrap();
    guest.shuns.insert(host("b"), boot("b.1"));
    guest.failed_moves = 3;
    stage.must(Change::LevelRaised { to: FeatureLevel::HIGHEST });
    let [a, b] = ["a", "b"].map(|of| &stage.state.hosts[&host(of)]);
    assert!(a.wired.is_empty(), "to an earlier version it held for all who ask");
    assert!(a.paths.is_empty(), "so that each host finds out anew, and at once");
    assert_eq!((b.wired.len(), b.paths[0].failures, b.paths[0].denials), (1, 2, 0));
    assert!(stage.state.hosts.values().all(|known| known.fencing_since == stage.index), "nobody is told at once");
    let guest = &stage.state.guests[&name("web")];
    assert_eq!((guest.shuns.len(), guest.failed_moves), (0, 0));
}

#[test]
fn a_drill_that_began_before_its_executor_was_noted_verifies_no_device_that_means_another_machine_on_each_host() {
    for (of, verifies) in [("a", false), ("b", true)] {
        let mut stage = local();
        let known = stage.state.policies.fencing.get_mut(&host("b")).unwrap();
        *known = vec![FenceLevel::Power(vec![PowerDevice::Libvirt(crate::model::LibvirtDevice {
            uri: "qemu+ssh://rack/system".to_owned(),
            domain: "b".to_owned(),
            wiring_verified_by: None,
            timeout: Span::secs(20),
        })])];
        stage.must(Change::ModeSet { host: host(of), mode: Mode::Draining, by: "ann".to_owned() });
        stage.must(Change::DrillBegun { host: host(of), executor: host("c"), level: 0, by: "ann".to_owned() });
        stage.state.hosts.get_mut(&host(of)).unwrap().drill.as_mut().unwrap().executor = None;
        stage.end("c", done());
        stage.join(of, &format!("{of}.2"));
        stage.must(Change::DrillEnded { host: host(of), failed: None });
        assert_eq!(stage.state.wiring_of(&host(of), 0).is_some(), verifies, "{of}");
    }
}

/// Orders are numbered by the state: what is called off by some, and refused by those that cannot, gives each later one another number.
#[test]
fn a_live_move_is_called_off_by_all_voters_or_by_none() {
    let [mut second, mut third] = [FeatureLevel::REVOCATION, FeatureLevel::CALLED_OFF].map(|level| {
        let mut stage = Stage::new(&["a", "b", "c"], &["web"]);
        stage.run("web", "a");
        stage.state.level = level;
        stage.migrate("web", "b");
        stage
    });
    let asked = |to: &str, cold| Change::MoveAsked { guest: name("web"), to: host(to), cold, by: "ann".to_owned() };
    for (to, cold) in [("a", false), ("a", true), ("c", true)] {
        assert!(matches!(second.refused(asked(to, cold)), Refused::Phase { .. }), "{to}");
    }
    assert!(matches!(second.refused(asked("b", true)), Refused::Already { .. }), "it is on its way there");
    assert_eq!(second.state.last_order, third.state.last_order);
    third.must(asked("c", true));
    assert!(third.state.last_order > second.state.last_order);
    assert!(third.migration("web").then.is_some());
}

#[test]
fn a_ladder_that_is_declared_anew_moves_those_on_it_for_all_voters_or_for_none() {
    let stands = before_and_after(|| Stage::new(&["a"], &["web"])).map(|mut stage| {
        stage.run("web", "a");
        let page = stage.climb("web", 3);
        stage.must(page);
        let mut policies = stage.state.policies.clone();
        let reboot = Rung::RebootGuest { tries: 1, wait: Span::secs(60) };
        policies.policies.values_mut().for_each(|policy| policy.ladder.insert(1, reboot.clone()));
        stage.declare(policies);
        stage.state.guests[&name("web")].ladder.position.as_ref().map(|position| (position.rung, position.tries))
    });
    assert_eq!(stands, [Some((3, 1)), Some((0, 1))], "an earlier version goes by the number of the rung");
}

#[test]
fn rungs_that_are_taken_out_of_a_ladder_that_is_climbed_stay_tried_for_all_voters_or_for_none() {
    let stands = [FeatureLevel::LADDERS, FeatureLevel::WAITS].map(|level| {
        let mut stage = Stage::new(&["a"], &["web"]);
        stage.state.level = level;
        stage.run("web", "a");
        let page = stage.climb("web", 3);
        stage.must(page);
        let mut policies = stage.state.policies.clone();
        policies.policies.values_mut().for_each(|policy| drop(policy.ladder.remove(0)));
        stage.declare(policies);
        stage.state.guests[&name("web")].ladder.position.as_ref().map(|position| (position.rung, position.tries))
    });
    assert_eq!(stands, [None, Some((2, 1))], "an earlier version looks no further than to what both begin with");
}
