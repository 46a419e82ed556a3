//! A guest that runs and of which it is not known yet that its services answer: since it was started or moved, or since something was
//! tried to help it.

use super::{
    super::{FOREVER, GuestJudgement, Round, ServiceJudgement, ServiceVerdict},
    Pass,
    condition::{boot_left, has_come_up, to_boot},
    reasons::must_leave,
    running::{Run, leaves_later},
    unasked::{doubted_for, unasked_for},
};
use crate::{
    change::Change,
    ladder::{ladder_of, wait_of},
    model::{OnDegraded, Policy},
    names::ServiceName,
};

impl Pass<'_, '_> {
    /// Notes that it has come up, or says what it waits for.
    pub(super) fn comes_up(&mut self, run: &Run<'_>, policy: Option<&Policy>, judgement: &mut GuestJudgement) {
        let host = &run.tenure.host;
        if let Some(unasked) = self.unasked_beside_those_that_are_up(run, policy, judgement) {
            let which = if unasked.is_empty() { "all services" } else { "all services that can be asked" };
            judgement.doing = format!("runs on {host}, {which} answer");
            self.decision.commands.push(Change::Verified { guest: run.name.clone(), unasked });
            return;
        }
        judgement.doing = format!("runs on {host}, waiting for its services to answer");
        let waits = self.to_come_up(run, policy, judgement);
        let is_late = waits.1 == FOREVER && are_tries_over(self.round, run);
        judgement.waits = Some(waits);
        if is_late {
            // What does not answer everywhere, or only now and then, is not up. Before that is nobody's business.
            self.degraded(run, policy, judgement);
        }
        self.unasked(run, policy, judgement);
        // What nobody can heal here does not hold up a drain.
        let goes = is_late && self.hands_off(run).is_none() && must_leave(self.round, run).is_some();
        if goes && self.comes_no_further(run, policy, judgement) {
            self.consider_move(run, policy, judgement);
        } else {
            leaves_later(self.round, run, judgement);
        }
    }

    /// Whether all that has not come up answers somebody, has failed for fewer than it takes for anything to come of that, or can be
    /// asked by nobody.
    fn comes_no_further(&self, run: &Run<'_>, policy: Option<&Policy>, judgement: &GuestJudgement) -> bool {
        let Some(policy) = policy else { return false };
        let mut behind = judgement.services.iter().filter(|(_, own)| !has_come_up(own, policy.on_degraded));
        let is_stuck = |(name, own): (&ServiceName, &ServiceJudgement)| match own.verdict {
            ServiceVerdict::Degraded => true,
            ServiceVerdict::Suspect => doubted_for(self.round, run, policy, name, own).is_some(),
            ServiceVerdict::Unknown => unasked_for(self.round, run, policy, name, own).is_some(),
            ServiceVerdict::Healthy | ServiceVerdict::Failed => false,
        };
        // What waits for another one comes as far as that, which is behind itself.
        behind.all(|(name, own)| own.waits_for.is_some() || is_stuck((name, own)))
    }

    /// The services that nobody can ask, when all others have come up; `None` while one is waited for.
    pub(super) fn unasked_beside_those_that_are_up(
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
}

/// Whether the newest try to help the guest, if there was any, has had its wait.
fn are_tries_over(round: &Round<'_>, run: &Run<'_>) -> bool {
    let tried = run.guest.ladder.position.as_ref().filter(|position| !position.recovered && !position.failed);
    let Some(position) = tried else { return true };
    let rungs = ladder_of(&round.state.policies, run.name, position.ladder);
    let age = round.age(position.acted.max(run.since));
    rungs.get(position.rung).is_none_or(|rung| age >= wait_of(position, rung))
}
