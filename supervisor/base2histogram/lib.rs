//! Histograms for openraft's statistics about itself, which nothing here reads. This stands in for the crate of the same
//! name: version 0.2.3 of that one fills 26 MB of tables, for scales that nobody asks for, with the first histogram. It
//! holds what openraft uses without its feature `runtime-stats`, and can go when the tables are made one by one on demand there.

use std::fmt;

/// One bucket for zero and one for each power of two.
const BUCKETS: usize = 65;

/// Counts of values by their power of two. The parameter names slots of a sliding window there; none is used.
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: [u64; BUCKETS],
    slots: std::marker::PhantomData<T>,
}

impl<T> Histogram<T> {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self { counts: [0; BUCKETS], slots: std::marker::PhantomData }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value `times` times.
    pub fn record_n(&mut self, value: u64, times: u64) {
        let bucket = (u64::BITS - value.leading_zeros()) as usize;
        if let Some(count) = self.counts.get_mut(bucket) {
            *count = count.saturating_add(times);
        }
    }

    /// How many values were counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The lower end of the bucket in which this share (0 to 1) of the values is reached; 0 when there are none.
    #[must_use]
    pub fn percentile(&self, share: f64) -> u64 {
        let wanted = ((self.total() as f64 * share).ceil() as u64).max(1);
        let mut seen = 0_u64;
        let reached = self.counts.iter().position(|count| {
            seen = seen.saturating_add(*count);
            seen >= wanted
        });
        reached.map_or(0, |bucket| if bucket == 0 { 0 } else { 1 << (bucket - 1) })
    }

    /// The usual percentiles.
    #[must_use]
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total(),
            p0_1: self.percentile(0.001),
            p1: self.percentile(0.01),
            p5: self.percentile(0.05),
            p10: self.percentile(0.1),
            p50: self.percentile(0.5),
            p90: self.percentile(0.9),
            p99: self.percentile(0.99),
            p99_9: self.percentile(0.999),
        }
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Histogram<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.percentile_stats(), f)
    }
}

/// Percentiles of a histogram, each as the lower end of its bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PercentileStats {
    /// Values counted.
    pub samples: u64,
    /// 0.1 % are below.
    pub p0_1: u64,
    /// 1 % are below.
    pub p1: u64,
    /// 5 % are below.
    pub p5: u64,
    /// 10 % are below.
    pub p10: u64,
    /// The median.
    pub p50: u64,
    /// 10 % are above.
    pub p90: u64,
    /// 1 % are above.
    pub p99: u64,
    /// 0.1 % are above.
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[samples: {}, P50: {}, P99: {}]", self.samples, self.p50, self.p99)
    }
}

/// Some histograms with names; shown one a line.
#[derive(Debug, Clone, Default)]
pub struct AsciiChart {
    rows: Vec<(String, PercentileStats)>,
}

impl AsciiChart {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more histogram.
    #[must_use]
    pub fn add(mut self, name: impl Into<String>, histogram: Histogram) -> Self {
        self.rows.push((name.into(), histogram.percentile_stats()));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rows.iter().try_for_each(|(name, stats)| writeln!(f, "{name}: {stats}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_right_within_a_power_of_two() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile(0.5), 0);
        (0..=1000).for_each(|value| histogram.record(value));
        histogram.record_n(u64::MAX, 2);
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, stats.p50, stats.p99), (1003, 256, 512));
        assert_eq!(histogram.percentile(1.0), 1 << 63);
    }
}
