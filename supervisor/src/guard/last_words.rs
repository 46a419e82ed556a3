//! What the guard says around the end of a lease. A thread of its own says it, so that neither memory nor a log that
//! nobody reads can delay the kill.

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
    pub(super) fn begin() -> io::Result<Self> {
        let (to_say, heard) = sync_channel(WAITING_MAX);
        thread::Builder::new().name("last-words".to_owned()).spawn(move || say_all(&heard))?;
        Ok(Self { to_say })
    }

    /// Has this said, unless too much waits already.
    pub(super) fn say(&self, words: Words) {
        _ = self.to_say.try_send(words);
    }
}

fn say_all(heard: &Receiver<Words>) {
    for words in heard {
        match words {
            Words::Stopping { since, now, running, guests } => {
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
            Words::Stopped { took } => {
                tracing::warn!(took_ms = took.as_millis(), "the lease has run out: no guest runs here any more");
            }
        }
    }
}
