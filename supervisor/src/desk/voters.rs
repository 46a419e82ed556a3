//! The voters as people see them, and what a change of them would come to: pure, so that every refusal can be tested.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
};

use holdfast_policies::names::HostName;
use serde::{Deserialize, Serialize};

use super::words::Table;
use crate::consensus::Roster;

/// Most voters: more make every decision slower and none safer.
pub const VOTERS_MAX: usize = 7;

/// Fewer voters do not survive the loss of one.
pub const VOTERS_MIN: usize = 3;

/// A node that lacks no more entries than this has caught up; so many may be under way at any moment.
const BEHIND_MAX: u64 = 100;

/// Who takes part in the agreement. Its JSON form is an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoterList {
    /// The nodes of the committed membership, by id.
    pub voters: Vec<VoterStatus>,
    /// A change has begun and is not finished.
    pub changing: bool,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoterStatus {
    /// Its raft id, which no other store ever has.
    pub node_id: u64,
    /// Its host.
    pub host: HostName,
    /// Where its supervisor listens.
    pub address: SocketAddr,
    /// Whether it votes; a learner only gets the log.
    pub votes: bool,
    /// Whether it coordinates.
    pub leads: bool,
    /// Whether it has confirmed anything lately.
    pub answers: bool,
    /// How many log entries it lacks; `None` when it has confirmed none to this coordinator.
    pub behind: Option<u64>,
}

/// A change of the membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A learner joins.
    Add,
    /// These are to be the voters.
    Vote(BTreeSet<u64>),
    /// A learner leaves.
    Drop(u64),
}

/// Why the voters are left as they are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Nothing is to be done.
    #[error("{0}")]
    Already(String),
    /// No such voter.
    #[error("{0} is neither a voter nor a learner; `holdfast voter list` shows who is")]
    NoVoter(HostName),
    /// One change at a time.
    #[error("another change of the voters has not been finished; it goes on by itself when a majority of them answers")]
    Changing,
    /// Whoever votes and answers has not lost its store.
    #[error("{host} votes as raft node {node_id} and answers; only a host whose store was lost is added anew")]
    Votes {
        /// The host.
        host: HostName,
        /// Its id.
        node_id: u64,
    },
    /// Promotion comes after the addition.
    #[error("{0} does not get the log yet: `holdfast voter add {0}` comes first")]
    NotAdded(HostName),
    /// The learner is not there.
    #[error("{host} has not confirmed anything as raft node {node_id}; is its supervisor running?")]
    Silent {
        /// The host.
        host: HostName,
        /// The learner's id.
        node_id: u64,
    },
    /// It would hold up decisions until it has caught up.
    #[error("{host} lacks {behind} log entries; wait until it has caught up")]
    Behind {
        /// The host.
        host: HostName,
        /// How many.
        behind: u64,
    },
    /// Too many.
    #[error("there would be {0} voters, and {VOTERS_MAX} are the most")]
    TooMany(usize),
    /// Too few to survive the loss of one.
    #[error(
        "only {0} voters would be left, and the loss of one of them would stop all decisions; --force removes it all the same"
    )]
    TooFew(usize),
    /// Nothing could be decided afterwards.
    #[error(
        "only {answering} of the {voters} voters that would be left answer: that is no majority, and nothing could be decided"
    )]
    NoMajority {
        /// How many answer.
        answering: usize,
        /// Of how many.
        voters: usize,
    },
    /// It is needed for the change.
    #[error("{0} coordinates; restart its supervisor, so that another one does, and say it again")]
    Leads(HostName),
}

impl VoterList {
    /// What the leader knows.
    #[must_use]
    pub fn of(roster: &Roster) -> Self {
        let status = |(node_id, entry): (&u64, &crate::consensus::RosterEntry)| VoterStatus {
            node_id: *node_id,
            host: entry.place.host.clone(),
            address: entry.place.address,
            votes: entry.votes,
            leads: entry.leads,
            answers: entry.answers,
            behind: entry.behind,
        };
        Self { voters: roster.nodes.iter().map(status).collect(), changing: roster.unfinished.is_some() }
    }

    /// Where the voters listen.
    #[must_use]
    pub fn places(&self) -> BTreeMap<HostName, SocketAddr> {
        self.voters.iter().filter(|voter| voter.votes).map(|voter| (voter.host.clone(), voter.address)).collect()
    }

    /// Whether a node is in the membership.
    #[must_use]
    pub fn has(&self, node_id: u64) -> bool {
        self.voters.iter().any(|voter| voter.node_id == node_id)
    }

    /// The id under which a host is to join; `own` is the last that it has had. Ids only grow.
    #[must_use]
    pub fn invited(&self, host: &HostName, own: Option<u64>) -> Option<u64> {
        self.learner(host).map(|learner| learner.node_id).filter(|node_id| own.is_none_or(|own| own < *node_id))
    }

