//! What is taken in of syncs, datagrams, answers and tests, and what is left out.

use holdfast_policies::{
    change::Command,
    evidence::SightState,
    fence_path::{DeviceTest, LevelTest, Machine},
    model::{FenceLevel, PowerDevice, QemuDevice},
    names::{OrderId, ServiceName},
    order::LAST_SEEN_BYTES_MAX,
    proof::Power,
    sync::{AgedReading, Authority, OrderResult, SightsTold},
    time::{Span, WallTime},
    timing::TimingTold,
};

use super::*;
use crate::desk::tests::{facts, failed_over, guest, host};

fn boot(name: &str) -> Incarnation {
    Incarnation::new(name).unwrap()
}

fn request(from: &str, incarnation: &str) -> SyncRequest {
    SyncRequest { nonce: 1, ..SyncRequest::of(host(from), facts(incarnation, from)) }
}

fn sight_of(service: &str, vantage: Vantage, state: &ClusterState) -> SightReport {
    SightReport {
        guest: guest("web-1"),
        service: ServiceName::new(service).unwrap(),
        vantage,
        epoch: state.guests[&guest("web-1")].home().unwrap().epoch,
        state: SightState::Failing,
        age_ms: 10,
        passed_ago_ms: None,
        warns: false,
        detail: "refused".to_owned(),
    }
}

fn sights(state: &ClusterState, from: &str, sights: Vec<SightReport>) -> usize {
    let mut evidence = Evidence::default();
    let request = SyncRequest { sights, ..request(from, &format!("boot-{from}")) };
    sync(&mut evidence, state, &request, Moment(1_000));
    evidence.services.values().flat_map(BTreeMap::values).map(BTreeMap::len).sum()
}

#[test]
fn when_a_host_last_called_itself_unwell_is_known_after_it_is_well() {
    let (state, mut evidence) = (failed_over(), Evidence::default());
    let mut says = |unwell: Option<&str>, at: u64| {
        let request = SyncRequest { unwell: unwell.map(str::to_owned), ..request("h1", "boot-h1") };
        sync(&mut evidence, &state, &request, Moment(at));
        evidence.hosts[&host("h1")].unwell_at
    };
    assert_eq!(says(None, 1_000), None);
    assert_eq!(says(Some("its event loop was late"), 2_000), Some(Moment(2_000)));
    assert_eq!(says(None, 3_000), Some(Moment(2_000)));
}

#[test]
fn a_host_reports_only_what_it_sees_itself() {
    // web-1 runs on h2.
    let state = failed_over();
    let from = |name: &str| Vantage::Host(host(name));
    assert_eq!(sights(&state, "h1", vec![sight_of("http", from("h1"), &state)]), 1);
    assert_eq!(sights(&state, "h1", vec![sight_of("http", from("h2"), &state)]), 0, "another host's vantage");
    assert_eq!(sights(&state, "h1", vec![sight_of("http", Vantage::Inside, &state)]), 0, "another host's guest");
    assert_eq!(sights(&state, "h2", vec![sight_of("http", Vantage::Inside, &state)]), 1);
    assert_eq!(sights(&state, "h1", vec![sight_of("smtp", from("h1"), &state)]), 0, "a service that is not declared");
}

#[test]
fn the_timing_of_a_host_is_what_it_said_in_its_newest_sync() {
    let (mut evidence, state) = (Evidence::default(), failed_over());
    let said = TimingTold { lease_ms: Some(4_000), ..TimingTold::default() };
    for timing in [Some(said), None] {
        sync(&mut evidence, &state, &SyncRequest { timing, ..request("h2", "boot-h2") }, Moment(1_000));
        assert_eq!(evidence.hosts[&host("h2")].timing, timing);
    }
}

#[test]
fn the_end_of_a_hosts_certificate_is_what_it_said_in_its_newest_sync() {
    let (mut evidence, state) = (Evidence::default(), failed_over());
    for certificate_ends in [Some(WallTime(4_000)), None] {
        sync(&mut evidence, &state, &SyncRequest { certificate_ends, ..request("h2", "boot-h2") }, Moment(1_000));
        assert_eq!(evidence.hosts[&host("h2")].certificate_ends, certificate_ends);
    }
}

