//! Raft's messages from other voters: checked, handed to raft, answered.

use std::sync::{Arc, PoisonError};

use holdfast_policies::names::HostName;
use openraft::{Raft, async_runtime::watch::WatchReceiver};
use tokio::sync::Mutex;

use super::{
    health::{Cause, Health},
    machine::Applier,
    network::{Envelope, Message, Part, Reply},
    promises::Promised,
    silence::Silence,
    standing::{Generation, Standing},
    strangers::Strangers,
    types::{Place, Snapshot, SnapshotMeta, Types, Vote},
};

/// Largest snapshot accepted, in bytes: far above any cluster's state, and what a host can spare for a moment.
const SNAPSHOT_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// The receiving end.
pub(super) struct Receiver {
    cluster: String,
    node_id: u64,
    generation: Generation,
    raft: Raft<Types, Applier>,
    /// The one snapshot that is arriving; a new one replaces it.
    arriving: Mutex<Option<Arriving>>,
    /// How far this node has gone: what was on its store when it started, and what it has acknowledged since.
    reached: std::sync::Mutex<Promised>,
    health: Health,
    silence: Silence,
    strangers: Strangers,
}

struct Arriving {
    from: u64,
    meta: SnapshotMeta,
    total: u64,
    data: Vec<u8>,
}

impl Receiver {
    pub(super) fn new(
        cluster: String,
        (node_id, generation): (u64, Generation),
        raft: Raft<Types, Applier>,
        (reached, health, silence): (Promised, Health, Silence),
        strangers: Strangers,
    ) -> Arc<Self> {
        let (arriving, reached) = (Mutex::new(None), std::sync::Mutex::new(reached));
        Arc::new(Self { cluster, node_id, generation, raft, arriving, reached, health, silence, strangers })
    }

    /// Answers one message of `peer`.
    pub(super) async fn handle(&self, peer: &HostName, body: &[u8]) -> Result<Vec<u8>, String> {
        let envelope: Envelope =
            serde_json::from_slice(body).map_err(|error| format!("not a raft message: {error}"))?;
        if let Some(reply) = self.of_generations(&envelope) {
            return serde_json::to_vec(&reply).map_err(text);
        }
        if let Some(voters) = self.check(peer, &envelope)?
            && !self.strangers.is_vouched(peer, envelope.from, voters).await
        {
            return Err(format!("{peer} is not known here as node {}", envelope.from));
        }
        self.check_memory(peer, envelope.promised)?;
        if self.silence.declines(&envelope.message) {
            return Err(format!("node {} gives way to another leader", self.node_id));
        }
        let raft = &self.raft;
        let reply = match envelope.message {
            Message::Append(request) => {
                let promises = Promised::with(&request);
                let response = raft.append_entries(request).await.map_err(text)?;
                if response.is_success() {
                    self.reach(promises);
                }
                Reply::Append(response)
            }
            Message::Vote(request) => Reply::Vote(raft.vote(request).await.map_err(text)?),
            Message::PreVote(request) => Reply::Vote(raft.pre_vote(request).await.map_err(text)?),
            Message::Transfer(request) => Reply::Transfer(raft.handle_transfer_leader(request).await.map_err(text)?),
            Message::Snapshot(part) => self.part(envelope.from, part).await?,
            Message::Who => Reply::Who(self.standing()),
            Message::WhoIs { node_id } => Reply::WhoIs { place: self.voter(node_id) },
        };
        serde_json::to_vec(&reply).map_err(text)
    }

    /// What is answered to whoever of this cluster need not be in its membership: how far this node has come, and that its
    /// generation has ended (R25). Without a word of their generation, its ids alone keep old voters out.
    fn of_generations(&self, envelope: &Envelope) -> Option<Reply> {
        if envelope.cluster != self.cluster {
            return None;
        }
        if matches!(envelope.message, Message::Who) {
            return Some(Reply::Who(self.standing()));
        }
        let generation = self.generation.get();
        let ended = envelope.generation > 0 && envelope.generation < generation;
        ended.then_some(Reply::Superseded { generation })
    }

    fn standing(&self) -> Standing {
        let metrics = self.raft.data_metrics();
        let last = metrics.borrow_watched().last_log;
        let (term, index) = last.map_or((0, 0), |last| (last.committed_leader_id().term, last.index()));
        Standing { generation: self.generation.get(), term, index }
    }

