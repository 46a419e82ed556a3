//! A connection in the clear or over TLS, and reading from it without being drowned.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use crate::{finding::Finding, network::trust};

/// A connection to a service.
pub(crate) enum Stream {
    /// In the clear.
    Plain(TcpStream),
    /// Over TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Judges an error in the middle of a conversation.
pub(crate) fn broken(error: &io::Error) -> Finding {
    trust::of_io(error)
}

/// Reads once. An end is the service's doing.
pub(crate) async fn read_some(stream: &mut Stream, buffer: &mut [u8]) -> Result<usize, Finding> {
    match stream.read(buffer).await {
        Ok(0) => Err(Finding::fail("the service hung up")),
        Ok(count) => Ok(count),
        Err(error) => Err(broken(&error)),
    }
}

/// Reads exactly that many bytes; the caller has bounded them.
pub(crate) async fn read_exactly(stream: &mut Stream, buffer: &mut [u8]) -> Result<(), Finding> {
    match stream.read_exact(buffer).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Finding::fail("the service hung up")),
        Err(error) => Err(broken(&error)),
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
