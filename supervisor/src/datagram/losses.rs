//! How much of what other voters send is lost on its way here: a voter whose own link is lossy doubts itself (R17, R29).
//!
//! A guard sends one beacon to every voter, four times a second, and numbers its datagrams. So two beacons of it tell how
//! many it has sent between them, and the time between them how many it can have sent at most; the smaller number counts. A
//! guard that is slow therefore loses nothing, nor does one that sends to more voters than before.
//!
//! ```text
//! beacons of one guard   | | |   |   | |          | |   | | |   |
//!                        `-- a stretch --'  break `-- the next --'   judged once it is long enough
//! ```
//! A break is a silence after which a host is suspected. Whoever is silent may be down or cut off, which other rules look at:
//! only what is missing between beacons that came is lost. One peer's losses may be its own; those of most are ours.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use holdfast_policies::{
    names::HostName,
    time::{Moment, millis},
};

use super::replay::SENDERS_MAX;
use crate::guard::BEACON_EVERY;

/// Over how long losses are counted. Longer makes the doubt surer, and lets a lossy voter accuse others for longer.
const WINDOW: Duration = Duration::from_secs(5);

/// How long a stretch must be before anything is said of it: most of the window, so that a process that has just started, or
/// a peer that has just come back, is not judged by a handful of beacons.
const JUDGED_AFTER: Duration = Duration::from_secs(4);

/// Silence of one peer that is a break, as long as what makes a host suspect.
const BREAK: Duration = Duration::from_millis(1_500);

/// Arrivals remembered of one guard: more than three times those that a window can have.
const ARRIVALS_MAX: usize = 64;

/// Guards remembered.
const GUARDS_MAX: usize = SENDERS_MAX / 2;

/// Peers whose beacons must be lost before it is the own link: one alone may have a bad link itself.
const PEERS_MIN: usize = 2;

/// The beacons that came lately, by host; shared between the socket's task and whoever asks.
#[derive(Debug, Clone, Default)]
pub struct Losses {
    table: Arc<Mutex<BTreeMap<HostName, Stretch>>>,
}

impl Losses {
    /// Notes a beacon of a host's guard. `session` names the process that sent it, `sequence` the datagram.
    pub fn note(&self, host: &HostName, session: (u64, u64), sequence: u64, now: Moment) {
        let mut table = self.lock();
        if table.len() >= GUARDS_MAX && !table.contains_key(host) {
            let silent = table.iter().min_by_key(|(_, stretch)| stretch.newest()).map(|(host, _)| host.clone());
            if let Some(silent) = silent {
                table.remove(&silent);
            }
        }
        table.entry(host.clone()).or_default().note(session, sequence, now);
    }

