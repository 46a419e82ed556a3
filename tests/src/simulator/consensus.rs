//! Consensus as the voters of a simulated cluster have it: a log with terms for each voter ([`super::voter`]), elections over
//! the simulated network ([`super::elections`]), entries that count only when a majority has them on disk.
//!
//! A leader that is cut off goes on believing that it leads until it learns of a higher term; what it may still answer is
//! decided by its read rounds, as in the product. In worlds that compact their logs, a voter begins anew from its last
//! snapshot, and gets a leader's where the leader's log does not reach back far enough ([`super::snapshot`]).

use std::{collections::BTreeSet, rc::Rc};

use holdfast_policies::change::Command;

use super::{
    Ms,
    network::Transit,
    queue::Event,
    snapshot::Snapshot,
    voter::{LogEntry, Role},
    world::World,
};

/// How often a leader speaks to its followers. Each such round is also a read round (R2).
pub const HEARTBEAT: Ms = 100;
/// Rounds without an answer that are remembered: more than one election's worth.
const ROUNDS_MAX: usize = 16;
/// Entries sent at once.
const BATCH: usize = 256;

/// What voters tell each other.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the fields say what their names say")]
pub enum Message {
    /// "Would you vote for me", or "vote for me".
    Ask { term: u64, length: usize, last_term: u64, pre: bool },
    /// The answer.
    Vote { term: u64, granted: bool, pre: bool },
    /// A leader's entries, if any, and how far it has committed.
    Append { term: u64, previous: usize, previous_term: u64, entries: Vec<LogEntry>, commit: usize, round: u64 },
    /// The answer: how much of the follower's log on disk is the leader's.
    Appended { term: u64, fits: bool, length: usize, round: u64 },
    /// The state as of an entry, for a follower that needs entries which the leader does not have any more.
    Install { term: u64, snapshot: Snapshot },
    /// "Stand for election now": to a voter that has everything, and to the others, who may vote at once (R29).
    Transfer { term: u64, to: usize, length: usize },
}

impl World {
    /// How many voters are more than half of them.
    pub(super) fn majority(&self) -> usize {
        self.members.len() / 2 + 1
    }

    /// Adds an entry to a leader's log; returns how long the log is with it.
    pub(super) fn append_own(&mut self, voter: usize, command: Option<Rc<Command>>) -> usize {
        self.entry_ids += 1;
        let id = self.entry_ids;
        let (proposed, known) = (self.now, &mut self.voters[voter]);
        let term = known.term;
        known.log.push(LogEntry { term, id, proposed, command });
        let length = known.log.len();
        let delay = self.random.between(1, 4);
        let life = self.hosts[voter].life;
        self.queue.push(self.now + delay, Event::Synced { voter, life, length, term, answer: None });
        for other in (0..self.voters.len()).filter(|other| *other != voter) {
            self.send_entries(voter, other, 0);
        }
        length
    }

    fn send_entries(&mut self, voter: usize, to: usize, round: u64) {
        let known = &mut self.voters[voter];
        let Role::Leader { sent, .. } = &mut known.role else { return };
        if sent[to] < known.purged
            && let Some(snapshot) = known.snapshot.clone()
        {
            sent[to] = snapshot.length;
            let term = known.term;
            self.tell_voter(voter, to, Message::Install { term, snapshot });
            return;
        }
        let previous = sent[to].min(known.log.len());
        let end = known.log.len().min(previous + BATCH);
        sent[to] = end;
        let entries: Vec<LogEntry> = known.log[previous..end].to_vec();
        let message = Message::Append {
            term: known.term,
            previous,
            previous_term: known.term_at(previous),
            entries,
            commit: known.commit,
            round,
        };
        self.tell_voter(voter, to, message);
    }

