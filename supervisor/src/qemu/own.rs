//! The way into a guest through Holdfast's own agent there, for guests that have one.
//!
//! One task per guest holds the connection to the port. Whoever asks waits for an answer with its number; what the guest
//! tells unasked, that a service has died, becomes an event at once. An agent that has not been heard for a while is not
//! asked: then the QEMU guest agent serves. So it does when the way to it is cut, of which the agent itself may know nothing.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use holdfast_policies::{
    model::Probe,
    names::{Epoch, GuestName, ServiceName},
    observe::{GuestCondition, Outcome, clean},
};
use holdfast_probes::{
    channel::{ChannelError, ExecResult},
    guest_agent::{FromGuest, ToGuest, What, protocol},
};
use tokio::{
    io::AsyncWriteExt,
    net::{UnixStream, unix::OwnedWriteHalf},
    sync::{mpsc, oneshot, watch},
    time::{Instant, Interval, interval, sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    GuestEvent,
    condition::View,
    way::Way,
    wire::{Lines, WireError},
};

/// Questions that may wait for the task; there are a handful of askers.
const QUEUE: usize = 32;

/// Questions that may be unanswered at once; the agent in the guest answers no more either.
const PENDING_MAX: usize = 32;

/// How often the agent is greeted; its answer tells that it is there, and who is down.
const HELLO_EVERY: Duration = Duration::from_secs(2);

/// After so long without a word the agent counts as silent.
const SILENCE: Duration = Duration::from_secs(5);

/// Pause between two attempts to connect.
const RECONNECT: Duration = Duration::from_millis(500);

/// How long the guest may take to take what is written.
const WRITE_LIMIT: Duration = Duration::from_secs(1);

/// Deaths that one guest may tell at once, and then one in a second: each makes this host sync. What is told beyond that, the
/// probes tell. A guest is not trusted to be sparing.
const DEATHS_AT_ONCE: u64 = 16;

/// Whose agent it is, and how to reach it.
pub struct Port {
    /// Which guest.
    pub guest: GuestName,
    /// Under which assignment.
    pub epoch: Epoch,
    /// The way to the port.
    pub way: Way,
    /// How the guest is.
    pub view: watch::Receiver<View>,
}

/// How it is with the agent, as far as its words tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    /// Nothing was heard of it since the guest is watched.
    Never,
    /// It was heard lately.
    Here,
    /// It was heard, and is not any more.
    Silent,
    /// It was heard, and this host has no way to it any more, or may have none. How it is, nobody knows.
    Cut,
}

/// Why a question to the agent has no answer.
#[derive(Debug)]
pub enum Unanswered {
    /// It was not asked, or would not: somebody else may be.
    Refused(String),
    /// It was asked, and nobody knows what came of it.
    Lost(ChannelError),
}

impl From<Unanswered> for ChannelError {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Refused(why) => Self::Refused(why),
            Unanswered::Lost(error) => error,
        }
    }
}

/// One guest's own agent; cheap to clone.
#[derive(Clone)]
pub struct OwnAgent {
    questions: mpsc::Sender<Question>,
    presence: watch::Receiver<Presence>,
    trouble: watch::Receiver<Option<String>>,
    view: watch::Receiver<View>,
    /// See [`Way::silence_is_agents`].
    silence_is_agents: bool,
    _task: Arc<AbortOnDropHandle<()>>,
}

struct Question {
    what: What,
    within: Duration,
    reply: oneshot::Sender<FromGuest>,
}

/// Starts the task.
pub fn spawn(port: Port, events: mpsc::Sender<GuestEvent>) -> OwnAgent {
    let (questions, asked) = mpsc::channel(QUEUE);
    let (said, presence) = watch::channel(Presence::Never);
    let (troubled, trouble) = watch::channel(None);
    let (view, silence_is_agents) = (port.view.clone(), port.way.silence_is_agents());
    let talk = Talk {
        port,
        events,
        presence: said,
        trouble: troubled,
        asked,
        next_id: 0,
        pending: BTreeMap::new(),
        agent: None,
        hello: protocol::by_chance(),
        greeted: false,
        down: BTreeMap::new(),
        deaths_left: DEATHS_AT_ONCE,
        refilled: Instant::now(),
    };
    let task = Arc::new(AbortOnDropHandle::new(tokio::spawn(talk.run())));
    OwnAgent { questions, presence, trouble, view, silence_is_agents, _task: task }
}

impl OwnAgent {
    /// Whether it was heard lately, and has not closed its port since.
    pub fn is_here(&self) -> bool {
        self.presence() == Presence::Here
    }

    /// Whether it was heard under this QEMU, and is not any more.
    pub fn is_silent(&self) -> bool {
        self.presence() == Presence::Silent
    }

