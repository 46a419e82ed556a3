//! A host that is itself a virtual machine of a QEMU on this very kernel, by way of its monitor (QMP).
//!
//! A QEMU that lives answers. That one has ended is the kernel's word alone, in one of two ways:
//!
//! - a socket without a listener: its QEMU was killed, and left the socket behind;
//! - a lock that is gone from the pidfile that was locked when QEMU answered: it has quit, and took both files along.
//!
//! A file that is not there says nothing. It is missing too where the path is wrong, and on every other machine.
//!
//! A file system that hangs keeps whoever touches it, so that is done by threads of their own, and answers by the deadline.

mod monitor;
mod traces;

use std::{
    fs::File,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use holdfast_policies::{model::QemuDevice, observe::clean};
use serde_json::Value;
use tokio::{net::UnixStream, runtime::Handle, sync::Semaphore, task::spawn_blocking};

use self::monitor::{Monitor, MonitorError};
use crate::{
    causes::with_causes,
    device::{Answer, Power, PowerDevice},
    machine_id::normalize,
    newest_off::NewestOff,
    program::run,
};

/// States of a QEMU whose machine may run in another one. Ending it would look like proof and be none.
const MAY_RUN_ELSEWHERE: [&str; 3] = ["inmigrate", "finish-migrate", "postmigrate"];

/// Threads that may touch files at a time. Those of a file system that hangs are not given back before it goes on, and the
/// runtime has 512 for everything that blocks.
static LOOKS: Semaphore = Semaphore::const_new(32);

/// One machine.
#[derive(Debug)]
pub struct Qemu {
    settings: QemuDevice,
    /// The pidfile of the QEMU that answered last, open: its lock ends with that QEMU, whatever becomes of its name.
    answered: Mutex<Option<Arc<File>>>,
    newest_off: NewestOff,
}

/// What is at the socket.
enum Found {
    /// A QEMU that answers.
    Alive(Monitor),
    /// A socket, or another file, that nobody listens at.
    Dead,
    /// Nothing.
    Nothing,
}

/// Why there is no answer.
enum Trouble {
    Refused(String),
    Unknown(String),
}

impl From<MonitorError> for Trouble {
    fn from(error: MonitorError) -> Self {
        Self::Unknown(with_causes(&error))
    }
}

impl Qemu {
    /// A machine with these settings; nothing is asked before the first call.
    #[must_use]
    pub fn new(settings: QemuDevice) -> Self {
        Self { settings, answered: Mutex::new(None), newest_off: NewestOff::default() }
    }

    async fn find(&self) -> Result<Found, Trouble> {
        // It does not wait for who listens, and does for the file system of the socket.
        let (socket, runtime) = (self.settings.socket.clone(), Handle::current());
        match look(move || runtime.block_on(UnixStream::connect(socket))).await? {
            Ok(stream) => Ok(Found::Alive(Monitor::begin(stream).await?)),
            Err(error) => match error.kind() {
                io::ErrorKind::ConnectionRefused => Ok(Found::Dead),
                io::ErrorKind::NotFound => Ok(Found::Nothing),
                // Also a full queue: QEMU hangs, or others use this monitor.
                _ => Err(Trouble::Unknown(format!("cannot connect to its monitor: {error}"))),
            },
        }
    }

    /// What the machine does, in QEMU's words. Remembers the pidfile that tells when this QEMU has ended; without one
    /// its end could never be proven, which is better said beforehand.
    async fn state(&self, monitor: &mut Monitor) -> Result<String, Trouble> {
        let said = monitor.ask("query-status").await?;
        let Some(state) = said.get("status").and_then(Value::as_str) else {
            return Err(Trouble::Unknown(format!("cannot read what its monitor says: {}", clean(&said.to_string()))));
        };
        let pidfile = self.settings.pidfile.clone();
        let Some(pidfile) = look(move || traces::locked(&pidfile)).await? else {
            let path = self.settings.pidfile.display();
            return Err(Trouble::Unknown(format!("it answers, but has not locked {path}, by which its end is seen")));
        };
        *self.answered.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(pidfile));
        Ok(state.to_owned())
    }

    async fn status_now(&self) -> Result<Power, Trouble> {
        match self.find().await? {
            Found::Alive(mut monitor) => {
                let state = self.state(&mut monitor).await?;
                if MAY_RUN_ELSEWHERE.contains(&state.as_str()) {
                    return Err(Trouble::Unknown(format!("it is in state {state}: its machine may run elsewhere")));
                }
                Ok(Power::On)
            }
            Found::Dead => {
                let (socket, pidfile) = (self.settings.socket.clone(), self.settings.pidfile.clone());
                let killed = look(move || traces::killed(&socket, &pidfile)).await?;
                killed.map(|()| Power::Off).map_err(Trouble::Unknown)
            }
            Found::Nothing => match self.has_quit().await? {
                true => Ok(Power::Off),
                false => Err(Trouble::Unknown("no socket is there, and nobody saw its QEMU end".to_owned())),
            },
        }
    }

    /// Whether the QEMU that answered last has ended. A lock that cannot be asked about is held.
    async fn has_quit(&self) -> Result<bool, Trouble> {
        let answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(pidfile) = answered else { return Ok(false) };
        look(move || matches!(traces::is_locked(&pidfile), Ok(false))).await
    }

    /// QEMU answers `quit` before it ends, and may hang in between, or before it answers: what counts is the status that follows.
    async fn off_now(&self) -> Result<(), Trouble> {
        let Found::Alive(mut monitor) = self.find().await? else {
            return Err(Trouble::Unknown("nobody listens at its socket".to_owned()));
        };
        let state = self.state(&mut monitor).await?;
        if MAY_RUN_ELSEWHERE.contains(&state.as_str()) {
            return Err(Trouble::Refused(format!("it is in state {state}: its machine may run elsewhere")));
        }
        self.newest_off.sends();
        monitor.ask("quit").await?;
        Ok(())
    }

    async fn on_now(&self) -> Result<(), Trouble> {
        let Some((program, arguments)) = self.settings.start.as_deref().and_then(<[String]>::split_first) else {
            return Err(Trouble::Refused("no command is declared that starts it".to_owned()));
        };
        if matches!(self.find().await?, Found::Alive(_)) {
            return Ok(());
        }
        match run(program, arguments, &[]).await {
            Err(error) => Err(Trouble::Refused(format!("cannot run {program}: {error}"))),
            Ok(ended) if ended.code == Some(0) => Ok(()),
            Ok(ended) => {
                let said = clean(ended.stderr.lines().last().unwrap_or_default().trim());
                Err(Trouble::Unknown(format!("{program} ended with {:?}: {said}", ended.code)))
            }
        }
    }

    async fn machine_id_now(&self) -> Result<String, Trouble> {
        let Found::Alive(mut monitor) = self.find().await? else {
            return Err(Trouble::Unknown("nobody listens at its socket".to_owned()));
        };
        let said = monitor.ask("query-uuid").await?;
        let uuid = said.get("UUID").and_then(Value::as_str).and_then(normalize);
        let none = || Trouble::Refused("it cannot tell which machine it is: QEMU was started without -uuid".to_owned());
        uuid.ok_or_else(none)
    }
}

