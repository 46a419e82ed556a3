//! The registered guests' cgroups, as the guard needs them at the end of a lease: to see whether each is empty, and to kill
//! what is in it. A guest is gone when nothing is in its cgroup and its QEMU runs nowhere else (process.rs). Descriptors are
//! opened ahead, and neither looking nor killing allocates memory.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use holdfast_policies::names::GuestName;

use super::{process::Process, protocol::Guest};
use crate::qemu;

/// Bytes of `cgroup.events` that are read: two short lines, and room for more kinds of events.
const EVENTS_BYTES: usize = 256;

/// Whether something runs, in a cgroup or elsewhere. Of two that are looked at, the greater counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Population {
    /// The kernel says that nothing does.
    Empty,
    /// That cannot be known; it is treated as populated, and killed.
    Unknown,
    /// The kernel says that something does.
    Populated,
}

/// All registered cgroups.
#[derive(Debug)]
pub(super) struct Cgroups {
    /// Below which guests write the numbers of their processes.
    run_dir: PathBuf,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    guest: Guest,
    events_path: PathBuf,
    kill_path: PathBuf,
    /// Tells a cgroup that was removed from a hierarchy that is out of sight.
    base_path: PathBuf,
    files: Option<Files>,
    process: Process,
    /// How it was when it was last killed.
    seen: Population,
    /// Something ran when it was killed.
    killed: bool,
}

#[derive(Debug)]
struct Files {
    events: File,
    kill: File,
}

impl Cgroups {
    /// None yet, of guests whose files are below `run_dir`.
    pub(super) fn new(run_dir: &Path) -> Self {
        Self { run_dir: run_dir.to_owned(), entries: Vec::new() }
    }

    /// Makes the list that of these guests; those that stay keep their descriptors.
    pub(super) fn replace<'g>(&mut self, guests: impl Iterator<Item = &'g Guest>) {
        let mut old = std::mem::take(&mut self.entries);
        for guest in guests {
            let known = old.iter().position(|entry| entry.guest == *guest).map(|place| old.swap_remove(place));
            self.entries.push(known.unwrap_or_else(|| Entry::new(guest, &self.run_dir)));
        }
        self.open();
    }

    /// Opens what can be opened by now: a cgroup may be made after its registration, and made anew at any later start, and QEMU
    /// is found as soon as it has written its number.
    pub(super) fn open(&mut self) {
        for entry in &mut self.entries {
            _ = entry.population();
        }
    }

    /// Kills whatever is left of any of the guests. Returns of how many it was not known that nothing is.
    pub(super) fn kill(&mut self) -> usize {
        self.entries.iter_mut().for_each(Entry::kill_known);
        // To look for what is not known yet may take longer, and delays no other guest's end.
        self.entries.iter_mut().for_each(Entry::kill_elsewhere);
        self.entries.iter().filter(|entry| entry.seen != Population::Empty).count()
    }

    /// Of how many guests it is not known that nothing is left.
    pub(super) fn populated(&mut self) -> usize {
        self.entries.iter_mut().map(Entry::population).filter(|population| *population != Population::Empty).count()
    }

    /// The guests that were killed since this was last asked.
    pub(super) fn take_killed(&mut self) -> Vec<GuestName> {
        let killed = self.entries.iter_mut().filter(|entry| entry.killed);
        let names = killed.map(|entry| {
            entry.killed = false;
            entry.guest.guest.clone()
        });
        names.collect()
    }
}

impl Entry {
    fn new(guest: &Guest, run_dir: &Path) -> Self {
        let path = &guest.cgroup;
        Self {
            guest: guest.clone(),
            events_path: path.join("cgroup.events"),
            kill_path: path.join("cgroup.kill"),
            base_path: path.parent().unwrap_or(Path::new("/")).join("cgroup.procs"),
            files: None,
            process: Process::new(qemu::pid_file(run_dir, &guest.guest), path),
            seen: Population::Empty,
            killed: false,
        }
    }

    fn kill_known(&mut self) {
        let inside = self.in_cgroup();
        if inside != Population::Empty
            && let Some(files) = &self.files
        {
            // Frozen ones die, too, and so does what they fork meanwhile. Whether it helped is seen at the next look.
            _ = files.kill.write_at(b"1", 0);
        }
        self.seen = inside.max(self.process.known());
        self.process.kill();
    }

    fn kill_elsewhere(&mut self) {
        self.seen = self.seen.max(self.process.look());
        self.process.kill();
        self.killed |= self.seen == Population::Populated;
    }

    fn population(&mut self) -> Population {
        self.in_cgroup().max(self.process.look())
    }

