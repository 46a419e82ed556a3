//! What other supervisors may ask of this one over RPC, and who may ask it.

use std::{sync::Arc, time::Duration};

use holdfast_policies::{names::HostName, sync::SyncRequest};
use serde::de::DeserializeOwned;

use crate::{
    coordinator::{
        Coordinator, Counter,
        paths::{self, PathQuestion},
        wishes::{AgesQuestion, answer},
    },
    desk::Request,
    locks::Question,
    node::{Complaint, Node},
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
            Channel::Raft => self.raft(&peer, &body).await,
            Channel::Sync => self.sync(&peer, body).await,
            Channel::Ages => {
                let question: AgesQuestion = self.read(&peer, &body)?;
                serde_json::to_vec(&answer(&self.node, &question)).map_err(|error| error.to_string())
            }
            Channel::Locks => {
                let question: Question = self.read(&peer, &body)?;
                if !self.node.voters().contains_key(&peer) {
                    return Err(self.counted(&peer, format!("{peer} has no vote and does not survey locks")));
                }
                let answers = self.counter.keeper().answer(question).await?;
                serde_json::to_vec(&answers).map_err(|error| error.to_string())
            }
            Channel::Paths => {
                // Devices are what the coordinator says they are: only a voter can be it.
                if !self.node.voters().contains_key(&peer) {
                    return Err(self.counted(&peer, format!("{peer} has no vote, and asks for power devices")));
                }
                let question: PathQuestion = self.read(&peer, &body)?;
                let answer = paths::answer(&question, &self.node.refusals).await;
                serde_json::to_vec(&answer).map_err(|error| error.to_string())
            }
            Channel::Client => {
                let request: Request = self.read(&peer, &body)?;
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
        Request::Migrate { guest, to, cold, by } => Request::Migrate { guest, to, cold, by: through(by) },
        Request::Drain { host, by } => Request::Drain { host, by: through(by) },
        Request::Maintain { host, by } => Request::Maintain { host, by: through(by) },
        Request::Leave { host, reboot, by } => Request::Leave { host, reboot, by: through(by) },
        Request::Want { guest, wanted, by } => Request::Want { guest, wanted, by: through(by) },
        Request::Suspend { suspended, by } => Request::Suspend { suspended, by: through(by) },
        Request::Resume { host, by } => Request::Resume { host, by: through(by) },
        Request::ConfirmOff { host, person } => Request::ConfirmOff { host, person: through(person) },
        Request::AddVoter { host, by } => Request::AddVoter { host, by: through(by) },
        Request::PromoteVoter { host, by } => Request::PromoteVoter { host, by: through(by) },
        Request::RemoveVoter { host, force, by } => Request::RemoveVoter { host, force, by: through(by) },
        Request::LookedAfter { guest, by } => Request::LookedAfter { guest, by: through(by) },
        Request::LiftQuarantine { host, machine, by } => Request::LiftQuarantine { host, machine, by: through(by) },
        Request::TrustDevice { host, by } => Request::TrustDevice { host, by: through(by) },
        Request::ReleaseStormHold { by } => Request::ReleaseStormHold { by: through(by) },
        Request::DrillFence { host, level, by } => Request::DrillFence { host, level, by: through(by) },
        Request::TestFence { host, from } => Request::TestFence { host, from },
        asked @ (Request::Status
        | Request::Simulate(_)
        | Request::Explain { .. }
        | Request::Journal { .. }
        | Request::Voters) => asked,
    }
}

impl Front {
    /// Reads a request. A peer that sends what is none runs another version, or means harm: it is counted.
    fn read<T: DeserializeOwned>(&self, peer: &HostName, body: &[u8]) -> Result<T, String> {
        serde_json::from_slice(body).map_err(|error| self.counted(peer, error.to_string()))
    }

    fn counted(&self, peer: &HostName, error: String) -> String {
        tracing::debug!(%peer, error, "a request was refused");
        self.node.metrics.rpc_refused("request");
        error
    }

    /// Raft refuses only what is no message of this cluster for this node, and everything once it has stopped.
    async fn raft(&self, peer: &HostName, body: &[u8]) -> Result<Vec<u8>, String> {
        let answered = match &self.node.consensus {
            Some(consensus) => consensus.handle_rpc(peer, body).await,
            None => Err("this host has no vote".to_owned()),
        };
        answered.map_err(|error| self.counted(peer, error))
    }

    /// Serves a sync here when this host leads; otherwise hands it on to the leader, once.
    async fn sync(&self, peer: &HostName, body: Vec<u8>) -> Result<Vec<u8>, String> {
        let request: SyncRequest = self.read(peer, &body)?;
        let direct = request.host == *peer;
        let voters = self.node.voters();
        if !direct && !voters.contains_key(peer) {
            return Err(self.counted(peer, format!("{peer} may not speak for {}", request.host)));
        }
        // A voter that has stopped knows no leader either: what it remembers is no authority.
        let leader = self.node.leader().ok_or_else(|| match self.node.health.complaint(Complaint::Vote) {
            Some(why) => format!("no leader is known here: {why}"),
            None => "no leader is known here".to_owned(),
        })?;
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
