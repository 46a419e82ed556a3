//! What is looked up for every guest in every round, gathered once: which incidents are open, and who reports what.

use std::collections::{BTreeMap, BTreeSet};

use super::{super::Round, Pass};
use crate::{
    change::Change,
    evidence::is_there,
    names::{GuestName, HostName},
    state::{ClusterState, Mode},
};

/// Gathered from the whole state and all evidence.
pub(super) struct Glance<'b> {
    /// Keys of open incidents.
    open: BTreeSet<&'b str>,
    /// What stands behind the first slash in them: mostly the guests that they are about. For most guests there is none, and
    /// no key needs to be made to see that.
    about: BTreeSet<&'b str>,
    /// Hosts that answer and have something of a guest.
    pub reported: BTreeMap<&'b GuestName, Vec<&'b HostName>>,
    /// Whether rules say in which order guests start.
    pub orders: bool,
    /// Whether every host is active: none in maintenance, drained or about to go.
    pub all_active: bool,
}

impl<'b> Glance<'b> {
    pub(super) fn of(round: &Round<'b>) -> Self {
        let state: &'b ClusterState = round.state;
        let open = state.incidents.values().filter(|incident| incident.is_open());
        let open: BTreeSet<&str> = open.map(|incident| incident.key.as_str()).collect();
        let about = open.iter().filter_map(|key| key.split_once('/')).map(|(_, about)| about).collect();
        let mut reported: BTreeMap<&'b GuestName, Vec<&'b HostName>> = BTreeMap::new();
        for (host, _) in state.hosts.iter().filter(|(host, known)| known.facts.guests && round.answers(host)) {
            let reports = round.evidence.hosts.get(host).into_iter().flat_map(|seen| &seen.reports);
            for (guest, _) in reports.filter(|(_, report)| is_there(&report.condition)) {
                reported.entry(guest).or_default().push(host);
            }
        }
        let order = |rule: &crate::rules::Rule| matches!(rule, crate::rules::Rule::Order { .. });
        let all_active = state.hosts.values().all(|host| host.mode == Mode::Active);
        Self { open, about, reported, orders: state.policies.rules.values().any(order), all_active }
    }
}

impl Pass<'_, '_> {
    /// Closes the incident `ABOUT/GUEST`, if it is open.
    pub(super) fn close(&mut self, about: &str, name: &GuestName) {
        if !self.glance.about.contains(name.as_str()) {
            return;
        }
        let key = format!("{about}/{name}");
        if self.glance.open.contains(key.as_str()) {
            self.decision.commands.push(Change::IncidentResolved { key });
        }
    }
}
