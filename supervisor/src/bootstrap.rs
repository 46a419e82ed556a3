//! Birth of a voter: its one-time ticket, its node id, and the founding membership (R23, R24).
//!
//! `holdfast init` lays a ticket beside each voter's certificate. It is used up when the store is made; a voter whose
//! store is lost has no ticket left, and so does not come back under its old id. Its way back, and that of a host which
//! never voted, is an invitation: a new id, which the coordinator has committed for this host before it says so.
//!
//! ```text
//!  ticket ------> founds --+
//!                          +--> takes part (store, node.json) --> removed, or store lost --+
//!  invitation --> joins  --+                                                               |
//!       ^------------------------------ `holdfast voter add` ------------------------------+
//! ```
//! A recovery (R25) puts another store, under another id, in the place of a survivor's.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context;
use holdfast_policies::hostfile::HostFile;
use serde::{Deserialize, Serialize};

use crate::{
    causes::unless_absent,
    consensus::{ConsensusConfig, Place, Tuning},
    durable::{self, write_durably},
};

/// The content of a ticket, of an invitation, and of the file that keeps the id once it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Id {
    node_id: u64,
}

/// Where everything lies.
#[derive(Debug, Clone)]
pub struct Papers {
    /// The ticket, beside the certificate.
    ticket: PathBuf,
    /// The id of the store.
    id: PathBuf,
    /// The id of a store that is to be made.
    invitation: PathBuf,
    /// The id under which this host voted, until it was removed.
    removed: PathBuf,
    /// The folder of the store.
    store: PathBuf,
}

/// How a host takes part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// It has no vote, and nothing says that it should.
    None,
    /// It is named as a voter, or has been one, and has no store to vote with (R24).
    Lost,
    /// It is a founder that has not been born, or not been seen to be.
    Founds {
        /// Its id.
        node_id: u64,
    },
    /// It makes a store under an id that the coordinator has given it.
    Joins {
        /// Its id.
        node_id: u64,
    },
    /// It has a store.
    Goes {
        /// Its id.
        node_id: u64,
    },
}

impl Papers {
    /// Where the host file says.
    #[must_use]
    pub fn of(file: &HostFile) -> Self {
        let beside = file.tls.certificate.parent().unwrap_or_else(|| Path::new("/"));
        Self {
            ticket: beside.join("bootstrap"),
            id: file.state_dir.join("node.json"),
            invitation: file.state_dir.join("invitation.json"),
            removed: file.state_dir.join("removed.json"),
            store: file.state_dir.join("raft"),
        }
    }

    /// How this host takes part; `named` is whether the host file names it as a voter.
    ///
    /// # Errors
    /// A damaged file.
    pub fn part(&self, named: bool) -> anyhow::Result<Part> {
        let has_store = self.store.join("raft.redb").exists();
        let own = read_id(&self.id)?;
        // Ids only grow: an invitation to an id that this host has had is one that a crash has left behind.
        if let Some(node_id) = read_id(&self.invitation)?.filter(|invited| own.is_none_or(|own| own < *invited)) {
            return Ok(Part::Joins { node_id });
        }
        let ticket = if named { read_id(&self.ticket)? } else { None };
        match (own, ticket) {
            (None, Some(node_id)) if !has_store => Ok(Part::Founds { node_id }),
            // A crash may have come before the ticket was used up. One that comes back later founds nothing.
            (Some(own), Some(node_id)) if own == node_id && (has_store || !self.used_ticket().exists()) => {
                Ok(Part::Founds { node_id })
            }
            (Some(node_id), _) if has_store => Ok(Part::Goes { node_id }),
            (own, _) if (named || own.is_some()) && !self.removed.exists() => Ok(Part::Lost),
            _ => Ok(Part::None),
        }
    }

    /// What is to be known to start consensus; makes room for a store that is to be made.
    ///
    /// # Errors
    /// When what is left of an older store cannot be moved away.
    pub fn config(&self, cluster: &str, node_id: u64, part: &Part) -> anyhow::Result<ConsensusConfig> {
        let create = match part {
            Part::Joins { .. } => {
                self.set_aside()?;
                true
            }
            Part::Founds { .. } => {
                write_id(&self.id, node_id)?;
                true
            }
            Part::Goes { .. } | Part::None | Part::Lost => false,
        };
        let (cluster, store_dir) = (cluster.to_owned(), self.store.clone());
        Ok(ConsensusConfig { cluster, node_id, store_dir, create, tuning: Tuning::default() })
    }

    /// Uses up what let the store be made, so that no other is ever made with it. Before that is done, nobody must hear
    /// of this node: a store that is made again must not have promised anything. It is done at every start, because a
    /// crash may have come in between at the first.
    ///
    /// # Errors
    /// When it cannot be: the store would then not be safe from a second birth.
    pub fn use_up(&self, node_id: u64) -> anyhow::Result<()> {
        // On a full disk nothing can be written, and nothing needs to be.
        if self.raft_id() != Some(node_id) {
            write_id(&self.id, node_id)?;
        }
        unless_absent(fs::rename(&self.ticket, self.used_ticket()))
            .with_context(|| format!("using up the ticket {}", self.ticket.display()))?;
        remove(&self.invitation)?;
        remove(&self.removed)?;
        // A recovery that was not finished is over when the old store votes: nobody is to finish it later.
        self.clear_recovered()
    }

