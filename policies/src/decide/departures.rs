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

use std::{collections::BTreeMap, time::Duration};

use super::{
    Decision, FOREVER, HostVerdict, Round,
    fences::{close, open},
    placement::STARTS_PER_HOST,
    restraint::REBOOT_GRACE,
};
use crate::{
    change::Change,
    departure::Departure,
    model::Severity,
    names::{GuestName, HostName},
    rules::OnShutdown,
    state::{Host, Life, Mode, Phase, Wanted},
    time::millis,
};

/// Vacates the hosts that are about to go, and has the guests that wait for one start there. It comes after the decisions
/// about guests, of which it corrects where these are placed.
pub(super) fn decide(round: &Round<'_>, decision: &mut Decision) {
    for (name, host) in &round.state.hosts {
        vacate(round, decision, name);
        overstays(round, decision, name, host);
    }
    let mut starting = BTreeMap::new();
    decision.commands.retain_mut(|command| match command {
        Change::Place { guest, host, why } => match keeper(round, guest) {
            Some((keeper, _)) => {
                let may = round.is_fit_to_start(keeper) && has_a_turn(round, keeper, &mut starting);
                keeper.clone_into(host);
                *why = format!("it ran there before {keeper} announced to go");
                may
            }
            None => true,
        },
        // That no other host has room for a guest that is to go to none of them is nobody's business.
        Change::IncidentOpened { key, .. } => {
            let guest = key.strip_prefix("placement/").and_then(|guest| GuestName::new(guest).ok());
            guest.is_none_or(|guest| keeper(round, &guest).is_none())
        }
        _ => true,
    });
    // Mostly no host is about to go, and then no guest has to be looked up.
    if round.state.hosts.values().all(|host| host.kept.is_empty()) {
        return;
    }
    for (guest, judgement) in &mut decision.report.guests {
        if let Some((keeper, left)) = keeper(round, guest).filter(|(keeper, _)| !round.is_fit_to_start(keeper)) {
            judgement.doing = format!("kept for {keeper}, which has announced to go");
            judgement.waits = Some((format!("{keeper} to come back"), left));
        }
    }
}

impl Round<'_> {
    fn is_fit_to_start(&self, host: &HostName) -> bool {
        let known = self.state.hosts.get(host);
        self.answers(host) && known.is_some_and(|known| known.mode == Mode::Active && known.quarantine.is_none())
    }
}

/// The host that a stopped guest waits for, and at most how many milliseconds longer.
fn keeper<'a>(round: &Round<'a>, guest: &GuestName) -> Option<(&'a HostName, u64)> {
    let Phase::Free { .. } = round.state.guests.get(guest)?.phase else { return None };
    let (name, host) = round.state.hosts.iter().find(|(_, host)| host.kept.contains(guest))?;
    // Freezing is for good; otherwise a host has as long for each step: to go, and to start its guests when it is back.
    if round.state.policies.cluster.on_shutdown == OnShutdown::Freeze {
        return Some((name, FOREVER));
    }
    let left = REBOOT_GRACE.saturating_sub(round.age(host.mode_since));
    (!left.is_zero()).then(|| (name, millis(left)))
}

/// The boot storm's bound also holds for guests that come back together.
fn has_a_turn(round: &Round<'_>, host: &HostName, planned: &mut BTreeMap<HostName, u32>) -> bool {
    let starting = |phase: &Phase| matches!(phase, Phase::Starting { tenure, .. } if tenure.host == *host);
    let starts = round.state.guests.values().filter(|guest| starting(&guest.phase)).count();
    let under_way = u32::try_from(starts).unwrap_or(u32::MAX);
    let planned = planned.entry(host.clone()).or_default();
    *planned += 1;
    under_way.saturating_add(*planned) <= STARTS_PER_HOST
}

fn vacate(round: &Round<'_>, decision: &mut Decision, name: &HostName) {
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

/// A host that has announced to go and does not go is told of: it gets no guests meanwhile.
fn overstays(round: &Round<'_>, decision: &mut Decision, name: &HostName, host: &Host) {
    let key = format!("leaving/{name}");
    let healthy = round.hosts.get(name).is_some_and(|judgement| judgement.verdict == HostVerdict::Healthy);
    match host.mode {
        Mode::Leaving { .. } if host.life == Life::Up && healthy && round.age(host.mode_since) >= REBOOT_GRACE => {
            let minutes = Duration::as_secs(&REBOOT_GRACE) / 60;
            let summary = format!("{name} announced over {minutes} minutes ago that it would go, and is still here");
            let human =
                format!("If {name} is to stay, run `holdfast host resume {name}`: until then it gets no guests.");
            open(round, decision, key, Severity::Warning, summary, Some(human));
        }
        Mode::Leaving { .. } | Mode::Active | Mode::Draining | Mode::Maintenance => close(round, decision, &key),
    }
}
