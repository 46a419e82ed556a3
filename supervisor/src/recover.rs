//! A recovery on one surviving voter, whose supervisor does not run (R25): looks, says what it would do, and does it.
//!
//! ```text
//!  survey: the store is read, the other voters are asked --> objection: it need not or must not be done here
//!                                                        \-> carry out: a store of a new generation takes its place
//! ```
//! What the new generation believes of the old state is decided by [`holdfast_policies::recovery`].

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context as _;
use futures_util::future::join_all;
use holdfast_policies::{
    hostfile::HostFile,
    names::HostName,
    recovery::{Recovery, next_generation, next_index},
    revocation::{Revocation, admit},
    state::ClusterState,
    time::WallTime,
};

use crate::{
    agent::disk,
    bootstrap::Papers,
    clock,
    consensus::{self, Anew, Halt, Heard, Machine, Place, Remains, Standing, StartError},
    pki,
    replica::{Replica, command},
    revocations::Kept,
    rpc,
};

/// How long another voter is asked. Whoever is there answers at once; a machine that is gone says nothing.
const ASK_FOR: Duration = Duration::from_secs(3);

/// What a recovery here would start from.
#[derive(Debug, Clone)]
pub struct Survey {
    /// What the store has.
    pub remains: Remains,
    /// The state that it amounts to.
    pub state: ClusterState,
    /// From when its newest entry is, as far as that can be told.
    pub newest: Option<WallTime>,
    /// The other voters, by id, and what was heard of each.
    pub others: BTreeMap<u64, (Place, Heard)>,
    /// What was heard of hosts that the state knows, and that are no voters by what the store says.
    pub elsewhere: BTreeMap<HostName, Heard>,
    /// The newest generation that is known: to the store, to this host's agent, or to anybody who answers.
    pub known: u32,
    /// The newest log index that this host's agent has seen, of whichever generation.
    pub seen: u64,
    /// Hosts that were revoked after the newest entry, as this host was told.
    pub revoked_since: BTreeMap<HostName, Revocation>,
}

/// Whose certificates count no more.
type Revoked = BTreeMap<HostName, Revocation>;

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The generation that begins.
    pub generation: u32,
    /// The raft id of this voter in it.
    pub node_id: u64,
    /// Where the old store is kept.
    pub kept: PathBuf,
}

/// Why no recovery is made here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Objection {
    /// The cluster goes on already.
    #[error(
        "{by} is of generation {later} of this cluster already, and the store here of generation {own}: start this host's \
         supervisor, and run `holdfast voter add {host}` there"
    )]
    GoesOn {
        /// This host.
        host: HostName,
        /// Who.
        by: HostName,
        /// Its generation.
        later: u32,
        /// That of the store here.
        own: u32,
    },
    /// Nothing is lost for good.
    #[error(
        "a majority is there: {heard} of {voters} voters, with this one. Start their supervisors, and they decide again. Where \
         a supervisor runs and its store is of no use any more, stop it"
    )]
    Majority {
        /// How many answer, with this one.
        heard: usize,
        /// Of how many.
        voters: usize,
    },
    /// Another survivor knows more.
    #[error("{by} has a newer store, up to {theirs}; the one here ends at {own}. Recover the cluster there")]
    Newer {
        /// Who.
        by: HostName,
        /// Its last entry.
        theirs: Standing,
        /// The last entry here.
        own: Standing,
    },
}

/// Whether a crash has cut an earlier recovery short, of which only the last step is left: this host has the id of the store that was
/// made. What was left by one that went less far is not put in a place from which somebody has moved a store: nobody has said the
/// words for that.
///
/// # Errors
/// When the store that was made cannot be read.
pub fn is_cut_short(file: &HostFile) -> anyhow::Result<bool> {
    let papers = Papers::of(file);
    if !papers.is_recovery_cut_short() {
        return Ok(false);
    }
    match Remains::read(&papers.recovered(), &file.cluster, &mut Reader::born()) {
        Ok(made) => Ok(papers.raft_id() == Some(made.node_id)),
        Err(StartError::NoStore { .. }) => Ok(false),
        Err(error) => Err(error).with_context(|| {
            format!(
                "{} was left by a recovery that was cut short, and cannot be read: where the old store is still somewhere, remove \
                 this folder, move that one to {}, and run `holdfast recover` again",
                papers.recovered().display(),
                papers.store().display()
            )
        }),
    }
}

/// Takes the last step of such a recovery.
///
/// # Errors
/// When it cannot be taken.
pub fn finish(file: &HostFile) -> anyhow::Result<()> {
    Papers::of(file).finish_recovery()
}

