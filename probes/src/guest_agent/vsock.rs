//! The agent's port on vsock, in place of a virtio-serial port.
//!
//! ```text
//!   host ── connection ──► who comes? ── the host, from a port of root's ──► carried ──► Agent::serve
//!                              └─ anybody else: hung up                   newest wins
//! ```
//! A virtio-serial port is there whoever comes and goes at its other end, and the agent relies on that: it watches services
//! while nobody listens. So connections are made into such a port. What is said to nobody is not kept, and what an end of a
//! connection has cut in two is one line that cannot be read.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use holdfast_policies::model::VSOCK_PORT;
use nix::{
    libc::{VMADDR_CID_ANY, VMADDR_CID_HOST},
    sys::socket::{AddressFamily, Backlog, SockFlag, SockType, VsockAddr, bind, getpeername, listen, socket},
};
use rustix::net::SocketFlags;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, Interest, copy, duplex, sink, split, unix::AsyncFd},
    net::UnixStream,
    sync::mpsc,
    time::{Instant, sleep},
};

use super::{seldom::Seldom, serve::Agent};

/// Highest port that the host's kernel gives to root alone.
const RESERVED_MAX: u32 = 1023;

/// Connections that may wait; the host has one.
const BACKLOG: i32 = 4;

/// What may be under way between a connection and the agent, in bytes.
const UNDER_WAY: usize = 64 << 10;

/// How long is waited after a connection could not be taken.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Where the host comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VsockPort {
    /// The port that the agent listens at. Default 7413, as on the host.
    pub port: u32,
    /// Whether the host may come from any port of its own. Default false: only from those that its root alone can have, so that
    /// other users of the host stay out. A program that carries vsock comes from ports as it likes, and guards its socket instead.
    pub any_source: bool,
}

impl Default for VsockPort {
    fn default() -> Self {
        Self { port: VSOCK_PORT, any_source: false }
    }
}

impl VsockPort {
    /// Whether this is a port: neither zero nor the word for any of them.
    #[must_use]
    pub fn is_one(self) -> bool {
        self.port != 0 && self.port != u32::MAX
    }

    fn admits(self, from: VsockAddr) -> Result<(), String> {
        let (cid, port) = (from.cid(), from.port());
        if cid != VMADDR_CID_HOST {
            return Err(format!("{cid}:{port} is not the host"));
        }
        if !self.any_source && port > RESERVED_MAX {
            return Err(format!("the host's port {port} is not one of root's; `any_source: true` would let it in"));
        }
        Ok(())
    }
}

/// Serves the host for as long as the port can be listened at.
///
/// # Errors
/// The guest has no vsock, or the port is taken.
#[expect(
    deprecated,
    reason = "the other constructor is unsafe for descriptors that somebody else might close; this owns its own"
)]
pub async fn serve(agent: &Arc<Agent>, at: VsockPort) -> io::Result<()> {
    let listener = AsyncFd::with_interest(listener(at.port)?, Interest::READABLE)?;
    let (admitted, connections) = mpsc::channel(1);
    tokio::select! {
        served = over(agent, connections) => served,
        () = admit(&listener, at, admitted) => Ok(()),
    }
}

fn listener(port: u32) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let made = socket(AddressFamily::Vsock, SockType::Stream, flags, None)?;
    bind(made.as_raw_fd(), &VsockAddr::new(VMADDR_CID_ANY, port))?;
    listen(&made, Backlog::new(BACKLOG)?)?;
    Ok(made)
}

/// Lets in who may come, until nobody takes them.
async fn admit(listener: &AsyncFd<OwnedFd>, at: VsockPort, admitted: mpsc::Sender<UnixStream>) {
    let mut told = Seldom::default();
    loop {
        match accept(listener, at).await {
            Ok(stream) => {
                if admitted.send(stream).await.is_err() {
                    return;
                }
            }
            // Whoever comes without end fills no log, from as many ports as it may.
            Err(error) if told.is_news("refused", Instant::now()) => eprintln!("holdfast-guest: vsock: {error}"),
            Err(_) => {}
        }
    }
}

async fn accept(listener: &AsyncFd<OwnedFd>, at: VsockPort) -> io::Result<UnixStream> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let accept = |listener: &OwnedFd| rustix::net::accept_with(listener, flags).map_err(io::Error::from);
    let taken = match listener.async_io(Interest::READABLE, accept).await {
        Ok(taken) => taken,
        Err(error) => {
            sleep(AGAIN_AFTER).await;
            return Err(error);
        }
    };
    let from = getpeername::<VsockAddr>(taken.as_raw_fd())?;
    at.admits(from).map_err(|why| io::Error::new(io::ErrorKind::PermissionDenied, why))?;
    // A stream is read and written alike whatever its family, so one of Unix serves for it.
    UnixStream::from_std(std::os::unix::net::UnixStream::from(taken))
}