#[test]
fn a_host_is_not_well_for_as_long_as_each_of_its_syncs_says_so() {
    let (mut evidence, state) = (Evidence::default(), failed_over());
    for (at, why, since) in
        [(1_000, Some("late"), 1_000), (2_000, Some("full"), 1_000), (3_000, None, 0), (4_000, Some("late"), 4_000)]
    {
        let unwell = why.map(str::to_owned);
        sync(&mut evidence, &state, &SyncRequest { unwell, ..request("h2", "boot-h2") }, Moment(at));
        let expected = why.map(|why| (Moment(since), why.to_owned()));
        assert_eq!(evidence.hosts[&host("h2")].unwell_for, expected, "at {at}");
    }
}

#[test]
fn what_a_vantage_says_again_it_has_been_saying_since_it_began() {
    let state = failed_over();
    let mut evidence = Evidence::default();
    let mut since = |at: u64, said: SightState| {
        let report = SightReport { state: said, ..sight_of("http", Vantage::Inside, &state) };
        let request = SyncRequest { sights: vec![report], ..request("h2", "boot-h2") };
        sync(&mut evidence, &state, &request, Moment(at));
        let known = evidence.services.values().flat_map(BTreeMap::values).flat_map(BTreeMap::values);
        known.map(|sight| sight.since).collect::<Vec<_>>()
    };
    assert_eq!(since(1_000, SightState::Unknown), [Moment(990)]);
    assert_eq!(since(9_000, SightState::Unknown), [Moment(990)]);
    assert_eq!(since(10_000, SightState::Passing), [Moment(9_990)]);
    assert_eq!(since(11_000, SightState::Unknown), [Moment(10_990)]);
}

#[test]
fn a_coordinator_that_lacks_what_was_told_before_asks_for_everything_and_so_does_a_new_boot() {
    let state = failed_over();
    let mut evidence = Evidence::default();
    let known_after = |evidence: &mut Evidence, incarnation: &str, nonce: u64, (after, upto): (u64, u64)| {
        let sights_told = Some(SightsTold { start: 5, after, upto });
        let sights = vec![sight_of("http", Vantage::Inside, &state)];
        let request = SyncRequest { sights, sights_told, nonce, ..request("h2", incarnation) };
        sync(evidence, &state, &request, Moment(1_000 + nonce));
        evidence.hosts[&host("h2")].sights_known.map(|known| known.change)
    };
    assert_eq!(known_after(&mut evidence, "boot-h2", 1, (0, 3)), Some(3));
    assert_eq!(known_after(&mut evidence, "boot-h2", 2, (3, 4)), Some(4));
    begin_anew(&mut evidence);
    assert_eq!(known_after(&mut evidence, "boot-h2", 3, (4, 5)), None);
    assert_eq!(evidence.services.len(), 1, "what it does tell counts");
    assert_eq!(known_after(&mut evidence, "boot-h2", 4, (0, 5)), Some(5));
    assert_eq!(known_after(&mut evidence, "boot-h2-again", 5, (5, 6)), None);
}

/// Simulator seed 1585: a coordinator that had stood still for half a minute had a guest reset on what was sent it before.
#[test]
fn what_may_have_waited_while_the_coordinator_stood_still_speaks_against_no_service_and_is_told_again() {
    let state = failed_over();
    let mut evidence = Evidence { held_until: Some(Moment(1_500)), ..Evidence::default() };
    let mut told = |at: u64, upto: u64| {
        let report = SightReport { state: SightState::Failing, ..sight_of("http", Vantage::Inside, &state) };
        let sights_told = Some(SightsTold { start: 5, after: 0, upto });
        let request = SyncRequest { sights: vec![report], sights_told, ..request("h2", "boot-h2") };
        sync(&mut evidence, &state, &request, Moment(at));
        (evidence.services.len(), evidence.hosts[&host("h2")].sights_known.map(|known| known.change))
    };
    assert_eq!(told(1_100, 3), (0, None), "it may be of before");
    assert_eq!(told(1_600, 3), (1, Some(3)), "and is told again");
}

#[test]
fn what_a_vantage_asks_no_more_goes_stale_although_its_host_syncs_on_and_tells_it_again() {
    let state = failed_over();
    let mut evidence = Evidence::default();
    let mut seen_at = |at: u64, (after, upto): (u64, u64), age_ms: Option<u64>| {
        let sight = age_ms.map(|age_ms| SightReport { age_ms, ..sight_of("http", Vantage::Inside, &state) });
        let (sights, sights_told) = (sight.into_iter().collect(), Some(SightsTold { start: 5, after, upto }));
        let request = SyncRequest { sights, sights_told, ..request("h2", "boot-h2") };
        sync(&mut evidence, &state, &request, Moment(at));
        let known = evidence.services.values().flat_map(BTreeMap::values).flat_map(BTreeMap::values);
        known.map(|sight| sight.at).collect::<Vec<_>>()
    };
    assert_eq!(seen_at(1_000, (0, 1), Some(10)), [Moment(990)]);
    assert_eq!(seen_at(31_000, (1, 1), None), [Moment(990)], "a sync is no answer");
    assert_eq!(seen_at(61_000, (0, 1), Some(60_010)), [Moment(990)], "nor is it one to tell everything");
    assert_eq!(seen_at(61_250, (1, 2), Some(10)), [Moment(61_240)], "one that is like the one before is one");
}

