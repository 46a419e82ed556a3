//! Since when a guest's file systems are frozen, as far as this host has seen when it spoke with QEMU's agent.
//!
//! ```text
//! not known --the agent says so, or refuses for that--> frozen --it says that they are thawed, or the guest has reset itself--> not known
//! ```
//! It is asked for whenever a connection is opened, and so before a service is restarted or the guest told to reboot; and for this alone
//! while services of the guest begin to fail, or a reset that asks no agent would come in the middle of a backup. In quiet times
//! nothing is asked. From when it is known the agent is asked again, so that it is seen when that is over.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use holdfast_policies::{
    observe::GuestCondition,
    time::{Moment, millis},
};
use holdfast_probes::channel::ChannelError;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::{AgentChannel, Inner, connection::Connection};
use crate::clock;

/// Pause between two questions to the agent of a guest that is frozen, or may be. Each keeps others out for some milliseconds.
pub(super) const ASK_EVERY: Duration = Duration::from_secs(2);

/// How long it may take to answer. While somebody else speaks with it, it does not.
const ANSWER: Duration = Duration::from_secs(1);

/// What is known of one guest.
#[derive(Default)]
pub(super) struct Freeze {
    frozen: Mutex<Option<Frozen>>,
    /// When it was last begun to look, because services fail.
    looked: Mutex<Option<Instant>>,
}

struct Frozen {
    since: Moment,
    /// How often the machine had begun anew by then: with that all is thawed.
    resets: u32,
    /// Asks again, and ends with this.
    _asks: AbortOnDropHandle<()>,
}

impl Freeze {
    fn known(&self) -> MutexGuard<'_, Option<Frozen>> {
        self.frozen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is time to look again; if so it counts as done.
    fn is_due(&self, now: Instant) -> bool {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = looked.is_none_or(|looked| now.duration_since(looked) >= ASK_EVERY);
        if is_due {
            *looked = Some(now);
        }
        is_due
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

    /// Begins to look whether the guest's file systems are frozen, because services of it fail; what is seen is noted. It may be called
    /// as often as somebody says so.
    pub fn look_whether_frozen(&self) {
        let is_known = self.frozen_ms(clock::moment()).is_some();
        if is_known || self.inner.socket.is_none() || !self.inner.freeze.is_due(Instant::now()) {
            return;
        }
        let channel = self.clone();
        tokio::spawn(async move {
            // Who speaks with the agent meanwhile, here or elsewhere, is not waited for: then it is looked again.
            let _ = timeout(ANSWER, channel.look()).await;
        });
    }

    /// Asks only where no connection is kept: over one that is nobody else can have had the file systems frozen. The one that is opened
    /// for this is closed at once, and nothing is run in the guest, nor written into its log, as a ping is.
    async fn look(&self) {
        let (Some(socket), Ok(()), Ok(_caller)) = (&self.inner.socket, self.reachable(), self.caller()) else { return };
        let place = self.inner.connection.lock().await;
        if place.is_some() {
            return;
        }
        if let Ok(connection) = Connection::open(socket).await {
            self.note_frozen(connection.was_frozen);
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
