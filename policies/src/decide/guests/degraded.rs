//! Services that answer, and not as they should: slowly, not everywhere, or only now and then.

use super::{
    super::{Degradation, GuestJudgement, Round, fences::open_as_seen},
    Pass,
    running::Run,
};
use crate::{
    evidence::SightState,
    model::{Policy, Service, Severity},
    names::ServiceName,
};

impl Pass<'_, '_> {
    /// Those who see it are named, and somebody is told, once for all of it.
    pub(super) fn degraded(&mut self, run: &Run<'_>, policy: Option<&Policy>, judgement: &GuestJudgement) {
        let mut degraded = judgement
            .services
            .iter()
            .filter_map(|(name, own)| Some((name, own, own.degraded.filter(|_| own.waits_for.is_none())?)));
        let (round, guest) = (self.round, run.name);
        let declared = |name| policy.and_then(|policy| policy.services.get(name));
        let mut comes_up = false;
        let found = degraded.find(|(name, _, how)| {
            let is_coming = *how == Degradation::Disagreement
                && declared(name).is_some_and(|service| is_coming_up(round, run, name, service));
            comes_up |= is_coming;
            !is_coming
        });
        let Some((name, own, how)) = found else {
            if !comes_up {
                self.close("degraded");
            }
            return;
        };
        let service = declared(name);
        let who = |state: SightState| {
            let who = round.watched(guest, run.tenure.epoch).who_sees(name, service?, state);
            Some(who).filter(|who| !who.is_empty())
        };
        let named = |state: SightState| who(state).unwrap_or_else(|| "nobody".to_owned());
        let summary = match how {
            Degradation::Disagreement if who(SightState::Failing).is_none() => {
                format!("{name} of {guest} is slow for {}, and answers the others well", named(SightState::Slow))
            }
            Degradation::Disagreement => {
                format!("{name} of {guest} does not answer {}, and answers the others", named(SightState::Failing))
            }
            Degradation::Slow => format!("{name} of {guest} is slow, as seen by {}", named(SightState::Slow)),
            Degradation::Flapping => {
                format!(
                    "{name} of {guest} is flapping: it begins and ceases to answer {} again and again",
                    named(SightState::Flapping)
                )
            }
        };
        let key = format!("degraded/{guest}");
        open_as_seen(round, self.decision, key, Severity::Warning, summary, None, own.evidence.clone());
    }
}

/// Whether a service has come up so lately that a vantage may still say it fails which has only not seen that yet: a question that was
/// put before may fail after it, and who has seen a failure needs some passes to say otherwise. Vantages that see it slow, or not,
/// disagree at once.
fn is_coming_up(round: &Round<'_>, run: &Run<'_>, name: &ServiceName, service: &Service) -> bool {
    let seen = round.evidence.services.get(run.name).and_then(|services| services.get(name));
    let seen = || seen.into_iter().flat_map(|sights| sights.values()).filter(|sight| sight.epoch == run.tenure.epoch);
    let answered = seen().filter(|sight| matches!(sight.state, SightState::Passing | SightState::Slow));
    let shown = round.shown_within(service, service.recovers_after);
    seen().any(|sight| sight.state == SightState::Failing)
        && answered.map(|sight| sight.since).min().is_some_and(|since| round.now.moment.since(since) < shown)
}
