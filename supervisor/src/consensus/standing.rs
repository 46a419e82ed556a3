//! How far a voter has come, and in which generation of the cluster (R25): what voters of two generations tell each other,
//! and what whoever is about to recover a cluster asks the others.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, RwLock},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use super::{
    super::rpc::{CallError, Channel, Client},
    machine::Machine,
    network::{Envelope, Message, Reply},
    promises::Promised,
    types::Place,
};

/// What a host without a vote answers to raft's messages begins with this: its supervisor is there, and it cannot vote.
const NO_VOTE: &str = "this host has no vote";

/// What follows when it knows of a generation.
const KNOWS: &str = ", and has learned of generation ";

/// What a host without a vote answers to raft's messages. `knows` is the newest generation that its agent has learned of.
#[must_use]
pub fn no_vote(knows: u32) -> String {
    if knows == 0 { NO_VOTE.to_owned() } else { format!("{NO_VOTE}{KNOWS}{knows}") }
}

fn refused(why: String) -> Heard {
    let Some(rest) = why.strip_prefix(NO_VOTE) else { return Heard::Unclear(why) };
    let knows = rest.strip_prefix(KNOWS).and_then(|generation| generation.parse().ok());
    Heard::NoVote { knows: knows.unwrap_or(0) }
}

/// How far a voter has come. In this order: whose store is to be the base of a recovery. As in an election, the term of the
/// last entry comes before its index: a long tail that a cut off leader wrote was never decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Standing {
    /// The generation.
    pub generation: u32,
    /// The term in which its last entry was written.
    pub term: u64,
    /// The index of its last entry.
    pub index: u64,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entry {} of term {}", self.index, self.term)
    }
}

/// What was heard of a voter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// It takes part.
    Votes(Standing),
    /// Somebody is there, and it is not known what it could still do: it is of another version, has stopped, or a certificate
    /// has run out, its own or that of whoever asks.
    Unclear(String),
    /// Its supervisor answers, and has no store to vote with.
    NoVote {
        /// The newest generation that its agent has learned of; 0 where it does not say, or has never been told of any.
        knows: u32,
    },
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
        Err(CallError::Refused(why)) => refused(why),
        // The connection stood, so somebody is there.
        Err(CallError::Timeout) => Heard::Unclear("it is there, and did not answer in time".to_owned()),
        Err(CallError::Unreachable(why)) => unheard(place.address, timeout, why).await,
    }
}

impl Heard {
    /// The generation that it is of or has learned of, if it says so.
    #[must_use]
    pub fn generation(&self) -> Option<u32> {
        match self {
            Self::Votes(standing) => Some(standing.generation),
            Self::NoVote { knows } => Some(*knows),
            Self::Unclear(_) | Self::Nothing(_) => None,
        }
    }
}

/// Whoever takes a connection is there, whatever keeps the two from understanding each other: the certificates of all hosts
/// may run out together, and then nobody is lost.
async fn unheard(address: SocketAddr, timeout: Duration, why: String) -> Heard {
    match tokio::time::timeout(timeout, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Heard::Unclear(format!("it takes connections, and cannot be asked: {why}")),
        Ok(Err(_)) | Err(_) => Heard::Nothing(why),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_a_vote_tells_which_generation_it_has_learned_of() {
        for knows in [0, 1, 700] {
            assert_eq!(refused(no_vote(knows)), Heard::NoVote { knows });
        }
        assert!(matches!(refused("not a raft message".to_owned()), Heard::Unclear(_)));
    }
}
