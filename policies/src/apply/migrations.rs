//! Live migration: one committed point at which the assignment changes, and an end in exactly one place (R22).
//!
//! ```text
//! Receiving --uri--> Sending --sent: the switch--> Switched --target runs, source released--> Running(target)
//!     |                 |                              | target does not run
//!     |  failed         |  failed                      v
//!     +--> Returning <--+                          Clearing --both halves gone--> Free
//!              | source runs, target released          ^
//!              v                                       | source does not run
//!        Running(source) <---------- Returning --------+
//! ```
//! Before the switch only the source may resume; after it only the target.

use std::collections::BTreeSet;

use super::Context;
use crate::{
    change::Refused,
    journal::Event,
    names::{Epoch, GuestName, HostName, Incarnation, OrderId},
    order::{Order, OrderKind, OrderOutcome},
    proof::Proof,
    state::{ClusterState, Life, Migration, MigrationStep, Mode, Phase, Tenure},
};

impl ClusterState {
    pub(super) fn migrate(
        &mut self,
        context: &mut Context,
        guest: &GuestName,
        to: &HostName,
        why: String,
    ) -> Result<(), Refused> {
        let known = self.known(guest)?;
        let Phase::Running { tenure: source, action: None, .. } = &known.phase else {
            return Err(Self::refuse_phase(guest, known, "running without an action under way"));
        };
        let source = source.clone();
        let host = self.hosts.get(to).ok_or_else(|| Refused::NoHost { host: to.clone() })?;
        if source.host == *to {
            return Err(Refused::Already { why: format!("{guest} runs on {to}") });
        }
        if host.life != Life::Up || host.mode != Mode::Active || !host.facts.guests {
            return Err(Refused::Host { host: to.clone(), why: "takes no guests".to_owned() });
        }
        let definition = self.policies.guests.get(guest).map(|declared| declared.qemu.clone());
        let definition = definition.ok_or_else(|| Refused::NoGuest { guest: guest.clone() })?;
        let target = Tenure {
            host: to.clone(),
            incarnation: host.facts.incarnation.clone(),
            epoch: self.epoch(context),
        };
        let kind = OrderKind::Receive { guest: guest.clone(), epoch: target.epoch, definition };
        let order = self.order(context, to, kind)?;
        let from = source.host.clone();
        let step = MigrationStep::Receiving { order };
        let migration = Migration { source: Some(source), target: Some(target), step, failure: None };
        self.set_phase(context, guest, Phase::Migrating(migration));
        self.note(context, Event::MigrationOrdered { guest: guest.clone(), from, to: to.clone(), why });
        Ok(())
    }

    fn migration(&self, guest: &GuestName) -> Option<Migration> {
        match &self.guests.get(guest)?.phase {
            Phase::Migrating(migration) => Some(migration.clone()),
            _ => None,
        }
    }

    pub(super) fn receive_ended(
        &mut self,
        context: &mut Context,
        guest: &GuestName,
        id: OrderId,
        outcome: OrderOutcome,
    ) -> Result<(), Refused> {
        let Some(mut migration) = self.migration(guest) else { return Ok(()) };
        if migration.step != (MigrationStep::Receiving { order: id }) {
            return Ok(());
        }
        match (outcome, &migration.source) {
            (OrderOutcome::Done { uri: Some(uri), .. }, Some(source)) => {
                let (host, epoch) = (source.host.clone(), source.epoch);
                let order = self.order(context, &host, OrderKind::Send { guest: guest.clone(), epoch, uri })?;
                migration.step = MigrationStep::Sending { order };
                self.set_phase(context, guest, Phase::Migrating(migration));
            }
            (OrderOutcome::Done { detail, .. } | OrderOutcome::Failed { detail }, _) => {
                self.give_up(context, guest, migration, false, format!("the target was not ready: {detail}"));
            }
        }
        Ok(())
    }

    pub(super) fn send_ended(
        &mut self,
        context: &mut Context,
        guest: &GuestName,
        id: OrderId,
        outcome: OrderOutcome,
    ) -> Result<(), Refused> {
        let Some(mut migration) = self.migration(guest) else { return Ok(()) };
        if migration.step != (MigrationStep::Sending { order: id }) {
            return Ok(());
        }
        match (outcome, migration.source.clone(), migration.target.clone()) {
            (OrderOutcome::Done { .. }, Some(source), Some(target)) => {
                // The committed point: from this entry on only the target may run the guest.
                let kind = OrderKind::Resume { guest: guest.clone(), epoch: target.epoch };
                let resume = Some(self.order(context, &target.host, kind)?);
                let kind = OrderKind::Release { guest: guest.clone(), epoch: source.epoch };
                let release = Some(self.order(context, &source.host, kind)?);
                migration.step = MigrationStep::Switched { resume, release };
                self.set_phase(context, guest, Phase::Migrating(migration));
                let (from, to) = (source.host, target.host);
                self.note(context, Event::MigrationSwitched { guest: guest.clone(), from, to });
            }
            (OrderOutcome::Done { detail, .. } | OrderOutcome::Failed { detail }, _, _) => {
                self.give_up(context, guest, migration, true, format!("it could not be sent: {detail}"));
            }
        }
        Ok(())
    }

