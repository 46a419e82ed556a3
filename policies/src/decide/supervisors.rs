//! Silent supervisors on living hosts: told, and no reason for a fence by themselves (R16). So are lost hosts without guests.

use std::time::Duration;

use super::{
    Decision, HostVerdict, Round,
    fences::{close, open},
    guests::order::is_stopped_for_another,
    hosts::newest_sign,
    leases::pending,
    restraint::is_missed,
    service_storm::is_held_unheard,
    subject::Subject,
    unplaced,
};
use crate::{
    evidence::OtherBoot,
    ladder::{LadderKind, NextStep, Trouble, ladder_of, next_step, wait_of},
    model::Severity,
    names::{GuestName, HostName},
    state::{ClusterState, Fence, Guest, Life, Migration, MigrationStep, Mode, Phase, Position, Tenure, Wanted},
};

/// What keys of these incidents begin with; a slash and a host's name follow.
pub(super) const ABOUT: &str = "supervisor";

/// Silence of a supervisor that no restart or upgrade should take (R16).
pub(super) const SUPERVISOR_PATIENCE: Duration = Duration::from_secs(30);

/// Tells of a supervisor that is silent on a living host, and of a host that is silent and has no guests for which it would be fenced.
pub(super) fn supervisor_down(round: &Round<'_>, decision: &mut Decision, subject: &Subject<'_>) {
    let name = subject.name;
    let expected = !is_missed(subject.host);
    if unplaced::keeps_waiting(round, decision, subject) {
        return unplaced::tell(round, decision, name);
    }
    match subject.judgement.verdict {
        HostVerdict::SupervisorDown | HostVerdict::Isolated if !expected => {
            let summary = format!("the supervisor of {name} is silent, but {name} is alive");
            let guests = match subject.lease_level() {
                Some(_) => {
                    "It stops its guests when its lease runs out, and they start elsewhere once that is certain."
                }
                None => "Its guests run on.",
            };
            let human = format!("{guests} Start the supervisor of {name} again, or look why it does not start.");
            open(round, decision, format!("{ABOUT}/{name}"), Severity::Warning, summary, Some(human));
        }
        HostVerdict::Healthy | HostVerdict::Gone | HostVerdict::SupervisorDown | HostVerdict::Isolated => {
            close(decision, ABOUT, subject);
        }
        HostVerdict::Failed if !round.is_waited_for(name) => lost_without_guests(round, decision, subject),
        HostVerdict::Suspect if is_long_in_doubt(round, decision, subject) => told_in_doubt(round, decision, name),
        // Nobody is told of these but for the sake of guests that wait.
        HostVerdict::Suspect | HostVerdict::Unknown if expected => close(decision, ABOUT, subject),
        HostVerdict::Suspect | HostVerdict::Failed | HostVerdict::Unknown if waits_are_over(round, subject) => {
            close(decision, ABOUT, subject);
        }
        HostVerdict::Suspect | HostVerdict::Failed | HostVerdict::Unknown => {}
    }
}

/// Whether people were told that guests wait for this host, and none does any more: they were removed, or have been stopped for good.
fn waits_are_over(round: &Round<'_>, subject: &Subject<'_>) -> bool {
    let Some(told) = subject.told.about(ABOUT) else { return false };
    let doubted = told.summary == in_doubt(subject.name) && !round.state.is_waited_for(subject.name);
    (doubted || unplaced::is_told(subject)) && !unplaced::is_any_awaited(round)
}

/// Whether guests have long waited for a host that nobody hears, and of which too few voters can say so: it has not failed by that. A new
/// coordinator has yet to ask them; in a storm, or while deciding is suspended, people know what is waited for; and where the host's lease
/// ends the wait, nobody has to get up.
fn is_long_in_doubt(round: &Round<'_>, decision: &Decision, subject: &Subject<'_>) -> bool {
    let listens_for = round.evidence.quorum_since.map_or(Duration::ZERO, |since| round.now.moment.since(since));
    let silent = Duration::from_millis(subject.judgement.silent_ms).min(listens_for);
    // Voters that were started anew may say so when their time to hear it has passed (R19).
    let is_long = silent >= round.timing.join_grace.0 + SUPERVISOR_PATIENCE;
    let is_told = decision.report.storm_hold.is_some() || round.state.suspended.is_some();
    // An open fence waits for their word as well before each attempt.
    let is_open = matches!(subject.host.life, Life::Up | Life::Fencing(Fence { attempt: None, .. }));
    let may_fail = is_missed(subject.host) && is_open;
    is_long && !is_told && may_fail && round.is_waited_for(subject.name) && pending(round, subject).is_none()
}

fn told_in_doubt(round: &Round<'_>, decision: &mut Decision, name: &HostName) {
    let human = format!(
        "Look at {name}, and in `holdfast status` which voters do not answer or are not well. If it is off, run \
         `holdfast host confirm-off {name} --operator YOUR-NAME`: until then its guests start nowhere else."
    );
    open(round, decision, format!("{ABOUT}/{name}"), Severity::Critical, in_doubt(name), Some(human));
}

