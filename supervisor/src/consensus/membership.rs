//! Who takes part, and changes of that: a learner is added, gets a vote, and a voter leaves, each by a committed entry
//! (R23, R24). Whether a change is wise is not decided here.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    time::Duration,
};

use openraft::{
    ChangeMembers, Instant as _, Precondition,
    async_runtime::watch::WatchReceiver,
    errors::{ClientWriteError, RaftError},
};

use super::{
    Consensus,
    errors::MembershipError,
    leadership::ANSWERS_WITHIN,
    types::{LogId, Place, Types},
};

/// A change that is not committed within this will probably not be soon. Less than a forwarded command may take.
const CHANGE_TIMEOUT: Duration = Duration::from_millis(2_500);

/// Ids up to this one are the founders'; later ones are above, so that no host file can make a founder of a later node.
const FOUNDER_IDS: u64 = 99;

/// Who takes part, as the leader knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roster {
    /// The nodes of the committed membership, by id.
    pub nodes: BTreeMap<u64, RosterEntry>,
    /// The voters after a change that has begun and has not been finished.
    pub unfinished: Option<BTreeSet<u64>>,
    /// An id that no node has ever had: ids grow with the log, in which every change of the membership is an entry.
    pub next_id: u64,
    /// Which membership it is.
    as_of: Option<LogId>,
}

impl Roster {
    /// A change that was chosen by it is not begun when the membership is another one by then.
    fn unchanged(&self) -> [Precondition<Types>; 1] {
        [Precondition::LastMembershipLogId { last_membership_log_id: self.as_of }]
    }
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RosterEntry {
    /// Which host it is.
    pub place: Place,
    /// Whether it votes; others only get the log.
    pub votes: bool,
    /// Whether it is this node, which leads.
    pub leads: bool,
    /// Whether it has confirmed anything lately.
    pub answers: bool,
    /// How many entries it lacks; `None` when it has confirmed none.
    pub behind: Option<u64>,
}

impl Consensus {
    /// Who takes part; `None` when this node does not lead.
    #[must_use]
    pub fn roster(&self) -> Option<Roster> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched().clone();
        let heard = metrics.heartbeat.as_ref()?;
        let matched = metrics.replication.as_ref()?;
        let committed = metrics.committed_membership_config.membership();
        let effective = metrics.membership_config.membership();
        let voters: BTreeSet<u64> = committed.voter_ids().collect();
        let last = metrics.last_log_index.unwrap_or(0);
        let entry = |node_id: u64, place: &Place| {
            let leads = node_id == metrics.id;
            let heard = heard.get(&node_id).copied().flatten();
            let behind = matched.get(&node_id).cloned().flatten().map(|log_id| last.saturating_sub(log_id.index()));
            RosterEntry {
                place: place.clone(),
                votes: voters.contains(&node_id),
                leads,
                answers: leads || heard.is_some_and(|at| at.elapsed() < ANSWERS_WITHIN),
                behind: if leads { Some(0) } else { behind },
            }
        };
        let nodes: BTreeMap<u64, RosterEntry> =
            committed.nodes().map(|(node_id, place)| (*node_id, entry(*node_id, place))).collect();
        let highest = effective.nodes().map(|(node_id, _)| *node_id).max().unwrap_or(0);
        let unfinished = effective.get_joint_config().len() > 1 || committed.get_joint_config().len() > 1;
        Some(Roster {
            next_id: last.max(highest).max(FOUNDER_IDS).saturating_add(1),
            unfinished: effective.get_joint_config().last().filter(|_| unfinished).cloned(),
            nodes,
            as_of: *metrics.committed_membership_config.log_id(),
        })
    }

    /// Adds a node that receives the log and does not vote (R24); on the leader. Returns when it is committed, which
    /// is before the node has caught up. Its id was chosen by this `roster`.
    ///
    /// # Errors
    /// [`MembershipError`] when this node does not lead, a change is under way, or no quorum answers; also when the membership is
    /// another one by now: somebody else may have that id, or the same host another one.
    pub async fn add_learner(&self, node_id: u64, place: Place, roster: &Roster) -> Result<(), MembershipError> {
        let change = ChangeMembers::AddNodes(BTreeMap::from([(node_id, place)]));
        confirmed(self.inner.raft.change_membership_if(change, true, roster.unchanged())).await
    }

    /// Makes exactly these nodes the voters; on the leader. Each must be a voter or a learner already; a voter left out
    /// leaves the membership. Voters come and go in one joint change. It was chosen by this `roster`.
    ///
    /// # Errors
    /// As [`Self::add_learner`]; also when a node is not known, and when the membership is another one by now: whoever came in between
    /// would be taken out again.
    pub async fn set_voters(&self, voters: BTreeSet<u64>, roster: &Roster) -> Result<(), MembershipError> {
        confirmed(self.inner.raft.change_membership_if(voters, false, roster.unchanged())).await
    }

    /// Lets a node that does not vote leave; on the leader. One that has got a vote meanwhile stays.
    ///
    /// # Errors
    /// As [`Self::add_learner`], and when it votes. What else has changed does not matter.
    pub async fn remove_learner(&self, node_id: u64) -> Result<(), MembershipError> {
        let change: ChangeMembers<u64, Place> = ChangeMembers::RemoveNodes(BTreeSet::from([node_id]));
        confirmed(self.inner.raft.change_membership(change, false)).await
    }
}

async fn confirmed<T>(
    change: impl Future<Output = Result<T, RaftError<Types, ClientWriteError<Types>>>>,
) -> Result<(), MembershipError> {
    match tokio::time::timeout(CHANGE_TIMEOUT, change).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(RaftError::APIError(ClientWriteError::PreconditionFailed(_)))) => Err(MembershipError::Overtaken),
        Ok(Err(error)) => Err(MembershipError::Raft(error.to_string())),
        Err(_) => Err(MembershipError::Unconfirmed(CHANGE_TIMEOUT)),
    }
}
