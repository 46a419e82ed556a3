//! Redfish services: a system is found, told to reset by one of the types that it offers, and asked what power it has.
//!
//! What a service answers to a reset is never taken for what came of it: some accept and act eleven seconds later, some accept
//! and do nothing, some refuse to switch off what is off already. Only its `PowerState` says whether the system is off.

mod service;
mod system;

#[cfg(test)]
pub(crate) mod scripted;
#[cfg(test)]
pub(crate) mod sushy;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use holdfast_policies::model::RedfishDevice;
use serde_json::Value;
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};

use self::service::{Service, Trouble, goes_on};
use crate::{
    device::{Answer, Power, PowerDevice, most_of},
    newest_off::NewestOff,
};

/// Reset types that cut the power, best first.
const OFF: &[&str] = &["ForceOff"];
/// Reset types that switch it on, best first.
const ON: &[&str] = &["On", "ForceOn"];

/// Pause between two looks at a task.
const TASK_PAUSE: Duration = Duration::from_millis(250);
/// Longest time that a task is looked after: then the level may give the order again.
const TASK_LIMIT: Duration = Duration::from_secs(4);
/// What is left of a call when a task is not waited for any more.
const TASK_MARGIN: Duration = Duration::from_secs(1);

/// One system of a Redfish service.
#[derive(Debug)]
pub struct Redfish {
    settings: RedfishDevice,
    /// What is known of the service; found anew after any trouble.
    found: Mutex<Option<Arc<Found>>>,
    newest_off: NewestOff,
}

/// A service and where its system is.
#[derive(Debug)]
struct Found {
    service: Service,
    path: String,
}

impl Redfish {
    /// A system with these settings; nothing is read or sent before the first call.
    #[must_use]
    pub fn new(settings: RedfishDevice) -> Self {
        Self { settings, found: Mutex::new(None), newest_off: NewestOff::default() }
    }

    async fn found(&self) -> Result<Arc<Found>, Trouble> {
        let mut known = self.found.lock().await;
        if let Some(found) = &*known {
            return Ok(Arc::clone(found));
        }
        let service = Service::open(&self.settings).await?;
        let path = system::find(&service, self.settings.system.as_deref()).await?;
        let found = Arc::new(Found { service, path });
        *known = Some(Arc::clone(&found));
        Ok(found)
    }

    async fn system(&self) -> Result<(Arc<Found>, Value), Trouble> {
        let found = self.found().await?;
        let system = found.service.get(&found.path).await?;
        Ok((found, system))
    }

    async fn status_now(&self) -> Result<Power, Trouble> {
        system::power(&self.system().await?.1)
    }

    async fn reset(&self, wanted: &[&str], already: Power, deadline: Duration) -> Result<(), Trouble> {
        let until = Instant::now() + deadline.saturating_sub(TASK_MARGIN);
        let (found, system) = self.system().await?;
        let reset = system::reset(&found.service, &system, wanted).await?;
        if already == Power::Off {
            self.newest_off.sends();
        }
        let ended = match found.service.post(&reset.target, &reset.body()).await {
            Ok(Some(task)) => follow(&found, &task, already, until.min(Instant::now() + TASK_LIMIT)).await,
            Ok(None) => Ok(()),
            Err(trouble) => Err(trouble),
        };
        let Err(trouble) = ended else { return Ok(()) };
        // Some services call it a mistake to switch off what is off.
        let state = found.service.get(&found.path).await.and_then(|system| system::power(&system));
        if matches!(state, Ok(power) if power == already) { Ok(()) } else { Err(trouble) }
    }

    async fn machine_id_now(&self) -> Result<String, Trouble> {
        system::machine_id(&self.system().await?.1)
    }

    /// Ends by the deadline. After any trouble the service is looked at anew: a session may be over, an address another's.
    async fn within<T>(&self, deadline: Duration, ask: impl Future<Output = Result<T, Trouble>> + Send) -> Answer<T> {
        let answer = match tokio::time::timeout(deadline, ask).await {
            Ok(Ok(value)) => return Answer::Confirmed(value),
            Ok(Err(Trouble::Refused(detail))) => Answer::refused(detail),
            Ok(Err(Trouble::Denied(detail))) => Answer::denied(detail),
            Ok(Err(Trouble::Unknown(detail))) => Answer::Unknown { detail },
            Err(_) => Answer::unknown(format!("no answer within {deadline:.1?}")),
        };
        if let Ok(mut found) = self.found.try_lock() {
            *found = None;
        }
        answer
    }
}

/// Looks after the task that a service has made of a reset, because its failure says why nothing happens. Ends when the
/// system shows what is wanted, the task has ended or cannot be read, or there is no more time: then the reset was accepted,
/// and no more.
async fn follow(found: &Found, task: &str, wanted: Power, until: Instant) -> Result<(), Trouble> {
    while Instant::now() < until {
        let Ok(state) = found.service.get(task).await else { return Ok(()) };
        let shows = found.service.get(&found.path).await.and_then(|system| system::power(&system));
        if !goes_on(&state)? || matches!(shows, Ok(power) if power == wanted) {
            return Ok(());
        }
        sleep(TASK_PAUSE).await;
    }
    Ok(())
}

#[async_trait]
impl PowerDevice for Redfish {
    async fn status(&self, deadline: Duration) -> Answer<Power> {
        self.within(deadline, self.status_now()).await
    }

    async fn off(&self, deadline: Duration) -> Answer<()> {
        self.newest_off.watch(self.within(deadline, self.reset(OFF, Power::Off, deadline))).await
    }

    async fn on(&self, deadline: Duration) -> Answer<()> {
        self.within(deadline, self.reset(ON, Power::On, deadline)).await
    }

    /// To find the system takes up to five requests, and slow controllers take seconds for each.
    fn patience(&self) -> Duration {
        most_of(self.settings.timeout)
    }

    fn goes_on_for(&self) -> Duration {
        self.newest_off.goes_on_for()
    }

    fn describe(&self) -> String {
        let RedfishDevice { address, port, user, system, .. } = &self.settings;
        let system = system.as_ref().map(|system| format!(" system {system}")).unwrap_or_default();
        format!("redfish {user}@{address}:{port}{system}")
    }

    async fn machine_id(&self, deadline: Duration) -> Answer<String> {
        self.within(deadline, self.machine_id_now()).await
    }
}
