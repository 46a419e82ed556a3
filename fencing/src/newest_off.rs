//! The newest `off` that a device was sent and of which nobody hears any more: it may still be carried out (R20).
//!
//! ```text
//! nothing sent --sent, and accepted or left without an answer--> goes on --15 s--> nothing left of it
//!      ^------------- refused, or it never reached the device ------'
//! ```

use std::{
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use holdfast_policies::model::SETTLE;
use tokio::time::Instant;

use crate::device::Answer;

/// What is known of it. One `off` is sent at a time.
#[derive(Debug)]
pub(crate) struct NewestOff {
    /// [`SETTLE`], but in tests.
    goes_on: Duration,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The call that lasts may have reached the device.
    may_be_sent: bool,
    /// When the newest call ended that may have.
    ended: Option<Instant>,
}

/// A call; also one that nobody waits for any more ends.
struct Call<'a>(&'a NewestOff);

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let mut known = self.0.known();
        if mem::take(&mut known.may_be_sent) {
            known.ended = Some(Instant::now());
        }
    }
}

impl Default for NewestOff {
    fn default() -> Self {
        Self { goes_on: SETTLE, known: Mutex::default() }
    }
}

impl NewestOff {
    /// That of a device which is known to be done sooner.
    #[cfg(test)]
    pub fn done_within(goes_on: Duration) -> Self {
        Self { goes_on, ..Self::default() }
    }

    /// Makes a call, which says itself when it sends something ([`Self::sends`]). What is refused is not done.
    pub async fn watch(&self, off: impl Future<Output = Answer<()>> + Send) -> Answer<()> {
        self.known().may_be_sent = false;
        let call = Call(self);
        let answer = off.await;
        if matches!(answer, Answer::Refused { .. }) {
            self.sent_nothing();
        }
        drop(call);
        answer
    }

    /// From here on the device may get the order.
    pub fn sends(&self) {
        self.known().may_be_sent = true;
    }

    /// It turned out that it did not.
    pub fn sent_nothing(&self) {
        self.known().may_be_sent = false;
    }

    /// For how much longer the newest may be carried out: see [`crate::PowerDevice::goes_on_for`].
    pub fn goes_on_for(&self) -> Duration {
        self.known().ended.map_or(Duration::ZERO, |ended| self.goes_on.saturating_sub(ended.elapsed()))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::timeout;

    use super::*;

    async fn sent(newest: &NewestOff, answer: Answer<()>) -> Answer<()> {
        newest.sends();
        answer
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_accepted_or_not_answered_goes_on_and_what_was_refused_or_never_sent_does_not() {
        for (answer, goes_on) in [
            (Answer::Confirmed(()), SETTLE),
            (Answer::unknown("no answer"), SETTLE),
            (Answer::refused("no"), Duration::ZERO),
        ] {
            let newest = NewestOff::default();
            let _ = newest.watch(sent(&newest, answer.clone())).await;
            assert_eq!(newest.goes_on_for(), goes_on, "{answer:?}");
        }
        let newest = NewestOff::default();
        let _ = newest.watch(async { Answer::unknown("unreachable") }).await;
        assert_eq!(newest.goes_on_for(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_nobody_waits_for_any_more_goes_on_from_then() {
        let newest = NewestOff::default();
        let hangs = async {
            newest.sends();
            pending::<Answer<()>>().await
        };
        assert!(timeout(Duration::from_secs(3), newest.watch(hangs)).await.is_err());
        assert_eq!(newest.goes_on_for(), SETTLE);
        tokio::time::advance(Duration::from_secs(4)).await;
        let _ = newest.watch(async { Answer::unknown("unreachable") }).await;
        assert_eq!(newest.goes_on_for(), SETTLE - Duration::from_secs(4), "the one before still counts");
        tokio::time::advance(SETTLE).await;
        assert_eq!(newest.goes_on_for(), Duration::ZERO);
    }
}
