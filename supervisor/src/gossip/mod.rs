//! Gossip: who is there, who answers, and the small facts that hosts tell each other. Evidence only, never authority.
//!
//! Membership, failure detection and dissemination are chitchat's; its bytes travel in sealed datagrams
//! ([`transport`]). A host's keys are its own to set; values are small, because chitchat stops at a value that does not
//! fit one message and because everybody carries everything.
//!
//! "When was a host last heard" is answered from datagrams received from the host itself, not from heartbeats that
//! others pass on: see [`Heard`](super::datagram::Heard).

mod bounds;
mod keeper;
mod room;
mod transport;

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use chitchat::{ChitchatConfig, ChitchatId, FailureDetectorConfig};
use holdfast_policies::names::HostName;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use self::keeper::{Going, Keeper};
use super::datagram::{GossipReceived, Sender};

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 128;
/// Longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 4096;
/// Most keys that one host sets.
pub const OWN_KEYS_MAX: usize = 256;
/// Most bytes of keys and values that one host sets: two full messages, so that news is round in a few rounds.
pub const OWN_BYTES_MAX: usize = 128 * 1024;

/// How long a removed key is remembered as removed.
const REMOVED_FOR: Duration = Duration::from_secs(60);
/// How long a dead node is remembered; half of that time it is still told to others. Each start of a supervisor is a node of its own,
/// and all that are remembered need [`room`]: a supervisor that cannot start tries twice a second.
const DEAD_FOR: Duration = Duration::from_secs(240);
/// Suspicion above which a node counts as dead: chitchat's own default, about a second at 200 ms.
const PHI_THRESHOLD: f64 = 8.0;
/// Heartbeat intervals that the failure detector averages over.
const SAMPLES: usize = 1000;

/// How to gossip.
#[derive(Debug, Clone)]
pub struct GossipConfig {
    /// This host.
    pub host: HostName,
    /// The cluster's id; nodes of another one are not heard.
    pub cluster: String,
    /// Grows from start to start: the supervisor's start stamp.
    pub generation: u64,
    /// Where others reach this host's socket.
    pub advertise: SocketAddr,
    /// Whom to ask first: the voters.
    pub seeds: Vec<SocketAddr>,
    /// How often.
    pub interval: Duration,
}

/// Why gossip could not start.
#[derive(Debug, thiserror::Error)]
#[error("gossip of {host} could not start")]
pub struct StartError {
    host: HostName,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// Why a fact was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// Empty, too long, or not printable ASCII.
    #[error("gossip key {key:?} is not 1 to {KEY_BYTES_MAX} printable ASCII characters")]
    Key {
        /// The key.
        key: String,
    },
    /// Too long.
    #[error("value of gossip key {key} has {bytes} bytes; at most {VALUE_BYTES_MAX} fit")]
    Value {
        /// The key.
        key: String,
        /// The value's length.
        bytes: usize,
    },
    /// Too much altogether.
    #[error(
        "gossip key {key} is one too many: {keys} keys of {bytes} bytes are set, at most {OWN_KEYS_MAX} keys of {OWN_BYTES_MAX} bytes fit"
    )]
    Full {
        /// The key.
        key: String,
        /// Keys that are set.
        keys: usize,
        /// Their bytes, values included.
        bytes: usize,
    },
}

/// What is known of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Where its socket is.
    pub address: SocketAddr,
    /// Whether the failure detector believes in it.
    pub alive: bool,
    /// Its start stamp.
    pub generation: u64,
    /// What it says.
    pub keys: BTreeMap<String, String>,
}

/// Running gossip; it ends when this is dropped. Where chitchat fails it begins anew (`keeper.rs`).
pub struct Gossip {
    going: Arc<Going>,
    keeper: JoinHandle<()>,
    ended: watch::Receiver<()>,
}

impl Gossip {
    /// Joins.
    ///
    /// # Errors
    /// [`StartError`]
    pub async fn start(
        config: GossipConfig,
        sender: Sender,
        inbox: mpsc::Receiver<GossipReceived>,
    ) -> Result<Self, StartError> {
        let keeper = Keeper::new(config, sender, inbox);
        let going = Arc::new(keeper.begin().await?);
        let (keeping, ended) = watch::channel(());
        let keeper = tokio::spawn(keeper.keep(Arc::clone(&going), keeping));
        Ok(Self { going, keeper, ended })
    }

