//! A host that is itself a virtual machine of libvirt, by way of `virsh`.
//!
//! libvirt knows of its own machine alone. A domain that has left it, or that will go on where it stopped, is not off:
//! only one that has ended here is.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use holdfast_policies::{
    model::{LibvirtDevice, SETTLE},
    observe::clean,
};
use tokio::time::Instant;

use crate::{
    device::{Answer, Power, PowerDevice, most_of},
    machine_id::normalize,
    program::{Ended, not_run, run},
};

/// For how long libvirt may go on with a `destroy` after the `virsh` that asked for it was killed, or has lost its connection. It
/// gives a QEMU ten seconds to end by itself, which it counts in naps: on a busy machine they are longer. Mostly it has had three
/// quarters of the level by then.
const GOES_ON: Duration = SETTLE;

/// One domain.
#[derive(Debug)]
pub struct Libvirt {
    settings: LibvirtDevice,
    /// `virsh`, but in tests.
    program: String,
    /// [`GOES_ON`], but in tests.
    goes_on: Duration,
    /// When the newest `destroy` was left alone of which nobody knows that it has ended.
    left_alone: Mutex<Option<Instant>>,
}

/// A `destroy` that somebody waits for. libvirt goes on with it when nobody does.
struct Waiting<'a> {
    device: &'a Libvirt,
    ended: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.ended {
            *self.device.left_alone() = Some(Instant::now());
        }
    }
}

impl Libvirt {
    /// A domain with these settings; nothing is run before the first call.
    #[must_use]
    pub fn new(settings: LibvirtDevice) -> Self {
        Self { settings, program: "virsh".to_owned(), goes_on: GOES_ON, left_alone: Mutex::new(None) }
    }

    fn left_alone(&self) -> MutexGuard<'_, Option<Instant>> {
        self.left_alone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one command on the domain; the answer is what it prints.
    async fn virsh(&self, words: &[&str]) -> Answer<String> {
        let uri = without_questions(&self.settings.uri);
        let whom = ["-q", "-c", &uri];
        // What follows `--` is never an option.
        let domain = ["--", &self.settings.domain];
        let arguments: Vec<_> = whom.iter().chain(words).chain(&domain).map(|word| (*word).to_owned()).collect();
        match run(&self.program, &arguments, &[]).await {
            Err(error) => not_run(&self.program, &error),
            Ok(ended) if ended.code == Some(0) => Answer::Confirmed(ended.stdout),
            Ok(ended) => of_failure(&ended),
        }
    }

    async fn status_now(&self) -> Answer<Power> {
        self.virsh(&["domstate", "--reason"]).await.and_then(|said| of_state(&said))
    }

    /// Not `--graceful`, which leaves a QEMU that hangs alive.
    async fn off_now(&self) -> Answer<()> {
        let mut waiting = Waiting { device: self, ended: false };
        let answer = accepted(self.virsh(&["destroy"]).await);
        // One whose connection was lost does not tell what libvirt goes on with.
        waiting.ended = match &answer {
            Answer::Confirmed(()) | Answer::Refused { .. } => true,
            Answer::Unknown { detail } => NOT_BEGUN.iter().any(|words| detail.contains(words)),
        };
        answer
    }

    /// A managed save would go on with the boot that was switched off, as if nothing had been.
    async fn on_now(&self) -> Answer<()> {
        let answer = accepted(self.virsh(&["start", "--force-boot"]).await);
        // libvirt calls it a mistake to start what runs.
        let runs = matches!(answer, Answer::Unknown { .. }) && self.status_now().await == Answer::Confirmed(Power::On);
        if runs { Answer::Confirmed(()) } else { answer }
    }

    async fn machine_id_now(&self) -> Answer<String> {
        self.virsh(&["domuuid"]).await.and_then(|said| {
            let unread = || Answer::unknown(format!("cannot read what virsh says: {}", clean(&said)));
            normalize(&said).map_or_else(unread, Answer::Confirmed)
        })
    }
}

