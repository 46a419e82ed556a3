//! How a running guest is: well, ill, or not to be judged (S5: unknown is not failed).

use std::time::Duration;

use super::{
    super::{Degradation, FOREVER, GuestJudgement, HostVerdict, Round, ServiceJudgement, ServiceVerdict},
    running::Run,
};
use crate::{
    evidence::JUST_HEARD,
    happened::{Happened, last_own_reset},
    ladder::Trouble,
    model::{OnDegraded, Policy, Service},
    names::HostName,
    observe::{FROZEN_MAX, GuestCondition, GuestReport},
    time::{Span, millis},
};

/// How long a guest that came back from a move may still be reported as sent away: some syncs.
const SENT_PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn judge_services(
    round: &Round<'_>,
    run: &Run<'_>,
    policy: Option<&Policy>,
    judgement: &mut GuestJudgement,
) {
    let Some(policy) = policy else { return };
    judgement.services = round.watched(run.name, run.tenure.epoch).judge_all(&policy.services);
}

/// What is waited for of a guest that stood still, whoever let it run again.
pub(super) const LET_RUN: &str = "its services to answer, since it was let run again";

/// What is waited for of a guest whose file systems are frozen.
const THAWED: &str = "its file systems to be thawed";

/// What is made of a running guest.
pub(super) enum Condition {
    Well,
    /// Why, and what ends that.
    NotToBeJudged {
        why: String,
        waits: (String, u64),
    },
    Ill {
        trouble: Trouble,
        why: String,
        evidence: Vec<String>,
    },
}

/// What its host reports of it comes first, then what its probes say.
pub(super) fn trouble(
    round: &Round<'_>,
    run: &Run<'_>,
    policy: Option<&Policy>,
    judgement: &GuestJudgement,
) -> Condition {
    let told = match run.here.report(run.name).filter(|report| report.epoch == run.tenure.epoch) {
        Some(report) => reported(round, run, report),
        None => Some(unreported(round, run)),
    };
    told.unwrap_or_else(|| service_trouble(round, run, policy, judgement))
}

/// What its host reports of a guest. `None` where its probes are to say how it is.
fn reported(round: &Round<'_>, run: &Run<'_>, report: &GuestReport) -> Option<Condition> {
    let host = &run.tenure.host;
    let ill = |why: String| ill_by_report(run, Trouble::Guest, why);
    Some(match &report.condition {
        GuestCondition::Exited { detail } => {
            let why = format!("its QEMU has ended ({detail})");
            perhaps_elsewhere(round, run, &why).unwrap_or_else(|| ill(why))
        }
        GuestCondition::Panicked => ill("its kernel has panicked".to_owned()),
        broken if broken.is_broken() => ill("QEMU cannot run its virtual CPUs on (internal-error)".to_owned()),
        GuestCondition::Paused { reason } => {
            let why = format!("it is paused ({reason}); that is not a failure");
            Condition::NotToBeJudged { why, waits: ("whoever paused it to let it go on".to_owned(), FOREVER) }
        }
        GuestCondition::IoError { detail } => {
            let why = format!("its storage failed ({detail}), and QEMU has stopped it");
            ill_by_report(run, Trouble::Storage, why)
        }
        GuestCondition::Unknown { detail } => {
            let why = format!("{host} cannot tell how it is ({detail})");
            Condition::NotToBeJudged { why, waits: (format!("{host} to tell how it is"), FOREVER) }
        }
        // The move was given up, and yet everything was sent: nothing will let its virtual CPUs run again.
        GuestCondition::Sent if round.age(run.since) >= SENT_PATIENCE => {
            ill("it was sent away, and its move was given up".to_owned())
        }
        // R25: it was adopted, because it is all that is left, and who was to send it to it is gone.
        GuestCondition::Incoming if round.state.is_outranked(report.epoch) && round.age(run.since) >= SENT_PATIENCE => {
            ill("it waits for what a generation that has ended was to send to it".to_owned())
        }
        GuestCondition::Running | GuestCondition::Incoming | GuestCondition::Sent => return None,
    })
}

