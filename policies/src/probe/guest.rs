//! Questions that are asked in the guest, through its agent.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::time::Span;

/// Runs a command in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecProbe {
    /// Program and arguments; no shell.
    pub run: Vec<String>,
    /// Exit codes that pass. Default 0.
    #[serde(default = "zero")]
    pub codes: Vec<u8>,
    /// Text that its standard output must contain.
    #[serde(default)]
    pub output: Option<String>,
    /// A pattern that its standard output must match.
    #[serde(default)]
    pub output_matches: Option<String>,
}

fn zero() -> Vec<u8> {
    vec![0]
}

impl ExecProbe {
    /// A command that passes with exit code 0, whatever it says.
    #[must_use]
    pub fn plain(run: Vec<String>) -> Self {
        Self { run, codes: zero(), output: None, output_matches: None }
    }
}

/// Looks at a file in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileProbe {
    /// The file, which must be there.
    pub path: PathBuf,
    /// Longest time since it was last written, by the guest's own clock. Default: any.
    pub max_age: Option<Span>,
    /// Text that it must contain.
    pub contains: Option<String>,
    /// A pattern that its content must match.
    pub matches: Option<String>,
}

/// Asks the guest's systemd for a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemdProbe {
    /// The unit, which must be active.
    pub unit: String,
    /// How long a unit that systemd has restarted twice, with less than that between, must have been up again to count as
    /// active: one that crashes in a circle never gets there. Default 10s; `0s` takes every active unit for well.
    pub steady_for: Span,
}

/// Counts processes in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessProbe {
    /// Which ones.
    pub which: Processes,
    /// Fewest that there must be. Default 1.
    pub least: u32,
    /// Most that there may be. Default: any number.
    pub most: Option<u32>,
}

/// Which processes are counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Processes {
    /// Those whose name, as in `/proc/PID/comm`, is this.
    Name(String),
    /// The one whose number stands in this file.
    PidFile(PathBuf),
}

/// Compares a metric of a Prometheus page in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricProbe {
    /// The page; `{address}` stands for the guest's loopback address.
    pub url: String,
    /// The name of the metric.
    pub name: String,
    /// Labels that its series must have; others do not matter.
    pub labels: BTreeMap<String, String>,
    /// How every such series must compare with `value`.
    pub op: Comparison,
    /// What they are compared with.
    pub value: serde_json::Number,
}

/// How two numbers compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

impl Comparison {
    /// As written in policies.
    pub const ALL: [(&'static str, Self); 6] = [
        ("==", Self::Equal),
        ("!=", Self::NotEqual),
        ("<", Self::Less),
        ("<=", Self::AtMost),
        (">", Self::Greater),
        (">=", Self::AtLeast),
    ];

    /// Whether it holds. A number that is none compares with nothing.
    #[must_use]
    pub fn holds(self, found: f64, wanted: f64) -> bool {
        match self {
            Self::Equal => found == wanted,
            Self::NotEqual => (found - wanted).abs() > 0.0,
            Self::Less => found < wanted,
            Self::AtMost => found <= wanted,
            Self::Greater => found > wanted,
            Self::AtLeast => found >= wanted,
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Self::ALL.iter().find(|(_, op)| op == self).map_or("?", |(word, _)| word);
        f.write_str(word)
    }
}

/// The application itself reports in, by writing a file in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatProbe {
    /// The file that it writes or touches.
    pub file: PathBuf,
    /// Longest time between two heartbeats, by the guest's own clock.
    pub max_age: Span,
    /// For how long after it was written a file that says `down` silences the probe: the application has said that it is about
    /// to go. Default 10m; after that, it should have come back.
    pub down_for: Span,
}
