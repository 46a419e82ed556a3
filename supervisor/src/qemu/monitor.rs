//! One task per guest: it owns the connection to QEMU's monitor, and is the first to know when the guest is gone.
//!
//! Whatever QEMU reports by an event is confirmed by asking for the state, so that a lost or unknown event costs a
//! second and never the truth. An exit is seen by the kernel's notice for the guest's cgroup, not by the connection; and that the guest
//! has not merely been moved out of it is looked up then. What is unanswered on a connection is kept in `monitor/session.rs`,
//! what is made of messages is in `monitor/hearing.rs`; others ask by way of `monitor/client.rs`.

mod client;
mod hearing;
mod session;

use std::{io, time::Duration};

use holdfast_policies::{
    names::{Epoch, GuestName},
    observe::{GuestCondition, GuestReport},
};
use serde_json::json;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};

pub use self::client::{AskError, MonitorClient};
use self::{
    client::Ask,
    session::{Purpose, Session},
};
use super::{
    GuestEvent, How,
    cgroup::Cgroup,
    condition::View,
    happenings::Happenings,
    logs, net,
    oom::{Kills, SAID},
    outside::{outside, told},
    progress::Progress,
    recent::Recent,
    record::{Files, Process},
    wire::{self, WireError},
};
use crate::clock;

/// After this long without an answer a guest is `Unknown`.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

/// How often the state is asked for besides events.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Shortest and longest pause between attempts to connect: a starting QEMU opens its socket within some 50 ms.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// How a QEMU ends that somebody has killed, alone or with the shell that waits for it.
const KILLED: [&str; 2] = ["signal 9", "killed"];

/// Questions that may wait for the task; there are a handful of askers.
const QUEUE: usize = 16;

/// What a monitor task needs to know.
pub struct Monitored {
    /// Which guest.
    pub guest: GuestName,
    /// Under which assignment.
    pub epoch: Epoch,
    /// How it was started.
    pub how: How,
    /// Its sockets and logs.
    pub files: Files,
    /// Where its processes are.
    pub cgroup: Cgroup,
    /// Its tap devices, to be removed when it is gone.
    pub taps: Vec<String>,
    /// Why its monitor must not be spoken to, if so: what runs in its cgroup is not what was recorded.
    pub foreign: Option<String>,
    /// What the kernel has ended on this host for want of memory.
    pub kills: Kills,
}

impl Monitored {
    /// A guest that nobody has started: its files and its cgroup would lie below one folder.
    #[cfg(test)]
    pub fn bare(folder: &std::path::Path, guest: GuestName) -> Self {
        Self {
            files: Files::new(folder, &guest),
            cgroup: Cgroup::new(folder, guest.as_str()),
            guest,
            epoch: Epoch::default(),
            how: How::Run,
            taps: Vec::new(),
            foreign: None,
            kills: Kills::default(),
        }
    }
}

/// Starts the task.
pub fn spawn(monitored: Monitored, events: mpsc::Sender<GuestEvent>) -> (MonitorClient, JoinHandle<()>) {
    let (client, monitor) = prepare(monitored, events);
    (client, tokio::spawn(monitor.run()))
}

/// The same for a guest whose QEMU is none, and has no processes that could end.
#[cfg(test)]
pub fn spawn_without_processes(monitored: Monitored, events: mpsc::Sender<GuestEvent>) -> MonitorClient {
    let (client, mut monitor) = prepare(monitored, events);
    tokio::spawn(async move { monitor.keep_asking().await });
    client
}

fn prepare(monitored: Monitored, events: mpsc::Sender<GuestEvent>) -> (MonitorClient, Monitor) {
    let (asks, asked) = mpsc::channel(QUEUE);
    monitored.kills.look(clock::moment());
    let detail = monitored.foreign.clone().unwrap_or_else(|| "not asked yet".to_owned());
    let (sender, view) = watch::channel(View {
        condition: GuestCondition::Unknown { detail },
        migration: None,
        agent_open: None,
        own_open: None,
        resets: 0,
    });
    let (recent, happenings) = (Recent::default(), Happenings::default());
    let monitor = Monitor {
        monitored,
        events,
        view: sender,
        recent: recent.clone(),
        happenings: happenings.clone(),
        asked,
        told: Told::default(),
        last_answer: Instant::now(),
    };
    (MonitorClient { asks, view, recent, happenings, progress: Progress::default() }, monitor)
}

/// What events have told that the state alone does not.
#[derive(Default)]
struct Told {
    ran: bool,
    io_error: String,
    shutdown: Option<String>,
}

struct Monitor {
    monitored: Monitored,
    events: mpsc::Sender<GuestEvent>,
    view: watch::Sender<View>,
    recent: Recent,
    happenings: Happenings,
    asked: mpsc::Receiver<Ask>,
    told: Told,
    last_answer: Instant,
}

impl Monitor {
    async fn run(mut self) {
        let cgroup = self.monitored.cgroup.clone();
        loop {
            let gone = tokio::select! {
                () = cgroup.wait_empty() => true,
                // A stop forgets the guest as soon as nothing of it is left, which may be before this task has heard of it.
                () = self.keep_asking() => matches!(cgroup.populated(), Ok(false)),
            };
            if !gone {
                return;
            }
            let path = cgroup.path().display();
            let detail = match self.outside().await {
                Ok(None) => return self.exited().await,
                Ok(Some(process)) => format!("it runs as process {} outside {path}", process.pid),
                Err(error) => format!("it cannot be known whether it runs outside {path}: {error}"),
            };
            self.set_condition(GuestCondition::Unknown { detail });
            if self.asked.is_closed() {
                return;
            }
            sleep(ASK_EVERY).await;
        }
    }

