//! What a run tells while it goes: a line for everything that happens, with the time since the beginning.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// The story of a run; several threads tell it.
pub(super) struct Story {
    begin: Instant,
    to_stderr: bool,
    lines: Mutex<Vec<String>>,
}

impl Story {
    /// One that begins here; it is printed to standard error where standard output is for the report alone.
    pub(super) fn new(to_stderr: bool) -> Self {
        Self { begin: Instant::now(), to_stderr, lines: Mutex::default() }
    }

    /// Tells one thing.
    pub(super) fn tell(&self, text: &str) {
        let line = format!("[{:>7.1} s] {text}", self.begin.elapsed().as_secs_f64());
        // Kept locked while it is printed: two lines are not mixed, and both are in the same order.
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if self.to_stderr {
            eprintln!("{line}");
        } else {
            println!("{line}");
        }
        lines.push(line);
    }

    /// All of it so far.
    pub(super) fn text(&self) -> String {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).join("\n") + "\n"
    }

    /// When it began.
    pub(super) fn begin(&self) -> Instant {
        self.begin
    }
}
