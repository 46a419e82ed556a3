//! Results of orders: each moves exactly the phase that waits for it.

use super::Context;
use crate::{
    change::Refused,
    feature_level::FeatureLevel,
    incident::{Incident, says_the_same},
    journal::Event,
    model::Severity,
    names::{Epoch, GuestName, HostName, OrderId},
    order::{Order, OrderKind, OrderOutcome},
    proof::Proof,
    state::{ClusterState, Guest, Phase},
};

impl ClusterState {
    pub(super) fn order_ended(
        &mut self,
        context: &mut Context,
        id: OrderId,
        outcome: OrderOutcome,
    ) -> Result<(), Refused> {
        let order = self.orders.remove(&id).ok_or(Refused::NoOrder { order: id })?;
        // Whoever proposed it may be of another version, or mistaken: what a guest wrote is bounded where it is kept.
        let outcome = self.without_contested_word(&order, outcome).bounded();
        let what = order.kind.to_string();
        let host = order.host.clone();
        self.note(context, Event::OrderEnded { order: id, host, what, outcome: outcome.clone() });
        self.view(context);
        match &order.kind {
            OrderKind::Start { guest, .. } => self.start_ended(context, guest, &order, outcome),
            OrderKind::Release { guest, epoch, .. } => self.release_ended(context, guest, *epoch, &order, outcome),
            OrderKind::RestartService { guest, .. } | OrderKind::Reboot { guest, .. } => {
                let failed = matches!(outcome, OrderOutcome::Failed { .. });
                self.rung_ended(context, guest, id, failed);
            }
            OrderKind::Receive { guest, definition, .. } => {
                self.receive_ended(context, guest, id, Box::new(definition.clone()), outcome);
            }
            OrderKind::Send { guest, .. } => self.send_ended(context, guest, id, outcome),
            OrderKind::Resume { guest, .. } => {
                // One that stops again at once is given its wait all the same: storage takes its time to come back.
                self.rung_ended(context, guest, id, false);
                self.resume_ended(context, guest, id, outcome);
            }
            OrderKind::Fence { target, level, .. } => {
                self.drill_switched(context, target, id, &outcome);
                self.power_on_ended(context, target, id, &outcome);
                let error = match outcome {
                    OrderOutcome::Done { .. } => None,
                    OrderOutcome::Failed { detail } => Some(detail),
                };
                self.fence_ended(context, target, (id, *level), error);
            }
        }
        Ok(())
    }

    fn start_ended(&mut self, context: &mut Context, guest: &GuestName, order: &Order, outcome: OrderOutcome) {
        let Some(known) = self.guests.get_mut(guest) else { return };
        let Phase::Starting { tenure, order: waited } = &known.phase else { return };
        if *waited != order.id {
            return;
        }
        let tenure = tenure.clone();
        match outcome {
            OrderOutcome::Done { detail, .. } => {
                known.failed_moves = 0;
                let (at, host) = (context.at, tenure.host.clone());
                self.set_phase(
                    context,
                    guest,
                    Phase::Running { tenure, since: context.index, verified: false, action: None },
                );
                if let Some(incident) = self.incident_of(context, guest) {
                    incident.stamps.started = Some(at);
                }
                self.note(context, Event::GuestStarted { guest: guest.clone(), host, detail });
            }
            OrderOutcome::Failed { detail } => {
                let host = tenure.host.clone();
                self.start_failed(context, guest, &host, &detail);
            }
        }
    }

    fn release_ended(
        &mut self,
        context: &mut Context,
        guest: &GuestName,
        epoch: Epoch,
        order: &Order,
        outcome: OrderOutcome,
    ) {
        let Some(known) = self.guests.get_mut(guest) else { return };
        match (&mut known.phase, outcome) {
            (Phase::Releasing { tenure, order: waited, avoid, .. }, OrderOutcome::Done { .. })
                if *waited == Some(order.id) && tenure.epoch <= epoch =>
            {
                let avoid = avoid.clone();
                let proof = Proof::reported(&order.host, &order.incarnation, guest, epoch);
                self.free(context, guest, proof.clone(), &order.host, avoid);
                let at = context.at;
                let nowhere = self.starts_nowhere(guest);
                if let Some(incident) = self.incident_of(context, guest) {
                    incident.stamps.proven = Some(at);
                    if !nowhere {
                        incident.human = None;
                    }
                    incident.proof = Some((proof.word().to_owned(), proof.to_string()));
                }
            }
            (Phase::Releasing { order: waited, failed, .. }, OrderOutcome::Failed { detail })
                if *waited == Some(order.id) =>
            {
                *waited = None;
                *failed = Some((context.index, detail.clone()));
                self.stop_failed(context, guest, &order.host, &detail);
            }
            // A stray that cannot be stopped: nothing starts while it may run.
            (Phase::Unplaced | Phase::Free { .. }, OrderOutcome::Failed { detail }) => {
                self.stop_failed(context, guest, &order.host, &detail);
            }
            (Phase::Migrating(_), outcome) => self.half_released(context, guest, epoch, order, outcome),
            // Nothing waits for this order any more, or it has stopped a stray.
            (
                Phase::Unplaced
                | Phase::Free { .. }
                | Phase::Starting { .. }
                | Phase::Running { .. }
                | Phase::Releasing { .. },
                OrderOutcome::Done { .. } | OrderOutcome::Failed { .. },
            ) => {}
        }
    }

    /// A failed stop means that the guest may still run: it starts nowhere else.
    pub(super) fn stop_failed(&mut self, context: &Context, guest: &GuestName, host: &HostName, detail: &str) {
        let (key, severity) = (Self::guest_key(guest), Severity::Critical);
        let summary = format!("{guest} cannot be stopped on {host}: {detail}");
        let human = Some(may_still_run(guest, host));
        // The other half of its move: people are told of one of the two until nothing of the guest is left there.
        let tells_of_other = |open: &Incident| {
            let halves = self.guests.get(guest).map(Guest::halves).unwrap_or_default();
            let mut others = halves.into_iter().flatten().filter(|half| half.host != *host);
            others.any(|other| open.human.as_ref() == Some(&may_still_run(guest, &other.host)))
        };
        // It is tried for as long as it takes, and that it has failed again is no news.
        let is_known = |open: &Incident| {
            let says_so = open.human == human && says_the_same(&open.summary, &summary);
            open.severity == severity && (says_so || tells_of_other(open))
        };
        if self.level >= FeatureLevel::TOLD_ONCE && self.open_incident(&key).is_some_and(is_known) {
            return;
        }
        let incident = self.incident(context, &key, "");
        (incident.severity, incident.summary, incident.human) = (severity, summary, human);
    }

    /// The order of a rung that leaves the guest where it is has ended; the probes say whether it has helped.
    fn rung_ended(&mut self, context: &mut Context, guest: &GuestName, id: OrderId, failed: bool) {
        let Some(known) = self.guests.get_mut(guest) else { return };
        let Phase::Running { action, .. } = &mut known.phase else { return };
        if *action != Some(id) {
            return;
        }
        *action = None;
        if let Some(position) = &mut known.ladder.position {
            position.failed = failed;
        }
        let at = context.at;
        if let Some(incident) = self.incident_of(context, guest) {
            incident.stamps.started = Some(at);
        }
    }
}

/// What people are asked to do about a guest that cannot be stopped.
fn may_still_run(guest: &GuestName, host: &HostName) -> String {
    format!(
        "{guest} may still run on {host}, so it starts nowhere else. Stop it there by hand, or switch {host} off and run \
         `holdfast host confirm-off {host} --operator YOUR-NAME`."
    )
}
