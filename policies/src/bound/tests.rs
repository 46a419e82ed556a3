//! Bounds worked out by hand, for declarations of which every time is known.

use super::*;
use crate::{
    armed::{Armed, ArmedWatchdog},
    change::Change,
    feature_level::FeatureLevel,
    fence_level::LeaseLevel,
    fixture::{Stage as Cluster, boot, declaration, host, name},
    model::{FenceLevel, Policies, PowerDevice, Rung},
    names::RuleName,
    rules::{Guests, Hosts, Rule, Score},
    state::Mode,
};

fn declared(change: impl FnOnce(&mut Policies)) -> Cluster {
    let mut stage = Cluster::new(&["a", "b", "c"], &["db", "web"]);
    let mut policies = declaration(&[name("db"), name("web")], &["a", "b", "c"].map(host));
    change(&mut policies);
    stage.declare(policies);
    stage.run("web", "a");
    stage
}

fn bound_of(stage: &Cluster, failure: Failure) -> Bound {
    let bounds = bounds(&stage.state, &name("web"), &Timing::default(), &Limits::default());
    let found: Vec<&Bound> = bounds.iter().filter(|bound| bound.failure == failure).collect();
    assert_eq!(found.len(), 1, "{failure}: {bounds:#?}");
    found[0].clone()
}

fn parts(bound: &Bound) -> Vec<(Stage, Option<u64>)> {
    bound.parts.iter().map(|part| (part.stage, part.within_ms)).collect()
}

fn by(bound: &Bound, by: StretchedBy) -> Option<&Stretch> {
    bound.stretched_by.iter().find(|stretch| stretch.by == by)
}

fn rungs(bound: &Bound) -> Vec<(&str, u64)> {
    bound.rungs.iter().map(|helped| (helped.rung.as_str(), helped.within_ms)).collect()
}

#[test]
fn a_ladder_is_bounded_by_the_tries_and_waits_up_to_the_rung_that_helps() {
    let stage = declared(|_| {});
    let bound = bound_of(&stage, Failure::AppFailed);
    // 3 x 500 ms asked, 500 ms for the last answer, a sync.
    assert_eq!((bound.detect_ms, bound.within_ms), (2_250, Some(192_250)));
    // A command has 30 s and a turn of 1 s; a start as well, and 8 s of waiting; a failover stops for 20 s before that.
    assert_eq!(rungs(&bound), [("restart_service", 33_250), ("reset_guest", 72_250), ("failover", 192_250)]);
    assert_eq!((bound.helped_by("reset_guest"), bound.helped_by("page")), (Some(72_250), None));
    let died = bound_of(&stage, Failure::GuestDied);
    assert_eq!(rungs(&died), [("reset_guest", 39_250), ("failover", 159_250)]);
    assert_eq!((died.detect_ms, died.act.as_str()), (250, "reset_guest"));
}

#[test]
fn a_live_move_counts_with_the_time_that_the_memory_of_its_guest_takes() {
    let helped = |level: FeatureLevel, memory_mib: u32| {
        let mut stage = declared(|policies| {
            let policy = policies.policies.values_mut().next().unwrap();
            policy.ladder = vec![Rung::Migrate { tries: 1, wait: Span::secs(8) }];
            policies.guests.get_mut(&name("web")).unwrap().qemu.memory_mib = memory_mib;
        });
        stage.state.level = level;
        rungs(&bound_of(&stage, Failure::AppFailed))[0].1
    };
    // 2.25 s until it is seen, four turns, twice 30 s for a machine to wait and to run, 20 s to clear the source, 8 s to answer;
    // and 5 minutes to be sent, or 32 GiB twice at 50 MiB/s.
    assert_eq!(helped(FeatureLevel::LONG_SENDS, 1_024), 94_250 + 300_000);
    assert_eq!(helped(FeatureLevel::LONG_SENDS, 32_768), 94_250 + 1_310_000);
    assert_eq!(helped(FeatureLevel::BIRTH, 32_768), 94_250 + 300_000);
}

#[test]
fn a_ladder_without_a_rung_that_acts_has_no_bound_and_says_so() {
    let stage = declared(|policies| {
        let policy = policies.policies.values_mut().next().unwrap();
        policy.ladder.retain(|rung| rung.name() == "page");
    });
    let bound = bound_of(&stage, Failure::AppFailed);
    assert_eq!((bound.within_ms, bound.rungs.len()), (None, 0));
    assert!(bound.unbounded.as_ref().is_some_and(|why| why.contains("a person is called")), "{bound:#?}");
}