    /// A cgroup that was made anew since it was opened is another one.
    fn in_cgroup(&mut self) -> Population {
        if let Some(files) = &self.files {
            match read_population(&files.events) {
                Ok(population) => return population,
                Err(_) => self.files = None,
            }
        }
        match self.open() {
            Ok(files) => {
                let population = read_population(&files.events).unwrap_or(Population::Unknown);
                self.files = Some(files);
                population
            }
            Err(_) if self.is_gone() => Population::Empty,
            Err(_) => Population::Unknown,
        }
    }

    fn open(&self) -> io::Result<Files> {
        let events = File::open(&self.events_path)?;
        Ok(Files { events, kill: File::options().write(true).open(&self.kill_path)? })
    }

    /// The folder is missing although those around it are in sight: it was removed, which only an empty cgroup's can be.
    fn is_gone(&self) -> bool {
        matches!(self.guest.cgroup.try_exists(), Ok(false)) && self.base_path.exists()
    }
}

fn read_population(events: &File) -> io::Result<Population> {
    let mut text = [0; EVENTS_BYTES];
    let length = events.read_at(&mut text, 0)?;
    Ok(parse(text.get(..length).unwrap_or_default()))
}

fn parse(events: &[u8]) -> Population {
    for line in events.split(|byte| *byte == b'\n') {
        match line {
            b"populated 0" => return Population::Empty,
            b"populated 1" => return Population::Populated,
            _ => {}
        }
    }
    Population::Unknown
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn cgroup(base: &Path, name: &str) -> Guest {
        Guest { guest: GuestName::new(name).unwrap(), cgroup: base.join(name) }
    }

    #[test]
    fn only_the_kernels_word_means_empty() {
        for (text, population) in [
            ("populated 0\nfrozen 0\n", Population::Empty),
            ("frozen 0\npopulated 1\n", Population::Populated),
            ("populated 2\n", Population::Unknown),
            ("frozen 0\n", Population::Unknown),
            ("", Population::Unknown),
        ] {
            assert_eq!(parse(text.as_bytes()), population, "{text:?}");
        }
    }

    #[test]
    fn a_hierarchy_out_of_sight_is_not_an_empty_cgroup() {
        let folder = tempfile::tempdir().unwrap();
        let mut cgroups = Cgroups::new(folder.path());
        cgroups.replace([cgroup(folder.path(), "web-1")].iter());
        assert_eq!(cgroups.populated(), 1, "neither the cgroup nor anything around it is there");
        fs::write(folder.path().join("cgroup.procs"), "").unwrap();
        assert_eq!(cgroups.populated(), 0, "it was never made, or has been removed");
    }

    #[test]
    fn whatever_is_not_known_to_be_empty_is_killed_and_only_what_was_seen_running_counts_as_killed() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("cgroup.procs"), "").unwrap();
        let guests = ["empty", "garbled", "running"].map(|name| cgroup(folder.path(), name));
        for (guest, events) in guests.iter().zip(["populated 0\n", "?\n", "populated 1\n"]) {
            fs::create_dir(&guest.cgroup).unwrap();
            fs::write(guest.cgroup.join("cgroup.events"), events).unwrap();
            fs::write(guest.cgroup.join("cgroup.kill"), "").unwrap();
        }
        let mut cgroups = Cgroups::new(folder.path());
        cgroups.replace(guests.iter());
        assert_eq!(cgroups.kill(), 2);
        let written = guests.each_ref().map(|guest| fs::read_to_string(guest.cgroup.join("cgroup.kill")).unwrap());
        assert_eq!(written, ["", "1", "1"]);
        assert_eq!(cgroups.take_killed(), [GuestName::new("running").unwrap()]);
        assert_eq!(cgroups.take_killed(), []);
    }

    #[test]
    fn a_guest_that_somebody_has_moved_out_of_its_cgroup_is_not_gone_and_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("cgroup.procs"), "").unwrap();
        let guest = cgroup(folder.path(), "web-1");
        fs::create_dir(&guest.cgroup).unwrap();
        fs::write(guest.cgroup.join("cgroup.events"), "populated 0\n").unwrap();
        fs::write(guest.cgroup.join("cgroup.kill"), "").unwrap();
        let number = qemu::pid_file(folder.path(), &guest.guest);
        fs::create_dir_all(number.parent().unwrap()).unwrap();
        let mut moved = super::super::process::tests::run(&number);
        fs::write(&number, format!("{}\n", moved.id())).unwrap();
        let mut cgroups = Cgroups::new(folder.path());
        cgroups.replace([guest].iter());
        assert_eq!(cgroups.populated(), 1);
        assert_eq!(cgroups.kill(), 1);
        moved.wait().unwrap();
        assert_eq!((cgroups.populated(), cgroups.kill()), (0, 0));
        assert_eq!(cgroups.take_killed(), [GuestName::new("web-1").unwrap()]);
    }
}
