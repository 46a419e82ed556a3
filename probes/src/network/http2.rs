//! One exchange over HTTP/2, bounded like one over HTTP/1.1. gRPC asks by this too.

use std::pin::pin;

use futures_util::future::{Either, select};
use h2::client::Builder;
use hyper::{HeaderMap, Request, body::Bytes};

use crate::{
    finding::{BODY_BYTES_MAX, Finding},
    network::{kept::Kept, stream::Stream, trust},
};

/// Most bytes of headers in a response.
const HEAD_BYTES_MAX: u32 = 32 * 1024;
/// How much the other side may send before it is told to go on; a little more than what is read at all.
const WINDOW_BYTES: u32 = 128 * 1024;

/// What came back.
pub(crate) struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: HeaderMap,
}

/// Sends one request and reads the beginning of the answer. The connection lives in this future and ends with it.
pub(crate) async fn exchange(stream: Stream, request: Request<()>, content: Bytes) -> Result<Reply, Finding> {
    let mut builder = Builder::new();
    builder
        .max_header_list_size(HEAD_BYTES_MAX)
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_concurrent_reset_streams(1)
        .enable_push(false);
    let (stream, trouble) = Kept::of(stream);
    let (sender, connection) = builder.handshake::<_, Bytes>(stream).await.map_err(|error| of_error(&error))?;
    let talk = async move {
        let mut sender = sender.ready().await.map_err(|error| of_error(&error))?;
        let empty = content.is_empty();
        let (response, mut sending) = sender.send_request(request, empty).map_err(|error| unsent(&error))?;
        if !empty {
            sending.send_data(content, true).map_err(|error| of_error(&error))?;
        }
        let (head, body) = response.await.map_err(|error| of_error(&error))?.into_parts();
        let (body, trailers) = read(body).await?;
        Ok(Reply { status: head.status.as_u16(), headers: head.headers, body, trailers })
    };
    let reply = match select(pin!(talk), pin!(connection)).await {
        Either::Left((reply, _)) => reply,
        Either::Right((_, talk)) => talk.await,
    };
    reply.map_err(|finding| trouble.or(finding))
}

async fn read(mut stream: h2::RecvStream) -> Result<(Vec<u8>, HeaderMap), Finding> {
    let mut body = Vec::new();
    while let Some(chunk) = stream.data().await {
        let chunk = chunk.map_err(|error| of_error(&error))?;
        let _ = stream.flow_control().release_capacity(chunk.len());
        body.extend(chunk.iter().take(BODY_BYTES_MAX - body.len()));
        if body.len() >= BODY_BYTES_MAX {
            return Ok((body, HeaderMap::new()));
        }
    }
    let trailers = stream.trailers().await.map_err(|error| of_error(&error))?;
    Ok((body, trailers.unwrap_or_default()))
}

/// Judges a request that was not sent: what the protocol does not let us send says nothing about the service.
fn unsent(error: &h2::Error) -> Finding {
    let is_ours = error.get_io().is_none() && error.reason().is_none();
    if is_ours { Finding::unknown(format!("the request cannot be made: {error}")) } else { of_error(error) }
}

fn of_error(error: &h2::Error) -> Finding {
    match error.get_io() {
        Some(error) => trust::of_io(error),
        None => Finding::fail(format!("http/2: {error}")),
    }
}
