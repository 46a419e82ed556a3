//! Which datagrams were seen already: one session and one window of sequence numbers per sender.
//!
//! A session is ordered by (start stamp, random number). The highest one of a sender is the only one that is heard;
//! once it was superseded it cannot come back, so that only one session per sender needs to be remembered.
//!
//! A host whose disk was lost has no last stamp to go on from, and its clock may be behind what it was: all its later sessions
//! would be lower ones. The boot that has joined, as its certificate vouches for, is taken in where the boot before it has been
//! silent for long. What was heard until then is outranked: of that no session comes back, but of the boot that has joined.

use std::{collections::BTreeMap, time::Duration};

use holdfast_policies::{
    names::{HostName, Incarnation},
    time::Moment,
};

use super::{Refusal, Role, seal::Opened};

/// How far behind the highest sequence number a datagram may arrive: over a second of the busiest sender.
pub const WINDOW: u64 = 1024;

/// Most senders remembered: 512 hosts with a supervisor and a guard each. Further ones are not heard.
pub const SENDERS_MAX: usize = 1_024;

/// How long a sender must have been silent before another may take its place when there are [`SENDERS_MAX`].
const FORGET_AFTER: Duration = Duration::from_secs(24 * 3600);

/// How long the highest session must have been silent before a lower one of the boot that has joined takes its place. A boot that
/// is about to join is heard all the time, and the one before it, which has joined as yet, is not to be played in its place.
const OVER_AFTER: Duration = Duration::from_secs(60);

/// The sessions of all senders.
#[derive(Debug, Default)]
pub struct Sessions {
    senders: BTreeMap<(HostName, Role), Session>,
}

/// Start stamp and random number of a session.
type Order = (u64, u64);

#[derive(Debug)]
struct Session {
    order: Order,
    incarnation: Incarnation,
    /// The highest session that a lower one has taken the place of.
    outranked: Option<Order>,
    window: Window,
    heard: Moment,
}

impl Sessions {
    /// Lets an authentic datagram pass once. `joined` is whether a boot of its host is the one that has joined.
    ///
    /// # Errors
    /// `Replayed`, `Superseded`, or `Crowded` when its sender is one too many.
    pub fn admit(
        &mut self,
        opened: &Opened,
        joined: impl Fn(&Incarnation) -> bool,
        now: Moment,
    ) -> Result<(), Refusal> {
        let sender = (opened.host.clone(), opened.role);
        let order = (opened.started, opened.session);
        if !self.senders.contains_key(&sender) {
            self.make_room(now)?;
        }
        let fresh = |outranked| {
            let incarnation = opened.incarnation.clone();
            Session { order, incarnation, outranked, window: Window::default(), heard: now }
        };
        let session = self.senders.entry(sender).or_insert_with(|| fresh(None));
        if order != session.order {
            let outranked = session.make_way(order, &opened.incarnation, joined, now)?;
            *session = fresh(outranked);
        }
        if !session.window.admit(opened.sequence) {
            return Err(Refusal::Replayed);
        }
        session.heard = now;
        Ok(())
    }

    fn make_room(&mut self, now: Moment) -> Result<(), Refusal> {
        if self.senders.len() >= SENDERS_MAX {
            self.senders.retain(|_, session| now.since(session.heard) < FORGET_AFTER);
        }
        if self.senders.len() >= SENDERS_MAX { Err(Refusal::Crowded) } else { Ok(()) }
    }
}

impl Session {
    /// Lets another session of the sender take the place of this one; returns what is outranked from then on.
    fn make_way(
        &self,
        order: Order,
        incarnation: &Incarnation,
        joined: impl Fn(&Incarnation) -> bool,
        now: Moment,
    ) -> Result<Option<Order>, Refusal> {
        let highest = self.outranked.map_or(self.order, |outranked| outranked.max(self.order));
        if order > highest {
            return Ok(None);
        }
        let is_over = || !joined(&self.incarnation) && now.since(self.heard) >= OVER_AFTER;
        if joined(incarnation) && (order > self.order || is_over()) {
            Ok(Some(highest))
        } else {
            Err(Refusal::Superseded)
        }
    }
}

/// The last [`WINDOW`] sequence numbers of a session: a ring of bits, one for each number modulo the window.
#[derive(Debug, Default)]
struct Window {
    highest: u64,
    seen: [u64; (WINDOW / 64) as usize],
}

impl Window {
    fn admit(&mut self, sequence: u64) -> bool {
        if sequence == 0 || self.highest.saturating_sub(sequence) >= WINDOW {
            return false;
        }
        if sequence > self.highest {
            self.advance(sequence);
        }
        let (word, bit) = self.place(sequence);
        let unseen = *word & bit == 0;
        *word |= bit;
        unseen
    }

    fn advance(&mut self, sequence: u64) {
        if sequence - self.highest >= WINDOW {
            self.seen = Default::default();
        } else {
            for passed in self.highest + 1..=sequence {
                let (word, bit) = self.place(passed);
                *word &= !bit;
            }
        }
        self.highest = sequence;
    }

