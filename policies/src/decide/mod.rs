//! Deciding: the coordinator's brain, one pure function.
//!
//! `decide` looks at the whole replicated state and at all evidence, never at "what changed". Running it twice gives
//! the same answer; what it proposed and what was committed meanwhile makes the proposal fall away.

mod attempts;
mod by_word;
mod capacity;
mod certificates;
mod confirmed;
mod departures;
mod drills;
mod fences;
mod go_aheads;
pub mod guests;
pub mod hosts;
mod in_doubt;
mod leadership;
mod leases;
mod paths;
pub mod placement;
mod power_on;
mod proofs;
mod quarantine;
mod restraint;
mod service_storm;
pub mod services;
mod storm;
mod subject;
mod supervisors;
mod timings;
mod told;
mod unplaced;
mod unwell;

use std::{cell::OnceCell, collections::BTreeMap, time::Duration};

pub use attempts::pause_after;
pub use confirmed::confirm_off;
pub use departures::kept_guests;
pub use drills::{DRILL_LIMIT, drill};
pub use hosts::{HostJudgement, HostVerdict};
pub use in_doubt::guests_in_doubt;
pub use leadership::HandOver;
pub use paths::PathToTest;
pub(crate) use quarantine::FENCE_COUNTS_FOR;
pub(crate) use restraint::grace;
use serde::{Deserialize, Serialize};
pub(crate) use service_storm::{GUESTS_MIN, HELD_MAX, is_held};
pub use services::{Degradation, ServiceJudgement, ServiceVerdict, Services};
pub(crate) use storm::supposed_storm;

use crate::{
    change::Change,
    evidence::Evidence,
    go_ahead::GoAheads,
    hostfile::Timing,
    lease::SafeAt,
    model::Service,
    names::{GuestName, HostName, Incarnation, OrderId},
    state::{ClusterState, Life, Tenure},
    time::{Moment, Now, WallTime, millis},
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
    /// Power devices that are to be asked while nothing is wrong; harmless.
    pub test: Option<PathToTest>,
    /// The lead is to go to another voter; that this was tried belongs into [`Evidence::handed_over`].
    pub hand_over: Option<HandOver>,
    /// Which fences are still wanted; said with every reply until the next round.
    pub go_aheads: GoAheads,
}

/// Bound of a wait that only a person or a power device can end, in milliseconds.
pub const FOREVER: u64 = u64::MAX;

/// What is waited for, and at most how many milliseconds; [`FOREVER`] where nothing bounds it.
pub(crate) type Waits = Option<(String, u64)>;

/// A question that the coordinator wants answered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wish {
    /// Ask the power devices of one level of a host for their status.
    AskPower {
        /// The host.
        host: HostName,
        /// The boot that is wondered about.
        incarnation: Incarnation,
        /// Position of the level among the host's levels.
        level: usize,
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

impl Report {
    /// The same, with what every vantage says of services that are healthy or of which nothing can be said, and every voter of hosts
    /// that are well: for whoever shows it, because most rounds are shown to nobody.
    #[must_use]
    pub fn with_words(&self, state: &ClusterState, evidence: &Evidence, timing: &Timing, now: Moment) -> Self {
        let mut told = self.clone();
        for (name, judged) in told.hosts.iter_mut().filter(|(_, judged)| judged.evidence.is_empty()) {
            judged.evidence = hosts::judge(state, evidence, timing, now, name).evidence;
        }
        for (name, judgement) in &mut told.guests {
            let Some(home) = state.guests.get(name).and_then(|guest| guest.home()) else { continue };
            judgement.happened = happened(evidence, name, home, now);
            let Some((_, policy)) = state.policies.policy_of(name) else { continue };
            let watched = services::Watched { evidence, now, guest: name, epoch: home.epoch };
            for (service, judged) in &mut judgement.services {
                if let Some(declared) = policy.services.get(service).filter(|_| judged.evidence.is_empty()) {
                    judged.evidence = watched.words(service, declared);
                }
            }
        }
        told
    }
}

/// What its host says has happened to a guest, as sentences, oldest first.
fn happened(evidence: &Evidence, name: &GuestName, home: &Tenure, now: Moment) -> Vec<String> {
    let Some(seen) = evidence.hosts.get(&home.host) else { return Vec::new() };
    let report = seen.reports.get(name).filter(|report| report.epoch == home.epoch);
    let (Some(report), Some(sync)) = (report, &seen.sync) else { return Vec::new() };
    report.happened.iter().map(|happened| happened.later(now.since(sync.at)).to_string()).collect()
}

/// What was found about a guest.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct GuestJudgement {
    /// By service.
    #[serde(serialize_with = "services::as_map")]
    pub services: Services,
    /// What is done about it, or why nothing is.
    pub doing: String,
    /// What is waited for, and at most how much longer in milliseconds.
    pub waits: Option<(String, u64)>,
    /// What its hypervisor says has happened to it lately. Nothing in the report of a round: that is told when somebody asks
    /// ([`Report::with_words`]).
    #[serde(default)]
    pub happened: Vec<String>,
}

