//! What goes wrong, and what operators do in the middle of it: a plan made from the seed before the run begins, so that
//! single happenings can be left out of it.

use std::collections::BTreeSet;

use holdfast_policies::{
    change::Change,
    model::{FenceLevel, LeaseLevel},
    names::GuestName,
    state::{Life, Mode, Wanted},
};

use super::{Ms, breaks::Break, device::Device, guest::Vm, queue::Event, random::Random, setup::Setup, world::World};

/// Something that happens to the cluster from outside. Hosts by index, times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields say what their names say")]
pub enum Happening {
    /// A supervisor's process ends, and is started again.
    SupervisorCrash { host: usize, back: Ms },
    /// A supervisor of an older version ends, and one of this version is started.
    Upgrade { host: usize, back: Ms },
    /// A supervisor's process stands still.
    SupervisorFreeze { host: usize, time: Ms },
    /// A guard's process ends, or stands still, for so long.
    GuardDown { host: usize, time: Ms },
    /// Power is gone, and the power device with it; `back` later power returns, if it does.
    PowerAndDeviceLost { host: usize, back: Option<Ms> },
    /// An operator gives a host a lease level, or takes it away.
    LeaseLevelIs { host: usize, declared: bool },
    /// Whoever coordinates at that moment: its process ends.
    CoordinatorCrash { back: Ms },
    /// Whoever coordinates at that moment: its process stands still.
    CoordinatorFreeze { time: Ms },
    /// Whoever coordinates at that moment: cut off from all others.
    CoordinatorCut { time: Ms },
    /// Whoever coordinates at that moment hears nobody any more; the others hear it.
    CoordinatorDeaf { time: Ms },
    /// Power is gone; `back` later it returns, if it does.
    PowerCut { host: usize, back: Option<Ms> },
    /// Power is gone everywhere for a moment; one host hangs while it boots.
    Blackout { hangs: Option<usize>, back: Ms },
    /// A whole machine stands still.
    Freeze { host: usize, time: Ms },
    /// A host is cut off from all others.
    Cut { host: usize, time: Ms },
    /// One direction between two hosts is cut.
    OneWay { from: usize, to: usize, time: Ms },
    /// Both directions between two hosts are cut.
    Link { one: usize, other: usize, time: Ms },
    /// The hosts in the set hear only each other.
    Partition { side: BTreeSet<usize>, time: Ms },
    /// Messages of a host are lost, late, out of order, and repeated.
    BadNetwork { host: usize, time: Ms, loss: u64, late: Ms },
    /// A power device behaves differently from here on.
    DeviceIs { host: usize, device: Device },
    /// One of a host's two outlets behaves differently from here on.
    OutletIs { host: usize, outlet: usize, device: Device },
    /// A guest's process ends.
    GuestExits { guest: GuestName },
    /// A guest's kernel panics.
    GuestPanics { guest: GuestName },
    /// A guest runs and does not answer.
    GuestHangs { guest: GuestName },
    /// Another tool moves a guest, if everything is at rest.
    MovedByOthers { guest: GuestName, to: usize },
    /// A guest resets itself, if everything is at rest.
    ResetsItself { guest: GuestName },
    /// A guest that has reset itself a moment ago does so again.
    ResetsItselfAgain { guest: GuestName },
    /// A guest does not answer wherever it is started.
    GuestIsSick { guest: GuestName, time: Ms },
    /// A host cannot stop a guest.
    Stubborn { host: usize, guest: GuestName, time: Ms },
    /// Every start on a host fails.
    StartsFail { host: usize, time: Ms },
    /// Every move away from a host stops midway.
    MovesFail { host: usize, time: Ms },
    /// A host's probes of a guest fail for a reason of its own.
    Blind { host: usize, guest: GuestName, time: Ms },
    /// A host's wall clock jumps ahead.
    WallClock { host: usize, ahead: u64 },
    /// What the agent has on disk is lost, while its supervisor is down.
    AgentDiskLost { host: usize, back: Ms },
    /// A voter's store is lost, while its supervisor is down.
    VoterStoreLost { host: usize, back: Ms },
    /// An operator sets a host's mode.
    ModeIs { host: usize, mode: Mode },
    /// An operator says what is wanted of a guest.
    WantedIs { guest: GuestName, wanted: Wanted },
    /// An operator suspends deciding, or resumes it.
    Suspended { suspended: bool },
    /// An operator moves a guest.
    Move { guest: GuestName, to: usize },
    /// An operator looks whether a host is off, and says so if it is.
    ConfirmOff { host: usize },
    /// An operator lets the fences go on that a budget holds.
    FencesAllowed,
    /// An operator drills a host's power device, once it is drained.
    Drill { host: usize },
    /// A second machine comes under the name of a host, for so long.
    TwinComes { time: Ms },
    /// It is switched off.
    TwinGoes,
    /// The next time that something of this kind is committed, something else happens at once.
    When { kind: Moment, then: Box<Happening> },
    /// The faults stop; operators do what the pages ask for; everything has to come to rest (L1).
    Heal,
}

