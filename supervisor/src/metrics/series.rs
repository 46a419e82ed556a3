//! Families of series: how they are made and registered, and how one series of them is set.

use prometheus::{Gauge, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::{labels::Label, names::Name};

pub(super) fn gauge(registry: &Registry, (name, help): Name) -> Result<IntGauge, prometheus::Error> {
    let gauge = IntGauge::new(name, help)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

pub(super) fn seconds(registry: &Registry, (name, help): Name) -> Result<Gauge, prometheus::Error> {
    let gauge = Gauge::new(name, help)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

pub(super) fn gauges(
    registry: &Registry,
    (name, help): Name,
    labels: &[&str],
) -> Result<IntGaugeVec, prometheus::Error> {
    let gauges = IntGaugeVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(gauges.clone()))?;
    Ok(gauges)
}

pub(super) fn counters(
    registry: &Registry,
    (name, help): Name,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(counters.clone()))?;
    Ok(counters)
}

pub(super) fn histograms(
    registry: &Registry,
    (name, help): Name,
    labels: &[&str],
    buckets: &[f64],
) -> Result<HistogramVec, prometheus::Error> {
    let histograms = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)?;
    registry.register(Box::new(histograms.clone()))?;
    Ok(histograms)
}

/// Sets one series. The only error is a wrong number of labels, which the tests exclude.
pub(super) fn put(gauges: &IntGaugeVec, labels: &[&str], value: i64) {
    if let Ok(series) = gauges.get_metric_with_label_values(labels) {
        series.set(value);
    }
}

/// Increases one series. The only error is a wrong number of labels, which the tests exclude.
pub(super) fn count(counters: &IntCounterVec, labels: &[&str], more: u64) {
    if let Ok(series) = counters.get_metric_with_label_values(labels) {
        series.inc_by(more);
    }
}

/// Writes 1 for `value` and 0 for its sisters, so that a rule can ask for the absence of one value.
pub(super) fn one_of<L: Label>(gauges: &IntGaugeVec, subject: &[&str], value: L) {
    for each in L::ALL {
        let labels: Vec<&str> = subject.iter().copied().chain([each.word()]).collect();
        put(gauges, &labels, i64::from(*each == value));
    }
}

pub(super) fn shown(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}
