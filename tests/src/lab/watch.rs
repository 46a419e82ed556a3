//! Who holds which disk image, seen from outside and without asking Holdfast: a thread that looks every 20 ms.
//!
//! A QEMU *writes* an image while it holds QEMU's write-permission lock on it (byte 101 of the image, an OFD lock,
//! shown in `/proc/PID/fdinfo`). The target of a live migration opens the image and takes the lock only when the source
//! has given it up, so migrations need no exception. A QEMU that runs without locks writes as soon as it has had the
//! image open for a second.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::{Lab, clock::now_ms, place::processes};

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Every so many looks it looks at all processes of the machine, not only at those of the hosts.
const WIDE_LOOK_EVERY: u64 = 50;
/// Where QEMU's locks for permissions held begin (`RAW_LOCK_PERM_BASE`), plus 1 for "write".
const WRITE_LOCK_BYTE: u64 = 101;
/// How long an image must be open without any lock until that counts as writing.
const UNLOCKED_MS: f64 = 1_000.0;
/// How much later two writers must still be there to count. A QEMU that is about to be refused may lose its processor for some
/// ten milliseconds while it holds the lock; two that run are there for seconds.
const CERTAIN_AFTER: Duration = Duration::from_millis(50);
/// Most tenures that are kept.
const TENURES_MAX: usize = 10_000;

/// One QEMU writing one image for some time, on [`now_ms`]'s clock.
#[derive(Debug, Clone, PartialEq)]
pub struct Tenure {
    /// The image's file name.
    pub image: String,
    /// The host, or "outside" for a QEMU in none of the lab's hosts.
    pub host: String,
    /// The QEMU.
    pub pid: i32,
    /// When it was first seen writing.
    pub from_ms: f64,
    /// When it was last seen writing.
    pub to_ms: f64,
}

/// Two QEMUs that wrote one image at the same time. Must never be.
#[derive(Debug, Clone, PartialEq)]
pub struct DoubleRun {
    /// The image's file name.
    pub image: String,
    /// When it was seen first.
    pub at_ms: f64,
    /// Both, by host and pid.
    pub holders: [(String, i32); 2],
}

#[derive(Debug, Default)]
struct Record {
    tenures: Vec<Tenure>,
    double_runs: Vec<DoubleRun>,
    looks: u64,
}

/// The watcher; stops when dropped.
#[derive(Debug)]
pub(super) struct Watch {
    record: Arc<Mutex<Record>>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

/// A process that has an image open for writing.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Opener {
    host: String,
    pid: i32,
    locked: bool,
    any_lock: bool,
}