    /// Why it could not be reached when that was tried last, unless it was heard since.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.borrow().clone()
    }

    /// A port that is closed is known at once; what was on its way from it may still arrive and tells nothing.
    fn presence(&self) -> Presence {
        match (*self.presence.borrow(), self.view.borrow().own_open) {
            (Presence::Here, Some(false)) => Presence::Silent,
            (presence, _) => presence,
        }
    }

    /// Runs a program in the guest.
    pub async fn exec(&self, run: &[String], deadline: Duration) -> Result<ExecResult, Unanswered> {
        let odd = |what: &str| Unanswered::Lost(ChannelError::Refused(what.to_owned()));
        match self.ask(What::Exec { run: run.to_vec() }, deadline).await? {
            FromGuest::Ended { code, signal, stdout, stderr, .. } => {
                let exit = FromGuest::exit(code, signal).ok_or_else(|| odd("it does not say how it ended"))?;
                Ok(ExecResult { exit, stdout: stdout.into_bytes(), stderr: stderr.into_bytes() })
            }
            FromGuest::Late { .. } => Err(Unanswered::Lost(ChannelError::Late)),
            FromGuest::Refused { why, .. } => Err(Unanswered::Refused(clean(&why))),
            FromGuest::Here { .. } | FromGuest::Found { .. } | FromGuest::Died(_) => {
                Err(odd("it answered something else"))
            }
        }
    }

    /// Answers a probe; `None` where the agent is absent or does not answer this one.
    pub async fn answer(&self, probe: &Probe, deadline: Duration) -> Option<(Outcome, String)> {
        if !self.is_here() {
            return None;
        }
        match self.ask(What::Probe(Box::new(probe.clone())), deadline).await {
            Ok(FromGuest::Found { outcome, detail, .. }) => Some((outcome, clean(&detail))),
            // An agent that is mute is what this kind asks about, and says nothing about any other.
            Err(Unanswered::Lost(ChannelError::Deadline))
                if self.silence_is_agents && matches!(probe, Probe::AgentPing {}) =>
            {
                Some((Outcome::Fail, "the agent was there, and does not answer".to_owned()))
            }
            Err(Unanswered::Lost(error)) => Some((Outcome::Unknown, error.to_string())),
            Ok(
                FromGuest::Refused { .. }
                | FromGuest::Here { .. }
                | FromGuest::Ended { .. }
                | FromGuest::Late { .. }
                | FromGuest::Died(_),
            )
            | Err(Unanswered::Refused(_)) => None,
        }
    }

    async fn ask(&self, what: What, deadline: Duration) -> Result<FromGuest, Unanswered> {
        let (reply, answer) = oneshot::channel();
        // The guest's own limit comes first, so that it is the agent that tells of a program that hangs.
        let question = Question { what, within: deadline - deadline / 8, reply };
        let full = |_| Unanswered::Refused("other questions are before this one".to_owned());
        self.questions.try_send(question).map_err(full)?;
        match timeout(deadline, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(Unanswered::Lost(ChannelError::Unavailable("the agent's port is closed".to_owned()))),
            Err(_) => Err(Unanswered::Lost(ChannelError::Deadline)),
        }
    }
}

struct Talk {
    port: Port,
    events: mpsc::Sender<GuestEvent>,
    presence: watch::Sender<Presence>,
    trouble: watch::Sender<Option<String>>,
    asked: mpsc::Receiver<Question>,
    next_id: u64,
    pending: BTreeMap<u64, oneshot::Sender<FromGuest>>,
    /// The number of the agent's start.
    agent: Option<u64>,
    /// The number of this connection's greetings.
    hello: u64,
    /// Whether one of them was answered. What comes before may have been said long ago, to nobody.
    greeted: bool,
    /// Deaths that were told already, of [`protocol::SERVICES_MAX`] services at most.
    down: BTreeMap<ServiceName, String>,
    deaths_left: u64,
    refilled: Instant,
}

impl Talk {
    async fn run(mut self) {
        while !matches!(self.port.view.borrow().condition, GuestCondition::Exited { .. }) {
            let (error, of_agent) = match self.port.way.connect().await {
                Ok(stream) => match self.talk(stream).await {
                    Ok(()) => return,
                    Err(error) => (error, self.port.way.ends_with_agent()),
                },
                Err(error) => {
                    let of_agent = self.port.way.blames_agent(&error);
                    (WireError::Socket(error), of_agent)
                }
            };
            tracing::debug!(guest = %self.port.guest, %error, "the port of the guest's own agent");
            if of_agent {
                self.silent();
            } else {
                self.cut();
            }
            self.trouble.send_replace(Some(in_words(error)));
            self.pending.clear();
            // Whoever asks meanwhile is told at once that nobody is there.
            while self.asked.try_recv().is_ok() {}
            sleep(RECONNECT).await;
        }
    }

    /// Until the connection fails, or nobody is left to ask.
    async fn talk(&mut self, stream: UnixStream) -> Result<(), WireError> {
        let (read, mut write) = stream.into_split();
        let mut lines = Lines::of(read);
        (self.hello, self.greeted) = (protocol::by_chance(), false);
        let mut hello = interval(HELLO_EVERY);
        let mut heard = Instant::now();
        let mut open = self.port.view.borrow().own_open;
        loop {
            tokio::select! {
                line = lines.next() => {
                    let line = line?;
                    if line.len() <= protocol::LINE_BYTES_MAX && let Ok(message) = serde_json::from_slice(&line) {
                        heard = Instant::now();
                        self.heard(message, heard);
                    }
                }
                question = self.asked.recv() => match question {
                    Some(question) => self.put(&mut write, question).await?,
                    None => return Ok(()),
                },
                Ok(()) = self.port.view.changed() => {
                    let before = std::mem::replace(&mut open, self.port.view.borrow_and_update().own_open);
                    if before != open {
                        self.port_turned(open, &mut hello);
                    }
                }
                _ = hello.tick() => {
                    if heard.elapsed() > SILENCE {
                        self.mute();
                    }
                    send(&mut write, &ToGuest::Hello { number: self.hello }).await?;
                }
            }
        }
    }

