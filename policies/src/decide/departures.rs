//! Announced departures: hosts are vacated before they go, and guests that wait for one start there and nowhere else.
//!
//! ```text
//! on_shutdown    a reboot                                  a shutdown
//! conditional    stopped, kept for REBOOT_GRACE            stopped, start elsewhere
//! migrate        move away while they run                  move away while they run
//! failover       stopped, start elsewhere                  stopped, start elsewhere
//! freeze         stopped, kept                             stopped, kept
//! ```
//! All are released first, so that a host that does not come back has nothing that would have to be fenced.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Decision, FOREVER, HostJudgement, HostVerdict, Round,
    fences::{close, open},
    restraint::REBOOT_GRACE,
    subject::Subject,
    supervisors::SUPERVISOR_PATIENCE,
};
use crate::{
    change::Change,
    departure::Departure,
    evidence::Evidence,
    model::Severity,
    names::{GuestName, HostName},
    rules::OnShutdown,
    state::{ClusterState, Guest, Host, Life, Mode, Phase, Wanted},
    time::{Moment, millis},
};

/// What keys of these incidents begin with; a slash and a host's name follow.
const ABOUT: &str = "leaving";

/// Vacates the hosts that are about to go, and tells of the guests that wait for one. It comes after the decisions about
/// guests; placement has seen to it that these start on their host and nowhere else ([`kept`]).
pub(super) fn decide(round: &Round<'_>, decision: &mut Decision, subjects: &[Subject<'_>]) {
    for subject in subjects {
        vacate(round, decision, subject.name, subject.host);
        overstays(round, decision, subject);
    }
    let kept = waiting(round.state, &round.hosts, |index| round.age(index));
    if kept.is_empty() {
        return;
    }
    for command in &mut decision.commands {
        if let Change::Place { guest, host, why } = command
            && kept.get::<GuestName>(guest).is_some_and(|kept| *kept.host == *host)
        {
            *why = format!("it ran there before {host} announced to go");
        }
    }
    for (guest, Kept { host, left }) in kept {
        if is_fit_to_start(round.state, &round.hosts, host) || !is_to_start(round.state, guest) {
            continue;
        }
        let heading = round.state.guests.get(guest).and_then(|known| known.heading.as_ref());
        // Where people have it moved, it starts there as soon as it can.
        let refused = match heading.map(|heading| (&heading.to, round.plan.choose(guest, |on| *on != heading.to))) {
            Some((_, Ok(_))) => continue,
            Some((to, Err(why))) => format!("; it is to start on {to}, which does not take it: {why}"),
            None => String::new(),
        };
        if let Some(judgement) = decision.report.guests.get_mut(guest) {
            judgement.doing = format!("kept for {host}, which has announced to go{refused}");
            judgement.waits = Some((format!("{host} to come back"), left));
        }
    }
}

/// Whether a stopped guest starts when its host is back: not one that people keep stopped or leave alone, nor one that waits for them.
fn is_to_start(state: &ClusterState, guest: &GuestName) -> bool {
    let meant = |known: &Guest| known.wanted == Wanted::Running && known.given_up.is_none();
    state.guests.get(guest).is_some_and(meant) && state.hands_off(guest).is_none()
}

/// Whether guests that wait for a host can start there.
pub(super) fn is_fit_to_start(
    state: &ClusterState,
    judged: &BTreeMap<HostName, HostJudgement>,
    host: &HostName,
) -> bool {
    let healthy = judged.get(host).is_some_and(|judgement| judgement.verdict == HostVerdict::Healthy);
    let ready = |known: &Host| known.life == Life::Up && known.mode == Mode::Active && known.quarantine.is_none();
    healthy && state.hosts.get(host).is_some_and(ready)
}

/// The host that a stopped guest waits for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept<'a> {
    /// Which.
    pub host: &'a HostName,
    /// At most how many milliseconds longer.
    left: u64,
}

impl Kept<'_> {
    /// Whether it waits for good.
    pub fn is_frozen(&self) -> bool {
        self.left == FOREVER
    }
}

/// The stopped guests that wait for a host.
pub(super) fn kept(state: &ClusterState, age: impl Fn(u64) -> Duration) -> BTreeMap<&GuestName, Kept<'_>> {
    let mut kept = BTreeMap::new();
    // One that is being drained takes nobody back; and most hosts are waited for by nobody.
    let waited_for = |host: &Host| host.mode != Mode::Draining && !host.kept.is_empty();
    for (name, host) in state.hosts.iter().filter(|(_, host)| waited_for(host)) {
        // Freezing is for good; otherwise a host has as long for each step: to go, and to start its guests when it is back.
        let left = match state.policies.cluster.on_shutdown {
            OnShutdown::Freeze => FOREVER,
            OnShutdown::Conditional | OnShutdown::Migrate | OnShutdown::Failover => {
                millis(REBOOT_GRACE.saturating_sub(age(host.mode_since)))
            }
        };
        for guest in host.kept.iter().filter(|_| left > 0) {
            let free = |known: &Guest| matches!(known.phase, Phase::Free { .. });
            if state.guests.get(guest).is_some_and(free) {
                kept.entry(guest).or_insert(Kept { host: name, left });
            }
        }
    }
    kept
}

