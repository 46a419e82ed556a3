//! Why the driver could not do something. Each variant is a thing that the agent handles differently.

use std::{io, time::Duration};

use holdfast_policies::names::{Epoch, GuestName};
use holdfast_probes::channel::ChannelError;

use super::{locks::LockError, monitor::AskError, net::NetError};

/// Why the driver as a whole cannot work, or cannot say what runs here. Never to be read as "nothing runs".
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The cgroup below which guests get theirs.
    #[error("cgroup {path}")]
    Cgroup {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A guest runs where nobody would look for it.
    #[error(
        "guest {guest} runs as process {pid} outside {cgroup}: put `qemu.cgroup` back as it was when the guest was started, and \
         change it when no guest runs here"
    )]
    Outside {
        /// Which guest.
        guest: GuestName,
        /// Its process.
        pid: i32,
        /// The cgroup that it should be in.
        cgroup: String,
    },
    /// The folder with the records.
    #[error("guest records in {path}")]
    Records {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Why a guest was not started. Except after `MayStillRun`, this start has left nothing running.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The guest already runs here, under another assignment or in another way.
    #[error("guest {guest} already runs here under epoch {epoch}")]
    AlreadyRunning {
        /// Which guest.
        guest: GuestName,
        /// Under which; zero when it runs without a record.
        epoch: Epoch,
    },
    /// Another guest of this host uses one of its disks or taps (R28).
    #[error("guest {other} uses the same {what}")]
    InUse {
        /// What both want.
        what: String,
        /// Who has it.
        other: GuestName,
    },
    /// The guest insists on KVM.
    #[error("kvm does not work on this host: {0}")]
    Acceleration(String),
    /// The host lacks what the guest's vsock device takes.
    #[error("{0}")]
    Vsock(String),
    /// A tap device could not be made.
    #[error("network")]
    Network(#[from] NetError),
    /// Nothing would keep a second guest from writing one of its disks (R28).
    #[error("the locks of a disk do not work")]
    Locks(#[from] LockError),
    /// A file, a folder, a cgroup or a process could not be made.
    #[error("cannot {what}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// QEMU was run and has ended, or was ended.
    #[error("qemu did not come up: {0}")]
    Failed(String),
    /// QEMU was run, did not come up and could not be ended.
    #[error("qemu did not come up and could not be stopped: {0}")]
    MayStillRun(String),
}

/// Why a guest was not stopped. It may still run.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// The kernel refuses to kill, or does not say who is left.
    #[error("cannot {what}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Some of its processes are still there.
    #[error("still running after {seconds} s: processes {processes:?}")]
    StillRunning {
        /// How long was waited.
        seconds: u64,
        /// Who is left.
        processes: Vec<i32>,
    },
}

/// Why a guest did not shut down or reboot when it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum ShutDownError {
    /// The host has no such guest.
    #[error("no such guest here")]
    Absent,
    /// It could not do anything.
    #[error("the guest is {0}")]
    NotRunning(String),
    /// Its agent cannot be asked, or refuses.
    #[error("the guest's agent")]
    Agent(#[from] ChannelError),
    /// There is no way into it.
    #[error("the guest cannot be asked")]
    NoAgent(#[from] AgentError),
    /// QEMU gives no answer or refuses.
    #[error("monitor")]
    Monitor(#[from] AskError),
    /// It was asked, and nothing came of it.
    #[error("the guest was asked, and had not done it after {0:?}")]
    Deadline(Duration),
    /// It was to begin anew, and is gone instead.
    #[error("the guest ended instead")]
    Ended,
}

/// Why a guest was not resumed.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// The host has no such guest.
    #[error("no such guest here")]
    Absent,
    /// It is not paused, or not so that it may run on.
    #[error("the guest is {0}")]
    NotPaused(String),
    /// It is being sent to another host, or stopped; that ends by itself.
    #[error("the guest is being sent or stopped")]
    Busy,
    /// QEMU gives no answer or refuses.
    #[error("monitor")]
    Monitor(#[from] AskError),
}

/// Why there is no way into a guest.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The host has no such guest.
    #[error("no such guest here")]
    Absent,
    /// Its definition has no agent.
    #[error("the guest is defined without an agent")]
    None,
}
