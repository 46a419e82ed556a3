//! What must hold of fences, each in a world of its own that is driven by hand; random worlds meet all of it in between other
//! faults. The lab has the same with real guests, controllers and power: `fencing.rs`, `watchdog.rs`, `in_turn/hosts.rs`
//! and `in_turn/migrate.rs` of `tests/tests/`.

use holdfast_policies::{
    journal::Event,
    model::OnDegraded,
    names::{GuestName, HostName},
    state::{Life, Phase},
};

use super::{
    Ms,
    device::Device,
    faults::Happening,
    guest::Vm,
    setup::{Setup, a_guest_each, device, guest},
    world::World,
};

/// Hosts of a world; the first three of them vote.
const HOSTS: usize = 4;
/// The host without a vote, which never coordinates.
const MEMBER: usize = 3;
/// How long is watched what must not happen: several attempts to fence fall into it.
const STAY: Ms = 60_000;
/// Within which everything is at rest again, the longest that an attempt may count (R20) included.
const REST: Ms = 120_000;
/// How often a world is looked at that is waited for.
const LOOK: Ms = 10;

fn host(index: usize) -> HostName {
    HostName::new(format!("hv-{index}")).unwrap()
}

/// Hosts with a power device and a guest each; everything is at rest.
fn world() -> World {
    let mut policies = a_guest_each(HOSTS);
    policies.fencing = (0..HOSTS).map(|index| (host(index), vec![device()])).collect();
    for policy in policies.policies.values_mut() {
        // One host that is cut off from another accuses no guest.
        policy.on_degraded = OnDegraded::Alert;
        policy.services.values_mut().for_each(|service| service.from.agree = 2);
    }
    let mut setup = Setup::plain(HOSTS, policies);
    setup.running = (0..HOSTS).map(|index| (guest(index), index)).collect();
    World::at_rest(&setup)
}

fn go_on(world: &mut World, time: Ms) {
    world.run_until(world.real() + time);
    assert_eq!(world.violation(), None);
}

fn wait_for(world: &mut World, what: &str, is_so: impl Fn(&World) -> bool) {
    let limit = world.real() + REST;
    while !is_so(world) {
        assert!(world.real() < limit, "not within {REST} ms: {what}; {}", world.why_not_at_rest());
        go_on(world, LOOK);
    }
}

fn rests(world: &mut World) {
    go_on(world, REST);
    assert!(world.is_at_rest(), "{}", world.why_not_at_rest());
}

/// Where a guest runs.
fn homes(world: &World, guest: &GuestName) -> Vec<usize> {
    let runs = |index: &usize| world.hosts[*index].machines.get(guest).is_some_and(|vm| vm.state == Vm::Running);
    (0..HOSTS).filter(runs).collect()
}

fn count(world: &World, is_meant: impl Fn(&Event) -> bool) -> usize {
    world.state().journal.entries().filter(|entry| is_meant(&entry.what)).count()
}

/// The orders to switch a host off so far.
fn ordered(world: &World, index: usize) -> usize {
    count(world, |event| matches!(event, Event::FenceOrdered { host: of, .. } if *of == host(index)))
}

/// By which kinds of proof a host was gone so far.
fn proven(world: &World, index: usize) -> Vec<&'static str> {
    let proofs = world.state().journal.entries().filter_map(|entry| match &entry.what {
        Event::HostGone { host: gone, proof, .. } if *gone == host(index) => Some(proof.word()),
        _ => None,
    });
    proofs.collect()
}

/// How many incidents ask a person to look whether a host is off.
fn asking(world: &World) -> usize {
    let asks = |human: &String| human.contains("host confirm-off");
    world.state().incidents.values().filter(|incident| incident.human.as_ref().is_some_and(asks)).count()
}

/// That the guest of a host which cannot be proven off stays where it is, and one person is called once.
fn stays_and_one_person_is_asked(world: &mut World, index: usize) {
    go_on(world, STAY);
    assert!(ordered(world, index) > 0, "it was tried to switch it off");
    assert_eq!((proven(world, index).len(), asking(world)), (0, 1), "{:?}", world.state().incidents);
    assert!(homes(world, &guest(index)).iter().all(|home| *home == index), "started without proof");
}

/// The same of a host that is off, whose guest a person then frees.
fn waits_for_a_person(world: &mut World, index: usize) {
    stays_and_one_person_is_asked(world, index);
    world.happen(&Happening::ConfirmOff { host: index });
    rests(world);
    assert_eq!(proven(world, index), ["operator"]);
    assert!(!homes(world, &guest(index)).is_empty());
}

#[test]
fn a_host_without_a_lease_level_that_dies_with_its_power_device_waits_for_one_persons_word() {
    let mut world = world();
    world.happen(&Happening::PowerAndDeviceLost { host: MEMBER, back: None });
    waits_for_a_person(&mut world, MEMBER);
}

#[test]
fn all_power_devices_behind_one_dead_switch_cost_nothing_but_one_call_for_the_host_that_dies() {
    let mut world = world();
    for index in 0..HOSTS {
        world.happen(&Happening::DeviceIs { host: index, device: Device::Unreachable });
    }
    go_on(&mut world, STAY);
    assert_eq!(asking(&world), 0, "nothing has failed yet");
    world.happen(&Happening::PowerCut { host: MEMBER, back: None });
    waits_for_a_person(&mut world, MEMBER);
    assert_eq!(count(&world, |event| matches!(event, Event::HostFailed { .. })), 1);
}

