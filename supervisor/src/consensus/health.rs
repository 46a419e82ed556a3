//! Whether this node can still take part: the first failure that stopped it, for good, until a restart.

use std::sync::{Arc, OnceLock};

/// Shared by store and machine; what is noted first is the cause and stays.
#[derive(Debug, Clone, Default)]
pub(super) struct Health(Arc<OnceLock<String>>);

impl Health {
    /// Notes and logs a failure that stops this node's raft.
    pub(super) fn fail(&self, reason: &str) {
        if self.0.set(reason.to_owned()).is_ok() {
            tracing::error!(reason, "this voter stops: it neither votes nor applies until it is restarted");
        }
    }

    /// The failure, if there was one.
    pub(super) fn failure(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}
