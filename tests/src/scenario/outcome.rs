//! What came of a scenario: where guests really are, and what the supervisor would say of them.

use holdfast_policies::{
    decide::kept_guests,
    names::{GuestName, HostName},
    state::{Guest, Phase, Wanted},
    time::Moment,
};

use super::{format::Outcome, host::Vm, world::World};

/// Takes the outcome.
#[must_use]
pub fn outcome(world: &World) -> Outcome {
    let mut outcome = Outcome { history: world.history.clone(), refused: world.refused.clone(), ..Outcome::default() };
    for node in world.nodes.iter().filter(|node| node.on) {
        let is_there = |state: Vm| matches!(state, Vm::Running | Vm::Paused | Vm::HalfAlive);
        let there = node.machines.iter().filter(|(_, machine)| is_there(machine.state));
        let guests: Vec<String> = there.map(|(guest, _)| world.names.of_guest(guest)).collect();
        if !guests.is_empty() {
            outcome.hosts.insert(world.names.of_host(&node.name), guests);
        }
    }
    outcome.fenced = world.fenced.iter().map(|host| world.names.of_host(host)).collect();
    for vm in world.spoken_of() {
        if let Some(guest) = world.names.guest(&vm) {
            outcome.vm_states.insert(vm.clone(), report(world, guest).to_owned());
        }
    }
    outcome
}

/// What the supervisor says of a guest.
fn report(world: &World, name: &GuestName) -> &'static str {
    let Some(guest) = world.state.guests.get(name) else { return "unmanaged" };
    match guest.wanted {
        Wanted::Unmanaged => return "unmanaged",
        Wanted::Running | Wanted::Stopped => {}
    }
    let word = of_phase(world, name, guest);
    let kept = kept_guests(&world.state, &world.evidence, Moment(world.now)).contains(name);
    match (&world.state.suspended, world.frozen_as.as_deref(), word) {
        (Some(_), Some("ignore"), _) => "unmanaged",
        // Nothing is tried for it: it waits for deciding to go on, or for its own host.
        (Some(_), _, "running" | "waiting") => "frozen",
        (None, _, "waiting") if kept => "frozen",
        (_, _, word) => word,
    }
}

fn of_phase(world: &World, name: &GuestName, guest: &Guest) -> &'static str {
    let heard = |host: &HostName| world.nodes.iter().any(|node| node.name == *host && node.connected());
    let stopped = guest.wanted == Wanted::Stopped;
    match &guest.phase {
        Phase::Unplaced | Phase::Free { .. } if stopped => "stopped",
        Phase::Free { .. } if guest.given_up.is_some() => "failed",
        Phase::Unplaced | Phase::Free { .. } | Phase::Starting { .. } => "waiting",
        Phase::Running { tenure, .. } if !heard(&tenure.host) => "lost",
        Phase::Running { tenure, .. } => {
            let node = world.nodes.iter().find(|node| node.name == tenure.host);
            match node.and_then(|node| node.machines.get(name)).map(|machine| machine.state) {
                Some(Vm::Paused) => "paused",
                Some(Vm::Failed | Vm::HalfAlive) => "failed",
                // Nothing of it is where it should run: it is down, and wanted.
                None => "waiting",
                Some(Vm::Running | Vm::Incoming(_) | Vm::Sent) => "running",
            }
        }
        Phase::Releasing { failed: Some(_), .. } => "failed",
        Phase::Releasing { tenure, .. } if !heard(&tenure.host) => "lost",
        // What has failed is tried again, and has failed until that succeeds.
        Phase::Releasing { .. } if world.stops_failed.contains(name) => "failed",
        Phase::Releasing { .. } | Phase::Migrating(_) => "running",
    }
}