/// Reads the store of this host and asks the other voters that it names.
///
/// # Errors
/// No store, a store in use, or one that cannot be read.
pub fn survey(file: &HostFile) -> anyhow::Result<Survey> {
    let mut reader = Reader::born();
    let papers = Papers::of(file);
    let remains = Remains::read(papers.store(), &file.cluster, &mut reader);
    let remains = remains.map_err(|error| or_aside(error, &papers))?;
    let agent = disk::load(&file.state_dir.join("agent.json"), &file.cluster)?;
    let state = reader.replica.state;
    let told = state.journal.entries().next_back().map(|entry| entry.at);
    let revoked_since = revoked_since(Kept::load(&Kept::path(&file.state_dir))?, &state);
    let mut revoked = state.revoked.clone();
    revoked.extend(revoked_since.clone());
    let (others, elsewhere) = ask_all(file, &remains, &state, &revoked)?;
    let heard = others.values().map(|(_, heard)| heard).chain(elsewhere.values());
    let heard = heard.filter_map(Heard::generation).max().unwrap_or(0);
    let known = state.generation.max(agent.authority.generation).max(heard);
    let (newest, seen) = (reader.newest.max(told), agent.authority.index);
    Ok(Survey { remains, newest, others, elsewhere, known, seen, state, revoked_since })
}

/// What the store does not know of revoked hosts, and this host was told. Lost with the history, a stolen host would be let in
/// again until somebody remembers (R27).
fn revoked_since(told: Kept, state: &ClusterState) -> Revoked {
    if told.index <= state.applied {
        return Revoked::new();
    }
    told.revoked.into_iter().filter(|(host, revocation)| state.revoked.get(host) != Some(revocation)).collect()
}

/// A store that takes part in nothing any more may be the best that is left.
fn or_aside(error: StartError, papers: &Papers) -> anyhow::Error {
    let aside = papers.aside();
    let lacks = matches!(error, StartError::NoStore { .. });
    let error = anyhow::Error::from(error);
    if !lacks || !aside.exists() {
        return error;
    }
    anyhow::anyhow!(
        "{error:#}. One that was taken out of use is in {}: where it is the best that is left anywhere, move it to {} and run \
         `holdfast recover` again",
        aside.display(),
        papers.store().display()
    )
}

/// The machine of a survey: the replica, and when its newest command was proposed.
struct Reader {
    replica: Replica,
    newest: Option<WallTime>,
}

impl Reader {
    fn born() -> Self {
        Self { replica: Replica { state: ClusterState::born() }, newest: None }
    }
}

impl Machine for Reader {
    fn apply(&mut self, index: u64, entry: &[u8]) -> Result<Vec<u8>, Halt> {
        let reply = self.replica.apply(index, entry)?;
        if let Ok(known) = command(entry) {
            self.newest = self.newest.max(Some(known.at));
        }
        Ok(reply)
    }

    fn snapshot(&self) -> Result<Vec<u8>, Halt> {
        self.replica.snapshot()
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), Halt> {
        self.replica.restore(snapshot)
    }
}

/// The other voters by id, and hosts that are none, by name.
type Asked = (BTreeMap<u64, (Place, Heard)>, BTreeMap<HostName, Heard>);

/// Asks everybody at once. Also whoever is no voter here may have become one since, or know that the cluster goes on.
fn ask_all(file: &HostFile, remains: &Remains, state: &ClusterState, revoked: &Revoked) -> anyhow::Result<Asked> {
    let others = remains.voters.iter().filter(|(node_id, _)| **node_id != remains.node_id);
    let others: Vec<(u64, Place)> = others.map(|(node_id, place)| (*node_id, place.clone())).collect();
    let votes = |host: &HostName| *host == file.host || others.iter().any(|(_, place)| place.host == *host);
    let elsewhere = state.hosts.iter().filter(|(host, _)| !votes(host));
    // No node has this id: nobody speaks here to a voter.
    let elsewhere = elsewhere.map(|(host, known)| (0, Place { host: host.clone(), address: known.facts.address }));
    let elsewhere: Vec<(u64, Place)> = elsewhere.collect();
    let mut heard = ask(file, revoked, others.iter().chain(&elsewhere))?.into_iter();
    let others = others.into_iter().zip(heard.by_ref()).map(|((node_id, place), heard)| (node_id, (place, heard)));
    let others = others.collect();
    Ok((others, elsewhere.into_iter().map(|(_, place)| place.host).zip(heard).collect()))
}

/// What is heard of each, in this order.
fn ask<'a>(
    file: &HostFile,
    revoked: &Revoked,
    whom: impl Iterator<Item = &'a (u64, Place)>,
) -> anyhow::Result<Vec<Heard>> {
    let tls = pki::TlsFiles {
        authority: file.tls.ca.clone(),
        certificate: file.tls.certificate.clone(),
        key: file.tls.key.clone(),
    };
    let tls = pki::client_config(&tls)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let list = revoked.clone();
    Ok(runtime.block_on(async {
        let client =
            rpc::Client::choosy(tls, move |certificate| admit(&list, certificate).map_err(|why| why.to_string()));
        join_all(whom.map(|(to, place)| hear(&client, file, revoked, *to, place))).await
    }))
}

