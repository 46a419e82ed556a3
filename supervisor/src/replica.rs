//! The replicated state as consensus carries it: commands and snapshots as JSON, which a newer version can still read.

use std::sync::{Arc, RwLock};

use holdfast_policies::{
    change::{Change, Command},
    feature_level::FeatureLevel,
    state::ClusterState,
};

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
        if let Change::LevelRaised { to } = &command.what {
            can_do(*to)?;
        }
        let applied = self.state.apply(index, command);
        serde_json::to_vec(&applied).map_err(|error| Halt(format!("the result cannot be written down: {error}")))
    }

    fn generation(&self) -> u32 {
        self.state.generation
    }

    fn snapshot(&self) -> Result<Vec<u8>, Halt> {
        serde_json::to_vec(&self.state).map_err(|error| Halt(format!("the state cannot be written down: {error}")))
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), Halt> {
        let state: ClusterState = serde_json::from_slice(snapshot)
            .map_err(|error| Halt(format!("the snapshot is not of this version: {error}")))?;
        can_do(state.level)?;
        self.state = state;
        Ok(())
    }
}

/// A version that cannot do what the cluster has agreed on takes no part: what comes next may be unknown to it (R26).
fn can_do(level: FeatureLevel) -> Result<(), Halt> {
    let highest = FeatureLevel::HIGHEST;
    if level <= highest {
        return Ok(());
    }
    Err(Halt(format!(
        "the cluster is at feature level {level}, and this version can do {highest}: it must be upgraded"
    )))
}

#[cfg(test)]
mod tests {
    use holdfast_policies::time::WallTime;

    use super::*;

    fn raised(to: FeatureLevel) -> Vec<u8> {
        serde_json::to_vec(&Command { at: WallTime(1), what: Change::LevelRaised { to } }).unwrap()
    }

    #[test]
    fn a_level_that_this_version_cannot_do_halts_it_as_an_entry_and_as_a_snapshot() {
        let mut replica = Replica { state: ClusterState::born() };
        replica.apply(1, &raised(FeatureLevel::HIGHEST)).unwrap();
        assert_eq!(replica.state.level, FeatureLevel::HIGHEST);
        let next = FeatureLevel(FeatureLevel::HIGHEST.0 + 1);
        let Halt(why) = replica.apply(2, &raised(next)).unwrap_err();
        assert!(why.contains("must be upgraded"), "{why}");
        assert_eq!((replica.state.level, replica.state.applied), (FeatureLevel::HIGHEST, 1), "nothing was changed");
        let newer = serde_json::to_vec(&ClusterState { level: next, ..ClusterState::born() }).unwrap();
        assert!(replica.restore(&newer).is_err());
        assert_eq!(replica.state.applied, 1);
        let older = replica.snapshot().unwrap();
        replica.restore(&older).unwrap();
    }
}
