//! Upgrades in the course of a run (R26): the cluster begins with an older program on all hosts, and each gets the new one at a time of
//! its own, with faults between.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::Value;

use super::{ground::Ground, story::Story};
use crate::lab::Daemon;

/// What is upgraded to what, and how far that is.
pub(super) struct Upgrade {
    new: PathBuf,
    /// Hosts that still run the old program.
    left: Vec<String>,
    hosts: usize,
}

impl Upgrade {
    /// Puts the old program onto every host. They are off.
    ///
    /// # Errors
    /// When there is no such program.
    pub(super) fn begin(ground: &Ground, old: &Path, new: &Path) -> Result<Self> {
        let hosts: Vec<String> = ground.hosts().map(str::to_owned).collect();
        hosts.iter().try_for_each(|host| ground.lab.set_program(host, old))?;
        Ok(Self { new: new.to_owned(), hosts: hosts.len(), left: hosts })
    }

    /// Upgrades the next host when so much of the run is over (0 to 1) that it is its turn; returns whether it did. Whoever leads is
    /// the last one, as docs/OPERATING.md asks.
    ///
    /// # Errors
    /// When its program cannot be replaced.
    pub(super) fn go_on(&mut self, ground: &Ground, story: &Story, share: f64) -> Result<bool> {
        if !is_due(share, self.hosts - self.left.len(), self.hosts) {
            return Ok(false);
        }
        let leader = ground.lab.status().ok().and_then(|status| status.leader().map(str::to_owned));
        let next =
            self.left.iter().position(|host| Some(host) != leader.as_ref()).or((!self.left.is_empty()).then_some(0));
        let Some(next) = next else { return Ok(false) };
        let host = self.left.remove(next);
        story.tell(&format!("{host} is upgraded; {} hosts are left", self.left.len()));
        ground.lab.set_program(&host, &self.new)?;
        // The guard is restarted apart from the supervisor, and where the release notes say so: on every second host here, so that
        // both pairs of versions are tried.
        if self.left.len().is_multiple_of(2) {
            ground.lab.crash(&host, Daemon::Guard)?;
        }
        ground.lab.crash(&host, Daemon::Supervisor)?;
        Ok(true)
    }

    /// Whether every host has the new program.
    pub(super) fn is_over(&self) -> bool {
        self.left.is_empty()
    }
}

/// The first host is upgraded after some bursts of the old version alone, and the last one some bursts before the end.
fn is_due(share: f64, upgraded: usize, hosts: usize) -> bool {
    upgraded < hosts && share >= (upgraded + 1) as f64 / (hosts + 2) as f64
}

/// The feature level, as the cluster shows it.
pub(super) fn level(ground: &Ground) -> Option<u64> {
    ground.lab.status().ok()?.value.get("feature_level").and_then(Value::as_u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_upgraded_one_after_the_other_before_the_end() {
        let upgraded_at = |share: f64| {
            let mut upgraded = 0;
            while is_due(share, upgraded, 3) {
                upgraded += 1;
            }
            upgraded
        };
        assert_eq!([0.0, 0.19, 0.2, 0.4, 0.6, 1.0].map(upgraded_at), [0, 0, 1, 2, 3, 3]);
    }
}
