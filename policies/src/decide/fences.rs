//! Fences: when a host is to be switched off, by whom, and what counts as proof (S3, S9, R16–R21).

use std::time::Duration;

use super::{Decision, HostVerdict, Round, Wish};
use crate::{
    change::Change,
    model::{FenceLevel, Severity},
    names::{HostName, Incarnation, OrderId},
    order::OrderOutcome,
    proof::{NoProof, Power, Proof},
    state::{ClusterState, Fence, Host, Life, Migration, MigrationStep, Mode, Phase},
};

/// Longest pause between two fence attempts; the first retry comes after a second.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Hosts that fall silent within so long of each other have one cause until somebody knows better (S9).
const STORM_WINDOW_MS: u64 = 30_000;

/// What an `off` may still do after the attempt that sent it has ended (R20): the slowest controllers take some seconds.
const SETTLE: Duration = Duration::from_secs(10);

/// Silence of a supervisor that no restart or upgrade should take (R16).
const SUPERVISOR_PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn decide(round: &Round<'_>, decision: &mut Decision) {
    decision.report.storm_hold = storm(round);
    call_about_storm(round, decision);
    // R21: the slot is held only while a device call runs, so that a device that does not answer blocks no other fence.
    let mut free_slot = !round.state.hosts.values().any(is_under_attempt);
    for (name, host) in &round.state.hosts {
        let incarnation = &host.facts.incarnation;
        wonder(round, decision, name, incarnation, host);
        match &host.life {
            Life::Gone { .. } => {
                contradiction(round, decision, name, incarnation);
                if let Some(attempt) = round.state.fence_under_way(name) {
                    overdue(round, decision, attempt);
                }
            }
            Life::Up | Life::Fencing(Fence { attempt: None, .. }) if proven(round, decision, name, incarnation) => {}
            Life::Up => consider(round, decision, name, incarnation),
            Life::Fencing(fence) => carry_on(round, decision, name, fence, &mut free_slot),
        }
        supervisor_down(round, decision, name);
    }
}

fn is_under_attempt(host: &Host) -> bool {
    matches!(host.life, Life::Fencing(Fence { attempt: Some(_), .. }))
}

/// S9: a hold is not silent; only what is proven off goes on without a human.
fn call_about_storm(round: &Round<'_>, decision: &mut Decision) {
    let key = "storm".to_owned();
    match decision.report.storm_hold.clone() {
        Some(hold) => {
            let human = "One lost switch, storage or power feed looks like many dead hosts: find it. Holdfast switches no host \
                         off meanwhile. For each host that is really off, run `holdfast host confirm-off HOST --operator YOUR-NAME`.";
            let summary = format!("fencing is held: {hold}");
            open(round, decision, key, Severity::Critical, summary, Some(human.to_owned()));
        }
        None => close(round, decision, &key),
    }
}

/// Silent hosts are wondered about: the power device and the other voters are asked. Both are harmless.
fn wonder(round: &Round<'_>, decision: &mut Decision, name: &HostName, incarnation: &Incarnation, host: &Host) {
    let Some(judgement) = round.hosts.get(name) else { return };
    let wonder_after = round.timing.wonder_after.0;
    let own = round.evidence.last_life(name, incarnation);
    let since = own.or(round.evidence.quorum_since).unwrap_or(round.now.moment);
    let unheard = round.now.moment.since(since) >= wonder_after;
    let unsynced = u128::from(judgement.unsynced_ms) >= wonder_after.as_millis();
    if matches!(host.life, Life::Gone { .. }) || round.evidence.me.as_ref() == Some(name) {
        return;
    }
    if unheard || unsynced {
        decision.wishes.push(Wish::AskVoters { host: name.clone(), incarnation: incarnation.clone() });
    }
    if unheard && has_device(round.state, name) {
        decision.wishes.push(Wish::AskPower { host: name.clone(), incarnation: incarnation.clone() });
    }
}

fn has_device(state: &ClusterState, host: &HostName) -> bool {
    let levels = state.policies.fencing.get(host);
    levels.is_some_and(|levels| levels.iter().any(|level| matches!(level, FenceLevel::Ipmi(_))))
}

