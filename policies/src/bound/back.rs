//! The way back of a guest whose host is proven gone: its turn, its start elsewhere, its boot.

use std::time::Duration;

use super::{Case, Part, ROUND, Stage, Stretch, StretchedBy, named, rounded_up};
use crate::{
    decide::{COMMANDS_PER_ROUND, placement::start_pause_after},
    fit::host_rule_broken,
    names::{GuestName, HostName},
    plan::STARTS_PER_HOST,
    state::ClusterState,
    time::millis,
};

/// From the proof that the host is gone until the guest answers elsewhere.
pub(super) fn parts(case: &Case<'_>, from: &HostName) -> Vec<Part> {
    let mut parts = Vec::new();
    parts.extend(queue(case, from));
    parts.push(start(case, from));
    parts.push(answer(case));
    parts
}

/// How many guests of its own host may start before this one does: those of at least its priority.
fn before_it(case: &Case<'_>, host: &HostName) -> usize {
    let own = priority(case.state, case.guest);
    match case.loss {
        Some(supposed) => supposed.at_least(host, own).saturating_sub(usize::from(supposed.is_on(case.guest, host))),
        None => {
            let others = case.state.guests_of(host).filter(|(name, _)| *name != case.guest);
            others.filter(|(name, _)| priority(case.state, name) >= own).count()
        }
    }
}

/// How many guests of other hosts, which fail with its own, may start before it: in the same way, and as many more as start at
/// once on one host, because those may have begun when its own host is proven gone.
pub(super) fn before_it_elsewhere(case: &Case<'_>, hosts: &[&HostName]) -> usize {
    let first: usize = hosts.iter().map(|host| before_it(case, host)).sum();
    let all: usize = hosts.iter().map(|host| guests_on(case, host)).sum();
    first + all.saturating_sub(first).min(usize::try_from(STARTS_PER_HOST).unwrap_or(usize::MAX))
}

fn guests_on(case: &Case<'_>, host: &HostName) -> usize {
    match case.loss {
        Some(supposed) => supposed.at_least(host, 0),
        None => case.state.guests_of(host).count(),
    }
}

pub(super) fn priority(state: &ClusterState, guest: &GuestName) -> u32 {
    state.policies.guests.get(guest).map_or(0, |declared| declared.priority)
}

/// How long so many starts before its own may hold it up, if all of them go where it goes.
pub(super) fn held_up(case: &Case<'_>, ahead: usize) -> Duration {
    let ahead_of_it = u32::try_from(ahead).unwrap_or(u32::MAX);
    let rounds = u32::try_from(ahead / COMMANDS_PER_ROUND).unwrap_or(u32::MAX);
    let one = case.turn() + case.limits.start;
    one.saturating_mul(ahead_of_it / STARTS_PER_HOST).saturating_add(ROUND.saturating_mul(rounds))
}

fn queue(case: &Case<'_>, from: &HostName) -> Option<Part> {
    let others = case.lost_with(from);
    let ahead = before_it(case, from) + before_it_elsewhere(case, &others);
    let held = held_up(case, ahead);
    let hosts: Vec<&HostName> = std::iter::once(from).chain(others).collect();
    let because = format!(
        "{ahead} other guests of {} may start before it, {STARTS_PER_HOST} at a time on one host",
        named(&hosts)
    );
    (!held.is_zero()).then(|| Part::of(Stage::Queue, held, because))
}

fn start(case: &Case<'_>, from: &HostName) -> Part {
    let state = case.state;
    let others = state.hosts.keys().filter(|name| *name != from && !case.is_lost(name));
    // Looked at one by one: the first one will do, mostly.
    let mut others = others.filter(|name| state.takes_no_guests(name).is_none()).peekable();
    if others.peek().is_none() {
        return Part::without_bound(Stage::Start, "no other host takes guests at present".to_owned());
    }
    if others.all(|other| host_rule_broken(&state.policies, case.guest, other).is_some()) {
        let because = "its rules leave it no other host that takes guests at present";
        return Part::without_bound(Stage::Start, because.to_owned());
    }
    let limit = rounded_up(millis(case.limits.start));
    let because = format!("it is placed and ordered, and its agent has {limit} to start it");
    Part::of(Stage::Start, case.turn() + case.limits.start, because)
}

fn answer(case: &Case<'_>) -> Part {
    let grace = case.policy.and_then(|policy| {
        let services = policy.services.values();
        services.map(|service| service.tuning.grace.unwrap_or(policy.boot_grace)).max()
    });
    let Some(grace) = grace else {
        let because = "nothing of it is asked, so it is back when its machine runs";
        return Part::of(Stage::Answer, Duration::ZERO, because.to_owned());
    };
    // What somebody supposes counts only where it cannot be true together with the bound.
    let supposed = case.loss.map(|supposed| supposed.loss.boot);
    if let Some(boot) = supposed.filter(|boot| boot.0 > case.limits.start.saturating_add(grace.0)) {
        let because = format!(
            "it is supposed to take {boot} from the order to start until it answers, and its policy gives it {grace} once its \
             machine runs: its ladder is climbed meanwhile"
        );
        return Part::without_bound(Stage::Answer, because);
    }
    match case.limits.boot {
        Some(boot) => Part::of(Stage::Answer, boot, "its services are known to be up by then".to_owned()),
        None => {
            let because = format!("its policy gives it {grace} to boot and answer; after that its ladder is climbed");
            Part::of(Stage::Answer, grace.0, because)
        }
    }
}

/// What every start that fails costs.
pub(super) fn failed_start(case: &Case<'_>) -> Stretch {
    let tries = case.state.policies.guests.get(case.guest).map_or(1, |declared| declared.needs.start_tries.max(1));
    let by = case.turn() * 2 + case.limits.start + case.limits.stop + start_pause_after(1);
    let why = format!(
        "every start of it that fails: what is left of it is stopped before the next try; after {tries} on one host \
         another host is tried, and the pause between tries grows"
    );
    Stretch { by: StretchedBy::FailedStart, by_ms: Some(millis(by)), why }
}
