//! Placing against a slower judge: an independent brute force over tiny problems, and a checker of hard limits.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::tests::{capacity, change, guest, named, rule};
use super::*;
use crate::{
    fixture::{Stage, host, name},
    rules::{Hosts, Rule, Score},
};

/// A tiny problem, told without any word of the planner.
#[derive(Debug, Clone)]
struct Tiny {
    /// Slots and rack of each host.
    hosts: Vec<(u64, u8)>,
    /// Slots, memory, priority, and forbidden hosts of each guest.
    guests: Vec<(u64, u32, u32, Vec<bool>)>,
    /// Where some of them run.
    running: Vec<(usize, usize)>,
    together: Vec<usize>,
    apart: Vec<usize>,
    by_rack: bool,
}

const HOSTS: [&str; 4] = ["a", "b", "c", "d"];
const GUESTS: [&str; 6] = ["g0", "g1", "g2", "g3", "g4", "g5"];

fn tiny() -> impl Strategy<Value = Tiny> {
    let hosts = prop::collection::vec((0..6_u64, 0..3_u8), 2..=HOSTS.len());
    let guest = (0..4_u64, 500..6_000_u32, 1..4_u32, prop::collection::vec(prop::bool::weighted(0.2), HOSTS.len()));
    let guests = prop::collection::vec(guest, 2..=GUESTS.len());
    let rows = || prop::collection::vec(0..GUESTS.len(), 0..4);
    (hosts, guests, prop::option::of(0..HOSTS.len()), rows(), rows(), any::<bool>()).prop_map(
        |(hosts, guests, running, mut together, mut apart, by_rack)| {
            let last = guests.len() - 1;
            // The last guest may run already; it is in no set, so that it is only in the way.
            let running: Vec<(usize, usize)> =
                running.filter(|on| *on < hosts.len()).map(|on| (last, on)).into_iter().collect();
            for rows in [&mut together, &mut apart] {
                rows.retain(|row| *row < last);
                rows.sort_unstable();
                rows.dedup();
            }
            Tiny { hosts, guests, running, together, apart, by_rack }
        },
    )
}

impl Tiny {
    fn stage(&self) -> Stage {
        let mut stage = Stage::new(&HOSTS[..self.hosts.len()], &GUESTS[..self.guests.len()]);
        for (of, on) in &self.running {
            stage.run(GUESTS[*of], HOSTS[*on]);
        }
        change(&mut stage, |policies| {
            for (on, (slots, rack)) in self.hosts.iter().enumerate() {
                capacity(policies, HOSTS[on], "slots", *slots);
                let labels = &mut policies.hosts.get_mut(&host(HOSTS[on])).unwrap().labels;
                labels.insert("rack".to_owned(), rack.to_string());
            }
            for (of, (slots, memory, priority, _)) in self.guests.iter().enumerate() {
                let guest = guest(policies, GUESTS[of]);
                (guest.qemu.memory_mib, guest.priority) = (*memory, *priority);
                guest.needs.demand.insert("slots".to_owned(), *slots);
            }
        });
        for (of, (_, _, _, forbidden)) in self.guests.iter().enumerate() {
            let never = HOSTS.iter().zip(forbidden).filter(|(_, forbidden)| **forbidden);
            let hosts = Hosts::Named(never.map(|(on, _)| (host(on), Score::Never)).collect());
            rule(
                &mut stage,
                &format!("never-{of}"),
                Rule::Hosts { guests: named(&[GUESTS[of]]), hosts, required: false },
            );
        }
        let names = |rows: &[usize]| named(&rows.iter().map(|row| GUESTS[*row]).collect::<Vec<_>>());
        let (required, yields, weight) = (true, None, 0);
        let by = self.by_rack.then(|| "rack".to_owned());
        rule(&mut stage, "set", Rule::Together { guests: names(&self.together), required, yields: None, weight });
        rule(&mut stage, "apart", Rule::Apart { guests: names(&self.apart), required, yields, weight, by });
        stage
    }

