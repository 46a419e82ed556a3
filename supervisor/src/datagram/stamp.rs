//! Start stamps: numbers that grow from one start of a process to the next, even when the wall clock goes back.
//!
//! Peers hear only the highest session of a sender, and gossip only the highest generation of a node. A wall clock
//! that was an hour ahead at the last start would silence the host for an hour; the last stamp is therefore kept.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    path::Path,
};

use super::Role;
use crate::causes::is_full;

/// Longest stamp file read, in bytes: a 64-bit number in decimal, and a newline.
const FILE_BYTES_MAX: u64 = 32;

/// The stamp of a process that starts: the wall clock in milliseconds, or one more than its last stamp if that is
/// higher. It is on disk before it is returned, unless that is read-only. A file that holds no number counts as absent.
///
/// # Errors
/// Any other error in reading or writing below `state_dir`.
pub fn start_stamp(state_dir: &Path, role: Role, wall_ms: u64) -> io::Result<u64> {
    fs::create_dir_all(state_dir)?;
    let (path, fresh) = (state_dir.join(name(role)), state_dir.join(format!("{}.new", name(role))));
    let last = read_stamp(&path)?;
    let stamp = next(last, wall_ms);
    let written = match replace(&fresh, &path, stamp) {
        Err(error) if is_full(&error) && last.is_some() => {
            let _ = fs::remove_file(&fresh);
            write_over(&path, stamp)
        }
        written => written,
    };
    match written.and_then(|()| fs::File::open(state_dir)?.sync_all()) {
        Err(error) if may_do_without(&error) => {
            tracing::warn!(%error, path = %path.display(), "the start stamp is not kept");
            Ok(stamp)
        }
        kept => kept.map(|()| stamp),
    }
}

/// The stamp of a process that starts where none can be kept: higher than the last that was, as far as that can be read.
#[must_use]
pub fn unkept_stamp(state_dir: &Path, role: Role, wall_ms: u64) -> u64 {
    next(read_stamp(&state_dir.join(name(role))).ok().flatten(), wall_ms)
}

fn name(role: Role) -> &'static str {
    match role {
        Role::Supervisor => "stamp.supervisor",
        Role::Guard => "stamp.guard",
    }
}

fn next(last: Option<u64>, wall_ms: u64) -> u64 {
    last.map_or(wall_ms, |last| wall_ms.max(last.saturating_add(1)))
}

/// Whether a process starts although its stamp could not be kept. A file system that the kernel has made read-only stays so until it is
/// mended, and whoever runs from it is wanted all the same: a supervisor keeps the lease, and with it the guests.
fn may_do_without(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ReadOnlyFilesystem
}

fn replace(fresh: &Path, path: &Path, stamp: u64) -> io::Result<()> {
    let mut file = fs::File::create(fresh)?;
    writeln!(file, "{stamp}")?;
    file.sync_all()?;
    fs::rename(fresh, path)
}

/// Writes a stamp over the last one, which has as many digits for the next centuries: a supervisor must also start on a
/// full disk. It is one short write within one block, and a file that holds no number counts as absent.
fn write_over(path: &Path, stamp: u64) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    writeln!(file, "{stamp}")?;
    file.sync_all()
}

fn read_stamp(path: &Path) -> io::Result<Option<u64>> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(std::str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_grows_even_when_the_wall_clock_goes_back() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(start_stamp(folder.path(), Role::Guard, 1000).unwrap(), 1000);
        assert_eq!(start_stamp(folder.path(), Role::Guard, 400).unwrap(), 1001);
        assert_eq!(start_stamp(folder.path(), Role::Supervisor, 400).unwrap(), 400);
        assert_eq!(start_stamp(folder.path(), Role::Guard, 5000).unwrap(), 5000);
        write_over(&folder.path().join("stamp.guard"), 5001).unwrap();
        assert_eq!(start_stamp(folder.path(), Role::Guard, 400).unwrap(), 5002);
        fs::write(folder.path().join("stamp.guard"), [0xff; 8]).unwrap();
        assert_eq!(start_stamp(folder.path(), Role::Guard, 7).unwrap(), 7);
    }

    #[test]
    fn a_stamp_that_cannot_be_kept_is_higher_than_the_last_one_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(unkept_stamp(folder.path(), Role::Guard, 400), 400);
        start_stamp(folder.path(), Role::Guard, 1000).unwrap();
        fs::create_dir(folder.path().join("stamp.guard.new")).unwrap();
        start_stamp(folder.path(), Role::Guard, 400).unwrap_err();
        assert_eq!(unkept_stamp(folder.path(), Role::Guard, 400), 1001);
    }

    #[test]
    fn a_disk_that_has_become_read_only_keeps_nobody_from_starting_and_one_that_fails_otherwise_does() {
        assert!(may_do_without(&io::Error::from_raw_os_error(nix::libc::EROFS)));
        for other in [nix::libc::EIO, nix::libc::EACCES, nix::libc::ENOSPC] {
            assert!(!may_do_without(&io::Error::from_raw_os_error(other)), "{other}");
        }
    }
}
