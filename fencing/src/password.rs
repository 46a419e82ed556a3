//! Passwords of devices: read from a file each time, so that a changed one counts at once.

use std::{
    io,
    path::{Path, PathBuf},
};

use holdfast_policies::secret::{NoSecret, closed, one_line};

use crate::aside;

/// Longest password file, in bytes; IPMI knows at most 20.
const PASSWORD_BYTES_MAX: u64 = 256;

/// Why there is no password.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PasswordError {
    #[error("cannot read password file {path}")]
    Read {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error(transparent)]
    Unfit(#[from] NoSecret),
}

/// Reads a password; the end of its line is not part of it.
///
/// # Errors
/// [`PasswordError`], none of which shows any part of the content.
pub(crate) async fn read(path: &Path) -> Result<String, PasswordError> {
    let failed = |cause| PasswordError::Read { path: path.to_owned(), cause };
    let (mode, content) = aside::read(path, PASSWORD_BYTES_MAX + 1).await.map_err(failed)?;
    closed(path, mode)?;
    Ok(one_line(path, content, PASSWORD_BYTES_MAX)?)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

    use super::*;

    #[tokio::test]
    async fn a_password_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        fs::write(&path, "secret\n").unwrap();
        for (mode, fine) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&path).await.ok(), fine.then(|| "secret".to_owned()), "{mode:o}");
        }
    }

    #[tokio::test]
    async fn a_password_file_that_is_a_pipe_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
        let read = tokio::time::timeout(Duration::from_secs(20), read(&path)).await.expect("it waits for nobody");
        assert!(matches!(read, Err(PasswordError::Read { .. })), "{read:?}");
    }
}
