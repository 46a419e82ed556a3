//! What guests that this cluster has yet to place make of hosts that are not heard (R8).
//!
//! Such a guest starts nowhere before every host has said what runs there. A host that had something of it when it was last heard
//! may run it still, whoever started it there: it was removed from the policies and declared again, or adopted by nobody yet. That
//! host is fenced for it as for any guest that may run there. Of every other silent host nothing of the kind is known, so that nobody
//! switches it off (S8), and a person is told that its word is waited for.

use std::time::Duration;

use super::{
    Decision, HostVerdict, Round,
    fences::open,
    restraint::{grace, is_hands_off, is_missed},
    subject::Subject,
    supervisors::{ABOUT, SUPERVISOR_PATIENCE},
};
use crate::{
    change::Change,
    evidence::is_there,
    model::Severity,
    names::{GuestName, HostName},
    state::{Guest, Life, Mode, Phase, Wanted},
};

/// What is said of a host, behind its name.
const WAITS: &str = "does not say what runs there, and guests that were never placed wait for its word";

impl Round<'_> {
    /// Whether anything waits for proof that this host runs nothing: what the state knows of, or a guest that was never placed and
    /// was there when the host was last heard.
    pub(super) fn is_waited_for(&self, name: &HostName) -> bool {
        self.state.is_waited_for(name) || left_there(self, name).is_some()
    }
}

/// A guest that is to run, was never placed, and was on this host when the boot that has joined was last heard.
pub(super) fn left_there<'a>(round: &'a Round<'_>, name: &HostName) -> Option<&'a GuestName> {
    let known = round.state.hosts.get(name)?;
    let seen = round.evidence.hosts.get(name)?;
    let is_its_word = seen.sync.as_ref().is_some_and(|sync| sync.incarnation == known.facts.incarnation);
    let mut there = seen.reports.iter().filter(|(_, report)| is_its_word && is_there(&report.condition));
    let found = there.find(|(guest, _)| round.state.guests.get(*guest).is_some_and(is_awaited));
    found.map(|(guest, _)| guest)
}

/// Whether a guest is to run and starts nowhere before all hosts have said what they have of it.
fn is_awaited(guest: &Guest) -> bool {
    matches!(guest.phase, Phase::Unplaced) && guest.wanted == Wanted::Running
}

/// Whether there is any such guest.
pub(super) fn is_any_awaited(round: &Round<'_>) -> bool {
    round.state.guests.values().any(is_awaited)
}

/// Whether people are to be told that guests that were never placed have long waited for the word of this host: it is not fenced, because
/// it is in maintenance or had nothing of them when it was last heard. They are told of one such host at a time, as one guest may wait for
/// hundreds that are switched off.
pub(super) fn keeps_waiting(round: &Round<'_>, decision: &Decision, subject: &Subject<'_>) -> bool {
    let Subject { name, host, judgement, .. } = *subject;
    let is_untold = match judgement.verdict {
        HostVerdict::Healthy | HostVerdict::Gone => false,
        // Of a supervisor that should not be silent people are told for itself.
        HostVerdict::SupervisorDown | HostVerdict::Isolated => !is_missed(host),
        HostVerdict::Suspect | HostVerdict::Failed | HostVerdict::Unknown => true,
    };
    let patience = match host.mode {
        Mode::Active | Mode::Draining => SUPERVISOR_PATIENCE,
        Mode::Maintenance => grace(true),
        Mode::Leaving { reboot } => grace(reboot),
    };
    is_untold
        && host.life == Life::Up
        && host.facts.guests
        && round.state.suspended.is_none()
        && (Duration::from_millis(judgement.unsynced_ms) >= patience || is_told(subject))
        && (is_hands_off(host) || !round.is_waited_for(name))
        && is_any_awaited(round)
        && (is_told(subject) || !is_told_of_any(round, decision))
}

/// Whether people have been told, and the host has not been heard since: a new coordinator counts its silence from its own beginning.
pub(super) fn is_told(subject: &Subject<'_>) -> bool {
    subject.told.about(ABOUT).is_some_and(|open| open.summary == summary(subject.name))
}

/// Whether they have been told of any host, or are in this round.
fn is_told_of_any(round: &Round<'_>, decision: &Decision) -> bool {
    let is_it = |summary: &str| summary.ends_with(WAITS);
    let tells = |change: &Change| matches!(change, Change::IncidentOpened { summary, .. } if is_it(summary));
    round.told.all(ABOUT).any(|(_, open)| is_it(&open.summary)) || decision.commands.iter().any(tells)
}

fn summary(name: &HostName) -> String {
    format!("{name} {WAITS}")
}

/// Tells people of it, under the key and until the end of every other word on a silent supervisor.
pub(super) fn tell(round: &Round<'_>, decision: &mut Decision, name: &HostName) {
    let human = format!(
        "They start nowhere before it is known that they do not run on {name}. Bring it back, or see that it is off and run \
         `holdfast host confirm-off {name} --operator YOUR-NAME`. `holdfast explain GUEST` names all hosts whose word a guest waits for."
    );
    open(round, decision, format!("{ABOUT}/{name}"), Severity::Critical, summary(name), Some(human));
}
