//! Strays: a guest that a host has without a right to run it is stopped there by an order.

use super::Context;
use crate::{
    change::Refused,
    journal::Event,
    names::{Epoch, GuestName, HostName, OrderId},
    order::{OrderKind, StopHow},
    state::{ClusterState, Life, Phase},
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
        if self.hosts.get(&host).is_none_or(|known| known.life != Life::Up) {
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

    /// The open order to a host to release the guest.
    pub(super) fn release_under_way(&self, guest: &GuestName, host: &HostName) -> Option<OrderId> {
        let mut orders = self.orders.values().filter(|order| order.host == *host);
        orders
            .find(|order| matches!(&order.kind, OrderKind::Release { guest: released, .. } if released == guest))
            .map(|order| order.id)
    }
}
