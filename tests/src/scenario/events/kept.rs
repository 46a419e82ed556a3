//! A guest that is to start where it is kept, if nothing speaks against that.

use holdfast_policies::{
    change::Change,
    names::{GuestName, HostName},
    rules::Rule,
    state::{Heading, Phase},
};

use super::super::{
    check::{CHOOSES_AT_START, turns_on},
    format::Scenario,
    world::World,
};

/// Has a guest start where it is kept, if nothing speaks against that; else placement finds a host for it. One that starts
/// after another goes there when its turn has come.
pub(super) fn start_where_kept(world: &mut World, guest: GuestName, host: HostName) {
    if world.state.unfit(&guest, &host).is_some() {
        return;
    }
    let follows = |rule: &Rule| matches!(rule, Rule::Order { then, .. } if *then == guest);
    if !world.state.policies.rules.values().any(follows) {
        world.commit(Change::Place { guest, host, why: "it is kept there".to_owned() });
    } else if let Some(known) = world.state.guests.get_mut(&guest) {
        known.heading = Some(Heading { to: host, by: None });
    }
}

/// Has a guest that runs nowhere start where it is kept, as it does where its administrator starts it by hand, if nothing speaks against
/// that host and its host is not to be chosen anew.
pub(super) fn head_where_kept(world: &mut World, scenario: &Scenario, guest: &GuestName) {
    if turns_on(scenario, CHOOSES_AT_START) {
        return;
    }
    let kept = match world.state.guests.get(guest).map(|known| &known.phase) {
        Some(Phase::Free { last: Some(last), avoid, .. }) if !avoid.contains(last) => last.clone(),
        Some(_) | None => return,
    };
    // What is kept together with others goes to where they are.
    let policies = &world.state.policies;
    let has_set = |rule: &Rule| match rule {
        Rule::Together { guests, required: true, .. } => guests.among(&policies.guests).contains(guest),
        Rule::Together { .. } | Rule::Apart { .. } | Rule::Hosts { .. } | Rule::Order { .. } => false,
    };
    let is_heard = world.nodes.iter().any(|node| node.name == kept && node.connected());
    if !is_heard || policies.rules.values().any(has_set) || world.state.unfit(guest, &kept).is_some() {
        return;
    }
    if let Some(known) = world.state.guests.get_mut(guest) {
        known.heading = Some(Heading { to: kept, by: None });
    }
}
