//! What is odd about some worlds: power devices that call living hosts off, hosts with two power supplies, clocks that drift as far
//! apart as R1 allows, voters whose own link loses much, witnesses, hosts of an older version, budgets of fences, too little memory,
//! capacities that are not hard, guests that operators or other tools move, that reset themselves, that are left alone, or that hosts
//! cannot ask, many of which cease to answer at once, slow watchdogs, views that take their time, bad disks, majorities that are
//! lost for good, once or twice, and hosts that are revoked.
//! Each sort is drawn apart, in a third of the worlds, so that one more of them leaves all others what they are.

use holdfast_policies::{
    happened::{self, Happened},
    model::FenceLevel,
    names::{Epoch, GuestName},
    state::{Life, Wanted},
};

use super::{
    Ms, budgets,
    device::{Device, OUTLETS},
    faults::{Happening, Plan, heals},
    guest::Vm,
    host::Host,
    losses,
    random::Random,
    recoveries, revoked, scarcity, service_storms,
    setup::{self, Setup},
    slow_watchdogs, versions,
    world::World,
};

/// Streams of chance, by what is drawn from them.
const LIES: u64 = 8;
const OUTLET_FAULTS: u64 = 9;
const DRIFT: u64 = 10;
const MOVES_OUTSIDE: u64 = 11;
const LEFT_ALONE: u64 = 12;
const WITNESS: u64 = 13;
const LOSSY_LINKS: u64 = 14;
const OWN_RESETS: u64 = 15;
const BUDGETS: u64 = 17;
const SCARCITY: u64 = 18;
const SOFT_CAPACITIES: u64 = 19;
const RESETS_IN_A_ROW: u64 = 20;
pub(super) const SLOW_WATCHDOGS: u64 = 21;
const MOVES_ASKED: u64 = 22;
const CANNOT_ASK: u64 = 23;
const LARGE_VIEWS: u64 = 24;
const BAD_DISKS: u64 = 25;
pub(super) const RECOVERIES: u64 = 28;
pub(super) const REVOCATIONS: u64 = 29;
pub(super) const SERVICE_STORMS: u64 = 30;

/// How fast the slowest clock and the fastest go, of a thousand. Of any two clocks R1 trusts one to count no more than 5 %
/// faster than the other, whatever the true time is.
pub const SLOWEST: u64 = 976;
/// See [`SLOWEST`].
pub const FASTEST: u64 = 1_024;
const _: () = assert!(FASTEST * 100 <= SLOWEST * 105, "R1 covers 5 %");

/// A guest that reset itself is up again sooner, and has more time to boot by its policy.
const OWN_BOOT: Ms = 4_500;
/// A reset is told for so long, and so many of them.
const TOLD_FOR: Ms = 60_000;
const RESETS_TOLD: usize = 4;
/// More resets than these within the time that its policy gives it to boot as many times, and a guest may be helped at once.
const LET_PASS: usize = 3;
const OFTEN_WITHIN: Ms = 16_000;
/// Resets so soon after one another are in a row.
const IN_A_ROW: Ms = 4_000;

/// Nothing is drawn before: everything has to come to life first.
const CALM_FIRST: Ms = 20_000;

