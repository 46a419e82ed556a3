//! The lease as a fence, in the simulator: when guests are safe, to the moment, and how their host comes back.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "what a test's helper cannot do fails the test")]

use holdfast_policies::{
    model::{FenceLevel, LeaseLevel},
    names::HostName,
    state::{Life, Phase},
};
use holdfast_tests::simulator::{
    Happening, Setup, World,
    breaks::Break,
    guard::{GUARD_MS, Watchdog},
    oddities::{FASTEST, SLOWEST},
    setup::device,
};

/// The time-out of most watchdogs here.
const WATCHDOG_MS: u64 = 10_000;
/// From the last grant: a lease of 4 s, the guard, the watchdog, and 5 % of them for clocks.
const WAIT: u64 = (4_000 + GUARD_MS + WATCHDOG_MS) * 21 / 20;
/// A sync and a read round before the fault, and a round of deciding and a commit after the wait.
const SLACK: u64 = 800;

fn host(index: usize) -> HostName {
    HostName::new(format!("hv-{index}")).unwrap()
}

/// Four hosts with watchdogs that rely on their leases, after a power device where there is one; everything runs.
fn world(with_device: bool) -> World {
    let mut setup = Setup::plain(4, Setup::random(1, 4, 4, None).policies);
    setup.guarded = true;
    for index in 0..4 {
        setup.hosts[index].watchdog = Some(Watchdog { timeout: WATCHDOG_MS, is_virtual: false });
        let lease = FenceLevel::Lease(LeaseLevel::default());
        let levels = if with_device { vec![device(), lease] } else { vec![lease] };
        setup.policies.fencing.insert(host(index), levels);
    }
    World::at_rest(&setup)
}

/// A host with a guest that does not coordinate.
fn victim(world: &World) -> usize {
    let runs = |index: &usize| world.state().guests_of(&host(*index)).next().is_some();
    (0..4).filter(runs).find(|index| world.coordinator() != Some(*index)).unwrap()
}

/// When the host was proven gone, and by which kind of proof.
fn proven(world: &World, index: usize) -> Option<(u64, String)> {
    use holdfast_policies::journal::Event;
    world.state().journal.entries().rev().find_map(|entry| match &entry.what {
        Event::HostGone { host: gone, proof, .. } if *gone == host(index) => {
            Some((entry.at.0, proof.word().to_owned()))
        }
        _ => None,
    })
}

#[test]
fn a_host_that_dies_with_its_power_device_is_safe_exactly_by_lease_guard_and_watchdog() {
    let mut world = world(true);
    let index = victim(&world);
    let lost = world.real();
    world.happen(&Happening::PowerAndDeviceLost { host: index, back: None });
    world.run_until(lost + WAIT + 60_000);
    assert_eq!(world.violation(), None);
    let (at, proof) = proven(&world, index).unwrap();
    assert_eq!(proof, "lease_expired");
    let took = at - lost;
    assert!((WAIT - SLACK..=WAIT + SLACK).contains(&took), "it took {took} ms, not {WAIT}");
    let calls = world.state().incidents.values().any(|incident| incident.human.is_some());
    assert!(!calls, "nobody had to get up: {:?}", world.state().incidents);
    let all_run = world.state().guests.values().all(|guest| matches!(guest.phase, Phase::Running { .. }));
    assert!(all_run);
}

#[test]
fn a_power_device_that_answers_is_faster_than_the_lease() {
    let mut world = world(true);
    let index = victim(&world);
    let lost = world.real();
    world.happen(&Happening::PowerCut { host: index, back: None });
    world.run_until(lost + 10_000);
    let (at, proof) = proven(&world, index).unwrap();
    assert_eq!(proof, "power_off");
    assert!(at - lost < 3_000, "it took {} ms", at - lost);
}

