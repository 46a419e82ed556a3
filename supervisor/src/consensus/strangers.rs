//! Members that this node has not heard of yet: who joined the voters while it was away may lead them when it comes back, and what it
//! would learn that from is that leader's to send. Another host must not pass for such a one (S10). So a voter that is known here is
//! asked: each is trusted with as much already.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use holdfast_policies::names::HostName;

use super::{network::Sender, types::Place};

/// How long a voter's word counts: a node that leaves the voters again before this one has caught up is heard for no longer.
const VOUCHED_FOR: Duration = Duration::from_secs(10);

/// The voters are not asked about the same host again sooner: a leader is heard ten times a second.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Hosts remembered: more than a cluster has. Beyond it all are asked about anew.
const HOSTS_MAX: usize = 1_024;

/// What voters have said of hosts that are not known here as members.
pub(super) struct Strangers {
    sender: Arc<Sender>,
    words: Mutex<BTreeMap<HostName, Word>>,
}

#[derive(Debug, Clone, Copy)]
struct Word {
    asked: Instant,
    /// The node that the host is, if one has said so.
    vouched: Option<u64>,
}

impl Strangers {
    pub(super) fn new(sender: Arc<Sender>) -> Self {
        Self { sender, words: Mutex::default() }
    }

    /// Whether one of these voters says that `host` votes as this node.
    pub(super) async fn is_vouched(&self, host: &HostName, node_id: u64, voters: Vec<(u64, Place)>) -> bool {
        if let Some(known) = self.known(host, node_id) {
            return known;
        }
        let asking = voters.into_iter().map(|(voter, place)| self.sender.ask_who_is(voter, place, node_id));
        let vouched = join_all(asking).await.into_iter().flatten().any(|place| place.host == *host);
        let word = Word { asked: Instant::now(), vouched: vouched.then_some(node_id) };
        self.words().insert(host.clone(), word);
        if vouched {
            tracing::info!(%host, node_id, "a voter that joined while this one was away");
        }
        vouched
    }

    /// What is known without asking; `None` is for one that has to ask, and the next ones do not ask beside it.
    fn known(&self, host: &HostName, node_id: u64) -> Option<bool> {
        let mut words = self.words();
        let word = words.get(host).copied();
        match word {
            Some(word) if word.vouched == Some(node_id) && word.asked.elapsed() < VOUCHED_FOR => Some(true),
            Some(word) if word.asked.elapsed() < AGAIN_AFTER => Some(false),
            Some(_) | None => {
                if words.len() >= HOSTS_MAX {
                    words.clear();
                }
                // What was said before counts until it is said again.
                let vouched = word.and_then(|word| word.vouched);
                words.insert(host.clone(), Word { asked: Instant::now(), vouched });
                None
            }
        }
    }

    fn words(&self) -> MutexGuard<'_, BTreeMap<HostName, Word>> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
