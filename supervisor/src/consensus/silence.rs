//! A leader that gives way to another one: for a while it says nothing to the other voters, and stands in nobody's way.
//!
//! For raft that is a link that is down. Without heartbeats the others elect one of themselves, and nothing that this node has
//! in its log and could not get to them keeps them from it, because it is not asked. If they elect nobody it leads on afterwards.
//! Raft's own way to hand a lead over would not do: whoever is to lead then must have all that the leader has, which is what cannot
//! be got there, and a leader that has once handed over leads no more in its term, whether anybody has taken the lead or not.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::network::Message;

/// A node's silence; clones are of the same node.
#[derive(Debug, Clone, Default)]
pub(super) struct Silence(Arc<Mutex<Option<Instant>>>);

impl Silence {
    /// Begins to be silent, for so long.
    pub(super) fn keep(&self, time: Duration) {
        *self.end() = Instant::now().checked_add(time);
    }

    /// Whether this node is silent.
    pub(super) fn holds(&self) -> bool {
        self.end().is_some_and(|end| Instant::now() < end)
    }

    /// Whether this message must not be sent at present. Who votes is told all the same: that asks nobody for anything.
    pub(super) fn withholds(&self, message: &Message) -> bool {
        match message {
            Message::Append(_)
            | Message::Vote(_)
            | Message::PreVote(_)
            | Message::Snapshot(_)
            | Message::Transfer(_) => self.holds(),
            Message::Who | Message::WhoIs { .. } => false,
        }
    }

    /// Whether this message must not be taken in at present: asked for its vote, this node would say that it has more than whoever
    /// asks, and have them wait for that. Whoever is elected is followed at once.
    pub(super) fn declines(&self, message: &Message) -> bool {
        match message {
            Message::Vote(_) | Message::PreVote(_) | Message::Transfer(_) => self.holds(),
            Message::Append(_) | Message::Snapshot(_) | Message::Who | Message::WhoIs { .. } => false,
        }
    }

    fn end(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