impl Watch {
    pub(super) fn start(shared: PathBuf, hosts: Vec<(String, PathBuf)>) -> Self {
        let record = Arc::new(Mutex::new(Record::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (kept, stopped) = (Arc::clone(&record), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut unlocked = BTreeMap::new();
            for look in 0.. {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let wide = look % WIDE_LOOK_EVERY == 0;
                self::look(&shared, &hosts, wide, &mut unlocked, &kept);
                thread::sleep(LOOK_EVERY);
            }
        });
        Self { record, stop, thread: Some(thread) }
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Lab {
    /// Every moment at which two QEMUs wrote the same image.
    #[must_use]
    pub fn double_runs(&self) -> Vec<DoubleRun> {
        self.watch.record().double_runs.clone()
    }

    /// Who wrote which image when, in order of beginning.
    #[must_use]
    pub fn tenures(&self) -> Vec<Tenure> {
        self.watch.record().tenures.clone()
    }

    /// How often the watcher has looked; a test that relies on it checks that this grows.
    #[must_use]
    pub fn looks(&self) -> u64 {
        self.watch.record().looks
    }

    /// The processes that have a file open for writing, by host and pid; anywhere on the machine.
    #[must_use]
    pub fn image_openers(&self, image: &Path) -> Vec<(String, i32)> {
        let Some(identity) = identity(image) else { return Vec::new() };
        let found =
            candidates(&self.host_cgroups(), true).into_iter().filter_map(|(host, pid)| opener(&host, pid, identity));
        found.map(|opener| (opener.host, opener.pid)).collect()
    }

    /// The QEMU processes that have a guest's disk open, by host and pid.
    #[must_use]
    pub fn guest_qemu_pids(&self, guest: &str) -> Vec<(String, i32)> {
        self.image_openers(&self.disk(guest))
    }

    pub(super) fn host_cgroups(&self) -> Vec<(String, PathBuf)> {
        self.hosts().iter().map(|spec| (spec.name.clone(), self.host_cgroup(&spec.name))).collect()
    }
}

fn look(
    shared: &Path,
    hosts: &[(String, PathBuf)],
    wide: bool,
    unlocked: &mut BTreeMap<(i32, String), f64>,
    record: &Mutex<Record>,
) {
    let pids = candidates(hosts, wide);
    for (image, path) in images(shared) {
        let Some(identity) = identity(&path) else { continue };
        let openers: Vec<Opener> = pids.iter().filter_map(|(host, pid)| opener(host, *pid, identity)).collect();
        let writers: Vec<Opener> = openers.into_iter().filter(|opener| writes(opener, &image, unlocked)).collect();
        note_writers(&image, &writers, identity, record);
    }
    record.lock().unwrap_or_else(PoisonError::into_inner).looks += 1;
    // Long labs see many processes; those that are gone are forgotten.
    unlocked.retain(|(pid, _), _| Path::new("/proc").join(pid.to_string()).exists());
}

fn note_writers(image: &str, writers: &[Opener], identity: (u64, u64), record: &Mutex<Record>) {
    let double = writers.iter().enumerate().find_map(|(i, one)| {
        let other = writers.get(i + 1)?;
        // Processes are looked at one after the other, so a hand-over in between looks like two; and a QEMU that is refused
        // takes the lock for some microseconds before it sees the other's. Two that run are both there a moment later.
        thread::sleep(CERTAIN_AFTER);
        let still = |before: &Opener| opener(&before.host, before.pid, identity).as_ref() == Some(before);
        (still(one) && still(other)).then(|| [(one.host.clone(), one.pid), (other.host.clone(), other.pid)])
    });
    let (now, mut record) = (now_ms(), record.lock().unwrap_or_else(PoisonError::into_inner));
    for writer in writers {
        let same = |tenure: &&mut Tenure| tenure.pid == writer.pid && tenure.image == image;
        if let Some(tenure) = record.tenures.iter_mut().rev().find(same) {
            tenure.to_ms = now;
        } else if record.tenures.len() < TENURES_MAX {
            record.tenures.push(Tenure {
                image: image.to_owned(),
                host: writer.host.clone(),
                pid: writer.pid,
                from_ms: now,
                to_ms: now,
            });
        }
    }
    if let Some(holders) = double
        && !record.double_runs.iter().any(|run| run.image == image && run.holders == holders)
    {
        record.double_runs.push(DoubleRun { image: image.to_owned(), at_ms: now, holders });
    }
}

fn writes(opener: &Opener, image: &str, unlocked: &mut BTreeMap<(i32, String), f64>) -> bool {
    if opener.locked || opener.any_lock {
        // Once it uses locks it writes only under them: the source of a migration keeps the image open for a while.
        unlocked.insert((opener.pid, image.to_owned()), f64::INFINITY);
        return opener.locked;
    }
    let since = *unlocked.entry((opener.pid, image.to_owned())).or_insert_with(now_ms);
    now_ms() - since > UNLOCKED_MS && !command_line(opener.pid).contains("-incoming")
}

fn images(shared: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(shared).into_iter().flatten().flatten().map(|entry| entry.path());
    let images = entries.filter(|path| path.extension().is_some_and(|ending| ending == "raw" || ending == "qcow2"));
    images.filter_map(|path| Some((path.file_name()?.to_str()?.to_owned(), path.clone()))).collect()
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// QEMU processes by host; with `wide`, also those of the machine that are in no host.
fn candidates(hosts: &[(String, PathBuf)], wide: bool) -> Vec<(String, i32)> {
    let inside =
        hosts.iter().flat_map(|(host, cgroup)| processes(cgroup).into_iter().map(move |pid| (host.clone(), pid)));
    let mut all: Vec<(String, i32)> = inside.collect();
    if wide {
        let known: Vec<i32> = all.iter().map(|(_, pid)| *pid).collect();
        let names = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        all.extend(names.filter(|pid| !known.contains(pid)).map(|pid| ("outside".to_owned(), pid)));
    }
    all.retain(|(_, pid)| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("qemu-system"))
    });
    all
}

fn opener(host: &str, pid: i32, identity: (u64, u64)) -> Option<Opener> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    let of_image: Vec<_> = descriptors
        .filter(|entry| self::identity(&entry.path()) == Some(identity))
        .map(|entry| entry.file_name())
        .collect();
    let infos: Vec<String> = of_image
        .iter()
        .filter_map(|name| fs::read_to_string(Path::new(&format!("/proc/{pid}/fdinfo")).join(name)).ok())
        .filter(|info| writable(info))
        .collect();
    if infos.is_empty() {
        return None;
    }
    let locks: Vec<(u64, u64)> = infos.iter().flat_map(|info| info.lines().filter_map(lock_range)).collect();
    let locked = locks.iter().any(|(from, to)| (*from..=*to).contains(&WRITE_LOCK_BYTE));
    Some(Opener { host: host.to_owned(), pid, locked, any_lock: !locks.is_empty() })
}

/// `flags: 02100002`: octal, the last digit is the access mode.
fn writable(info: &str) -> bool {
    info.lines().any(|line| line.starts_with("flags:") && matches!(line.as_bytes().last(), Some(b'1' | b'2')))
}

/// `lock: 1: OFDLCK  ADVISORY  READ -1 fe:00:123 100 103`
fn lock_range(line: &str) -> Option<(u64, u64)> {
    let mut words = line.strip_prefix("lock:")?.split_ascii_whitespace().rev();
    let (to, from) = (words.next()?, words.next()?);
    Some((from.parse().ok()?, to.parse().unwrap_or(u64::MAX)))
}

fn command_line(pid: i32) -> String {
    fs::read(format!("/proc/{pid}/cmdline"))
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_read_as_the_kernel_shows_them() {
        assert_eq!(lock_range("lock:\t1: OFDLCK  ADVISORY  READ -1 fe:00:5012 100 103"), Some((100, 103)));
        assert_eq!(lock_range("lock:\t1: POSIX  ADVISORY  WRITE 12 fe:00:5012 0 EOF"), Some((0, u64::MAX)));
        assert_eq!(lock_range("pos:\t0"), None);
        assert!(writable("pos:\t0\nflags:\t02100002\nmnt_id:\t1\n") && !writable("flags:\t02100000\n"));
    }
}
