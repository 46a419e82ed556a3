//! What a QEMU that does not answer has left behind, and what the kernel says of it.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::Path,
};

use nix::{
    fcntl::{FcntlArg, fcntl},
    libc,
    sys::statfs::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, FsType, TMPFS_MAGIC, XFS_SUPER_MAGIC, fstatfs},
};

/// File systems that belong to one kernel. On others, such as NFS, virtiofs or 9p, sockets and locks of a QEMU under
/// another kernel are seen as files, and its listener and its locks are not.
const LOCAL: [FsType; 4] = [TMPFS_MAGIC, EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC];

/// Whether a socket that refuses was left by a QEMU that was killed.
///
/// # Errors
/// Why that is not certain.
pub(super) fn killed(socket: &Path, pidfile: &Path) -> Result<(), String> {
    let said = |error: io::Error| format!("cannot look at its socket: {error}");
    // A socket cannot be opened, but its place can.
    let place = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(socket).map_err(said)?;
    // Every other file refuses as well.
    if !place.metadata().map_err(said)?.file_type().is_socket() {
        return Err("what is at its path is no socket".to_owned());
    }
    if !is_local(&place).map_err(said)? {
        return Err("its socket is on no file system of this machine alone (tmpfs, ext4, XFS, Btrfs)".to_owned());
    }
    if locked(pidfile).is_some() {
        return Err("nobody listens at its socket, and its pidfile is locked: it lives".to_owned());
    }
    Ok(())
}

/// The pidfile, open, if a QEMU of this machine has it locked.
pub(super) fn locked(pidfile: &Path) -> Option<File> {
    // A FIFO must not make us wait.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(pidfile).ok()?;
    (matches!(is_local(&file), Ok(true)) && matches!(is_locked(&file), Ok(true))).then_some(file)
}

/// Whether somebody else has a file locked. QEMU locks its pidfile as a whole when it starts, and the kernel takes the
/// lock from it when it ends.
pub(super) fn is_locked(file: &File) -> io::Result<bool> {
    let mut asked = lock(libc::F_WRLCK);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut asked))?;
    Ok(i32::from(asked.l_type) != libc::F_UNLCK)
}

/// A lock of a whole file. The kernel wants the process number to be 0.
#[expect(clippy::cast_possible_truncation, reason = "kinds and origins of locks are single digits")]
pub(super) fn lock(kind: i32) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 }
}

fn is_local(file: &File) -> io::Result<bool> {
    Ok(LOCAL.contains(&fstatfs(file)?.filesystem_type()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_that_is_not_known_to_be_local_is_not() {
        assert!(is_local(&File::open("/dev/shm").unwrap()).unwrap());
        assert!(!is_local(&File::open("/proc").unwrap()).unwrap());
    }
}
