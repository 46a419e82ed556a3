//! Work that may hang in the kernel: names that are resolved, files that may lie on a network.
//!
//! It is done on threads of its own, and no question waits for it beyond its deadline. But a thread that hangs cannot be stopped,
//! and the next question begins another one. So there are places for so many and no more: else a dead name server or file system
//! would soon hold every thread on which the rest of the program reads and writes, the voter's log among it (tokio has 512).

use std::{fs, io, os::unix::fs::OpenOptionsExt, path::Path};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    task::spawn_blocking,
};

/// Names that are resolved at once. A dead name server holds each for tens of seconds; a slow one for tenths of a second, and then
/// this is enough for hundreds of names in a second.
#[cfg(feature = "network")]
pub(crate) static NAMES: Aside = Aside::new(128);

/// Files that are looked at at once; each takes no time unless it hangs.
pub(crate) static FILES: Aside = Aside::new(64);

/// Places for work that may hang.
pub(crate) struct Aside {
    places: Semaphore,
}

impl Aside {
    const fn new(places: usize) -> Self {
        Self { places: Semaphore::const_new(places) }
    }

    /// Does it, once there is a place for it. Dropping this gives up the wait; work that has begun keeps its place until it ends.
    ///
    /// # Errors
    /// It ended in a panic.
    pub async fn run<T: Send + 'static>(&'static self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let place = self.places.acquire().await.map_err(io::Error::other)?;
        spawn_blocking(move || done_in(place, work)).await.map_err(io::Error::other)
    }
}

fn done_in<T>(_place: SemaphorePermit<'static>, work: impl FnOnce() -> T) -> T {
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
    async fn hanging(places: &'static Aside) -> Sender<()> {
        let (held, end) = channel::<()>();
        assert!(timeout(SHORT, places.run(move || end.recv().is_ok())).await.is_err());
        held
    }

    #[tokio::test]
    async fn work_that_hangs_keeps_its_place_so_that_no_more_hangs_than_there_are_places() {
        static PLACES: Aside = Aside::new(2);
        let held = [hanging(&PLACES).await, hanging(&PLACES).await];
        assert!(timeout(SHORT, PLACES.run(|| ())).await.is_err(), "a third one has begun");
        drop(held);
        timeout(LIMIT, PLACES.run(|| ())).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn one_thing_that_hangs_again_and_again_leaves_places_for_all_others() {
        static PLACES: Aside = Aside::new(4);
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(hanging(&PLACES).await);
        }
        timeout(LIMIT, PLACES.run(|| ())).await.expect("another thing waits for it").unwrap();
    }

    #[tokio::test]
    async fn work_that_panics_gives_its_place_back() {
        static PLACES: Aside = Aside::new(1);
        assert!(PLACES.run(|| -> u8 { panic!("a defect") }).await.is_err());
        assert_eq!(timeout(LIMIT, PLACES.run(|| 7)).await.unwrap().unwrap(), 7);
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(plain_file(&pipe).is_err());
    }
}
