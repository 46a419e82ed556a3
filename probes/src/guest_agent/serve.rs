//! The agent itself: answers over its port, and tells deaths unasked.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use holdfast_policies::{
    names::ServiceName,
    observe::{Outcome, clean},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    sync::{Semaphore, mpsc},
    time::{Instant, sleep},
};

use super::{
    config::{GuestConfig, Watched},
    local::Local,
    protocol::{Down, FromGuest, ToGuest, What, by_chance, line, next_line},
    reports,
    watch::{self, Main},
};
use crate::{ChannelError, ExecResult, Exit, GuestChannel, Memory, Place, Target, ask};

/// Questions that are answered at once; the host asks each service one at a time.
const AT_ONCE: usize = 32;

/// Answers that wait for the port. A host that does not read them has given their questions up.
const WAITING: usize = 64;

/// Longest time that a question may take, whatever the host says.
const WITHIN_MAX: Duration = Duration::from_secs(300);

/// How long the port is left alone when nobody is at its other end.
const ALONE: Duration = Duration::from_millis(200);

/// How often the guest's scheduler is measured, and for how long a delay is remembered.
const TICK: Duration = Duration::from_millis(50);
const REMEMBERED: u32 = 200;

/// What the agent knows; shared by its tasks.
pub struct Agent {
    config: GuestConfig,
    /// Which start of it this is.
    number: u64,
    down: Mutex<BTreeMap<ServiceName, String>>,
    late_ms: AtomicU64,
    slots: Arc<Semaphore>,
    memory: Memory,
}

impl Agent {
    /// An agent that has just started.
    #[must_use]
    pub fn new(config: GuestConfig) -> Arc<Self> {
        let slots = Arc::new(Semaphore::new(AT_ONCE));
        let (down, late_ms) = (Mutex::default(), AtomicU64::new(0));
        Arc::new(Self { config, number: by_chance(), down, late_ms, slots, memory: Memory::default() })
    }

    /// Serves for as long as the port can be read and written.
    ///
    /// # Errors
    /// The port's.
    pub async fn serve(
        self: &Arc<Self>,
        read: impl AsyncRead + Unpin,
        write: impl AsyncWrite + Unpin + Send + 'static,
    ) -> io::Result<()> {
        let (out, outbox) = mpsc::channel(WAITING);
        let mut helpers = tokio::task::JoinSet::new();
        helpers.spawn(send(outbox, write));
        helpers.spawn(Arc::clone(self).measure());
        for (service, watched) in self.config.watch.clone() {
            helpers.spawn(Arc::clone(self).watch(service, watched, out.clone()));
        }
        if let Some(reports) = self.config.heartbeat.clone() {
            helpers.spawn(reports::listen(Arc::new(reports)));
        }
        tell(&out, self.here(None));
        let (mut read, mut rest) = (BufReader::new(read), Vec::new());
        loop {
            match next_line(&mut read, &mut rest).await? {
                Some(line) => self.heard(&line, &out),
                // Nobody is at the other end of a virtio port; of a pipe, nobody will be.
                None => sleep(ALONE).await,
            }
            if helpers.try_join_next().is_some() {
                return Err(io::Error::other("the port cannot be written"));
            }
        }
    }

