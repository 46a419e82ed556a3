//! Fences: when a host is to be switched off, by whom, and what counts as proof (S3, S9, R16–R21).

use std::time::Duration;

use super::{Decision, HostVerdict, Round, Wish};
use crate::{
    change::Change,
    model::{FenceLevel, Severity},
    names::{HostName, Incarnation},
    proof::{NoProof, Power, Proof},
    state::{ClusterState, Fence, Host, Life, Mode},
};

/// Longest pause between two fence attempts; the first retry comes after a second.
const RETRY_MAX: Duration = Duration::from_secs(30);

pub(super) fn decide(round: &Round<'_>, decision: &mut Decision) {
    decision.report.storm_hold = storm(round);
    let mut free_slot = !round.state.hosts.values().any(is_being_fenced);
    for (name, host) in &round.state.hosts {
        let incarnation = &host.facts.incarnation;
        wonder(round, decision, name, incarnation, host);
        match &host.life {
            Life::Gone { .. } => contradiction(round, decision, name, incarnation),
            Life::Up | Life::Fencing(Fence { attempt: None, .. }) if proven(round, decision, name, incarnation) => {}
            Life::Up => free_slot = consider(round, decision, name, incarnation, free_slot),
            Life::Fencing(fence) => carry_on(round, decision, name, fence),
        }
        supervisor_down(round, decision, name);
    }
}

fn is_being_fenced(host: &Host) -> bool {
    matches!(host.life, Life::Fencing(_))
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
    let life = round.evidence.last_life(host, incarnation);
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
    if fresh {
        let summary = format!("{host} was proven off, and the same boot is heard again: its power device is not to be trusted");
        let human = format!("Check the wiring of the power device of {host}, and reboot {host}: until then it runs nothing.");
        open(round, decision, key, Severity::Critical, summary, Some(human));
    } else {
        close(round, decision, &key);
    }
}

/// Whether an unfenced host is to be fenced. Returns whether the slot is still free.
fn consider(
    round: &Round<'_>,
    decision: &mut Decision,
    name: &HostName,
    incarnation: &Incarnation,
    free_slot: bool,
) -> bool {
    let Some(judgement) = round.hosts.get(name) else { return free_slot };
    let may_run = round.state.guests_of(name).next().is_some();
    let stuck = stuck_behind_dead_supervisor(round, name);
    if judgement.verdict != HostVerdict::Failed && stuck.is_none() {
        return free_slot;
    }
    // A host that may run nothing needs no fence: nothing waits for proof (S8).
    if !may_run || !free_slot || decision.report.storm_hold.is_some() {
        return free_slot;
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
    false
}

/// A guest that fails on a host whose supervisor has been down for so long that nobody there will help it (R16).
fn stuck_behind_dead_supervisor(round: &Round<'_>, name: &HostName) -> Option<String> {
    let judgement = round.hosts.get(name).filter(|judgement| judgement.verdict == HostVerdict::SupervisorDown)?;
    // Longer than any supervisor's restart or upgrade should take.
    let patience = Duration::from_secs(30);
    if Duration::from_millis(judgement.unsynced_ms) < patience {
        return None;
    }
    let failed = round.state.guests_of(name).find_map(|(guest, known)| {
        let home = known.home().filter(|home| home.host == *name)?;
        super::services::failed_service(round.state, round.evidence, round.now.moment, guest, home.epoch)
    })?;
    Some(format!("its supervisor has been silent for {} s and {failed}", judgement.unsynced_ms / 1_000))
}

/// Carries an open fence on, or lets it be superseded.
fn carry_on(round: &Round<'_>, decision: &mut Decision, name: &HostName, fence: &Fence) {
    let Some(judgement) = round.hosts.get(name) else { return };
    if fence.attempt.is_some() {
        return;
    }
    if judgement.verdict == HostVerdict::Healthy {
        let why = format!("{name} syncs again, and nothing is on its way to its power device");
        decision.commands.push(Change::FenceSuperseded { host: name.clone(), why });
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
        decision.commands.push(Change::FenceAttempted { host: name.clone(), executor, level });
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

/// S9: more than one host, and more than a third of them, silent at once.
fn storm(round: &Round<'_>) -> Option<String> {
    let standing = round.hosts.iter().filter(|(_, judgement)| judgement.verdict != HostVerdict::Gone);
    let total = round.hosts.len();
    let silent: Vec<&str> = standing
        .filter(|(name, judgement)| {
            matches!(judgement.verdict, HostVerdict::Suspect | HostVerdict::Failed)
                && round.state.hosts.get(*name).is_some_and(|host| host.mode == Mode::Active)
                && !off_by_device(round, name)
        })
        .map(|(name, _)| name.as_str())
        .collect();
    (silent.len() > 1 && silent.len() * 3 > total).then(|| format!("{} are silent at once", silent.join(", ")))
}

fn off_by_device(round: &Round<'_>, name: &HostName) -> bool {
    let reading = round.evidence.hosts.get(name).and_then(|known| known.power.as_ref());
    reading.is_some_and(|reading| reading.power == Power::Off)
}

fn supervisor_down(round: &Round<'_>, decision: &mut Decision, name: &HostName) {
    let key = format!("supervisor/{name}");
    match round.hosts.get(name).map(|judgement| judgement.verdict) {
        Some(HostVerdict::SupervisorDown) => {
            let summary = format!("the supervisor of {name} is silent, but {name} is alive");
            let human = format!("Its guests run on. Start the supervisor of {name} again, or look why it does not start.");
            open(round, decision, key, Severity::Warning, summary, Some(human));
        }
        Some(HostVerdict::Healthy | HostVerdict::Gone) => close(round, decision, &key),
        Some(HostVerdict::Suspect | HostVerdict::Failed | HostVerdict::Unknown) | None => {}
    }
}
