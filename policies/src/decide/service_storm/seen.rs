//! One guest among the others of a possible storm of services: when it last answered hosts over the network, and whether only the
//! network speaks against it.

use std::time::Duration;

use super::super::{
    Round, ServiceVerdict,
    storm::{Domain, domain},
};
use crate::{
    model::{Policy, Service},
    names::{GuestName, HostName, ServiceName},
    observe::GuestCondition,
    state::{ClusterState, Guest, Phase, Tenure},
    time::Moment,
};

/// One guest, as hosts see it over the network.
pub(super) struct Seen<'b> {
    pub(super) guest: &'b GuestName,
    pub(super) tenure: &'b Tenure,
    pub(super) domain: Domain<'b>,
    /// The service that the rest is about.
    pub(super) service: &'b ServiceName,
    /// When it last answered.
    pub(super) answered: Moment,
    /// When the first of its failed services last answered: another one that fails later does not have it held for longer.
    pub(super) first: Moment,
    /// Within how long it shows how the guest is: of one that has fallen that it is well again, of one that is late that it has failed, of
    /// one whose host is just being missed whose matter it is.
    pub(super) settles: Duration,
    pub(super) how: How,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// It has failed, and only the network tells so.
    Fallen,
    /// The same, and its host is just being missed: it may be dead with it.
    Unheard,
    /// It should have answered by now, and has not failed yet.
    Late,
    /// It answers, or more than the network speaks against it.
    Otherwise,
}

/// `None` of a guest that says nothing about the others: it is not to run, its host is missed, it was never seen to answer.
pub(super) fn look_at<'b>(round: &Round<'b>, guest: &'b GuestName, known: &'b Guest) -> Option<Seen<'b>> {
    let Phase::Running { tenure, .. } = &known.phase else { return None };
    let state: &'b ClusterState = round.state;
    if !round.answers(&tenure.host) || !runs(round, guest, tenure) || state.hands_off_of(guest, known).is_some() {
        return None;
    }
    let (_, policy) = state.policies.policy_of(guest)?;
    let domain = domain(state, &tenure.host);
    let found = fallen(round, guest, tenure, policy).or_else(|| late_or_well(round, guest, tenure, policy))?;
    let OfService { service, answered, first, settles, how } = found;
    let (settles, how) = match (how, missed_within(round, &tenure.host)) {
        (How::Fallen, Some(left)) => (left, How::Unheard),
        (how, Some(_) | None) => (settles, how),
    };
    Some(Seen { guest, tenure, domain, service, answered, first, settles, how })
}

/// When a guest that the network alone speaks against last answered, and when the first of its failed services did, whether its host
/// answers or not.
pub(super) fn ceased_by_network(round: &Round<'_>, guest: &GuestName) -> Option<(Moment, Moment)> {
    let (guest, known) = round.state.guests.get_key_value(guest)?;
    let Phase::Running { tenure, .. } = &known.phase else { return None };
    let (_, policy) = round.state.policies.policy_of(guest)?;
    let own = fallen(round, guest, tenure, policy).filter(|own| own.how == How::Fallen)?;
    Some((own.answered, own.first))
}

/// What one of its services says of a guest; the fields are those of [`Seen`].
#[derive(Clone, Copy)]
struct OfService<'b> {
    service: &'b ServiceName,
    answered: Moment,
    first: Moment,
    settles: Duration,
    how: How,
}

