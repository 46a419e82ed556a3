//! Who leads and how far the log is, as this node knows it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use holdfast_policies::{giving_way::Progress, names::HostName};
use openraft::{
    Instant as _, Raft, RaftMetrics, RaftTypeConfig, ServerState, async_runtime::watch::WatchReceiver,
    metrics::RaftServerMetrics,
};
use tokio::{sync::watch, task::JoinHandle};

use super::{
    machine::Applier,
    types::{Membership, Place, Types},
};

/// Silence after which a node does not count as answering; heartbeats come every 100 ms.
pub(super) const ANSWERS_WITHIN: Duration = Duration::from_secs(3);

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

/// How far this node has come as the leader. It is dispensable when enough others answer for each majority that counts: without it they
/// need nobody's vote but their own. `None` where it does not lead. Simulated voters, whose raft runs by another clock, are looked at by
/// the same.
pub fn progress<C: RaftTypeConfig<NodeId = u64, Term = u64>>(metrics: &RaftMetrics<C>) -> Option<Progress> {
    let heard = metrics.heartbeat.as_ref().filter(|_| metrics.state == ServerState::Leader)?;
    let answers = |node_id: u64| {
        let at = heard.get(&node_id).copied().flatten();
        node_id != metrics.id && at.is_some_and(|at| at.elapsed() < ANSWERS_WITHIN)
    };
    let suffice = |voters: &BTreeSet<u64>| voters.iter().filter(|voter| answers(**voter)).count() > voters.len() / 2;
    Some(Progress {
        term: metrics.current_term,
        last: metrics.last_log_index.unwrap_or(0),
        applied: metrics.last_applied.as_ref().map_or(0, openraft::LogId::index),
        dispensable: metrics.membership_config.membership().get_joint_config().iter().all(suffice),
    })
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
