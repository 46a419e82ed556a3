//! Whether the guest's agent answers.

use std::time::Duration;

use crate::{
    channel::{ChannelError, GuestChannel},
    finding::Finding,
};

/// Asks the agent whether it is there.
pub(crate) async fn ask(channel: &dyn GuestChannel, timeout: Duration) -> Finding {
    match channel.ping(timeout).await {
        Ok(()) => Finding::pass("the agent answers"),
        // An agent that complains is there.
        Err(ChannelError::Refused(why)) => Finding::pass(format!("the agent answers, with an error: {why}")),
        Err(error @ (ChannelError::TooLong | ChannelError::Frozen)) => {
            Finding::pass(format!("the agent answers, with an error: {error}"))
        }
        Err(ChannelError::Deadline | ChannelError::Late) => silent(timeout),
        Err(error @ ChannelError::Unavailable(_)) => Finding::unknown(error.to_string()),
    }
}

/// The channel was there and nobody answered on it.
pub(crate) fn silent(timeout: Duration) -> Finding {
    Finding::fail(format!("the agent does not answer within {timeout:?}"))
}
