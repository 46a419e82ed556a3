//! The world: everything that is really so, from its birth on; `world/run.rs` has one event after the other happen in it.
//!
//! Time jumps from event to event. Where the whole cluster is at rest, it is in a cycle that only repeats itself: then
//! whole stretches of time are left out ([`World::skipped`]) until the plan has something happen.

mod run;

use std::collections::{BTreeMap, BTreeSet};

use holdfast_policies::{
    hostfile::Timing,
    names::{GuestName, HostName, OrderId},
    state::ClusterState,
    sync::Authority,
    time::WallTime,
};

use super::{
    Ms,
    beacons::BEACON,
    breaks::Break,
    checks::{Truth, Violation},
    chores::Twin,
    faults::{Happening, Moment, Plan},
    guest::{Machine, Vm},
    host::Host,
    network::Network,
    queue::{Event, Queue},
    random::Random,
    seen::Seen,
    setup::Setup,
    story::Story,
    voter::Voter,
};

/// Rest that is long enough to leave time out.
pub(super) const RESTED: Ms = 1_200;
/// How often the checks that are about stretches of time are made.
pub(super) const LOOK: Ms = 1_000;
/// Worlds in which one thing fails at a time are at rest again within this; after many faults at once each world has a limit of its
/// own ([`super::heal_bound`]).
pub const BOUND: Ms = 180_000;

/// The faults have stopped, and everything is to come to rest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Healing {
    /// Since when.
    pub since: Ms,
    /// Within which time.
    pub limit: Ms,
}

/// A simulated cluster.
pub struct World {
    pub(super) now: Ms,
    pub(super) skipped: Ms,
    pub(super) random: Random,
    pub(super) chance: bool,
    pub(super) timing: Timing,
    pub(super) queue: Queue,
    pub(super) network: Network,
    /// The hosts, in the order of the setup.
    pub hosts: Vec<Host>,
    /// The voters; voter `i` is on host `i`.
    pub voters: Vec<Voter>,
    /// What is really committed.
    pub truth: Truth,
    /// The story, when it is told.
    pub story: Story,
    pub(super) violation: Option<Violation>,
    pub(super) broken: Option<Break>,
    pub(super) indices: BTreeMap<HostName, usize>,
    pub(super) entry_ids: u64,
    pub(super) sick: BTreeMap<GuestName, Ms>,
    pub(super) slow_devices: BTreeSet<HostName>,
    pub(super) hangs_at_boot: BTreeSet<usize>,
    pub(super) restarted: BTreeMap<OrderId, u32>,
    pub(super) armed: Vec<(Moment, Happening)>,
    pub(super) sprung: Vec<Happening>,
    pub(super) authorities: Vec<Authority>,
    pub(super) joined: Vec<Option<(u32, u32)>>,
    pub(super) served: Vec<Ms>,
    /// Since when each host has been served without a gap that would have cost it its fence.
    pub(super) served_since: Vec<Ms>,
    pub(super) reaching: Vec<Ms>,
    pub(super) led_since: Ms,
    pub(super) rest_since: Option<Ms>,
    pub(super) healing: Option<Healing>,
    /// Rounds of deciding so far.
    pub decisions: u64,
    /// Events so far.
    pub events: u64,
    /// Hosts have guards and watchdogs that matter.
    pub(super) guarded: bool,
    pub(super) to_declare: Option<holdfast_policies::model::Policies>,
    /// A snapshot is taken after so many entries.
    pub(super) compacts_every: Option<usize>,
    /// A second machine under a name: the last of `hosts`, and none of the `named`.
    pub(super) twin: Option<Twin>,
    /// How many of `hosts` have names of their own.
    pub(super) named: usize,
    /// What happens from here on is beyond what is promised.
    pub(super) beyond: bool,
    /// Voters find out how much their own links lose.
    pub(super) lossy_links: bool,
    /// Some hosts begin with an older version.
    pub(super) upgrades: bool,
    /// Some power device of this world says what is not so.
    pub(super) lies_drawn: bool,
    /// Lies of which something is still to be seen.
    pub(super) lies: Vec<super::lies::Lie>,
    /// Fences that count towards the budgets of the hour.
    pub(super) begun: super::budgets::Begun,
    /// Orders that their agents are to know soon (R5).
    pub(super) untold: BTreeMap<OrderId, super::nudges::Untold>,
    /// What has really spoken against guests (S5).
    pub(super) grounds: super::grounds::Grounds,
    /// What the view was at each of its versions.
    pub(super) versions: super::views::Versions,
    /// What hosts have read of it.
    pub(super) declared: super::views::Read,
    /// Views are as large as those of thousands of guests.
    pub(super) large_views: Option<super::views::Large>,
    /// Vantages tell when they got their last answer.
    pub(super) passes_remembered: bool,
    /// What they have really got, where they do.
    pub(super) answers: super::held_checks::Answers,
    /// What keeps guests from answering that is no matter of theirs.
    pub(super) causes: super::service_storms::Causes,
    /// Disks that take long, or fail.
    pub(super) disks: Option<super::disks::Disks>,
    /// Who has a vote, by the committed membership.
    pub(super) members: BTreeSet<usize>,
    /// The logs so far; what voters of an earlier one have said counts for nothing (R23, R25).
    pub(super) era: u32,
    /// The number of the entry before the first place of all logs.
    pub(super) base: u64,
    /// When a new generation was made, if one was (R25).
    pub(super) recovered: Option<Ms>,
    /// What the voters' stores amounted to when a majority was lost the first time.
    pub(super) old_stores: BTreeMap<usize, super::recoveries::Remains>,
    /// The newest order that was given before, or could have been.
    pub(super) lost_orders: u64,
    /// What has really happened, so that a test can tell whether it is met at all.
    pub seen: Seen,
    plan: Plan,
    planned: usize,
    looked: Ms,
    unhealed: Option<String>,
}

