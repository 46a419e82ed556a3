//! Incidents: one trouble from its first sign to its end, as alerts and `explain` tell it.
//!
//! ```text
//! open --update--> open --resolve--> resolved --(same key again)--> a new incident
//!                                        | too many are kept: the oldest is forgotten
//! ```
//! One key has one open incident at most. Nothing in it waits: it is over when what it is about is over, or when a person's word
//! makes it so. `apply/incidents.rs` has the transitions; they belong to the commands whose story they tell, so that the two are
//! never apart, and `IncidentOpened` and `IncidentResolved` are for what has no other command.
//! `seq` grows with every change; a receiver has been told everything when it has confirmed the newest `seq`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{model::Severity, names::GuestName, time::WallTime};

/// Resolved incidents kept for `explain`, and until receivers have been told that they are over; those that ended first go first. A few per guest and day for weeks in a small cluster.
pub const RESOLVED_KEPT_MAX: usize = 256;

/// One trouble.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// Unique number.
    pub id: u64,
    /// What it is about: `host/hv-a`, `guest/web-1`. Stable while it is open, so receivers can group on it.
    pub key: String,
    /// How urgent it is.
    pub severity: Severity,
    /// When it was opened.
    pub opened: WallTime,
    /// When it ended.
    pub resolved: Option<WallTime>,
    /// Number of changes so far.
    pub seq: u64,
    /// The log index of the newest change; 0 when it was made before this was recorded.
    #[serde(default)]
    pub changed: u64,
    /// What happened, in one sentence.
    pub summary: String,
    /// What Holdfast did, sentence by sentence; at most [`DONE_MAX`].
    pub done: Vec<String>,
    /// What a human must do; usually nothing.
    pub human: Option<String>,
    /// The rung taken last, if any.
    pub rung: Option<String>,
    /// The proof that let a guest start elsewhere, if any: word and sentence.
    pub proof: Option<(String, String)>,
    /// When each stage was reached.
    pub stamps: Stamps,
    /// Guests that it concerns.
    pub guests: Vec<GuestName>,
    /// Who saw what when it was opened, and whenever it changed; at most [`SEEN_MAX`].
    #[serde(default)]
    pub seen: Vec<Seen>,
    /// The newest `seq` that each receiver has confirmed.
    pub delivered: BTreeMap<String, u64>,
}

/// Who saw what at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// When it was noted.
    pub at: WallTime,
    /// One sentence for each vantage; at most [`VANTAGES_MAX`].
    pub what: Vec<String>,
}

/// Moments kept in [`Incident::seen`]: how it began, and the newest few.
pub const SEEN_MAX: usize = 4;

/// Sentences kept of one moment. Each has a detail of up to 200 bytes, and hundreds of incidents are kept.
pub const VANTAGES_MAX: usize = 6;

/// Sentences kept in [`Incident::done`]: enough for a ladder climbed to its end, small enough for a pager.
pub const DONE_MAX: usize = 24;

/// When each stage of a recovery was reached, on the wall clocks of the coordinators that committed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Stamps {
    /// Last sign that all was well.
    pub began: Option<WallTime>,
    /// Verdict.
    pub detected: Option<WallTime>,
    /// Proof that the guest runs nowhere.
    pub proven: Option<WallTime>,
    /// Order committed.
    pub ordered: Option<WallTime>,
    /// Action reported done.
    pub started: Option<WallTime>,
    /// Probes confirm recovery.
    pub verified: Option<WallTime>,
}

/// How long each stage took, in milliseconds; `None` for a stage that this incident did not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Stages {
    /// From the last good sign to the verdict.
    pub detect_ms: Option<u64>,
    /// From the verdict to the proof.
    pub fence_ms: Option<u64>,
    /// From the proof (or verdict) to the order.
    pub place_ms: Option<u64>,
    /// From the order to its report.
    pub start_ms: Option<u64>,
    /// From the report to the probes' word.
    pub verify_ms: Option<u64>,
}

impl Stamps {
    /// Durations between the stamps.
    #[must_use]
    pub fn stages(&self) -> Stages {
        let between = |from: Option<WallTime>, to: Option<WallTime>| Some(to?.0.saturating_sub(from?.0));
        Stages {
            detect_ms: between(self.began, self.detected),
            fence_ms: between(self.detected, self.proven),
            place_ms: between(self.proven.or(self.detected), self.ordered),
            start_ms: between(self.ordered, self.started),
            verify_ms: between(self.started, self.verified),
        }
    }
}

impl Incident {
    /// Whether it still goes on.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.resolved.is_none()
    }

    /// Adds a sentence to what was done; the oldest but the first goes when there are too many.
    pub fn did(&mut self, sentence: String) {
        if self.done.len() >= DONE_MAX {
            self.done.remove(1.min(self.done.len().saturating_sub(1)));
        }
        self.done.push(sentence);
    }
}

impl Incident {
    /// Notes who sees what; the oldest but the first goes when there is too much.
    pub fn saw(&mut self, at: WallTime, evidence: &[String]) {
        if self.seen.len() >= SEEN_MAX {
            self.seen.remove(1.min(self.seen.len().saturating_sub(1)));
        }
        let mut what: Vec<String> = evidence.iter().take(VANTAGES_MAX).cloned().collect();
        let more = evidence.len().saturating_sub(VANTAGES_MAX);
        if more > 0 {
            what.push(format!("and {more} more"));
        }
        self.seen.push(Seen { at, what });
    }
}

/// Whether two sentences say the same but for their numbers: how long something took, and how often it was tried, is no
/// news.
#[must_use]
pub(crate) fn says_the_same(one: &str, other: &str) -> bool {
    without_numbers(one) == without_numbers(other)
}

fn without_numbers(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for letter in text.chars() {
        let is_digit = letter.is_ascii_digit();
        let goes_on = plain.ends_with('#') && (is_digit || letter == '.');
        if !goes_on {
            plain.push(if is_digit { '#' } else { letter });
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incident_from_before_sights_were_kept_still_reads() {
        let old = r#"{"id":1,"key":"degraded/web","severity":"warning","opened":1,"resolved":null,"seq":1,"summary":"s",
            "done":[],"human":null,"rung":null,"proof":null,"stamps":{"began":null,"detected":null,"proven":null,
            "ordered":null,"started":null,"verified":null},"guests":[],"delivered":{}}"#;
        let mut incident: Incident = serde_json::from_str(old).unwrap();
        assert!(incident.seen.is_empty());
        let many: Vec<String> = (0..20).map(|number| number.to_string()).collect();
        incident.saw(WallTime(2), &many);
        assert_eq!(incident.seen[0].what.len(), VANTAGES_MAX + 1);
        assert_eq!(incident.seen[0].what.last().unwrap(), "and 14 more");
    }

    #[test]
    fn only_other_words_are_news() {
        let said = "off was sent 3 times, last unknown: no answer within 2.9s";
        assert!(says_the_same(said, "off was sent 10 times, last unknown: no answer within 3s"));
        assert!(!says_the_same(said, "off was sent 3 times, last refused: no answer within 2.9s"));
        assert!(!says_the_same("level 1", "level"));
    }
}
