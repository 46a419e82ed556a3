//! What every supervisor and every guard takes at rest, so that growth shows.

use serde::Serialize;

use super::ground::Ground;
use crate::lab::{
    Daemon,
    usage::{descriptors, memory_kib, threads},
};

/// What one daemon takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Its host.
    pub host: String,
    /// `supervisor` or `guard`.
    pub daemon: &'static str,
    /// Its pid: another one has begun anew, and is not to be compared.
    pub pid: i32,
    /// Resident memory.
    pub rss_kib: u64,
    /// Open descriptors.
    pub fds: usize,
    /// Threads.
    pub threads: usize,
}

/// What all of them take; one that is just being started anew is left out.
pub(super) fn usage(ground: &Ground) -> Vec<Usage> {
    let hosts = ground.hosts();
    let both = hosts.flat_map(|host| [(host, Daemon::Supervisor, "supervisor"), (host, Daemon::Guard, "guard")]);
    both.filter_map(|(host, daemon, name)| of(ground, host, daemon, name).ok()).collect()
}

fn of(ground: &Ground, host: &str, daemon: Daemon, name: &'static str) -> anyhow::Result<Usage> {
    let pid = ground.lab.daemon_pid(host, daemon)?;
    Ok(Usage {
        host: host.to_owned(),
        daemon: name,
        pid,
        rss_kib: memory_kib(pid, "VmRSS")?,
        fds: descriptors(pid)?,
        threads: threads(pid)?,
    })
}

/// The most that one of these daemons takes, by what is asked for; 0 where there is none.
pub(super) fn most(usage: &[Usage], daemon: &str, of: impl Fn(&Usage) -> u64) -> u64 {
    usage.iter().filter(|one| one.daemon == daemon).map(of).max().unwrap_or(0)
}
