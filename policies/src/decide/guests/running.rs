//! A guest that runs: its ladder when it is ill, its ends and its moves when it is well.

use std::{collections::BTreeMap, time::Duration};

use super::{
    super::{Degradation, FOREVER, GuestJudgement, Round, ServiceVerdict, fences::open, is_held},
    Pass,
    condition::{Condition, LET_RUN, boot_left, has_come_up, judge_services, to_boot, trouble},
    glance::Here,
    moves::target,
    reasons::must_leave,
    unasked::unasked_for,
    wanted::hands_on,
};
use crate::{
    change::Change,
    evidence::{HostEvidence, Sight, SightState},
    fit::host_rule_broken,
    hands_off::HandsOff,
    ladder::{LadderKind, NextStep, Trouble, ladder_of, next_step},
    model::{GuestDeclaration, OnDegraded, Policy, Rung, Severity},
    names::{GuestName, OrderId, ServiceName},
    observe::{GuestCondition, GuestReport},
    order::OrderKind,
    state::{ClusterState, Guest, Position, Tenure, Wanted},
    time::{WallTime, millis},
};

/// Cool-down of a guest without a policy.
pub(super) const COOL_DOWN: Duration = Duration::from_secs(300);

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
            let what = round.state.orders.get(&order).map_or("a rung", |order| match &order.kind {
                OrderKind::RestartService { .. } => "restarting a service",
                OrderKind::Reboot { .. } => "rebooting",
                OrderKind::Resume { .. } => "being let run again",
                OrderKind::Start { .. }
                | OrderKind::Release { .. }
                | OrderKind::Receive { .. }
                | OrderKind::Send { .. }
                | OrderKind::Fence { .. } => "a rung",
            });
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
        match trouble(round, run, policy, judgement) {
            Condition::Well => self.well(run, policy, judgement),
            Condition::NotToBeJudged { why, waits } => {
                (judgement.doing, judgement.waits) = (why, Some(waits));
                held(round, run, judgement);
                self.unclear(run);
            }
            Condition::Ill { trouble, why, evidence } => match round.state.hands_off(run.name) {
                Some(hands_off) => {
                    judgement.doing = format!("{why}; {hands_off}");
                    judgement.waits = Some(hands_on(&hands_off));
                }
                None => self.ill(run, trouble, why, evidence, judgement),
            },
        }
    }

    fn ill(
        &mut self,
        run: &Run<'_>,
        trouble: Trouble,
        why: String,
        evidence: Vec<String>,
        judgement: &mut GuestJudgement,
    ) {
        let round = self.round;
        let rungs = ladder_of(&round.state.policies, run.name, trouble.ladder());
        let (step, what) = self.step(run, &rungs, trouble, judgement);
        let hold = self.hold_of(run, trouble);
        match step {
            NextStep::Take { rung } => {
                if let (Some(hold), Some(next)) = (hold, rungs.get(rung).filter(|next| is_held(next))) {
                    self.hold(run, next, &why, hold, judgement);
                    return;
                }
                if let Some(first) = self.anew_after(run, rungs.get(rung)) {
                    self.not_anew(run, trouble, &why, first, judgement);
                    return;
                }
                let to = rungs
                    .get(rung)
                    .filter(|rung| matches!(rung, Rung::Migrate { .. }))
                    .and_then(|_| target(round, run, None).ok());
                if to.is_some() && std::mem::replace(&mut self.beside, true) {
                    judgement.doing = format!("{why}: another guest is sent on its way first");
                    judgement.waits = Some(("that guest to be on its way".to_owned(), 0));
                    return;
                }
                let last_well = last_well(round, run);
                judgement.doing = format!("{why}: taking rung {}", rung + 1);
                let guest = run.name.clone();
                self.decision.commands.push(Change::Climb {
                    guest,
                    rung,
                    ladder: trouble.ladder(),
                    to,
                    why,
                    evidence,
                    last_well,
                });
            }
            NextStep::Wait { left } => {
                judgement.doing = format!("{why}: waiting for the newest try to help");
                judgement.waits = Some((what.to_owned(), millis(left)));
                held(round, run, judgement);
            }
            NextStep::Exhausted => {
                judgement.doing = format!("{why}: every rung was taken, a human has been called");
                judgement.waits = Some(("a person, or that it recovers".to_owned(), FOREVER));
                // Who is held by a storm is told of with all the others.
                if hold.is_some() {
                    self.is_holding = true;
                } else {
                    self.call_at_its_end(run, &rungs, &why);
                }
                // What nobody can heal here does not hold up a drain.
                if trouble == Trouble::Service && must_leave(round, run).is_some() {
                    let policy = round.state.policies.policy_of(run.name).map(|(_, policy)| policy);
                    self.consider_move(run, policy, judgement);
                }
            }
        }
    }

    /// A ladder ends with a human: also one without `page`, one that was changed while it was climbed, and one whose `page` was taken
    /// before the guest answered for a while, which has ended that call.
    fn call_at_its_end(&mut self, run: &Run<'_>, rungs: &[Rung], why: &str) {
        let page = rungs.iter().find_map(|rung| match rung {
            Rung::Page { severity } => Some(*severity),
            Rung::RestartService { .. }
            | Rung::RebootGuest { .. }
            | Rung::ResumeGuest { .. }
            | Rung::ResetGuest { .. }
            | Rung::Failover { .. }
            | Rung::Migrate { .. } => None,
        });
        let is_called = self.told.about("guest").is_some_and(|open| open.human.is_some());
        if page.is_some() && is_called {
            return;
        }
        let key = ClusterState::guest_key(run.name);
        let summary = format!("{}: {why}, and every rung of its ladder was taken", run.name);
        let human = format!("Look at {} (`holdfast explain {}`).", run.name, run.name);
        open(self.round, self.decision, key, page.unwrap_or(Severity::Critical), summary, Some(human));
    }

    /// What the ladder says, and what it waits for where it waits.
    fn step(
        &self,
        run: &Run<'_>,
        rungs: &[Rung],
        trouble: Trouble,
        judgement: &GuestJudgement,
    ) -> (NextStep, &'static str) {
        let position = run.guest.ladder.position.as_ref().filter(|position| position.ladder == trouble.ladder());
        // A rung that starts the guest gets its wait from when the guest runs, however long the way there was.
        let age = position.map_or(Duration::ZERO, |position| self.round.age(position.acted.max(run.since)));
        let mut step = next_step(rungs, position, age, trouble);
        if let (Trouble::Service, NextStep::Take { .. }) = (trouble, step) {
            let window = window_left(self.round, run, judgement, age);
            let let_run = let_run_left(self.round, run);
            if let Some(left) = window.max(let_run) {
                let what = if let_run == Some(left) {
                    LET_RUN
                } else {
                    "what was so before the newest try to be out of the window that is looked at"
                };
                return (NextStep::Wait { left }, what);
            }
        }
        for _ in rungs {
            let NextStep::Take { rung } = step else { break };
            if !rungs.get(rung).is_some_and(|taken| self.is_vain(run, taken)) {
                break;
            }
            // The rung cannot be taken, the next one may help.
            let spent =
                Position { rung, tries: u32::MAX, failed: true, ladder: trouble.ladder(), ..Position::default() };
            step = next_step(rungs, Some(&spent), age, trouble);
        }
        if matches!(step, NextStep::Take { .. }) && self.has_spent_both(run, trouble) {
            step = NextStep::Exhausted;
        }
        (step, "the rung's wait")
    }

    /// Whether a rung would move the guest nowhere, or start it on a host that a required rule forbids.
    fn is_vain(&self, run: &Run<'_>, rung: &Rung) -> bool {
        match rung {
            Rung::Migrate { .. } => target(self.round, run, None).is_err(),
            Rung::ResetGuest { .. } => {
                host_rule_broken(&self.round.state.policies, run.name, &run.tenure.host).is_some()
            }
            Rung::RestartService { .. }
            | Rung::RebootGuest { .. }
            | Rung::ResumeGuest { .. }
            | Rung::Failover { .. }
            | Rung::Page { .. } => false,
        }
    }

    fn well(&mut self, run: &Run<'_>, policy: Option<&Policy>, judgement: &mut GuestJudgement) {
        let host = &run.tenure.host;
        if !run.verified {
            if let Some(unasked) = self.unasked_beside_those_that_are_up(run, policy, judgement) {
                let which = if unasked.is_empty() { "all services" } else { "all services that can be asked" };
                judgement.doing = format!("runs on {host}, {which} answer");
                self.decision.commands.push(Change::Verified { guest: run.name.clone(), unasked });
            } else {
                judgement.doing = format!("runs on {host}, waiting for its services to answer");
                judgement.waits = Some(self.to_come_up(run, policy, judgement));
                self.unasked(run, policy, judgement);
                held(self.round, run, judgement);
            }
            return;
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
            // Nobody tries any more to have it leave. After a suspension that goes on.
            match hands_off {
                HandsOff::Unmanaged | HandsOff::Maintenance { .. } => self.close("leave"),
                HandsOff::Suspended { .. } => {}
            }
            return;
        }
        let cool_down = policy.map_or(COOL_DOWN, |policy| policy.cool_down.0);
        if run.guest.ladder.position.as_ref().is_some_and(|position| self.round.age(position.acted) >= cool_down) {
            self.decision.commands.push(Change::LadderReset { guest: run.name.clone() });
        }
        self.consider_move(run, policy, judgement);
    }

    /// The services that nobody can ask, when all others have come up; `None` while one is waited for.
    fn unasked_beside_those_that_are_up(
        &self,
        run: &Run<'_>,
        policy: Option<&Policy>,
        judgement: &GuestJudgement,
    ) -> Option<Vec<ServiceName>> {
        let on_degraded = policy.map_or(OnDegraded::Alert, |policy| policy.on_degraded);
        let behind = judgement.services.iter().filter(|(_, own)| !has_come_up(own, on_degraded));
        let unasked = behind.map(|(name, own)| {
            unasked_for(self.round, run, policy?, name, own)?;
            Some(name.clone())
        });
        unasked.collect()
    }

    /// What a guest that runs and is not verified yet waits for. When its time to boot has passed, only those who look at its
    /// services end that: by what they see, or by saying that they cannot ask.
    fn to_come_up(&self, run: &Run<'_>, policy: Option<&Policy>, judgement: &GuestJudgement) -> (String, u64) {
        let on_degraded = policy.map_or(OnDegraded::Alert, |policy| policy.on_degraded);
        let behind = judgement.services.iter().filter(|(_, own)| !has_come_up(own, on_degraded));
        let left = behind.filter_map(|(name, _)| {
            let policy = policy?;
            let grace = policy.services.get(name).and_then(|service| service.tuning.grace).unwrap_or(policy.boot_grace);
            boot_left(self.round, run, grace.0)
        });
        left.max().map_or_else(|| ("its services to answer".to_owned(), FOREVER), to_boot)
    }

    /// Why nothing is done to a running guest. Where all hosts are active, and nothing is suspended, only its own wish says so.
    pub(super) fn hands_off(&self, run: &Run<'_>) -> Option<HandsOff> {
        let state = self.round.state;
        let unusual = !self.glance.all_active || state.suspended.is_some() || run.guest.wanted == Wanted::Unmanaged;
        unusual.then(|| state.hands_off_of(run.name, run.guest)).flatten()
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

/// Whether a host that was without a lease since the guest started has nothing of it running: it has protected itself, and
/// the guest is not to blame (R14).
fn stopped_by_lease(round: &Round<'_>, run: &Run<'_>) -> bool {
    let Some(reopened) = reopened_since(round, run) else { return false };
    let Some(seen) = run.here.seen else { return false };
    let nothing_runs = seen.reports.get(run.name).is_none_or(|report| {
        report.epoch <= run.tenure.epoch && matches!(report.condition, GuestCondition::Exited { .. })
    });
    nothing_runs && told_since(round, reopened, seen)
}

/// Whether a guest has ended on a host that gets no lease at present, or has not synced since it gets one again: whose fault
/// that is shows with the next sync (R14).
fn waits_for_lease(round: &Round<'_>, run: &Run<'_>) -> bool {
    let record = run.here.known.and_then(|known| known.lease.record.as_ref());
    let closed = record.is_some_and(|record| record.closed.is_some());
    let reopened = reopened_since(round, run);
    if !closed && reopened.is_none() {
        return false;
    }
    let Some(seen) = run.here.seen else { return false };
    let ended = |report: &GuestReport| matches!(report.condition, GuestCondition::Exited { .. });
    let untold = reopened.is_some_and(|reopened| !told_since(round, reopened, seen));
    seen.reports.get(run.name).is_some_and(ended) && (closed || untold)
}

/// When the guest's host got leases again after it had got none, if that was since the guest started.
fn reopened_since(round: &Round<'_>, run: &Run<'_>) -> Option<u64> {
    run.here.known.filter(|known| known.lease.reopened > 0)?;
    round.state.lease_reopened_since(run.tenure)
}

/// Whether the host has synced since it gets leases again.
fn told_since(round: &Round<'_>, reopened: u64, seen: &HostEvidence) -> bool {
    seen.sync.as_ref().is_some_and(|sync| sync.at > round.evidence.marks.at(reopened))
}

/// For how long the services of a guest that was let run again need not answer: while its storage had it stopped they could
/// not, and their probes have not been answered since. Nothing is restarted for that within the rung's wait.
fn let_run_left(round: &Round<'_>, run: &Run<'_>) -> Option<Duration> {
    let newest = run.guest.ladder.position.as_ref();
    let newest = newest.filter(|position| position.ladder == LadderKind::Storage && !position.recovered)?;
    let rungs = ladder_of(&round.state.policies, run.name, LadderKind::Storage);
    let resumed = rungs.get(newest.rung).filter(|rung| matches!(rung, Rung::ResumeGuest { .. }))?;
    let left = resumed.wait().0.saturating_sub(round.age(newest.acted));
    Some(left).filter(|left| !left.is_zero())
}

/// For how long after a try what made the guest ill still shows what was before it: slowness and flapping are seen over a
/// window, which the rung's own wait may be shorter than.
fn window_left(round: &Round<'_>, run: &Run<'_>, judgement: &GuestJudgement, age: Duration) -> Option<Duration> {
    let tried = run.guest.ladder.position.as_ref().filter(|position| !position.recovered && !position.failed);
    tried?;
    let (_, policy) = round.state.policies.policy_of(run.name)?;
    let judged = &judgement.services;
    if judged.values().any(|own| own.verdict == ServiceVerdict::Failed && own.waits_for.is_none()) {
        return None;
    }
    let windows = judged.iter().filter_map(|(name, own)| {
        let tuning = &policy.services.get(name)?.tuning;
        match own.degraded? {
            Degradation::Slow => tuning.slow.map(|slow| slow.over.0),
            Degradation::Flapping => tuning.flaps.map(|flaps| flaps.settled_after()),
            Degradation::Disagreement => None,
        }
    });
    windows.max().map(|window| window.saturating_sub(age)).filter(|left| !left.is_zero())
}

/// A guest that cannot stay, and is not in a condition to be moved, says so.
fn held(round: &Round<'_>, run: &Run<'_>, judgement: &mut GuestJudgement) {
    if let Some(reason) = must_leave(round, run).filter(|_| round.state.hands_off(run.name).is_none()) {
        judgement.doing = format!("{}; {reason}, and it goes when that is over", judgement.doing);
    }
}

fn last_well(round: &Round<'_>, run: &Run<'_>) -> Option<WallTime> {
    let services = round.evidence.services.get(run.name)?;
    let newest = services.values().flatten().filter_map(|(_, sight)| sight.passed).max()?;
    Some(round.wall(newest))
}
