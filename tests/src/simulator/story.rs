//! The story of a run: faults, elections, orders and the journal's own words, by simulated time.

use super::Ms;

/// Lines kept; a story that is longer than this has lost its beginning.
const LINES_MAX: usize = 200_000;

/// A story, told only when somebody asked for it.
#[derive(Debug, Default)]
pub struct Story {
    /// Whether anybody listens.
    pub told: bool,
    /// The lines.
    pub lines: Vec<(Ms, String)>,
}

impl Story {
    /// Notes something; the words are made only when somebody listens.
    pub fn note(&mut self, at: Ms, what: impl FnOnce() -> String) {
        if self.told && self.lines.len() < LINES_MAX {
            self.lines.push((at, what()));
        }
    }

    /// The lines as text.
    #[must_use]
    pub fn text(&self) -> String {
        self.lines.iter().map(|(at, line)| format!("{} {line}\n", clock(*at))).collect()
    }
}

/// A simulated time as minutes, seconds and milliseconds.
#[must_use]
pub fn clock(at: Ms) -> String {
    format!("{:>3}:{:02}.{:03}", at / 60_000, at / 1_000 % 60, at % 1_000)
}