    /// The voter with this id, by the newest membership that is known here.
    fn voter(&self, node_id: u64) -> Option<Place> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let votes = membership.voter_ids().any(|voter| voter == node_id);
        membership.get_node(&node_id).filter(|_| votes).cloned()
    }

    /// Refuses messages of another cluster, for another node, or in the name of another host. Returns who is to be asked whether the
    /// sender is a member, where it is not known as one here.
    fn check(&self, peer: &HostName, envelope: &Envelope) -> Result<Option<Vec<(u64, Place)>>, String> {
        if envelope.cluster != self.cluster {
            return Err(format!("this is the cluster {:?} and not {:?}", self.cluster, envelope.cluster));
        }
        if envelope.to != self.node_id {
            return Err(format!("this is node {} and not {}", self.node_id, envelope.to));
        }
        let speaks_for = spoken_for(&envelope.message).unwrap_or(envelope.from);
        if speaks_for != envelope.from {
            return Err(format!("node {} may not speak for node {speaks_for}", envelope.from));
        }
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        match membership.get_node(&envelope.from) {
            Some(place) if place.host == *peer => Ok(None),
            Some(place) => Err(format!("node {} is {} and not {peer}", envelope.from, place.host)),
            // Before birth nobody is known. Afterwards a host without a vote must not pass for a new leader (S10).
            None if membership.nodes().next().is_none() => Ok(None),
            None => {
                let others = membership.voter_ids().filter(|voter| *voter != self.node_id);
                let place = |voter| membership.get_node(&voter).map(|place| (voter, place.clone()));
                Ok(Some(others.filter_map(place).collect()))
            }
        }
    }

    /// R24: a store that has forgotten what it had promised was restored from an older copy, or replaced. It must neither vote
    /// nor stand for election.
    fn check_memory(&self, peer: &HostName, promised: Promised) -> Result<(), String> {
        if self.reached().covers(promised) {
            return Ok(());
        }
        let why = format!(
            "its raft store has forgotten what it had acknowledged to {peer}: an older copy was put in its place"
        );
        self.health.fail(Cause::Restored, &why);
        let raft = self.raft.clone();
        // Not waited for: it may be this very message that keeps raft busy.
        tokio::spawn(async move {
            if let Err(error) = raft.shutdown().await {
                tracing::warn!(%error, "raft did not stop cleanly");
            }
        });
        Err(why)
    }

    fn reached(&self) -> Promised {
        *self.reached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reach(&self, promised: Promised) {
        let mut reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        *reached = reached.max(promised);
    }

    async fn part(&self, from: u64, part: Part) -> Result<Reply, String> {
        let Part { vote, meta, offset, total, data } = part;
        if total > SNAPSHOT_BYTES_MAX {
            return Err(format!("a snapshot of {total} bytes is larger than {SNAPSHOT_BYTES_MAX}"));
        }
        let mut arriving = self.arriving.lock().await;
        if offset == 0 {
            *arriving = Some(Arriving { from, meta: meta.clone(), total, data: Vec::new() });
        }
        let fits = |known: &Arriving| {
            let have = known.data.len() as u64;
            let same = known.from == from && known.meta == meta && known.total == total;
            same && have == offset && have + data.len() as u64 <= total
        };
        let Some(mut known) = arriving.take().filter(fits) else {
            return Err(format!("the part at {offset} does not continue the snapshot that is arriving"));
        };
        known.data.extend_from_slice(&data);
        if (known.data.len() as u64) < total {
            *arriving = Some(known);
            return Ok(Reply::PartStored);
        }
        drop(arriving);
        let snapshot = Snapshot { meta, snapshot: known.data };
        self.raft.install_full_snapshot(vote, snapshot).await.map(Reply::Snapshot).map_err(text)
    }
}

/// The node whose vote a message carries, if it carries one.
fn spoken_for(message: &Message) -> Option<u64> {
    let vote: &Vote = match message {
        Message::Append(request) => &request.vote,
        Message::Vote(request) | Message::PreVote(request) => &request.vote,
        Message::Snapshot(part) => &part.vote,
        Message::Transfer(request) => request.from_leader(),
        Message::Who | Message::WhoIs { .. } => return None,
    };
    Some(vote.leader_id().node_id)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
