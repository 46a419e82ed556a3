//! The QEMU driver: starts, watches, moves and stops the guests of this host.
//!
//! ```text
//! Driver ── registry: one entry per guest ──┬─ record    what was started, for the next supervisor   record.rs
//!   │                                       ├─ monitor   one task: QMP, events, exit                 monitor.rs
//!   │                                       ├─ agent     the way into the guest                      agent.rs, own.rs, way.rs
//!   │                                       └─ cgroup    whether it runs, and the axe                cgroup.rs
//!   ├─ stop.rs ── keeper: what was seen of guests that were stopped ill                              forensics.rs, screen.rs
//!   │          └─ logs: copies of what QEMU says, on a disk                                          log_dir.rs
//!   └─ start.rs: definition → argv.rs → launch.rs (accel.rs, sandbox.rs)       send_to: migrate.rs, converge.rs
//! ```
//!
//! The truth about "runs here" is the guest's cgroup and nothing else; whether it is still the one in which the guest was started is
//! looked up where it is empty (outside.rs). The driver decides nothing: epochs, floors and the lease are the agent's business.

mod accel;
mod agent;
mod allowance;
mod argv;
mod cgroup;
mod condition;
mod converge;
mod errors;
mod forensics;
mod happenings;
mod holder;
mod launch;
mod left_behind;
pub(crate) mod locks;
mod log_dir;
mod logs;
mod migrate;
mod monitor;
mod net;
mod oom;
mod orphan;
mod outside;
mod own;
mod progress;
mod recent;
mod record;
mod registry;
mod sandbox;
mod screen;
mod shutdown;
mod start;
mod stop;
mod storage;
#[cfg(test)]
mod tests;
mod way;
mod wire;

use std::{
    collections::BTreeSet,
    future::Future,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use holdfast_policies::{
    model::QemuDefinition,
    names::{Epoch, GuestName, ServiceName},
    observe::{GuestCondition, GuestReport},
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tracing::Instrument;

use self::{
    accel::Kvm, cgroup::Cgroup, forensics::Keeper, log_dir::LogDir, monitor::ANSWER_DEADLINE, oom::Kills,
    record::Files, registry::Registry, sandbox::Sandbox, stop::Look,
};
pub use self::{
    agent::AgentChannel,
    condition::{ARRIVED, MigrationStatus},
    converge::Busy,
    errors::{AgentError, DriverError, ResumeError, ShutDownError, StartError, StopError},
    locks::LockError,
    migrate::{MigrationOutcome, NotSent, SendError},
    monitor::AskError,
};

/// Events that may wait for their reader. They only wake it up: what is dropped shows in the inventory.
const EVENTS: usize = 256;

/// What the driver needs to know of its host.
#[derive(Debug, Clone)]
pub struct DriverConfig {
    /// The QEMU program.
    pub binary: PathBuf,
    /// A cgroup v2 folder of our own, made when missing; each guest gets a child of its own name.
    pub cgroup: PathBuf,
    /// Below `guests/NAME/` here: record, sockets, logs. On a tmpfs, since it must die with the host.
    pub run_dir: PathBuf,
    /// Where incoming migrations are received.
    pub migrate_address: IpAddr,
    /// Below `NAME/` here: what was seen of guests that were stopped. On a disk, because people look into it later.
    pub forensics: PathBuf,
    /// Where what QEMU says of guests is copied to, if anywhere. It may be a disk that is full, or that does not answer.
    pub log_dir: Option<PathBuf>,
    /// Whether QEMU is to confine itself, where it can.
    pub sandbox: bool,
}

/// How a guest begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// It boots and runs.
    Run,
    /// It waits for a live migration, and then, paused, for the order to run.
    Incoming,
}

/// A guest that was started, or had already been by the same order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// Where an incoming guest can be sent to; `None` for any other, and when it has already arrived.
    pub uri: Option<String>,
}