/// What is heard of one. Nobody asks a host of which no certificate counts: it could hold up every recovery for ever, by saying
/// that it votes, or that it knows a later generation.
async fn hear(client: &rpc::Client, file: &HostFile, revoked: &Revoked, to: u64, place: &Place) -> Heard {
    if revoked.get(&place.host).is_some_and(|revocation| revocation.readmitted.is_none()) {
        return Heard::Nothing("it is revoked, and not asked".to_owned());
    }
    consensus::ask(client, &file.cluster, to, place, ASK_FOR).await
}

impl Survey {
    /// Why the cluster is not to be recovered here, if so.
    #[must_use]
    pub fn objection(&self, host: &HostName) -> Option<Objection> {
        let others = self.others.values().map(|(place, heard)| (&place.host, heard));
        let votes = others.chain(&self.elsewhere).filter_map(|(host, heard)| match heard {
            Heard::Votes(standing) => Some((host.clone(), *standing)),
            Heard::Unclear(_) | Heard::NoVote { .. } | Heard::Nothing(_) => None,
        });
        let votes: Vec<(HostName, Standing)> = votes.collect();
        let own = self.standing();
        if let Some((by, standing)) = votes.iter().find(|(_, standing)| standing.generation > own.generation) {
            let (host, by, later) = (host.clone(), by.clone(), standing.generation);
            return Some(Objection::GoesOn { host, by, later, own: own.generation });
        }
        if let Some(majority) = self.majority() {
            return Some(majority);
        }
        let newer = votes.iter().filter(|(_, standing)| *standing > own).max_by_key(|(_, standing)| *standing);
        newer.map(|(by, theirs)| Objection::Newer { by: by.clone(), theirs: *theirs, own })
    }

    /// How far the store here has come.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let Remains { written, index, .. } = self.remains;
        Standing { generation: self.state.generation, term: written, index }
    }

    /// That with this one there are enough to decide: a majority of each set of voters that needs one.
    fn majority(&self) -> Option<Objection> {
        let there = |heard: &Heard| matches!(heard, Heard::Votes(_) | Heard::Unclear(_));
        let others = self.others.iter().filter(|(_, (_, heard))| there(heard)).map(|(node_id, _)| *node_id);
        let others: BTreeSet<u64> = others.collect();
        let here = |node_id: &u64| *node_id == self.remains.node_id || others.contains(node_id);
        let decides = |set: &BTreeSet<u64>| set.iter().filter(|node_id| here(node_id)).count() * 2 > set.len();
        // One that has never had another is no majority that could be asked to go on.
        let all = !others.is_empty() && self.remains.sets.iter().all(decides);
        let heard = self.remains.voters.keys().filter(|node_id| here(node_id)).count();
        all.then_some(Objection::Majority { heard, voters: self.remains.voters.len() })
    }

    /// What whoever does it has to say, word for word.
    #[must_use]
    pub fn words(&self) -> String {
        let hosts: Vec<&str> = self.others.values().map(|(place, _)| place.host.as_str()).collect();
        match hosts.as_slice() {
            [] => "what was decided elsewhere is lost for good".to_owned(),
            [one] => format!("{one} is lost for good"),
            [first @ .., last] => format!("{} and {last} are lost for good", first.join(", ")),
        }
    }

    /// Puts the store of a new generation in the place of the one that was surveyed.
    ///
    /// # Errors
    /// Where it stopped; the old store is there, or beside its place. Nothing has changed where the store is in use, or is not
    /// any more what was surveyed: its supervisor was started meanwhile.
    pub fn carry_out(&self, file: &HostFile, by: &str) -> anyhow::Result<Recovered> {
        let papers = Papers::of(file);
        let remains = Remains::read(papers.store(), &file.cluster, &mut Reader::born())?;
        anyhow::ensure!(
            remains == self.remains,
            "the store in {} has changed since it was looked at: run `holdfast recover` again",
            papers.store().display()
        );
        let generation = next_generation(self.known, rand::random()).context("there is no later generation")?;
        // Where the store is older than a generation that is lost, too, that one has begun after the same entry.
        let index = next_index(self.remains.index.max(self.state.applied).max(self.seen));
        let recovery = Recovery {
            generation,
            index,
            at: clock::wall(),
            survivor: file.host.clone(),
            newest: self.newest,
            by: by.to_owned(),
            revoked: self.revoked_since.clone(),
        };
        let mut state = self.state.clone();
        state.recover(&recovery)?;
        let state = Replica { state }.snapshot()?;
        let own = self.remains.voters.get(&self.remains.node_id).cloned();
        let place = own.unwrap_or_else(|| Place { host: file.host.clone(), address: file.reached_at() });
        let term = self.remains.term.saturating_add(1);
        let anew = Anew { cluster: file.cluster.clone(), node_id: index, place, term, index, state };
        papers.clear_recovered()?;
        anew.write(&papers.recovered())?;
        let kept = papers.take_recovered(index, self.state.generation)?;
        Ok(Recovered { generation, node_id: index, kept })
    }
}

#[cfg(test)]
mod tests;
