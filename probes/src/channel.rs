//! The way into a guest: what a probe needs from a guest agent, without saying which agent.

use std::time::Duration;

use async_trait::async_trait;

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
    /// The agent was asked and the deadline passed without a result.
    #[error("guest agent gave no result before the deadline")]
    Deadline,
}
