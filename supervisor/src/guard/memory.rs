//! What the guard must not forget when it is started again within one boot (R13): stop mode, the lease, the registered
//! guests, those that it has stopped, that a watchdog was counted on, and who votes. It is kept in `run_dir`, which dies with the host.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fs,
    io::{self, Read as _, Write as _},
    iter::successors,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use holdfast_policies::{names::Incarnation, time::Moment};
use serde::{Deserialize, Serialize};

use super::protocol::{Guest, Stopped, VOTERS_MAX};

/// The file below `run_dir`.
const FILE_NAME: &str = "guard.json";
/// Longest file read, in bytes: as many guests as may be registered take half of it, all of them stopped included.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Memory {
    /// The boot that it belongs to.
    pub(super) incarnation: Incarnation,
    /// Whether guests are stopped when the lease runs out (R14).
    pub(super) stops: bool,
    /// The time-out in milliseconds of a watchdog that was armed and told of, so that somebody may count on it.
    pub(super) counted_on: Option<u64>,
    /// When the lease ends or ended; none: none was granted, or it was taken back.
    pub(super) deadline: Option<Moment>,
    /// The registered guests.
    pub(super) guests: BTreeSet<Guest>,
    /// Guests that were killed because the lease had run out, until they are registered or unregistered again.
    #[serde(default)]
    pub(super) stopped: Vec<Stopped>,
    /// Who gets the beacon, as the supervisor has last said; empty: it has said nothing yet. A guard that starts anew while its
    /// supervisor is down knows those who vote only from here: the host file names voters for bootstrap alone (R16, R23).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) voters: Vec<SocketAddr>,
}

impl Memory {
    /// Nothing, of this boot.
    pub(super) fn blank(incarnation: Incarnation) -> Self {
        Self {
            incarnation,
            stops: false,
            counted_on: None,
            deadline: None,
            guests: BTreeSet::new(),
            stopped: Vec::new(),
            voters: Vec::new(),
        }
    }
}

/// Most digits of a deadline.
const DIGITS_MAX: usize = 20;

/// Where it is kept.
#[derive(Debug)]
pub(super) struct Keeper {
    /// The file.
    pub(super) path: PathBuf,
    /// What is written first, and then takes the file's place.
    fresh: PathBuf,
    /// What is to be written. Its memory is used again, because with every longer lease something is.
    text: RefCell<Vec<u8>>,
}

impl Keeper {
    /// In this folder.
    pub(super) fn new(run_dir: &Path) -> Self {
        let path = run_dir.join(FILE_NAME);
        Self { fresh: path.with_extension("new"), path, text: RefCell::default() }
    }

    /// What an earlier guard of this boot has kept; blank when there was none.
    ///
    /// # Errors
    /// When there is a file that cannot be read. It is not taken for none: its guests would run on without a lease.
    pub(super) fn load(&self, incarnation: &Incarnation) -> io::Result<Memory> {
        let file = match fs::File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Memory::blank(incarnation.clone())),
            Err(error) => return Err(error),
        };
        let mut text = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut text)?;
        let mut memory: Memory = serde_json::from_slice(&text)?;
        memory.voters.truncate(VOTERS_MAX);
        Ok(if memory.incarnation == *incarnation { memory } else { Memory::blank(incarnation.clone()) })
    }

    /// Replaces what is kept. It outlives this process, and need not outlive the host.
    ///
    /// # Errors
    /// When it cannot be written; then what was kept before still is.
    pub(super) fn keep(&self, memory: &Memory) -> io::Result<()> {
        let mut text = self.text.borrow_mut();
        text.clear();
        serde_json::to_writer(&mut *text, memory)?;
        text.reserve(room(memory.deadline));
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&self.fresh)?;
        file.write_all(&text)?;
        fs::rename(&self.fresh, &self.path)
    }
}