    /// Gives up before the switch: the source goes on, the target's remains go.
    fn give_up(&mut self, context: &mut Context, guest: &GuestName, mut migration: Migration, resume: bool, why: String) {
        self.drop_guest_orders(guest);
        let resume_order = match (&migration.source, resume) {
            (Some(source), true) => {
                let (host, epoch) = (source.host.clone(), source.epoch);
                self.order(context, &host, OrderKind::Resume { guest: guest.clone(), epoch }).ok()
            }
            _ => None,
        };
        let release = self.release_half(context, guest, migration.target.as_ref());
        migration.step = MigrationStep::Returning { resume: resume_order, release };
        migration.failure = Some(why);
        self.settle(context, guest, migration, None);
    }

    fn release_half(&mut self, context: &mut Context, guest: &GuestName, half: Option<&Tenure>) -> Option<OrderId> {
        let half = half?;
        self.order(context, &half.host, OrderKind::Release { guest: guest.clone(), epoch: half.epoch }).ok()
    }

    pub(super) fn resume_ended(&mut self, context: &mut Context, guest: &GuestName, id: OrderId, outcome: OrderOutcome) {
        let Some(mut migration) = self.migration(guest) else { return };
        let (MigrationStep::Switched { resume, .. } | MigrationStep::Returning { resume, .. }) = &mut migration.step else {
            return;
        };
        if *resume != Some(id) {
            return;
        }
        *resume = None;
        if let OrderOutcome::Failed { detail } = outcome {
            self.clear_with(context, guest, migration, &format!("it did not run again: {detail}"));
        } else {
            self.settle(context, guest, migration, None);
        }
    }

    /// A half has answered its release.
    pub(super) fn half_released(
        &mut self,
        context: &mut Context,
        guest: &GuestName,
        epoch: Epoch,
        order: &Order,
        outcome: OrderOutcome,
    ) {
        let Some(mut migration) = self.migration(guest) else { return };
        let id = Some(order.id);
        match &mut migration.step {
            MigrationStep::Switched { release, .. } | MigrationStep::Returning { release, .. } if *release == id => {
                *release = None;
            }
            MigrationStep::Clearing { source, .. } if *source == id => *source = None,
            MigrationStep::Clearing { target, .. } if *target == id => *target = None,
            _ => return,
        }
        let proof = match outcome {
            OrderOutcome::Done { .. } => {
                for half in [&mut migration.source, &mut migration.target] {
                    if half.as_ref().is_some_and(|tenure| tenure.host == order.host && tenure.epoch <= epoch) {
                        *half = None;
                    }
                }
                Some(Proof::reported(&order.host, &order.incarnation, guest, epoch))
            }
            OrderOutcome::Failed { detail } => {
                self.stop_failed(context, guest, &order.host, &detail);
                None
            }
        };
        self.settle(context, guest, migration, proof);
    }

    /// A half has gone with its host.
    pub(super) fn half_gone(
        &mut self,
        context: &mut Context,
        guest: &GuestName,
        host: &HostName,
        incarnation: &Incarnation,
        proof: &Proof,
    ) {
        let Some(mut migration) = self.migration(guest) else { return };
        let gone = |half: &Option<Tenure>| {
            half.as_ref().is_some_and(|tenure| tenure.host == *host && tenure.incarnation == *incarnation)
        };
        let (source_gone, target_gone) = (gone(&migration.source), gone(&migration.target));
        if source_gone {
            migration.source = None;
        }
        if target_gone {
            migration.target = None;
        }
        match (&mut migration.step, source_gone) {
            (MigrationStep::Receiving { .. } | MigrationStep::Sending { .. }, true) => {
                self.clear_with(context, guest, migration, &format!("its source {host} is gone"));
            }
            (MigrationStep::Receiving { .. } | MigrationStep::Sending { .. }, false) => {
                self.give_up(context, guest, migration, true, format!("its target {host} is gone"));
            }
            (MigrationStep::Switched { release, .. }, true) => {
                *release = None;
                self.settle(context, guest, migration, Some(proof.clone()));
            }
            (MigrationStep::Switched { .. }, false) => {
                self.clear_with(context, guest, migration, &format!("its target {host} is gone"));
            }
            (MigrationStep::Returning { .. }, true) => {
                self.clear_with(context, guest, migration, &format!("its source {host} is gone"));
            }
            (MigrationStep::Returning { release, .. }, false) => {
                *release = None;
                self.settle(context, guest, migration, Some(proof.clone()));
            }
            (MigrationStep::Clearing { source, .. }, true) => {
                *source = None;
                self.settle(context, guest, migration, Some(proof.clone()));
            }
            (MigrationStep::Clearing { target, .. }, false) => {
                *target = None;
                self.settle(context, guest, migration, Some(proof.clone()));
            }
        }
    }

