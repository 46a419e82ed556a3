//! Hosts: joining, fencing, proof.

use super::Context;
use crate::{
    change::Refused,
    journal::Event,
    model::{FenceLevel, Severity},
    names::{GuestName, HostName, Incarnation, OrderId},
    order::OrderKind,
    proof::{Proof, ProofKind},
    state::{ClusterState, Fence, Guest, Host, HostFacts, Life, Mode, PAST_BOOTS_MAX, Phase},
    time::WallTime,
};

impl ClusterState {
    pub(super) fn host_joined(
        &mut self,
        context: &mut Context,
        host: HostName,
        facts: HostFacts,
    ) -> Result<(), Refused> {
        let incarnation = facts.incarnation.clone();
        let under_way = self.fence_under_way(&host);
        let mut same_boot = false;
        match self.hosts.get_mut(&host) {
            None => {
                self.hosts.insert(
                    host.clone(),
                    Host { facts, mode: Mode::default(), life: Life::Up, past: Vec::new(), joined: context.index },
                );
            }
            Some(known) if known.facts.machine_id != facts.machine_id => {
                let why = format!("was machine {} and says it is machine {}", known.facts.machine_id, facts.machine_id);
                return Err(Refused::Host { host, why });
            }
            Some(known) if known.facts.incarnation == facts.incarnation => {
                if known.facts == facts {
                    return Err(Refused::Already { why: format!("{host} has joined") });
                }
                known.facts = facts;
                same_boot = true;
            }
            Some(known) if known.past.contains(&facts.incarnation) => {
                // A late sync of a boot that is over, or two machines under one name (R11): neither undoes a boot.
                return Err(Refused::Host { host, why: format!("has booted anew since its boot {incarnation}") });
            }
            Some(known) => {
                if let Some(order) = under_way {
                    let why = format!("is being fenced ({order}) and cannot join until that has ended");
                    return Err(Refused::Host { host, why });
                }
                let before = std::mem::replace(&mut known.facts, facts).incarnation;
                if known.past.len() >= PAST_BOOTS_MAX {
                    known.past.remove(0);
                }
                known.past.push(before);
                known.life = Life::Up;
                known.joined = context.index;
                self.ask_new_boot(context, &host, &incarnation);
            }
        }
        self.note(context, Event::HostJoined { host: host.clone(), incarnation });
        if !same_boot {
            self.resolve(context, &Self::host_key(&host));
        }
        self.view(context);
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
                self.release_now(
                    context,
                    &guest,
                    &format!("{host} has booted anew"),
                    std::collections::BTreeSet::new(),
                );
            }
        }
    }

    fn guests_on(&self, matches: impl Fn(&HostName, &Incarnation) -> bool) -> Vec<GuestName> {
        self.guests
            .iter()
            .filter(|(_, guest)| guest.tenures().iter().any(|tenure| matches(&tenure.host, &tenure.incarnation)))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Forgets orders to a boot that cannot answer any more; fences that it was carrying out count as failed.
    fn drop_orders(&mut self, gone: impl Fn(&HostName, &Incarnation) -> bool) {
        let dropped: Vec<OrderId> =
            self.orders.values().filter(|order| gone(&order.host, &order.incarnation)).map(|order| order.id).collect();
        for id in dropped {
            self.orders.remove(&id);
            for host in self.hosts.values_mut() {
                if let Life::Fencing(fence) = &mut host.life
                    && fence.attempt == Some(id)
                {
                    fence.attempt = None;
                    fence.last_error = Some("the host that was carrying it out has gone".to_owned());
                }
            }
        }
    }

    pub(super) fn fence_opened(
        &mut self,
        context: &mut Context,
        host: &HostName,
        incarnation: &Incarnation,
        evidence: Vec<String>,
        last_well: Option<WallTime>,
    ) -> Result<(), Refused> {
        let known = self.hosts.get_mut(host).ok_or_else(|| Refused::NoHost { host: host.clone() })?;
        if known.facts.incarnation != *incarnation {
            return Err(Refused::Host { host: host.clone(), why: "has booted anew".to_owned() });
        }
        if known.life != Life::Up {
            return Err(Refused::Already { why: format!("{host} is fenced or gone already") });
        }
        known.life = Life::Fencing(Fence {
            opened: context.index,
            evidence: evidence.clone(),
            attempt: None,
            attempts: 0,
            next_level: 0,
            failed: None,
            last_error: None,
        });
        let guests: Vec<GuestName> = self.guests_of(host).map(|(name, _)| name.clone()).collect();
        let (at, summary) = (context.at, format!("{host} has failed"));
        let incident = self.incident(context, &Self::host_key(host), &summary);
        incident.stamps.began = last_well;
        incident.stamps.detected = Some(at);
        incident.guests.clone_from(&guests);
        for guest in guests {
            self.guest_hit(context, &guest, format!("{guest} is down: its host {host} has failed"), last_well);
        }
        self.note(context, Event::HostFailed { host: host.clone(), incarnation: incarnation.clone(), evidence });
        Ok(())
    }

    /// Opens the incident of a guest that has lost its host.
    fn guest_hit(&mut self, context: &Context, guest: &GuestName, summary: String, last_well: Option<WallTime>) {
        let at = context.at;
        let incident = self.incident(context, &Self::guest_key(guest), &summary);
        incident.summary = summary;
        incident.rung = Some("failover".to_owned());
        incident.guests = vec![guest.clone()];
        if incident.stamps.detected.is_none() || incident.stamps.started.is_some() {
            incident.stamps = crate::incident::Stamps { began: last_well, detected: Some(at), ..Default::default() };
        }
    }

    pub(super) fn fence_attempted(
        &mut self,
        context: &mut Context,
        host: &HostName,
        executor: &HostName,
        level: usize,
    ) -> Result<(), Refused> {
        let device = self.policies.fencing.get(host).and_then(|levels| levels.get(level)).cloned();
        let Some(device @ FenceLevel::Ipmi(_)) = device else {
            return Err(Refused::Host {
                host: host.clone(),
                why: format!("has no power device at level {}", level + 1),
            });
        };
        let known = self.hosts.get(host).ok_or_else(|| Refused::NoHost { host: host.clone() })?;
        let target_incarnation = known.facts.incarnation.clone();
        let Life::Fencing(Fence { attempt: None, .. }) = &known.life else {
            return Err(Refused::Already { why: format!("{host} is not waiting for a fence attempt") });
        };
        let kind = OrderKind::Fence { target: host.clone(), target_incarnation, level, device };
        let id = self.order(context, executor, kind)?;
        if let Some(Life::Fencing(fence)) = self.hosts.get_mut(host).map(|known| &mut known.life) {
            fence.attempt = Some(id);
            fence.attempts = fence.attempts.saturating_add(1);
        }
        self.note(context, Event::FenceOrdered { host: host.clone(), executor: executor.clone(), level });
        Ok(())
    }

    /// Records how a fence attempt ended. That the device said off becomes proof by its own command.
    pub(super) fn fence_ended(&mut self, context: &mut Context, host: &HostName, id: OrderId, error: Option<String>) {
        let levels = self.policies.fencing.get(host).map_or(0, Vec::len);
        let Some(Life::Fencing(fence)) = self.hosts.get_mut(host).map(|known| &mut known.life) else { return };
        if fence.attempt != Some(id) {
            return;
        }
        fence.attempt = None;
        // Also after "done": where that does not become proof, the next attempt has to wait like after a failure.
        fence.failed = Some(context.index);
        let Some(error) = error else { return };
        fence.last_error = Some(error.clone());
        fence.next_level = if levels == 0 { 0 } else { (fence.next_level + 1) % levels };
        self.note(context, Event::FenceFailed { host: host.clone(), detail: error.clone() });
        let human = format!(
            "Make sure that {host} is off (pull its power if need be), then run `holdfast host confirm-off {host} --operator YOUR-NAME`. \
             Until then its guests start nowhere else."
        );
        let guests = self.guests_of(host).map(|(name, _)| name.clone()).collect();
        let incident = self.incident(context, &Self::host_key(host), "");
        incident.severity = Severity::Critical;
        incident.summary = format!("{host} has failed and could not be switched off: {error}");
        incident.human = Some(human);
        incident.guests = guests;
    }

    pub(super) fn fence_superseded(
        &mut self,
        context: &mut Context,
        host: &HostName,
        why: String,
    ) -> Result<(), Refused> {
        let known = self.hosts.get_mut(host).ok_or_else(|| Refused::NoHost { host: host.clone() })?;
        let Life::Fencing(Fence { attempt: None, .. }) = &known.life else {
            return Err(Refused::Already { why: format!("{host} has no fence that could be superseded") });
        };
        known.life = Life::Up;
        // Guests that are not well for another reason keep their incidents until the probes confirm them.
        let well = |guest: &Guest| matches!(guest.phase, Phase::Running { verified: true, .. });
        let guests: Vec<GuestName> =
            self.guests_of(host).filter(|(_, guest)| well(guest)).map(|(name, _)| name.clone()).collect();
        self.note(context, Event::FenceSuperseded { host: host.clone(), why });
        self.resolve(context, &Self::host_key(host));
        for guest in guests {
            self.resolve(context, &Self::guest_key(&guest));
        }
        Ok(())
    }

    pub(super) fn host_gone(
        &mut self,
        context: &mut Context,
        proof: Proof,
        last_well: Option<WallTime>,
    ) -> Result<(), Refused> {
        let Some((host, incarnation)) = proof.host_gone().map(|(host, boot)| (host.clone(), boot.clone())) else {
            return Err(Refused::Already { why: "the proof is not about a host".to_owned() });
        };
        let under_way = self.fence_under_way(&host);
        let known = self.hosts.get_mut(&host).ok_or_else(|| Refused::NoHost { host: host.clone() })?;
        if known.facts.incarnation != incarnation {
            return Err(Refused::Host { host, why: "has booted anew".to_owned() });
        }
        if let Life::Gone { .. } = known.life {
            return Err(Refused::Already { why: format!("{host} is proven gone already") });
        }
        let by_person = matches!(proof.kind(), ProofKind::Operator { .. });
        if let Some(order) = under_way.filter(|_| !by_person) {
            // The executor's own report comes first. A person does not have to wait for a device that hangs: the guests
            // are freed, and the host's next boot stays out until the attempt has ended (R20).
            return Err(Refused::Host { host, why: format!("has a fence attempt under way ({order})") });
        }
        known.life = Life::Gone { proof: proof.clone() };
        let (at, summary) = (context.at, format!("{host} is off"));
        // Boots follow one another, so what a boot before this one may still have run is over with it.
        let guests = self.guests_on(|on, _| *on == host);
        let incident = self.incident(context, &Self::host_key(&host), &summary);
        incident.summary = summary;
        incident.stamps.began = incident.stamps.began.or(last_well);
        incident.stamps.detected.get_or_insert(at);
        incident.stamps.proven = Some(at);
        incident.severity = Severity::Error;
        incident.human = None;
        incident.proof = Some((proof.word().to_owned(), proof.to_string()));
        incident.did(format!("Holdfast knows that {host} is off: {proof}."));
        for guest in &guests {
            self.guest_hit(context, guest, format!("{guest} is down: its host {host} has failed"), last_well);
            let incident = self.incident(context, &Self::guest_key(guest), "");
            incident.stamps.proven = Some(at);
            incident.proof = Some((proof.word().to_owned(), proof.to_string()));
        }
        self.note(
            context,
            Event::HostGone { host: host.clone(), incarnation: incarnation.clone(), proof: proof.clone() },
        );
        self.drop_orders(|on, boot| *on == host && *boot == incarnation);
        for guest in &guests {
            self.tenure_gone(context, guest, &host, &proof);
        }
        self.view(context);
        Ok(())
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
            return Err(Refused::Already { why: format!("{host} is in that mode") });
        }
        if mode == Mode::Draining && known.life != Life::Up {
            return Err(Refused::Host {
                host: host.clone(),
                why: "is not well; only a living host can be drained".to_owned(),
            });
        }
        known.mode = mode;
        let word = match mode {
            Mode::Active => "active",
            Mode::Draining => "draining",
        };
        self.note(context, Event::ModeSet { host: host.clone(), mode: word.to_owned(), by });
        self.view(context);
        Ok(())
    }
}