    /// The share of the beacons of most of these peers that is lost, in percent, where it is too much: the least of theirs.
    /// `peers` are all other voters; `before`: it was too much a moment ago, and ends only when it is clearly less. `None` where
    /// there are fewer such peers, or not enough was heard.
    #[must_use]
    pub fn of_most<'a>(&self, peers: impl Iterator<Item = &'a HostName>, before: bool, now: Moment) -> Option<u64> {
        let table = self.lock();
        let peers: Vec<&HostName> = peers.collect();
        let voters = u64::try_from(peers.len()).unwrap_or(u64::MAX).saturating_add(1);
        let lost = |peer: &&HostName| table.get(*peer)?.lost(voters, now).filter(|lost| lost.is_too_much(before));
        let shares: Vec<u64> = peers.iter().filter_map(lost).map(|lost| lost.percent()).collect();
        let is_ours = shares.len() >= PEERS_MIN && shares.len() * 2 > peers.len();
        shares.into_iter().min().filter(|_| is_ours)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<HostName, Stretch>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What came of one guard within the window, since the newest break: when, and under which number.
#[derive(Debug, Default)]
struct Stretch {
    session: (u64, u64),
    arrivals: VecDeque<(Moment, u64)>,
}

impl Stretch {
    fn newest(&self) -> Option<Moment> {
        self.arrivals.back().map(|(at, _)| *at)
    }

    fn note(&mut self, session: (u64, u64), sequence: u64, now: Moment) {
        let is_broken = self.newest().is_some_and(|at| now.since(at) >= BREAK);
        if is_broken || self.session != session {
            self.arrivals.clear();
            self.session = session;
        }
        // One that was overtaken by the next, a quarter of a second later, is as good as lost.
        if self.arrivals.back().is_some_and(|(_, last)| sequence <= *last) {
            return;
        }
        self.arrivals.push_back((now, sequence));
        let is_old = |(at, _): &(Moment, u64)| now.since(*at) > WINDOW;
        while self.arrivals.len() > ARRIVALS_MAX || self.arrivals.front().is_some_and(is_old) {
            self.arrivals.pop_front();
        }
    }

    /// What is missing, where a guard that numbers its datagrams sends them to so many voters.
    fn lost(&self, voters: u64, now: Moment) -> Option<Lost> {
        let ((began, first), (ended, last)) = (self.arrivals.front()?, self.arrivals.back()?);
        let span = ended.since(*began);
        if span < JUDGED_AFTER || now.since(*ended) >= BREAK {
            return None;
        }
        let came = u64::try_from(self.arrivals.len()).unwrap_or(u64::MAX);
        let by_number = (last - first) / self.round(voters)? + 1;
        let by_time = millis(span) / millis(BEACON_EVERY) + 1;
        let sent = by_number.min(by_time).max(came);
        Some(Lost { missing: sent - came, sent })
    }

    /// How many datagrams the guard sends at a time: one to every voter, where the numbers fit that; else it knows other
    /// voters than this host, and the smallest step is the best guess.
    fn round(&self, voters: u64) -> Option<u64> {
        let steps = || self.arrivals.iter().zip(self.arrivals.iter().skip(1)).map(|((_, one), (_, next))| next - one);
        let fits = voters > 0 && steps().all(|step| step.is_multiple_of(voters));
        if fits { Some(voters) } else { steps().min().filter(|step| *step > 0) }
    }
}

/// How many beacons are missing, of how many that were sent.
#[derive(Debug, Clone, Copy)]
struct Lost {
    missing: u64,
    sent: u64,
}

impl Lost {
    /// More than a third; where it was that a moment ago, more than a quarter. Between them it would come and go with every
    /// beacon, and each time the coordinator would begin to listen anew.
    fn is_too_much(self, before: bool) -> bool {
        self.missing.saturating_mul(if before { 4 } else { 3 }) > self.sent
    }

    fn percent(self) -> u64 {
        self.missing.saturating_mul(100).checked_div(self.sent).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> HostName {
        HostName::new(name).unwrap()
    }

    /// Eight seconds in which the guard of a peer sends every `every` milliseconds to `voters` voters; `comes` says whether a
    /// beacon, by its number and time, arrives.
    fn hear(losses: &Losses, peer: &str, every: u64, voters: u64, comes: impl Fn(u64, u64) -> bool) {
        for round in 0..8_000 / every {
            let at = 10_000 + round * every;
            if comes(round, at) {
                losses.note(&host(peer), (1, 1), 1 + round * voters, Moment(at));
            }
        }
    }

    /// What is said at the end, where the peers are these.
    fn said(losses: &Losses, peers: &[&str]) -> Option<u64> {
        let peers: Vec<HostName> = peers.iter().map(|peer| host(peer)).collect();
        losses.of_most(peers.iter(), false, Moment(18_000))
    }

    /// The same, where it was too much before.
    fn still_said(losses: &Losses, peers: &[&str]) -> Option<u64> {
        let peers: Vec<HostName> = peers.iter().map(|peer| host(peer)).collect();
        losses.of_most(peers.iter(), true, Moment(18_000))
    }

    fn two_of_five(round: u64, _: u64) -> bool {
        !matches!(round % 5, 1 | 3)
    }

    fn every_other(round: u64, _: u64) -> bool {
        round.is_multiple_of(2)
    }

    fn all(_: u64, _: u64) -> bool {
        true
    }

    #[test]
    fn what_is_lost_from_most_peers_is_the_own_links_loss() {
        let losses = Losses::default();
        hear(&losses, "b", 250, 3, two_of_five);
        assert_eq!(said(&losses, &["b", "c"]), None, "one alone");
        hear(&losses, "c", 250, 3, every_other);
        let share = said(&losses, &["b", "c"]).unwrap();
        assert!((34..=45).contains(&share), "{share}");
        assert_eq!(said(&losses, &["b", "c", "d", "e"]), None, "two of four are not most");
    }

    #[test]
    fn a_third_or_less_and_nothing_are_no_reason_for_doubt() {
        let losses = Losses::default();
        for peer in ["b", "c"] {
            hear(&losses, peer, 250, 3, all);
        }
        assert_eq!(said(&losses, &["b", "c"]), None);
        let losses = Losses::default();
        for peer in ["b", "c"] {
            hear(&losses, peer, 250, 3, |round, _| !round.is_multiple_of(4));
        }
        assert_eq!(said(&losses, &["b", "c"]), None);
        assert_eq!(said(&losses, &[]), None, "no peers");
    }

    #[test]
    fn a_link_that_has_lost_too_much_has_to_become_clearly_better() {
        for (every_tenth, goes_on) in [(vec![2, 5, 8], true), (vec![2, 6], false)] {
            let losses = Losses::default();
            for peer in ["b", "c"] {
                hear(&losses, peer, 250, 3, |round, _| !every_tenth.contains(&(round % 10)));
            }
            assert_eq!(said(&losses, &["b", "c"]), None, "{every_tenth:?}: too little to begin");
            assert_eq!(still_said(&losses, &["b", "c"]).is_some(), goes_on, "{every_tenth:?}");
        }
    }

    #[test]
    fn peers_that_are_down_slow_or_just_back_say_nothing_of_the_own_link() {
        let losses = Losses::default();
        hear(&losses, "b", 250, 3, |_, at| at < 14_500);
        hear(&losses, "c", 600, 3, all);
        assert_eq!(said(&losses, &["b", "c"]), None, "one went down, one is starved");
        let losses = Losses::default();
        for peer in ["b", "c"] {
            hear(&losses, peer, 250, 3, |_, at| !(12_000..15_000).contains(&at));
        }
        assert_eq!(said(&losses, &["b", "c"]), None, "all were cut off together, and are back");
    }

    #[test]
    fn a_process_that_has_just_started_and_a_guard_that_was_replaced_are_not_judged() {
        let losses = Losses::default();
        for peer in ["b", "c"] {
            hear(&losses, peer, 250, 3, |round, at| at >= 15_000 && two_of_five(round, at));
        }
        assert_eq!(said(&losses, &["b", "c"]), None);
        let losses = Losses::default();
        for peer in ["b", "c"] {
            hear(&losses, peer, 250, 3, two_of_five);
            losses.note(&host(peer), (2, 7), 1, Moment(18_000));
        }
        assert_eq!(said(&losses, &["b", "c"]), None);
    }

    #[test]
    fn more_voters_than_before_or_than_are_known_lose_nothing() {
        let losses = Losses::default();
        for peer in ["b", "c"] {
            hear(&losses, peer, 250, 5, all);
        }
        assert_eq!(said(&losses, &["b", "c"]), None, "the guards know five");
        let losses = Losses::default();
        for peer in ["b", "c"] {
            for round in 0..32 {
                let sequence = if round < 20 { 3 * round } else { 60 + 5 * (round - 20) };
                losses.note(&host(peer), (1, 1), 1 + sequence, Moment(10_000 + 250 * round));
            }
        }
        assert_eq!(said(&losses, &["b", "c"]), None, "they learn of five");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let losses = Losses::default();
        for guard in 0..2 * GUARDS_MAX {
            losses.note(&host(&format!("h{guard}")), (1, 1), 1, Moment(1));
        }
        for sequence in 0..10_000 {
            losses.note(&host("h1"), (1, 1), sequence, Moment(2));
        }
        let table = losses.lock();
        assert_eq!(table.len(), GUARDS_MAX);
        assert_eq!(table[&host("h1")].arrivals.len(), ARRIVALS_MAX);
    }
}
