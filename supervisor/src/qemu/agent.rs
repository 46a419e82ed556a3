//! The way into a guest through the QEMU guest agent.
//!
//! The agent answers in order and knows no ids, so one connection is used by one caller at a time, for one short
//! command. Whoever gives up in the middle, by deadline or by being dropped, takes the connection with it; the next
//! caller opens a new one and synchronises, which throws away what was left unread.

mod connection;
mod freeze;
mod left;

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use holdfast_policies::{
    model::Probe,
    observe::{GuestCondition, Outcome, clean},
};
use holdfast_probes::channel::{ChannelError, ExecResult, Exit, GuestChannel};
use qapi::{Command, qga};
use serde_json::Value;
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, sleep, timeout_at},
};

use self::{
    connection::{Kept, Place},
    freeze::Freeze,
    left::Left,
};
use super::{
    condition::View,
    own::{OwnAgent, Unanswered},
    wire::WireError,
};
use crate::clock;

/// Callers that may be busy with one agent at once: every service of a guest and a recovery command; a guest with more
/// is asked too often.
const CALLERS_MAX: usize = 16;

/// What is kept of each of a program's two outputs, in bytes.
pub const OUTPUT_BYTES_MAX: usize = 64 << 10;

/// First and longest pause between two looks at whether a program has ended.
const POLL: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));

/// An agent that answered so lately is there: twice the longest pause between two looks.
const HEARD_LATELY: Duration = Duration::from_millis(200);

/// One guest's agent; cheap to clone.
#[derive(Clone)]
pub struct AgentChannel {
    inner: Arc<Inner>,
}

struct Inner {
    /// The QEMU guest agent's; `None` for a guest that has only Holdfast's own.
    socket: Option<PathBuf>,
    view: watch::Receiver<View>,
    /// Holdfast's own agent, which is asked first where it is there.
    own: Option<OwnAgent>,
    callers: Semaphore,
    connection: Arc<Place>,
    freeze: Freeze,
    left: Left,
}

impl AgentChannel {
    /// The agents of a guest that is as `view` says: QEMU's behind `socket`, and Holdfast's own.
    pub fn new(socket: Option<PathBuf>, view: watch::Receiver<View>, own: Option<OwnAgent>) -> Self {
        let (callers, connection) = (Semaphore::new(CALLERS_MAX), Arc::new(Place::new(None)));
        let (freeze, left) = (Freeze::default(), Left::default());
        Self { inner: Arc::new(Inner { socket, view, own, callers, connection, freeze, left }) }
    }

    /// Holdfast's own agent, if it is there and the guest runs.
    fn own(&self) -> Option<&OwnAgent> {
        self.inner.own.as_ref().filter(|own| self.runs().is_ok() && own.is_here())
    }

    async fn command<C: Command>(&self, command: C, deadline: Instant) -> Result<C::Ok, ChannelError> {
        self.reachable()?;
        let busy = || ChannelError::Unavailable("other questions are before this one".to_owned());
        let mut connection = timeout_at(deadline, self.inner.connection.lock()).await.map_err(|_| busy())?;
        let arguments = serde_json::to_value(&command).map_err(|error| ChannelError::Refused(error.to_string()))?;
        let answer = timeout_at(deadline, self.exchange(&mut connection, C::NAME, &arguments)).await;
        let value = match answer {
            Ok(answer) => answer?,
            // A guest that was stopped meanwhile could not answer, which is no fault of its agent.
            Err(_) => return self.reachable().and(Err(ChannelError::Deadline)),
        };
        serde_json::from_value(value).map_err(|error| ChannelError::Refused(clean(&error.to_string())))
    }

    /// Whether the guest runs: one that is paused cannot answer (S5).
    fn runs(&self) -> Result<(), ChannelError> {
        match &self.inner.view.borrow().condition {
            GuestCondition::Running => Ok(()),
            other => Err(ChannelError::Unavailable(clean(&format!("the guest is {other:?}")))),
        }
    }

