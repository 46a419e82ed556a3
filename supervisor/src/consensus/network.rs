//! Raft's messages to other voters, over the RPC channel that is kept for them.

use std::{future::Future, sync::Arc, time::Duration};

use holdfast_policies::names::HostName;
use openraft::{
    EntryPayload, OptionalSend, RaftNetworkFactory, RaftNetworkV2,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
        VoteRequest, VoteResponse,
    },
};
use serde::{Deserialize, Serialize};

use super::{
    super::rpc::{CallError, Channel, Client},
    health::{Cause, Health},
    promises::{Promised, Promises},
    silence::Silence,
    standing::{Generation, Standing},
    types::{Entry, Place, Snapshot, SnapshotMeta, Types, Vote, bytes_as_text},
};

/// Time for entries to reach a follower's disk. Longer than a heartbeat, because a disk may take longer than that; the
/// heartbeats, which are sent beside it, find a dead connection sooner.
const APPEND_TIMEOUT: Duration = Duration::from_millis(500);

/// Bytes of entries for which a millisecond more is waited: a slow network and a slow disk take 4 MiB in a second together. Given up
/// too early they would be sent again, and again in vain.
const BYTES_PER_MS: usize = 4 * 1024;

/// Size of one part of a snapshot, in bytes: small enough that heartbeats on the same connection are not held up.
const PART_BYTES: usize = 256 * 1024;

/// Time for a voter to say who a node is: it answers from memory.
const WHO_IS_TIMEOUT: Duration = Duration::from_millis(300);

/// What this node puts on every message.
pub(super) struct Sender {
    pub(super) cluster: String,
    pub(super) node_id: u64,
    pub(super) generation: Generation,
    pub(super) client: Client,
    pub(super) promises: Promises,
    pub(super) health: Health,
    pub(super) silence: Silence,
}

/// One message, with who sends it to whom: a store of another cluster, or a node under a changed id, is refused (R23).
#[derive(Serialize, Deserialize)]
pub(super) struct Envelope {
    pub(super) cluster: String,
    pub(super) from: u64,
    pub(super) to: u64,
    /// The sender's generation of the cluster (R25); 0 where it does not say.
    #[serde(default)]
    pub(super) generation: u32,
    /// What the receiver has promised the sender (R24).
    #[serde(default)]
    pub(super) promised: Promised,
    pub(super) message: Message,
}

#[derive(Serialize, Deserialize)]
pub(super) enum Message {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<Types>),
    PreVote(VoteRequest<Types>),
    Snapshot(Part),
    Transfer(TransferLeaderRequest<Types>),
    /// How far the receiver has come: whoever is about to recover a cluster asks that.
    Who,
    /// Which host votes as this node, by the newest membership that the receiver knows. An earlier version does not answer it.
    WhoIs {
        node_id: u64,
    },
}

/// A part of a snapshot; parts come in order, and the last one completes it.
#[derive(Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) vote: Vote,
    pub(super) meta: SnapshotMeta,
    pub(super) offset: u64,
    pub(super) total: u64,
    #[serde(with = "bytes_as_text")]
    pub(super) data: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
pub(super) enum Reply {
    Append(AppendEntriesResponse<Types>),
    Vote(VoteResponse<Types>),
    /// The part is there, and more are expected.
    PartStored,
    Snapshot(SnapshotResponse<Types>),
    Transfer(TransferLeaderResponse<Types>),
    Who(Standing),
    WhoIs {
        place: Option<Place>,
    },
    /// The receiver is of a later generation: the sender takes part in nothing any more (R25).
    Superseded {
        generation: u32,
    },
}

/// Makes a [`Link`] for each voter.
pub(super) struct Network(pub(super) Arc<Sender>);

impl RaftNetworkFactory<Types> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, place: &Place) -> Link {
        Link { sender: Arc::clone(&self.0), target, place: place.clone() }
    }
}

impl Sender {
    /// Whoever was a voter of a generation that has ended must not go on, however many like it there are.
    fn superseded(&self, own: u32, later: u32, by: &Place) {
        if later > own {
            self.health.fail(Cause::Superseded, &superseded(own, later, &by.host));
        }
    }

    /// Asks a voter who votes as this node.
    pub(super) async fn ask_who_is(self: &Arc<Self>, voter: u64, place: Place, node_id: u64) -> Option<Place> {
        let link = Link { sender: Arc::clone(self), target: voter, place };
        match link.call(Message::WhoIs { node_id }, WHO_IS_TIMEOUT).await {
            Ok(Reply::WhoIs { place }) => place,
            Ok(_) | Err(_) => None,
        }
    }
}

/// Why a voter of a generation that has ended takes part in nothing any more.
pub(super) fn superseded(own: u32, later: u32, by: &HostName) -> String {
    format!(
        "the cluster was recovered and goes on as generation {later}, as {by} says; the store here is of generation {own}"
    )
}

/// The way to one voter.
pub(super) struct Link {
    sender: Arc<Sender>,
    target: u64,
    place: Place,
}

/// A reply of the wrong kind, or one that is not a reply.
#[derive(Debug, thiserror::Error)]
#[error("the reply is not one to the request")]
struct OtherReply;