    /// Publishes a fact about this host.
    ///
    /// # Errors
    /// [`SetError`]; what was published before stays.
    pub async fn set(&self, key: &str, value: &str) -> Result<(), SetError> {
        check(key, value)?;
        let change = |own: &mut BTreeMap<String, String>| add(own, key, value);
        self.going.say(change, |chitchat| chitchat.self_node_state().set(key, value)).await
    }

    /// Withdraws a fact about this host; one that was never published needs nothing.
    pub async fn remove(&self, key: &str) {
        let forget = |own: &mut BTreeMap<String, String>| {
            own.remove(key);
            Ok::<(), Infallible>(())
        };
        let remove = |chitchat: &mut chitchat::Chitchat| {
            let state = chitchat.self_node_state();
            if state.contains_key(key) {
                state.delete(key);
            }
        };
        let Ok(()) = self.going.say(forget, remove).await;
    }

    /// Everybody known, this host included; of a host that was restarted only the newest start.
    pub async fn members(&self) -> BTreeMap<HostName, Member> {
        self.going.look(members).await
    }

    /// How often gossip has failed and begun anew since this supervisor started.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.going.restarts()
    }

    /// Waits until gossip has ended, which it does only when its socket is closed or by a bug: a supervisor that sees
    /// this is not well.
    pub async fn stopped(&self) {
        let mut ended = self.ended.clone();
        while ended.changed().await.is_ok() {}
    }
}

impl Drop for Gossip {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

fn check(key: &str, value: &str) -> Result<(), SetError> {
    let good = !key.is_empty() && key.len() <= KEY_BYTES_MAX && key.bytes().all(|byte| byte.is_ascii_graphic());
    if !good {
        return Err(SetError::Key { key: key.to_owned() });
    }
    if value.len() > VALUE_BYTES_MAX {
        return Err(SetError::Value { key: key.to_owned(), bytes: value.len() });
    }
    Ok(())
}

fn add(own: &mut BTreeMap<String, String>, key: &str, value: &str) -> Result<(), SetError> {
    let others = own.iter().filter(|(other, _)| other.as_str() != key).map(|(key, value)| key.len() + value.len());
    let (keys, bytes) = (others.clone().count(), others.sum::<usize>());
    if keys >= OWN_KEYS_MAX || bytes + key.len() + value.len() > OWN_BYTES_MAX {
        return Err(SetError::Full { key: key.to_owned(), keys, bytes });
    }
    own.insert(key.to_owned(), value.to_owned());
    Ok(())
}

fn members(chitchat: &chitchat::Chitchat) -> BTreeMap<HostName, Member> {
    let live: BTreeSet<&ChitchatId> = chitchat.live_nodes().collect();
    let mut members: BTreeMap<HostName, Member> = BTreeMap::new();
    for (id, state) in chitchat.node_states() {
        let Ok(host) = HostName::new(&*id.node_id) else { continue };
        if members.get(&host).is_some_and(|known| known.generation > id.generation_id) {
            continue;
        }
        let keys = state.key_values().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let member =
            Member { address: id.gossip_advertise_addr, alive: live.contains(id), generation: id.generation_id, keys };
        members.insert(host, member);
    }
    members
}

fn chitchat_config(config: GossipConfig) -> ChitchatConfig {
    ChitchatConfig {
        chitchat_id: ChitchatId::new(config.host.as_str(), config.generation, config.advertise),
        cluster_id: config.cluster,
        gossip_interval: config.interval,
        listen_addr: config.advertise,
        seed_nodes: config.seeds.iter().map(ToString::to_string).collect(),
        failure_detector_config: FailureDetectorConfig {
            phi_threshold: PHI_THRESHOLD,
            sampling_window_size: SAMPLES,
            max_interval: config.interval * 20,
            // The detector's first guess; chitchat's own of 5 s would make the first deaths seconds late.
            initial_interval: config.interval,
            dead_node_grace_period: DEAD_FOR,
        },
        marked_for_deletion_grace_period: REMOVED_FOR,
        catchup_callback: None,
        extra_liveness_predicate: None,
    }
}

#[cfg(test)]
pub(crate) mod tests;
