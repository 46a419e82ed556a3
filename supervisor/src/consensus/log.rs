//! Raft's log and vote on the store. What raft is told to be durable is durable: each append and vote is one commit
//! that has reached the disk before raft hears of it.

use std::{
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    sync::Arc,
};

use openraft::{
    LogState, OptionalSend, RaftLogReader,
    entry::RaftEntry,
    storage::{IOFlushed, RaftLogStorage},
};
use redb::{Durability, ReadableTable};

use super::{
    store::{self, LOG, Store, blocking, put_in},
    types::{Entry, LogId, Types, Vote},
};

/// Entries sent to a follower at once end when they exceed this, in bytes: with one largest entry on top, and escaped
/// for the wire at its worst, they stay far within one RPC frame, and they do not hold up heartbeats.
const BATCH_BYTES_MAX: usize = 512 * 1024;

pub(super) const VOTE: &str = "vote";
const COMMITTED: &str = "committed";
pub(super) const PURGED: &str = "purged";

/// The log; clones read and write the same store.
#[derive(Clone)]
pub(super) struct Log {
    store: Arc<Store>,
}

impl Log {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    /// Makes everything written so far durable; what `save_committed` wrote need not be otherwise.
    pub(super) async fn flush(&self) -> io::Result<()> {
        blocking(&self.store, |store| {
            let committed: Option<LogId> = store.get(COMMITTED)?;
            store.put(COMMITTED, &committed, Durability::Immediate)
        })
        .await
    }

    async fn entries(&self, bounds: (Bound<u64>, Bound<u64>), bytes_max: usize) -> io::Result<Vec<Entry>> {
        let found = blocking(&self.store, move |store| read_entries(store, bounds, bytes_max)).await?;
        let expected = found.first().map_or(0, RaftEntry::index)..;
        if let Some((entry, index)) = found.iter().zip(expected).find(|(entry, index)| entry.index() != *index) {
            return Err(self.store.failed("read", format!("entry {index} is missing before {}", entry.index())));
        }
        Ok(found)
    }
}

/// Every entry from this index on, for whoever reads a store that takes part in nothing.
pub(super) fn entries_from(store: &Store, from: u64) -> io::Result<Vec<Entry>> {
    read_entries(store, (Bound::Included(from), Bound::Unbounded), usize::MAX)
}

fn read_entries(store: &Store, bounds: (Bound<u64>, Bound<u64>), bytes_max: usize) -> io::Result<Vec<Entry>> {
    let raw = store.read(|transaction| {
        let table = match transaction.open_table(LOG) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            table => table?,
        };
        let (mut raw, mut bytes) = (Vec::new(), 0);
        for item in table.range(bounds)? {
            let json = item?.1.value().to_vec();
            bytes += json.len();
            raw.push(json);
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(raw)
    })?;
    raw.iter().map(|json| store.decode(json)).collect()
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        self.entries((range.start_bound().cloned(), range.end_bound().cloned()), usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.entries((Bound::Included(start), Bound::Excluded(end)), BATCH_BYTES_MAX).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        blocking(&self.store, |store| store.get(VOTE)).await
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        blocking(&self.store, |store| {
            let purged: Option<LogId> = store.get(PURGED)?;
            let last = store.read(|transaction| {
                let table = match transaction.open_table(LOG) {
                    Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
                    table => table?,
                };
                Ok(table.last()?.map(|(_, json)| json.value().to_vec()))
            })?;
            let last: Option<Entry> = last.map(|json| store.decode(&json)).transpose()?;
            let last_log_id = last.map(|entry| entry.log_id()).or(purged);
            Ok(LogState { last_purged_log_id: purged, last_log_id })
        })
        .await
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let vote = *vote;
        blocking(&self.store, move |store| store.put(VOTE, &vote, Durability::Immediate)).await
    }

    /// Only shortens the replay after a restart, so that it need not wait for the disk: the next append takes it along.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        blocking(&self.store, move |store| store.put(COMMITTED, &committed, Durability::None)).await
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        blocking(&self.store, |store| store.get::<Option<LogId>>(COMMITTED).map(Option::flatten)).await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let encode = |entry: Entry| Ok((entry.index(), serde_json::to_vec(&entry)?));
        let encoded = entries.into_iter().map(encode).collect::<io::Result<Vec<_>>>()?;
        blocking(&self.store, move |store| {
            store.write(Durability::Immediate, |transaction| {
                let mut table = transaction.open_table(LOG)?;
                for (index, json) in &encoded {
                    table.insert(index, json.as_slice())?;
                }
                Ok(())
            })
        })
        .await?;
        callback.io_completed(Ok(()));
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let first_gone = last_log_id.map_or(0, |last| last.index().saturating_add(1));
        blocking(&self.store, move |store| {
            store.write(Durability::Immediate, |transaction| {
                Ok(transaction.open_table(LOG)?.retain_in(first_gone.., |_, _| false)?)
            })
        })
        .await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        blocking(&self.store, move |store: &store::Store| {
            let purged = serde_json::to_vec(&log_id)?;
            store.write(Durability::Immediate, |transaction| {
                put_in(transaction, PURGED, &purged)?;
                Ok(transaction.open_table(LOG)?.retain_in(..=log_id.index(), |_, _| false)?)
            })
        })
        .await
    }
}
