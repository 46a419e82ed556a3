//! Of hosts that rules like equally, the one is chosen that is least full by what the guest takes.

use proptest::prelude::*;

use super::tests::{capacity, change, guest, named, placed, rule, scores, told};
use super::*;
use crate::{
    fixture::{Stage, host},
    model::Policies,
    rules::{CapacitySettings, Rule, Score},
};

/// `one` runs on `a` and `two` on `b`; `web` waits. Each takes so much memory, and so many operations per second of the 100
/// that either host has.
fn two_hosts(one: (u32, u64), two: (u32, u64), web: (u32, u64)) -> Stage {
    let mut stage = Stage::new(&["a", "b"], &["one", "two", "web"]);
    stage.run("one", "a");
    stage.run("two", "b");
    change(&mut stage, |policies| {
        capacity(policies, "a", "iops", 100);
        capacity(policies, "b", "iops", 100);
        for (of, (memory, iops)) in [("one", one), ("two", two), ("web", web)] {
            guest(policies, of).qemu.memory_mib = memory;
            guest(policies, of).needs.demand.insert("iops".to_owned(), iops);
        }
    });
    stage
}

fn counts(policies: &mut Policies, what: &str, hard: bool, weight: u32) {
    policies.cluster.capacities.insert(what.to_owned(), CapacitySettings { hard, weight });
}

#[test]
fn the_fullest_of_what_a_guest_takes_decides_and_what_it_does_not_take_is_nothing_to_it() {
    let mut stage = two_hosts((1_024, 80), (4_096, 0), (1_024, 10));
    assert_eq!(placed(&stage)["web"], "b");
    let why = "4096 MiB of its memory are free, and it is the least loaded: guests then take 5120 of its 8192 MiB";
    assert_eq!(told(&stage, "web"), why);
    change(&mut stage, |policies| guest(policies, "web").needs.demand.clear());
    assert_eq!(placed(&stage)["web"], "a", "by memory alone");
}

#[test]
fn a_large_host_is_as_full_as_a_small_one_when_the_same_share_is_taken() {
    let mut stage = two_hosts((1_024, 20), (1_024, 30), (1_024, 10));
    assert_eq!(placed(&stage)["web"], "a");
    change(&mut stage, |policies| capacity(policies, "b", "iops", 200));
    assert_eq!(placed(&stage)["web"], "b", "40 of 200 are less than 30 of 100");
}

#[test]
fn a_weight_says_how_much_a_share_counts() {
    let mut stage = two_hosts((512, 50), (5_120, 10), (512, 10));
    assert_eq!(placed(&stage)["web"], "a", "60 of 100 against 5632 of 8192");
    let mut weighed = |what: &str, weight: u32| {
        change(&mut stage, |policies| {
            policies.cluster.capacities.clear();
            counts(policies, what, true, weight);
        });
        placed(&stage)["web"].clone()
    };
    assert_eq!(weighed("iops", 200), "b");
    assert_eq!(weighed("iops", 0), "a");
    assert_eq!(weighed("memory_mib", 50), "b");
}

#[test]
fn a_capacity_that_is_not_hard_is_exceeded_only_where_no_host_has_it_left() {
    let mut stage = two_hosts((1_024, 95), (4_096, 90), (1_024, 10));
    change(&mut stage, |policies| counts(policies, "iops", false, 100));
    assert_eq!(placed(&stage)["web"], "b", "where it still fits");
    change(&mut stage, |policies| {
        guest(policies, "web").needs.demand.insert("iops".to_owned(), 60);
    });
    assert_eq!(placed(&stage)["web"], "b", "where least is missing");
    stage.run("web", "b");
    let problem = Problem::of(&stage.state, |_| Standing::Well);
    assert!(Room::of(&problem).overfull(&problem).is_empty(), "nobody is called for it");
    change(&mut stage, |policies| policies.cluster.capacities.clear());
    let problem = Problem::of(&stage.state, |_| Standing::Well);
    assert_eq!(Room::of(&problem).overfull(&problem), [(&host("b"), "iops", 150, 100)]);
}

#[test]
fn memory_stays_hard_whatever_is_said() {
    let mut stage = two_hosts((1_024, 0), (1_024, 0), (9_000, 0));
    change(&mut stage, |policies| counts(policies, "memory_mib", false, 100));
    assert_eq!(placed(&stage)["web"], "nowhere");
}

#[test]
fn processors_count_by_their_share_once_settings_name_them_and_beyond_the_cores_before() {
    let mut stage = two_hosts((1_024, 0), (3_072, 0), (1_024, 0));
    change(&mut stage, |policies| guest(policies, "one").qemu.cpus = 5);
    assert_eq!(placed(&stage)["web"], "a", "its eight cores are enough");
    change(&mut stage, |policies| counts(policies, "cpus", true, 100));
    assert_eq!(placed(&stage)["web"], "b", "6 of 8 processors are more than 4096 of 8192 MiB");
    change(&mut stage, |policies| guest(policies, "web").qemu.cpus = 64);
    assert_ne!(placed(&stage)["web"], "nowhere", "cores that nobody has declared as a capacity are no limit");
}

