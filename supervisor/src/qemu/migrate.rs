//! Live migration: the target waits paused, the source hands over only with a word (R22).
//!
//! The source stops its guest when little memory is left to send, and then asks `go`. Until `go` has said yes the
//! source keeps the guest: whatever goes wrong, it runs on here. After everything was sent the source stays paused.
//! What is done about a guest that writes faster than it is copied is in `converge.rs`.

use std::{future::Future, net::IpAddr, time::Duration};

use holdfast_policies::{
    observe::{GuestCondition, Sending, clean},
    same_machine::Difference,
};
use qapi::{Command, Empty, qmp};
use serde::Serialize;
use serde_json::Value;
use tokio::time::{Instant, timeout};

use super::{
    condition::MigrationStatus,
    converge::{Busy, Convergence, DOWNTIME_MS, Pace, Standing},
    monitor::{ANSWER_DEADLINE, AskError, MonitorClient},
};
use crate::causes::with_causes;

/// Memory is sent at most this fast, in bytes a second: QEMU's own default of 128 MiB/s lets a busy guest never end.
const BANDWIDTH_BYTES_MAX: u64 = 1 << 30;

/// How often progress is looked up besides events, and how soon a move that is not wanted any more ends.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long a cancelled migration may take to end, and a guest to run again.
const END_DEADLINE: Duration = Duration::from_secs(5);

/// How long a cancellation may seem to hang before QEMU's sending thread is woken once more.
const WAKE_AFTER: Duration = Duration::from_millis(500);

/// What a finished migration took, as QEMU measured it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationOutcome {
    /// From the command to the end.
    pub total: Duration,
    /// While the guest ran on neither side, not counting the wait for the order to run on the target.
    pub downtime: Duration,
    /// Memory sent, in bytes.
    pub sent_bytes: u64,
    /// How often memory was sent: all of it once, then what had been written to meanwhile.
    pub rounds: u64,
}

/// Why a guest was not sent, as far as that is known here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// It would never have been sent: only a stop and a start moves such a guest.
    #[error("{0}")]
    Busy(Busy),
    /// Whoever ordered it has given the move up.
    #[error("the move was called off")]
    CalledOff,
    /// It took too long.
    #[error("not finished before the deadline")]
    Late,
    /// This host has no right to let go of it any more, or that was not known in time.
    #[error("this host may not hand the guest over")]
    NoWord,
    /// Its supervisor has died meanwhile, or QEMU did not answer that, and nobody else was following.
    #[error("nobody followed it any more while it was sent")]
    Orphaned,
    /// QEMU says so, or gives no answer.
    #[error("{0}")]
    Qemu(String),
}

/// Why a guest was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The host has no such guest.
    #[error("no such guest here")]
    Absent,
    /// The guest is not in a state that can be sent.
    #[error("the guest is {0:?}")]
    NotRunning(GuestCondition),
    /// It would find another processor there than it was started with.
    #[error("it was started with the processor `{ours}`, and `{theirs}` waits for it: it has to be started anew first")]
    OtherProcessor {
        /// What it was started with.
        ours: String,
        /// What waits.
        theirs: String,
    },
    /// It would go on there with other disks or devices than it was started with. What to do comes first, since long paths are cut.
    #[error("it has to be started anew first (`guest migrate --cold`, or stop and start): {0}")]
    OtherMachine(Difference),
    /// It was not sent, and runs on here.
    #[error("not sent, runs on here: {0}")]
    Kept(NotSent),
    /// It was not sent, and does not run here either; its processes are still here, so it runs nowhere.
    #[error("not sent, and paused here: {detail}; the guest is {condition:?}")]
    Stopped {
        /// Why it was not sent.
        detail: NotSent,
        /// How it was last seen.
        condition: GuestCondition,
    },
    /// QEMU does not answer; the guest may be here, or wholly sent.
    #[error("outcome unknown: {0}")]
    Unknown(String),
}

/// How migration stands, as far as this module cares.
#[derive(Debug)]
struct Progress {
    status: MigrationStatus,
    detail: String,
    standing: Standing,
    outcome: MigrationOutcome,
}