/// The worst moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the command that is committed then")]
pub enum Moment {
    FenceOpened,
    FenceAttempted,
    HostGone,
    Placed,
    MoveOrdered,
    OrderEnded,
    Climbed,
}

impl Moment {
    fn is(self, change: &Change) -> bool {
        match self {
            Self::FenceOpened => matches!(change, Change::FenceOpened { .. }),
            Self::FenceAttempted => matches!(change, Change::FenceAttempted { .. }),
            Self::HostGone => matches!(change, Change::HostGone { .. }),
            Self::Placed => matches!(change, Change::Place { .. }),
            Self::MoveOrdered => matches!(change, Change::Migrate { .. }),
            Self::OrderEnded => matches!(change, Change::OrderEnded { .. }),
            Self::Climbed => matches!(change, Change::Climb { .. }),
        }
    }
}

/// A plan: what happens when.
pub type Plan = Vec<(Ms, Happening)>;

/// Before the first fault everything has come to life.
const CALM_FIRST: Ms = 20_000;
/// How long it takes a person to look at every host.
const LOOKING: Ms = 20_000;

/// Makes a plan of some bursts of faults, each followed by [`Happening::Heal`].
#[must_use]
pub fn random_plan(setup: &Setup, minutes: u64) -> Plan {
    let mut random = Random::new(setup.seed, 2);
    let end = minutes.max(2) * 60_000;
    let bursts = (minutes / 12).clamp(1, 8);
    let mut plan = Plan::new();
    for burst in 0..bursts {
        let share = (end - CALM_FIRST) / bursts;
        let begin = CALM_FIRST + burst * share + random.below(share / 4);
        let length = random.between(4_000, (share / 3).clamp(5_000, 24_000));
        let count = random.between(2, 9);
        let mut burst: Vec<Ms> = (0..count).map(|_| begin + random.below(length)).collect();
        burst.sort_unstable();
        for at in burst {
            let what = happening(&mut random, setup);
            plan.push((at, what));
        }
        if let Some(broken) = setup.broken {
            let from = begin + random.below(length.min(8_000));
            plan.extend(focused(&mut random, setup, broken).into_iter().map(|(after, what)| (from + after, what)));
            plan.sort_by_key(|(at, _)| *at);
        }
        plan.push((begin + length + random.below(6_000), Happening::Heal));
    }
    if setup.guarded { with_leases(setup, plan) } else { plan }
}

/// Faults of hosts with guards and watchdogs, among the others; drawn apart, so that other worlds stay what they are.
fn with_leases(setup: &Setup, mut plan: Plan) -> Plan {
    let mut random = Random::new(setup.seed, 6);
    let bursts: Vec<Ms> = plan.iter().filter(|(_, what)| matches!(what, Happening::Heal)).map(|(at, _)| *at).collect();
    for healed in bursts {
        for _ in 0..random.between(1, 5) {
            let at = healed.saturating_sub(random.between(1_000, 20_000)).max(CALM_FIRST);
            plan.push((at, lease_happening(&mut random, setup)));
        }
    }
    plan.sort_by_key(|(at, _)| *at);
    plan
}

fn lease_happening(random: &mut Random, setup: &Setup) -> Happening {
    let host = random.index(setup.hosts.len());
    let time = random.between(1_500, 24_000);
    match random.below(7) {
        0 => Happening::GuardDown { host, time },
        1 | 2 => Happening::Cut { host, time },
        3 => Happening::Freeze { host, time },
        4 => Happening::PowerAndDeviceLost { host, back: back(random) },
        5 => Happening::SupervisorCrash { host, back: time },
        _ => Happening::LeaseLevelIs { host, declared: random.one_in(2) },
    }
}

