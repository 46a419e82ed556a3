//! One exchange over HTTP/1.1: the head is bounded, and so is the part of the body that is read.

use std::{error::Error, io, pin::pin};

use futures_util::future::{Either, select};
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Request,
    body::{Bytes, Incoming},
};
use hyper_util::rt::TokioIo;

use crate::{
    finding::{BODY_BYTES_MAX, Finding},
    head,
    judge::Answer,
    network::{kept::Kept, stream::Stream, trust},
};

/// Sends one request and reads the beginning of the answer. The connection lives in this future and ends with it.
pub(super) async fn exchange(stream: Stream, request: Request<Full<Bytes>>) -> Result<Answer, Finding> {
    // The library tells errors as they are.
    let (stream, _) = Kept::of(stream);
    let opened = head::reading().handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = opened.map_err(|error| of_error(&error))?;
    let exchange = async move {
        let response = sender.send_request(request).await.map_err(|error| of_error(&error))?;
        let (head, body) = response.into_parts();
        let body = beginning(body, ends_by_hanging_up(&head.headers)).await?;
        Ok(Answer { status: head.status.as_u16(), location: location(&head.headers), body })
    };
    // Both are dropped together, so that nothing goes on after the deadline.
    match select(pin!(exchange), pin!(connection)).await {
        Either::Left((answer, _)) => answer,
        Either::Right((_, exchange)) => exchange.await,
    }
}

/// Whether the end of a body is told by the end of the connection alone (RFC 9112, 6.3).
fn ends_by_hanging_up(headers: &HeaderMap) -> bool {
    !headers.contains_key("content-length") && !headers.contains_key("transfer-encoding")
}

/// Whether the other side has hung up over TLS without saying so there, as many small servers do. Browsers take that for the end.
fn is_hung_up(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::UnexpectedEof)
}

async fn beginning(mut body: Incoming, ends_by_hanging_up: bool) -> Result<Vec<u8>, Finding> {
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) if ends_by_hanging_up && is_hung_up(&error) => break,
            Err(error) => return Err(of_error(&error)),
        };
        let Some(chunk) = frame.data_ref() else { continue };
        read.extend(chunk.iter().take(BODY_BYTES_MAX - read.len()));
        if read.len() >= BODY_BYTES_MAX {
            break;
        }
    }
    Ok(read)
}

/// Where an answer leads, if it says so.
pub(super) fn location(headers: &HeaderMap) -> Option<String> {
    headers.get("location").and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// Judges an error by its causes: what this vantage could not do is `Unknown`, what the other side did is `Fail`.
fn of_error(error: &hyper::Error) -> Finding {
    // The library tells this kind of error by its text alone.
    if error.is_parse() && error.to_string().contains("too large") {
        return Finding::fail(format!("the response's head is larger than {} bytes", head::BYTES_MAX));
    }
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    let mut last = error.to_string();
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return trust::of_io(error);
        }
        last = error.to_string();
        next = error.source();
    }
    Finding::fail(last)
}
