//! Hosts that leave: a shutdown takes its time, in which guests leave first, and a host on standby in a snapshot is emptied.

use holdfast_policies::{
    change::Change,
    names::{GuestName, HostName},
    rules::Rule,
    state::{Guest, Mode, Phase, Wanted},
};

use super::{
    super::{
        build::is_drained,
        format::{Deed, Kind, Scenario},
        world::{World, ZERO},
    },
    Script,
};

/// How long a host that shuts down gives its guests to leave, in milliseconds; then they are stopped.
const SHUTDOWN_LIMIT: u64 = 240_000;
/// How long a host takes at least to shut down, in milliseconds.
const SHUTDOWN: u64 = 3_000;
/// How long a host on standby may have guests in a snapshot, in milliseconds.
const STANDBY_LIMIT: u64 = 150_000;
/// How long a host is off while it reboots, in milliseconds.
const REBOOT: u64 = 60_000;

/// A host that shuts down.
pub(super) struct Shutdown {
    pub(super) host: HostName,
    pub(super) reboot: bool,
    pub(super) since: u64,
}

impl Script {
    /// In a snapshot a host on standby can hold nothing, nor can one that shuts down: when the drain has had its time, the
    /// host announces to go, and what has found no other place is stopped.
    pub(super) fn end_standby(&mut self, world: &mut World, scenario: &Scenario) {
        if scenario.mode != Kind::Snapshot || world.now != ZERO + STANDBY_LIMIT {
            return;
        }
        for host in scenario.hosts.iter().filter(|host| is_drained(scenario, host)) {
            let Some(name) = world.names.host(&host.name).cloned() else { continue };
            if does_not_stop(world, &name) {
                stop_one_by_one(world, &name);
                continue;
            }
            for guest in left_on(world, &name).into_iter().filter(|guest| is_needed(world, guest)).collect::<Vec<_>>() {
                let by = "the scenario".to_owned();
                world.commit(Change::WantedSet { guest, wanted: Wanted::Stopped, by });
            }
            let (mode, by) = (Mode::Leaving { reboot: false }, "the scenario".to_owned());
            world.commit(Change::ModeSet { host: name, mode, by });
        }
    }

    /// Shutdowns take their course: guests leave first where the policy says so.
    pub(super) fn shut_down(&mut self, world: &mut World, scenario: &Scenario) {
        for shutdown in std::mem::take(&mut self.shutdowns) {
            let Some(index) = world.position(&shutdown.host) else { continue };
            let Some(node) = world.nodes.get(index).filter(|node| node.on) else { continue };
            let age = world.now - shutdown.since;
            let ours = |guest: &GuestName| {
                world.state.guests.get(guest).is_some_and(|known| known.wanted != Wanted::Unmanaged)
            };
            let empty = !node.machines.keys().any(ours);
            if age < SHUTDOWN || !(empty || age >= SHUTDOWN_LIMIT) {
                self.shutdowns.push(shutdown);
                continue;
            }
            world.stop_all(index);
            let back_on = shutdown.reboot.then_some(world.now + REBOOT);
            if let Some(node) = world.nodes.get_mut(index) {
                node.power_off();
                (node.orderly, node.back_on) = (true, back_on);
            }
            let host = Some(world.names.of_host(&shutdown.host));
            if scenario.mode == Kind::Timeline {
                world.tell(Deed { kind: "power-off".to_owned(), host, ..Default::default() });
            }
        }
    }
}

/// Whether a host has a guest that lets itself not be stopped. Nobody switches it off then.
fn does_not_stop(world: &World, host: &HostName) -> bool {
    let stops_there = |phase: &Phase| matches!(phase, Phase::Releasing { tenure, .. } if tenure.host == *host);
    let fails = |guest: &GuestName| world.faults.get(guest).is_some_and(|faults| faults.stop);
    world.state.guests.iter().any(|(name, guest)| stops_there(&guest.phase) && fails(name))
}

/// Has the guests of a host stopped that have no other place, in the order in which they do.
fn stop_one_by_one(world: &mut World, host: &HostName) {
    for guest in left_on(world, host) {
        world.commit(Change::WantedSet { guest, wanted: Wanted::Stopped, by: "the scenario".to_owned() });
    }
}

/// The guests that run on a host, are looked after, and have no other place, as people are told. Others are on their way.
fn left_on(world: &World, host: &HostName) -> Vec<GuestName> {
    let runs_here = |phase: &Phase| matches!(phase, Phase::Running { tenure, .. } if tenure.host == *host);
    let is_told = |name: &GuestName| world.state.open_incident(&format!("leave/{name}")).is_some();
    let here =
        |name: &GuestName, guest: &Guest| runs_here(&guest.phase) && guest.wanted == Wanted::Running && is_told(name);
    world.state.guests.iter().filter(|(name, guest)| here(name, guest)).map(|(name, _)| name.clone()).collect()
}

/// Whether another guest is up that does not run without this one: it would run on if this one just stopped.
fn is_needed(world: &World, guest: &GuestName) -> bool {
    let is_up = |then: &GuestName| world.state.guests.get(then).is_some_and(|known| !known.tenures().is_empty());
    world.state.policies.rules.values().any(|rule| match rule {
        Rule::Order { first, then, required: true, symmetrical: true } => first == guest && is_up(then),
        Rule::Order { .. } | Rule::Hosts { .. } | Rule::Together { .. } | Rule::Apart { .. } => false,
    })
}
