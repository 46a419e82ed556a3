//! Disks that agents' memories are on, and that take seconds or fail: what needs the memory written waits, by the product's own
//! [`Writing`], and nothing else does, the lease above all. In a third of the worlds; in the others a write takes some milliseconds,
//! and everything that follows waits for it.

use std::time::Duration;

use holdfast::agent::writing::Writing;
use holdfast_policies::{
    agent::{Action, Disk},
    names::OrderId,
    order::Order,
    sync::Authority,
};
use tokio::time::Instant;

use super::{Ms, host::Job, queue::Event, random::Random, world::World};

/// The stream of chance of how long each write takes.
const DISKS: u64 = 27;

/// What becomes of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// It is on disk.
    Written,
    /// It failed, and nothing is on disk.
    Failed,
    /// It is on disk, and whoever wrote it was told that it failed.
    FailedAfterwards,
}

/// The disks of a world in which they are not good.
pub struct Disks {
    random: Random,
    birth: Instant,
}

impl Disks {
    /// Its own chance: all other streams of the seed stay what they are.
    pub(super) fn new(seed: u64) -> Self {
        Self { random: Random::new(seed, DISKS), birth: Instant::now() }
    }

    /// A moment as the product's shell counts.
    fn at(&self, now: Ms) -> Instant {
        self.birth + Duration::from_millis(now)
    }

    /// How long a write takes, and what becomes of it.
    fn write(&mut self, faulty: bool) -> (Ms, Ends) {
        let random = &mut self.random;
        let drawn = if faulty { random.below(40) } else { u64::MAX };
        match drawn {
            // So long that the host falls silent.
            0 => (random.between(20_500, 26_000), Ends::Written),
            // So long that it says so.
            1 | 2 => (random.between(5_000, 9_000), Ends::Written),
            3..=8 => (random.between(100, 2_000), Ends::Written),
            9..=11 => (random.between(1, 500), Ends::Failed),
            12 => (random.between(1, 500), Ends::FailedAfterwards),
            _ => (random.between(1, 8), Ends::Written),
        }
    }
}

/// What waits for the disk of one supervisor.
#[derive(Debug, Default)]
pub struct Memory {
    writing: Writing<Order>,
    /// The newest write has failed, or takes long: it says that it is not well.
    complains: bool,
    /// What the coordinator is told that this host knows, where that is not all. Of what waits for the disk it is not told: it
    /// counts on it.
    told: Option<(Authority, bool)>,
    /// The same once the write under way is on disk.
    in_writing: Option<(Authority, bool)>,
}

impl World {
    /// The newest authority that a host tells that it has seen, and whether it knows its floors.
    pub(super) fn told(&self, host: usize) -> Option<(Authority, bool)> {
        let supervisor = self.hosts[host].supervisor.as_ref()?;
        let disk = supervisor.agent.disk();
        Some(supervisor.memory.told.unwrap_or((disk.authority, disk.floors_known)))
    }

    /// Does what needs nothing on disk, and has the memory written that the rest needs.
    pub(super) fn act_beside_the_disk(&mut self, host: usize) {
        while let Some(action) = self.hosts[host].supervisor.as_mut().and_then(|known| known.actions.pop_front()) {
            let needs = self.do_at_once(host, action);
            let Some(supervisor) = &mut self.hosts[host].supervisor else { return };
            match needs {
                // The memory as it is when the write begins: that holds at least this.
                Some(Action::Persist(_)) => supervisor.memory.writing.want(),
                Some(Action::Carry(order)) => supervisor.memory.writing.then(*order),
                Some(_) | None => {}
            }
        }
        self.write_on(host);
    }

    /// Begins the next write, if one is to begin.
    fn write_on(&mut self, host: usize) {
        let (now, life, faulty) = (self.now, self.hosts[host].life, self.faulty());
        let (Some(disks), Some(supervisor)) = (&mut self.disks, &mut self.hosts[host].supervisor) else { return };
        let memory = &mut supervisor.memory;
        if memory.writing.is_idle() {
            let disk = supervisor.agent.disk();
            memory.told = Some((disk.authority, disk.floors_known));
        }
        if !memory.writing.begin(disks.at(now)) {
            return;
        }
        let (takes, ends) = disks.write(faulty);
        self.seen.bad_writes += u64::from(ends != Ends::Written);
        let disk = Box::new(supervisor.agent.disk().clone());
        memory.in_writing = Some((disk.authority, disk.floors_known));
        self.queue.push(now + takes, Event::Kept { host, life, disk, ends });
    }

    /// A write has come to its end.
    pub(super) fn kept(&mut self, host: usize, disk: Disk, ends: Ends) {
        if ends != Ends::Failed {
            self.hosts[host].disk = disk;
        }
        let Some(supervisor) = &mut self.hosts[host].supervisor else { return };
        let memory = &mut supervisor.memory;
        memory.complains = ends != Ends::Written;
        if ends != Ends::Written {
            let undone: Vec<OrderId> = memory.writing.fail().iter().map(|order| order.id).collect();
            supervisor.agent.unwritten(&undone);
            // Nothing waits any more: it is considered again.
            let disk = supervisor.agent.disk();
            memory.told = Some((disk.authority, disk.floors_known));
            return;
        }
        memory.told = memory.in_writing;
        for order in memory.writing.end() {
            self.carry(host, order);
        }
        self.write_on(host);
    }

