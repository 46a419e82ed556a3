//! The replicated state as consensus carries it: commands and snapshots as JSON, which a newer version can still read.

use std::sync::{Arc, RwLock};

use holdfast_policies::{change::Command, state::ClusterState};

use crate::consensus::{Halt, Machine};

/// This host's copy of the cluster's state.
#[derive(Debug)]
pub struct Replica {
    /// The state, with every committed entry that has been applied here.
    pub state: ClusterState,
}

/// The copy as it is shared: consensus writes, everybody else reads.
pub type SharedReplica = Arc<RwLock<Replica>>;

impl Replica {
    /// The state at birth.
    #[must_use]
    pub fn born() -> SharedReplica {
        Arc::new(RwLock::new(Self { state: ClusterState::born() }))
    }
}

impl Machine for Replica {
    fn apply(&mut self, index: u64, entry: &[u8]) -> Result<Vec<u8>, Halt> {
        let command: Command = serde_json::from_slice(entry).map_err(|error| {
            Halt(format!("the command is not known to this version, which must be upgraded first: {error}"))
        })?;
        let applied = self.state.apply(index, command);
        serde_json::to_vec(&applied).map_err(|error| Halt(format!("the result cannot be written down: {error}")))
    }

    fn snapshot(&self) -> Result<Vec<u8>, Halt> {
        serde_json::to_vec(&self.state).map_err(|error| Halt(format!("the state cannot be written down: {error}")))
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), Halt> {
        self.state = serde_json::from_slice(snapshot)
            .map_err(|error| Halt(format!("the snapshot is not of this version: {error}")))?;
        Ok(())
    }
}