/// What is made of a guest that its host does not report. It is gone only where it is absent from a whole inventory that was taken after
/// the start was reported, and after its host had learned of that.
fn unreported(round: &Round<'_>, run: &Run<'_>) -> Condition {
    let learned = run.here.seen.filter(|seen| seen.has_learned(round.state.generation, run.since));
    let synced = learned.and_then(|seen| seen.sync.as_ref());
    let started = round.told_after(run.since);
    if synced.is_some_and(|sync| sync.incarnation == run.tenure.incarnation && sync.at > started) {
        let why = "its host has nothing of it";
        return perhaps_elsewhere(round, run, why)
            .unwrap_or_else(|| ill_by_report(run, Trouble::Guest, why.to_owned()));
    }
    // A host whose next sync does not come by then is not well heard, and has a wait of its own.
    let host = &run.tenure.host;
    let waits = (format!("the next word of {host} on what runs there"), millis(round.timing.suspect_after.0));
    Condition::NotToBeJudged { why: "its host has not reported it yet".to_owned(), waits }
}

fn ill_by_report(run: &Run<'_>, trouble: Trouble, why: String) -> Condition {
    Condition::Ill { trouble, why, evidence: vec![format!("{} reports it", run.tenure.host)] }
}

/// A guest that has left its host as one does that other tools move may run elsewhere already: nothing is started before the other hosts
/// that are heard have said since then what runs there (S1). What may be on hosts that are not heard, `vanished.rs`
/// looks after. When this coordinator has only begun to listen, any guest may have left just before, and hosts may not have had the time
/// to be heard.
fn perhaps_elsewhere(round: &Round<'_>, run: &Run<'_>, why: &str) -> Option<Condition> {
    let (seen, now) = (&run.here.seen?.left, round.now.moment);
    let left = seen.since(run.name, run.tenure.epoch).or_else(|| seen.heard_lately(now))?;
    // As in `Round::told_after`: a sync may have been on its way.
    let told_after = left.plus(round.timing.sync_every.0 * 2);
    let listens_lately = round.evidence.quorum_since.is_some_and(|since| now.since(since) < JUST_HEARD);
    let is_open = |host: &HostName| {
        let is_heard = round.hosts.get(host).is_some_and(|judgement| match judgement.verdict {
            HostVerdict::Healthy | HostVerdict::Suspect => true,
            HostVerdict::Unknown => listens_lately,
            HostVerdict::SupervisorDown | HostVerdict::Isolated | HostVerdict::Failed | HostVerdict::Gone => false,
        });
        let told = round.evidence.hosts.get(host).and_then(|seen| seen.sync.as_ref());
        is_heard && told.is_none_or(|sync| sync.at <= told_after)
    };
    let runs_guests = round.state.hosts.iter().filter(|(_, host)| host.facts.guests);
    let open = runs_guests.map(|(name, _)| name).find(|name| **name != run.tenure.host && is_open(name))?;
    let why = format!("{why}, and other tools may have moved it");
    let waits = (format!("the next word of {open} on what runs there"), millis(round.timing.suspect_after.0));
    Some(Condition::NotToBeJudged { why, waits })
}

/// A service that has failed, or is so degraded that its policy climbs the ladder for it. One that waits for another is
/// that one's trouble.
fn service_trouble(round: &Round<'_>, run: &Run<'_>, policy: Option<&Policy>, judgement: &GuestJudgement) -> Condition {
    let Some(policy) = policy else { return Condition::Well };
    let mut booting = None;
    for (name, own) in judgement.services.iter().filter(|(_, own)| own.waits_for.is_none()) {
        let Some(why) = ill_in_which_way(policy, own) else { continue };
        let service = policy.services.get(name);
        let grace = service.and_then(|service| service.tuning.grace).unwrap_or(policy.boot_grace);
        if let Some(left) = boot_left(round, run, grace.0) {
            booting = booting.or(Some((format!("{name} {why} yet; it has {grace} to boot"), to_boot(left))));
            continue;
        }
        if let Some(reset) = boots_again(round, run, policy.cool_down.0, grace.0) {
            let left = grace.0.saturating_sub(Duration::from_millis(reset.ago_ms));
            booting = booting.or(Some((format!("{name} {why} yet; {reset}, and has {grace} to boot"), to_boot(left))));
            continue;
        }
        let frozen = Frozen::of(round, run);
        if let Some(Frozen::Lately { left }) = frozen {
            let waits = (THAWED.to_owned(), millis(left));
            booting = booting
                .or(Some((format!("{name} {why}, and the guest's file systems are frozen, as for a backup"), waits)));
            continue;
        }
        if let Some(left) = service.and_then(|service| stood_still(round, run, service)) {
            let waits = (LET_RUN.to_owned(), millis(left));
            booting = booting.or(Some((format!("{name} {why} yet; its guest stood still until just now"), waits)));
            continue;
        }
        let evidence = own.evidence.clone();
        let why = match frozen {
            Some(Frozen::TooLong) => {
                format!(
                    "{name} {why}, and the guest's file systems have been frozen for more than {}",
                    Span(FROZEN_MAX)
                )
            }
            Some(Frozen::Lately { .. }) | None => format!("{name} {why}"),
        };
        return Condition::Ill { trouble: Trouble::Service, why, evidence };
    }
    booting.map_or(Condition::Well, |(why, waits)| Condition::NotToBeJudged { why, waits })
}

