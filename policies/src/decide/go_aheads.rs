//! Which fences are still wanted: said anew in every round (S3, S9, R20).

use std::collections::BTreeSet;

use super::{Decision, HostVerdict, Round, supervisors::stuck_behind_dead_supervisor};
use crate::{
    go_ahead::{GoAhead, target},
    names::HostName,
};

/// Says of every host that has failed, and of every target of an open fence order, whether it is to be switched off.
pub(super) fn decide(round: &Round<'_>, decision: &mut Decision) {
    let failed = round.hosts.iter().filter(|(_, judgement)| match judgement.verdict {
        HostVerdict::Failed | HostVerdict::SupervisorDown | HostVerdict::Isolated => true,
        HostVerdict::Healthy | HostVerdict::Suspect | HostVerdict::Gone | HostVerdict::Unknown => false,
    });
    let aimed_at = round.state.orders.values().filter_map(target);
    let hosts: BTreeSet<&HostName> = failed.map(|(host, _)| host).chain(aimed_at).collect();
    for host in hosts {
        let go_ahead = go_ahead(round, decision.report.storm_hold.is_some(), host);
        decision.go_aheads.note(host, go_ahead);
    }
}

fn go_ahead(round: &Round<'_>, held: bool, host: &HostName) -> GoAhead {
    // Whoever coordinates is alive, whatever boot of its host the fence was meant for.
    if round.evidence.me.as_ref() == Some(host) {
        return GoAhead::Withdrawn;
    }
    let wanted = if held { GoAhead::Waits } else { GoAhead::Given };
    match round.hosts.get(host).map(|judgement| judgement.verdict) {
        Some(HostVerdict::Failed) => wanted,
        Some(HostVerdict::SupervisorDown | HostVerdict::Isolated) => match stuck_behind_dead_supervisor(round, host) {
            Some(_) => wanted,
            None => GoAhead::Withdrawn,
        },
        Some(HostVerdict::Healthy | HostVerdict::Gone) => GoAhead::Withdrawn,
        Some(HostVerdict::Suspect | HostVerdict::Unknown) | None => GoAhead::Waits,
    }
}
