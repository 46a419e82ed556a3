//! Fences: when a host is to be switched off (S3, S8, R16, R17, R20, R21).
//!
//! ```text
//!       failed, may run guests, nothing restrains           slot free, no storm
//!   Up ---------------------------------------> Fencing, ----------------------> Fencing,
//!   ^ ^ <------- heard again: superseded ------ no attempt <-------------------- attempt
//!   | |                                            |    failed: after a pause       |
//!   | +- proof that names the boot, at any time -+ |    the next level, by another  |
//!   |                                            v v    executor                    v
//!   +----- a new boot, once no attempt is left - Gone <---- proof that names the boot
//! ```
//! An attempt is over when its executor has reported, or when nothing that it has begun can be left (R20).

use std::collections::BTreeMap;

use super::{
    Decision, FOREVER, HostVerdict, Round, Waits,
    attempts::{Slot, attempt, left_of, overdue},
    hosts::ANSWER_AGE_MAX,
    leases::{close_lease, expired, pending, returns, unarmed},
    proofs::{contradiction, distrust, proven, said_off, soon_proven, tell_of_distrust, wonder},
    quarantine::FENCE_COUNTS_FOR,
    restraint::{is_hands_off, restraint},
    subject::Subject,
    supervisors::{SUPERVISOR_PATIENCE, booted_anew, could_join_for, stuck_behind_dead_supervisor, supervisor_down},
    unplaced::left_there,
};
use crate::{
    change::Change,
    model::Severity,
    names::HostName,
    state::{Fence, Life},
    time::millis,
};

