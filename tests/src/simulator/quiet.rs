//! Quiet worlds: one failure after the other, nothing else wrong meanwhile, and every outage measured against the bound that
//! `explain` would have shown just before it (L1).
//!
//! The bound is taken twice: by the deadlines that people are shown, and by the simulator's own times of orders, power devices
//! and boots. The second is far shorter, and notices a wait that nobody has accounted for. In every other world clocks
//! drift, some starts are slow, and restarts of services may not help.

use std::{collections::BTreeMap, time::Duration};

use holdfast_policies::{
    bound::{Bound, Failure, Limits, StretchedBy, bounds},
    names::GuestName,
    state::ClusterState,
};
use serde::Serialize;

use super::{
    Ms,
    device::Device,
    faults::{Happening, Plan},
    guest::{ORDER_MAX, SEND_MAX, SLOW_START_MAX, UP_AFTER},
    random::Random,
    setup::Setup,
    world::{BOUND, World},
};

/// How often it is looked whether guests answer: outages are measured as that much longer at most.
const LOOK: Ms = 10;
/// How often it is looked whether everything is at rest again.
const REST_LOOK: Ms = 200;
/// A host stands still for longer than any wait for its fence.
const FROZEN: Ms = 600_000;
/// For so much longer than its bound an outage is watched, so that it is told how late it is.
const LATE: Ms = 10_000;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// A guest runs and does not answer.
    AppHangs,
    /// A guest's process ends, or its kernel panics.
    GuestEnds,
    /// A host that does not coordinate stands still.
    HostFreezes,
    /// A host that does not coordinate loses its power.
    HostLosesPower,
    /// The host that coordinates loses its power.
    CoordinatorLosesPower,
}

impl Fault {
    /// All of them, in the order in which a world meets them.
    pub const ALL: [Self; 5] =
        [Self::AppHangs, Self::GuestEnds, Self::HostFreezes, Self::HostLosesPower, Self::CoordinatorLosesPower];

    /// The words for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::AppHangs => "app hangs",
            Self::GuestEnds => "guest ends",
            Self::HostFreezes => "host freezes",
            Self::HostLosesPower => "host loses power",
            Self::CoordinatorLosesPower => "coordinator loses power",
        }
    }

    /// The failures of a bound that it is one of. Each of them that has a bound holds, so the shortest does.
    fn failures(self) -> &'static [Failure] {
        match self {
            Self::AppHangs => &[Failure::AppFailed],
            Self::GuestEnds => &[Failure::GuestDied],
            Self::HostFreezes => &[Failure::HostCutOff, Failure::ByLease],
            Self::HostLosesPower => &[Failure::HostDied, Failure::ByLease],
            Self::CoordinatorLosesPower => &[Failure::CoordinatorDied, Failure::ByLease],
        }
    }

    /// How long it lasts at most by these bounds, if this rung is what helps; `None` where a person is waited for.
    fn promised(self, bounds: &[Bound], rung: Option<&str>) -> Option<(Ms, Failure)> {
        let fitting = bounds.iter().filter(|bound| self.failures().contains(&bound.failure));
        let times = fitting.filter_map(|bound| {
            let within = rung.and_then(|rung| bound.helped_by(rung)).or(bound.within_ms)?;
            Some((within + self.stretch(bound), bound.failure))
        });
        times.min()
    }

    fn stretch(self, bound: &Bound) -> Ms {
        if self != Self::CoordinatorLosesPower {
            return 0;
        }
        let by = bound.stretched_by.iter().filter(|stretch| stretch.by == StretchedBy::Coordinator);
        by.filter_map(|stretch| stretch.by_ms).sum()
    }
}

/// One guest's outage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outage {
    /// The world.
    pub seed: u64,
    /// What went wrong.
    pub fault: Fault,
    /// Who did not answer.
    pub guest: GuestName,
    /// The rung that was taken last, if any.
    pub rung: Option<String>,
    /// Its host's lease is what proves it gone soonest.
    pub by_lease: bool,
    /// How long it lasted.
    pub lasted_ms: Ms,
    /// The bound that `explain` shows.
    pub explained_ms: Ms,
    /// The same bound by the simulator's own times.
    pub expected_ms: Ms,
}

impl Outage {
    /// Whether it was over within both bounds.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.lasted_ms <= self.explained_ms && self.lasted_ms <= self.expected_ms
    }
}

