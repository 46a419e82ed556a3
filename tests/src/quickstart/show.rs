//! What the quickstart prints while it goes.

use std::{path::Path, time::Instant};

use crate::lab::{Lab, cluster::API_PORT};

/// Lines of each log that are shown after a failure of the quickstart itself.
const LOG_LINES: usize = 15;

/// Prints progress with the time since the beginning.
pub(super) struct Progress {
    begin: Instant,
    to_stderr: bool,
}

impl Progress {
    pub(super) fn new(to_stderr: bool) -> Self {
        Self { begin: Instant::now(), to_stderr }
    }

    /// Something begins.
    pub(super) fn step(&self, text: &str) {
        self.line(&format!("[{:>5.1} s] {text}", self.begin.elapsed().as_secs_f64()));
    }

    /// Something happened.
    pub(super) fn note(&self, text: &str) {
        self.line(&format!("[{:>5.1} s]   {text}", self.begin.elapsed().as_secs_f64()));
    }

    /// How to look around.
    pub(super) fn kept(&self, lab: &Lab) {
        let on = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab/on.sh");
        let on = format!("{} {} h1", on.canonicalize().unwrap_or(on).display(), lab.place().dir.display());
        self.line(&format!(
            "\nEverything keeps running. Look around with\n  {on} holdfast status\n  {on} holdfast explain web-1\n  {on} curl -s http://10.77.0.1:{API_PORT}/metrics\n  \
             less {}/supervisor.log\nand end it with\n  examples/quickstart/run.sh --stop",
            lab.host_dir("h1").display()
        ));
    }

    fn line(&self, text: &str) {
        if self.to_stderr {
            eprintln!("{text}");
        } else {
            println!("{text}");
        }
    }
}

/// The ends of all logs, to standard error.
pub(super) fn logs(lab: &Lab) {
    for spec in lab.hosts() {
        for log in ["console", "guard", "supervisor"] {
            let tail = lab.log_tail(&spec.name, log, LOG_LINES);
            if !tail.is_empty() {
                eprintln!("--- {} {log}.log\n{tail}", spec.name);
            }
        }
    }
}

/// `1.53 s`
pub(super) fn seconds(milliseconds: f64) -> String {
    format!("{:.2} s", milliseconds / 1e3)
}
