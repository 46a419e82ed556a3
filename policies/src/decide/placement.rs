//! Placement: where a free or moving guest goes. Memory is hard; among hosts with room, the one with most room left.

use std::{cmp::Reverse, collections::BTreeMap};

use super::Round;
use crate::{
    apply::orders::START_TRIES_PER_HOST,
    names::{GuestName, HostName},
    state::{ClusterState, Life, MigrationStep, Mode, Phase},
};

/// Starts that one host carries out at once (boot storm).
pub const STARTS_PER_HOST: usize = 2;

/// Why a guest can be placed nowhere: a reason for each host.
pub type Unplaceable = BTreeMap<HostName, String>;

/// What this round has placed already: memory in MiB and number of starts, by host.
pub(super) type Planned = BTreeMap<HostName, (u64, usize)>;

/// The reason that passes by itself: a host that could take the guest after the starts that it is busy with.
const BUSY: &str = "is busy starting";

/// Chooses a host.
pub(super) fn choose(
    round: &Round<'_>,
    guest: &GuestName,
    avoid: impl Fn(&HostName) -> bool,
    planned: &Planned,
) -> Result<(HostName, String), Unplaceable> {
    let needed = memory(round.state, guest);
    let mut reasons = Unplaceable::new();
    let mut candidates = Vec::new();
    for (name, host) in &round.state.hosts {
        let (planned_memory, planned_starts) = planned.get(name).copied().unwrap_or_default();
        let free = host.facts.memory_mib.saturating_sub(used_memory(round.state, name, guest) + planned_memory);
        let starting = starting_on(round.state, name) + planned_starts;
        let reason = if !host.facts.guests {
            Some("is a witness".to_owned())
        } else if host.life != Life::Up {
            Some("is fenced or gone".to_owned())
        } else if host.mode != Mode::Active {
            Some("is being drained".to_owned())
        } else if !round.answers(name) {
            Some("is not heard".to_owned())
        } else if avoid(name) {
            Some("is to be avoided".to_owned())
        } else if free < needed {
            Some(format!("has {free} MiB of memory left, {needed} MiB are needed"))
        } else if starting >= STARTS_PER_HOST {
            Some(format!("{BUSY} {starting} other guests"))
        } else {
            None
        };
        match reason {
            Some(reason) => {
                reasons.insert(name.clone(), reason);
            }
            None => {
                let unwell = round.hosts.get(name).is_some_and(|judgement| judgement.unwell.is_some());
                // Start failures: tries here, then hosts with fewer failed rounds, then here again (DESIGN section 8).
                let failures = round.state.guests.get(guest).and_then(|known| known.start_failures.get(name));
                let failed_rounds = failures.map_or(0, |failures| failures / START_TRIES_PER_HOST);
                candidates.push((failed_rounds, unwell, Reverse(free), name, free));
            }
        }
    }
    candidates.sort();
    match candidates.first() {
        Some((_, _, _, name, free)) => {
            Ok(((*name).clone(), format!("{free} MiB of its memory are free, the most of all")))
        }
        None => Err(reasons),
    }
}

/// Whether some host would take the guest once it has carried out the starts that it is busy with.
pub(super) fn only_busy(reasons: &Unplaceable) -> bool {
    reasons.values().any(|reason| reason.starts_with(BUSY))
}

/// Memory that a guest needs, in MiB.
pub(super) fn memory(state: &ClusterState, guest: &GuestName) -> u64 {
    state.policies.guests.get(guest).map_or(0, |declared| u64::from(declared.qemu.memory_mib))
}

/// Memory that a host's tenures take, in MiB; a migrating guest counts on both hosts.
fn used_memory(state: &ClusterState, host: &HostName, but: &GuestName) -> u64 {
    state.guests_of(host).filter(|(name, _)| *name != but).map(|(name, _)| memory(state, name)).sum()
}

fn starting_on(state: &ClusterState, host: &HostName) -> usize {
    let starts = state.guests.values().filter(|guest| match &guest.phase {
        Phase::Starting { tenure, .. } => tenure.host == *host,
        Phase::Migrating(migration) => {
            matches!(migration.step, MigrationStep::Receiving { .. })
                && migration.target.as_ref().is_some_and(|target| target.host == *host)
        }
        Phase::Unplaced | Phase::Free { .. } | Phase::Running { .. } | Phase::Releasing { .. } => false,
    });
    starts.count()
}
