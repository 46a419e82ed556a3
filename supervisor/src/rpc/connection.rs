//! One open connection of the calling end, shared by all calls to a peer.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use holdfast_policies::{names::HostName, revocation::HostCertificate};
use rustls::pki_types::{DnsName, ServerName};
use tokio::{
    io::{BufReader, BufWriter},
    net::TcpStream,
    sync::{Semaphore, mpsc, oneshot},
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::super::pki;
use super::{
    CallError, Channel,
    frame::{self, ANSWER, Frame},
    socket,
};

/// Calls under way per connection and channel; all channels together are what a server handles per connection.
pub(super) const IN_FLIGHT_PER_CHANNEL: usize = 16;

type Reply = Result<Vec<u8>, CallError>;

/// An open connection; dropping the last handle closes it.
pub(super) struct Connection {
    shared: Arc<Shared>,
    certificate: HostCertificate,
    outgoing: mpsc::Sender<Frame>,
    permits: [(Channel, Semaphore); Channel::ALL.len()],
    tasks: [JoinHandle<()>; 2],
}

/// What the reading task shares with the callers.
struct Shared {
    waiting: Mutex<HashMap<u64, oneshot::Sender<Reply>>>,
    next_id: AtomicU64,
    opened: Instant,
    /// When the peer last sent something, in nanoseconds after `opened`.
    heard_ns: AtomicU64,
    closed: AtomicBool,
    suspect: AtomicBool,
}

/// Connects, shakes hands and checks that the server is `peer`.
pub(super) async fn open(tls: &TlsConnector, peer: &HostName, address: SocketAddr) -> Result<Connection, String> {
    let name = DnsName::try_from(peer.to_string()).map_err(|_| format!("{peer} cannot be a DNS name"))?;
    let stream = TcpStream::connect(address).await.map_err(|error| format!("{peer} at {address}: {error}"))?;
    socket::prepare(&stream).map_err(|error| format!("{peer} at {address}: {error}"))?;
    let stream = tls
        .connect(ServerName::DnsName(name), stream)
        .await
        .map_err(|error| format!("{peer} at {address}: {error}"))?;
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let found = pki::peer_host(certificates).map_err(|error| format!("{peer} at {address}: {error}"))?;
    if found.host != *peer {
        return Err(format!("the server at {address} is {} and not {peer}", found.host));
    }
    Ok(Connection::new(stream, found))
}

impl Connection {
    fn new(stream: TlsStream<TcpStream>, certificate: HostCertificate) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        let shared = Arc::new(Shared {
            waiting: Mutex::default(),
            next_id: AtomicU64::new(1),
            opened: Instant::now(),
            heard_ns: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            suspect: AtomicBool::new(false),
        });
        let (outgoing, mut queue) = mpsc::channel(IN_FLIGHT_PER_CHANNEL);
        let reading = tokio::spawn(read_replies(BufReader::new(reader), Arc::clone(&shared)));
        let writing = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                let mut writer = BufWriter::new(writer);
                let _ = frame::write_queue(&mut writer, &mut queue).await;
                shared.close();
            }
        });
        let permits = Channel::ALL.map(|channel| (channel, Semaphore::new(IN_FLIGHT_PER_CHANNEL)));
        Self { shared, certificate, outgoing, permits, tasks: [reading, writing] }
    }

    /// The certificate that the peer showed.
    pub(super) fn certificate(&self) -> &HostCertificate {
        &self.certificate
    }

    /// No new call uses this connection.
    pub(super) fn give_up(&self) {
        self.shared.suspect.store(true, Ordering::Release);
    }

    /// Whether new calls may use this connection.
    pub(super) fn usable(&self) -> bool {
        !self.shared.closed.load(Ordering::Acquire) && !self.shared.suspect.load(Ordering::Acquire)
    }

    /// Sends a request and waits for its reply. A timeout during which the peer sent nothing at all makes the
    /// connection suspect: calls under way keep it, new calls open another one.
    pub(super) async fn call(&self, channel: Channel, body: Vec<u8>, timeout: Duration) -> Reply {
        let began = self.shared.elapsed_ns();
        match tokio::time::timeout(timeout, self.exchange(channel, body)).await {
            Ok(reply) => reply,
            Err(_) => {
                if self.shared.heard_ns.load(Ordering::Acquire) < began {
                    self.shared.suspect.store(true, Ordering::Release);
                }
                Err(CallError::Timeout)
            }
        }
    }

    async fn exchange(&self, channel: Channel, body: Vec<u8>) -> Reply {
        let lost = || CallError::Unreachable("the connection was lost".to_owned());
        let (_, permits) = self.permits.iter().find(|(of, _)| *of == channel).ok_or_else(lost)?;
        let _permit = permits.acquire().await.map_err(|_| lost())?;
        let (waiting, reply) = Waiting::register(&self.shared).ok_or_else(lost)?;
        let request = Frame { id: waiting.id, tag: channel as u8, body };
        self.outgoing.send(request).await.map_err(|_| lost())?;
        reply.await.map_err(|_| lost())?
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Shared {
    fn elapsed_ns(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Reply>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets nobody else wait, and wakes those who do: dropping their senders tells them.
    fn close(&self) {
        let mut waiting = self.waiting();
        self.closed.store(true, Ordering::Release);
        waiting.clear();
    }
}

/// A place among those who wait for a reply; given up when the call is.
struct Waiting<'a> {
    shared: &'a Shared,
    id: u64,
}

impl<'a> Waiting<'a> {
    fn register(shared: &'a Shared) -> Option<(Self, oneshot::Receiver<Reply>)> {
        let id = shared.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        let mut waiting = shared.waiting();
        // Under the lock, so that nobody begins to wait after `close` has woken everybody.
        if shared.closed.load(Ordering::Acquire) {
            return None;
        }
        waiting.insert(id, sender);
        Some((Self { shared, id }, receiver))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shared.waiting().remove(&self.id);
    }
}

async fn read_replies(mut reader: impl tokio::io::AsyncRead + Unpin, shared: Arc<Shared>) {
    while let Ok(frame) = frame::read(&mut reader).await {
        shared.heard_ns.store(shared.elapsed_ns(), Ordering::Release);
        let reply = match frame.tag {
            ANSWER => Ok(frame.body),
            _ => Err(CallError::Refused(String::from_utf8_lossy(&frame.body).into_owned())),
        };
        // A reply that nobody waits for is that of a call that timed out.
        if let Some(waiting) = shared.waiting().remove(&frame.id) {
            let _ = waiting.send(reply);
        }
    }
    shared.close();
}
