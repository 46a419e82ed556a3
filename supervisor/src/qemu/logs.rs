//! Keeps a guest's logs small: they lie on a tmpfs, and a guest decides how much it writes to its console.

use std::{
    io::{self, Read as _, Seek as _},
    path::{Path, PathBuf},
};

use tokio::{
    fs::OpenOptions,
    io::{AsyncReadExt, AsyncSeekExt},
};

use super::record::Files;

/// A log is cut when it is longer than this, in bytes.
const LOG_BYTES_MAX: u64 = 4 << 20;

/// How much of its end is kept beside it when it is cut, in bytes.
const KEPT_BYTES: u64 = 256 << 10;

/// Cuts the logs of a guest that have grown too long.
pub async fn trim(files: &Files) {
    for path in [files.console(), files.log()] {
        if let Err(error) = trim_one(&path).await {
            tracing::warn!(log = %path.display(), %error, "cannot cut the log");
        }
    }
}

/// Whoever writes the log appends to it, and so goes on at its new end. What is written between copying and cutting
/// is lost; so is all of it where there is no room for a copy, as on a tmpfs that logs have filled: nothing else makes room there.
async fn trim_one(path: &Path) -> io::Result<()> {
    let length = match tokio::fs::metadata(path).await {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if length <= LOG_BYTES_MAX {
        return Ok(());
    }
    let mut log = OpenOptions::new().read(true).write(true).open(path).await?;
    log.seek(io::SeekFrom::Start(length - KEPT_BYTES)).await?;
    let mut kept = Vec::new();
    log.take(KEPT_BYTES).read_to_end(&mut kept).await?;
    if let Err(error) = tokio::fs::write(cut_off(path), &kept).await {
        tracing::warn!(log = %path.display(), %error, "the end of a log that is cut is not kept");
    }
    OpenOptions::new().write(true).open(path).await?.set_len(0).await
}

/// Puts aside what earlier runs of a guest have written, however they ended, before it is started: so the words of one run are
/// not taken for those of another. What cannot be put aside keeps no guest from its start.
pub async fn begin_anew(files: &Files) {
    let paths = [files.console(), files.log()];
    let put_aside = tokio::task::spawn_blocking(move || {
        for path in paths {
            let taken = take_end(&path).map(drop).or_else(if_there);
            // The monitor of the run before may have cut it last of all.
            if let Err(error) = taken.and_then(|()| remove(&cut_off(&path))) {
                tracing::warn!(log = %path.display(), %error, "the log of an earlier run is not put aside");
            }
        }
    });
    _ = put_aside.await;
}

/// Takes the end of a log that nobody writes any more. It is kept beside it, and whoever writes next begins a new log.
///
/// # Errors
/// The log is not there, or cannot be read.
pub fn take_end(path: &Path) -> io::Result<Vec<u8>> {
    let end = end(path)?;
    if let Err(error) = put_aside(path, &end) {
        tracing::warn!(log = %path.display(), %error, "the log of a run that is over is not put aside");
    }
    Ok(end)
}

/// The end of a log, which may still be written: as much as is kept of one.
///
/// # Errors
/// The log is not there, or cannot be read.
pub fn end(path: &Path) -> io::Result<Vec<u8>> {
    let mut end = end_of(path)?;
    // It may have been cut a moment ago.
    let mut before = end_of(&cut_off(path)).or_else(if_there)?;
    let room = usize::try_from(KEPT_BYTES).unwrap_or(usize::MAX).saturating_sub(end.len());
    before.drain(..before.len().saturating_sub(room));
    before.append(&mut end);
    Ok(before)
}

/// A run that has said nothing leaves what one before it has said. Where there is no room for what is kept, as on a tmpfs that logs have
/// filled, the log makes room for its own end; and if even that does not do, it goes all the same: the next run's words would be taken for
/// more of its.
fn put_aside(path: &Path, end: &[u8]) -> io::Result<()> {
    let kept = keep_end(path, end);
    std::fs::remove_file(path)?;
    remove(&cut_off(path))?;
    kept.or_else(|_| keep_end(path, end))
}

fn keep_end(path: &Path, end: &[u8]) -> io::Result<()> {
    if end.is_empty() { Ok(()) } else { std::fs::write(path.with_extension("old"), end) }
}

fn end_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut log = std::fs::File::open(path)?;
    let length = log.metadata()?.len();
    log.seek(io::SeekFrom::Start(length.saturating_sub(KEPT_BYTES)))?;
    let mut end = Vec::new();
    log.take(KEPT_BYTES).read_to_end(&mut end)?;
    Ok(end)
}

