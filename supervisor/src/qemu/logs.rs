//! Keeps a guest's logs small: they lie on a tmpfs, and a guest decides how much it writes to its console.

use std::{
    io::{self, Read as _, Seek as _},
    path::Path,
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
/// is lost.
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
    tokio::fs::write(path.with_extension("old"), &kept).await?;
    OpenOptions::new().write(true).open(path).await?.set_len(0).await
}

/// Takes the end of a log that nobody writes any more. It is kept beside it, as when it is cut, and whoever writes next
/// begins a new log: so the words of one run are not taken for those of another.
///
/// # Errors
/// The log is not there, or cannot be read.
pub fn take_end(path: &Path) -> io::Result<Vec<u8>> {
    let mut log = std::fs::File::open(path)?;
    let length = log.metadata()?.len();
    log.seek(io::SeekFrom::Start(length.saturating_sub(KEPT_BYTES)))?;
    let mut end = Vec::new();
    log.take(KEPT_BYTES).read_to_end(&mut end)?;
    let put_aside = std::fs::write(path.with_extension("old"), &end).and_then(|()| std::fs::remove_file(path));
    if let Err(error) = put_aside {
        tracing::warn!(log = %path.display(), %error, "the log of a run that is over is not put aside");
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
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
        let kept = std::fs::read(path.with_extension("old")).unwrap();
        assert!(kept.ends_with(b"the end") && kept.len() as u64 == KEPT_BYTES);
    }
}
