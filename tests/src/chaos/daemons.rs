//! What every supervisor and every guard takes at rest, so that growth shows.

use std::collections::BTreeMap;

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

/// One process from the first rest at which it was there to the last one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Grown {
    /// At first.
    pub first: Usage,
    /// At last.
    pub last: Usage,
    /// Rests from the one to the other.
    pub rests: usize,
}

impl Grown {
    /// By how much its memory has grown.
    #[must_use]
    pub fn rss_kib(&self) -> u64 {
        self.last.rss_kib.saturating_sub(self.first.rss_kib)
    }

    /// By how many its descriptors have.
    #[must_use]
    pub fn fds(&self) -> u64 {
        self.last.fds.saturating_sub(self.first.fds) as u64
    }
}

/// The process that has grown most, where one has lived from one rest to another.
pub(super) fn most_grown(rests: &[&[Usage]], by: impl Fn(&Grown) -> u64) -> Option<Grown> {
    let mut lives: BTreeMap<(&str, &str, i32), Grown> = BTreeMap::new();
    for usage in rests.iter().copied().flatten() {
        let first = || Grown { first: usage.clone(), last: usage.clone(), rests: 0 };
        let life = lives.entry((usage.host.as_str(), usage.daemon, usage.pid)).or_insert_with(first);
        life.rests += 1;
        life.last = usage.clone();
    }
    lives.into_values().filter(|life| life.rests > 1).max_by_key(by)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_that_is_still_the_same_one_has_grown() {
        let usage = |host: &str, pid, rss_kib| Usage {
            host: host.to_owned(),
            daemon: "supervisor",
            pid,
            rss_kib,
            fds: 9,
            threads: 3,
        };
        let rests = [[usage("h1", 1, 100), usage("h2", 2, 100)], [usage("h1", 3, 900), usage("h2", 2, 150)]];
        let rests: Vec<&[Usage]> = rests.iter().map(<[Usage; 2]>::as_slice).collect();
        let grown = most_grown(&rests, Grown::rss_kib).unwrap();
        assert_eq!((grown.first.host.as_str(), grown.rss_kib(), grown.rests), ("h2", 50, 2));
        assert_eq!(most_grown(&rests[..1], Grown::rss_kib), None);
    }
}
