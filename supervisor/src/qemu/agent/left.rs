//! Programs that were given up and go on in the guest: QEMU's agent can end none.
//!
//! A service is asked again and again. Where its program hangs, as on a file system that does, each question would leave one more of
//! them in the guest, and in the agent what it keeps of each for whoever asks for its end, until the guest has no memory left. So a
//! program is not begun while too many runs of it have not ended; that they have not is the answer then.

use std::sync::{Mutex, MutexGuard, PoisonError};

use holdfast_probes::channel::ChannelError;
use qapi::qga;
use tokio::time::Instant;

use super::AgentChannel;

/// Most runs of the same program that may go on in the guest when it is begun once more. A rung may try its command anew while one
/// hangs, and two services may have the same one.
pub(super) const LEFT_MAX: usize = 4;

/// Most runs that are remembered of one guest; beyond that the oldest are forgotten. Enough for 64 programs that all hang.
const KNOWN_MAX: usize = 64 * LEFT_MAX;

/// What goes on in one guest.
#[derive(Default)]
pub(super) struct Left(Mutex<Vec<Run>>);

/// One run of a program.
#[derive(Clone, PartialEq, Eq)]
struct Run {
    argv: Vec<String>,
    pid: i64,
    /// How often the machine had begun anew by then: with that all programs end.
    resets: u32,
}

/// A program that was begun. It is remembered when this is dropped before its end is known.
pub(super) struct Begun<'a> {
    left: &'a Left,
    run: Option<Run>,
}

impl Begun<'_> {
    /// It does not go on.
    pub(super) fn has_ended(mut self) {
        self.run = None;
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        let Some(run) = self.run.take() else { return };
        let mut runs = self.left.runs();
        if runs.len() >= KNOWN_MAX {
            runs.remove(0);
        }
        runs.push(run);
    }
}

impl Left {
    fn runs(&self) -> MutexGuard<'_, Vec<Run>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those of a program that may go on since the machine has begun.
    fn of(&self, argv: &[String], resets: u32) -> Vec<Run> {
        let mut runs = self.runs();
        runs.retain(|run| run.resets == resets);
        runs.iter().filter(|run| run.argv == argv).cloned().collect()
    }

    fn forget(&self, ended: &Run) {
        self.runs().retain(|run| run != ended);
    }
}

impl AgentChannel {
    /// A program that the agent has just begun.
    pub(super) fn begun(&self, argv: &[String], pid: i64) -> Begun<'_> {
        let run = Run { argv: argv.to_vec(), pid, resets: self.inner.view.borrow().resets };
        Begun { left: &self.inner.left, run: Some(run) }
    }

    /// Whether so many runs of a program go on that no other is to be begun.
    ///
    /// # Errors
    /// The agent does not tell.
    pub(super) async fn goes_on(&self, argv: &[String], deadline: Instant) -> Result<bool, ChannelError> {
        let resets = self.inner.view.borrow().resets;
        let known = self.inner.left.of(argv, resets);
        if known.len() < LEFT_MAX {
            return Ok(false);
        }
        let mut going_on = 0_usize;
        for run in known {
            match self.command(qga::guest_exec_status { pid: run.pid }, deadline).await {
                Ok(status) if !status.exited => going_on = going_on.saturating_add(1),
                // The agent tells of an end once, and refuses to tell of what it does not know.
                Ok(_) | Err(ChannelError::Refused(_) | ChannelError::TooLong) => self.inner.left.forget(&run),
                Err(error) => return Err(error),
            }
        }
        Ok(going_on >= LEFT_MAX)
    }
}
