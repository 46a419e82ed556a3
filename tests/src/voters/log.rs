//! Raft's log and vote on a [`Store`].

use std::{
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
};

use openraft::{
    AsyncRuntime as _, LogState, OptionalSend, RaftLogReader,
    storage::{IOFlushed, RaftLogStorage},
};
use openraft_rt_sim::SimRuntime;

use super::{
    disk::{Store, Write},
    types::{Entry, LogId, Types, Vote},
};

impl RaftLogReader<Types> for Store {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (first, end) = ends(range.start_bound(), range.end_bound());
        if first >= end {
            return Ok(Vec::new());
        }
        self.look(|image| image.log.range(first..end).map(|(_, entry)| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.look(|image| image.vote)
    }
}

/// The first index, and the first one after the last.
fn ends(start: Bound<&u64>, end: Bound<&u64>) -> (u64, u64) {
    let first = match start {
        Bound::Included(first) => *first,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match end {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (first, end)
}

impl RaftLogStorage<Types> for Store {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        self.look(|image| LogState { last_purged_log_id: image.purged, last_log_id: image.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.keep_vote(*vote).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.jot(Write::Committed(committed))
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        self.look(|image| image.committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let write = Write::Append(entries.into_iter().collect());
        if self.waits() {
            self.keep(write).await?;
            callback.io_completed(Ok(()));
            return Ok(());
        }
        let (store, ticket) = (self.clone(), self.begin(write)?);
        SimRuntime::spawn(async move {
            // A process without power tells nobody anything.
            if store.finish(ticket).await.is_ok() {
                callback.io_completed(Ok(()));
            }
        });
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        self.keep(Write::TruncateAfter(last_log_id)).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        self.keep(Write::Purge(log_id)).await
    }
}
