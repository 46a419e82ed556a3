//! Puts fragments together again, within a budget per sender and a time limit.

use std::{collections::BTreeMap, time::Duration};

use holdfast_policies::{names::HostName, time::Moment};

use super::{
    Refusal, Role,
    seal::{FRAGMENT_BYTES_MAX, MESSAGE_BYTES_MAX, Opened},
};

/// How long a message may stay unfinished. Its fragments leave in one burst; what is still missing then is lost.
pub const UNFINISHED_MAX: Duration = Duration::from_secs(2);

/// Most unfinished messages of one sender: fragments of a few messages may overtake each other.
pub const PER_SENDER_MAX: usize = 4;

/// Most bytes of unfinished messages of one sender: two of the longest.
pub const PER_SENDER_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;

/// Most unfinished messages of all senders: 16 MiB at the worst.
pub const UNFINISHED_COUNT_MAX: usize = 256;

/// One unfinished message: sender, session, first sequence number.
type Key = (HostName, Role, u64, u64);

/// The unfinished messages of all senders.
#[derive(Debug, Default)]
pub struct Reassembly {
    unfinished: BTreeMap<Key, Unfinished>,
}

#[derive(Debug)]
struct Unfinished {
    since: Moment,
    count: u16,
    bytes: usize,
    fragments: BTreeMap<u16, Vec<u8>>,
}

impl Reassembly {
    /// Takes an authentic, fresh fragment; gives the message once it is whole.
    ///
    /// # Errors
    /// `Malformed` when it does not fit the fragments before it, `Crowded` when there is no room.
    pub fn add(&mut self, opened: Opened, now: Moment) -> Result<Option<Vec<u8>>, Refusal> {
        if opened.count == 1 {
            return Ok(Some(opened.body));
        }
        let last = opened.index + 1 == opened.count;
        if !last && opened.body.len() != FRAGMENT_BYTES_MAX || opened.body.is_empty() {
            return Err(Refusal::Malformed);
        }
        let key = (opened.host.clone(), opened.role, opened.session, opened.message());
        self.make_room(&key, opened.body.len(), now)?;
        let unfinished = self.unfinished.entry(key.clone()).or_insert_with(|| Unfinished::new(opened.count, now));
        if unfinished.count != opened.count || unfinished.fragments.contains_key(&opened.index) {
            return Err(Refusal::Malformed);
        }
        unfinished.bytes += opened.body.len();
        unfinished.fragments.insert(opened.index, opened.body);
        if unfinished.fragments.len() < usize::from(opened.count) {
            return Ok(None);
        }
        Ok(self.unfinished.remove(&key).map(|whole| whole.fragments.into_values().flatten().collect()))
    }

    /// Within a sender the newest message wins; between senders nobody can push another out.
    fn make_room(&mut self, key: &Key, bytes: usize, now: Moment) -> Result<(), Refusal> {
        self.unfinished.retain(|_, message| now.since(message.since) < UNFINISHED_MAX);
        loop {
            let (count, held) = self.held_by(key);
            let one_more = usize::from(!self.unfinished.contains_key(key));
            if count + one_more <= PER_SENDER_MAX && held + bytes <= PER_SENDER_BYTES_MAX {
                break;
            }
            let Some(oldest) = self.oldest_of(key) else { return Err(Refusal::Crowded) };
            self.unfinished.remove(&oldest);
        }
        let full = self.unfinished.len() >= UNFINISHED_COUNT_MAX && !self.unfinished.contains_key(key);
        if full { Err(Refusal::Crowded) } else { Ok(()) }
    }

    fn of_sender<'a>(&'a self, key: &'a Key) -> impl Iterator<Item = (&'a Key, &'a Unfinished)> {
        let first = (key.0.clone(), key.1, 0, 0);
        self.unfinished.range(first..).take_while(move |(other, _)| other.0 == key.0 && other.1 == key.1)
    }

    fn held_by(&self, key: &Key) -> (usize, usize) {
        self.of_sender(key).fold((0, 0), |(count, bytes), (_, message)| (count + 1, bytes + message.bytes))
    }

    fn oldest_of(&self, key: &Key) -> Option<Key> {
        let others = self.of_sender(key).filter(|(other, _)| *other != key);
        others.min_by_key(|(other, message)| (message.since, other.3)).map(|(other, _)| other.clone())
    }
}

impl Unfinished {
    fn new(count: u16, since: Moment) -> Self {
        Self { since, count, bytes: 0, fragments: BTreeMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Keyring, Kind, open,
            seal::{FRAGMENTS_MAX, tests::sealer},
        },
        *,
    };

    fn fragments(name: &str, message: &[u8]) -> Vec<Opened> {
        let ring = Keyring::new(&[[1; 32]]).unwrap();
        let sealer = sealer(name, Role::Supervisor, 1, &[[1; 32]]);
        sealer.seal(Kind::Gossip, message).unwrap().iter().map(|datagram| open(&ring, datagram).unwrap()).collect()
    }

    #[test]
    fn a_message_is_whole_again_in_whatever_order_it_comes() {
        let message: Vec<u8> = (0..MESSAGE_BYTES_MAX - 7).map(|at| (at % 251) as u8).collect();
        let mut parts = fragments("hv-a", &message);
        parts.reverse();
        let mut reassembly = Reassembly::default();
        let last = parts.pop().unwrap();
        for part in parts {
            assert_eq!(reassembly.add(part, Moment(0)), Ok(None));
        }
        assert_eq!(reassembly.add(last, Moment(0)), Ok(Some(message)));
        assert!(reassembly.unfinished.is_empty());
    }

    #[test]
    fn memory_stays_bounded_when_messages_are_never_finished() {
        let mut reassembly = Reassembly::default();
        for host in 0..100 {
            let mut parts = fragments(&format!("hv-{host}"), &vec![1; MESSAGE_BYTES_MAX]);
            parts.pop();
            for round in 0..6u64 {
                for part in &parts {
                    let part = Opened { sequence: part.sequence + round * 1000, ..part.clone() };
                    let _ = reassembly.add(part, Moment(round));
                }
            }
            let key = (HostName::new(format!("hv-{host}")).unwrap(), Role::Supervisor, 0, 0);
            let (count, bytes) = reassembly.held_by(&key);
            assert!(count <= PER_SENDER_MAX && bytes <= PER_SENDER_BYTES_MAX, "{count} messages, {bytes} bytes");
        }
        assert!(reassembly.unfinished.len() <= UNFINISHED_COUNT_MAX);
        let _ = reassembly.add(fragments("other", &[1; 2000]).remove(0), Moment(10).plus(UNFINISHED_MAX));
        assert_eq!(reassembly.unfinished.len(), 1, "old ones are given up");
    }

    #[test]
    fn a_fragment_that_contradicts_the_others_is_refused() {
        let parts = fragments("hv-a", &[1; 3000]);
        let mut reassembly = Reassembly::default();
        assert_eq!(reassembly.add(parts[0].clone(), Moment(0)), Ok(None));
        let other_count = Opened { count: FRAGMENTS_MAX, ..parts[1].clone() };
        assert_eq!(reassembly.add(other_count, Moment(0)), Err(Refusal::Malformed));
        let short = Opened { body: vec![1; 5], ..parts[1].clone() };
        assert_eq!(reassembly.add(short, Moment(0)), Err(Refusal::Malformed));
    }
}
