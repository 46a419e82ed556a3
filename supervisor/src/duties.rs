//! What a supervisor does for as long as it runs, each thing in a task of its own. One that fails, which takes a defect, is missed by
//! nobody: services would be asked no more, or people not be told of anything, for as long as the rest runs on. So the supervisor ends
//! with it, and is started again by whatever keeps it running, which touches no guest (S5).
//!
//! What fails once may fail soon after every start, on all hosts at once where they do the same. So the supervisor ends at once only
//! with a part without which the rest is of no use; with any other it lasts for a while at least, in which it leads, votes and
//! renews leases.

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// How long a supervisor lasts at least that has lost a part which the rest can do without. Far longer than a start and an election
/// take together: starting again and again, all supervisors at once, costs only a small part of their time.
const LASTS_MIN: Duration = Duration::from_secs(60);

/// All that has been begun; cheap to clone.
#[derive(Debug, Clone)]
pub struct Duties(Arc<Failed>);

/// What has failed.
#[derive(Debug)]
struct Failed {
    /// When the supervisor began.
    began: Instant,
    vital: watch::Sender<Option<&'static str>>,
    other: watch::Sender<Option<&'static str>>,
}

impl Default for Duties {
    fn default() -> Self {
        let (vital, other) = (watch::Sender::new(None), watch::Sender::new(None));
        Self(Arc::new(Failed { began: Instant::now(), vital, other }))
    }
}

impl Duties {
    /// Does it in a task of its own, where the supervisor is to end at once if it fails. It may end when it is done.
    pub fn begin_vital(&self, what: &'static str, duty: impl Future<Output = ()> + Send + 'static) {
        self.spawn(what, duty, |failed| &failed.vital);
    }

    /// Does it in a task of its own, where the rest is of use without it for a while. It may end when it is done.
    pub fn begin(&self, what: &'static str, duty: impl Future<Output = ()> + Send + 'static) {
        self.spawn(what, duty, |failed| &failed.other);
    }

    fn spawn(
        &self,
        what: &'static str,
        duty: impl Future<Output = ()> + Send + 'static,
        whom: fn(&Failed) -> &watch::Sender<Option<&'static str>>,
    ) {
        let failed = Arc::clone(&self.0);
        tokio::spawn(async move {
            if AssertUnwindSafe(duty).catch_unwind().await.is_err() {
                tracing::error!(what, "a part of this supervisor has failed");
                whom(&failed).send_replace(Some(what));
            }
        });
    }

    /// Waits until the supervisor is to end because one has failed; says which.
    pub async fn failed(&self) -> &'static str {
        let later = async {
            let what = told(&self.0.other).await;
            sleep_until(self.0.began + LASTS_MIN).await;
            what
        };
        tokio::select! {
            what = told(&self.0.vital) => what,
            what = later => what,
        }
    }
}

/// Waits until it is told that one has failed.
async fn told(failed: &watch::Sender<Option<&'static str>>) -> &'static str {
    let mut failed = failed.subscribe();
    let what = failed.wait_for(Option::is_some).await.ok().and_then(|what| *what);
    match what {
        Some(what) => what,
        // Nobody could say so any more.
        None => std::future::pending().await,
    }
}

/// What comes of some work. That it fails by a defect is an error like any other to whoever waits for it, and would wait in vain for the
/// word of a task that has ended by that.
///
/// # Errors
/// Those of the work, and that it has failed.
pub async fn to_its_end<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let ended = AssertUnwindSafe(work).catch_unwind().await;
    ended.unwrap_or_else(|_| Err("a defect of Holdfast; please report it with the log of this supervisor".to_owned()))
}

#[cfg(test)]
mod tests {
    use tokio::{sync::oneshot, time::timeout};

    use super::*;

    /// Longest wait, on a busy machine.
    const LIMIT: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn work_that_fails_by_a_defect_ends_with_an_error() {
        assert_eq!(to_its_end(async { Ok(7) }).await, Ok(7));
        assert_eq!(to_its_end(async { Err::<(), _>("no answer".to_owned()) }).await, Err("no answer".to_owned()));
        let failed = to_its_end(async {
            fails().await;
            Ok(())
        });
        assert!(failed.await.unwrap_err().contains("a defect"));
    }

    async fn fails() {
        panic!("by a defect");
    }

    #[tokio::test]
    async fn a_part_that_fails_is_missed_whenever_that_is_looked_for_and_one_that_is_done_is_not() {
        let duties = Duties::default();
        let (done, is_done) = oneshot::channel::<()>();
        duties.begin_vital("what is done", async move { drop(done) });
        assert!(timeout(LIMIT, is_done).await.unwrap().is_err());
        assert!(timeout(Duration::from_millis(50), duties.failed()).await.is_err(), "it was done");
        duties.begin_vital("what fails", fails());
        assert_eq!(timeout(LIMIT, duties.failed()).await, Ok("what fails"));
        assert_eq!(timeout(LIMIT, duties.failed()).await, Ok("what fails"), "also for whoever looks later");
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_fails_after_every_start_leaves_the_rest_most_of_its_time_unless_nothing_is_of_use_without_it()
    {
        let duties = Duties::default();
        let began = Instant::now();
        duties.begin("asking", fails());
        assert_eq!(duties.failed().await, "asking");
        assert!(began.elapsed() >= LASTS_MIN, "{:?}", began.elapsed());
        let late = Instant::now();
        assert_eq!(duties.failed().await, "asking");
        assert!(late.elapsed() < LASTS_MIN, "it has lasted for long enough");

        let duties = Duties::default();
        duties.begin("asking", fails());
        duties.begin_vital("authority", fails());
        assert_eq!(duties.failed().await, "authority");
        assert!(late.elapsed() < LASTS_MIN, "nothing is decided without it");
    }
}