    /// Whether there is anybody to ask through QEMU's agent: neither a paused guest nor one in which it does not listen can
    /// answer.
    fn reachable(&self) -> Result<(), ChannelError> {
        self.runs()?;
        if self.inner.view.borrow().agent_open == Some(false) {
            return Err(ChannelError::Unavailable("no agent listens in the guest".to_owned()));
        }
        Ok(())
    }

    /// Holdfast's own agent did not serve, and there is no other.
    fn without_qemus(&self) -> ChannelError {
        ChannelError::Unavailable(match self.inner.own.as_ref().and_then(OwnAgent::trouble) {
            Some(why) => format!("holdfast-guest is not reached, and the guest is defined without QEMU's agent: {why}"),
            None => "the guest is defined without QEMU's agent".to_owned(),
        })
    }

    /// The connection is out of its place while it is used, so that it is gone when this future is dropped midway.
    async fn exchange(&self, place: &mut Option<Kept>, name: &str, arguments: &Value) -> Result<Value, ChannelError> {
        let mut kept = match place.take() {
            Some(kept) => kept,
            None => {
                let socket = self.inner.socket.as_ref().ok_or_else(|| self.without_qemus())?;
                Kept::open(socket, &self.inner.connection).await.map_err(unavailable)?
            }
        };
        let answer = match kept.connection.exchange(name, arguments).await {
            Err(WireError::TooLong) => return Err(ChannelError::TooLong),
            other => other.map_err(unavailable)?,
        };
        let is_frozen = kept.connection.is_frozen(&answer);
        self.note_frozen(is_frozen);
        // Whoever is to thaw it has to be let in.
        if !is_frozen {
            *place = Some(kept.used());
        }
        match answer.error {
            Some(_) if is_frozen => Err(ChannelError::Frozen),
            Some(refusal) => Err(ChannelError::Refused(clean(&refusal.desc))),
            None => Ok(answer.answer.unwrap_or(Value::Null)),
        }
    }
}

fn unavailable(error: WireError) -> ChannelError {
    ChannelError::Unavailable(clean(&match error {
        WireError::Socket(cause) => format!("agent socket: {cause}"),
        other => other.to_string(),
    }))
}

/// What the guest's agent can have the guest do to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// Shut down and switch off.
    Off,
    /// Shut down and begin anew.
    Reboot,
}

/// How long a refusal of a shutdown is waited for: the agent tells that it could not, and says nothing when it could.
const REFUSAL: Duration = Duration::from_millis(500);

impl AgentChannel {
    /// Asks the guest to end itself. `Ok` says that the agent is there, has taken the command and has not refused it.
    ///
    /// # Errors
    /// See [`ChannelError`].
    pub async fn power(&self, power: Power, deadline: Duration) -> Result<(), ChannelError> {
        // One that does not answer would not take the command either, and its silence would look like success.
        self.ping_qemus(deadline).await?;
        if self.frozen_ms(clock::moment()).is_some() {
            return Err(ChannelError::Frozen);
        }
        let _caller = self.caller()?;
        let busy = |_| ChannelError::Unavailable("other questions are before this one".to_owned());
        let mut place = timeout_at(Instant::now() + deadline, self.inner.connection.lock()).await.map_err(busy)?;
        let mode = match power {
            Power::Off => "powerdown",
            Power::Reboot => "reboot",
        };
        let arguments = serde_json::json!({ "mode": mode });
        match tokio::time::timeout(REFUSAL, self.exchange(&mut place, qga::guest_shutdown::NAME, &arguments)).await {
            Ok(Err(refused @ (ChannelError::Refused(_) | ChannelError::Frozen | ChannelError::TooLong))) => {
                Err(refused)
            }
            // A connection that breaks now is that of a guest on its way down.
            Ok(Ok(_) | Err(ChannelError::Unavailable(_) | ChannelError::Deadline | ChannelError::Late)) | Err(_) => {
                Ok(())
            }
        }
    }
}

#[async_trait]
impl GuestChannel for AgentChannel {
    async fn ping(&self, deadline: Duration) -> Result<(), ChannelError> {
        match &self.inner.own {
            _ if self.own().is_some() => Ok(()),
            // It was there under this QEMU, and there is nobody else to ask.
            Some(own) if own.is_silent() && self.inner.socket.is_none() => self.runs().and(Err(ChannelError::Deadline)),
            Some(_) | None => self.ping_qemus(deadline).await,
        }
    }

