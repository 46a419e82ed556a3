//! Whether the locks of a guest's disk images work, tried out before QEMU relies on them (R28).
//!
//! QEMU locks single bytes of an image, with open file description locks, so that no second QEMU writes it. Some storage
//! takes such locks and forgets them, or keeps them to one host. Two things are tried, on the image itself and in QEMU's
//! own way, because neither another file nor another kind of lock would prove anything of these:
//!
//! - on this host: a lock that is taken through one open file is seen through another. The byte is one that QEMU does not
//!   use, and the lock a shared one, so it is in nobody's way, neither a running guest's nor that of another host that tries.
//! - between hosts: when a guest is about to arrive by live migration, the QEMU that runs it elsewhere holds its lock for
//!   writing, and must be seen to do so from here. Nothing else that a host does is as sure to meet a lock of another host.
//!
//! Locks on block devices are local to each host by their nature; they are not tried between hosts.

use std::{
    fs::File,
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::Duration,
};

use holdfast_policies::model::QemuDefinition;
use nix::{
    fcntl::{FcntlArg, fcntl},
    libc,
};
use tokio::time::timeout;

use super::{How, storage};

/// The byte that is locked to try. QEMU uses 100 to 299; the image need not be that long.
const TRIED_BYTE: i64 = 400;

/// The byte that a QEMU which may write the image keeps locked: the first of its permissions held (100) and 1 for "write".
const WRITER_BYTE: i64 = 101;

/// Longest time for trying; a lock server that takes longer cannot carry a guest.
const TRY_DEADLINE: Duration = Duration::from_secs(5);

/// What a storage without working locks must become.
const RIGHT: &str = "mount the storage so that locks work, on all hosts (NFS: without nolock and local_lock)";

/// Why the locks of a disk image cannot be relied on.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// A lock could not be taken or asked for.
    #[error("{path} cannot be locked; {RIGHT}")]
    Refused {
        /// The image.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A lock was taken, and nobody else notices.
    #[error("a lock on {path} is taken and not seen; {RIGHT}")]
    Unseen {
        /// The image.
        path: PathBuf,
    },
    /// The guest runs on another host, and its lock does not reach this one.
    #[error("{path} is written by a guest on another host, and its lock is not seen here; {RIGHT}")]
    UnseenBetweenHosts {
        /// The image.
        path: PathBuf,
    },
    /// It could not be opened to try them, for a reason that may be of the moment.
    #[error("{path} cannot be opened to try its locks")]
    Unopened {
        /// The image.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The storage did not answer.
    #[error("locks on its disks were not answered within {0:?}")]
    Slow(Duration),
}

/// Locks bytes of open files.
pub trait Locker: Send + Sync {
    /// Takes a shared lock, kept until the file is closed.
    ///
    /// # Errors
    /// When it is not to be had.
    fn hold(&self, file: &File, byte: i64) -> io::Result<()>;

    /// Whether a lock that was taken through another open file would keep this one from an exclusive lock.
    ///
    /// # Errors
    /// When that cannot be told.
    fn is_held(&self, file: &File, byte: i64) -> io::Result<bool>;
}

/// The kernel's open file description locks, as QEMU uses them.
pub struct KernelLocks;

impl Locker for KernelLocks {
    fn hold(&self, file: &File, byte: i64) -> io::Result<()> {
        fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&lock(libc::F_RDLCK, byte)))?;
        Ok(())
    }

    fn is_held(&self, file: &File, byte: i64) -> io::Result<bool> {
        let mut asked = lock(libc::F_WRLCK, byte);
        fcntl(file.as_fd(), FcntlArg::F_OFD_GETLK(&mut asked))?;
        Ok(i32::from(asked.l_type) != libc::F_UNLCK)
    }
}

/// A lock of one byte. The kernel wants the process number to be 0.
#[expect(clippy::cast_possible_truncation, reason = "kinds and origins of locks are single digits")]
fn lock(kind: i32, byte: i64) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: byte, l_len: 1, l_pid: 0 }
}

/// Tries the locks of every disk image.
///
/// # Errors
/// See [`LockError`].
pub async fn check(definition: &QemuDefinition, how: How) -> Result<(), LockError> {
    let disks: Vec<PathBuf> = definition.disks.iter().map(|disk| disk.path.clone()).collect();
    let try_all = move || disks.iter().try_for_each(|disk| check_image(&KernelLocks, disk, how));
    match timeout(TRY_DEADLINE, storage::aside(definition, try_all)).await {
        Ok(Ok(tried)) => tried,
        Ok(Err(_)) | Err(_) => Err(LockError::Slow(TRY_DEADLINE)),
    }
}

