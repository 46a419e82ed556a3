//! What the coordinator knows, as numbers for Prometheus. Other hosts show nothing of it, so that sums are right.

use std::{collections::BTreeSet, sync::Arc};

use holdfast_policies::{
    decide::{HostVerdict, Report, ServiceVerdict},
    evidence::Evidence,
    names::GuestName,
    observe::GuestCondition,
    state::{ClusterState, Guest, Life, Phase, Tenure, Wanted},
};

use crate::metrics::{GuestState, Metrics, Modes, Verdict};

/// Remembers which incidents were open, and which boots were gone, so that each recovery and each end is counted once. What is shown goes
/// when this does: the coordinator's task may end at any time, as on a disk that is full, and somebody else then shows it.
pub struct Numbers {
    metrics: Arc<Metrics>,
    open: BTreeSet<u64>,
    /// `None` before the first picture: what was gone before this host came to coordinate, another one has counted.
    gone: Option<BTreeSet<String>>,
}

impl Drop for Numbers {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Numbers {
    /// Those on this page, on which nothing is shown yet.
    pub fn on(metrics: Arc<Metrics>) -> Self {
        Self { metrics, open: BTreeSet::new(), gone: None }
    }

    /// Exports one picture of the cluster.
    pub fn export(&mut self, state: &ClusterState, report: &Report, evidence: &Evidence) {
        let metrics = &self.metrics;
        metrics.set_hosts(report.hosts.iter().map(|(host, judgement)| (host, host_verdict(judgement.verdict))));
        metrics.set_safe(report.hosts.iter().filter_map(|(host, judgement)| {
            // Rounded up: at that second it is so.
            Some((host, judgement.safe_at.as_ref()?.at.0.div_ceil(1_000)))
        }));
        metrics.set_guests(state.guests.iter().map(|(name, guest)| (name, guest_state(name, guest, evidence))));
        let services = report.guests.iter().flat_map(|(guest, judgement)| {
            judgement.services.iter().map(move |(service, judged)| (guest, service, service_verdict(judged.verdict)))
        });
        metrics.set_services(services);
        metrics.set_modes(&modes(state, report));
        let fencing = state.hosts.iter().flat_map(|(name, host)| {
            let levels = state.policies.levels_of(name).iter().enumerate().filter(|(_, level)| level.has_device());
            levels.map(move |(level, _)| {
                let proven = host.proven(level).map_or(0, |proven| proven.at.0 / 1_000);
                (name, level.saturating_add(1), proven, state.wiring_of(name, level).is_some())
            })
        });
        metrics.set_fencing(fencing);
        self.recoveries(state);
        self.ends(state);
    }

    /// Forgets everything: this host has ceased to coordinate.
    pub fn clear(&mut self) {
        self.open.clear();
        self.gone = None;
        let metrics = &self.metrics;
        metrics.set_hosts([]);
        metrics.set_safe([]);
        metrics.set_guests([]);
        metrics.set_services([]);
        metrics.set_modes(&Modes::default());
        metrics.set_fencing([]);
    }

    fn recoveries(&mut self, state: &ClusterState) {
        let ended = self.open.iter().filter_map(|id| state.incidents.get(id)).filter(|incident| !incident.is_open());
        ended.for_each(|incident| self.metrics.recovered(&incident.stamps.stages()));
        self.open =
            state.incidents.values().filter(|incident| incident.is_open()).map(|incident| incident.id).collect();
    }

    fn ends(&mut self, state: &ClusterState) {
        let mut gone = BTreeSet::new();
        for (name, host) in &state.hosts {
            let Life::Gone { proof } = &host.life else { continue };
            let boot = format!("{name}/{}", host.facts.incarnation);
            if self.gone.as_ref().is_some_and(|known| !known.contains(&boot)) {
                self.metrics.fenced(proof.word());
            }
            gone.insert(boot);
        }
        self.gone = Some(gone);
    }
}

fn modes<'a>(state: &'a ClusterState, report: &Report) -> Modes<'a> {
    let hosts = state.hosts.iter().map(|(name, host)| (name, host.mode, host.quarantine.is_some()));
    let guests = state.guests.iter().map(|(name, guest)| (name, guest.wanted, guest.given_up.is_some()));
    Modes {
        hosts: hosts.collect(),
        guests: guests.collect(),
        suspended: state.suspended.is_some(),
        storm_hold: report.storm_hold.is_some(),
    }
}

fn host_verdict(verdict: HostVerdict) -> Verdict {
    match verdict {
        HostVerdict::Healthy => Verdict::Healthy,
        HostVerdict::SupervisorDown | HostVerdict::Isolated => Verdict::Degraded,
        HostVerdict::Suspect => Verdict::Suspect,
        HostVerdict::Failed | HostVerdict::Gone => Verdict::Failed,
        HostVerdict::Unknown => Verdict::Unknown,
    }
}