async fn within<T>(deadline: Duration, ask: impl Future<Output = Answer<T>> + Send) -> Answer<T> {
    match tokio::time::timeout(deadline, ask).await {
        Ok(answer) => answer,
        Err(_) => Answer::unknown(format!("virsh had not ended after {deadline:.1?}")),
    }
}

/// The URI with what keeps ssh from asking for a password: nobody is there to answer.
fn without_questions(uri: &str) -> String {
    let by_ssh = uri.split_once("://").is_some_and(|(scheme, _)| scheme.ends_with("+ssh"));
    if !by_ssh || uri.contains("no_tty=") {
        return uri.to_owned();
    }
    let joint = if uri.contains('?') { '&' } else { '?' };
    format!("{uri}{joint}no_tty=1")
}

/// What a domain's state and its reason say, word by word. Off is only what has ended on this machine: `migrated` runs
/// elsewhere, `saved` and `from snapshot` go on with an old boot, `failed` is also said by the target of a move that
/// failed while its source runs on, `daemon` by a libvirt that has lost its QEMU, `unknown` by one that was started anew.
fn of_state(output: &str) -> Answer<Power> {
    let said = output.trim_end();
    let (state, reason) = said.strip_suffix(')').and_then(|said| said.split_once(" (")).unwrap_or((said, ""));
    match (state, reason) {
        ("running" | "idle" | "paused" | "in shutdown", _) => Answer::Confirmed(Power::On),
        ("shut off", "destroyed" | "shutdown" | "crashed") => Answer::Confirmed(Power::Off),
        _ => Answer::unknown(format!("the domain is \"{}\", which is no word that it has ended", clean(said))),
    }
}

fn accepted(answer: Answer<String>) -> Answer<()> {
    answer.and_then(|_| Answer::Confirmed(()))
}

/// What ssh and libvirt say to somebody whom they do not let in. Everything else may pass, or may have been done.
const DENIED: [&str; 2] = ["Permission denied", "authentication failed"];

/// What ssh says of a machine that it does not let itself in to.
const NOT_THE_ONE: &str = "Host key verification failed";

/// What `virsh` says when nothing was begun: no libvirt, no such domain, or one that does not run.
const NOT_BEGUN: [&str; 3] = ["failed to connect to the hypervisor", "failed to get domain", "domain is not running"];

fn of_failure<T>(ended: &Ended) -> Answer<T> {
    let said = clean(ended.stderr.trim());
    if DENIED.iter().any(|denied| said.contains(denied)) {
        return Answer::denied(said);
    }
    if said.contains(NOT_THE_ONE) {
        return Answer::refused(said);
    }
    Answer::unknown(if said.is_empty() { format!("virsh ended with {:?}", ended.code) } else { said })
}

#[async_trait]
impl PowerDevice for Libvirt {
    async fn status(&self, deadline: Duration) -> Answer<Power> {
        within(deadline, self.status_now()).await
    }

    async fn off(&self, deadline: Duration) -> Answer<()> {
        within(deadline, self.off_now()).await
    }

    async fn on(&self, deadline: Duration) -> Answer<()> {
        within(deadline, self.on_now()).await
    }

    /// libvirt gives a QEMU that hangs some ten seconds before it kills it.
    fn patience(&self) -> Duration {
        most_of(self.settings.timeout)
    }

    fn goes_on_for(&self) -> Duration {
        self.left_alone().map_or(Duration::ZERO, |left| self.goes_on.saturating_sub(left.elapsed()))
    }

    fn describe(&self) -> String {
        let uri = self.settings.uri.split('?').next().unwrap_or_default();
        format!("libvirt {} at {uri}", self.settings.domain)
    }

    async fn machine_id(&self, deadline: Duration) -> Answer<String> {
        within(deadline, self.machine_id_now()).await
    }
}

#[cfg(test)]
mod real;
#[cfg(test)]
pub(crate) mod tests;