#[test]
fn a_service_that_is_declared_again_is_not_judged_by_what_was_seen_before_and_all_is_told_anew() {
    let state = failed_over();
    let mut evidence = Evidence::default();
    let sights_told = Some(SightsTold { start: 5, after: 0, upto: 2 });
    let sights = vec![sight_of("http", Vantage::Inside, &state)];
    sync(&mut evidence, &state, &SyncRequest { sights, sights_told, ..request("h2", "boot-h2") }, Moment(1_000));
    let known = |evidence: &Evidence| (evidence.services.len(), evidence.hosts[&host("h2")].sights_known.is_some());
    forget_undeclared(&mut evidence, &state);
    assert_eq!(known(&evidence), (1, true), "what is declared stays");
    let mut without = state.clone();
    without.policies.policies.values_mut().for_each(|policy| policy.services.clear());
    forget_undeclared(&mut evidence, &without);
    assert_eq!(known(&evidence), (0, false));
}

#[test]
fn what_was_not_taken_is_told_again() {
    let state = failed_over();
    let mut evidence = Evidence::default();
    let mut known_after = |sights: Vec<SightReport>, after: u64, upto: u64| {
        let sights_told = Some(SightsTold { start: 5, after, upto });
        sync(&mut evidence, &state, &SyncRequest { sights, sights_told, ..request("h2", "boot-h2") }, Moment(1_000));
        evidence.hosts[&host("h2")].sights_known.map(|known| known.change)
    };
    let own = || sight_of("http", Vantage::Inside, &state);
    let not_declared = || sight_of("smtp", Vantage::Inside, &state);
    assert_eq!(known_after(vec![own(), not_declared()], 0, 2), None);
    assert_eq!(known_after(vec![own()], 0, 2), Some(2));
    assert_eq!(known_after(vec![not_declared()], 2, 3), Some(2));
}

/// h1 is back under a new boot and is being fenced by h2.
fn fencing() -> (ClusterState, OrderId) {
    let mut state = failed_over();
    let (evidence, last_well, safe_at) = (Vec::new(), None, None);
    for what in [
        Change::HostJoined { host: host("h1"), facts: facts("boot-h1-again", "h1"), follows: None },
        Change::FenceOpened { host: host("h1"), incarnation: boot("boot-h1-again"), evidence, last_well, safe_at },
        Change::FenceAttempted { host: host("h1"), executor: host("h2"), level: 0 },
    ] {
        let applied = state.apply(state.applied + 1, Command { at: WallTime(0), what });
        assert_eq!(applied.refused, None);
    }
    let order = OrderId(state.last_order);
    (state, order)
}

fn reading(of: &str, incarnation: &str, level: usize) -> AgedReading {
    let (power, devices) = (Power::Off, vec!["bmc".to_owned()]);
    AgedReading { host: host(of), incarnation: boot(incarnation), asked_ago_ms: 5, power, devices, level }
}

fn taken(state: &ClusterState, from: &str, order: OrderId, reading: AgedReading) -> bool {
    let mut evidence = Evidence::default();
    let outcome = OrderOutcome::done("off");
    let results = vec![OrderResult { order, outcome, reading: Some(reading) }];
    let request = SyncRequest { results, ..request(from, &format!("boot-{from}")) };
    sync(&mut evidence, state, &request, Moment(1_000));
    evidence.hosts.values().any(|known| !known.power.is_empty())
}

#[test]
fn a_power_reading_counts_only_from_the_executor_and_of_what_was_ordered() {
    let (state, order) = fencing();
    let right = || reading("h1", "boot-h1-again", 0);
    assert!(taken(&state, "h2", order, right()));
    assert!(!taken(&state, "h3", order, right()), "not the executor");
    assert!(!taken(&state, "h2", OrderId(order.0 + 1), right()), "no such order");
    assert!(!taken(&state, "h2", order, reading("h2", "boot-h2", 0)), "another host");
    assert!(!taken(&state, "h2", order, reading("h1", "boot-h1", 0)), "another boot");
    assert!(!taken(&state, "h2", order, reading("h1", "boot-h1-again", 1)), "another level");
}

