//! S8, S9: where many guests of different hosts have ceased to answer over the network at once, nothing is begun that kills or moves one
//! of them, for five minutes from when it last answered (docs/decisions/0028). Found out by the checker itself.
//!
//! It errs on the side of letting pass. A guest that something else than the network speaks against is no part of a storm, and neither
//! is one whose host was not heard a moment ago, or whose service needs another one; all the others that hosts ask count against it. That
//! it shows in a moment whether there is a storm, and that a hold outlasts it for a moment, is not judged. So what it refuses is wrong
//! for certain. That nobody is held for too long is no matter of plans: the simulator looks at that.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::Check;
use crate::{
    change::Change,
    evidence::{Sight, SightState},
    ladder::{LadderKind, ladder_of},
    model::{Policy, Rung, Service},
    names::{Epoch, GuestName, ServiceName, Vantage},
    observe::{GuestCondition, GuestReport},
    state::{Guest, Life, Phase, Tenure, Wanted},
    time::{Moment, millis},
};

/// Guests that cease to answer within so long of each other have one cause until somebody knows better.
const TOGETHER: Duration = Duration::from_secs(30);

/// Fewer are no storm.
const GUESTS_MIN: usize = 3;

/// What one failure domain has, a move to another one may mend.
const DOMAINS_MIN: usize = 2;

/// A guest that has not answered for longer is helped as ever.
const HELD_FOR: Duration = Duration::from_secs(300);

/// By a storm that began longer ago nobody is held: its guests may not answer for days.
const STORM_LASTS: Duration = Duration::from_secs(600);

/// A guest that the network alone speaks against.
struct Ceased {
    /// When it last answered one of those who get no answer.
    answered: Moment,
    /// When the first of its failed services did.
    first: Moment,
    domain: String,
}

impl<'a> Check<'a> {
    /// S8, S9: no rung of this plan kills or moves a guest of a storm.
    pub(super) fn no_service_storm(&mut self) {
        let taken: Vec<(&GuestName, &'static str)> =
            self.plan.iter().filter_map(|change| self.kills_or_moves(change)).collect();
        if taken.is_empty() {
            return;
        }
        let ceased = self.ceased();
        let Some(from) = self.storm_from(&ceased) else { return };
        let now = self.now;
        for (guest, rung) in taken {
            let Some(own) = ceased.get(guest).filter(|own| own.answered >= from) else { continue };
            if now.since(own.first) < HELD_FOR {
                let ago = millis(now.since(own.answered));
                let what = format!(
                    "takes {rung} for {guest}, which ceased to answer over the network {ago} ms ago, at once with guests on other \
                     hosts"
                );
                self.breaks("S9", what);
            }
        }
    }

    /// The guest and the rung, where that would kill or move it, or call the human who is called for the storm.
    fn kills_or_moves(&self, change: &'a Change) -> Option<(&'a GuestName, &'static str)> {
        let Change::Climb { guest, rung, ladder: LadderKind::Recovery, .. } = change else { return None };
        let rungs = ladder_of(&self.state.policies, guest, LadderKind::Recovery);
        let taken = rungs.get(*rung)?;
        match taken {
            Rung::RebootGuest { .. }
            | Rung::ResetGuest { .. }
            | Rung::Failover { .. }
            | Rung::Migrate { .. }
            | Rung::Page { .. } => Some((guest, taken.name())),
            Rung::RestartService { .. } | Rung::ResumeGuest { .. } => None,
        }
    }

    /// Since when the guests of the first storm that counts have not answered: more than a third of those that hosts ask, but for those that
    /// ceased to answer at other times.
    fn storm_from(&self, ceased: &BTreeMap<&GuestName, Ceased>) -> Option<Moment> {
        let others = self.asked().saturating_sub(ceased.len());
        let is_storm = |from: &Moment| {
            let within: Vec<&Ceased> =
                ceased.values().filter(|own| own.answered >= *from && own.answered.since(*from) <= TOGETHER).collect();
            let domains: BTreeSet<&str> = within.iter().map(|own| own.domain.as_str()).collect();
            let together = within.len();
            together >= GUESTS_MIN && domains.len() >= DOMAINS_MIN && together * 3 > together + others
        };
        let is_recent = |from: &Moment| self.now.since(*from) <= STORM_LASTS;
        ceased.values().map(|own| own.answered).filter(|from| is_recent(from) && is_storm(from)).min()
    }

    /// How many guests have ever answered a host over the network where they are.
    fn asked(&self) -> usize {
        let is_asked = |(name, guest): &(&GuestName, &Guest)| {
            let Phase::Running { tenure, .. } = &guest.phase else { return false };
            let mut seen = self.seen_of(name, tenure.epoch);
            seen.any(|(vantage, sight)| matches!(vantage, Vantage::Host(_)) && sight.passed.is_some())
        };
        self.state.guests.iter().filter(is_asked).count()
    }

    fn ceased(&self) -> BTreeMap<&'a GuestName, Ceased> {
        let state = self.state;
        state.guests.iter().filter_map(|(name, guest)| Some((name, self.ceased_to_answer(name, guest)?))).collect()
    }

