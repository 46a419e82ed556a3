//! Copies what QEMU says of guests to a disk, where `qemu.log_dir` names a folder for it: `run_dir` lies in memory and goes with the host.
//!
//! QEMU itself goes on writing to `run_dir`. It would stand still, and its guest with it, while a disk takes nothing. The copies are
//! made by a thread of their own, and nobody but that waits for the disk:
//!
//! ```text
//! every ten seconds: a guest's log has changed ──┐
//! a run has ended: its log, by a bounded queue ──┴──> GUEST.log, and GUEST.log.1 and so on of the runs before
//! ```
//!
//! A copy is the end of the log of one run, written anew each time: so nobody need remember how far the last one went. Its first
//! line names the run, and tells it from what is not ours; that is never written to, moved or removed. The console is not copied:
//! it may show secrets, and its guest decides how much it writes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use holdfast_policies::names::GuestName;

use super::{
    logs,
    record::{self, Files},
};
use crate::{causes::unless_absent, desk::rfc3339, durable};

/// How often it is looked for logs that have changed: as much of the last words is lost with a host. Each copy is written whole, so
/// looking more often would cost a busy disk more for a QEMU that goes on talking.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Runs that have ended and may wait for the disk, with up to 256 KiB each: 8 MiB. More are lost.
const WAITING_MAX: usize = 32;

/// Copies kept of each guest, one for each run: as many as libvirt keeps. Most have a few lines; with logs as long as they may be
/// it is 1 MiB.
const RUNS_MAX: usize = 4;

/// Guests of which copies are kept: more than a host runs, and half a GiB at the very most where guests come and go under ever
/// new names.
const GUESTS_MAX: usize = 500;

/// What the first line of a copy begins with.
const MARK: &str = "# holdfast: ";

/// Longest first line, in bytes; it takes some 140 with the longest name.
const HEAD_BYTES_MAX: u64 = 512;

/// The way to the thread that makes copies, if there are to be any.
pub struct LogDir {
    ended: Option<SyncSender<Run>>,
}

impl LogDir {
    /// Copies to `folder`, which is made when there is something to copy. Without one there are no copies.
    pub fn begin(folder: Option<&Path>, run_dir: &Path) -> Self {
        let Some(folder) = folder else { return Self { ended: None } };
        if folder.starts_with(run_dir) {
            // What lies there beside the folders of guests would be taken for one.
            let log_dir = folder.display();
            tracing::warn!(%log_dir, "`qemu.log_dir` lies in `run_dir`, which goes with the host: nothing is copied");
            return Self { ended: None };
        }
        match Self::start(folder, run_dir) {
            Ok((logs, _)) => logs,
            Err(error) => {
                tracing::warn!(%error, "no thread for copies of QEMU's logs: there are none");
                Self { ended: None }
            }
        }
    }

    /// With the thread, which ends when it has copied what waits and nobody has the way to it any more.
    fn start(folder: &Path, run_dir: &Path) -> io::Result<(Self, JoinHandle<()>)> {
        let (sender, ended) = mpsc::sync_channel(WAITING_MAX);
        let copier = Copier::new(folder, run_dir, ended);
        let copying = thread::Builder::new().name("qemu-logs".to_owned()).spawn(move || copier.run())?;
        Ok((Self { ended: Some(sender) }, copying))
    }

