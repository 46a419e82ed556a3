//! What leases this host has granted while it led: the last one to each host is what `LeaseExpired` counts from (R9, R18).
//!
//! Replies are built by many tasks and decisions are made by one. A grant is noted while the state is looked at that allows
//! it, so whoever sees a state in which a host's lease is closed sees every grant that was made before.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use holdfast_policies::{
    evidence::{Evidence, Heard},
    names::HostName,
    state::ClusterState,
    sync::{SyncReply, SyncRequest},
    time::Moment,
};

/// The newest grant to each host; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Grants(Arc<Mutex<BTreeMap<HostName, Heard>>>);

impl Grants {
    /// Notes what a reply grants, before it is sent: it counts whether it arrives or not. Its lease counts from `began`.
    pub fn note(&self, request: &SyncRequest, reply: &SyncReply, began: Moment) {
        if reply.lease_ms.is_none() {
            return;
        }
        let granted = Heard { at: began, incarnation: request.facts.incarnation.clone() };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = known.entry(request.host.clone()).or_insert_with(|| granted.clone());
        if newest.incarnation != granted.incarnation || newest.at < granted.at {
            *newest = granted;
        }
    }

    /// Brings the evidence up to date, and forgets hosts that there are no more.
    pub fn tell(&self, evidence: &mut Evidence, state: &ClusterState) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|host, _| state.hosts.contains_key(host));
        for (host, granted) in known.iter() {
            evidence.hosts.entry(host.clone()).or_default().granted = Some(granted.clone());
        }
    }
}