/// Does what touches files on a thread of its own, which is left to itself when the caller's time is over.
async fn look<T: Send + 'static>(look: impl FnOnce() -> T + Send + 'static) -> Result<T, Trouble> {
    let ended = || Trouble::Unknown("the look at its files was given up".to_owned());
    let turn = LOOKS.acquire().await.map_err(|_| ended())?;
    let looked = spawn_blocking(move || {
        let _turn = turn;
        look()
    });
    looked.await.map_err(|_| ended())
}

async fn within<T>(deadline: Duration, ask: impl Future<Output = Result<T, Trouble>> + Send) -> Answer<T> {
    match tokio::time::timeout(deadline, ask).await {
        Ok(Ok(value)) => Answer::Confirmed(value),
        Ok(Err(Trouble::Refused(detail))) => Answer::refused(detail),
        Ok(Err(Trouble::Unknown(detail))) => Answer::Unknown { detail },
        Err(_) => Answer::unknown(format!("no answer within {deadline:.1?}: it hangs, or its monitor is in use")),
    }
}

#[async_trait]
impl PowerDevice for Qemu {
    async fn status(&self, deadline: Duration) -> Answer<Power> {
        within(deadline, self.status_now()).await
    }

    async fn off(&self, deadline: Duration) -> Answer<()> {
        self.newest_off.watch(within(deadline, self.off_now())).await
    }

    async fn on(&self, deadline: Duration) -> Answer<()> {
        within(deadline, self.on_now()).await
    }

    fn goes_on_for(&self) -> Duration {
        self.newest_off.goes_on_for()
    }

    fn describe(&self) -> String {
        format!("qemu {}", self.settings.socket.display())
    }

    async fn machine_id(&self, deadline: Duration) -> Answer<String> {
        within(deadline, self.machine_id_now()).await
    }
}

#[cfg(test)]
pub(crate) mod tests;