/// The outages of one world, in which everything else works.
///
/// # Errors
/// A promise that was broken, or what did not come to rest after a failure, in words.
pub fn run(seed: u64) -> Result<Vec<Outage>, String> {
    run_with(seed, Device::Good)
}

/// The same with power devices that are like this.
///
/// # Errors
/// As for [`run`].
pub fn run_with(seed: u64, device: Device) -> Result<Vec<Outage>, String> {
    let chance = seed.is_multiple_of(2);
    let setup = Setup { chance, ..Setup::random(seed, 3, 9, None) };
    let mut random = Random::new(seed, 8);
    let mut world = World::new(&setup, Plan::new());
    for host in 0..setup.hosts.len() {
        world.happen(&Happening::DeviceIs { host, device });
    }
    rest(&mut world)?;
    let mut outages = Vec::new();
    for fault in Fault::ALL {
        let Some(aim) = aim(fault, &world, &mut random) else { continue };
        outages.extend(strike(&mut world, seed, fault, &aim).map_err(|why| format!("{}: {why}", fault.word()))?);
        rest(&mut world).map_err(|why| format!("after {}: {why}", fault.word()))?;
    }
    Ok(outages)
}

/// What came of outages, as a table: for each fault the one that came closest to the tighter of its bounds.
#[must_use]
pub fn table(outages: &[Outage]) -> String {
    let row = |cells: [&str; 5]| {
        let [fault, count, lasted, expected, explained] = cells;
        format!("{fault:<24}{count:>8}{lasted:>12}{expected:>12}{explained:>12}\n")
    };
    let mut text = row(["failure", "outages", "lasted ms", "expected", "explained"]);
    for fault in Fault::ALL {
        let of = || outages.iter().filter(move |outage| outage.fault == fault);
        let share = |outage: &&Outage| outage.lasted_ms * 1_000 / outage.expected_ms.max(1);
        if let Some(worst) = of().max_by_key(share) {
            let [lasted, expected, explained] =
                [worst.lasted_ms, worst.expected_ms, worst.explained_ms].map(|ms| ms.to_string());
            text += &row([fault.word(), &of().count().to_string(), &lasted, &expected, &explained]);
        }
    }
    text
}

/// Where a failure strikes.
struct Aim {
    what: Happening,
    /// The guests that cease to answer.
    guests: Vec<GuestName>,
    /// The host that fails.
    host: Option<usize>,
}

/// Chooses whom to strike; `None` where nobody fits, such as hosts that only a person can prove off.
fn aim(fault: Fault, world: &World, random: &mut Random) -> Option<Aim> {
    match fault {
        Fault::AppHangs | Fault::GuestEnds => {
            let guests: Vec<&GuestName> = world.state().guests.keys().collect();
            let guest = guests.get(random.index(guests.len())).copied()?.clone();
            let what = match (fault, random.one_in(2)) {
                (Fault::AppHangs, _) => Happening::GuestHangs { guest: guest.clone() },
                (_, true) => Happening::GuestExits { guest: guest.clone() },
                (_, false) => Happening::GuestPanics { guest: guest.clone() },
            };
            Some(Aim { what, guests: vec![guest], host: None })
        }
        Fault::HostFreezes | Fault::HostLosesPower | Fault::CoordinatorLosesPower => {
            let leads = world.coordinator()?;
            let wants = |host: &usize| (*host == leads) == (fault == Fault::CoordinatorLosesPower);
            let hosts = (0..world.hosts.len()).filter(wants).filter(|host| is_promised(fault, world, *host));
            let hosts: Vec<usize> = hosts.collect();
            let host = hosts.get(random.index(hosts.len())).copied()?;
            let what = match fault {
                Fault::HostFreezes => Happening::Freeze { host, time: FROZEN },
                _ => Happening::PowerCut { host, back: None },
            };
            Some(Aim { what, guests: world.answering_on(host), host: Some(host) })
        }
    }
}

/// Whether the host runs guests, and all of them come back without a person.
fn is_promised(fault: Fault, world: &World, host: usize) -> bool {
    let guests = world.answering_on(host);
    let comes_back = |guest: &GuestName| fault.promised(&world.bounds(guest, &Limits::default()), None).is_some();
    !guests.is_empty() && guests.iter().all(comes_back)
}

