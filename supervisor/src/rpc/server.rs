//! The listening end: accepts peers with a certificate of the cluster, and hands their requests to the handler.

use std::{
    io,
    net::SocketAddr,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use holdfast_policies::{names::HostName, operators::Serial};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncWriteExt, BufReader, BufWriter},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::super::pki::{self, Peer};
use super::{
    BODY_BYTES_MAX, Channel, Handler,
    connection::IN_FLIGHT_PER_CHANNEL,
    frame::{self, ANSWER, Frame, FrameError, REFUSAL, Room},
    greeting::{Greeting, Place},
    seats::{Seat, Seats},
    socket,
};

/// A handler that has not answered after this is given up: callers stopped waiting long before.
const HANDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The same for what power devices say: the slowest that are waited for take 75 s for their two answers.
const HANDLE_PATHS_TIMEOUT: Duration = Duration::from_secs(80);
/// Rest after a failed accept, so that a process out of file descriptors does not spin.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// How much the server lets others use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once of peers with a certificate; further ones are closed at once, whoever asks for them, voters too. So there
    /// is room for two of each host that is heard: the one that it has had, and the one that it makes before that is known to be cut.
    pub connections: usize,
    /// Connections of one host at once; further ones are closed at once. It has one or two, and some more for a moment when it
    /// was started again and again while its requests were being worked on.
    pub per_host: usize,
    /// Connections of one operator's certificate at once; further ones are closed at once. A command has one, and scripts may
    /// run several at once.
    pub per_operator: usize,
    /// Connections whose handshake is not over; for further ones the longest-standing is closed. As many as the hosts of a large
    /// cluster make at the same moment, when their coordinator has come back.
    pub handshakes: usize,
    /// Requests being handled per connection; more are not read until one is answered. As many as a peer may have under way on
    /// all channels, so that raft is not kept waiting where the others are full.
    pub in_flight_per_connection: usize,
    /// Bytes of requests being handled per connection; more are not read until some are answered. Several of the largest that a
    /// peer sends, so that whoever sends as many of them as it may does not fill the memory.
    pub bytes_per_connection: u32,
    /// A TLS handshake must be done within this.
    pub handshake: Duration,
    /// An operator's connection ends after this: their certificate, which is meant to end soon, is looked at when one begins.
    /// Commands take seconds, and whoever calls on makes another one.
    pub operator_life: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1_152,
            per_host: 32,
            per_operator: 16,
            handshakes: 512,
            in_flight_per_connection: IN_FLIGHT_PER_CHANNEL * Channel::ALL.len(),
            bytes_per_connection: 64 * 1024 * 1024,
            handshake: Duration::from_secs(2),
            operator_life: Duration::from_secs(600),
        }
    }
}

/// What was turned away, for metrics.
#[derive(Debug, Default)]
pub struct Counters {
    handshakes_failed: AtomicU64,
    frames_refused: AtomicU64,
    connections_refused: AtomicU64,
}

impl Counters {
    /// Connections that were not TLS, showed no certificate of the cluster, were too slow, or made room for others.
    pub fn handshakes_failed(&self) -> u64 {
        self.handshakes_failed.load(Ordering::Relaxed)
    }

    /// Connections of peers closed because of a frame that makes no sense.
    pub fn frames_refused(&self) -> u64 {
        self.frames_refused.load(Ordering::Relaxed)
    }

    /// Connections closed at once because there were too many, of all, or of one host or operator.
    pub fn connections_refused(&self) -> u64 {
        self.connections_refused.load(Ordering::Relaxed)
    }
}

/// A running server; dropping it closes the port and every connection.
pub struct Server {
    address: SocketAddr,
    counters: Arc<Counters>,
    accepting: JoinHandle<()>,
}

struct Shared {
    acceptor: TlsAcceptor,
    handler: Arc<dyn Handler>,
    limits: Limits,
    counters: Arc<Counters>,
    slots: Arc<Semaphore>,
    seats: Seats<Whose>,
}

/// Whose connections are counted together: a host's by its name, so that a new certificate brings no more of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    Host(HostName),
    Operator(Serial),
}

/// A connection's part of what the server lets others use.
struct Slot {
    _connection: OwnedSemaphorePermit,
    _seat: Seat<Whose>,
}

