//! Fences: opened, attempted, ended, superseded (S3, R20).
//!
//! An attempt is an open order, and it counts for as long as it may still switch the host off: whatever is proven of the
//! host meanwhile, and whatever becomes of the executor. Only its end lets the host's next boot in.

use std::collections::BTreeMap;

use super::{Context, hosts::in_boot};
use crate::{
    change::Refused,
    feature_level::FeatureLevel,
    incident::Incident,
    journal::Event,
    lease::SafeAt,
    model::Severity,
    names::{GuestName, HostName, Incarnation, OrderId},
    order::{OrderKind, Switch},
    state::{ClusterState, FENCES_KEPT_MAX, Fence, Guest, Life, Phase},
    time::WallTime,
};

impl ClusterState {
    pub(super) fn fence_opened(
        &mut self,
        context: &mut Context,
        host: &HostName,
        incarnation: &Incarnation,
        (evidence, last_well): (Vec<String>, Option<WallTime>),
        safe_at: Option<SafeAt>,
    ) -> Result<(), Refused> {
        let known = in_boot(&mut self.hosts, host, incarnation)?;
        if known.life != Life::Up {
            return Err(Refused::Already { why: format!("{host} is fenced or gone already") });
        }
        // Decided before, committed after: what operators said in between counts.
        if known.in_maintenance() {
            return Err(Refused::Host { host: host.clone(), why: "is in maintenance and is not fenced".to_owned() });
        }
        if known.is_contested() {
            let why = "is not fenced while its name is contested".to_owned();
            return Err(Refused::Host { host: host.clone(), why });
        }
        if self.suspended.is_some() {
            let why = "is not fenced while deciding is suspended".to_owned();
            return Err(Refused::Host { host: host.clone(), why });
        }
        known.life_since = context.index;
        known.lease.close(context.index);
        known.life = Life::Fencing(Fence {
            opened: context.index,
            evidence: evidence.clone(),
            attempt: None,
            attempts: 0,
            next_level: 0,
            failed: None,
            last_error: None,
            errors: BTreeMap::new(),
            safe_at: safe_at.as_ref().map(ToString::to_string),
            allowed: None,
        });
        let guests: Vec<GuestName> = self.guests_of(host).map(|(name, _)| name.clone()).collect();
        let safe_at = safe_at.map(|safe| format!("; {safe}")).unwrap_or_default();
        let (at, summary) = (context.at, format!("{host} has failed{safe_at}"));
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

    pub(super) fn fence_attempted(
        &mut self,
        context: &mut Context,
        host: &HostName,
        executor: &HostName,
        level: usize,
    ) -> Result<(), Refused> {
        let Some(device) = self.policies.device_level(host, level).cloned() else {
            return Err(Refused::Host {
                host: host.clone(),
                why: format!("has no power device at level {}", level + 1),
            });
        };
        let known = self.hosts.get(host).ok_or_else(|| Refused::NoHost { host: host.clone() })?;
        let target_incarnation = known.facts.incarnation.clone();
        let Life::Fencing(Fence { attempt: None, attempts, .. }) = &known.life else {
            return Err(Refused::Already { why: format!("{host} is not waiting for a fence attempt") });
        };
        if known.is_contested() {
            let why = "is not fenced while its name is contested".to_owned();
            return Err(Refused::Host { host: host.clone(), why });
        }
        let first = *attempts == 0;
        if self.level >= FeatureLevel::BUDGETS
            && let Some(spent) = self.budget_spent(host)
        {
            return Err(Refused::Host { host: host.clone(), why: format!("is not switched off: {spent}") });
        }
        let kind = OrderKind::Fence { target: host.clone(), target_incarnation, level, device, switch: Switch::Off };
        let id = self.order(context, executor, kind)?;
        if let Some(Life::Fencing(fence)) = self.hosts.get_mut(host).map(|known| &mut known.life) {
            fence.attempt = Some(id);
            fence.attempts = fence.attempts.saturating_add(1);
        }
        self.note(context, Event::FenceOrdered { host: host.clone(), executor: executor.clone(), level });
        if first {
            self.count_fence(context, host);
            self.nobody_has_to_get_up(context, host);
        }
        Ok(())
    }

    /// Lets an open fence go on that a budget holds. There has to be one: a word given in advance would disarm the budget when it
    /// is needed.
    pub(super) fn fence_allowed(&mut self, context: &Context, host: &HostName, by: String) -> Result<(), Refused> {
        let known = self.hosts.get(host).ok_or_else(|| Refused::NoHost { host: host.clone() })?;
        let why = match &known.life {
            Life::Fencing(Fence { attempt: Some(_), .. }) => Some("is being carried out"),
            // Nobody lets a fence go on in advance.
            Life::Up | Life::Gone { .. } => Some("is not open"),
            Life::Fencing(_) if self.budget_spent(host).is_none() => Some("is held by no budget"),
            Life::Fencing(_) => None,
        };
        if let Some(why) = why {
            return Err(Refused::Already { why: format!("a fence of {host} {why}") });
        }
        if let Some(Life::Fencing(fence)) = self.hosts.get_mut(host).map(|known| &mut known.life) {
            fence.allowed = Some(by.clone());
        }
        self.note(context, Event::FenceAllowed { host: host.clone(), by });
        self.nobody_has_to_get_up(context, host);
        Ok(())
    }

    /// Takes back that a person was called because the fence was held: it goes on.
    fn nobody_has_to_get_up(&mut self, context: &Context, host: &HostName) {
        let key = Self::host_key(host);
        // An earlier version leaves that as it is, and the number of an incident's changes says who has been told.
        if self.are_alike() && self.open_incident(&key).is_some_and(|open| open.human.is_some()) {
            let incident = self.incident(context, &key, "");
            (incident.summary, incident.human) = (format!("{host} has failed, and its fence goes on"), None);
        }
    }

    /// Remembers a fence, and quarantines a host that has had too many.
    fn count_fence(&mut self, context: &Context, host: &HostName) {
        let Some(known) = self.hosts.get_mut(host) else { return };
        if known.fences.len() >= FENCES_KEPT_MAX {
            known.fences.remove(0);
        }
        known.fences.push(context.index);
        let times = u32::try_from(known.fences.len()).unwrap_or(u32::MAX);
        let cluster = &self.policies.cluster;
        // To an earlier version the budget is what quarantines.
        let limit = if self.are_alike() { cluster.quarantine_after_fences } else { cluster.fences_per_hour };
        if limit.is_some_and(|limit| times >= limit) {
            self.quarantine(context, host, crate::state::QuarantineCause::FencedOften { times });
        }
    }

    pub(super) fn fence_forgotten(&mut self, host: &HostName, attempted: u64) -> Result<(), Refused> {
        let known = self.hosts.get_mut(host).ok_or_else(|| Refused::NoHost { host: host.clone() })?;
        let before = known.fences.len();
        known.fences.retain(|index| *index != attempted);
        if known.fences.len() == before {
            return Err(Refused::Already { why: format!("that fence of {host} is forgotten") });
        }
        Ok(())
    }

    /// Records how a fence attempt ended. That the device said off becomes proof by its own command.
    pub(super) fn fence_ended(
        &mut self,
        context: &mut Context,
        host: &HostName,
        (id, level): (OrderId, usize),
        error: Option<String>,
    ) {
        let levels = self.policies.fencing.get(host).map_or(0, Vec::len);
        let Some(Life::Fencing(fence)) = self.hosts.get_mut(host).map(|known| &mut known.life) else { return };
        if fence.attempt != Some(id) {
            return;
        }
        fence.attempt = None;
        // Also after "done": where that does not become proof, the next attempt has to wait like after a failure.
        fence.failed = Some(context.index);
        // A level whose off is no proof, because nobody has verified its wiring, must not keep the others from their turn.
        fence.next_level = (level + 1).checked_rem(levels).unwrap_or(0);
        let Some(error) = error else { return };
        fence.last_error = Some(error.clone());
        fence.note_error(level, &error);
        let safe_at = fence.safe_at.as_ref().map(|safe| format!("; {safe}")).unwrap_or_default();
        let summary = format!("{host} has failed and could not be switched off: {}{safe_at}", fence.errors_said());
        self.note(context, Event::FenceFailed { host: host.clone(), detail: error });
        self.not_switched_off(context, host, summary);
    }

    /// Tells people of it, once: attempts recur for as long as it takes, and what they have been told is no news.
    fn not_switched_off(&mut self, context: &Context, host: &HostName, summary: String) {
        let human = format!(
            "Make sure that {host} is off (pull its power if need be), then run `holdfast host confirm-off {host} --operator YOUR-NAME`. \
             Until then its guests start nowhere else."
        );
        let guests: Vec<GuestName> = self.guests_of(host).map(|(name, _)| name.clone()).collect();
        let key = Self::host_key(host);
        let open = self.open_incident(&key);
        // Where its lease ends the wait, nobody has to get up.
        let (severity, human) = match self.lease_ground(host) {
            Ok(_) => (open.map_or(Severity::Error, |open| open.severity), open.and_then(|open| open.human.clone())),
            Err(_) => (Severity::Critical, Some(human)),
        };
        let known = |open: &Incident| {
            open.summary == summary && open.severity == severity && open.human == human && open.guests == guests
        };
        if open.is_some_and(known) {
            return;
        }
        let incident = self.incident(context, &key, "");
        (incident.severity, incident.summary, incident.human, incident.guests) = (severity, summary, human, guests);
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
        known.life_since = context.index;
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
}
