//! Runs of many seeds, and what came of them.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::{
    breaks::Break,
    run::{End, Options, Outcome, run},
};

/// An end in words.
#[must_use]
pub fn words(end: &End) -> String {
    match end {
        End::Well(healed) => {
            format!("every promise was kept; all was well {} ms after the troubles", healed.as_millis())
        }
        End::Violated(what) => what.clone(),
        End::Unhealed(why) => format!("L1: {why}"),
    }
}

/// What came of many seeds.
#[derive(Debug, Clone, Serialize, PartialEq)]
pub struct Totals {
    /// Seeds that were run.
    pub seeds: u64,
    /// Seeds that broke a promise.
    pub violations: u64,
    /// Seeds that did not come to rest.
    pub unhealed: u64,
    /// Simulated hours.
    pub simulated_hours: f64,
    /// Time of this machine, in seconds.
    pub wall_seconds: f64,
    /// The seed that took longest to be well after its troubles, and how long; no part of the figures.
    #[serde(skip)]
    pub slowest: Option<(u64, Duration)>,
}

/// Runs many seeds; `bad` is called for each that is not well, and ends the run by returning `false`.
pub fn run_many(options: &Options, first: u64, seeds: u64, mut bad: impl FnMut(u64, &Outcome) -> bool) -> Totals {
    let began = Instant::now();
    let mut totals =
        Totals { seeds: 0, violations: 0, unhealed: 0, simulated_hours: 0.0, wall_seconds: 0.0, slowest: None };
    let mut simulated = Duration::ZERO;
    for seed in first..first.saturating_add(seeds) {
        let outcome = run(seed, options);
        totals.seeds += 1;
        simulated += outcome.simulated;
        match &outcome.end {
            End::Well(healed) => {
                if totals.slowest.is_none_or(|(_, slowest)| slowest < *healed) {
                    totals.slowest = Some((seed, *healed));
                }
                continue;
            }
            End::Violated(_) => totals.violations += 1,
            End::Unhealed(_) => totals.unhealed += 1,
        }
        if !bad(seed, &outcome) {
            break;
        }
    }
    totals.simulated_hours = simulated.as_secs_f64() / 3_600.0;
    totals.wall_seconds = began.elapsed().as_secs_f64();
    totals
}

/// The first seed at which a broken promise shows, and how. A seed that is not well without the break proves nothing.
#[must_use]
pub fn find_break(broken: Break, first: u64, seeds: u64) -> Option<(u64, Outcome)> {
    (first..first.saturating_add(seeds)).find_map(|seed| {
        let outcome = run(seed, &Options { broken: Some(broken), traced: false });
        let shows = matches!(outcome.end, End::Violated(_));
        let well = || matches!(run(seed, &Options::default()).end, End::Well(_));
        (shows && well()).then_some((seed, outcome))
    })
}