    fn ceased_to_answer(&self, name: &GuestName, guest: &Guest) -> Option<Ceased> {
        let Phase::Running { tenure, .. } = &guest.phase else { return None };
        if guest.wanted == Wanted::Unmanaged || self.kept_off(name, guest).is_some() {
            return None;
        }
        let (told, report) = self.runs(name, tenure)?;
        let (_, policy) = self.state.policies.policy_of(name)?;
        let (answered, first) = self.failed(name, tenure.epoch, policy)?;
        // Both were told with a sync, which may have been on its way.
        let on_its_way = self.timing.sync_every.0 * 3;
        let happened = |ago_ms: u64| told.minus(Duration::from_millis(ago_ms)).plus(on_its_way);
        let stood_still = self.evidence.hosts.get(&tenure.host)?.stood_still.get(name);
        let stood_still = stood_still.filter(|(epoch, _)| *epoch == tenure.epoch);
        if stood_still.is_some_and(|(_, until)| until.plus(on_its_way) >= first)
            || report.happened.iter().any(|what| happened(what.ago_ms) >= first)
        {
            return None;
        }
        Some(Ceased { answered, first, domain: self.domain(&tenure.host) })
    }

    /// What its host said of a guest a moment ago, and when, where it counts and says that the guest runs.
    fn runs(&self, name: &GuestName, tenure: &Tenure) -> Option<(Moment, &'a GuestReport)> {
        let (state, evidence) = (self.state, self.evidence);
        let known = state.hosts.get(&tenure.host)?;
        let said = evidence.hosts.get(&tenure.host)?;
        let sync = said.sync.as_ref().filter(|sync| sync.incarnation == known.facts.incarnation)?;
        let patience = self.timing.wonder_after.0.min(self.timing.suspect_after.0);
        let counts = known.life == Life::Up && !known.is_contested() && self.now.since(sync.at) < patience;
        let report = said.reports.get(name)?;
        let runs = report.epoch == tenure.epoch && report.condition == GuestCondition::Running;
        (counts && runs).then_some((sync.at, report))
    }

    /// When the newest of its failed services last answered hosts that get no answer of it, and when the first one did. `None` also where
    /// it is ill inside, and where a service needs another one that may be the cause.
    fn failed(&self, name: &GuestName, epoch: Epoch, policy: &Policy) -> Option<(Moment, Moment)> {
        let is_ill = |state| matches!(state, SightState::Failing | SightState::Slow | SightState::Flapping);
        let mut seen = self.seen_of(name, epoch);
        if seen.any(|(vantage, sight)| *vantage == Vantage::Inside && is_ill(sight.state)) {
            return None;
        }
        let mut failed: Vec<Moment> = Vec::new();
        for (service, declared) in &policy.services {
            let lacking = self.lacking(name, epoch, service, declared);
            if !lacking.is_empty() && !declared.tuning.needs.is_empty() {
                return None;
            }
            if lacking.len() >= declared.from.agree.max(1) as usize {
                failed.extend(lacking.into_iter().flatten().max());
            }
        }
        Some((*failed.iter().max()?, *failed.iter().min()?))
    }

    /// Of each vantage that gets no answer of a service at present, when it last got one.
    fn lacking(
        &self,
        name: &GuestName,
        epoch: Epoch,
        service: &ServiceName,
        declared: &Service,
    ) -> Vec<Option<Moment>> {
        let fresh_for = declared.fresh_for();
        let services = self.evidence.services.get(name);
        let sights = services.and_then(|services| services.get(service)).into_iter().flatten();
        let lacking = sights.filter(|(_, sight)| {
            let is_fresh = sight.epoch == epoch && self.now.since(sight.at) <= fresh_for;
            is_fresh && sight.state == SightState::Failing
        });
        lacking.map(|(_, sight)| sight.passed).collect()
    }

    /// What is said of any service of a guest under an assignment, however long ago.
    fn seen_of(&self, name: &GuestName, epoch: Epoch) -> impl Iterator<Item = (&'a Vantage, &'a Sight)> {
        let evidence = self.evidence;
        let services = evidence.services.get(name).into_iter().flat_map(BTreeMap::values);
        services.flatten().filter(move |(_, sight)| sight.epoch == epoch)
    }
}

#[cfg(test)]
mod tests;