/// Gives a world what this file is about, and adds to its plan.
pub fn draw(setup: &mut Setup, mut plan: Plan) -> Plan {
    let healed = heals(&plan);
    if let Some(random) = drawn(setup, DRIFT) {
        drift(setup, random);
    }
    if let Some(random) = drawn(setup, WITNESS) {
        witness(setup, random);
    }
    if let Some(mut random) = drawn(setup, OUTLET_FAULTS) {
        let fed = feed(setup, &mut random);
        plan.extend(healed.iter().flat_map(|healed| outlet_faults(&mut random, &fed, *healed)));
    }
    if let Some(mut random) = drawn(setup, LIES) {
        plan.extend(healed.iter().flat_map(|healed| lies(&mut random, setup, *healed)));
    }
    if let Some(mut random) = drawn(setup, LEFT_ALONE) {
        plan.extend(healed.iter().map(|healed| left_alone(&mut random, setup, *healed)));
    }
    if let Some(mut random) = drawn(setup, MOVES_ASKED) {
        plan.extend(healed.iter().flat_map(|healed| moves_asked(&mut random, setup, *healed)));
    }
    if let Some(mut random) = drawn(setup, LOSSY_LINKS) {
        setup.lossy_links = true;
        plan.extend(healed.iter().map(|healed| lossy_link(&mut random, setup, *healed)));
    }
    let mut plan = versions::draw(setup, plan);
    // An older version knows of nobody who lets a fence go on, and would halt there.
    if let Some(mut random) = drawn(setup, BUDGETS).filter(|_| setup.old.is_empty()) {
        plan = budgets::draw(setup, &mut random, plan);
    }
    plan.sort_by_key(|(at, _)| *at);
    if let Some(mut random) = drawn(setup, MOVES_OUTSIDE) {
        let moves: Plan = begins(&plan).into_iter().map(|begun| moves_outside(&mut random, setup, begun)).collect();
        plan.extend(moves);
        plan.sort_by_key(|(at, _)| *at);
    }
    if let Some(mut random) = drawn(setup, OWN_RESETS) {
        let resets: Plan = begins(&plan).into_iter().map(|begun| own_reset(&mut random, setup, begun)).collect();
        plan.extend(resets);
        plan.sort_by_key(|(at, _)| *at);
    }
    if let Some(mut random) = drawn(setup, RESETS_IN_A_ROW) {
        let resets: Plan =
            begins(&plan).into_iter().flat_map(|begun| resets_in_a_row(&mut random, setup, begun)).collect();
        plan.extend(resets);
        plan.sort_by_key(|(at, _)| *at);
    }
    if let Some(mut random) = drawn(setup, CANNOT_ASK) {
        plan.extend(healed.iter().flat_map(|healed| cannot_ask(&mut random, setup, *healed)));
        plan.sort_by_key(|(at, _)| *at);
    }
    // After the others, which draw from the guests that there are.
    if let Some(mut random) = drawn(setup, SCARCITY) {
        scarcity::draw(setup, &mut random);
    }
    if let Some(mut random) = drawn(setup, SOFT_CAPACITIES) {
        scarcity::soften(setup, &mut random);
    }
    if let Some(mut random) = drawn(setup, SERVICE_STORMS) {
        plan = service_storms::draw(setup, &mut random, plan);
    }
    if let Some(mut random) = drawn(setup, SLOW_WATCHDOGS).filter(|_| setup.guarded) {
        plan = slow_watchdogs::draw(setup, &mut random, plan);
    }
    setup.large_views = drawn(setup, LARGE_VIEWS).is_some();
    setup.bad_disks = drawn(setup, BAD_DISKS).is_some();
    if let Some(mut random) = drawn(setup, RECOVERIES) {
        plan = losses::draw(setup, recoveries::draw(setup, &mut random, plan));
    }
    if let Some(mut random) = drawn(setup, REVOCATIONS) {
        plan = revoked::draw(setup, &mut random, plan);
    }
    plan
}

/// The stream of a sort, in the worlds that have it.
fn drawn(setup: &Setup, salt: u64) -> Option<Random> {
    let mut random = Random::new(setup.seed, salt);
    random.one_in(3).then_some(random)
}

/// When each burst of faults begins.
fn begins(plan: &[(Ms, Happening)]) -> Vec<Ms> {
    let bursts = plan.split(|(_, what)| matches!(what, Happening::Heal));
    bursts.filter_map(|burst| burst.first().map(|(at, _)| *at)).collect()
}

/// Most clocks are at one end or the other, where they are furthest apart.
fn drift(setup: &mut Setup, mut random: Random) {
    setup.drifts = (0..setup.hosts.len())
        .map(|_| match random.below(3) {
            0 => SLOWEST,
            1 => FASTEST,
            _ => random.between(SLOWEST, FASTEST + 1),
        })
        .collect();
}

/// A voter runs no guests. Where there are rules about places, three voters that do are left: so many those can be kept by.
fn witness(setup: &mut Setup, mut random: Random) {
    let host = random.index(setup.voters);
    let enough = setup.voters > 3 || (setup.hosts.len() > 3 && setup.policies.hosts.is_empty());
    if enough && !setup.running.values().any(|on| *on == host) {
        setup.hosts[host].guests = false;
    }
}

/// Gives some hosts two power supplies, each at an outlet: as their power devices, or after their BMC. Which have them.
fn feed(setup: &mut Setup, random: &mut Random) -> Vec<usize> {
    let mut fed = Vec::new();
    for (index, host) in setup.hosts.iter().enumerate() {
        let Some(levels) = setup.policies.fencing.get_mut(&host.name) else { continue };
        let Some(bmc) = levels.iter().position(FenceLevel::has_device) else { continue };
        match random.below(3) {
            0 => continue,
            1 => levels[bmc] = setup::outlets(),
            _ => levels.insert(bmc + 1, setup::outlets()),
        }
        fed.push(index);
    }
    fed
}

