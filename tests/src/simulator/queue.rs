//! What is to happen next: a queue of events by time, and in order of entry at the same time.

use std::{cmp::Ordering, collections::BinaryHeap, time::Duration};

use holdfast_policies::{
    agent::Disk,
    evidence::Answer,
    names::{HostName, OrderId},
    proof::PowerReading,
    sync::{SyncReply, SyncRequest, View},
};

use super::{Ms, consensus::Message};

/// A voter's answer, with the number and the age of a boot that has not joined.
pub type Said = Box<(Answer, Option<(u32, Duration)>)>;

/// Something that happens to one host. Events of a process that has ended since (`life`) fall away.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the fields say what their names say")]
pub enum Event {
    /// The agent's turn to sync.
    SyncDue { host: usize, life: u32 },
    /// The guard's turn to send its beacon.
    Beacon { host: usize, boot: u32 },
    /// The guard's turn to look at the lease.
    Guard { host: usize, boot: u32 },
    /// A watchdog may have to fire.
    Watchdog { host: usize, boot: u32, number: u32 },
    /// A beacon arrives late.
    BeaconHeard { at: usize, of: usize, boot: u32, beat: u64 },
    /// A sync arrives at a voter, directly or forwarded.
    Sync { voter: usize, via: Option<usize>, from: usize, life: u32, request: Box<SyncRequest> },
    /// A reply arrives at an agent.
    Reply { host: usize, life: u32, by: usize, began: Ms, reply: Box<SyncReply> },
    /// A datagram that makes an agent sync at once (R5).
    Nudge { host: usize },
    /// What the agent remembers has reached the disk; what was to follow may be done.
    Written { host: usize, life: u32, disk: Box<Disk> },
    /// A view has been made of what was told, if one could be.
    Viewed { host: usize, life: u32, made: Box<Option<View>> },
    /// The supervisor tells the guard what follows from its view.
    GuardTold { host: usize, life: u32 },
    /// A write of what the agent remembers has come to its end.
    Kept { host: usize, life: u32, disk: Box<Disk>, ends: super::disks::Ends },
    /// An order's work has ended.
    JobEnd { host: usize, life: u32, order: OrderId },
    /// A message among voters.
    Raft { to: usize, from: usize, era: u32, message: Message },
    /// A voter's log has reached its disk up to `length`; the answer that waited for it may go.
    Synced { voter: usize, life: u32, length: usize, term: u64, answer: Option<(usize, Message)> },
    /// A leader's turn to send to its followers.
    Heartbeat { voter: usize, life: u32, term: u64 },
    /// A voter looks whether it should stand for election.
    Election { voter: usize, life: u32 },
    /// The coordinator's turn to decide.
    Think { voter: usize, life: u32, term: u64 },
    /// A power device has answered.
    Power { voter: usize, term: u64, about: usize, reading: PowerReading },
    /// A voter is asked how long ago it heard a boot.
    Ask { voter: usize, by: usize, term: u64, about: usize, boot: String, asked: u64 },
    /// It has answered, and said how long ago it heard a boot that has not joined.
    Answered { voter: usize, term: u64, from: HostName, about: usize, boot: String, said: Said },
    /// A power device does what it was told a while ago.
    LateOff { target: usize, order: OrderId },
    /// Power comes back.
    PowerOn { host: usize, boot: u32 },
    /// The supervisor is started.
    SupervisorUp { host: usize, boot: u32, life: u32 },
    /// Something that waits at a machine or process that stands still; it is lost if that loses its power meanwhile.
    Held { host: usize, boot: u32, event: Box<Event> },
    /// An agent is to know an order by now (R5).
    Told { order: OrderId },
    /// An operator tries again.
    Operator { what: Box<super::faults::Happening>, tries: u32 },
}

/// An event that waits, by its place in the queue's list: events are large, and a heap moves what is in it about.
struct Item {
    at: Ms,
    number: u64,
    place: usize,
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Item {}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Item {
    /// Reversed: the heap gives its greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// Events by time.
#[derive(Default)]
pub struct Queue {
    heap: BinaryHeap<Item>,
    events: Vec<Option<Event>>,
    /// Places of `events` with nothing in them.
    free: Vec<usize>,
    number: u64,
}

impl Queue {
    /// Adds an event.
    pub fn push(&mut self, at: Ms, event: Event) {
        self.number += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[place] = Some(event);
        self.heap.push(Item { at, number: self.number, place });
    }

    /// When the next event is due.
    #[must_use]
    pub fn next_at(&self) -> Option<Ms> {
        self.heap.peek().map(|item| item.at)
    }

    /// Takes the next event.
    pub fn pop(&mut self) -> Option<(Ms, Event)> {
        let item = self.heap.pop()?;
        self.free.push(item.place);
        Some((item.at, self.events[item.place].take()?))
    }

    /// When the last of the events that wait and are like this is due.
    pub(super) fn latest(&self, is: impl Fn(&Event) -> bool) -> Option<Ms> {
        let alike = |item: &&Item| self.events[item.place].as_ref().is_some_and(&is);
        self.heap.iter().filter(alike).map(|item| item.at).max()
    }

    /// Events that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

impl Event {
    /// On which host it happens, and whether its supervisor's process has to be there for it.
    #[must_use]
    pub fn place(&self) -> (Option<usize>, bool) {
        match self {
            Self::SyncDue { host, .. }
            | Self::Reply { host, .. }
            | Self::Nudge { host }
            | Self::Written { host, .. }
            | Self::Kept { host, .. }
            | Self::Viewed { host, .. }
            | Self::GuardTold { host, .. }
            | Self::JobEnd { host, .. } => (Some(*host), true),
            Self::Beacon { host, .. } | Self::Guard { host, .. } | Self::SupervisorUp { host, .. } => {
                (Some(*host), false)
            }
            Self::BeaconHeard { at, .. } => (Some(*at), true),
            Self::Sync { voter, .. }
            | Self::Synced { voter, .. }
            | Self::Heartbeat { voter, .. }
            | Self::Election { voter, .. }
            | Self::Think { voter, .. }
            | Self::Power { voter, .. }
            | Self::Ask { voter, .. }
            | Self::Answered { voter, .. } => (Some(*voter), true),
            Self::Raft { to, .. } => (Some(*to), true),
            Self::Held { event, .. } => event.place(),
            Self::LateOff { .. }
            | Self::Watchdog { .. }
            | Self::PowerOn { .. }
            | Self::Told { .. }
            | Self::Operator { .. } => (None, false),
        }
    }
}
