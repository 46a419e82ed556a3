//! What the daemons have written since it was last looked: panics, errors, ends that nobody has caused, and starts that QEMU refused
//! because another one had the disk.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use anyhow::Result;

use super::ground::Ground;

/// The logs of a host.
const LOGS: [&str; 3] = ["console", "guard", "supervisor"];
/// Words of a line that tells of a defect in a program.
const PANICS: [&str; 4] = ["panicked at", "fatal runtime error", "stack overflow", "memory allocation of"];
/// Exit codes of a daemon that tell of one: a panic, an abort, a bad address.
const CRASHED: [&str; 3] = ["101", "134", "139"];
/// The one that the run itself causes, by `kill -9`.
const KILLED: &str = "137";
/// What QEMU says when another one has the disk.
const REFUSED: &str = "Failed to get";

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) panics: Vec<String>,
    pub(super) errors: Vec<String>,
    pub(super) ends: Vec<String>,
    pub(super) refused: usize,
}

/// How far each log was read.
#[derive(Debug, Default)]
pub(super) struct Logs(BTreeMap<PathBuf, u64>);

impl Logs {
    /// What is new in all of them.
    pub(super) fn news(&mut self, ground: &Ground) -> Found {
        let mut found = Found::default();
        for host in ground.hosts() {
            for log in LOGS {
                let path = ground.lab.host_dir(host).join(format!("{log}.log"));
                // One that is not there yet says nothing.
                let text = self.new_lines(&path).unwrap_or_default();
                text.lines().for_each(|line| note(&mut found, host, log, line));
            }
        }
        found
    }

    fn new_lines(&mut self, path: &Path) -> Result<String> {
        let read = self.0.entry(path.to_owned()).or_default();
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(*read))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        // A line that is being written is read the next time.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        bytes.truncate(whole);
        *read += whole as u64;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn note(found: &mut Found, host: &str, log: &str, line: &str) {
    let told = || format!("{host} {log}: {line}");
    if PANICS.iter().any(|word| line.contains(word)) {
        found.panics.push(told());
    }
    if line.split_whitespace().nth(1) == Some("ERROR") {
        found.errors.push(told());
    }
    if line.contains(REFUSED) && line.contains("lock") {
        found.refused += 1;
    }
    match line.strip_prefix("--- ").and_then(|rest| rest.rsplit_once(" ended with ")) {
        Some((_, code)) if CRASHED.contains(&code) => found.panics.push(told()),
        Some((_, code)) if code != KILLED => found.ends.push(told()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_errors_and_ends_are_found_and_what_the_run_has_done_is_not() {
        let mut found = Found::default();
        let lines = [
            "2026-11-29T23:59:59.990000Z  INFO holdfast: a state changed",
            "2026-11-29T23:59:59.990000Z ERROR holdfast: a promise broken",
            "thread 'main' panicked at supervisor/src/run.rs:1:2:",
            "--- 12:00:00.1 supervisor ended with 137",
            "--- 12:00:00.1 supervisor ended with 1",
            "--- 12:00:00.1 guard ended with 134",
            "qemu-system-x86_64: Failed to get \"write\" lock",
        ];
        lines.iter().for_each(|line| note(&mut found, "h1", "supervisor", line));
        assert_eq!(
            (found.panics.len(), found.errors.len(), found.ends.len(), found.refused),
            (2, 1, 1, 1),
            "{found:?}"
        );
    }
}
