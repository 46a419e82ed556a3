//! The file under raft: who it belongs to, the vote, the log and the last snapshot, in one redb database.
//!
//! Every failure to read or write is noted in [`Health`] with the file's path, because raft stops at the first one: a
//! voter that cannot keep its word on disk must not vote.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    errors::StartError,
    health::{Cause, Health},
};

/// Single values, as JSON by name.
const VALUES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("values");
/// Log entries, as JSON by index.
pub(super) const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// The last snapshot's data, under one key.
const SNAPSHOT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("snapshot");

const FILE_NAME: &str = "raft.redb";
const IDENTITY: &str = "identity";
const SNAPSHOT_META: &str = "snapshot";
const SNAPSHOT_DATA: &str = "data";
/// Format of the store that this version writes.
const FORMAT: u32 = 1;
/// Memory for the database's pages, in bytes: what is read often is in the machine, and the library's default of 1 GiB
/// belongs to the guests.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

/// Whose store this is; written once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) format: u32,
    pub(super) cluster: String,
    pub(super) node_id: u64,
    /// Random, so that a copied or restored store can be told from the one that peers knew.
    pub(super) store_id: u64,
}

/// An open store.
pub(super) struct Store {
    database: Database,
    path: PathBuf,
    health: Health,
    identity: Identity,
}

impl Store {
    /// Opens the store in `directory`, or makes it when it is missing and `create` allows that.
    pub(super) fn open(directory: &Path, cluster: &str, node_id: u64, create: bool) -> Result<Self, StartError> {
        let path = directory.join(FILE_NAME);
        if !create && !path.exists() {
            return Err(StartError::NoStore { path });
        }
        let fail = |source| StartError::Store { path: path.clone(), source };
        if create {
            prepare(directory, &path).map_err(fail)?;
        }
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(&path)
            .map_err(|error| fail(io_error(redb::Error::from(error))))?;
        Self::adopt(database, path, cluster, node_id, create)
    }

    /// Opens the store in `directory` under whatever id it was made, to read it.
    pub(super) fn open_any(directory: &Path, cluster: &str) -> Result<Self, StartError> {
        let path = directory.join(FILE_NAME);
        if !path.exists() {
            return Err(StartError::NoStore { path });
        }
        let fail = |path: &Path, source| StartError::Store { path: path.to_owned(), source };
        let database = Database::builder().set_cache_size(CACHE_BYTES).open(&path);
        let database = database.map_err(|error| fail(&path, io_error(redb::Error::from(error))))?;
        let nobody = Identity { format: FORMAT, cluster: cluster.to_owned(), node_id: 0, store_id: 0 };
        let store = Self { database, path, health: Health::default(), identity: nobody };
        match store.get::<Identity>(IDENTITY).map_err(|source| fail(&store.path, source))? {
            Some(found) => Self::adopt(store.database, store.path, cluster, found.node_id, false),
            None => Err(StartError::NoStore { path: store.path }),
        }
    }

    /// Checks whose database this is; gives a new one its identity when `create` allows that.
    pub(super) fn adopt(
        database: Database,
        path: PathBuf,
        cluster: &str,
        node_id: u64,
        create: bool,
    ) -> Result<Self, StartError> {
        let wanted = Identity { format: FORMAT, cluster: cluster.to_owned(), node_id, store_id: rand::random() };
        let mut store = Self { database, path, health: Health::default(), identity: wanted.clone() };
        let path = || store.path.clone();
        let fail = |source| StartError::Store { path: path(), source };
        store.identity = match store.get::<Identity>(IDENTITY).map_err(fail)? {
            Some(found) if found.format > FORMAT => {
                return Err(StartError::Format { path: path(), found: found.format, known: FORMAT });
            }
            Some(found) if found.cluster != cluster => {
                return Err(StartError::OtherCluster { path: path(), found: found.cluster, wanted: wanted.cluster });
            }
            Some(found) if found.node_id != node_id => {
                return Err(StartError::OtherNode { path: path(), found: found.node_id, wanted: node_id });
            }
            Some(found) => found,
            // A crash between making the file and giving it an identity leaves such a file.
            None if !create => return Err(StartError::NoStore { path: path() }),
            None => {
                store.put(IDENTITY, &wanted, Durability::Immediate).map_err(fail)?;
                wanted
            }
        };
        Ok(store)
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    /// The value under `name`.
    pub(super) fn get<T: DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        let found = self.read(|transaction| {
            let table = match transaction.open_table(VALUES) {
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
                table => table?,
            };
            Ok(table.get(name)?.map(|value| value.value().to_vec()))
        })?;
        found.map(|json| self.decode(&json)).transpose()
    }

