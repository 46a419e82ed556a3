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
/// higher. It is on disk before it is returned. A file that holds no number counts as absent.
///
/// # Errors
/// Any error in reading or writing below `state_dir`.
pub fn start_stamp(state_dir: &Path, role: Role, wall_ms: u64) -> io::Result<u64> {
    let name = match role {
        Role::Supervisor => "stamp.supervisor",
        Role::Guard => "stamp.guard",
    };
    fs::create_dir_all(state_dir)?;
    let path = state_dir.join(name);
    let last = read_stamp(&path)?;
    let stamp = last.map_or(wall_ms, |last| wall_ms.max(last.saturating_add(1)));
    let fresh = state_dir.join(format!("{name}.new"));
    match replace(&fresh, &path, stamp) {
        Err(error) if is_full(&error) && last.is_some() => {
            let _ = fs::remove_file(&fresh);
            write_over(&path, stamp)?;
        }
        written => written?,
    }
    fs::File::open(state_dir)?.sync_all()?;
    Ok(stamp)
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
}
