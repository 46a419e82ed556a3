//! Asks the supervisor of this host over its local socket.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request as HttpRequest, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, time::timeout};

use super::super::desk::{Answer, Denied, Request};

/// Largest answer taken: the status of ten thousand guests is about 20 MB.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("cannot reach the supervisor at {socket}; does it run?", socket = socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It took too long.
    #[error("the supervisor did not answer within {limit:?}; an instruction may still be carried out")]
    Deadline {
        /// How long was waited.
        limit: Duration,
    },
    /// The connection broke.
    #[error("the connection to the supervisor broke; an instruction may still be carried out")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The supervisor did not understand, or had no time.
    #[error("the supervisor answered {code}: {said}")]
    Refused {
        /// The status code.
        code: StatusCode,
        /// What it said.
        said: String,
    },
    /// The answer is none of ours.
    #[error("the supervisor's answer cannot be read")]
    Garbled(#[source] serde_json::Error),
}

/// Asks one question.
///
/// # Errors
/// [`ClientError`] when there is no answer; `Ok(Err(_))` is the answer no.
pub async fn ask(socket: &Path, request: &Request, limit: Duration) -> Result<Result<Answer, Denied>, ClientError> {
    timeout(limit, exchange(socket, request)).await.map_err(|_| ClientError::Deadline { limit })?
}

async fn exchange(socket: &Path, request: &Request) -> Result<Result<Answer, Denied>, ClientError> {
    let body = serde_json::to_vec(request).map_err(ClientError::Garbled)?;
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| ClientError::Unreachable { socket: socket.to_owned(), source })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let request = HttpRequest::builder()
        .method(Method::POST)
        .uri("/v1/ask")
        .header(HOST, "holdfast")
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(broken)?;
    let answered = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let code = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(ClientError::Broken)?;
        read(code, &body.to_bytes())
    };
    let mut answered = std::pin::pin!(answered);
    tokio::select! {
        answer = answered.as_mut() => answer,
        // The connection may end before the last of the answer has been taken from it.
        _ = connection => answered.await,
    }
}

fn broken(error: impl std::error::Error + Send + Sync + 'static) -> ClientError {
    ClientError::Broken(Box::new(error))
}

fn read(code: StatusCode, body: &[u8]) -> Result<Result<Answer, Denied>, ClientError> {
    if code.is_success() {
        return serde_json::from_slice(body).map(Ok).map_err(ClientError::Garbled);
    }
    serde_json::from_slice(body).map(Err).map_err(|_| {
        let said: Option<String> = serde_json::from_slice::<serde_json::Value>(body)
            .ok()
            .and_then(|value| value.get("error")?.as_str().map(str::to_owned));
        ClientError::Refused { code, said: said.unwrap_or_else(|| "nothing that can be read".to_owned()) }
    })
}
