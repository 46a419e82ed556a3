//! One voter of a simulated cluster: its log, what it has on disk, what it takes itself for, and what a crash leaves of it.

use std::{
    collections::{BTreeSet, VecDeque},
    rc::Rc,
};

use holdfast_policies::{
    change::Command,
    evidence::Marks,
    news::{Teller, ViewMark},
    state::ClusterState,
    time::Moment,
};

use super::{Ms, coordinator::Brain, snapshot::Snapshot};

/// One entry of a log.
#[derive(Debug, Clone)]
pub struct LogEntry {
    /// The term of the leader that made it.
    pub term: u64,
    /// Unique in the whole run.
    pub id: u64,
    /// When it was made.
    pub proposed: Ms,
    /// What it says; `None` for a leader's first entry.
    pub command: Option<Rc<Command>>,
}

/// What a voter is.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the fields say what their names say")]
pub enum Role {
    /// It follows.
    Follower,
    /// It asks for votes; who has granted one.
    Candidate { votes: BTreeSet<usize>, pre: bool },
    /// It leads: what each voter has, and rounds that are being confirmed.
    Leader { has: Vec<usize>, sent: Vec<usize>, rounds: VecDeque<(u64, Ms, BTreeSet<usize>)>, hands_over: bool },
}

/// One voter's part.
pub struct Voter {
    /// Its host.
    pub host: usize,
    /// The newest term that it knows; on disk.
    pub term: u64,
    /// For whom it has voted in that term; on disk.
    pub voted: Option<usize>,
    /// Its log; the first `synced` entries are on disk.
    pub log: Vec<LogEntry>,
    /// See `log`.
    pub synced: usize,
    /// Entries known to be committed.
    pub commit: usize,
    /// Entries applied to `state`.
    pub applied: usize,
    /// The replicated state, as far as this voter has applied it.
    pub state: ClusterState,
    /// What it is.
    pub role: Role,
    /// Whom it takes for the leader.
    pub leader: Option<usize>,
    /// When it last heard a leader.
    pub heard_leader: Ms,
    /// When it stands for election.
    pub stand_at: Ms,
    /// It lost its store and may not vote before an operator has promoted it (R24).
    pub learner: bool,
    /// When entries were applied here.
    pub marks: Marks,
    /// The coordinator's task.
    pub brain: Brain,
    /// When its supervisor has last asked another one to lead.
    pub(super) handed_over: Option<Ms>,
    /// What its supervisor knows of changes of the view, for as long as it runs.
    pub(super) teller: Teller,
    /// What is declared, as it is told, and as of which view.
    pub(super) written: Option<(ViewMark, Rc<str>)>,
    /// The newest read round that a majority confirmed: when it began, and in which term.
    pub confirmed: Option<(Ms, u64)>,
    /// Its newest snapshot, on disk.
    pub snapshot: Option<Snapshot>,
    /// So many entries at the beginning of the log are not there any more: only their place is.
    pub purged: usize,
    /// The newest read round that it began.
    pub(super) round: u64,
}

impl Voter {
    /// A voter with an empty store.
    #[must_use]
    pub fn new(host: usize) -> Self {
        Self {
            host,
            term: 0,
            voted: None,
            log: Vec::new(),
            synced: 0,
            commit: 0,
            applied: 0,
            state: ClusterState::born(),
            role: Role::Follower,
            leader: None,
            heard_leader: 0,
            stand_at: 0,
            learner: false,
            marks: Marks::new(Moment(0)),
            brain: Brain::default(),
            handed_over: None,
            teller: Teller::default(),
            written: None,
            confirmed: None,
            snapshot: None,
            purged: 0,
            round: 0,
        }
    }

    /// The process has ended: what was not on disk is lost.
    pub fn crash(&mut self) {
        self.log.truncate(self.synced);
        self.commit = self.commit.min(self.synced).max(self.applied.min(self.synced));
        self.begin_from_snapshot();
        self.role = Role::Follower;
        self.leader = None;
        self.confirmed = None;
        self.brain = Brain::default();
        (self.handed_over, self.teller, self.written) = (None, Teller::default(), None);
    }

    /// The store is gone.
    pub fn wipe(&mut self, host: usize) {
        *self = Self::new(host);
    }

    /// Whether it takes itself for the leader.
    #[must_use]
    pub fn leads(&self) -> bool {
        matches!(self.role, Role::Leader { .. })
    }

    pub(super) fn last_term(&self) -> u64 {
        self.log.last().map_or(0, |entry| entry.term)
    }

    pub(super) fn term_at(&self, length: usize) -> u64 {
        length.checked_sub(1).and_then(|index| self.log.get(index)).map_or(0, |entry| entry.term)
    }
}