    async fn answer(&self, probe: &Probe, deadline: Duration) -> Option<(Outcome, String)> {
        let (outcome, detail) = self.own()?.answer(probe, deadline).await?;
        // A guest that was stopped meanwhile could not do better.
        match self.runs() {
            Err(why) if outcome == Outcome::Fail => Some((Outcome::Unknown, why.to_string())),
            Ok(()) | Err(_) => Some((outcome, detail)),
        }
    }

    /// A program that outlives the deadline goes on in the guest: the agent cannot end it. Where too many runs of it do, none is begun.
    async fn exec(&self, argv: &[String], deadline: Duration) -> Result<ExecResult, ChannelError> {
        let deadline = Instant::now() + deadline;
        if let Some(own) = self.own() {
            match own.exec(argv, deadline.saturating_duration_since(Instant::now())).await {
                // What its own config does not allow may still be asked of the other agent, if the guest has it. What may
                // have been done is not done again.
                Err(Unanswered::Refused(_)) if self.inner.socket.is_some() => {}
                ended => return ended.map_err(ChannelError::from),
            }
        }
        let _caller = self.caller()?;
        let Some((path, arguments)) = argv.split_first() else {
            return Err(ChannelError::Refused("no program named".to_owned()));
        };
        if self.goes_on(argv, deadline).await? {
            return self.reachable().and(Err(ChannelError::Late));
        }
        let exec = qga::guest_exec {
            path: path.clone(),
            arg: Some(arguments.to_vec()),
            env: None,
            input_data: None,
            capture_output: Some(qga::GuestExecCaptureOutput::flag(true)),
        };
        let pid = self.command(exec, deadline).await?.pid;
        let begun = self.begun(argv, pid);
        let (mut pause, mut heard) = (POLL.0, Instant::now());
        loop {
            match self.command(qga::guest_exec_status { pid }, deadline).await {
                Ok(status) if status.exited => {
                    begun.has_ended();
                    return result(status);
                }
                Ok(_) => heard = Instant::now(),
                // The deadline fell into a question that the agent has had no time to answer.
                Err(ChannelError::Deadline) if heard.elapsed() < HEARD_LATELY => return Err(ChannelError::Late),
                // The agent has told of its end, or knows nothing of it.
                Err(error @ (ChannelError::TooLong | ChannelError::Refused(_))) => {
                    begun.has_ended();
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
            if timeout_at(deadline, sleep(pause)).await.is_err() {
                return self.reachable().and(Err(ChannelError::Late));
            }
            pause = (pause * 3 / 2).min(POLL.1);
        }
    }
}

impl AgentChannel {
    /// Whether QEMU's agent answers.
    async fn ping_qemus(&self, deadline: Duration) -> Result<(), ChannelError> {
        let deadline = Instant::now() + deadline;
        let _caller = self.caller()?;
        self.command(qga::guest_ping {}, deadline).await.map(|_| ())
    }

    fn caller(&self) -> Result<tokio::sync::SemaphorePermit<'_>, ChannelError> {
        let full = |_| ChannelError::Unavailable(format!("{CALLERS_MAX} callers are busy with this agent"));
        self.inner.callers.try_acquire().map_err(full)
    }
}

fn result(status: qga::GuestExecStatus) -> Result<ExecResult, ChannelError> {
    let exit = match (status.signal, status.exitcode) {
        (Some(signal), _) => i32::try_from(signal).ok().map(Exit::Signal),
        (None, Some(code)) => i32::try_from(code).ok().map(Exit::Code),
        (None, None) => None,
    };
    let exit = exit.ok_or_else(|| ChannelError::Refused("the agent does not say how the program ended".to_owned()))?;
    Ok(ExecResult { exit, stdout: bounded(status.out_data), stderr: bounded(status.err_data) })
}

fn bounded(output: Option<Vec<u8>>) -> Vec<u8> {
    let mut output = output.unwrap_or_default();
    output.truncate(OUTPUT_BYTES_MAX);
    output
}

#[cfg(test)]
mod tests;
