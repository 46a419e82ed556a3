//! Birth of a voter: its one-time ticket, its node id, and the founding membership (R23, R24).
//!
//! `holdfast init` lays a ticket beside each voter's certificate. It is used up when the store is made; a voter whose
//! store is lost has no ticket left, and so does not come back under its old id.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use holdfast_policies::hostfile::HostFile;
use serde::{Deserialize, Serialize};

use crate::{
    agent::disk::write_durably,
    consensus::{ConsensusConfig, Place, Tuning},
};

/// The content of a ticket, and of the file that keeps the id once it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Id {
    node_id: u64,
}

/// A ticket that lies where `init` has put it.
#[derive(Debug)]
pub struct Ticket {
    path: PathBuf,
}

impl Ticket {
    /// Uses the ticket up, so that no other store is ever made with it.
    ///
    /// # Errors
    /// When it cannot be removed: the store would then not be safe from a second birth.
    pub fn use_up(self) -> anyhow::Result<()> {
        match fs::rename(&self.path, self.path.with_extension("used")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("using up the ticket {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }
}

/// What a voter is born with.
#[derive(Debug)]
pub struct Birth {
    /// How to start consensus.
    pub config: ConsensusConfig,
    /// The founding membership.
    pub voters: BTreeMap<u64, Place>,
    /// To be used up once the store is made.
    pub ticket: Ticket,
}

/// Prepares the start of consensus; `None` on hosts without a vote.
///
/// # Errors
/// A voter without store and without ticket, or with a damaged one.
pub fn prepare(file: &HostFile) -> anyhow::Result<Option<Birth>> {
    let store_dir = file.state_dir.join("raft");
    let id_file = file.state_dir.join("node.json");
    let ticket = ticket_path(file);
    let born = id_file.exists() && store_dir.join("raft.redb").exists();
    let founding = founding_voters(file);
    let is_voter = file.voters.contains_key(&file.host);
    if !is_voter {
        return Ok(None);
    }
    let id = if born {
        read_id(&id_file)?
    } else {
        ensure!(
            ticket.exists(),
            "{} is a voter, but has neither a store in {} nor a ticket in {}: its store was lost. It must not vote under \
             its old id again (R24); remove it from the voters, or restore the whole machine",
            file.host,
            store_dir.display(),
            ticket.display()
        );
        let id = read_id(&ticket)?;
        write_durably(&id_file, &serde_json::to_vec(&id)?)?;
        id
    };
    let config = ConsensusConfig {
        cluster: file.cluster.clone(),
        node_id: id.node_id,
        store_dir,
        create: !born,
        tuning: Tuning::default(),
    };
    Ok(Some(Birth { config, voters: founding, ticket: Ticket { path: ticket } }))
}

/// The ticket lies beside the certificate.
fn ticket_path(file: &HostFile) -> PathBuf {
    file.tls.certificate.parent().unwrap_or_else(|| Path::new("/")).join("bootstrap")
}

/// Node ids by the order of the voters' names: the same on every host.
fn founding_voters(file: &HostFile) -> BTreeMap<u64, Place> {
    let places = file.voters.iter().map(|(host, address)| Place { host: host.clone(), address: *address });
    (1..).zip(places).collect()
}

fn read_id(path: &Path) -> anyhow::Result<Id> {
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is not a node id", path.display()))
}