/// Everything that one round looks at.
pub(crate) struct Round<'a> {
    pub state: &'a ClusterState,
    pub evidence: &'a Evidence,
    pub timing: &'a Timing,
    pub now: Now,
    pub hosts: BTreeMap<HostName, HostJudgement>,
    /// What people have been told and is not over.
    pub told: told::Told<'a>,
    /// Where guests go.
    pub plan: placement::Plan<'a>,
    /// Whether there is a storm of services, once somebody has asked: that costs a look at all guests.
    services: OnceCell<service_storm::Standing>,
}

/// Decides what is to be done.
#[must_use]
pub fn decide(state: &ClusterState, evidence: &Evidence, timing: &Timing, now: Now) -> Decision {
    let mut decision = Decision::default();
    if evidence.quorum_since.is_none() {
        return decision;
    }
    let judged = hosts::judge_all(state, evidence, timing, now.moment);
    let plan = placement::Plan::of(state, evidence, now, &judged);
    let told = told::Told::of(state);
    let round = Round { state, evidence, timing, now, hosts: judged, told, plan, services: OnceCell::new() };
    let subjects = subject::Subject::all(&round);
    storm::decide(&round, &mut decision);
    let mut waits = fences::decide(&round, &mut decision, &subjects);
    go_aheads::decide(&round, &mut decision);
    let safe: BTreeMap<HostName, SafeAt> =
        subjects.iter().filter_map(|subject| Some((subject.name.clone(), leases::pending(&round, subject)?))).collect();
    for (name, safe) in &safe {
        // Whichever proof comes first: what bounds the wait is told.
        if waits.get(name).is_none_or(|(_, left)| *left >= safe.left_ms) {
            waits.insert(name.clone(), leases::wait(safe));
        }
    }
    quarantine::decide(&round, &mut decision);
    drills::decide(&round, &mut decision);
    power_on::decide(&round, &mut decision);
    paths::decide(&round, &mut decision, &subjects);
    decision.hand_over = leadership::hand_over(&round);
    guests::decide(&round, &mut decision);
    departures::decide(&round, &mut decision, &subjects);
    capacity::decide(&round, &mut decision);
    timings::decide(&round, &mut decision);
    certificates::decide(&round, &mut decision);
    unwell::decide(&round, &mut decision);
    decision.report.hosts = round.hosts;
    for (host, waits) in waits {
        if let Some(judgement) = decision.report.hosts.get_mut(&host) {
            judgement.waits = Some(waits);
        }
    }
    for (name, guest) in waiting_guests(state, &safe) {
        let judgement = decision.report.guests.entry(name.clone()).or_default();
        if judgement.waits.as_ref().is_none_or(|(_, left)| *left < guest.left_ms || *left == FOREVER) {
            judgement.waits = Some(leases::wait(guest));
        }
    }
    tell_waits_of_hosts(state, &mut decision.report);
    for (host, safe) in safe {
        if let Some(judgement) = decision.report.hosts.get_mut(&host) {
            judgement.safe_at = Some(safe);
        }
    }
    decision.commands.truncate(COMMANDS_PER_ROUND);
    decision
}

