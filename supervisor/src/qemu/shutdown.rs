//! Ends in order: what a guest does itself when it is asked to, by its agent or by the power button of its machine.
//!
//! Nothing here kills. Whoever wants the guest gone in any case calls [`Driver::stop`] afterwards.

use std::time::Duration;

use holdfast_policies::{names::GuestName, observe::GuestCondition};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    Driver, ShutDownError,
    agent::Power,
    monitor::{ANSWER_DEADLINE, MonitorClient},
};
use crate::clock;

impl Driver {
    /// Asks a running guest to shut down and waits for the end of its QEMU. The agent is asked where there is one that
    /// answers; the power button is pressed where not.
    ///
    /// # Errors
    /// See [`ShutDownError`]; the guest then runs, or is on its way down.
    pub async fn shut_down(&self, guest: &GuestName, within: Duration) -> Result<Duration, ShutDownError> {
        let began = Instant::now();
        let monitor = self.running(guest)?;
        if let Err(error) = self.ask_power(guest, Power::Off).await {
            tracing::info!(%guest, %error, "the agent does not take it; the power button is pressed");
            monitor.execute(qapi::qmp::system_powerdown {}, ANSWER_DEADLINE).await?;
        }
        let cgroup = self.inner.cgroup(guest);
        match timeout_at(began + within, cgroup.wait_empty()).await {
            Ok(()) => Ok(began.elapsed()),
            Err(_) => Err(ShutDownError::Deadline(within)),
        }
    }

    /// Asks a running guest's agent to reboot it, and waits until the machine begins anew.
    ///
    /// # Errors
    /// See [`ShutDownError`]. After `Deadline` it may still reboot.
    pub async fn reboot(&self, guest: &GuestName, within: Duration) -> Result<Duration, ShutDownError> {
        let began = Instant::now();
        let monitor = self.running(guest)?;
        let mut views = monitor.watch();
        let before = views.borrow_and_update().resets;
        monitor.expect_reset(clock::moment().plus(within));
        if let Err(error) = self.ask_power(guest, Power::Reboot).await {
            // Of an agent that hangs nobody knows whether it has taken the word; any other was not told, or will not do it.
            if !matches!(error, ShutDownError::Deadline(_)) {
                monitor.expect_no_reset();
            }
            return Err(error);
        }
        let anew =
            views.wait_for(|view| view.resets != before || matches!(view.condition, GuestCondition::Exited { .. }));
        match timeout_at(began + within, anew).await {
            Ok(Ok(view)) if view.resets != before => Ok(began.elapsed()),
            Ok(_) => Err(ShutDownError::Ended),
            Err(_) => Err(ShutDownError::Deadline(within)),
        }
    }

    fn running(&self, guest: &GuestName) -> Result<MonitorClient, ShutDownError> {
        let monitor = self.inner.registry.monitor(guest).ok_or(ShutDownError::Absent)?;
        match monitor.view().condition {
            GuestCondition::Running => Ok(monitor),
            other => Err(ShutDownError::NotRunning(format!("{other:?}"))),
        }
    }

    async fn ask_power(&self, guest: &GuestName, power: Power) -> Result<(), ShutDownError> {
        let agent = self.agent(guest).await?;
        // The agent's own bound is for its answer; this one is for an agent that hangs before it takes the command.
        match timeout(ANSWER_DEADLINE * 2, agent.power(power, ANSWER_DEADLINE)).await {
            Ok(asked) => Ok(asked?),
            Err(_) => Err(ShutDownError::Deadline(ANSWER_DEADLINE)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use serde_json::{Value, json};
    use tokio::{io::AsyncWriteExt, net::UnixListener, sync::mpsc};

    use super::{
        super::{
            AgentError, migrate,
            monitor::{Monitored, spawn_without_processes},
            record::Record,
            registry::Here,
            tests::idle,
            wire::Lines,
        },
        *,
    };

    /// Long enough for any machine.
    const LONG: Duration = Duration::from_secs(20);

    /// A QEMU whose guest runs, and resets itself when it is to.
    async fn run(listener: UnixListener, mut resets: mpsc::Receiver<()>) {
        let (stream, _) = listener.accept().await.unwrap();
        let (read, mut write) = stream.into_split();
        let mut lines = Lines::of(read);
        write.write_all(b"{\"QMP\":{}}\n").await.unwrap();
        loop {
            let said = tokio::select! {
                line = lines.next() => {
                    let Ok(line) = line else { return };
                    let question: Value = serde_json::from_slice(&line).unwrap();
                    json!({ "return": { "status": "running" }, "id": question["id"] })
                }
                Some(()) = resets.recv() => json!({ "event": "RESET", "data": { "guest": true } }),
            };
            write.write_all(format!("{said}\n").as_bytes()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_reset_that_follows_a_reboot_for_which_nobody_could_be_asked_is_the_guests_own() {
        let folder = tempfile::tempdir().unwrap();
        let inner = idle(folder.path());
        let Record { guest, epoch, how, .. } = Record::bare(GuestName::new("web-1").unwrap());
        let (files, cgroup, kills) = (inner.files(&guest), inner.cgroup(&guest), inner.kills.clone());
        files.make().unwrap();
        let (reset, resets) = mpsc::channel(1);
        tokio::spawn(run(UnixListener::bind(files.qmp()).unwrap(), resets));
        let (taps, foreign) = (Vec::new(), None);
        let monitored = Monitored { guest: guest.clone(), epoch, how, files, cgroup, taps, foreign, kills };
        let monitor = spawn_without_processes(monitored, inner.events.clone());
        let (exclusive, agent, display, definition) = (BTreeSet::new(), None, false, None);
        let (task, known) = (tokio::spawn(async {}), monitor.clone());
        inner.registry.insert(&guest, Here { epoch, how, exclusive, monitor: known, agent, display, definition, task });
        let driver = Driver { inner: Arc::new(inner) };
        assert!(migrate::wait_for(&monitor, GuestCondition::Running, LONG).await);

        let rebooted = driver.reboot(&guest, LONG).await;
        assert!(matches!(rebooted, Err(ShutDownError::NoAgent(AgentError::None))), "{rebooted:?}");
        reset.send(()).await.unwrap();
        let mut views = monitor.watch();
        drop(timeout(LONG, views.wait_for(|view| view.resets == 1)).await.unwrap().unwrap());
        assert_eq!(monitor.happened(clock::moment()).len(), 1);
    }
}
