//! The way into a guest: what a probe needs from a guest agent, without saying which agent.

use std::{path::Path, time::Duration};

use async_trait::async_trait;
use holdfast_policies::{model::Probe, observe::Outcome, probe::Processes};

/// A channel to the agent inside one guest.
///
/// Each call carries its own deadline, counted from the call, and must end by then.
/// Dropping a call's future must be safe at any point.
#[async_trait]
pub trait GuestChannel: Send + Sync {
    /// Ask whether the agent answers at all.
    ///
    /// # Errors
    /// See [`ChannelError`].
    async fn ping(&self, deadline: Duration) -> Result<(), ChannelError>;

    /// Run one program inside the guest and wait for its end.
    ///
    /// # Errors
    /// See [`ChannelError`]; a program that ran and failed is not an error.
    async fn exec(&self, argv: &[String], deadline: Duration) -> Result<ExecResult, ChannelError>;

    /// Have a whole probe answered in the guest, where an agent there can and may do that; `None` where not, and the
    /// probe has to be asked by running programs.
    async fn answer(&self, _probe: &Probe, _deadline: Duration) -> Option<(Outcome, String)> {
        None
    }

    /// Count processes without running a program; `None` where this way in cannot.
    async fn count(&self, _which: &Processes) -> Option<Counted> {
        None
    }

    /// Look at a file without running a program, and `read` its beginning; `None` where this way in cannot.
    async fn look_at(&self, _path: &Path, _read: bool) -> Option<Looked> {
        None
    }
}

/// What came of counting processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Counted {
    /// So many are there.
    There(u32),
    /// The process that a file names.
    Named(Named),
    /// The file that should hold a process number holds none.
    NoNumber,
    /// Processes cannot be looked at.
    Unseen,
}

/// A process whose number stands in a file. The number is given to others once its process has ended; when it began tells them
/// apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The number.
    pub number: u32,
    /// What tells this writing of the file from any other; empty where nothing does.
    pub written: String,
    /// When the process with that number began, in ticks since the guest's boot; `None` where none lives.
    pub began: Option<u64>,
}

/// What came of a look at a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Looked {
    /// It is there.
    There {
        /// Since it was written last, by the guest's clock; zero for files of the future.
        age: Duration,
        /// Whether it is one: then that clock was set back since.
        of_future: bool,
        /// What tells this writing of the file from any other; empty where nothing does.
        written: String,
        /// Its beginning, if that was asked for.
        content: String,
    },
    /// It is not there.
    Missing,
    /// It cannot be read.
    Unreadable,
}

/// How a program inside a guest ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It ended with this exit code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

/// What a program inside a guest left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecResult {
    /// How it ended.
    pub exit: Exit,
    /// What it wrote to standard output; the channel bounds the size.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error; the channel bounds the size.
    pub stderr: Vec<u8>,
}

/// Why a channel gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// The agent could not be asked; this says nothing about the guest.
    #[error("guest agent unavailable: {0}")]
    Unavailable(String),
    /// The agent answered with an error, such as "no such program".
    #[error("guest agent refused: {0}")]
    Refused(String),
    /// The agent does nothing at present, because it has the guest's file systems frozen; this says nothing about the guest.
    #[error("the guest's file systems are frozen, as for a backup, and its agent does nothing before they are thawed")]
    Frozen,
    /// The program has ended and said more than this way out takes, so that nothing of it is known.
    #[error("what was said is more than the guest agent can pass on")]
    TooLong,
    /// The agent was asked, and has been silent since: nobody knows what came of it.
    #[error("guest agent gave no result before the deadline")]
    Deadline,
    /// The agent was there until the deadline, and says that the program has not ended by then.
    #[error("the program has not ended before the deadline, as the guest agent says")]
    Late,
}