/// One outlet does not do what it should, and its host stands still for so long that it is to be switched off by both.
fn outlet_faults(random: &mut Random, fed: &[usize], healed: Ms) -> Plan {
    if fed.is_empty() {
        return Plan::new();
    }
    let host = fed[random.index(fed.len())];
    let at = before(random, healed, 8_000, 24_000);
    let devices = [Device::Good, Device::Unreachable, Device::Lying, Device::Wrong];
    let device = devices[random.index(devices.len())];
    let fault = Happening::OutletIs { host, outlet: random.index(OUTLETS), device };
    vec![(at, fault), (at + 100, Happening::Freeze { host, time: random.between(8_000, 40_000) })]
}

/// A power device calls its host off, which is not heard for a moment: too short to be suspected, and long enough that the
/// device is asked. Some of these hosts really fail later, when their device is not trusted any more.
fn lies(random: &mut Random, setup: &Setup, healed: Ms) -> Plan {
    let mut plan = Plan::new();
    for _ in 0..random.between(1, 4) {
        let host = random.index(setup.hosts.len());
        let at = before(random, healed, 14_000, 30_000);
        plan.push((at, Happening::DeviceIs { host, device: Device::Wrong }));
        plan.push((at + 50, Happening::Cut { host, time: random.between(850, 1_450) }));
        let later = at + random.between(11_000, 13_500);
        if random.one_in(2) && later < healed {
            plan.push((
                later,
                Happening::PowerCut { host, back: random.one_in(2).then(|| random.between(500, 9_000)) },
            ));
        }
    }
    plan
}

/// A voter's own link loses more than the third from which on it doubts itself, for longer than it takes to find out.
fn lossy_link(random: &mut Random, setup: &Setup, healed: Ms) -> (Ms, Happening) {
    let (host, loss) = (random.index(setup.voters), random.between(340, 600));
    let at = before(random, healed, 6_000, 24_000);
    (at, Happening::BadNetwork { host, time: random.between(8_000, 30_000), loss, late: random.between(5, 50) })
}

fn left_alone(random: &mut Random, setup: &Setup, healed: Ms) -> (Ms, Happening) {
    let at = before(random, healed, 2_000, 22_000);
    (at, Happening::WantedIs { guest: any_guest(random, setup), wanted: Wanted::Unmanaged })
}

/// Operators move guests in the middle of it all: while they run where that is possible, or by a stop and a start.
fn moves_asked(random: &mut Random, setup: &Setup, healed: Ms) -> Plan {
    let mut plan = Plan::new();
    for _ in 0..random.between(1, 4) {
        let at = before(random, healed, 1_000, 24_000);
        let (guest, to) = (any_guest(random, setup), random.index(setup.hosts.len()));
        plan.push((at, Happening::MoveAsked { guest, to, cold: random.one_in(2) }));
    }
    plan
}

/// Some hosts cannot ask a guest's services for a while, or none of them can: that is no word against it (S5).
fn cannot_ask(random: &mut Random, setup: &Setup, healed: Ms) -> Plan {
    let guest = any_guest(random, setup);
    let (at, time) = (before(random, healed, 2_000, 24_000), random.between(2_000, 20_000));
    let all = random.one_in(2);
    let hosts: Vec<usize> = (0..setup.hosts.len()).filter(|_| all || random.one_in(2)).collect();
    hosts.into_iter().map(|host| (at, Happening::CannotAsk { host, guest: guest.clone(), time })).collect()
}

/// Other tools move guests only in a cluster that is at rest, some seconds before its next fault: what they move behind its
/// back while its hosts fail is nowhere that anybody has committed, and no promise covers that.
fn moves_outside(random: &mut Random, setup: &Setup, begun: Ms) -> (Ms, Happening) {
    let to = random.index(setup.hosts.len());
    (begun.saturating_sub(6_000), Happening::MovedByOthers { guest: any_guest(random, setup), to })
}

/// As long before the next fault, so that nothing else can be why its services do not answer.
fn own_reset(random: &mut Random, setup: &Setup, begun: Ms) -> (Ms, Happening) {
    (begun.saturating_sub(6_000), Happening::ResetsItself { guest: any_guest(random, setup) })
}

/// Some of them before the guest is up again, and now and then more than are let pass.
fn resets_in_a_row(random: &mut Random, setup: &Setup, begun: Ms) -> Plan {
    let guest = any_guest(random, setup);
    let mut at = begun.saturating_sub(26_000);
    let mut plan = vec![(at, Happening::ResetsItself { guest: guest.clone() })];
    for _ in 0..random.between(1, 5) {
        at += random.between(800, IN_A_ROW);
        plan.push((at, Happening::ResetsItselfAgain { guest: guest.clone() }));
    }
    plan
}

fn any_guest(random: &mut Random, setup: &Setup) -> GuestName {
    let guests: Vec<&GuestName> = setup.policies.guests.keys().collect();
    guests[random.index(guests.len())].clone()
}

