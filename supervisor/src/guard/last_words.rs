//! What the guard says around the end of a lease. A thread of its own says it, so that neither memory nor a log that
//! nobody reads can delay the kill; then it writes it down, and waits for the disk.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use holdfast_policies::{names::GuestName, time::Moment};

use super::written::Written;
use crate::{agent::last_words::named, causes::with_causes, clock};

/// Words that may wait to be said: two are said for each lease that runs out.
const WAITING_MAX: usize = 16;

/// Something to be said.
#[derive(Debug, Clone)]
pub(super) enum Words {
    /// Guests are about to be killed.
    Stopping {
        /// When the lease ran out, if one was recorded.
        since: Option<Moment>,
        /// When this is said.
        now: Moment,
        /// How many cgroups are not known to be empty.
        running: usize,
        /// The registered guests.
        guests: Arc<[GuestName]>,
    },
    /// Every cgroup is empty.
    Stopped {
        /// How long that has taken.
        took: Duration,
    },
}

/// Has things said. It never waits.
#[derive(Debug)]
pub(super) struct LastWords {
    to_say: SyncSender<Words>,
}

impl LastWords {
    /// Begins to listen.
    pub(super) fn begin(written: Written) -> io::Result<Self> {
        let (to_say, heard) = sync_channel(WAITING_MAX);
        thread::Builder::new().name("last-words".to_owned()).spawn(move || say_all(&heard, &written))?;
        Ok(Self { to_say })
    }

    /// Has this said, unless too much waits already.
    pub(super) fn say(&self, words: Words) {
        _ = self.to_say.try_send(words);
    }
}

fn say_all(heard: &Receiver<Words>, written: &Written) {
    for words in heard {
        words.log();
        if let Err(error) = written.add(clock::wall(), &words.sentence()) {
            tracing::warn!(error = with_causes(&error), "the guard's last words cannot be written down");
        }
    }
}

impl Words {
    fn log(&self) {
        match self {
            Self::Stopping { since, now, running, guests } => {
                let over_ms = since.map(|since| now.since(since).as_millis());
                let guests: Vec<&str> = guests.iter().map(GuestName::as_str).collect();
                tracing::error!(
                    lease_ended_ms = since.map(|since| since.0),
                    over_ms,
                    running,
                    ?guests,
                    "the lease has run out and this host is in stop mode: stopping its guests"
                );
            }
            Self::Stopped { took } => {
                tracing::warn!(took_ms = took.as_millis(), "the lease has run out: no guest runs here any more");
            }
        }
    }

    /// The same for whoever reads it in a later boot.
    fn sentence(&self) -> String {
        match self {
            Self::Stopping { since, now, guests, running: _ } => {
                let lease = match since {
                    Some(since) => format!("the lease ran out {} ms ago", now.since(*since).as_millis()),
                    None => "there is no lease".to_owned(),
                };
                let guests: Vec<&GuestName> = guests.iter().collect();
                format!("{lease}; stopping {}", named(&guests))
            }
            Self::Stopped { took } => format!("no guest runs here any more, {} ms later", took.as_millis()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use holdfast_policies::names::Incarnation;

    use super::{super::written::untold, *};

    #[test]
    fn what_is_said_is_on_disk_for_the_next_boot() {
        let folder = tempfile::tempdir().unwrap();
        let boot = |name: &str| Incarnation::new(name).unwrap();
        let words = LastWords::begin(Written::new(folder.path(), boot("boot-1"))).unwrap();
        let guests = ["web-1", "web-2"].map(|name| GuestName::new(name).unwrap());
        words.say(Words::Stopping { since: Some(Moment(7)), now: Moment(9), running: 1, guests: Arc::new(guests) });
        words.say(Words::Stopped { took: Duration::from_millis(12) });
        let begin = Instant::now();
        let mut told = Vec::new();
        while told.len() < 2 && begin.elapsed() < Duration::from_secs(20) {
            thread::sleep(Duration::from_millis(5));
            told = untold(folder.path(), &boot("boot-2")).unwrap();
        }
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].ends_with(" boot-1 the lease ran out 2 ms ago; stopping web-1, web-2"), "{told:?}");
        assert!(told[1].ends_with(" boot-1 no guest runs here any more, 12 ms later"), "{told:?}");
    }
}
