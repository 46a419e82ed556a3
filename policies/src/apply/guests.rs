//! Guests: placement, ladder steps, stopping, and what happens to a guest whose host is proven gone.

use std::collections::BTreeSet;

use super::{Context, failures::start_tries};
use crate::{
    change::Refused,
    feature_level::FeatureLevel,
    incident::Stamps,
    journal::Event,
    ladder::{LadderKind, ladder_of},
    model::{Rung, Severity},
    names::{GuestName, HostName, ServiceName},
    order::{Order, OrderKind, StopHow},
    proof::{Proof, ProofKind},
    state::{ClusterState, Guest, Life, Phase, Position, Tenure},
    time::{Span, WallTime},
};

impl ClusterState {
    pub(super) fn known(&self, guest: &GuestName) -> Result<&Guest, Refused> {
        self.guests.get(guest).ok_or_else(|| Refused::NoGuest { guest: guest.clone() })
    }

    pub(super) fn guest_free(&mut self, context: &mut Context, guest: &GuestName, proof: Proof) -> Result<(), Refused> {
        let known = self.known(guest)?;
        let (Phase::Unplaced, ProofKind::NotHere { hosts }) = (&known.phase, proof.kind()) else {
            return Err(Self::refuse_phase(guest, known, "unplaced"));
        };
        // A host that joined or rebooted since the proof was made has not been asked.
        for (host, known) in self.hosts.iter().filter(|(_, known)| known.facts.guests) {
            if hosts.get(host) != Some(&known.facts.incarnation) && !matches!(known.life, Life::Gone { .. }) {
                return Err(Refused::Host {
                    host: host.clone(),
                    why: "has not said that the guest is not there".to_owned(),
                });
            }
        }
        self.note(context, Event::GuestFree { guest: guest.clone(), proof: proof.clone() });
        self.set_phase(context, guest, Phase::Free { proof, last: None, avoid: BTreeSet::new(), since: context.index });
        Ok(())
    }

    pub(super) fn guest_adopted(
        &mut self,
        context: &mut Context,
        guest: &GuestName,
        tenure: Tenure,
    ) -> Result<(), Refused> {
        let known = self.known(guest)?;
        if !matches!(known.phase, Phase::Unplaced) {
            return Err(Self::refuse_phase(guest, known, "unplaced"));
        }
        if !self.is_current(&tenure.host, &tenure.incarnation) {
            return Err(Refused::Host { host: tenure.host, why: "has booted anew".to_owned() });
        }
        if self.release_under_way(guest, &tenure.host).is_some() {
            return Err(Refused::Host { host: tenure.host, why: "is stopping it".to_owned() });
        }
        let (host, epoch) = (tenure.host.clone(), tenure.epoch);
        self.note(context, Event::GuestAdopted { guest: guest.clone(), host, epoch });
        let phase = Phase::Running { tenure, since: context.index, verified: false, action: None };
        self.set_phase(context, guest, phase);
        Ok(())
    }

    /// Starts a free guest. That it is free carries the proof (S2).
    pub(super) fn place(
        &mut self,
        context: &mut Context,
        guest: &GuestName,
        host: &HostName,
        why: String,
    ) -> Result<(), Refused> {
        let known = self.known(guest)?;
        let Phase::Free { proof, .. } = &known.phase else {
            return Err(Self::refuse_phase(guest, known, "free"));
        };
        self.meant_to_run(guest)?;
        let proof = (proof.word().to_owned(), proof.to_string());
        let is_told = self.open_incident(&Self::guest_key(guest)).is_some();
        // That its ladder was climbed a while ago says nothing of this start: what failed has its incident, and a planned stop has none.
        let is_down = is_told || (self.level < FeatureLevel::PLANNED_STOPS && known.ladder.position.is_some());
        let target = self.hosts.get(host).ok_or_else(|| Refused::NoHost { host: host.clone() })?;
        if target.life != Life::Up {
            return Err(Refused::Host { host: host.clone(), why: "is fenced or gone".to_owned() });
        }
        // Decided before, committed after: what operators said in between counts.
        if self.level >= FeatureLevel::TAKES_NONE
            && let Some(why) = self.takes_no_guests(host)
        {
            return Err(Refused::Target { guest: guest.clone(), host: host.clone(), why });
        }
        let tenure = self.start(context, guest, host)?;
        if is_down {
            let at = context.at;
            let incident = self.incident(context, &Self::guest_key(guest), &format!("{guest} is down"));
            incident.stamps.ordered = Some(at);
            incident.stamps.started = None;
            incident.stamps.verified = None;
            incident.proof = Some(proof);
            incident.did(format!("Holdfast starts {guest} on {host}: {why}."));
        }
        self.note(context, Event::GuestPlaced { guest: guest.clone(), host: host.clone(), epoch: tenure.epoch, why });
        Ok(())
    }

