//! What a loss comes to, with figures counted by hand.

use super::*;
use crate::{
    fixture::{Stage, boot, host, name},
    plan::{
        QUESTION_LOOKS_MAX, Standing,
        tests::{change, guest},
    },
};

fn play(stage: &Stage, around: &Circumstances, lose: Lose) -> Result<Simulation, BadQuestion> {
    let problem = Problem::of(&stage.state, |_| Standing::Well);
    let question = Question { lose, boot: Span::secs(10) };
    simulate(&problem, &stage.state, &Timing::default(), around, &question, QUESTION_LOOKS_MAX)
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
        change::Change,
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
