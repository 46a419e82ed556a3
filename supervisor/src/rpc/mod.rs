//! Requests and replies between supervisors, over one mutually authenticated TLS connection per peer.
//!
//! A request goes to a [`Channel`] of the peer and is answered by the peer's [`Handler`]. Many requests share one
//! connection and are answered in any order. Neither a timeout nor a lost connection says whether the request was
//! carried out: whatever is sent must bear being sent twice (S7).

mod client;
mod connection;
mod frame;
mod greeting;
mod seats;
mod server;
mod socket;
#[cfg(test)]
mod tests;

pub use client::Client;
pub use frame::{BODY_BYTES_MAX, FRAME_BYTES_MAX};
pub use seats::{Seat, Seats};
pub use server::{Counters, Limits, Server};

use holdfast_policies::{names::HostName, operators::OperatorCertificate};

use super::pki::Peer;

/// What a request is about; each channel has its own share of a connection, so that none can crowd out raft.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Channel {
    /// Raft among the voters.
    Raft = 1,
    /// An agent's sync with the coordinator.
    Sync = 2,
    /// Requests of operators: from themselves, or forwarded to the coordinator by the host that they spoke to.
    Client = 3,
    /// How long ago a voter last heard a host (R17).
    Ages = 4,
    /// Whether locks on disk images reach other hosts (R28).
    Locks = 5,
    /// What power devices say, by the coordinator's wish.
    Paths = 6,
}

impl Channel {
    /// Every channel.
    pub const ALL: [Self; 6] = [Self::Raft, Self::Sync, Self::Client, Self::Ages, Self::Locks, Self::Paths];

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|channel| *channel as u8 == byte)
    }
}

/// Answers requests. Who asks is who the verified certificate says the caller is.
#[async_trait::async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Whether a peer is served at all. Asked after its handshake and before each of its requests: whoever is refused is told
    /// why, and loses the connection.
    ///
    /// # Errors
    /// Why not; the peer sees it as [`CallError::Refused`].
    fn admit(&self, _peer: &Peer) -> Result<(), String> {
        Ok(())
    }

    /// Answers one request.
    ///
    /// # Errors
    /// The text is sent to the caller, who sees it as [`CallError::Refused`].
    async fn handle(&self, peer: HostName, channel: Channel, body: Vec<u8>) -> Result<Vec<u8>, String>;

    /// Answers one request of an operator, on [`Channel::Client`]: what hosts say to each other never comes from a person,
    /// and what a person says is never taken for a host's.
    ///
    /// # Errors
    /// As [`handle`](Self::handle).
    async fn handle_operator(&self, operator: OperatorCertificate, _body: Vec<u8>) -> Result<Vec<u8>, String> {
        Err(format!("requests of operators such as {} are not served here", operator.name))
    }
}

/// Why a call brought no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The request was sent and no reply came in time; it may have been carried out.
    #[error("no reply within the time allowed")]
    Timeout,
    /// There is no connection, or it broke; when it broke, the request may have been carried out.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The peer answered that it will not, and why; or the request is too large to send.
    #[error("refused: {0}")]
    Refused(String),
}