#[test]
fn a_power_device_that_says_it_has_switched_a_host_off_and_has_not_starts_nothing_elsewhere() {
    let mut world = world();
    world.happen(&Happening::DeviceIs { host: MEMBER, device: Device::Lying });
    world.happen(&Happening::Freeze { host: MEMBER, time: STAY + 5_000 });
    stays_and_one_person_is_asked(&mut world, MEMBER);
    rests(&mut world);
    assert_eq!((homes(&world, &guest(MEMBER)), world.hosts[MEMBER].boot), (vec![MEMBER], 1), "it has gone on");
}

#[test]
fn an_executor_that_dies_between_an_off_and_its_report_costs_no_second_off_also_where_the_host_is_back_at_once() {
    let mut world = world();
    // It accepts, and acts seconds later.
    world.happen(&Happening::DeviceIs { host: MEMBER, device: Device::Late });
    world.happen(&Happening::Freeze { host: MEMBER, time: 10 * REST });
    let has_sent = |world: &World, index: usize| {
        let mut jobs = world.hosts[index].supervisor.iter().flat_map(|supervisor| &supervisor.jobs);
        jobs.any(|job| job.shot)
    };
    wait_for(&mut world, "an off that was sent", |world| (0..HOSTS).any(|index| has_sent(world, index)));
    let executor = (0..HOSTS).find(|index| has_sent(&world, *index)).unwrap();
    world.happen(&Happening::SupervisorCrash { host: executor, back: 15_000 });
    wait_for(&mut world, "the off", |world| !world.hosts[MEMBER].on);
    world.happen(&Happening::DeviceIs { host: MEMBER, device: Device::Good });
    world.power_on_after(MEMBER, 1_000);
    rests(&mut world);
    assert_eq!((ordered(&world, MEMBER), world.hosts[MEMBER].boot), (1, 2), "its next boot was not shot");
    assert_eq!(world.state().hosts[&host(MEMBER)].life, Life::Up);
}

#[test]
fn a_host_that_returns_while_it_is_being_fenced_joins_when_no_off_can_be_on_its_way() {
    let mut world = world();
    world.happen(&Happening::DeviceIs { host: MEMBER, device: Device::Slow });
    world.happen(&Happening::Freeze { host: MEMBER, time: 10 * REST });
    wait_for(&mut world, "an attempt", |world| ordered(world, MEMBER) > 0);
    // Somebody resets it by hand.
    world.happen(&Happening::PowerCut { host: MEMBER, back: Some(1_000) });
    let boot = |world: &World| world.state().hosts[&host(MEMBER)].facts.incarnation.clone();
    let before = boot(&world);
    wait_for(&mut world, "its next boot to join", |world| boot(world) != before);
    assert_eq!(world.state().fence_under_way(&host(MEMBER)), None);
    rests(&mut world);
    assert_eq!(world.hosts[MEMBER].boot, 2, "nothing has shot it");
}

#[test]
fn two_hosts_that_suspect_each_other_and_nobody_else_does_fence_nobody() {
    let mut world = world();
    let lead = world.coordinator().unwrap();
    let voter = (0..MEMBER).find(|voter| *voter != lead).unwrap();
    for (one, other) in [(lead, voter), (lead, MEMBER), (voter, MEMBER)] {
        world.happen(&Happening::Link { one, other, time: 20_000 });
        rests(&mut world);
    }
    let blames = |event: &Event| matches!(event, Event::HostFailed { .. } | Event::FenceOrdered { .. });
    assert_eq!(count(&world, blames), 0);
    assert!(world.hosts.iter().all(|host| host.boot == 1 && host.on));
}

#[test]
fn a_coordinator_that_is_cut_off_is_fenced_by_the_others_and_fences_nobody() {
    let mut world = world();
    let lead = world.coordinator().unwrap();
    world.happen(&Happening::Cut { host: lead, time: STAY });
    rests(&mut world);
    assert_eq!(proven(&world, lead), ["power_off"]);
    assert!(!world.hosts[lead].on && ordered(&world, lead) > 0);
    let orders = count(&world, |event| matches!(event, Event::FenceOrdered { .. }));
    let by_it = |event: &Event| matches!(event, Event::FenceOrdered { executor, .. } if *executor == host(lead));
    assert_eq!((orders, count(&world, by_it)), (ordered(&world, lead), 0));
    assert!(homes(&world, &guest(lead)).iter().all(|home| *home != lead));
}

/// R29. Only that it is noticed: the product keeps to it.
#[test]
fn a_lead_that_is_handed_over_twice_in_a_minute_is_noticed() {
    let mut world = world();
    world.check_handed_over(0, 1);
    world.check_handed_over(1, 2);
    assert_eq!(world.violation(), None);
    world.check_handed_over(0, 2);
    assert_eq!(world.violation().map(|violation| violation.promise), Some("R29"));
}

#[test]
fn a_fence_of_the_source_or_the_target_of_a_move_leaves_the_guest_in_exactly_one_place() {
    for after in [0, 400, 900, 1_600] {
        for of_source in [true, false] {
            let mut world = world();
            let lead = world.coordinator().unwrap();
            let target = (0..MEMBER).find(|voter| *voter != lead).unwrap();
            let moves = guest(MEMBER);
            world.happen(&Happening::Move { guest: moves.clone(), to: target });
            wait_for(&mut world, "a move", |world| matches!(world.state().guests[&moves].phase, Phase::Migrating(_)));
            go_on(&mut world, after);
            let dies = if of_source { MEMBER } else { target };
            world.happen(&Happening::Freeze { host: dies, time: 10 * REST });
            go_on(&mut world, REST);
            let home = homes(&world, &moves);
            assert!(home.len() == 1 && home != [dies], "{after} ms, of source: {of_source}: {home:?}");
            // Where the move is over before, nothing of it is on its source any more.
            assert!(after > 0 || proven(&world, dies) == ["power_off"], "of source: {of_source}");
        }
    }
}