/// Something that happened to a guest; sent within milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestEvent {
    /// Its condition is another than before. What else has happened to it only the inventory tells.
    Changed(GuestReport),
    /// Its watchdog was not fed, and QEMU acted.
    Watchdog {
        /// Which guest.
        guest: GuestName,
        /// Under which assignment.
        epoch: Epoch,
        /// What QEMU did.
        action: String,
    },
    /// Its live migration has come further.
    Migration {
        /// Which guest.
        guest: GuestName,
        /// Under which assignment.
        epoch: Epoch,
        /// How far.
        status: MigrationStatus,
    },
    /// An agent in the guest began or ceased to listen.
    AgentChannel {
        /// Which guest.
        guest: GuestName,
        /// Whether it is Holdfast's own, and not QEMU's.
        own: bool,
        /// Whether it listens.
        connected: bool,
    },
    /// Holdfast's own agent in the guest has seen a service die.
    Died {
        /// Which guest.
        guest: GuestName,
        /// Under which assignment.
        epoch: Epoch,
        /// Which service.
        service: ServiceName,
        /// How it knows.
        detail: String,
    },
}

/// The guests of this host; cheap to clone.
#[derive(Clone)]
pub struct Driver {
    inner: Arc<Inner>,
}

struct Inner {
    config: DriverConfig,
    registry: Registry,
    keeper: Keeper,
    logs: LogDir,
    events: mpsc::Sender<GuestEvent>,
    kvm: Kvm,
    sandbox: Sandbox,
    kills: Kills,
}

impl Driver {
    /// Opens the driver and adopts everything that still runs. Nothing that runs is touched, but for one thing: a guest that
    /// an earlier supervisor was sending away is kept, because nobody is left to hand it over.
    ///
    /// # Errors
    /// The cgroup or the records cannot be used.
    pub async fn open(config: DriverConfig) -> Result<(Self, mpsc::Receiver<GuestEvent>), DriverError> {
        let (events, receiver) = mpsc::channel(EVENTS);
        let keeper = Keeper::begin(config.forensics.clone());
        let logs = LogDir::begin(config.log_dir.as_deref(), &config.run_dir);
        let (registry, kvm, sandbox) = (Registry::default(), Kvm::default(), Sandbox::default());
        let inner = Inner { config, registry, keeper, logs, events, kvm, sandbox, kills: Kills::default() };
        inner.adopt().await?;
        let inner = Arc::new(inner);
        orphan::keep_what_was_being_sent(&inner);
        Ok((Self { inner }, receiver))
    }

    /// Every guest that has a record or a process here, as last seen: an exit at once, any other change by event, and
    /// at the latest within three seconds. Returns at once, however many of them hang.
    ///
    /// # Errors
    /// It cannot be known what runs here.
    pub async fn inventory(&self) -> Result<Vec<GuestReport>, DriverError> {
        self.inner.inventory()
    }

    /// The cgroup that a guest has, or will have.
    #[must_use]
    pub fn cgroup_of(&self, guest: &GuestName) -> PathBuf {
        self.inner.cgroup(guest).path().to_owned()
    }