/// A node that has stopped for good says nothing any more, however long its raft takes to end.
#[derive(Debug, thiserror::Error)]
#[error("this node has stopped")]
struct Stopped;

/// A leader that gives way says nothing for a while.
#[derive(Debug, thiserror::Error)]
#[error("this node gives way to another leader")]
struct GivesWay;

impl Link {
    async fn call(&self, message: Message, timeout: Duration) -> Result<Reply, RPCError<Types>> {
        let sender = &self.sender;
        if sender.health.failure().is_some() {
            return Err(RPCError::Unreachable(Unreachable::new(&Stopped)));
        }
        if sender.silence.withholds(&message) {
            return Err(RPCError::Unreachable(Unreachable::new(&GivesWay)));
        }
        let promised = sender.promises.of(self.target);
        let (cluster, from, generation) = (sender.cluster.clone(), sender.node_id, sender.generation.get());
        let envelope = Envelope { cluster, from, to: self.target, generation, promised, message };
        let body = serde_json::to_vec(&envelope).map_err(|error| RPCError::Network(NetworkError::new(&error)))?;
        let called = sender.client.call(&self.place.host, self.place.address, Channel::Raft, body, timeout).await;
        match called {
            Ok(body) => match serde_json::from_slice(&body) {
                Ok(Reply::Superseded { generation: later }) => {
                    sender.superseded(generation, later, &self.place);
                    other_reply()
                }
                read => read.map_err(|error| RPCError::Network(NetworkError::new(&error))),
            },
            Err(error @ CallError::Timeout) => Err(RPCError::Network(NetworkError::new(&error))),
            // Raft waits a little before it tries again.
            Err(error) => Err(RPCError::Unreachable(Unreachable::new(&error))),
        }
    }
}

/// How long entries may take to a follower's disk.
fn time_for(entries: &[Entry]) -> Duration {
    let bytes = |entry: &Entry| match &entry.payload {
        EntryPayload::Normal(bytes) => bytes.0.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    };
    let more = entries.iter().map(bytes).sum::<usize>() / BYTES_PER_MS;
    APPEND_TIMEOUT.saturating_add(Duration::from_millis(u64::try_from(more).unwrap_or(u64::MAX)))
}

fn other_reply<T>() -> Result<T, RPCError<Types>> {
    Err(RPCError::Network(NetworkError::new(&OtherReply)))
}

impl RaftNetworkV2<Types> for Link {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let timeout = if request.entries.is_empty() {
            option.soft_ttl()
        } else {
            time_for(&request.entries).max(option.soft_ttl())
        };
        let promised = Promised::with(&request).for_good(&request);
        match self.call(Message::Append(request), timeout).await? {
            Reply::Append(response) => {
                if response.is_success() {
                    self.sender.promises.note(self.target, promised);
                }
                Ok(response)
            }
            _ => other_reply(),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask_for_vote(Message::Vote(request), option.soft_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask_for_vote(Message::PreVote(request), option.soft_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        tokio::select! {
            sent = self.send_parts(vote, snapshot, option.soft_ttl()) => Ok(sent?),
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        match self.call(Message::Transfer(request), option.soft_ttl()).await? {
            Reply::Transfer(response) => Ok(response),
            _ => other_reply(),
        }
    }
}

impl Link {
    async fn ask_for_vote(&self, message: Message, timeout: Duration) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.call(message, timeout).await? {
            Reply::Vote(response) => Ok(response),
            _ => other_reply(),
        }
    }

    /// Sends a snapshot part by part; `timeout` is for each part.
    async fn send_parts(
        &self,
        vote: Vote,
        snapshot: Snapshot,
        timeout: Duration,
    ) -> Result<SnapshotResponse<Types>, RPCError<Types>> {
        let total = snapshot.snapshot.len() as u64;
        let mut offset = 0;
        let mut rest = snapshot.snapshot.as_slice();
        loop {
            let (data, after) = rest.split_at_checked(PART_BYTES).unwrap_or((rest, &[]));
            let part = Part { vote, meta: snapshot.meta.clone(), offset, total, data: data.to_vec() };
            offset += data.len() as u64;
            rest = after;
            match self.call(Message::Snapshot(part), timeout).await? {
                Reply::PartStored if !rest.is_empty() => {}
                // Also in the middle, when the follower has seen a higher vote meanwhile.
                Reply::Snapshot(response) => return Ok(response),
                _ => return other_reply(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            propose::ENTRY_BYTES_MAX,
            types::{EntryBytes, LogId},
        },
        *,
    };

    #[test]
    fn the_largest_entries_are_given_more_time_than_decisions() {
        let of_size = |bytes| {
            let log_id = Vote::new_committed(1, 1).leader_id;
            Entry { log_id: LogId::new(log_id, 1), payload: EntryPayload::Normal(EntryBytes(vec![b'x'; bytes])) }
        };
        assert_eq!(time_for(&[of_size(2_000), of_size(2_000)]), APPEND_TIMEOUT);
        let largest = time_for(&[of_size(ENTRY_BYTES_MAX)]);
        assert_eq!(largest, APPEND_TIMEOUT + Duration::from_millis(512));
    }
}
