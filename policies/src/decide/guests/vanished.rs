//! A guest that has left its host as one does that other tools move, while hosts are silent to which it may have gone. Nothing starts
//! before they have said that nothing of it is there, or are proven off (S1).

use super::{
    super::{FOREVER, GuestJudgement, HostVerdict, Round},
    Pass,
    running::Run,
    strays::release_of,
};
use crate::{
    change::Change,
    evidence::{JUST_HEARD, is_there},
    names::{GuestName, HostName},
    state::{Host, Mode},
    time::Moment,
};

impl Pass<'_, '_> {
    /// Orders the silent hosts to which a guest may have gone to stop it, once its own host has nothing of it and those that are heard
    /// have said the same; says whether there are any. An order is not forgotten with the coordinator that gave it (S6), has its host
    /// fenced if that one has failed, and is carried out by a supervisor that comes back. No host that lives is fenced for it (S8): what
    /// vanishes without a word of its end was taken away by somebody, and people are told.
    pub(super) fn may_have_gone(&mut self, run: &Run<'_>, why: &str, judgement: &mut GuestJudgement) -> bool {
        let (round, name) = (self.round, run.name);
        let hosts = silent_since_it_left(round, run);
        let Some((first, _)) = hosts.first() else { return false };
        judgement.doing = format!("{why}, and other tools may have moved it to {first}, which is silent");
        let waits = format!("the word of {first} that nothing of it is there, or proof that it is off");
        judgement.waits = Some((waits, FOREVER));
        // Also of one whose fence is opened by this very round, or is open: what is remembered here ends with a minute, or with this
        // coordinator, and a fence may take longer.
        let is_to_be_asked =
            |host: &HostName| round.state.can_be_told_to_stop(host) && release_of(round.state, name, host).is_none();
        let asked: Vec<&HostName> = hosts.iter().map(|(host, _)| *host).filter(|host| is_to_be_asked(host)).collect();
        if let Some(host) = asked.first() {
            self.tell_gone_to(name, host);
        }
        for host in asked {
            let (guest, host, epoch) = (name.clone(), host.clone(), run.tenure.epoch);
            self.decision.commands.push(Change::StrayFound { guest, host, epoch, keep: Some(run.tenure.host.clone()) });
        }
        true
    }

    /// Where it is, or that it is nowhere, mostly a person can say at once.
    fn tell_gone_to(&mut self, name: &GuestName, host: &HostName) {
        let why = format!("it vanished from its host, and may run on {host}, which is silent");
        let first = format!("Look whether somebody has moved {name} to {host} with other tools.");
        self.tell_of_silent(name, host, &why, &first);
    }
}

/// The silent hosts that may have taken a guest in when it left its own: none where nobody knows that it has left.
fn silent_since_it_left<'a>(round: &Round<'a>, run: &Run<'_>) -> Vec<(&'a HostName, &'a Host)> {
    let Some(left) = left_at(round, run) else { return Vec::new() };
    let others = round.state.hosts.iter().filter(|(name, known)| **name != run.tenure.host && known.facts.guests);
    others.filter(|(name, known)| may_have_it(round, run.name, left, name, known)).collect()
}

/// When a guest had left its host at the latest, without a word of its end. What this coordinator never heard of may have left before it
/// listened: what has ended where it ran is reported as that.
fn left_at(round: &Round<'_>, run: &Run<'_>) -> Option<Moment> {
    let left = &run.here.seen?.left;
    let was_there =
        |heard: &Moment| run.here.report(run.name).is_none() && round.evidence.marks.at(run.since) <= *heard;
    left.since(run.name, run.tenure.epoch).or_else(|| left.first_heard(round.now.moment).filter(was_there))
}

/// Whether a guest that had left its host at this moment may be on another one, which has not said since then that it is not.
fn may_have_it(round: &Round<'_>, guest: &GuestName, left: Moment, host: &HostName, known: &Host) -> bool {
    let seen = round.evidence.hosts.get(host);
    let lived_until = seen.and_then(|seen| seen.last_word(&known.facts.incarnation));
    // What this coordinator has never heard may have died just before it began, and not later.
    let lived_until_then =
        lived_until.or(round.evidence.quorum_since).is_none_or(|until| until.plus(JUST_HEARD) >= left);
    let may_take = match round.hosts.get(host).map(|judgement| judgement.verdict) {
        Some(HostVerdict::SupervisorDown | HostVerdict::Isolated) => true,
        // One that was dead by then took nobody in. It may have died with the coordinator, whose successor heard it last by others.
        Some(HostVerdict::Failed) => lived_until_then,
        // One that has not synced yet lives, if it is heard. In maintenance a host may be off for weeks.
        Some(HostVerdict::Unknown) => known.mode == Mode::Active && (lived_until.is_some() || lived_until_then),
        // Those that are heard are asked first.
        Some(HostVerdict::Healthy | HostVerdict::Suspect | HostVerdict::Gone) | None => false,
    };
    // As in `Round::told_after`: a sync may have been on its way.
    let told_after = left.plus(round.timing.sync_every.0 * 2);
    let had = seen.and_then(|seen| seen.reports.get(guest)).is_some_and(|report| is_there(&report.condition));
    let sync = seen.and_then(|seen| seen.sync.as_ref());
    may_take && (had || sync.is_none_or(|sync| sync.at <= told_after))
}