    /// Stores `value` under `name`.
    pub(super) fn put<T: Serialize>(&self, name: &str, value: &T, durability: Durability) -> io::Result<()> {
        let json = serde_json::to_vec(value)?;
        self.write(durability, |transaction| put_in(transaction, name, &json))
    }

    /// The last snapshot's description.
    pub(super) fn snapshot_meta<T: DeserializeOwned>(&self) -> io::Result<Option<T>> {
        self.get(SNAPSHOT_META)
    }

    /// The last snapshot: its description and its data.
    pub(super) fn snapshot<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<u8>)>> {
        let Some(meta) = self.snapshot_meta()? else { return Ok(None) };
        let data = self.read(|transaction| {
            let table = transaction.open_table(SNAPSHOT)?;
            Ok(table.get(SNAPSHOT_DATA)?.map(|data| data.value().to_vec()))
        })?;
        let data = data.ok_or_else(|| self.failed("read", "a snapshot is described but missing"))?;
        Ok(Some((meta, data)))
    }

    /// Replaces the last snapshot, wholly or not at all, unless `keep` says of the stored one that it is as good: a
    /// snapshot taken here can be late, after a newer one came from the leader.
    pub(super) fn put_snapshot<T: Serialize + DeserializeOwned>(
        &self,
        meta: &T,
        data: &[u8],
        keep: impl FnOnce(&T) -> bool,
    ) -> io::Result<()> {
        let json = serde_json::to_vec(meta)?;
        self.write(Durability::Immediate, |transaction| {
            let stored = transaction.open_table(VALUES)?.get(SNAPSHOT_META)?.map(|stored| stored.value().to_vec());
            let stored: Option<T> = stored.and_then(|stored| serde_json::from_slice(&stored).ok());
            if stored.is_some_and(|stored| keep(&stored)) {
                return Ok(());
            }
            put_in(transaction, SNAPSHOT_META, &json)?;
            transaction.open_table(SNAPSHOT)?.insert(SNAPSHOT_DATA, data)?;
            Ok(())
        })
    }

    /// Runs `work` in a reading transaction.
    pub(super) fn read<T>(&self, work: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>) -> io::Result<T> {
        let result = self.database.begin_read().map_err(redb::Error::from).and_then(|transaction| work(&transaction));
        result.map_err(|error| self.failed("read", error))
    }

    /// Runs `work` in a writing transaction and commits it. With [`Durability::Immediate`] it is on the disk when this
    /// returns; with [`Durability::None`] it is lost by a power cut unless a durable commit followed.
    pub(super) fn write(
        &self,
        durability: Durability,
        work: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> io::Result<()> {
        self.write_inner(durability, work).map_err(|error| self.failed("write", error))
    }

    fn write_inner(
        &self,
        durability: Durability,
        work: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(durability)?;
        work(&transaction)?;
        transaction.commit()?;
        Ok(())
    }

    /// Reads back what this store wrote.
    pub(super) fn decode<T: DeserializeOwned>(&self, json: &[u8]) -> io::Result<T> {
        serde_json::from_slice(json).map_err(|error| self.failed("read", error))
    }

    /// Notes the failure and makes it an I/O error that names the file.
    pub(super) fn failed(&self, doing: &str, error: impl std::fmt::Display) -> io::Error {
        let reason = format!("cannot {doing} the raft store {}: {error}", self.path.display());
        self.health.fail(Cause::Store, &reason);
        io::Error::other(reason)
    }
}

/// Runs `work` on the store where blocking is allowed.
pub(super) async fn blocking<T: Send + 'static>(
    store: &Arc<Store>,
    work: impl FnOnce(&Store) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let store = Arc::clone(store);
    tokio::task::spawn_blocking(move || work(&store)).await.map_err(io::Error::other)?
}

pub(super) fn put_in(transaction: &WriteTransaction, name: &str, json: &[u8]) -> Result<(), redb::Error> {
    transaction.open_table(VALUES)?.insert(name, json)?;
    Ok(())
}

fn io_error(error: redb::Error) -> io::Error {
    match error {
        redb::Error::Io(error) => error,
        other => io::Error::other(other),
    }
}

/// Makes the directory and an empty file that only the supervisor may read, and both durable.
fn prepare(directory: &Path, path: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    fs::File::open(directory)?.sync_all()
}
