//! Hosts: joining, proof, and what operators want of them.

use std::collections::{BTreeMap, BTreeSet};

use super::Context;
use crate::{
    change::Refused,
    evidence::LAST_WORDS_BYTES_MAX,
    feature_level::FeatureLevel,
    fence_path::DrillStep,
    journal::Event,
    model::Severity,
    names::{GuestName, HostName, Incarnation},
    observe::clean_to,
    order::{OrderKind, StopHow},
    proof::{Proof, ProofKind},
    state::{ClusterState, Host, HostFacts, Life, Mode, PAST_BOOTS_MAX, Phase, QuarantineCause},
    time::WallTime,
};

impl ClusterState {
    pub(super) fn host_joined(
        &mut self,
        context: &mut Context,
        host: HostName,
        facts: HostFacts,
        follows: Option<u64>,
    ) -> Result<(), Refused> {
        let incarnation = facts.incarnation.clone();
        self.may_come(&host, &incarnation)?;
        if let Some(known) = self.hosts.get(&host)
            && known.facts.incarnation != incarnation
            && follows.is_some_and(|follows| follows != known.joined)
        {
            let why = format!("has joined as {} since {incarnation} asked", known.facts.incarnation);
            return Err(Refused::Host { host, why });
        }
        let under_way = self.fence_under_way(&host);
        let mut same_boot = false;
        // A host that joins after its lease level was declared has to know that declaration all the same.
        let declared = if self.policies.lease_level(&host).is_some() { self.view_changed } else { 0 };
        match self.hosts.get_mut(&host) {
            None => {
                let mut joined = Host::joined(facts, context.index);
                joined.lease.declared = declared;
                self.hosts.insert(host.clone(), joined);
                self.forget_found_by(&host);
            }
            Some(known) if known.is_contested() => {
                let why = "is quarantined: two machines or two boots use its name".to_owned();
                return Err(Refused::Host { host, why });
            }
            Some(known) if known.facts.machine_id != facts.machine_id => {
                self.quarantine(context, &host, QuarantineCause::OtherMachine { claims: facts.machine_id });
                return Ok(());
            }
            Some(known) if known.facts.incarnation == facts.incarnation => {
                if known.facts == facts {
                    return Err(Refused::Already { why: format!("{host} has joined") });
                }
                known.facts = facts;
                same_boot = true;
            }
            Some(known) if known.past.contains(&facts.incarnation) => {
                // Late syncs of a boot that is over do not come so far (`may_join`): this one is alive.
                self.quarantine(context, &host, QuarantineCause::TwoBoots { other: incarnation });
                return Ok(());
            }
            Some(_) => {
                if let Some(order) = under_way {
                    let why = format!("is being fenced ({order}) and cannot join until that has ended");
                    return Err(Refused::Host { host, why });
                }
                self.booted_anew(context, &host, facts)?;
            }
        }
        self.note(context, Event::HostJoined { host: host.clone(), incarnation });
        if !same_boot {
            self.resolve(context, &Self::host_key(&host));
            self.resolve(context, &format!("power_on/{host}"));
        }
        context.wake(&host);
        self.view(context);
        Ok(())
    }

    /// A host that has joined before comes back in its next boot: what was so of the one before is over.
    fn booted_anew(&mut self, context: &mut Context, host: &HostName, facts: HostFacts) -> Result<(), Refused> {
        let incarnation = facts.incarnation.clone();
        self.keep_of_departed(host);
        let Some(known) = self.hosts.get_mut(host) else { return Err(Refused::NoHost { host: host.clone() }) };
        let before = std::mem::replace(&mut known.facts, facts).incarnation;
        if known.past.len() >= PAST_BOOTS_MAX {
            known.past.remove(0);
        }
        known.past.push(before);
        known.life = Life::Up;
        known.life_since = context.index;
        known.joined = context.index;
        known.lease = known.lease.of_new_boot();
        known.powered_on = None;
        // What it announced has happened: it is back. Maintenance and draining outlast a reboot.
        match known.mode {
            Mode::Active | Mode::Draining | Mode::Maintenance => {}
            Mode::Leaving { .. } => {
                known.mode = std::mem::take(&mut known.mode_on_return);
                known.mode_since = context.index;
            }
        }
        self.ask_new_boot(context, host, &incarnation);
        Ok(())
    }

    /// A new boot answers for the old one: it is ordered to release every guest that the old boot may have run (R10).
    fn ask_new_boot(&mut self, context: &mut Context, host: &HostName, incarnation: &Incarnation) {
        self.drop_orders(|order_host, order_incarnation| order_host == host && order_incarnation != incarnation);
        for guest in
            self.guests_on(|tenure_host, tenure_incarnation| tenure_host == host && tenure_incarnation != incarnation)
        {
            if let Some(Phase::Migrating(_)) = self.guests.get(&guest).map(|known| &known.phase) {
                self.half_rebooted(context, &guest, host);
            } else {
                self.guest_hit(context, &guest, format!("{guest} is down: its host {host} has booted anew"), None);
                let avoid = self.avoided_by(&guest);
                self.release_now(context, &guest, &format!("{host} has booted anew"), avoid, StopHow::PullPlug);
            }
        }
    }