impl Server {
    /// Listens on `listen` and serves until dropped.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn serve(
        listen: SocketAddr,
        tls: Arc<ServerConfig>,
        handler: Arc<dyn Handler>,
        limits: Limits,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let counters = Arc::new(Counters::default());
        let (acceptor, seats) = (TlsAcceptor::from(tls), Seats::default());
        let slots = Arc::new(Semaphore::new(limits.connections));
        let shared = Shared { acceptor, handler, limits, counters: Arc::clone(&counters), slots, seats };
        let accepting = tokio::spawn(accept(listener, Arc::new(shared)));
        Ok(Self { address, counters, accepting })
    }

    /// Where the server listens, with the port that the system chose if it was asked to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What was turned away so far.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut greeting = Greeting::of(shared.limits.handshakes);
    // Dropped with this task, which ends the connections.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_REST).await;
                continue;
            }
        };
        // All those have shown a certificate: nobody else would be let in either.
        if shared.slots.available_permits() == 0 {
            shared.counters.connections_refused.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        connections.spawn(greet(stream, from, Arc::clone(&shared), greeting.place()));
    }
}

/// Does the handshake, then serves the peer.
async fn greet(stream: TcpStream, from: SocketAddr, shared: Arc<Shared>, place: Place) {
    let met = tokio::select! {
        biased;
        met = meet(stream, from, &shared) => met,
        _ = place => {
            shared.counters.handshakes_failed.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%from, "a handshake made room for another");
            None
        }
    };
    // The place is given back by now.
    if let Some((stream, peer)) = met {
        take_in(stream, from, peer, shared).await;
    }
}

/// Who it is, if somebody who is served.
async fn meet(stream: TcpStream, from: SocketAddr, shared: &Shared) -> Option<(TlsStream<TcpStream>, Peer)> {
    match tokio::time::timeout(shared.limits.handshake, handshake(stream, shared)).await {
        Ok(Ok((stream, peer))) => match shared.handler.admit(&peer) {
            Ok(()) => return Some((stream, peer)),
            Err(why) => {
                shared.counters.handshakes_failed.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%from, %peer, why, "a peer was turned away");
                // It has its place for no longer than one that shakes no hands.
                let _ = tokio::time::timeout(shared.limits.handshake, turn_away(stream, &why)).await;
            }
        },
        failed => {
            shared.counters.handshakes_failed.fetch_add(1, Ordering::Relaxed);
            let reason = match failed {
                Ok(Err(reason)) => reason,
                _ => "too slow".to_owned(),
            };
            tracing::debug!(%from, reason, "handshake failed");
        }
    }
    None
}

async fn take_in(stream: TlsStream<TcpStream>, from: SocketAddr, peer: Peer, shared: Arc<Shared>) {
    match slot(&peer, &shared) {
        Ok(slot) => serve_peer(stream, peer, shared, slot).await,
        Err(TooMany) => {
            shared.counters.connections_refused.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%from, %peer, "there are too many connections, of it or of all");
        }
    }
}

/// Answers the first request with why none is served, so that whoever looks after the peer finds it in the peer's own log.
async fn turn_away(stream: TlsStream<TcpStream>, why: &str) -> io::Result<()> {
    let (reader, mut writer) = tokio::io::split(stream);
    let request = frame::read(&mut BufReader::new(reader)).await.map_err(io::Error::other)?;
    frame::write(&mut writer, &refusal(request.id, why)).await?;
    writer.shutdown().await
}

/// There are as many connections as may be, of all or of this peer.
struct TooMany;

/// What a connection of this peer takes.
fn slot(peer: &Peer, shared: &Shared) -> Result<Slot, TooMany> {
    let (whose, most) = match peer {
        Peer::Host(certificate) => (Whose::Host(certificate.host.clone()), shared.limits.per_host),
        Peer::Operator(certificate) => (Whose::Operator(certificate.serial.clone()), shared.limits.per_operator),
    };
    let seat = shared.seats.take(&whose, most).ok_or(TooMany)?;
    let connection = Arc::clone(&shared.slots).try_acquire_owned().map_err(|_| TooMany)?;
    Ok(Slot { _connection: connection, _seat: seat })
}

async fn handshake(stream: TcpStream, shared: &Shared) -> Result<(TlsStream<TcpStream>, Peer), String> {
    socket::prepare(&stream).map_err(|error| error.to_string())?;
    let stream = shared.acceptor.accept(stream).await.map_err(|error| error.to_string())?;
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let peer = pki::peer(certificates).map_err(|error| error.to_string())?;
    Ok((stream, peer))
}

async fn serve_peer(stream: TlsStream<TcpStream>, peer: Peer, shared: Arc<Shared>, slot: Slot) {
    let (reader, writer) = tokio::io::split(stream);
    let in_flight = shared.limits.in_flight_per_connection;
    let (replies, mut queue) = mpsc::channel(in_flight.max(1));
    let mut writer = BufWriter::new(writer);
    let requests = read_requests(BufReader::new(reader), &peer, &shared, replies, Arc::new(slot));
    let writing = frame::write_queue(&mut writer, &mut queue);
    tokio::pin!(writing);
    tokio::select! {
        ended = requests => match ended {
            Ok(Ended::ByPeer) => {}
            // So that it is told why; what was begun for it before may still be answered meanwhile.
            Ok(Ended::ByUs) => {
                let _ = tokio::time::timeout(shared.limits.handshake, &mut writing).await;
            }
            Err(error) => {
                shared.counters.frames_refused.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%peer, error, "closing the connection: it sent what is not a request");
            }
        },
        _ = &mut writing => {}
    }
}

