//! Recoveries by table: one situation, one promise each.

use std::time::Duration;

use super::*;
use crate::{
    agent::{Agent, Disk},
    change::{Change, Command, Refused},
    fixture::{Stage, boot, declaration, facts, host, name},
    go_ahead::GoAheads,
    hostfile::Timing,
    names::OrderId,
    observe::{GuestCondition, GuestReport},
    proof::Proof,
    reply::reply,
    revocation::is_heard,
    state::{Mode, Wanted},
    sync::{SyncReply, SyncRequest},
    time::Moment,
};

/// What a host is answered that has these guests, and is in this boot.
fn told(stage: &Stage, (on, incarnation): (&str, &str), floors_known: bool, has: &[(&str, Epoch)]) -> SyncReply {
    let report = |(guest, epoch): &(&str, Epoch)| GuestReport::new(name(guest), *epoch, GuestCondition::Running);
    let reports = has.iter().map(report).collect();
    let request = SyncRequest { floors_known, reports, ..SyncRequest::of(host(on), facts(on, incarnation)) };
    reply(&stage.state, &request, 1, Duration::from_secs(4), &GoAheads::nothing())
}

#[test]
fn everything_of_the_new_generation_outranks_whatever_the_lost_history_had() {
    let mut stage = Stage::new(&["a", "b"], &["web", "db"]);
    stage.run("web", "a");
    stage.place("db", "b");
    let lost = stage.state.last_order;
    stage.recover();
    assert_eq!(stage.state.generation, 2);
    assert!(stage.state.orders.is_empty());
    assert!(stage.state.view_changed == stage.state.applied, "agents fetch what they are to know");
    stage.must(Change::SuspensionSet { suspended: false, by: "ann".to_owned() });
    let said = ["a", "b"].map(|on| (host(on), boot(&format!("{on}.1"))));
    let proof = Proof::not_here([host("a"), host("b")], &said.into()).unwrap();
    stage.must(Change::GuestFree { guest: name("web"), proof });
    stage.place("web", "b");
    let order = stage.order("b");
    assert!(
        order.id > OrderId(lost + 500_000_000),
        "no agent takes it for an order that it has carried out: {}",
        order.id
    );
    let Some((_, epoch)) = order.kind.guest() else { panic!("it is a start") };
    assert!(epoch > Epoch { generation: 1, index: u64::MAX });
}

#[test]
fn a_generation_only_grows_and_an_index_too() {
    let mut stage = Stage::new(&["a"], &[]);
    let before = stage.state.clone();
    for bad in [
        Recovery { generation: 1, ..Stage::recovery(&before) },
        Recovery { index: before.applied, ..Stage::recovery(&before) },
    ] {
        assert!(stage.state.recover(&bad).is_err());
        assert_eq!(stage.state, before);
    }
    for chance in [0, 1, 999, 1_000, u32::MAX] {
        let next = next_generation(7, chance).unwrap();
        assert!((8..=1_007).contains(&next), "{next}");
    }
    assert_eq!(next_generation(u32::MAX, 0), None);
    for last in [0, 1, 999_999_999, 1_000_000_000, u64::MAX - 1_000_000_000] {
        assert!(next_index(last) > last);
    }
}

#[test]
fn what_begins_anew_from_a_store_outranks_what_has_begun_from_it_before() {
    let mut stage = Stage::new(&["a"], &["web"]);
    stage.run("web", "a");
    let mut again = stage.state.clone();
    stage.recover();
    // That generation is lost, too; its agents have seen it, and pagers have its incidents.
    let (lost, seen) = (&stage.state, stage.state.applied + 7);
    let recovery = Recovery { generation: 9, index: next_index(seen), ..Stage::recovery(&again) };
    again.recover(&recovery).unwrap();
    assert!(again.applied > seen);
    assert!(again.last_order >= lost.last_order + LEAP, "{} and {}", again.last_order, lost.last_order);
    let incidents = (again.last_incident, lost.last_incident);
    assert!(incidents.0 >= incidents.1 + INCIDENTS_LEAP, "{incidents:?}");
}

#[test]
fn every_guest_may_run_anywhere_whatever_the_survivor_believed_of_it() {
    let mut stage = Stage::new(&["a", "b", "c"], &["runs", "starts", "stops", "moves", "waits"]);
    stage.run("runs", "a");
    stage.run("moves", "a");
    stage.migrate("moves", "b");
    stage.run("stops", "c");
    let failover = stage.climb("stops", 2);
    stage.must(failover);
    stage.place("starts", "b");
    stage.must(Change::WantedSet { guest: name("waits"), wanted: Wanted::Stopped, by: "ann".to_owned() });
    stage.recover();
    for guest in ["runs", "starts", "stops", "moves", "waits"] {
        assert!(matches!(stage.phase(guest), Phase::Unplaced), "{guest}");
    }
    assert_eq!(stage.state.guests[&name("waits")].wanted, Wanted::Stopped, "what operators want stays");
}

