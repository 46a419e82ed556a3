//! What goes wrong, and what operators do in the middle of it: a plan made from the seed before the run begins, so that
//! single happenings can be left out of it. What each of them does is in `happen.rs`.

use std::collections::BTreeSet;

use holdfast_policies::{
    change::Change,
    names::GuestName,
    state::{Mode, Wanted},
};

use super::{Ms, breaks::Break, device::Device, random::Random, setup::Setup};

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
    /// Whether this change makes it.
    pub(super) fn is(self, change: &Change) -> bool {
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
