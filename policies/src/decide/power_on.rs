//! Power-on after fencing, where policies want it: a host that was switched off is switched on again once that is proven and
//! has settled. Not one that somebody else has switched off, and not one that is quarantined: what fails again and again
//! would be switched off and on for ever.

use std::time::Duration;

use super::{Decision, Round, attempts, proofs::is_proven_off};
use crate::{
    change::Change,
    names::HostName,
    order::{OrderKind, OrderOutcome},
    power_device::SETTLE,
    proof::ProofKind,
    state::{Host, Life, Mode, POWER_ON_TRIES_MAX},
};

/// Rest after the proof: what was ordered before may still act (R20), and machines ignore their button for some seconds.
const SETTLED_AFTER: Duration = SETTLE.saturating_add(Duration::from_secs(5));

/// Rest after a try: so long a server takes until it shows whether it boots.
const AGAIN_AFTER: Duration = Duration::from_secs(600);

/// Decides for every host whether it is to be switched on.
pub(super) fn decide(round: &Round<'_>, decision: &mut Decision) {
    end_lost(round, decision);
    for (name, host) in &round.state.hosts {
        if host.powered_on.as_ref().is_some_and(|tried| tried.order.is_some()) {
            continue;
        }
        let level = wanted(round, decision, name, host).then(|| level(round, name, host)).flatten();
        let Some(level) = level else { continue };
        let tries = host.powered_on.as_ref().map_or(0, |tried| tried.tries);
        if let Some(executor) = attempts::executor(round, name, level, tries) {
            decision.commands.push(Change::PowerOnOrdered { host: name.clone(), executor, level });
        }
    }
}

fn wanted(round: &Round<'_>, decision: &Decision, name: &HostName, host: &Host) -> bool {
    let off = match &host.life {
        Life::Gone { proof } => match proof.kind() {
            ProofKind::PowerOff { .. } => true,
            // It was cut off, and is on, unless the attempt of its fence has come through all the same.
            ProofKind::LeaseExpired { .. } => is_proven_off(round, name),
            ProofKind::Operator { .. } | ProofKind::Reported { .. } | ProofKind::NotHere { .. } => false,
        },
        Life::Up | Life::Fencing(_) => false,
    };
    // It was fenced in this boot, and not switched off by somebody who may have had a reason.
    let fenced = host.fences.last().is_some_and(|fenced| *fenced > host.joined);
    let calm = round.state.suspended.is_none() && decision.report.storm_hold.is_none();
    let rested = host.powered_on.as_ref().is_none_or(|tried| round.age(tried.since) >= AGAIN_AFTER);
    let tries = host.powered_on.as_ref().map_or(0, |tried| tried.tries);
    round.state.policies.cluster.power_on_after_fence
        && off
        && fenced
        && calm
        && rested
        && host.quarantine.is_none()
        && host.mode == Mode::Active
        && tries < POWER_ON_TRIES_MAX
        && round.age(host.life_since) >= SETTLED_AFTER
        && round.state.fence_under_way(name).is_none()
}

fn level(round: &Round<'_>, name: &HostName, host: &Host) -> Option<usize> {
    let from = usize::try_from(host.powered_on.as_ref().map_or(0, |tried| tried.tries)).unwrap_or(0);
    attempts::next_device(round.state.policies.levels_of(name), from, &host.distrusted)
}

/// Orders that nobody will report any more end as failed.
fn end_lost(round: &Round<'_>, decision: &mut Decision) {
    for order in round.state.orders.values() {
        let only_on = matches!(&order.kind, OrderKind::Fence { switch, .. } if !switch.switches_off());
        if only_on && attempts::left_of(round, order) == 0 {
            let detail = format!("its executor {} has not reported", order.host);
            decision.commands.push(Change::OrderEnded { order: order.id, outcome: OrderOutcome::Failed { detail } });
        }
    }
}
