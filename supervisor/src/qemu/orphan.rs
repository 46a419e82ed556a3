//! Migrations that nobody follows: of a supervisor that has died, cancelled by the next one, or of a QEMU that did not answer when it
//! was told to end one, cancelled when it does. So the guest runs on here.
//!
//! A send is followed by the supervisor that began it, and by no other: its order is not done twice. What goes on without it
//! ends badly, since QEMU stops the guest before it hands it over and waits for a word that nobody will give. Until
//! everything was sent the source alone may run the guest (R22), so keeping it is safe; a guest that was wholly sent stays
//! as it is, paused, for the coordinator to judge.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use holdfast_policies::{
    names::{Epoch, GuestName},
    observe::GuestCondition,
};
use tokio::{sync::watch, time::sleep};

use super::{
    How, Inner,
    condition::{MigrationStatus, View},
    migrate::{self, NotSent},
    monitor::MonitorClient,
};

/// How often a cancellation is tried that a QEMU does not carry out although it answers, and the pause between two tries. One that is
/// silent is waited for, however long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// How often.
    pub(super) tries: u32,
    /// The pause.
    pub(super) pause: Duration,
}

const PATIENCE: Patience = Patience { tries: 30, pause: Duration::from_secs(2) };

/// Looks at every guest that was adopted, as soon as its QEMU answers.
pub fn keep_what_was_being_sent(inner: &Arc<Inner>) {
    for guest in inner.registry.guests() {
        if let Some(monitor) = inner.registry.monitor(&guest) {
            let run = inner.registry.started(&guest);
            // Neither holds the driver, or the way to the monitor: they end with it.
            tokio::spawn(keep(Arc::downgrade(inner), guest, run, monitor.watch(), PATIENCE));
        }
    }
}

/// Ends a move of which its sender knows no more, because QEMU did not answer, as soon as it answers. It may stand with its guest
/// stopped, and wait to be woken (`migrate.rs`).
pub fn keep_later(inner: Weak<Inner>, guest: GuestName, monitor: &MonitorClient) {
    let run = inner.upgrade().and_then(|inner| inner.registry.started(&guest));
    tokio::spawn(keep(inner, guest, run, monitor.watch(), PATIENCE));
}

/// Tries until nothing is left to try, or QEMU answers and has refused often enough. A try during which it fell silent is none: it may
/// have been taken for one that answers by what was known before it hung.
pub(super) async fn keep(
    inner: Weak<Inner>,
    guest: GuestName,
    run: Option<(Epoch, How)>,
    mut changes: watch::Receiver<View>,
    patience: Patience,
) {
    if answers(&mut changes).await != Some(true) {
        return;
    }
    let mut tries = 0;
    while tries < patience.tries {
        match inner.upgrade() {
            Some(inner) if !cancelled(&inner, &guest, run).await => {}
            Some(_) | None => return,
        }
        sleep(patience.pause).await;
        let hangs = is_silent(&changes.borrow());
        if !hangs {
            tries += 1;
        } else if answers(&mut changes).await.is_none() {
            return;
        }
    }
}

/// Waits until QEMU answers, and says whether its guest is being sent then. `None`: nobody is left to ask it.
async fn answers(changes: &mut watch::Receiver<View>) -> Option<bool> {
    let known = changes.wait_for(|view| !is_silent(view)).await;
    known.ok().map(|view| is_being_sent(&view))
}

/// Whether QEMU does not answer. What was last known before stands for some seconds.
fn is_silent(view: &View) -> bool {
    matches!(view.condition, GuestCondition::Unknown { .. })
}

/// Cancels once. False when QEMU did not say what came of it. Of another run than the one that was adopted there is nothing to cancel:
/// by now the guest may be waiting here to arrive.
pub(super) async fn cancelled(inner: &Inner, guest: &GuestName, run: Option<(Epoch, How)>) -> bool {
    let gate = inner.registry.gate(guest);
    let _gate = gate.lock().await;
    if inner.registry.started(guest) != run {
        return true;
    }
    let Some(monitor) = inner.registry.monitor(guest) else { return true };
    match migrate::cancel(&monitor).await {
        Ok(Some(_)) => tracing::warn!(%guest, "it was sent away, and nobody followed that; it stays paused here"),
        Ok(None) => {
            let kept = migrate::keep(&monitor, NotSent::Orphaned).await;
            tracing::warn!(%guest, %kept, "a migration that nobody followed was cancelled");
        }
        Err(error) => {
            tracing::warn!(%guest, %error, "a migration that nobody follows cannot be cancelled yet");
            return false;
        }
    }
    true
}

/// Whether a guest is on its way from here to another host. One that arrives has other conditions until all of it is here.
fn is_being_sent(view: &View) -> bool {
    let here = match &view.condition {
        GuestCondition::Incoming | GuestCondition::Sent | GuestCondition::Exited { .. } => false,
        GuestCondition::Running
        | GuestCondition::Paused { .. }
        | GuestCondition::Panicked
        | GuestCondition::IoError { .. }
        | GuestCondition::Unknown { .. } => true,
    };
    let under_way = match &view.migration {
        None | Some(MigrationStatus::Completed | MigrationStatus::Failed | MigrationStatus::Cancelled) => false,
        Some(_) => true,
    };
    here && under_way
}
