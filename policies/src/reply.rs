//! Replies to syncs: lease, orders, floors and view, from state that a confirmed round has reached (R2, R10, R12, R20).
//! The coordinator and every simulation answer by this one function.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use crate::{
    decide::guests::superseded,
    evidence::is_there,
    go_ahead::GoAheads,
    names::{Epoch, GuestName, HostName},
    news::ViewMark,
    order::Order,
    state::{ClusterState, Guest, Life, Phase},
    sync::{Authority, SyncReply, SyncRequest, View},
    time::millis,
};

/// Builds the reply to one request, for a leader of this term. `lease` is what a majority has confirmed: it counts from the
/// start of the round. `go_aheads` are those of this leader's newest round of deciding in this term.
#[must_use]
pub fn reply(
    state: &ClusterState,
    request: &SyncRequest,
    term: u64,
    lease: Duration,
    go_aheads: &GoAheads,
) -> SyncReply {
    let why_no_lease = why_no_lease(state, request).or_else(|| state.lease_withheld(request, lease));
    let orders = || {
        let own = |order: &&Order| order.host == request.host && order.incarnation == request.facts.incarnation;
        state.orders.values().filter(own)
    };
    SyncReply {
        nonce: request.nonce,
        authority: Authority { generation: state.generation, term, index: state.applied },
        lease_ms: why_no_lease.is_none().then(|| millis(lease)),
        why_no_lease,
        orders: orders().cloned().collect(),
        go_aheads: go_aheads.among(orders()),
        superseded: given_up(state, request),
        floors: (!request.floors_known).then(|| floors(state, request)),
        view: (is_news(state, request) && request.has_view.is_none()).then(|| view(state)),
        // Those are no part of the state: whoever has gathered them says so.
        sights_known: None,
        news: None,
        in_doubt: BTreeSet::new(),
    }
}

/// Whether the view is another one than the host knows. One that says which it has is told what has changed.
#[must_use]
pub fn is_news(state: &ClusterState, request: &SyncRequest) -> bool {
    request.known_view < state.view_changed
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
        Life::Gone { .. } => {
            Some("this boot was proven gone; it is taken in again when nothing of its guests is left there".to_owned())
        }
    }
}

/// What the host is to stop and never to start again: what has been replaced, and after proof all that its boot could run,
/// until it has heard of that and has nothing left (R10).
fn given_up(state: &ClusterState, request: &SyncRequest) -> Vec<(GuestName, Epoch)> {
    let mut gone = superseded(state, &request.host, &request.reports);
    let Some(host) = state.hosts.get(&request.host) else { return gone };
    let is_gone = matches!(host.life, Life::Gone { .. });
    if is_gone && host.facts.incarnation == request.facts.incarnation {
        let known: BTreeSet<GuestName> = gone.iter().map(|(guest, _)| guest.clone()).collect();
        gone.extend(of_ended_generations(state, request).into_iter().filter(|(guest, _)| !known.contains(guest)));
    }
    let runs = request.reports.iter().any(|report| is_there(&report.condition));
    if is_gone && (runs || request.seen.index < host.life_since) {
        gone.retain(|(guest, _)| !host.lease.owes.contains_key(guest));
        gone.extend(host.lease.owes.iter().map(|(guest, epoch)| (guest.clone(), *epoch)));
    }
    gone
}

/// What the host was given in a generation that has ended (R25): after a recovery nobody knew of it, so that its proof could name none
/// of it.
fn of_ended_generations(state: &ClusterState, request: &SyncRequest) -> Vec<(GuestName, Epoch)> {
    let outranked = request.reports.iter().filter(|report| {
        let guest = state.guests.get(&report.guest);
        let in_hand = guest.is_some_and(|guest| state.hands_off_of(&report.guest, guest).is_none());
        is_there(&report.condition) && in_hand && state.is_outranked(report.epoch)
    });
    outranked.map(|report| (report.guest.clone(), report.epoch)).collect()
}

/// Everything but the host's own assignments is below the floor, and what it has of guests that have no place: those may be adopted
/// as they are, and then it has to let them run again. What runs there under no assignment has nothing below it: a floor of zero would
/// say that it was given up there.
fn floors(state: &ClusterState, request: &SyncRequest) -> BTreeMap<GuestName, Epoch> {
    let here = Epoch { generation: state.generation, index: state.applied };
    let there = request.reports.iter().filter(|report| is_there(&report.condition));
    let found: BTreeMap<&GuestName, Epoch> = there.map(|report| (&report.guest, report.epoch)).collect();
    let floor = |name: &GuestName, guest: &Guest| {
        let kept = match &guest.phase {
            Phase::Unplaced => found.get(name).copied(),
            Phase::Free { .. }
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Releasing { .. }
            | Phase::Migrating(_) => {
                let own = guest.tenures().into_iter().filter(|tenure| tenure.host == request.host);
                own.map(|tenure| tenure.epoch).min()
            }
        };
        let below = match kept {
            Some(kept) if kept == Epoch::default() => return None,
            Some(kept) => Epoch { index: kept.index.saturating_sub(1), ..kept },
            None => here,
        };
        Some((name.clone(), below.min(here)))
    };
    state.guests.iter().filter_map(|(name, guest)| floor(name, guest)).collect()
}

/// The whole view.
pub(crate) fn view(state: &ClusterState) -> View {
    View {
        index: state.view_changed,
        mark: Some(ViewMark::of(state)),
        policies: Arc::new(state.policies.clone()),
        homes: homes(state),
        hosts: places(state),
        revoked: state.revoked.clone(),
    }
}

/// Where each guest's services should answer.
#[must_use]
pub fn homes(state: &ClusterState) -> BTreeMap<GuestName, (HostName, Epoch)> {
    let home = |(name, guest): (&GuestName, &Guest)| {
        let home = guest.home()?;
        Some((name.clone(), (home.host.clone(), home.epoch)))
    };
    state.guests.iter().filter_map(home).collect()
}

/// Where supervisors listen.
#[must_use]
pub fn places(state: &ClusterState) -> BTreeMap<HostName, SocketAddr> {
    state.hosts.iter().map(|(name, host)| (name.clone(), host.facts.address)).collect()
}