/// A guest of which a service has failed. The newest one counts, where there are more.
fn fallen<'b>(
    round: &Round<'b>,
    guest: &'b GuestName,
    tenure: &'b Tenure,
    policy: &'b Policy,
) -> Option<OfService<'b>> {
    let watched = round.watched(guest, tenure.epoch);
    if !policy.services.iter().any(|(name, service)| watched.outside(name, service).fails) {
        return None;
    }
    let judged = watched.weigh_all(&policy.services);
    let has_failed = |name: &ServiceName| {
        judged.get(name).is_some_and(|own| own.verdict == ServiceVerdict::Failed && own.waits_for.is_none())
    };
    let (mut newest, mut is_proven): (Option<OfService<'b>>, bool) = (None, false);
    for (service, declared) in policy.services.iter().filter(|(name, _)| has_failed(name)) {
        let outside = watched.outside(service, declared);
        is_proven |= outside.is_ill_inside;
        let Some(answered) = outside.answered_who_fails else { continue };
        let own =
            OfService { service, answered, first: answered, settles: well_within(round, declared), how: How::Fallen };
        newest = Some(newest.map_or(own, |before| before.with(own)));
    }
    let newest = newest?;
    is_proven |= has_happened(round, guest, tenure, newest.answered);
    Some(OfService { how: if is_proven { How::Otherwise } else { How::Fallen }, ..newest })
}

impl OfService<'_> {
    /// The one of two failed ones that answered last, and of both when the first one did.
    fn with(self, other: Self) -> Self {
        let newest = if self.answered < other.answered { other } else { self };
        Self { first: self.first.min(other.first), ..newest }
    }
}

/// A guest of which none has, and the service that answered last.
fn late_or_well<'b>(
    round: &Round<'b>,
    guest: &'b GuestName,
    tenure: &'b Tenure,
    policy: &'b Policy,
) -> Option<OfService<'b>> {
    let watched = round.watched(guest, tenure.epoch);
    let told = round.timing.sync_every.0 * 2;
    let mut newest: Option<OfService<'b>> = None;
    for (service, declared) in &policy.services {
        let Some(answered) = watched.outside(service, declared).answered else { continue };
        let (age, due) = (round.now.moment.since(answered), declared.every.0.saturating_add(told));
        let settles = round.shown_within(declared, declared.fails_after).saturating_sub(age);
        let how = if age > due && !settles.is_zero() { How::Late } else { How::Otherwise };
        let is_first =
            newest.is_none_or(|before| before.how != How::Late && (how == How::Late || before.answered < answered));
        if is_first {
            newest = Some(OfService { service, answered, first: answered, settles, how });
        }
    }
    newest
}

/// How long it takes to show that a service answers again.
fn well_within(round: &Round<'_>, service: &Service) -> Duration {
    round.shown_within(service, service.recovers_after.saturating_add(1))
}

/// Within how long a host that answers shows whether it is missed; `None` where it is well heard. Until then it may be dead with its
/// guests, and cannot have told what has happened to them.
fn missed_within(round: &Round<'_>, host: &HostName) -> Option<Duration> {
    let unsynced = Duration::from_millis(round.hosts.get(host)?.unsynced_ms);
    (unsynced >= round.timing.wonder_after.0).then(|| round.timing.suspect_after.0.saturating_sub(unsynced))
}

/// Whether its host says that its virtual CPUs run.
fn runs(round: &Round<'_>, guest: &GuestName, tenure: &Tenure) -> bool {
    let report = round.evidence.hosts.get(&tenure.host).and_then(|seen| seen.reports.get(guest));
    report.is_some_and(|report| report.epoch == tenure.epoch && report.condition == GuestCondition::Running)
}

/// Whether its host has told of anything that has happened to the guest itself since it last answered: a reset of its own, its
/// watchdog, an agent that has left; or that it stood still, or was frozen as for a backup, which may be done to many at once.
fn has_happened(round: &Round<'_>, guest: &GuestName, tenure: &Tenure, answered: Moment) -> bool {
    let Some(seen) = round.evidence.hosts.get(&tenure.host) else { return false };
    let (Some(sync), Some(report)) = (&seen.sync, seen.reports.get(guest)) else { return false };
    // Both were told with a sync, which may have been on its way.
    let told = round.timing.sync_every.0 * 2;
    let at = |ago_ms: u64| sync.at.minus(Duration::from_millis(ago_ms)).plus(told);
    let stood_still = seen.stood_still.get(guest).filter(|(epoch, _)| *epoch == tenure.epoch);
    stood_still.is_some_and(|(_, until)| until.plus(told) >= answered)
        || report.happened.iter().any(|happened| at(happened.ago_ms) >= answered)
}
