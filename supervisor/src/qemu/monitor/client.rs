//! The way to a guest's monitor task: questions for QEMU, and what the task knows of the guest.

use std::time::Duration;

use holdfast_policies::{happened::Happened, observe::Sending, time::Moment};
use qapi::Command;
use serde_json::Value;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use super::super::{condition::View, happenings::Happenings, progress::Progress, recent::Recent};

/// Why QEMU's monitor gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The guest's process is gone.
    #[error("the guest has exited")]
    Gone,
    /// No answer in time, or no connection.
    #[error("no answer from the monitor within {0:?}")]
    Deadline(Duration),
    /// QEMU refuses.
    #[error("refused by QEMU: {0}")]
    Refused(String),
    /// QEMU answered something else.
    #[error("unexpected answer")]
    Unexpected(#[source] serde_json::Error),
}

/// A question that waits for the task.
pub(super) struct Ask {
    pub(super) name: &'static str,
    pub(super) arguments: Value,
    pub(super) reply: oneshot::Sender<Result<Value, AskError>>,
}

/// The way to a guest's monitor; cheap to clone.
#[derive(Clone)]
pub struct MonitorClient {
    pub(super) asks: mpsc::Sender<Ask>,
    pub(super) view: watch::Receiver<View>,
    pub(super) recent: Recent,
    pub(super) happenings: Happenings,
    pub(super) progress: Progress,
}

impl MonitorClient {
    /// Asks one question.
    ///
    /// # Errors
    /// See [`AskError`]. After `Deadline` the command may still be carried out, where QEMU has got it.
    pub async fn execute<C: Command>(&self, command: C, deadline: Duration) -> Result<C::Ok, AskError> {
        let arguments = serde_json::to_value(&command).map_err(AskError::Unexpected)?;
        let (reply, answer) = oneshot::channel();
        let ask = Ask { name: C::NAME, arguments, reply };
        let exchange = async {
            self.asks.send(ask).await.map_err(|_| AskError::Gone)?;
            answer.await.map_err(|_| AskError::Gone)?
        };
        let value = timeout(deadline, exchange).await.map_err(|_| AskError::Deadline(deadline))??;
        serde_json::from_value(value).map_err(AskError::Unexpected)
    }

    /// What is known of the guest.
    pub fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// The last few things that QEMU has said unasked, oldest first, each with how long before `now` it was.
    pub fn recent(&self, now: Moment) -> Vec<String> {
        self.recent.told(now)
    }

    /// What has happened to the guest and does not show in its condition, each with how long before `now` it was.
    pub fn happened(&self, now: Moment) -> Vec<Happened> {
        self.happenings.told(now)
    }

    /// Says that a reset until `until` was asked for, and is none of the guest's own.
    pub fn expect_reset(&self, until: Moment) {
        self.happenings.expect_reset(until);
    }

    /// Takes that back: the next reset is the guest's own.
    pub fn expect_no_reset(&self) {
        self.happenings.expect_no_reset();
    }

    /// Notes how far the guest is that is sent away, or that it is not sent any more.
    pub fn note_sending(&self, sending: Option<Sending>) {
        self.progress.note(sending);
    }

    /// How far the guest is, while it is sent away.
    pub fn sending(&self) -> Option<Sending> {
        self.progress.told()
    }

    /// To wait for changes.
    pub fn watch(&self) -> watch::Receiver<View> {
        self.view.clone()
    }
}
