//! Does what the agent says. What needs the agent's memory on disk waits for it (`writing.rs`); nothing else does.

use std::{io, sync::Arc};

use holdfast_policies::{
    agent::Action,
    names::{Epoch, GuestName, OrderId},
    order::Order,
};
use tokio::{task::spawn_blocking, time::Instant};

use super::{End, Told, Work, carry, disk};
use crate::health::Complaint;

impl Work {
    /// Does what needs nothing on disk, and has the memory written that the rest needs. What cannot be written down is not acted
    /// on (R7).
    ///
    /// The lease comes first of what does not wait: it is the guard that keeps it, and whoever granted it had a majority behind
    /// it (R2), whatever becomes of this disk. A guest that must not run is stopped all the same, too.
    pub(super) async fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                // The memory as it is when the write begins: that holds at least this.
                Action::Persist(_) => self.writing.want(),
                Action::Carry(order) => self.writing.then(*order),
                Action::Grant(deadline) => match self.parts.node.guard.grant(deadline).await {
                    Ok(()) => self.parts.node.lease.extend(deadline),
                    Err(error) => {
                        self.words.note_trouble(Some("the guard did not take it"));
                        tracing::warn!(%error, "the guard did not take the lease");
                    }
                },
                Action::StopSuperseded { guest, epoch } => self.stop_superseded(guest, epoch),
                Action::Look(view) => {
                    self.parts.views.send_replace(Arc::new(*view));
                }
                Action::SyncNow => self.again = true,
            }
        }
        self.write_on();
    }

    /// Begins the next write, if one is to begin.
    fn write_on(&mut self) {
        if self.writing.is_idle() {
            self.told = Told::of(&self.parts.agent);
        }
        if !self.writing.begin(Instant::now()) {
            return;
        }
        self.in_writing = Told::of(&self.parts.agent);
        let (path, memory, ends) = (self.parts.disk.clone(), self.parts.agent.disk().clone(), self.ends.clone());
        tokio::spawn(async move {
            let write = move || disk::write_memory(&path, &serde_json::to_vec(&memory)?);
            let written = spawn_blocking(write).await.unwrap_or_else(|error| Err(io::Error::other(error)));
            // The receiver lives as long as the supervisor.
            let _ = ends.send(End::Written(written)).await;
        });
    }

    /// The memory is on disk, or is not. That is tried again with whatever comes next, which is soon: a host that says that it is
    /// not well would say so until its next order otherwise.
    pub(super) fn written(&mut self, result: io::Result<()>) {
        self.note_memory(result.as_ref().err());
        match result {
            Ok(()) => {
                // Where the next write follows at once, nothing is idle: it would be told of this one no sooner than of the last.
                self.told = self.in_writing;
                self.writing.end().into_iter().for_each(|order| self.carry(order));
                self.write_on();
            }
            Err(_) => {
                let undone: Vec<OrderId> = self.writing.fail().iter().map(|order| order.id).collect();
                self.parts.agent.unwritten(&undone);
                // Nothing waits any more: it is considered again. A host whose disk fails for days takes part meanwhile.
                self.told = Told::of(&self.parts.agent);
            }
        }
    }

    /// Tells of a disk that takes long. False when it takes so long that this host had better fall silent.
    pub(super) fn look_at_the_disk(&self, now: Instant) -> bool {
        if self.writing.is_late(now) {
            let path = self.parts.disk.display();
            let why = format!("it carries no orders out: {path} is not written, since the disk does not answer");
            self.parts.node.health.complain(Complaint::Memory, why);
        }
        let stuck = self.writing.is_stuck(now);
        if stuck {
            self.words.note_trouble(Some("the disk that the agent's memory is on does not answer"));
        }
        !stuck
    }

    /// Tells everybody that this host carries nothing out, or that it does again.
    fn note_memory(&self, failed: Option<&io::Error>) {
        let health = &self.parts.node.health;
        let Some(error) = failed else { return health.settle(Complaint::Memory) };
        let path = self.parts.disk.display();
        let why = format!("it carries no orders out: {path} cannot be written: {error}");
        // Once for as long as it is so: it is tried several times a second.
        if health.complaint(Complaint::Memory).as_ref() != Some(&why) {
            tracing::error!(%error, %path, "the agent cannot write; it carries nothing out");
        }
        health.complain(Complaint::Memory, why);
    }

    fn carry(&self, order: Order) {
        tracing::info!(order = %order.id, what = %order.kind, "carrying an order out");
        let (node, ends) = (Arc::clone(&self.parts.node), self.ends.clone());
        let ending = carry::to_its_end(order.clone(), async move { carry::carry(&node, &order).await });
        tokio::spawn(async move {
            let (order, carried) = ending.await;
            let _ = ends.send(End::Carried { order, carried }).await;
        });
    }

    /// It is said with every sync until nothing is left, which takes as long as a process hangs in the kernel. One try at a time is
    /// enough: they would take turns.
    fn stop_superseded(&mut self, guest: GuestName, epoch: Epoch) {
        let Some(driver) = self.parts.node.driver.clone() else { return };
        self.parts.node.released.raise(&guest, epoch);
        if !self.stopping.insert(guest.clone()) {
            return;
        }
        tracing::error!(%guest, %epoch, "this assignment was replaced elsewhere; stopping what is left of it");
        let (ends, name) = (self.ends.clone(), guest.clone());
        let stop = tokio::spawn(async move {
            let reports = driver.inventory().await.unwrap_or_default();
            let here = reports.iter().any(|report| report.guest == guest && report.epoch <= epoch);
            if here && let Err(error) = driver.stop_at_once(&guest, epoch).await {
                tracing::error!(%guest, %error, "a superseded guest could not be stopped");
            }
        });
        tokio::spawn(async move {
            // Also where it meets a defect of Holdfast: it is tried again.
            if let Err(defect) = stop.await {
                tracing::error!(guest = %name, %defect, "stopping a superseded guest has met a defect of Holdfast; please report it");
            }
            let _ = ends.send(End::Stopped { guest: name }).await;
        });
    }
}
