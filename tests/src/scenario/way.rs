//! What people do for a guest that finds no room where less important ones run: they have those go elsewhere first.
//!
//! Holdfast moves nothing that runs for room alone. Guests of best effort it stops for more important ones that are down, at once: that
//! brings those back soonest. Nothing of a situation is urgent, so guests that can move while they run count as best effort only when
//! people have looked whether they have another place. For a guest that is to leave its host, and runs meanwhile, only people make
//! room at all.

use std::{cmp::Reverse, collections::BTreeSet};

use holdfast_policies::{
    change::Change,
    names::{GuestName, HostName},
    rules::Rule,
    state::{Guest, Phase, Wanted},
};

use super::{
    build::declare,
    format::Scenario,
    relief::{elsewhere, least_important},
    world::{World, ZERO},
};

/// Milliseconds after which guests that can move while they run are stopped for more important ones that wait, whatever is under way,
/// and those that rules keep from where they run are stopped.
pub const PATIENCE: u64 = 60_000;

/// The least important guests of a host that are looked at.
const ASKED_MAX: usize = 64;

/// Has somebody act who has been told of a guest without room. Returns whether anything was done.
pub fn make_way(world: &mut World, scenario: &Scenario) -> bool {
    let leaving = told_of(world, "leave", |phase| matches!(phase, Phase::Running { .. }));
    let waiting = told_of(world, "placement", |phase| matches!(phase, Phase::Free { .. }));
    let for_leaving = leaving.iter().find_map(|guest| way_for(world, guest, true));
    let change = for_leaving.or_else(|| waiting.iter().find_map(|guest| way_for(world, guest, false)));
    let is_done = change.is_some_and(|change| somebody_does(world, change));
    is_done || (!waiting.is_empty() && end_patience(world, scenario)) || give_up(world, &leaving)
}

/// Has somebody do something. Returns whether that was possible.
pub fn somebody_does(world: &mut World, change: Change) -> bool {
    let stopped = match &change {
        Change::WantedSet { guest, wanted: Wanted::Stopped, .. } => Some(guest.clone()),
        _ => None,
    };
    let is_done = world.commit(change).refused.is_none();
    if is_done {
        world.stopped_for_others.extend(stopped);
    }
    is_done
}

/// Those that people have stopped for others are wanted again once those are on their way: they start where they have room, or wait.
pub fn want_again(world: &mut World) {
    if !told_of(world, "leave", |phase| matches!(phase, Phase::Running { .. })).is_empty() {
        return;
    }
    for guest in std::mem::take(&mut world.stopped_for_others) {
        let by = "whoever is told".to_owned();
        world.commit(Change::WantedSet { guest, wanted: Wanted::Running, by });
    }
}

/// Whether guests wait for whose sake others are not stopped yet.
pub fn is_waited_for(world: &World) -> bool {
    world.declared.values().any(|vm| vm.moves_first)
        && !told_of(world, "placement", |phase| matches!(phase, Phase::Free { .. })).is_empty()
}

/// From now on those that can move while they run are stopped for more important ones like all others.
pub fn end_patience(world: &mut World, scenario: &Scenario) -> bool {
    let mut changed = false;
    for vm in world.declared.values_mut().filter(|vm| vm.moves_first) {
        vm.moves_first = false;
        changed = true;
    }
    if changed {
        declare(world, scenario);
    }
    changed
}

/// Has the least important guest stopped that rules keep from where it runs, and that has had no other place for so long.
fn give_up(world: &mut World, leaving: &[GuestName]) -> bool {
    if world.now < ZERO + PATIENCE {
        return false;
    }
    let guest = leaving.iter().rev().find(|guest| has_no_place(world, guest)).cloned();
    let by = || "whoever is told".to_owned();
    guest.is_some_and(|guest| somebody_does(world, Change::WantedSet { guest, wanted: Wanted::Stopped, by: by() }))
}

