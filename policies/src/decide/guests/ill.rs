//! A guest that is ill: the next step of its ladder, and who is called at its end.

use std::time::Duration;

use super::{
    super::{Degradation, FOREVER, GuestJudgement, Round, ServiceVerdict, fences::open, is_held},
    Pass,
    condition::LET_RUN,
    moves::target,
    running::{Run, leaves_later},
};
use crate::{
    change::Change,
    fit::host_rule_broken,
    ladder::{LadderKind, NextStep, Trouble, ladder_of, next_step},
    model::{Rung, Severity},
    state::{ClusterState, Position},
    time::{WallTime, millis},
};

impl Pass<'_, '_> {
    pub(super) fn ill(
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
                self.take_rung(run, trouble, (rung, rungs.get(rung)), why, evidence, judgement);
            }
            NextStep::Wait { left } => {
                judgement.doing = format!("{why}: waiting for the newest try to help");
                judgement.waits = Some((what.to_owned(), millis(left)));
                leaves_later(round, run, judgement);
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
                match trouble {
                    Trouble::Service => self.leave_unhealed(run, judgement),
                    Trouble::Guest | Trouble::Storage => self.cannot_go_as_it_is(run, &why, judgement),
                }
            }
        }
    }

    fn take_rung(
        &mut self,
        run: &Run<'_>,
        trouble: Trouble,
        (rung, taken): (usize, Option<&Rung>),
        why: String,
        evidence: Vec<String>,
        judgement: &mut GuestJudgement,
    ) {
        let moves = matches!(taken, Some(Rung::Migrate { .. }));
        let to = match moves.then(|| target(self.round, run, None)).transpose() {
            Ok(to) => to,
            Err(until) => {
                judgement.doing = format!("{why}: it waits for a host that can take it: {until}");
                judgement.waits = Some(("a host that can take it".to_owned(), FOREVER));
                return;
            }
        };
        if to.is_some() && std::mem::replace(&mut self.beside, true) {
            judgement.doing = format!("{why}: another guest is sent on its way first");
            judgement.waits = Some(("that guest to be on its way".to_owned(), 0));
            return;
        }
        judgement.doing = format!("{why}: taking rung {}", rung + 1);
        let (guest, ladder, last_well) = (run.name.clone(), trouble.ladder(), last_well(self.round, run));
        self.decision.commands.push(Change::Climb { guest, rung, ladder, to, why, evidence, last_well });
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

    /// Whether a rung would move the guest nowhere, or start it on a host that a required rule forbids. A host that takes it as soon as
    /// others have started there is waited for: what comes next would kill the guest, and mostly for a place on the same hosts.
    fn is_vain(&self, run: &Run<'_>, rung: &Rung) -> bool {
        match rung {
            Rung::Migrate { .. } => target(self.round, run, None).is_err_and(|why| !why.passes()),
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

fn last_well(round: &Round<'_>, run: &Run<'_>) -> Option<WallTime> {
    let services = round.evidence.services.get(run.name)?;
    let newest = services.values().flatten().filter_map(|(_, sight)| sight.passed).max()?;
    Some(round.wall(newest))
}
