//! The unit on the wire: length, request id, tag, body.
//!
//! ```text
//! u32 length of the rest | u64 request id | u8 tag | body       (big-endian)
//! ```
//! In a request the tag is the channel, in a reply it says whether the body is the answer or a refusal.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{OwnedSemaphorePermit, Semaphore},
};

/// Largest frame, in bytes. The largest thing sent is a batch of log entries, which the log reader bounds far below
/// this even when escaping multiplies it; snapshots travel in parts. More is a mistake or an attack.
pub const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Request id and tag: what stands in a frame besides the body.
const HEAD_BYTES: usize = 9;

/// Largest body of a request or reply, in bytes.
pub const BODY_BYTES_MAX: usize = FRAME_BYTES_MAX - HEAD_BYTES;

/// A frame once begun must be complete within this: nothing sends that slowly except what means harm.
const FRAME_TIMEOUT: Duration = Duration::from_secs(30);

/// First reservation for a body, in bytes; it grows only as data really arrives.
const FIRST_RESERVATION: usize = 64 * 1024;

/// Tag of a reply that is the answer.
pub(super) const ANSWER: u8 = 0;
/// Tag of a reply that is a refusal; its body is UTF-8 text.
pub(super) const REFUSAL: u8 = 1;

/// One request or reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) id: u64,
    pub(super) tag: u8,
    pub(super) body: Vec<u8>,
}

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    /// The other end closed the connection, or the network did.
    #[error("the connection ended: {0}")]
    Ended(io::Error),
    /// What arrived is not a frame of ours.
    #[error("a frame of {length} bytes is not between {HEAD_BYTES} and {FRAME_BYTES_MAX}")]
    Length {
        /// The length that was announced.
        length: usize,
    },
    /// The frame was begun and not finished.
    #[error("a frame was not complete within {FRAME_TIMEOUT:?}")]
    Slow,
}

/// Room for the bodies of frames that were read and are still being worked on.
pub(super) struct Room {
    bytes: Arc<Semaphore>,
    most: u32,
}

impl Room {
    /// Room for so many bytes.
    pub(super) fn of(most: u32) -> Self {
        Self { bytes: Arc::new(Semaphore::new(usize::try_from(most).unwrap_or(usize::MAX))), most }
    }

    /// Waits for room; a body that is larger than all of it has it alone.
    async fn take(&self, body_bytes: usize) -> Result<OwnedSemaphorePermit, FrameError> {
        let bytes = u32::try_from(body_bytes).unwrap_or(u32::MAX).min(self.most);
        let closed = |_| FrameError::Ended(io::ErrorKind::BrokenPipe.into());
        Arc::clone(&self.bytes).acquire_many_owned(bytes).await.map_err(closed)
    }
}

/// Reads the next frame; waits for its first byte as long as it takes.
pub(super) async fn read(reader: &mut (impl AsyncRead + Unpin)) -> Result<Frame, FrameError> {
    let body_bytes = read_length(reader).await?;
    read_in_time(reader, body_bytes).await
}

/// The same where not more is to be read than there is room for. It is given back with what is returned beside the frame.
pub(super) async fn read_into(
    reader: &mut (impl AsyncRead + Unpin),
    room: &Room,
) -> Result<(Frame, OwnedSemaphorePermit), FrameError> {
    let body_bytes = read_length(reader).await?;
    let taken = room.take(body_bytes).await?;
    Ok((read_in_time(reader, body_bytes).await?, taken))
}

/// The length of the next frame's body, in bytes.
async fn read_length(reader: &mut (impl AsyncRead + Unpin)) -> Result<usize, FrameError> {
    let length = usize::try_from(reader.read_u32().await.map_err(FrameError::Ended)?).unwrap_or(usize::MAX);
    if !(HEAD_BYTES..=FRAME_BYTES_MAX).contains(&length) {
        return Err(FrameError::Length { length });
    }
    Ok(length - HEAD_BYTES)
}

async fn read_in_time(reader: &mut (impl AsyncRead + Unpin), body_bytes: usize) -> Result<Frame, FrameError> {
    tokio::time::timeout(FRAME_TIMEOUT, read_rest(reader, body_bytes))
        .await
        .map_err(|_| FrameError::Slow)?
        .map_err(FrameError::Ended)
}

async fn read_rest(reader: &mut (impl AsyncRead + Unpin), body_bytes: usize) -> io::Result<Frame> {
    let id = reader.read_u64().await?;
    let tag = reader.read_u8().await?;
    let mut body = Vec::with_capacity(body_bytes.min(FIRST_RESERVATION));
    let limit = u64::try_from(body_bytes).map_err(io::Error::other)?;
    let got = reader.take(limit).read_to_end(&mut body).await?;
    if got == body_bytes { Ok(Frame { id, tag, body }) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Writes a frame without flushing it. The body must be within [`BODY_BYTES_MAX`].
pub(super) async fn write(writer: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> io::Result<()> {
    let length = u32::try_from(HEAD_BYTES + frame.body.len()).map_err(io::Error::other)?;
    writer.write_u32(length).await?;
    writer.write_u64(frame.id).await?;
    writer.write_u8(frame.tag).await?;
    writer.write_all(&frame.body).await
}

/// Writes what is queued until the queue's senders are gone or the connection fails; flushes when the queue is empty.
pub(super) async fn write_queue(
    writer: &mut (impl AsyncWrite + Unpin),
    queue: &mut tokio::sync::mpsc::Receiver<Frame>,
) -> io::Result<()> {
    while let Some(frame) = queue.recv().await {
        write(writer, &frame).await?;
        while let Ok(next) = queue.try_recv() {
            write(writer, &next).await?;
        }
        writer.flush().await?;
    }
    writer.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_frame_reads_back_as_it_was_written() {
        let frame = Frame { id: 7, tag: 3, body: b"body".to_vec() };
        let mut wire = Vec::new();
        write(&mut wire, &frame).await.unwrap();
        assert_eq!(read(&mut wire.as_slice()).await.unwrap(), frame);
    }

    #[tokio::test]
    async fn a_frame_too_long_or_too_short_is_refused_before_its_body() {
        for length in [0u32, 8, 16 * 1024 * 1024 + 1, u32::MAX] {
            let wire = length.to_be_bytes();
            assert!(matches!(read(&mut wire.as_slice()).await, Err(FrameError::Length { .. })), "{length}");
        }
    }

    #[tokio::test]
    async fn a_frame_cut_off_is_an_end_and_not_a_frame() {
        let mut wire = Vec::new();
        write(&mut wire, &Frame { id: 1, tag: 1, body: vec![0; 100] }).await.unwrap();
        wire.truncate(50);
        assert!(matches!(read(&mut wire.as_slice()).await, Err(FrameError::Ended(_))));
    }
}
