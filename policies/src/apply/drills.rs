//! Drills: a host without guests is switched off and on on purpose, to see that it works and that it is this host.

use super::Context;
use crate::{
    change::Refused,
    fence_path::{Drill, DrillStep, WiredBy},
    journal::Event,
    model::Severity,
    names::{HostName, OrderId},
    order::{OrderKind, OrderOutcome, Switch},
    state::{ClusterState, Life, Mode},
};

impl ClusterState {
    pub(super) fn drill_begun(
        &mut self,
        context: &mut Context,
        host: &HostName,
        executor: &HostName,
        level: usize,
        by: String,
    ) -> Result<(), Refused> {
        let device = self.policies.device_level(host, level).cloned();
        let refuse = |why: &str| Err(Refused::Host { host: host.clone(), why: why.to_owned() });
        let Some(device) = device else { return refuse("has no power device at that level") };
        let known = self.hosts.get(host).ok_or_else(|| Refused::NoHost { host: host.clone() })?;
        if self.are_alike() && known.distrusted.contains(&level) {
            return refuse(
                "cannot be drilled: its power device of that level is not trusted, and may be another machine's",
            );
        }
        if known.drill.is_some() {
            return Err(Refused::Already { why: format!("a drill of {host} is under way") });
        }
        if known.life != Life::Up || known.quarantine.is_some() || self.fence_under_way(host).is_some() {
            return refuse("is being fenced, gone, or quarantined");
        }
        if !matches!(known.mode, Mode::Draining | Mode::Maintenance) || self.guests_of(host).next().is_some() {
            return refuse("is not drained: a drill switches it off");
        }
        if self.suspended.is_some() || executor == host {
            return refuse("cannot be drilled: deciding is suspended, or it would have to switch itself off");
        }
        let incarnation = known.facts.incarnation.clone();
        let target_incarnation = incarnation.clone();
        let kind =
            OrderKind::Fence { target: host.clone(), target_incarnation, level, device, switch: Switch::OffAndOn };
        let order = self.order(context, executor, kind)?;
        let step = DrillStep::Switching { order };
        if let Some(known) = self.hosts.get_mut(host) {
            known.drill = Some(Drill {
                by: by.clone(),
                level,
                incarnation,
                begun: context.index,
                executor: Some(executor.clone()),
                step,
            });
        }
        self.note(context, Event::DrillBegun { host: host.clone(), executor: executor.clone(), level, by });
        Ok(())
    }

    /// The executor of a drill has reported.
    pub(super) fn drill_switched(
        &mut self,
        context: &mut Context,
        host: &HostName,
        id: OrderId,
        outcome: &OrderOutcome,
    ) {
        let drill = self.hosts.get_mut(host).and_then(|known| known.drill.as_mut());
        let Some(drill) = drill.filter(|drill| drill.step == DrillStep::Switching { order: id }) else { return };
        match outcome {
            OrderOutcome::Done { detail, .. } => drill.step = DrillStep::Returning { detail: detail.clone() },
            OrderOutcome::Failed { detail } => {
                let why = detail.clone();
                self.end_drill(context, host, Some(why));
            }
        }
    }

    pub(super) fn drill_ended(
        &mut self,
        context: &mut Context,
        host: &HostName,
        failed: Option<String>,
    ) -> Result<(), Refused> {
        let known = self.hosts.get(host).ok_or_else(|| Refused::NoHost { host: host.clone() })?;
        let Some(drill) = known.drill.clone() else {
            return Err(Refused::Already { why: format!("no drill of {host} is under way") });
        };
        if failed.is_none() {
            let is_back = known.facts.incarnation != drill.incarnation && known.life == Life::Up;
            if !is_back || !matches!(drill.step, DrillStep::Returning { .. }) {
                return Err(Refused::Host { host: host.clone(), why: "is not back from its drill".to_owned() });
            }
            // R9: it is known to be this host's switch when exactly this host went away.
            let stayed = |name: &HostName, other: &crate::state::Host| {
                name == host || (other.joined < drill.begun && other.life_since < drill.begun)
            };
            if self.hosts.iter().all(|(name, other)| stayed(name, other)) {
                let devices = self.policies.levels_of(host).get(drill.level).map_or(0, |level| level.devices().len());
                for device in 0..devices {
                    let how = WiredBy::Drill { by: drill.by.clone() };
                    self.wire(context, host, (drill.level, device), how, drill.executor.as_ref());
                }
            }
        }
        self.end_drill(context, host, failed);
        Ok(())
    }

    /// Ends a drill of the host, if one is under way.
    pub(super) fn end_drill(&mut self, context: &mut Context, host: &HostName, failed: Option<String>) {
        let Some(drill) = self.hosts.get_mut(host).and_then(|known| known.drill.take()) else { return };
        let key = format!("drill/{host}");
        match &failed {
            None => self.resolve(context, &key),
            Some(why) => {
                let incident = self.incident(context, &key, "");
                incident.severity = Severity::Error;
                incident.summary = format!("the drill of {host} failed: {why}");
                incident.human = Some(format!(
                    "Look whether {host} has power, and after its power device; then run `holdfast fence drill {host}` again. \
                     Until a drill succeeds, a failure of {host} may need a person."
                ));
            }
        }
        self.note(context, Event::DrillEnded { host: host.clone(), level: drill.level, failed });
    }
}
