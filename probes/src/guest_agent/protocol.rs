//! What the host's supervisor and the agent in the guest say to each other.

use std::io;

use holdfast_policies::{model::Probe, names::ServiceName, observe::Outcome};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt};

use crate::channel::Exit;

/// The port's name in the guest, and in QEMU's command line.
pub const PORT_NAME: &str = "holdfast.0";

/// Longest line in bytes: both outputs of a program, with every byte of them escaped.
pub const LINE_BYTES_MAX: usize = 256 * 1024;

/// What is kept of each output of a program, in bytes: a sixth of half a line, since JSON may write a byte as `\u0000`.
pub const OUTPUT_BYTES_MAX: usize = 16 * 1024;

/// What the host says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToGuest {
    /// Is anybody there?
    Hello {
        /// Comes back in `Here`, so that the host knows what was said before and after it.
        number: u64,
    },
    /// One question.
    Ask {
        /// Comes back with the answer.
        id: u64,
        /// The agent's number from its `Here`. Another start of it, which comes upon an old question, does not answer it.
        agent: u64,
        /// How long the answer is waited for, in milliseconds.
        within_ms: u64,
        /// What.
        what: What,
    },
}

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Run a program and wait for its end.
    Exec {
        /// Program and arguments; no shell.
        run: Vec<String>,
    },
    /// Answer one probe.
    Probe(Box<Probe>),
}

/// What the guest says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromGuest {
    /// I am here; on start, and as the answer to `Hello`.
    Here {
        /// The agent's version.
        version: String,
        /// Made by chance at each start of the agent.
        agent: u64,
        /// The number of the `Hello` that this answers.
        hello: Option<u64>,
        /// How late the guest's scheduler has let it run lately, in milliseconds: a starved guest shows here.
        late_ms: u64,
        /// Watched services whose process is gone.
        down: Vec<Down>,
    },
    /// A program has ended.
    Ended {
        /// Whose answer it is.
        id: u64,
        /// Its exit code.
        code: Option<i32>,
        /// The signal that ended it.
        signal: Option<i32>,
        /// What it said, cut.
        stdout: String,
        /// What it complained of, cut.
        stderr: String,
    },
    /// A program had not ended in time, and was killed.
    Late {
        /// Whose answer it is.
        id: u64,
    },
    /// What a probe came to.
    Found {
        /// Whose answer it is.
        id: u64,
        /// The outcome.
        outcome: Outcome,
        /// Why, in a few words.
        detail: String,
    },
    /// Not done: the guest's own config does not allow it, or it cannot be.
    Refused {
        /// Whose answer it is.
        id: u64,
        /// Why.
        why: String,
    },
    /// A watched service has died, just now.
    Died(Down),
}

/// Most services that are watched, and most that may report in.
pub const SERVICES_MAX: usize = 64;

/// A number that no other start has, nor another connection.
#[must_use]
pub fn by_chance() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

/// A watched service whose process is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Down {
    /// Which.
    pub service: ServiceName,
    /// Which process, and how it is known.
    pub detail: String,
}

impl FromGuest {
    /// The question that it answers.
    #[must_use]
    pub fn answers(&self) -> Option<u64> {
        match self {
            Self::Ended { id, .. } | Self::Late { id } | Self::Found { id, .. } | Self::Refused { id, .. } => Some(*id),
            Self::Here { .. } | Self::Died(_) => None,
        }
    }

    /// How a program ended.
    #[must_use]
    pub fn exit(code: Option<i32>, signal: Option<i32>) -> Option<Exit> {
        signal.map(Exit::Signal).or(code.map(Exit::Code))
    }
}

/// One message as a line.
#[must_use]
pub fn line(message: &impl Serialize) -> Vec<u8> {
    // Both enums are made of maps with text keys, which always serialise.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

/// The next line without its end; `None` at the end of the stream. Lines that are longer than they may be are left out,
/// and so is what a restart of the other side has cut in two: neither can be read, and the next line can.
///
/// # Errors
/// When the port cannot be read.
pub async fn next_line(from: &mut (impl AsyncBufRead + Unpin), line: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    let mut too_long = false;
    loop {
        let chunk = from.fill_buf().await?;
        if chunk.is_empty() {
            return Ok(None);
        }
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let part = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
        too_long |= line.len() + part.len() > LINE_BYTES_MAX;
        if too_long {
            line.clear();
        } else {
            line.extend_from_slice(part);
        }
        let taken = part.len() + usize::from(end.is_some());
        from.consume(taken);
        if end.is_some() {
            let whole = std::mem::take(line);
            if !std::mem::take(&mut too_long) {
                return Ok(Some(whole));
            }
        }
    }
}