    /// Where a guest that is being stopped should not start next: its ladder has sent it away from there. An earlier version forgets that
    /// when its host boots anew (R26).
    fn avoided_by(&self, guest: &GuestName) -> BTreeSet<HostName> {
        match self.guests.get(guest).map(|known| &known.phase) {
            Some(Phase::Releasing { avoid, .. }) if self.level >= FeatureLevel::KEPT_AWAY => avoid.clone(),
            Some(_) | None => BTreeSet::new(),
        }
    }

    fn guests_on(&self, matches: impl Fn(&HostName, &Incarnation) -> bool) -> Vec<GuestName> {
        self.guests
            .iter()
            .filter(|(_, guest)| guest.tenures().iter().any(|tenure| matches(&tenure.host, &tenure.incarnation)))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Forgets orders to a boot that cannot answer any more. Not its fence orders: what it has sent to a power device may
    /// still arrive, so they count until that cannot be (R20).
    fn drop_orders(&mut self, gone: impl Fn(&HostName, &Incarnation) -> bool) {
        self.orders
            .retain(|_, order| matches!(order.kind, OrderKind::Fence { .. }) || !gone(&order.host, &order.incarnation));
    }

    /// Opens the incident of a guest that has lost its host.
    pub(super) fn guest_hit(
        &mut self,
        context: &Context,
        guest: &GuestName,
        summary: String,
        last_well: Option<WallTime>,
    ) {
        let at = context.at;
        let incident = self.incident(context, &Self::guest_key(guest), &summary);
        incident.summary = summary;
        incident.rung = Some("failover".to_owned());
        incident.guests = vec![guest.clone()];
        if incident.stamps.detected.is_none() || incident.stamps.started.is_some() {
            incident.stamps = crate::incident::Stamps { began: last_well, detected: Some(at), ..Default::default() };
        }
    }

    /// A person has looked at a host whose boot was heard after it was proven gone: their word takes the place of the proof
    /// that was wrong. Its guests are free already.
    fn confirmed_gone(
        &mut self,
        context: &mut Context,
        host: HostName,
        incarnation: Incarnation,
        proof: Proof,
    ) -> Result<(), Refused> {
        let is_word = matches!(proof.kind(), ProofKind::Operator { .. });
        let doubted = is_word && self.is_doubted(&host);
        let Some(known) = self.hosts.get_mut(&host).filter(|_| doubted) else {
            return Err(Refused::Already { why: format!("{host} is proven gone already") });
        };
        known.life = Life::Gone { proof: proof.clone() };
        self.resolve(context, &Self::fencing_key(&host));
        self.note(context, Event::HostGone { host, incarnation, proof, last_words: None });
        Ok(())
    }

    pub(super) fn host_gone(
        &mut self,
        context: &mut Context,
        proof: Proof,
        last_well: Option<WallTime>,
        last_words: Option<String>,
    ) -> Result<(), Refused> {
        let Some((host, incarnation)) = proof.host_gone().map(|(host, boot)| (host.clone(), boot.clone())) else {
            return Err(Refused::Already { why: "the proof is not about a host".to_owned() });
        };
        let known = in_boot(&mut self.hosts, &host, &incarnation)?;
        if let Life::Gone { .. } = known.life {
            return self.confirmed_gone(context, host, incarnation, proof);
        }
        if known.is_contested() {
            // R11: nobody knows which of the machines is off.
            let why = "is quarantined: two machines or two boots use its name, so no word that it is off proves \
                       anything before the quarantine is lifted"
                .to_owned();
            return Err(Refused::Host { host, why });
        }
        self.lease_proof_holds(&proof)?;
        let owed = self.owed_by(&host);
        let known = self.hosts.get_mut(&host).ok_or_else(|| Refused::NoHost { host: host.clone() })?;
        known.lease.owes = owed;
        // The proof names the boot that is over, so it counts also while an attempt is under way: the guests are freed,
        // and the host's next boot stays out until the attempt has ended (R20).
        known.life_since = context.index;
        known.life = Life::Gone { proof: proof.clone() };
        // Boots follow one another, so what a boot before this one may still have run is over with it.
        let guests = self.guests_on(|on, _| *on == host);
        let last_words = last_words.map(|words| clean_to(&words, LAST_WORDS_BYTES_MAX));
        self.tell_gone(context, &host, &guests, &proof, last_well, last_words.as_deref());
        let (name, boot, had) = (host.clone(), incarnation.clone(), proof.clone());
        self.note(context, Event::HostGone { host: name, incarnation: boot, proof: had, last_words });
        self.drop_orders(|on, boot| *on == host && *boot == incarnation);
        self.keep_of_departed(&host);
        for guest in &guests {
            self.tenure_gone(context, guest, &host, &proof);
        }
        self.view(context);
        Ok(())
    }

    /// Tells people of a host that is proven gone, and of the guests that it had.
    fn tell_gone(
        &mut self,
        context: &Context,
        host: &HostName,
        guests: &[GuestName],
        proof: &Proof,
        last_well: Option<WallTime>,
        last_words: Option<&str>,
    ) {
        let known_as = match proof.kind() {
            ProofKind::LeaseExpired { .. } => format!("{host} is cut off, and has stopped its guests"),
            _ => format!("{host} is off"),
        };
        let (at, summary) = (context.at, known_as.clone());
        let incident = self.incident(context, &Self::host_key(host), &summary);
        incident.summary = summary;
        incident.stamps.began = incident.stamps.began.or(last_well);
        incident.stamps.detected.get_or_insert(at);
        incident.stamps.proven = Some(at);
        incident.severity = Severity::Error;
        incident.human = None;
        incident.proof = Some((proof.word().to_owned(), proof.to_string()));
        incident.did(format!("Holdfast knows that {known_as}: {proof}."));
        if let Some(words) = last_words {
            incident.did(format!("Its last words: {words}."));
        }
        for guest in guests {
            self.guest_hit(context, guest, format!("{guest} is down: its host {host} has failed"), last_well);
            let incident = self.incident(context, &Self::guest_key(guest), "");
            incident.stamps.proven = Some(at);
            incident.proof = Some((proof.word().to_owned(), proof.to_string()));
        }
    }

    /// What a boot that is proven gone may not run any more, and up to which epoch, should it be alive after all (R10).
    fn owed_by(&self, host: &HostName) -> std::collections::BTreeMap<GuestName, crate::names::Epoch> {
        let newest = |guest: &crate::state::Guest| {
            guest.tenures().into_iter().filter(|tenure| tenure.host == *host).map(|tenure| tenure.epoch).max()
        };
        self.guests.iter().filter_map(|(name, guest)| Some((name.clone(), newest(guest)?))).collect()
    }

    pub(super) fn mode_set(
        &mut self,
        context: &mut Context,
        host: &HostName,
        mode: Mode,
        by: String,
    ) -> Result<(), Refused> {
        let known = self.hosts.get_mut(host).ok_or_else(|| Refused::NoHost { host: host.clone() })?;
        if known.mode == mode {
            return Err(Refused::Already { why: format!("{host} is {} already", mode.word()) });
        }
        let asks = match mode {
            Mode::Active => None,
            Mode::Draining => Some("drained"),
            Mode::Maintenance => Some("set to maintenance"),
            Mode::Leaving { .. } => Some("announced to leave"),
        };
        let is = match &known.life {
            Life::Up => None,
            Life::Fencing(_) => Some("is being fenced"),
            Life::Gone { .. } => Some("is proven gone"),
        };
        if let (Some(asked), Some(is)) = (asks, is) {
            let why = format!("{is}; only a host with nothing against it can be {asked}");
            return Err(Refused::Host { host: host.clone(), why });
        }
        let is_switched = known.drill.as_ref().is_some_and(|drill| matches!(drill.step, DrillStep::Switching { .. }));
        if mode == Mode::Active && is_switched {
            // What it were given now would lose its host at once.
            let why = "is being switched off and on for a drill; resume it when that has ended".to_owned();
            return Err(Refused::Host { host: host.clone(), why });
        }
        known.mode_on_return = match (mode, known.mode) {
            (Mode::Leaving { .. }, Mode::Leaving { .. }) => known.mode_on_return,
            (Mode::Leaving { .. }, before) => before,
            (Mode::Active | Mode::Draining | Mode::Maintenance, _) => Mode::default(),
        };
        known.mode_since = context.index;
        known.mode = mode;
        let expected = !matches!(known.life, Life::Gone { .. });
        self.keep_nothing_unless(host, expected);
        self.note(context, Event::ModeSet { host: host.clone(), mode: mode.word().to_owned(), by });
        self.view(context);
        Ok(())
    }
}

/// The host, if this is the boot with which it has joined: what was decided about an earlier one does not fit any more.
pub(super) fn in_boot<'h>(
    hosts: &'h mut BTreeMap<HostName, Host>,
    host: &HostName,
    incarnation: &Incarnation,
) -> Result<&'h mut Host, Refused> {
    let known = hosts.get_mut(host).ok_or_else(|| Refused::NoHost { host: host.clone() })?;
    if known.facts.incarnation != *incarnation {
        return Err(Refused::Host { host: host.clone(), why: "has booted anew".to_owned() });
    }
    Ok(known)
}