    /// Its process, where somebody has moved that out of its cgroup: then it has not ended, and an empty cgroup says nothing (S5).
    async fn outside(&self) -> io::Result<Option<Process>> {
        let Monitored { files, cgroup, .. } = &self.monitored;
        let record = told(files.read())?.flatten();
        outside(record.as_ref(), files, cgroup).await
    }

    async fn exited(self) {
        let mut detail = self.monitored.files.read_exit();
        let is_killed = KILLED.contains(&detail.as_str());
        if is_killed && self.monitored.kills.lately(clock::moment()) {
            detail = format!("{detail}; {SAID}");
        }
        if let Some(reason) = &self.told.shutdown {
            detail = format!("{reason}, {detail}");
        }
        self.set_condition(GuestCondition::Exited { detail });
        if let Err(error) = net::remove(&self.monitored.taps).await {
            tracing::warn!(guest = %self.monitored.guest, %error, "tap device left behind");
        }
    }

    /// Connects and serves, again and again, until nobody holds the driver any more. The monitor takes one client at a
    /// time, so this one must leave room for the next driver's.
    async fn keep_asking(&mut self) {
        let mut pause = RECONNECT.0;
        while !self.asked.is_closed() {
            if self.monitored.foreign.is_some() {
                sleep(RECONNECT.1).await;
                continue;
            }
            match timeout(ANSWER_DEADLINE, self.open()).await {
                Ok(Ok(mut session)) => {
                    pause = RECONNECT.0;
                    let error = self.serve(&mut session).await;
                    tracing::debug!(guest = %self.monitored.guest, %error, "monitor connection ended");
                }
                Ok(Err(error)) => tracing::debug!(guest = %self.monitored.guest, %error, "cannot open the monitor"),
                Err(_) => {}
            }
            self.doubt();
            sleep(pause).await;
            pause = (pause * 2).min(RECONNECT.1);
        }
    }

    /// Connects, negotiates and asks for what events will keep up to date.
    async fn open(&mut self) -> Result<Session, WireError> {
        let (lines, write) = wire::connect(&self.monitored.files.qmp()).await?;
        let mut session = Session::new(lines, write);
        while session.lines.message().await?.greeting.is_none() {}
        for (name, purpose) in [
            ("qmp_capabilities", Purpose::Nothing),
            ("query-migrate", Purpose::Migration),
            ("query-chardev", Purpose::Agents),
            ("query-status", Purpose::Status),
        ] {
            session.send(name, &json!({}), purpose).await?;
        }
        Ok(session)
    }

    async fn serve(&mut self, session: &mut Session) -> WireError {
        loop {
            if let Err(error) = self.serve_one(session).await {
                return error;
            }
        }
    }

    async fn serve_one(&mut self, session: &mut Session) -> Result<(), WireError> {
        let wake = match session.status_asked {
            Some(asked) => asked + ANSWER_DEADLINE,
            None if session.status_due => Instant::now(),
            // An answer that says nothing is no reason to ask at once.
            None => self.last_answer.max(session.status_sent) + ASK_EVERY,
        };
        tokio::select! {
            message = session.lines.message() => self.heard(session, message?),
            ask = self.asked.recv() => match ask {
                Some(ask) => session.forward(ask).await?,
                None => return Err(WireError::Closed),
            },
            () = sleep_until(wake) => self.tick(session).await?,
        }
        Ok(())
    }

    async fn tick(&mut self, session: &mut Session) -> Result<(), WireError> {
        if session.status_asked.is_some() {
            self.doubt();
            session.status_asked = Some(Instant::now());
            return Ok(());
        }
        session.status_due = false;
        self.monitored.kills.look(clock::moment());
        session.send("query-status", &json!({}), Purpose::Status).await?;
        logs::trim(&self.monitored.files).await;
        Ok(())
    }

    /// Silence beyond the deadline makes the guest unknown; before that, the last answer stands.
    fn doubt(&self) {
        if self.last_answer.elapsed() >= ANSWER_DEADLINE {
            let detail = format!("no answer from the monitor within {ANSWER_DEADLINE:?}");
            self.set_condition(GuestCondition::Unknown { detail });
        }
    }

    fn set_condition(&self, condition: GuestCondition) {
        let changed = self.view.send_if_modified(|view| {
            let changed = view.condition != condition;
            view.condition.clone_from(&condition);
            changed
        });
        if changed {
            let Monitored { guest, epoch, .. } = &self.monitored;
            self.tell(GuestEvent::Changed(GuestReport::new(guest.clone(), *epoch, condition)));
        }
    }

    /// Events only wake somebody up; the inventory is the truth, so a full queue loses nothing that matters.
    fn tell(&self, event: GuestEvent) {
        if let Err(error) = self.events.try_send(event) {
            tracing::warn!(guest = %self.monitored.guest, %error, "guest event dropped");
        }
    }
}

#[cfg(test)]
mod tests;