    pub(super) fn clear_migration(&mut self, context: &mut Context, guest: &GuestName, why: &str) {
        if let Some(migration) = self.migration(guest) {
            self.clear_with(context, guest, migration, why);
        }
    }

    /// Gives up for good: both halves are asked to release, then the guest is free.
    fn clear_with(&mut self, context: &mut Context, guest: &GuestName, mut migration: Migration, why: &str) {
        self.drop_guest_orders(guest);
        let source = self.release_half(context, guest, migration.source.as_ref());
        let target = self.release_half(context, guest, migration.target.as_ref());
        migration.step = MigrationStep::Clearing { source, target };
        migration.failure = Some(why.to_owned());
        let summary = format!("{guest} is down: its move failed, {why}");
        let at = context.at;
        let incident = self.incident(context, &Self::guest_key(guest), &summary);
        incident.summary = summary;
        incident.guests = vec![guest.clone()];
        incident.stamps.detected.get_or_insert(at);
        self.settle(context, guest, migration, None);
    }

    /// Asks again for halves whose last release failed or was lost.
    pub(super) fn clear_again(&mut self, context: &mut Context, guest: &GuestName) -> Result<(), Refused> {
        let Some(mut migration) = self.migration(guest) else { return Ok(()) };
        let (source, target) = (migration.source.clone(), migration.target.clone());
        match &mut migration.step {
            MigrationStep::Switched { release: release @ None, .. } if source.is_some() => {
                *release = self.release_half(context, guest, source.as_ref());
            }
            MigrationStep::Returning { release: release @ None, .. } if target.is_some() => {
                *release = self.release_half(context, guest, target.as_ref());
            }
            MigrationStep::Clearing { source: from, target: to } => {
                if from.is_none() {
                    *from = self.release_half(context, guest, source.as_ref());
                }
                if to.is_none() {
                    *to = self.release_half(context, guest, target.as_ref());
                }
            }
            _ => return Err(Refused::Already { why: format!("nothing of the move of {guest} has to be asked again") }),
        }
        self.set_phase(context, guest, Phase::Migrating(migration));
        Ok(())
    }

    /// Ends the migration when nothing is outstanding; otherwise keeps it.
    fn settle(&mut self, context: &mut Context, guest: &GuestName, migration: Migration, proof: Option<Proof>) {
        let (since, verified, action) = (context.index, true, None);
        match (&migration.step, &migration.source, &migration.target, proof) {
            (MigrationStep::Switched { resume: None, release: None }, None, Some(target), _)
            | (MigrationStep::Returning { resume: None, release: None }, Some(target), None, _) => {
                let (tenure, host) = (target.clone(), target.host.clone());
                let detail = migration.failure.clone().unwrap_or_else(|| "it moved while it ran".to_owned());
                self.note(context, Event::MigrationEnded { guest: guest.clone(), host, detail });
                self.set_phase(context, guest, Phase::Running { tenure, since, verified, action });
            }
            (_, None, None, Some(proof)) => {
                let last = proof_host(&proof);
                let host = self.half_host(last.as_ref());
                let avoid = BTreeSet::new();
                self.drop_guest_orders(guest);
                self.note(context, Event::GuestFree { guest: guest.clone(), proof: proof.clone() });
                let at = context.at;
                if self.open_incident(&Self::guest_key(guest)).is_some() {
                    let incident = self.incident(context, &Self::guest_key(guest), "");
                    incident.stamps.proven = Some(at);
                    incident.did(format!("Nothing of {guest} is left of its move; {host} answered last."));
                }
                self.set_phase(context, guest, Phase::Free { proof, last, avoid, since });
            }
            _ => self.set_phase(context, guest, Phase::Migrating(migration)),
        }
    }
}

fn proof_host(proof: &Proof) -> Option<HostName> {
    use crate::proof::ProofKind;
    match proof.kind() {
        ProofKind::PowerOff { host, .. } | ProofKind::Reported { host, .. } | ProofKind::Operator { host, .. } => {
            Some(host.clone())
        }
        ProofKind::NotHere { .. } => None,
    }
}
