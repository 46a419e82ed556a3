//! Socket options, so that a peer whose power was cut does not hold a connection for ever.

use std::io;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::TcpStream;

/// Sent data unacknowledged for this long, in milliseconds, means that the connection is dead.
const UNACKNOWLEDGED_MAX_MS: u32 = 5_000;
/// A connection idle for this long, in seconds, is asked whether it still lives.
const IDLE_ASK_SECONDS: u32 = 10;
/// Seconds between two such questions.
const ASK_EVERY_SECONDS: u32 = 2;

/// No delay for small frames; a dead peer is noticed in seconds and not in the kernel's two hours.
pub(super) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    setsockopt(stream, sockopt::TcpUserTimeout, &UNACKNOWLEDGED_MAX_MS)?;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &IDLE_ASK_SECONDS)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &ASK_EVERY_SECONDS)?;
    Ok(())
}
