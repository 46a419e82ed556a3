//! Deciding: the coordinator's brain, one pure function.
//!
//! `decide` looks at the whole replicated state and at all evidence, never at "what changed". Running it twice gives
//! the same answer; what it proposed and what was committed meanwhile makes the proposal fall away.

mod fences;
pub mod guests;
pub mod hosts;
pub mod placement;
pub mod services;

use std::{collections::BTreeMap, time::Duration};

pub use hosts::{HostJudgement, HostVerdict};
use serde::{Deserialize, Serialize};
pub use services::{ServiceJudgement, ServiceVerdict};

use crate::{
    change::Change,
    evidence::Evidence,
    hostfile::Timing,
    names::{GuestName, HostName, Incarnation, ServiceName},
    state::{ClusterState, Life},
    time::{Moment, Now, WallTime},
};

/// Commands that one round may propose: more would be decided on a state that they themselves change.
pub const COMMANDS_PER_ROUND: usize = 64;

/// What one round of deciding came to.
#[derive(Debug, Clone, Default)]
pub struct Decision {
    /// To be proposed, in order.
    pub commands: Vec<Change>,
    /// To be asked; harmless.
    pub wishes: Vec<Wish>,
    /// Why this, why not that, and what is waited for.
    pub report: Report,
}

/// A question that the coordinator wants answered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wish {
    /// Ask the host's power device for its status.
    AskPower {
        /// The host.
        host: HostName,
        /// The boot that is wondered about.
        incarnation: Incarnation,
    },
    /// Ask the other voters how long ago they heard the host (R17).
    AskVoters {
        /// The host.
        host: HostName,
        /// The boot that is wondered about.
        incarnation: Incarnation,
    },
}

/// What was found about everything.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    /// By host.
    pub hosts: BTreeMap<HostName, HostJudgement>,
    /// By guest.
    pub guests: BTreeMap<GuestName, GuestJudgement>,
    /// Fencing is held because too many hosts are silent at once (S9).
    pub storm_hold: Option<String>,
}

/// What was found about a guest.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct GuestJudgement {
    /// By service.
    pub services: BTreeMap<ServiceName, ServiceJudgement>,
    /// What is done about it, or why nothing is.
    pub doing: String,
    /// What is waited for, and at most how much longer in milliseconds.
    pub waits: Option<(String, u64)>,
}

/// Everything that one round looks at.
pub(crate) struct Round<'a> {
    pub state: &'a ClusterState,
    pub evidence: &'a Evidence,
    pub timing: &'a Timing,
    pub now: Now,
    pub hosts: BTreeMap<HostName, HostJudgement>,
}

/// Decides what is to be done.
#[must_use]
pub fn decide(state: &ClusterState, evidence: &Evidence, timing: &Timing, now: Now) -> Decision {
    let mut decision = Decision::default();
    if evidence.quorum_since.is_none() {
        return decision;
    }
    let judged = hosts::judge_all(state, evidence, timing, now.moment);
    let round = Round { state, evidence, timing, now, hosts: judged };
    fences::decide(&round, &mut decision);
    guests::decide(&round, &mut decision);
    decision.report.hosts = round.hosts;
    decision.commands.truncate(COMMANDS_PER_ROUND);
    decision
}

impl Round<'_> {
    /// Whether the host syncs, is not fenced (then it has no lease, R20), and so can carry out orders.
    pub(crate) fn answers(&self, host: &HostName) -> bool {
        let up = self.state.hosts.get(host).is_some_and(|known| known.life == Life::Up);
        up && self.hosts.get(host).is_some_and(|judgement| judgement.verdict == HostVerdict::Healthy)
    }

    /// The wall-clock time of a moment in the past.
    pub(crate) fn wall(&self, moment: Moment) -> WallTime {
        let ago = u64::try_from(self.now.moment.since(moment).as_millis()).unwrap_or(u64::MAX);
        WallTime(self.now.wall.0.saturating_sub(ago))
    }

    /// Time since a log entry was applied here.
    pub(crate) fn age(&self, index: u64) -> Duration {
        self.evidence.marks.age(index, self.now.moment)
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
