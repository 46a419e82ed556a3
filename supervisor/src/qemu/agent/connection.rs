//! One connection to QEMU's agent in a guest.
//!
//! QEMU lets in one client at a time. So whoever has the agent freeze the guest's file systems, as tools for backups do, does that
//! while this host has no connection, and it is enough to ask for it when one is opened.

use std::path::Path;

use qapi::{Command, qga};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::unix::OwnedWriteHalf};

use super::super::wire::{self, Lines, Message, WireError};

/// The agent's word for file systems that are frozen.
const FROZEN: &str = "frozen";

/// How the agent ends its refusal of a command while they are (QEMU 6.0 and later).
const REFUSES_FROZEN: &str = "in frozen state";

pub(super) struct Connection {
    lines: Lines,
    write: OwnedWriteHalf,
    /// Whether the guest's file systems were frozen when it was opened.
    was_frozen: bool,
}

impl Connection {
    pub(super) async fn open(socket: &Path) -> Result<Self, WireError> {
        let (lines, write) = wire::connect(socket).await?;
        let mut connection = Self { lines, write, was_frozen: false };
        connection.synchronise(i64::from(rand::random::<u32>())).await?;
        let said = connection.exchange(qga::guest_fsfreeze_status::NAME, &json!({})).await?;
        // An agent that cannot tell, or must not, is asked for the rest as ever.
        connection.was_frozen = said.answer.as_ref().and_then(Value::as_str) == Some(FROZEN);
        Ok(connection)
    }

    /// After this, the next answer belongs to the next command: the agent marks its answer with a byte that occurs in
    /// no JSON, and everything before it is thrown away.
    async fn synchronise(&mut self, id: i64) -> Result<(), WireError> {
        // The same byte makes the agent forget half a command that it may have been left with.
        self.write.write_all(&[0xff]).await?;
        let arguments = json!({ "id": id });
        wire::send(&mut self.write, qga::guest_sync_delimited::NAME, &arguments, None).await?;
        loop {
            self.lines.skip_past(0xff).await?;
            let answer = self.lines.next().await?;
            if serde_json::from_slice::<Message>(&answer).is_ok_and(|message| message.answer == Some(id.into())) {
                return Ok(());
            }
        }
    }

    pub(super) async fn exchange(&mut self, name: &str, arguments: &Value) -> Result<Message, WireError> {
        wire::send(&mut self.write, name, arguments, None).await?;
        self.lines.message().await
    }

    /// Whether the guest's file systems are frozen, by what was said at the beginning and now.
    pub(super) fn is_frozen(&self, answer: &Message) -> bool {
        self.was_frozen || answer.error.as_ref().is_some_and(|refusal| refusal.desc.contains(REFUSES_FROZEN))
    }
}
