//! Looks at what may hang: files on a network, which are passwords, authorities and programs before they are begun; and names, at a name
//! server that does not answer.
//!
//! Each is done on a thread of its own, and nobody waits for it beyond their deadline. But a thread that hangs cannot be stopped, and
//! power devices are asked again every few seconds. So there are places for so many and no more, and for few at one and the same thing:
//! the rest of the supervisor, the voter's log among it, has its threads from the same pool (tokio has 512).

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs,
    io::{self, Read as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::{sync::Semaphore, task::spawn_blocking};

/// Files that are looked at at once, by this process. A look takes no time unless it hangs; this is more than a cluster has programs and
/// passwords on file systems that hang together, where each of them has all of its places. Of those one file has a few: one that hangs
/// for days keeps no other one waiting, and one look that never ends does not keep those that come after it from trying.
pub(crate) static FILES: Aside = Aside::new(64, 4);

/// Names that are looked up at once, by this process. A dead name server holds each for tens of seconds; one that answers takes
/// milliseconds, and then this is enough for all hosts of a large cluster at once, also where one automation switches all of them.
pub(crate) static NAMES: Aside = Aside::new(64, 8);

/// Places for looks.
pub(crate) struct Aside {
    places: Semaphore,
    /// How many of them the same thing may have.
    alike: usize,
    /// The places of each thing that is looked at or waited for.
    own: Mutex<BTreeMap<OsString, Weak<Semaphore>>>,
}

impl Aside {
    const fn new(places: usize, alike: usize) -> Self {
        Self { places: Semaphore::const_new(places), alike, own: Mutex::new(BTreeMap::new()) }
    }

    /// Does it, once there is a place for a look at this thing. Dropping this gives up the wait; a look that has begun keeps its place
    /// until it ends.
    ///
    /// # Errors
    /// It ended in a panic.
    pub(crate) async fn run<T: Send + 'static>(
        &'static self,
        thing: &OsStr,
        look: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        // The narrower comes first, so that nobody waits for it with a place that others could use.
        let own = self.own(thing).acquire_owned().await.map_err(io::Error::other)?;
        let place = self.places.acquire().await.map_err(io::Error::other)?;
        let look = move || {
            let _held = (own, place);
            look()
        };
        spawn_blocking(look).await.map_err(io::Error::other)
    }

    fn own(&self, thing: &OsStr) -> Arc<Semaphore> {
        let mut all = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(thing).and_then(Weak::upgrade) {
            return known;
        }
        all.retain(|_, places| places.strong_count() > 0);
        let places = Arc::new(Semaphore::new(self.alike));
        all.insert(thing.to_owned(), Arc::downgrade(&places));
        places
    }
}

/// Reads the first bytes of a plain file, aside, and tells its mode.
///
/// # Errors
/// See [`beginning_of`].
pub(crate) async fn read(path: &Path, bytes_max: u64) -> io::Result<(u32, Vec<u8>)> {
    let own = path.to_owned();
    FILES.run(path.as_os_str(), move || beginning_of(&own, bytes_max)).await?
}

/// Reads the first bytes of a plain file, and tells its mode. A pipe, which waits for somebody who writes to it, would hold a thread
/// for ever. The open file is examined, not its name, so that it cannot be exchanged in between.
///
/// # Errors
/// It cannot be read, or is not a plain file.
pub(crate) fn beginning_of(path: &Path, bytes_max: u64) -> io::Result<(u32, Vec<u8>)> {
    let file = fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a plain file"));
    }
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes)?;
    Ok((metadata.permissions().mode(), bytes))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{
        sync::mpsc::{Sender, channel},
        time::Duration,
    };

    use tokio::{task::yield_now, time::timeout};

    use super::*;

    /// Long enough for any machine.
    const LIMIT: Duration = Duration::from_secs(20);
    /// For what is not to end.
    const SHORT: Duration = Duration::from_millis(50);

    /// Looks at a thing that hang until what is returned is dropped, as many as there may be.
    pub(crate) async fn hanging(places: &'static Aside, thing: &OsStr) -> Vec<Sender<()>> {
        let mut held = Vec::new();
        for _ in 0..places.alike {
            let ((hand, end), thing) = (channel::<()>(), thing.to_owned());
            tokio::spawn(async move { places.run(&thing, move || end.recv().is_ok()).await });
            held.push(hand);
        }
        yield_now().await;
        held
    }

    #[tokio::test]
    async fn a_file_that_hangs_holds_few_places_and_no_other_file() {
        let held = hanging(&FILES, "/mnt/dead".as_ref()).await;
        let more = timeout(SHORT, FILES.run("/mnt/dead".as_ref(), || ())).await;
        assert!(more.is_err(), "it has more places than its own");
        timeout(LIMIT, FILES.run("/etc/well".as_ref(), || ())).await.expect("another file waits for it").unwrap();
        drop(held);
        timeout(LIMIT, FILES.run("/mnt/dead".as_ref(), || ())).await.expect("it is looked at again").unwrap();
    }

    #[tokio::test]
    async fn looks_that_hang_have_no_more_places_than_there_are() {
        static PLACES: Aside = Aside::new(6, 2);
        let mut held = Vec::new();
        for number in 0..6 {
            let ((hand, end), file) = (channel::<()>(), format!("file {number}"));
            tokio::spawn(async move { PLACES.run(file.as_ref(), move || end.recv().is_ok()).await });
            held.push(hand);
        }
        let all_begun = async {
            while PLACES.places.available_permits() > 0 {
                yield_now().await;
            }
        };
        timeout(LIMIT, all_begun).await.expect("all begin");
        assert!(timeout(SHORT, PLACES.run("one more".as_ref(), || ())).await.is_err(), "one more has begun");
        drop(held);
        timeout(LIMIT, PLACES.run("one more".as_ref(), || ())).await.expect("it begins").unwrap();
    }

    #[tokio::test]
    async fn what_is_not_looked_at_any_more_is_forgotten() {
        static PLACES: Aside = Aside::new(2, 1);
        for number in 0..10 {
            PLACES.run(OsStr::new(&format!("file {number}")), || ()).await.unwrap();
        }
        assert_eq!(PLACES.own.lock().unwrap().len(), 1);
    }
}
