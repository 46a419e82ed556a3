//! The two halves of a migration: what becomes of it when one of them is released, gone, or has booted anew (R22).
//!
//! A half is `Some` from the commit of its right to run until proof. Whatever ends a half hands its proof on, so that a
//! guest of which nothing is left is free in the same step, however far its move had come.

use super::Context;
use crate::{
    change::Refused,
    names::{Epoch, GuestName, HostName, OrderId},
    order::{Order, OrderKind, OrderOutcome, StopHow},
    proof::Proof,
    state::{ClusterState, Migration, MigrationStep, Tenure},
};

impl ClusterState {
    /// Orders whatever boot the half's host has joined with to release it.
    pub(super) fn release_half(
        &mut self,
        context: &mut Context,
        guest: &GuestName,
        half: Option<&Tenure>,
    ) -> Option<OrderId> {
        let half = half?;
        self.order(
            context,
            &half.host,
            OrderKind::Release { guest: guest.clone(), epoch: half.epoch, how: StopHow::PullPlug },
        )
        .ok()
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
            MigrationStep::Receiving { .. }
            | MigrationStep::Sending { .. }
            | MigrationStep::Switched { .. }
            | MigrationStep::Returning { .. }
            | MigrationStep::Clearing { .. } => return,
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
                migration.release_failed = Some(context.index);
                self.stop_failed(context, guest, &order.host, &detail);
                None
            }
        };
        self.settle(context, guest, migration, proof);
    }

    /// A half has gone with its host.
    pub(super) fn half_gone(&mut self, context: &mut Context, guest: &GuestName, host: &HostName, proof: &Proof) {
        let Some(mut migration) = self.migration(guest) else { return };
        let source_gone = is_on(migration.source.as_ref(), host);
        if source_gone {
            migration.source = None;
        } else {
            migration.target = None;
        }
        let proof = Some(proof.clone());
        match (&mut migration.step, source_gone) {
            (
                MigrationStep::Receiving { .. } | MigrationStep::Sending { .. } | MigrationStep::Returning { .. },
                true,
            ) => {
                self.clear_with(context, guest, migration, proof, &format!("its source {host} is gone"));
            }
            (MigrationStep::Receiving { .. } | MigrationStep::Sending { .. }, false) => {
                self.give_up(context, guest, migration, true, format!("its target {host} is gone"));
            }
            (MigrationStep::Switched { .. }, false) => {
                self.clear_with(context, guest, migration, proof, &format!("its target {host} is gone"));
            }
            (MigrationStep::Switched { release, .. }, true) | (MigrationStep::Returning { release, .. }, false) => {
                *release = None;
                self.settle(context, guest, migration, proof);
            }
            (MigrationStep::Clearing { source, .. }, true) => {
                *source = None;
                self.settle(context, guest, migration, proof);
            }
            (MigrationStep::Clearing { target, .. }, false) => {
                *target = None;
                self.settle(context, guest, migration, proof);
            }
        }
    }

    /// The host of a half has booted anew, so that half runs nothing; its new boot still has to say so (R9, R10). The
    /// other half goes on wherever it may (S8).
    pub(super) fn half_rebooted(&mut self, context: &mut Context, guest: &GuestName, host: &HostName) {
        let Some(mut migration) = self.migration(guest) else { return };
        let source_rebooted = is_on(migration.source.as_ref(), host);
        let half = if source_rebooted { migration.source.clone() } else { migration.target.clone() };
        let why = format!("{host} has booted anew");
        match (&mut migration.step, source_rebooted) {
            (
                MigrationStep::Receiving { .. } | MigrationStep::Sending { .. } | MigrationStep::Returning { .. },
                true,
            )
            | (MigrationStep::Switched { .. }, false) => self.clear_with(context, guest, migration, None, &why),
            (MigrationStep::Receiving { .. } | MigrationStep::Sending { .. }, false) => {
                self.give_up(context, guest, migration, true, why);
            }
            (MigrationStep::Switched { release, .. }, true)
            | (MigrationStep::Returning { release, .. }, false)
            | (MigrationStep::Clearing { source: release, .. }, true)
            | (MigrationStep::Clearing { target: release, .. }, false) => {
                *release = self.release_half(context, guest, half.as_ref());
                self.settle(context, guest, migration, None);
            }
        }
    }

    /// Gives up for good: what is left of both halves is asked to release, then the guest is free. `proof` is of the half
    /// that has just gone, if one has.
    pub(super) fn clear_with(
        &mut self,
        context: &mut Context,
        guest: &GuestName,
        mut migration: Migration,
        proof: Option<Proof>,
        why: &str,
    ) {
        self.drop_guest_orders(guest);
        self.head(guest, None);
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
        self.settle(context, guest, migration, proof);
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
            MigrationStep::Clearing { source: from, target: to }
                if (from.is_none() && source.is_some()) || (to.is_none() && target.is_some()) =>
            {
                if from.is_none() {
                    *from = self.release_half(context, guest, source.as_ref());
                }
                if to.is_none() {
                    *to = self.release_half(context, guest, target.as_ref());
                }
            }
            MigrationStep::Receiving { .. }
            | MigrationStep::Sending { .. }
            | MigrationStep::Switched { .. }
            | MigrationStep::Returning { .. }
            | MigrationStep::Clearing { .. } => {
                return Err(Refused::Already { why: format!("nothing of the move of {guest} has to be asked again") });
            }
        }
        self.set_phase(context, guest, crate::state::Phase::Migrating(migration));
        Ok(())
    }
}

fn is_on(half: Option<&Tenure>, host: &HostName) -> bool {
    half.is_some_and(|tenure| tenure.host == *host)
}