    fn used_ticket(&self) -> PathBuf {
        self.ticket.with_extension("used")
    }

    /// Keeps the id that the coordinator has committed for this host, for the next start.
    ///
    /// # Errors
    /// When it is not on disk.
    pub fn invite(&self, node_id: u64) -> anyhow::Result<()> {
        write_id(&self.invitation, node_id)
    }

    /// This host is not in the membership any more: its store takes part in nothing.
    ///
    /// # Errors
    /// When that cannot be kept.
    pub fn remove(&self, node_id: u64) -> anyhow::Result<()> {
        write_id(&self.removed, node_id)?;
        self.set_aside()
    }

    /// The id of this host's store, as far as it can be read.
    #[must_use]
    pub fn raft_id(&self) -> Option<u64> {
        read_id(&self.id).ok().flatten()
    }

    /// Moves a store away that takes part in nothing any more, and forgets its id. Nobody is to finish a recovery later that was
    /// begun with it: the cluster goes on without.
    fn set_aside(&self) -> anyhow::Result<()> {
        self.clear_recovered()?;
        self.move_store()?;
        remove(&self.id)
    }

    /// The folder of the store.
    #[must_use]
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// Where a recovery makes its store, before that takes the place of the old one.
    #[must_use]
    pub fn recovered(&self) -> PathBuf {
        self.store.with_extension("recovered")
    }

    /// Removes what a recovery has left behind that went no further.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn clear_recovered(&self) -> anyhow::Result<()> {
        remove_folder(&self.recovered())
    }

    /// Where a store is kept that takes part in nothing any more.
    #[must_use]
    pub fn aside(&self) -> PathBuf {
        self.store.with_extension("old")
    }

    /// Puts the store of a new generation, which is whole in [`Self::recovered`], in the place of the old one. Returns where
    /// that one is kept.
    ///
    /// # Errors
    /// When it is not on disk. The old store then takes part in nothing, because its id is not this host's any more; another
    /// recovery goes on from wherever this one has come to.
    pub fn take_recovered(&self, node_id: u64, ended: u32) -> anyhow::Result<PathBuf> {
        let kept = self.store.with_extension(format!("generation-{ended}"));
        if kept.exists() {
            // By the next time the old store may be another one: then nobody has said the words for what was made of this.
            self.clear_recovered()?;
            anyhow::bail!("{} is there already; move it away first", kept.display());
        }
        remove(&self.invitation)?;
        remove(&self.removed)?;
        write_id(&self.id, node_id)?;
        rename(&self.store, &kept)?;
        rename(&self.recovered(), &self.store)?;
        Ok(kept)
    }

    /// Whether it looks as if a crash has cut a recovery short between its last two steps. Where the store was moved away by hand, it
    /// looks so too: then this host has another id than the store that was made.
    #[must_use]
    pub fn is_recovery_cut_short(&self) -> bool {
        !self.store.exists() && self.recovered().exists()
    }

    /// Takes the last step of such a recovery.
    ///
    /// # Errors
    /// When the new store cannot be put in its place.
    pub fn finish_recovery(&self) -> anyhow::Result<()> {
        rename(&self.recovered(), &self.store)
    }

    /// Moves the store away and keeps its id, so that no other is made under it (R24). One is kept, for whoever wants to know
    /// what was in it.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub fn move_store(&self) -> anyhow::Result<()> {
        if !self.store.exists() {
            return Ok(());
        }
        let aside = self.aside();
        remove_folder(&aside)?;
        // A store that is back after a power cut would vote.
        rename(&self.store, &aside)
    }
}

/// Node ids by the order of the voters' names: the same on every host.
#[must_use]
pub fn founding_voters(file: &HostFile) -> BTreeMap<u64, Place> {
    let places = file.voters.iter().map(|(host, address)| Place { host: host.clone(), address: *address });
    (1..).zip(places).collect()
}

fn write_id(path: &Path, node_id: u64) -> anyhow::Result<()> {
    let written = serde_json::to_vec(&Id { node_id }).map_err(io::Error::from);
    written.and_then(|id| write_durably(path, &id)).with_context(|| format!("writing {}", path.display()))
}

fn read_id(path: &Path) -> anyhow::Result<Option<u64>> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes.with_context(|| format!("reading {}", path.display()))?,
    };
    let id: Id = serde_json::from_slice(&bytes).with_context(|| format!("{} is not a node id", path.display()))?;
    Ok(Some(id.node_id))
}

fn rename(from: &Path, to: &Path) -> anyhow::Result<()> {
    durable::rename(from, to).with_context(|| format!("moving {} to {}", from.display(), to.display()))
}

fn remove(path: &Path) -> anyhow::Result<()> {
    unless_absent(fs::remove_file(path)).with_context(|| format!("removing {}", path.display()))
}

fn remove_folder(path: &Path) -> anyhow::Result<()> {
    unless_absent(fs::remove_dir_all(path)).with_context(|| format!("removing {}", path.display()))
}

#[cfg(test)]
mod tests;
