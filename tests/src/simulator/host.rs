//! One simulated host: power, clock, disk, guard, power device, virtual machines, and a supervisor around the product's
//! [`Agent`].

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use holdfast_policies::{
    agent::{Action, Agent, Disk},
    feature_level::FeatureLevel,
    hostfile::Timing,
    names::{Epoch, GuestName, HostName, Incarnation, OrderId},
    order::Order,
    state::HostFacts,
    sync::View,
    time::Moment,
};

use super::{
    Ms,
    breaks::Break,
    chores::TWIN_BOOTS,
    device::{Device, OUTLETS, Outlet},
    guest::Machine,
    setup::HostSetup,
};

/// How long what a voter hears must have been whole before its ears count (R17).
const LISTENED: Ms = 1_500;

/// An order that is being carried out; orders of one guest one after another.
#[derive(Debug, Clone)]
pub struct Job {
    /// The order.
    pub order: Order,
    /// When its work began.
    pub begun: Option<Ms>,
    /// It will not succeed.
    pub fails: bool,
    /// For a fence: the device has been told.
    pub shot: bool,
}

/// A supervisor's process.
pub struct Supervisor {
    /// The product's agent.
    pub agent: Agent,
    /// When the process started.
    pub since: Ms,
    pub(super) nonce: u64,
    pub(super) sent: BTreeMap<u64, (Moment, Ms)>,
    pub(super) answered: bool,
    pub(super) asks: usize,
    pub(super) frozen_until: Ms,
    pub(super) due: Ms,
    /// What is carried out.
    pub jobs: Vec<Job>,
    pub(super) readings: BTreeMap<OrderId, Moment>,
    pub(super) view: View,
    /// The index of the newest view that its guard has been told of.
    pub(super) guard_knows: u64,
    pub(super) learning: super::views::Learning,
    pub(super) memory: super::disks::Memory,
    pub(super) failing_since: BTreeMap<(GuestName, Epoch), Ms>,
    /// When it last got an answer of a guest, where vantages tell.
    pub(super) passed: BTreeMap<(GuestName, Epoch), Ms>,
    pub(super) actions: VecDeque<Action>,
    pub(super) writing: bool,
}

impl Supervisor {
    /// How long ago it last got an answer of a guest under an assignment.
    pub(super) fn passed_ago(&self, guest: &GuestName, epoch: Epoch, now: Ms) -> Option<Ms> {
        self.passed.get(&(guest.clone(), epoch)).map(|at| now - *at)
    }
}

/// A host.
pub struct Host {
    /// Its name.
    pub name: HostName,
    /// Boots so far.
    pub boot: u32,
    /// Starts of the supervisor so far; events of earlier ones fall away.
    pub life: u32,
    /// Power.
    pub on: bool,
    /// When power came back; 0 when it was never gone.
    pub on_since: Ms,
    /// It hangs before its supervisor and its guard start.
    pub hung: bool,
    /// The whole machine stands still until then.
    pub frozen_until: Ms,
    /// Its power device.
    pub device: Device,
    /// What feeds it, where outlets are among its power devices.
    pub outlets: [Outlet; OUTLETS],
    /// The supervisor, while it runs.
    pub supervisor: Option<Supervisor>,
    /// What the agent has on disk.
    pub disk: Disk,
    /// The disk was lost, and nobody has told the agent its floors since (R12).
    pub floors_lost: bool,
    /// The disk was lost at some time in this run.
    pub disk_was_lost: bool,
    /// What the guard holds, on this host's clock.
    pub lease: Option<Moment>,
    /// Until when that lease really lasts.
    pub lease_until: Ms,
    /// Virtual machines.
    pub machines: BTreeMap<GuestName, Machine>,
    /// What an autostart would start again at boot (R10).
    pub autostart: BTreeMap<GuestName, Epoch>,
    /// What this voter has heard of each host: when, and which boot.
    pub heard: Vec<Option<(Ms, u32)>>,
    /// When it heard the boot before that one.
    pub heard_before: Vec<Option<(Ms, u32)>>,
    /// What this voter would hear of each host whose guard does its duty: the truth that fences are checked against.
    pub audible: Vec<Option<(Ms, u32)>>,
    /// Since when it would have heard each host without a gap.
    pub audible_since: Vec<Ms>,
    /// Since when nothing is wrong with it.
    pub well_since: Ms,
    /// When each guest of it has reset itself lately, and under which assignment; oldest first.
    pub resets: BTreeMap<GuestName, Vec<(Epoch, Ms)>>,
    /// Guests that it cannot stop, start or move until then.
    pub stubborn: BTreeMap<GuestName, Ms>,
    /// Starts fail until then.
    pub starts_fail_until: Ms,
    /// Moves fail until then.
    pub moves_fail_until: Ms,
    /// Guests that it cannot see until then.
    pub blind: BTreeMap<GuestName, Ms>,
    /// Guests whose services it cannot ask until then.
    pub unable: BTreeMap<GuestName, Ms>,
    /// How far its wall clock is off.
    pub wall_jump: u64,
    /// The number of its certificate.
    pub(super) serial: u64,
    /// When its name was last revoked.
    pub(super) revoked_at: Ms,
    pub(super) doubted_at: Option<Ms>,
    pub(super) link: super::doubt::Link,
    pub(super) beats: u64,
    pub(super) connected_since: Option<Ms>,
    pub(super) frozen_total: Ms,
    pub(super) facts: HostFacts,
    memory_mib: u64,
    cores: u32,
    guests: bool,
    skew: u64,
    drift: u64,
    stopped_clock: bool,
    boot_by_life: bool,
    /// What protects its guests' disks from it.
    pub guard: super::guard::Guard,
    /// What its version can do (R26).
    pub(super) level: FeatureLevel,
}