#[test]
fn what_an_agent_tells_of_orders_before_it_has_learned_of_the_generation_is_of_others_with_the_same_numbers() {
    let (mut state, order) = fencing();
    state.generation = 3;
    let own = |generation: u32| {
        let seen = Authority { generation, term: 1, index: state.applied };
        SyncRequest { seen, ..request("h2", "boot-h2") }.order_given(&state, order).is_some()
    };
    assert!(!own(2) && own(3));
}

/// What two of the devices of h1 say in a test that h2 makes.
fn test_of_h1(state: &ClusterState, said: [Power; 2]) -> Tested {
    let facts = &state.hosts[&host("h1")].facts;
    let device = |power| {
        let machine = Machine::Untold { why: "it cannot".to_owned() };
        DeviceTest { device: "bmc".to_owned(), power, took_ms: 40, machine, denied: false }
    };
    let change = Change::FenceTested {
        host: host("h1"),
        executor: host("h2"),
        machine_id: facts.machine_id.clone(),
        policy_version: Some(state.policy_version),
        levels: vec![LevelTest { level: 0, devices: said.map(device).into() }],
    };
    Tested { change, boot: facts.incarnation.clone() }
}

#[test]
fn only_a_level_of_which_all_devices_call_the_host_off_in_a_test_is_held_against_it_and_of_the_boot_before_the_test() {
    let (mut state, _) = fencing();
    let noted = |state: &ClusterState, test: &Tested| {
        let mut evidence = Evidence::default();
        tested(&mut evidence, state, test, Moment(700));
        evidence.hosts.get(&host("h1")).and_then(|known| known.tested_off.get(&0).cloned())
    };
    assert_eq!(noted(&state, &test_of_h1(&state, [Power::Off, Power::On])), None, "the other outlet feeds it");
    let unknown = Power::Unknown { detail: "no answer".to_owned() };
    assert_eq!(noted(&state, &test_of_h1(&state, [Power::Off, unknown])), None);
    let off = test_of_h1(&state, [Power::Off, Power::Off]);
    let declared = state.policies.levels_of(&host("h1"))[0].clone();
    let expected = TestedOff { incarnation: boot("boot-h1-again"), answered: Moment(700), declared };
    assert_eq!(noted(&state, &off), Some(expected));

    state.policy_version += 1;
    assert_eq!(noted(&state, &off), None, "other devices may have been asked");
    let device = QemuDevice {
        socket: "/run/h1/qmp".into(),
        pidfile: "/run/h1/pid".into(),
        start: None,
        wiring_verified_by: None,
        timeout: Span::secs(20),
    };
    state.policies.fencing.insert(host("h1"), vec![FenceLevel::Power(vec![PowerDevice::Qemu(device)])]);
    let off = test_of_h1(&state, [Power::Off, Power::Off]);
    assert_eq!(noted(&state, &off), None, "another machine's socket may be there on h2");
}

#[test]
fn a_migration_goes_to_a_socket_and_never_to_a_command() {
    let uri_of = |uri: &str| {
        let outcome = OrderOutcome::Done { detail: "waits".to_owned(), uri: Some(uri.to_owned()), last_seen: None };
        match clean_outcome(&outcome) {
            OrderOutcome::Done { uri, .. } => uri,
            OrderOutcome::Failed { .. } => None,
        }
    };
    for good in ["tcp:10.0.0.1:4444", "tcp:[fd00::1]:4444"] {
        assert_eq!(uri_of(good).as_deref(), Some(good));
    }
    for bad in ["exec:touch /tmp/x", "file:/etc/passwd", "unix:/run/x", "tcp:host:1", "tcp:10.0.0.1:1,exec=x", ""] {
        assert_eq!(uri_of(bad), None, "{bad}");
    }
}

#[test]
fn a_boot_that_asks_to_join_is_a_sign_of_life_of_its_machine_and_no_word_of_the_joined_boot() {
    let (state, _) = fencing();
    let mut evidence = Evidence::default();
    let seen = Authority { generation: state.generation, term: 1, index: state.applied };
    let asks = SyncRequest { seen, ..request("h1", "boot-h1-third") };
    unjoined(&mut evidence, &state, &asks, Moment(700));
    let known = &evidence.hosts[&host("h1")];
    let other = known.other_boot.as_ref().map(|other| (other.incarnation.clone(), other.at));
    assert_eq!(other, Some((boot("boot-h1-third"), Moment(700))));
    assert_eq!((&known.sync, &known.heard), (&None, &None));
    let mut evidence = Evidence::default();
    let stranger = SyncRequest { facts: facts("boot-h1-third", "another machine"), ..asks.clone() };
    unjoined(&mut evidence, &state, &stranger, Moment(700));
    assert!(evidence.hosts.is_empty(), "R11: another machine under the same name");
}

