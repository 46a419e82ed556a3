//! The two halves of a migration: what becomes of it when one of them is released, gone, or has booted anew (R22).
//!
//! A half is `Some` from the commit of its right to run until proof. Whatever ends a half hands its proof on, so that a
//! guest of which nothing is left is free in the same step, however far its move had come.

use super::Context;
use crate::{
    change::Refused,
    migration::{self, Half, Next, next_step},
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
        let next = next_step(&migration, migration::Event::Released { order: order.id });
        if next == Next::Nothing {
            return;
        }
        migration.step.forget(order.id);
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
        self.follow(context, guest, migration, next, proof, "");
    }

    /// A half has gone with its host.
    pub(super) fn half_gone(&mut self, context: &mut Context, guest: &GuestName, host: &HostName, proof: &Proof) {
        let Some(mut migration) = self.migration(guest) else { return };
        let half = migration.half_on(host);
        let next = next_step(&migration, migration::Event::Gone(half));
        migration.lose(half);
        let why = format!("its {half} {host} is gone");
        self.follow(context, guest, migration, next, Some(proof.clone()), &why);
    }

    /// The host of a half has booted anew, so that half runs nothing; its new boot still has to say so (R9, R10). The
    /// other half goes on wherever it may (S8).
    pub(super) fn half_rebooted(&mut self, context: &mut Context, guest: &GuestName, host: &HostName) {
        let Some(migration) = self.migration(guest) else { return };
        let next = next_step(&migration, migration::Event::Rebooted(migration.half_on(host)));
        self.follow(context, guest, migration, next, None, &format!("{host} has booted anew"));
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
        let Some(migration) = self.migration(guest) else { return Ok(()) };
        let next = next_step(&migration, migration::Event::AskedAgain);
        if next == Next::Nothing {
            return Err(Refused::Already { why: format!("nothing of the move of {guest} has to be asked again") });
        }
        self.follow(context, guest, migration, next, None, "");
        Ok(())
    }

    /// Orders these halves to be released.
    pub(super) fn ask(
        &mut self,
        context: &mut Context,
        guest: &GuestName,
        mut migration: Migration,
        source: bool,
        target: bool,
    ) {
        for (half, asked) in [(Half::Source, source), (Half::Target, target)] {
            let there = migration.of(half).filter(|_| asked).cloned();
            if let (Some(there), Some(release)) = (there, migration.step.release(half)) {
                *release = self.release_half(context, guest, Some(&there));
            }
        }
        self.settle(context, guest, migration, None);
    }
}
