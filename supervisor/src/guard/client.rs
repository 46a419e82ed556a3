//! The supervisor's side of the guard's socket: one call at a time, each within a deadline, over a connection that is
//! made again when it was lost.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use holdfast_policies::{names::GuestName, time::Moment};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    sync::Mutex,
    time::timeout,
};

use super::{
    protocol::{REPLY_BYTES_MAX, Reply, Request, Status},
    socket_path,
};

/// Longest time for one call, connecting included.
const CALL_MAX: Duration = Duration::from_millis(500);

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The guard cannot be reached.
    #[error("the guard at {socket} cannot be reached")]
    Unreachable {
        /// Its socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No answer in time; the request may have been carried out all the same.
    #[error("the guard at {socket} did not answer within {call_max:?}")]
    Silent {
        /// Its socket.
        socket: PathBuf,
        /// How long it was waited for.
        call_max: Duration,
    },
    /// The guard refused; nothing was changed.
    #[error("the guard refused: {reason}")]
    Refused {
        /// Its reason.
        reason: String,
    },
    /// An answer that does not fit the question.
    #[error("the guard's answer does not fit the question")]
    Answer {
        /// What is wrong with it, when it cannot be read.
        #[source]
        source: Option<serde_json::Error>,
    },
}

/// Talks to the guard; can be cloned, and shares one connection.
#[derive(Debug, Clone)]
pub struct GuardClient {
    socket: PathBuf,
    /// [`CALL_MAX`], but in tests.
    call_max: Duration,
    connection: Arc<Mutex<Option<BufReader<UnixStream>>>>,
}

impl GuardClient {
    /// A client that connects when it is first used.
    #[must_use]
    pub fn new(run_dir: &Path) -> Self {
        Self { socket: socket_path(run_dir), call_max: CALL_MAX, connection: Arc::new(Mutex::new(None)) }
    }

    /// One that waits for as long as a busy machine may need.
    #[cfg(test)]
    pub(super) fn patient(run_dir: &Path) -> Self {
        Self { call_max: Duration::from_secs(20), ..Self::new(run_dir) }
    }

    /// Extends the lease.
    ///
    /// # Errors
    /// [`ClientError`]; `Refused` when the deadline is earlier than one granted before, or too far ahead.
    pub async fn grant(&self, deadline: Moment) -> Result<(), ClientError> {
        self.done(Request::Grant { deadline }).await
    }

    /// Ends the lease.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn revoke(&self) -> Result<(), ClientError> {
        self.done(Request::Revoke {}).await
    }

    /// Registers a guest's cgroup, which must be done before the guest is started.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn register(&self, guest: &GuestName, cgroup: &Path) -> Result<(), ClientError> {
        self.done(Request::Register { guest: guest.clone(), cgroup: cgroup.to_owned() }).await
    }

    /// Forgets a guest whose cgroups are empty.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn unregister(&self, guest: &GuestName) -> Result<(), ClientError> {
        self.done(Request::Unregister { guest: guest.clone() }).await
    }

    /// Says who gets the beacon.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn voters(&self, addresses: Vec<SocketAddr>) -> Result<(), ClientError> {
        self.done(Request::Voters { addresses }).await
    }

    /// Says whether guests are stopped when the lease runs out, as committed policies have it.
    ///
    /// # Errors
    /// [`ClientError`]; `Refused` also by a guard of an older version.
    pub async fn stop_mode(&self, stops: bool) -> Result<(), ClientError> {
        self.done(Request::StopMode { stops }).await
    }

    /// Asks how it is.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn query(&self) -> Result<Status, ClientError> {
        match self.call(Request::Query {}).await? {
            Reply::Status(status) => Ok(*status),
            Reply::Done | Reply::Refused { .. } | Reply::HandOver => Err(ClientError::Answer { source: None }),
        }
    }

    async fn done(&self, request: Request) -> Result<(), ClientError> {
        match self.call(request).await? {
            Reply::Done => Ok(()),
            Reply::Status(_) | Reply::Refused { .. } | Reply::HandOver => Err(ClientError::Answer { source: None }),
        }
    }

    async fn call(&self, request: Request) -> Result<Reply, ClientError> {
        let mut line = serde_json::to_vec(&request).map_err(|source| ClientError::Answer { source: Some(source) })?;
        line.push(b'\n');
        let answer = match timeout(self.call_max, self.exchange(&line)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(source)) => return Err(ClientError::Unreachable { socket: self.socket.clone(), source }),
            Err(_) => {
                return Err(ClientError::Silent { socket: self.socket.clone(), call_max: self.call_max });
            }
        };
        match serde_json::from_slice(&answer) {
            Ok(Reply::Refused { reason }) => Err(ClientError::Refused { reason }),
            Ok(reply) => Ok(reply),
            Err(source) => Err(ClientError::Answer { source: Some(source) }),
        }
    }

    /// The connection is out of its place while it is in use, so that one whose call was given up is never used again:
    /// its late answer would be taken for the next one's. Every request may be repeated, so that a connection which
    /// the guard's restart has broken is tried once more afresh.
    async fn exchange(&self, line: &[u8]) -> io::Result<Vec<u8>> {
        let mut place = self.connection.lock().await;
        if let Some(mut known) = place.take()
            && let Ok(answer) = ask(&mut known, line).await
        {
            *place = Some(known);
            return Ok(answer);
        }
        let mut fresh = BufReader::new(UnixStream::connect(&self.socket).await?);
        let answer = ask(&mut fresh, line).await?;
        *place = Some(fresh);
        Ok(answer)
    }
}

async fn ask(connection: &mut BufReader<UnixStream>, line: &[u8]) -> io::Result<Vec<u8>> {
    connection.write_all(line).await?;
    let mut answer = Vec::new();
    connection.take(REPLY_BYTES_MAX).read_until(b'\n', &mut answer).await?;
    if answer.last() == Some(&b'\n') { Ok(answer) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