    pub(super) fn heartbeat(&mut self, voter: usize, life: u32, term: u64) {
        let (now, alone) = (self.now, self.majority() == 1);
        let known = &mut self.voters[voter];
        if known.term != term {
            return;
        }
        known.round += 1;
        let round = known.round;
        let Role::Leader { rounds, .. } = &mut known.role else { return };
        if rounds.len() >= ROUNDS_MAX {
            rounds.pop_front();
        }
        rounds.push_back((round, now, BTreeSet::from([voter])));
        if alone {
            rounds.clear();
            self.round_confirmed(voter, now);
        }
        for other in (0..self.voters.len()).filter(|other| *other != voter) {
            self.send_entries(voter, other, round);
        }
        self.queue.push(now + HEARTBEAT, Event::Heartbeat { voter, life, term });
    }

    pub(super) fn tell_voter(&mut self, from: usize, to: usize, message: Message) {
        let era = self.era;
        match self.network.send(from, to, self.now, &mut self.random) {
            Transit::Lost => {}
            Transit::After(wait) => self.queue.push(self.now + wait, Event::Raft { to, from, era, message }),
            Transit::Twice(wait, again) => {
                self.queue.push(self.now + again, Event::Raft { to, from, era, message: message.clone() });
                self.queue.push(self.now + wait, Event::Raft { to, from, era, message });
            }
        }
    }