fn happening(random: &mut Random, setup: &Setup) -> Happening {
    if random.one_in(6) {
        let kinds = [
            Moment::FenceOpened,
            Moment::FenceAttempted,
            Moment::HostGone,
            Moment::Placed,
            Moment::MoveOrdered,
            Moment::OrderEnded,
            Moment::Climbed,
        ];
        let kind = kinds[random.index(kinds.len())];
        return Happening::When { kind, then: Box::new(simple(random, setup, true)) };
    }
    simple(random, setup, false)
}

/// What a broken rule is about: added to its plans, so that thousands of seeds are enough to meet it. The same plan with
/// the rule in force has to be well ([`super::report::find_break`]).
fn focused(random: &mut Random, setup: &Setup, broken: Break) -> Vec<(Ms, Happening)> {
    let count = setup.hosts.len();
    let host = random.index(count);
    let guests: Vec<&GuestName> = setup.policies.guests.keys().collect();
    let guest = guests[random.index(guests.len())].clone();
    let when = |kind: Moment, then: Happening| Happening::When { kind, then: Box::new(then) };
    match broken {
        Break::R1 => vec![
            (0, Happening::DeviceIs { host, device: Device::Unreachable }),
            (100, when(Moment::Climbed, Happening::Freeze { host, time: random.between(4_500, 14_000) })),
            (200, Happening::GuestExits { guest }),
        ],
        Break::R9 => vec![
            (0, Happening::DeviceIs { host, device: Device::Slow }),
            (100, Happening::PowerCut { host, back: Some(random.between(200, 2_500)) }),
        ],
        // A guest that answers is a sign of life of its host, so its guests have to fail too (R16).
        Break::R13 => {
            let exits = guests.iter().map(|guest| Happening::GuestExits { guest: (*guest).clone() });
            let crash = Happening::SupervisorCrash { host, back: random.between(9_000, 24_000) };
            std::iter::once((0, crash)).chain(exits.map(|what| (500, what))).collect()
        }
        Break::R14 => vec![
            (0, Happening::DeviceIs { host, device: Device::Unreachable }),
            (100, when(Moment::Climbed, Happening::Cut { host, time: 14_000 })),
            (200, Happening::GuestExits { guest }),
        ],
        Break::R9Watchdog => vec![
            (0, Happening::GuardDown { host, time: 30_000 }),
            (random.between(50, 200), Happening::Cut { host, time: 20_000 }),
        ],
        Break::R9Grant | Break::R14Stop => vec![(0, Happening::Cut { host, time: 20_000 })],
        Break::R9Reply => vec![
            (0, Happening::BadNetwork { host, time: 9_000, loss: 400, late: 3_500 }),
            (random.between(3_000, 9_000), Happening::Cut { host, time: 12_000 }),
        ],
        Break::R9Paused => vec![(0, Happening::Freeze { host, time: 30_000 })],
        Break::R10Lease => vec![(0, Happening::Cut { host, time: random.between(16_000, 24_000) })],
        Break::R15 => vec![(0, Happening::SupervisorCrash { host, back: 24_000 })],
        Break::R11Copy => vec![(0, Happening::TwinComes { time: 12_000 })],
        Break::R29 => {
            let stays = random.index(setup.voters);
            let others = (0..setup.voters).filter(|voter| *voter != stays).enumerate();
            let mode = Mode::Leaving { reboot: true };
            others.map(|(turn, host)| (turn as Ms * 300, Happening::ModeIs { host, mode })).collect()
        }
        Break::R17 => {
            let voter = random.index(setup.voters);
            vec![(0, Happening::OneWay { from: host, to: voter, time: 9_000 })]
        }
        Break::R20Late => vec![
            (0, when(Moment::FenceOpened, Happening::CoordinatorDeaf { time: random.between(5_500, 9_000) })),
            (10, Happening::Cut { host, time: random.between(1_700, 2_600) }),
        ],
        Break::R21 => {
            let side = (0..count).filter(|index| *index == host || random.one_in(3)).collect();
            vec![(0, Happening::Partition { side, time: 12_000 })]
        }
        Break::R22 => {
            let then = Happening::SupervisorCrash { host, back: random.between(500, 4_000) };
            vec![(0, Happening::Move { guest, to: random.index(count) }), (random.between(900, 3_000), then)]
        }
        Break::R24 => {
            let one = random.index(setup.voters);
            let other = (one + 1 + random.index(setup.voters - 1)) % setup.voters;
            vec![
                (0, Happening::Cut { host: one, time: 1_400 }),
                (500, Happening::ModeIs { host, mode: Mode::Draining }),
                (1_300, Happening::VoterStoreLost { host: other, back: 100 }),
                (1_310, Happening::CoordinatorCut { time: 6_000 }),
            ]
        }
        Break::R2
        | Break::R3
        | Break::R4
        | Break::R5
        | Break::R6
        | Break::R7
        | Break::R8
        | Break::R9Floors
        | Break::R9Reported
        | Break::R10
        | Break::R11
        | Break::R12
        | Break::R16
        | Break::R18
        | Break::R19
        | Break::R19Unsaid
        | Break::R20
        | Break::R26 => Vec::new(),
    }
}

