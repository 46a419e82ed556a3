//! One connection to QEMU's agent in a guest, and for how long it is kept.
//!
//! QEMU lets in one client at a time. So whoever has the agent freeze the guest's file systems, as tools for backups do, does that
//! while this host has no connection, and it is enough to ask for it when one is opened. And one that is not needed is closed.

use std::{
    path::Path,
    sync::{Arc, Weak},
    time::Duration,
};

use qapi::{Command, qga};
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt,
    net::unix::OwnedWriteHalf,
    sync::Mutex,
    time::{Instant, sleep},
};
use tokio_util::task::AbortOnDropHandle;

use super::super::wire::{self, Lines, Message, WireError};

/// The agent's word for file systems that are frozen.
const FROZEN: &str = "frozen";

/// How the agent ends its refusal of a command while they are (QEMU 6.0 and later).
const REFUSES_FROZEN: &str = "in frozen state";

/// After so long without a question a connection is closed: others may have to speak with the agent. Services are mostly asked more often
/// than that, and keep theirs: one that is opened anew takes three questions for each. Raising it has others wait for longer.
pub(super) const KEPT_UNUSED: Duration = Duration::from_secs(60);

/// Where a guest's connection is while nobody uses it. Who uses it holds the lock.
pub(super) type Place = Mutex<Option<Kept>>;

/// A connection, closed when it has not been used for a while.
pub(super) struct Kept {
    pub(super) connection: Connection,
    used: Instant,
    _closes: AbortOnDropHandle<()>,
}

impl Kept {
    pub(super) async fn open(socket: &Path, place: &Arc<Place>) -> Result<Self, WireError> {
        let connection = Connection::open(socket).await?;
        let closes = AbortOnDropHandle::new(tokio::spawn(close_unused(Arc::downgrade(place))));
        Ok(Self { connection, used: Instant::now(), _closes: closes })
    }

    /// The same, used just now.
    pub(super) fn used(self) -> Self {
        Self { used: Instant::now(), ..self }
    }
}

async fn close_unused(place: Weak<Place>) {
    loop {
        sleep(KEPT_UNUSED).await;
        let Some(place) = place.upgrade() else { return };
        let mut kept = place.lock().await;
        if kept.as_ref().is_none_or(|kept| kept.used.elapsed() >= KEPT_UNUSED) {
            // This task ends with it.
            *kept = None;
            return;
        }
    }
}

pub(super) struct Connection {
    lines: Lines,
    write: OwnedWriteHalf,
    /// Whether the guest's file systems were frozen when it was opened.
    pub(super) was_frozen: bool,
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
