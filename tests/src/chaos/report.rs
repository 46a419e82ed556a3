//! What a run has found: one JSON object.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Serialize;

use super::daemons::{Grown, Usage, most, most_grown};

/// One burst and its end.
#[derive(Debug, Clone, Serialize)]
pub struct Burst {
    /// What was done, in order.
    pub done: Vec<String>,
    /// How long it took from the end of the faults until all was well; `None` when it was not within the limit.
    pub well_after_ms: Option<u64>,
    /// The longest time without answers of each guest since the burst began.
    pub outages_ms: BTreeMap<String, u64>,
    /// How often Holdfast has pressed power buttons.
    pub presses: usize,
    /// What supervisors and guards took at rest.
    pub usage: Vec<Usage>,
}

/// All of it; its JSON form is an interface.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// The seed, which draws cluster and faults again. What comes of them depends on the machine too.
    pub seed: u64,
    /// Bursts that were begun.
    pub bursts: usize,
    /// How long the run took.
    pub seconds: u64,
    /// Hosts, by name, with what is particular of each.
    pub hosts: Vec<String>,
    /// Guests.
    pub guests: usize,
    /// How often each kind of fault was done.
    pub faults: BTreeMap<&'static str, usize>,
    /// Bursts after which not all was well within the limit.
    pub unhealed: usize,
    /// Times at which two QEMUs wrote one disk.
    pub double_runs: usize,
    /// What disks show that cannot be of one that one guest alone has written.
    pub disk_faults: Vec<String>,
    /// Plans that the checker beside the planner has refused.
    pub refused_plans: Vec<String>,
    /// Panics and aborts of daemons, by their logs.
    pub panics: usize,
    /// What they have written of them.
    pub panic_lines: Vec<String>,
    /// Hosts that were to be upgraded and were not, or a feature level that has not risen.
    pub upgrade_faults: Vec<String>,
    /// Lines of level ERROR in the logs; the story has the first of each burst.
    pub errors: usize,
    /// Starts that QEMU has refused because another one had the disk: nothing has run twice, but something was ordered.
    pub refused_starts: usize,
    /// Bursts that gave no reason to touch a host or a guest, and in which one was switched off or booted. A machine that starves has
    /// them, too, so that they make no bad run: look at the story.
    pub touched: Vec<String>,
    /// For what a person was needed once the faults were over.
    pub needed_a_person: Vec<String>,
    /// Boots of guests beyond the first.
    pub reboots: u64,
    /// Hosts that the run has switched on, as a person would.
    pub power_ons: usize,
    /// The longest time until all was well, among those within the limit.
    pub slowest_ms: u64,
    /// Half of them were shorter.
    pub median_ms: u64,
    /// The longest time without answers of any guest.
    pub longest_outage_ms: u64,
    /// Resident memory of the largest supervisor at the first rest, and at the last one.
    pub rss_first_mb: f64,
    /// See [`Report::rss_first_mb`].
    pub rss_last_mb: f64,
    /// The same of guards.
    pub guard_rss_first_mb: f64,
    /// See [`Report::guard_rss_first_mb`].
    pub guard_rss_last_mb: f64,
    /// Most descriptors of a supervisor at the first rest, and at the last one.
    pub fds_first: u64,
    /// See [`Report::fds_first`].
    pub fds_last: u64,
    /// Most threads of a supervisor at the first rest, and at the last one.
    pub threads_first: u64,
    /// See [`Report::threads_first`].
    pub threads_last: u64,
    /// The one daemon of all whose memory has grown most while it lived, and the one whose descriptors have.
    pub grown: Vec<Grown>,
    /// The feature level at the beginning, and at the end.
    pub level_first: Option<u64>,
    /// See [`Report::level_first`].
    pub level_last: Option<u64>,
    /// Why the run has ended early, if it has.
    pub ended_early: Option<String>,
    /// Where the story, logs and journals are, if something went wrong.
    pub kept: Option<PathBuf>,
    /// Every burst.
    pub told: Vec<Burst>,
}

