//! A connection that keeps what has gone wrong with it, for libraries that hand that on as a text: from a text nobody can tell whose
//! fault it is.

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
}

impl Kept {
    /// One on which nothing has gone wrong.
    pub fn of(stream: Stream) -> (Self, Trouble) {
        let trouble = Trouble::default();
        (Self { stream, trouble: trouble.clone() }, trouble)
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
        let polled = Pin::new(&mut kept.stream).poll_read(context, buffer);
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