/// What is waited for while a guest boots.
pub(super) fn to_boot(left: Duration) -> (String, u64) {
    ("its services to answer, or its time to boot to pass".to_owned(), millis(left))
}

fn ill_in_which_way(policy: &Policy, own: &ServiceJudgement) -> Option<&'static str> {
    match (own.verdict, own.degraded, policy.on_degraded) {
        (ServiceVerdict::Failed, ..) => Some("does not answer"),
        (ServiceVerdict::Degraded, Some(Degradation::Slow), OnDegraded::Ladder) => Some("is slow"),
        (ServiceVerdict::Degraded, Some(Degradation::Flapping), OnDegraded::Ladder) => Some("flaps"),
        (
            ServiceVerdict::Degraded | ServiceVerdict::Healthy | ServiceVerdict::Suspect | ServiceVerdict::Unknown,
            ..,
        ) => None,
    }
}

/// For how much longer it may still be coming up: it was started so lately, and nothing has been tried to help it.
pub(super) fn boot_left(round: &Round<'_>, run: &Run<'_>, grace: Duration) -> Option<Duration> {
    let restarted = run.guest.ladder.position.as_ref().is_some_and(|position| !position.recovered && !position.failed);
    let left = grace.saturating_sub(round.age(run.since));
    (!run.verified && !restarted && !left.is_zero()).then_some(left)
}

/// The reset of its own after which the guest may still be coming up. Whatever was tried to help it was before.
fn boots_again(round: &Round<'_>, run: &Run<'_>, cool_down: Duration, grace: Duration) -> Option<Happened> {
    let told_at = run.here.seen?.sync.as_ref()?.at;
    let report = run.here.report(run.name).filter(|report| report.epoch == run.tenure.epoch)?;
    last_own_reset(&report.happened, round.now.moment.since(told_at), cool_down, grace)
}

/// A guest whose file systems are frozen: what writes there stands still, and its agent takes no commands.
enum Frozen {
    /// As for a backup, which lasts `left` longer at most.
    Lately { left: Duration },
    /// For longer than any backup takes.
    TooLong,
}

impl Frozen {
    fn of(round: &Round<'_>, run: &Run<'_>) -> Option<Self> {
        let told_at = run.here.seen?.sync.as_ref()?.at;
        let is_frozen = |report: &&GuestReport| report.epoch == run.tenure.epoch && report.frozen_ms.is_some();
        let report = run.here.report(run.name).filter(is_frozen)?;
        let left = report.frozen_left(round.now.moment.since(told_at));
        Some(left.map_or(Self::TooLong, |left| Self::Lately { left }))
    }
}

/// For how much longer what is said of a service may be from when its guest stood still, whoever let it run again: it has not
/// been asked as often since as it takes to show that it answers, or that it fails.
fn stood_still(round: &Round<'_>, run: &Run<'_>, service: &Service) -> Option<Duration> {
    let (epoch, until) = run.here.seen?.stood_still.get(run.name)?;
    let answers = service.fails_after.max(service.recovers_after);
    let left = round.shown_within(service, answers).saturating_sub(round.now.moment.since(*until));
    (*epoch == run.tenure.epoch && !left.is_zero()).then_some(left)
}

/// Whether a service has come up as far as its policy asks: one that is merely slow has, unless that is what it is on the
/// ladder for.
pub(super) fn has_come_up(own: &ServiceJudgement, on_degraded: OnDegraded) -> bool {
    match (own.verdict, own.degraded) {
        (ServiceVerdict::Healthy, _) => true,
        (ServiceVerdict::Degraded, Some(Degradation::Slow)) => match on_degraded {
            OnDegraded::Alert | OnDegraded::Migrate => true,
            OnDegraded::Ladder => false,
        },
        (ServiceVerdict::Degraded | ServiceVerdict::Suspect | ServiceVerdict::Failed | ServiceVerdict::Unknown, _) => {
            false
        }
    }
}