impl World {
    /// A world at birth: every host is on, every supervisor is about to start, and nothing is declared yet.
    #[must_use]
    pub fn new(setup: &Setup, plan: Plan) -> Self {
        let mut random = Random::new(setup.seed, 3);
        let count = setup.hosts.len() + usize::from(setup.twin.is_some());
        let mut hosts: Vec<Host> = Vec::new();
        for (index, host) in setup.hosts.iter().enumerate() {
            let drawn = if setup.chance { random.between(990, 1_011) } else { 1_000 };
            let drift = setup.drifts.get(index).copied().unwrap_or(drawn);
            hosts.push(Host::new(index, host, count, drift, setup.broken));
        }
        let indices = hosts.iter().enumerate().map(|(index, host)| (host.name.clone(), index)).collect();
        hosts.extend(setup.twin.and_then(|twin| {
            let of = setup.hosts.get(twin.of)?;
            Some(super::chores::twin(count - 1, of, twin, count, 1_000, setup.broken))
        }));
        let mut world = Self {
            now: 0,
            skipped: 0,
            random,
            chance: setup.chance,
            timing: setup.timing,
            queue: Queue::default(),
            network: Network::new(count),
            voters: (0..setup.voters).map(Voter::new).collect(),
            truth: Truth { state: ClusterState::born(), shut_since: vec![None; count], ..Truth::default() },
            story: Story::default(),
            violation: None,
            broken: setup.broken,
            indices,
            entry_ids: 0,
            sick: BTreeMap::new(),
            slow_devices: BTreeSet::new(),
            hangs_at_boot: BTreeSet::new(),
            restarted: BTreeMap::new(),
            armed: Vec::new(),
            sprung: Vec::new(),
            authorities: vec![Authority::default(); count],
            joined: vec![None; count],
            served: vec![0; count],
            served_since: vec![0; count],
            reaching: vec![0; count],
            led_since: 0,
            rest_since: None,
            healing: None,
            decisions: 0,
            events: 0,
            guarded: setup.guarded,
            to_declare: None,
            compacts_every: setup.compacts_every,
            twin: setup.twin,
            named: setup.hosts.len(),
            seen: Seen { witnesses: setup.hosts.iter().filter(|host| !host.guests).count() as u64, ..Seen::default() },
            beyond: false,
            lossy_links: setup.lossy_links,
            upgrades: false,
            lies_drawn: false,
            lies: Vec::new(),
            begun: super::budgets::Begun::default(),
            untold: BTreeMap::new(),
            grounds: super::grounds::Grounds::default(),
            members: (0..setup.voters).collect(),
            era: 0,
            base: 0,
            recovered: None,
            old_stores: BTreeMap::new(),
            lost_orders: 0,
            versions: super::views::Versions::default(),
            declared: super::views::Read::default(),
            passes_remembered: setup.passes_remembered,
            answers: super::held_checks::Answers::default(),
            causes: super::service_storms::Causes::default(),
            disks: setup.bad_disks.then(|| super::disks::Disks::new(setup.seed)),
            large_views: setup.large_views.then(|| super::views::Large::new(setup.seed)),
            plan,
            planned: 0,
            looked: 0,
            unhealed: None,
            hosts,
        };
        for (guest, on) in &setup.running {
            let machine = Machine { epoch: Default::default(), state: Vm::Running, since: 0, ill: false };
            world.hosts[*on].machines.insert(guest.clone(), machine);
        }
        for host in 0..setup.hosts.len() {
            world.queue.push(0, Event::SupervisorUp { host, boot: 1, life: 0 });
            let phase = world.random.below(BEACON);
            world.queue.push(phase, Event::Beacon { host, boot: 1 });
            if setup.guarded {
                world.queue.push(phase, Event::Guard { host, boot: 1 });
            }
        }
        world.begin_with_older_versions(setup);
        world.declare(setup.policies.clone());
        world
    }