pub(super) fn before(random: &mut Random, healed: Ms, least: Ms, most: Ms) -> Ms {
    healed.saturating_sub(random.between(least, most)).max(CALM_FIRST)
}

impl World {
    /// Another tool moves a guest that runs, in an instant, to a host that is well.
    pub(super) fn moved_by_others(&mut self, guest: &GuestName, to: usize) {
        let runs = |host: &usize| self.hosts[*host].machines.get(guest).is_some_and(|known| known.state == Vm::Running);
        let Some(from) = (0..self.named).find(runs).filter(|from| *from != to) else { return };
        let target = &self.hosts[to];
        let is_up = self.truth.state.hosts.get(&target.name).is_some_and(|known| known.life == Life::Up);
        let takes = target.serves(self.now) && target.facts.guests && !target.machines.contains_key(guest);
        if !is_up || !takes {
            return;
        }
        if let Some(machine) = self.hosts[from].machines.remove(guest) {
            self.hosts[to].machines.insert(guest.clone(), machine);
            self.seen.moved_outside += 1;
        }
        self.check_running(guest);
        self.sync_soon(from);
        self.sync_soon(to);
    }

    /// A guest resets itself, and takes a moment to boot.
    pub(super) fn resets_itself(&mut self, guest: &GuestName) {
        let now = self.now;
        let runs = |host: &usize| self.hosts[*host].machines.get(guest).is_some_and(|known| known.state == Vm::Running);
        let Some(host) = (0..self.named).find(runs) else { return };
        let boots = self.random.between(500, 2_500);
        let known = &mut self.hosts[host];
        if let Some(machine) = known.machines.get_mut(guest) {
            machine.since = now + boots;
            let resets = known.resets.entry(guest.clone()).or_default();
            resets.push((machine.epoch, now));
            let more = resets.len().saturating_sub(RESETS_TOLD);
            resets.drain(..more);
        }
        self.seen.own_resets += 1;
        self.sync_soon(host);
    }

    /// A guest that has reset itself while all was well does so again, whether it is up or not.
    pub(super) fn resets_itself_again(&mut self, guest: &GuestName) {
        let lately = |host: &Host| {
            let newest = host.resets.get(guest).and_then(|resets| resets.last());
            newest.is_some_and(|(_, at)| self.now - *at < IN_A_ROW)
        };
        if self.hosts.iter().any(lately) {
            self.seen.resets_in_a_row += 1;
            self.resets_itself(guest);
        }
    }

    /// S8: nothing is done to a guest that has reset itself and has not had its time to boot; unless it does so again and again.
    pub(super) fn check_climb(&mut self, guest: &GuestName) {
        let now = self.now;
        let boots = |host: &Host| {
            let Some(resets) = host.resets.get(guest) else { return false };
            let within = |time: Ms| resets.iter().filter(|(_, at)| now - *at < time).count();
            // One that has panicked or ended meanwhile boots no more.
            let runs = host.machines.get(guest).is_some_and(|known| known.state == Vm::Running);
            runs && within(OWN_BOOT) > 0 && within(OFTEN_WITHIN) <= LET_PASS
        };
        if self.hosts.iter().any(boots) {
            self.violate("S8", format!("something is done to {guest}, which boots after a reset of its own"));
        }
    }
}

impl Host {
    /// What it tells of what has happened to a guest lately.
    pub(super) fn told_of(&self, guest: &GuestName, epoch: Epoch, now: Ms) -> Vec<Happened> {
        let resets = self.resets.get(guest).into_iter().flatten();
        let told = resets.filter(|(under, at)| *under == epoch && now - *at < TOLD_FOR);
        let what = happened::Happening::Reset { watchdog: false };
        told.map(|(_, at)| Happened { ago_ms: now - *at, what: what.clone() }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::report::Options;

    #[test]
    fn what_is_odd_leaves_the_rest_of_a_world_as_it_was() {
        for seed in 1..200 {
            let (_, plan) = Options { oddities: false, ..Options::default() }.of(seed);
            let (_, odd) = Options::default().of(seed);
            let mut rest = odd.iter();
            assert!(plan.iter().all(|happening| rest.any(|other| other == happening)), "seed {seed}");
        }
    }

    #[test]
    fn clocks_drift_apart_by_as_much_as_is_allowed_and_by_no_more() {
        let drifts: Vec<Vec<u64>> = (1..200).map(|seed| Options::default().of(seed).0.drifts).collect();
        let apart = |drifts: &Vec<u64>| drifts.contains(&SLOWEST) && drifts.contains(&FASTEST);
        assert!(drifts.iter().any(apart) && drifts.iter().any(Vec::is_empty));
        assert!(drifts.iter().flatten().all(|drift| (SLOWEST..=FASTEST).contains(drift)));
    }
}
