//! Where a run happens: the lab with its guests, a client for each of them, and what was done that somebody has to take back.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::fcntl::Flock;

use super::setup::Setup;
use crate::lab::{Client, Lab, LabOptions, alone, guest::PORT, scene::LIMIT};

/// How often a client asks. Outages are told to the tenth of a second, and each answer takes some milliseconds of a processor.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// Guests are tried again and again: a run breaks the same one every minute, and nobody is there whom a page would reach.
const POLICY: &str = r#"policies:
  web:
    match: { app: web }
    services:
      http:
        probe: { http: { url: "http://{address}:8080/healthz", status: 200, body: "ok" } }
        every: 1s
        timeout: 1s
        fails_after: 3
        from: { inside: true, hosts: 2, agree: 2 }
    ladder:
      - restart_service: { run: ["/bin/restart-app"], tries: 2, wait: 10s }
      - reset_guest: { tries: 2, wait: 60s }
      - failover: { tries: 50, wait: 90s }
      - page: { severity: critical }
    cool_down: 5s
"#;

/// A guest, and who asks it from outside.
pub(super) struct Guest {
    pub(super) name: String,
    pub(super) address: String,
    pub(super) client: Client,
}

/// What is to be taken back when a burst is over, whoever did it and whatever became of it.
#[derive(Debug, Default)]
pub(super) struct Undone {
    /// Power devices that are not well, by host.
    pub(super) devices: BTreeSet<String>,
    /// Links that are cut: what the first sends does not reach the second.
    pub(super) links: BTreeSet<(String, String)>,
    /// QEMUs that stand still: guest and pid.
    pub(super) stopped: BTreeSet<(String, i32)>,
    /// Guests that an operator has stopped.
    pub(super) guests: BTreeSet<String>,
    /// Hosts that are off, and since when they have been seen so.
    pub(super) off: BTreeMap<String, Instant>,
}

/// All of it. Clients end before their lab, and both before another lab may begin.
pub(super) struct Ground {
    pub(super) guests: Vec<Guest>,
    pub(super) lab: Lab,
    undone: Mutex<Undone>,
    _alone: Flock<std::fs::File>,
}

impl Ground {
    /// Builds the lab, with this `holdfast`. The hosts are off.
    ///
    /// # Errors
    /// When something cannot be built.
    pub(super) fn build(setup: &Setup, binary: &Path) -> Result<Self> {
        let alone = alone()?;
        let binary = binary.canonicalize().with_context(|| format!("there is no {}", binary.display()))?;
        let lab = Lab::new(LabOptions { hosts: setup.hosts.clone(), binary: Some(binary) })?;
        let mut guests = Vec::new();
        for spec in &setup.guests {
            lab.make_guest(&spec.name, &spec.address)?;
            let client = Client::start(&lab, &format!("{}:{PORT}", spec.address), ASK_EVERY)?;
            guests.push(Guest { name: spec.name.clone(), address: spec.address.clone(), client });
        }
        Ok(Self { guests, lab, undone: Mutex::default(), _alone: alone })
    }

    /// Switches the hosts on and declares the guests.
    ///
    /// # Errors
    /// When there is no coordinator in time, or it refuses.
    pub(super) fn begin(&self, setup: &Setup) -> Result<()> {
        self.lab.power_on_all()?;
        self.lab.wait_hosts_healthy(LIMIT)?;
        let from = self.lab.status_soon()?.from;
        let cluster = format!("cluster: {{ power_on_after_fence: {} }}\n", setup.power_on_after_fence);
        let mut files: Vec<(String, String)> = vec![
            ("policy.yaml".to_owned(), POLICY.to_owned()),
            ("cluster.yaml".to_owned(), cluster),
            ("fencing.yaml".to_owned(), self.lab.fencing_yaml()?),
        ];
        let guests = self.guests.iter();
        files.extend(
            guests.map(|guest| (format!("{}.yaml", guest.name), self.lab.guest_yaml(&guest.name, &guest.address))),
        );
        self.lab.apply_texts(&from, &files).context("the policies of the run")
    }

    /// A guest of this name.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn guest(&self, name: &str) -> Result<&Guest> {
        self.guests.iter().find(|guest| guest.name == name).with_context(|| format!("there is no guest {name}"))
    }

    /// Its hosts, by name.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &str> {
        self.lab.hosts().iter().map(|spec| spec.name.as_str())
    }

    /// What is to be taken back.
    pub(super) fn undone(&self) -> MutexGuard<'_, Undone> {
        self.undone.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use holdfast_policies::yaml::{Source, parse};

    use super::*;

    #[test]
    fn the_policy_of_a_run_is_accepted() {
        let parsed = parse(&[Source { name: "policy.yaml", text: POLICY }]);
        let parsed = parsed.unwrap_or_else(|findings| panic!("{findings:?}"));
        assert_eq!(parsed.policies.len(), 1);
    }
}