#[test]
fn a_host_that_was_cut_off_stops_its_guests_and_is_back_without_a_reboot() {
    let mut world = world(false);
    let index = victim(&world);
    let guests: Vec<_> = world.state().guests_of(&host(index)).map(|(name, _)| name.clone()).collect();
    let (cut, boot) = (world.real(), world.hosts[index].boot);
    world.happen(&Happening::Cut { host: index, time: WAIT + 5_000 });
    world.run_until(cut + 4_000 + GUARD_MS + 500);
    let stopped = |world: &World, guest| {
        use holdfast_tests::simulator::guest::Vm;
        world.hosts[index].machines.get(guest).is_none_or(|machine| machine.state == Vm::Exited)
    };
    assert!(guests.iter().all(|guest| stopped(&world, guest)), "its guard has stopped them long before anybody knows");
    assert_eq!(proven(&world, index), None);
    world.run_until(cut + WAIT + SLACK);
    assert_eq!(proven(&world, index).unwrap().1, "lease_expired");
    world.run_until(cut + WAIT + 20_000);
    assert_eq!((world.violation(), world.hosts[index].boot), (None, boot));
    assert_eq!(world.state().hosts[&host(index)].life, Life::Up, "it is back, in the same boot");
    assert!(world.is_at_rest(), "{:?}", world.state().incidents);
}

#[test]
fn a_host_that_is_back_before_the_proof_starts_its_own_guests_again_and_climbs_no_rung() {
    let mut world = world(false);
    let index = victim(&world);
    let guests: Vec<_> = world.state().guests_of(&host(index)).map(|(name, _)| name.clone()).collect();
    let cut = world.real();
    world.happen(&Happening::Cut { host: index, time: 9_000 });
    world.run_until(cut + 40_000);
    assert_eq!((world.violation(), proven(&world, index)), (None, None));
    assert!(world.is_at_rest(), "{:?}", world.state().incidents);
    use holdfast_policies::journal::Event;
    let climbs = world.state().journal.entries().filter(|entry| match &entry.what {
        Event::RungTaken { guest, .. } => guests.contains(guest),
        _ => false,
    });
    let climbs: Vec<String> = climbs.map(|entry| format!("{:?}", entry.what)).collect();
    assert!(climbs.is_empty(), "its guests are not to blame: {climbs:?}");
}

#[test]
fn a_host_that_stands_still_is_reset_by_its_watchdog_before_it_counts_as_gone() {
    let mut world = world(false);
    let index = victim(&world);
    let (began, boot) = (world.real(), world.hosts[index].boot);
    world.happen(&Happening::Freeze { host: index, time: 120_000 });
    world.run_until(began + WAIT + 60_000);
    assert_eq!(world.violation(), None);
    assert!(world.hosts[index].boot > boot || !world.hosts[index].on, "the watchdog has fired");
    assert!(world.is_at_rest());
}

/// The host that does not vote, so that it never coordinates.
const SLOW: usize = 3;

/// Three hosts with fast clocks, and one with a slow clock, a slow watchdog of a minute, and a guest. It is cut off, and its guard
/// ends right before it would stop the guest: only the watchdog is left (R1, R9).
fn without_its_guard(broken: Option<Break>) -> World {
    let mut setup = Setup::plain(4, Setup::random(1, 4, 4, None).policies);
    (setup.guarded, setup.broken) = (true, broken);
    setup.drifts = vec![FASTEST, FASTEST, FASTEST, SLOWEST];
    for index in 0..SLOW {
        setup.policies.fencing.insert(host(index), vec![device()]);
    }
    setup.policies.fencing.insert(host(SLOW), vec![FenceLevel::Lease(LeaseLevel::default())]);
    setup.hosts[SLOW].watchdog = Some(Watchdog { timeout: 60_000, is_virtual: false });
    let guest = setup.policies.guests.keys().next().unwrap().clone();
    setup.running.insert(guest, SLOW);
    let mut world = World::at_rest(&setup);
    assert!(!world.hosts[SLOW].machines.is_empty(), "it runs something");
    let cut = world.real();
    world.happen(&Happening::Cut { host: SLOW, time: 90_000 });
    world.run_until(cut + 3_400);
    world.happen(&Happening::GuardDown { host: SLOW, time: 90_000 });
    world.run_until(cut + 70_000);
    world
}

#[test]
fn a_slow_watchdog_of_a_minute_has_fired_before_a_fast_coordinator_takes_its_host_for_gone() {
    let world = without_its_guard(None);
    assert_eq!(world.violation(), None);
    assert_eq!(proven(&world, SLOW).unwrap().1, "lease_expired");
    assert!(world.hosts[SLOW].boot > 1 || !world.hosts[SLOW].on, "the watchdog has fired");
}

#[test]
fn a_margin_on_the_lease_alone_does_not_cover_a_slow_watchdog_of_a_minute() {
    let world = without_its_guard(Some(Break::R1Watchdog));
    let broken = world.violation().unwrap();
    assert!(broken.promise == "S2" && broken.what.contains("by its lease"), "{broken:?}");
}
