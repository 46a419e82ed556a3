//! Service verdicts: consecutive failures at a vantage, and vantages that agree.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    evidence::{Evidence, Sight, SightState},
    model::Service,
    names::{Epoch, GuestName, ServiceName, Vantage},
    state::ClusterState,
    time::Moment,
};

/// What a service amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceVerdict {
    /// It answers.
    Healthy,
    /// Some vantages say that it answers and others that it does not: the gray failure.
    Degraded,
    /// Somebody says that it does not answer.
    Suspect,
    /// As many vantages as the policy asks for say that it does not answer.
    Failed,
    /// Nobody could ask.
    Unknown,
}

/// A verdict with what it rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceJudgement {
    /// The verdict.
    pub verdict: ServiceVerdict,
    /// What each vantage says.
    pub evidence: Vec<String>,
}

/// Sights older than this many intervals say nothing any more.
const STALE_INTERVALS: u32 = 3;

/// Judges one service of a guest under one assignment.
#[must_use]
pub fn judge(
    evidence: &Evidence,
    now: Moment,
    guest: &GuestName,
    epoch: Epoch,
    name: &ServiceName,
    service: &Service,
) -> ServiceJudgement {
    let fresh_for = service.every.0 * STALE_INTERVALS + service.timeout.0 + Duration::from_secs(1);
    let sights = evidence.services.get(guest).and_then(|services| services.get(name));
    let fresh: Vec<(&Vantage, &Sight)> = sights
        .into_iter()
        .flatten()
        .filter(|(_, sight)| sight.epoch == epoch && now.since(sight.at) <= fresh_for)
        .collect();
    let count =
        |state| u32::try_from(fresh.iter().filter(|(_, sight)| sight.state == state).count()).unwrap_or(u32::MAX);
    let (failing, passing) = (count(SightState::Failing), count(SightState::Passing));
    let verdict = match (failing, passing) {
        (0, 0) => ServiceVerdict::Unknown,
        (0, _) => ServiceVerdict::Healthy,
        (failing, _) if failing >= service.from.agree => ServiceVerdict::Failed,
        (_, 0) => ServiceVerdict::Suspect,
        (_, _) => ServiceVerdict::Degraded,
    };
    ServiceJudgement { verdict, evidence: fresh.iter().map(|(vantage, sight)| said(vantage, sight, now)).collect() }
}

fn said(vantage: &Vantage, sight: &Sight, now: Moment) -> String {
    let word = match sight.state {
        SightState::Passing => "passes",
        SightState::Failing => "fails",
        SightState::Unknown => "cannot tell",
    };
    let ago = crate::time::Span::ms(crate::time::millis(now.since(sight.at)));
    format!("{vantage} {word} {ago} ago ({})", sight.detail)
}

/// The first service of a guest that has failed, as a sentence.
#[must_use]
pub fn failed_service(
    state: &ClusterState,
    evidence: &Evidence,
    now: Moment,
    guest: &GuestName,
    epoch: Epoch,
) -> Option<String> {
    let (_, policy) = state.policies.policy_of(guest)?;
    policy.services.iter().find_map(|(name, service)| {
        let judgement = judge(evidence, now, guest, epoch, name, service);
        (judgement.verdict == ServiceVerdict::Failed).then(|| format!("{name} of {guest} does not answer"))
    })
}
