//! Who leads and how far the log is, as this node knows it.

use std::{collections::BTreeMap, net::SocketAddr};

use holdfast_policies::names::HostName;
use openraft::{Raft, RaftMetrics, ServerState, async_runtime::watch::WatchReceiver, metrics::RaftServerMetrics};
use tokio::{sync::watch, task::JoinHandle};

use super::{
    machine::Applier,
    types::{Membership, Place, Types},
};

/// Who leads, as far as this node knows. It is knowledge, not authority: that is [`super::Authority`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leadership {
    /// The term that this node is in. Two leaders may share a term; the pair of term and node id orders them.
    pub term: u64,
    /// The leader's node id and host.
    pub leader: Option<(u64, HostName)>,
    /// Whether it is this node.
    pub is_me: bool,
}

/// Numbers for metrics and operators.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// This node's id.
    pub node_id: u64,
    /// The term that this node is in.
    pub term: u64,
    /// Index of the last entry in this node's log.
    pub last_log: Option<u64>,
    /// Index of the last entry that this node applied.
    pub applied: Option<u64>,
    /// Index of the last entry in this node's last snapshot.
    pub snapshot: Option<u64>,
    /// The leader's node id and host.
    pub leader: Option<(u64, HostName)>,
    /// Who votes.
    pub voters: BTreeMap<u64, Place>,
    /// Who receives the log without a vote.
    pub learners: BTreeMap<u64, Place>,
}

/// Keeps a [`Leadership`] up to date until raft stops; then nobody leads, as far as this node knows. It listens to what
/// changes with elections only: raft's other numbers change with every heartbeat.
pub(super) fn follow(raft: &Raft<Types, Applier>) -> (watch::Receiver<Leadership>, JoinHandle<()>) {
    let mut metrics = raft.server_metrics();
    let (sender, receiver) = watch::channel(leadership(&metrics.borrow_watched()));
    let watching = tokio::spawn(async move {
        while metrics.changed().await.is_ok() {
            let seen = leadership(&metrics.borrow_and_update());
            sender.send_if_modified(|known| std::mem::replace(known, seen.clone()) != seen);
        }
        sender.send_modify(|known| {
            known.leader = None;
            known.is_me = false;
        });
    });
    (receiver, watching)
}

fn leadership(metrics: &RaftServerMetrics<Types>) -> Leadership {
    Leadership {
        term: metrics.vote.leader_id.term,
        leader: named(metrics.current_leader, &metrics.membership_config),
        is_me: metrics.state == ServerState::Leader,
    }
}

fn named(leader: Option<u64>, membership: &Membership) -> Option<(u64, HostName)> {
    let node_id = leader?;
    Some((node_id, membership.get_node(&node_id)?.host.clone()))
}

/// Who votes and where they listen; asked for many times a second, unlike all of [`status`].
pub(super) fn voters(metrics: &RaftMetrics<Types>) -> BTreeMap<HostName, SocketAddr> {
    let membership = metrics.membership_config.membership();
    let places = membership.voter_ids().filter_map(|node_id| membership.get_node(&node_id));
    places.map(|place| (place.host.clone(), place.address)).collect()
}

/// The numbers in raft's metrics.
pub(super) fn status(metrics: &RaftMetrics<Types>) -> Status {
    let membership = metrics.membership_config.membership();
    let place = |node_id: u64| membership.get_node(&node_id).map(|place| (node_id, place.clone()));
    Status {
        node_id: metrics.id,
        term: metrics.current_term,
        last_log: metrics.last_log_index,
        applied: metrics.last_applied.map(|log_id| log_id.index()),
        snapshot: metrics.snapshot.map(|log_id| log_id.index()),
        leader: named(metrics.current_leader, &metrics.membership_config),
        voters: membership.voter_ids().filter_map(place).collect(),
        learners: membership.learner_ids().filter_map(place).collect(),
    }
}
