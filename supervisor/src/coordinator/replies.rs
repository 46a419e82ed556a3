//! Replies to syncs: lease, orders and view, from state that a confirmed round has reached (R2, R3, R12, R20).

use holdfast_policies::{
    decide::guests::superseded,
    names::{Epoch, GuestName, HostName},
    state::{ClusterState, Life},
    sync::{Authority, SyncReply, SyncRequest, View},
    time::{Moment, millis},
};
use std::{collections::BTreeMap, time::Duration};

use super::rounds::Round;

/// Builds the reply to one request.
#[must_use]
pub fn reply(state: &ClusterState, request: &SyncRequest, round: Round, lease: Duration, now: Moment) -> SyncReply {
    let authority = Authority { generation: state.generation, term: round.term, index: state.applied };
    let refused = why_no_lease(state, request);
    // Counted from the start of the round: what was true then is all that a majority has confirmed.
    let left = lease.saturating_sub(now.since(round.began));
    let orders = state
        .orders
        .values()
        .filter(|order| order.host == request.host && order.incarnation == request.facts.incarnation);
    SyncReply {
        nonce: request.nonce,
        authority,
        lease_ms: if refused.is_none() { Some(millis(left)) } else { None },
        why_no_lease: refused,
        orders: orders.cloned().collect(),
        superseded: superseded_epochs(state, request),
        floors: (!request.floors_known).then(|| floors(state, &request.host)),
        view: (request.known_view < state.view_changed).then(|| view(state)),
    }
}

fn why_no_lease(state: &ClusterState, request: &SyncRequest) -> Option<String> {
    let Some(host) = state.hosts.get(&request.host) else { return Some("it has not joined yet".to_owned()) };
    if host.facts.incarnation != request.facts.incarnation {
        return Some("its new boot has not joined yet".to_owned());
    }
    if !request.floors_known {
        return Some("it has to learn its floors first".to_owned());
    }
    match &host.life {
        Life::Up => None,
        Life::Fencing(_) => Some("it is being fenced".to_owned()),
        Life::Gone { .. } => Some("this boot was proven gone; reboot the host".to_owned()),
    }
}

fn superseded_epochs(state: &ClusterState, request: &SyncRequest) -> Vec<(GuestName, Epoch)> {
    let wrong = superseded(state, &request.host, &request.reports);
    let epoch =
        |guest: &GuestName| request.reports.iter().find(|report| report.guest == *guest).map(|report| report.epoch);
    wrong.into_iter().filter_map(|guest| epoch(&guest).map(|epoch| (guest, epoch))).collect()
}

/// Everything but the host's own assignments is below the floor.
fn floors(state: &ClusterState, host: &HostName) -> BTreeMap<GuestName, Epoch> {
    let here = Epoch { generation: state.generation, index: state.applied };
    let floor = |guest: &holdfast_policies::state::Guest| {
        let own = guest.tenures().into_iter().filter(|tenure| tenure.host == *host).map(|tenure| tenure.epoch).min();
        own.map_or(here, |own| Epoch { index: own.index.saturating_sub(1), ..own })
    };
    state.guests.iter().map(|(name, guest)| (name.clone(), floor(guest))).collect()
}

fn view(state: &ClusterState) -> View {
    let homes = state.guests.iter().filter_map(|(name, guest)| {
        let home = guest.home()?;
        Some((name.clone(), (home.host.clone(), home.epoch)))
    });
    View {
        index: state.view_changed,
        policies: state.policies.clone(),
        homes: homes.collect(),
        hosts: state.hosts.iter().map(|(name, host)| (name.clone(), host.facts.address)).collect(),
    }
}