    /// Has the log of a run copied whose last process is gone: before it is taken away, and before the run is forgotten. Waits for
    /// `run_dir` only.
    pub async fn ended(&self, guest: &GuestName, files: &Files) {
        let Some(sender) = &self.ended else { return };
        let (of, files) = (guest.clone(), files.clone());
        let read = tokio::task::spawn_blocking(move || Run::of(of, &files)).await;
        let error = match read.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(None) => return,
            Ok(Some(run)) => sender.try_send(run).err().map(|error| error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = error {
            tracing::warn!(%guest, %error, "the end of what QEMU has said of the guest is not copied");
        }
    }
}

/// What QEMU has said in one run of a guest.
struct Run {
    guest: GuestName,
    head: String,
    said: Vec<u8>,
}

impl Run {
    /// `None` where it has said nothing, no run is written down, or another one has begun in between.
    fn of(guest: GuestName, files: &Files) -> io::Result<Option<Self>> {
        let Some(head) = head(&guest, files)? else { return Ok(None) };
        let said = match logs::end(&files.log()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            said => said?,
        };
        let is_of_it = self::head(&guest, files)?.as_ref() == Some(&head);
        Ok((is_of_it && !said.is_empty()).then_some(Self { guest, head, said }))
    }

    fn text(&self) -> Vec<u8> {
        [self.head.as_bytes(), b"\n".as_slice(), self.said.as_slice()].concat()
    }
}

/// The first line of a run's copy. No two runs have the same: a guest may be started twice under one epoch, but not at one time.
fn head(guest: &GuestName, files: &Files) -> io::Result<Option<String>> {
    let record = files.read()?;
    Ok(record.map(|record| {
        let started = rfc3339(record.started);
        format!("{MARK}what QEMU says of {guest}, epoch {}, started at {started}", record.epoch)
    }))
}

/// What the thread works with.
struct Copier {
    folder: PathBuf,
    run_dir: PathBuf,
    ended: Receiver<Run>,
    /// The logs of which nothing has to be copied while they are like this.
    copied: BTreeMap<GuestName, Look>,
    /// Guests whose logs could not be copied the last time, which has been told.
    failing: BTreeSet<GuestName>,
}

/// By what it is seen that a log has changed.
type Look = (u64, SystemTime);

impl Copier {
    fn new(folder: &Path, run_dir: &Path, ended: Receiver<Run>) -> Self {
        let (folder, run_dir) = (folder.to_owned(), run_dir.to_owned());
        Self { folder, run_dir, ended, copied: BTreeMap::new(), failing: BTreeSet::new() }
    }