/// The guests that wait for the leases of hosts to have run out, each with the wait of its host.
fn waiting_guests<'a>(
    state: &'a ClusterState,
    safe: &'a BTreeMap<HostName, SafeAt>,
) -> impl Iterator<Item = (&'a GuestName, &'a SafeAt)> {
    safe.iter().flat_map(|(host, safe)| state.guests_of(host).map(move |(name, _)| (name, safe)))
}

/// Guests that wait for nothing of their own wait for what their host waits for, where that is being fenced or is not well
/// heard. One walk over the guests, and only when there is such a host.
fn tell_waits_of_hosts(state: &ClusterState, report: &mut Report) {
    let waits: BTreeMap<&HostName, (String, u64)> = state
        .hosts
        .iter()
        .filter_map(|(name, host)| {
            let judgement = report.hosts.get(name)?;
            let (what, left) = judgement.waits.as_ref()?;
            let whose = match host.life {
                Life::Fencing(_) => format!("the fence of {name}"),
                Life::Up if judgement.verdict != HostVerdict::Healthy || host.is_contested() => name.to_string(),
                Life::Up | Life::Gone { .. } => return None,
            };
            Some((name, (format!("{whose}, which waits for {what}"), *left)))
        })
        .collect();
    if waits.is_empty() {
        return;
    }
    for (name, guest) in &state.guests {
        let of_host = guest.halves().into_iter().flatten().find_map(|tenure| waits.get(&tenure.host));
        if let Some(of_host) = of_host {
            let judgement = report.guests.entry(name.clone()).or_default();
            judgement.waits.get_or_insert_with(|| of_host.clone());
        }
    }
}

impl Round<'_> {
    /// Whether the host syncs, is not fenced (then it has no lease, R20), is the one that has the name (R11), and so can
    /// carry out orders.
    pub(crate) fn answers(&self, host: &HostName) -> bool {
        let healthy = self.hosts.get(host).is_some_and(|judgement| judgement.verdict == HostVerdict::Healthy);
        healthy && self.state.hosts.get(host).is_some_and(|known| known.life == Life::Up && !known.is_contested())
    }

    /// How long the agent may still take for an order, counted from when it was issued.
    pub(crate) fn left_of(&self, order: OrderId, what: &str) -> Waits {
        let order = self.state.orders.get(&order)?;
        let left = order.deadline.0.saturating_sub(self.age(order.issued));
        Some((format!("{what}, by {}", order.host), millis(left)))
    }

    /// The same for an order that counts until its host has answered or is proven gone: nothing bounds the silence of one that
    /// is not heard.
    pub(crate) fn answer_to(&self, order: OrderId, what: &str) -> Waits {
        let host = &self.state.orders.get(&order)?.host;
        if self.answers(host) {
            return self.left_of(order, what);
        }
        Some((format!("{what}, by {host}, which is not well heard"), FOREVER))
    }

    /// The wall-clock time of a moment in the past.
    pub(crate) fn wall(&self, moment: Moment) -> WallTime {
        let ago = u64::try_from(self.now.moment.since(moment).as_millis()).unwrap_or(u64::MAX);
        WallTime(self.now.wall.0.saturating_sub(ago))
    }

    /// What a sync says that came after this moment was true after the log index.
    pub(crate) fn told_after(&self, index: u64) -> Moment {
        self.evidence.marks.at(index).plus(self.timing.sync_every.0 * 2)
    }

    /// How long it takes at most until so many answers of a service in a row have shown how it is, and a sync has told of it, also one that
    /// was on its way.
    fn shown_within(&self, service: &Service, answers: u32) -> Duration {
        service.answered_within(answers).saturating_add(self.timing.sync_every.0 * 2)
    }

    /// Time since a log entry was applied here.
    pub(crate) fn age(&self, index: u64) -> Duration {
        self.evidence.marks.age(index, self.now.moment)
    }
}

#[cfg(test)]
mod tests;
