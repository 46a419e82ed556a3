//! Reads what a receiver needs to be believed, from a file that only its owner can read, anew at every send.
//!
//! Reading it each time means that a changed key works at once, and that no key stays in memory between incidents.

use std::{
    fs::OpenOptions,
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use holdfast_policies::model::Receiver;
use holdfast_probes::aside::Aside;

use super::request::Secret;

/// Longest secret file, in bytes. A routing key has 32; more than this is some other file.
const SECRET_BYTES_MAX: u64 = 4_096;

/// Permission bits of group and others.
const OTHERS: u32 = 0o077;

/// What one receiver needs to be believed.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    /// PagerDuty's integration key.
    pub routing_key: Option<Secret>,
}

/// Why a secret could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read secret file {path}", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others than the owner may use it.
    #[error("secret file {path} has mode {mode:04o}; make it 0600", path = path.display())]
    Mode {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It does not hold one printable word.
    #[error("secret file {path} does not hold one word of at most {SECRET_BYTES_MAX} bytes", path = path.display())]
    Content {
        /// Which file.
        path: PathBuf,
    },
}

/// Secret files that are read at once, and how often the same one is. On a file system that hangs each takes a thread, which every
/// incident would try again and again.
static FILES: Aside = Aside::new(32, 2);

/// Reads the secrets of one receiver, on a thread that hangs as long as its file does. Dropping this gives up the wait.
///
/// # Errors
/// [`SecretError`]; all of them may go away when an operator mends the file.
pub async fn read_secrets(receiver: &Receiver) -> Result<Secrets, SecretError> {
    match receiver {
        Receiver::Pagerduty { routing_key_file, .. } => {
            let path = routing_key_file.clone();
            let done = FILES.run(routing_key_file.as_os_str(), move || read(&path)).await;
            let read = done.map_err(|source| SecretError::Read { path: routing_key_file.clone(), source })?;
            Ok(Secrets { routing_key: Some(read?) })
        }
        Receiver::Alertmanager { .. } | Receiver::Webhook { .. } => Ok(Secrets::default()),
    }
}

fn read(path: &Path) -> Result<Secret, SecretError> {
    let failed = |source| SecretError::Read { path: path.to_owned(), source };
    // A pipe is opened without waiting for whoever may write to it, and refused below.
    let file = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path).map_err(failed)?;
    // Asked of the open file, so that the file that is checked is the file that is read.
    let metadata = file.metadata().map_err(failed)?;
    if metadata.mode() & OTHERS != 0 {
        return Err(SecretError::Mode { path: path.to_owned(), mode: metadata.mode() & 0o7777 });
    }
    let content = || SecretError::Content { path: path.to_owned() };
    if !metadata.is_file() || metadata.len() > SECRET_BYTES_MAX {
        return Err(content());
    }
    let mut bytes = Vec::new();
    file.take(SECRET_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    let word = std::str::from_utf8(&bytes).map_err(|_| content())?.trim();
    if word.is_empty() || !word.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(content());
    }
    Ok(Secret::new(word.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, sync::mpsc, thread, time::Duration};

    use super::*;

    #[test]
    fn a_key_file_that_is_a_pipe_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
        let (tell, told) = mpsc::channel();
        thread::spawn(move || tell.send(read(&path).is_err()));
        assert_eq!(told.recv_timeout(Duration::from_secs(20)), Ok(true), "it waits for somebody who writes");
    }

    #[test]
    fn a_key_file_that_others_can_read_is_refused_and_never_printed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hunter2\n").unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = read(file.path()).unwrap_err();
        assert!(matches!(error, SecretError::Mode { mode: 0o640, .. }), "{error}");
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
        let secret = read(file.path()).unwrap();
        assert_eq!(secret.reveal(), "hunter2");
        assert_eq!(format!("{secret:?}"), "(secret)");
        std::fs::write(file.path(), "two words").unwrap();
        assert!(matches!(read(file.path()), Err(SecretError::Content { .. })));
    }
}
