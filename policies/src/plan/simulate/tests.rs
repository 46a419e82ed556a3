//! What a loss comes to, with figures counted by hand.

use super::*;
use crate::{
    bound::{Failure, Stage as BoundStage, StretchedBy, bounds},
    change::Change,
    fixture::{Stage, boot, host, name},
    plan::{
        QUESTION_LOOKS_MAX, STARTS_PER_HOST, Standing,
        tests::{change, guest},
    },
    rules::Rule,
    state::Mode,
};

fn play(stage: &Stage, around: &Circumstances, lose: Lose) -> Result<Simulation, BadQuestion> {
    let problem = Problem::of(&stage.state, |_| Standing::Well);
    let question = Question { lose, boot: Span::secs(10) };
    simulate(&problem, &stage.state, &Timing::default(), around, &question, QUESTION_LOOKS_MAX)
}

fn play_with(stage: &Stage, lose: Lose, boot: Span) -> Simulation {
    let problem = Problem::of(&stage.state, |_| Standing::Well);
    let (question, around) = (Question { lose, boot }, Circumstances::default());
    simulate(&problem, &stage.state, &Timing::default(), &around, &question, QUESTION_LOOKS_MAX).unwrap()
}

fn these(hosts: &[&str]) -> Lose {
    Lose::These { hosts: hosts.iter().map(|name| host(name)).collect(), domains: BTreeSet::new() }
}

/// The answering times of all starts, in seconds of the soonest case.
fn seconds(simulation: &Simulation) -> Vec<(&str, f64)> {
    let soonest = |start: &Start| start.soonest_ms.map_or(-1.0, |ms| f64::from(u32::try_from(ms).unwrap()) / 1_000.0);
    simulation.starts.iter().map(|start| (start.guest.as_str(), soonest(start))).collect()
}

#[test]
fn a_host_whose_name_is_contested_waits_for_a_person_whatever_its_devices_say() {
    let mut stage = Stage::new(&["a", "b"], &["web"]);
    stage.run("web", "a");
    let lost = |stage: &Stage| play(stage, &Circumstances::default(), these(&["a"])).unwrap();
    assert!(lost(&stage).survives);
    stage.must(Change::NameContested { host: host("a"), other: boot("a.2") });
    let simulation = lost(&stage);
    assert_eq!(simulation.lost[&host("a")], ProofEstimate::Person);
    assert!(!simulation.survives);
    let bound = simulation.starts[0].bound.clone().unwrap();
    assert!(bound.within_ms.is_none() && bound.unbounded.unwrap().contains("whose name a is"));
}

#[test]
fn guests_start_in_waves_after_the_proof_about_their_host() {
    let mut stage = Stage::new(&["a", "b"], &["g1", "g2", "g3"]);
    change(&mut stage, |policies| {
        for of in ["g1", "g2", "g3"] {
            guest(policies, of).qemu.memory_mib = 1_000;
        }
        guest(policies, "g3").priority = 300;
    });
    for of in ["g1", "g2", "g3"] {
        stage.run(of, "a");
    }
    let simulation = play(&stage, &Circumstances::default(), these(&["a"])).unwrap();
    assert!(simulation.survives, "{simulation:?}");
    assert_eq!(STARTS_PER_HOST, 2, "the waves below are counted with it");
    // The device is asked after 750 ms and says off; two boot at once, the third when one of them answers.
    assert_eq!(seconds(&simulation), [("g3", 10.75), ("g1", 10.75), ("g2", 20.75)]);
    // The device of the fixture takes at most 20 s.
    assert_eq!(simulation.lost[&host("a")], ProofEstimate::Device { soonest_ms: 750, slow_ms: 21_500 });
    assert_eq!(simulation.starts[2].slow_ms, Some(41_500));
}

#[test]
fn a_host_that_relies_on_its_lease_is_proven_gone_by_time() {
    use crate::{
        armed::{Armed, ArmedWatchdog},
        model::{FenceLevel, LeaseLevel},
    };
    let mut stage = Stage::new(&["a", "b"], &["g1"]);
    change(&mut stage, |policies| {
        policies.fencing.insert(host("a"), vec![FenceLevel::Lease(LeaseLevel::default())]);
    });
    stage.run("g1", "a");
    let person = play(&stage, &Circumstances::default(), these(&["a"])).unwrap();
    assert_eq!(person.lost[&host("a")], ProofEstimate::Person, "nothing is armed yet");
    let watchdog = Some(ArmedWatchdog { identity: "iTCO_wdt".to_owned(), timeout_ms: 10_000, is_virtual: false });
    let index = stage.index;
    stage.must(Change::HostArmed {
        host: host("a"),
        incarnation: crate::fixture::boot("a.1"),
        armed: Some(Armed { stops: true, guard_ms: 1_000, watchdog }),
        lease_ms: 4_000,
        known_view: index,
        seen: index,
    });
    let simulation = play(&stage, &Circumstances::default(), these(&["a"])).unwrap();
    assert_eq!(simulation.lost[&host("a")], ProofEstimate::Lease { ms: 15_750 });
    assert!(simulation.survives, "{simulation:?}");
    assert_eq!(bound_of(&simulation, "g1"), &explained(&stage, "g1", Failure::ByLease));
}

