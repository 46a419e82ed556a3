//! Quarantine: hosts that get no guests until somebody says otherwise (R11), or until they have been calm.

use super::Context;
use crate::{
    change::Refused,
    journal::Event,
    model::Severity,
    names::{HostName, Incarnation},
    order::{Order, OrderKind, OrderOutcome},
    state::{ClusterState, Quarantine, QuarantineCause},
};

impl ClusterState {
    /// Quarantines a host and calls a human. A contested name outranks a host that is only fenced often.
    pub(super) fn quarantine(&mut self, context: &Context, host: &HostName, cause: QuarantineCause) {
        let Some(known) = self.hosts.get_mut(host) else { return };
        let quarantine = Quarantine { cause, since: context.index };
        if known.is_contested() && !quarantine.is_contested() {
            return;
        }
        let (severity, human) = call(host, &known.facts.machine_id, &quarantine);
        let why = quarantine.to_string();
        let summary = format!("{host} is quarantined and gets no guests: {why}");
        known.quarantine = Some(quarantine);
        let at = context.at;
        let incident = self.incident(context, &Self::quarantine_key(host), &summary);
        incident.severity = severity;
        incident.summary = summary;
        incident.human = Some(human);
        incident.stamps.detected.get_or_insert(at);
        self.note(context, Event::HostQuarantined { host: host.clone(), why });
    }

    pub(super) fn name_contested(
        &mut self,
        context: &Context,
        host: &HostName,
        other: Incarnation,
    ) -> Result<(), Refused> {
        let known = self.hosts.get(host).ok_or_else(|| Refused::NoHost { host: host.clone() })?;
        if known.is_contested() || known.facts.incarnation == other {
            return Err(Refused::Already { why: format!("{host} is quarantined, or {other} is its boot") });
        }
        self.quarantine(context, host, QuarantineCause::TwoBoots { other });
        Ok(())
    }

    pub(super) fn quarantine_lifted(
        &mut self,
        context: &mut Context,
        host: &HostName,
        machine_id: Option<String>,
        by: Option<String>,
    ) -> Result<(), Refused> {
        let known = self.hosts.get_mut(host).ok_or_else(|| Refused::NoHost { host: host.clone() })?;
        if known.quarantine.is_none() {
            return Err(Refused::Already { why: format!("{host} is not quarantined") });
        }
        if known.is_contested() && by.is_none() {
            let why = "has a contested name, which only a person can settle".to_owned();
            return Err(Refused::Host { host: host.clone(), why });
        }
        // Which of two boots is left only shows now: the one that should have been over may be it, and may join again.
        if let Some(Quarantine { cause: QuarantineCause::TwoBoots { other }, .. }) = known.quarantine.take() {
            known.past.retain(|past| *past != other);
        }
        // Whoever looked at the host has also seen why it was fenced.
        known.fences.clear();
        if let Some(machine_id) = machine_id {
            known.facts.machine_id = machine_id;
            known.wired.clear();
            known.paths.clear();
            self.forget_found_by(host);
        }
        self.note(context, Event::QuarantineLifted { host: host.clone(), by });
        self.resolve(context, &Self::quarantine_key(host));
        self.view(context);
        Ok(())
    }

    /// What a host whose name is contested says of a guest that it released proves nothing: another machine, or an
    /// earlier boot, may run it (R11).
    pub(super) fn without_contested_word(&self, order: &Order, outcome: OrderOutcome) -> OrderOutcome {
        let contested = self.hosts.get(&order.host).is_some_and(crate::state::Host::is_contested);
        match (&order.kind, outcome) {
            (OrderKind::Release { .. }, OrderOutcome::Done { .. }) if contested => {
                let detail = format!("two machines or two boots use the name {}, so its word is no proof", order.host);
                OrderOutcome::Failed { detail }
            }
            (_, outcome) => outcome,
        }
    }

    /// The incident key of a host's quarantine.
    pub(crate) fn quarantine_key(host: &HostName) -> String {
        format!("quarantine/{host}")
    }
}

/// How urgent it is, and what a human must do.
fn call(host: &HostName, machine: &str, quarantine: &Quarantine) -> (Severity, String) {
    let lift = format!("`holdfast host lift-quarantine {host} --operator YOUR-NAME`");
    match &quarantine.cause {
        QuarantineCause::OtherMachine { claims } => (
            Severity::Critical,
            format!(
                "The name {host} belongs to machine {machine}. Switch off whichever of the two machines should not have \
                 it, or give it another name. Then run {lift}, with `--machine {claims}` if that is the right one from here \
                 on. Until then nobody's word that {host} is off counts, and its guests start nowhere else."
            ),
        ),
        QuarantineCause::TwoBoots { .. } => (
            Severity::Critical,
            format!(
                "Two machines, or a copy or an old snapshot of one, use the name {host}. Switch off the one that should \
                 not have it; then run {lift}. Until then nobody's word that {host} is off counts, and its guests start \
                 nowhere else."
            ),
        ),
        QuarantineCause::FencedOften { .. } => (
            Severity::Error,
            format!(
                "Find out why {host} fails again and again; then run {lift}. It also ends by itself when {host} has not been \
                 fenced for an hour."
            ),
        ),
    }
}