/// Room in the buffer beyond what was written, for the longest deadline in place of this one. What a buffer has to hold is then
/// the same whatever the deadline is, so that a longer lease is kept without allocating, also the first and one whose deadline
/// has a digit more.
fn room(deadline: Option<Moment>) -> usize {
    let shorter = |rest: &u64| Some(*rest / 10).filter(|rest| *rest > 0);
    let taken = deadline.map_or("null".len(), |deadline| successors(Some(deadline.0), shorter).count());
    DIGITS_MAX.saturating_sub(taken)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use holdfast_policies::names::GuestName;

    use super::*;

    #[test]
    fn what_is_kept_is_found_within_the_boot_and_in_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let (keeper, boot) = (Keeper::new(folder.path()), Incarnation::new("boot-1").unwrap());
        assert_eq!(keeper.load(&boot).unwrap(), Memory::blank(boot.clone()));
        let name = GuestName::new("web-1").unwrap();
        let guest = Guest { guest: name.clone(), cgroup: PathBuf::from("/c/web-1") };
        let stopped = vec![Stopped { guest: name, at: Moment(9), lease_ended: Some(Moment(7)) }];
        let (deadline, guests) = (Some(Moment(7)), BTreeSet::from([guest]));
        let (incarnation, voters) = (boot.clone(), vec!["10.0.0.1:7400".parse().unwrap(); VOTERS_MAX]);
        let memory = Memory { incarnation, stops: true, counted_on: Some(10_000), deadline, guests, stopped, voters };
        keeper.keep(&memory).unwrap();
        assert_eq!(keeper.load(&boot).unwrap(), memory);
        assert_eq!(fs::metadata(&keeper.path).unwrap().permissions().mode() & 0o777, 0o600);
        let more = Memory { voters: vec!["10.0.0.1:7400".parse().unwrap(); VOTERS_MAX + 1], ..memory.clone() };
        keeper.keep(&more).unwrap();
        assert_eq!(keeper.load(&boot).unwrap(), memory, "of more than there can be the first are taken");
        let other = Incarnation::new("boot-2").unwrap();
        assert_eq!(keeper.load(&other).unwrap(), Memory::blank(other));
    }

    /// As the version before there were feature levels kept it: a guard that is upgraded within a boot reads that, and the other way
    /// round.
    #[test]
    fn the_memory_of_an_older_guard_is_read_and_kept_in_the_same_words() {
        const OLDER: &str = r#"{"incarnation":"boot-1","stops":true,"counted_on":10000,"deadline":7,"guests":[{"guest":"web-1","cgroup":"/c/web-1"}],"stopped":[{"guest":"db-1","at":9,"lease_ended":7}]}"#;
        let folder = tempfile::tempdir().unwrap();
        let (keeper, boot) = (Keeper::new(folder.path()), Incarnation::new("boot-1").unwrap());
        fs::write(&keeper.path, OLDER).unwrap();
        let memory = keeper.load(&boot).unwrap();
        assert_eq!((memory.stops, memory.counted_on, memory.deadline), (true, Some(10_000), Some(Moment(7))));
        assert_eq!((memory.guests.len(), memory.stopped.len()), (1, 1));
        keeper.keep(&memory).unwrap();
        assert_eq!(fs::read_to_string(&keeper.path).unwrap(), OLDER);
    }

    #[test]
    fn whatever_the_deadline_is_it_is_kept_in_the_same_room() {
        let boot = Incarnation::new("boot-1").unwrap();
        let needed = |deadline: Option<Moment>| {
            let memory = Memory { deadline, ..Memory::blank(boot.clone()) };
            serde_json::to_vec(&memory).unwrap().len() + room(deadline)
        };
        let longest = needed(Some(Moment(u64::MAX)));
        assert_eq!(room(Some(Moment(u64::MAX))), 0);
        for deadline in [None, Some(0), Some(9), Some(10), Some(999_999), Some(1_000_000)] {
            assert_eq!(needed(deadline.map(Moment)), longest, "{deadline:?}");
        }
    }

    #[test]
    fn garbage_is_an_error_and_not_a_blank_memory() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE_NAME), "{\"stops\":true").unwrap();
        assert!(Keeper::new(folder.path()).load(&Incarnation::new("boot-1").unwrap()).is_err());
    }
}
