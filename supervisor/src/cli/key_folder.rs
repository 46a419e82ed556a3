//! Folders with keys: their owner's alone, and never written over.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use super::outcome::Failure;

/// Refuses a folder in which something is already.
pub(super) fn must_be_empty(folder: &Path) -> Result<(), Failure> {
    if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
        let why = "it is not empty; keys are never overwritten";
        return Err(Failure::Failed(format!("cannot make {}: {why}", folder.display())));
    }
    Ok(())
}

/// Folders with keys are their owner's alone.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a file that must not exist.
pub(super) fn write_new(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())
}
