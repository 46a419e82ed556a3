//! The agent's memory on disk: written whole, synced, put in its place, and synced again, so that it is old or new, never half.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use holdfast_policies::agent::Disk;

use crate::durable::sync_folder_of;

/// Why the memory could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The file is there and cannot be read.
    #[error("the agent's memory in {path} cannot be read")]
    Read {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not what an agent wrote.
    #[error("the agent's memory in {path} is damaged; move it away, and the agent will fetch its floors anew (R12)")]
    Damaged {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// It is another cluster's.
    #[error("the agent's memory in {path} belongs to cluster {found}, not to {wanted}")]
    OtherCluster {
        /// Where.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        wanted: String,
    },
}

/// Reads the memory; an agent without one has lost its floors (R12).
///
/// # Errors
/// [`DiskError`]; the file is left as it is.
pub fn load(path: &Path, cluster: &str) -> Result<Disk, DiskError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Disk { cluster: cluster.to_owned(), ..Disk::default() });
        }
        Err(source) => return Err(DiskError::Read { path: path.to_owned(), source }),
    };
    let disk: Disk =
        serde_json::from_slice(&bytes).map_err(|source| DiskError::Damaged { path: path.to_owned(), source })?;
    if disk.cluster != cluster {
        let (found, wanted) = (disk.cluster, cluster.to_owned());
        return Err(DiskError::OtherCluster { path: path.to_owned(), found, wanted });
    }
    Ok(disk)
}

/// Room that the memory takes at least, in bytes; it grows by as much.
const ROOM_BYTES: usize = 16 * 1024;

/// Writes the agent's memory like [`write_durably`](crate::durable::write_durably), on a full disk too: it is padded, and its place
/// is swapped with that of a spare file of the same size, so that no byte has to be found (R7). Growth beyond that needs room.
///
/// # Errors
/// When it is not certain that the new content is on disk.
pub fn write_memory(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut padded = content.to_vec();
    // White space after a JSON value means nothing.
    padded.resize(content.len().max(1).next_multiple_of(ROOM_BYTES), b' ');
    let spare = path.with_extension("spare");
    write_over(&spare, &padded)?;
    swap(&spare, path)?;
    sync_folder_of(path)?;
    // Room for the next time: not yet there after the first one, or less after a growth.
    if fs::metadata(&spare).map_or(0, |spare| spare.len()) < padded.len() as u64
        && let Err(error) = write_over(&spare, &vec![b' '; padded.len()])
    {
        tracing::warn!(%error, spare = %spare.display(), "no room is kept for the agent's memory; a full disk will stop it");
    }
    Ok(())
}

/// Writes into the blocks that a file has already.
fn write_over(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.set_len(content.len() as u64)?;
    file.sync_all()
}

/// Swaps two files in one step; where that cannot be done, or there is no second one, the first takes the place.
fn swap(spare: &Path, path: &Path) -> io::Result<()> {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    match renameat2(AT_FDCWD, spare, AT_FDCWD, path, RenameFlags::RENAME_EXCHANGE) {
        Ok(()) => Ok(()),
        Err(_) => fs::rename(spare, path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_another_clusters_memory_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.json");
        assert!(!load(&path, "one").unwrap().floors_known);
        let disk = Disk { cluster: "one".to_owned(), floors_known: true, ..Disk::default() };
        write_memory(&path, &serde_json::to_vec(&disk).unwrap()).unwrap();
        assert_eq!(load(&path, "one").unwrap(), disk);
        assert!(matches!(load(&path, "two"), Err(DiskError::OtherCluster { .. })));
    }

    #[test]
    fn the_memory_is_written_again_without_taking_more_room() {
        use std::os::unix::fs::MetadataExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.json");
        fs::write(&path, b"{}").unwrap();
        let mut inodes = std::collections::BTreeSet::new();
        for generation in 1..=5 {
            let mut disk = Disk { cluster: "one".to_owned(), ..Disk::default() };
            disk.authority.generation = generation;
            write_memory(&path, &serde_json::to_vec(&disk).unwrap()).unwrap();
            assert_eq!(load(&path, "one").unwrap(), disk);
            inodes.insert(fs::metadata(&path).unwrap().ino());
            let sizes = ["json", "spare"].map(|kind| fs::metadata(path.with_extension(kind)).unwrap().len());
            assert_eq!(sizes, [ROOM_BYTES as u64; 2], "both keep their room");
        }
        assert_eq!(inodes.len(), 2, "two files take turns");
    }

    #[test]
    fn a_damaged_memory_is_an_error_and_not_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.json");
        fs::write(&path, b"{").unwrap();
        assert!(matches!(load(&path, "one"), Err(DiskError::Damaged { .. })));
    }
}