    #[expect(clippy::indexing_slicing, reason = "a number modulo WINDOW, divided by 64, is below WINDOW / 64")]
    fn place(&mut self, sequence: u64) -> (&mut u64, u64) {
        let at = sequence % WINDOW;
        (&mut self.seen[(at / 64) as usize], 1 << (at % 64))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{
        super::{Keyring, Kind, open, seal::tests::sealer},
        *,
    };
    use crate::rpc::Limits;

    fn opened(name: &str, started: u64) -> Opened {
        let datagram = sealer(name, Role::Supervisor, started, &[[1; 32]]).seal(Kind::Gossip, b"").unwrap().remove(0);
        open(&Keyring::new(&[[1; 32]]).unwrap(), &datagram).unwrap()
    }

    fn nobody(_: &Incarnation) -> bool {
        false
    }

    #[test]
    fn a_host_whose_stamp_was_lost_with_its_disk_is_heard_once_it_has_joined_and_nothing_older_is() {
        let mut sessions = Sessions::default();
        let boot = |text: &str| Incarnation::new(text).unwrap();
        let session = |incarnation: &str, started| Opened { incarnation: boot(incarnation), ..opened("hv-a", started) };
        let again = |of: &Opened, sequence| Opened { sequence, ..of.clone() };
        let (first, second) =
            (|known: &Incarnation| *known == boot("one"), |known: &Incarnation| *known == boot("two"));
        let old = session("one", 900);
        assert_eq!(sessions.admit(&old, first, Moment(0)), Ok(()));
        let long_after = Moment(0).plus(OVER_AFTER);
        // Its disk was lost, and its clock is behind.
        let reinstalled = session("two", 500);
        assert_eq!(sessions.admit(&reinstalled, first, long_after), Err(Refusal::Superseded), "it has not joined");
        let soon = long_after.minus(Duration::from_millis(1));
        assert_eq!(sessions.admit(&reinstalled, second, soon), Err(Refusal::Superseded), "the other is hardly over");
        assert_eq!(sessions.admit(&reinstalled, second, long_after), Ok(()));
        assert_eq!(sessions.admit(&reinstalled, second, long_after), Err(Refusal::Replayed));
        for later in [long_after, long_after.plus(OVER_AFTER)] {
            assert_eq!(sessions.admit(&again(&old, 7), second, later), Err(Refusal::Superseded), "what was before");
        }
        let restarted = session("two", 501);
        assert_eq!(sessions.admit(&restarted, second, long_after), Ok(()));
        assert_eq!(sessions.admit(&again(&reinstalled, 9), second, long_after), Err(Refusal::Superseded));
        assert_eq!(sessions.admit(&session("three", 901), second, long_after), Ok(()), "its clock is right again");
        assert_eq!(
            sessions.admit(&again(&restarted, 9), second, long_after),
            Err(Refusal::Superseded),
            "a boot that is to join"
        );
    }

    #[test]
    fn a_replay_is_dropped_and_a_superseded_session_does_not_come_back() {
        let mut sessions = Sessions::default();
        let (old, new) = (opened("hv-a", 1), opened("hv-a", 2));
        assert_eq!(sessions.admit(&old, nobody, Moment(0)), Ok(()));
        assert_eq!(sessions.admit(&old, nobody, Moment(0)), Err(Refusal::Replayed));
        assert_eq!(sessions.admit(&new, nobody, Moment(0)), Ok(()));
        assert_eq!(sessions.admit(&Opened { sequence: 9, ..old }, nobody, Moment(0)), Err(Refusal::Superseded));
        assert_eq!(sessions.admit(&Opened { role: Role::Guard, ..opened("hv-a", 1) }, nobody, Moment(0)), Ok(()));
    }

    #[test]
    fn senders_are_bounded_and_only_long_silent_ones_make_room() {
        let mut sessions = Sessions::default();
        let base = opened("x", 1);
        let from = |index: usize| Opened { host: HostName::new(format!("hv-{index}")).unwrap(), ..base.clone() };
        for index in 0..SENDERS_MAX {
            assert_eq!(sessions.admit(&from(index), nobody, Moment(0)), Ok(()));
        }
        assert_eq!(sessions.admit(&from(SENDERS_MAX), nobody, Moment(1)), Err(Refusal::Crowded));
        assert_eq!(sessions.admit(&from(SENDERS_MAX), nobody, Moment(0).plus(FORGET_AFTER)), Ok(()));
    }

    /// A connection that was cut without a word holds its place until the kernel has asked after it in vain, over ten seconds.
    /// A switch that starts anew cuts those of all hosts at once, and all come back sooner than that.
    #[test]
    fn every_host_that_is_heard_finds_room_to_connect_anew_beside_its_connection_that_was_cut() {
        let hosts = SENDERS_MAX / 2;
        let Limits { connections, per_operator, .. } = Limits::default();
        assert!(connections >= 2 * hosts + per_operator, "{connections} for {hosts} hosts");
    }

    proptest::proptest! {
        #[test]
        fn the_window_agrees_with_a_set_that_forgets_nothing(steps in proptest::collection::vec((0u64..4, 0u64..2500), 1..300)) {
            let (mut window, mut seen, mut highest) = (Window::default(), BTreeSet::new(), 1u64);
            for (direction, by) in steps {
                let sequence = if direction == 0 { highest + by } else { highest.saturating_sub(by) };
                let expected = sequence > 0 && sequence + WINDOW > highest.max(1) && !seen.contains(&sequence);
                // The model's highest starts where the window's first admitted number puts it.
                let expected = if seen.is_empty() { sequence > 0 } else { expected };
                proptest::prop_assert_eq!(window.admit(sequence), expected, "sequence {}", sequence);
                if expected {
                    highest = if seen.is_empty() { sequence } else { highest.max(sequence) };
                    seen.insert(sequence);
                }
            }
        }
    }
}
