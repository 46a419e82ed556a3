//! Plans that kill guests of a storm of services, and those that do not.

use super::*;
use crate::{
    check::check,
    evidence::{Evidence, Heard},
    fixture::{Stage, host, name},
    happened::{Happened, Happening},
    hostfile::Timing,
};

const NOW: u64 = 1_000_000;
const HOSTS: [&str; 4] = ["a", "b", "c", "d"];
/// Each runs on the host of the same place.
const GUESTS: [&str; 4] = ["g0", "g1", "g2", "g3"];
/// Those of the ladder that all guests here have.
const RESTART: usize = 0;
const RESET: usize = 1;
const FAILOVER: usize = 2;
const PAGE: usize = 3;

fn epoch(stage: &Stage, guest: &str) -> Epoch {
    stage.state.guests[&name(guest)].tenures()[0].epoch
}

fn say(stage: &Stage, evidence: &mut Evidence, guest: &str, from: Vantage, state: SightState, passed_ago: u64) {
    let (at, passed) = (Moment(NOW - 100), Some(Moment(NOW - passed_ago)));
    let epoch = epoch(stage, guest);
    let sight = Sight { epoch, state, at, since: at, passed, warns: false, detail: String::new() };
    let services = evidence.services.entry(name(guest)).or_default();
    services.entry(ServiceName::new("http").unwrap()).or_default().insert(from, sight);
}

/// Two hosts see it like this.
fn both(stage: &Stage, evidence: &mut Evidence, guest: &str, state: SightState, passed_ago: u64) {
    for from in ["a", "b"] {
        say(stage, evidence, guest, Vantage::Host(host(from)), state, passed_ago);
    }
}

fn ceases(stage: &Stage, evidence: &mut Evidence, guest: &str, ago: u64) {
    both(stage, evidence, guest, SightState::Failing, ago);
}

fn report(stage: &Stage, evidence: &mut Evidence, guest: &str, on: &str, condition: GuestCondition) {
    let report = GuestReport::new(name(guest), epoch(stage, guest), condition);
    evidence.hosts.entry(host(on)).or_default().reports.insert(name(guest), report);
}

/// Four guests on as many hosts, three of which have not answered for five seconds.
fn storm() -> (Stage, Evidence) {
    let mut stage = Stage::new(&HOSTS, &GUESTS);
    for (guest, on) in GUESTS.iter().zip(HOSTS) {
        stage.run(guest, on);
    }
    let mut evidence = Evidence { quorum_since: Some(Moment(0)), me: Some(host("a")), ..Evidence::default() };
    for (on, known) in &stage.state.hosts {
        let sync = Heard { at: Moment(NOW - 100), incarnation: known.facts.incarnation.clone() };
        evidence.hosts.entry(on.clone()).or_default().sync = Some(sync);
    }
    for (guest, on) in GUESTS.iter().zip(HOSTS) {
        report(&stage, &mut evidence, guest, on, GuestCondition::Running);
        ceases(&stage, &mut evidence, guest, 5_000);
    }
    both(&stage, &mut evidence, "g3", SightState::Passing, 100);
    (stage, evidence)
}

fn is_refused(stage: &mut Stage, evidence: &Evidence, guest: &str, rung: usize) -> bool {
    let climb = stage.climb(guest, rung);
    let found = check(&stage.state, evidence, &Timing::default(), Moment(NOW), &[climb]);
    found.iter().any(|violation| violation.promise == "S9")
}

#[test]
fn nothing_that_kills_or_moves_a_guest_of_a_storm_passes_and_the_restart_of_its_service_does() {
    let (mut stage, evidence) = storm();
    for (rung, refused) in [(RESTART, false), (RESET, true), (FAILOVER, true), (PAGE, true)] {
        for guest in ["g0", "g1", "g2"] {
            assert_eq!(is_refused(&mut stage, &evidence, guest, rung), refused, "rung {rung} of {guest}");
        }
        assert!(!is_refused(&mut stage, &evidence, "g3", rung), "it answers");
    }
}