fn in_doubt(name: &HostName) -> String {
    format!("{name} is heard by nobody, and too few voters can say so for it to be switched off")
}

/// Tells of a host that has failed and that nothing is done about. One that is drained is often switched off on purpose, and then it
/// is not called alive any more either. A reboot that nobody has announced is no news, unless people were told that the host lives.
fn lost_without_guests(round: &Round<'_>, decision: &mut Decision, subject: &Subject<'_>) {
    let name = subject.name;
    if subject.host.mode != Mode::Active {
        return close(decision, ABOUT, subject);
    }
    let long = Duration::from_millis(subject.judgement.silent_ms) >= SUPERVISOR_PATIENCE;
    if long || subject.told.about(ABOUT).is_some() {
        let summary = format!("{name} is heard by nobody; nothing may run there, so it is not switched off");
        let human = format!(
            "No guest is known to be on {name}. It takes none, and gives no vote if it has one, until it is back: look after it."
        );
        open(round, decision, format!("{ABOUT}/{name}"), Severity::Warning, summary, Some(human));
    }
}

/// The boot that a host is heard in, while that one has not joined and nothing else is heard of the host. Whatever the boot
/// before it ran has ended; only its supervisor can say so.
pub(super) fn booted_anew<'a>(round: &Round<'a>, name: &HostName) -> Option<&'a OtherBoot> {
    let host = round.state.hosts.get(name)?;
    let other = round.evidence.other_boot(name, host)?;
    let known = newest_sign(round.state, round.evidence, name, &host.facts.incarnation);
    let fresh = round.now.moment.since(other.at) < round.timing.suspect_after.0;
    (fresh && known.is_none_or(|known| known < other.at)).then_some(other)
}

/// For how long a new boot could have joined: it is kept out while a fence attempt is under way (R20).
pub(super) fn could_join_for(round: &Round<'_>, name: &HostName, anew: &OtherBoot) -> Duration {
    let age = round.now.moment.since(anew.since);
    match round.state.hosts.get(name).map(|host| &host.life) {
        Some(Life::Fencing(Fence { attempt: Some(_), .. })) => Duration::ZERO,
        Some(Life::Fencing(Fence { failed: Some(failed), .. })) => age.min(round.age(*failed)),
        Some(Life::Fencing(Fence { failed: None, .. }) | Life::Up | Life::Gone { .. }) | None => age,
    }
}

/// A guest that fails, waits for an answer, or has arrived and does not go on, on a host whose supervisor has been down for so long
/// that nobody there will help it (R16).
pub(super) fn stuck_behind_dead_supervisor(round: &Round<'_>, name: &HostName) -> Option<String> {
    // Whoever decides this lives, and is back: after a while of standing still its own syncs are missing, too.
    if round.evidence.me.as_ref() == Some(name) {
        return None;
    }
    let judgement = round
        .hosts
        .get(name)
        .filter(|judgement| matches!(judgement.verdict, HostVerdict::SupervisorDown | HostVerdict::Isolated))?;
    if let Some(anew) = booted_anew(round, name) {
        let age = could_join_for(round, name, anew);
        // Whoever wants it stopped or left alone wants no host to be lost for it, which runs nothing of it any more (S8).
        let wait = round
            .state
            .guests_of(name)
            .filter(|(guest, known)| is_to_run(round, guest, known) && !is_stopped_for_another(round.state, guest));
        let guests = wait.count() + awaited_strays(round, name).count();
        let stuck = format!(
            "it has booted anew ({}) and has not joined for {} s, and {guests} guests wait for its word",
            anew.incarnation,
            age.as_secs()
        );
        return (guests > 0 && age >= SUPERVISOR_PATIENCE).then_some(stuck);
    }
    if Duration::from_millis(judgement.unsynced_ms) < SUPERVISOR_PATIENCE {
        return None;
    }
    let failed = round.state.guests_of(name).find_map(|(guest, known)| {
        // Whoever wants it stopped or left alone wants no other guest to be lost for it (S8).
        if !is_to_run(round, guest, known) {
            return None;
        }
        if let Some(waits) = waits_there(round, guest, known, name) {
            return Some(waits);
        }
        let home = known.home().filter(|home| home.host == *name)?;
        if may_come_up(round, guest, known) || is_left_to_people(round, guest, known) {
            return None;
        }
        let failed = round.watched(guest, home.epoch).failed_service(round.state)?;
        // S9: what many guests have in common is not mended by switching off the host of one.
        (!is_held_unheard(round, guest)).then_some(failed)
    });
    let awaited = || {
        let guest = awaited_strays(round, name).next()?;
        Some(format!("{guest} starts nowhere before it is known to be stopped there"))
    };
    let failed = failed.or_else(awaited)?;
    Some(format!("its supervisor has been silent for {} s and {failed}", judgement.unsynced_ms / 1_000))
}

