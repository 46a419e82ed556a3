//! What led to errors: all of it in one line, as people read it, and the causes that are treated apart from others.

use std::io;

/// An error and all its causes, in one line.
#[must_use]
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}

/// Whether there was no room on a disk, or none for whoever writes: it can be written again when somebody has made room.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether a disk takes nothing for now, so that writing to it is worth another try later: it is full, or its file system has become
/// read-only, which it is until somebody has mended it and mounted it anew.
#[must_use]
pub fn takes_nothing(error: &io::Error) -> bool {
    is_full(error) || error.kind() == io::ErrorKind::ReadOnlyFilesystem
}

/// What came of doing away with something: what is not there need not be done away with.
///
/// # Errors
/// When that failed for any other cause.
pub fn unless_absent(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
