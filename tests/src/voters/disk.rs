//! A disk that is honest about fsync. A write can be read at once, is kept when it has been flushed, which takes a drawn
//! time, and is told only then. Without power what waited is lost, from some point on: a disk writes in order.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use openraft::{AsyncRuntime as _, Instant as _};
use openraft_rt_sim::{SimInstant, SimRuntime};

use super::{
    breaks::Break,
    types::{Entry, LogId, SnapshotMeta, Vote},
};
use crate::simulator::random::Random;

/// How long what was acknowledged too early stays in a cache that a power cut empties.
const WRITE_BACK: Duration = Duration::from_secs(3);
/// A flush takes so many microseconds: from the first to below the second.
const FLUSH_MICROS: (u64, u64) = (800, 6_000);
/// Once in so many a flush takes ten times as long.
const HICCUP_ODDS: u64 = 40;

/// Everything that a voter has on a disk.
#[derive(Debug, Clone, Default)]
pub(super) struct Image {
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
    pub(super) purged: Option<LogId>,
    pub(super) log: BTreeMap<u64, Entry>,
    pub(super) snapshot: Option<(SnapshotMeta, Vec<u8>)>,
}

/// One write, whole or not at all.
#[derive(Debug, Clone)]
pub(super) enum Write {
    Vote(Vote),
    Committed(Option<LogId>),
    Append(Vec<Entry>),
    TruncateAfter(Option<LogId>),
    Purge(LogId),
    Snapshot(SnapshotMeta, Vec<u8>),
}

impl Image {
    /// The last entry of the log, or where the log was cut off.
    pub(super) fn last(&self) -> Option<LogId> {
        self.log.last_key_value().map(|(_, entry)| entry.log_id).or(self.purged)
    }

    /// How far it reaches, with the snapshot.
    pub(super) fn reached(&self) -> Option<LogId> {
        let snapshot = self.snapshot.as_ref().and_then(|(meta, _)| meta.last_log_id);
        self.last().max(snapshot)
    }

    fn write(&mut self, write: Write) {
        match write {
            Write::Vote(vote) => self.vote = Some(vote),
            Write::Committed(committed) => self.committed = committed,
            Write::Append(entries) => self.log.extend(entries.into_iter().map(|entry| (entry.log_id.index(), entry))),
            Write::TruncateAfter(last) => drop(self.log.split_off(&last.map_or(0, |last| last.index() + 1))),
            Write::Purge(upto) => {
                self.log = self.log.split_off(&(upto.index() + 1));
                self.purged = Some(upto);
            }
            Write::Snapshot(meta, data) => {
                // A snapshot taken here can be late, after a newer one came from the leader.
                let stored = self.snapshot.as_ref().and_then(|(stored, _)| stored.last_log_id);
                if self.snapshot.is_none() || stored < meta.last_log_id {
                    self.snapshot = Some((meta, data));
                }
            }
        }
    }
}

/// A disk, which outlives the processes that write on it.
#[derive(Clone)]
pub(super) struct Disk(Arc<Mutex<Inner>>);

struct Inner {
    /// What whoever has power reads.
    seen: Image,
    /// What a power cut leaves.
    kept: Image,
    waiting: VecDeque<Write>,
    /// The number of the first write that waits.
    first: u64,
    busy_until: SimInstant,
    /// How often the power was cut.
    boot: u64,
    /// How many times longer than usual a flush takes.
    slowness: u64,
    broken: Option<Break>,
    chance: Random,
}

impl Inner {
    /// When what was written last will be on disk.
    fn due(&mut self) -> SimInstant {
        if self.broken == Some(Break::Fsync) {
            return SimInstant::now() + WRITE_BACK;
        }
        let (shortest, longest) = FLUSH_MICROS;
        let hiccup = if self.chance.one_in(HICCUP_ODDS) { 10 } else { 1 };
        let takes = Duration::from_micros(self.chance.between(shortest, longest) * self.slowness * hiccup);
        self.busy_until = self.busy_until.max(SimInstant::now()) + takes;
        self.busy_until
    }
}

impl Disk {
    pub(super) fn new(chance: Random, broken: Option<Break>) -> Self {
        let (seen, kept, waiting) = (Image::default(), Image::default(), VecDeque::new());
        let busy_until = SimInstant::now();
        let inner = Inner { seen, kept, waiting, first: 0, busy_until, boot: 0, slowness: 1, broken, chance };
        Self(Arc::new(Mutex::new(inner)))
    }

