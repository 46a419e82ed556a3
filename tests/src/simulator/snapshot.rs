//! Snapshots of the replicated state, in the bytes that the product writes; and leadership that is handed over.

use std::rc::Rc;

use holdfast_policies::state::ClusterState;

use super::{
    consensus::Message,
    voter::{LogEntry, Role, Voter},
    world::World,
};

/// The state as of an entry.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// How many entries are in it.
    pub length: usize,
    /// The term of the last of them.
    pub last_term: u64,
    bytes: Rc<Vec<u8>>,
}

impl Snapshot {
    pub(super) fn of(state: &ClusterState, length: usize, last_term: u64) -> Self {
        match serde_json::to_vec(state) {
            Ok(bytes) => Self { length, last_term, bytes: Rc::new(bytes) },
            Err(error) => panic!("a state cannot be written: {error}"),
        }
    }

    fn state(&self) -> ClusterState {
        match serde_json::from_slice(&self.bytes) {
            Ok(state) => state,
            Err(error) => panic!("a state that was written cannot be read: {error}"),
        }
    }
}

impl Voter {
    /// A process makes its state again from what is on its disk: the snapshot first, then what it learns is committed.
    pub(super) fn begin_from_snapshot(&mut self) {
        let Some(snapshot) = &self.snapshot else { return };
        self.state = snapshot.state();
        (self.applied, self.commit) = (snapshot.length, snapshot.length);
    }
}

impl World {
    /// Takes a snapshot when it is time for one, and forgets what is far behind it.
    pub(super) fn compact(&mut self, voter: usize) {
        let Some(every) = self.compacts_every else { return };
        let known = &mut self.voters[voter];
        let before = known.snapshot.as_ref().map_or(0, |snapshot| snapshot.length);
        if known.applied < before + every {
            return;
        }
        let length = known.applied;
        known.snapshot = Some(Snapshot::of(&known.state, length, known.term_at(length)));
        known.purged = known.purged.max(length.saturating_sub(every / 4));
    }

    /// A leader's snapshot has arrived. It is on disk before it is answered, and nothing is between the two.
    pub(super) fn install(&mut self, to: usize, from: usize, term: u64, snapshot: Snapshot) {
        if !self.follow(to, from, term) {
            return;
        }
        let (now, clock, base) = (self.now, self.hosts[to].clock(self.now), self.base);
        let known = &mut self.voters[to];
        let length = snapshot.length;
        if length > known.applied {
            if known.log.len() <= length || known.term_at(length) != snapshot.last_term {
                let place = LogEntry { term: snapshot.last_term, id: 0, proposed: now, command: None };
                known.log = vec![place; length];
            }
            known.state = snapshot.state();
            (known.applied, known.commit) = (length, known.commit.max(length));
            known.marks.applied(base + length as u64, clock);
            (known.purged, known.synced) = (length, known.synced.clamp(length, known.log.len()));
            known.snapshot = Some(snapshot);
            self.seen.snapshots_installed += 1;
        }
        self.tell_voter(to, from, Message::Appended { term, fits: true, length, round: 0 });
        let commit = self.voters[to].commit;
        self.learn_commit(to, commit);
    }

    /// A leader asks another voter to lead (R29). From then on it votes for it itself.
    pub(super) fn hand_over(&mut self, voter: usize, to: usize) {
        let known = &mut self.voters[voter];
        let (term, length) = (known.term, known.log.len());
        let Role::Leader { hands_over, .. } = &mut known.role else { return };
        *hands_over = true;
        self.seen.handed_over += 1;
        self.check_handed_over(voter, to);
        for other in (0..self.voters.len()).filter(|other| *other != voter) {
            self.tell_voter(voter, other, Message::Transfer { term, to, length });
        }
    }

    /// What a leader that hands over says: whoever is meant stands at once if it has all entries; others may vote at once.
    pub(super) fn asked_to_lead(&mut self, voter: usize, term: u64, next: usize, length: usize) {
        let known = &mut self.voters[voter];
        if term != known.term || known.leads() {
            return;
        }
        known.leader = None;
        known.heard_leader = 0;
        if next == voter && !known.learner && known.log.len() >= length {
            self.stand(voter, false);
        }
    }
}