    /// Whether guests may be where they are: what no planner may break.
    fn is_sound(&self, at: &[Option<usize>]) -> bool {
        let on = |host: usize| (0..at.len()).filter(move |guest| at[*guest] == Some(host));
        let room = (0..self.hosts.len()).all(|host| {
            let slots: u64 = on(host).map(|guest| self.guests[guest].0).sum();
            let memory: u32 = on(host).map(|guest| self.guests[guest].1).sum();
            let taken = on(host).any(|guest| self.guests[guest].0 > 0);
            (slots <= self.hosts[host].0 || !taken || self.only_running(host, at)) && (memory <= 8_192)
        });
        let allowed = (0..at.len()).all(|guest| {
            self.running.iter().any(|(of, _)| *of == guest) || at[guest].is_none_or(|host| !self.guests[guest].3[host])
        });
        let places = |rows: &[usize]| rows.iter().filter_map(|row| at[*row]).collect::<Vec<usize>>();
        let together = places(&self.together).windows(2).all(|pair| pair[0] == pair[1]);
        let domain = |host: &usize| if self.by_rack { usize::from(self.hosts[*host].1) } else { *host };
        let mut domains: Vec<usize> = places(&self.apart).iter().map(domain).collect();
        let count = domains.len();
        domains.sort_unstable();
        domains.dedup();
        room && allowed && together && domains.len() == count
    }

    /// A host that only its running guest overfills is nobody's fault.
    fn only_running(&self, host: usize, at: &[Option<usize>]) -> bool {
        let runs = |guest: usize| self.running.contains(&(guest, host));
        (0..at.len()).filter(|guest| at[*guest] == Some(host) && self.guests[*guest].0 > 0).all(runs)
    }

    fn start(&self) -> Vec<Option<usize>> {
        let mut at = vec![None; self.guests.len()];
        for (of, on) in &self.running {
            at[*of] = Some(*on);
        }
        at
    }

    /// Whether all guests have a place, by trying everything.
    fn all_fit(&self, at: &mut Vec<Option<usize>>, guest: usize) -> bool {
        if guest == at.len() {
            return self.is_sound(at);
        }
        if at[guest].is_some() {
            return self.all_fit(at, guest + 1);
        }
        for host in 0..self.hosts.len() {
            at[guest] = Some(host);
            if self.all_fit(at, guest + 1) {
                return true;
            }
        }
        at[guest] = None;
        false
    }

    /// Where the planner puts each guest.
    fn planned(&self, stage: &Stage, is_patient: bool) -> Vec<Option<usize>> {
        let problem = Problem::of(&stage.state, |_| Standing::Well);
        let guests = problem.homeless();
        let patient = if is_patient { problem.least_important(&guests) } else { BTreeSet::new() };
        let ask = Ask { guests, patient, ..Ask::default() };
        let placement = place(&problem, &mut Room::of(&problem), &ask);
        let again = place(&problem, &mut Room::of(&problem), &ask);
        assert_eq!(placement.places, again.places, "the same every time");
        let mut at = self.start();
        for (guest, place) in &placement.places {
            if let Place::On { host, .. } | Place::Later { host, .. } = place {
                let of = GUESTS.iter().position(|of| name(of) == *problem.guest_name(*guest)).unwrap();
                at[of] = HOSTS.iter().position(|on| host_is(&problem, *host, on));
            }
        }
        at
    }
}

fn host_is(problem: &Problem<'_>, at: HostAt, text: &str) -> bool {
    *problem.host_name(at) == host(text)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn no_placement_breaks_a_required_rule_or_a_hard_capacity_and_all_are_placed_where_all_can_be(tiny in tiny()) {
        let stage = tiny.stage();
        for is_patient in [false, true] {
            let at = tiny.planned(&stage, is_patient);
            prop_assert!(tiny.is_sound(&at), "{at:?}");
            if tiny.all_fit(&mut tiny.start(), 0) {
                prop_assert!(at.iter().all(Option::is_some), "there is a place for all, and the planner found {at:?}");
            }
            // Nobody is left out who could be added as things are.
            let free: BTreeMap<usize, usize> = (0..at.len())
                .filter(|guest| at[*guest].is_none())
                .flat_map(|guest| (0..tiny.hosts.len()).map(move |host| (guest, host)))
                .filter(|(guest, host)| {
                    let mut more = at.clone();
                    more[*guest] = Some(*host);
                    tiny.is_sound(&more)
                })
                .collect();
            prop_assert!(free.is_empty(), "{at:?} leaves out {free:?}");
        }
    }

    #[test]
    fn what_is_survived_by_the_planner_is_survived_by_the_brute_force(tiny in tiny()) {
        let stage = tiny.stage();
        let problem = Problem::of(&stage.state, |_| Standing::Well);
        let survival = admission(&problem, 0, false);
        let possible = tiny.all_fit(&mut tiny.start(), 0);
        prop_assert_eq!(survival.verdict == Verdict::Yes, possible, "{:?}", survival);
    }
}