/// Why no more requests are read from a connection whose peer has sent nothing wrong.
enum Ended {
    /// The peer, or the network, has closed it.
    ByPeer,
    /// The peer counts no more, and has been answered so; or its connection has lasted for as long as it may.
    ByUs,
}

/// Reads requests until the connection ends or is over, or its peer counts no more, or sends nonsense (`Err`).
async fn read_requests(
    mut reader: impl tokio::io::AsyncRead + Unpin,
    peer: &Peer,
    shared: &Arc<Shared>,
    replies: mpsc::Sender<Frame>,
    slot: Arc<Slot>,
) -> Result<Ended, String> {
    let in_flight = Arc::new(Semaphore::new(shared.limits.in_flight_per_connection.max(1)));
    let room = Room::of(shared.limits.bytes_per_connection);
    let over = over(peer, &shared.limits);
    tokio::pin!(over);
    loop {
        let Ok(permit) = Arc::clone(&in_flight).acquire_owned().await else { return Ok(Ended::ByPeer) };
        let read = tokio::select! {
            read = frame::read_into(&mut reader, &room) => read,
            () = &mut over => return Ok(Ended::ByUs),
        };
        let (request, taken) = match read {
            Ok(read) => read,
            Err(FrameError::Ended(_)) => return Ok(Ended::ByPeer),
            Err(error) => return Err(error.to_string()),
        };
        if let Err(why) = shared.handler.admit(peer) {
            tracing::debug!(%peer, why, "closing the connection");
            // A queue that is full is not waited for: the peer does not read what it asked for.
            let _ = replies.try_send(refusal(request.id, &why));
            return Ok(Ended::ByUs);
        }
        let channel = Channel::from_byte(request.tag).ok_or_else(|| format!("there is no channel {}", request.tag))?;
        let (handler, peer, replies) = (Arc::clone(&shared.handler), peer.clone(), replies.clone());
        // Work begun is finished even when the connection ends; it keeps the connection's slot, so that reconnecting
        // does not get round the limits.
        let held = (permit, taken, Arc::clone(&slot));
        tokio::spawn(async move {
            let reply = answer(handler, peer, channel, request).await;
            let _ = replies.send(reply).await;
            drop(held);
        });
    }
}

/// Waits until a peer's connection has lasted for as long as it may.
async fn over(peer: &Peer, limits: &Limits) {
    match peer {
        Peer::Host(_) => std::future::pending().await,
        Peer::Operator(_) => tokio::time::sleep(limits.operator_life).await,
    }
}

async fn answer(handler: Arc<dyn Handler>, peer: Peer, channel: Channel, request: Frame) -> Frame {
    let id = request.id;
    // A handler's panic is a refusal and not a request without reply.
    let work = AssertUnwindSafe(hand_over(&*handler, peer, channel, request.body)).catch_unwind();
    let limit = match channel {
        Channel::Raft | Channel::Sync | Channel::Client | Channel::Ages | Channel::Locks => HANDLE_TIMEOUT,
        Channel::Paths => HANDLE_PATHS_TIMEOUT,
    };
    let result = match tokio::time::timeout(limit, work).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err("the handler failed".to_owned()),
        Err(_) => Err(format!("not done within {limit:?}")),
    };
    match result {
        Ok(body) if body.len() <= BODY_BYTES_MAX => Frame { id, tag: ANSWER, body },
        Ok(body) => refusal(id, &format!("the reply of {} bytes is larger than {BODY_BYTES_MAX}", body.len())),
        Err(reason) => refusal(id, &reason),
    }
}

/// Hands a request to whoever serves such peers.
async fn hand_over(handler: &dyn Handler, peer: Peer, channel: Channel, body: Vec<u8>) -> Result<Vec<u8>, String> {
    match (peer, channel) {
        (Peer::Host(certificate), channel) => handler.handle(certificate.host, channel, body).await,
        (Peer::Operator(operator), Channel::Client) => handler.handle_operator(operator, body).await,
        (Peer::Operator(operator), Channel::Raft | Channel::Sync | Channel::Ages | Channel::Locks | Channel::Paths) => {
            Err(format!("{} is an operator, and only hosts say that to each other", operator.name))
        }
    }
}

/// Longest refusal, in bytes: it is for people.
const REFUSAL_BYTES_MAX: usize = 4096;

fn refusal(id: u64, reason: &str) -> Frame {
    let body = reason.as_bytes().iter().copied().take(REFUSAL_BYTES_MAX).collect();
    Frame { id, tag: REFUSAL, body }
}