#[test]
fn a_guest_of_a_storm_that_has_been_held_for_long_enough_may_be_reset() {
    for (ago, refused) in [(299_999, true), (300_000, false)] {
        let (mut stage, mut evidence) = storm();
        for guest in ["g0", "g1", "g2"] {
            ceases(&stage, &mut evidence, guest, ago);
        }
        assert_eq!(is_refused(&mut stage, &evidence, "g0", RESET), refused, "{ago} ms");
    }
}

#[test]
fn a_guest_that_ceased_to_answer_before_a_storm_is_no_part_of_it() {
    let (mut stage, mut evidence) = storm();
    ceases(&stage, &mut evidence, "g3", 36_000);
    assert!(!is_refused(&mut stage, &evidence, "g3", RESET));
    assert!(is_refused(&mut stage, &evidence, "g0", RESET));
}

#[test]
fn a_guest_that_ceased_to_answer_long_after_a_storm_began_that_is_not_over_may_be_reset() {
    for (ago, refused) in [(600_000, true), (600_001, false)] {
        let (mut stage, mut evidence) = storm();
        for guest in ["g0", "g1", "g2"] {
            ceases(&stage, &mut evidence, guest, ago);
        }
        ceases(&stage, &mut evidence, "g3", 5_000);
        assert_eq!(is_refused(&mut stage, &evidence, "g3", RESET), refused, "{ago} ms");
    }
}

#[test]
fn what_may_be_no_storm_of_services_is_none() {
    type Set = fn(&mut Stage, &mut Evidence);
    fn sights(evidence: &mut Evidence, change: fn(&mut Sight)) {
        let services = evidence.services.get_mut(&name("g0")).unwrap();
        services.values_mut().for_each(|vantages| vantages.values_mut().for_each(change));
    }
    let cases: [(&str, Set); 13] = [
        ("two guests", |stage, evidence| both(stage, evidence, "g2", SightState::Passing, 100)),
        ("long after each other", |stage, evidence| ceases(stage, evidence, "g2", 40_000)),
        ("one rack", |stage, _| {
            let policies = &mut stage.state.policies;
            policies.cluster.failure_domain = Some("rack".to_owned());
            for on in HOSTS {
                policies.hosts.entry(host(on)).or_default().labels.insert("rack".to_owned(), "r1".to_owned());
            }
        }),
        ("it has ended", |stage, evidence| {
            report(stage, evidence, "g0", "a", GuestCondition::Exited { detail: String::new() });
        }),
        ("its agent has left", |_, evidence| {
            let reports = &mut evidence.hosts.get_mut(&host("a")).unwrap().reports;
            let what = Happening::AgentLeft { own: true };
            reports.get_mut(&name("g0")).unwrap().happened = vec![Happened { ago_ms: 4_000, what }];
        }),
        ("it stood still since", |stage, evidence| {
            let until = (epoch(stage, "g0"), Moment(NOW - 4_000));
            evidence.hosts.get_mut(&host("a")).unwrap().stood_still.insert(name("g0"), until);
        }),
        ("it fails inside too", |stage, evidence| {
            say(stage, evidence, "g0", Vantage::Inside, SightState::Failing, 5_000);
        }),
        ("its host is just being missed", |_, evidence| {
            evidence.hosts.get_mut(&host("a")).unwrap().sync.as_mut().unwrap().at = Moment(NOW - 750);
        }),
        ("only one host gets no answer", |stage, evidence| {
            say(stage, evidence, "g0", Vantage::Host(host("b")), SightState::Passing, 100);
        }),
        ("nobody knows when it answered", |_, evidence| sights(evidence, |sight| sight.passed = None)),
        ("it was seen under another assignment", |_, evidence| {
            sights(evidence, |sight| sight.epoch = Epoch::default());
        }),
        ("its service needs another one", |stage, _| {
            let services = stage.state.policies.policies.values_mut().flat_map(|policy| policy.services.values_mut());
            services.for_each(|service| {
                service.tuning.needs.insert(ServiceName::new("network").unwrap());
            });
        }),
        ("it is left alone", |stage, _| {
            let by = "ann".to_owned();
            stage.must(Change::WantedSet { guest: name("g0"), wanted: Wanted::Unmanaged, by });
        }),
    ];
    for (case, change) in cases {
        let (mut stage, mut evidence) = storm();
        change(&mut stage, &mut evidence);
        assert!(!is_refused(&mut stage, &evidence, "g0", RESET), "{case}");
    }
}
