//! What operators do besides, and what becomes of a name that two machines use: drills, hosts that announce to go, a second
//! machine under a host's name, logs that are compacted. Drawn apart from the other faults, in half of the worlds.

use holdfast_policies::{
    change::Change,
    decide::drill,
    names::{HostName, Incarnation, OrderId},
    order::{OrderKind, Switch},
    state::Mode,
};

use super::{
    Ms,
    breaks::Break,
    faults::{Happening, Plan, heals},
    host::{Host, boot_of},
    queue::Event,
    random::Random,
    setup::{HostSetup, Setup},
    world::World,
};

/// Boots of a second machine under a name are counted from here, so that they are told apart from those of the first.
pub const TWIN_BOOTS: u32 = 1_000;

/// A second machine that comes under the name of a host (R11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Twin {
    /// Whose name it has.
    pub of: usize,
    /// It is a copy with the same machine id, on the same power. Without, it is another machine on power of its own.
    pub is_copy: bool,
}

/// Gives a world what this file is about, and adds to its plan.
pub fn draw(setup: &mut Setup, random: &mut Random, mut plan: Plan) -> Plan {
    let count = setup.hosts.len();
    setup.compacts_every = random.one_in(2).then(|| 10 + random.index(120));
    setup.twin = random.one_in(3).then(|| Twin { of: random.index(count), is_copy: random.one_in(2) });
    let bursts = heals(&plan);
    for healed in bursts {
        for _ in 0..random.between(1, 4) {
            let at = healed.saturating_sub(random.between(2_000, 25_000)).max(20_000);
            chore(random, setup, at, &mut plan);
        }
    }
    plan.sort_by_key(|(at, _)| *at);
    plan
}

fn chore(random: &mut Random, setup: &Setup, at: Ms, plan: &mut Plan) {
    let host = random.index(setup.hosts.len());
    match random.below(4) {
        0 | 1 => plan.push((at, Happening::Drill { host })),
        2 => {
            let reboot = random.one_in(2);
            plan.push((at, Happening::ModeIs { host, mode: Mode::Leaving { reboot } }));
            let back = Some(random.between(1_000, 20_000));
            plan.push((at + random.between(200, 9_000), Happening::PowerCut { host, back }));
        }
        _ if setup.twin.is_some() => plan.push((at, Happening::TwinComes { time: random.between(1_000, 30_000) })),
        _ => {}
    }
}

/// The second machine, which is off at first.
pub(super) fn twin(index: usize, of: &HostSetup, twin: Twin, count: usize, drift: u64, broken: Option<Break>) -> Host {
    let mut host = Host::new(index, of, count, drift, broken);
    (host.boot, host.on) = (TWIN_BOOTS, false);
    if !twin.is_copy {
        host.is_machine("the other machine");
    }
    host
}

impl World {
    /// The machine that a boot of this name is, or was, of.
    pub(super) fn machine_of(&self, name: &HostName, incarnation: &Incarnation) -> Option<usize> {
        match self.twin {
            Some(_) if boot_of(incarnation) >= TWIN_BOOTS => Some(self.named),
            Some(_) | None => self.host_index(name),
        }
    }

    /// By which host's name a machine speaks.
    pub(super) fn speaks_as(&self, machine: usize) -> usize {
        self.twin.filter(|_| machine >= self.named).map_or(machine, |twin| twin.of)
    }

    pub(super) fn twin_comes(&mut self, time: Ms) {
        let Some(twin) = self.twin else { return };
        let here = &self.hosts[twin.of];
        // A copy runs beside what it is a copy of.
        if self.hosts[self.named].on || (twin.is_copy && (!here.on || here.hung)) {
            return;
        }
        self.seen.twins += 1;
        self.power_on(self.named, self.hosts[self.named].boot);
        let what = Box::new(Happening::TwinGoes);
        self.queue.push(self.now + time, Event::Operator { what, tries: 0 });
    }

    /// What has a host's power goes with it.
    pub(super) fn twin_shares_power(&mut self, host: usize) {
        if self.twin.is_some_and(|twin| twin.is_copy && twin.of == host) {
            self.power_off(self.named, None);
        }
    }

    pub(super) fn twin_goes(&mut self) {
        if self.twin.is_some() {
            self.power_off(self.named, None);
        }
    }

    /// Once the machine that should not have the name is off, the person who looked says so.
    pub(super) fn settle_names(&mut self) {
        let Some(twin) = self.twin else { return };
        let host = self.hosts[twin.of].name.clone();
        let contested = self.truth.state.hosts.get(&host).is_some_and(|known| known.is_contested());
        if contested && !self.hosts[self.named].on {
            self.operate(Change::QuarantineLifted { host, machine_id: None, by: Some("ann".to_owned()) });
        }
    }

    /// `holdfast fence drill HOST`, once the host is drained; whether there is nothing more to be tried.
    pub(super) fn begin_drill(&mut self, host: usize) -> bool {
        let Some(voter) = self.coordinator() else { return false };
        let (name, me) = (self.hosts[host].name.clone(), self.hosts[voter].name.clone());
        let known = &self.voters[voter];
        if known.state.hosts.get(&name).is_none_or(|known| !matches!(known.mode, Mode::Draining | Mode::Maintenance)) {
            return true;
        }
        let levels = known.state.policies.levels_of(&name);
        let Some(level) = levels.iter().position(|level| level.has_device()) else { return true };
        let Some(report) = &known.brain.report else { return false };
        match drill(&known.state, report, &me, &name, level) {
            Ok(executor) => self.operate(Change::DrillBegun { host: name, executor, level, by: "ann".to_owned() }),
            Err(_) => false,
        }
    }

    /// Whether an order only tries whether its host can be switched.
    pub(super) fn is_drill(&self, order: OrderId) -> bool {
        let known = self.truth.state.orders.get(&order).map(|order| &order.kind);
        matches!(known, Some(OrderKind::Fence { switch: Switch::OffAndOn, .. }))
    }
}