fn simple(random: &mut Random, setup: &Setup, at_worst: bool) -> Happening {
    let count = setup.hosts.len();
    let host = random.index(count);
    let other = (host + 1 + random.index(count - 1)) % count;
    let guests: Vec<&GuestName> = setup.policies.guests.keys().collect();
    let guest = guests[random.index(guests.len())].clone();
    let time = if random.one_in(3) { random.between(300, 2_500) } else { random.between(1_500, 14_000) };
    let kind = if at_worst { random.below(9) } else { random.below(42) };
    match kind {
        0 => Happening::SupervisorCrash { host, back: time },
        1 => Happening::CoordinatorCrash { back: time },
        2 => Happening::CoordinatorFreeze { time },
        3 => Happening::CoordinatorCut { time },
        4 => Happening::PowerCut { host, back: back(random) },
        5 => Happening::Freeze { host, time },
        6 => Happening::Cut { host, time },
        7 => Happening::SupervisorFreeze { host, time },
        8 => Happening::GuestExits { guest },
        9 => Happening::OneWay { from: host, to: other, time },
        10 => Happening::Link { one: host, other, time },
        11 => {
            let side = (0..count).filter(|_| random.one_in(2)).collect();
            Happening::Partition { side, time }
        }
        12 => Happening::BadNetwork { host, time, loss: random.below(500), late: random.between(5, 2_000) },
        13 | 14 => {
            let devices = [Device::Slow, Device::Unreachable, Device::Lying, Device::Late];
            Happening::DeviceIs { host, device: devices[random.index(4)] }
        }
        15 => Happening::GuestPanics { guest },
        16 => Happening::GuestHangs { guest },
        17 => Happening::GuestIsSick { guest, time },
        18 => Happening::Stubborn { host, guest, time },
        19 => Happening::StartsFail { host, time },
        20 => Happening::MovesFail { host, time },
        21 => Happening::Blind { host, guest, time },
        22 => Happening::WallClock { host, ahead: random.below(1_000_000_000) },
        23 => Happening::AgentDiskLost { host, back: time },
        24 if host < setup.voters => Happening::VoterStoreLost { host, back: time.min(3_000) },
        25 => Happening::ModeIs { host, mode: Mode::Draining },
        26 => Happening::ModeIs { host, mode: Mode::Maintenance },
        27 => Happening::ModeIs { host, mode: Mode::Active },
        28 => Happening::WantedIs { guest, wanted: Wanted::Stopped },
        29 => Happening::WantedIs { guest, wanted: Wanted::Running },
        30 => Happening::Suspended { suspended: !random.one_in(3) },
        31..=33 => Happening::Move { guest, to: host },
        34 => Happening::ConfirmOff { host },
        35 => Happening::Blackout { hangs: random.one_in(2).then_some(host), back: random.between(1_000, 8_000) },
        36 => Happening::PowerCut { host, back: back(random) },
        37 => Happening::Freeze { host, time: time * 2 },
        38 => Happening::Link { one: host, other, time: time * 4 },
        39 => Happening::SupervisorCrash { host, back: time * 3 },
        40 => Happening::Stubborn { host, guest, time: time * 2 },
        _ => Happening::Cut { host, time },
    }
}

