//! What goes wrong in random worlds: a plan made from the seed before the run begins, so that single happenings can be left out of
//! it.

use holdfast_policies::{
    names::GuestName,
    state::{Mode, Wanted},
};

use super::{
    Ms,
    breaks::Break,
    device::Device,
    faults::{Happening, Moment, Plan, heals},
    random::Random,
    setup::Setup,
};

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
    let bursts = heals(&plan);
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
        // The last grant is the dead coordinator's, and nobody else knows of it.
        Break::R18Lease => vec![
            (0, Happening::Cut { host, time: 20_000 }),
            (random.between(20, 200), Happening::CoordinatorCrash { back: random.between(300, 9_000) }),
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
        // It answers all the time.
        Break::S5 => {
            let time = random.between(2_000, 6_000);
            (0..count).map(|host| (0, Happening::CannotAsk { host, guest: guest.clone(), time })).collect()
        }
        // Drawn by themselves, with what they take.
        Break::S9Services
        | Break::R1Watchdog
        | Break::R2
        | Break::R3
        | Break::R4
        | Break::R4News
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
        | Break::R25
        | Break::R26
        | Break::R27
        | Break::R27News => Vec::new(),
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
