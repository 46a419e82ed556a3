//! The sandbox that QEMU puts itself into: system calls that it has no use for end it, whoever has taken it over from within the guest.
//!
//! ```text
//!  not known --a machine without a guest comes up in it--> works --a QEMU says that it knows none--> not known
//!      │                                                     │
//!      └─ it does not: this guest is started without         └─ a QEMU was ended by it during its start ──> given up
//! ```
//! No guest waits for it: who cannot be confined is started without.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use nix::libc;

use super::accel::trial;

/// What is denied: obsolete calls, other users' rights, programs and processes of its own, other priorities and processors. QEMU needs
/// none of that as it is started here: its taps, sockets and files it opens itself, without a helper. libvirt denies the same by default.
pub const CONFINED: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/// What a QEMU says that does not know the sandbox, or whose kernel refuses it.
const REFUSED: [&str; 2] = ["-sandbox", "seccomp"];

/// Whether guests of this host can be confined, as far as that is known.
#[derive(Debug, Default)]
pub struct Sandbox {
    works: AtomicBool,
    given_up: AtomicBool,
}

impl Sandbox {
    /// What is known, or what `trial` says.
    ///
    /// # Errors
    /// Why they cannot be.
    pub async fn find_out<F: Future<Output = Result<(), String>>>(
        &self,
        trial: impl FnOnce() -> F,
    ) -> Result<(), String> {
        if self.given_up.load(Ordering::Relaxed) {
            return Err("it has ended a QEMU during its start".to_owned());
        }
        if self.works.load(Ordering::Relaxed) {
            return Ok(());
        }
        let tried = trial().await;
        self.works.store(tried.is_ok(), Ordering::Relaxed);
        tried
    }

    /// The start of a QEMU has failed that has ended in this way, if it has, and with these last words. Where that was for the
    /// sandbox, the next start must not end the same way: one that knows none is tried anew, and one that needs what is denied is not
    /// confined any more.
    pub fn doubt(&self, ended: &str, last_words: &str) {
        if ended.contains(&format!("signal {}", libc::SIGSYS)) {
            self.given_up.store(true, Ordering::Relaxed);
        }
        if REFUSED.iter().any(|word| last_words.contains(word)) {
            self.works.store(false, Ordering::Relaxed);
        }
    }
}

/// Finds out whether this QEMU confines itself.
///
/// # Errors
/// Why it does not.
pub async fn try_out(binary: &Path) -> Result<(), String> {
    trial(binary, &["-sandbox", CONFINED]).await
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNKNOWN: &str = "qemu-system-x86_64: -sandbox support is not enabled in this QEMU binary";

    async fn works() -> Result<(), String> {
        Ok(())
    }

    async fn refuses() -> Result<(), String> {
        Err(UNKNOWN.to_owned())
    }

    #[tokio::test]
    async fn a_sandbox_that_works_is_tried_once_and_again_when_a_qemu_refuses_it() {
        let sandbox = Sandbox::default();
        assert!(sandbox.find_out(refuses).await.is_err());
        assert!(sandbox.find_out(works).await.is_ok(), "what did not work is tried anew");
        sandbox.doubt("exit status 1", "Failed to get \"write\" lock");
        assert!(sandbox.find_out(refuses).await.is_ok(), "it is tried for every guest");
        sandbox.doubt("exit status 1", UNKNOWN);
        assert!(sandbox.find_out(refuses).await.is_err(), "every start would fail");
    }

    #[tokio::test]
    async fn a_qemu_that_its_sandbox_has_ended_while_it_came_up_is_started_without_from_then_on() {
        let sandbox = Sandbox::default();
        sandbox.doubt("signal 9", "");
        assert!(sandbox.find_out(works).await.is_ok());
        sandbox.doubt("signal 31", "");
        assert!(sandbox.find_out(works).await.is_err(), "a trial without a guest needs less");
    }
}