    /// A world after its birth: all that is declared runs, nothing is under way, and nothing is planned.
    ///
    /// # Panics
    /// When it has not come to rest.
    #[must_use]
    pub fn at_rest(setup: &Setup) -> Self {
        let mut world = Self::new(setup, Vec::new());
        world.run_until(30_000);
        assert!(world.is_at_rest(), "{:?}: {}", world.violation(), world.why_not_at_rest());
        world
    }

    /// Ends the faults of a world that is driven by hand, and has it heal.
    ///
    /// # Panics
    /// When that takes longer than it may.
    #[cfg(test)]
    pub(super) fn heal_by_hand(&mut self) {
        self.happen(&Happening::Heal);
        let limit = self.real() + self.heal_limit().unwrap() + 5_000;
        while self.heal_limit().is_some() && !self.is_over() {
            assert!(self.real() < limit, "{}", self.why_not_at_rest());
            self.run_until(self.real() + 1_000);
        }
    }

    /// Has an operator declare policies; tried until a coordinator takes it.
    pub fn declare(&mut self, policies: holdfast_policies::model::Policies) {
        self.to_declare = Some(policies);
    }

    /// Simulated time since birth.
    #[must_use]
    pub fn real(&self) -> Ms {
        self.skipped + self.now
    }

    /// The state that is committed.
    #[must_use]
    pub fn state(&self) -> &ClusterState {
        &self.truth.state
    }

    /// The first promise that was broken.
    #[must_use]
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Within which time after the faults have stopped everything has to be at rest; `None` once it is, and while there are faults.
    #[must_use]
    pub fn heal_limit(&self) -> Option<Ms> {
        self.healing.map(|healing| healing.limit)
    }

    /// How long after the faults had stopped the limit of this world passed, and what was not at rest then (L1).
    #[must_use]
    pub fn unhealed(&self) -> Option<&str> {
        self.unhealed.as_deref()
    }

    /// Whether there is nothing more to be learned from this run.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.violation.is_some() || self.unhealed.is_some() || self.beyond
    }

    /// Whether the cluster has been at rest for a while: every guest that there is room for answers where it is committed to be,
    /// and nothing is under way.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.rest_since.is_some_and(|since| self.now - since >= RESTED)
    }

    /// Whether faults may be made by chance.
    pub(super) fn faulty(&self) -> bool {
        self.chance && self.healing.is_none() && self.planned > 0
    }

    /// The wall clock of the world, for people.
    #[must_use]
    pub fn wall(&self) -> WallTime {
        WallTime(self.real())
    }
}
