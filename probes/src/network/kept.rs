//! A connection for HTTP, which hears no more than one answer takes, and keeps what has gone wrong with it: libraries read on for as
//! long as nothing comes that is an answer, and may hand an error on as a text, from which nobody can tell whose fault it is.

use std::{
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use holdfast_policies::observe::Outcome;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    finding::Finding,
    network::{stream::Stream, trust},
};

/// Most that is heard of one service for one answer, in bytes: several times the head and the part of the body that are read. What
/// may come beside those, interim answers and frames that mean nothing, would else keep a processor of this host busy until the deadline.
const HEARD_BYTES_MAX: usize = 1024 * 1024;

/// What went wrong first.
#[derive(Clone, Default)]
pub(crate) struct Trouble(Arc<OnceLock<Finding>>);

impl Trouble {
    /// The finding, unless what went wrong with the connection says that the service could not be asked.
    pub fn or(&self, finding: Finding) -> Finding {
        let ours = self.0.get().filter(|trouble| trouble.outcome == Outcome::Unknown);
        ours.cloned().unwrap_or(finding)
    }
}

/// The connection.
pub(crate) struct Kept {
    stream: Stream,
    trouble: Trouble,
    /// How much was heard, in bytes.
    heard: usize,
}

impl Kept {
    /// One on which nothing has gone wrong.
    pub fn of(stream: Stream) -> (Self, Trouble) {
        let trouble = Trouble::default();
        (Self { stream, trouble: trouble.clone(), heard: 0 }, trouble)
    }

    fn note<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &polled {
            // What comes after the first follows from it.
            let _ = self.trouble.0.set(trust::of_io(error));
        }
        polled
    }
}

impl AsyncRead for Kept {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let kept = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut kept.stream).poll_read(context, buffer);
        kept.heard = kept.heard.saturating_add(buffer.filled().len().saturating_sub(before));
        if kept.heard > HEARD_BYTES_MAX {
            let too_much = format!("the service says more than the {HEARD_BYTES_MAX} bytes that are listened to");
            return kept.note(Poll::Ready(Err(io::Error::other(too_much))));
        }
        kept.note(polled)
    }
}

impl AsyncWrite for Kept {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let kept = self.get_mut();
        let polled = Pin::new(&mut kept.stream).poll_write(context, bytes);
        kept.note(polled)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let kept = self.get_mut();
        let polled = Pin::new(&mut kept.stream).poll_flush(context);
        kept.note(polled)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let kept = self.get_mut();
        let polled = Pin::new(&mut kept.stream).poll_shutdown(context);
        kept.note(polled)
    }
}
