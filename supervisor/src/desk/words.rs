//! Words for people: times, durations, verdicts, and tables that line up.

use std::fmt;

use holdfast_policies::{
    bound::{Stretch, rounded_up},
    decide::HostVerdict,
    incident::Stages,
    time::WallTime,
};

/// Wall-clock time as `2026-03-02T03:04:05.678Z`.
#[must_use]
pub fn rfc3339(at: WallTime) -> String {
    let timestamp = i64::try_from(at.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    timestamp.map_or_else(|| format!("{} ms after 1970", at.0), |timestamp| format!("{timestamp:.3}"))
}

/// A duration as a tired person reads it: `0.75 s`, `45 s`, `12 min`, `5 h 3 min`, `2 d 4 h`.
pub(super) fn lasted(ms: u64) -> String {
    let (seconds, minutes, hours) = (ms / 1_000, ms / 60_000, ms / 3_600_000);
    match ms {
        0..10_000 => format!("{seconds}.{:02} s", ms % 1_000 / 10),
        10_000..120_000 => format!("{seconds} s"),
        120_000..7_200_000 => format!("{minutes} min"),
        7_200_000..172_800_000 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{} d {} h", hours / 24, hours % 24),
    }
}

/// A time that nothing exceeds, or that there is none.
pub(super) fn at_most(within_ms: Option<u64>) -> String {
    within_ms.map_or_else(|| "no bound".to_owned(), |ms| rounded_up(ms).to_string())
}

/// `stretched by 53s: why`
pub(super) fn stretched(stretch: &Stretch) -> String {
    let by = stretch.by_ms.map_or_else(|| "without bound".to_owned(), |ms| format!("by {}", rounded_up(ms)));
    format!("stretched {by}: {}", stretch.why)
}

/// `detect 0.75 s, fence 0.02 s, …` for the stages that there were; empty when there were none.
pub(super) fn stages(stages: &Stages) -> String {
    let all = [
        ("detect", stages.detect_ms),
        ("fence", stages.fence_ms),
        ("place", stages.place_ms),
        ("start", stages.start_ms),
        ("verify", stages.verify_ms),
    ];
    let told: Vec<String> = all.iter().filter_map(|(name, ms)| Some(format!("{name} {}", lasted((*ms)?)))).collect();
    told.join(", ")
}

pub(super) fn host_verdict(verdict: HostVerdict) -> &'static str {
    match verdict {
        HostVerdict::Healthy => "healthy",
        HostVerdict::SupervisorDown => "supervisor down",
        HostVerdict::Isolated => "isolated",
        HostVerdict::Suspect => "suspect",
        HostVerdict::Failed => "failed",
        HostVerdict::Gone => "gone",
        HostVerdict::Unknown => "unknown",
    }
}

/// Rows whose columns line up. The last column is as long as it likes.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|heading| (*heading).to_owned()).collect()] }
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    fn width(&self, column: usize) -> usize {
        self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(|column| self.width(column)).collect();
        for row in &self.rows {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            writeln!(f, "{}", cells.join("  ").trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_times_read_well() {
        let read: Vec<String> = [0, 755, 9_999, 45_900, 720_000, 18_180_000, 187_200_000].map(lasted).into();
        assert_eq!(read, ["0.00 s", "0.75 s", "9.99 s", "45 s", "12 min", "5 h 3 min", "2 d 4 h"]);
        assert_eq!(rfc3339(WallTime(1_772_420_645_007)), "2026-03-02T03:04:05.007Z");
        assert_eq!(rfc3339(WallTime(u64::MAX)), "18446744073709551615 ms after 1970");
    }
}
