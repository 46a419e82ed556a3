//! Who is patient waits a little for the less loaded host, so that a loss leaves the others evenly loaded; nobody else waits.

use proptest::prelude::*;

use super::tests::{change, guest, in_words};
use super::*;
use crate::fixture::{Stage, name};

/// Where guests that run nowhere go, in the order of their names: `host`, `host later`, or `nowhere`.
fn words(stage: &Stage, is_patient: bool) -> Vec<String> {
    let problem = Problem::of(&stage.state, |_| Standing::Well);
    let guests = problem.homeless();
    let patient = if is_patient { problem.least_important(&guests) } else { BTreeSet::new() };
    let placement = place(&problem, &mut Room::of(&problem), &Ask { guests, patient, ..Ask::default() });
    placement.places.values().map(|place| in_words(&problem, place)).collect()
}

/// Three guests run on `a` and none on `b`; four wait.
fn three_beside_four() -> Stage {
    let mut stage = Stage::new(&["a", "b"], &["g1", "g2", "g3", "g4", "w1", "w2", "w3"]);
    for of in ["w1", "w2", "w3"] {
        stage.run(of, "a");
    }
    stage
}

#[test]
fn patient_guests_leave_hosts_evenly_loaded_and_others_start_as_soon_as_can_be() {
    let stage = three_beside_four();
    assert_eq!(words(&stage, true), ["b", "b", "b later", "a"], "four on each");
    assert_eq!(words(&stage, false), ["b", "b", "a", "a"], "five and two, and nobody waits");
}

#[test]
fn what_is_about_to_start_counts_as_load_by_its_size() {
    let mut stage = Stage::new(&["a", "b"], &["big", "s1", "s2", "s3"]);
    change(&mut stage, |policies| {
        for (of, memory) in [("big", 5_000), ("s1", 2_000), ("s2", 2_000), ("s3", 2_000)] {
            guest(policies, of).qemu.memory_mib = memory;
        }
    });
    assert_eq!(words(&stage, true), ["a", "b", "b", "b later"], "5000 beside 6000");
    assert_eq!(words(&stage, false), ["a", "b", "b", "a"], "7000 beside 4000");
}

#[test]
fn a_host_that_would_have_to_start_too_many_is_not_waited_for_however_empty_it_is() {
    let waiting = ["g1", "g2", "g3", "g4", "g5", "g6", "g7", "g8"];
    let mut stage = Stage::new(&["a", "b"], &[&waiting[..], &["old"]].concat());
    change(&mut stage, |policies| {
        policies.guests.values_mut().for_each(|guest| guest.qemu.memory_mib = 100);
        guest(policies, "old").qemu.memory_mib = 7_000;
    });
    stage.run("old", "a");
    assert_eq!((STARTS_PER_HOST, TURNS_WAITED), (2, 2), "the turns below are counted with them");
    let expected = ["b", "b", "b later", "b later", "b later", "b later", "a", "a"];
    assert_eq!(words(&stage, true), expected);
}

#[test]
fn nobody_waits_while_somebody_less_important_starts() {
    let mut stage = three_beside_four();
    change(&mut stage, |policies| {
        for of in ["g1", "g2", "g3"] {
            guest(policies, of).priority = 200;
        }
    });
    assert_eq!(words(&stage, true), ["b", "b", "a", "b later"], "only g4 waits");
    change(&mut stage, |policies| guest(policies, "g4").priority = 200);
    assert_eq!(words(&stage, true), ["b", "b", "b later", "a"], "all are as important");
}

#[test]
fn among_equals_nobody_waits() {
    let mut stage = Stage::new(&["a", "b"], &["g1", "r1", "r2", "s1", "s2"]);
    stage.run("r1", "b");
    stage.run("r2", "b");
    stage.place("s1", "a");
    stage.place("s2", "a");
    assert_eq!((words(&stage, true), words(&stage, false)), (vec!["b".to_owned()], vec!["b".to_owned()]));
}

#[test]
fn a_guest_that_is_chosen_a_host_alone_is_patient_only_if_it_is_said_to_be() {
    let stage = three_beside_four();
    let problem = Problem::of(&stage.state, |_| Standing::Well);
    let mut room = Room::of(&problem);
    let [first, second, third] = ["g1", "g2", "g3"].map(|of| problem.guest(&name(of)).unwrap());
    let _ = place(&problem, &mut room, &Ask { guests: vec![first, second], ..Ask::default() });
    let found = place(&problem, &mut room, &Ask { guests: vec![third], ..Ask::default() });
    let on = |place: &Place| match place {
        Place::On { host, .. } | Place::Later { host, .. } => Some(problem.host_name(*host).to_string()),
        Place::Nowhere { .. } => None,
    };
    assert_eq!(on(&found.places[&third]), Some("a".to_owned()), "such as one that moves");
}

