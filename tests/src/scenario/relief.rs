//! What people do whom Holdfast tells that a host is too full.
//!
//! Holdfast moves nothing that runs for room alone, and stops nothing: only people know whether the guests or the figure are wrong. Of
//! a situation the scenario says that its figures are right. So whoever is told has the least important guests go elsewhere, one after
//! the other, and stops one for which there is no room beside more important ones. Where hosts are chosen by scores only, figures are
//! no reason to act.

use std::cmp::Reverse;

use holdfast_policies::{
    change::Change,
    fit::Unfit,
    names::{GuestName, HostName},
    state::{Mode, Phase, Wanted},
};
use serde_json::Value;

use super::{
    format::{Kind, Scenario},
    host::Vm,
    way::{PATIENCE, end_patience, is_waited_for, make_way, somebody_does, want_again},
    world::{World, ZERO},
};

/// Has somebody act who has been told, once nothing else is under way.
pub fn relieve(world: &mut World, scenario: &Scenario) {
    if scenario.mode != Kind::Snapshot {
        return;
    }
    // Where something is always under way, nobody looks on for ever.
    if !world.is_calm() {
        if world.now >= ZERO + PATIENCE && is_waited_for(world) {
            end_patience(world, scenario);
        }
        return;
    }
    let by_scores = scenario.cluster.placement.as_ref().and_then(Value::as_str) == Some("score-only");
    let is_done = make_way(world, scenario)
        || what_is_done(world).filter(|_| !by_scores).is_some_and(|change| somebody_does(world, change));
    if !is_done {
        want_again(world);
    }
}

fn what_is_done(world: &World) -> Option<Change> {
    let is_told = |host: &&HostName| world.state.open_incident(&format!("capacity/{host}")).is_some();
    let full = world.state.hosts.iter().filter(|(_, known)| known.mode == Mode::Active).map(|(host, _)| host);
    let full = full.filter(is_told).find(|host| !least_important(world, host).is_empty())?;
    let guests = least_important(world, full);
    let too_many = too_many(world, full, &guests);
    let by = || "whoever is told".to_owned();
    let moved = too_many.iter().chain(&guests).find_map(|guest| {
        let to = elsewhere(world, guest, full)?;
        Some(Change::MoveAsked { guest: guest.clone(), to, cold: false, by: by() })
    });
    let stopped = || Some(Change::WantedSet { guest: too_many.first()?.clone(), wanted: Wanted::Stopped, by: by() });
    moved.or_else(stopped)
}

/// Those of a host's guests for which there is no room beside more important ones; both lists begin with the least important.
fn too_many(world: &World, host: &HostName, guests: &[GuestName]) -> Vec<GuestName> {
    let mut state = world.state.clone();
    state.guests.retain(|name, _| !guests.contains(name));
    let mut found = Vec::new();
    for guest in guests.iter().rev() {
        if matches!(state.unfit(guest, host), Some(Unfit::NoRoom { .. })) {
            found.push(guest.clone());
        } else if let Some(known) = world.state.guests.get(guest) {
            state.guests.insert(guest.clone(), known.clone());
        }
    }
    found.reverse();
    found
}

/// The guests that run on a host and are looked after, the least important first. One that somebody has paused is left alone.
pub(super) fn least_important(world: &World, host: &HostName) -> Vec<GuestName> {
    let runs_here = |phase: &Phase| matches!(phase, Phase::Running { tenure, .. } if tenure.host == *host);
    let node = world.nodes.iter().find(|node| node.name == *host);
    let is_paused = |guest: &GuestName| {
        node.and_then(|node| node.machines.get(guest)).is_none_or(|machine| machine.state != Vm::Running)
    };
    let ours =
        world.state.guests.iter().filter(|(_, known)| known.wanted == Wanted::Running && runs_here(&known.phase));
    let mut guests: Vec<GuestName> = ours.map(|(guest, _)| guest).filter(|guest| !is_paused(guest)).cloned().collect();
    let priority = |guest: &GuestName| world.state.policies.guests.get(guest).map_or(0, |declared| declared.priority);
    guests.sort_by_key(|guest| (priority(guest), Reverse(guest.clone())));
    guests
}

/// A host that would take the guest.
pub(super) fn elsewhere(world: &World, guest: &GuestName, from: &HostName) -> Option<HostName> {
    let there = world.nodes.iter().filter(|node| node.connected() && node.name != *from).map(|node| &node.name);
    let known = there.filter(|host| world.state.hosts.contains_key(*host));
    known.filter(|host| world.state.unfit(guest, host).is_none()).min().cloned()
}
