//! Incidents: opened, updated and resolved in the same step as the decisions that they tell of.

use std::collections::BTreeMap;

use super::Context;
use crate::{
    change::Refused,
    feature_level::FeatureLevel,
    incident::{Incident, RESOLVED_KEPT_MAX, Stamps},
    journal::Event,
    model::Severity,
    names::GuestName,
    state::ClusterState,
};

impl ClusterState {
    /// The open incident with this key, opened when there is none; counts as one change of it.
    pub(crate) fn incident(&mut self, context: &Context, key: &str, summary: &str) -> &mut Incident {
        let found = self.incidents.values().rev().find(|incident| incident.key == key && incident.is_open());
        let id = found.map_or(self.last_incident + 1, |incident| incident.id);
        self.last_incident = self.last_incident.max(id);
        let incident = self.incidents.entry(id).or_insert_with(|| Incident {
            id,
            key: key.to_owned(),
            severity: Severity::Error,
            opened: context.at,
            resolved: None,
            seq: 0,
            changed: context.index,
            summary: summary.to_owned(),
            done: Vec::new(),
            human: None,
            rung: None,
            proof: None,
            stamps: Stamps::default(),
            guests: Vec::new(),
            seen: Vec::new(),
            delivered: BTreeMap::new(),
        });
        incident.seq += 1;
        incident.changed = context.index;
        incident
    }

    /// The same of a guest, where one is open: none is opened.
    pub(super) fn incident_of(&mut self, context: &Context, guest: &GuestName) -> Option<&mut Incident> {
        let key = Self::guest_key(guest);
        self.open_incident(&key)?;
        Some(self.incident(context, &key, ""))
    }

    pub(super) fn incident_opened(
        &mut self,
        context: &mut Context,
        key: &str,
        severity: Severity,
        summary: String,
        human: Option<String>,
        guests: Vec<GuestName>,
    ) -> Result<(), Refused> {
        if let Some(open) = self.open_incident(key)
            && open.summary == summary
            && open.human == human
            && open.severity == severity
        {
            return Err(Refused::Already { why: format!("{key} says so already") });
        }
        let at = context.at;
        let incident = self.incident(context, key, &summary);
        incident.severity = severity;
        incident.summary = summary;
        incident.human = human;
        incident.guests = guests;
        incident.stamps.detected.get_or_insert(at);
        Ok(())
    }

    /// Keeps what an incident that was just opened or changed rests on.
    pub(super) fn incident_seen(&mut self, context: &Context, key: &str, evidence: &[String]) {
        let open = self.incidents.values_mut().rev().find(|incident| incident.key == key && incident.is_open());
        if let Some(incident) = open.filter(|_| !evidence.is_empty()) {
            incident.saw(context.at, evidence);
        }
    }

    pub(super) fn incident_resolved(&mut self, context: &mut Context, key: &str) -> Result<(), Refused> {
        if self.open_incident(key).is_none() {
            return Err(Refused::Already { why: format!("{key} has no open incident") });
        }
        self.resolve(context, key);
        Ok(())
    }

    /// Resolves the open incident with this key, if there is one.
    pub(crate) fn resolve(&mut self, context: &Context, key: &str) {
        if self.open_incident(key).is_some() {
            self.note(context, Event::IncidentResolved { key: key.to_owned() });
            self.end_incident(context, key);
        }
    }

    /// Ends the open incident with this key, if there is one, and does not say that all is well: what it was about is gone.
    pub(super) fn end_incident(&mut self, context: &Context, key: &str) {
        if self.open_incident(key).is_none() {
            return;
        }
        let at = context.at;
        let incident = self.incident(context, key, "");
        incident.resolved = Some(at);
        incident.human = None;
        self.forget_oldest();
    }

    /// Forgets what ended longest ago. Of an end that has just come nobody has been told yet, however long ago it began.
    fn forget_oldest(&mut self) {
        let by_end = self.level >= FeatureLevel::ENDS;
        let resolved = self.incidents.values().filter(|incident| !incident.is_open());
        let mut oldest: Vec<(u64, u64)> =
            resolved.map(|incident| (if by_end { incident.changed } else { 0 }, incident.id)).collect();
        oldest.sort_unstable();
        oldest.truncate(oldest.len().saturating_sub(RESOLVED_KEPT_MAX));
        for (_, id) in oldest {
            self.incidents.remove(&id);
        }
    }

    pub(super) fn delivered(&mut self, incident: u64, receiver: String, seq: u64) -> Result<(), Refused> {
        let Some(incident) = self.incidents.get_mut(&incident) else {
            return Err(Refused::Already { why: "the incident is forgotten".to_owned() });
        };
        let known = incident.delivered.entry(receiver).or_default();
        *known = (*known).max(seq);
        Ok(())
    }
}
