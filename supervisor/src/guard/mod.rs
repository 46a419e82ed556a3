//! The guard: a small process beside the supervisor that outlives it. It keeps the host's lease, remembers which guests
//! the host runs, and sends the voters a beacon, so that a dead supervisor is not taken for a dead host (R13, R16).
//!
//! ```text
//!  supervisor ── guard.sock: one JSON line, one JSON line back ──► guard ── beacon every 250 ms ──► every voter
//! ```
//!
//! On a `keep` host that is all: the lease is the right to start guests, and its end stops none (R14). On a `stop` host
//! the guard also holds the watchdog, and when the lease runs out it kills every registered guest:
//!
//! ```text
//!  duty (pure) ──► protector ──► cgroups, process: look, kill   state (pure) ◄── connection ◄── supervisor
//!                      ├───────► watchdog: pet, or let it fire        └──► memory: what a later guard must know
//!                      └───────► last words ──► log, and disk: what a later boot must know
//! ```
//!
//! One thread does its duty, without an async runtime; another says its last words. A supervisor that hangs up changes
//! nothing. What it cannot read it refuses and counts. In stop mode its memory is locked and it gets real-time priority, where
//! that is allowed.
//!
//! What comes between the end of a lease and the kill is `act` of `protector.rs`, the first thing after every wake-up. It
//! allocates nothing and waits for nothing as long as the cgroups and processes of the guests stay the ones that were opened;
//! opening what is new allocates nothing either, but asks the kernel. Nor does the rest of a turn allocate while nothing changes:
//! looking for requests, a longer lease (`steady.rs`; it is kept from a buffer that is used again), the answer to who asks how
//! it is, and the beacon every 250 ms. `supervisor/tests/guard.rs` counts it. It may wait, which can make the next `act` late:
//! a longer lease is written to `run_dir`, which lies in memory.
//!
//! What changes something does allocate: a new connection (its buffers grow to what they need and stay), every other request
//! (parsed, applied to a copy of what is known, kept and answered), refusals, arming and disarming, a watchdog that is named and
//! cannot be opened (four times a second), guests that were killed, once they are gone, and every line that is logged
//! (formatted, and written to standard error: a reader that stands still stops the guard there, so nothing is logged twice for a
//! lasting failure). Locked memory keeps what is allocated from being paged out; it does not make room where there is none. A
//! guard that is held up by any of that pets late, and the watchdog fires.

mod beacons;
mod cgroups;
mod client;
mod connection;
mod duty;
mod handover;
mod incarnation;
mod kernel;
mod last_words;
mod memory;
mod process;
mod protector;
mod protocol;
mod server;
mod state;
mod steady;
mod watchdog;
mod written;

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use holdfast_policies::{hostfile::HostFile, proof::QUIET};

pub use client::{ClientError, GuardClient};
pub(crate) use incarnation::boot_id;
pub use incarnation::incarnation;
pub use protocol::{Guest, Hardened, Reply, Request, Status, Stopped};
pub use server::{Guard, GuardConfig, GuardError};
pub use written::{note_told, untold};

/// How often the beacon is sent (R16).
pub const BEACON_EVERY: Duration = Duration::from_millis(250);

// Before a host's power device is believed, two of its beacons have been missed (R9).
const _: () = assert!(2 * BEACON_EVERY.as_millis() < QUIET.as_millis(), "a beacon comes too rarely");

/// The guard's socket below `run_dir`.
pub const SOCKET_NAME: &str = "guard.sock";

/// The lock below `run_dir` that says that a guard runs.
pub const LOCK_NAME: &str = "guard.lock";

/// Runs the guard until it is killed or another one takes over from it. `take_over`: from one that runs already, without
/// a gap. Paths in the host file must be absolute.
///
/// # Errors
/// When another guard runs on this host and is not taken over from, or when its keys, its folder or its socket cannot be
/// used.
pub fn run(host: &HostFile, take_over: bool) -> anyhow::Result<()> {
    let config = GuardConfig::of(host);
    let guard = if take_over { Guard::take_over(&config) } else { Guard::open(&config) };
    let mut guard = guard.with_context(|| format!("guard of host {}", host.host))?;
    tracing::info!(incarnation = %guard.incarnation(), "the guard has started");
    guard.serve(|| false).with_context(|| format!("guard of host {}", host.host))
}

fn socket_path(run_dir: &std::path::Path) -> PathBuf {
    run_dir.join(SOCKET_NAME)
}

#[cfg(test)]
mod tests;
