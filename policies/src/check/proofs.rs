//! Proofs: each is about the boot and the guest that it is used for, and nothing that is known speaks against it (R8, R9, R25).

use std::time::Duration;

use super::Check;
use crate::{
    evidence::HostEvidence,
    names::{GuestName, HostName, Incarnation},
    proof::{Power, PowerReading, Proof, ProofKind},
    state::Phase,
    time::{Moment, millis},
};

/// No host that was heard more recently is called off by its power device: its next beacons may be on their way (R9).
const SILENT_BEFORE_PROOF: Duration = Duration::from_millis(600);

impl Check<'_> {
    /// R9: a proof of power names the boot that has joined; nothing was heard of it since, nor a moment ago.
    pub(super) fn gone(&mut self, proof: &Proof) {
        // That a person says so is no decision of the planner.
        if let ProofKind::PowerOff { host, .. } | ProofKind::LeaseExpired { host, .. } = proof.kind() {
            self.hands_on_host(host, "takes for gone");
        }
        let (host, boot) = match proof.kind() {
            ProofKind::PowerOff { host, incarnation, .. } | ProofKind::Operator { host, incarnation, .. } => {
                (host, incarnation)
            }
            ProofKind::LeaseExpired { host, incarnation, .. } => {
                self.lease_ran_out(host, incarnation);
                return;
            }
            ProofKind::Reported { .. } | ProofKind::NotHere { .. } => {
                self.breaks("R9", "takes a guest's proof for a host's".to_owned());
                return;
            }
        };
        if !self.state.is_current(host, boot) {
            self.breaks("R9", format!("proves the boot {boot} of {host}, which is not the one that has joined"));
        }
        let by_power = matches!(proof.kind(), ProofKind::PowerOff { .. });
        let Some(heard) = self.evidence.hosts.get(host).filter(|_| by_power) else { return };
        let says_off = |reading: &&PowerReading| reading.power == Power::Off && reading.incarnation == *boot;
        let levels = self.state.policies.levels_of(host);
        let is_declared = |off: &&PowerReading| levels.get(off.level) == Some(&off.declared);
        let offs: Vec<&PowerReading> = heard.power.values().filter(says_off).filter(is_declared).collect();
        let signs = heard.sync.iter().chain(&heard.heard).filter(|sign| sign.incarnation == *boot);
        let newest = signs.map(|sign| sign.at).max().max(self.sign_of_lost(host));
        if offs.is_empty() {
            self.breaks("R9", format!("calls {host} off by no device that is declared for it"));
        } else if newest.is_some_and(|at| offs.iter().all(|off| at >= off.asked)) {
            self.breaks("R9", format!("calls {host} off, which was heard after its power device was asked"));
        } else if let Some(at) = newest.filter(|at| self.now.since(*at) < SILENT_BEFORE_PROOF) {
            self.breaks("R9", format!("calls {host} off, which was heard {} ms ago", millis(self.now.since(at))));
        }
    }

    /// R25: before a host is heard under the new generation, a boot of it that has not joined may be one that voters which are lost
    /// had taken in, and be the machine that is said to be off.
    fn sign_of_lost(&self, host: &HostName) -> Option<Moment> {
        let (known, heard) = (self.state.hosts.get(host)?, self.evidence.hosts.get(host)?);
        let other = heard.other_boot.as_ref().filter(|other| !known.knows_boot(&other.incarnation))?;
        (!self.state.is_known_to(heard)).then_some(other.at)
    }

    /// R9, R18: a lease has run out only when neither a grant, nor the beginning of this authority, is younger than the longest
    /// lease, guard and watchdog that were committed; all of them counted by clocks that may be 5 % slower (R1). And not while
    /// its host syncs.
    fn lease_ran_out(&mut self, host: &HostName, boot: &Incarnation) {
        if !self.state.is_current(host, boot) {
            self.breaks("R9", format!("proves the boot {boot} of {host}, which is not the one that has joined"));
        }
        let longest = self.state.hosts.get(host).map(|known| known.lease.longest).unwrap_or_default();
        let parts = [longest.lease_ms, longest.guard_ms, longest.watchdog_ms];
        let counted: u128 = parts.into_iter().map(u128::from).sum();
        let heard = self.evidence.hosts.get(host);
        let granted = heard.and_then(|heard| heard.granted.as_ref()).filter(|granted| granted.incarnation == *boot);
        let signs = granted.map(|granted| granted.at).into_iter().chain(self.evidence.authority_since);
        if signs.max().is_none_or(|newest| self.now.since(newest).as_millis() * 100 < counted * 105) {
            self.breaks("R9", format!("proves {host} gone by a lease that may last"));
        }
        let synced = heard.and_then(|heard| heard.sync.as_ref()).filter(|sync| sync.incarnation == *boot);
        if synced.is_some_and(|sync| self.now.since(sync.at) < self.timing.suspect_after.0) {
            self.breaks("R9", format!("proves {host} gone by its lease, which syncs"));
        }
    }

    pub(super) fn free(&mut self, guest: &GuestName, proof: &Proof) {
        if !matches!(self.phase(guest), Some(Phase::Unplaced)) {
            self.breaks("S2", format!("frees {guest}, which has been placed, without its host's word"));
        }
        if !matches!(proof.kind(), ProofKind::NotHere { .. }) {
            self.breaks("R8", format!("places {guest} for the first time on a proof about something else"));
        }
        if let ProofKind::NotHere { hosts } = proof.kind() {
            self.known_to(guest, hosts.keys());
            self.said_since(guest, hosts.keys());
        }
        self.hands_on_first(guest);
    }

    /// R8: the word of a host that a guest is not there is of after the guest was declared, for the host knew of that when it spoke.
    fn said_since<'h>(&mut self, guest: &GuestName, mut hosts: impl Iterator<Item = &'h HostName>) {
        let declared_at = self.state.guests.get(guest).and_then(|known| known.declared_at).unwrap_or(0);
        let knew = |host: &HostName| self.evidence.hosts.get(host).map_or(0, |heard| heard.seen.index);
        let older = hosts.find(|host| knew(host) < declared_at);
        if let Some(host) = older {
            self.breaks("R8", format!("believes {host} of {guest}, which it said before that was declared"));
        }
    }

    /// R25: the word of a host that a guest is not there counts only when it has learned of this generation.
    pub(super) fn known_to<'h>(&mut self, guest: &GuestName, mut hosts: impl Iterator<Item = &'h HostName>) {
        let nothing = HostEvidence::default();
        let unlearned = hosts.find(|host| !self.state.is_known_to(self.evidence.hosts.get(*host).unwrap_or(&nothing)));
        if let Some(host) = unlearned {
            self.breaks("R25", format!("believes {host} of {guest}, which has not learned of this generation"));
        }
    }
}
