//! One cgroup v2 per guest: what tells whether a guest is gone, and what kills it.
//!
//! A process cannot leave its cgroup by forking, and the kernel says when the last one has gone, so "not running"
//! means exactly that the cgroup is empty (R9).

use std::{
    fs::File,
    io::{self, Read, Seek},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::timeout,
};

use crate::causes::unless_absent;

/// How often emptiness is looked up besides the kernel's notice, should a notice ever be missed.
const FALLBACK_EVERY: Duration = Duration::from_secs(1);

/// A guest's cgroup, which need not exist.
#[derive(Debug, Clone)]
pub struct Cgroup {
    base: PathBuf,
    path: PathBuf,
}

impl Cgroup {
    /// The cgroup called `name` below `base`.
    pub fn new(base: &Path, name: &str) -> Self {
        Self { base: base.to_owned(), path: base.join(name) }
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it, unless it is there.
    pub fn make(&self) -> io::Result<()> {
        make(&self.path)
    }

    /// Whether a process runs in it. An error means that this could not be found out, never that there is none.
    pub fn populated(&self) -> io::Result<bool> {
        match std::fs::read_to_string(self.path.join("cgroup.events")) {
            Ok(text) => parse_populated(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.absent().map(|()| false),
            // The cgroup went away between opening and reading, which only an empty one can.
            Err(error) if error.raw_os_error() == Some(nix::libc::ENODEV) => self.absent().map(|()| false),
            Err(error) => Err(error),
        }
    }

    /// Makes sure that the folder is missing because it was removed, which only an empty cgroup can be, and not because
    /// the whole hierarchy is out of sight.
    fn absent(&self) -> io::Result<()> {
        check_cgroup2(&self.base)?;
        if self.path.exists() { Err(io::Error::other("cgroup without cgroup.events")) } else { Ok(()) }
    }

    /// The processes in it.
    pub fn processes(&self) -> io::Result<Vec<i32>> {
        let text = std::fs::read_to_string(self.path.join("cgroup.procs"))?;
        Ok(text.lines().filter_map(|line| line.trim().parse().ok()).collect())
    }

    /// Sends SIGKILL to every process in it; frozen ones too. An absent cgroup has none.
    pub fn kill(&self) -> io::Result<()> {
        match self.kill_all() {
            // Somebody else who stops it may have removed it at this moment, which can only be done to an empty one.
            Err(_) if matches!(self.populated(), Ok(false)) => Ok(()),
            killed => killed,
        }
    }

    fn kill_all(&self) -> io::Result<()> {
        match std::fs::write(self.path.join("cgroup.kill"), "1") {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.path.exists() => Ok(()),
            // Kernels before 5.14 have no cgroup.kill.
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.kill_each(),
            Err(error) => Err(error),
        }
    }

    fn kill_each(&self) -> io::Result<()> {
        for pid in self.processes()? {
            match kill(Pid::from_raw(pid), Signal::SIGKILL) {
                Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Removes it; it must be empty. An absent one is fine.
    pub fn remove(&self) -> io::Result<()> {
        unless_absent(std::fs::remove_dir(&self.path))
    }

    /// Waits until no process is in it. Errors only delay: they are not emptiness.
    pub async fn wait_empty(&self) {
        self.wait_populated(false).await;
    }

    /// Waits until a process is in it.
    pub async fn wait_joined(&self) {
        self.wait_populated(true).await;
    }

    async fn wait_populated(&self, wanted: bool) {
        let mut events = self.watch();
        loop {
            match self.populated() {
                Ok(populated) if populated == wanted => return,
                Ok(_) => {}
                Err(error) => tracing::warn!(cgroup = %self.path.display(), %error, "cannot read cgroup.events"),
            }
            match &mut events {
                Some(watch) => _ = timeout(FALLBACK_EVERY, changed(watch)).await,
                None => {
                    tokio::time::sleep(FALLBACK_EVERY).await;
                    events = self.watch();
                }
            }
        }
    }

    #[expect(
        deprecated,
        reason = "a File keeps its descriptor as long as it lives, and the replacement is an unsafe function"
    )]
    fn watch(&self) -> Option<AsyncFd<File>> {
        let mut file = File::open(self.path.join("cgroup.events")).ok()?;
        file.read_to_string(&mut String::new()).ok()?;
        AsyncFd::with_interest(file, Interest::PRIORITY).ok()
    }
}

/// Waits for the kernel's notice that `cgroup.events` has changed.
async fn changed(watch: &mut AsyncFd<File>) {
    match watch.readable_priority().await {
        Some(file) => {
            // The kernel gives the next notice only after this one was read.
            _ = file.rewind();
            _ = file.read_to_string(&mut String::new());
        }
        None => tokio::time::sleep(FALLBACK_EVERY).await,
    }
}

/// Only so that [`changed`] reads as one thought.
trait ReadablePriority {
    async fn readable_priority(&mut self) -> Option<&mut File>;
}

impl ReadablePriority for AsyncFd<File> {
    async fn readable_priority(&mut self) -> Option<&mut File> {
        self.ready_mut(Interest::PRIORITY).await.ok()?.clear_ready();
        Some(self.get_mut())
    }
}

/// Makes the cgroup below which guests get theirs, and makes sure that it is one.
pub fn make_base(base: &Path) -> io::Result<()> {
    make(base)?;
    check_cgroup2(base)
}

fn make(path: &Path) -> io::Result<()> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn check_cgroup2(base: &Path) -> io::Result<()> {
    if base.join("cgroup.events").exists() && base.join("cgroup.procs").exists() {
        return Ok(());
    }
    Err(io::Error::other(format!("{} is not a cgroup v2 below the root", base.display())))
}

/// Names of the cgroups below `base`.
pub fn children(base: &Path) -> io::Result<Vec<String>> {
    check_cgroup2(base)?;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(base)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

fn parse_populated(text: &str) -> io::Result<bool> {
    match text.lines().find_map(|line| line.strip_prefix("populated ")) {
        Some("0") => Ok(false),
        Some("1") => Ok(true),
        _ => Err(io::Error::other("cgroup.events says nothing of processes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hierarchy_out_of_sight_is_not_an_empty_cgroup() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Cgroup::new(folder.path(), "web-1").populated().is_err());
        assert!(children(folder.path()).is_err());
    }

    /// Two may stop the same guest, and one of them removes what the other is about to kill.
    #[test]
    fn what_cannot_be_killed_is_dead_where_nothing_is_in_it_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let cgroup = Cgroup::new(folder.path(), "web-1");
        cgroup.kill().unwrap();
        std::fs::create_dir_all(cgroup.path().join("cgroup.kill")).unwrap();
        let events = cgroup.path().join("cgroup.events");
        std::fs::write(&events, "populated 1\nfrozen 0\n").unwrap();
        cgroup.kill().unwrap_err();
        std::fs::write(&events, "populated 0\nfrozen 0\n").unwrap();
        cgroup.kill().unwrap();
        std::fs::remove_file(&events).unwrap();
        cgroup.kill().unwrap_err();
    }

    #[test]
    fn only_a_plain_word_means_empty() {
        assert!(!parse_populated("populated 0\nfrozen 0\n").unwrap());
        assert!(parse_populated("frozen 0\npopulated 1\n").unwrap());
        assert!(parse_populated("").is_err());
        assert!(parse_populated("populated 2\n").is_err());
    }
}
