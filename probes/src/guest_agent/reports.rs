//! Applications that report in by themselves: `PUT /heartbeat/NAME` on the guest's own loopback.
//!
//! A report is kept as a file, `/run/holdfast/heartbeat/NAME`, which the `heartbeat` probe looks at like one that the
//! application wrote itself. So both ways mean the same, and a restart of the agent loses nothing.

use std::{convert::Infallible, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use holdfast_policies::names::ServiceName;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::{config::Reports, look, protocol::SERVICES_MAX};
use crate::channel::Looked;

/// Where reports are kept: gone with the boot, as they should be.
pub const FOLDER: &str = "/run/holdfast/heartbeat";

/// Path of a report, before its name.
const PATH: &str = "/heartbeat/";

/// Longest report in bytes; the words that mean something have four letters.
const REPORT_BYTES_MAX: usize = 64;

/// Applications that are listened to at once; each is done in a moment, and there are as many names at most.
const AT_ONCE: usize = SERVICES_MAX;

/// How long a connection may take, and how long it may say nothing of what it wants, so that none keeps others out.
const CONNECTION_LIMIT: Duration = Duration::from_secs(5);
const MUTE_LIMIT: Duration = Duration::from_secs(1);

/// How long a `down` without an `up` after it explains that the application ends: as long as it silences its probe by default.
const DOWN_FOR: Duration = Duration::from_secs(600);

/// Pause after a port that cannot be had.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Listens for as long as it is polled.
pub(super) async fn listen(reports: Arc<Reports>) -> io::Result<()> {
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        if let Err(error) = accept(&reports, &slots).await {
            eprintln!("holdfast-guest: heartbeats at {}: {error}", reports.listen);
            sleep(AGAIN_AFTER).await;
        }
    }
}

async fn accept(reports: &Arc<Reports>, slots: &Arc<Semaphore>) -> io::Result<()> {
    tokio::fs::create_dir_all(&reports.folder).await?;
    let listener = TcpListener::bind(reports.listen).await?;
    loop {
        let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
        let (stream, _) = listener.accept().await?;
        let reports = Arc::clone(reports);
        tokio::spawn(async move {
            // What goes wrong with one connection is its application's, which will report again.
            let _ = timeout(CONNECTION_LIMIT, serve(reports, stream)).await;
            drop(slot);
        });
    }
}

async fn serve(reports: Arc<Reports>, stream: TcpStream) -> hyper::Result<()> {
    let answer = service_fn(move |request| {
        let reports = Arc::clone(&reports);
        async move {
            let mut response = Response::new(Empty::<Bytes>::new());
            *response.status_mut() = take(&reports, request).await;
            Ok::<_, Infallible>(response)
        }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(MUTE_LIMIT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer)
        .await
}

async fn take(reports: &Reports, request: Request<Incoming>) -> StatusCode {
    if request.method() != Method::PUT {
        return StatusCode::METHOD_NOT_ALLOWED;
    }
    let name = request.uri().path().strip_prefix(PATH).map(str::to_owned);
    let Some(file) = name.and_then(|name| reports.file(&name)) else { return StatusCode::NOT_FOUND };
    let Ok(said) = Limited::new(request.into_body(), REPORT_BYTES_MAX).collect().await else {
        return StatusCode::PAYLOAD_TOO_LARGE;
    };
    let word = match said.to_bytes().trim_ascii() {
        b"" | b"up" => "up\n",
        b"down" => "down\n",
        _ => return StatusCode::BAD_REQUEST,
    };
    match tokio::fs::write(&file, word).await {
        Ok(()) => StatusCode::NO_CONTENT,
        Err(error) => {
            eprintln!("holdfast-guest: {}: {error}", file.display());
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

impl Reports {
    /// The file of an application that may report.
    fn file(&self, name: &str) -> Option<PathBuf> {
        self.services.iter().find(|service| service.as_str() == name).map(|service| self.of(service))
    }

    /// Whether an application has reported lately that it goes down, and nothing since.
    pub(super) async fn says_down(&self, service: &ServiceName) -> bool {
        let Some(file) = self.file(service.as_str()) else { return false };
        let looked = tokio::task::spawn_blocking(move || look::file(&file, true)).await;
        let is_down = |content: &str| content.split_whitespace().next() == Some("down");
        matches!(looked, Ok(Looked::There { age, content, .. }) if age <= DOWN_FOR && is_down(&content))
    }

    /// The files of all that may report.
    pub(super) fn files(&self) -> impl Iterator<Item = PathBuf> {
        self.services.iter().map(|service| self.of(service))
    }

    fn of(&self, service: &ServiceName) -> PathBuf {
        self.folder.join(service.as_str())
    }
}

/// Whether only the guest itself can reach it.
pub(super) fn is_own(listen: SocketAddr) -> bool {
    listen.ip().is_loopback()
}
