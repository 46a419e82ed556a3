//! What an agent keeps on disk, and which epochs it still lets run by that (R7, R9, R12, R25).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    names::{Epoch, GuestName, OrderId},
    order::{Order, OrderKind},
    sync::{Authority, View},
    time::Span,
};

/// What the agent keeps on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Disk {
    /// The cluster that the rest belongs to.
    pub cluster: String,
    /// The newest authority seen (R3).
    pub authority: Authority,
    /// No epoch up to this one is ever started or resumed again, by guest. One that is here as zero was raised, too: what was found
    /// running under no assignment has been given up.
    pub floors: BTreeMap<GuestName, Epoch>,
    /// The newest epoch begun, by guest (R7).
    pub highest: BTreeMap<GuestName, Epoch>,
    /// Orders begun that may not be done twice.
    pub begun: BTreeSet<OrderId>,
    /// Orders begun that switch a host off, and how long each may take (R20).
    #[serde(default)]
    pub shots: BTreeMap<OrderId, Span>,
    /// The floors are this host's own or have been fetched (R12).
    pub floors_known: bool,
}

impl Disk {
    /// Whether virtual CPUs may run under this epoch of the guest, as far as the disk says (R7, R9). What may have come since the
    /// order was taken is looked at once more right before they run, where that is known without the disk: by the supervisor's
    /// `Released`, and by [`Self::is_overtaken`] in simulations.
    ///
    /// What was found running, and adopted as it was, has an epoch of zero: it may go on until it has been given up here.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn check_epoch(&self, guest: &GuestName, epoch: Epoch) -> Result<(), String> {
        let highest = self.highest.get(guest).copied().unwrap_or_default();
        if let Some(floor) = self.floors.get(guest).filter(|floor| epoch <= **floor) {
            return Err(format!("epoch {epoch} of {guest} is not above its floor {floor}"));
        }
        if epoch < highest {
            return Err(format!("epoch {epoch} of {guest} is older than {highest}"));
        }
        Ok(())
    }

    /// Whether a start may be begun: as [`Self::check_epoch`], and never under an epoch that an older generation has given, or
    /// that no assignment has. What was begun so runs on and may be resumed, but nothing of an older generation begins any more
    /// once a newer one is known (R25).
    ///
    /// # Errors
    /// Why not.
    pub fn check_start(&self, guest: &GuestName, epoch: Epoch) -> Result<(), String> {
        let known = self.authority.generation;
        if epoch.generation < known {
            return Err(format!("epoch {epoch} of {guest} is of an older generation than {known}"));
        }
        if epoch == Epoch::default() {
            return Err(format!("epoch {epoch} of {guest} is that of no assignment"));
        }
        self.check_epoch(guest, epoch)
    }

    /// Whether an order would make virtual CPUs run that a release or a newer assignment has come before (R7, R12).
    #[must_use]
    pub fn is_overtaken(&self, kind: &OrderKind) -> bool {
        match kind {
            OrderKind::Start { guest, epoch, .. } | OrderKind::Receive { guest, epoch, .. } => {
                self.check_start(guest, *epoch).is_err()
            }
            OrderKind::Resume { guest, epoch } => self.check_epoch(guest, *epoch).is_err(),
            OrderKind::Release { .. }
            | OrderKind::RestartService { .. }
            | OrderKind::Reboot { .. }
            | OrderKind::Send { .. }
            | OrderKind::Fence { .. } => false,
        }
    }

    /// Nothing of these guests is started any more up to these epochs. A floor that is higher stays. Returns whether any has risen, or
    /// is there for the first time.
    pub(super) fn raise_floors<'a>(&mut self, given_up: impl IntoIterator<Item = (&'a GuestName, &'a Epoch)>) -> bool {
        let mut raised = false;
        for (guest, epoch) in given_up {
            let before = self.floors.get(guest).copied();
            if before.is_none_or(|floor| floor < *epoch) {
                self.floors.insert(guest.clone(), *epoch);
                raised = true;
            }
        }
        raised
    }

    /// Forgets the epochs of guests that this view does not declare, but for those in `kept`: guests of which something is here, or of
    /// which an order is open. Where guests come and go under ever new names there would be ever more of them, and all are written anew
    /// with every order.
    ///
    /// None that is forgotten could refuse anything that may still come (R7, R9). A guest is started and received only while it is
    /// declared, under the index of the entry that orders it: one that is ordered after this view has a newer epoch than all that is
    /// forgotten, and one that was ordered before and is open is kept. A reply that is older than this view is refused (R3), also after
    /// a restart: the authority is written together with what is left. What an older generation has ordered begins no more (R25). An
    /// agent that has lost its disk learns no floors of guests that the cluster does not know either (R12).
    pub(super) fn forget_undeclared(&mut self, view: &View, kept: &BTreeSet<GuestName>) {
        let Authority { generation, index, .. } = self.authority;
        let is_of_it = view.mark.is_some_and(|mark| mark.generation == generation) && view.index <= index;
        if !is_of_it || !self.floors_known {
            return;
        }
        let upto = Epoch { generation, index: view.index };
        let is_newer = |epoch: Option<&Epoch>| epoch.is_some_and(|epoch| *epoch > upto);
        let guests: BTreeSet<GuestName> = self.floors.keys().chain(self.highest.keys()).cloned().collect();
        for guest in guests {
            let has_newer = is_newer(self.floors.get(&guest)) || is_newer(self.highest.get(&guest));
            if !has_newer && !kept.contains(&guest) && !view.policies.guests.contains_key(&guest) {
                self.floors.remove(&guest);
                self.highest.remove(&guest);
            }
        }
    }

    /// Checks an order against epochs and floors, and notes what must be on disk before it is carried out.
    pub(super) fn write_down(&mut self, order: &Order) -> Result<(), String> {
        match &order.kind {
            OrderKind::Start { guest, epoch, .. } | OrderKind::Receive { guest, epoch, .. } => {
                self.check_start(guest, *epoch)?;
                self.highest.insert(guest.clone(), *epoch);
            }
            OrderKind::Release { guest, epoch, .. } => {
                self.raise_floors([(guest, epoch)]);
            }
            OrderKind::Resume { guest, epoch } => self.check_epoch(guest, *epoch)?,
            OrderKind::RestartService { .. }
            | OrderKind::Reboot { .. }
            | OrderKind::Send { .. }
            | OrderKind::Fence { .. } => {}
        }
        if !order.kind.is_idempotent() {
            self.begun.insert(order.id);
        }
        if order.kind.switches_off() {
            self.shots.insert(order.id, order.deadline);
        }
        Ok(())
    }
}
