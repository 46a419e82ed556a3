//! Announced departures: a host's guests are released before it goes, and wait for it where policies say so.

use std::collections::BTreeSet;

use super::Context;
use crate::{
    change::Refused,
    feature_level::FeatureLevel,
    names::{GuestName, HostName},
    state::{ClusterState, Guest, Phase, Wanted},
};

impl ClusterState {
    pub(super) fn vacated(&mut self, context: &mut Context, host: &HostName) -> Result<(), Refused> {
        if !self.hosts.contains_key(host) {
            return Err(Refused::NoHost { host: host.clone() });
        }
        let Some(departure) = self.departure(host) else {
            return Err(Refused::Host { host: host.clone(), why: "has not announced to go".to_owned() });
        };
        let runs = |phase: &Phase| matches!(phase, Phase::Running { tenure, .. } if tenure.host == *host);
        let ours = self.guests.iter().filter(|(_, guest)| runs(&guest.phase) && guest.wanted != Wanted::Unmanaged);
        let guests: Vec<GuestName> = ours.map(|(name, _)| name.clone()).collect();
        if guests.is_empty() || self.suspended.is_some() {
            return Err(Refused::Already { why: format!("{host} has no guests to release") });
        }
        self.keep(host, departure.keeps(), &guests);
        for guest in guests {
            let how = self.in_order(&guest);
            self.release_now(context, &guest, &format!("its host {host} is about to go"), BTreeSet::new(), how);
        }
        Ok(())
    }

    /// Guests of a host that goes before it has released them wait for it all the same, but for those that are sent away from there. Nothing
    /// waits for a host that goes without having announced it.
    pub(super) fn keep_of_departed(&mut self, host: &HostName) {
        let departure = self.departure(host);
        self.keep_nothing_unless(host, departure.is_some());
        let keeps = departure.is_some_and(crate::departure::Departure::keeps);
        let waits = self.guests_of(host).filter(|(_, guest)| !self.is_sent_away(guest, host));
        let guests: Vec<GuestName> = waits.map(|(name, _)| name.clone()).collect();
        self.keep(host, keeps, &guests);
    }

    /// Whether a guest is being stopped so that it starts elsewhere: its ladder sends it away, or it is moved. In an earlier version it waits
    /// for its host all the same (R26).
    fn is_sent_away(&self, guest: &Guest, host: &HostName) -> bool {
        let Phase::Releasing { avoid, .. } = &guest.phase else { return false };
        let goes = avoid.contains(host) || guest.heading.as_ref().is_some_and(|heading| heading.to != *host);
        goes && self.level >= FeatureLevel::NOT_KEPT
    }

    /// An operator who takes the announcement back for a host that is gone does not expect it soon.
    pub(super) fn keep_nothing_unless(&mut self, host: &HostName, expected: bool) {
        if let Some(known) = self.hosts.get_mut(host).filter(|_| !expected) {
            known.kept.clear();
        }
    }

    fn keep(&mut self, host: &HostName, keeps: bool, guests: &[GuestName]) {
        if let Some(known) = self.hosts.get_mut(host).filter(|_| keeps) {
            known.kept.extend(guests.iter().cloned());
        }
    }

    /// A guest that starts anywhere waits for no host any more; nor does one that is not declared.
    pub(super) fn forget_kept(&mut self) {
        let guests = &self.guests;
        for host in self.hosts.values_mut().filter(|host| !host.kept.is_empty()) {
            host.kept.retain(|guest| {
                let phase = guests.get(guest).map(|known| &known.phase);
                matches!(phase, Some(Phase::Releasing { .. } | Phase::Free { .. }))
            });
        }
    }
}