fn back(random: &mut Random) -> Option<Ms> {
    (!random.one_in(3)).then(|| random.between(500, 15_000))
}

impl World {
    /// Has something happen.
    pub fn happen(&mut self, what: &Happening) {
        let (now, rested) = (self.now, self.is_at_rest());
        self.rest_since = None;
        self.story.note(self.skipped + now, || format!("== {what:?}"));
        match what {
            Happening::SupervisorCrash { host, back } => self.stop_supervisor(*host, *back),
            Happening::Upgrade { host, back } => self.upgrade(*host, *back),
            Happening::SupervisorFreeze { host, time } => self.stand_still(*host, *time),
            Happening::GuardDown { host, time } => {
                let guard = &mut self.hosts[*host].guard;
                guard.down_until = guard.down_until.max(now + time);
            }
            Happening::PowerAndDeviceLost { host, back } => {
                self.set_device(*host, Device::Unreachable);
                self.power_off(*host, None);
                if let Some(back) = back {
                    self.power_on_after(*host, *back);
                }
            }
            Happening::LeaseLevelIs { host, declared } => self.lease_level_is(*host, *declared),
            Happening::TwinComes { time } => self.twin_comes(*time),
            Happening::TwinGoes => self.twin_goes(),
            Happening::Drill { host } => {
                self.operator(Happening::ModeIs { host: *host, mode: Mode::Draining }, 20);
                self.queue.push(now + 1_000, Event::Operator { what: Box::new(what.clone()), tries: 40 });
            }
            Happening::CoordinatorCrash { back } => {
                if let Some(voter) = self.coordinator() {
                    self.stop_supervisor(voter, *back);
                }
            }
            Happening::CoordinatorFreeze { time } => {
                if let Some(voter) = self.coordinator() {
                    self.stand_still(voter, *time);
                }
            }
            Happening::CoordinatorCut { time } => {
                if let Some(voter) = self.coordinator() {
                    self.network.isolate(voter, now + time);
                }
            }
            Happening::CoordinatorDeaf { time } => {
                if let Some(voter) = self.coordinator() {
                    for other in (0..self.hosts.len()).filter(|other| *other != voter) {
                        self.network.cut(other, voter, now + time);
                    }
                }
            }
            Happening::PowerCut { host, back } => {
                self.power_off(*host, None);
                if let Some(back) = back {
                    self.power_on_after(*host, *back);
                }
            }
            Happening::Blackout { hangs, back } => {
                for host in 0..self.named {
                    self.power_off(host, None);
                    let wait = back + self.random.below(2_000);
                    self.power_on_after(host, wait);
                }
                self.hangs_at_boot.extend(hangs);
            }
            Happening::Freeze { host, time } => self.freeze(*host, *time),
            Happening::Cut { host, time } => self.network.isolate(*host, now + time),
            Happening::OneWay { from, to, time } => self.network.cut(*from, *to, now + time),
            Happening::Link { one, other, time } => {
                self.network.cut(*one, *other, now + time);
                self.network.cut(*other, *one, now + time);
            }
            Happening::Partition { side, time } => {
                for (one, other) in (0..self.hosts.len()).flat_map(|one| (0..self.hosts.len()).map(move |o| (one, o))) {
                    if side.contains(&one) != side.contains(&other) {
                        self.network.cut(one, other, now + time);
                    }
                }
            }
            Happening::BadNetwork { host, time, loss, late } => self.network.spoil(*host, now + time, *loss, *late),
            Happening::DeviceIs { host, device } => self.set_device(*host, *device),
            Happening::OutletIs { host, outlet, device } => {
                self.lies_drawn |= *device == Device::Wrong;
                self.hosts[*host].outlets[*outlet].device = *device;
            }
            Happening::GuestExits { guest } => self.each_running(guest, |machine| machine.state = Vm::Exited),
            Happening::GuestPanics { guest } => self.each_running(guest, |machine| machine.state = Vm::Panicked),
            Happening::GuestHangs { guest } => self.each_running(guest, |machine| machine.ill = true),
            Happening::MovedByOthers { guest, to } => {
                if rested {
                    self.moved_by_others(guest, *to);
                }
            }
            Happening::ResetsItself { guest } => {
                if rested {
                    self.resets_itself(guest);
                }
            }
            Happening::ResetsItselfAgain { guest } => self.resets_itself_again(guest),
            Happening::GuestIsSick { guest, time } => {
                self.sick.insert(guest.clone(), now + time);
                self.each_running(guest, |machine| machine.ill = true);
            }
            Happening::Stubborn { host, guest, time } => {
                self.hosts[*host].stubborn.insert(guest.clone(), now + time);
            }
            Happening::StartsFail { host, time } => self.hosts[*host].starts_fail_until = now + time,
            Happening::MovesFail { host, time } => self.hosts[*host].moves_fail_until = now + time,
            Happening::Blind { host, guest, time } => {
                self.hosts[*host].blind.insert(guest.clone(), now + time);
            }
            Happening::WallClock { host, ahead } => self.hosts[*host].wall_jump = *ahead,
            Happening::AgentDiskLost { host, back } => {
                if self.hosts[*host].on && !self.hosts[*host].hung {
                    self.stop_supervisor(*host, *back);
                    self.lose_disk(*host);
                }
            }
            Happening::VoterStoreLost { host, back } => {
                // One store at a time: a majority that is lost for good is another story (R25).
                let others = (0..self.voters.len()).filter(|voter| voter != host);
                let whole =
                    others.filter(|voter| self.hosts[*voter].serves(now) && !self.voters[*voter].learner).count();
                if self.hosts[*host].serves(now) && *host < self.voters.len() && whole + 1 == self.voters.len() {
                    self.stop_supervisor(*host, *back);
                    self.lose_store(*host);
                }
            }
            Happening::When { kind, then } => self.armed.push((*kind, (**then).clone())),
            Happening::Heal => self.heal(),
            Happening::ModeIs { .. }
            | Happening::WantedIs { .. }
            | Happening::Suspended { .. }
            | Happening::Move { .. }
            | Happening::FencesAllowed
            | Happening::ConfirmOff { .. } => self.operator(what.clone(), 20),
        }
    }