    fn run(mut self) {
        let mut next_look = Instant::now();
        loop {
            match self.ended.recv_timeout(next_look.saturating_duration_since(Instant::now())) {
                Ok(run) => _ = self.copy(&run),
                Err(RecvTimeoutError::Timeout) => {
                    self.look_around();
                    next_look = Instant::now() + LOOK_EVERY;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Copies the logs that have changed since the last time.
    fn look_around(&mut self) {
        let guests = guests(&self.run_dir).unwrap_or_default();
        let mut copied = BTreeMap::new();
        for guest in &guests {
            let files = Files::new(&self.run_dir, guest);
            // Before it is read: what is said meanwhile shows the next time.
            let Some(look) = look_at(&files.log()) else { continue };
            if self.copied.get(guest) == Some(&look) || self.copy_of(guest, &files) {
                copied.insert(guest.clone(), look);
            }
        }
        self.copied = copied;
        self.failing.retain(|guest| guests.contains(guest));
    }

    /// False when it is to be tried again.
    fn copy_of(&mut self, guest: &GuestName, files: &Files) -> bool {
        let run = match Run::of(guest.clone(), files) {
            Ok(Some(run)) => run,
            Ok(None) => return true,
            Err(error) => return self.note(guest, Err(error)),
        };
        // What has ended before this one began is older.
        while let Ok(ended) = self.ended.try_recv() {
            self.copy(&ended);
        }
        self.copy(&run)
    }

    fn copy(&mut self, run: &Run) -> bool {
        let done = put(&self.folder, run);
        self.note(&run.guest, done)
    }

    /// Whether it was done. A disk that is full is told of once for each guest, and not every ten seconds.
    fn note(&mut self, guest: &GuestName, done: io::Result<()>) -> bool {
        match done {
            Ok(()) => {
                self.failing.remove(guest);
                true
            }
            Err(error) => {
                if self.failing.insert(guest.clone()) {
                    let log_dir = self.folder.display();
                    tracing::warn!(%guest, %log_dir, %error, "what QEMU says of the guest is not copied");
                }
                false
            }
        }
    }
}

/// Guests that have files here.
fn guests(run_dir: &Path) -> io::Result<BTreeSet<GuestName>> {
    let mut guests = BTreeSet::new();
    for entry in fs::read_dir(record::folder(run_dir))? {
        guests.extend(GuestName::new(entry?.file_name().to_string_lossy()));
    }
    Ok(guests)
}

fn look_at(log: &Path) -> Option<Look> {
    let metadata = fs::metadata(log).ok()?;
    Some((metadata.len(), metadata.modified().ok()?))
}

/// Writes the copy of a run for root only, in the place of the one before of the same run, or before those of earlier runs. Nothing is
/// moved or removed until it is on disk.
fn put(folder: &Path, run: &Run) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let newest = copy(folder, &run.guest, 0);
    let is_new = head_in(&newest)?.is_none_or(|head| head != run.head);
    for runs_before in 1..RUNS_MAX {
        head_in(&copy(folder, &run.guest, runs_before))?;
    }
    let fresh = fresh(folder, &run.guest);
    if let Err(error) = write(&fresh, &run.text()) {
        // A half of it would take the room that there is not.
        _ = fs::remove_file(&fresh);
        return Err(error);
    }
    if is_new {
        for runs_before in (1..RUNS_MAX).rev() {
            let (from, to) = (copy(folder, &run.guest, runs_before - 1), copy(folder, &run.guest, runs_before));
            unless_absent(fs::rename(from, to))?;
        }
    }
    durable::rename(&fresh, &newest)?;
    if is_new { forget_oldest(folder, &run.guest, GUESTS_MAX) } else { Ok(()) }
}

/// Never through a link, which somebody else may have put there.
fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    unless_absent(fs::remove_file(path))?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

/// Where the copy of a guest's run lies that so many later ones have followed.
fn copy(folder: &Path, guest: &GuestName, runs_before: usize) -> PathBuf {
    let name = if runs_before == 0 { format!("{guest}.log") } else { format!("{guest}.log.{runs_before}") };
    folder.join(name)
}

/// Where a copy is written before it takes its place: under a name that nobody else has, since half of one has no first line to tell.
fn fresh(folder: &Path, guest: &GuestName) -> PathBuf {
    folder.join(format!("{guest}.log.holdfast-new"))
}

/// The first line of a copy, if there is one.
///
/// # Errors
/// It cannot be read, or is none of ours: `log_dir` may be a folder that others write their logs to.
fn head_in(path: &Path) -> io::Result<Option<String>> {
    let file = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut start = Vec::new();
    file.take(HEAD_BYTES_MAX).read_to_end(&mut start)?;
    let line = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    match std::str::from_utf8(line) {
        Ok(line) if line.starts_with(MARK) => Ok(Some(line.to_owned())),
        _ => Err(io::Error::other(format!("{} is there and is no copy of Holdfast's", path.display()))),
    }
}

/// Forgets the guests that have said nothing for longest.
fn forget_oldest(folder: &Path, newest: &GuestName, most: usize) -> io::Result<()> {
    let is_ours = |path: &Path| matches!(head_in(path), Ok(Some(_)));
    let mut others = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let guest = name.to_str().and_then(|name| GuestName::new(name.strip_suffix(".log")?).ok());
        // To open a pipe of somebody else's would be to wait for its other end.
        if let Some(guest) = guest.filter(|guest| guest != newest)
            && entry.file_type()?.is_file()
            && is_ours(&entry.path())
        {
            others.push((entry.metadata()?.modified()?, guest));
        }
    }
    others.sort();
    let too_many = others.len().saturating_add(1).saturating_sub(most);
    for (_, guest) in others.into_iter().take(too_many) {
        for path in (0..RUNS_MAX).map(|runs_before| copy(folder, &guest, runs_before)).filter(|path| is_ours(path)) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