/// Who has verified the wiring of a host's level.
fn wiring<'a>(state: &'a ClusterState, host: &HostName, level: usize) -> Option<&'a str> {
    match state.policies.fencing.get(host)?.get(level)? {
        FenceLevel::Ipmi(ipmi) => ipmi.wiring_verified_by.as_deref(),
        FenceLevel::Operator {} => None,
    }
}

/// "Off" is proof at once, whoever asked (R9).
fn proven(round: &Round<'_>, decision: &mut Decision, host: &HostName, incarnation: &Incarnation) -> bool {
    let Some(reading) = round.evidence.hosts.get(host).and_then(|known| known.power.as_ref()) else { return false };
    // R9: void by any sign of that boot since, whoever received it.
    let life = super::hosts::newest_sign(round.state, round.evidence, host, incarnation);
    let wiring = wiring(round.state, host, reading.level);
    match Proof::power_off(host, incarnation, reading, wiring, life) {
        Ok(proof) => {
            let last_well = life.map(|life| round.wall(life));
            decision.commands.push(Change::HostGone { proof, last_well });
            true
        }
        Err(NoProof::WiringUnverified { .. }) => {
            unverified(round, decision, host);
            false
        }
        Err(_) => false,
    }
}

fn unverified(round: &Round<'_>, decision: &mut Decision, host: &HostName) {
    let key = format!("fencing/{host}");
    let summary = format!("{host} is said to be off by a power device whose wiring nobody has verified");
    let human = format!(
        "Look whether {host} is really off; if so, run `holdfast host confirm-off {host} --operator YOUR-NAME`. Then set \
         `wiring_verified_by` for its device."
    );
    open(round, decision, key, Severity::Critical, summary, Some(human));
}

pub(super) fn open(
    round: &Round<'_>,
    decision: &mut Decision,
    key: String,
    severity: Severity,
    summary: String,
    human: Option<String>,
) {
    let known = round.state.open_incident(&key);
    if !known.is_some_and(|open| open.summary == summary && open.human == human && open.severity == severity) {
        decision.commands.push(Change::IncidentOpened { key, severity, summary, human, guests: Vec::new() });
    }
}

pub(super) fn close(round: &Round<'_>, decision: &mut Decision, key: &str) {
    if round.state.open_incident(key).is_some() {
        decision.commands.push(Change::IncidentResolved { key: key.to_owned() });
    }
}

/// A device that called a living host off is not to be trusted, and somebody is told (R9).
fn contradiction(round: &Round<'_>, decision: &mut Decision, host: &HostName, incarnation: &Incarnation) {
    let key = format!("fencing/{host}");
    let life = round.evidence.last_life(host, incarnation);
    let fresh = life.is_some_and(|life| round.now.moment.since(life) < round.timing.suspect_after.0);
    // What was heard just before the device was asked contradicts nothing.
    let reading = round.evidence.hosts.get(host).and_then(|known| known.power.as_ref());
    let asked = reading.filter(|reading| reading.power == Power::Off && reading.incarnation == *incarnation);
    if fresh && asked.is_none_or(|reading| life >= Some(reading.asked)) {
        let summary =
            format!("{host} was proven off, and the same boot is heard again: its power device is not to be trusted");
        let human =
            format!("Check the wiring of the power device of {host}, and reboot {host}: until then it runs nothing.");
        open(round, decision, key, Severity::Critical, summary, Some(human));
    } else {
        close(round, decision, &key);
    }
}

/// Whether an unfenced host is to be fenced.
fn consider(round: &Round<'_>, decision: &mut Decision, name: &HostName, incarnation: &Incarnation) {
    let Some(judgement) = round.hosts.get(name) else { return };
    if judgement.verdict == HostVerdict::Healthy {
        close(round, decision, &format!("fencing/{name}"));
    }
    let may_run = round.state.guests_of(name).next().is_some();
    let stuck = stuck_behind_dead_supervisor(round, name);
    if judgement.verdict != HostVerdict::Failed && stuck.is_none() {
        return;
    }
    // A host that may run nothing needs no fence: nothing waits for proof (S8).
    if !may_run || decision.report.storm_hold.is_some() {
        return;
    }
    let mut evidence = judgement.evidence.clone();
    evidence.extend(stuck);
    let life = round.evidence.last_life(name, incarnation).map(|life| round.wall(life));
    decision.commands.push(Change::FenceOpened {
        host: name.clone(),
        incarnation: incarnation.clone(),
        evidence,
        last_well: life,
    });
}

