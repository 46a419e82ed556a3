//! What all voters together have said and done, and what must hold of it. Everything is checked where it is noted; the first
//! thing that is wrong ends the run.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use openraft_rt_sim::SimInstant;

use super::{
    disk::Image,
    types::{LeaderId, LogId},
};

/// What happened in a run, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// Proposals that were acknowledged.
    pub acknowledged: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Leaders that have committed something.
    pub leaders: u64,
    /// Leads that were handed over as asked.
    pub handed_over: u64,
    /// Processes that lost their power.
    pub crashes: u64,
    /// Snapshots that were installed over an older state.
    pub snapshots_installed: u64,
    /// Voters that were exchanged for new ones.
    pub exchanged: u64,
}

/// What a voter has said to another: that it takes no word of an earlier leader any more, and has this entry on disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Promise {
    pub(super) leader: LeaderId,
    pub(super) last: Option<LogId>,
}

/// One entry as it was applied for the first time.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    log_id: LogId,
    number: Option<u64>,
    reply: Vec<u8>,
}

#[derive(Default)]
struct Book {
    /// What was applied, by index.
    entries: BTreeMap<u64, Known>,
    /// Where each proposal was applied.
    indexes: BTreeMap<u64, u64>,
    last_number: u64,
    acknowledged: BTreeMap<u64, LogId>,
    turned_away: BTreeSet<u64>,
    promised: BTreeMap<u64, Promise>,
    /// The newest leader that was confirmed, and the newest entry with it.
    newest: Option<LogId>,
    closing: bool,
    violation: Option<String>,
    seen: Seen,
    story: String,
    told: Duration,
}

impl Book {
    fn note(&mut self, what: &str) {
        // There is no clock once the run has ended.
        self.told = SimInstant::try_now().map_or(self.told, SimInstant::elapsed_since_start);
        // Writing to memory does not fail.
        let _ = writeln!(self.story, "{:>4}.{:06} {what}", self.told.as_secs(), self.told.subsec_micros());
    }

    fn fail(&mut self, what: &str) {
        self.note(what);
        self.violation.get_or_insert_with(|| what.to_owned());
    }
}

/// The book, in everybody's hands.
#[derive(Clone, Default)]
pub(super) struct Ledger(Arc<Mutex<Book>>);

impl Ledger {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line to the story.
    pub(super) fn note(&self, what: &str) {
        self.book().note(what);
    }

    /// Something is wrong.
    pub(super) fn fail(&self, what: &str) {
        self.book().fail(what);
    }

    /// What was found to be wrong first.
    pub(super) fn violation(&self) -> Option<String> {
        self.book().violation.clone()
    }

    /// Counts something.
    pub(super) fn count(&self, count: impl FnOnce(&mut Seen)) {
        count(&mut self.book().seen);
    }

    /// Nobody is to propose or to read any more.
    pub(super) fn close(&self) {
        self.book().closing = true;
    }

    pub(super) fn is_closing(&self) -> bool {
        self.book().closing
    }

    /// The counts, the story, and when its last line was told.
    pub(super) fn result(&self) -> (Seen, String, Duration) {
        let book = self.book();
        (book.seen, book.story.clone(), book.told)
    }

    /// The newest leader and entry that were confirmed: whatever begins from here on must not be older.
    pub(super) fn newest(&self) -> Option<LogId> {
        self.book().newest
    }

    /// The number of the next proposal.
    pub(super) fn new_number(&self) -> u64 {
        let mut book = self.book();
        book.last_number += 1;
        book.last_number
    }

    /// The number of the newest proposal.
    pub(super) fn last_number(&self) -> u64 {
        self.book().last_number
    }

    /// Whether a proposal with a greater number has been acknowledged.
    pub(super) fn is_acknowledged_after(&self, number: u64) -> bool {
        self.book().acknowledged.last_key_value().is_some_and(|(newest, _)| *newest > number)
    }

    /// S6, S7: all voters apply the same in the same order, each proposal once, and what was turned away never.
    pub(super) fn applied(&self, voter: u64, log_id: LogId, number: Option<u64>, reply: &[u8]) {
        let mut book = self.book();
        let own = Known { log_id, number, reply: reply.to_vec() };
        if let Some(known) = book.entries.get(&log_id.index()).cloned() {
            if known != own {
                book.fail(&format!("S6: voter {voter} has applied {own:?}, and another one {known:?}"));
            }
            return;
        }
        if let Some(number) = number {
            if book.turned_away.contains(&number) {
                book.fail(&format!("S7: proposal {number}, which was turned away, is applied as {log_id}"));
            }
            if let Some(index) = book.indexes.insert(number, log_id.index()) {
                book.fail(&format!("S7: proposal {number} is applied as entry {index} and as {log_id}"));
            }
        }
        let before = book.entries.range(..log_id.index()).next_back().map(|(_, known)| known.log_id);
        let after = book.entries.range(log_id.index()..).next().map(|(_, known)| known.log_id);
        if before.is_some_and(|before| before >= log_id) || after.is_some_and(|after| after <= log_id) {
            book.fail(&format!("R2: {log_id} is committed between {before:?} and {after:?}: leaders went back"));
        }
        if before.is_none_or(|before| before.leader_id != log_id.leader_id) {
            book.seen.leaders += 1;
        }
        book.entries.insert(log_id.index(), own);
    }