    fn lease_level_is(&mut self, host: usize, declared: bool) {
        let mut policies = self.to_declare.clone().unwrap_or_else(|| self.truth.state.policies.clone());
        let levels = policies.fencing.entry(self.hosts[host].name.clone()).or_default();
        levels.retain(|level| !matches!(level, FenceLevel::Lease(_)));
        if declared {
            levels.push(FenceLevel::Lease(LeaseLevel::default()));
        } else if levels.is_empty() {
            levels.push(FenceLevel::Operator {});
        }
        if !policies.guests.is_empty() {
            self.declare(policies);
        }
    }

    /// An operator's command goes to whoever coordinates; without a coordinator it is tried again for a while.
    pub(super) fn operator(&mut self, what: Happening, tries: u32) {
        let name = |world: &Self, host: usize| world.hosts[host].name.clone();
        let by = || "ann".to_owned();
        let change = match &what {
            Happening::ModeIs { host, mode } => {
                Some(Change::ModeSet { host: name(self, *host), mode: *mode, by: by() })
            }
            Happening::WantedIs { guest, wanted } => {
                Some(Change::WantedSet { guest: guest.clone(), wanted: *wanted, by: by() })
            }
            Happening::Suspended { suspended } => Some(Change::SuspensionSet { suspended: *suspended, by: by() }),
            Happening::Move { guest, to } => {
                let (guest, to) = (guest.clone(), name(self, *to));
                Some(Change::Migrate { guest, to, why: "ann wants it".to_owned() })
            }
            _ => None,
        };
        let done = match (change, &what) {
            (Some(change), _) => self.operate(change),
            (None, Happening::Drill { host }) => self.begin_drill(*host),
            (None, Happening::FencesAllowed) => self.allow_fences(),
            (None, Happening::TwinGoes) => {
                self.twin_goes();
                true
            }
            // The person looks first, and does not lie.
            (None, Happening::ConfirmOff { host }) => {
                let name = name(self, *host);
                let boot = self.truth.state.hosts.get(&name).map(|known| known.facts.incarnation.clone());
                let machine = boot.as_ref().and_then(|boot| self.machine_of(&name, boot));
                let known = machine.map(|machine| &self.hosts[machine]);
                let is_on = |known: &super::host::Host, boot| known.on && known.boot_number() == boot;
                let off = known.zip(boot).is_some_and(|(known, boot)| !is_on(known, super::host::boot_of(&boot)));
                !off || self.confirm_off(*host)
            }
            (None, _) => true,
        };
        if !done && tries > 0 {
            let event = Event::Operator { what: Box::new(what), tries: tries - 1 };
            self.queue.push(self.now + 500, event);
        }
    }

