//! Work that may hang in the kernel: names that are resolved, files that may lie on a network, programs among them.
//!
//! It is done on threads of its own, and no question waits for it beyond its deadline. But a thread that hangs cannot be stopped,
//! and the next question begins another one. So there are places for so many and no more: else a dead name server or file system
//! would soon hold every thread on which the rest of the program reads and writes, the voter's log among it (tokio has 512). And
//! one and the same thing has few of them: a single file that hangs for days keeps no other one waiting.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit},
    task::spawn_blocking,
};

/// Names that are resolved at once. A dead name server holds each for tens of seconds; a slow one for tenths of a second, and then
/// this is enough for hundreds of names in a second, or for the same one dozens of times.
#[cfg(feature = "network")]
pub(crate) static NAMES: Aside = Aside::new(128, 16);

/// Passwords that are hashed at once for a login. Each takes milliseconds of a processor, or as many more as its server says
/// (SCRAM): one server has one place, so that no guest keeps a host busy.
#[cfg(feature = "network")]
pub(crate) static HASHES: Aside = Aside::new(4, 1);

/// Files that are looked at at once, and programs that are begun; each takes no time unless it hangs.
pub(crate) static FILES: Aside = Aside::new(64, 4);

/// Places for work that may hang.
pub struct Aside {
    places: Semaphore,
    /// How many of them the same thing may have.
    alike: usize,
    /// The places of each thing that is worked on or waited for.
    own: Mutex<BTreeMap<OsString, Weak<Semaphore>>>,
}

/// A place, and with it one of those that the thing has.
type Held = (SemaphorePermit<'static>, OwnedSemaphorePermit);

impl Aside {
    /// So many places, of which one and the same thing may have `alike`.
    #[must_use]
    pub const fn new(places: usize, alike: usize) -> Self {
        Self { places: Semaphore::const_new(places), alike, own: Mutex::new(BTreeMap::new()) }
    }

    /// Does it, once there is a place for work on this thing. Dropping this gives up the wait; work that has begun keeps its place
    /// until it ends.
    ///
    /// # Errors
    /// It ended in a panic.
    pub async fn run<T: Send + 'static>(
        &'static self,
        on: &OsStr,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        // The narrower comes first, so that nobody waits for it with a place that others could use.
        let own = self.own(on).acquire_owned().await.map_err(io::Error::other)?;
        let place = self.places.acquire().await.map_err(io::Error::other)?;
        spawn_blocking(move || done_in((place, own), work)).await.map_err(io::Error::other)
    }

    fn own(&self, on: &OsStr) -> Arc<Semaphore> {
        let mut all = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(on).and_then(Weak::upgrade) {
            return known;
        }
        all.retain(|_, places| places.strong_count() > 0);
        let places = Arc::new(Semaphore::new(self.alike));
        all.insert(on.to_owned(), Arc::downgrade(&places));
        places
    }

    /// Begins as much work on one thing as may be begun at once. All of it hangs until what is returned is dropped.
    #[cfg(test)]
    pub(crate) async fn hang(&'static self, on: &OsStr) -> Vec<std::sync::mpsc::Sender<()>> {
        let mut all = Vec::new();
        for _ in 0..self.alike {
            let ((held, end), own) = (std::sync::mpsc::channel::<()>(), on.to_owned());
            tokio::spawn(async move { self.run(&own, move || end.recv().is_ok()).await });
            all.push(held);
        }
        tokio::task::yield_now().await;
        all
    }
}

/// Looks at a file of this host.
///
/// # Errors
/// What `look` says, or that it ended in a panic.
#[cfg(feature = "network")]
pub(crate) async fn of_file<T: Send + 'static>(path: &Path, look: fn(&Path) -> Result<T, String>) -> Result<T, String> {
    let own = path.to_owned();
    FILES.run(path.as_os_str(), move || look(&own)).await.map_err(|error| error.to_string())?
}

fn done_in<T>(_held: Held, work: impl FnOnce() -> T) -> T {
    work()
}

/// `O_NONBLOCK`, so that opening a pipe waits for nobody (open(2)).
const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();

/// Opens a plain file. Whoever may write its folder may put a pipe or a device there, which would hold the reader for ever.
pub(crate) fn plain_file(path: &Path) -> io::Result<fs::File> {
    let file = fs::OpenOptions::new().read(true).custom_flags(NONBLOCK).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a plain file")) }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc::{Sender, channel},
        time::Duration,
    };

    use tokio::time::timeout;

    use super::*;

    /// Long enough for any machine.
    const LIMIT: Duration = Duration::from_secs(20);
    /// For what is not to end.
    const SHORT: Duration = Duration::from_millis(50);

    /// Gives up on work that hangs until what is returned is dropped.
    async fn hanging(places: &'static Aside, on: &str) -> Sender<()> {
        let (held, end) = channel::<()>();
        assert!(timeout(SHORT, places.run(on.as_ref(), move || end.recv().is_ok())).await.is_err());
        held
    }

    #[tokio::test]
    async fn work_that_hangs_keeps_its_place_so_that_no_more_hangs_than_there_are_places() {
        static PLACES: Aside = Aside::new(2, 2);
        let held = [hanging(&PLACES, "a").await, hanging(&PLACES, "b").await];
        assert!(timeout(SHORT, PLACES.run("c".as_ref(), || ())).await.is_err(), "a third one has begun");
        drop(held);
        timeout(LIMIT, PLACES.run("c".as_ref(), || ())).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn one_thing_that_hangs_again_and_again_leaves_places_for_all_others() {
        static PLACES: Aside = Aside::new(4, 2);
        let held = [hanging(&PLACES, "dead").await, hanging(&PLACES, "dead").await];
        for _ in 0..2 {
            assert!(
                timeout(SHORT, PLACES.run("dead".as_ref(), || ())).await.is_err(),
                "it has more places than its own"
            );
        }
        timeout(LIMIT, PLACES.run("well".as_ref(), || ())).await.expect("another thing waits for it").unwrap();
        drop(held);
        timeout(LIMIT, PLACES.run("dead".as_ref(), || ())).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_is_not_worked_on_any_more_is_forgotten() {
        static PLACES: Aside = Aside::new(2, 1);
        for number in 0..10 {
            PLACES.run(OsStr::new(&format!("file {number}")), || ()).await.unwrap();
        }
        assert_eq!(PLACES.own.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn work_that_panics_gives_its_place_back() {
        static PLACES: Aside = Aside::new(1, 1);
        assert!(PLACES.run("a".as_ref(), || -> u8 { panic!("a defect") }).await.is_err());
        assert_eq!(timeout(LIMIT, PLACES.run("a".as_ref(), || 7)).await.unwrap().unwrap(), 7);
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(plain_file(&pipe).is_err());
    }
}