/// A guest that fails, or waits for an answer, on a host whose supervisor has been down for so long that nobody there
/// will help it (R16).
fn stuck_behind_dead_supervisor(round: &Round<'_>, name: &HostName) -> Option<String> {
    let judgement = round.hosts.get(name).filter(|judgement| judgement.verdict == HostVerdict::SupervisorDown)?;
    if Duration::from_millis(judgement.unsynced_ms) < SUPERVISOR_PATIENCE {
        return None;
    }
    let failed = round.state.guests_of(name).find_map(|(guest, known)| {
        if let Phase::Starting { .. } | Phase::Releasing { .. } = &known.phase {
            return Some(format!("{guest} is {} there", known.word()));
        }
        if let Phase::Migrating(Migration { step: MigrationStep::Clearing { .. }, .. }) = &known.phase {
            return Some(format!("what its move has left of {guest} is there"));
        }
        let home = known.home().filter(|home| home.host == *name)?;
        super::services::failed_service(round.state, round.evidence, round.now.moment, guest, home.epoch)
    })?;
    Some(format!("its supervisor has been silent for {} s and {failed}", judgement.unsynced_ms / 1_000))
}

/// Carries an open fence on, or lets it be superseded.
fn carry_on(round: &Round<'_>, decision: &mut Decision, name: &HostName, fence: &Fence, free_slot: &mut bool) {
    let Some(judgement) = round.hosts.get(name) else { return };
    if let Some(attempt) = fence.attempt {
        overdue(round, decision, attempt);
        return;
    }
    match judgement.verdict {
        HostVerdict::Healthy => {
            let why = format!("{name} syncs again, and nothing is on its way to its power device");
            decision.commands.push(Change::FenceSuperseded { host: name.clone(), why });
            return;
        }
        // R16: heard again, a silent supervisor alone is no reason to switch its host off.
        HostVerdict::SupervisorDown if stuck_behind_dead_supervisor(round, name).is_none() => {
            let why = format!("{name} is heard again, and nothing is on its way to its power device");
            decision.commands.push(Change::FenceSuperseded { host: name.clone(), why });
            return;
        }
        HostVerdict::SupervisorDown | HostVerdict::Failed => {}
        // The evidence does not hold at this moment (R17): wait until it is clear one way or the other.
        HostVerdict::Suspect | HostVerdict::Unknown | HostVerdict::Gone => return,
    }
    if !*free_slot || decision.report.storm_hold.is_some() {
        return;
    }
    let pause = if fence.attempts == 0 {
        Duration::ZERO
    } else {
        Duration::from_secs(1 << fence.attempts.min(5)).min(RETRY_MAX) / 2
    };
    if fence.failed.is_some_and(|failed| round.age(failed) < pause) {
        return;
    }
    let levels = round.state.policies.fencing.get(name).map_or(&[] as &[FenceLevel], Vec::as_slice);
    let Some(level) = next_device(levels, fence.next_level) else {
        nobody_can(round, decision, name);
        return;
    };
    if let Some(executor) = executor(round, name, fence.attempts) {
        *free_slot = false;
        decision.commands.push(Change::FenceAttempted { host: name.clone(), executor, level });
    }
}

/// R20: an attempt whose executor has been silent for so long that whatever it began has ended counts as failed.
fn overdue(round: &Round<'_>, decision: &mut Decision, attempt: OrderId) {
    let Some(order) = round.state.orders.get(&attempt) else { return };
    // It may begin with the lease of its last sync, and then has its deadline.
    let longest = round.timing.lease.0 * 21 / 20 + order.deadline.0 + SETTLE;
    let unsynced = round.hosts.get(&order.host).map(|judgement| Duration::from_millis(judgement.unsynced_ms));
    if unsynced.is_some_and(|unsynced| unsynced >= longest) && round.age(order.issued) >= longest {
        let detail = format!("its executor {} has been silent for longer than an attempt may take", order.host);
        decision.commands.push(Change::OrderEnded { order: attempt, outcome: OrderOutcome::Failed { detail } });
    }
}