#[test]
fn the_failure_of_a_host_is_bounded_by_detection_proof_start_and_boot() {
    let stage = declared(|_| {});
    let died = bound_of(&stage, Failure::HostDied);
    let expected = [
        (Stage::Detect, Some(750)),
        (Stage::Prove, Some(20_500)),
        (Stage::Start, Some(31_000)),
        (Stage::Answer, Some(6_000)),
    ];
    assert_eq!((parts(&died), died.within_ms), (expected.to_vec(), Some(58_250)));
    assert_eq!(bound_of(&stage, Failure::CoordinatorDied).within_ms, Some(59_450));
    let frozen = bound_of(&stage, Failure::HostCutOff);
    assert_eq!((parts(&frozen)[1], frozen.within_ms), ((Stage::Prove, Some(22_000)), Some(60_700)));
    let silent = bound_of(&stage, Failure::DeviceSilent);
    assert_eq!((silent.within_ms, parts(&silent)[1]), (None, (Stage::Prove, None)));
    assert!(silent.unbounded.is_some_and(|why| why.contains("holdfast host confirm-off a --operator YOUR-NAME")));
}

#[test]
fn known_times_take_the_place_of_deadlines() {
    let second = Duration::from_secs(1);
    let limits = Limits { start: second, device: Some(second), boot: Some(second), ..Limits::default() };
    let stage = declared(|_| {});
    let bounds = bounds(&stage.state, &name("web"), &Timing::default(), &limits);
    let within = |failure| bounds.iter().find(|bound| bound.failure == failure).and_then(|bound| bound.within_ms);
    assert_eq!((within(Failure::HostDied), within(Failure::HostCutOff)), (Some(5_250), Some(7_700)));
}

#[test]
fn a_level_that_proves_nothing_has_its_turn_before_the_one_that_does() {
    let stage = declared(|policies| {
        let mut levels = policies.fencing[&host("a")].clone();
        let mut unverified = levels[0].clone();
        if let FenceLevel::Power(devices) = &mut unverified
            && let Some(PowerDevice::Ipmi(device)) = devices.first_mut()
        {
            device.wiring_verified_by = None;
            device.timeout = Span::secs(5);
        }
        levels.insert(0, unverified);
        policies.fencing.insert(host("a"), levels);
    });
    // 5 s and 20 s, a turn for each; between them 17.5 s in which the first may yet be carried out, and a second's pause; the
    // fence and the proof are committed.
    assert_eq!(parts(&bound_of(&stage, Failure::HostCutOff))[1], (Stage::Prove, Some(46_500)));
    assert_eq!(parts(&bound_of(&stage, Failure::HostDied))[1], (Stage::Prove, Some(20_500)));
}

/// Host `a` stops its guests when its lease runs out, and has a watchdog for that.
fn arm(stage: &mut Cluster) {
    let watchdog = ArmedWatchdog { identity: "iTCO_wdt".to_owned(), timeout_ms: 10_000, is_virtual: false };
    let armed = Some(Armed { stops: true, guard_ms: 1_000, watchdog: Some(watchdog) });
    let (on, incarnation, known_view) = (host("a"), boot("a.1"), stage.index);
    stage.must(Change::HostArmed { host: on, incarnation, armed, lease_ms: 4_000, known_view, seen: known_view });
}

#[test]
fn nobody_is_said_to_be_called_where_a_lease_proves_what_a_silent_device_does_not() {
    let silent = |stage: &Cluster| bound_of(stage, Failure::DeviceSilent);
    let mut stage = declared(|policies| {
        policies.fencing.get_mut(&host("a")).unwrap().push(FenceLevel::Lease(LeaseLevel::default()));
    });
    assert!(silent(&stage).because.contains("a human runs"), "{:#?}", silent(&stage));
    arm(&mut stage);
    let proven = silent(&stage);
    assert!(proven.within_ms.is_some() && !proven.because.contains("human"), "{proven:#?}");
}

