//! Probe counts and latencies by service, with a bound on how many services get series of their own.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use holdfast_policies::names::{GuestName, ServiceName};
use holdfast_probes::Figure;
use prometheus::{GaugeVec, HistogramVec, IntCounterVec, Opts, Registry};

use super::{
    labels::{Label, ProbeOutcome, VantageKind},
    names,
    series::{count, counters, histograms},
};

/// Services with series of their own. Each costs about 30 series, so this is some 30 000: what a small Prometheus takes
/// from one target. Services beyond it are counted together as [`OTHER`].
pub(super) const SERVICES_MAX: usize = 1_000;

/// The guest and service under which the rest is counted. No name may begin with an underscore, so it is nobody's.
pub(super) const OTHER: &str = "_other";

/// Upper bounds of the latency buckets, in seconds: from a healthy answer to the longest sensible time-out.
const LATENCY_BUCKETS: &[f64] = &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Upper bounds of the lateness buckets, in seconds: from what timers cost to whole intervals missed.
const LATE_BUCKETS: &[f64] = &[0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Guest and service.
type Service = (String, String);

/// The families and the services that are in them.
pub(super) struct ProbeMetrics {
    latency: HistogramVec,
    late: HistogramVec,
    outcomes: IntCounterVec,
    perfdata: GaugeVec,
    services: Mutex<BTreeSet<Service>>,
    /// Label and unit of every figure that is shown, by its service.
    figures: Mutex<BTreeMap<Service, BTreeSet<(String, String)>>>,
}

impl ProbeMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let (name, help) = names::PROBE_PERFDATA;
        let perfdata = GaugeVec::new(Opts::new(name, help), &["guest", "service", "label", "unit"])?;
        registry.register(Box::new(perfdata.clone()))?;
        Ok(Self {
            latency: histograms(registry, names::PROBE_LATENCY, &["guest", "service", "vantage"], LATENCY_BUCKETS)?,
            late: histograms(registry, names::PROBE_LATE, &[], LATE_BUCKETS)?,
            outcomes: counters(registry, names::PROBES, &["guest", "service", "vantage", "outcome"])?,
            perfdata,
            services: Mutex::new(BTreeSet::new()),
            figures: Mutex::new(BTreeMap::new()),
        })
    }

    pub(super) fn probed(
        &self,
        guest: &GuestName,
        service: &ServiceName,
        from: VantageKind,
        outcome: ProbeOutcome,
        took: Duration,
    ) {
        let known = self.admit(guest.as_str(), service.as_str());
        let (guest, service) = if known { (guest.as_str(), service.as_str()) } else { (OTHER, OTHER) };
        // That somebody could not be asked is known in no time, and says nothing of how quick they are.
        if outcome != ProbeOutcome::Unknown
            && let Ok(series) = self.latency.get_metric_with_label_values(&[guest, service, from.word()])
        {
            series.observe(took.as_secs_f64());
        }
        count(&self.outcomes, &[guest, service, from.word(), outcome.word()], 1);
    }

    pub(super) fn late(&self, by: Duration) {
        if let Ok(series) = self.late.get_metric_with_label_values(&[] as &[&str]) {
            series.observe(by.as_secs_f64());
        }
    }

    /// Replaces the figures of a service. One without series of its own shows none: figures of different services cannot be
    /// shown as one.
    pub(super) fn set_figures(&self, guest: &GuestName, service: &ServiceName, figures: &[Figure]) {
        if !self.admit(guest.as_str(), service.as_str()) {
            return;
        }
        let mut all = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = all.entry((guest.to_string(), service.to_string())).or_default();
        let told: BTreeSet<(String, String)> =
            figures.iter().map(|figure| (figure.label.clone(), figure.unit.clone())).collect();
        for (label, unit) in shown.difference(&told) {
            let _ = self.perfdata.remove_label_values(&[guest.as_str(), service.as_str(), label, unit]);
        }
        for figure in figures {
            let labels = [guest.as_str(), service.as_str(), &figure.label, &figure.unit];
            if let Ok(series) = self.perfdata.get_metric_with_label_values(&labels) {
                series.set(figure.value);
            }
        }
        *shown = told;
    }

    /// Whether this service has series of its own; gives it some while there is room.
    fn admit(&self, guest: &str, service: &str) -> bool {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (guest.to_owned(), service.to_owned());
        services.contains(&key) || (services.len() < SERVICES_MAX && services.insert(key))
    }

    pub(super) fn retain(&self, keep: impl Fn(&str, &str) -> bool) {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        services.retain(|(guest, service)| {
            let kept = keep(guest, service);
            if !kept {
                self.forget(guest, service);
            }
            kept
        });
    }

    /// Removes the series of one service; an error means that one of them was never made.
    fn forget(&self, guest: &str, service: &str) {
        for from in VantageKind::ALL {
            let _ = self.latency.remove_label_values(&[guest, service, from.word()]);
            for outcome in ProbeOutcome::ALL {
                let _ = self.outcomes.remove_label_values(&[guest, service, from.word(), outcome.word()]);
            }
        }
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        for (label, unit) in figures.remove(&(guest.to_owned(), service.to_owned())).unwrap_or_default() {
            let _ = self.perfdata.remove_label_values(&[guest, service, &label, &unit]);
        }
    }
}