/// Whether the name of h1 is contested within half a minute in which its next boot asks to join, and syncs of the boot that
/// has joined arrive at these seconds.
fn is_contested_by_syncs(at: impl Fn(u64) -> bool) -> bool {
    let (state, _) = fencing();
    let seen = Authority { generation: state.generation, term: 1, index: state.applied };
    let (joined, next) = (request("h1", "boot-h1-again"), SyncRequest { seen, ..request("h1", "boot-h1-third") });
    let (known, mut evidence) = (&state.hosts[&host("h1")], Evidence::default());
    (0..30).any(|second| {
        let now = Moment(1_000 * second);
        if at(second) {
            sync(&mut evidence, &state, &joined, now);
        }
        unjoined(&mut evidence, &state, &next, now);
        evidence.note_beside(&state.hosts, now);
        evidence.beside(&host("h1"), known, now).is_some()
    })
}

#[test]
fn a_sync_that_a_voter_held_over_the_reboot_contests_no_name_and_a_boot_that_goes_on_syncing_does() {
    assert!(!is_contested_by_syncs(|second| second == 13), "handed on when the voter went on");
    assert!(!is_contested_by_syncs(|second| (13..15).contains(&second) || second == 20), "two voters went on");
    assert!(is_contested_by_syncs(|_| true));
    assert!(is_contested_by_syncs(|second| second % 7 == 0), "over a link that loses nearly everything");
}

#[test]
fn what_was_committed_unseen_waits_from_when_it_is_seen_and_not_from_the_entry_before_it() {
    let state = ClusterState { applied: 21, ..ClusterState::born() };
    let mut evidence = Evidence { marks: Marks::new(Moment(1_000)), ..Evidence::default() };
    evidence.marks.applied(20, Moment(7_000));
    let an_hour_later = Moment(3_607_000);
    applied(&mut evidence, &state, an_hour_later);
    let age = |index| evidence.marks.age(index, an_hour_later.plus(Duration::from_millis(50)));
    assert_eq!(age(21), Duration::from_millis(50));
    assert_eq!(age(20), Duration::from_millis(3_600_050), "what was seen is as old as it is");
}

/// A member that gossips this boot and these last words.
fn member(incarnation: &str, words: Option<&str>) -> Member {
    let said = words.map(|words| (last_words::KEY.to_owned(), words.to_owned()));
    let keys = [("incarnation".to_owned(), incarnation.to_owned())].into_iter().chain(said).collect();
    Member { address: "10.0.0.1:7400".parse().unwrap(), alive: true, generation: 1, keys }
}

#[test]
fn last_words_count_for_the_boot_that_has_joined_until_they_are_taken_back() {
    let state = failed_over();
    let mut evidence = Evidence::default();
    let mut hear = |incarnation: &str, words: Option<&str>| {
        super::last_words(&mut evidence, &state, &BTreeMap::from([(host("h2"), member(incarnation, words))]));
        evidence.hosts.get(&host("h2")).and_then(|known| known.last_words.clone())
    };
    assert_eq!(hear("boot-h2", None), None);
    assert_eq!(hear("boot-h2-before", Some("cut off")), None, "that boot is over");
    assert_eq!(hear("boot-h2", Some("cut\u{1b}off")).as_deref(), Some("cut off"));
    assert!(hear("boot-h2", Some(&"x".repeat(4_000))).unwrap().len() <= LAST_WORDS_BYTES_MAX);
    assert_eq!(hear("boot-h2", None), None, "it has its lease again");
    assert!(!evidence.hosts.contains_key(&host("h1")), "who says nothing is not known by that");
}

#[test]
fn what_a_host_says_of_a_stopped_guest_is_cut_and_cleaned_before_it_is_committed() {
    let last_seen = Some(format!("panic\n\u{1b}[2J{}", "x".repeat(10_000)));
    let outcome = OrderOutcome::Done { detail: "it is up".to_owned(), uri: None, last_seen };
    let OrderOutcome::Done { last_seen: Some(kept), .. } = clean_outcome(&outcome) else { panic!("it was done") };
    assert!(kept.starts_with("panic  [2Jxxx") && kept.len() <= LAST_SEEN_BYTES_MAX, "{kept}");
}
