//! What other supervisors may ask of this one over RPC, and who may ask it.

use std::{sync::Arc, time::Duration};

use holdfast_policies::{names::HostName, sync::SyncRequest};

use crate::{
    coordinator::{
        Coordinator, Counter,
        wishes::{AgesQuestion, answer},
    },
    desk::Request,
    node::Node,
    rpc::{Channel, Handler},
};

/// How long a forwarded sync may take: less than an agent waits for the whole (R6).
const FORWARD_DEADLINE: Duration = Duration::from_millis(600);

/// Answers every channel.
pub struct Front {
    /// The node.
    pub node: Arc<Node>,
    /// The coordinator, on voters.
    pub coordinator: Option<Coordinator>,
    /// Where operators' requests are served.
    pub counter: Arc<Counter>,
}

#[async_trait::async_trait]
impl Handler for Front {
    async fn handle(&self, peer: HostName, channel: Channel, body: Vec<u8>) -> Result<Vec<u8>, String> {
        match channel {
            Channel::Raft => match &self.node.consensus {
                Some(consensus) => consensus.handle_rpc(&peer, &body).await,
                None => Err("this host has no vote".to_owned()),
            },
            Channel::Sync => self.sync(&peer, body).await,
            Channel::Ages => {
                let question: AgesQuestion = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
                serde_json::to_vec(&answer(&self.node, &question)).map_err(|error| error.to_string())
            }
            Channel::Client => {
                let request: Request = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
                let request = attributed(request, &peer);
                serde_json::to_vec(&self.counter.serve_here(request).await).map_err(|error| error.to_string())
            }
        }
    }
}

/// Names the host through which an operator speaks: a person's name is that host's word, and no more (S3).
fn attributed(request: Request, peer: &HostName) -> Request {
    let through = |person: String| format!("{person} through {peer}");
    match request {
        Request::Apply { sources, by, dry_run } => Request::Apply { sources, by: through(by), dry_run },
        Request::Migrate { guest, to, by } => Request::Migrate { guest, to, by: through(by) },
        Request::Drain { host, by } => Request::Drain { host, by: through(by) },
        Request::Resume { host, by } => Request::Resume { host, by: through(by) },
        Request::ConfirmOff { host, person } => Request::ConfirmOff { host, person: through(person) },
        asked @ (Request::Status | Request::Explain { .. } | Request::Journal { .. }) => asked,
    }
}

impl Front {
    /// Serves a sync here when this host leads; otherwise hands it on to the leader, once.
    async fn sync(&self, peer: &HostName, body: Vec<u8>) -> Result<Vec<u8>, String> {
        let request: SyncRequest = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        let direct = request.host == *peer;
        let voters = self.node.voters();
        if !direct && !voters.contains_key(peer) {
            return Err(format!("{peer} may not speak for {}", request.host));
        }
        let leader = self.node.leader().ok_or("no leader is known here")?;
        if leader == *self.node.host() {
            let coordinator = self.coordinator.as_ref().ok_or("this host has no vote")?;
            let reply = coordinator.sync(request).await?;
            return serde_json::to_vec(&reply).map_err(|error| error.to_string());
        }
        if !direct {
            return Err("handed on already; this host does not lead".to_owned());
        }
        let address = voters.get(&leader).copied().ok_or("the leader's address is not known")?;
        let called = self.node.rpc.call(&leader, address, Channel::Sync, body, FORWARD_DEADLINE).await;
        called.map_err(|error| error.to_string())
    }
}
