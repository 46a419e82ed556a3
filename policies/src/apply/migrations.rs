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
//! Before the switch only the source may resume; after it only the target. What the loss or the new boot of either host does is in
//! `halves.rs`; when a move begins is in `moves.rs` and `decide/guests/moves.rs`, which also says until when each step waits.

use std::collections::BTreeSet;

use super::Context;
use crate::{
    change::Refused,
    journal::Event,
    names::{GuestName, HostName, OrderId},
    order::{OrderKind, OrderOutcome, StopHow},
    proof::Proof,
    state::{ClusterState, Migration, MigrationStep, Phase, Tenure},
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
        let migration =
            Migration { source: Some(source), target: Some(target), step, failure: None, release_failed: None };
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
                let kind = OrderKind::Release { guest: guest.clone(), epoch: source.epoch, how: StopHow::PullPlug };
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

    pub(super) fn resume_ended(
        &mut self,
        context: &mut Context,
        guest: &GuestName,
        id: OrderId,
        outcome: OrderOutcome,
    ) {
        let Some(mut migration) = self.migration(guest) else { return };
        let (MigrationStep::Switched { resume, .. } | MigrationStep::Returning { resume, .. }) = &mut migration.step
        else {
            return;
        };
        if *resume != Some(id) {
            return;
        }
        *resume = None;
        if let OrderOutcome::Failed { detail } = outcome {
            self.clear_with(context, guest, migration, None, &format!("it did not run again: {detail}"));
        } else {
            self.settle(context, guest, migration, None);
        }
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

fn proof_host(proof: &Proof) -> Option<HostName> {
    use crate::proof::ProofKind;
    match proof.kind() {
        ProofKind::PowerOff { host, .. }
        | ProofKind::LeaseExpired { host, .. }
        | ProofKind::Reported { host, .. }
        | ProofKind::Operator { host, .. } => Some(host.clone()),
        ProofKind::NotHere { .. } => None,
    }
}
