//! Taking stock: how everything is, made of what is committed, of what the coordinator reports, and of what neither of them knows.

use std::{cmp::Reverse, collections::BTreeMap};

use holdfast_policies::{
    decide::{FOREVER, GuestJudgement, HostJudgement, HostVerdict, Report},
    feature_level::FeatureLevel,
    incident::Incident,
    lease::SafeAt,
    names::{GuestName, HostName},
    revocation::Revocation,
    state::{ClusterState, Fence, Guest, Host, Life, Mode, Phase},
    time::WallTime,
};

use super::{
    status::{GuestStatus, HostLife, HostStatus, IncidentStatus, LevelStatus, RevokedStatus, SafeStatus, Status},
    words::{lasted, rfc3339},
};

/// Resolved incidents shown beside the open ones: what happened this week, on one screen.
const RESOLVED_SHOWN_MAX: usize = 10;

/// What the state and the report do not know.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The cluster's id.
    pub cluster: String,
    /// Who leads, as far as this supervisor knows.
    pub leader: Option<HostName>,
    /// Whether a majority of the voters follows the leader.
    pub quorum: bool,
    /// The newest term.
    pub term: u64,
    /// Hosts with a vote, by the committed membership.
    pub voters: Vec<HostName>,
    /// Those of them that do not answer the leader as voters; nobody before it has led for a while.
    pub mute_voters: Vec<HostName>,
    /// The time of the answer.
    pub now: WallTime,
    /// What the hosts can do that count for raising the feature level; `None` for one that has not said so.
    pub abilities: BTreeMap<HostName, Option<FeatureLevel>>,
    /// Receivers that could not be told, and why.
    pub alert_troubles: Vec<String>,
}

/// How everything is.
#[must_use]
pub fn status(state: &ClusterState, report: &Report, facts: &Facts) -> Status {
    let hosts = state.hosts.iter().map(|(name, host)| (name.clone(), of_host(state, report, facts, name, host)));
    let guests = state.guests.iter().map(|(name, guest)| (name.clone(), of_guest(guest, report.guests.get(name))));
    Status {
        cluster: facts.cluster.clone(),
        at: rfc3339(facts.now),
        leader: facts.leader.clone(),
        quorum: facts.quorum,
        term: facts.term,
        voters: facts.voters.clone(),
        mute_voters: facts.mute_voters.clone(),
        policy_version: state.policy_version,
        storm_hold: report.storm_hold.clone(),
        suspended_by: state.suspended.as_ref().map(|suspension| suspension.by.clone()),
        feature_level: state.level,
        behind: behind(state, facts),
        revoked: state.revoked.iter().map(|(name, revocation)| (name.clone(), of_revoked(revocation))).collect(),
        hosts: hosts.collect(),
        guests: guests.collect(),
        incidents: incidents(state, facts.now),
        alert_troubles: facts.alert_troubles.clone(),
    }
}

fn behind(state: &ClusterState, facts: &Facts) -> BTreeMap<HostName, Option<FeatureLevel>> {
    let highest = FeatureLevel::HIGHEST;
    // Once it is raised, whoever says nothing is merely away.
    let cannot = |level: Option<FeatureLevel>| level < Some(highest) && (state.level < highest || level.is_some());
    facts.abilities.iter().filter(|(_, level)| cannot(**level)).map(|(name, level)| (name.clone(), *level)).collect()
}

fn of_revoked(revocation: &Revocation) -> RevokedStatus {
    RevokedStatus {
        by: revocation.by.clone(),
        why: revocation.why.clone(),
        readmitted: revocation.readmitted.as_ref().map(ToString::to_string),
    }
}

fn of_host(state: &ClusterState, report: &Report, facts: &Facts, name: &HostName, host: &Host) -> HostStatus {
    let judgement = report.hosts.get(name);
    let guests: Vec<GuestName> = state.guests_of(name).map(|(guest, _)| guest.clone()).collect();
    let (life, proof) = match &host.life {
        Life::Up => (HostLife::Up, None),
        Life::Fencing(_) => (HostLife::Fencing, None),
        Life::Gone { proof } => (HostLife::Gone, Some(proof.to_string())),
    };
    HostStatus {
        verdict: judgement.map_or(HostVerdict::Unknown, |judgement| judgement.verdict),
        evidence: judgement.map(|judgement| judgement.evidence.clone()).unwrap_or_default(),
        incarnation: host.facts.incarnation.clone(),
        mode: host.mode,
        mode_on_return: mode_on_return(host),
        voter: facts.voters.contains(name),
        runs_guests: host.facts.guests,
        memory_mib: host.facts.memory_mib,
        waits: host_waits(host, judgement, guests.len()),
        safe_at: judgement.and_then(|judgement| judgement.safe_at.as_ref()).map(safe),
        guests,
        life,
        proof,
        unwell: judgement.and_then(|judgement| judgement.unwell.clone()),
        last_words: judgement.and_then(|judgement| judgement.last_words.clone()),
        quarantine: host.quarantine.as_ref().map(ToString::to_string),
        distrusted: host.distrusted.iter().map(|level| level.saturating_add(1)).collect(),
        kept: host.kept.iter().cloned().collect(),
        fencing: fencing(state, name, host, facts.now),
        drilled_by: host.drill.as_ref().map(|drill| drill.by.clone()),
    }
}

fn mode_on_return(host: &Host) -> Option<Mode> {
    match (host.mode, host.mode_on_return) {
        (Mode::Active | Mode::Draining | Mode::Maintenance, _) | (Mode::Leaving { .. }, Mode::Active) => None,
        (Mode::Leaving { .. }, other) => Some(other),
    }
}

