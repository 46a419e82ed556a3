//! What other supervisors and operators may ask of this one over RPC, and who may ask it.

use std::{fmt::Display, sync::Arc, time::Duration};

use holdfast_policies::{names::HostName, operators::OperatorCertificate, sync::SyncRequest};
use serde::de::DeserializeOwned;

use crate::{
    clock,
    consensus::no_vote,
    coordinator::{
        Coordinator, Counter,
        paths::{self, PathQuestion},
        wishes::{AgesQuestion, answer},
    },
    desk::{Request, Voucher, write_answer},
    health::Complaint,
    locks::Question,
    node::Node,
    pki::Peer,
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
    /// Operators' certificates are looked at by the coordinator, with each request.
    fn admit(&self, peer: &Peer) -> Result<(), String> {
        let Peer::Host(certificate) = peer else { return Ok(()) };
        self.node.revocations.admit(certificate).map_err(|revoked| {
            tracing::debug!(%revoked, "a host was refused");
            self.node.metrics.rpc_refused("revoked", 1);
            revoked.to_string()
        })
    }

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
                write_answer(&self.counter.serve_here(request, &Voucher::Host(peer)).await)
            }
        }
    }

    async fn handle_operator(&self, operator: OperatorCertificate, body: Vec<u8>) -> Result<Vec<u8>, String> {
        let request: Request = self.read(&operator.name, &body)?;
        write_answer(&self.counter.serve_operator(request, operator).await)
    }
}

impl Front {
    /// Reads a request. A peer that sends what is none runs another version, or means harm: it is counted.
    fn read<T: DeserializeOwned>(&self, peer: &impl Display, body: &[u8]) -> Result<T, String> {
        serde_json::from_slice(body).map_err(|error| self.counted(peer, error.to_string()))
    }

    fn counted(&self, peer: &impl Display, error: String) -> String {
        tracing::debug!(%peer, error, "a request was refused");
        self.node.metrics.rpc_refused("request", 1);
        error
    }

    /// Raft refuses only what is no message of this cluster for this node, and everything once it has stopped.
    async fn raft(&self, peer: &HostName, body: &[u8]) -> Result<Vec<u8>, String> {
        let answered = match &self.node.consensus {
            Some(consensus) => consensus.handle_rpc(peer, body).await,
            None => Err(no_vote(self.node.released.generation())),
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
            if !direct {
                self.may_be_handed_on(&request)?;
            }
            let coordinator = self.coordinator.as_ref().ok_or("this host has no vote")?;
            let reply = coordinator.sync(request).await?;
            return serde_json::to_vec(&reply).map_err(|error| error.to_string());
        }
        if !direct {
            return Err("handed on already; this host does not lead".to_owned());
        }
        // It may have waited for as long as this host stood still, and would be taken for new: its sender asks another voter.
        let timing = &self.node.file.timing;
        if self.node.health.may_have_stood_still(clock::moment(), timing.wonder_after.0, timing.sync_every.0 * 2) {
            return Err("this host stood still a moment ago: what it would hand on may be old".to_owned());
        }
        let address = voters.get(&leader).copied().ok_or("the leader's address is not known")?;
        let called = self.node.rpc.call(&leader, address, Channel::Sync, body, FORWARD_DEADLINE).await;
        called.map_err(|error| error.to_string())
    }

    /// A voter that lags behind may not know yet that a certificate is revoked. So a boot of a name that was revoked joins
    /// only where its certificate is looked at by whoever lets it join (R27).
    fn may_be_handed_on(&self, request: &SyncRequest) -> Result<(), String> {
        let (host, incarnation) = (&request.host, &request.facts.incarnation);
        let refused = self.node.read(|state| {
            let revocation = state.revoked.get(host);
            revocation.is_some_and(|known| known.readmitted.is_none() || !state.is_current(host, incarnation))
        });
        if refused {
            return Err(format!("{host} was revoked: a new boot of it joins by asking the coordinator itself"));
        }
        Ok(())
    }
}
