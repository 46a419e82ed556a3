//! What a supervisor does for as long as it runs, each thing in a task of its own. One that fails, which takes a defect, is missed by
//! nobody: services would be asked no more, or people not be told of anything, for as long as the rest runs on. So the supervisor ends
//! with it, and is started again by whatever keeps it running, which touches no guest (S5).

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt as _;
use tokio::sync::watch;

/// All that has been begun; cheap to clone.
#[derive(Debug, Clone)]
pub struct Duties(Arc<watch::Sender<Option<&'static str>>>);

impl Default for Duties {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Duties {
    /// Does it in a task of its own. It may end when it is done.
    pub fn begin(&self, what: &'static str, duty: impl Future<Output = ()> + Send + 'static) {
        let failed = Arc::clone(&self.0);
        tokio::spawn(async move {
            if AssertUnwindSafe(duty).catch_unwind().await.is_err() {
                tracing::error!(what, "a part of this supervisor has failed");
                failed.send_replace(Some(what));
            }
        });
    }

    /// Waits until one has failed; says which.
    pub async fn failed(&self) -> &'static str {
        let mut failed = self.0.subscribe();
        let what = failed.wait_for(Option::is_some).await.ok().and_then(|what| *what);
        match what {
            Some(what) => what,
            // Nobody could say so any more.
            None => std::future::pending().await,
        }
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
    use std::time::Duration;

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
        duties.begin("what is done", async move { drop(done) });
        assert!(timeout(LIMIT, is_done).await.unwrap().is_err());
        assert!(timeout(Duration::from_millis(50), duties.failed()).await.is_err(), "it was done");
        duties.begin("what fails", fails());
        assert_eq!(timeout(LIMIT, duties.failed()).await, Ok("what fails"));
        assert_eq!(timeout(LIMIT, duties.failed()).await, Ok("what fails"), "also for whoever looks later");
    }
}