fn check_image(locker: &dyn Locker, path: &Path, how: How) -> Result<(), LockError> {
    let (first, second) = match File::open(path).and_then(|first| Ok((first, File::open(path)?))) {
        Ok(both) => both,
        // QEMU cannot open it either, and complains in words that people know.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
            return Ok(());
        }
        // Whatever else may be of this process, or of the moment, and gone when QEMU opens it: then nobody would have tried.
        Err(source) => return Err(LockError::Unopened { path: path.to_owned(), source }),
    };
    let refused = |source| LockError::Refused { path: path.to_owned(), source };
    locker.hold(&first, TRIED_BYTE).map_err(refused)?;
    if !locker.is_held(&second, TRIED_BYTE).map_err(refused)? {
        return Err(LockError::Unseen { path: path.to_owned() });
    }
    let between_hosts = how == How::Incoming && first.metadata().map_err(refused)?.is_file();
    if between_hosts && !locker.is_held(&second, WRITER_BYTE).map_err(refused)? {
        return Err(LockError::UnseenBetweenHosts { path: path.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(folder: &tempfile::TempDir) -> PathBuf {
        let path = folder.path().join("image");
        std::fs::write(&path, "short").unwrap();
        path
    }

    #[test]
    fn locks_that_work_are_found_to_and_left_behind_by_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = image(&folder);
        check_image(&KernelLocks, &path, How::Run).unwrap();
        let file = File::open(&path).unwrap();
        assert!(!KernelLocks.is_held(&file, TRIED_BYTE).unwrap(), "the trial left its lock");
        // Others that try at the same time, and a running QEMU, are not in the way.
        let (trying, running) = (File::open(&path).unwrap(), File::open(&path).unwrap());
        KernelLocks.hold(&trying, TRIED_BYTE).unwrap();
        KernelLocks.hold(&running, WRITER_BYTE).unwrap();
        check_image(&KernelLocks, &path, How::Run).unwrap();
        assert!(!KernelLocks.is_held(&running, WRITER_BYTE).unwrap(), "one's own lock is not another's");
    }

    #[test]
    fn a_guest_arrives_only_where_the_lock_of_its_source_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = image(&folder);
        let refused = check_image(&KernelLocks, &path, How::Incoming).unwrap_err();
        assert!(matches!(&refused, LockError::UnseenBetweenHosts { path: of } if *of == path), "{refused}");
        let source = File::open(&path).unwrap();
        KernelLocks.hold(&source, WRITER_BYTE).unwrap();
        check_image(&KernelLocks, &path, How::Incoming).unwrap();
    }

    #[test]
    fn an_absent_image_is_left_to_qemu() {
        let folder = tempfile::tempdir().unwrap();
        check_image(&KernelLocks, &folder.path().join("absent"), How::Run).unwrap();
    }

    /// A socket stands for all that keeps an image from being opened and says nothing of whether QEMU can: no descriptors left here,
    /// a server that answers late.
    #[test]
    fn an_image_whose_locks_could_not_be_tried_carries_no_guest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let untried = check_image(&KernelLocks, &path, How::Run).unwrap_err();
        assert!(matches!(&untried, LockError::Unopened { path: of, .. } if *of == path), "{untried}");
    }

    /// A storage that says yes and forgets, or says no.
    enum Broken {
        Forgets,
        Refuses,
    }

    impl Locker for Broken {
        fn hold(&self, _: &File, _: i64) -> io::Result<()> {
            match self {
                Self::Forgets => Ok(()),
                Self::Refuses => Err(io::Error::from_raw_os_error(libc::ENOLCK)),
            }
        }

        fn is_held(&self, _: &File, _: i64) -> io::Result<bool> {
            Ok(false)
        }
    }

    #[test]
    fn a_storage_that_forgets_or_refuses_locks_carries_no_guest() {
        let folder = tempfile::tempdir().unwrap();
        let path = image(&folder);
        let forgotten = check_image(&Broken::Forgets, &path, How::Run).unwrap_err();
        assert!(matches!(&forgotten, LockError::Unseen { .. }));
        let text = forgotten.to_string();
        assert!(text.contains("image is taken and not seen") && text.contains("nolock"), "{text}");
        let refused = check_image(&Broken::Refuses, &path, How::Run).unwrap_err();
        assert!(matches!(&refused, LockError::Refused { source, .. } if source.raw_os_error() == Some(libc::ENOLCK)));
    }
}