/// The agent, behind a port that is made of connections.
async fn over<C: AsyncRead + AsyncWrite>(agent: &Arc<Agent>, connections: mpsc::Receiver<C>) -> io::Result<()> {
    let (ours, theirs) = duplex(UNDER_WAY);
    let (read, write) = split(theirs);
    tokio::select! {
        served = agent.serve(read, write) => served,
        () = carry(ours, connections) => Ok(()),
    }
}

/// Carries between the agent and the newest connection, until no more can come.
async fn carry<C: AsyncRead + AsyncWrite>(port: DuplexStream, mut connections: mpsc::Receiver<C>) {
    let (mut said, mut heard) = split(port);
    let (mut nobody, mut newest) = (sink(), None);
    loop {
        let next = match newest.take() {
            Some(connection) => {
                let (mut from_host, mut to_host) = split(connection);
                tokio::select! {
                    next = connections.recv() => Some(next),
                    _ = copy(&mut from_host, &mut heard) => None,
                    _ = copy(&mut said, &mut to_host) => None,
                }
            }
            None => tokio::select! {
                next = connections.recv() => Some(next),
                _ = copy(&mut said, &mut nobody) => return,
            },
        };
        match next {
            Some(Some(connection)) => newest = Some(connection),
            Some(None) => return,
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, BufReader},
        time::timeout,
    };

    use super::*;
    use crate::guest_agent::{
        FromGuest, GuestConfig, ToGuest,
        protocol::{line, next_line},
    };

    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn only_the_host_may_come_and_only_its_root_unless_the_guest_says_otherwise() {
        let (strict, open) = (VsockPort::default(), VsockPort { any_source: true, ..VsockPort::default() });
        for (cid, port, by_strict, by_open) in [
            (2, 1023, true, true),
            (2, 512, true, true),
            (2, 1024, false, true),
            (2, 1 << 30, false, true),
            // The hypervisor, the guest itself, another guest, and the word for any.
            (0, 1023, false, false),
            (1, 1023, false, false),
            (3, 1023, false, false),
            (u32::MAX, 1023, false, false),
        ] {
            let from = VsockAddr::new(cid, port);
            assert_eq!((strict.admits(from).is_ok(), open.admits(from).is_ok()), (by_strict, by_open), "{from}");
        }
    }

    #[test]
    fn the_config_names_the_port_and_nothing_that_is_none() {
        let vsock = |text: &str| GuestConfig::parse(text).map(|config| config.vsock);
        assert_eq!(vsock("{}").unwrap(), None);
        assert_eq!(vsock("vsock: { port: 7413 }").unwrap(), Some(VsockPort::default()));
        let open = Some(VsockPort { port: 52, any_source: true });
        assert_eq!(vsock("vsock: { port: 52, any_source: true }").unwrap(), open);
        for wrong in ["vsock: { port: 0 }", "vsock: { port: 4294967295 }", "vsock: { cid: 3 }", "vsock: { port: x }"] {
            assert!(vsock(wrong).is_err(), "{wrong}");
        }
    }

    /// The host's end of a connection.
    struct Host {
        stream: BufReader<DuplexStream>,
        rest: Vec<u8>,
    }

    impl Host {
        async fn comes(to: &mpsc::Sender<DuplexStream>) -> Self {
            let (ours, theirs) = duplex(1 << 16);
            to.send(theirs).await.unwrap();
            Self { stream: BufReader::new(ours), rest: Vec::new() }
        }

        /// Which start of the agent answers the greeting.
        async fn greets(&mut self, number: u64) -> u64 {
            self.stream.write_all(&line(&ToGuest::Hello { number })).await.unwrap();
            loop {
                let next = timeout(LIMIT, next_line(&mut self.stream, &mut self.rest)).await.unwrap().unwrap().unwrap();
                match serde_json::from_slice(&next) {
                    Ok(FromGuest::Here { agent, hello, .. }) if hello == Some(number) => return agent,
                    _ => {}
                }
            }
        }
    }

    #[tokio::test]
    async fn one_agent_serves_whoever_comes_last_and_outlives_them_all() {
        let agent = Agent::new(GuestConfig::default());
        let (comes, connections) = mpsc::channel(1);
        let served = tokio::spawn(async move { over(&agent, connections).await });
        let mut first = Host::comes(&comes).await;
        let number = first.greets(1).await;
        drop(first);
        let mut second = Host::comes(&comes).await;
        assert_eq!(second.greets(2).await, number);
        let mut third = Host::comes(&comes).await;
        assert_eq!(third.greets(3).await, number);
        // What was left in it may still be read, and then it ends.
        timeout(LIMIT, second.stream.read_to_end(&mut Vec::new())).await.unwrap().unwrap();
        drop((third, comes));
        timeout(LIMIT, served).await.unwrap().unwrap().unwrap();
    }
}