#[test]
fn rules_come_before_room_and_no_load_moves_what_runs() {
    let mut stage = two_hosts((1_024, 90), (1_024, 0), (1_024, 60));
    change(&mut stage, |policies| counts(policies, "iops", false, 1_000));
    let hosts = scores(&[("a", Score::By(1))]);
    rule(&mut stage, "liked", Rule::Hosts { guests: named(&["one", "web"]), hosts, required: false });
    assert_eq!(placed(&stage)["web"], "a");
    stage.run("web", "a");
    let problem = Problem::of(&stage.state, |_| Standing::Well);
    assert!(moves(&problem, &Room::of(&problem)).is_empty());
}

/// What each host has of slots, whether they are hard, the weights of memory and slots; then slots, memory and host of what
/// runs, and slots and memory of what waits.
#[derive(Debug, Clone)]
struct Loads {
    slots: Vec<u32>,
    hard: bool,
    weights: (u32, u32),
    running: Vec<(u32, u32, usize)>,
    waits: (u32, u32),
}

const HOSTS: [&str; 4] = ["a", "b", "c", "d"];
const GUESTS: [&str; 6] = ["g0", "g1", "g2", "g3", "g4", "g5"];

fn loads() -> impl Strategy<Value = Loads> {
    let slots = prop::collection::vec(1..10_u32, 2..=HOSTS.len());
    let running = prop::collection::vec((0..4_u32, 100..3_000_u32, 0..HOSTS.len()), 0..GUESTS.len());
    (slots, any::<bool>(), (0..300_u32, 0..300_u32), running, (0..4_u32, 100..3_000_u32)).prop_map(
        |(slots, hard, weights, mut running, waits)| {
            running.iter_mut().for_each(|(_, _, on)| *on %= slots.len());
            Loads { slots, hard, weights, running, waits }
        },
    )
}

impl Loads {
    /// The last guest waits.
    fn stage(&self) -> Stage {
        let count = self.running.len();
        let mut stage = Stage::new(&HOSTS[..self.slots.len()], &GUESTS[..=count]);
        for (of, (_, _, on)) in self.running.iter().enumerate() {
            stage.run(GUESTS[of], HOSTS[*on]);
        }
        change(&mut stage, |policies| {
            for (on, slots) in self.slots.iter().enumerate() {
                capacity(policies, HOSTS[on], "slots", u64::from(*slots));
            }
            let running = self.running.iter().map(|(slots, memory, _)| (*slots, *memory));
            for (of, (slots, memory)) in running.chain([self.waits]).enumerate() {
                let guest = guest(policies, GUESTS[of]);
                guest.qemu.memory_mib = memory;
                guest.needs.demand.insert("slots".to_owned(), u64::from(slots));
            }
            counts(policies, "memory_mib", true, self.weights.0);
            counts(policies, "slots", self.hard, self.weights.1);
        });
        stage
    }

    /// How full a host would be with the guest that waits; `None` where it does not fit.
    fn load(&self, on: usize) -> Option<f64> {
        let there = || self.running.iter().filter(|(_, _, host)| *host == on);
        let slots = there().map(|(slots, _, _)| slots).sum::<u32>() + self.waits.0;
        let memory = there().map(|(_, memory, _)| memory).sum::<u32>() + self.waits.1;
        let has = self.slots[on];
        if memory > 8_192 || (self.hard && self.waits.0 > 0 && slots > has) {
            return None;
        }
        let by_memory = f64::from(memory) / 8_192.0 * f64::from(self.weights.0);
        let by_slots = f64::from(slots) / f64::from(has) * f64::from(self.weights.1);
        Some(if self.waits.0 > 0 { by_memory.max(by_slots) } else { by_memory })
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_host_that_takes_a_guest_is_less_full_than_the_one_that_gets_it(loads in loads()) {
        let stage = loads.stage();
        let found = placed(&stage)[GUESTS[loads.running.len()]].clone();
        let least = (0..loads.slots.len()).filter_map(|on| loads.load(on)).reduce(f64::min);
        let chosen = HOSTS.iter().position(|on| *on == found).and_then(|on| loads.load(on));
        match (chosen, least) {
            // Shares are compared in millionths.
            (Some(chosen), Some(least)) => prop_assert!(chosen - least < 0.001, "{found}: {chosen} and not {least}"),
            (chosen, least) => prop_assert_eq!((chosen, found.as_str()), (least, "nowhere")),
        }
    }

    #[test]
    fn what_is_not_hard_leaves_nobody_without_a_host(loads in loads()) {
        let soft = Loads { hard: false, ..loads };
        let found = placed(&soft.stage())[GUESTS[soft.running.len()]].clone();
        let fits = (0..soft.slots.len()).any(|on| soft.load(on).is_some());
        prop_assert_eq!(found != "nowhere", fits);
    }
}
