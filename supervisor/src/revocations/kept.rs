//! What this host was told of revoked hosts, kept on disk: a supervisor that starts anew asks voters whom it knows from its
//! host file for everything else, and must not take the word of one that was revoked since (R27).

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use holdfast_policies::{names::HostName, revocation::Revocation, sync::View};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::durable::write_durably;

/// A list, and how new it is. It is as long as the committed one, which is bounded.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Kept {
    /// The log index of the view that it was in; 0 when nothing was kept.
    pub index: u64,
    /// Hosts whose certificates count no more.
    pub revoked: BTreeMap<HostName, Revocation>,
}

/// Why the list could not be read.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// The file is there and cannot be read.
    #[error("the list of revoked hosts in {path} cannot be read")]
    Read {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not what a supervisor wrote.
    #[error("the list of revoked hosts in {path} is damaged; move it away, and the coordinator tells it anew")]
    Damaged {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl Kept {
    /// Where a host keeps it.
    #[must_use]
    pub fn path(state_dir: &Path) -> PathBuf {
        state_dir.join("revoked.json")
    }

    /// Reads the list; empty where none was kept.
    ///
    /// # Errors
    /// [`KeptError`]; the file is left as it is.
    pub fn load(path: &Path) -> Result<Self, KeptError> {
        match fs::read(path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|source| KeptError::Damaged { path: path.to_owned(), source })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(KeptError::Read { path: path.to_owned(), source }),
        }
    }
}

/// Keeps each list that is another one than is on disk, for as long as this host is told anything.
pub(super) async fn keep(path: PathBuf, mut kept: Arc<Kept>, mut views: watch::Receiver<Arc<View>>) {
    while views.changed().await.is_ok() {
        let view = Arc::clone(&views.borrow_and_update());
        if view.revoked == kept.revoked {
            continue;
        }
        let told = Arc::new(Kept { index: view.index, revoked: view.revoked.clone() });
        match write(path.clone(), Arc::clone(&told)).await {
            Ok(()) => kept = told,
            // The next view tries it again.
            Err(error) => tracing::warn!(%error, path = %path.display(), "the list of revoked hosts was not kept"),
        }
    }
}

async fn write(path: PathBuf, kept: Arc<Kept>) -> io::Result<()> {
    let content = serde_json::to_vec(&*kept)?;
    tokio::task::spawn_blocking(move || write_durably(&path, &content)).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_list_of_revoked_hosts_is_an_error_and_not_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = Kept::path(folder.path());
        assert_eq!(Kept::load(&path).unwrap(), Kept::default(), "nothing was kept");
        fs::write(&path, b"{").unwrap();
        assert!(matches!(Kept::load(&path), Err(KeptError::Damaged { .. })));
    }
}