    pub(super) fn on_raft(&mut self, to: usize, from: usize, message: Message) {
        match message {
            Message::Ask { term, length, last_term, pre } => {
                self.asked_for_vote(to, from, term, length, last_term, pre)
            }
            Message::Vote { term, granted, pre } => {
                if term > self.voters[to].term && !(pre && granted) {
                    self.step_down(to, term);
                    return;
                }
                let own = self.voters[to].term + u64::from(pre);
                if let Role::Candidate { votes, pre: asking } = &mut self.voters[to].role
                    && granted
                    && *asking == pre
                    && term == own
                {
                    votes.insert(from);
                    self.count_votes(to);
                }
            }
            Message::Append { term, previous, previous_term, entries, commit, round } => {
                self.append(to, from, term, previous, previous_term, entries, commit, round);
            }
            Message::Appended { term, fits, length, round } => self.appended(to, from, term, fits, length, round),
            Message::Install { term, snapshot } => self.install(to, from, term, snapshot),
            Message::Transfer { term, to: next, length } => self.asked_to_lead(to, term, next, length),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one message, taken apart")]
    fn append(
        &mut self,
        to: usize,
        from: usize,
        term: u64,
        previous: usize,
        previous_term: u64,
        entries: Vec<LogEntry>,
        commit: usize,
        round: u64,
    ) {
        if !self.follow(to, from, term) {
            return;
        }
        let now = self.now;
        let life = self.hosts[to].life;
        let known = &mut self.voters[to];
        // What is in its snapshot is committed, so it is the leader's too.
        let same = previous < known.purged || known.term_at(previous) == previous_term;
        if previous > known.log.len() || !same {
            let length = known.log.len().min(previous.saturating_sub(1));
            let answer = Message::Appended { term, fits: false, length, round };
            self.tell_voter(to, from, answer);
            return;
        }
        let count = entries.len();
        let mut added = false;
        for (offset, entry) in entries.into_iter().enumerate() {
            let index = previous + offset;
            match known.log.get(index) {
                Some(_) if index < known.purged => {}
                Some(own) if own.term == entry.term => {}
                Some(_) => {
                    known.log.truncate(index);
                    known.synced = known.synced.min(index);
                    known.log.push(entry);
                    added = true;
                }
                None => {
                    known.log.push(entry);
                    added = true;
                }
            }
        }
        let length = previous + count;
        let answer = Message::Appended { term, fits: true, length, round };
        let commit = commit.min(length);
        if added {
            let delay = self.random.between(1, 4);
            let answer = Some((from, answer));
            self.queue.push(now + delay, Event::Synced { voter: to, life, length, term, answer });
        } else if self.voters[to].synced >= length {
            self.tell_voter(to, from, answer);
        } else {
            // A repeated message overtook the disk: it says nothing of entries that are not there yet.
            let length = self.voters[to].synced;
            self.tell_voter(to, from, Message::Appended { term, fits: true, length, round });
        }
        self.learn_commit(to, commit);
    }

    pub(super) fn log_synced(&mut self, voter: usize, length: usize, term: u64, answer: Option<(usize, Message)>) {
        let known = &mut self.voters[voter];
        // What a newer leader has replaced meanwhile is synced by its own event.
        if known.term == term || known.term_at(length) == term {
            known.synced = known.synced.max(length.min(known.log.len()));
        }
        if let Some((to, message)) = answer {
            if known.term == term {
                self.tell_voter(voter, to, message);
            }
        } else {
            let length = known.synced;
            if let Role::Leader { has, .. } = &mut known.role {
                has[voter] = has[voter].max(length);
            }
            self.advance(voter);
        }
    }

    fn appended(&mut self, leader: usize, from: usize, term: u64, fits: bool, length: usize, round: u64) {
        if term > self.voters[leader].term {
            self.step_down(leader, term);
            return;
        }
        let majority = self.majority();
        let known = &mut self.voters[leader];
        if term != known.term {
            return;
        }
        let learner = self.voters[from].learner;
        let known = &mut self.voters[leader];
        let Role::Leader { has, sent, rounds, .. } = &mut known.role else { return };
        if fits {
            has[from] = has[from].max(length);
            if sent[from] < length {
                sent[from] = length;
            }
        } else {
            sent[from] = length;
            has[from] = has[from].min(length);
        }
        if let Some((_, began, who)) = rounds.iter_mut().find(|(number, _, _)| *number == round)
            && !learner
        {
            who.insert(from);
            if who.len() >= majority {
                let began = *began;
                rounds.retain(|(number, _, _)| *number > round);
                self.round_confirmed(leader, began);
            }
        }
        if !fits {
            self.send_entries(leader, from, 0);
        }
        self.advance(leader);
        if learner {
            self.promote(leader, from);
        }
    }

    /// A leader may answer from a round only when an entry of its own term is committed and applied.
    fn round_confirmed(&mut self, leader: usize, began: Ms) {
        let known = &mut self.voters[leader];
        if known.term_at(known.applied) != known.term {
            return;
        }
        let term = known.term;
        if known.confirmed.is_none_or(|(before, of)| of != term || before < began) {
            known.confirmed = Some((began, term));
        }
        self.authority(leader);
    }

    fn advance(&mut self, leader: usize) {
        let majority = self.majority();
        let known = &self.voters[leader];
        let Role::Leader { has, .. } = &known.role else { return };
        let counts = |voter: &usize| !self.voters[*voter].learner;
        let mut lengths: Vec<usize> =
            (0..self.voters.len()).map(|voter| if counts(&voter) { has[voter] } else { 0 }).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        let reached = lengths.get(majority - 1).copied().unwrap_or(0).min(known.log.len());
        if reached > known.commit && known.term_at(reached) == known.term {
            self.learn_commit(leader, reached);
        }
    }

    pub(super) fn learn_commit(&mut self, voter: usize, commit: usize) {
        let known = &mut self.voters[voter];
        if commit > known.commit {
            known.commit = commit.min(known.log.len());
        }
        while self.voters[voter].applied < self.voters[voter].commit && !self.is_over() {
            self.apply_next(voter);
        }
    }

    fn apply_next(&mut self, voter: usize) {
        let (now, wall, base) = (self.now, self.real(), self.base);
        let clock = self.hosts[voter].clock(now);
        let known = &mut self.voters[voter];
        let index = known.applied;
        let Some(entry) = known.log.get(index).cloned() else { return };
        known.applied += 1;
        let number = base + known.applied as u64;
        let applied = entry.command.as_ref().map(|command| known.state.apply(number, (**command).clone()));
        known.marks.applied(number, clock);
        if let Some(command) = &entry.command {
            self.check_version(voter, number, &command.what);
        }
        self.compact(voter);
        self.committed(index, &entry, wall);
        if let Some(applied) = applied
            && self.voters[voter].leads()
        {
            self.own_applied(voter, number, &applied);
        }
    }
}
