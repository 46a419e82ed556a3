//! What happens to a guest and does not show in how it is: its own resets, its watchdog, an agent that leaves.
//!
//! A guest that resets itself boots again, and is not to blame for services that do not answer meanwhile. One that does so
//! again and again is: after a few resets its failures count as any others do.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    observe::{GuestCondition, GuestReport, clean, clean_to},
    time::{Span, millis},
};

/// Resets of its own after each of which a guest gets time to boot. One is an accident or an update, a second one may belong
/// to the same update; more is a guest that does not stay up.
pub const OWN_RESETS_MAX: usize = 3;

/// Happenings of each sort that a host tells of a guest: the resets that are let pass, and the one that is not.
pub const TOLD_MAX: usize = OWN_RESETS_MAX + 1;

/// Happenings that are taken from a host about one guest, of all sorts.
const TAKEN_MAX: usize = 3 * TOLD_MAX;

/// Longest word of a host on how one of its guests is, in bytes: how it ended, and what the guard had to do with it.
const CONDITION_BYTES_MAX: usize = 1_000;

/// Something that happened; it travels with its age instead of a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happened {
    /// How long ago, in milliseconds.
    pub ago_ms: u64,
    /// What.
    pub what: Happening,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Happening {
    /// The machine began anew, and Holdfast had not asked for it.
    Reset {
        /// Whether its watchdog did it.
        watchdog: bool,
    },
    /// Its watchdog was not fed, and did something else than to reset it.
    Watchdog {
        /// QEMU's word for what.
        action: String,
    },
    /// An agent in it ceased to listen.
    AgentLeft {
        /// Whether it is Holdfast's own, and not QEMU's.
        own: bool,
    },
}

impl Happening {
    /// Whether both are of one sort.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl Happened {
    /// The same, seen `later`.
    #[must_use]
    pub fn later(&self, later: Duration) -> Self {
        Self { ago_ms: self.ago_ms.saturating_add(millis(later)), what: self.what.clone() }
    }
}

impl fmt::Display for Happened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Fractions of more than a second tell nobody anything.
        let ago = if self.ago_ms < 1_000 { Span::ms(self.ago_ms) } else { Span::secs(self.ago_ms / 1_000) };
        match &self.what {
            Happening::Reset { watchdog: true } => write!(f, "it reset itself {ago} ago (watchdog)"),
            Happening::Reset { watchdog: false } => write!(f, "it reset itself {ago} ago"),
            Happening::Watchdog { action } => write!(f, "its watchdog was not fed {ago} ago (action: {action})"),
            Happening::AgentLeft { own: true } => write!(f, "Holdfast's agent in it ceased to listen {ago} ago"),
            Happening::AgentLeft { own: false } => write!(f, "QEMU's agent in it ceased to listen {ago} ago"),
        }
    }
}

impl GuestReport {
    /// The same, as it may be kept and shown: so many happenings, and so many bytes of each and of how the guest is.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        let more = self.happened.len().saturating_sub(TAKEN_MAX);
        self.happened.drain(..more);
        for happened in &mut self.happened {
            if let Happening::Watchdog { action } = &mut happened.what {
                *action = clean(action);
            }
        }
        match &mut self.condition {
            GuestCondition::Paused { reason: text }
            | GuestCondition::IoError { detail: text }
            | GuestCondition::Exited { detail: text }
            | GuestCondition::Unknown { detail: text } => *text = clean_to(text, CONDITION_BYTES_MAX),
            GuestCondition::Running | GuestCondition::Panicked | GuestCondition::Incoming | GuestCondition::Sent => {}
        }
        self
    }
}

