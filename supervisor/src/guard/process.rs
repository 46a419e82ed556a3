//! A guest's QEMU, as the guard finds it wherever it runs. Its cgroup alone does not say enough: one that somebody has moved out
//! of it leaves it empty, and would outlive the lease.
//!
//! ```text
//!  the number that QEMU has written ─► a descriptor of the process that has it
//!                                         │ in the guest's cgroup, or told to write its number there?
//!                                         ├─ yes: followed from here on, whatever becomes of cgroup and file
//!                                         └─ no:  another process has the number by now
//! ```
//!
//! It is looked for while there is time, and again at every look until it is found. Neither that nor killing allocates memory.

use std::{
    ffi::OsStr,
    fmt,
    fs::File,
    io::{self, Read, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use super::cgroups::Population;

/// Room for a process number and its newline, or for a path below `/proc`.
const SHORT_BYTES: usize = 48;
/// Bytes read at once of what may be longer.
const PART_BYTES: usize = 4 * 1024;
/// Most bytes read of a command line or of a list of processes. QEMU's command line is a few thousand bytes.
const TEXT_BYTES_MAX: u64 = 1024 * 1024;

/// The QEMU of one guest.
#[derive(Debug)]
pub(super) struct Process {
    /// Where it was told to write its number.
    number: PathBuf,
    /// The list of processes of the guest's cgroup.
    members: PathBuf,
    /// The one that was found.
    found: Option<OwnedFd>,
}

impl Process {
    /// One that has yet to be found. `number`: where it was told to write its number.
    pub(super) fn new(number: PathBuf, cgroup: &Path) -> Self {
        Self { number, members: cgroup.join("cgroup.procs"), found: None }
    }

    /// Whether the one that was found runs. None is looked for.
    pub(super) fn known(&mut self) -> Population {
        let Some(found) = &self.found else { return Population::Empty };
        match runs(found) {
            Ok(true) => Population::Populated,
            Ok(false) => {
                self.found = None;
                Population::Empty
            }
            Err(_) => Population::Unknown,
        }
    }

    /// Whether it runs. It is looked for where none is known that does, because a guest may be started again at any time.
    pub(super) fn look(&mut self) -> Population {
        let known = self.known();
        if known != Population::Empty {
            return known;
        }
        match self.find() {
            Ok(found) => {
                self.found = found;
                if self.found.is_some() { Population::Populated } else { Population::Empty }
            }
            Err(_) => Population::Unknown,
        }
    }

    /// Kills the one that was found. Whether it helped is seen at the next look.
    pub(super) fn kill(&self) {
        if let Some(found) = &self.found {
            _ = pidfd_send_signal(found, Signal::KILL);
        }
    }

    fn find(&self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = read_number(&self.number)? else { return Ok(None) };
        let process = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(process) => process,
            // No process has this number; a thread of one may.
            Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let is_it = self.is_it(pid);
        // Only a process that has not ended is certain to have had its number all the time.
        if !runs(&process)? {
            return Ok(None);
        }
        Ok(is_it?.then_some(process))
    }

    fn is_it(&self, pid: Pid) -> io::Result<bool> {
        let pid = pid.as_raw_pid();
        let inside = with_short(format_args!("{pid}"), |number| has_word(File::open(&self.members)?, number, b'\n'));
        if matches!(inside, Ok(true)) {
            return Ok(true);
        }
        // This may have to wait for a process that is busy with its memory, so it comes second.
        let told = self.number.as_os_str().as_bytes();
        with_short(format_args!("/proc/{pid}/cmdline"), |path| has_word(File::open(OsStr::from_bytes(path))?, told, 0))
    }
}

/// Whether a process has not ended, by its descriptor; it ends with its last thread.
fn runs(process: &OwnedFd) -> io::Result<bool> {
    let mut waits = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut waits, PollTimeout::ZERO)? == 0)
}

/// The number in this file; none where there is no file, or nothing in it that is one.
fn read_number(path: &Path) -> io::Result<Option<Pid>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = [0; SHORT_BYTES];
    let length = file.read(&mut text)?;
    let text = std::str::from_utf8(text.get(..length).unwrap_or_default()).unwrap_or_default();
    let number: Option<i32> = text.trim().parse().ok();
    Ok(number.filter(|number| *number > 0).and_then(Pid::from_raw))
}

/// Has something done with a short text, for which nothing is allocated.
fn with_short<T>(text: fmt::Arguments<'_>, act: impl FnOnce(&[u8]) -> io::Result<T>) -> io::Result<T> {
    let mut buffer = [0; SHORT_BYTES];
    let mut rest = buffer.as_mut_slice();
    rest.write_fmt(text)?;
    let length = SHORT_BYTES - rest.len();
    act(buffer.get(..length).unwrap_or_default())
}

/// Whether a text has this word, as a whole. `end`: what each of its words ends with.
fn has_word(text: impl Read, word: &[u8], end: u8) -> io::Result<bool> {
    let mut text = text.take(TEXT_BYTES_MAX);
    let mut part = [0; PART_BYTES];
    // How much of the word the present one has begun with; none: it is another one.
    let mut same = Some(0);
    loop {
        let length = text.read(&mut part)?;
        if length == 0 {
            return Ok(same == Some(word.len()));
        }
        for byte in part.get(..length).unwrap_or_default() {
            if *byte != end {
                same = same.filter(|same| word.get(*same) == Some(byte)).map(|same| same + 1);
            } else if same == Some(word.len()) {
                return Ok(true);
            } else {
                same = Some(0);
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