fn next_device(levels: &[FenceLevel], from: usize) -> Option<usize> {
    let count = levels.len();
    (0..count).map(|step| (from + step) % count).find(|level| matches!(levels.get(*level), Some(FenceLevel::Ipmi(_))))
}

fn nobody_can(round: &Round<'_>, decision: &mut Decision, name: &HostName) {
    let summary = format!("{name} has failed, and no power device is declared for it");
    let human = format!(
        "Make sure that {name} is off, then run `holdfast host confirm-off {name} --operator YOUR-NAME`. Until then its guests \
         start nowhere else."
    );
    open(round, decision, ClusterState::host_key(name), Severity::Critical, summary, Some(human));
}

/// The coordinator first, because its word needs no further trip; others in turn when an attempt has failed.
fn executor(round: &Round<'_>, target: &HostName, attempts: u32) -> Option<HostName> {
    let me = round.evidence.me.iter().filter(|me| *me != target).filter(|me| round.state.hosts.contains_key(*me));
    let others = round.state.hosts.keys().filter(|host| *host != target && Some(*host) != round.evidence.me.as_ref());
    let able: Vec<&HostName> = me.chain(others).filter(|host| round.answers(host)).collect();
    let turn = usize::try_from(attempts).unwrap_or(0).checked_rem(able.len())?;
    able.get(turn).map(|host| (*host).clone())
}

/// S9: more than one host, and more than a third of them, fell silent within [`STORM_WINDOW_MS`] and are silent still. A
/// host that fell silent long before has its own cause, and must not hold the fence of the next one for ever.
fn storm(round: &Round<'_>) -> Option<String> {
    let total = round.hosts.len();
    let mut silent: Vec<(u64, &str)> = round
        .hosts
        .iter()
        .filter(|(name, judgement)| {
            matches!(judgement.verdict, HostVerdict::Suspect | HostVerdict::Failed)
                && round.state.hosts.get(*name).is_some_and(|host| host.mode == Mode::Active)
                && !off_by_device(round, name)
        })
        .map(|(name, judgement)| (judgement.silent_ms, name.as_str()))
        .collect();
    silent.sort_unstable();
    let together = |(since, _): &(u64, &str)| {
        let window = *since..=since.saturating_add(STORM_WINDOW_MS);
        silent.iter().filter(|(other, _)| window.contains(other)).map(|(_, name)| *name).collect::<Vec<&str>>()
    };
    let mut most = silent.iter().map(together).max_by_key(Vec::len)?;
    most.sort_unstable();
    (most.len() > 1 && most.len() * 3 > total).then(|| format!("{} are silent at once", most.join(", ")))
}

fn off_by_device(round: &Round<'_>, name: &HostName) -> bool {
    let reading = round.evidence.hosts.get(name).and_then(|known| known.power.as_ref());
    let boot = round.state.hosts.get(name).map(|host| &host.facts.incarnation);
    reading.is_some_and(|reading| reading.power == Power::Off && Some(&reading.incarnation) == boot)
}

fn supervisor_down(round: &Round<'_>, decision: &mut Decision, name: &HostName) {
    let key = format!("supervisor/{name}");
    match round.hosts.get(name).map(|judgement| judgement.verdict) {
        Some(HostVerdict::SupervisorDown) => {
            let summary = format!("the supervisor of {name} is silent, but {name} is alive");
            let human =
                format!("Its guests run on. Start the supervisor of {name} again, or look why it does not start.");
            open(round, decision, key, Severity::Warning, summary, Some(human));
        }
        Some(HostVerdict::Healthy | HostVerdict::Gone) => close(round, decision, &key),
        Some(HostVerdict::Suspect | HostVerdict::Failed | HostVerdict::Unknown) | None => {}
    }
}