    /// What adding a host comes to.
    ///
    /// # Errors
    /// [`Unfit`]
    pub fn add(&self, host: &HostName) -> Result<Step, Unfit> {
        if let Some(learner) = self.learner(host) {
            return Err(Unfit::Already(format!("{host} gets the log already, as raft node {}", learner.node_id)));
        }
        match self.voters.iter().find(|voter| voter.votes && voter.host == *host && voter.answers) {
            Some(voter) => Err(Unfit::Votes { host: host.clone(), node_id: voter.node_id }),
            None if self.changing => Err(Unfit::Changing),
            None => Ok(Step::Add),
        }
    }

    /// What giving a learner its vote comes to: the id under which its host voted before leaves in the same change.
    ///
    /// # Errors
    /// [`Unfit`]
    pub fn promote(&self, host: &HostName) -> Result<Step, Unfit> {
        let Some(learner) = self.learner(host) else {
            return Err(match self.voters.iter().find(|voter| voter.host == *host && voter.answers) {
                Some(voter) => Unfit::Already(format!("{host} votes already, as raft node {}", voter.node_id)),
                None => Unfit::NotAdded(host.clone()),
            });
        };
        if self.changing {
            return Err(Unfit::Changing);
        }
        match learner.behind {
            Some(behind) if learner.answers && behind > BEHIND_MAX => Err(Unfit::Behind { host: host.clone(), behind }),
            Some(_) if learner.answers => {
                let stays = |voter: &&VoterStatus| voter.votes && voter.host != *host;
                self.fit(self.voters.iter().filter(stays).chain([learner]).collect())
            }
            Some(_) | None => Err(Unfit::Silent { host: host.clone(), node_id: learner.node_id }),
        }
    }

    /// What removing a host comes to. One that is being added is taken back first.
    ///
    /// # Errors
    /// [`Unfit`]
    pub fn remove(&self, host: &HostName, force: bool) -> Result<Step, Unfit> {
        let Some(voter) = self.voters.iter().find(|voter| voter.votes && voter.host == *host) else {
            let learner = self.learner(host).ok_or_else(|| Unfit::NoVoter(host.clone()))?;
            return if self.changing { Err(Unfit::Changing) } else { Ok(Step::Drop(learner.node_id)) };
        };
        if self.changing {
            return Err(Unfit::Changing);
        }
        if let Some(learner) = self.learner(host) {
            return Ok(Step::Drop(learner.node_id));
        }
        if voter.leads {
            return Err(Unfit::Leads(host.clone()));
        }
        let left: Vec<&VoterStatus> = self.voters.iter().filter(|voter| voter.votes && voter.host != *host).collect();
        if left.len() < VOTERS_MIN && !force {
            return Err(Unfit::TooFew(left.len()));
        }
        self.fit(left)
    }

    /// Whether these can be the voters: not too many, and a majority of them is there.
    fn fit(&self, voters: Vec<&VoterStatus>) -> Result<Step, Unfit> {
        if voters.len() > VOTERS_MAX {
            return Err(Unfit::TooMany(voters.len()));
        }
        let answering = voters.iter().filter(|voter| voter.answers).count();
        if answering * 2 <= voters.len() {
            return Err(Unfit::NoMajority { answering, voters: voters.len() });
        }
        Ok(Step::Vote(voters.into_iter().map(|voter| voter.node_id).collect()))
    }

    fn learner(&self, host: &HostName) -> Option<&VoterStatus> {
        self.voters.iter().filter(|voter| !voter.votes && voter.host == *host).max_by_key(|voter| voter.node_id)
    }
}

/// What to say of so many voters, when there is something.
#[must_use]
pub fn warning(voters: usize) -> Option<String> {
    match voters {
        0..VOTERS_MIN => Some(format!("with {voters}, the loss of one voter stops all decisions")),
        even if even % 2 == 0 => {
            Some(format!("{even} voters survive no more losses than {}: make it an odd number", even - 1))
        }
        _ => None,
    }
}

