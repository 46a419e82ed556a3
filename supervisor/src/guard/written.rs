//! What the guard has written down around the end of a lease, so that the reason is found after its host was reset: what it
//! logs then has not reached a disk yet.
//!
//! ```text
//!  2026-11-29T17:37:08.956Z BOOT the lease ran out 1 ms ago; stopping web-1     the newest 100 lines, in last-words.txt
//! ```
//!
//! A supervisor of a later boot tells what it finds there, once: `told-words.txt` holds the newest line that was told.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use holdfast_policies::{evidence::LAST_WORDS_BYTES_MAX, names::Incarnation, observe::clean_to, time::WallTime};

use crate::{desk::rfc3339, durable::write_durably};

/// The file below `state_dir`.
const FILE_NAME: &str = "last-words.txt";
/// The newest line of it that was told, below `state_dir`.
const TOLD_NAME: &str = "told-words.txt";
/// Lines that are kept: two for each lease that has run out.
const LINES_MAX: usize = 100;
/// Longest line that is kept, in bytes: three times what one takes.
const LINE_BYTES_MAX: usize = 2048;
/// Longest file read, in bytes: as many lines take a third of it.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// Where the guard of a boot writes.
#[derive(Debug)]
pub(super) struct Written {
    path: PathBuf,
    boot: Incarnation,
}

impl Written {
    /// In this folder.
    pub(super) fn new(state_dir: &Path, boot: Incarnation) -> Self {
        Self { path: state_dir.join(FILE_NAME), boot }
    }

    /// Writes a sentence down. It waits for the disk.
    ///
    /// # Errors
    /// When it is not certain that it is on disk; what was there before still is.
    pub(super) fn add(&self, at: WallTime, sentence: &str) -> io::Result<()> {
        let line = format!("{} {} {}", rfc3339(at), self.boot, clean_to(sentence, LAST_WORDS_BYTES_MAX));
        let before = read(&self.path)?;
        // A longer one is none of ours, and could fill all that is read again.
        let ours: Vec<&str> = before.lines().filter(|line| line.len() <= LINE_BYTES_MAX).collect();
        let too_many = (ours.len() + 1).saturating_sub(LINES_MAX);
        let lines = ours.into_iter().skip(too_many).chain([line.as_str()]);
        let text: String = lines.flat_map(|line| [line, "\n"]).collect();
        write_durably(&self.path, text.as_bytes())
    }
}

/// What guards of earlier boots have written down and nobody has told, oldest first.
///
/// # Errors
/// When it cannot be read.
pub fn untold(state_dir: &Path, boot: &Incarnation) -> io::Result<Vec<String>> {
    let (text, told) = (read(&state_dir.join(FILE_NAME))?, read(&state_dir.join(TOLD_NAME))?);
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.iter().rposition(|line| *line == told.trim_end()).map_or(0, |place| place + 1);
    // What was written in this boot is told by the guard itself, and by the next boot if this one is reset.
    let earlier = lines.into_iter().skip(first).filter(|line| line.split(' ').nth(1) != Some(boot.as_str()));
    Ok(earlier.map(str::to_owned).collect())
}

/// Everything up to this line of [`untold`] was told.
///
/// # Errors
/// When that cannot be kept; then it is told again.
pub fn note_told(state_dir: &Path, line: &str) -> io::Result<()> {
    write_durably(&state_dir.join(TOLD_NAME), format!("{line}\n").as_bytes())
}

/// Nothing, when there is no such file.
fn read(path: &Path) -> io::Result<String> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn boot(name: &str) -> Incarnation {
        Incarnation::new(name).unwrap()
    }

    #[test]
    fn what_a_boot_has_written_down_is_told_by_a_later_one_and_only_once() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(untold(folder.path(), &boot("boot-2")).unwrap(), Vec::<String>::new());
        let first = Written::new(folder.path(), boot("boot-1"));
        first.add(WallTime(0), "the lease ran out\n1 ms ago; stopping web-1").unwrap();
        first.add(WallTime(9), "no guest runs here any more").unwrap();
        assert_eq!(untold(folder.path(), &boot("boot-1")).unwrap(), Vec::<String>::new(), "it lives");
        let told = untold(folder.path(), &boot("boot-2")).unwrap();
        let expected = [
            "1970-01-01T00:00:00.000Z boot-1 the lease ran out 1 ms ago; stopping web-1",
            "1970-01-01T00:00:00.009Z boot-1 no guest runs here any more",
        ];
        assert_eq!(told, expected);
        assert_eq!(untold(folder.path(), &boot("boot-2")).unwrap(), expected, "nobody has told it yet");
        note_told(folder.path(), told.last().unwrap()).unwrap();
        Written::new(folder.path(), boot("boot-2")).add(WallTime(10), "again").unwrap();
        assert_eq!(untold(folder.path(), &boot("boot-2")).unwrap(), Vec::<String>::new());
        let later = untold(folder.path(), &boot("boot-3")).unwrap();
        assert_eq!(later, ["1970-01-01T00:00:00.010Z boot-2 again"]);
    }

    #[test]
    fn the_newest_lines_are_kept_and_garbage_keeps_nothing_from_being_written_down() {
        let folder = tempfile::tempdir().unwrap();
        let garbage = [b"\xff\xfe no line of ours\n".to_vec(), vec![0; 300 * 1024]].concat();
        fs::write(folder.path().join(FILE_NAME), garbage).unwrap();
        let written = Written::new(folder.path(), boot("boot-1"));
        for number in 0..110 {
            written.add(WallTime(number), &format!("{number} {}", "x".repeat(4_000))).unwrap();
        }
        let text = fs::read_to_string(folder.path().join(FILE_NAME)).unwrap();
        assert_eq!(text.lines().count(), LINES_MAX);
        assert!(text.lines().next().unwrap().contains(" boot-1 10 xxx") && text.contains(" boot-1 109 xxx"));
        assert!(u64::try_from(text.len()).unwrap() < FILE_BYTES_MAX / 2);
    }
}