/// Whether people want it to run, and it is not left to them. One that they have removed while something was under way is not theirs any
/// more, though its end is still to be known; and one whose starts have failed too often starts nowhere before somebody has looked.
fn is_to_run(round: &Round<'_>, guest: &GuestName, known: &Guest) -> bool {
    known.wanted == Wanted::Running && known.given_up.is_none() && round.state.policies.guests.contains_key(guest)
}

/// Whether a guest may be coming up yet, the newest try may still help it, or its file systems are frozen: where its supervisor answered
/// nothing would be done for it either. A host that has been given many guests at once is slow, and so are they.
fn may_come_up(round: &Round<'_>, guest: &GuestName, known: &Guest) -> bool {
    let Phase::Running { tenure, since, verified, .. } = &known.phase else { return false };
    if is_frozen(round, guest, tenure) {
        return true;
    }
    let tried = recovery(known).filter(|position| !position.recovered && !position.failed);
    if let Some(position) = tried {
        let rungs = ladder_of(&round.state.policies, guest, LadderKind::Recovery);
        let age = round.age(position.acted.max(*since));
        return rungs.get(position.rung).is_some_and(|rung| age < wait_of(position, rung));
    }
    let Some((_, policy)) = round.state.policies.policy_of(guest) else { return false };
    let graces = policy.services.values().map(|service| service.tuning.grace.unwrap_or(policy.boot_grace));
    !verified && graces.max().is_some_and(|grace| round.age(*since) < grace.0)
}

fn is_frozen(round: &Round<'_>, guest: &GuestName, tenure: &Tenure) -> bool {
    let Some(seen) = round.evidence.hosts.get(&tenure.host) else { return false };
    let report = seen.reports.get(guest).filter(|report| report.epoch == tenure.epoch);
    let (Some(report), Some(sync)) = (report, &seen.sync) else { return false };
    report.frozen_left(round.now.moment.since(sync.at)).is_some()
}

/// Where a guest stands on the ladder for services that fail.
fn recovery(known: &Guest) -> Option<&Position> {
    known.ladder.position.as_ref().filter(|position| position.ladder == LadderKind::Recovery)
}

/// Whether all that is to be done for a guest whose services fail has been done, and people called: its host is not to be lost for it
/// because of a supervisor that has nothing more to do there (S8).
fn is_left_to_people(round: &Round<'_>, guest: &GuestName, known: &Guest) -> bool {
    let told = round.told.by_key(&ClusterState::guest_key(guest));
    if told.is_none_or(|open| open.human.is_none()) {
        return false;
    }
    let rungs = ladder_of(&round.state.policies, guest, LadderKind::Recovery);
    next_step(&rungs, recovery(known), Duration::MAX, Trouble::Service) == NextStep::Exhausted
}

/// What of a guest that is down, or may be, only the supervisor of this host can bring to an end.
fn waits_there(round: &Round<'_>, guest: &GuestName, known: &Guest, name: &HostName) -> Option<String> {
    match &known.phase {
        // Whoever wants another one stopped wants no host to be lost for it (S8).
        Phase::Releasing { .. } if is_stopped_for_another(round.state, guest) => None,
        Phase::Starting { .. } | Phase::Releasing { .. } => Some(format!("{guest} is {} there", known.word())),
        Phase::Migrating(Migration { step: MigrationStep::Clearing { .. }, .. }) => {
            Some(format!("what its move has left of {guest} is there"))
        }
        // All of it has arrived, and it stands still until it is had go on. Nowhere else may it do so any more (R22).
        Phase::Migrating(Migration { step: MigrationStep::Switched { resume: Some(_), .. }, target, .. }) => {
            let here = target.as_ref().filter(|target| target.host == *name)?;
            (!goes_on(round, guest, here)).then(|| format!("{guest} has arrived there and waits to go on"))
        }
        Phase::Unplaced | Phase::Free { .. } | Phase::Running { .. } | Phase::Migrating(_) => None,
    }
}

/// Whether a guest that has arrived has answered another host since its own was last heard of it: its supervisor had it go on, and
/// was gone, or cut off, before it could say so. Should it fail later, that is acted on.
fn goes_on(round: &Round<'_>, guest: &GuestName, here: &Tenure) -> bool {
    let synced = round.evidence.hosts.get(&here.host).and_then(|seen| seen.sync.as_ref()).map(|sync| sync.at);
    let passed = round.evidence.last_pass_from_others(guest, here.epoch, &here.host);
    passed.is_some_and(|passed| synced.or(round.evidence.quorum_since).is_some_and(|told| passed > told))
}

/// Guests that were found on this host without a right to run there, and are to run, and start nowhere before it has said that nothing
/// of them is left.
fn awaited_strays<'a>(round: &'a Round<'_>, name: &'a HostName) -> impl Iterator<Item = &'a GuestName> {
    let starts_then = |known: &Guest| {
        known.wanted == Wanted::Running && known.given_up.is_none() && matches!(known.phase, Phase::Free { .. })
    };
    let guests = &round.state.guests;
    round.state.strays_of(name).filter(move |guest| guests.get(*guest).is_some_and(starts_then))
}