    /// Something was committed: what waited for such a moment happens.
    pub(super) fn spring(&mut self, change: &Change) {
        let Some(position) = self.armed.iter().position(|(kind, _)| kind.is(change)) else { return };
        let (_, what) = self.armed.remove(position);
        self.sprung.push(what);
    }

    fn each_running(&mut self, guest: &GuestName, change: impl Fn(&mut super::guest::Machine)) {
        for host in 0..self.hosts.len() {
            if let Some(machine) = self.hosts[host].machines.get_mut(guest)
                && machine.state == Vm::Running
            {
                change(machine);
                self.sync_soon(host);
            }
        }
    }

    fn set_device(&mut self, host: usize, device: Device) {
        self.hosts[host].device = device;
        self.lies_drawn |= device == Device::Wrong;
        let name = self.hosts[host].name.clone();
        if device == Device::Slow {
            self.slow_devices.insert(name);
        } else {
            self.slow_devices.remove(&name);
        }
    }

    pub(super) fn stop_supervisor(&mut self, host: usize, back: Ms) {
        if !self.hosts[host].on || self.hosts[host].hung {
            return;
        }
        self.crash_supervisor(host);
        let (boot, life) = (self.hosts[host].boot, self.hosts[host].life);
        self.queue.push(self.now + back.max(100), Event::SupervisorUp { host, boot, life });
    }

    fn stand_still(&mut self, host: usize, time: Ms) {
        let until = self.now + time;
        if let Some(supervisor) = &mut self.hosts[host].supervisor {
            supervisor.frozen_until = supervisor.frozen_until.max(until);
        }
    }

    fn freeze(&mut self, host: usize, time: Ms) {
        let known = &mut self.hosts[host];
        if known.on {
            let from = known.frozen_until.max(self.now);
            known.frozen_until = known.frozen_until.max(self.now + time);
            known.frozen_total += known.frozen_until - from;
        }
    }

    fn lose_disk(&mut self, host: usize) {
        let known = &mut self.hosts[host];
        known.disk = holdfast_policies::agent::Disk::default();
        (known.floors_lost, known.disk_was_lost) = (true, true);
        known.disk.floors_known = self.broken == Some(Break::R12);
    }

    /// Power goes, by a fence or by itself.
    pub(super) fn power_off(&mut self, host: usize, fence: Option<holdfast_policies::names::OrderId>) {
        if !self.hosts[host].on {
            return;
        }
        if let Some(order) = fence {
            self.check_shot(host, order);
        }
        self.story.note(self.skipped + self.now, || format!("{} loses power", self.hosts[host].name));
        if host < self.voters.len() {
            self.voters[host].crash();
        }
        self.hosts[host].lose_power();
        if fence.is_none() {
            // Not its own button: nothing feeds it.
            self.hosts[host].outlets.iter_mut().for_each(|outlet| outlet.feeds = false);
        }
        self.reaching[host] = self.now;
        self.twin_shares_power(host);
        if fence.is_some() && self.chance && self.random.one_in(2) {
            let wait = self.random.between(3_000, 25_000);
            self.power_on_after(host, wait);
        }
    }

    /// Power returns later, unless it has until then.
    pub fn power_on_after(&mut self, host: usize, wait: Ms) {
        let boot = self.hosts[host].boot;
        self.queue.push(self.now + wait, Event::PowerOn { host, boot });
    }