/// Where the end of what was cut off a log is, while its run lasts.
fn cut_off(path: &Path) -> PathBuf {
    path.with_extension("cut")
}

fn remove(path: &Path) -> io::Result<()> {
    std::fs::remove_file(path).or_else(if_there)
}

/// What is not there is as good as empty.
fn if_there<T: Default>(error: io::Error) -> io::Result<T> {
    if error.kind() == io::ErrorKind::NotFound { Ok(T::default()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use holdfast_policies::names::GuestName;

    use super::*;

    #[tokio::test]
    async fn a_talkative_guest_costs_a_bounded_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console");
        let mut text = vec![b'a'; usize::try_from(LOG_BYTES_MAX).unwrap()];
        text.extend(b"the end");
        std::fs::write(&path, &text).unwrap();
        trim_one(&path).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
        let kept = std::fs::read(cut_off(&path)).unwrap();
        assert!(kept.ends_with(b"the end") && kept.len() as u64 == KEPT_BYTES);
        assert_eq!(take_end(&path).unwrap(), kept, "it has said nothing since then");
        assert!(std::fs::read(path.with_extension("old")).unwrap() == kept && !cut_off(&path).exists());
    }

    /// A folder in its place stands for a copy for which there is no room.
    #[tokio::test]
    async fn a_log_is_cut_also_where_its_end_cannot_be_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console");
        std::fs::write(&path, vec![b'a'; usize::try_from(LOG_BYTES_MAX).unwrap() + 1]).unwrap();
        std::fs::create_dir(cut_off(&path)).unwrap();
        trim_one(&path).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    }

    /// A folder in its place stands for an end for which there is no room.
    #[tokio::test]
    async fn each_run_begins_anew_also_where_the_end_of_the_one_before_cannot_be_kept() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(folder.path(), &GuestName::new("web-1").unwrap());
        files.make().unwrap();
        let (console, log) = (files.console(), files.log());
        for path in [&console, &log] {
            std::fs::write(path, "the words of the run before\n").unwrap();
            std::fs::write(cut_off(path), "and what was cut off them\n").unwrap();
        }
        std::fs::create_dir(console.with_extension("old")).unwrap();
        begin_anew(&files).await;
        for path in [&console, &log] {
            assert!(!path.exists() && !cut_off(path).exists(), "{}", path.display());
        }
        assert!(log.with_extension("old").is_file());
    }

    #[tokio::test]
    async fn each_run_begins_anew_however_the_one_before_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(folder.path(), &GuestName::new("web-1").unwrap());
        files.make().unwrap();
        let console = files.console();
        let old = || std::fs::read_to_string(console.with_extension("old")).unwrap();
        begin_anew(&files).await;
        std::fs::write(&console, "reboot: Power down\n").unwrap();
        std::fs::write(cut_off(&console), "Linux version 6\n").unwrap();
        begin_anew(&files).await;
        assert!(!console.exists() && !cut_off(&console).exists());
        assert_eq!(old(), "Linux version 6\nreboot: Power down\n");
        std::fs::write(&console, "").unwrap();
        begin_anew(&files).await;
        assert_eq!(old(), "Linux version 6\nreboot: Power down\n", "the start that failed had nothing to say");
        std::fs::write(cut_off(&console), "cut while its guest was killed\n").unwrap();
        begin_anew(&files).await;
        assert!(!cut_off(&console).exists());
    }
}
