//! What people do for guests that are to go back, when the host is there again that a drain has taken them from.
//!
//! Holdfast takes nothing back by itself where no rule likes that host better: to have been there before is worth nothing to it. How
//! operators bring such guests back says `docs/OPERATING.md`. Of a guest with `failback` the scenario says that it is to go back. So
//! whoever has ended the drain moves it there, unless somebody has moved it elsewhere meanwhile. Where rules speak of hosts, going
//! back is Holdfast's own business; what has come elsewhere by a failure stays there.

use std::collections::BTreeMap;

use holdfast_policies::{
    change::Change,
    names::{GuestName, HostName},
    rules::Rule,
    state::{ClusterState, Guest, Mode, Phase, Wanted},
};

use super::{
    format::{Event, Kind, Scenario},
    world::World,
};

/// Guests that are away for as long as a drain takes.
#[derive(Debug, Default)]
pub struct Homeward {
    from: BTreeMap<GuestName, HostName>,
}

impl Homeward {
    /// Takes in what is about to happen: who has to leave its host for a while, and whom somebody moves.
    pub fn hear(&mut self, world: &World, scenario: &Scenario, event: &Event) {
        let guest = event.vm.as_ref().and_then(|vm| world.names.guest(vm));
        if let Some(guest) = guest.filter(|_| event.kind == "vm-move") {
            self.from.remove(guest);
        }
        let host = event.host.as_ref().and_then(|host| world.names.host(host));
        if let Some(host) = host.filter(|_| scenario.mode == Kind::Timeline && drains(scenario, event)) {
            self.leave(&world.state, host);
        }
    }

    /// Has a guest moved back whose host takes guests again, once nothing else moves. That is asked for once: a move that fails has
    /// its reason.
    pub fn step(&mut self, world: &mut World) {
        let state = &world.state;
        let decides = world.leader.is_some() && state.suspended.is_none();
        if self.from.is_empty() || !decides || state.guests.values().any(is_moving) {
            return;
        }
        self.from.retain(|guest, host| !is_over(state, guest, host));
        let due = self.from.iter().find(|(guest, host)| is_due(world, guest, host));
        let Some((guest, to)) = due.map(|(guest, host)| (guest.clone(), host.clone())) else { return };
        self.from.remove(&guest);
        let by = "whoever has ended the drain".to_owned();
        world.commit(Change::MoveAsked { guest, to, cold: false, by });
    }

    /// The guests of a host are away from now on. One that has left another host before is still away from that one.
    fn leave(&mut self, state: &ClusterState, host: &HostName) {
        let here = |known: &Guest| known.home().is_some_and(|home| home.host == *host);
        let leaving = state.guests.iter().filter(|(_, known)| known.wanted == Wanted::Running && here(known));
        for (guest, _) in leaving.filter(|(guest, _)| goes_back(state, guest)) {
            self.from.entry(guest.clone()).or_insert_with(|| host.clone());
        }
    }
}

/// Whether guests leave a host by the event, and nothing is wrong with the host.
fn drains(scenario: &Scenario, event: &Event) -> bool {
    match event.kind.as_str() {
        "maintenance-on" => true,
        "host-shutdown" | "host-reboot" => {
            matches!(scenario.cluster.shutdown_policy.as_deref(), Some("migrate" | "drain"))
        }
        _ => false,
    }
}

/// Whether the guest is to go back, and no rule says to which host.
fn goes_back(state: &ClusterState, guest: &GuestName) -> bool {
    let policies = &state.policies;
    let names = |rule: &Rule| match rule {
        Rule::Hosts { guests, .. } => guests.among(&policies.guests).contains(guest),
        Rule::Together { .. } | Rule::Apart { .. } | Rule::Order { .. } => false,
    };
    policies.guests.get(guest).is_some_and(|declared| declared.needs.failback) && !policies.rules.values().any(names)
}

/// Whether nobody has to bring the guest back any more: it is there, or nobody wants it to run.
fn is_over(state: &ClusterState, guest: &GuestName, host: &HostName) -> bool {
    let is_active = state.hosts.get(host).is_none_or(|known| known.mode == Mode::Active);
    state.guests.get(guest).is_none_or(|known| {
        let is_there = known.home().is_some_and(|home| home.host == *host);
        known.wanted != Wanted::Running || (is_active && is_there)
    })
}

/// Whether the guest runs elsewhere while its host would take it. Who has been moved outside is looked for first.
fn is_due(world: &World, guest: &GuestName, host: &HostName) -> bool {
    let away = world.state.guests.get(guest).and_then(|known| match &known.phase {
        Phase::Running { tenure, action: None, .. } => Some(&tenure.host).filter(|at| *at != host),
        Phase::Unplaced
        | Phase::Free { .. }
        | Phase::Starting { .. }
        | Phase::Running { .. }
        | Phase::Releasing { .. }
        | Phase::Migrating(_) => None,
    });
    let is_at = |at: &HostName| world.nodes.iter().any(|node| node.name == *at && node.machines.contains_key(guest));
    let is_heard = world.nodes.iter().any(|node| node.name == *host && node.connected());
    away.is_some_and(is_at) && is_heard && world.state.unfit(guest, host).is_none()
}

fn is_moving(known: &Guest) -> bool {
    matches!(known.phase, Phase::Migrating(_))
        || (known.heading.is_some() && !matches!(known.phase, Phase::Free { .. }))
}
