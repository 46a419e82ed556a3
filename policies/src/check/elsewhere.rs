//! What other hosts have of a guest: nothing is started beside it, and it is followed only where it is alone (S1, S2).

use super::Check;
use crate::{
    change::Change,
    evidence::{HostEvidence, is_there},
    names::{GuestName, HostName},
    observe::GuestCondition,
    order::OrderKind,
    state::{Life, Phase, Tenure},
};

impl<'a> Check<'a> {
    /// S1, S2: nothing is started while a host that is heard has something of the guest, or has been ordered, before or
    /// by this very plan, to stop it and has not reported. `home` is the host that has the right to it.
    pub(super) fn alone(&mut self, guest: &'a GuestName, home: Option<&HostName>) {
        let elsewhere = |host: &HostName| Some(host) != home;
        let ordered = self.to_be_stopped(guest).find(|host| elsewhere(host));
        if let Some(host) = ordered {
            self.breaks("S2", format!("starts {guest} while {host} is to stop it"));
        }
        let stray =
            self.plan.iter().any(|change| matches!(change, Change::StrayFound { guest: of, .. } if of == guest));
        if stray {
            self.breaks("S1", format!("starts {guest}, and says that it is elsewhere"));
        }
        let (since, last) = match self.phase(guest) {
            Some(Phase::Free { since, last, .. }) => (*since, last.as_ref()),
            Some(Phase::Running { since, .. }) => (*since, None),
            _ => return,
        };
        let is_free = matches!(self.phase(guest), Some(Phase::Free { .. }));
        for host in self.state.hosts.keys().filter(|host| elsewhere(host)) {
            // Of the host where it ran alone the proof says that it is over: what others said before may still be so.
            let since = if is_free && Some(host) != last { 0 } else { since };
            if self.word(host, since).is_some_and(|said| has(said, guest)) {
                self.breaks("S1", format!("starts {guest}, of which {host} has something"));
            }
        }
    }

    /// S1, S2, R7: a guest is followed only when its own host is heard to have nothing of it, and one other host alone runs it,
    /// under the assignment that is committed.
    pub(super) fn follow(&mut self, guest: &'a GuestName, there: &'a Tenure) {
        self.once(guest);
        let Some(Phase::Running { tenure, since, .. }) = self.phase(guest) else {
            self.breaks("S2", format!("follows {guest}, which does not run"));
            return;
        };
        if tenure.host == there.host || !self.state.is_current(&there.host, &there.incarnation) {
            self.breaks("S2", format!("follows {guest} to {}, which is its host or has booted anew", there.host));
        }
        if tenure.epoch != there.epoch {
            self.breaks(
                "R7",
                format!("follows {guest} under epoch {}, and {} is committed", there.epoch, tenure.epoch),
            );
        }
        if self.word(&tenure.host, *since).is_none_or(|said| has(said, guest)) {
            self.breaks("S2", format!("follows {guest}, and {} has not said that nothing of it is left", tenure.host));
        }
        let runs = |said: &HostEvidence| {
            let report = said.reports.get(guest);
            report.is_some_and(|report| report.epoch == there.epoch && report.condition == GuestCondition::Running)
        };
        if !self.word(&there.host, *since).is_some_and(runs) {
            self.breaks("S2", format!("follows {guest} to {}, which does not say that it runs it", there.host));
        }
        let mut others = self.state.hosts.keys().filter(|host| **host != there.host && **host != tenure.host);
        let other = others.find(|host| self.word(host, 0).is_some_and(|said| has(said, guest)));
        if let Some(other) = other {
            self.breaks("S1", format!("follows {guest} to {}, and {other} has something of it", there.host));
        }
        let stopping = self.to_be_stopped(guest).next();
        if let Some(host) = stopping {
            self.breaks("S2", format!("follows {guest} while {host} is to stop it"));
        }
    }

    /// Hosts that have an open order to stop the guest.
    fn to_be_stopped(&self, guest: &GuestName) -> impl Iterator<Item = &'a HostName> {
        let state = self.state;
        state.orders.values().filter_map(move |order| match &order.kind {
            OrderKind::Release { guest: of, .. } if of == guest => Some(&order.host),
            _ => None,
        })
    }

    /// What a host said in a fresh sync that came well after this log index, if its word counts.
    fn word(&self, host: &HostName, since: u64) -> Option<&'a HostEvidence> {
        let known = self.state.hosts.get(host)?;
        let speaks = known.life == Life::Up && known.facts.guests && !known.is_contested();
        let told_after = self.evidence.marks.at(since).plus(self.timing.sync_every.0 * 2);
        self.evidence.hosts.get(host).filter(|_| speaks).filter(|seen| {
            seen.sync.as_ref().is_some_and(|sync| {
                let age = self.now.since(sync.at);
                sync.incarnation == known.facts.incarnation && sync.at > told_after && age < self.timing.suspect_after.0
            })
        })
    }
}

fn has(said: &HostEvidence, guest: &GuestName) -> bool {
    said.reports.get(guest).is_some_and(|report| is_there(&report.condition))
}