    /// Starts a guest. Starting it again under the same epoch and in the same way succeeds and does nothing. Right before
    /// QEMU is run, and after every wait, `go` is asked whether it still may be. Goes on to its end when the future is
    /// dropped.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start<F>(
        &self,
        guest: &GuestName,
        epoch: Epoch,
        definition: &QemuDefinition,
        how: How,
        go: F,
    ) -> Result<Started, StartError>
    where
        F: Fn() -> Result<(), String> + Send + Sync + 'static,
    {
        let (inner, guest, definition) = (self.inner.clone(), guest.clone(), definition.clone());
        let start = tokio::spawn(async move { start::start(&inner, &guest, epoch, &definition, how, &go).await });
        start.await.unwrap_or_else(|error| Err(StartError::MayStillRun(error.to_string())))
    }

    /// Kills a guest and forgets it. `Ok` only when no process of it is left; also when there was none. Goes on to its
    /// end when the future is dropped.
    ///
    /// # Errors
    /// See [`StopError`]: the guest may still run.
    pub async fn stop(&self, guest: &GuestName) -> Result<(), StopError> {
        self.stop_and(guest, Look::Away, None).await.map(drop)
    }

    /// The same for a guest with which something is wrong. What was last seen of it comes back in one line, and more is
    /// kept on disk. None of that delays the kill, but for the picture of its screen where it has a display: a quarter of a
    /// second at most. `None` when there was nothing of it, or half a migration.
    ///
    /// # Errors
    /// See [`StopError`]: the guest may still run.
    pub async fn stop_ill(&self, guest: &GuestName) -> Result<Option<String>, StopError> {
        self.stop_and(guest, Look::Closely, None).await
    }

    /// The same for what other assignments than `epoch` have left of a guest before it is started under that. One that is newer is
    /// left alone: whoever comes late for a start has nothing to end.
    ///
    /// # Errors
    /// See [`StopError`]: the guest may still run.
    pub async fn stop_older(&self, guest: &GuestName, epoch: Epoch) -> Result<Option<String>, StopError> {
        self.stop_and(guest, Look::Closely, Some(epoch)).await
    }

    /// The same for a guest whose assignments up to `up_to` must not run a moment longer: what is seen of it is kept, its screen
    /// left alone. What runs under a newer one by the time that it is its turn is left alone, too.
    ///
    /// # Errors
    /// See [`StopError`]: the guest may still run.
    pub async fn stop_at_once(&self, guest: &GuestName, up_to: Epoch) -> Result<(), StopError> {
        self.stop_and(guest, Look::InPassing, Some(up_to)).await.map(drop)
    }

    async fn stop_and(&self, guest: &GuestName, look: Look, up_to: Option<Epoch>) -> Result<Option<String>, StopError> {
        let (inner, guest) = (self.inner.clone(), guest.clone());
        let stop = tokio::spawn(async move { inner.stop(&guest, look, up_to).await });
        stop.await.unwrap_or_else(|error| Err(StopError::Host { what: "stop", source: std::io::Error::other(error) }))
    }

    /// Lets a paused guest run: one that has arrived by migration, one that was sent but is to run here after all (R22),
    /// or one whose storage has failed and is back. A running guest is left as it is.
    ///
    /// # Errors
    /// See [`ResumeError`]. An incoming guest is refused: QEMU would run it as soon as it has arrived. So is one that is being sent,
    /// whose sending may stop it yet.
    pub async fn resume(&self, guest: &GuestName) -> Result<(), ResumeError> {
        let monitor = self.inner.registry.monitor(guest).ok_or(ResumeError::Absent)?;
        let gate = self.inner.registry.gate(guest);
        let Ok(_gate) = gate.try_lock() else { return Err(ResumeError::Busy) };
        match monitor.view().condition {
            GuestCondition::Running => return Ok(()),
            GuestCondition::Paused { .. } | GuestCondition::IoError { .. } | GuestCondition::Sent => {}
            other => return Err(ResumeError::NotPaused(format!("{other:?}"))),
        }
        monitor.execute(qapi::qmp::cont {}, ANSWER_DEADLINE).await?;
        if migrate::wait_for(&monitor, GuestCondition::Running, ANSWER_DEADLINE).await {
            return Ok(());
        }
        Err(ResumeError::NotPaused(format!("{:?} after it was resumed", monitor.view().condition)))
    }

    /// Whether a guest that runs here can be sent to a machine with the processor `theirs`: one that it was not started with may
    /// lack what the guest uses, and QEMU does not look. Of a guest without a record that is not known; none such is sent.
    ///
    /// # Errors
    /// [`SendError::OtherProcessor`].
    pub fn check_processor(&self, guest: &GuestName, theirs: &str) -> Result<(), SendError> {
        match self.inner.registry.definition(guest) {
            Some(ours) if ours.processor() != theirs => {
                Err(SendError::OtherProcessor { ours: ours.processor().to_owned(), theirs: theirs.to_owned() })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether a guest that runs here finds in the machine `theirs` the disks and devices that it was started with: QEMU does not look
    /// what is behind them. Of a guest without a record that is not known; none such is sent.
    ///
    /// # Errors
    /// [`SendError::OtherMachine`].
    pub fn check_machine(&self, guest: &GuestName, theirs: &QemuDefinition) -> Result<(), SendError> {
        match self.inner.registry.definition(guest).and_then(|ours| ours.difference(theirs)) {
            Some(difference) => Err(SendError::OtherMachine(difference)),
            None => Ok(()),
        }
    }

    /// Sends a running guest to `uri`, as [`Started`] on the target named it. When the guest is stopped and ready to be
    /// handed over, `go` is asked whether this host may still do that; without a `true` the guest runs on here. So it does after
    /// `deadline`, in which the wait for others that are busy with it counts, and as soon as `wanted` says that the move is not
    /// wanted any more, which is asked twice a second until then.
    /// `Ok` leaves it here paused, as `Sent`. Goes on to its end when the future is dropped. Where that is not known because QEMU does
    /// not answer, the move is cancelled as soon as it does.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send_to<W, F>(
        &self,
        guest: &GuestName,
        uri: &str,
        deadline: Duration,
        wanted: W,
        go: F,
    ) -> Result<MigrationOutcome, SendError>
    where
        W: Fn() -> bool + Send + Sync + 'static,
        F: Future<Output = bool> + Send + 'static,
    {
        let monitor = self.inner.registry.monitor(guest).ok_or(SendError::Absent)?;
        let (uri, gate, began) = (uri.to_owned(), self.inner.registry.gate(guest), Instant::now());
        let (inner, name) = (Arc::downgrade(&self.inner), guest.clone());
        let send = async move {
            // Whoever gives the order counts from now: one that began late would hand the guest over when nobody waits for it.
            let Ok(_gate) = timeout(deadline, gate.lock()).await else {
                return Err(SendError::Kept(NotSent::Late));
            };
            let sent = migrate::send(&monitor, &uri, deadline.saturating_sub(began.elapsed()), &wanted, go).await;
            if matches!(sent, Err(SendError::Unknown(_))) {
                orphan::keep_later(inner, name, &monitor);
            }
            sent
        };
        let send = tokio::spawn(send.instrument(tracing::info_span!("send", %guest)));
        send.await.unwrap_or_else(|error| Err(SendError::Unknown(error.to_string())))
    }

    /// Services of these guests begin to fail: begins to look whether their file systems are frozen, which the inventory tells then.
    pub fn look_for_frozen(&self, guests: &BTreeSet<GuestName>) {
        for guest in guests {
            // One that is not here, or has no agent, has none who could tell.
            if let Ok(channel) = self.inner.registry.agent(guest) {
                channel.look_whether_frozen();
            }
        }
    }

    /// The way into a guest.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn agent(&self, guest: &GuestName) -> Result<AgentChannel, AgentError> {
        self.inner.registry.agent(guest)
    }
}

impl Inner {
    fn cgroup(&self, guest: &GuestName) -> Cgroup {
        Cgroup::new(&self.config.cgroup, guest.as_str())
    }

    fn files(&self, guest: &GuestName) -> Files {
        Files::new(&self.config.run_dir, guest)
    }
}

/// Where the QEMU of a guest writes the number of its process, as it is told on its command line.
pub(crate) fn pid_file(run_dir: &Path, guest: &GuestName) -> PathBuf {
    Files::new(run_dir, guest).pid()
}

/// The folder that cgroup v2 is mounted on, if it is.
#[must_use]
pub fn cgroup2_mount() -> Option<PathBuf> {
    parse_cgroup2_mount(&std::fs::read_to_string("/proc/self/mounts").ok()?)
}

fn parse_cgroup2_mount(mounts: &str) -> Option<PathBuf> {
    let mut fields = mounts.lines().map(|line| line.split(' '));
    fields.find_map(|mut fields| {
        let (_, path, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| Path::new(path).to_owned())
    })
}
