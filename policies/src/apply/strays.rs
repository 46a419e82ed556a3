//! Strays: a guest that a host has without a right to run it is stopped there by an order, or, where other tools have moved it
//! there beyond doubt, followed.

use super::Context;
use crate::{
    change::Refused,
    feature_level::FeatureLevel,
    journal::Event,
    names::{Epoch, GuestName, HostName, OrderId},
    order::{OrderKind, StopHow},
    state::{ClusterState, Life, Migration, MigrationStep, Phase, Tenure},
};

impl ClusterState {
    /// Orders a host to release what it has of the guest. `keep` is the host whose guest goes on: never are both stopped.
    pub(super) fn stray_found(
        &mut self,
        context: &mut Context,
        guest: &GuestName,
        host: HostName,
        epoch: Epoch,
        keep: Option<&HostName>,
    ) -> Result<(), Refused> {
        let known = self.known(guest)?;
        match &known.phase {
            Phase::Running { tenure, .. } if tenure.host != host && keep == Some(&tenure.host) => {}
            Phase::Unplaced if keep.is_some_and(|keep| *keep != host) => {}
            Phase::Free { .. } => {}
            Phase::Unplaced
            | Phase::Running { .. }
            | Phase::Starting { .. }
            | Phase::Releasing { .. }
            | Phase::Migrating(_) => {
                return Err(Self::refuse_phase(guest, known, "found where it has no right to run"));
            }
        }
        self.in_hand(guest)?;
        if !self.can_be_told_to_stop(&host) {
            return Err(Refused::Host { host, why: "is fenced or gone".to_owned() });
        }
        if self.release_under_way(guest, &host).is_some() {
            return Err(Refused::Already { why: format!("{guest} is being stopped on {host}") });
        }
        if let Some(keep) = keep.filter(|keep| self.release_under_way(guest, keep).is_some()) {
            return Err(Refused::Host { host: keep.clone(), why: format!("is stopping {guest}, so {host} keeps it") });
        }
        self.order(context, &host, OrderKind::Release { guest: guest.clone(), epoch, how: StopHow::PullPlug })?;
        if let Some(known) = self.guests.get_mut(guest) {
            known.strays.retain(|host, _| self.hosts.contains_key(host));
            known.strays.insert(host.clone(), context.index);
        }
        let why = keep.map_or("it has no right to run".to_owned(), |keep| format!("it is kept on {keep}"));
        self.note(context, Event::GuestReleasing { guest: guest.clone(), host, why });
        self.view(context);
        Ok(())
    }

    /// Whether a host may be ordered to stop what it has of a guest without a right. One that is being fenced may yet be heard again with
    /// that, and until then its fence is what is waited for. An earlier version refuses the order to it (R26).
    pub(crate) fn can_be_told_to_stop(&self, host: &HostName) -> bool {
        match self.hosts.get(host).map(|known| &known.life) {
            Some(Life::Up) => true,
            Some(Life::Fencing(_)) => self.level >= FeatureLevel::STOPS_IN_FENCE,
            Some(Life::Gone { .. }) | None => false,
        }
    }

    /// Follows a guest that other tools have moved. From here on it is a live move past its switch (R22): only the new host may
    /// run it; the old one is to raise its floor and say that nothing is left (R9 `Reported`), and the new one that its own
    /// floors let this assignment run (R7), for which its agent is asked to let it run, as it does already. Where that is
    /// refused, both halves are released and it starts anew. It starts nowhere before both are proven gone (R8).
    ///
    /// It keeps its epoch, because a machine that runs cannot be given another: its manager has the number from its start.
    pub(super) fn moved_outside(
        &mut self,
        context: &mut Context,
        guest: &GuestName,
        there: Tenure,
    ) -> Result<(), Refused> {
        let known = self.known(guest)?;
        let Phase::Running { tenure, .. } = &known.phase else {
            return Err(Self::refuse_phase(guest, known, "running"));
        };
        let source = tenure.clone();
        if source.host == there.host {
            return Err(Refused::Already { why: format!("{guest} runs on {}", there.host) });
        }
        if source.epoch != there.epoch {
            let why = format!("{} has it under epoch {}, not {}", there.host, there.epoch, source.epoch);
            return Err(Refused::Guest { guest: guest.clone(), why });
        }
        self.in_hand(guest)?;
        self.may_answer_for(guest, &source)?;
        self.may_answer_for(guest, &there)?;
        self.drop_guest_orders(guest);
        let kind = OrderKind::Resume { guest: guest.clone(), epoch: there.epoch };
        let resume = Some(self.order(context, &there.host, kind)?);
        let release = self.release_half(context, guest, Some(&source));
        let (from, to) = (source.host.clone(), there.host.clone());
        if let Some(known) = self.guests.get_mut(guest) {
            // Whoever moves a guest by hand wants it there.
            known.settled = Some(to.clone());
        }
        let step = MigrationStep::Switched { resume, release };
        let (source, target) = (Some(source), Some(there));
        let migration = Migration { source, target, step, failure: None, release_failed: None, then: None };
        self.note(context, Event::GuestFollowed { guest: guest.clone(), from, to });
        self.set_phase(context, guest, Phase::Migrating(migration));
        Ok(())
    }

    /// Whether the host of a tenure can say what becomes of it: it is up, in the same boot, and not asked to stop it.
    fn may_answer_for(&self, guest: &GuestName, tenure: &Tenure) -> Result<(), Refused> {
        let (host, is_up) = (tenure.host.clone(), self.hosts.get(&tenure.host).is_some_and(|on| on.life == Life::Up));
        if !self.is_current(&host, &tenure.incarnation) {
            return Err(Refused::Host { host, why: "has booted anew".to_owned() });
        }
        if !is_up {
            return Err(Refused::Host { host, why: "is fenced or gone".to_owned() });
        }
        if self.release_under_way(guest, &host).is_some() {
            return Err(Refused::Host { host, why: format!("is stopping {guest}") });
        }
        Ok(())
    }

    /// The open order to a host to release the guest.
    pub(super) fn release_under_way(&self, guest: &GuestName, host: &HostName) -> Option<OrderId> {
        let mut orders = self.orders.values().filter(|order| order.host == *host);
        orders
            .find(|order| matches!(&order.kind, OrderKind::Release { guest: released, .. } if released == guest))
            .map(|order| order.id)
    }
}
