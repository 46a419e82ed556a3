//! The lease as a fence (R9 `LeaseExpired`, R10, R19): when a silent host's lease is closed, from when on its guests are
//! known to be stopped, and how its boot comes back.
//!
//! It waits in parallel with power devices, and whichever proof comes first frees the guests. It switches nothing off, so
//! neither a storm hold nor another host's fence delays it (R21), and a host that is merely isolated is subject to it too.

use std::time::Duration;

use super::{
    Decision, HostVerdict, Round,
    fences::{close, open},
    subject::Subject,
};
use crate::{
    change::Change,
    evidence::is_there,
    lease::{NoGround, SafeAt, last_grant, safe_at},
    model::Severity,
    names::HostName,
    order::START_DEADLINE,
    proof::{Proof, ProofKind},
    state::{Host, Life},
    time::{Span, millis},
};

/// What keys of these incidents begin with; a slash and a host's name follow.
const ABOUT: &str = "lease";

/// A boot that was called off wrongly may have been starting something until the end of its lease, and its agent gives a
/// start up after its deadline.
fn longest_start(round: &Round<'_>) -> Duration {
    longest_lease(round.timing.lease) + START_DEADLINE.0
}

/// Closes the lease of a host that has fallen silent, so that its last grant is known.
pub(super) fn close_lease(round: &Round<'_>, decision: &mut Decision, subject: &Subject<'_>) {
    let Subject { name, host, .. } = *subject;
    let open = host.lease.record.as_ref().is_some_and(|record| record.closed.is_none());
    if open && host.life == Life::Up && is_unsynced(round, subject) && is_waited_for(round, name, host) {
        let incarnation = host.facts.incarnation.clone();
        decision.commands.push(Change::LeaseClosed { host: name.clone(), incarnation });
    }
}

/// Frees the guests of a host whose lease has run out for certain.
pub(super) fn expired(round: &Round<'_>, decision: &mut Decision, subject: &Subject<'_>) -> bool {
    let Subject { name, host, judgement, .. } = *subject;
    if !is_unsynced(round, subject) || !is_waited_for(round, name, host) {
        return false;
    }
    let (Ok(ground), Some(granted)) = (round.state.lease_ground(name), last_grant(round.state, round.evidence, name))
    else {
        return false;
    };
    let incarnation = &host.facts.incarnation;
    let Ok(proof) = Proof::lease_expired(name, incarnation, &ground, granted, round.now.moment) else { return false };
    let last_well = round.evidence.last_life(name, incarnation).map(|life| round.wall(life));
    let last_words = judgement.last_words.clone();
    decision.commands.push(Change::HostGone { proof, last_well, last_words });
    true
}

/// From when on a host's guests cannot run any more, where somebody waits for that.
pub(super) fn pending(round: &Round<'_>, subject: &Subject<'_>) -> Option<SafeAt> {
    if !is_unsynced(round, subject) || !is_waited_for(round, subject.name, subject.host) {
        return None;
    }
    safe_at(round.state, round.evidence, subject.name, round.now).ok()
}

/// The wait of a host by its lease, in words and in milliseconds.
pub(super) fn wait(safe: &SafeAt) -> (String, u64) {
    (safe.to_string(), safe.left_ms)
}

/// Whether guests wait for proof that this boot does not run them. Asked last, because it walks over the guests.
fn is_waited_for(round: &Round<'_>, name: &HostName, host: &Host) -> bool {
    let waits = matches!(host.life, Life::Up | Life::Fencing(_)) && !host.is_contested();
    waits && round.is_waited_for(name)
}

fn is_unsynced(round: &Round<'_>, subject: &Subject<'_>) -> bool {
    let suspect_after = round.timing.suspect_after.0.as_millis();
    let judgement = subject.judgement;
    judgement.verdict != HostVerdict::Healthy && u128::from(judgement.unsynced_ms) >= suspect_after
}

/// Takes a boot in again that was proven gone and is alive: its agent has learned of the proof, raised its floors, and
/// reports that nothing runs there (R10).
pub(super) fn returns(round: &Round<'_>, decision: &mut Decision, name: &HostName, host: &Host) -> bool {
    let Life::Gone { proof } = &host.life else { return false };
    let Some(heard) = round.evidence.hosts.get(name) else { return false };
    let fresh = heard.sync.as_ref().is_some_and(|sync| {
        sync.incarnation == host.facts.incarnation
            && sync.at > round.evidence.marks.at(host.life_since)
            && round.now.moment.since(sync.at) < round.timing.suspect_after.0
    });
    let learned = heard.seen.generation == round.state.generation && heard.seen.index >= host.life_since;
    let empty = heard.reports.values().all(|report| !is_there(&report.condition));
    let settled = match proof.kind() {
        // Its lease ended a guard's and a watchdog's time ago, so nothing that needs one is under way.
        ProofKind::LeaseExpired { .. } => true,
        ProofKind::PowerOff { .. }
        | ProofKind::Operator { .. }
        | ProofKind::Reported { .. }
        | ProofKind::NotHere { .. } => round.age(host.life_since) >= longest_start(round),
    };
    let may = round.state.suspended.is_none()
        && !host.is_contested()
        && round.state.fence_under_way(name).is_none()
        && (fresh && learned && empty && settled);
    if may {
        let (host, incarnation) = (name.clone(), host.facts.incarnation.clone());
        decision.commands.push(Change::HostReturned { host, incarnation, seen: heard.seen.index });
    }
    may
}

/// A host that relies on its lease and has nothing that would stop its guests is told of, before it matters.
pub(super) fn unarmed(round: &Round<'_>, decision: &mut Decision, subject: &Subject<'_>) {
    let Subject { name, host, .. } = *subject;
    let known = host.life == Life::Up && host.lease.record.is_some();
    match subject.lease_level().ok_or(NoGround::NoLevel).and_then(|_| round.state.lease_ground(name)) {
        Err(why @ (NoGround::NoGuard | NoGround::NoWatchdog | NoGround::Untrusted { .. })) if known => {
            let summary = format!("{name} relies on its lease, and {why}");
            let human = format!(
                "Until that is put right {name} is never safe by its lease: when it fails and no power device says that it \
                 is off, its guests wait for a person. Arm a watchdog on {name}, or take `lease` out of its fencing."
            );
            open(round, decision, format!("{ABOUT}/{name}"), Severity::Error, summary, Some(human));
        }
        Ok(_) | Err(NoGround::NoLevel) => close(decision, ABOUT, subject),
        Err(NoGround::NotRecorded | NoGround::NoGuard | NoGround::NoWatchdog | NoGround::Untrusted { .. }) => {}
    }
}

/// Whether an agent that has been silent for so long has lost its lease for certain (R19).
pub(super) fn is_past_lease(unsynced_ms: u128, lease: Span) -> bool {
    unsynced_ms >= u128::from(millis(longest_lease(lease)))
}

/// The longest that a host may act after its last sync, with the 5 % for drift (R1) that whoever waits for it adds.
pub(super) fn longest_lease(lease: Span) -> Duration {
    lease.0 * 21 / 20
}
