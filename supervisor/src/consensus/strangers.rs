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

/// When the voters are asked anew about a host that one has vouched for: early enough for its word not to end while they answer.
const ANEW_AFTER: Duration = Duration::from_secs(5);

/// The voters are not asked about another host again sooner: a leader is heard ten times a second.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Hosts remembered: more than a cluster has. Beyond it all are asked about anew.
const HOSTS_MAX: usize = 1_024;

/// Knows what voters have said of hosts that are not known here as members.
pub(super) struct Strangers {
    sender: Arc<Sender>,
    words: Mutex<Words>,
}

impl Strangers {
    pub(super) fn new(sender: Arc<Sender>) -> Self {
        Self { sender, words: Mutex::default() }
    }

    /// Whether one of these voters says that `host` votes as this node.
    pub(super) async fn is_vouched(&self, host: &HostName, node_id: u64, voters: Vec<(u64, Place)>) -> bool {
        if let Some(known) = self.words().known(host, node_id, Instant::now()) {
            return known;
        }
        let asking = voters.into_iter().map(|(voter, place)| self.sender.ask_who_is(voter, place, node_id));
        let vouched = join_all(asking).await.into_iter().flatten().any(|place| place.host == *host);
        if vouched {
            self.words().vouch(host, node_id, Instant::now());
            tracing::info!(%host, node_id, "a voter that joined while this one was away");
        }
        vouched
    }

    fn words(&self) -> MutexGuard<'_, Words> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What voters have said, by host.
#[derive(Debug, Default)]
struct Words(BTreeMap<HostName, Word>);

#[derive(Debug, Clone, Copy)]
struct Word {
    /// When the voters were asked last.
    asked: Instant,
    /// The node that the host is, if one has said so, and when.
    vouched: Option<(u64, Instant)>,
}

impl Words {
    /// What is known without asking; `None` is for one that has to ask, and the next ones do not ask beside it.
    fn known(&mut self, host: &HostName, node_id: u64, now: Instant) -> Option<bool> {
        let word = self.0.get(host).copied();
        let age = |since| now.saturating_duration_since(since);
        let vouched = word.and_then(|word| word.vouched).filter(|(id, at)| *id == node_id && age(*at) < VOUCHED_FOR);
        let rest = if vouched.is_some() { ANEW_AFTER } else { AGAIN_AFTER };
        if word.is_some_and(|word| age(word.asked) < rest) {
            return Some(vouched.is_some());
        }
        if self.0.len() >= HOSTS_MAX {
            self.0.clear();
        }
        self.0.insert(host.clone(), Word { asked: now, vouched });
        None
    }

    /// Notes that a voter has said so. Where none does when they are asked anew, its word from before ends by itself.
    fn vouch(&mut self, host: &HostName, node_id: u64, now: Instant) {
        self.0.insert(host.clone(), Word { asked: now, vouched: Some((node_id, now)) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> HostName {
        HostName::new("hv-x").unwrap()
    }

    #[test]
    fn a_voters_word_counts_for_ten_seconds_and_is_asked_for_anew_by_one_before_it_ends() {
        let (mut words, began) = (Words::default(), Instant::now());
        let after = |ms| began + Duration::from_millis(ms);
        assert_eq!(words.known(&host(), 7, began), None);
        assert_eq!(words.known(&host(), 7, after(10)), Some(false), "nobody has answered yet");
        words.vouch(&host(), 7, after(20));
        assert_eq!(words.known(&host(), 7, after(5_000)), Some(true));
        assert_eq!(words.known(&host(), 7, after(5_020)), None);
        assert_eq!(words.known(&host(), 7, after(5_030)), Some(true), "while the voters are asked");
        words.vouch(&host(), 7, after(5_040));
        assert_eq!(words.known(&host(), 7, after(10_040)), None);
        assert_eq!(words.known(&host(), 7, after(15_030)), Some(true), "nobody has said so again");
        assert_eq!(words.known(&host(), 7, after(15_040)), None);
        assert_eq!(words.known(&host(), 7, after(15_050)), Some(false));
    }

    #[test]
    fn a_word_that_has_ended_counts_no_more_also_while_the_voters_are_asked_once_more() {
        let (mut words, began) = (Words::default(), Instant::now());
        let an_hour_later = began + Duration::from_secs(3_600);
        assert_eq!(words.known(&host(), 7, began), None);
        words.vouch(&host(), 7, began);
        assert_eq!(words.known(&host(), 7, an_hour_later), None);
        assert_eq!(words.known(&host(), 7, an_hour_later + Duration::from_millis(1)), Some(false));
    }

    #[test]
    fn a_word_counts_for_the_node_alone_that_it_was_said_of() {
        let (mut words, now) = (Words::default(), Instant::now());
        words.vouch(&host(), 7, now);
        assert_eq!(words.known(&host(), 8, now), Some(false));
        assert_eq!(words.known(&host(), 7, now), Some(true));
    }

    #[test]
    fn the_voters_are_asked_once_a_second_about_a_host_that_none_vouches_for_and_hosts_are_bounded() {
        let (mut words, began) = (Words::default(), Instant::now());
        assert_eq!(words.known(&host(), 7, began), None);
        assert_eq!(words.known(&host(), 7, began + Duration::from_millis(999)), Some(false));
        assert_eq!(words.known(&host(), 7, began + AGAIN_AFTER), None);
        for number in 0..3 * HOSTS_MAX {
            words.known(&HostName::new(format!("hv-{number}")).unwrap(), 7, began);
            assert!(words.0.len() <= HOSTS_MAX);
        }
    }
}
