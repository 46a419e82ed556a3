//! What consensus needs to know to start, and its timing.

use std::{path::PathBuf, time::Duration};

use holdfast_policies::time::millis;
use openraft::{Config, SnapshotPolicy};

use super::errors::StartError;

/// Time for one part of a snapshot to be taken in, in milliseconds; the last one includes installing it.
const SNAPSHOT_PART_MS: u64 = 15_000;
/// Requests that may wait for raft's own task: more means that it is stuck, and callers should feel that. Room for them is
/// made as they come.
const QUEUE: u64 = 4096;
/// Waits before an unreachable voter is tried again: a host that comes back is to catch up at once.
const BACKOFF: &str = "50ms 100ms 200ms ..500ms";

/// What consensus needs to know to start. The other voters are not in it: the committed membership says who they are,
/// and before birth [`super::Consensus::initialize`] is told (R23).
#[derive(Debug, Clone)]
pub struct ConsensusConfig {
    /// The cluster's id; a store or peer of another cluster is refused.
    pub cluster: String,
    /// This node's id; never used again for another store (R24).
    pub node_id: u64,
    /// Directory of the store; made when it is missing and `create` is set.
    pub store_dir: PathBuf,
    /// Whether a missing store may be made: only once, at bootstrap or when joining under a new id.
    pub create: bool,
    /// Timing and log sizes.
    pub tuning: Tuning,
}

/// Timing and log sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// How often the leader is heard.
    pub heartbeat: Duration,
    /// The shortest silence after which a voter stands for election.
    pub election_min: Duration,
    /// The longest; also how long a voter holds to a leader that it heard.
    pub election_max: Duration,
    /// A snapshot is taken after this many entries.
    pub snapshot_every: u64,
    /// This many entries before a snapshot are kept, so that a voter that was away briefly needs no snapshot.
    pub keep_entries: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(300),
            election_max: Duration::from_millis(600),
            snapshot_every: 5000,
            keep_entries: 1000,
        }
    }
}

impl Tuning {
    /// What raft is configured with, in the product and in the simulations of its voters.
    ///
    /// # Errors
    /// [`StartError::Tuning`] when the timing makes no sense.
    pub fn raft_config(&self, cluster: &str) -> Result<Config, StartError> {
        let config = Config {
            cluster_name: cluster.to_owned(),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: millis(self.election_min),
            election_timeout_max: millis(self.election_max),
            enable_pre_vote: Some(true),
            // Its default is on. A restarted leader must be elected: what it knew may be old (R2).
            enable_leader_restore: Some(false),
            allow_log_reversion: Some(false),
            install_snapshot_timeout: SNAPSHOT_PART_MS,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_every),
            max_in_snapshot_log_to_keep: self.keep_entries,
            replication_lag_threshold: self.snapshot_every.saturating_add(self.keep_entries),
            api_channel_size: Some(QUEUE),
            notification_channel_size: Some(QUEUE),
            backoff: BACKOFF.to_owned(),
            ..Config::default()
        };
        config.validate().map_err(|error| StartError::Tuning(error.to_string()))
    }
}