    /// Somebody in the guest has opened the port, or closed it.
    fn port_turned(&mut self, open: Option<bool>, hello: &mut Interval) {
        match open {
            Some(false) => {
                self.silent();
                // Dropping the questions tells their askers.
                self.pending.clear();
            }
            // Greeted at once, it need not wait for its turn to be asked.
            Some(true) => hello.reset_immediately(),
            None => {}
        }
    }

    /// Nothing is heard, and the connection stands.
    fn mute(&self) {
        if self.port.way.silence_is_agents() {
            self.silent();
        } else {
            let why =
                format!("nothing was heard for {SILENCE:?}: it hangs, or the program that carries its vsock does");
            self.trouble.send_replace(Some(why));
            self.cut();
        }
    }

    fn silent(&self) {
        self.turn(&[Presence::Here, Presence::Cut], Presence::Silent);
    }

    fn cut(&self) {
        self.turn(&[Presence::Here, Presence::Silent], Presence::Cut);
    }

    fn turn(&self, from: &[Presence], to: Presence) {
        self.presence.send_if_modified(|presence| {
            let turns = from.contains(presence);
            if turns {
                *presence = to;
            }
            turns
        });
    }

    async fn put(&mut self, write: &mut OwnedWriteHalf, question: Question) -> Result<(), WireError> {
        self.pending.retain(|_, reply| !reply.is_closed());
        // Dropping the question tells its asker.
        let Some(agent) = self.agent.filter(|_| self.pending.len() < PENDING_MAX) else { return Ok(()) };
        self.next_id += 1;
        let within_ms = holdfast_policies::time::millis(question.within);
        let ask = ToGuest::Ask { id: self.next_id, agent, within_ms, what: question.what };
        self.pending.insert(self.next_id, question.reply);
        send(write, &ask).await
    }

    fn heard(&mut self, message: FromGuest, now: Instant) {
        if let Some(id) = message.answers() {
            // An asker that gave up has dropped its end.
            _ = self.pending.remove(&id).map(|reply| reply.send(message));
            return;
        }
        match message {
            FromGuest::Here { agent, hello, down, .. } => {
                self.agent = Some(agent);
                self.presence.send_replace(Presence::Here);
                self.trouble.send_replace(None);
                if hello == Some(self.hello) {
                    self.greeted = true;
                    self.are_down(down, now);
                }
            }
            FromGuest::Died(down) if self.greeted => {
                let detail = clean(&down.detail);
                if self.down.len() < protocol::SERVICES_MAX {
                    self.down.insert(down.service.clone(), detail.clone());
                }
                self.died(down.service, detail, now);
            }
            FromGuest::Died(_)
            | FromGuest::Ended { .. }
            | FromGuest::Late { .. }
            | FromGuest::Found { .. }
            | FromGuest::Refused { .. } => {}
        }
    }

    /// Tells of those that were not down when that was said last.
    fn are_down(&mut self, down: Vec<protocol::Down>, now: Instant) {
        let down = down.into_iter().take(protocol::SERVICES_MAX).map(|down| (down.service, clean(&down.detail)));
        let told = std::mem::replace(&mut self.down, down.collect());
        for (service, detail) in self.down.clone() {
            if told.get(&service) != Some(&detail) {
                self.died(service, detail, now);
            }
        }
    }

    fn died(&mut self, service: ServiceName, detail: String, now: Instant) {
        let gained = now.duration_since(self.refilled).as_secs();
        if gained > 0 {
            (self.deaths_left, self.refilled) = ((self.deaths_left + gained).min(DEATHS_AT_ONCE), now);
        }
        let Some(left) = self.deaths_left.checked_sub(1) else { return };
        self.deaths_left = left;
        let Port { guest, epoch, .. } = &self.port;
        let event = GuestEvent::Died { guest: guest.clone(), epoch: *epoch, service, detail };
        if let Err(error) = self.events.try_send(event) {
            tracing::warn!(%guest, %error, "the death of a service was not told; the probes will tell it");
        }
    }
}

fn in_words(error: WireError) -> String {
    clean(&match error {
        WireError::Socket(cause) => cause.to_string(),
        other => other.to_string(),
    })
}

async fn send(write: &mut OwnedWriteHalf, message: &ToGuest) -> Result<(), WireError> {
    let line = protocol::line(message);
    let sent = timeout(WRITE_LIMIT, write.write_all(&line)).await;
    sent.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())).map_err(WireError::Socket)
}

#[cfg(test)]
mod tests;