/// The newest reset of a guest by itself, if it may still be booting after it: it has `grace` for that, unless it has reset
/// itself more often than [`OWN_RESETS_MAX`] within the cool-down. What was told is `old` by now.
#[must_use]
pub fn last_own_reset(told: &[Happened], old: Duration, cool_down: Duration, grace: Duration) -> Option<Happened> {
    // Never so short that a guest could reset itself for ever, each time shortly before its time to boot is over.
    let window = (0..OWN_RESETS_MAX).fold(Duration::ZERO, |sum, _| sum.saturating_add(grace)).max(cool_down);
    let resets = told.iter().filter(|happened| matches!(happened.what, Happening::Reset { .. }));
    let aged = resets.map(|happened| happened.later(old));
    let lately: Vec<Happened> = aged.filter(|reset| reset.ago_ms < millis(window)).collect();
    if lately.len() > OWN_RESETS_MAX {
        return None;
    }
    lately.into_iter().min_by_key(|reset| reset.ago_ms).filter(|newest| newest.ago_ms < millis(grace))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{Epoch, GuestName};

    const COOL_DOWN: Duration = Duration::from_secs(300);
    const GRACE: Duration = Duration::from_secs(60);

    fn resets(secs_ago: &[u64]) -> Vec<Happened> {
        let reset = |secs: &u64| Happened { ago_ms: secs * 1_000, what: Happening::Reset { watchdog: false } };
        secs_ago.iter().map(reset).collect()
    }

    fn newest(secs_ago: &[u64], old_secs: u64) -> Option<u64> {
        let reset = last_own_reset(&resets(secs_ago), Duration::from_secs(old_secs), COOL_DOWN, GRACE)?;
        Some(reset.ago_ms / 1_000)
    }

    #[test]
    fn a_reset_counts_for_as_long_as_the_guest_has_to_boot() {
        assert_eq!(newest(&[], 0), None);
        assert_eq!(newest(&[12], 0), Some(12));
        assert_eq!(newest(&[12], 30), Some(42), "what was told is old by now");
        assert_eq!(newest(&[12], 48), None);
    }

    #[test]
    fn a_guest_that_resets_itself_again_and_again_is_not_protected_for_ever() {
        assert_eq!(newest(&[120, 60, 5], 0), Some(5));
        assert_eq!(newest(&[180, 120, 60, 5], 0), None);
        assert_eq!(newest(&[310, 120, 60, 5], 0), Some(5), "one was before the cool-down");
    }

    #[test]
    fn a_short_cool_down_does_not_protect_a_guest_that_always_resets_itself_shortly_before_its_time_is_over() {
        let told = resets(&[165, 110, 55, 0]);
        assert_eq!(last_own_reset(&told, Duration::ZERO, Duration::from_secs(60), GRACE), None);
    }

    #[test]
    fn what_happened_reads_as_a_sentence() {
        let told = |ago_ms, what| Happened { ago_ms, what }.to_string();
        assert_eq!(told(12_345, Happening::Reset { watchdog: true }), "it reset itself 12s ago (watchdog)");
        assert_eq!(told(345, Happening::Reset { watchdog: false }), "it reset itself 345ms ago");
        let action = "pause".to_owned();
        assert_eq!(told(60_000, Happening::Watchdog { action }), "its watchdog was not fed 1m ago (action: pause)");
        let left = |own| told(2_000, Happening::AgentLeft { own });
        assert_eq!(left(true), "Holdfast's agent in it ceased to listen 2s ago");
        assert_eq!(left(false), "QEMU's agent in it ceased to listen 2s ago");
    }

    #[test]
    fn a_host_cannot_fill_the_memory_with_what_happened() {
        let action = "a\n".repeat(1_000);
        let happened = vec![Happened { ago_ms: 1, what: Happening::Watchdog { action } }; 1_000];
        let report = GuestReport::new(GuestName::new("web").unwrap(), Epoch::default(), GuestCondition::Running);
        let report = GuestReport { happened, ..report }.bounded();
        assert_eq!(report.happened.len(), TAKEN_MAX);
        assert_eq!(report.happened[0].what, Happening::Watchdog { action: "a ".repeat(100) });
    }

    #[test]
    fn a_host_fills_neither_the_memory_nor_a_terminal_with_how_a_guest_is() {
        let long = || "\u{1b}[2J".repeat(1_000);
        for condition in [
            GuestCondition::Paused { reason: long() },
            GuestCondition::IoError { detail: long() },
            GuestCondition::Exited { detail: long() },
            GuestCondition::Unknown { detail: long() },
        ] {
            let report = GuestReport::new(GuestName::new("web").unwrap(), Epoch::default(), condition).bounded();
            let kept = serde_json::to_string(&report.condition).unwrap();
            assert!(kept.len() < CONDITION_BYTES_MAX + 100 && !kept.contains("\\u001b"), "{kept}");
        }
    }

    #[test]
    fn a_report_from_a_supervisor_that_tells_nothing_of_it_is_read() {
        let report = GuestReport::new(GuestName::new("web").unwrap(), Epoch::default(), GuestCondition::Running);
        let mut value = serde_json::to_value(&report).unwrap();
        value.as_object_mut().unwrap().remove("happened").unwrap();
        assert_eq!(serde_json::from_value::<GuestReport>(value).unwrap(), report);
    }
}