/// Decides about every host's fence, and says what each waits for.
pub(super) fn decide(
    round: &Round<'_>,
    decision: &mut Decision,
    subjects: &[Subject<'_>],
) -> BTreeMap<HostName, (String, u64)> {
    let mut waits = BTreeMap::new();
    let mut slot = Slot::of(round);
    for subject in subjects {
        let Subject { name, host, .. } = *subject;
        wonder(round, decision, subject);
        if let Some(attempt) = round.state.fence_under_way(name) {
            overdue(round, decision, attempt);
        }
        let is_over = matches!(host.life, Life::Gone { .. });
        // Suspended, only what was under way goes on: a fence that is open.
        let suspended = round.state.suspended.is_some() && host.life == Life::Up;
        unarmed(round, decision, subject);
        let may_be_over = !is_over && !suspended && !is_hands_off(host);
        if may_be_over {
            close_lease(round, decision, subject);
        }
        let said = if may_be_over { said_off(round, subject) } else { None };
        let over =
            may_be_over && (proven(round, decision, subject, said.as_ref()) || expired(round, decision, subject));
        if !over {
            distrust(round, decision, subject);
            let wait = soon_proven(said.as_ref()).or_else(|| step(round, decision, subject, &mut slot));
            waits.extend(wait.map(|wait| (name.clone(), wait)));
        }
        supervisor_down(round, decision, subject);
    }
    waits
}

/// The machine of the module's drawing, but for proof.
fn step(round: &Round<'_>, decision: &mut Decision, subject: &Subject<'_>, slot: &mut Slot) -> Waits {
    let name = subject.name;
    match (&subject.host.life, subject.judgement.verdict) {
        (Life::Gone { .. }, _) => {
            contradiction(round, decision, subject);
            returns(round, decision, name, subject.host);
            let attempt = round.state.fence_under_way(name).and_then(|id| round.state.orders.get(&id));
            Some(match attempt {
                Some(attempt) => {
                    ("the end of the fence attempt, before it may join again".to_owned(), left_of(round, attempt))
                }
                None => ("it to come back".to_owned(), FOREVER),
            })
        }

        (Life::Up, HostVerdict::Healthy) => {
            contradiction(round, decision, subject);
            quarantined(round, subject).or_else(|| leaving(round, subject))
        }
        (Life::Up, HostVerdict::Gone) => None,
        (Life::Up, HostVerdict::Unknown) => {
            let grace = millis(round.timing.join_grace.0).saturating_sub(subject.judgement.silent_ms);
            Some(("its first sign of life".to_owned(), grace))
        }
        (Life::Up, HostVerdict::Suspect) => Some(restrained(round, subject).unwrap_or_else(others_word)),
        (Life::Up, HostVerdict::SupervisorDown | HostVerdict::Isolated) => {
            tell_of_distrust(round, decision, name, subject.host);
            match stuck_behind_dead_supervisor(round, name) {
                Some(stuck) => consider(round, decision, subject, Some(stuck)),
                None => Some(restrained(round, subject).unwrap_or_else(|| its_supervisor(round, subject))),
            }
        }
        (Life::Up, HostVerdict::Failed) => consider(round, decision, subject, None),

        (Life::Fencing(Fence { attempt: Some(attempt), .. }), _) => {
            let left = round.state.orders.get(attempt).map_or(0, |attempt| left_of(round, attempt));
            Some(("the report of the fence attempt".to_owned(), left))
        }
        (Life::Fencing(_), HostVerdict::Healthy) => supersede(decision, name, "syncs again"),
        // R16: heard again, a silent supervisor alone is no reason to switch its host off.
        (Life::Fencing(fence), HostVerdict::SupervisorDown | HostVerdict::Isolated) => {
            match stuck_behind_dead_supervisor(round, name) {
                Some(_) => attempt(round, decision, subject, fence, slot),
                // What the boot before ran is down: that is over when the new one has joined.
                None if booted_anew(round, name).is_some() => Some(its_new_boot(round, name)),
                None => supersede(decision, name, "is heard again"),
            }
        }
        (Life::Fencing(fence), HostVerdict::Failed) => attempt(round, decision, subject, fence, slot),
        // The evidence does not hold at this moment (R17): wait until it is clear one way or the other.
        (Life::Fencing(_), HostVerdict::Suspect | HostVerdict::Unknown | HostVerdict::Gone) => Some(others_word()),
    }
}

/// Until when a host that answers gets no guests. One of which nobody knows whether it is what the name means gets nothing to do
/// at all (R11).
fn quarantined(round: &Round<'_>, subject: &Subject<'_>) -> Waits {
    let quarantine = subject.host.quarantine.as_ref()?;
    if quarantine.is_contested() {
        return Some((format!("a person to settle whose name it is: {quarantine}"), FOREVER));
    }
    let newest = subject.host.fences.iter().copied().fold(quarantine.since, u64::max);
    let left = FENCE_COUNTS_FOR.saturating_sub(round.age(newest));
    let what = format!("an hour without a fence, or a person's word, before it gets guests: {quarantine}");
    Some((what, millis(left)))
}

/// What a host that has announced to go still has to get rid of.
fn leaving(round: &Round<'_>, subject: &Subject<'_>) -> Waits {
    round.state.departure(subject.name)?;
    let guests = round.state.guests_of(subject.name).count();
    (guests > 0).then(|| (format!("{guests} guests to leave it before it goes"), FOREVER))
}

fn others_word() -> (String, u64) {
    ("the other voters' word on its silence".to_owned(), millis(ANSWER_AGE_MAX))
}

fn its_new_boot(round: &Round<'_>, name: &HostName) -> (String, u64) {
    let age = booted_anew(round, name).map(|anew| could_join_for(round, name, anew)).unwrap_or_default();
    ("the supervisor of its new boot".to_owned(), millis(SUPERVISOR_PATIENCE.saturating_sub(age)))
}

fn its_supervisor(round: &Round<'_>, subject: &Subject<'_>) -> (String, u64) {
    if booted_anew(round, subject.name).is_some() {
        return its_new_boot(round, subject.name);
    }
    let left = millis(SUPERVISOR_PATIENCE).saturating_sub(subject.judgement.unsynced_ms);
    ("its supervisor, before a failed guest there costs the host".to_owned(), left)
}

fn restrained(round: &Round<'_>, subject: &Subject<'_>) -> Waits {
    let restraint = restraint(round, subject.name, subject.judgement)?;
    Some((format!("not fenced: {}", restraint.why), restraint.left.map_or(FOREVER, millis)))
}

fn supersede(decision: &mut Decision, name: &HostName, how: &str) -> Waits {
    let why = format!("{name} {how}, and nothing is on its way to its power device");
    decision.commands.push(Change::FenceSuperseded { host: name.clone(), why });
    None
}

/// Opens the fence of a host that has failed, or of one on which a guest is stuck.
fn consider(round: &Round<'_>, decision: &mut Decision, subject: &Subject<'_>, stuck: Option<String>) -> Waits {
    let name = subject.name;
    // A host that may run nothing needs no fence: nothing waits for proof (S8).
    if !round.is_waited_for(name) {
        let what = "its next sign of life; it is not fenced, because nothing may run there";
        return Some((what.to_owned(), FOREVER));
    }
    if let Some(restrained) = restrained(round, subject) {
        return Some(restrained);
    }
    if let Some(hold) = &decision.report.storm_hold {
        return Some((format!("fencing is held: {hold}"), FOREVER));
    }
    let incarnation = subject.host.facts.incarnation.clone();
    let mut evidence = subject.judgement.evidence.clone();
    evidence.extend(stuck);
    // They explain, and accuse nobody: by themselves they are no evidence.
    if !evidence.is_empty() {
        let left = left_there(round, name);
        evidence.extend(left.map(|guest| format!("{guest}, which was never placed, was there when it was last heard")));
        evidence.extend(subject.judgement.last_words.as_ref().map(|words| format!("its last words: {words}")));
    }
    let last_well = round.evidence.last_life(name, &incarnation).map(|life| round.wall(life));
    let safe_at = pending(round, subject);
    decision.commands.push(Change::FenceOpened { host: name.clone(), incarnation, evidence, last_well, safe_at });
    None
}

/// Tells people, unless they have been told the same.
pub(super) fn open(
    round: &Round<'_>,
    decision: &mut Decision,
    key: String,
    severity: Severity,
    summary: String,
    human: Option<String>,
) {
    open_as_seen(round, decision, key, severity, summary, human, Vec::new());
}

/// The same, with who sees what: that is kept with the incident, and is no news by itself.
pub(super) fn open_as_seen(
    round: &Round<'_>,
    decision: &mut Decision,
    key: String,
    severity: Severity,
    summary: String,
    human: Option<String>,
    evidence: Vec<String>,
) {
    let known = round.told.by_key(&key);
    if !known.is_some_and(|open| open.summary == summary && open.human == human && open.severity == severity) {
        decision.commands.push(Change::IncidentOpened { key, severity, summary, human, guests: Vec::new(), evidence });
    }
}

/// Tells people that `ABOUT/HOST` is over, if they were told.
pub(super) fn close(decision: &mut Decision, about: &str, subject: &Subject<'_>) {
    if let Some(open) = subject.told.about(about) {
        decision.commands.push(Change::IncidentResolved { key: open.key.clone() });
    }
}
