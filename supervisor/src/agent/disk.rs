//! The agent's memory on disk: written whole, synced, renamed, and synced again, so that it is old or new, never half.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use holdfast_policies::agent::Disk;

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

/// Writes a file so that after a crash it has its old content or the new one.
///
/// # Errors
/// When it is not certain that the new content is on disk.
pub fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    File::open(folder)?.sync_all()
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
        write_durably(&path, &serde_json::to_vec(&disk).unwrap()).unwrap();
        assert_eq!(load(&path, "one").unwrap(), disk);
        assert!(matches!(load(&path, "two"), Err(DiskError::OtherCluster { .. })));
    }

    #[test]
    fn a_damaged_memory_is_an_error_and_not_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.json");
        fs::write(&path, b"{").unwrap();
        assert!(matches!(load(&path, "one"), Err(DiskError::Damaged { .. })));
    }
}
