//! Seeds that threads share.

use std::{ops::RangeInclusive, panic::resume_unwind, thread};

/// Threads that share seeds.
const THREADS: usize = 2;

/// What each seed comes to. A seed that panics has this panic too, with its words.
pub fn in_threads<T: Send>(seeds: RangeInclusive<u64>, run: impl Fn(u64) -> T + Sync) -> Vec<(u64, T)> {
    let last = *seeds.end();
    let run = &run;
    let share = move |first: u64| (first..=last).step_by(THREADS).map(|seed| (seed, run(seed))).collect::<Vec<_>>();
    thread::scope(|scope| {
        let threads: Vec<_> = seeds.take(THREADS).map(|first| scope.spawn(move || share(first))).collect();
        let shares = threads.into_iter().map(|thread| match thread.join() {
            Ok(share) => share,
            Err(panic) => resume_unwind(panic),
        });
        shares.flatten().collect()
    })
}
