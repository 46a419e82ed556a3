//! A sliding window of counts in bounded memory: a ring of parts, not of samples.

use std::time::Duration;

use crate::time::{Moment, millis};

/// Parts of a window. More of them forget more smoothly; with these, the window's length is exact to a twelfth.
const PARTS: usize = 12;

/// Counts over the newest stretch of time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Window {
    parts: [Part; PARTS],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Part {
    /// Which stretch of time it counts, from the boot of the machine on.
    turn: u64,
    all: u32,
    hits: u32,
}

/// What a window holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Everything that was noted.
    pub all: u32,
    /// What was noted as a hit.
    pub hits: u32,
}

impl Counts {
    /// Hits among all, in per cent, rounded down; 0 of nothing.
    #[must_use]
    pub fn share(self) -> u64 {
        (u64::from(self.hits) * 100).checked_div(u64::from(self.all)).unwrap_or(0)
    }
}

impl Window {
    /// Notes one thing that happened at `now`; `over` is the window's length and always the same.
    pub fn note(&mut self, now: Moment, over: Duration, hit: bool) {
        let turn = turn(now, over);
        let at = usize::try_from(turn % PARTS as u64).unwrap_or(0);
        let Some(part) = self.parts.get_mut(at) else { return };
        if part.turn != turn {
            *part = Part { turn, ..Part::default() };
        }
        part.all = part.all.saturating_add(1);
        part.hits = part.hits.saturating_add(u32::from(hit));
    }

    /// What happened in the window that ends at `now`.
    #[must_use]
    pub fn counts(&self, now: Moment, over: Duration) -> Counts {
        let newest = turn(now, over);
        let inside = self.parts.iter().filter(|part| part.turn <= newest && newest - part.turn < PARTS as u64);
        inside.fold(Counts::default(), |counts, part| Counts {
            all: counts.all.saturating_add(part.all),
            hits: counts.hits.saturating_add(part.hits),
        })
    }
}

fn turn(now: Moment, over: Duration) -> u64 {
    now.0 / (millis(over) / PARTS as u64).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OVER: Duration = Duration::from_secs(12);

    proptest! {
        /// Against the list of all samples: nothing younger than eleven twelfths is missing, nothing older than the window counts.
        #[test]
        fn the_ring_counts_what_a_list_of_samples_would(
            steps in prop::collection::vec((0_u64..4_000, any::<bool>()), 1..200),
        ) {
            let (mut window, mut list, mut now) = (Window::default(), Vec::new(), 50_000);
            for (step, hit) in steps {
                now += step;
                window.note(Moment(now), OVER, hit);
                list.push((now, hit));
                let younger = |age: u64| {
                    let young = list.iter().filter(|(at, _)| now - at < age);
                    let hits = young.clone().filter(|(_, hit)| *hit).count();
                    (u32::try_from(young.count()).unwrap(), u32::try_from(hits).unwrap())
                };
                let counts = window.counts(Moment(now), OVER);
                let ((least, least_hits), (most, most_hits)) = (younger(11_000), younger(12_000));
                prop_assert!((least..=most).contains(&counts.all), "{least} {counts:?} {most}");
                prop_assert!((least_hits..=most_hits).contains(&counts.hits));
            }
            prop_assert_eq!(window.counts(Moment(now + 12_000), OVER), Counts::default());
        }
    }

    #[test]
    fn a_share_of_nothing_is_nothing() {
        assert_eq!(Counts::default().share(), 0);
        assert_eq!(Counts { all: 3, hits: 2 }.share(), 66);
    }
}
