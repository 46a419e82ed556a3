//! What is left of a cluster whose majority is lost for good: one voter's store, read without taking part, and the store of
//! a new generation that is made from it (R25).

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
};

use openraft::EntryPayload;
use redb::Durability;

use super::{
    errors::StartError,
    log::{PURGED, VOTE, entries_from},
    machine::{Halt, Machine},
    store::Store,
    types::{LogId, Membership, Place, SnapshotMeta, Vote},
};

/// What one voter's store has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remains {
    /// Under which id it took part.
    pub node_id: u64,
    /// The newest term that it knows.
    pub term: u64,
    /// The term in which its last entry was written.
    pub written: u64,
    /// The index of its last entry.
    pub index: u64,
    /// Who votes, by the newest membership that it has.
    pub voters: BTreeMap<u64, Place>,
    /// The sets of voters each of which needs a majority: one, or two while a change of the membership is under way.
    pub sets: Vec<BTreeSet<u64>>,
}

/// The first and only voter of a new generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anew {
    /// The cluster's id.
    pub cluster: String,
    /// The voter's id, which no node has ever had (R24).
    pub node_id: u64,
    /// Where it is.
    pub place: Place,
    /// A term above every one that the store knew.
    pub term: u64,
    /// The index up to which the state reaches.
    pub index: u64,
    /// The state, as its machine's snapshot.
    pub state: Vec<u8>,
}

impl Remains {
    /// Reads the store in `directory` into a machine that is at birth. Entries of which it is not known whether they were
    /// committed are taken in like all others: they may have been, on voters that are lost, and then they were acted on.
    ///
    /// # Errors
    /// [`StartError`]: no store, another cluster's, one in use, or one that this version cannot read wholly.
    pub fn read(directory: &Path, cluster: &str, machine: &mut dyn Machine) -> Result<Self, StartError> {
        let store = Store::open_any(directory, cluster)?;
        let fail = |source: io::Error| StartError::Store { path: directory.to_owned(), source };
        let halt = |halt: Halt| StartError::Halted(halt.0);
        let vote: Option<Vote> = store.get(VOTE).map_err(fail)?;
        let (mut last, mut votes): (Option<LogId>, _) = (None, (BTreeMap::new(), Vec::new()));
        if let Some((meta, state)) = store.snapshot::<SnapshotMeta>().map_err(fail)? {
            machine.restore(&state).map_err(halt)?;
            votes = votes_of(meta.last_membership.membership());
            last = meta.last_log_id;
        }
        let from = last.map_or(0, |last| last.index().saturating_add(1));
        for (entry, expected) in entries_from(&store, from).map_err(fail)?.into_iter().zip(from..) {
            let log_id = entry.log_id;
            if log_id.index() != expected {
                return Err(StartError::Halted(format!("the log entry {expected} is missing")));
            }
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(bytes) => {
                    machine.apply(expected, &bytes.0).map_err(halt)?;
                }
                EntryPayload::Membership(membership) => votes = votes_of(&membership),
            }
            last = Some(log_id);
        }
        let written = last.map_or(0, |last| last.committed_leader_id().term);
        let (voters, sets) = votes;
        Ok(Self {
            node_id: store.identity().node_id,
            term: vote.map_or(0, |vote| vote.leader_id.term).max(written),
            written,
            index: last.map_or(0, |last| last.index()),
            voters,
            sets,
        })
    }
}

impl Anew {
    /// Makes the store in `directory`, which has none. It is whole and on disk when this returns.
    ///
    /// # Errors
    /// [`StartError`]; what there is then must not be used.
    pub fn write(&self, directory: &Path) -> Result<(), StartError> {
        let node_id = self.node_id;
        let store = Store::open(directory, &self.cluster, node_id, true)?;
        let fail = |source: io::Error| StartError::Store { path: directory.to_owned(), source };
        // As after a restart of a leader that was alone and had taken a snapshot of all that it had.
        let vote = Vote::new_committed(self.term, node_id);
        let log_id = LogId::new(vote.leader_id, self.index);
        let nodes = BTreeMap::from([(node_id, self.place.clone())]);
        let membership = openraft::Membership::new(vec![BTreeSet::from([node_id])], nodes)
            .map_err(|error| StartError::Halted(error.to_string()))?;
        let last_membership = Membership::new(Some(log_id), membership);
        let meta = SnapshotMeta { last_log_id: Some(log_id), last_membership };
        store.put_snapshot(&meta, &self.state, |_| false).map_err(fail)?;
        store.put(PURGED, &log_id, Durability::Immediate).map_err(fail)?;
        store.put(VOTE, &vote, Durability::Immediate).map_err(fail)
    }
}

/// Who votes, and the sets that each need a majority.
fn votes_of(membership: &openraft::Membership<u64, Place>) -> (BTreeMap<u64, Place>, Vec<BTreeSet<u64>>) {
    let place = |node_id: u64| membership.get_node(&node_id).map(|place| (node_id, place.clone()));
    (membership.voter_ids().filter_map(place).collect(), membership.get_joint_config().clone())
}
