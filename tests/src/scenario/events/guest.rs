//! What happens to a guest in a scenario: it is added, changed, moved, stopped or removed, it fails, or another tool moves it.

use holdfast_policies::{
    change::Change,
    names::{Epoch, GuestName, HostName},
    state::{Life, Phase, Wanted},
};
use serde_json::Value;

use super::{
    super::{
        build::{declare, desired, kept_on, set_free, wanted},
        format::{Event, Scenario, Vm as Declared},
        host::{Machine, Node, Vm},
        world::World,
    },
    kept::head_where_kept,
};

pub(super) fn to_guest(world: &mut World, scenario: &Scenario, event: &Event, guest: &GuestName) {
    let by = "the scenario".to_owned();
    let vm = event.vm.clone().unwrap_or_default();
    let on = |world: &mut World, change: &dyn Fn(&mut Machine)| {
        world.nodes.iter_mut().filter_map(|node| node.machines.get_mut(guest)).for_each(change);
    };
    let now = world.now;
    match event.kind.as_str() {
        "vm-desired" => {
            let wanted = desired(event.desired.as_deref());
            world.commit(Change::WantedSet { guest: guest.clone(), wanted, by });
            if wanted == holdfast_policies::state::Wanted::Running {
                head_where_kept(world, scenario, guest);
            }
        }
        "vm-stop" => {
            let wanted = Wanted::Stopped;
            world.commit(Change::WantedSet { guest: guest.clone(), wanted, by });
        }
        "vm-move" => vm_move(world, event, guest),
        "vm-add" => vm_add(world, scenario, event, guest),
        "vm-remove" => {
            let known = world.state.guests.get(guest);
            let home = known.and_then(|known| known.tenures().first().map(|tenure| tenure.host.clone()));
            world.removed_from.extend(home.map(|home| (guest.clone(), home)));
            world.declared.remove(&vm);
            declare(world, scenario);
        }
        "vm-size" => {
            if let Some(known) = world.declared.get_mut(&vm) {
                resize(known, event);
            }
            declare(world, scenario);
        }
        "vm-lock" => {
            let holder = world.nodes.iter().find(|node| node.machines.contains_key(guest));
            let boot = holder.and_then(Node::incarnation);
            world.faults.entry(guest.clone()).or_default().locked = boot;
        }
        "vm-crash" => on(world, &|machine| machine.state = Vm::Failed),
        "vm-health-failed" => on(world, &|machine| machine.ill = Some(now)),
        "vm-moved-outside" => moved_outside(world, event, guest),
        _ => {}
    }
}

fn vm_move(world: &mut World, event: &Event, guest: &GuestName) {
    let Some(to) = event.to.as_ref().and_then(|to| world.names.host(to)).cloned() else { return };
    let free = world.state.guests.get(guest).is_some_and(|known| matches!(known.phase, Phase::Free { .. }));
    let cold = event.how.as_deref() == Some("cold");
    let declared = world.state.policies.guests.get(guest);
    let stops = cold || declared.is_some_and(|declared| !declared.needs.live_migration);
    // The hypervisor refuses to stop it for that; a live move fails by itself.
    if stops && world.is_locked(guest) {
        return;
    }
    let by = "the scenario".to_owned();
    let refused = world.commit(Change::MoveAsked { guest: guest.clone(), to: to.clone(), cold, by }).refused;
    // What does not run is moved by noting where it is kept.
    if free && refused.is_some() {
        kept_on(world, guest, &to);
    }
}

fn vm_add(world: &mut World, scenario: &Scenario, event: &Event, guest: &GuestName) {
    let vm = event.vm.clone().unwrap_or_default();
    let listed = scenario.vms.iter().find(|known| known.name == vm).cloned();
    let mut said: serde_json::Map<String, Value> = event.more.clone().into_iter().collect();
    said.insert("name".to_owned(), Value::String(vm.clone()));
    let spoken = serde_json::from_value::<Declared>(Value::Object(said)).unwrap_or_default();
    let mut known = listed.unwrap_or(spoken);
    known.name.clone_from(&vm);
    known.host = event.host.clone().or(known.host);
    known.desired = event.desired.clone().or(known.desired);
    let wanted = wanted(scenario, &known);
    let host = known.host.as_ref().and_then(|host| world.names.host(host)).cloned();
    world.declared.insert(vm, known);
    // What was removed runs on, and is found again.
    let is_there = world.nodes.iter().any(|node| node.machines.contains_key(guest));
    if let (true, Some(host)) = (event.already_running && !is_there, &host)
        && let Some(node) = world.node(host).filter(|node| node.on)
    {
        let machine = Machine { epoch: Epoch::default(), state: Vm::Running, ill: None };
        node.machines.insert(guest.clone(), machine);
    }
    declare(world, scenario);
    if world.state.guests.get(guest).is_none_or(|known| known.wanted != wanted) {
        world.commit(Change::WantedSet { guest: guest.clone(), wanted, by: "the scenario".to_owned() });
    }
    if let (false, Some(host)) = (event.already_running || is_there || may_be_left(world, guest), host) {
        set_free(world, guest);
        kept_on(world, guest, &host);
        if wanted == holdfast_policies::state::Wanted::Running {
            head_where_kept(world, scenario, guest);
        }
    }
}

/// Whether something of a guest that is added may be left on a host that says nothing: only what becomes of that host can tell.
fn may_be_left(world: &World, guest: &GuestName) -> bool {
    let is_silent = |host: &HostName| {
        let is_heard = world.nodes.iter().any(|node| node.name == *host && node.connected());
        let is_gone = world.state.hosts.get(host).is_none_or(|known| matches!(known.life, Life::Gone { .. }));
        !is_heard && !is_gone
    };
    let may_run = world.state.guests.get(guest).is_some_and(|known| !known.tenures().is_empty());
    may_run || world.removed_from.get(guest).is_some_and(is_silent)
}

fn resize(known: &mut Declared, event: &Event) {
    if let Some(Value::Object(demand)) = event.more.get("demand") {
        for (name, amount) in demand {
            known.demand.insert(name.clone(), amount.as_f64().unwrap_or(0.0));
        }
    }
    let said = |key: &str| event.more.get(key).and_then(Value::as_f64);
    if let Some(memory) = said("memory_mib") {
        known.demand.insert("memory_mib".to_owned(), memory);
    }
    match (said("cpu"), known.demand.get_mut("cpu")) {
        (Some(cpu), Some(demanded)) => *demanded = cpu,
        (Some(cpu), None) => known.cpu = Some(cpu),
        (None, _) => {}
    }
}

fn moved_outside(world: &mut World, event: &Event, guest: &GuestName) {
    let Some(to) = event.to.as_ref().and_then(|to| world.names.host(to)).cloned() else { return };
    if !world.nodes.iter().any(|node| node.machines.contains_key(guest)) {
        kept_on(world, guest, &to);
        return;
    }
    // What runs is taken nowhere where nobody answers, by whatever tool. Other tools need nothing of what the voters agree on.
    if !world.node(&to).is_some_and(|node| node.on && node.network) {
        return;
    }
    let machine = world.nodes.iter_mut().find_map(|node| node.machines.remove(guest));
    if let (Some(machine), Some(node)) = (machine, world.node(&to)) {
        node.machines.insert(guest.clone(), machine);
    }
}