/// The number at the end of a simulated boot's name.
#[must_use]
pub fn boot_of(incarnation: &Incarnation) -> u32 {
    // Asked of every host at every turn; the dot is nearly always the last byte but one.
    let name = incarnation.as_str();
    let number = name.bytes().rposition(|byte| byte == b'.').map_or(name, |dot| &name[dot + 1..]);
    number.parse().unwrap_or(0)
}

impl Host {
    pub(super) fn new(index: usize, setup: &HostSetup, count: usize, drift: u64, broken: Option<Break>) -> Self {
        let facts = HostFacts {
            incarnation: incarnation(&setup.name, 1),
            machine_id: format!("machine of {}", setup.name),
            address: ([10, 0, 0, u8::try_from(index + 1).unwrap_or(254)], 7_000).into(),
            memory_mib: setup.memory_mib,
            cores: setup.cores,
            guests: setup.guests,
        };
        Self {
            name: setup.name.clone(),
            boot: 1,
            life: 0,
            on: true,
            on_since: 0,
            hung: false,
            frozen_until: 0,
            device: Device::default(),
            outlets: [Outlet::default(); OUTLETS],
            supervisor: None,
            disk: Disk::default(),
            floors_lost: false,
            disk_was_lost: false,
            lease: None,
            lease_until: 0,
            machines: BTreeMap::new(),
            autostart: BTreeMap::new(),
            heard: vec![None; count],
            heard_before: vec![None; count],
            audible: vec![None; count],
            audible_since: vec![0; count],
            well_since: 0,
            resets: BTreeMap::new(),
            stubborn: BTreeMap::new(),
            starts_fail_until: 0,
            moves_fail_until: 0,
            blind: BTreeMap::new(),
            unable: BTreeMap::new(),
            wall_jump: 0,
            serial: 1,
            revoked_at: 0,
            doubted_at: None,
            link: super::doubt::Link::default(),
            beats: 0,
            connected_since: None,
            frozen_total: 0,
            facts,
            memory_mib: setup.memory_mib,
            cores: setup.cores,
            guests: setup.guests,
            // Boot-time clocks of two machines have nothing in common (R1).
            skew: 1_000_000 * (index as u64 + 1),
            drift,
            stopped_clock: broken == Some(Break::R1),
            boot_by_life: broken == Some(Break::R11),
            guard: super::guard::Guard::new(setup.watchdog),
            level: FeatureLevel::HIGHEST,
        }
    }

    /// Its boot-time clock: counts suspend, and drifts.
    #[must_use]
    pub fn clock(&self, now: Ms) -> Moment {
        let stood = if self.stopped_clock { self.frozen_total } else { 0 };
        Moment((now.saturating_sub(stood) * self.drift / 1_000).saturating_add(self.skew))
    }

    /// How long it really takes at most until its clock has counted so many milliseconds: 2 % longer, or as it drifts.
    #[must_use]
    pub fn lasts(&self, ms: u64) -> Ms {
        (ms * 51 / 50).max(ms * 1_000 / self.drift + 1)
    }

    /// How long it really takes until its clock has counted so many milliseconds.
    #[must_use]
    pub fn takes(&self, ms: u64) -> Ms {
        (ms * 1_000).div_ceil(self.drift)
    }

    /// The number of its boot, as it is told to others.
    #[must_use]
    pub fn boot_number(&self) -> u32 {
        if self.boot_by_life { self.life } else { self.boot }
    }

    /// The name of one of its boots.
    #[must_use]
    pub fn incarnation(&self, number: u32) -> Incarnation {
        incarnation(&self.name, number)
    }

    /// What it says of itself.
    #[must_use]
    pub fn facts(&self) -> HostFacts {
        self.facts.clone()
    }

    pub(super) fn is_machine(&mut self, id: &str) {
        id.clone_into(&mut self.facts.machine_id);
    }

    pub(super) fn name_boot(&mut self) {
        self.facts.incarnation = incarnation(&self.name, self.boot_number());
        (self.facts.memory_mib, self.facts.cores, self.facts.guests) = (self.memory_mib, self.cores, self.guests);
    }

    /// Whether the machine itself goes on.
    #[must_use]
    pub fn alive(&self, now: Ms) -> bool {
        self.on && !self.hung && self.frozen_until <= now
    }

