//! How a guest is stopped: killed, seen to be gone, and forgotten.

use std::time::Duration;

use holdfast_policies::names::{Epoch, GuestName};
use tokio::{task::JoinHandle, time::timeout};

use super::{Inner, errors::StopError, forensics::Seen, outside, screen};

/// How long a stop may take until the guest counts as not stopped.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// How long the clean-up after an exit may take: one `ip` command for each network card.
const CLEAN_UP_DEADLINE: Duration = Duration::from_secs(10);

/// Whether it is kept what was seen of a guest that is stopped.
#[derive(Debug, Clone, Copy)]
pub(super) enum Look {
    /// It is, with a picture of its screen: something is wrong with it.
    Closely,
    /// It is, without anything that would have to be waited for: it must not run a moment longer.
    InPassing,
    /// Its end is in order.
    Away,
}

impl Inner {
    pub(super) async fn stop(
        &self,
        guest: &GuestName,
        look: Look,
        up_to: Option<Epoch>,
    ) -> Result<Option<String>, StopError> {
        let cgroup = self.cgroup(guest);
        let host = |what| move |source| StopError::Host { what, source };
        let is_newer = || up_to.is_some_and(|up_to| self.registry.epoch(guest).is_some_and(|here| here > up_to));
        let seen = self.look_at(guest, look).await;
        if is_newer() {
            return Ok(None);
        }
        // At once, so that a start or a migration under way does not delay it; they then end by themselves.
        cgroup.kill().map_err(host("kill"))?;
        let gate = self.registry.gate(guest);
        let _gate = gate.lock().await;
        // It may have been stopped and started anew by those whose turn was before.
        if is_newer() {
            return Ok(None);
        }
        cgroup.kill().map_err(host("kill"))?;
        if timeout(STOP_DEADLINE, cgroup.wait_empty()).await.is_err() {
            let processes = cgroup.processes().unwrap_or_default();
            return Err(StopError::StillRunning { seconds: STOP_DEADLINE.as_secs(), processes });
        }
        let last_seen = match seen {
            Some(seen) => {
                // The keeper takes the log away.
                self.logs.ended(guest, &self.files(guest)).await;
                Some(self.keeper.close(guest, seen, self.files(guest)).await)
            }
            None => None,
        };
        self.forget(guest).await.map_err(host("remove what is left"))?;
        Ok(last_seen)
    }

    /// What is seen of a guest before it is killed. Only the screen of one that has a display takes time.
    async fn look_at(&self, guest: &GuestName, look: Look) -> Option<Seen> {
        match look {
            Look::Closely => {
                let (mut seen, monitor) = self.registry.seen(guest)?;
                if let Some(monitor) = monitor {
                    seen.screen = Some(screen::take(&monitor, &self.files(guest)).await);
                }
                Some(seen)
            }
            Look::InPassing => self.registry.seen(guest).map(|(seen, _)| seen),
            Look::Away => None,
        }
    }

    /// Forgets a guest that is gone: task, taps, cgroup, record. One that runs outside its cgroup is not gone.
    pub(super) async fn forget(&self, guest: &GuestName) -> std::io::Result<()> {
        outside::nothing_outside(&self.files(guest), &self.cgroup(guest)).await?;
        match self.registry.remove(guest) {
            Some(task) => {
                if !has_cleaned_up(task, CLEAN_UP_DEADLINE).await {
                    tracing::warn!(%guest, "cleaning up after the guest took too long; its taps may still be there");
                }
            }
            None => tracing::debug!(%guest, "no such guest here"),
        }
        let (cgroup, files) = (self.cgroup(guest), self.files(guest));
        cgroup.remove()?;
        self.logs.ended(guest, &files).await;
        files.clear()?;
        self.forget_the_oldest();
        Ok(())
    }
}

/// Waits for the task of a guest that is gone. False when it has taken too long, and was ended: it would go on to remove the taps of
/// the run that comes next, which have the same names.
pub(super) async fn has_cleaned_up(mut task: JoinHandle<()>, within: Duration) -> bool {
    if timeout(within, &mut task).await.is_ok() {
        return true;
    }
    task.abort();
    _ = task.await;
    false
}
