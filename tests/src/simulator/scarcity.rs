//! Worlds that are short of memory: not all guests find a place, priorities say which, and guests of best effort give way. And
//! capacities that are not hard: what is beyond them is liked less, and no guest waits for it.

use std::collections::BTreeMap;

use holdfast_policies::{
    names::{GuestName, HostName},
    rules::CapacitySettings,
    state::{Guest, Host, Life, Phase, Wanted},
};

use super::{
    random::Random,
    rules::SLOTS,
    setup::{Setup, declaration, guest},
    world::World,
};

/// The largest guest: whatever is short, it fits on an empty host.
const LARGEST_MIB: u64 = 1_536;

/// Has more guests than there is memory for, or little more. Rules about places would have to be kept besides, so that such worlds
/// stay as they are.
pub fn draw(setup: &mut Setup, random: &mut Random) {
    if !setup.policies.hosts.is_empty() {
        return;
    }
    let takers = setup.hosts.iter().filter(|host| host.guests).count() as u64;
    let count = setup.policies.guests.len() as u64;
    let label = || BTreeMap::from([("app".to_owned(), "web".to_owned())]);
    for number in count..takers.max(count) + random.between(1, 4) {
        let priority = 50 + 50 * u32::try_from(random.below(3)).unwrap_or(0);
        let memory = LARGEST_MIB - 256 * random.below(3);
        setup.policies.guests.insert(guest(number), declaration(label(), priority, memory));
    }
    for guest in setup.policies.guests.values_mut() {
        guest.needs.best_effort = random.one_in(2);
    }
    let wanted: u64 = setup.policies.guests.values().map(|guest| u64::from(guest.qemu.memory_mib)).sum();
    let share = wanted * random.between(80, 110) / 100 / takers.max(1);
    for host in &mut setup.hosts {
        host.memory_mib = share.max(LARGEST_MIB);
    }
}

/// Makes the capacity of worlds with rules soft, and small: every host has room for one guest, and gets more.
pub fn soften(setup: &mut Setup, random: &mut Random) {
    if setup.policies.hosts.is_empty() {
        return;
    }
    let settings = CapacitySettings { hard: false, weight: if random.one_in(2) { 100 } else { 0 } };
    setup.policies.cluster.capacities.insert(SLOTS.to_owned(), settings);
    for host in setup.policies.hosts.values_mut() {
        host.capacity.insert(SLOTS.to_owned(), 1);
    }
}

impl World {
    /// Whether a guest waits for room, and rightly: no host that takes guests has as much memory left, not even without the
    /// guests of best effort and of lower priority that run there.
    pub(super) fn waits_for_room(&self, name: &GuestName, guest: &Guest) -> bool {
        let waits = matches!(guest.phase, Phase::Free { .. }) && guest.wanted == Wanted::Running;
        if !waits || guest.given_up.is_some() || !guest.start_failures.is_empty() {
            return false;
        }
        let mut hosts = self.truth.state.hosts.iter().filter(|(_, host)| takes_guests(host));
        hosts.all(|(host, known)| self.memory_held(name, host) + self.memory_of(name) > known.facts.memory_mib)
    }

    /// The memory on a host that does not make room for a guest.
    fn memory_held(&self, name: &GuestName, host: &HostName) -> u64 {
        let state = &self.truth.state;
        let own = state.policies.guests.get(name).map_or(0, |declared| declared.priority);
        let stays = |other: &&GuestName| {
            let declared = state.policies.guests.get(*other);
            *other != name && !declared.is_some_and(|other| other.needs.best_effort && other.priority < own)
        };
        let there = state.guests_of(host).map(|(other, _)| other);
        there.filter(stays).map(|other| self.memory_of(other)).sum()
    }

    fn memory_of(&self, name: &GuestName) -> u64 {
        self.truth.state.policies.guests.get(name).map_or(0, |declared| u64::from(declared.qemu.memory_mib))
    }

