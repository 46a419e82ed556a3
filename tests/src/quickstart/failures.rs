//! The five failures: what is broken, the wait until all is well again, and the repair.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, bail};
use holdfast_policies::bound;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::{
    ADDRESS, GUEST,
    guarantee::guaranteed,
    report::{Failure, Failures},
    show::{Progress, seconds},
};
use crate::lab::{Client, Lab, clock::now_ms, wait};

/// Longest time until a failure is seen by the client.
const DOWN_LIMIT: Duration = Duration::from_secs(15);
/// Longest time until the service answers again.
const UP_LIMIT: Duration = Duration::from_secs(90);
/// Longest time until all hosts and the guest are healthy again.
const WELL_LIMIT: Duration = Duration::from_secs(60);
/// Longest time until the incident of a failure that is over is closed.
const RESOLVED_LIMIT: Duration = Duration::from_secs(15);
/// How often the guest is moved to where a failure needs it. The leader may change meanwhile.
const ARRANGE_TRIES: u32 = 5;

/// Where the failures happen.
pub(super) struct Scene<'a> {
    pub(super) lab: &'a Lab,
    pub(super) client: &'a Client,
    pub(super) progress: &'a Progress,
}

impl Scene<'_> {
    /// All five, in order.
    pub(super) fn all(&self) -> Result<Failures> {
        Ok(Failures {
            app_killed: self.app_killed().context("application killed")?,
            guest_killed: self.guest_killed().context("guest killed")?,
            host_power_cut: self.host_power_cut().context("host power cut")?,
            coordinator_power_cut: self.coordinator_power_cut().context("coordinator power cut")?,
            host_frozen: self.host_frozen().context("host frozen")?,
        })
    }

    fn app_killed(&self) -> Result<Failure> {
        self.progress.step("failure 1 of 5: the application in the guest is killed");
        self.measure(format!("httpd in {GUEST} killed"), bound::Failure::AppFailed, || {
            // The answer dies with the server.
            let _ = self.lab.client_get(&format!("{ADDRESS}:8080"), "/cgi-bin/crash");
            Ok(())
        })
    }

    fn guest_killed(&self) -> Result<Failure> {
        self.progress.step("failure 2 of 5: the guest's QEMU is killed");
        self.measure(format!("kill -9 of {GUEST}'s QEMU"), bound::Failure::GuestDied, || {
            let pids = self.lab.guest_qemu_pids(GUEST);
            let Some((_, pid)) = pids.first() else { bail!("no QEMU has the disk of {GUEST} open") };
            Ok(kill(Pid::from_raw(*pid), Signal::SIGKILL)?)
        })
    }

    fn host_power_cut(&self) -> Result<Failure> {
        self.progress.step("failure 3 of 5: a host loses its power, together with the guest");
        let host = self.arrange(Where::Member)?;
        let done = format!("power of {host} cut");
        let failure = self.measure(done, bound::Failure::HostDied, || self.lab.power_cut(&host))?;
        self.repair(&host)?;
        Ok(failure)
    }

    fn coordinator_power_cut(&self) -> Result<Failure> {
        self.progress.step("failure 4 of 5: the host that leads loses its power, together with the guest");
        let host = self.arrange(Where::Coordinator)?;
        let done = format!("power of {host}, which led, cut");
        let failure = self.measure(done, bound::Failure::CoordinatorDied, || self.lab.power_cut(&host))?;
        self.repair(&host)?;
        Ok(failure)
    }

    fn host_frozen(&self) -> Result<Failure> {
        self.progress.step("failure 5 of 5: a host freezes; it still answers ping, and may come back");
        let host = self.arrange(Where::Member)?;
        let done = format!("{host} frozen");
        let failure = self.measure(done, bound::Failure::HostCutOff, || self.lab.freeze(&host))?;
        // Whoever starts the guest elsewhere has switched the frozen host off first.
        if self.lab.is_on(&host) && self.lab.is_frozen(&host) {
            bail!("{GUEST} was started elsewhere while the frozen {host} was not off");
        }
        self.repair(&host)?;
        Ok(failure)
    }

    fn measure(&self, done: String, kind: bound::Failure, harm: impl FnOnce() -> Result<()>) -> Result<Failure> {
        self.lab.wait_hosts_healthy(WELL_LIMIT)?;
        self.lab.wait_guest_healthy(GUEST, WELL_LIMIT)?;
        self.client.wait_up(UP_LIMIT)?;
        let known: BTreeSet<String> = self.incidents()?.iter().map(identity).collect();
        let bound = self.bound(kind)?;
        self.client.forget();
        let since_ms = now_ms();
        harm()?;
        self.progress.note(&done);
        self.client.wait_down(DOWN_LIMIT)?;
        self.client.wait_up(UP_LIMIT)?;
        self.progress.note(&format!("the client got answers again after {}", seconds(now_ms() - since_ms)));
        let host = self.lab.wait_guest_healthy(GUEST, WELL_LIMIT)?;
        let incident = self.resolved(&known)?;
        let outage = self.client.longest_since(since_ms).context("the client saw no outage")?;
        let rung = incident.get("rung").and_then(Value::as_str).map(str::to_owned);
        self.progress.note(&format!(
            "{GUEST} is healthy on {host}; measured: out for {}, brought back by {}",
            seconds(outage.length_ms()),
            rung.as_deref().unwrap_or("no rung")
        ));
        self.progress.note(&format!("not what is expected, but the limit: {}", guaranteed(&bound)));
        let bound_ms = bound.within_ms.map(|ms| ms as f64);
        let stages = incident.get("stages").cloned().unwrap_or(Value::Null);
        Ok(Failure { done, outage_ms: outage.length_ms().round(), rung, stages, bound_ms })
    }

    /// How long the failure lasts at most, as `explain` shows it at this moment (L1).
    fn bound(&self, kind: bound::Failure) -> Result<bound::Bound> {
        let from = self.lab.status_soon()?.from;
        let explained = self.lab.holdfast_json(&from, &["explain", GUEST])?;
        let is_it = |bound: &&Value| bound.get("failure").and_then(Value::as_str) == Some(kind.word());
        let found = explained.get("bound").and_then(Value::as_array).and_then(|bounds| bounds.iter().find(is_it));
        let found = found.with_context(|| format!("`explain` has no bound for {kind}"))?;
        Ok(serde_json::from_value(found.clone())?)
    }

    /// The new incident with the guest's recovery, once it is closed; as it is when it does not close in time.
    fn resolved(&self, known: &BTreeSet<String>) -> Result<Value> {
        let mut newest = Value::Null;
        let closed = wait::until("the incident of the failure", RESOLVED_LIMIT, || {
            let incidents = self.incidents().map_err(|error| format!("{error:#}"))?;
            let fresh: Vec<&Value> = incidents.iter().filter(|incident| !known.contains(&identity(incident))).collect();
            let with_rung =
                fresh.iter().rev().find(|incident| incident.get("rung").is_some_and(|rung| !rung.is_null()));
            newest = with_rung.or(fresh.last()).map_or(Value::Null, |incident| (*incident).clone());
            if newest.get("resolved_at").is_some_and(|at| !at.is_null()) { Ok(()) } else { Err(newest.to_string()) }
        });
        match closed {
            Err(error) if wait::interrupted() => Err(error),
            Err(error) => {
                self.progress.note(&format!("{error:#}"));
                Ok(newest)
            }
            Ok(()) => Ok(newest),
        }
    }

    fn incidents(&self) -> Result<Vec<Value>> {
        let from = self.lab.status_soon()?.from;
        let story = self.lab.holdfast_json(&from, &["explain", GUEST])?;
        Ok(story.get("incidents").and_then(Value::as_array).cloned().unwrap_or_default())
    }

    /// Moves the guest to where a failure needs it, by live migration; returns the host.
    fn arrange(&self, wanted: Where) -> Result<String> {
        for _ in 0..ARRANGE_TRIES {
            self.lab.wait_hosts_healthy(WELL_LIMIT)?;
            let host = self.lab.wait_guest_healthy(GUEST, WELL_LIMIT)?;
            let status = self.lab.status_soon()?;
            let leader = status.leader().unwrap_or_default().to_owned();
            if wanted.suits(&host, &leader) {
                self.progress.note(&format!("{GUEST} is on {host}, {leader} leads"));
                return Ok(host);
            }
            let target =
                self.lab.hosts().iter().map(|spec| spec.name.as_str()).find(|name| wanted.suits(name, &leader));
            let target = target.context("no host to move to")?.to_owned();
            self.progress.note(&format!("holdfast guest migrate {GUEST} --to {target}"));
            self.lab.holdfast_soon(&status.from, &["guest", "migrate", GUEST, "--to", &target])?;
            self.lab.wait_status(&format!("{GUEST} on {target}"), WELL_LIMIT, |status| {
                (status.guest_host(GUEST) == Some(target.as_str()) && status.guest_healthy(GUEST)).then_some(())
            })?;
        }
        bail!("after {ARRANGE_TRIES} moves {GUEST} is still not where it is needed")
    }

    fn repair(&self, host: &str) -> Result<()> {
        self.progress.note(&format!("switching {host} on again"));
        self.lab.power_on(host)?;
        self.lab.wait_hosts_healthy(WELL_LIMIT)?;
        self.lab.wait_hears_all(host, WELL_LIMIT)
    }
}

/// Where a failure needs the guest.
#[derive(Debug, Clone, Copy)]
enum Where {
    /// On the host that leads.
    Coordinator,
    /// On another.
    Member,
}

impl Where {
    fn suits(self, host: &str, leader: &str) -> bool {
        match self {
            Self::Coordinator => host == leader,
            Self::Member => host != leader,
        }
    }
}

fn identity(incident: &Value) -> String {
    ["id", "key", "opened_at"].map(|field| incident.get(field).map(Value::to_string).unwrap_or_default()).join(" ")
}
