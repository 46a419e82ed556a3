//! Guests whose services begin to fail: their hosts look meanwhile whether a backup has frozen them, and say so before a rung is due.
//!
//! Hosts do not know of it by themselves, for a service is mostly asked from others. Between the first question that gets no answer and
//! the one by which the service has failed there is time for that look, where the policy asks for more than one.

use std::collections::{BTreeMap, BTreeSet};

use super::services::Watched;
use crate::{
    evidence::{Evidence, Sight},
    names::{GuestName, HostName},
    state::ClusterState,
    time::Moment,
};

/// By host, the guests that run there and of which a service does not answer somebody. Of those that are left alone nothing has to be
/// known, and whoever backs one up meanwhile is to find its agent free.
#[must_use]
pub fn guests_in_doubt(
    state: &ClusterState,
    evidence: &Evidence,
    now: Moment,
) -> BTreeMap<HostName, BTreeSet<GuestName>> {
    let mut by_host: BTreeMap<HostName, BTreeSet<GuestName>> = BTreeMap::new();
    for (name, services) in &evidence.services {
        // Most guests are well, and looked at no further.
        if !services.values().flat_map(BTreeMap::values).any(Sight::is_unanswered) {
            continue;
        }
        let Some(home) = state.guests.get(name).and_then(|guest| guest.home()) else { continue };
        let Some((_, policy)) = state.policies.policy_of(name) else { continue };
        let watched = Watched { evidence, now, guest: name, epoch: home.epoch };
        if watched.is_unanswered(&policy.services) && state.hands_off(name).is_none() {
            by_host.entry(home.host.clone()).or_default().insert(name.clone());
        }
    }
    by_host
}