/// Whether a guest that runs may run on no host. One on a host that is drained is stopped when that goes; of what is kept together only
/// people who know it say who gives way.
fn has_no_place(world: &World, guest: &GuestName) -> bool {
    let Some(Phase::Running { tenure, .. }) = world.state.guests.get(guest).map(|known| &known.phase) else {
        return false;
    };
    let policies = &world.state.policies;
    let is_kept = policies.rules.values().any(|rule| match rule {
        Rule::Together { guests, required: true, .. } => guests.among(&policies.guests).contains(guest),
        Rule::Together { .. } | Rule::Hosts { .. } | Rule::Apart { .. } | Rule::Order { .. } => false,
    });
    !is_kept && !world.state.is_draining(&tenure.host) && elsewhere(world, guest, &tenure.host).is_none()
}

/// The guests in such a phase of which people are told this, the most important first.
fn told_of(world: &World, about: &str, phase: impl Fn(&Phase) -> bool) -> Vec<GuestName> {
    let open = world.state.incidents.values().filter(|incident| incident.is_open());
    let named: BTreeSet<&str> =
        open.filter_map(|incident| incident.key.strip_prefix(about)?.strip_prefix('/')).collect();
    if named.is_empty() {
        return Vec::new();
    }
    let is_told = |name: &GuestName, known: &Guest| {
        named.contains(name.as_str()) && known.wanted == Wanted::Running && phase(&known.phase)
    };
    let told = world.state.guests.iter().filter(|(name, known)| is_told(name, known));
    let mut told: Vec<GuestName> = told.map(|(name, _)| name.clone()).collect();
    told.sort_by_key(|guest| (Reverse(priority(world, guest)), guest.clone()));
    told
}

/// What makes way for the guest: the move of a less important one, or the end of one that has no other place, if somebody may stop it.
fn way_for(world: &World, guest: &GuestName, may_stop: bool) -> Option<Change> {
    let (host, gone) = who_goes(world, guest)?;
    let by = || "whoever is told".to_owned();
    let goes = |other: &&GuestName| may_stop || (is_live(world, other) && is_untried(world, other));
    let moved = gone.iter().filter(goes).find_map(|other| {
        let to = elsewhere(world, other, &host)?;
        Some(Change::MoveAsked { guest: other.clone(), to, cold: false, by: by() })
    });
    let first = gone.first().filter(|_| may_stop);
    let stopped = || Some(Change::WantedSet { guest: first?.clone(), wanted: Wanted::Stopped, by: by() });
    moved.or_else(stopped)
}

/// The host that would take the guest if less important ones were gone, and which: as few as will do.
fn who_goes(world: &World, guest: &GuestName) -> Option<(HostName, Vec<GuestName>)> {
    let heard = world.nodes.iter().filter(|node| node.connected()).map(|node| &node.name);
    let known = heard.filter(|host| world.state.hosts.contains_key(*host));
    let found = known.filter_map(|host| Some((host.clone(), in_its_way(world, guest, host)?)));
    found.min_by_key(|(host, gone)| (gone.len(), host.clone()))
}

/// The less important guests that have to be gone before a host takes this one; `None` where none have to, or that is not enough.
fn in_its_way(world: &World, guest: &GuestName, host: &HostName) -> Option<Vec<GuestName>> {
    let fits = |gone: &[GuestName]| {
        let mut state = world.state.clone();
        state.guests.retain(|name, _| !gone.contains(name));
        state.unfit(guest, host).is_none()
    };
    let ours = priority(world, guest);
    let below = least_important(world, host).into_iter().filter(|other| priority(world, other) < ours);
    let mut gone: Vec<GuestName> = below.take(ASKED_MAX).collect();
    if gone.is_empty() || !fits(&gone) || fits(&[]) {
        return None;
    }
    // Whoever need not go stays, the most important ones first.
    for other in gone.clone().iter().rev() {
        let fewer: Vec<GuestName> = gone.iter().filter(|one| *one != other).cloned().collect();
        if fits(&fewer) {
            gone = fewer;
        }
    }
    Some(gone)
}

fn priority(world: &World, guest: &GuestName) -> u32 {
    world.state.policies.guests.get(guest).map_or(0, |declared| declared.priority)
}

fn is_live(world: &World, guest: &GuestName) -> bool {
    world.state.policies.guests.get(guest).is_some_and(|declared| declared.needs.live_migration)
}

/// Whether its newest moves have not failed: else people would not have it moved for another again.
fn is_untried(world: &World, guest: &GuestName) -> bool {
    world.state.guests.get(guest).is_some_and(|known| known.failed_moves == 0)
}
