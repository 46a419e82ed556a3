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
        self.ask_power(guest, Power::Reboot).await?;
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
