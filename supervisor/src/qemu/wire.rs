//! Lines of JSON over a Unix socket, as QEMU's monitor (QMP) and the guest agent (QGA) speak them.
//!
//! The command and answer types come from the `qapi` crate, its transport does not: there a line may grow without
//! bound, an event that the crate does not know ends the connection, and so does an answer that comes after its asker
//! has given up. A guest agent is untrusted and a QEMU may be newer than the crate, so none of that may happen here. Nor does
//! whoever talks without end take more of the host than a little: see [`Allowance`].

use std::{io, path::Path};

use serde::Deserialize;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::{Instant, sleep},
};

use super::allowance::{Allowance, LINE_COST};

/// Longest line accepted, in bytes: an agent's answer with 64 KiB of output and as much error text in base64 needs a
/// quarter of it, and a guest that sends more costs this much memory and no more.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// Bytes read at once.
const CHUNK_BYTES: usize = 8 << 10;

/// Why there is no next line.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The other side has closed the connection.
    #[error("connection closed")]
    Closed,
    /// The other side sends a line that is too long to be an answer.
    #[error("a line is longer than {LINE_BYTES_MAX} bytes")]
    TooLong,
    /// The other side sends something that is not a message.
    #[error("not a message")]
    NotMessage(#[source] serde_json::Error),
    /// The socket failed.
    #[error("socket")]
    Socket(#[from] io::Error),
}

/// One message from QEMU or from an agent: an answer, a refusal or an event.
#[derive(Debug, Clone, Deserialize)]
pub struct Message {
    /// The id of the question that this answers.
    pub id: Option<u64>,
    /// An answer.
    #[serde(rename = "return")]
    pub answer: Option<Value>,
    /// A refusal.
    pub error: Option<Refusal>,
    /// An event's name.
    pub event: Option<String>,
    /// What the event says.
    pub data: Option<Value>,
    /// The monitor's greeting.
    #[serde(rename = "QMP")]
    pub greeting: Option<Value>,
}

/// Why QEMU or an agent refuses a command.
#[derive(Debug, Clone, Deserialize)]
pub struct Refusal {
    /// In words.
    pub desc: String,
}

/// Both halves of a connection.
pub async fn connect(socket: &Path) -> io::Result<(Lines, OwnedWriteHalf)> {
    let (read, write) = UnixStream::connect(socket).await?.into_split();
    Ok((Lines::of(read), write))
}

/// Sends one command; `id` comes back with its answer.
pub async fn send(write: &mut OwnedWriteHalf, name: &str, arguments: &Value, id: Option<u64>) -> io::Result<()> {
    let mut command = serde_json::json!({ "execute": name, "arguments": arguments });
    if let (Some(id), Some(map)) = (id, command.as_object_mut()) {
        map.insert("id".to_owned(), id.into());
    }
    let mut line = command.to_string().into_bytes();
    line.push(b'\n');
    write.write_all(&line).await
}

/// The reading half, line by line.
pub struct Lines {
    read: OwnedReadHalf,
    buffer: Vec<u8>,
    /// Where in the buffer the next line begins.
    begins: usize,
    /// Up to where the buffer is known to hold no end of that line.
    searched: usize,
    allowance: Allowance,
}

impl Lines {
    /// Of a socket that is connected.
    pub fn of(read: OwnedReadHalf) -> Self {
        Self { read, buffer: Vec::new(), begins: 0, searched: 0, allowance: Allowance::whole(Instant::now()) }
    }

    /// The next line without its end. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Vec<u8>, WireError> {
        loop {
            if let Some(more) = self.buffer.iter().skip(self.searched).position(|byte| *byte == b'\n') {
                let end = self.searched + more;
                // What follows stays where it is: the other side may have sent thousands of lines at once.
                let line = self.buffer.get(self.begins..end).unwrap_or_default().to_vec();
                (self.begins, self.searched) = (end + 1, end + 1);
                self.allowance.use_up(LINE_COST, Instant::now());
                return Ok(line);
            }
            self.searched = self.buffer.len();
            if self.searched - self.begins > LINE_BYTES_MAX {
                return Err(WireError::TooLong);
            }
            self.read_on().await?;
        }
    }

    /// Throws away everything up to and with the next `byte`, however much that is.
    pub async fn skip_past(&mut self, byte: u8) -> Result<(), WireError> {
        loop {
            if let Some(more) = self.buffer.iter().skip(self.begins).position(|found| *found == byte) {
                self.begins += more + 1;
                self.searched = self.begins;
                return Ok(());
            }
            self.buffer.clear();
            (self.begins, self.searched) = (0, 0);
            self.read_on().await?;
        }
    }

    /// Reads once, when the other side may say more. Dropping the future loses nothing.
    async fn read_on(&mut self) -> Result<(), WireError> {
        let wait = self.allowance.again_after(Instant::now());
        if !wait.is_zero() {
            sleep(wait).await;
        }
        self.buffer.drain(..self.begins);
        self.searched -= self.begins;
        self.begins = 0;
        if self.buffer.len() < CHUNK_BYTES {
            // A long line is rare, and there is a connection for each guest.
            self.buffer.shrink_to(2 * CHUNK_BYTES);
        }
        self.buffer.reserve(CHUNK_BYTES);
        let most = u64::try_from(CHUNK_BYTES).unwrap_or(u64::MAX);
        let count = (&mut self.read).take(most).read_buf(&mut self.buffer).await?;
        if count == 0 {
            return Err(WireError::Closed);
        }
        self.allowance.use_up(count, Instant::now());
        Ok(())
    }

    /// The next message. Dropping the future loses nothing.
    pub async fn message(&mut self) -> Result<Message, WireError> {
        let line = self.next().await?;
        serde_json::from_slice(&line).map_err(WireError::NotMessage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (UnixStream, Lines) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (read, _) = theirs.into_split();
        (ours, Lines::of(read))
    }

    #[tokio::test]
    async fn lines_come_one_by_one_however_they_were_cut() {
        let (mut ours, mut lines) = pair();
        for piece in ["{\"return\"", ":{},\"id\":7}\r", "\n{\"event\":\"NEW_IN_SOME_LATER_QEMU\"}\n"] {
            ours.write_all(piece.as_bytes()).await.unwrap();
        }
        assert_eq!(lines.message().await.unwrap().id, Some(7));
        assert_eq!(lines.message().await.unwrap().event.as_deref(), Some("NEW_IN_SOME_LATER_QEMU"));
        drop(ours);
        assert!(matches!(lines.message().await, Err(WireError::Closed)));
    }

    #[tokio::test]
    async fn what_is_left_behind_a_mark_is_read_as_lines() {
        let (mut ours, mut lines) = pair();
        ours.write_all(b"old\nrest\xffnew\nnext\n").await.unwrap();
        assert_eq!(lines.next().await.unwrap(), b"old");
        lines.skip_past(0xff).await.unwrap();
        assert_eq!((lines.next().await.unwrap(), lines.next().await.unwrap()), (b"new".to_vec(), b"next".to_vec()));
        ours.write_all(b"x\xff\n").await.unwrap();
        lines.skip_past(0xff).await.unwrap();
        assert_eq!(lines.next().await.unwrap(), b"");
    }

    /// The clock of this test stands still unless everybody waits.
    #[tokio::test(start_paused = true)]
    async fn whoever_talks_without_end_is_listened_to_for_a_while_and_then_now_and_then() {
        let (mut ours, mut lines) = pair();
        let sender = tokio::spawn(async move {
            let chunk = [b'\n'; 4096];
            while ours.write_all(&chunk).await.is_ok() {}
        });
        let began = Instant::now();
        for _ in 0..80_000 {
            lines.next().await.unwrap();
        }
        // 257 bytes each: 20 MB, of which 4 MiB may be said at once and 2 MiB in each second.
        assert!(began.elapsed() > std::time::Duration::from_secs(5), "{:?}", began.elapsed());
        assert!(lines.buffer.capacity() < 4 * CHUNK_BYTES);
        drop(lines);
        sender.await.unwrap();
    }

    #[tokio::test]
    async fn a_line_without_end_is_given_up_at_the_bound() {
        let (mut ours, mut lines) = pair();
        let sender = tokio::spawn(async move {
            let chunk = [b'x'; 4096];
            while ours.write_all(&chunk).await.is_ok() {}
        });
        assert!(matches!(lines.next().await, Err(WireError::TooLong)));
        assert!(lines.buffer.capacity() < 4 * LINE_BYTES_MAX);
        drop(lines);
        sender.await.unwrap();
    }
}