/// The same, but for those whose host has come back, or is to be active again by an operator's word, and has failed: nobody has announced
/// that. Who waits for good waits all the same.
pub(super) fn waiting<'a>(
    state: &'a ClusterState,
    judged: &BTreeMap<HostName, HostJudgement>,
    age: impl Fn(u64) -> Duration,
) -> BTreeMap<&'a GuestName, Kept<'a>> {
    let is_active = |host: &HostName| state.hosts.get(host).is_some_and(|known| known.mode == Mode::Active);
    let has_failed = |host: &HostName| judged.get(host).is_some_and(|on| on.verdict == HostVerdict::Failed);
    let mut kept = kept(state, age);
    kept.retain(|_, kept| kept.is_frozen() || !is_active(kept.host) || !has_failed(kept.host));
    kept
}

/// The guests that wait at this moment for a host that has announced to go, and start nowhere else.
#[must_use]
pub fn kept_guests(state: &ClusterState, evidence: &Evidence, now: Moment) -> BTreeSet<GuestName> {
    kept(state, |index| evidence.marks.age(index, now)).into_keys().cloned().collect()
}

fn vacate(round: &Round<'_>, decision: &mut Decision, name: &HostName, host: &Host) {
    if !matches!(host.mode, Mode::Leaving { .. }) {
        return;
    }
    let stops = match round.state.departure(name) {
        None | Some(Departure::MoveAway) => false,
        Some(Departure::StopAndStartElsewhere | Departure::StopAndKeepForAWhile | Departure::StopAndKeep) => true,
    };
    // Walks over all guests, so it is asked last.
    let runs = || {
        round.state.guests.values().any(|guest| {
            let here = matches!(&guest.phase, Phase::Running { tenure, .. } if tenure.host == *name);
            here && guest.wanted != Wanted::Unmanaged
        })
    };
    if stops && round.state.suspended.is_none() && round.answers(name) && runs() {
        decision.commands.push(Change::Vacated { host: name.clone() });
    }
}

/// A host that has announced to go and does not go is told of: it gets no guests meanwhile. So is one that does not come back from a
/// reboot, or has failed when it was back, and for which guests wait however long that takes: else they would be down, and nobody told.
fn overstays(round: &Round<'_>, decision: &mut Decision, subject: &Subject<'_>) {
    let Subject { name, host, judgement, .. } = *subject;
    let is_long = || round.age(host.mode_since) >= REBOOT_GRACE;
    // One that is back misses a sync now and then, and a new coordinator has yet to hear it.
    let is_missed = || {
        let unsynced = Duration::from_millis(judgement.unsynced_ms);
        unsynced >= SUPERVISOR_PATIENCE || subject.told.about(ABOUT).is_some()
    };
    let minutes = Duration::as_secs(&REBOOT_GRACE) / 60;
    let (summary, human) = match (host.mode, judgement.verdict == HostVerdict::Healthy) {
        (Mode::Leaving { .. }, true) if host.life == Life::Up && is_long() => (
            format!("{name} announced over {minutes} minutes ago that it would go, and is still here"),
            format!("If {name} is to stay, run `holdfast host resume {name}`: until then it gets no guests."),
        ),
        (Mode::Leaving { reboot: true }, false) if is_long() && is_waited_for_however_long(round.state, name, host) => {
            (
                format!(
                    "{name} announced its reboot over {minutes} minutes ago, and the guests that are kept for it are down"
                ),
                format!("Look why {name} does not come back, or have them start elsewhere: `holdfast guest migrate`."),
            )
        }
        (Mode::Active, false) if is_long() && is_missed() && keeps_for_good(round.state, host) => (
            format!("{name} is not well heard, and the guests that are kept for it are down"),
            format!("Look after {name}, or have them start elsewhere: `holdfast guest migrate`."),
        ),
        (Mode::Leaving { .. } | Mode::Active | Mode::Draining | Mode::Maintenance, _) => {
            return close(decision, ABOUT, subject);
        }
    };
    open(round, decision, format!("{ABOUT}/{name}"), Severity::Warning, summary, Some(human));
}

/// Whether guests that are to run start on this host and nowhere else, whenever it is back.
fn is_waited_for_however_long(state: &ClusterState, name: &HostName, host: &Host) -> bool {
    state.departure(name) == Some(Departure::StopAndKeep) && keeps_for_good(state, host)
}

/// Whether guests that are to run were stopped on a host, and are frozen for it.
fn keeps_for_good(state: &ClusterState, host: &Host) -> bool {
    let is_frozen = state.policies.cluster.on_shutdown == OnShutdown::Freeze;
    is_frozen && host.kept.iter().any(|guest| is_to_start(state, guest))
}
