//! The replicated state as consensus carries it: commands and snapshots as JSON, which a newer version can still read, and packed
//! where that is long.

use std::sync::{Arc, RwLock};

use holdfast_policies::{
    change::{Change, Command},
    feature_level::FeatureLevel,
    state::ClusterState,
};

use crate::{
    consensus::{Halt, Machine},
    packed::{pack, unpack},
};

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
        let command = command(entry)?;
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
        let fail = |error: &dyn std::fmt::Display| Halt(format!("the state cannot be written down: {error}"));
        let json = serde_json::to_vec(&self.state).map_err(|error| fail(&error))?;
        pack(json, self.state.level).map_err(|error| fail(&error))
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), Halt> {
        let json = unpack(snapshot).map_err(|error| Halt(format!("the snapshot cannot be unpacked: {error}")))?;
        let state: ClusterState = serde_json::from_slice(&json)
            .map_err(|error| Halt(format!("the snapshot is not of this version: {error}")))?;
        can_do(state.level)?;
        self.state = state;
        Ok(())
    }
}

/// The command of an entry, whether it was packed or not.
///
/// # Errors
/// [`Halt`]: what this version does not know, it must not pass over (R26).
pub fn command(entry: &[u8]) -> Result<Command, Halt> {
    let json = unpack(entry).map_err(|error| Halt(format!("the command cannot be unpacked: {error}")))?;
    serde_json::from_slice(&json).map_err(|error| {
        Halt(format!("the command is not known to this version, which must be upgraded first: {error}"))
    })
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
    use std::collections::BTreeMap;

    use holdfast_policies::{model::Policies, time::WallTime};

    use super::*;
    use crate::packed::PACKED_FROM;

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

    #[test]
    fn a_long_declaration_is_packed_in_its_entry_and_in_the_snapshot_as_soon_as_all_can_read_that() {
        let sources: BTreeMap<String, String> = [("all.yaml".to_owned(), "# a guest\n".repeat(PACKED_FROM / 8))].into();
        let (policies, by) = (Box::new(Policies::default()), "ann".to_owned());
        let what = Change::PoliciesApplied { policies, sources: sources.clone(), base_version: 0, by };
        let plain = serde_json::to_vec(&Command { at: WallTime(1), what }).unwrap();
        let packed = pack(plain.clone(), FeatureLevel::PACKED).unwrap();
        assert!(packed.len() < plain.len() / 8);
        let [mut of_plain, mut of_packed] = [(); 2].map(|()| Replica { state: ClusterState::born() });
        of_plain.apply(1, &plain).unwrap();
        of_packed.apply(1, &packed).unwrap();
        assert_eq!(of_plain.state, of_packed.state);
        assert_eq!(of_packed.state.sources, sources);
        assert!(of_packed.snapshot().unwrap().starts_with(b"{"), "a voter of an earlier version may have to read it");
        of_packed.apply(2, &raised(FeatureLevel::PACKED)).unwrap();
        let snapshot = of_packed.snapshot().unwrap();
        assert!(snapshot.len() < plain.len() / 8);
        of_plain.restore(&snapshot).unwrap();
        assert_eq!(of_plain.state, of_packed.state);
    }
}