fn service_verdict(verdict: ServiceVerdict) -> Verdict {
    match verdict {
        ServiceVerdict::Healthy => Verdict::Healthy,
        ServiceVerdict::Degraded => Verdict::Degraded,
        ServiceVerdict::Suspect => Verdict::Suspect,
        ServiceVerdict::Failed => Verdict::Failed,
        ServiceVerdict::Unknown => Verdict::Unknown,
    }
}

fn guest_state(name: &GuestName, guest: &Guest, evidence: &Evidence) -> GuestState {
    match &guest.phase {
        Phase::Running { tenure, .. } if stands_still(name, tenure, evidence) => GuestState::Paused,
        Phase::Running { .. } => GuestState::Running,
        Phase::Starting { .. } => GuestState::Starting,
        Phase::Migrating(_) => GuestState::Moving,
        Phase::Releasing { .. } | Phase::Free { .. } if guest.wanted == Wanted::Stopped => GuestState::Stopped,
        Phase::Releasing { .. } | Phase::Free { .. } => GuestState::Failed,
        Phase::Unplaced => GuestState::Unknown,
    }
}

/// Whether its host says that its virtual CPUs do not run, though it is there: the state has it as running.
fn stands_still(guest: &GuestName, tenure: &Tenure, evidence: &Evidence) -> bool {
    let said = evidence.hosts.get(&tenure.host).and_then(|host| host.reports.get(guest));
    match said.filter(|said| said.epoch == tenure.epoch).map(|said| &said.condition) {
        Some(GuestCondition::Paused { .. } | GuestCondition::IoError { .. } | GuestCondition::Panicked) => true,
        Some(
            GuestCondition::Running
            | GuestCondition::Incoming
            | GuestCondition::Sent
            | GuestCondition::Exited { .. }
            | GuestCondition::Unknown { .. },
        )
        | None => false,
    }
}

#[cfg(test)]
mod tests {
    use holdfast_policies::{names::Epoch, observe::GuestReport};

    use super::*;
    use crate::desk::tests::{failed_over, guest, host};

    fn proven_off(metrics: &Metrics) -> String {
        let page = metrics.render();
        let line = page.lines().find(|line| line.starts_with("holdfast_fences_total{result=\"power_off\"}"));
        line.unwrap().to_owned()
    }

    #[test]
    fn a_host_that_is_proven_gone_is_counted_once_by_whoever_coordinates_then() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let (mut numbers, report) = (Numbers::on(Arc::clone(&metrics)), Report::default());
        let evidence = Evidence::default();
        let gone = failed_over();
        let mut before = failed_over();
        before.hosts.get_mut(&host("h1")).unwrap().life = Life::Up;
        numbers.export(&before, &report, &evidence);
        assert!(proven_off(&metrics).ends_with(" 0"), "no increase shows from a series that was not there before it");
        for _ in 0..2 {
            numbers.export(&gone, &report, &evidence);
            assert!(proven_off(&metrics).ends_with(" 1"));
        }
        numbers.clear();
        numbers.export(&gone, &report, &evidence);
        assert!(proven_off(&metrics).ends_with(" 1"), "it was gone when this host came to coordinate again");
    }

    #[test]
    fn a_coordinator_whose_task_has_ended_shows_nothing_of_the_cluster_any_more() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let mut numbers = Numbers::on(Arc::clone(&metrics));
        numbers.export(&failed_over(), &Report::default(), &Evidence::default());
        let shows_guests = || metrics.render().contains("holdfast_guest_state{guest=\"web-1\"");
        assert!(shows_guests());
        drop(numbers);
        assert!(!shows_guests());
    }

    #[test]
    fn a_guest_that_stands_still_on_its_host_is_not_shown_as_running() {
        let (metrics, state) = (Arc::new(Metrics::new().unwrap()), failed_over());
        let mut numbers = Numbers::on(Arc::clone(&metrics));
        let Phase::Running { tenure, .. } = &state.guests[&guest("web-1")].phase else { panic!("it does not run") };
        let mut shown = |epoch: Epoch, condition: GuestCondition| {
            let mut evidence = Evidence::default();
            let said = GuestReport::new(guest("web-1"), epoch, condition);
            evidence.hosts.entry(tenure.host.clone()).or_default().reports.insert(guest("web-1"), said);
            numbers.export(&state, &Report::default(), &evidence);
            let page = metrics.render();
            let is = |line: &&str| line.starts_with("holdfast_guest_state{guest=\"web-1\"") && line.ends_with(" 1");
            page.lines().find(is).unwrap().to_owned()
        };
        let paused = || GuestCondition::Paused { reason: "paused".to_owned() };
        let failed = || GuestCondition::IoError { detail: "disk0".to_owned() };
        for still in [paused(), failed(), GuestCondition::Panicked] {
            let line = shown(tenure.epoch, still);
            assert!(line.contains("state=\"paused\""), "{line}");
        }
        for (epoch, condition) in [(tenure.epoch, GuestCondition::Running), (Epoch::default(), paused())] {
            let line = shown(epoch, condition);
            assert!(line.contains("state=\"running\""), "{line}");
        }
    }
}
