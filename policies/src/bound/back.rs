//! The way back of a guest whose host is proven gone: its turn, its start elsewhere, its boot.

use std::time::Duration;

use super::{Case, Part, ROUND, Stage, Stretch, StretchedBy, rounded_up};
use crate::{
    decide::{COMMANDS_PER_ROUND, placement::start_pause_after},
    fit::host_rule_broken,
    names::{GuestName, HostName},
    plan::STARTS_PER_HOST,
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

/// The guests of a host that may start before this one does: those of at least its priority.
pub(super) fn before_it<'a>(case: &'a Case<'_>, host: &'a HostName) -> impl Iterator<Item = &'a GuestName> {
    let own = priority(case, case.guest);
    let guests = case.state.guests_of(host).map(|(name, _)| name);
    guests.filter(move |name| *name != case.guest && priority(case, name) >= own)
}

fn priority(case: &Case<'_>, guest: &GuestName) -> u32 {
    case.state.policies.guests.get(guest).map_or(0, |declared| declared.priority)
}

/// How long so many starts before its own may hold it up, if all of them go where it goes.
pub(super) fn held_up(case: &Case<'_>, ahead: usize) -> Duration {
    let ahead_of_it = u32::try_from(ahead).unwrap_or(u32::MAX);
    let rounds = u32::try_from(ahead / COMMANDS_PER_ROUND).unwrap_or(u32::MAX);
    let one = case.turn() + case.limits.start;
    one.saturating_mul(ahead_of_it / STARTS_PER_HOST).saturating_add(ROUND.saturating_mul(rounds))
}

fn queue(case: &Case<'_>, from: &HostName) -> Option<Part> {
    let ahead = before_it(case, from).count();
    let held = held_up(case, ahead);
    let because =
        format!("{ahead} other guests of {from} may start before it, {STARTS_PER_HOST} at a time on one host");
    (!held.is_zero()).then(|| Part::of(Stage::Queue, held, because))
}

fn start(case: &Case<'_>, from: &HostName) -> Part {
    let state = case.state;
    let others = state.hosts.keys().filter(|name| *name != from && state.takes_no_guests(name).is_none());
    let others: Vec<&HostName> = others.collect();
    if others.is_empty() {
        return Part::without_bound(Stage::Start, "no other host takes guests at present".to_owned());
    }
    if others.iter().all(|other| host_rule_broken(&state.policies, case.guest, other).is_some()) {
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
