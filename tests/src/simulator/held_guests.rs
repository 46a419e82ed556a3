//! Guests that cease to answer together (S8, S9): what has one cause outside of them is waited for, and what has not is helped all the
//! same, later (L1). Their ladder begins with a reset here.

use holdfast_policies::{
    journal::Event,
    model::{OnDegraded, Rung, Severity},
    names::{Epoch, HostName},
    time::Span,
};

use super::{
    Ms,
    breaks::Break,
    faults::Happening,
    held_checks::HELD_MAX,
    setup::{Setup, a_guest_each, device, guest},
    world::World,
};

/// Hosts of a world, with a guest each; the first three of them vote.
const HOSTS: usize = 4;
/// Within which a guest is found to fail, started anew and found to be well.
const HELPED: Ms = 20_000;

fn world() -> World {
    let reset = Rung::ResetGuest { tries: 1, wait: Span::secs(6) };
    world_with(vec![reset, Rung::Page { severity: Severity::Critical }], None)
}

/// Everything is at rest.
fn world_with(ladder: Vec<Rung>, broken: Option<Break>) -> World {
    let mut policies = a_guest_each(HOSTS);
    let host = |index: usize| HostName::new(format!("hv-{index}")).unwrap();
    policies.fencing = (0..HOSTS).map(|index| (host(index), vec![device()])).collect();
    for policy in policies.policies.values_mut() {
        policy.on_degraded = OnDegraded::Alert;
        policy.ladder.clone_from(&ladder);
        policy.services.values_mut().for_each(|service| service.from.agree = 2);
    }
    let running = (0..HOSTS).map(|index| (guest(index), index)).collect();
    let setup = Setup { running, passes_remembered: true, broken, ..Setup::plain(HOSTS, policies) };
    World::at_rest(&setup)
}

/// Lets a world go on in which nothing is left out, however calm it is: one in which hosts alone get no answers looks calm before they
/// say so.
pub(super) fn go_on(world: &mut World, time: Ms) {
    for _ in 0..time / 500 {
        world.rest_since = None;
        world.run_until(world.real() + 500);
    }
    assert_eq!(world.violation(), None);
}

fn comes_to_rest(world: &mut World) {
    world.run_until(world.real() + HELPED);
    assert!(world.is_at_rest() && !is_held(world), "{:?}: {}", world.violation(), world.why_not_at_rest());
}

fn is_held(world: &World) -> bool {
    world.state().open_incident("service_storm").is_some()
}

fn rungs(world: &World) -> usize {
    world.state().journal.entries().filter(|entry| matches!(entry.what, Event::RungTaken { .. })).count()
}

fn epochs(world: &World) -> Vec<Epoch> {
    world.state().guests.values().filter_map(|guest| guest.home().map(|home| home.epoch)).collect()
}

#[test]
fn a_network_of_guests_that_is_lost_and_found_costs_no_guest_its_life() {
    let mut world = world();
    let before = epochs(&world);
    // No host gets an answer of any guest over the network; each of them hears the others, and its own guest from inside.
    for host in 0..HOSTS {
        for index in (0..HOSTS).filter(|index| *index != host) {
            world.happen(&Happening::Blind { host, guest: guest(index), time: 120_000 });
        }
    }
    go_on(&mut world, 100_000);
    assert!(is_held(&world), "somebody is called");
    go_on(&mut world, 40_000);
    comes_to_rest(&mut world);
    assert_eq!((epochs(&world), rungs(&world)), (before, 0), "nothing was done to them");
}

#[test]
fn what_all_guests_share_costs_none_of_them_its_life_while_it_does_not_work() {
    for everywhere in [false, true] {
        let mut world = world();
        let before = epochs(&world);
        share_trouble(&mut world, everywhere);
        // All machines are well meanwhile, and yet the world is not at rest.
        world.run_until(world.real() + 100_000);
        assert!(is_held(&world) && world.seen.held > 0, "everywhere: {everywhere}");
        world.run_until(world.real() + 40_000);
        comes_to_rest(&mut world);
        assert_eq!((epochs(&world), rungs(&world)), (before, 0), "everywhere: {everywhere}");
    }
}

#[test]
fn a_brain_that_holds_nobody_is_refused_by_the_checker_that_counts_by_itself() {
    for broken in [None, Some(Break::S9Services)] {
        let restart = Rung::RestartService { run: vec!["restart".to_owned()], tries: 1, wait: Span::secs(3) };
        let mut world = world_with(vec![restart, Rung::ResetGuest { tries: 1, wait: Span::secs(6) }], broken);
        share_trouble(&mut world, true);
        world.run_until(world.real() + HELPED);
        assert_eq!(rungs(&world), HOSTS, "their services are restarted, and nothing more is done");
        assert_eq!(world.violation().is_some(), broken.is_some(), "{:?}", world.violation());
        assert!(world.violation().is_none_or(|violation| violation.what.contains("S9")), "{:?}", world.violation());
    }
}

/// Two minutes in which nobody gets an answer of any guest over the network.
fn share_trouble(world: &mut World, everywhere: bool) {
    world.happen(&Happening::CommonCause { guests: (0..HOSTS).map(guest).collect(), everywhere, time: 120_000 });
}

#[test]
fn guests_that_hang_together_are_held_for_minutes_and_helped_then() {
    let mut world = world();
    for index in 0..3 {
        world.happen(&Happening::GuestHangs { guest: guest(index) });
    }
    go_on(&mut world, HELD_MAX - HELPED);
    assert_eq!((rungs(&world), is_held(&world)), (0, true));
    go_on(&mut world, 2 * HELPED);
    assert_eq!(rungs(&world), 3, "each of them is reset once");
    go_on(&mut world, HELPED);
    comes_to_rest(&mut world);
}

#[test]
fn two_guests_that_hang_are_helped_at_once() {
    let mut world = world();
    for index in 0..2 {
        world.happen(&Happening::GuestHangs { guest: guest(index) });
    }
    go_on(&mut world, HELPED);
    assert_eq!((rungs(&world), is_held(&world)), (2, false));
    go_on(&mut world, HELPED);
    comes_to_rest(&mut world);
}
