//! Services that nobody can ask. They hold nothing up, and somebody is told. It is no word against them, nor for them (S5).

use std::time::Duration;

use super::{
    super::{GuestJudgement, Round, ServiceJudgement, ServiceVerdict, fences::open},
    Pass,
    running::Run,
};
use crate::{
    hands_off::HandsOff,
    model::{Policy, Service, Severity},
    names::ServiceName,
    time::Moment,
};

/// How much longer than [`unasked_for`] waits a service must have been beyond asking before somebody is told: an agent that is
/// restarted, or a guest that reboots by itself, is nobody's business.
const TOLD_AFTER: Duration = Duration::from_secs(60);

/// How long a guest may be paused, or its host not be able to tell how it is, before somebody is told: a backup, or a restart of what
/// runs guests there, is nobody's business.
const UNCLEAR_TOLD_AFTER: Duration = Duration::from_secs(300);

/// For how long those who ask a service have said that they cannot, past the time by which it would have shown that it
/// fails; `None` while it may still show. Where nobody says anything, it is the hosts that are silent.
pub(super) fn unasked_for(
    round: &Round<'_>,
    run: &Run<'_>,
    policy: &Policy,
    name: &ServiceName,
    own: &ServiceJudgement,
) -> Option<Duration> {
    match own.verdict {
        ServiceVerdict::Unknown => past(round, run, policy, name),
        ServiceVerdict::Healthy | ServiceVerdict::Degraded | ServiceVerdict::Suspect | ServiceVerdict::Failed => None,
    }
}

/// The same for a service of which some say that it fails, fewer than must agree, and which the others cannot ask: nothing comes of that.
pub(super) fn doubted_for(
    round: &Round<'_>,
    run: &Run<'_>,
    policy: &Policy,
    name: &ServiceName,
    own: &ServiceJudgement,
) -> Option<Duration> {
    match own.verdict {
        ServiceVerdict::Suspect if own.waits_for.is_none() => past(round, run, policy, name),
        ServiceVerdict::Healthy
        | ServiceVerdict::Degraded
        | ServiceVerdict::Suspect
        | ServiceVerdict::Failed
        | ServiceVerdict::Unknown => None,
    }
}

/// For how long nothing has let hope for an answer, past the time by which it would have shown that the service fails.
fn past(round: &Round<'_>, run: &Run<'_>, policy: &Policy, name: &ServiceName) -> Option<Duration> {
    let service = policy.services.get(name)?;
    if !round.watched(run.name, run.tenure.epoch).is_looked_at(name, service) {
        return None;
    }
    round.now.moment.since(hoped_since(round, run, name)).checked_sub(shows_within(policy, service))
}

/// The time that it has to boot, or to fail as often as it takes, whichever is longer.
fn shows_within(policy: &Policy, service: &Service) -> Duration {
    let grace = service.tuning.grace.unwrap_or(policy.boot_grace);
    let failures = service.every.0.saturating_mul(service.fails_after).saturating_add(service.fresh_for());
    grace.0.max(failures)
}

/// The newest of what lets hope for an answer: the start, a try to help, an answer, that a vantage has only begun to say that
/// it cannot tell (its supervisor has just started, or it looks in place of another), and that this coordinator listens.
fn hoped_since(round: &Round<'_>, run: &Run<'_>, name: &ServiceName) -> Moment {
    let marks = &round.evidence.marks;
    let tried = run.guest.ladder.position.as_ref().map(|position| marks.at(position.acted));
    let sights = round.evidence.services.get(run.name).and_then(|services| services.get(name)).into_iter().flatten();
    let own = sights.filter(|(_, sight)| sight.epoch == run.tenure.epoch);
    let seen = own.flat_map(|(_, sight)| [sight.passed, Some(sight.since)]);
    let began = [Some(marks.at(run.since)), tried, round.evidence.quorum_since];
    began.into_iter().chain(seen).flatten().max().unwrap_or(round.now.moment)
}

impl Pass<'_, '_> {
    /// Tells of a guest that has long been neither well nor ill as its host says, until it is well or left to people: nothing is made of
    /// its services meanwhile.
    pub(super) fn unclear(&mut self, run: &Run<'_>) {
        let (round, guest, host) = (self.round, run.name, &run.tenure.host);
        let since = run.here.seen.and_then(|seen| seen.unclear.get(guest));
        let is_long = since.is_some_and(|(epoch, since)| {
            *epoch == run.tenure.epoch && round.now.moment.since(*since) >= UNCLEAR_TOLD_AFTER
        });
        if !is_long {
            return;
        }
        match round.state.hands_off(guest) {
            None => {}
            // A person knows of it, and wants nothing done for it.
            Some(HandsOff::Unmanaged | HandsOff::Maintenance { .. }) => return self.close("unasked"),
            Some(HandsOff::Suspended { .. }) => return,
        }
        let summary = format!("{guest} has long been paused, or {host} cannot tell how it is: nothing is done for it");
        let human = format!(
            "Read in `holdfast explain {guest}` which it is. Have it go on, or mend what tells of guests on {host}; if it is meant to be \
             so, have it unmanaged."
        );
        open(round, self.decision, format!("unasked/{guest}"), Severity::Warning, summary, Some(human));
    }

    /// Tells of services that have long been beyond asking, once for all of them, until every service can be asked.
    pub(super) fn unasked(&mut self, run: &Run<'_>, policy: Option<&Policy>, judgement: &GuestJudgement) {
        let round = self.round;
        let long = judgement.services.iter().filter_map(|(name, own)| {
            let doubted = doubted_for(round, run, policy?, name, own);
            let past = doubted.or_else(|| unasked_for(round, run, policy?, name, own))?;
            (past >= TOLD_AFTER).then_some((name.as_str(), doubted.is_some()))
        });
        let long: Vec<(&str, bool)> = long.collect();
        if long.is_empty() {
            // A new coordinator has yet to hear for itself for how long.
            let is_unsure =
                |own: &ServiceJudgement| matches!(own.verdict, ServiceVerdict::Unknown | ServiceVerdict::Suspect);
            if !judgement.services.values().any(is_unsure) {
                self.close("unasked");
            }
            return;
        }
        let guest = run.name;
        let names: Vec<&str> = long.iter().map(|(name, _)| *name).collect();
        let who = if long.iter().any(|(_, doubted)| *doubted) { "too few" } else { "nobody" };
        let summary = format!("{who} can ask {} of {guest}: whether that answers is not known", names.join(", "));
        let human = format!(
            "Read in `holdfast explain {guest}` what those who ask lack: the guest's agent, a program, a plugin, a file, a permission or a route."
        );
        open(round, self.decision, format!("unasked/{guest}"), Severity::Warning, summary, Some(human));
    }
}