#[test]
fn of_a_guest_that_was_declared_no_more_and_not_forgotten_yet_nothing_is_left_to_be_told() {
    let mut stage = Stage::new(&["a", "b"], &["web"]);
    stage.run("web", "a");
    let failover = stage.climb("web", 2);
    stage.must(failover);
    stage.declare(declaration(&[], &[host("a"), host("b")]));
    let is_open = |stage: &Stage| stage.state.open_incident(&ClusterState::guest_key(&name("web"))).is_some();
    assert!(stage.state.guests.contains_key(&name("web")) && is_open(&stage), "it is still being stopped");
    stage.recover();
    assert!(stage.state.guests.is_empty() && !is_open(&stage));
}

#[test]
fn what_was_proven_of_a_host_is_proven_no_more_and_what_operators_want_of_it_stays() {
    let mut stage = Stage::new(&["a", "b", "c"], &["web"]);
    stage.run("web", "b");
    let gone = stage.gone("b");
    stage.must(gone);
    stage.fence("c");
    stage.must(Change::FenceAttempted { host: host("c"), executor: host("a"), level: 0 });
    stage.must(Change::ModeSet { host: host("a"), mode: Mode::Maintenance, by: "ann".to_owned() });
    stage.recover();
    for on in ["a", "b", "c"] {
        let known = &stage.state.hosts[&host(on)];
        assert_eq!((&known.life, known.life_since), (&Life::Up, stage.state.applied), "{on}");
        assert!(stage.state.fence_under_way(&host(on)).is_none() && known.lease.record.is_none());
        assert!(stage.state.open_incident(&ClusterState::host_key(&host(on))).is_none(), "{on}");
    }
    assert_eq!(stage.state.hosts[&host("a")].mode, Mode::Maintenance);
}

#[test]
fn who_was_revoked_in_the_lost_history_stays_so_and_may_run_guests_until_it_is_proven_off() {
    let mut stage = Stage::new(&["a", "b"], &["web"]);
    stage.run("web", "a");
    stage.must(Change::LevelRaised { to: FeatureLevel::REVOCATION });
    let (since, by, why) = (stage.state.applied + 5, "ann".to_owned(), "stolen".to_owned());
    let revocation = Revocation { since, by, why, boots: vec![boot("b.1")], keys: [].into(), readmitted: None };
    let revoked = BTreeMap::from([(host("b"), revocation)]);
    let recovery = Recovery { revoked: revoked.clone(), ..Stage::recovery(&stage.state) };
    stage.state.recover(&recovery).unwrap();
    assert_eq!(stage.state.revoked, revoked);
    assert!(!is_heard(&stage.state.revoked, true, &host("b"), &boot("b.1")));
    assert_eq!(stage.state.view_changed, stage.state.applied, "everybody is told");
    assert_eq!(stage.state.hosts[&host("b")].life, Life::Up, "nobody knows what it was given to run before");
    let mut refused = |after: u64, what: Change| {
        let applied = stage.state.apply(recovery.index + after, Command { at: recovery.at, what });
        let Some(Refused::Host { why, .. }) = &applied.refused else { panic!("{applied:?}") };
        why.clone()
    };
    let join = Change::HostJoined { host: host("b"), facts: facts("b", "b.2"), follows: None };
    assert_eq!(refused(1, join), "was revoked by ann: stolen");
    let readmit = Change::HostReadmitted { host: host("b"), serial: "5f".parse().unwrap(), by: "ann".to_owned() };
    assert!(refused(2, readmit).starts_with("was known before the recovery, and may be on: switch it off first"));
}

#[test]
fn the_alert_of_an_old_store_ends_and_the_recovery_is_told_until_somebody_resumes() {
    let mut stage = Stage::new(&["a"], &[]);
    stage.must(Change::IncidentOpened {
        key: "store".to_owned(),
        severity: Severity::Critical,
        summary: "a has seen more".to_owned(),
        human: None,
        guests: Vec::new(),
        evidence: Vec::new(),
    });
    stage.recover();
    assert!(stage.state.open_incident("store").is_none());
    let told = stage.state.open_incident(ClusterState::RECOVERY_KEY).unwrap();
    assert!(told.human.is_some() && told.summary.starts_with("ann has made generation 2"), "{}", told.summary);
    let noted = |entry: &crate::journal::Entry| matches!(&entry.what, Event::Recovered { by, .. } if by == "ann");
    assert!(stage.state.journal.entries().any(noted), "who and when");
    stage.must(Change::SuspensionSet { suspended: false, by: "bob".to_owned() });
    assert!(stage.state.open_incident(ClusterState::RECOVERY_KEY).is_none());
}

