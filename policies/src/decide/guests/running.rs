//! A guest that runs: what stands before everything else, and its ends and its moves when it is well.

use std::{collections::BTreeMap, time::Duration};

use super::{
    super::{FOREVER, GuestJudgement, Round},
    Pass,
    condition::{Condition, judge_services, trouble},
    glance::Here,
    reasons::must_leave,
    wanted::hands_on,
    without_lease::{stopped_by_lease, waits_for_lease},
};
use crate::{
    change::Change,
    evidence::{Sight, SightState},
    hands_off::HandsOff,
    model::{GuestDeclaration, Policy},
    names::{GuestName, OrderId},
    order::OrderKind,
    state::{Guest, Tenure, Wanted},
};

/// Cool-down of a guest without a policy.
pub(in crate::decide) const COOL_DOWN: Duration = Duration::from_secs(300);

/// How long a guest must have been well for a call at the end of its ladder to be over, unless its cool-down is shorter.
const CALL_OVER_AFTER: Duration = Duration::from_secs(60);

/// The fields of [`crate::state::Phase::Running`], and whose they are.
pub(super) struct Run<'a> {
    pub name: &'a GuestName,
    pub guest: &'a Guest,
    pub declared: Option<&'a GuestDeclaration>,
    pub tenure: &'a Tenure,
    /// Its host.
    pub here: Here<'a>,
    pub since: u64,
    pub verified: bool,
    pub action: Option<OrderId>,
}

impl Pass<'_, '_> {
    pub(super) fn running(&mut self, run: &Run<'_>, judgement: &mut GuestJudgement) {
        let round = self.round;
        judgement.doing = ["runs on ", run.tenure.host.as_str()].concat();
        // Its start ends that, unless the coordinator was lost right after it had ordered it, or the guest was found where it runs.
        self.close("placement");
        let policy = run.declared.and_then(|declared| round.state.policies.policy_for(declared));
        let policy = policy.map(|(_, policy)| policy);
        judge_services(round, run, policy, judgement);
        if let Some(there) = self.moved_to(run) {
            self.follow(run, there, judgement);
            return;
        }
        let stray = self.strays_of_running(run);
        if self.is_to_stop(run, judgement) {
            return;
        }
        if let Some(order) = run.action {
            let what = round.state.orders.get(&order).map_or("a rung", |order| done_by(&order.kind));
            what.clone_into(&mut judgement.doing);
            // A host that is not well heard waits for something of its own, which is told when all hosts have been looked at.
            if run.here.answers {
                judgement.waits = self.round.left_of(order, "the report of it");
            }
            return;
        }
        if !run.here.answers {
            // What its host waits for is told when all hosts have been looked at.
            judgement.doing = format!("its host {} is not well heard", run.tenure.host);
            return;
        }
        if let Some(stray) = stray {
            // S1: whatever starts here would run beside what is there, on the same disks.
            judgement.doing = format!("{}; {stray}", judgement.doing);
            judgement.waits = self.stop_of_strays(run.name, Some(&run.tenure.host));
            return;
        }
        if stopped_by_lease(round, run) {
            let why = format!("{} stopped it when its lease ran out", run.tenure.host);
            if let Some(hands_off) = round.state.hands_off(run.name) {
                judgement.doing = format!("{why}; {hands_off}");
                judgement.waits = Some(hands_on(&hands_off));
            } else {
                judgement.doing = format!("{why}: it is started anew");
                self.decision.commands.push(Change::StoppedByLease { guest: run.name.clone() });
            }
            return;
        }
        if waits_for_lease(round, run) {
            judgement.doing = format!("{} has no lease yet, and may have stopped it for that", run.tenure.host);
            let what = format!("{} to have a lease, and to say what runs there", run.tenure.host);
            judgement.waits = Some((what, FOREVER));
            return;
        }
        self.need_not_leave(run);
        match trouble(round, run, policy, judgement) {
            Condition::Well => self.well(run, policy, judgement),
            Condition::NotToBeJudged { why, waits } => {
                (judgement.doing, judgement.waits) = (why, Some(waits));
                leaves_later(round, run, judgement);
                self.unclear(run);
            }
            Condition::Ill { trouble, why, evidence } => match round.state.hands_off(run.name) {
                Some(hands_off) => {
                    judgement.doing = format!("{why}; {hands_off}");
                    judgement.waits = Some(hands_on(&hands_off));
                }
                None if self.may_have_gone(run, &why, judgement) => {}
                None => self.ill(run, trouble, why, evidence, judgement),
            },
        }
    }