#[test]
fn what_a_person_has_to_prove_does_not_come_back_by_itself() {
    let mut stage = Stage::new(&["a", "b"], &["g1"]);
    change(&mut stage, |policies| policies.fencing.clear());
    stage.run("g1", "a");
    let simulation = play(&stage, &Circumstances::default(), these(&["a"])).unwrap();
    assert_eq!((simulation.survives, simulation.places), (false, Verdict::Yes));
    assert_eq!((&simulation.lost[&host("a")], simulation.starts[0].slow_ms), (&ProofEstimate::Person, None));
    let any = play(&stage, &Circumstances::default(), Lose::Any { losses: 1, by_domain: false }).unwrap();
    assert!(!any.survives && any.notes.iter().any(|note| note.contains("proves a, b off")), "{any:?}");
}

#[test]
fn a_guest_that_rules_put_second_boots_when_the_first_answers() {
    let mut stage = Stage::new(&["a", "b"], &["g1", "g2"]);
    change(&mut stage, |policies| {
        for of in ["g1", "g2"] {
            guest(policies, of).qemu.memory_mib = 1_000;
        }
        let rule = Rule::Order { first: name("g2"), then: name("g1"), required: false, symmetrical: false };
        policies.rules.insert(crate::names::RuleName::new("second-first").unwrap(), rule);
    });
    for of in ["g1", "g2"] {
        stage.run(of, "a");
    }
    let simulation = play(&stage, &Circumstances::default(), these(&["a"])).unwrap();
    assert_eq!(seconds(&simulation), [("g2", 10.75), ("g1", 20.75)]);
}

#[test]
fn a_lost_majority_and_a_name_that_is_not_there_are_said() {
    let mut stage = Stage::new(&["a", "b", "c"], &["g1"]);
    stage.run("g1", "a");
    let around = Circumstances {
        voters: [host("a"), host("b"), host("c")].into(),
        coordinator: Some(host("a")),
        ..Circumstances::default()
    };
    let simulation = play(&stage, &around, these(&["a", "b"])).unwrap();
    assert_eq!((simulation.survives, simulation.places), (false, Verdict::Yes));
    assert_eq!(simulation.notes.len(), 3, "majority, coordinator, storm: {:?}", simulation.notes);
    assert_eq!(play(&stage, &around, these(&["z"])), Err(BadQuestion::NoHost { host: host("z") }));
    let domains = [("rack".to_owned(), "r9".to_owned())].into();
    assert!(play(&stage, &around, Lose::These { hosts: BTreeSet::new(), domains }).is_err());
}

#[test]
fn a_loss_of_more_hosts_than_the_hour_has_fences_for_says_so() {
    let mut stage = Stage::new(&["a", "b", "c", "d", "e", "f", "g"], &["g1", "g2"]);
    stage.run("g1", "a");
    stage.run("g2", "b");
    let notes = |stage: &mut Stage, own: Option<u32>, in_all: Option<u32>| {
        change(stage, |policies| {
            (policies.cluster.fences_per_hour, policies.cluster.fences_per_hour_in_all) = (own, in_all);
        });
        // Too few of seven for a storm, which holds all fences.
        play(stage, &Circumstances::default(), these(&["a", "b"])).unwrap().notes
    };
    assert!(notes(&mut stage, Some(1), Some(2)).is_empty());
    let told = notes(&mut stage, None, Some(1));
    assert!(told[0].starts_with("`fences_per_hour_in_all: 1` has room for 1 of these 2 fences: "), "{told:?}");
    stage.state.hosts.get_mut(&host("b")).unwrap().fences = vec![1];
    let told = notes(&mut stage, Some(1), Some(3));
    assert!(told[0].starts_with("`fences_per_hour: 1` is used up for b: "), "{told:?}");
    let told = notes(&mut stage, None, Some(2));
    assert!(told[0].contains("has room for 1 of these 2 fences"), "one was begun within the hour: {told:?}");
}