fn strike(world: &mut World, seed: u64, fault: Fault, aim: &Aim) -> Result<Vec<Outage>, String> {
    let own = own_limits(world);
    let mut promises = BTreeMap::new();
    for guest in &aim.guests {
        promises.insert(guest.clone(), (world.bounds(guest, &Limits::default()), world.bounds(guest, &own)));
    }
    let longest = promises.values().filter_map(|(explained, _)| fault.promised(explained, None)).max();
    let (longest, _) = longest.ok_or("nothing is promised")?;
    let lasted = lasted(world, aim, longest + LATE)?;
    if let Some(host) = aim.host {
        world.power_on_after(host, 1_000);
    }
    let mut outages = Vec::new();
    for (guest, (explained, expected)) in promises {
        let rung = world.newest_rung(&guest);
        let promised = |bounds: &[Bound]| fault.promised(bounds, rung.as_deref()).ok_or("nothing is promised");
        let ((explained_ms, _), (expected_ms, by)) = (promised(&explained)?, promised(&expected)?);
        let lasted_ms = lasted.get(&guest).copied().unwrap_or(longest + LATE);
        let by_lease = by == Failure::ByLease;
        outages.push(Outage { seed, fault, guest, rung, by_lease, lasted_ms, explained_ms, expected_ms });
    }
    Ok(outages)
}

/// Has it happen, and waits until all guests answer again; who does not within `limit` is left out.
fn lasted(world: &mut World, aim: &Aim, limit: Ms) -> Result<BTreeMap<GuestName, Ms>, String> {
    let began = world.real();
    world.happen(&aim.what);
    if let Some(guest) = aim.guests.iter().find(|guest| world.is_answered(guest)) {
        return Err(format!("{guest} answers all the same"));
    }
    let mut lasted = BTreeMap::new();
    while lasted.len() < aim.guests.len() && world.real() < began + limit && !world.is_over() {
        world.run_until(world.real() + LOOK);
        for guest in aim.guests.iter().filter(|guest| world.is_answered(guest)) {
            lasted.entry(guest.clone()).or_insert(world.real() - began);
        }
    }
    no_violation(world)?;
    Ok(lasted)
}

/// Waits until everything is at rest, however the world began or whatever has failed.
fn rest(world: &mut World) -> Result<(), String> {
    let limit = world.real() + BOUND;
    while !world.is_at_rest() {
        no_violation(world)?;
        if world.real() >= limit {
            return Err(format!("not at rest {} s later: {}", BOUND / 1_000, world.why_not_at_rest()));
        }
        world.run_until(world.real() + REST_LOOK);
    }
    Ok(())
}

fn no_violation(world: &World) -> Result<(), String> {
    world.violation().map_or(Ok(()), |violation| Err(format!("{violation:?}")))
}

/// The simulator's own times. They are known, so that nothing hides behind a deadline.
pub(super) fn own_limits(world: &World) -> Limits {
    let ms = Duration::from_millis;
    let order = ms(ORDER_MAX);
    Limits {
        command: order,
        start: ms(if world.chance { SLOW_START_MAX } else { ORDER_MAX }),
        stop: order,
        send: Some(ms(SEND_MAX)),
        // A question takes 300 ms at most, and an order that switches as long as any other.
        device: Some(order),
        boot: Some(ms(UP_AFTER)),
    }
}

impl World {
    /// What `explain` shows of a guest at this moment, by these limits.
    fn bounds(&self, guest: &GuestName, limits: &Limits) -> Vec<Bound> {
        bounds(self.state(), guest, &self.timing, limits)
    }

    /// Whether the guest's service answers anywhere.
    fn is_answered(&self, guest: &GuestName) -> bool {
        let answers = |host: &super::host::Host| {
            host.machines.get(guest).is_some_and(|machine| host.answers(guest, machine.epoch, self.now))
        };
        self.hosts.iter().any(answers)
    }

    fn answering_on(&self, host: usize) -> Vec<GuestName> {
        let host = &self.hosts[host];
        let answers =
            |(guest, machine): &(&GuestName, &super::guest::Machine)| host.answers(guest, machine.epoch, self.now);
        host.machines.iter().filter(answers).map(|(guest, _)| guest.clone()).collect()
    }

    /// The rung that was taken last for a guest, as its newest incident tells.
    fn newest_rung(&self, guest: &GuestName) -> Option<String> {
        let key = ClusterState::guest_key(guest);
        let incidents = self.state().incidents.values().filter(|incident| incident.key == key);
        incidents.max_by_key(|incident| incident.id)?.rung.clone()
    }
}
