//! Looks at the guest's own processes and files without running programs: cheap enough for several in a second.

use std::{fs, io::Read, os::unix::fs::MetadataExt, path::Path, time::Duration};

use holdfast_policies::probe::Processes;

use crate::{
    aside::plain_file,
    channel::{Counted, Looked, Named},
    finding::BODY_BYTES_MAX,
};

/// Most that is read of a file with a process number: PostgreSQL's has some lines more.
const PID_BYTES_MAX: u64 = 256;

/// Where a process's start stands among what follows its state (proc_pid_stat(5), field 22), and in which unit: `USER_HZ`, which is
/// 100 wherever guests run.
const START_TIME: usize = 18;
const TICKS_PER_SECOND: u64 = 100;

/// What two ages may differ by that are the same: one is in whole seconds.
const AGE_SLACK: Duration = Duration::from_secs(2);

/// Counts processes. The dead that nobody has waited for do not count.
pub(super) fn count(which: &Processes) -> Counted {
    // What cannot be looked at is not gone (S5).
    let there = |count: std::io::Result<u32>| count.map_or(Counted::Unseen, Counted::There);
    match which {
        Processes::Name(name) => there(of_name(name)),
        Processes::PidFile(path) => match pid_file(path) {
            Ok((Some(number), written)) => match living(number) {
                Ok(process) => Counted::Named(Named { number, written, began: process.map(|process| process.began) }),
                Err(_) => Counted::Unseen,
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Counted::There(0),
            Ok((None, _)) | Err(_) => Counted::NoNumber,
        },
    }
}

/// The process number that a file begins with.
pub(super) fn number_in(path: &Path) -> std::io::Result<Option<u32>> {
    pid_file(path).map(|(number, _)| number)
}

/// The same, and what tells this writing of the file from any other.
fn pid_file(path: &Path) -> std::io::Result<(Option<u32>, String)> {
    let file = plain_file(path)?;
    let metadata = file.metadata()?;
    let text = beginning(file, PID_BYTES_MAX)?;
    Ok((text.split_whitespace().next().and_then(|word| word.parse().ok()), writing(&metadata)))
}

/// What tells one writing of a file from any other.
fn writing(metadata: &fs::Metadata) -> String {
    format!("{}.{}.{}", metadata.ino(), metadata.mtime(), metadata.mtime_nsec())
}

fn beginning(file: fs::File, most: u64) -> std::io::Result<String> {
    let mut content = Vec::new();
    file.take(most).read_to_end(&mut content)?;
    Ok(String::from_utf8_lossy(&content).into_owned())
}

fn of_name(name: &str) -> std::io::Result<u32> {
    let mut count = 0_u32;
    for entry in fs::read_dir("/proc")? {
        let Some(number) = entry?.file_name().to_str().and_then(|text| text.parse().ok()) else { continue };
        count = count.saturating_add(u32::from(living(number)?.is_some_and(|own| own.name == name)));
    }
    Ok(count)
}

/// What the kernel tells of a process: `12 (name) S ...` (proc_pid_stat(5)); `None` when there is none with this number.
fn stat(number: u32) -> std::io::Result<Option<String>> {
    match fs::read(format!("/proc/{number}/stat")) {
        Ok(stat) => Ok(Some(String::from_utf8_lossy(&stat).into_owned())),
        // The second, when it ends while it is read (proc(5)).
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A process that lives.
pub(super) struct Process {
    /// As in `/proc/PID/comm`.
    name: String,
    /// When it began, in ticks since the boot.
    began: u64,
}

/// The process that lives and has this number; `None` when there is none, or it is dead.
pub(super) fn living(number: u32) -> std::io::Result<Option<Process>> {
    let Some(stat) = stat(number)? else { return Ok(None) };
    let odd = || std::io::Error::other(format!("/proc/{number}/stat is not as proc_pid_stat(5) says"));
    let (state, process) = state_of(&stat).ok_or_else(odd)?;
    Ok((!matches!(state, 'Z' | 'X')).then_some(process))
}

fn state_of(stat: &str) -> Option<(char, Process)> {
    // The name may hold any character, parentheses too.
    let (before, after) = stat.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    let mut fields = after.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let began = fields.nth(START_TIME)?.parse().ok()?;
    Some((state, Process { name: name.to_owned(), began }))
}

/// Whether a process may be the one whose number a file holds: it was there when the file was written. After a reboot or a
/// crash its number may have become somebody else's. What cannot be compared may be it.
pub(super) fn may_be_of(path: &Path, number: u32) -> bool {
    match (file(path, false), age_of(number)) {
        (Looked::There { age: written, .. }, Some(started)) => written <= started + AGE_SLACK,
        (Looked::There { .. } | Looked::Missing | Looked::Unreadable, _) => true,
    }
}

/// How long ago a process began.
fn age_of(number: u32) -> Option<Duration> {
    let ticks = living(number).ok()??.began;
    let began = Duration::from_millis(ticks.saturating_mul(1_000 / TICKS_PER_SECOND));
    let up = fs::read_to_string("/proc/uptime").ok()?;
    let up = Duration::try_from_secs_f64(up.split_whitespace().next()?.parse().ok()?).ok()?;
    Some(up.saturating_sub(began))
}

/// Looks at a file, and reads its beginning if that is asked for.
pub(super) fn file(path: &Path, read: bool) -> Looked {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Looked::Missing,
        Err(_) => return Looked::Unreadable,
    };
    let Ok(at) = metadata.modified() else { return Looked::Unreadable };
    let (age, of_future) = match at.elapsed() {
        Ok(age) => (Duration::from_secs(age.as_secs()), false),
        Err(_) => (Duration::ZERO, true),
    };
    let written = writing(&metadata);
    if !read {
        return Looked::There { age, of_future, written, content: String::new() };
    }
    match plain_file(path).and_then(|file| beginning(file, u64::try_from(BODY_BYTES_MAX).unwrap_or(u64::MAX))) {
        Ok(content) => Looked::There { age, of_future, written, content },
        Err(_) => Looked::Unreadable,
    }
}
