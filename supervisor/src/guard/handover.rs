//! One guard takes over from another without a gap (R15): the lock, the socket that listens and the watchdog pass as
//! descriptors, and everything else by the memory that both share.
//!
//! ```text
//!   new ── {"request":"hand_over"} ──► old    from here on the old one answers nobody, but does its duty
//!   new ◄── lock, socket, watchdog ─── old
//!   new ── taken ────────────────────► old    the new one is ready; nothing that can fail is left
//!   new ◄── over ───────────────────── old    the old one ends; the new one's duty begins
//! ```
//!
//! An old guard that does not hear `taken` in time goes on as if nothing had been asked; a new one that does not hear
//! `over` ends. A descriptor that either of them drops stays open in the other.

use std::{
    fs::File,
    io::{self, IoSlice, Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    time::Duration,
};

use holdfast_policies::time::Moment;
use nix::{
    errno::Errno,
    sys::socket::{ControlMessage, MsgFlags, sendmsg},
};

use super::{
    kernel,
    protocol::{Reply, Request},
};

/// How long the new guard may take to get ready; it reads a few small files.
const READY_WITHIN: Duration = Duration::from_secs(2);
/// How long the new guard waits for each word of the old one.
const PATIENCE: Duration = Duration::from_secs(3);
/// Room for the old guard's answer.
const ANSWER_BYTES: usize = 4 * 1024;

const TAKEN: &[u8] = b"taken\n";
const OVER: &[u8] = b"over\n";

/// What the old guard has handed over; it does its duty until [`HandedOver::take`].
#[derive(Debug)]
pub(super) struct HandedOver {
    stream: UnixStream,
    /// Says that a guard runs, as long as anybody holds it.
    pub(super) lock: File,
    /// Listens already.
    pub(super) listener: UnixListener,
    /// The armed watchdog, if there is one.
    pub(super) watchdog: Option<OwnedFd>,
}

impl HandedOver {
    /// Asks the guard behind this socket to hand over.
    pub(super) fn ask(socket: &Path) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut line = serde_json::to_vec(&Request::HandOver {})?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut answer = [0; ANSWER_BYTES];
        let (length, descriptors) = kernel::receive(&stream, &mut answer)?;
        match serde_json::from_slice(answer.get(..length).unwrap_or_default())? {
            Reply::HandOver => {}
            other @ (Reply::Done | Reply::Refused { .. } | Reply::Status(_)) => {
                return Err(io::Error::other(format!("it does not hand over: {other:?}")));
            }
        }
        let mut descriptors = descriptors.into_iter();
        let (Some(lock), Some(listener)) = (descriptors.next(), descriptors.next()) else {
            return Err(io::Error::other("it handed over no lock and no socket"));
        };
        Ok(Self { stream, lock: lock.into(), listener: listener.into(), watchdog: descriptors.next() })
    }

    /// Takes the duty over; what can fail must be done before.
    pub(super) fn take(mut stream: UnixStream) -> io::Result<()> {
        stream.write_all(TAKEN)?;
        let mut word = [0; OVER.len()];
        stream.read_exact(&mut word)?;
        if word == OVER { Ok(()) } else { Err(io::Error::other("it did not end")) }
    }

    /// The way to the old guard, and all the rest.
    pub(super) fn apart(self) -> (UnixStream, File, UnixListener, Option<OwnedFd>) {
        (self.stream, self.lock, self.listener, self.watchdog)
    }
}

/// The old guard's side: everything is offered, and not taken yet.
#[derive(Debug)]
pub(super) struct Offer {
    stream: UnixStream,
    since: Moment,
    heard: Vec<u8>,
}

/// How far an offer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The new guard gets ready.
    Waiting,
    /// The new guard has the duty; this one ends.
    Taken,
    /// The new guard has failed or takes too long; this one goes on.
    Withdrawn,
}

impl Offer {
    /// Offers these to whoever asked on this stream.
    pub(super) fn make(
        stream: UnixStream,
        lock: BorrowedFd<'_>,
        listener: BorrowedFd<'_>,
        watchdog: Option<BorrowedFd<'_>>,
        now: Moment,
    ) -> io::Result<Self> {
        let line = serde_json::to_vec(&Reply::HandOver)?;
        let numbers: Vec<RawFd> = [lock, listener].into_iter().chain(watchdog).map(|one| one.as_raw_fd()).collect();
        let control = [ControlMessage::ScmRights(&numbers)];
        sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(&line)], &control, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(Self { stream, since: now, heard: Vec::new() })
    }

    /// The stream, to be waited for.
    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Looks whether it was taken. It never waits.
    pub(super) fn step(&mut self, now: Moment) -> Step {
        let mut buffer = [0; TAKEN.len()];
        match self.stream.read(&mut buffer) {
            Ok(0) => return Step::Withdrawn,
            Ok(length) => self.heard.extend(buffer.iter().take(length)),
            Err(error) if error.raw_os_error() == Some(Errno::EAGAIN as i32) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Step::Withdrawn,
        }
        if self.heard == TAKEN {
            return if self.stream.write_all(OVER).is_ok() { Step::Taken } else { Step::Withdrawn };
        }
        let open = TAKEN.starts_with(&self.heard) && now.since(self.since) < READY_WITHIN;
        if open { Step::Waiting } else { Step::Withdrawn }
    }
}
