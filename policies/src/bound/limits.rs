//! How long what others do takes at most: agents, guests, power devices.

use std::time::Duration;

use crate::order::{COMMAND_DEADLINE, START_DEADLINE, STOP_DEADLINE};

/// The longest times of what is ordered and asked. The default is what the cluster itself goes by: the deadlines of its
/// orders and what is declared. Whoever knows better, such as a simulator, may say less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A command in a guest.
    pub command: Duration,
    /// A start, until the machine runs; also to let one run, or to have one wait for a guest that moves.
    pub start: Duration,
    /// A stop by pulling the plug, until nothing is left.
    pub stop: Duration,
    /// Sending a running guest; `None`: what its memory gives it.
    pub send: Option<Duration>,
    /// One question to a power device, or one switching; `None`: what is declared for it.
    pub device: Option<Duration>,
    /// From when a machine runs until its services answer; `None`: what policies give it.
    pub boot: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            command: COMMAND_DEADLINE.0,
            start: START_DEADLINE.0,
            stop: STOP_DEADLINE.0,
            send: None,
            device: None,
            boot: None,
        }
    }
}
