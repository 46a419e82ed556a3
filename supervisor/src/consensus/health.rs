//! Whether this node can still take part: the first failure that stopped it, for good, until a restart.

use std::sync::{Arc, OnceLock};

/// What stopped this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Its store could not be read or written: a restart helps once the disk is well again.
    Store,
    /// What is committed cannot be applied: a restart would meet the same entry again (R26).
    Machine,
    /// The cluster goes on in a later generation without it (R25): another store, under another id, has to take its place.
    Superseded,
    /// Its store has forgotten what was promised with it (R24): another one, under another id, has to take its place.
    Restored,
}

/// Shared by store and machine; what is noted first is the cause and stays.
#[derive(Debug, Clone, Default)]
pub(super) struct Health(Arc<OnceLock<(Cause, String)>>);

impl Health {
    /// Notes and logs a failure that stops this node's raft.
    pub(super) fn fail(&self, cause: Cause, reason: &str) {
        if self.0.set((cause, reason.to_owned())).is_ok() {
            tracing::error!(reason, "this voter stops: it neither votes nor applies until it is restarted");
        }
    }

    /// The failure, if there was one.
    pub(super) fn failure(&self) -> Option<&str> {
        self.0.get().map(|(_, reason)| reason.as_str())
    }

    /// What kind of failure it was.
    pub(super) fn cause(&self) -> Option<Cause> {
        self.0.get().map(|(cause, _)| *cause)
    }
}
