//! Telling people and their tools about incidents: PagerDuty, Prometheus Alertmanager, webhooks.
//!
//! ```text
//! AlertState --plan--> Due --render--> Request --deliver--> Delivery --+--> Delivered, to the lead, who commits it
//!      ^                                                               +--> Attempts, local: when to try again
//!      +------------------------- committed, in the next state ------------+
//! ```
//! What was confirmed is replicated state (`Incident::delivered`), so a new coordinator goes on where the old one stood.
//! Delivery is therefore *at least once*: every format carries a key by which the receiver drops what it already has.

mod alertmanager;
mod attempts;
mod clocks;
mod deliver;
mod pagerduty;
mod plan;
mod request;
mod secrets;
#[cfg(test)]
mod stub;
mod task;
#[cfg(test)]
mod tests;
mod webhook;

use holdfast_policies::{incident::Incident, model::Receiver, time::WallTime};

pub use self::{
    attempts::Attempts,
    deliver::{ClientError, Deliverer, Delivery},
    plan::{Due, Plan, Tally, Wake, plan},
    request::{RenderError, Request, Secret},
    secrets::{SecretError, Secrets, read_secrets},
    task::{Clock, run},
};
use super::metrics::ReceiverKind;

/// What the task needs to know of the replicated state; the lead publishes a new one at every change.
#[derive(Debug, Clone, Default)]
pub struct AlertState {
    /// The cluster's id: part of every key by which receivers tell incidents apart.
    pub cluster: String,
    /// Whom to tell.
    pub receivers: Vec<Receiver>,
    /// Open incidents, and resolved ones as long as they are kept.
    pub incidents: Vec<Incident>,
    /// Whether this supervisor is the coordinator. Only the coordinator tells anybody anything.
    pub active: bool,
}

/// A receiver has confirmed an incident up to `seq`; the lead commits it into `Incident::delivered`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// The incident's number.
    pub incident: u64,
    /// [`Receiver::key`].
    pub receiver: String,
    /// The change that was confirmed.
    pub seq: u64,
}

/// A delivery that did not succeed so far; what `holdfast status` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The incident's number.
    pub incident: u64,
    /// [`Receiver::shown`].
    pub receiver: String,
    /// The newest change that was tried.
    pub seq: u64,
    /// Tries in a row that came to nothing.
    pub tries: u32,
    /// Whether the receiver refused it.
    pub rejected: bool,
    /// Why; carries no secret.
    pub detail: String,
}

/// Writes the request that tells `receiver` about `incident`, when it is `now` there.
///
/// # Errors
/// [`RenderError`] when the receiver's URL cannot be used or its secret is missing.
pub fn render(
    receiver: &Receiver,
    cluster: &str,
    incident: &Incident,
    now: WallTime,
    secrets: &Secrets,
) -> Result<Request, RenderError> {
    match receiver {
        Receiver::Pagerduty { url, .. } => pagerduty::render(url, cluster, incident, secrets),
        Receiver::Alertmanager { url, .. } => alertmanager::render(url, cluster, incident, now),
        Receiver::Webhook { url, .. } => webhook::render(url, cluster, incident),
    }
}

/// Which kind of receiver it is, for metrics.
#[must_use]
pub fn kind(receiver: &Receiver) -> ReceiverKind {
    match receiver {
        Receiver::Pagerduty { .. } => ReceiverKind::Pagerduty,
        Receiver::Alertmanager { .. } => ReceiverKind::Alertmanager,
        Receiver::Webhook { .. } => ReceiverKind::Webhook,
    }
}

/// `2026-01-02T03:04:05.678Z`; the epoch for a time that no calendar has.
fn rfc3339(time: WallTime) -> String {
    let ms = i64::try_from(time.0).unwrap_or_default();
    format!("{:.3}", jiff::Timestamp::from_millisecond(ms).unwrap_or_default())
}

/// The first `most` characters, ending in an ellipsis when something was cut.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}