#[test]
fn a_service_is_not_failed_before_what_it_needs_has_been_heard_to_answer() {
    let service = |text: &str| ServiceName::new(text).unwrap();
    let stage = declared(|policies| {
        let policy = policies.policies.values_mut().next().unwrap();
        let seldom = Service { every: Span::secs(30), ..policy.services[&service("http")].clone() };
        policy.services.get_mut(&service("http")).unwrap().tuning.needs.insert(service("network"));
        policy.services.insert(service("network"), seldom);
    });
    let bounds = bounds(&stage.state, &name("web"), &Timing::default(), &Limits::default());
    let of = |text: &str| bounds.iter().find(|bound| bound.service == Some(service(text))).unwrap();
    // 30 s until that is asked again, 500 ms for its answer, a sync.
    assert_eq!((of("http").detect_ms, of("network").detect_ms), (30_750, 90_750));
    assert!(of("http").because.ends_with("it needs network, asked every 30s, which has to be heard to answer first"));
}

#[test]
fn a_guest_that_its_rules_keep_on_one_host_is_promised_nothing_when_that_one_fails() {
    let mut stage = declared(|_| {});
    let kept_on = |stage: &mut Cluster, on: &str| {
        let mut policies = stage.state.policies.clone();
        let guests = Guests::Named(vec![name("web")]);
        let hosts = Hosts::Named([(host("a"), Score::Must), (host(on), Score::Must)].into());
        policies.rules.insert(RuleName::new("there").unwrap(), Rule::Hosts { guests, hosts, required: true });
        stage.declare(policies);
        bound_of(stage, Failure::HostDied)
    };
    let alone = kept_on(&mut stage, "a");
    assert_eq!(alone.unbounded.as_deref(), Some("its rules leave it no other host that takes guests at present"));
    assert!(kept_on(&mut stage, "b").within_ms.is_some());
}

#[test]
fn a_host_without_a_device_waits_for_a_person_unless_its_lease_proves_something() {
    let lease = FenceLevel::Lease(LeaseLevel::default());
    let mut stage = declared(|policies| {
        policies.fencing.insert(host("a"), vec![lease]);
    });
    let unproven = bound_of(&stage, Failure::ByLease);
    assert_eq!((unproven.act.as_str(), unproven.within_ms), ("page", None));
    arm(&mut stage);
    // 4 s, 1 s and 10 s and 5 % of them from its last lease, 1.5 s of which are over when it is suspect; a new boot may have to
    // stop it.
    let proven = bound_of(&stage, Failure::ByLease);
    assert_eq!(parts(&proven)[..2], [(Stage::Detect, Some(1_500)), (Stage::Prove, Some(35_750))]);
    assert_eq!((proven.act.as_str(), proven.within_ms), ("failover", Some(74_250)));
    assert!(by(&proven, StretchedBy::Coordinator).is_some_and(|stretch| stretch.by_ms == Some(1_200)));
    let stage = declared(|policies| {
        policies.fencing.insert(host("a"), vec![FenceLevel::Operator {}]);
    });
    assert_eq!(bound_of(&stage, Failure::HostUnproven).within_ms, None);
}

#[test]
fn guests_of_the_same_host_that_may_start_first_stretch_the_bound_by_their_starts() {
    let names: Vec<String> = (0..5).map(|number| format!("g{number}")).collect();
    let mut all: Vec<&str> = names.iter().map(String::as_str).collect();
    all.push("web");
    let mut stage = Cluster::new(&["a", "b", "c"], &all);
    for guest in &all {
        stage.run(guest, "a");
    }
    // Five before it, two at a time: two whole rows, each a start of 30 s and a turn.
    let queue = |stage: &Cluster| {
        let parts = parts(&bound_of(stage, Failure::HostDied));
        parts.iter().find(|(stage, _)| *stage == Stage::Queue).and_then(|(_, within)| *within)
    };
    assert_eq!(queue(&stage), Some(62_000));
    let mut policies = stage.state.policies.clone();
    policies.guests.get_mut(&name("web")).unwrap().priority = 200;
    stage.declare(policies);
    assert_eq!(queue(&stage), None);
}

#[test]
fn a_storm_of_services_stretches_the_bound_of_a_service_that_hosts_ask_among_enough_guests() {
    let held = |guests: &[&str], from_hosts: u32| {
        let names: Vec<GuestName> = guests.iter().map(|guest| name(guest)).collect();
        let mut policies = declaration(&names, &["a", "b", "c"].map(host));
        let services = policies.policies.values_mut().flat_map(|policy| policy.services.values_mut());
        services.for_each(|service| (service.from.inside, service.from.hosts) = (from_hosts == 0, from_hosts));
        let mut stage = Cluster::new(&["a", "b", "c"], guests);
        stage.declare(policies);
        stage.run("web", "a");
        by(&bound_of(&stage, Failure::AppFailed), StretchedBy::Storm).and_then(|stretch| stretch.by_ms)
    };
    assert_eq!(held(&["db", "web"], 2), None, "two guests are no storm");
    assert_eq!(held(&["db", "mail", "web"], 2), Some(300_000));
    assert_eq!(held(&["db", "mail", "web"], 0), None, "what is asked inside alone is never held");
}