    fn well(&mut self, run: &Run<'_>, policy: Option<&Policy>, judgement: &mut GuestJudgement) {
        let host = &run.tenure.host;
        if !run.verified {
            return self.comes_up(run, policy, judgement);
        }
        // Nothing was tried at the end of its ladder, so nothing is to be verified either: the call itself is over.
        let is_up = || self.unasked_beside_those_that_are_up(run, policy, judgement).is_some();
        if self.told.about("guest").is_some() && is_up() && has_come_to_stay(self.round, run) {
            self.close("guest");
        }
        self.degraded(run, policy, judgement);
        self.unasked(run, policy, judgement);
        self.warned(run, policy, judgement);
        if let Some(hands_off) = self.hands_off(run) {
            judgement.doing = format!("runs on {host}; {hands_off}");
            return;
        }
        let cool_down = policy.map_or(COOL_DOWN, |policy| policy.cool_down.0);
        if run.guest.ladder.position.as_ref().is_some_and(|position| self.round.age(position.acted) >= cool_down) {
            self.decision.commands.push(Change::LadderReset { guest: run.name.clone() });
        }
        self.consider_move(run, policy, judgement);
    }

    /// Why nothing is done to a running guest. Where all hosts are active, and nothing is suspended, only its own wish says so.
    pub(super) fn hands_off(&self, run: &Run<'_>) -> Option<HandsOff> {
        let state = self.round.state;
        let unusual = !self.glance.all_active || state.suspended.is_some() || run.guest.wanted == Wanted::Unmanaged;
        unusual.then(|| state.hands_off_of(run.name, run.guest)).flatten()
    }
}

/// What an order does to a guest that runs.
fn done_by(kind: &OrderKind) -> &'static str {
    match kind {
        OrderKind::RestartService { .. } => "restarting a service",
        OrderKind::Reboot { .. } => "rebooting",
        OrderKind::Resume { .. } => "being let run again",
        OrderKind::Start { .. }
        | OrderKind::Release { .. }
        | OrderKind::Receive { .. }
        | OrderKind::Send { .. }
        | OrderKind::Fence { .. } => "a rung",
    }
}

/// Whether a call at the end of a guest's ladder is over, now that it is well. One that comes and goes has people called once.
fn has_come_to_stay(round: &Round<'_>, run: &Run<'_>) -> bool {
    if run.guest.ladder.position.is_none() {
        return true;
    }
    let epoch = run.tenure.epoch;
    let answers = |sight: &&Sight| match sight.state {
        SightState::Passing | SightState::Slow => sight.epoch == epoch,
        SightState::Flapping | SightState::Failing | SightState::Unknown => false,
    };
    let services = round.evidence.services.get(run.name).into_iter().flat_map(BTreeMap::values);
    let answered = services.filter_map(|sights| sights.values().filter(answers).map(|sight| sight.since).min());
    let stood_still = run.here.seen.and_then(|seen| seen.stood_still.get(run.name));
    let went_on = stood_still.filter(|(of, _)| *of == epoch).map(|(_, until)| *until);
    let since = answered.chain(went_on).max();
    since.is_none_or(|since| round.now.moment.since(since) >= CALL_OVER_AFTER)
}

/// A guest that cannot stay, and is not in a condition to be moved, says so.
pub(super) fn leaves_later(round: &Round<'_>, run: &Run<'_>, judgement: &mut GuestJudgement) {
    if let Some(reason) = must_leave(round, run).filter(|_| round.state.hands_off(run.name).is_none()) {
        judgement.doing = format!("{}; {reason}, and it goes when that is over", judgement.doing);
    }
}
