//! How far a voter has come, and in which generation of the cluster (R25): what voters of two generations tell each other,
//! and what whoever is about to recover a cluster asks the others.

use std::{
    sync::{Arc, RwLock},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    super::rpc::{CallError, Channel, Client},
    machine::Machine,
    network::{Envelope, Message, Reply},
    promises::Promised,
    types::Place,
};

/// What a host without a vote answers to raft's messages: its supervisor is there, and it cannot vote.
pub const NO_VOTE: &str = "this host has no vote";

/// How far a voter has come. In this order: whose store is to be the base of a recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Standing {
    /// The generation.
    pub generation: u32,
    /// The newest term that it knows.
    pub term: u64,
    /// The index of its last entry.
    pub index: u64,
}

/// What was heard of a voter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// It takes part.
    Votes(Standing),
    /// Its supervisor answers, and it is not known what it could still do: it is of another version, or has stopped.
    Unclear(String),
    /// Its supervisor answers, and has no store to vote with.
    NoVote,
    /// Nothing, and why.
    Nothing(String),
}

/// Asks a voter how far it has come. Whoever asks need not be in its membership.
pub async fn ask(client: &Client, cluster: &str, to: u64, place: &Place, timeout: Duration) -> Heard {
    let promised = Promised::default();
    let message = Message::Who;
    let envelope = Envelope { cluster: cluster.to_owned(), from: 0, to, generation: 0, promised, message };
    let body = match serde_json::to_vec(&envelope) {
        Ok(body) => body,
        Err(error) => return Heard::Unclear(error.to_string()),
    };
    match client.call(&place.host, place.address, Channel::Raft, body, timeout).await {
        Ok(body) => match serde_json::from_slice(&body) {
            Ok(Reply::Who(standing)) => Heard::Votes(standing),
            Ok(_) => Heard::Unclear("it answered something else".to_owned()),
            Err(error) => Heard::Unclear(error.to_string()),
        },
        Err(CallError::Refused(why)) if why == NO_VOTE => Heard::NoVote,
        Err(CallError::Refused(why)) => Heard::Unclear(why),
        // The connection stood, so somebody is there.
        Err(CallError::Timeout) => Heard::Unclear("it is there, and did not answer in time".to_owned()),
        Err(CallError::Unreachable(why)) => Heard::Nothing(why),
    }
}

/// The generation that the machine is in.
#[derive(Clone)]
pub(super) struct Generation(Arc<RwLock<dyn Machine>>);

impl Generation {
    pub(super) fn of(machine: Arc<RwLock<dyn Machine>>) -> Self {
        Self(machine)
    }

    /// 0 where nobody can vouch for the state.
    pub(super) fn get(&self) -> u32 {
        self.0.read().map_or(0, |machine| machine.generation())
    }
}