    /// Orders a start on a host under a new epoch. The caller has the proof, or the host is the one it runs on.
    fn start(&mut self, context: &mut Context, guest: &GuestName, host: &HostName) -> Result<Tenure, Refused> {
        let declared = self.policies.guests.get(guest).ok_or_else(|| Refused::NoGuest { guest: guest.clone() })?;
        let (definition, epoch) = (declared.qemu.clone(), self.epoch(context));
        let incarnation = self
            .hosts
            .get(host)
            .map(|known| known.facts.incarnation.clone())
            .ok_or_else(|| Refused::NoHost { host: host.clone() })?;
        let order = self.order(context, host, OrderKind::Start { guest: guest.clone(), epoch, definition })?;
        let tenure = Tenure { host: host.clone(), incarnation, epoch };
        self.set_phase(context, guest, Phase::Starting { tenure: tenure.clone(), order });
        Ok(tenure)
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one command, taken apart")]
    pub(super) fn climb(
        &mut self,
        context: &mut Context,
        guest: &GuestName,
        (ladder, rung_index): (LadderKind, usize),
        to: Option<&HostName>,
        why: String,
        evidence: Vec<String>,
        last_well: Option<WallTime>,
    ) -> Result<(), Refused> {
        let known = self.known(guest)?;
        let Phase::Running { tenure, action: None, .. } = &known.phase else {
            return Err(Self::refuse_phase(guest, known, "running without an action under way"));
        };
        self.meant_to_run(guest)?;
        let tenure = tenure.clone();
        let here = |position: &&Position| position.rung == rung_index && position.ladder == ladder;
        let same = known.ladder.position.as_ref().filter(here);
        let tries = same.map_or(1, |position| position.tries.saturating_add(1));
        let rungs = ladder_of(&self.policies, guest, ladder);
        let Some(rung) = rungs.get(rung_index).cloned() else {
            return Err(Refused::Already { why: format!("the ladder of {guest} has no rung {}", rung_index + 1) });
        };
        // Each rung has its budget (S8); a command that was proposed twice does not spend it twice.
        if tries > rung.tries() {
            return Err(Refused::Already { why: format!("the rung {} of {guest} has had its tries", rung.name()) });
        }
        self.take(context, guest, &tenure, &rung, to)?;
        if let Some(known) = self.guests.get_mut(guest) {
            let position = Position { rung: rung_index, tries, acted: context.index, ladder, ..Position::default() };
            known.ladder.position = Some(position);
        }
        let at = context.at;
        let incident = self.incident(context, &Self::guest_key(guest), &format!("{guest}: {why}"));
        incident.summary = format!("{guest}: {why}");
        incident.rung = Some(rung.name().to_owned());
        incident.guests = vec![guest.clone()];
        if incident.stamps.detected.is_none() {
            incident.stamps = Stamps { began: last_well, detected: Some(at), ..Stamps::default() };
        }
        incident.stamps.ordered = Some(at);
        incident.stamps.started = None;
        incident.stamps.verified = None;
        incident.did(format!("Holdfast takes the rung {} (try {tries}): {why}.", rung.name()));
        if let Rung::Page { severity } = rung {
            incident.severity = severity;
            incident.human = Some(called_for(guest, ladder));
        }
        let rung = rung.name().to_owned();
        self.note(context, Event::RungTaken { guest: guest.clone(), rung, attempt: tries, why, evidence });
        Ok(())
    }

    /// Carries a rung out, as far as orders go.
    fn take(
        &mut self,
        context: &mut Context,
        guest: &GuestName,
        tenure: &Tenure,
        rung: &Rung,
        to: Option<&HostName>,
    ) -> Result<(), Refused> {
        match rung {
            Rung::RestartService { run, .. } => {
                let kind = OrderKind::RestartService { guest: guest.clone(), epoch: tenure.epoch, run: run.clone() };
                self.act_on(context, guest, tenure, kind)?;
            }
            Rung::RebootGuest { wait, .. } => {
                let kind = OrderKind::Reboot { guest: guest.clone(), epoch: tenure.epoch, within: *wait };
                self.act_on(context, guest, tenure, kind)?;
            }
            Rung::ResumeGuest { .. } => {
                let kind = OrderKind::Resume { guest: guest.clone(), epoch: tenure.epoch };
                self.act_on(context, guest, tenure, kind)?;
            }
            Rung::ResetGuest { .. } => {
                // The same boot of the same host: its agent stops the old process before it starts the new one.
                if !self.is_current(&tenure.host, &tenure.incarnation) {
                    return Err(Refused::Host { host: tenure.host.clone(), why: "has booted anew".to_owned() });
                }
                // R20: no start on a host with an open fence.
                if self.hosts.get(&tenure.host).is_some_and(|host| host.life != Life::Up) {
                    return Err(Refused::Host { host: tenure.host.clone(), why: "is fenced or gone".to_owned() });
                }
                self.start(context, guest, &tenure.host)?;
            }
            Rung::Failover { .. } => {
                let avoid = BTreeSet::from([tenure.host.clone()]);
                self.release_now(context, guest, "its ladder says failover", avoid, StopHow::PullPlug);
            }
            Rung::Migrate { .. } => {
                let to = to.ok_or_else(|| Refused::Already { why: "no host to move to".to_owned() })?.clone();
                self.migrate(context, guest, &to, "its ladder says migrate".to_owned())?;
            }
            // What was verified before does not hold: only the probes' next word ends the incident.
            Rung::Page { .. } => {
                if let Some(Phase::Running { verified, .. }) = self.guests.get_mut(guest).map(|known| &mut known.phase)
                {
                    *verified = false;
                }
            }
        }
        Ok(())
    }

    /// Orders something of a guest that goes on running where it is.
    fn act_on(
        &mut self,
        context: &mut Context,
        guest: &GuestName,
        tenure: &Tenure,
        kind: OrderKind,
    ) -> Result<(), Refused> {
        let order = self.order(context, &tenure.host, kind)?;
        if let Some(Phase::Running { action, verified, .. }) = self.guests.get_mut(guest).map(|known| &mut known.phase)
        {
            *action = Some(order);
            *verified = false;
        }
        Ok(())
    }

    /// How a guest that is well is stopped, as its operator wants it.
    pub(super) fn in_order(&self, guest: &GuestName) -> StopHow {
        let declared = self.policies.guests.get(guest);
        let within = declared.map_or(Span::ms(0), |declared| declared.needs.stop_timeout);
        if within.0.is_zero() { StopHow::PullPlug } else { StopHow::ShutDown { within } }
    }

    pub(super) fn stop(&mut self, context: &mut Context, guest: &GuestName, why: &str) -> Result<(), Refused> {
        let known = self.known(guest)?;
        if !matches!(known.phase, Phase::Running { .. }) {
            return Err(Self::refuse_phase(guest, known, "running"));
        }
        self.in_hand(guest)?;
        self.head(guest, None);
        let how = self.in_order(guest);
        self.release_now(context, guest, why, BTreeSet::new(), how);
        Ok(())
    }

    /// Orders whatever boot the host has joined with to stop the guest up to its epoch and say when nothing is left.
    pub(super) fn release_now(
        &mut self,
        context: &mut Context,
        guest: &GuestName,
        why: &str,
        avoid: BTreeSet<HostName>,
        how: StopHow,
    ) {
        let Some(tenure) = self.guests.get(guest).and_then(|known| match &known.phase {
            Phase::Starting { tenure, .. } | Phase::Running { tenure, .. } | Phase::Releasing { tenure, .. } => {
                Some(tenure.clone())
            }
            Phase::Unplaced | Phase::Free { .. } | Phase::Migrating(_) => None,
        }) else {
            return;
        };
        self.drop_guest_orders(guest);
        let kind = OrderKind::Release { guest: guest.clone(), epoch: tenure.epoch, how };
        let order = self.order(context, &tenure.host, kind).ok();
        let host = tenure.host.clone();
        self.note(context, Event::GuestReleasing { guest: guest.clone(), host, why: why.to_owned() });
        self.set_phase(context, guest, Phase::Releasing { tenure, order, avoid, failed: None });
    }

    /// Forgets the open orders of a guest: its phase is about to say something else. A host that was told to stop what it had of
    /// the guest without a right is still to say that nothing is left: nothing starts before.
    pub(super) fn drop_guest_orders(&mut self, guest: &GuestName) {
        let known = self.guests.get(guest).filter(|_| self.level >= FeatureLevel::STRAYS);
        let strays = known.map(Guest::strays_elsewhere).unwrap_or_default();
        let stops_a_stray =
            |order: &Order| matches!(order.kind, OrderKind::Release { .. }) && strays.contains(&order.host);
        self.orders.retain(|_, order| order.kind.guest().is_none_or(|(name, _)| name != guest) || stops_a_stray(order));
    }

    pub(super) fn release_again(&mut self, context: &mut Context, guest: &GuestName) -> Result<(), Refused> {
        let known = self.known(guest)?;
        match &known.phase {
            Phase::Releasing { order: None, avoid, .. } => {
                let avoid = avoid.clone();
                let why = "the last attempt to stop it did not succeed";
                self.release_now(context, guest, why, avoid, StopHow::PullPlug);
                Ok(())
            }
            Phase::Migrating(_) => self.clear_again(context, guest),
            Phase::Unplaced
            | Phase::Free { .. }
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Releasing { order: Some(_), .. } => {
                Err(Self::refuse_phase(guest, known, "stopping without an order"))
            }
        }
    }

    pub(super) fn verified(
        &mut self,
        context: &mut Context,
        guest: &GuestName,
        unasked: Vec<ServiceName>,
    ) -> Result<(), Refused> {
        let tries = start_tries(self, guest);
        let known = self.guests.get_mut(guest).ok_or_else(|| Refused::NoGuest { guest: guest.clone() })?;
        let Phase::Running { tenure, verified, .. } = &mut known.phase else {
            return Err(Self::refuse_phase(guest, known, "running"));
        };
        *verified = true;
        let host = tenure.host.clone();
        let failed = std::mem::take(&mut known.start_failures).into_iter().filter(|(_, count)| *count >= tries);
        let boot = |on: HostName| self.hosts.get(&on).map(|there| (on, there.facts.incarnation.clone()));
        known.shuns.extend(failed.filter_map(|(on, _)| boot(on)));
        known.shuns.remove(&host);
        if let Some(position) = &mut known.ladder.position {
            position.recovered = true;
            position.acted = context.index;
        }
        let at = context.at;
        let unasked = Some(unasked).filter(|names| !names.is_empty());
        self.note(context, Event::GuestVerified { guest: guest.clone(), host, unasked });
        if let Some(incident) = self.incident_of(context, guest) {
            incident.stamps.verified = Some(at);
            if incident.severity > Severity::Error {
                incident.severity = Severity::Error;
            }
            self.resolve(context, &Self::guest_key(guest));
        }
        Ok(())
    }

    pub(super) fn ladder_reset(&mut self, guest: &GuestName) -> Result<(), Refused> {
        let known = self.guests.get_mut(guest).ok_or_else(|| Refused::NoGuest { guest: guest.clone() })?;
        // One that has been given up waits for a person, however long.
        if known.given_up.is_some() || !known.has_failures() {
            return Err(Refused::Already { why: format!("the ladder of {guest} is at its start") });
        }
        known.forget_failures();
        Ok(())
    }

    /// A tenure of the guest has ended with its host.
    pub(super) fn tenure_gone(&mut self, context: &mut Context, guest: &GuestName, host: &HostName, proof: &Proof) {
        let Some(known) = self.guests.get(guest) else { return };
        match &known.phase {
            Phase::Unplaced | Phase::Free { .. } => {}
            Phase::Starting { .. } | Phase::Running { .. } => {
                self.free(context, guest, proof.clone(), host, BTreeSet::new())
            }
            Phase::Releasing { avoid, .. } => {
                let avoid = avoid.clone();
                self.free(context, guest, proof.clone(), host, avoid);
            }
            Phase::Migrating(_) => self.half_gone(context, guest, host, proof),
        }
    }

    /// The only way into [`Phase::Free`] after a guest was once placed: with proof in hand (S2).
    pub(super) fn free(
        &mut self,
        context: &mut Context,
        guest: &GuestName,
        proof: Proof,
        last: &HostName,
        avoid: BTreeSet<HostName>,
    ) {
        self.drop_guest_orders(guest);
        self.note(context, Event::GuestFree { guest: guest.clone(), proof: proof.clone() });
        self.set_phase(context, guest, Phase::Free { proof, last: Some(last.clone()), avoid, since: context.index });
    }
}

/// What people are asked to do at the end of a ladder.
fn called_for(guest: &GuestName, ladder: LadderKind) -> String {
    match ladder {
        LadderKind::Recovery => format!("{guest} does not recover by itself: look at it (`holdfast explain {guest}`)."),
        LadderKind::Storage => format!(
            "The storage of {guest} failed, and QEMU has stopped it where it was. Mend the storage, then run \
             `holdfast guest cleanup {guest}`: it is let run again."
        ),
    }
}