    /// The store of a process that starts: the next power cut ends it. `waits` says whether it holds the appender up until
    /// the entries are on disk, as the product's store does.
    pub(super) fn store(&self, waits: bool) -> Store {
        let (boot, broken) = {
            let inner = self.inner();
            (inner.boot, inner.broken)
        };
        // Who lies holds nobody up.
        let waits = waits || broken == Some(Break::Fsync);
        Store { disk: self.clone(), boot, waits, broken }
    }

    /// Ends the process. Of what waits to be flushed, some may have reached the disk.
    pub(super) fn cut_power(&self) {
        let mut guard = self.inner();
        let inner = &mut *guard;
        inner.boot += 1;
        let waiting = inner.waiting.len();
        let survive = inner.chance.index(waiting + 1);
        for write in inner.waiting.drain(..).take(survive) {
            inner.kept.write(write);
        }
        inner.seen = inner.kept.clone();
        inner.busy_until = SimInstant::now();
    }

    /// Makes flushes take so many times longer than usual.
    pub(super) fn set_slowness(&self, times: u64) {
        self.inner().slowness = times;
    }

    /// Looks at what a power cut would leave.
    pub(super) fn kept<T>(&self, look: impl FnOnce(&Image) -> T) -> T {
        look(&self.inner().kept)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn powered(&self, boot: u64) -> io::Result<MutexGuard<'_, Inner>> {
        let inner = self.inner();
        if inner.boot == boot { Ok(inner) } else { Err(io::Error::other("the power is gone")) }
    }
}

/// A disk in the hands of one process.
#[derive(Clone)]
pub(super) struct Store {
    disk: Disk,
    boot: u64,
    waits: bool,
    broken: Option<Break>,
}

/// A write that has been taken in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    number: u64,
    due: SimInstant,
}

impl Store {
    /// Which process this is of those that this disk has had.
    pub(super) fn boot(&self) -> u64 {
        self.boot
    }

    /// Whether whoever appends is held up until the entries are on disk.
    pub(super) fn waits(&self) -> bool {
        self.waits
    }

    /// Looks at what was written.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Image) -> T) -> io::Result<T> {
        Ok(look(&self.disk.powered(self.boot)?.seen))
    }

    /// Writes, and returns when that is on disk.
    pub(super) async fn keep(&self, write: Write) -> io::Result<()> {
        let ticket = self.begin(write)?;
        if self.broken == Some(Break::Fsync) {
            let store = self.clone();
            SimRuntime::spawn(async move { store.finish(ticket).await });
            return Ok(());
        }
        self.finish(ticket).await
    }

    /// Writes, and returns at once; it is on disk when [`Self::finish`] has returned.
    pub(super) fn begin(&self, write: Write) -> io::Result<Ticket> {
        let mut guard = self.disk.powered(self.boot)?;
        let inner = &mut *guard;
        inner.seen.write(write.clone());
        inner.waiting.push_back(write);
        let number = inner.first + inner.waiting.len() as u64 - 1;
        Ok(Ticket { number, due: inner.due() })
    }

    /// Returns when a write is on disk, with all that were written before it.
    ///
    /// # Errors
    /// The power was cut meanwhile.
    pub(super) async fn finish(&self, ticket: Ticket) -> io::Result<()> {
        SimRuntime::sleep_until(ticket.due).await;
        let mut guard = self.disk.powered(self.boot)?;
        let inner = &mut *guard;
        while inner.first <= ticket.number {
            let Some(write) = inner.waiting.pop_front() else { break };
            inner.kept.write(write);
            inner.first += 1;
        }
        Ok(())
    }

    /// Writes what need not be flushed: the next flush takes it along.
    pub(super) fn jot(&self, write: Write) -> io::Result<()> {
        let mut inner = self.disk.powered(self.boot)?;
        inner.seen.write(write.clone());
        inner.waiting.push_back(write);
        Ok(())
    }

    /// Writes a vote, and returns when that is on disk.
    pub(super) async fn keep_vote(&self, vote: Vote) -> io::Result<()> {
        if self.broken != Some(Break::Votes) {
            return self.keep(Write::Vote(vote)).await;
        }
        self.disk.powered(self.boot)?.seen.write(Write::Vote(vote));
        let store = self.clone();
        SimRuntime::spawn(async move {
            SimRuntime::sleep(WRITE_BACK).await;
            if let Ok(mut inner) = store.disk.powered(store.boot) {
                inner.kept.write(Write::Vote(vote));
            }
        });
        Ok(())
    }
}
