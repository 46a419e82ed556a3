//! One connection to the guard: bytes in, lines answered one by one, bytes out; it never waits.

use std::{
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
};

use holdfast_policies::time::Moment;
use nix::poll::PollFlags;

use super::{
    protocol::REQUEST_BYTES_MAX,
    state::{Keep, Refused, State},
    steady::write_line,
};

/// Most steps in one go, so that a busy connection cannot delay the beacon.
const STEPS_MAX: usize = 64;
/// Bytes read at once.
const READ_BYTES: usize = 8 * 1024;

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Set after a request that cannot be bounded: say so, then hang up.
    closing: bool,
    /// Whoever is at the other end wants to take over, and is answered by the guard itself.
    takes_over: bool,
}

/// What came of reading or writing.
enum Progress {
    Some,
    Later,
    Gone,
}

impl Connection {
    /// None when the stream cannot be made non-blocking.
    pub(super) fn new(stream: UnixStream) -> Option<Self> {
        stream.set_nonblocking(true).ok()?;
        Some(Self { stream, input: Vec::new(), output: Vec::new(), closing: false, takes_over: false })
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// What to wait for. While an answer waits to be taken, nothing more is read.
    pub(super) fn interest(&self) -> PollFlags {
        if self.output.is_empty() { PollFlags::POLLIN } else { PollFlags::POLLOUT }
    }

    /// Does what can be done without waiting. False: the connection is over.
    pub(super) fn serve(&mut self, state: &mut State, now: Moment, keep: &Keep<'_>) -> bool {
        for _ in 0..STEPS_MAX {
            if self.takes_over {
                return true;
            }
            let progress = if !self.output.is_empty() {
                self.write()
            } else if self.closing {
                Progress::Gone
            } else if self.answer_one(state, now, keep) {
                Progress::Some
            } else {
                self.read()
            };
            match progress {
                Progress::Some => {}
                Progress::Later => return true,
                Progress::Gone => return false,
            }
        }
        true
    }

    /// Answers the first whole line, if there is one, or gives up on one that is too long.
    fn answer_one(&mut self, state: &mut State, now: Moment, keep: &Keep<'_>) -> bool {
        match self.input.iter().position(|byte| *byte == b'\n') {
            Some(end) if end <= REQUEST_BYTES_MAX => {
                let line = self.input.get(..end).unwrap_or_default();
                self.takes_over = state.answer_into(line.trim_ascii(), now, keep, &mut self.output);
                self.input.drain(..=end);
            }
            None if self.input.len() <= REQUEST_BYTES_MAX => return false,
            Some(_) | None => {
                self.closing = true;
                self.input.clear();
                let reply = state.refuse(&Refused::Unreadable(format!("it is longer than {REQUEST_BYTES_MAX} bytes")));
                write_line(&mut self.output, &reply);
            }
        }
        true
    }

    /// Whether everything is to be handed over to whoever is at the other end.
    pub(super) fn takes_over(&self) -> bool {
        self.takes_over
    }

    /// The bare stream.
    pub(super) fn into_stream(self) -> UnixStream {
        self.stream
    }

    fn read(&mut self) -> Progress {
        let mut buffer = [0; READ_BYTES];
        match self.stream.read(&mut buffer) {
            Ok(0) => Progress::Gone,
            Ok(length) => {
                self.input.extend_from_slice(buffer.get(..length).unwrap_or_default());
                Progress::Some
            }
            Err(error) => after(&error),
        }
    }

    fn write(&mut self) -> Progress {
        match self.stream.write(&self.output) {
            Ok(0) => Progress::Gone,
            Ok(length) => {
                self.output.drain(..length.min(self.output.len()));
                Progress::Some
            }
            Err(error) => after(&error),
        }
    }
}

fn after(error: &io::Error) -> Progress {
    match error.kind() {
        io::ErrorKind::WouldBlock => Progress::Later,
        io::ErrorKind::Interrupted => Progress::Some,
        _ => Progress::Gone,
    }
}
