//! Live moves, carried out: what [`next_step`](crate::migration::next_step) says becomes orders, phases and words for people (R22).
//!
//! The steps are drawn in `migration.rs`. What the loss or the new boot of either host does is in `halves.rs`; when a move begins is
//! in `moves.rs`.

use super::Context;
use crate::{
    change::Refused,
    feature_level::FeatureLevel,
    journal::Event,
    migration::{self, Next, next_step},
    model::QemuDefinition,
    names::{GuestName, HostName, OrderId},
    order::{OrderKind, OrderOutcome},
    proof::Proof,
    state::{ClusterState, Host, Migration, MigrationStep, Phase, Tenure},
};

impl ClusterState {
    /// Begins a live migration. The caller has checked that the guest may go there.
    pub(super) fn receive(
        &mut self,
        context: &mut Context,
        guest: &GuestName,
        source: Tenure,
        to: &HostName,
        why: String,
    ) -> Result<(), Refused> {
        let host = self.hosts.get(to).ok_or_else(|| Refused::NoHost { host: to.clone() })?;
        let definition = self.policies.guests.get(guest).map(|declared| declared.qemu.clone());
        let definition = definition.ok_or_else(|| Refused::NoGuest { guest: guest.clone() })?;
        let target =
            Tenure { host: to.clone(), incarnation: host.facts.incarnation.clone(), epoch: self.epoch(context) };
        let kind = OrderKind::Receive { guest: guest.clone(), epoch: target.epoch, definition };
        let order = self.order(context, to, kind)?;
        let from = source.host.clone();
        let step = MigrationStep::Receiving { order };
        let (source, target) = (Some(source), Some(target));
        let migration = Migration { source, target, step, failure: None, release_failed: None, then: None };
        self.set_phase(context, guest, Phase::Migrating(migration));
        self.note(context, Event::MigrationOrdered { guest: guest.clone(), from, to: to.clone(), why });
        Ok(())
    }

    pub(super) fn migration(&self, guest: &GuestName) -> Option<Migration> {
        match &self.guests.get(guest)?.phase {
            Phase::Migrating(migration) => Some(migration.clone()),
            Phase::Unplaced
            | Phase::Free { .. }
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Releasing { .. } => None,
        }
    }

    /// `machine` is the one that was to wait, whatever is declared by now.
    pub(super) fn receive_ended(
        &mut self,
        context: &mut Context,
        guest: &GuestName,
        order: OrderId,
        machine: Box<QemuDefinition>,
        outcome: OrderOutcome,
    ) {
        let Some(migration) = self.migration(guest) else { return };
        let (uri, detail) = match outcome {
            OrderOutcome::Done { detail, uri, .. } => (uri, detail),
            OrderOutcome::Failed { detail } => (None, detail),
        };
        let next = next_step(&migration, migration::Event::Received { order, uri, machine });
        self.follow(context, guest, migration, next, None, &format!("the target was not ready: {detail}"));
    }

    pub(super) fn send_ended(
        &mut self,
        context: &mut Context,
        guest: &GuestName,
        order: OrderId,
        outcome: OrderOutcome,
    ) {
        let Some(migration) = self.migration(guest) else { return };
        let (all, detail) = outcome.told();
        let next = next_step(&migration, migration::Event::Sent { order, all });
        self.follow(context, guest, migration, next, None, &format!("it could not be sent: {detail}"));
    }

    pub(super) fn resume_ended(
        &mut self,
        context: &mut Context,
        guest: &GuestName,
        order: OrderId,
        outcome: OrderOutcome,
    ) {
        let Some(mut migration) = self.migration(guest) else { return };
        let (runs, detail) = outcome.told();
        let next = next_step(&migration, migration::Event::Resumed { order, runs });
        migration.step.forget(order);
        self.follow(context, guest, migration, next, None, &format!("it did not run again: {detail}"));
    }

    /// Carries out what follows. `proof` is of the half that has just gone, if one has; `why` is what people are told where the
    /// move is given up.
    pub(super) fn follow(
        &mut self,
        context: &mut Context,
        guest: &GuestName,
        migration: Migration,
        next: Next,
        proof: Option<Proof>,
        why: &str,
    ) {
        match next {
            Next::Nothing => {}
            Next::Send { source, uri, machine } => self.send(context, guest, migration, &source, uri, machine),
            Next::Switch { source, target } => self.switch(context, guest, migration, source, target),
            Next::Return { resume } => self.give_up(context, guest, migration, resume, why.to_owned()),
            Next::Clear => self.clear_with(context, guest, migration, proof, why),
            Next::Ask { source, target } => self.ask(context, guest, migration, source, target),
            Next::Settle => self.settle(context, guest, migration, proof),
        }
    }