#[test]
fn guests_of_an_imagined_cluster_are_placed_first() {
    let stage = Stage::new(&["a", "b"], &["g1", "g2"]);
    let hosts = [(host("x"), (8_192, 4)), (host("y"), (8_192, 4))].into();
    let address = "127.0.0.1:1".parse().unwrap();
    let state = imagine(stage.state.policies.clone(), &hosts, &boot("x.1"), address);
    let problem = Problem::of(&state, |_| Standing::Well);
    let question = Question { lose: these(&["x", "y"]), boot: Span::secs(1) };
    let both = simulate(&problem, &state, &Timing::default(), &Circumstances::default(), &question, 1_000).unwrap();
    assert_eq!((both.places, both.nowhere.len(), both.stays), (Verdict::No, 2, 0));
}

/// What is explained of a guest before its host fails.
fn explained(stage: &Stage, guest: &str, failure: Failure) -> Bound {
    let bounds = bounds(&stage.state, &name(guest), &Timing::default(), &Limits::default());
    bounds.into_iter().find(|bound| bound.failure == failure).unwrap()
}

fn bound_of<'a>(simulation: &'a Simulation, guest: &str) -> &'a Bound {
    let start = simulation.starts.iter().find(|start| start.guest == name(guest)).unwrap();
    start.bound.as_ref().unwrap()
}

fn part(bound: &Bound, stage: BoundStage) -> Option<u64> {
    bound.parts.iter().find(|part| part.stage == stage).and_then(|part| part.within_ms)
}

fn is_stretched(bound: &Bound, by: StretchedBy) -> bool {
    bound.stretched_by.iter().any(|stretch| stretch.by == by)
}

/// L1.
#[test]
fn the_loss_of_one_host_has_the_bound_that_is_explained_before_and_no_estimate_is_beyond_it() {
    let guests = ["g1", "g2", "g3", "g4", "g5"];
    let mut stage = Stage::new(&["a", "b", "c"], &guests);
    change(&mut stage, |policies| guest(policies, "g3").priority = 300);
    guests.iter().for_each(|of| stage.run(of, "a"));
    let simulation = play(&stage, &Circumstances::default(), these(&["a"])).unwrap();
    assert_eq!(simulation.starts.len(), guests.len());
    for start in &simulation.starts {
        let bound = explained(&stage, start.guest.as_str(), Failure::HostCutOff);
        assert_eq!(start.bound.as_ref(), Some(&bound));
        assert!(start.soonest_ms <= start.slow_ms && start.slow_ms <= bound.within_ms, "{start:?}");
    }
    // Four others may go first, two at a time, and none before the one with the highest priority.
    assert_eq!(part(bound_of(&simulation, "g1"), BoundStage::Queue), Some(62_000));
    assert_eq!(part(bound_of(&simulation, "g3"), BoundStage::Queue), None);
}

#[test]
fn an_estimate_is_cut_where_its_guess_of_a_boot_is_longer_than_a_start_may_last() {
    let guests = ["g1", "g2", "g3", "g4", "g5", "g6", "g7", "g8"];
    let mut stage = Stage::new(&["a", "b"], &guests);
    change(&mut stage, |policies| guests.iter().for_each(|of| guest(policies, of).qemu.memory_mib = 100));
    guests.iter().for_each(|of| stage.run(of, "a"));
    let simulation = play_with(&stage, these(&["a"]), Span::secs(36));
    let within = |start: &Start| start.bound.as_ref().and_then(|bound| bound.within_ms);
    assert!(simulation.starts.iter().all(|start| start.slow_ms.is_some() && start.slow_ms <= within(start)));
    let longer = play_with(&stage, these(&["a"]), Span::ms(36_001));
    for start in &longer.starts {
        let bound = start.bound.as_ref().unwrap();
        assert!(bound.unbounded.as_ref().is_some_and(|why| why.contains("its ladder is climbed")), "{bound:?}");
    }
}

