//! Quarantine as time passes: fences that are long ago are forgotten, and a host that has been calm gets guests again.

use std::time::Duration;

use super::{Decision, HostVerdict, Round};
use crate::change::Change;

/// How long a fence counts towards `fences_per_hour`, `fences_per_hour_in_all` and `quarantine_after_fences`. A quarantine for
/// it therefore ends at most an hour after the host's newest fence. A new coordinator counts from its own start where it does
/// not know better.
pub const FENCE_COUNTS_FOR: Duration = Duration::from_secs(3_600);

pub(super) fn decide(round: &Round<'_>, decision: &mut Decision) {
    for (name, host) in &round.state.hosts {
        if !host.is_contested()
            && let Some(other) = round.evidence.beside(name, host, round.now.moment)
        {
            let other = other.incarnation.clone();
            decision.commands.push(Change::NameContested { host: name.clone(), other });
        }
        let old = host.fences.iter().filter(|index| round.age(**index) >= FENCE_COUNTS_FOR);
        decision.commands.extend(old.map(|index| Change::FenceForgotten { host: name.clone(), attempted: *index }));
        let healthy = || round.hosts.get(name).is_some_and(|judgement| judgement.verdict == HostVerdict::Healthy);
        let calm = host.quarantine.as_ref().is_some_and(|quarantine| {
            !quarantine.is_contested() && host.fences.is_empty() && round.age(quarantine.since) >= FENCE_COUNTS_FOR
        });
        if calm && healthy() {
            decision.commands.push(Change::QuarantineLifted { host: name.clone(), machine_id: None, by: None });
        }
    }
}