#[test]
fn frozen_file_systems_stretch_the_bound_of_services_where_a_guest_has_the_agent_that_freezes_them() {
    let stretched = |failure, agent: bool, level: FeatureLevel| {
        let mut stage = declared(|policies| policies.guests.get_mut(&name("web")).unwrap().qemu.agent = agent);
        stage.state.level = level;
        by(&bound_of(&stage, failure), StretchedBy::Freeze).and_then(|stretch| stretch.by_ms)
    };
    // Five minutes, and 2.25 s and a sync until it is seen to fail anew.
    assert_eq!(stretched(Failure::AppFailed, true, FeatureLevel::TOLD_ONCE), Some(302_500));
    assert_eq!(stretched(Failure::AppFailed, false, FeatureLevel::TOLD_ONCE), None);
    assert_eq!(stretched(Failure::GuestDied, true, FeatureLevel::TOLD_ONCE), None, "more than silence tells of that");
    assert_eq!(stretched(Failure::AppFailed, true, FeatureLevel::CALLED_OFF), None, "some could not read it");
}

/// L2.
#[test]
fn the_bound_does_not_grow_with_the_number_of_hosts() {
    let of = |count: usize| {
        let names: Vec<String> = (0..count).map(|number| format!("h{number}")).collect();
        let hosts: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut stage = Cluster::new(&hosts, &["web"]);
        stage.run("web", "h0");
        bounds(&stage.state, &name("web"), &Timing::default(), &Limits::default())
    };
    assert_eq!(of(3), of(60));
}

#[test]
fn what_stretches_a_bound_is_named_with_how_much() {
    let stage = declared(|policies| {
        policies.cluster.failure_domain = Some("rack".to_owned());
        policies.cluster.fences_per_hour = Some(2);
        for (on, rack) in [("a", "r1"), ("b", "r1"), ("c", "r2")] {
            policies.hosts.entry(host(on)).or_default().labels.insert("rack".to_owned(), rack.to_owned());
        }
    });
    let frozen = bound_of(&stage, Failure::HostCutOff);
    // Two turns, 30 s to start, 20 s to stop what is left, a second's pause.
    assert_eq!(by(&frozen, StretchedBy::FailedStart).and_then(|stretch| stretch.by_ms), Some(53_000));
    // One more host to be fenced.
    assert_eq!(by(&frozen, StretchedBy::Domain).and_then(|stretch| stretch.by_ms), Some(22_000));
    assert!(by(&frozen, StretchedBy::Storm).is_some_and(|stretch| stretch.by_ms.is_none()));
    assert!(by(&frozen, StretchedBy::Budget).is_some_and(|stretch| stretch.by_ms == Some(3_600_000)));
    assert_eq!(by(&bound_of(&stage, Failure::HostDied), StretchedBy::Budget), None, "a status needs no room");
    assert_eq!(by(&bound_of(&stage, Failure::CoordinatorDied), StretchedBy::Coordinator), None);
    // Four turns, 5 minutes to send it, twice 30 s for a machine to wait and to run, 20 s to clear the source.
    let moves = |failure| by(&bound_of(&stage, failure), StretchedBy::Move).and_then(|stretch| stretch.by_ms);
    assert_eq!((moves(Failure::AppFailed), moves(Failure::GuestDied)), (Some(384_000), Some(384_000)));
    assert_eq!(moves(Failure::HostDied), None, "a move ends with either of its hosts");
    let stays = declared(|policies| {
        policies.guests.get_mut(&name("web")).unwrap().needs.live_migration = false;
    });
    assert_eq!(by(&bound_of(&stays, Failure::AppFailed), StretchedBy::Move), None);
}

