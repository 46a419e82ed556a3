//! Who leads: elections among the voters of a simulated cluster, and what becomes of a voter that loses its store.
//!
//! ```text
//! Follower --silence, and a majority would vote (pre-vote)--> Candidate --majority--> Leader
//!    ^------------------- a higher term, or a living leader -----+----------------------+
//! ```

use std::collections::{BTreeSet, VecDeque};

use holdfast_policies::evidence::Marks;

use super::{Ms, breaks::Break, consensus::Message, queue::Event, voter::Role, world::World};

/// A follower that has heard a leader within this votes for nobody else.
pub const ELECTION_MIN: Ms = 300;
/// Longest silence before a follower stands.
pub const ELECTION_MAX: Ms = 600;

impl World {
    /// A voter's process has started.
    pub(super) fn start_voter(&mut self, voter: usize) {
        let now = self.now;
        let clock = self.hosts[voter].clock(now);
        let life = self.hosts[voter].life;
        let stand_at = now + self.random.between(ELECTION_MIN, ELECTION_MAX);
        let known = &mut self.voters[voter];
        known.marks = Marks::new(clock);
        known.heard_leader = now;
        known.stand_at = stand_at;
        self.queue.push(stand_at, Event::Election { voter, life });
    }

    fn reset_election(&mut self, voter: usize) {
        let wait = self.random.between(ELECTION_MIN, ELECTION_MAX);
        self.voters[voter].stand_at = self.now + wait;
    }

    pub(super) fn election_due(&mut self, voter: usize, life: u32) {
        let known = &self.voters[voter];
        if self.now < known.stand_at || known.leads() {
            let at = known.stand_at.max(self.now + ELECTION_MIN);
            self.queue.push(at, Event::Election { voter, life });
            return;
        }
        if !known.learner {
            self.stand(voter, true);
        }
        self.reset_election(voter);
        let at = self.voters[voter].stand_at;
        self.queue.push(at, Event::Election { voter, life });
    }

    pub(super) fn stand(&mut self, voter: usize, pre: bool) {
        let known = &mut self.voters[voter];
        let term = known.term + 1;
        if !pre {
            known.term = term;
            known.voted = Some(voter);
            known.confirmed = None;
        }
        known.role = Role::Candidate { votes: BTreeSet::from([voter]), pre };
        known.leader = None;
        let (length, last_term) = (known.log.len(), known.last_term());
        for other in (0..self.voters.len()).filter(|other| *other != voter) {
            self.tell_voter(voter, other, Message::Ask { term, length, last_term, pre });
        }
        self.count_votes(voter);
    }

    pub(super) fn count_votes(&mut self, voter: usize) {
        let majority = self.majority();
        let Role::Candidate { votes, pre } = &self.voters[voter].role else { return };
        if votes.len() < majority {
            return;
        }
        if *pre { self.stand(voter, false) } else { self.lead(voter) }
    }

    fn lead(&mut self, voter: usize) {
        let (now, count, life) = (self.now, self.voters.len(), self.hosts[voter].life);
        let known = &mut self.voters[voter];
        let term = known.term;
        let sent = vec![known.log.len(); count];
        known.role = Role::Leader { has: vec![0; count], sent, rounds: VecDeque::new(), hands_over: false };
        known.leader = Some(voter);
        known.brain = known.brain.anew();
        self.story.note(self.real(), || format!("{} leads in term {term}", self.hosts[voter].name));
        self.append_own(voter, None);
        self.queue.push(now, Event::Heartbeat { voter, life, term });
        self.queue.push(now + 1, Event::Think { voter, life, term });
    }

    pub(super) fn asked_for_vote(
        &mut self,
        to: usize,
        from: usize,
        term: u64,
        length: usize,
        last_term: u64,
        pre: bool,
    ) {
        let now = self.now;
        let known = &self.voters[to];
        if known.learner {
            return;
        }
        let hands_over = matches!(known.role, Role::Leader { hands_over: true, .. });
        let leader_lives = known.leads()
            && !hands_over
            && known.confirmed.is_some_and(|(began, _)| now.saturating_sub(began) < ELECTION_MIN)
            || (known.leader.is_some() && now.saturating_sub(known.heard_leader) < ELECTION_MIN);
        if leader_lives {
            return;
        }
        if !pre && term > known.term {
            self.step_down(to, term);
        }
        let known = &mut self.voters[to];
        let new_enough = (last_term, length) >= (known.last_term(), known.log.len());
        let granted = if pre {
            term > known.term && new_enough
        } else {
            term == known.term && new_enough && known.voted.is_none_or(|voted| voted == from)
        };
        // Who refuses tells of a later term: that one stands in the next one, or nobody ever would.
        let answer_term = if pre && granted { term } else { known.term };
        if granted && !pre {
            known.voted = Some(from);
            known.heard_leader = now;
            self.reset_election(to);
        }
        self.tell_voter(to, from, Message::Vote { term: answer_term, granted, pre });
    }

    /// Takes whoever speaks as the leader of this term for it; one of an older term is told of the newer, and gets `false`.
    pub(super) fn follow(&mut self, voter: usize, leader: usize, term: u64) -> bool {
        if term < self.voters[voter].term {
            let term = self.voters[voter].term;
            self.tell_voter(voter, leader, Message::Appended { term, fits: false, length: 0, round: 0 });
            return false;
        }
        if term > self.voters[voter].term || !matches!(self.voters[voter].role, Role::Follower) {
            self.step_down(voter, term);
        }
        self.reset_election(voter);
        let known = &mut self.voters[voter];
        (known.leader, known.heard_leader) = (Some(leader), self.now);
        true
    }

    pub(super) fn step_down(&mut self, voter: usize, term: u64) {
        let known = &mut self.voters[voter];
        if term > known.term {
            known.term = term;
            known.voted = None;
        }
        if known.leads() {
            known.brain = known.brain.anew();
            known.confirmed = None;
            known.leader = None;
        }
        known.role = Role::Follower;
        self.reset_election(voter);
    }

    /// A voter that lost its store votes again once an operator has promoted it: it has all that is committed then (R24).
    pub(super) fn promote(&mut self, leader: usize, learner: usize) {
        let commit = self.voters[leader].commit;
        let caught_up = self.voters[learner].synced >= commit && commit > 0;
        if caught_up && self.voters[leader].confirmed.is_some_and(|(began, _)| self.now - began < 400) {
            self.voters[learner].learner = false;
            self.members.insert(learner);
            // It has forgotten for whom it voted in this term; it was not for somebody else than who leads.
            self.voters[learner].voted = Some(leader);
            self.story.note(self.real(), || format!("{} has caught up and votes again", self.hosts[learner].name));
        }
    }

    /// A voter's store is lost. Under R24 it comes back as a learner.
    pub(super) fn lose_store(&mut self, voter: usize) {
        self.voters[voter].wipe(voter);
        self.voters[voter].learner = self.broken != Some(Break::R24);
    }
}