#[test]
fn a_host_that_rebooted_in_the_lost_history_joins_when_it_has_learned_of_the_generation() {
    let mut stage = Stage::new(&["a", "b"], &[]);
    stage.recover();
    let (later, state) = (boot("b.7"), &stage.state);
    let before = Authority { generation: 1, term: 3, index: u64::MAX };
    assert!(!state.may_join(&host("b"), &later, before), "it cannot be told from a late word of an earlier boot");
    let after = Authority { generation: 2, term: 1, index: state.applied };
    assert!(state.may_join(&host("b"), &later, after));
    stage.join("b", "b.7");
    assert!(stage.state.is_current(&host("b"), &later));
}

#[test]
fn an_agent_that_has_lost_its_memory_with_the_store_may_let_what_is_adopted_there_run_again() {
    let mut stage = Stage::new(&["a", "b"], &["web", "db"]);
    stage.run("web", "b");
    stage.run("db", "a");
    let [web, db] = ["web", "db"].map(|guest| stage.state.guests[&name(guest)].tenures()[0].epoch);
    stage.recover();
    let mut agent = Agent::new(boot("b.1"), Timing::default(), Disk::default(), None);
    let answer = told(&stage, ("b", "b.1"), false, &[("web", web)]);
    agent.on_reply(answer, 0, Moment(1_000), Moment(1_050)).unwrap();
    let disk = agent.disk();
    assert!(disk.floors_known && disk.check_epoch(&name("web"), web).is_ok(), "{:?}", disk.floors);
    assert!(disk.check_start(&name("web"), web).is_err(), "whoever ordered that is gone");
    assert!(disk.check_epoch(&name("db"), db).is_err(), "what it does not have it may have released");
}

#[test]
fn an_agent_that_has_lost_its_memory_may_let_run_again_what_was_found_running_there() {
    let none = Epoch::default();
    for is_adopted in [false, true] {
        let mut stage = Stage::new(&["a", "b"], &["web"]);
        stage.recover();
        if is_adopted {
            let tenure = crate::state::Tenure { host: host("b"), incarnation: boot("b.1"), epoch: none };
            stage.must(Change::GuestAdopted { guest: name("web"), tenure });
        }
        let fetched = |on: &str, has: &[(&str, Epoch)]| {
            let incarnation = format!("{on}.1");
            let mut agent = Agent::new(boot(&incarnation), Timing::default(), Disk::default(), None);
            let answer = told(&stage, (on, incarnation.as_str()), false, has);
            agent.on_reply(answer, 0, Moment(1_000), Moment(1_050)).unwrap();
            agent.disk().clone()
        };
        let there = fetched("b", &[("web", none)]);
        assert!(there.floors_known && there.check_epoch(&name("web"), none).is_ok(), "{:?}", there.floors);
        assert!(there.check_start(&name("web"), none).is_err(), "nothing starts under no assignment");
        let elsewhere = fetched("a", &[]);
        assert!(elsewhere.check_epoch(&name("web"), none).is_err(), "what it does not have it may have released");
    }
}

#[test]
fn a_boot_that_was_called_off_wrongly_after_a_recovery_stops_what_the_lost_history_gave_it() {
    let mut stage = Stage::new(&["a", "b"], &["web"]);
    stage.run("web", "a");
    let kept = stage.state.guests[&name("web")].tenures()[0].clone();
    stage.recover();
    let gone = stage.gone("b");
    stage.must(gone);
    let later = Epoch { generation: 1, index: 500 };
    let stops = |stage: &Stage, incarnation: &str| told(stage, ("b", incarnation), true, &[("web", later)]).superseded;
    assert!(stops(&stage, "b.1").is_empty(), "nobody has looked yet");
    stage.must(Change::SuspensionSet { suspended: false, by: "ann".to_owned() });
    assert_eq!(stops(&stage, "b.1"), [(name("web"), later)]);
    stage.must(Change::GuestAdopted { guest: name("web"), tenure: kept });
    assert_eq!(stops(&stage, "b.1"), [(name("web"), later)], "it would run twice for good");
    assert!(stops(&stage, "b.2").is_empty(), "of the next boot nothing is proven");
    stage.must(Change::WantedSet { guest: name("web"), wanted: Wanted::Unmanaged, by: "ann".to_owned() });
    assert!(stops(&stage, "b.1").is_empty());
}

#[test]
fn a_lease_of_the_old_generation_proves_nothing() {
    let mut stage = Stage::new(&["a", "b"], &["web"]);
    let longest = crate::lease::Longest { lease_ms: 4_000, guard_ms: 1_000, watchdog_ms: 10_000 };
    let lease = &mut stage.state.hosts.get_mut(&host("b")).unwrap().lease;
    (lease.declared, lease.longest) = (3, longest);
    lease.record(None, 4_000, 5);
    stage.recover();
    let lease = &stage.state.hosts[&host("b")].lease;
    assert_eq!((&lease.record, lease.declared), (&None, stage.state.applied));
    assert_eq!(lease.longest, longest, "a wait is never shortened");
}