#[test]
fn hosts_that_are_lost_together_are_part_of_the_bound_of_each_guest() {
    let mut stage = Stage::new(&["a", "b", "c", "d"], &["g1", "g2"]);
    change(&mut stage, |policies| {
        policies.cluster.failure_domain = Some("rack".to_owned());
        for (on, rack) in [("a", "r1"), ("b", "r1"), ("c", "r2"), ("d", "r3")] {
            policies.hosts.entry(host(on)).or_default().labels.insert("rack".to_owned(), rack.to_owned());
        }
    });
    stage.run("g1", "a");
    stage.run("g2", "b");
    let one = explained(&stage, "g1", Failure::HostCutOff);
    let domain = one.stretched_by.iter().find(|stretch| stretch.by == StretchedBy::Domain).unwrap();
    // Another fence of 22 s, and with the other start a row of two.
    assert_eq!((one.within_ms, domain.by_ms), (Some(60_700), Some(53_000)));
    let rack = play(&stage, &Circumstances::default(), these(&["a", "b"])).unwrap();
    let both = bound_of(&rack, "g1");
    assert_eq!((part(both, BoundStage::Prove), both.within_ms), (Some(44_000), Some(82_700)));
    assert!(!is_stretched(both, StretchedBy::Domain), "it is no mere possibility: {both:?}");
    let storm = play(&stage, &Circumstances::default(), these(&["a", "c"])).unwrap();
    let held = bound_of(&storm, "g1");
    assert!(held.unbounded.as_ref().is_some_and(|why| why.contains("fencing is held")), "{held:?}");
}

#[test]
fn whether_the_coordinator_is_lost_is_known_and_no_longer_a_stretch() {
    let mut stage = Stage::new(&["a", "b", "c"], &["g1"]);
    stage.run("g1", "a");
    let with = |coordinator: &str| {
        let around = Circumstances { coordinator: Some(host(coordinator)), ..Circumstances::default() };
        let simulation = play(&stage, &around, these(&["a"])).unwrap();
        let bound = bound_of(&simulation, "g1");
        assert!(!is_stretched(bound, StretchedBy::Coordinator), "{bound:?}");
        part(bound, BoundStage::Detect)
    };
    assert_eq!((with("b"), with("a")), (Some(1_700), Some(2_900)));
}

#[test]
fn the_bound_of_a_guest_that_rules_put_second_counts_from_when_the_first_is_back() {
    let mut stage = Stage::new(&["a", "b"], &["g1", "g2"]);
    change(&mut stage, |policies| {
        let rule = Rule::Order { first: name("g2"), then: name("g1"), required: true, symmetrical: false };
        policies.rules.insert(crate::names::RuleName::new("second-first").unwrap(), rule);
    });
    stage.run("g1", "a");
    stage.run("g2", "a");
    let simulation = play(&stage, &Circumstances::default(), these(&["a"])).unwrap();
    let (first, second) = (bound_of(&simulation, "g2"), bound_of(&simulation, "g1"));
    // Then 31 s to start and 6 s to answer.
    assert_eq!((first.within_ms, second.within_ms), (Some(60_700), Some(97_700)));
    assert!(!is_stretched(second, StretchedBy::Order), "{second:?}");
}

#[test]
fn what_does_not_come_back_by_itself_has_no_bound_and_says_why() {
    let mut stage = Stage::new(&["a", "b", "c"], &["g1"]);
    stage.run("g1", "a");
    let why = |stage: &Stage, around: &Circumstances, lost: &[&str]| {
        let simulation = play(stage, around, these(lost)).unwrap();
        let start = &simulation.starts[0];
        assert!(!simulation.survives && start.soonest_ms.is_none() && start.slow_ms.is_none(), "{simulation:?}");
        bound_of(&simulation, "g1").unbounded.clone().unwrap()
    };
    let stale = Circumstances { stale: [(host("a"), 0)].into(), ..Circumstances::default() };
    assert!(why(&stage, &stale, &["a"]).contains("holdfast host confirm-off a"));
    let voters = Circumstances { voters: [host("a"), host("b"), host("c")].into(), ..Circumstances::default() };
    assert!(why(&stage, &voters, &["a", "b"]).contains("no majority"));
    stage.must(Change::ModeSet { host: host("a"), mode: Mode::Maintenance, by: "ann".to_owned() });
    assert_eq!(why(&stage, &Circumstances::default(), &["a"]), "a is in maintenance, so it is left alone");
}

#[test]
fn a_loss_that_looks_like_a_storm_is_not_said_to_come_back_by_itself_unless_leases_prove_it() {
    let mut stage = Stage::new(&["a", "b", "c", "d", "e", "f"], &["g1"]);
    stage.run("g1", "a");
    let lost = |stage: &Stage| play(stage, &Circumstances::default(), these(&["a", "b"])).unwrap();
    let two_of_six = lost(&stage);
    assert!(two_of_six.survives && two_of_six.starts[0].slow_ms.is_some(), "{two_of_six:?}");
    // The silence of one in maintenance is expected: two of five, as the coordinator counts.
    stage.must(Change::ModeSet { host: host("f"), mode: Mode::Maintenance, by: "ann".to_owned() });
    let storm = lost(&stage);
    assert_eq!((storm.survives, storm.places), (false, Verdict::Yes), "{storm:?}");
    // Its device may say off by itself; if not, a person decides.
    assert_eq!((storm.starts[0].soonest_ms, storm.starts[0].slow_ms), (Some(10_750), None));
    assert!(storm.notes.iter().any(|note| note.starts_with("2 of 5 failure domains")), "{:?}", storm.notes);
}

