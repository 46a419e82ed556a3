//! Raft's messages, as the product's network sends them: with its patience, and each to whatever process there is when it
//! arrives.

use std::{future::Future, time::Duration};

use holdfast::consensus::Place;
use openraft::{
    AsyncRuntime as _, EntryPayload, OptionalSend, RaftNetworkFactory, RaftNetworkV2,
    async_runtime::Select2,
    errors::{RPCError, ReplicationClosed, StreamingError},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
        VoteRequest, VoteResponse,
    },
};
use openraft_rt_sim::SimRuntime;

use super::{
    ledger::Promise,
    network::{Kind, Manner, Network},
    types::{Entry, Snapshot, Types, Vote, Voter},
};

/// Time for entries to reach a follower's disk, as in the product.
const APPEND_TIMEOUT: Duration = Duration::from_millis(500);

/// Time for a snapshot to be installed. The product's patience is longer, because TCP sends again what was lost; here that is
/// raft's part.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(1);

/// Makes a [`Link`] to each voter, for one process.
pub(super) struct Links {
    pub(super) network: Network,
    pub(super) from: u64,
    pub(super) boot: u64,
}

impl RaftNetworkFactory<Types> for Links {
    type Network = Link;

    async fn new_client(&mut self, target: u64, _place: &Place) -> Link {
        Link { network: self.network.clone(), from: (self.from, self.boot), to: target }
    }
}

/// The way to one voter.
pub(super) struct Link {
    network: Network,
    from: (u64, u64),
    to: u64,
}

impl Link {
    async fn ask<A, F, Fut>(&self, kind: Kind, patience: Duration, act: F) -> Result<A, RPCError<Types>>
    where
        A: Send + 'static,
        F: FnOnce(Voter) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Result<(A, Option<Promise>), String>> + Send + 'static,
    {
        self.network.ask(self.from, self.to, Manner { kind, patience, may_double: true }, act).await
    }
}

impl RaftNetworkV2<Types> for Link {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let patience =
            if request.entries.is_empty() { option.soft_ttl() } else { APPEND_TIMEOUT.max(option.soft_ttl()) };
        let kind = if request.entries.iter().all(is_small) { Kind::Small } else { Kind::Large };
        let act = move |voter: Voter| async move {
            let last = request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id);
            let promise = Promise { leader: request.vote.leader_id, last };
            let response = voter.append_entries(request).await.map_err(text)?;
            let promise = response.is_success().then_some(promise);
            Ok::<_, String>((response, promise))
        };
        self.ask(kind, patience, act).await
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let act = move |voter: Voter| async move {
            let promise = Promise { leader: request.vote.leader_id, last: None };
            let response = voter.vote(request).await.map_err(text)?;
            let promise = response.vote_granted.then_some(promise);
            Ok::<_, String>((response, promise))
        };
        self.ask(Kind::Election, option.soft_ttl(), act).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let act = move |voter: Voter| async move {
            let response = voter.pre_vote(request).await.map_err(text)?;
            Ok::<_, String>((response, None::<Promise>))
        };
        self.ask(Kind::Election, option.soft_ttl(), act).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let act = move |voter: Voter| async move {
            let response = voter.install_full_snapshot(vote, snapshot).await.map_err(text)?;
            Ok::<_, String>((response, None::<Promise>))
        };
        // The product's snapshots come in parts, the last of which nobody takes twice.
        let patience = SNAPSHOT_TIMEOUT.min(option.soft_ttl());
        let manner = Manner { kind: Kind::Large, patience, may_double: false };
        let sent = self.network.ask(self.from, self.to, manner, act);
        match SimRuntime::select2(sent, cancel).await {
            Select2::First(sent) => Ok(sent?),
            Select2::Second(closed) => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let act = move |voter: Voter| async move {
            let response = voter.handle_transfer_leader(request).await.map_err(text)?;
            Ok::<_, String>((response, None::<Promise>))
        };
        self.ask(Kind::Election, option.soft_ttl(), act).await
    }
}

/// What leaders begin their terms with is small; what is proposed need not be.
fn is_small(entry: &Entry) -> bool {
    matches!(entry.payload, EntryPayload::Blank)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
