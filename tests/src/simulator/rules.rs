//! What random worlds declare about places: labels, capacities, needs of guests, and rules between them. And whether what is
//! required of places holds where guests really run.
//!
//! Whatever is drawn can be kept by three hosts, for so many are up at least when the faults have stopped.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_policies::{
    names::{GuestName, HostName, RuleName},
    rules::{Guests, HostDeclaration, Hosts, Rule, Score},
    state::{ClusterState, Phase},
};

use super::{random::Random, setup::Setup};

/// The label that rules and failure domains go by; the three hosts that come back for certain are in two of them.
const RACK: &str = "rack";
/// What guests take one of, and a host has enough of for all guests of two hosts that are gone.
pub(super) const SLOTS: &str = "slots";

/// Draws what is declared beyond guests and their policy.
pub fn draw(setup: &mut Setup, random: &mut Random) {
    let hosts: Vec<HostName> = setup.hosts.iter().map(|host| host.name.clone()).collect();
    let guests: Vec<GuestName> = setup.policies.guests.keys().cloned().collect();
    for (row, host) in hosts.iter().enumerate() {
        let rack = if row % 2 == 0 { "a" } else { "b" };
        let labels = BTreeMap::from([(RACK.to_owned(), rack.to_owned())]);
        let capacity = BTreeMap::from([(SLOTS.to_owned(), guests.len().div_ceil(2) as u64 + 1)]);
        setup.policies.hosts.insert(host.clone(), HostDeclaration { labels, capacity });
    }
    for guest in setup.policies.guests.values_mut() {
        guest.needs.demand = BTreeMap::from([(SLOTS.to_owned(), 1)]);
        guest.needs.failback = random.one_in(4);
        guest.needs.live_migration = !random.one_in(4);
        guest.needs.stickiness = if random.one_in(2) { 1_000 } else { 0 };
    }
    setup.policies.cluster.failure_domain = random.one_in(2).then(|| RACK.to_owned());
    setup.policies.cluster.tolerate = u32::from(random.one_in(2));
    for rule in rules(random, &guests, &hosts) {
        let name = format!("rule-{}", setup.policies.rules.len());
        setup.policies.rules.extend(RuleName::new(name).map(|name| (name, rule)));
    }
}

/// Required rules are about guests of their own, so that no two of them contradict each other.
fn rules(random: &mut Random, guests: &[GuestName], hosts: &[HostName]) -> Vec<Rule> {
    let mut free = guests.to_vec();
    let alone = take(random, &mut free);
    let mut two = |random: &mut Random| {
        let pair: Vec<GuestName> = (0..2).filter_map(|_| take(random, &mut free)).collect();
        (pair.len() == 2).then_some(pair)
    };
    let mut rules = Vec::new();
    if let (Some(guest), true) = (alone, random.one_in(2)) {
        let score = if random.one_in(2) { Score::Never } else { Score::By(500) };
        let scores = BTreeMap::from([(hosts[random.index(hosts.len())].clone(), score)]);
        rules.push(Rule::Hosts { guests: Guests::Named(vec![guest]), hosts: Hosts::Named(scores), required: false });
    }
    if let Some(pair) = two(random).filter(|_| !random.one_in(3)) {
        let by = random.one_in(2).then(|| RACK.to_owned());
        rules.push(Rule::Apart {
            guests: Guests::Named(pair),
            required: !random.one_in(3),
            yields: None,
            weight: 100,
            by,
        });
    }
    if let Some(pair) = two(random).filter(|_| !random.one_in(3)) {
        rules.push(Rule::Together {
            guests: Guests::Named(pair),
            required: random.one_in(2),
            yields: None,
            weight: 100,
        });
    }
    if let Some(pair) = two(random).filter(|_| random.one_in(2))
        && let [first, then] = &pair[..]
    {
        let (first, then, required) = (first.clone(), then.clone(), random.one_in(2));
        rules.push(Rule::Order { first, then, required, symmetrical: random.one_in(2) });
    }
    rules
}

fn take(random: &mut Random, free: &mut Vec<GuestName>) -> Option<GuestName> {
    (!free.is_empty()).then(|| free.remove(random.index(free.len())))
}

/// A required rule that does not hold for guests that run, in words. By names and labels alone, apart from the product's own
/// reading of rules.
pub fn broken(state: &ClusterState) -> Option<String> {
    let home = |guest: &GuestName| match &state.guests.get(guest)?.phase {
        Phase::Running { tenure, .. } => Some(&tenure.host),
        _ => None,
    };
    let rack = |host: &HostName| state.policies.hosts.get(host)?.labels.get(RACK);
    state.policies.rules.iter().find_map(|(name, rule)| {
        let bad = match rule {
            Rule::Apart { guests: Guests::Named(pair), required: true, by, .. } => {
                let places: Vec<&str> = pair
                    .iter()
                    .filter_map(home)
                    .filter_map(|host| if by.is_some() { rack(host).map(String::as_str) } else { Some(host.as_str()) })
                    .collect();
                places.iter().collect::<BTreeSet<_>>().len() < places.len()
            }
            Rule::Together { guests: Guests::Named(pair), required: true, .. } => {
                pair.iter().filter_map(home).collect::<BTreeSet<_>>().len() > 1
            }
            Rule::Hosts { guests: Guests::Named(guests), hosts: Hosts::Named(scores), .. } => {
                guests.iter().filter_map(home).any(|host| scores.get(host) == Some(&Score::Never))
            }
            _ => false,
        };
        bad.then(|| format!("{name} does not hold: {rule:?}"))
    })
}

#[cfg(test)]
mod tests {
    use holdfast_policies::{
        names::{Epoch, Incarnation},
        state::{Guest, Tenure},
    };

    use super::*;
    use crate::simulator::report::Options;

    /// The state of a seed's world in which every guest runs on the host that `place` says.
    fn running(seed: u64, place: impl Fn(usize) -> usize) -> ClusterState {
        let (setup, _) = Options::default().of(seed);
        let mut state = ClusterState { policies: setup.policies, ..ClusterState::born() };
        for (row, name) in state.policies.guests.keys().enumerate() {
            let host = setup.hosts[place(row) % setup.hosts.len()].name.clone();
            let incarnation = Incarnation::new("boot-1").unwrap();
            let tenure = Tenure { host, incarnation, epoch: Epoch::default() };
            let phase = Phase::Running { tenure, since: 1, verified: true, action: None };
            state.guests.insert(name.clone(), Guest { phase, ..Guest::declared(0) });
        }
        state
    }

    #[test]
    fn rules_of_every_kind_are_drawn_and_each_that_is_required_is_missed_where_it_does_not_hold() {
        let (mut apart, mut together, mut never) = (0, 0, 0);
        for seed in 1..400 {
            let crowded = broken(&running(seed, |_| 0)).unwrap_or_default();
            let spread = broken(&running(seed, |row| row)).unwrap_or_default();
            apart += usize::from(crowded.contains("Apart"));
            together += usize::from(spread.contains("Together"));
            never += usize::from(crowded.contains("Never") || spread.contains("Never"));
        }
        assert!(apart > 20 && together > 20 && never > 5, "apart {apart}, together {together}, never {never}");
    }
}