#[test]
fn voters_that_are_not_heard_at_present_are_no_part_of_the_majority_that_is_left() {
    let mut stage = Stage::new(&["a", "b", "c"], &["g1"]);
    stage.run("g1", "a");
    let voters = Circumstances { voters: [host("a"), host("b"), host("c")].into(), ..Circumstances::default() };
    assert!(play(&stage, &voters, these(&["a"])).unwrap().survives);
    let away = Circumstances { away: [host("b")].into(), ..voters.clone() };
    let decided = |around: &Circumstances, stage: &Stage| {
        let simulation = play(stage, around, these(&["a"])).unwrap();
        simulation.survives || !simulation.notes.iter().any(|note| note.contains("no majority"))
    };
    assert!(!decided(&away, &stage));
    let gone = stage.gone("b");
    stage.must(gone);
    assert!(!decided(&voters, &stage), "it is proven gone");
}

#[test]
fn a_guest_of_best_effort_that_waits_for_a_person_does_not_count() {
    let mut stage = Stage::new(&["a", "b"], &["g1"]);
    change(&mut stage, |policies| {
        policies.fencing.clear();
        guest(policies, "g1").needs.best_effort = true;
    });
    stage.run("g1", "a");
    let simulation = play(&stage, &Circumstances::default(), these(&["a"])).unwrap();
    assert_eq!((simulation.survives, simulation.starts[0].soonest_ms), (true, None));
}

#[test]
fn who_has_to_give_way_first_is_part_of_the_bound() {
    let mut stage = Stage::new(&["a", "b"], &["high", "low"]);
    change(&mut stage, |policies| {
        for of in ["high", "low"] {
            guest(policies, of).qemu.memory_mib = 5_000;
        }
        guest(policies, "high").priority = 500;
        guest(policies, "low").needs.best_effort = true;
    });
    stage.run("high", "a");
    stage.run("low", "b");
    let simulation = play(&stage, &Circumstances::default(), these(&["a"])).unwrap();
    assert_eq!(simulation.gives_way, [name("low")]);
    let bound = bound_of(&simulation, "high");
    // A turn of 1 s, 30 s to shut down, 20 s to pull the plug.
    assert_eq!(part(bound, BoundStage::Queue), Some(51_000));
    assert_eq!(bound.within_ms, Some(60_700 + 51_000));
}

#[test]
fn the_bounds_of_a_loss_are_so_many_at_most_and_each_stays_small_however_much_is_lost() {
    let hosts: Vec<String> = (0..120).map(|number| format!("host-{number:03}")).collect();
    let guests: Vec<String> = (0..=BOUNDS_MAX).map(|number| format!("guest-{number:04}")).collect();
    let (hosts, guests): (Vec<&str>, Vec<&str>) =
        (hosts.iter().map(String::as_str).collect(), guests.iter().map(String::as_str).collect());
    let mut stage = Stage::new(&hosts, &guests);
    change(&mut stage, |policies| {
        policies.guests.values_mut().for_each(|declared| declared.qemu.memory_mib = 100);
        for lost in &hosts[..60] {
            policies.hosts.entry(host(lost)).or_default().labels.insert("rack".to_owned(), "r1".to_owned());
        }
        policies.cluster.failure_domain = Some("rack".to_owned());
    });
    guests.iter().zip(hosts[..60].iter().cycle()).for_each(|(of, on)| stage.run(of, on));
    let lose = Lose::These { hosts: BTreeSet::new(), domains: [("rack".to_owned(), "r1".to_owned())].into() };
    let simulation = play(&stage, &Circumstances::default(), lose).unwrap();
    assert_eq!(simulation.starts.len(), BOUNDS_MAX + 1);
    let bounded = simulation.starts.iter().take_while(|start| start.bound.is_some()).count();
    assert_eq!(bounded, BOUNDS_MAX);
    assert!(simulation.notes.iter().any(|note| note.contains("only of the first 500")), "{:?}", simulation.notes);
    let bytes = serde_json::to_vec(&simulation).unwrap().len();
    assert!(bytes < BOUNDS_MAX * 4_096, "{bytes} bytes");
}
