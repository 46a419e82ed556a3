//! Since when a guest's file systems are frozen, as far as this host has seen when it spoke with QEMU's agent.
//!
//! ```text
//! not known --the agent says so, or refuses for that--> frozen --it says that they are thawed, or the guest has reset itself--> not known
//! ```
//! It is asked for whenever a connection is opened, and so before a service is restarted or the guest told to reboot; in quiet times
//! nothing is asked for this alone. From when it is known the agent is asked again, so that it is seen when that is over.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use holdfast_policies::{
    observe::GuestCondition,
    time::{Moment, millis},
};
use holdfast_probes::channel::ChannelError;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::{AgentChannel, Inner};
use crate::clock;

/// Pause between two questions to the agent of a guest that is frozen. Each keeps others out for some milliseconds.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// How long it may take to answer. While somebody else speaks with it, it does not.
const ANSWER: Duration = Duration::from_secs(1);

/// What is known of one guest.
#[derive(Default)]
pub(super) struct Freeze(Mutex<Option<Frozen>>);

struct Frozen {
    since: Moment,
    /// How often the machine had begun anew by then: with that all is thawed.
    resets: u32,
    /// Asks again, and ends with this.
    _asks: AbortOnDropHandle<()>,
}

impl Freeze {
    fn known(&self) -> MutexGuard<'_, Option<Frozen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AgentChannel {
    /// For how long the guest's file systems have been seen to be frozen, in milliseconds.
    pub fn frozen_ms(&self, now: Moment) -> Option<u64> {
        let resets = self.inner.view.borrow().resets;
        let known = self.inner.freeze.known();
        known.as_ref().filter(|frozen| frozen.resets == resets).map(|frozen| millis(now.since(frozen.since)))
    }

    /// Asks QEMU's agent whether a command can end in the guest: Holdfast's own does not know of frozen file systems, and would have one
    /// hang. Where nobody answers, nothing is held up.
    ///
    /// # Errors
    /// [`ChannelError::Frozen`] and no other.
    pub async fn not_frozen(&self) -> Result<(), ChannelError> {
        let answers = self.inner.socket.is_some() && self.ping_qemus(ANSWER).await.is_ok();
        // It was noted whether it says so.
        match self.frozen_ms(clock::moment()).filter(|_| answers) {
            Some(_) => Err(ChannelError::Frozen),
            None => Ok(()),
        }
    }

    /// Notes what the agent has just said.
    pub(super) fn note_frozen(&self, is_frozen: bool) {
        let resets = self.inner.view.borrow().resets;
        let mut known = self.inner.freeze.known();
        if !is_frozen {
            // With it ends who asks again, be it that it was they who were told.
            *known = None;
        } else if known.as_ref().is_none_or(|frozen| frozen.resets != resets) {
            let asks = AbortOnDropHandle::new(tokio::spawn(ask_again(Arc::downgrade(&self.inner))));
            *known = Some(Frozen { since: clock::moment(), resets, _asks: asks });
        }
    }
}

async fn ask_again(inner: Weak<Inner>) {
    loop {
        sleep(ASK_EVERY).await;
        let Some(inner) = inner.upgrade() else { return };
        let channel = AgentChannel { inner };
        if matches!(channel.inner.view.borrow().condition, GuestCondition::Exited { .. }) {
            return;
        }
        // What it says is noted. Where it says nothing, nothing is known to have changed.
        let _ = channel.ping_qemus(ANSWER).await;
    }
}