    /// An order is carried out from here on; it may fail.
    pub(super) fn carry(&mut self, host: usize, order: Order) {
        let fails = self.faulty() && self.random.one_in(14);
        let Some(supervisor) = &mut self.hosts[host].supervisor else { return };
        supervisor.jobs.push(Job { order, begun: None, fails, shot: false });
        self.begin_jobs(host);
    }

    /// Whether a write takes so long that the host does not sync any more.
    pub(super) fn disk_is_stuck(&self, host: usize) -> bool {
        let (Some(disks), Some(supervisor)) = (&self.disks, &self.hosts[host].supervisor) else { return false };
        supervisor.memory.writing.is_stuck(disks.at(self.now))
    }

    /// What a host says of its disk, if that keeps it from carrying anything out.
    pub(super) fn complaint(&self, host: usize) -> Option<String> {
        let (Some(disks), Some(supervisor)) = (&self.disks, &self.hosts[host].supervisor) else { return None };
        let memory = &supervisor.memory;
        let complains = memory.complains || memory.writing.is_late(disks.at(self.now));
        complains.then(|| "it carries no orders out".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use holdfast_policies::state::Wanted;

    use super::*;
    use crate::simulator::{Happening, Setup};

    #[test]
    fn a_lease_waits_for_no_disk_and_an_order_does_and_a_host_whose_disk_is_stuck_falls_silent() {
        let policies = Setup::random(1, 4, 4, None).policies;
        let mut world = World::new(&Setup { bad_disks: true, ..Setup::plain(4, policies) }, Vec::new());
        world.run_until(60_000);
        assert!(world.is_at_rest(), "{:?}: {}", world.violation(), world.why_not_at_rest());
        let host = (0..4).find(|host| !world.hosts[*host].machines.is_empty()).unwrap();
        let supervisor = world.hosts[host].supervisor.as_mut().unwrap();
        supervisor.memory.writing.want();
        let birth = world.disks.as_ref().unwrap().birth;
        let began = birth + Duration::from_millis(world.now);
        assert!(world.hosts[host].supervisor.as_mut().unwrap().memory.writing.begin(began), "nothing else is written");
        // That write never ends: the host syncs on for as long as it may, says so, and then falls silent.
        let guest = world.hosts[host].machines.keys().next().unwrap().clone();
        world.happen(&Happening::GuestExits { guest: guest.clone() });
        world.run_until(world.real() + 4_000);
        assert!(world.hosts[host].lease_until > world.now, "the lease waits for no disk");
        assert_eq!(world.complaint(host), None);
        assert!(world.hosts[host].supervisor.as_ref().unwrap().jobs.is_empty(), "nothing is carried out before");
        world.run_until(world.real() + 4_000);
        assert!(world.complaint(host).is_some() && !world.disk_is_stuck(host));
        assert!(world.hosts[host].lease_until > world.now);
        let limit = world.real() + 15_000;
        while !world.disk_is_stuck(host) {
            assert!(world.real() < limit, "it is not stuck");
            world.run_until(world.real() + 100);
        }
        world.run_until(world.real() + 6_000);
        assert!(world.hosts[host].lease_until < world.now, "others may act for it");
        assert_eq!(world.violation(), None);
    }

    #[test]
    fn a_host_whose_disk_is_written_without_a_pause_tells_all_that_is_on_it() {
        let policies = Setup::random(1, 4, 4, None).policies;
        let mut world = World::new(&Setup { bad_disks: true, ..Setup::plain(4, policies) }, Vec::new());
        world.run_until(60_000);
        assert!(world.is_at_rest(), "{:?}: {}", world.violation(), world.why_not_at_rest());
        let (before, guest) = (world.told(3).unwrap().0.index, world.state().guests.keys().next().unwrap().clone());
        world.happen(&Happening::WantedIs { guest, wanted: Wanted::Unmanaged });
        let mut limit = world.real() + 5_000;
        let mut knows = false;
        while world.told(3).unwrap().0.index == before {
            assert!(world.real() < limit, "knows of it: {knows}");
            let agent = &world.hosts[3].supervisor.as_ref().unwrap().agent;
            if !knows && agent.disk().authority.index > before {
                // The write under way ends, and the one that holds it.
                (knows, limit) = (true, world.real() + 16);
            }
            let want = |world: &mut World| world.hosts[3].supervisor.as_mut().unwrap().memory.writing.want();
            want(&mut world);
            world.write_on(3);
            // Also the one that has just begun is followed by another.
            want(&mut world);
            world.run_until(world.real() + 1);
        }
    }
}