impl fmt::Display for VoterList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&["NODE", "HOST", "ADDRESS", "VOTE", "ANSWERS", "BEHIND"]);
        for voter in &self.voters {
            let vote = match (voter.votes, voter.leads) {
                (_, true) => "leads",
                (true, false) => "yes",
                (false, false) => "learner",
            };
            let behind = voter.behind.map_or("?".to_owned(), |behind| behind.to_string());
            let answers = if voter.answers { "yes" } else { "NO" };
            let (node_id, address) = (voter.node_id.to_string(), voter.address.to_string());
            table.row([&node_id, voter.host.as_str(), &address, vote, answers, &behind].map(str::to_owned).into());
        }
        write!(f, "{table}")?;
        if self.changing {
            writeln!(f, "A change has begun and is not finished; it goes on when a majority of the voters answers.")?;
        }
        let votes = self.voters.iter().filter(|voter| voter.votes).count();
        warning(votes).map_or(Ok(()), |warning| writeln!(f, "Note: {warning}."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> HostName {
        HostName::new(name).unwrap()
    }

    /// `h1` leads. `true` stands for a node that answers.
    fn list(voters: &[(u64, &str, bool)], learners: &[(u64, &str, bool)]) -> VoterList {
        let status = |votes: bool| {
            move |(node_id, name, answers): &(u64, &str, bool)| VoterStatus {
                node_id: *node_id,
                host: host(name),
                address: "10.0.0.1:7400".parse().unwrap(),
                votes,
                leads: votes && *name == "h1",
                answers: *answers,
                behind: Some(1),
            }
        };
        let voters = voters.iter().map(status(true)).chain(learners.iter().map(status(false)));
        VoterList { voters: voters.collect(), changing: false }
    }

    #[test]
    fn a_host_that_lost_its_store_comes_back_under_a_new_id_and_the_old_one_leaves() {
        let lost = [(1, "h1", true), (2, "h2", true), (3, "h3", false)];
        assert_eq!(list(&lost, &[]).add(&host("h3")), Ok(Step::Add));
        let added = list(&lost, &[(140, "h3", true)]);
        assert_eq!(added.invited(&host("h3"), Some(3)), Some(140));
        assert_eq!(added.invited(&host("h3"), Some(140)), None);
        assert_eq!(added.invited(&host("h3"), Some(150)), None, "ids only grow");
        assert!(matches!(added.add(&host("h3")), Err(Unfit::Already(_))));
        assert_eq!(added.promote(&host("h3")), Ok(Step::Vote(BTreeSet::from([1, 2, 140]))));
        assert_eq!(added.remove(&host("h3"), false), Ok(Step::Drop(140)), "the addition is taken back first");
    }

    #[test]
    fn a_voter_that_answers_is_not_added_and_a_learner_that_does_not_is_not_promoted() {
        let all = [(1, "h1", true), (2, "h2", true), (3, "h3", true)];
        assert_eq!(list(&all, &[]).add(&host("h3")), Err(Unfit::Votes { host: host("h3"), node_id: 3 }));
        assert_eq!(list(&all, &[]).promote(&host("m1")), Err(Unfit::NotAdded(host("m1"))));
        assert!(matches!(list(&all, &[]).promote(&host("h2")), Err(Unfit::Already(_))));
        let mut added = list(&all, &[(150, "m1", false)]);
        let silent = Err(Unfit::Silent { host: host("m1"), node_id: 150 });
        assert_eq!(added.promote(&host("m1")), silent);
        added.voters[3].answers = true;
        assert_eq!(added.promote(&host("m1")), Ok(Step::Vote(BTreeSet::from([1, 2, 3, 150]))));
        added.voters[3].behind = Some(5_000);
        assert_eq!(added.promote(&host("m1")), Err(Unfit::Behind { host: host("m1"), behind: 5_000 }));
        added.voters[3].behind = None;
        assert_eq!(added.promote(&host("m1")), silent);
        added.changing = true;
        assert_eq!(added.promote(&host("m1")), Err(Unfit::Changing));
    }

    #[test]
    fn a_voter_is_removed_only_when_enough_are_left_that_answer() {
        let three = list(&[(1, "h1", true), (2, "h2", true), (3, "h3", false)], &[]);
        assert_eq!(three.remove(&host("h3"), false), Err(Unfit::TooFew(2)));
        assert_eq!(three.remove(&host("h3"), true), Ok(Step::Vote(BTreeSet::from([1, 2]))));
        // Not even by force: one of two is no majority.
        assert_eq!(three.remove(&host("h2"), true), Err(Unfit::NoMajority { answering: 1, voters: 2 }));
        assert_eq!(three.remove(&host("h1"), true), Err(Unfit::Leads(host("h1"))));
        assert_eq!(three.remove(&host("h9"), true), Err(Unfit::NoVoter(host("h9"))));
        let five = [(1, "h1", true), (2, "h2", true), (3, "h3", false), (4, "h4", false), (5, "h5", true)];
        assert_eq!(list(&five, &[]).remove(&host("h4"), false), Ok(Step::Vote(BTreeSet::from([1, 2, 3, 5]))));
        assert_eq!(list(&five, &[]).remove(&host("h5"), false), Err(Unfit::NoMajority { answering: 2, voters: 4 }));
        assert_eq!(
            [1, 2, 3, 4, 5, 6, 7].map(|voters| warning(voters).is_some()),
            [true, true, false, true, false, true, false]
        );
    }
}