/// Makes an incoming guest listen, and says where.
pub async fn listen(monitor: &MonitorClient, address: IpAddr) -> Result<String, AskError> {
    prepare(monitor, false).await?;
    let host = host_of(address);
    let incoming = qmp::migrate_incoming { channels: None, exit_on_error: None, uri: Some(format!("tcp:{host}:0")) };
    monitor.execute(incoming, ANSWER_DEADLINE).await?;
    listening(monitor, address).await
}

/// Where an incoming guest listens.
pub async fn listening(monitor: &MonitorClient, address: IpAddr) -> Result<String, AskError> {
    let answer = monitor.execute(QueryMigrate {}, ANSWER_DEADLINE).await?;
    let port =
        answer.pointer("/socket-address/0/port").and_then(Value::as_str).and_then(|port| port.parse::<u16>().ok());
    let port = port.ok_or_else(|| AskError::Refused(clean(&format!("does not say where it listens: {answer}"))))?;
    Ok(format!("tcp:{}:{port}", host_of(address)))
}

fn host_of(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// Sends a running guest to `uri`, where an incoming one listens.
///
/// `wanted` is asked again and again, up to the word to hand over: whether the guest is to be sent at all. `go` is asked once, when
/// the guest is stopped and about to be handed over: whether this host may still let go of it. Its answer counts against the
/// downtime.
///
/// # Errors
/// See [`SendError`].
pub async fn send<W, F>(
    monitor: &MonitorClient,
    uri: &str,
    deadline: Duration,
    wanted: &W,
    go: F,
) -> Result<MigrationOutcome, SendError>
where
    W: Fn() -> bool,
    F: Future<Output = bool>,
{
    let condition = monitor.view().condition;
    if condition != GuestCondition::Running {
        return Err(SendError::NotRunning(condition));
    }
    // It may have waited for its turn, or for the disk.
    if !wanted() {
        return Err(SendError::Kept(NotSent::CalledOff));
    }
    let began = Instant::now();
    let started = async {
        prepare(monitor, true).await?;
        let migrate = qmp::migrate { channels: None, detach: None, resume: None, uri: Some(uri.to_owned()) };
        monitor.execute(migrate, ANSWER_DEADLINE).await
    };
    if let Err(error) = started.await {
        return Err(not_begun(monitor, &error).await);
    }
    let followed = follow(monitor, began, began + deadline, wanted, go).await;
    monitor.note_sending(None);
    let sent = match followed {
        Ok(Some(outcome)) => Ok(outcome),
        Ok(None) => Err(keep(monitor, NotSent::Qemu("cancelled".to_owned())).await),
        Err(why) => give_up(monitor, why).await,
    };
    if sent.is_ok() {
        // So that whoever looks at the inventory next sees it too; that it was sent is certain.
        wait_for(monitor, GuestCondition::Sent, ANSWER_DEADLINE).await;
    }
    sent
}

/// QEMU may yet carry out what it has not answered in time, with nobody there to give the word: the guest would stay stopped. So it is
/// cancelled; QEMU does in order what it is told. Nothing can have been handed over: one that has completed is an earlier one, such
/// as that by which the guest has come here.
async fn not_begun(monitor: &MonitorClient, error: &AskError) -> SendError {
    let detail = NotSent::Qemu(format!("cannot begin: {}", text(error)));
    if matches!(error, AskError::Deadline(_))
        && let Err(error) = cancel(monitor).await
    {
        return SendError::Unknown(format!("{detail}; then {}", text(&error)));
    }
    keep(monitor, detail).await
}

/// Follows a migration to its end. `Err` says why it should not go on.
async fn follow<W, F>(
    monitor: &MonitorClient,
    began: Instant,
    deadline: Instant,
    wanted: &W,
    go: F,
) -> Result<Option<MigrationOutcome>, NotSent>
where
    W: Fn() -> bool,
    F: Future<Output = bool>,
{
    let mut go = Some(Box::pin(go));
    let mut changes = monitor.watch();
    let mut convergence = Convergence::default();
    loop {
        let progress = look(monitor).await.map_err(|error| NotSent::Qemu(text(&error)))?;
        // Once the word is given it is a matter of moments, and as safe to wait for as to end.
        if go.is_some() && !wanted() {
            return Err(NotSent::CalledOff);
        }
        match progress.status {
            MigrationStatus::Completed => return Ok(Some(progress.outcome)),
            MigrationStatus::Failed => return Err(NotSent::Qemu(format!("failed: {}", progress.detail))),
            MigrationStatus::Cancelled => return Ok(None),
            MigrationStatus::Active => keep_pace(monitor, &mut convergence, progress.standing, began.elapsed()).await?,
            MigrationStatus::PreSwitchover => {
                if let Some(go) = go.take() {
                    hand_over(monitor, deadline, go).await?;
                }
            }
            _ => {}
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(NotSent::Late);
        }
        // A closed channel means that the guest is gone; the next look says so.
        _ = timeout(LOOK_EVERY.min(left), changes.changed()).await;
    }
}

/// Says how far it is, and does about it what there is to do.
async fn keep_pace(
    monitor: &MonitorClient,
    convergence: &mut Convergence,
    standing: Standing,
    elapsed: Duration,
) -> Result<(), NotSent> {
    match convergence.look(standing, elapsed) {
        Pace::GoOn => {}
        Pace::Raise { downtime_ms } => {
            let Standing { round, needs_ms, .. } = standing;
            tracing::info!(round, needs_ms, downtime_ms, "a guest that is sent may be stopped for longer");
            let parameters = SetParameters { max_bandwidth: None, downtime_limit: downtime_ms };
            if let Err(error) = monitor.execute(parameters, ANSWER_DEADLINE).await {
                tracing::warn!(%error, "QEMU does not take the new downtime limit");
            }
        }
        Pace::GiveUp(busy) => return Err(NotSent::Busy(busy)),
    }
    monitor.note_sending(Some(Sending {
        round: standing.round,
        left_mib: standing.left_bytes >> 20,
        downtime_ms: convergence.limit_ms(),
    }));
    Ok(())
}

async fn hand_over(monitor: &MonitorClient, deadline: Instant, go: impl Future<Output = bool>) -> Result<(), NotSent> {
    let left = deadline.saturating_duration_since(Instant::now());
    match timeout(left, go).await {
        Ok(true) => {
            let state = qmp::MigrationStatus::pre_switchover;
            let continued = monitor.execute(qmp::migrate_continue { state }, ANSWER_DEADLINE).await;
            continued.map(|_| ()).map_err(|error| NotSent::Qemu(text(&error)))
        }
        Ok(false) | Err(_) => Err(NotSent::NoWord),
    }
}

/// Cancels, and finds out on which side the guest is.
async fn give_up(monitor: &MonitorClient, why: NotSent) -> Result<MigrationOutcome, SendError> {
    match cancel(monitor).await {
        // It was quicker than the cancelling.
        Ok(Some(outcome)) => Ok(outcome),
        Ok(None) => Err(keep(monitor, why).await),
        Err(error) => Err(SendError::Unknown(format!("{why}; then {}", text(&error)))),
    }
}

/// Cancels a migration that this guest may have under way. `Some`: everything had already been sent.
pub async fn cancel(monitor: &MonitorClient) -> Result<Option<MigrationOutcome>, AskError> {
    monitor.execute(qmp::migrate_cancel {}, ANSWER_DEADLINE).await?;
    let began = Instant::now();
    let deadline = began + END_DEADLINE;
    let mut changes = monitor.watch();
    loop {
        let progress = look(monitor).await?;
        match progress.status {
            MigrationStatus::Completed => return Ok(Some(progress.outcome)),
            MigrationStatus::Failed | MigrationStatus::Cancelled => return Ok(None),
            MigrationStatus::Other(_) => return Ok(None),
            MigrationStatus::Cancelling if began.elapsed() >= WAKE_AFTER => wake(monitor).await,
            _ if Instant::now() >= deadline => return Err(AskError::Deadline(END_DEADLINE)),
            _ => {}
        }
        _ = timeout(LOOK_EVERY, changes.changed()).await;
    }
}

/// A cancellation that comes right before QEMU waits for the word to hand over does not end that wait (seen with 7.2), and
/// the guest would stay stopped. The word ends it, and what has been cancelled is not handed over any more.
async fn wake(monitor: &MonitorClient) {
    let state = qmp::MigrationStatus::cancelling;
    if let Err(error) = monitor.execute(qmp::migrate_continue { state }, ANSWER_DEADLINE).await {
        // It has ended in this very moment.
        tracing::debug!(%error, "QEMU's sending thread was not woken");
    }
}

/// Makes a guest that was not sent run again here. QEMU does that by itself, except when it could not tell whether the
/// guest ran before.
pub async fn keep(monitor: &MonitorClient, detail: NotSent) -> SendError {
    let wait = |condition| wait_for(monitor, condition, END_DEADLINE / 2);
    if !wait(GuestCondition::Running).await {
        // Told to run, it would do so as soon as it has arrived, without the word (R22).
        if monitor.view().condition == GuestCondition::Incoming {
            return SendError::NotRunning(GuestCondition::Incoming);
        }
        if let Err(error) = monitor.execute(qmp::cont {}, ANSWER_DEADLINE).await {
            tracing::warn!(%error, "guest could not be resumed after a failed migration");
        }
        wait(GuestCondition::Running).await;
    }
    match monitor.view().condition {
        GuestCondition::Running => SendError::Kept(detail),
        GuestCondition::Unknown { detail: why } => SendError::Unknown(format!("{detail}; then {why}")),
        condition => SendError::Stopped { detail, condition },
    }
}

/// Waits until a guest is in `condition`; false when it is not by the deadline.
pub async fn wait_for(monitor: &MonitorClient, condition: GuestCondition, deadline: Duration) -> bool {
    let mut changes = monitor.watch();
    let reached = changes.wait_for(|view| view.condition == condition);
    matches!(timeout(deadline, reached).await, Ok(Ok(_)))
}

async fn look(monitor: &MonitorClient) -> Result<Progress, AskError> {
    let answer = monitor.execute(QueryMigrate {}, ANSWER_DEADLINE).await?;
    let number = |pointer: &str| answer.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
    let word = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    Ok(Progress {
        status: MigrationStatus::parse(word("/status")),
        detail: clean(word("/error-desc")),
        standing: Standing {
            round: number("/ram/dirty-sync-count"),
            left_bytes: number("/ram/remaining"),
            needs_ms: number("/expected-downtime"),
        },
        outcome: MigrationOutcome {
            total: Duration::from_millis(number("/total-time")),
            downtime: Duration::from_millis(number("/downtime")),
            sent_bytes: number("/ram/transferred"),
            rounds: number("/ram/dirty-sync-count"),
        },
    })
}

/// Both sides must agree on these. With `return-path` the source hears from the target whether everything arrived, and
/// keeps the guest otherwise; with `late-block-activate` the target leaves the disks alone until it is told to run.
async fn prepare(monitor: &MonitorClient, source: bool) -> Result<(), AskError> {
    use qmp::MigrationCapability::{events, late_block_activate, pause_before_switchover, return_path};
    let mut capabilities = vec![events, late_block_activate, return_path];
    if source {
        capabilities.push(pause_before_switchover);
    }
    let on = |capability| qmp::MigrationCapabilityStatus { capability, state: true };
    let capabilities = capabilities.into_iter().map(on).collect();
    monitor.execute(qmp::migrate_set_capabilities { capabilities }, ANSWER_DEADLINE).await?;
    // Set anew each time: an attempt that was given up may have left another limit.
    let parameters = SetParameters { max_bandwidth: Some(BANDWIDTH_BYTES_MAX), downtime_limit: DOWNTIME_MS };
    monitor.execute(parameters, ANSWER_DEADLINE).await?;
    Ok(())
}

/// An error with its causes, short and in one line.
fn text(error: &AskError) -> String {
    clean(&with_causes(error))
}

/// `migrate-set-parameters` with the two that matter; QEMU takes both also while it sends, and leaves what is not named as it is.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct SetParameters {
    #[serde(skip_serializing_if = "Option::is_none")]
    max_bandwidth: Option<u64>,
    downtime_limit: u64,
}

impl Command for SetParameters {
    type Ok = Empty;
    const NAME: &'static str = "migrate-set-parameters";
    const ALLOW_OOB: bool = false;
}

/// `query-migrate` whose answer is taken as it comes, since it grows with every QEMU.
#[derive(Serialize)]
struct QueryMigrate {}

impl Command for QueryMigrate {
    type Ok = Value;
    const NAME: &'static str = "query-migrate";
    const ALLOW_OOB: bool = false;
}

#[cfg(test)]
mod tests;
