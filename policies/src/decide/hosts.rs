//! Host verdicts (R16–R19): a host has failed only when nobody who counts has heard it.
//!
//! ```text
//! Healthy --no sync, but heard--> SupervisorDown
//!    | nothing heard for suspect_after          | nothing heard either
//!    v                                          v
//! Suspect --a majority of the other voters says so too--> Failed
//! ```

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    evidence::{Evidence, HostEvidence},
    hostfile::Timing,
    names::{HostName, Incarnation},
    state::{ClusterState, Life},
    time::{Moment, Span},
};

/// Oldest voter's answer that still counts. Answers are asked for anew every 200 ms while a host is silent.
const ANSWER_AGE_MAX: Duration = Duration::from_millis(1_000);

/// What a host amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostVerdict {
    /// It syncs.
    Healthy,
    /// It does not sync, but it is heard: its supervisor is down, it is not (R16).
    SupervisorDown,
    /// The coordinator does not hear it.
    Suspect,
    /// A majority of the other voters does not hear it either.
    Failed,
    /// Proven gone.
    Gone,
    /// It has not been heard yet since this coordinator has quorum.
    Unknown,
}

/// A verdict with what it rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostJudgement {
    /// The verdict.
    pub verdict: HostVerdict,
    /// Since how many milliseconds nothing was heard.
    pub silent_ms: u64,
    /// Since how many milliseconds it has not synced.
    pub unsynced_ms: u64,
    /// Who heard it when.
    pub evidence: Vec<String>,
    /// Why it doubts itself, if it does.
    pub unwell: Option<String>,
}

pub(super) fn judge_all(
    state: &ClusterState,
    evidence: &Evidence,
    timing: &Timing,
    now: Moment,
) -> BTreeMap<HostName, HostJudgement> {
    state.hosts.keys().map(|host| (host.clone(), judge(state, evidence, timing, now, host))).collect()
}

/// Judges one host.
#[must_use]
pub fn judge(
    state: &ClusterState,
    evidence: &Evidence,
    timing: &Timing,
    now: Moment,
    host: &HostName,
) -> HostJudgement {
    let Some(known) = state.hosts.get(host) else { return unknown() };
    let incarnation = &known.facts.incarnation;
    let nothing = HostEvidence::default();
    let heard = evidence.hosts.get(host).unwrap_or(&nothing);
    let quorum_since = evidence.quorum_since.unwrap_or(now);
    let own = evidence.last_life(host, incarnation);
    let synced = heard.sync.as_ref().filter(|sync| sync.incarnation == *incarnation).map(|sync| sync.at);
    let unsynced = now.since(synced.unwrap_or(quorum_since));
    let silent = now.since(newest_sign(state, evidence, host, incarnation).unwrap_or(quorum_since));
    let never = own.is_none() && heard.answers.values().all(|answer| answer.age.is_none());
    let (agreed, said) = agreement(evidence, heard, timing, now, host, own, never, quorum_since);
    let suspect_after = timing.suspect_after.0;
    let verdict = match &known.life {
        Life::Gone { .. } => HostVerdict::Gone,
        Life::Up | Life::Fencing(_) => {
            if never && now.since(quorum_since) < timing.join_grace.0 {
                HostVerdict::Unknown
            } else if silent >= suspect_after {
                if agreed { HostVerdict::Failed } else { HostVerdict::Suspect }
            } else if unsynced >= suspect_after {
                HostVerdict::SupervisorDown
            } else if synced.is_none() {
                HostVerdict::Unknown
            } else {
                HostVerdict::Healthy
            }
        }
    };
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    HostJudgement {
        verdict,
        silent_ms: ms(silent),
        unsynced_ms: ms(unsynced),
        evidence: said,
        unwell: heard.unwell.clone(),
    }
}

fn unknown() -> HostJudgement {
    HostJudgement { verdict: HostVerdict::Unknown, silent_ms: 0, unsynced_ms: 0, evidence: Vec::new(), unwell: None }
}

/// The freshest sign of life of any kind: to the coordinator, to another voter, or to whoever probes a guest there (R16).
pub(super) fn newest_sign(
    state: &ClusterState,
    evidence: &Evidence,
    host: &HostName,
    incarnation: &Incarnation,
) -> Option<Moment> {
    let answers = evidence.hosts.get(host).into_iter().flat_map(|known| known.answers.values());
    let voters = answers.filter_map(|answer| answer.age.map(|age| answer.asked.minus(age)));
    let tenures = state.guests.iter().flat_map(|(name, guest)| guest.tenures().into_iter().map(move |t| (name, t)));
    let passes = tenures
        .filter(|(_, tenure)| tenure.host == *host && tenure.incarnation == *incarnation)
        .filter_map(|(name, tenure)| evidence.last_pass_from_others(name, tenure.epoch, host));
    voters.chain(passes).chain(evidence.last_life(host, incarnation)).max()
}

/// Whether a majority of the other voters has not heard the host for `suspect_after`, and what each said (R17).
#[expect(clippy::too_many_arguments, reason = "a pure helper of one verdict; each argument is one line of the rule")]
fn agreement(
    evidence: &Evidence,
    heard: &HostEvidence,
    timing: &Timing,
    now: Moment,
    host: &HostName,
    own: Option<Moment>,
    never: bool,
    quorum_since: Moment,
) -> (bool, Vec<String>) {
    let mut said = Vec::new();
    let mut silent_voters = 0_usize;
    let others: Vec<&HostName> = evidence.voters.iter().filter(|voter| *voter != host).collect();
    let grace_over = never && now.since(quorum_since) >= timing.join_grace.0;
    for voter in &others {
        let age = if Some(*voter) == evidence.me.as_ref() {
            own.map(|at| now.since(at))
        } else {
            let answer =
                heard.answers.get(*voter).filter(|answer| answer.counts && now.since(answer.asked) < ANSWER_AGE_MAX);
            answer.and_then(|answer| answer.age.map(|age| age + now.since(answer.asked)))
        };
        let Some(age) = age else {
            let asked = heard.answers.contains_key(*voter) || Some(*voter) == evidence.me.as_ref();
            if grace_over && asked {
                silent_voters += 1;
                said.push(format!("{voter} has never heard it"));
            }
            continue;
        };
        said.push(format!("{voter} last heard it {} ago", Span::ms(crate::time::millis(age))));
        if age >= timing.suspect_after.0 {
            silent_voters += 1;
        }
    }
    (silent_voters * 2 > others.len(), said)
}
