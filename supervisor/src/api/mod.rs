//! HTTP: a local socket for instructions, and a read-only page for everybody else. Both only carry; a [`Desk`](super::desk::Desk)
//! answers.
//!
//! ```text
//!  holdfast apply, status, … ── holdfast.sock: POST /v1/ask ──► Desk
//!  Prometheus, browsers ── GET /metrics /healthz /readyz /v1/status /v1/guests/{guest}/explain /v1/journal ──► Desk
//! ```
//!
//! Garbage gets an answer of its own and reaches no desk (S10). Everything has a limit: connections, time, bytes.

mod answers;
pub mod client;
mod local;
mod public;
mod serve;
#[cfg(test)]
mod tests;

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

pub use self::{local::serve_local, public::serve_public, serve::Serving};

/// The local socket below `run_dir`.
pub const SOCKET_NAME: &str = "holdfast.sock";

/// Largest request: policies of [`holdfast_policies::yaml::INPUT_BYTES_MAX`] bytes, escaped as JSON, which makes a tenth more of YAML.
/// It is less than a frame, in which it goes on to the coordinator.
pub const REQUEST_BYTES_MAX: usize = 12 * 1024 * 1024;

/// Longest time for one request, from its headers to the answer: a commit takes well under a second, and an election in
/// the middle of it a few.
pub const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// Connections served at once on each listener; more wait in the kernel until one ends.
const CONNECTIONS_MAX: usize = 256;

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Somebody else answers on the socket.
    #[error("another supervisor answers on {socket}", socket = socket.display())]
    Running {
        /// The socket.
        socket: PathBuf,
    },
    /// Something is in the socket's place.
    #[error("{path} is in the way: it is not a socket", path = path.display())]
    InTheWay {
        /// Which.
        path: PathBuf,
    },
    /// The socket cannot be made.
    #[error("cannot listen on {socket}", socket = socket.display())]
    Local {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The address cannot be used.
    #[error("cannot listen on {address}")]
    Public {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}