fn safe(safe: &SafeAt) -> SafeStatus {
    SafeStatus {
        at: rfc3339(safe.at),
        left_ms: safe.left_ms,
        granted_at: rfc3339(safe.granted),
        lease_ms: safe.longest.lease_ms,
        guard_ms: safe.longest.guard_ms,
        watchdog_ms: safe.longest.watchdog_ms,
    }
}

fn fencing(state: &ClusterState, name: &HostName, host: &Host, now: WallTime) -> BTreeMap<usize, LevelStatus> {
    let levels = state.policies.levels_of(name).iter().enumerate().filter(|(_, level)| level.has_device());
    let status = |(level, _)| {
        let failed = host.paths.iter().filter(|path| path.level == level);
        let unreached = failed.filter_map(|path| Some((path.executor.clone(), path.error.clone()?)));
        let status = LevelStatus {
            proven_ago_ms: host.proven(level).map(|proven| now.0.saturating_sub(proven.at.0)),
            wiring: state.wiring_of(name, level),
            unreached: unreached.collect(),
        };
        (level.saturating_add(1), status)
    };
    levels.map(status).collect()
}

fn host_waits(host: &Host, judgement: Option<&HostJudgement>, guests: usize) -> Option<String> {
    let judged = judgement.and_then(|judgement| judgement.waits.as_ref()).map(bounded);
    match (&host.life, host.mode) {
        (Life::Fencing(fence), _) => {
            let fence = fence_waits(fence);
            Some(judged.map_or_else(|| fence.clone(), |judged| format!("{judged}; {fence}")))
        }
        _ if judged.is_some() => judged,
        (Life::Up, Mode::Draining) if guests > 0 => Some(format!("{guests} guests to move away")),
        (Life::Up | Life::Gone { .. }, _) => None,
    }
}

/// A wait with its bound.
fn bounded((what, ms): &(String, u64)) -> String {
    if *ms == FOREVER {
        format!("{what}, however long it takes")
    } else {
        format!("{what}, at most {} more", lasted(*ms))
    }
}

fn fence_waits(fence: &Fence) -> String {
    let failed =
        fence.last_error.as_ref().map(|error| format!("; {} attempts so far, the newest: {error}", fence.attempts));
    let waits = match fence.attempt {
        Some(order) => format!("proof that it is off; {order} is being carried out"),
        None => "proof that it is off; no power device is being asked at the moment".to_owned(),
    };
    waits + &failed.unwrap_or_default()
}

fn of_guest(guest: &Guest, judgement: Option<&GuestJudgement>) -> GuestStatus {
    let tenure = guest.home().or_else(|| guest.tenures().first().copied());
    let doing = judgement.map(|judgement| judgement.doing.clone()).filter(|doing| !doing.is_empty());
    GuestStatus {
        state: guest.word().to_owned(),
        wanted: guest.wanted,
        host: tenure.map(|tenure| tenure.host.clone()),
        epoch: tenure.map(|tenure| tenure.epoch.to_string()),
        verified: matches!(guest.phase, Phase::Running { verified: true, .. }),
        doing: doing.unwrap_or_else(|| guest.word().to_owned()),
        waits: guest_waits(guest, judgement),
        services: judgement.map(|judgement| judgement.services.clone()).unwrap_or_default(),
        given_up: guest.given_up.clone(),
        heading: guest.heading.as_ref().map(|heading| heading.to.clone()),
        strays: guest.strays.keys().cloned().collect(),
    }
}

/// What a guest waits for, as a sentence.
pub(super) fn guest_waits(guest: &Guest, judgement: Option<&GuestJudgement>) -> Option<String> {
    if let Some(waits) = judgement.and_then(|judgement| judgement.waits.as_ref()) {
        return Some(bounded(waits));
    }
    match &guest.phase {
        Phase::Starting { tenure, order } => Some(format!("{} to carry out {order}", tenure.host)),
        Phase::Releasing { failed: Some((_, detail)), .. } => {
            Some(format!("a stop that works; the newest failed: {detail}"))
        }
        Phase::Releasing { tenure, .. } => Some(format!("the word of {} that nothing of it is left", tenure.host)),
        Phase::Migrating(migration) => {
            migration.failure.as_ref().map(|why| format!("the end of a move that failed: {why}"))
        }
        Phase::Unplaced | Phase::Free { .. } | Phase::Running { .. } => None,
    }
}

fn incidents(state: &ClusterState, now: WallTime) -> Vec<IncidentStatus> {
    let (mut open, resolved): (Vec<&Incident>, Vec<&Incident>) =
        state.incidents.values().rev().partition(|incident| incident.is_open());
    open.sort_by_key(|incident| Reverse(incident.severity));
    open.into_iter().chain(resolved.into_iter().take(RESOLVED_SHOWN_MAX)).map(|one| of_incident(one, now)).collect()
}

fn of_incident(incident: &Incident, now: WallTime) -> IncidentStatus {
    let until = incident.resolved.unwrap_or(now);
    IncidentStatus {
        id: incident.id,
        key: incident.key.clone(),
        open: incident.is_open(),
        severity: incident.severity,
        summary: incident.summary.clone(),
        human: incident.human.clone(),
        rung: incident.rung.clone(),
        proof: incident.proof.as_ref().map(|(_, sentence)| sentence.clone()),
        opened_at: rfc3339(incident.opened),
        resolved_at: incident.resolved.map(rfc3339),
        lasted_ms: until.0.saturating_sub(incident.opened.0),
        stages: incident.stamps.stages(),
    }
}
