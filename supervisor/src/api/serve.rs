//! Accepts connections and serves each within its limits.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};

use super::{CONNECTIONS_MAX, REQUEST_LIMIT};

/// Longest time for the headers of a request, and for a connection to be idle.
const HEADER_LIMIT: Duration = Duration::from_secs(5);
/// Longest life of a connection: whoever does not read its answer cannot hold a place for ever.
const CONNECTION_LIFE: Duration = Duration::from_secs(60);
/// Pause after a failed accept: it fails for lack of descriptors or memory, which a loop would only make worse.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Most bytes of headers.
const HEADER_BYTES_MAX: usize = 16 * 1024;

/// A listener that is being served; it ends, with its connections, when this is dropped.
#[derive(Debug)]
pub struct Serving {
    task: JoinHandle<()>,
    address: Option<SocketAddr>,
}

impl Serving {
    /// The address that is really listened on, where it is one of the network.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Something that connections come from.
pub(super) trait Accept: Send + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Waits for the next one.
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Accept for UnixListener {
    type Stream = tokio::net::UnixStream;
    async fn next(&self) -> io::Result<Self::Stream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

impl Accept for TcpListener {
    type Stream = tokio::net::TcpStream;
    async fn next(&self) -> io::Result<Self::Stream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

/// Serves a listener in a task of its own.
pub(super) fn serve<L: Accept>(listener: L, router: Router, address: Option<SocketAddr>) -> Serving {
    Serving { task: tokio::spawn(accept(listener, router)), address }
}

async fn accept<L: Accept>(listener: L, router: Router) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // Ended tasks are collected at every turn, so it holds little more than CONNECTIONS_MAX.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.next().await {
            Ok(stream) => drop(connections.spawn(connection(stream, router.clone(), place))),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection to the API");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection<S>(stream: S, router: Router, _place: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_LIMIT).max_buf_size(HEADER_BYTES_MAX);
    let mut served = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = sleep(CONNECTION_LIFE) => {
            served.as_mut().graceful_shutdown();
            timeout(REQUEST_LIMIT, served).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the API ended early");
    }
}
