//! What is lost beside the stores of a majority, each in a world that is driven by hand.

use std::collections::BTreeMap;

use holdfast_policies::{names::GuestName, state::Life};

use super::*;
use crate::simulator::{guest::Vm, report::Options, setup::device};

const HOSTS: usize = 5;
/// Has no vote.
const MEMBER: usize = 4;
/// Within which something is done that is waited for.
const PATIENCE: Ms = 40_000;

fn world() -> World {
    let setup = Setup::random(1, HOSTS, HOSTS, None);
    let mut policies = setup.policies;
    policies.fencing = setup.hosts.into_iter().map(|host| (host.name, vec![device()])).collect();
    World::at_rest(&Setup::plain(HOSTS, policies))
}

fn lose(world: &mut World, survivor: usize, loss: Loss) {
    let before = world.seen.generations;
    world.happen(&Happening::MajorityLost { survivor, back: 2_000, loss });
    assert_eq!((world.violation(), world.seen.generations), (None, before + 1));
}

fn go_on(world: &mut World, time: Ms) {
    world.run_until(world.real() + time);
    assert_eq!(world.violation(), None);
}

fn wait_for(world: &mut World, is_so: impl Fn(&World) -> bool) {
    let limit = world.real() + PATIENCE;
    while !is_so(world) {
        assert!(world.real() < limit, "{}", world.why_not_at_rest());
        go_on(world, 50);
    }
}

/// Where each guest runs, and since when; each runs once.
fn homes(world: &World) -> BTreeMap<GuestName, (usize, Ms)> {
    let home = |guest: &GuestName| {
        let since = |host: &Host| {
            let machine = host.machines.get(guest)?;
            (machine.state == Vm::Running).then_some(machine.since)
        };
        let found = world.hosts.iter().enumerate().filter_map(|(index, host)| Some((index, since(host)?)));
        let found: Vec<(usize, Ms)> = found.collect();
        assert_eq!(found.len(), 1, "{guest}: {found:?}");
        found[0]
    };
    world.state().guests.keys().map(|guest| (guest.clone(), home(guest))).collect()
}

fn comes_to_rest(world: &mut World) {
    world.heal_by_hand();
    assert_eq!((world.violation(), world.unhealed()), (None, None));
    homes(world);
}

/// A voter that does not coordinate.
fn follower(world: &World) -> usize {
    (0..world.voters.len()).find(|voter| world.coordinator() != Some(*voter)).unwrap()
}

#[test]
fn guests_of_hosts_whose_agents_have_lost_their_memories_with_the_stores_run_on_where_they_are() {
    let mut world = world();
    let before = homes(&world);
    lose(&mut world, 0, Loss { memories: BTreeSet::from([1, 2]), ..Loss::default() });
    assert_eq!(world.seen.memories_lost, 2);
    assert!(world.hosts[1].floors_lost && world.hosts[2].floors_lost && !world.hosts[0].floors_lost);
    comes_to_rest(&mut world);
    assert!(world.hosts.iter().all(|host| !host.floors_lost));
    assert_eq!(homes(&world), before);
}

#[test]
fn a_cluster_that_is_lost_once_more_goes_on_from_its_newest_store_and_from_any_old_one() {
    for (survivor, from) in [(0, Store::Newest), (0, Store::Older), (1, Store::Newest), (1, Store::Older)] {
        let mut world = world();
        lose(&mut world, 0, Loss::default());
        go_on(&mut world, 15_000);
        let memories = (0..3).filter(|voter| *voter != survivor).collect();
        lose(&mut world, survivor, Loss { memories, from, chance: 1 });
        assert_eq!((world.state().generation, world.seen.lost_again), (4, 1), "{survivor}, {from:?}");
        assert_eq!(world.seen.older_stores, u64::from(from == Store::Older));
        comes_to_rest(&mut world);
    }
}

/// Whoever has the old store was cut off, and has heard nothing of the generation between.
#[test]
fn a_cluster_that_was_recovered_below_what_hosts_have_seen_halts_and_is_recovered_once_more() {
    let mut world = world();
    world.happen(&Happening::Cut { host: 1, time: PATIENCE });
    lose(&mut world, 0, Loss { chance: 800, ..Loss::default() });
    go_on(&mut world, 12_000);
    assert_eq!((world.known_generation(1), world.known_generation(3)), (1, 802));
    lose(&mut world, 1, Loss { from: Store::Older, chance: 3, ..Loss::default() });
    assert_eq!(world.state().generation, 5);
    comes_to_rest(&mut world);
    assert!(world.state().generation > 802);
    assert_eq!((world.seen.done_once_more, world.seen.generations), (1, 3));
}

#[test]
fn a_host_that_was_revoked_in_the_lost_history_is_taken_for_what_it_was() {
    let mut world = world();
    let name = world.hosts[MEMBER].name.clone();
    world.happen(&Happening::PowerCut { host: MEMBER, back: None });
    wait_for(&mut world, |world| matches!(world.state().hosts[&name].life, Life::Gone { .. }));
    let survivor = follower(&world);
    world.happen(&Happening::Cut { host: survivor, time: PATIENCE });
    world.happen(&Happening::Revoked { host: MEMBER });
    wait_for(&mut world, |world| world.seen.revoked == 1);
    lose(&mut world, survivor, Loss::default());
    assert_eq!((world.state().revoked.len(), world.seen.revocations_lost), (0, 1));
    comes_to_rest(&mut world);
}

#[test]
fn a_name_that_was_given_to_a_new_machine_in_the_lost_history_is_settled_once_more() {
    let mut world = world();
    let name = world.hosts[MEMBER].name.clone();
    let survivor = follower(&world);
    world.happen(&Happening::Cut { host: survivor, time: PATIENCE });
    world.happen(&Happening::NewMachine { host: MEMBER, back: 3_000 });
    let (id, boot) = (world.hosts[MEMBER].facts.machine_id.clone(), world.hosts[MEMBER].incarnation(2));
    wait_for(&mut world, |world| {
        let known = &world.state().hosts[&name].facts;
        known.machine_id == id && known.incarnation == boot
    });
    lose(&mut world, survivor, Loss::default());
    assert_ne!(world.state().hosts[&name].facts.machine_id, id);
    assert_eq!(world.seen.machines_lost, 1);
    world.power_on_after(MEMBER, 1_000);
    comes_to_rest(&mut world);
    assert_eq!(world.state().hosts[&name].facts.machine_id, id);
}

#[test]
fn a_majority_is_lost_twice_at_most_and_no_survivor_without_its_agents_memory() {
    let plans = (1..400).map(|seed| Options::default().of(seed));
    let mut lost = 0;
    for (setup, plan) in plans {
        let losses = plan.iter().filter_map(|(_, what)| match what {
            Happening::MajorityLost { survivor, loss, .. } => Some((*survivor, loss)),
            _ => None,
        });
        let losses: Vec<(usize, &Loss)> = losses.collect();
        lost += losses.len();
        assert!(losses.len() <= 2, "seed {}: {losses:?}", setup.seed);
        let is_whole =
            |(survivor, loss): &(usize, &Loss)| *survivor < setup.voters && !loss.memories.contains(survivor);
        assert!(losses.iter().all(is_whole), "seed {}: {losses:?}", setup.seed);
        let healed = plan.iter().rposition(|(_, what)| matches!(what, Happening::Heal));
        let newest = plan.iter().rposition(|(_, what)| matches!(what, Happening::MajorityLost { .. }));
        assert!(newest.is_none() || newest < healed, "seed {}: nothing is mended in the end", setup.seed);
    }
    assert!(lost > 20, "a majority is lost {lost} times");
}