    /// Whether its supervisor works.
    #[must_use]
    pub fn serves(&self, now: Ms) -> bool {
        self.alive(now) && self.supervisor.as_ref().is_some_and(|supervisor| supervisor.frozen_until <= now)
    }

    /// Power is gone, and everything that does not survive that.
    pub(super) fn lose_power(&mut self) {
        self.on = false;
        self.hung = false;
        self.end_supervisor();
        self.autostart = self.machines.iter().map(|(guest, machine)| (guest.clone(), machine.epoch)).collect();
        self.machines.clear();
        self.resets.clear();
        self.lease = None;
        self.lease_until = 0;
        self.frozen_until = 0;
        self.guard.reset();
    }

    /// The process has ended; what it had in memory is gone.
    pub(super) fn end_supervisor(&mut self) {
        self.supervisor = None;
        self.life += 1;
        self.heard.fill(None);
        self.heard_before.fill(None);
        self.audible.fill(None);
        self.connected_since = None;
        self.doubted_at = None;
        self.link = super::doubt::Link::default();
    }

    pub(super) fn begin_supervisor(&mut self, timing: Timing, now: Ms) {
        let lease = self.lease;
        let agent = Agent::new(self.facts.incarnation.clone(), timing, self.disk.clone(), lease);
        self.supervisor = Some(Supervisor {
            agent,
            since: now,
            nonce: self.clock(now).0,
            sent: BTreeMap::new(),
            answered: true,
            asks: 0,
            frozen_until: 0,
            due: now,
            jobs: Vec::new(),
            readings: BTreeMap::new(),
            view: View::default(),
            guard_knows: 0,
            learning: super::views::Learning::default(),
            memory: super::disks::Memory::default(),
            failing_since: BTreeMap::new(),
            passed: BTreeMap::new(),
            actions: VecDeque::new(),
            writing: false,
        });
    }

    /// How long ago this voter heard a boot of a host.
    #[must_use]
    pub fn heard_age(&self, of: usize, incarnation: &Incarnation, now: Ms) -> Option<Duration> {
        let at = self.heard_at(of, boot_of(incarnation))?;
        Some(self.clock(now).since(self.clock(at)))
    }

    /// When this voter heard a boot of a host.
    #[must_use]
    pub fn heard_at(&self, of: usize, boot: u32) -> Option<Ms> {
        let known = [self.heard.get(of), self.heard_before.get(of)];
        known.into_iter().flatten().flatten().find(|(_, known)| *known == boot).map(|(at, _)| *at)
    }

    /// The boot of a host that this voter has heard last, of those that the host is not known to have had.
    #[must_use]
    pub fn heard_unjoined(&self, of: usize, known: impl Fn(u32) -> bool) -> Option<(Ms, u32)> {
        let heard = [self.heard.get(of), self.heard_before.get(of)];
        heard.into_iter().flatten().copied().flatten().filter(|(_, boot)| !known(*boot)).max()
    }

    /// Whether what it has not heard is not its own doing (R17).
    #[must_use]
    pub fn has_listened(&self, now: Ms) -> bool {
        self.connected_since.is_some_and(|since| now - since >= LISTENED)
            && self.doubted_at.is_none_or(|at| now - at >= LISTENED)
    }

    /// Notes that a boot was heard.
    pub(super) fn hear(&mut self, of: usize, boot: u32, now: Ms) {
        if let (Some(heard), Some(before)) = (self.heard.get_mut(of), self.heard_before.get_mut(of)) {
            match heard {
                Some((_, known)) if *known > boot => {
                    if before.is_none_or(|(_, known)| known <= boot) {
                        *before = Some((now, boot));
                    }
                }
                Some((_, known)) if *known < boot => {
                    *before = *heard;
                    *heard = Some((now, boot));
                }
                Some(_) | None => *heard = Some((now, boot)),
            }
        }
        if boot < TWIN_BOOTS {
            self.could_hear(of, boot, now);
        }
    }

    /// Notes that a boot would be heard if its guard did its duty.
    pub(super) fn could_hear(&mut self, of: usize, boot: u32, now: Ms) {
        let (Some(heard), Some(since)) = (self.audible.get_mut(of), self.audible_since.get_mut(of)) else { return };
        match heard {
            Some((_, known)) if *known > boot => return,
            Some((at, known)) if *known == boot && now - *at < LISTENED => {}
            _ => *since = now,
        }
        *heard = Some((now, boot));
    }

    /// Whether a guest cannot be stopped here.
    #[must_use]
    pub fn holds_on_to(&self, guest: &GuestName, now: Ms) -> bool {
        self.stubborn.get(guest).is_some_and(|until| *until > now)
    }
}

fn incarnation(name: &HostName, number: u32) -> Incarnation {
    match Incarnation::new(format!("{name}.{number}")) {
        Ok(incarnation) => incarnation,
        Err(error) => panic!("a simulated boot has no name: {error}"),
    }
}