    fn heard(self: &Arc<Self>, line: &[u8], out: &mpsc::Sender<FromGuest>) {
        match serde_json::from_slice(line) {
            Ok(ToGuest::Hello { number }) => tell(out, self.here(Some(number))),
            Ok(ToGuest::Ask { id, agent, .. }) if agent != self.number => {
                tell(out, FromGuest::Refused { id, why: "this was asked of an earlier start of the agent".to_owned() });
            }
            Ok(ToGuest::Ask { id, within_ms, what, .. }) => {
                let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
                    return tell(
                        out,
                        FromGuest::Refused { id, why: format!("{AT_ONCE} questions are before this one") },
                    );
                };
                let (agent, out) = (Arc::clone(self), out.clone());
                tokio::spawn(async move {
                    let within = Duration::from_millis(within_ms).min(WITHIN_MAX);
                    tell(&out, agent.answer(id, within, what).await);
                    drop(slot);
                });
            }
            // Half a line, or a word of a later version; if it is a question, somebody waits for the answer.
            Err(error) => {
                let asked = serde_json::from_slice::<serde_json::Value>(line).ok();
                match asked.and_then(|asked| asked.get("ask")?.get("id")?.as_u64()) {
                    Some(id) => {
                        tell(out, FromGuest::Refused { id, why: "this version does not know that question".to_owned() })
                    }
                    None => eprintln!("holdfast-guest: a line that says nothing to this version: {error}"),
                }
            }
        }
    }

    fn here(&self, hello: Option<u64>) -> FromGuest {
        let down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        let down = down.iter().map(|(service, detail)| Down { service: service.clone(), detail: detail.clone() });
        FromGuest::Here {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            agent: self.number,
            hello,
            late_ms: self.late_ms.load(Ordering::Relaxed),
            down: down.collect(),
        }
    }

    async fn answer(&self, id: u64, within: Duration, what: What) -> FromGuest {
        let allowed = match &what {
            What::Exec { run } => self.config.may_run(run),
            What::Probe(probe) => self.config.may_ask(probe),
        };
        if let Err(why) = allowed {
            return FromGuest::Refused { id, why };
        }
        match what {
            What::Exec { run } => match Local.exec(&run, within).await {
                Ok(result) => ended(id, result),
                Err(ChannelError::Late) => FromGuest::Late { id },
                Err(error) => FromGuest::Refused { id, why: clean(&error.to_string()) },
            },
            What::Probe(probe) => {
                let place = Place::Inside(Arc::new(Local));
                let target = Target { address: None, place, memory: self.memory.clone() };
                let found = ask(&probe, &target, within).await;
                let late = self.late_ms.load(Ordering::Relaxed);
                let is_ping = matches!(*probe, holdfast_policies::model::Probe::AgentPing {});
                let detail = if is_ping && found.outcome == Outcome::Pass {
                    format!("the agent answers; the guest let it run up to {late} ms late")
                } else {
                    found.detail
                };
                FromGuest::Found { id, outcome: found.outcome, detail }
            }
        }
    }

    /// Tells each end of a service's process that was not meant, and looks for its next one.
    async fn watch(
        self: Arc<Self>,
        service: ServiceName,
        watched: Watched,
        out: mpsc::Sender<FromGuest>,
    ) -> io::Result<()> {
        loop {
            let (process, main) = watch::appears(&watched).await;
            self.set_down(&service, None);
            if watch::ends(&process).await.is_err() {
                sleep(ALONE).await;
                continue;
            }
            if self.is_meant(&service, &watched, main).await {
                continue;
            }
            let detail = format!("its process {} has ended", main.number);
            self.set_down(&service, Some(detail.clone()));
            tell(&out, FromGuest::Died(Down { service: service.clone(), detail }));
        }
    }

    /// Whether the end of a service's process was announced by itself, or is systemd's doing.
    pub(super) async fn is_meant(&self, service: &ServiceName, watched: &Watched, main: Main) -> bool {
        if let Some(reports) = &self.config.heartbeat
            && reports.says_down(service).await
        {
            return true;
        }
        match watched {
            Watched::Unit(unit) => watch::is_meant(unit, main).await,
            Watched::PidFile(_) => false,
        }
    }

    fn set_down(&self, service: &ServiceName, detail: Option<String>) {
        let mut down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        match detail {
            Some(detail) => down.insert(service.clone(), detail),
            None => down.remove(service),
        };
    }

    /// The longest delay of a short sleep within the newest ten seconds or so.
    async fn measure(self: Arc<Self>) -> io::Result<()> {
        let (mut worst, mut before, mut turn) = (0, 0, 0_u32);
        loop {
            let began = Instant::now();
            sleep(TICK).await;
            let late = u64::try_from(began.elapsed().saturating_sub(TICK).as_millis()).unwrap_or(u64::MAX);
            worst = worst.max(late);
            self.late_ms.store(worst.max(before), Ordering::Relaxed);
            turn = turn.wrapping_add(1);
            if turn.is_multiple_of(REMEMBERED) {
                (before, worst) = (worst, 0);
            }
        }
    }
}

fn ended(id: u64, result: ExecResult) -> FromGuest {
    let (code, signal) = match result.exit {
        Exit::Code(code) => (Some(code), None),
        Exit::Signal(signal) => (None, Some(signal)),
    };
    let text = |output: Vec<u8>| String::from_utf8_lossy(&output).into_owned();
    FromGuest::Ended { id, code, signal, stdout: text(result.stdout), stderr: text(result.stderr) }
}

/// Never waits: what a host does not read, it does not miss, and a `hello` tells it again who is down.
fn tell(out: &mpsc::Sender<FromGuest>, message: FromGuest) {
    if out.try_send(message).is_err() {
        eprintln!("holdfast-guest: nobody reads the port; a message was dropped");
    }
}

async fn send(mut outbox: mpsc::Receiver<FromGuest>, mut write: impl AsyncWrite + Unpin) -> io::Result<()> {
    while let Some(message) = outbox.recv().await {
        write.write_all(&line(&message)).await?;
        write.flush().await?;
    }
    Ok(())
}
