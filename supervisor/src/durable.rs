//! Small files that outlive a power cut: written whole, synced, renamed, and synced again, so that each is old or new, never half.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Writes a file so that after a crash it has its old content or the new one.
///
/// # Errors
/// When it is not certain that the new content is on disk.
pub fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(content)?;
    file.sync_all()?;
    rename(&fresh, path)
}

/// Moves a file or a folder so that it is in its new place after a crash too.
///
/// # Errors
/// When that is not certain.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_folder_of(to)
}

/// Syncs the folder that a path is in: which files it has, and under which names.
///
/// # Errors
/// When it is not certain that this is on disk.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    File::open(folder)?.sync_all()
}
