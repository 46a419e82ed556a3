//! The calling end: finds or opens the one connection to a peer and calls over it.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use holdfast_policies::{names::HostName, revocation::HostCertificate};
use rustls::ClientConfig;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

use super::{
    BODY_BYTES_MAX, CallError, Channel,
    connection::{self, Connection},
};

/// Opening a connection is given up after this. It may take longer than one call is willing to wait, because on a busy
/// machine a handshake does; the next call then finds it open. It is short, so that a host that comes back is not
/// waited for with packets that were sent while it was away.
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);

/// Peers remembered at once: more than a cluster has hosts. Beyond it, those without connection are forgotten.
const PEERS_MAX: usize = 1024;

/// Calls peers; cheap to clone, and clones share the connections.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

/// Whether a host with this certificate is called, or why not.
type Admit = dyn Fn(&HostCertificate) -> Result<(), String> + Send + Sync;

struct Shared {
    tls: TlsConnector,
    admit: Box<Admit>,
    peers: Mutex<HashMap<(HostName, SocketAddr), Arc<Peer>>>,
}

struct Peer {
    host: HostName,
    address: SocketAddr,
    link: Mutex<Link>,
}

type Opened = Option<Result<Arc<Connection>, String>>;

enum Link {
    None,
    Opening(watch::Receiver<Opened>),
    Open(Arc<Connection>),
}

impl Client {
    /// A client that shows the certificate in `tls`.
    #[must_use]
    pub fn new(tls: Arc<ClientConfig>) -> Self {
        Self::choosy(tls, |_| Ok(()))
    }

    /// The same, and nothing is sent to a host whose certificate `admit` refuses.
    #[must_use]
    pub fn choosy(
        tls: Arc<ClientConfig>,
        admit: impl Fn(&HostCertificate) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        let (tls, admit) = (TlsConnector::from(tls), Box::new(admit));
        Self { shared: Arc::new(Shared { tls, admit, peers: Mutex::default() }) }
    }

    /// Asks `peer`, which must be who listens at `address`, and waits at most `timeout` for connection and reply.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call(
        &self,
        peer: &HostName,
        address: SocketAddr,
        channel: Channel,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<Vec<u8>, CallError> {
        if body.len() > BODY_BYTES_MAX {
            return Err(CallError::Refused(format!("{} bytes are more than {BODY_BYTES_MAX}", body.len())));
        }
        let began = Instant::now();
        let connection = tokio::time::timeout(timeout, self.connection(peer, address)).await.map_err(|_| {
            CallError::Unreachable(format!("no connection to {peer} at {address} within {timeout:?}"))
        })??;
        if let Err(why) = (self.shared.admit)(connection.certificate()) {
            // Whoever has the name and a certificate that counts is found by a new connection.
            connection.give_up();
            return Err(CallError::Unreachable(format!("{peer} at {address}: {why}")));
        }
        connection.call(channel, body, timeout.saturating_sub(began.elapsed())).await
    }

    async fn connection(&self, host: &HostName, address: SocketAddr) -> Result<Arc<Connection>, CallError> {
        let peer = self.peer(host, address);
        let mut opening = match peer.link(&self.shared.tls) {
            Link::Open(connection) => return Ok(connection),
            Link::Opening(opening) => opening,
            Link::None => return Err(CallError::Unreachable(format!("no connection to {host}"))),
        };
        let opened = opening.wait_for(Option::is_some).await.ok().and_then(|opened| opened.clone());
        match opened {
            Some(Ok(connection)) => Ok(connection),
            Some(Err(reason)) => Err(CallError::Unreachable(reason)),
            None => Err(CallError::Unreachable(format!("opening a connection to {host} was given up"))),
        }
    }

    fn peer(&self, host: &HostName, address: SocketAddr) -> Arc<Peer> {
        let mut peers = self.shared.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if peers.len() >= PEERS_MAX {
            peers.retain(|_, peer| matches!(&*peer.lock(), Link::Open(connection) if connection.usable()));
        }
        let peer = peers
            .entry((host.clone(), address))
            .or_insert_with(|| Arc::new(Peer { host: host.clone(), address, link: Mutex::new(Link::None) }));
        Arc::clone(peer)
    }
}

impl Peer {
    fn lock(&self) -> std::sync::MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The usable connection, or the opening of one, begun here when there is none. Only one opening is under way at a
    /// time, whatever the number of callers.
    fn link(self: &Arc<Self>, tls: &TlsConnector) -> Link {
        let mut link = self.lock();
        match &*link {
            Link::Open(connection) if connection.usable() => return Link::Open(Arc::clone(connection)),
            Link::Opening(opening) if opening.has_changed().is_ok() => return Link::Opening(opening.clone()),
            _ => {}
        }
        let (sender, opening) = watch::channel(None);
        *link = Link::Opening(opening.clone());
        tokio::spawn(open(Arc::clone(self), tls.clone(), sender));
        Link::Opening(opening)
    }
}

async fn open(peer: Arc<Peer>, tls: TlsConnector, result: watch::Sender<Opened>) {
    let opened = match tokio::time::timeout(OPEN_TIMEOUT, connection::open(&tls, &peer.host, peer.address)).await {
        Ok(opened) => opened.map(Arc::new),
        Err(_) => Err(format!("no connection to {} at {} within {OPEN_TIMEOUT:?}", peer.host, peer.address)),
    };
    if let Err(reason) = &opened {
        tracing::debug!(peer = %peer.host, reason, "cannot connect");
    }
    *peer.lock() = match &opened {
        Ok(connection) => Link::Open(Arc::clone(connection)),
        Err(_) => Link::None,
    };
    result.send_replace(Some(opened));
}