/// Memory of guests that run, with their hosts, and of guests that wait.
#[derive(Debug, Clone)]
struct Loss {
    hosts: usize,
    running: Vec<(u32, usize)>,
    waiting: Vec<u32>,
}

const HOSTS: [&str; 4] = ["a", "b", "c", "d"];

/// So much, and so few guests, that all of it fits on one host, also by processors.
fn loss(waiting: std::ops::Range<usize>) -> impl Strategy<Value = Loss> {
    let running = prop::collection::vec((100..3_000_u32, 0..HOSTS.len()), 0..3);
    (2..=HOSTS.len(), running, prop::collection::vec(50..130_u32, waiting)).prop_map(|(hosts, mut running, waiting)| {
        running.iter_mut().for_each(|(_, on)| *on %= hosts);
        Loss { hosts, running, waiting }
    })
}

impl Loss {
    fn stage(&self) -> Stage {
        let waiting = (0..self.waiting.len()).map(|row| format!("g{row:02}"));
        let names: Vec<String> = waiting.chain((0..self.running.len()).map(|row| format!("r{row}"))).collect();
        let guests: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut stage = Stage::new(&HOSTS[..self.hosts], &guests);
        change(&mut stage, |policies| {
            let running = self.running.iter().map(|(memory, _)| *memory);
            for (of, memory) in guests.iter().zip(self.waiting.iter().copied().chain(running)) {
                guest(policies, of).qemu.memory_mib = memory;
            }
        });
        for (row, (_, on)) in self.running.iter().enumerate() {
            stage.run(&format!("r{row}"), HOSTS[*on]);
        }
        stage
    }

    /// Where each goes if the largest come first, and each goes where the least memory is taken, then where the fewest guests
    /// are, then where the fewest starts come first: as if hosts had any number of starts at once.
    fn as_if_nobody_had_to_wait(&self) -> Vec<usize> {
        let mut taken: Vec<(u32, usize, usize)> = vec![(0, 0, 0); self.hosts];
        for (memory, on) in &self.running {
            taken[*on].0 += memory;
            taken[*on].1 += 1;
        }
        let mut rows: Vec<usize> = (0..self.waiting.len()).collect();
        rows.sort_by_key(|row| (std::cmp::Reverse(self.waiting[*row]), *row));
        let mut at = vec![0; self.waiting.len()];
        for row in rows {
            let turns = |starts: usize| starts / usize::try_from(STARTS_PER_HOST).unwrap();
            let least = |on: &usize| (taken[*on].0, taken[*on].1, turns(taken[*on].2), *on);
            let on = (0..self.hosts).min_by_key(least).unwrap();
            taken[on].0 += self.waiting[row];
            taken[on].1 += 1;
            taken[on].2 += 1;
            at[row] = on;
        }
        at
    }
}

/// The rows of hosts in words, whether guests start there at once or later.
fn rows(words: &[String]) -> Vec<Option<usize>> {
    words.iter().map(|word| HOSTS.iter().position(|on| word.split(' ').next() == Some(*on))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_few_patient_guests_end_where_they_would_if_nobody_had_to_wait(loss in loss(1..7)) {
        let expected: Vec<Option<usize>> = loss.as_if_nobody_had_to_wait().into_iter().map(Some).collect();
        prop_assert_eq!(rows(&words(&loss.stage(), true)), expected);
    }

    #[test]
    fn nobody_waits_for_more_turns_than_that_while_another_host_could_start_it_sooner(loss in loss(1..17)) {
        for (is_patient, turns) in [(true, TURNS_WAITED), (false, 0)] {
            let words = words(&loss.stage(), is_patient);
            let most = usize::try_from(STARTS_PER_HOST * (turns + 1)).unwrap();
            let starts: Vec<usize> = (0..loss.hosts)
                .map(|host| rows(&words).iter().filter(|row| **row == Some(host)).count())
                .collect();
            prop_assert_eq!(starts.iter().sum::<usize>(), loss.waiting.len());
            let is_over = starts.iter().any(|count| *count > most);
            prop_assert!(!is_over || starts.iter().all(|count| *count >= most), "{starts:?}");
        }
    }
}
