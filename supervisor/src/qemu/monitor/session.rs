//! One connection to QEMU's monitor: which questions are unanswered on it, and what each was for.

use std::collections::BTreeMap;

use serde_json::Value;
use tokio::{
    net::unix::OwnedWriteHalf,
    sync::oneshot,
    time::{Instant, timeout},
};

use super::{
    super::wire::{self, Lines, WireError},
    ANSWER_DEADLINE, Ask, AskError,
};

/// Questions that may be unanswered at once; more are refused, since QEMU then hangs anyway.
const PENDING_MAX: usize = 64;

/// What an answer is for.
pub(super) enum Purpose {
    Nothing,
    Status,
    Migration,
    Agents,
    Asker(oneshot::Sender<Result<Value, AskError>>),
}

/// One connection.
pub(super) struct Session {
    /// What QEMU says.
    pub(super) lines: Lines,
    write: OwnedWriteHalf,
    next_id: u64,
    pending: BTreeMap<u64, Purpose>,
    /// When the state was asked for, while that is unanswered.
    pub(super) status_asked: Option<Instant>,
    /// When the state was asked for last, whatever was answered.
    pub(super) status_sent: Instant,
    /// Something has happened since the state was last asked for.
    pub(super) status_due: bool,
}

impl Session {
    pub(super) fn new(lines: Lines, write: OwnedWriteHalf) -> Self {
        let (pending, status_sent) = (BTreeMap::new(), Instant::now());
        Self { lines, write, next_id: 0, pending, status_asked: None, status_sent, status_due: false }
    }

    /// What the question with this id was for, which is answered.
    pub(super) fn answered(&mut self, id: u64) -> Option<Purpose> {
        self.pending.remove(&id)
    }

    /// Asks for somebody. Whoever has given up by then, as while there was no connection, has made something else of it: QEMU must not
    /// do it all the same when it can be spoken to again.
    pub(super) async fn forward(&mut self, ask: Ask) -> Result<(), WireError> {
        if ask.reply.is_closed() {
            return Ok(());
        }
        self.pending.retain(|_, purpose| !matches!(purpose, Purpose::Asker(reply) if reply.is_closed()));
        if self.pending.len() >= PENDING_MAX {
            _ = ask.reply.send(Err(AskError::Refused(format!("{PENDING_MAX} questions are unanswered"))));
            return Ok(());
        }
        self.send(ask.name, &ask.arguments, Purpose::Asker(ask.reply)).await
    }

    /// A QEMU that does not even read is given up; the connection is then opened anew.
    pub(super) async fn send(&mut self, name: &str, arguments: &Value, purpose: Purpose) -> Result<(), WireError> {
        self.next_id += 1;
        if matches!(purpose, Purpose::Status) {
            self.status_sent = Instant::now();
            self.status_asked = Some(self.status_sent);
        }
        self.pending.insert(self.next_id, purpose);
        let sent = timeout(ANSWER_DEADLINE, wire::send(&mut self.write, name, arguments, Some(self.next_id))).await;
        sent.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())).map_err(WireError::Socket)
    }
}
