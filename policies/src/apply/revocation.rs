//! Hosts that are taken out of the cluster for good, and names that are given to another machine (R27).

use std::collections::BTreeSet;

use super::Context;
use crate::{
    change::Refused,
    journal::Event,
    names::{HostName, Incarnation},
    observe::clean_to,
    operators::Serial,
    order::OrderKind,
    revocation::{BOOTS_MAX, KEYS_MAX, KeyId, REVOKED_MAX, Revocation, WORD_BYTES_MAX},
    state::{ClusterState, Host, Life},
};

/// What incidents of a host are about: their keys are `ABOUT/HOST`.
const ABOUT: [&str; 9] =
    ["host", "fencing", "quarantine", "power_on", "path", "leaving", "lease", "supervisor", "drill"];

impl ClusterState {
    /// Forgets a host that is proven gone; no certificate of its name counts any more.
    pub(super) fn host_revoked(
        &mut self,
        context: &mut Context,
        host: &HostName,
        why: String,
        mut keys: BTreeSet<KeyId>,
        by: String,
    ) -> Result<(), Refused> {
        let [why, by] = [why, by].map(|word| clean_to(&word, WORD_BYTES_MAX));
        let before = self.revoked.get(host);
        let fresh: Vec<Incarnation> = match (self.hosts.get(host), before) {
            (Some(known), _) => {
                self.may_go(host, known)?;
                known.past.iter().chain([&known.facts.incarnation]).cloned().collect()
            }
            // A certificate that was readmitted and is lost again before anybody has joined with it.
            (None, Some(before)) if before.readmitted.is_some() => Vec::new(),
            (None, Some(before)) => {
                return Err(Refused::Already { why: format!("{host} was revoked by {}: {}", before.by, before.why) });
            }
            (None, None) => return Err(Refused::NoHost { host: host.clone() }),
        };
        if before.is_none() && self.revoked.len() >= REVOKED_MAX {
            let why = format!("cannot be revoked: {REVOKED_MAX} names are, and that is the most; make a new authority");
            return Err(Refused::Host { host: host.clone(), why });
        }
        let mut boots = before.map(|before| before.boots.clone()).unwrap_or_default();
        boots.extend(fresh);
        boots.drain(..boots.len().saturating_sub(BOOTS_MAX));
        // Whoever has the machine that was revoked before still knows what that one knew.
        let room = KEYS_MAX.saturating_sub(keys.len());
        keys.extend(before.into_iter().flat_map(|before| before.keys.iter().copied()).take(room));
        let (since, readmitted) = (context.index, None);
        let revocation = Revocation { since, by: by.clone(), why: why.clone(), boots, keys, readmitted };
        self.revoked.insert(host.clone(), revocation);
        self.note(context, Event::HostRevoked { host: host.clone(), why: why.clone(), by: by.clone() });
        self.forget_host(context, host, format!("{by} has revoked {host}: {why}."));
        self.view(context);
        Ok(())
    }

    /// One certificate of a revoked name counts. Not another one than a living host has: that would lose its connections, and
    /// with them its lease.
    pub(super) fn host_readmitted(
        &mut self,
        context: &mut Context,
        host: &HostName,
        serial: Serial,
        by: String,
    ) -> Result<(), Refused> {
        let Some(revocation) = self.revoked.get_mut(host) else {
            let why = "is not revoked, so any certificate of its name counts".to_owned();
            return Err(Refused::Host { host: host.clone(), why });
        };
        if revocation.readmitted.as_ref() == Some(&serial) {
            return Err(Refused::Already { why: format!("the certificate {serial} of {host} counts") });
        }
        if let Some(known) = self.hosts.get(host)
            && !matches!(known.life, Life::Gone { .. })
        {
            let is = match &revocation.readmitted {
                Some(counts) => format!("has joined with the certificate {counts}, and another one would lock it out"),
                // Revoked in a history that was lost, with all that had been proven in it (R25).
                None => "was known before the recovery, and may be on".to_owned(),
            };
            let why = format!(
                "{is}: switch it off first, and say so with `holdfast host confirm-off {host} --operator YOUR-NAME` unless it \
                 is found out"
            );
            return Err(Refused::Host { host: host.clone(), why });
        }
        revocation.readmitted = Some(serial.clone());
        self.note(context, Event::HostReadmitted { host: host.clone(), serial, by });
        self.view(context);
        Ok(())
    }

    /// Nobody joins under a revoked name before one of its certificates counts again, and no boot from before ever does.
    /// Connections are refused by the certificate; this one is for syncs that were under way. After a recovery the host may be
    /// known and revoked (R25).
    pub(super) fn may_come(&self, host: &HostName, incarnation: &Incarnation) -> Result<(), Refused> {
        let Some(revocation) = self.revoked.get(host) else { return Ok(()) };
        if revocation.readmitted.is_none() || revocation.boots.contains(incarnation) {
            let why = format!("was revoked by {}: {}", revocation.by, revocation.why);
            return Err(Refused::Host { host: host.clone(), why });
        }
        Ok(())
    }

    /// Proof first: what may still run there, or may still be switched off, is not forgotten.
    fn may_go(&self, host: &HostName, known: &Host) -> Result<(), Refused> {
        let refuse = |why: String| Err(Refused::Host { host: host.clone(), why });
        if !matches!(known.life, Life::Gone { .. }) {
            let word = format!("`holdfast host confirm-off {host} --operator YOUR-NAME`");
            return refuse(format!("is not proven gone: switch it off, and say so with {word} unless it is found out"));
        }
        if known.is_contested() || self.is_doubted(host) {
            return refuse("was proven gone, but something is heard under its name: see its incident first".to_owned());
        }
        if let Some((guest, _)) = self.guests_of(host).next() {
            return refuse(format!("may still run {guest}"));
        }
        let concerns = |kind: &OrderKind| matches!(kind, OrderKind::Fence { target, .. } if target == host);
        if let Some(order) = self.orders.values().find(|order| order.host == *host || concerns(&order.kind)) {
            return refuse(format!("waits for {} ({}), which has not ended", order.id, order.kind));
        }
        if known.drill.is_some() {
            return refuse("is being drilled".to_owned());
        }
        Ok(())
    }

    fn forget_host(&mut self, context: &Context, host: &HostName, told: String) {
        self.hosts.remove(host);
        for guest in self.guests.values_mut() {
            guest.strays.remove(host);
            guest.start_failures.remove(host);
            guest.shuns.remove(host);
            guest.settled = guest.settled.take().filter(|settled| settled != host);
            guest.heading = guest.heading.take().filter(|heading| heading.to != *host);
        }
        // What it has found at the power devices of others hides what the rest finds, and is nobody's word any more.
        self.forget_found_by(host);
        // Who has looked at its end reads there why it is not coming back. It is not well again, so nothing says that.
        self.incident(context, &Self::host_key(host), &format!("{host} is revoked")).did(told);
        for about in ABOUT {
            self.end_incident(context, &format!("{about}/{host}"));
        }
    }
}