impl Report {
    /// Whether a promise was broken, or could not be looked after to the end.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        let lists = [&self.disk_faults, &self.refused_plans, &self.upgrade_faults];
        self.unhealed + self.double_runs + self.panics > 0
            || self.ended_early.is_some()
            || lists.iter().any(|list| !list.is_empty())
    }

    /// Fills in what follows from what all daemons took at the first rest, before any fault, and from all bursts.
    pub(super) fn sum_up(&mut self, first: &[Usage]) {
        let last = self.told.last().map_or(first, |burst| burst.usage.as_slice()).to_vec();
        let mb = |usage: &[Usage], daemon: &str| tenths(most(usage, daemon, |one| one.rss_kib) as f64 / 1024.0);
        (self.rss_first_mb, self.rss_last_mb) = (mb(first, "supervisor"), mb(&last, "supervisor"));
        (self.guard_rss_first_mb, self.guard_rss_last_mb) = (mb(first, "guard"), mb(&last, "guard"));
        let fds = |usage: &[Usage]| most(usage, "supervisor", |one| one.fds as u64);
        let threads = |usage: &[Usage]| most(usage, "supervisor", |one| one.threads as u64);
        (self.fds_first, self.fds_last) = (fds(first), fds(&last));
        (self.threads_first, self.threads_last) = (threads(first), threads(&last));
        let rests: Vec<&[Usage]> =
            std::iter::once(first).chain(self.told.iter().map(|burst| burst.usage.as_slice())).collect();
        self.grown = [Grown::rss_kib as fn(&Grown) -> u64, Grown::fds]
            .into_iter()
            .filter_map(|by| most_grown(&rests, by))
            .collect();
        let mut times: Vec<u64> = self.told.iter().filter_map(|burst| burst.well_after_ms).collect();
        times.sort_unstable();
        self.slowest_ms = times.last().copied().unwrap_or(0);
        self.median_ms = times.get(times.len() / 2).copied().unwrap_or(0);
        let outages = self.told.iter().flat_map(|burst| burst.outages_ms.values().copied());
        self.longest_outage_ms = outages.max().unwrap_or(0);
    }
}

fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(rss_kib: u64) -> Usage {
        Usage { host: "h1".to_owned(), daemon: "supervisor", pid: 1, rss_kib, fds: 9, threads: 3 }
    }

    #[test]
    fn growth_is_from_the_first_rest_to_the_last_and_times_are_of_those_that_healed() {
        let burst = |well_after_ms, rss_kib, outage_ms| Burst {
            done: Vec::new(),
            well_after_ms,
            outages_ms: BTreeMap::from([("web-1".to_owned(), outage_ms)]),
            presses: 0,
            usage: vec![usage(rss_kib)],
        };
        let told = vec![burst(Some(10), 2048, 7), burst(None, 3072, 90), burst(Some(30), 4096, 8)];
        let mut report = Report { told, ..Report::default() };
        report.sum_up(&[usage(1024)]);
        assert_eq!((report.rss_first_mb, report.rss_last_mb), (1.0, 4.0));
        assert_eq!((report.slowest_ms, report.median_ms, report.longest_outage_ms), (30, 30, 90));
        assert!(!report.is_bad());
    }

    #[test]
    fn every_broken_promise_makes_a_bad_run() {
        let one = || vec!["one".to_owned()];
        let bad = [
            Report { unhealed: 1, ..Report::default() },
            Report { double_runs: 1, ..Report::default() },
            Report { disk_faults: one(), ..Report::default() },
            Report { refused_plans: one(), ..Report::default() },
            Report { panics: 1, ..Report::default() },
            Report { upgrade_faults: one(), ..Report::default() },
            Report { ended_early: Some("interrupted".to_owned()), ..Report::default() },
        ];
        assert!(bad.iter().all(Report::is_bad));
    }
}
