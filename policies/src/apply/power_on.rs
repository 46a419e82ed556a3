//! Hosts that were fenced are switched on again, where policies want it.

use super::Context;
use crate::{
    change::Refused,
    journal::Event,
    model::Severity,
    names::{HostName, OrderId},
    order::{OrderKind, OrderOutcome, Switch},
    state::{ClusterState, Life, POWER_ON_TRIES_MAX, PowerOn},
};

impl ClusterState {
    pub(super) fn power_on_ordered(
        &mut self,
        context: &mut Context,
        host: &HostName,
        executor: &HostName,
        level: usize,
    ) -> Result<(), Refused> {
        let known = self.hosts.get(host).ok_or_else(|| Refused::NoHost { host: host.clone() })?;
        let refuse = |why: &str| Err(Refused::Host { host: host.clone(), why: why.to_owned() });
        let device = self.policies.device_level(host, level).cloned();
        let Some(device) = device else { return refuse("has no power device at that level") };
        if !matches!(known.life, Life::Gone { .. }) || self.fence_under_way(host).is_some() {
            return refuse("is not proven gone, or may yet be switched off");
        }
        // Decided before, committed after: what operators said in between counts.
        if known.quarantine.is_some() || self.suspended.is_some() || executor == host {
            return refuse("is quarantined, or deciding is suspended");
        }
        let tries = known.powered_on.as_ref().map_or(0, |tried| tried.tries).saturating_add(1);
        if known.powered_on.as_ref().is_some_and(|tried| tried.order.is_some()) || tries > POWER_ON_TRIES_MAX {
            return Err(Refused::Already { why: format!("{host} is being switched on, or was often enough") });
        }
        let target_incarnation = known.facts.incarnation.clone();
        let kind = OrderKind::Fence { target: host.clone(), target_incarnation, level, device, switch: Switch::On };
        let order = self.order(context, executor, kind)?;
        if let Some(known) = self.hosts.get_mut(host) {
            known.powered_on = Some(PowerOn { order: Some(order), tries, since: context.index });
        }
        self.note(context, Event::PowerOnOrdered { host: host.clone(), executor: executor.clone(), level });
        Ok(())
    }

    pub(super) fn power_on_ended(
        &mut self,
        context: &mut Context,
        host: &HostName,
        id: OrderId,
        outcome: &OrderOutcome,
    ) {
        let tried = self.hosts.get_mut(host).and_then(|known| known.powered_on.as_mut());
        let Some(tried) = tried.filter(|tried| tried.order == Some(id)) else { return };
        tried.order = None;
        let over = tried.tries >= POWER_ON_TRIES_MAX;
        if let (OrderOutcome::Failed { detail }, true) = (outcome, over) {
            let incident = self.incident(context, &format!("power_on/{host}"), "");
            incident.severity = Severity::Warning;
            incident.summary = format!("{host} was fenced and could not be switched on again: {detail}");
            incident.human = Some(format!("Look after {host} and its power device, and switch it on by hand."));
        }
    }
}