#[test]
fn a_failure_domain_stretches_a_bound_by_the_devices_of_its_other_hosts() {
    let stretched = |failure| {
        let stage = declared(|policies| {
            policies.cluster.failure_domain = Some("rack".to_owned());
            for on in ["a", "b"] {
                policies.hosts.entry(host(on)).or_default().labels.insert("rack".to_owned(), "r1".to_owned());
            }
            if let FenceLevel::Power(devices) = &mut policies.fencing.get_mut(&host("b")).unwrap()[0]
                && let Some(PowerDevice::Ipmi(device)) = devices.first_mut()
            {
                device.timeout = Span::secs(40);
            }
        });
        by(&bound_of(&stage, failure), StretchedBy::Domain).and_then(|stretch| stretch.by_ms)
    };
    assert_eq!((stretched(Failure::HostCutOff), stretched(Failure::HostDied)), (Some(42_000), Some(40_500)));
}

#[test]
fn nothing_is_promised_of_a_guest_that_is_left_alone() {
    let mut stage = declared(|_| {});
    stage.must(Change::WantedSet { guest: name("web"), wanted: Wanted::Unmanaged, by: "ann".to_owned() });
    let bounds = bounds(&stage.state, &name("web"), &Timing::default(), &Limits::default());
    let why = "it is unmanaged, so it is left alone";
    assert!(bounds.iter().all(|bound| bound.within_ms.is_none() && bound.unbounded.as_deref() == Some(why)));
    assert!(bounds.iter().all(|bound| bound.detect_ms > 0), "it is seen all the same");
}

#[test]
fn nothing_is_promised_of_a_guest_on_a_host_whose_name_is_contested() {
    let mut stage = declared(|_| {});
    stage.must(Change::NameContested { host: host("a"), other: boot("a.2") });
    let bounds = bounds(&stage.state, &name("web"), &Timing::default(), &Limits::default());
    assert!(bounds.iter().all(|bound| bound.within_ms.is_none()), "{bounds:#?}");
    let says = |bound: &Bound| bound.unbounded.as_deref().is_some_and(|why| why.contains("whose name a is"));
    assert!(bounds.iter().all(says), "{bounds:#?}");
}

#[test]
fn a_ladder_that_starts_a_guest_anew_is_stretched_by_the_guest_that_has_to_be_ready_first() {
    let stage = declared(|policies| {
        let rule = Rule::Order { first: name("db"), then: name("web"), required: true, symmetrical: false };
        policies.rules.insert(RuleName::new("first").unwrap(), rule);
    });
    for failure in [Failure::AppFailed, Failure::GuestDied] {
        let waits = by(&bound_of(&stage, failure), StretchedBy::Order).cloned();
        assert!(waits.is_some_and(|stretch| stretch.by_ms.is_none() && stretch.why.contains("db")), "{failure}");
    }
    assert_eq!(by(&bound_of(&declared(|_| {}), Failure::GuestDied), StretchedBy::Order), None);
}

#[test]
fn a_host_that_has_announced_to_go_is_switched_off_only_after_its_time_to_go() {
    for (reboot, seconds) in [(true, 420), (false, 120)] {
        let mut stage = declared(|_| {});
        stage.must(Change::ModeSet { host: host("a"), mode: Mode::Leaving { reboot }, by: "ann".to_owned() });
        let frozen = bound_of(&stage, Failure::HostCutOff);
        assert_eq!(parts(&frozen)[0], (Stage::Detect, Some(seconds * 1_000)), "{frozen:#?}");
        assert!(frozen.because.contains("announced to go"), "{frozen:#?}");
        assert_eq!(parts(&bound_of(&stage, Failure::HostDied))[0], (Stage::Detect, Some(750)), "its device says off");
    }
}

#[test]
fn without_another_host_nothing_is_promised() {
    let mut stage = declared(|_| {});
    for on in ["b", "c"] {
        let gone = stage.gone(on);
        stage.must(gone);
    }
    let died = bound_of(&stage, Failure::HostDied);
    assert_eq!(died.unbounded.as_deref(), Some("no other host takes guests at present"));
}

#[test]
fn failures_are_called_the_same_in_json_and_in_words() {
    let all = [
        Failure::AppFailed,
        Failure::GuestDied,
        Failure::HostDied,
        Failure::CoordinatorDied,
        Failure::HostCutOff,
        Failure::DeviceSilent,
        Failure::HostUnproven,
        Failure::ByLease,
    ];
    for failure in all {
        assert_eq!(serde_json::to_value(failure).unwrap(), failure.word());
    }
}

#[test]
fn times_for_people_are_never_shorter_than_they_are() {
    let read: Vec<String> = [0, 750, 9_999, 10_000, 20_001, 119_001].map(|ms| rounded_up(ms).to_string()).into();
    assert_eq!(read, ["0s", "750ms", "9999ms", "10s", "21s", "2m"]);
}
