//! The way into a guest through the QEMU guest agent.
//!
//! The agent answers in order and knows no ids, so one connection is used by one caller at a time, for one short
//! command. Whoever gives up in the middle, by deadline or by being dropped, takes the connection with it; the next
//! caller opens a new one and synchronises, which throws away what was left unread.

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
    net::unix::OwnedWriteHalf,
    sync::{Mutex, Semaphore, watch},
    time::{Instant, sleep, timeout_at},
};

use super::{
    condition::View,
    own::{OwnAgent, Unanswered},
    wire::{self, Lines, Message, WireError},
};

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
    connection: Mutex<Option<Connection>>,
}

struct Connection {
    lines: Lines,
    write: OwnedWriteHalf,
}

impl AgentChannel {
    /// The agents of a guest that is as `view` says: QEMU's behind `socket`, and Holdfast's own.
    pub fn new(socket: Option<PathBuf>, view: watch::Receiver<View>, own: Option<OwnAgent>) -> Self {
        let (callers, connection) = (Semaphore::new(CALLERS_MAX), Mutex::new(None));
        Self { inner: Arc::new(Inner { socket, view, own, callers, connection }) }
    }

    /// Holdfast's own agent, if it is there and the guest runs.
    fn own(&self) -> Option<&OwnAgent> {
        let runs = self.inner.view.borrow().condition == GuestCondition::Running;
        self.inner.own.as_ref().filter(|own| runs && own.is_here())
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

    /// Whether there is anybody to ask: a paused guest and one without a listening agent cannot answer (S5).
    fn reachable(&self) -> Result<(), ChannelError> {
        let view = self.inner.view.borrow();
        if view.condition != GuestCondition::Running {
            return Err(ChannelError::Unavailable(clean(&format!("the guest is {:?}", view.condition))));
        }
        if view.agent_open == Some(false) {
            return Err(ChannelError::Unavailable("no agent listens in the guest".to_owned()));
        }
        Ok(())
    }

    /// The connection is out of its place while it is used, so that it is gone when this future is dropped midway.
    async fn exchange(
        &self,
        place: &mut Option<Connection>,
        name: &str,
        arguments: &Value,
    ) -> Result<Value, ChannelError> {
        let mut connection = match place.take() {
            Some(connection) => connection,
            None => {
                let none = || ChannelError::Unavailable("the guest is defined without QEMU's agent".to_owned());
                Connection::open(self.inner.socket.as_ref().ok_or_else(none)?).await.map_err(unavailable)?
            }
        };
        let answer = match connection.exchange(name, arguments).await {
            Err(WireError::TooLong) => return Err(ChannelError::Refused(WireError::TooLong.to_string())),
            other => other.map_err(unavailable)?,
        };
        *place = Some(connection);
        match answer.error {
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

impl Connection {
    async fn open(socket: &std::path::Path) -> Result<Self, WireError> {
        let (lines, write) = wire::connect(socket).await?;
        let mut connection = Self { lines, write };
        connection.synchronise(i64::from(rand::random::<u32>())).await?;
        Ok(connection)
    }

    /// After this, the next answer belongs to the next command: the agent marks its answer with a byte that occurs in
    /// no JSON, and everything before it is thrown away.
    async fn synchronise(&mut self, id: i64) -> Result<(), WireError> {
        use tokio::io::AsyncWriteExt;
        // The same byte makes the agent forget half a command that it may have been left with.
        self.write.write_all(&[0xff]).await?;
        let arguments = serde_json::json!({ "id": id });
        wire::send(&mut self.write, qga::guest_sync_delimited::NAME, &arguments, None).await?;
        loop {
            self.lines.skip_past(0xff).await?;
            let answer = self.lines.next().await?;
            if serde_json::from_slice::<Message>(&answer).is_ok_and(|message| message.answer == Some(id.into())) {
                return Ok(());
            }
        }
    }

    async fn exchange(&mut self, name: &str, arguments: &Value) -> Result<Message, WireError> {
        wire::send(&mut self.write, name, arguments, None).await?;
        self.lines.message().await
    }
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
        let _caller = self.caller()?;
        let busy = |_| ChannelError::Unavailable("other questions are before this one".to_owned());
        let mut place = timeout_at(Instant::now() + deadline, self.inner.connection.lock()).await.map_err(busy)?;
        let mode = match power {
            Power::Off => "powerdown",
            Power::Reboot => "reboot",
        };
        let arguments = serde_json::json!({ "mode": mode });
        match tokio::time::timeout(REFUSAL, self.exchange(&mut place, qga::guest_shutdown::NAME, &arguments)).await {
            Ok(Err(refused @ ChannelError::Refused(_))) => Err(refused),
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
            Some(own) if own.is_silent() && self.inner.socket.is_none() => Err(ChannelError::Deadline),
            Some(_) | None => self.ping_qemus(deadline).await,
        }
    }

    async fn answer(&self, probe: &Probe, deadline: Duration) -> Option<(Outcome, String)> {
        self.own()?.answer(probe, deadline).await
    }

    /// A program that outlives the deadline goes on in the guest: the agent cannot end it.
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
        let exec = qga::guest_exec {
            path: path.clone(),
            arg: Some(arguments.to_vec()),
            env: None,
            input_data: None,
            capture_output: Some(qga::GuestExecCaptureOutput::flag(true)),
        };
        let pid = self.command(exec, deadline).await?.pid;
        let (mut pause, mut heard) = (POLL.0, Instant::now());
        loop {
            match self.command(qga::guest_exec_status { pid }, deadline).await {
                Ok(status) if status.exited => return result(status),
                Ok(_) => heard = Instant::now(),
                // The deadline fell into a question that the agent has had no time to answer.
                Err(ChannelError::Deadline) if heard.elapsed() < HEARD_LATELY => return Err(ChannelError::Late),
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
mod tests {
    use tokio::{
        io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
        net::UnixListener,
    };

    use super::*;

    const SHORT: Duration = Duration::from_millis(200);
    const LONG: Duration = Duration::from_secs(5);

    /// An agent that answers as `answer` says; `None` leaves a command unanswered.
    fn agent(
        view: View,
        answer: impl Fn(usize, &str) -> Option<String> + Send + 'static,
    ) -> (tempfile::TempDir, AgentChannel) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("qga");
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            let mut commands = 0;
            // What the guest's port still holds when a client has left reaches the next client.
            let mut late = String::new();
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream = BufReader::new(stream);
                stream.write_all(late.as_bytes()).await.unwrap();
                let mut line = Vec::new();
                while stream.read_until(b'\n', &mut line).await.unwrap_or(0) > 0 {
                    let json = line.strip_prefix(b"\xff").unwrap_or(&line);
                    let command: Value = serde_json::from_slice(json).unwrap();
                    if command["execute"] == "guest-sync-delimited" {
                        let text = format!("{{\"return\": {}}}\n", command["arguments"]["id"]);
                        stream.write_all(&[b"\xff", text.as_bytes()].concat()).await.unwrap();
                    } else if let Some(text) = answer(commands, command["execute"].as_str().unwrap()) {
                        stream.write_all(text.as_bytes()).await.unwrap();
                        commands += 1;
                    } else {
                        late = "{\"return\": \"too late\"}\n".to_owned();
                        commands += 1;
                    }
                    line.clear();
                }
            }
        });
        let (_, view) = watch::channel(view);
        let channel = AgentChannel::new(Some(socket), view, None);
        (folder, channel)
    }

    fn running() -> View {
        View { condition: GuestCondition::Running, migration: None, agent_open: Some(true), resets: 0 }
    }

    #[tokio::test]
    async fn a_late_answer_is_never_taken_for_the_next_one() {
        let (_folder, channel) = agent(running(), |number, _| (number > 0).then(|| "{\"return\": {}}\n".to_owned()));
        assert_eq!(channel.ping(SHORT).await, Err(ChannelError::Deadline));
        assert_eq!(channel.ping(LONG).await, Ok(()));
        assert_eq!(channel.ping(LONG).await, Ok(()));
    }

    #[tokio::test]
    async fn a_guest_that_cannot_answer_is_not_asked() {
        for view in [
            View { condition: GuestCondition::Paused { reason: "paused".into() }, ..running() },
            View { agent_open: Some(false), ..running() },
        ] {
            let (_folder, channel) = agent(view, |_, _| None);
            assert!(matches!(channel.ping(LONG).await, Err(ChannelError::Unavailable(_))));
        }
    }

    #[tokio::test]
    async fn a_refusal_of_the_agent_is_told_apart_from_silence() {
        let refusal = "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such program\"}}\n";
        let (_folder, channel) = agent(running(), |_, _| Some(refusal.to_owned()));
        let argv = ["/bin/none".to_owned()];
        assert_eq!(channel.exec(&argv, LONG).await, Err(ChannelError::Refused("no such program".into())));
        assert!(matches!(channel.exec(&[], LONG).await, Err(ChannelError::Refused(_))));
    }

    #[tokio::test]
    async fn a_shutdown_is_taken_in_silence_refused_in_words_and_not_asked_of_nobody() {
        let (_folder, channel) =
            agent(running(), |_, name| (name == "guest-ping").then(|| "{\"return\": {}}\n".to_owned()));
        assert_eq!(channel.power(Power::Reboot, LONG).await, Ok(()));
        let refusal = "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such mode\"}}\n";
        let (_folder, channel) = agent(running(), move |_, name| {
            Some(if name == "guest-ping" { "{\"return\": {}}\n".to_owned() } else { refusal.to_owned() })
        });
        assert_eq!(channel.power(Power::Off, LONG).await, Err(ChannelError::Refused("no such mode".into())));
        let (_folder, channel) = agent(running(), |_, _| None);
        assert_eq!(channel.power(Power::Off, SHORT).await, Err(ChannelError::Deadline));
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_told_apart_from_an_agent_that_does() {
        let argv = ["/bin/sleep".to_owned()];
        let begun = || Some("{\"return\": {\"pid\": 7}}\n".to_owned());
        let (_folder, channel) = agent(running(), move |_, name| match name {
            "guest-exec" => begun(),
            _ => Some("{\"return\": {\"exited\": false}}\n".to_owned()),
        });
        assert_eq!(channel.exec(&argv, SHORT).await, Err(ChannelError::Late));
        let (_folder, channel) = agent(running(), |_, _| None);
        assert_eq!(channel.exec(&argv, SHORT).await, Err(ChannelError::Deadline));
        let (_folder, channel) = agent(running(), move |_, name| begun().filter(|_| name == "guest-exec"));
        assert_eq!(channel.exec(&argv, 2 * HEARD_LATELY).await, Err(ChannelError::Deadline));
    }

    #[tokio::test]
    async fn output_beyond_the_bound_is_cut() {
        use std::fmt::Write;
        let (_folder, channel) = agent(running(), |_, name| {
            let mut text = String::from("{\"return\": {\"pid\": 7}}\n");
            if name == "guest-exec-status" {
                text = String::from("{\"return\": {\"exited\": true, \"exitcode\": 3, \"out-data\": \"");
                writeln!(text, "{}\"}}}}", "eHh4".repeat(40_000)).unwrap();
            }
            Some(text)
        });
        let result = channel.exec(&["/bin/yes".to_owned()], LONG).await.unwrap();
        assert_eq!((result.exit, result.stdout.len()), (Exit::Code(3), OUTPUT_BYTES_MAX));
    }
}