    /// A guest that is to run was stopped. Where no rule says in which order guests stop, it gives way to another one.
    pub(super) fn note_stopped(&mut self, guest: &GuestName) {
        let state = &self.truth.state;
        let is_wanted = state.guests.get(guest).is_some_and(|known| known.wanted == Wanted::Running);
        self.seen.gave_way += u64::from(is_wanted && state.policies.rules.is_empty());
    }

    /// Counts what is met in worlds with little room, whenever one comes to rest.
    pub(super) fn note_rest(&mut self) {
        let state = &self.truth.state;
        let waiting = state.guests.iter().filter(|(name, guest)| self.waits_for_room(name, guest)).count();
        let is_beyond = |host: &&HostName| {
            let has = state.policies.hosts.get(*host).and_then(|declared| declared.capacity.get(SLOTS).copied());
            has.is_some_and(|has| state.guests_of(host).count() as u64 > has)
        };
        let is_hard = state.policies.cluster.is_hard(SLOTS);
        let beyond = if is_hard { 0 } else { state.hosts.keys().filter(is_beyond).count() };
        self.seen.waited_for_room += waiting as u64;
        self.seen.beyond_capacity += beyond as u64;
    }
}

/// Whether placement may choose a host, at rest: no operator stands in its way then, and one that was fenced often is looked at.
fn takes_guests(host: &Host) -> bool {
    host.life == Life::Up && host.facts.guests
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::Happening;

    /// Three hosts with room for one guest each, and three guests that run there: one of best effort, of low priority.
    fn full() -> World {
        let mut setup = Setup::plain(3, Setup::random(1, 3, 3, None).policies);
        let labels = || BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        setup.policies.guests = (0..3).map(|number| (guest(number), declaration(labels(), 100, LARGEST_MIB))).collect();
        let least = setup.policies.guests.get_mut(&guest(2)).unwrap();
        (least.priority, least.needs.best_effort) = (50, true);
        setup.hosts.iter_mut().for_each(|host| host.memory_mib = LARGEST_MIB);
        setup.policies.fencing =
            setup.hosts.iter().map(|host| (host.name.clone(), vec![crate::simulator::setup::device()])).collect();
        let mut world = World::new(&setup, Vec::new());
        world.run_until(60_000);
        assert!(world.is_at_rest(), "{:?} {}", world.violation(), world.why_not_at_rest());
        world
    }

    fn is_running(world: &World, number: u64) -> bool {
        matches!(world.state().guests[&guest(number)].phase, Phase::Running { .. })
    }

    #[test]
    fn a_guest_of_best_effort_gives_way_and_then_waits_at_rest() {
        let mut world = full();
        let home = |host: &usize| world.hosts[*host].machines.contains_key(&guest(0));
        let dead = (0..3).find(home).unwrap();
        world.happen(&Happening::PowerCut { host: dead, back: None });
        world.run_until(world.real() + 60_000);
        assert!(world.is_at_rest(), "{:?} {}", world.violation(), world.why_not_at_rest());
        assert!(is_running(&world, 0) && is_running(&world, 1) && !is_running(&world, 2));
        assert!(world.seen.waited_for_room > 0);
        // While there is room, nobody waits rightly.
        let waits = |world: &World| world.waits_for_room(&guest(2), &world.state().guests[&guest(2)]);
        assert!(waits(&world));
        let alive = world.hosts[(dead + 1) % 3].name.clone();
        world.truth.state.hosts.get_mut(&alive).unwrap().facts.memory_mib = 2 * LARGEST_MIB;
        assert!(!waits(&world), "there is room on {alive}");
        world.truth.state.hosts.get_mut(&alive).unwrap().facts.memory_mib = LARGEST_MIB;
        assert!(waits(&world));
        let other = world.truth.state.policies.guests.get_mut(&guest(1)).unwrap();
        (other.priority, other.needs.best_effort) = (10, true);
        assert!(!waits(&world), "another guest would make room");
    }
}