    /// S6: a snapshot has everything up to its last entry, and never leads back.
    pub(super) fn restored(&self, voter: u64, from: Option<LogId>, to: Option<LogId>, history: &[(u64, u64)]) {
        let mut book = self.book();
        if from > to {
            book.fail(&format!("S6: a snapshot leads voter {voter} back from {from:?} to {to:?}"));
        }
        let end = to.map_or(0, |last| last.index() + 1);
        let known = book.entries.range(..end).filter_map(|(index, known)| Some((*index, known.number?)));
        if !known.eq(history.iter().copied()) {
            book.fail(&format!("S6: a snapshot up to {to:?} at voter {voter} lacks something, or has too much"));
        }
        if from.is_some() {
            book.seen.snapshots_installed += 1;
            book.note(&format!("voter {voter} installs a snapshot up to {}", told(to)));
        }
    }

    /// S6, R2: what is acknowledged is applied, by a leader that nobody had superseded when it was proposed.
    pub(super) fn acknowledged(&self, number: u64, log_id: LogId, before: Option<LogId>) {
        let mut book = self.book();
        book.seen.acknowledged += 1;
        book.note(&format!("proposal {number} is acknowledged as {log_id}"));
        if book.indexes.get(&number) != Some(&log_id.index()) {
            book.fail(&format!("S6: proposal {number} is acknowledged as {log_id}, and was not applied so"));
        }
        if is_older(log_id, before) || before.is_some_and(|before| before.index() == log_id.index()) {
            let before = told(before);
            book.fail(&format!("R2: {log_id} is acknowledged, and was proposed after {before} was confirmed"));
        }
        book.acknowledged.insert(number, log_id);
        book.newest = book.newest.max(Some(log_id));
    }

    /// S7: a voter has said that it does not lead, and that nothing was appended.
    pub(super) fn turned_away(&self, number: u64) {
        let mut book = self.book();
        book.note(&format!("proposal {number} is turned away"));
        if let Some(index) = book.indexes.get(&number).copied() {
            book.fail(&format!("S7: proposal {number} was applied as entry {index} and is turned away"));
        }
        book.turned_away.insert(number);
    }

    /// R2: a read sees everything that was acknowledged before it began. `authority` is what the leader says that it has
    /// confirmed, `applied` how far its state is.
    pub(super) fn read(&self, voter: u64, before: Option<LogId>, authority: Option<LogId>, applied: Option<LogId>) {
        let mut book = self.book();
        book.seen.reads += 1;
        book.note(&format!("voter {voter} answers a read at {}", told(authority)));
        let behind = applied.map(|applied| applied.index()) < authority.map(|authority| authority.index());
        if behind || authority.map_or(before.is_some(), |authority| is_older(authority, before)) {
            book.fail(&format!(
                "R2: a read at voter {voter}, at {} with {} applied, began after {} was confirmed",
                told(authority),
                told(applied),
                told(before)
            ));
        }
        book.newest = book.newest.max(authority);
    }

    /// A voter has said something that it must not forget.
    pub(super) fn promised(&self, voter: u64, promise: Promise) {
        let mut book = self.book();
        let known = book.promised.entry(voter).or_insert(promise);
        if promise.leader > known.leader {
            *known = promise;
        } else if promise.leader == known.leader {
            known.last = known.last.max(promise.last);
        }
    }

    /// R24: whoever starts has on disk what it has promised.
    pub(super) fn check_memory(&self, voter: u64, kept: &Image) {
        let mut book = self.book();
        let Some(Promise { leader, last }) = book.promised.get(&voter).copied() else { return };
        let found = kept.vote.map(|vote| vote.leader_id);
        if found < Some(leader) {
            book.fail(&format!("R24: voter {voter} has promised {leader}, and its vote on disk is {found:?}"));
        }
        // A later leader may have had entries replaced that were not committed.
        if found == Some(leader) && kept.reached() < last {
            let (last, reached) = (told(last), told(kept.reached()));
            book.fail(&format!("R24: voter {voter} has acknowledged {last}, and has {reached} on disk"));
        }
    }

    /// S6: at the end nothing is missing that was ever acknowledged.
    pub(super) fn check_history(&self, voter: u64, history: &[(u64, u64)]) {
        let mut book = self.book();
        let missing = book
            .acknowledged
            .iter()
            .find(|(number, log_id)| history.binary_search(&(log_id.index(), **number)).is_err())
            .map(|(number, log_id)| format!("S6: voter {voter} lacks proposal {number}, acknowledged as {log_id}"));
        if let Some(missing) = missing {
            book.fail(&missing);
        }
    }
}

/// Whether one of two that were confirmed is of an earlier leader than the other, or reaches less far.
fn is_older(one: LogId, than: Option<LogId>) -> bool {
    than.is_some_and(|than| one.leader_id < than.leader_id || one.index() < than.index())
}

fn told(log_id: Option<LogId>) -> String {
    log_id.map_or_else(|| "nothing".to_owned(), |log_id| log_id.to_string())
}