    /// The faults stop, and operators do what the pages ask for.
    fn heal(&mut self) {
        let now = self.now;
        self.armed.clear();
        self.network.repair();
        // Links that were bad a moment ago may have lost what is expected.
        self.untold.clear();
        self.sick.clear();
        self.healing_since = Some(now);
        self.twin_goes();
        for index in 0..self.named {
            self.set_device(index, Device::Good);
            let known = &mut self.hosts[index];
            for outlet in &mut known.outlets {
                (outlet.device, outlet.feeds) = (Device::Good, outlet.feeds || known.on);
            }
            known.stubborn.clear();
            known.blind.clear();
            (known.starts_fail_until, known.moves_fail_until) = (0, 0);
            // A voter comes back; of the others, some do.
            if !known.on && (index < self.voters.len() || self.random.one_in(2)) {
                let wait = self.random.below(10_000);
                self.power_on_after(index, wait);
            }
        }
        self.look_after();
    }

    /// Once faults have stopped, operators look every few seconds: they take back what they
    /// have set, confirm what is off, and begin ladders anew.
    pub(super) fn look_after(&mut self) {
        if self.truth.state.suspended.is_some() {
            self.operator(Happening::Suspended { suspended: false }, 0);
        }
        let unwanted = self.truth.state.guests.iter().filter(|(_, known)| known.wanted != Wanted::Running);
        for guest in unwanted.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.operator(Happening::WantedIs { guest, wanted: Wanted::Running }, 0);
        }
        for host in 0..self.named {
            let known = self.truth.state.hosts.get(&self.hosts[host].name);
            if known.is_some_and(|known| known.mode != Mode::Active) {
                self.operator(Happening::ModeIs { host, mode: Mode::Active }, 0);
            }
        }
        self.twin_goes();
        self.settle_names();
        self.lift_quarantines();
        self.allow_fences();
        for host in 0..self.named {
            self.look_after_devices(host);
            self.look_after_hung(host);
            // Votes are needed back, whatever switched their hosts off meanwhile.
            if host < self.voters.len() && !self.hosts[host].on {
                self.power_on_after(host, 8_000);
            }
            let life = self.truth.state.hosts.get(&self.hosts[host].name).map(|known| &known.life);
            let waits = matches!(life, Some(Life::Up | Life::Fencing(_)));
            if waits && !self.hosts[host].on {
                self.operator(Happening::ConfirmOff { host }, 0);
            }
        }
        self.release_hold();
        let stuck: Vec<GuestName> = self
            .truth
            .state
            .guests
            .iter()
            .filter(|(name, known)| {
                let policies = &self.truth.state.policies;
                known.ladder.position.as_ref().is_some_and(|position| {
                    position.rung + 1 >= holdfast_policies::ladder::ladder_of(policies, name, position.ladder).len()
                })
            })
            .map(|(name, _)| name.clone())
            .collect();
        for guest in stuck {
            self.operate(Change::LadderReset { guest });
        }
    }

    /// Whoever is paged for a storm hold looks at every host. What is off is confirmed to be; where the others are heard again,
    /// or hang for certain, no switch has failed that they would be cut off by, and fencing may go on (R21). Looking takes so
    /// long that no silence counts any more which came from the faults themselves.
    fn release_hold(&mut self) {
        let now = self.now;
        let looked = self.healing_since.is_some_and(|since| now - since >= LOOKING);
        let holds = self.truth.state.open_incident("storm").is_some() && self.truth.state.storm_release.is_none();
        let (hung, others): (Vec<_>, Vec<_>) = self.hosts.iter().take(self.named).partition(|host| host.hung);
        let found = others.iter().all(|host| !host.on || host.alive(now));
        if looked && holds && found && !hung.is_empty() {
            self.operate(Change::StormHoldReleased { by: "ann".to_owned() });
        }
    }

    /// A host that hangs is switched off by whoever looks at it where no device can, and started again where no guest
    /// waits for its fence.
    fn look_after_hung(&mut self, host: usize) {
        if !self.hosts[host].hung {
            return;
        }
        let name = self.hosts[host].name.clone();
        let state = &self.truth.state;
        let has_device = state.policies.levels_of(&name).iter().any(FenceLevel::has_device);
        let waited_for = state.guests_of(&name).next().is_some();
        if !waited_for || !has_device || host < self.voters.len() {
            self.power_off(host, None);
            if !waited_for || host < self.voters.len() {
                self.power_on_after(host, 6_000);
            }
        }
    }
}
