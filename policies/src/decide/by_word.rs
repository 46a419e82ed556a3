//! What hosts say of themselves with their syncs, and people are told for as long as it is so.

use std::collections::BTreeSet;

use super::{Decision, Round};
use crate::{
    change::Change,
    evidence::HostEvidence,
    names::HostName,
    state::{Host, Life},
};

/// Looks at what each host has said, and ends what was told about it of hosts for which it does not go on. `look` tells of a host, and
/// returns whether it goes on.
pub(super) fn look_at_each(
    round: &Round<'_>,
    decision: &mut Decision,
    about: &str,
    mut look: impl FnMut(&mut Decision, (&HostName, &Host), &HostEvidence) -> bool,
) {
    let mut goes_on: BTreeSet<&str> = BTreeSet::new();
    // A host that is gone waits for nothing, and says anew what it has when it comes back.
    for (name, host) in round.state.hosts.iter().filter(|(_, host)| !matches!(host.life, Life::Gone { .. })) {
        let seen = round.evidence.hosts.get(name).filter(|seen| seen.sync.is_some());
        // A new coordinator has not heard it yet: what was told stays.
        if seen.is_none_or(|seen| look(decision, (name, host), seen)) {
            goes_on.insert(name.as_str());
        }
    }
    for (_, incident) in round.told.all(about).filter(|(name, _)| !goes_on.contains(name)) {
        decision.commands.push(Change::IncidentResolved { key: incident.key.clone() });
    }
}
