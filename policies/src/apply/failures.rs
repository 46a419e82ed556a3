//! Starts that fail: tries here, then hosts not tried yet, then here again, then a human.
//!
//! What has failed counts until the guest has run and answered, until it has had its cool-down in peace, or until an
//! operator says that it was looked after. Hosts where it has failed before it came to run on another are remembered for longer,
//! as shunned.

use std::collections::BTreeSet;

use super::Context;
use crate::{
    change::Refused,
    journal::Event,
    model::Severity,
    names::{GuestName, HostName},
    order::StopHow,
    state::{ClusterState, Guest, Ladder, Life},
};

/// Starts on one host before another is tried, for a guest.
pub(crate) fn start_tries(state: &ClusterState, guest: &GuestName) -> u32 {
    state.policies.guests.get(guest).map_or(1, |declared| declared.needs.start_tries.max(1))
}

impl ClusterState {
    /// A start on this host has failed. What may be left of it is released before anything starts elsewhere.
    pub(super) fn start_failed(&mut self, context: &mut Context, guest: &GuestName, on: &HostName, detail: &str) {
        let Some(known) = self.guests.get_mut(guest) else { return };
        known.heading = None;
        let failures = known.start_failures.entry(on.clone()).or_default();
        *failures = failures.saturating_add(1);
        let incident = self.incident(context, &Self::guest_key(guest), &format!("{guest} does not start"));
        incident.did(format!("The start of {guest} on {on} failed: {detail}."));
        if self.starts_nowhere(guest) {
            let incident = self.incident(context, &Self::guest_key(guest), "");
            incident.severity = Severity::Critical;
            incident.human = Some(format!("{guest} starts on no host: look at why ({detail}). Holdfast keeps trying."));
        }
        self.give_up_starting(context, guest, detail);
        let why = format!("its start failed: {detail}");
        self.release_now(context, guest, &why, BTreeSet::new(), StopHow::PullPlug);
    }

    /// Whether every host that could start it has failed as often as it is tried there.
    pub(crate) fn starts_nowhere(&self, guest: &GuestName) -> bool {
        let tries = start_tries(self, guest);
        let Some(known) = self.guests.get(guest) else { return false };
        let tried = |name: &HostName| known.start_failures.get(name).is_some_and(|count| *count >= tries);
        let mut able = self.hosts.iter().filter(|(_, host)| host.facts.guests && host.life == Life::Up);
        !known.start_failures.is_empty() && able.all(|(name, _)| tried(name))
    }

    /// Every host, or the same host again, that has had its tries counts as one relocation; the first one does not.
    fn give_up_starting(&mut self, context: &mut Context, guest: &GuestName, detail: &str) {
        let declared = self.policies.guests.get(guest);
        let Some(relocations) = declared.and_then(|declared| declared.needs.relocations) else { return };
        let tries = start_tries(self, guest);
        let Some(known) = self.guests.get_mut(guest) else { return };
        let rounds: u32 = known.start_failures.values().map(|count| count / tries).fold(0, u32::saturating_add);
        if rounds <= relocations {
            return;
        }
        let hosts: Vec<String> =
            known.start_failures.iter().map(|(host, count)| format!("{count} times on {host}")).collect();
        let why = format!("its start failed {}: {detail}", hosts.join(", "));
        known.given_up = Some(why.clone());
        self.note(context, Event::GuestGivenUp { guest: guest.clone(), why });
    }

    /// An operator has looked after the guest: what has failed before is forgotten, and it is tried anew.
    pub(super) fn looked_after(&mut self, context: &mut Context, guest: &GuestName, by: String) -> Result<(), Refused> {
        let known = self.guests.get_mut(guest).ok_or_else(|| Refused::NoGuest { guest: guest.clone() })?;
        let (has_failed, has_shunned) = (known.has_failures(), !known.shuns.is_empty());
        if !has_failed && !has_shunned && known.failed_moves == 0 {
            return Err(Refused::Already { why: format!("nothing of {guest} has failed") });
        }
        known.forget_failures();
        known.shuns.clear();
        self.note(context, Event::LookedAfter { guest: guest.clone(), by });
        // An earlier version counts no moves and shuns no hosts, and refuses this where nothing else has failed: nothing that bears
        // on leases may follow from it there and not here (R26).
        if has_failed || (has_shunned && self.are_alike()) {
            self.view(context);
        }
        Ok(())
    }
}

impl Guest {
    pub(super) fn has_failures(&self) -> bool {
        self.ladder.position.is_some() || !self.start_failures.is_empty() || self.given_up.is_some()
    }

    pub(super) fn forget_failures(&mut self) {
        self.start_failures.clear();
        self.ladder = Ladder::default();
        self.given_up = None;
        self.failed_moves = 0;
    }
}