    fn send(
        &mut self,
        context: &mut Context,
        guest: &GuestName,
        mut migration: Migration,
        source: &Tenure,
        uri: String,
        machine: Box<QemuDefinition>,
    ) {
        let within = self.time_to_send(guest);
        let (epoch, cpu) = (source.epoch, machine.cpu.clone());
        // No level of its own: nothing that is applied depends on it, and who does not know it leaves it out (R26).
        let kind = OrderKind::Send { guest: guest.clone(), epoch, uri, within, cpu, machine: Some(machine) };
        match self.order(context, &source.host, kind) {
            Ok(order) => {
                migration.step = MigrationStep::Sending { order };
                self.set_phase(context, guest, Phase::Migrating(migration));
            }
            // No host is forgotten that may run a guest.
            Err(refused) => self.give_up(context, guest, migration, false, refused.to_string()),
        }
    }

    fn switch(
        &mut self,
        context: &mut Context,
        guest: &GuestName,
        mut migration: Migration,
        source: Tenure,
        target: Tenure,
    ) {
        let kind = OrderKind::Resume { guest: guest.clone(), epoch: target.epoch };
        match self.order(context, &target.host, kind) {
            Ok(order) => {
                let (resume, release) = (Some(order), self.release_half(context, guest, Some(&source)));
                migration.step = MigrationStep::Switched { resume, release };
                self.set_phase(context, guest, Phase::Migrating(migration));
                let (from, to) = (source.host, target.host);
                self.note(context, Event::MigrationSwitched { guest: guest.clone(), from, to });
            }
            // No host is forgotten that may run a guest.
            Err(refused) => self.give_up(context, guest, migration, true, refused.to_string()),
        }
    }

    /// Gives up before the switch: the source goes on, the target's remains go.
    pub(super) fn give_up(
        &mut self,
        context: &mut Context,
        guest: &GuestName,
        mut migration: Migration,
        resume: bool,
        why: String,
    ) {
        self.drop_guest_orders(guest);
        if let Some(known) = self.guests.get_mut(guest) {
            known.failed_moves = known.failed_moves.saturating_add(1);
        }
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

    /// Ends the migration when nothing is outstanding; otherwise keeps it.
    pub(super) fn settle(
        &mut self,
        context: &mut Context,
        guest: &GuestName,
        migration: Migration,
        proof: Option<Proof>,
    ) {
        // The probes have yet to confirm it where it ended; that also ends the incident that the move belonged to.
        let (since, verified, action) = (context.index, false, None);
        match (&migration.step, &migration.source, &migration.target, proof) {
            (MigrationStep::Switched { resume: None, release: None }, None, Some(target), _)
            | (MigrationStep::Returning { resume: None, release: None }, Some(target), None, _) => {
                let (tenure, host) = (target.clone(), target.host.clone());
                let has_arrived = matches!(migration.step, MigrationStep::Switched { .. });
                if let Some(known) = self.guests.get_mut(guest).filter(|_| has_arrived) {
                    known.failed_moves = 0;
                }
                let detail = migration.failure.clone().unwrap_or_else(|| "it moved while it ran".to_owned());
                self.note(context, Event::MigrationEnded { guest: guest.clone(), host, detail });
                self.set_phase(context, guest, Phase::Running { tenure: tenure.clone(), since, verified, action });
                if let Some(heading) = migration.then.filter(|_| !has_arrived) {
                    self.go_on_cold(context, guest, tenure, heading);
                }
            }
            (_, None, None, Some(proof)) => {
                let last = proof.host().cloned();
                let host = last.as_ref().map_or("nowhere", HostName::as_str).to_owned();
                let avoid = last.iter().filter(|last| self.sends_away(last)).cloned().collect();
                self.drop_guest_orders(guest);
                self.note(context, Event::GuestFree { guest: guest.clone(), proof: proof.clone() });
                let at = context.at;
                if let Some(incident) = self.incident_of(context, guest) {
                    incident.stamps.proven = Some(at);
                    incident.human = None;
                    incident.did(format!("Nothing of {guest} is left of its move; {host} answered last."));
                }
                self.set_phase(context, guest, Phase::Free { proof, last, avoid, since });
            }
            // Something is outstanding yet.
            (
                MigrationStep::Receiving { .. }
                | MigrationStep::Sending { .. }
                | MigrationStep::Switched { .. }
                | MigrationStep::Returning { .. }
                | MigrationStep::Clearing { .. },
                ..,
            ) => self.set_phase(context, guest, Phase::Migrating(migration)),
        }
    }
}

impl ClusterState {
    /// Whether a guest whose move has failed is kept from this host, which was the last to answer: one in maintenance would have it left
    /// down there, and it was moved so that it does not wait for that.
    fn sends_away(&self, last: &HostName) -> bool {
        self.level >= FeatureLevel::SENT_AWAY && self.hosts.get(last).is_some_and(Host::in_maintenance)
    }
}
