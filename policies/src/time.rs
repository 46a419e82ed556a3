//! Time as a value. Nothing here reads a clock.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// A point on one machine's CLOCK_BOOTTIME, in milliseconds. Comparable only with moments of the same
/// machine and boot; it never travels between machines (R1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Moment(pub u64);

impl Moment {
    /// How long after `earlier` this is; zero when it is not after it.
    #[must_use]
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The moment `later` after this one.
    #[must_use]
    pub fn plus(self, later: Duration) -> Moment {
        Moment(self.0.saturating_add(millis(later)))
    }

    /// The moment `earlier` before this one; the boot itself when that is not so long ago.
    #[must_use]
    pub fn minus(self, earlier: Duration) -> Moment {
        Moment(self.0.saturating_sub(millis(earlier)))
    }
}

/// Wall-clock time in Unix milliseconds. For people: it never decides anything (R1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct WallTime(pub u64);

impl WallTime {
    /// The day as `2036-12-31`, in UTC.
    ///
    /// Years are counted from the first of March, so that a leap day ends one; 400 of them have 146 097 days, always the same
    /// (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
    #[must_use]
    pub fn date(self) -> String {
        let days = self.0 / 86_400_000 + 719_468;
        let (era, of_era) = (days / 146_097, days % 146_097);
        let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (year * 365 + year / 4 - year / 100);
        let from_march = (of_year * 5 + 2) / 153;
        let day = of_year - (from_march * 153 + 2) / 5 + 1;
        let (month, next) = if from_march < 10 { (from_march + 3, 0) } else { (from_march - 9, 1) };
        format!("{:04}-{month:02}-{day:02}", era * 400 + year + next)
    }
}

/// Both clocks, read together by a shell and handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// What decides.
    pub moment: Moment,
    /// What people read.
    pub wall: WallTime,
}

/// Whole milliseconds of a duration, saturating.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A duration as operators write it: `250ms`, `1s`, `1.5s`, `2m`, `1h`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(pub Duration);

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a duration; write a number and a unit: 250ms, 1s, 1.5s, 2m, 1h")]
pub struct BadSpan {
    text: String,
}

/// Longest duration that may be declared, so that sums of durations cannot overflow: 30 days.
pub const SPAN_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Longest duration that is read: versions have written down orders that may take a little longer than what was declared for them.
const READ_MAX: Duration = Duration::from_secs(31 * 24 * 3600);

impl Span {
    /// A span of whole milliseconds.
    #[must_use]
    pub const fn ms(ms: u64) -> Self {
        Self(Duration::from_millis(ms))
    }

    /// A span of whole seconds.
    #[must_use]
    pub const fn secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }
}

impl TryFrom<String> for Span {
    type Error = BadSpan;
    fn try_from(text: String) -> Result<Self, BadSpan> {
        parse_span(&text).ok_or(BadSpan { text })
    }
}

fn parse_span(text: &str) -> Option<Span> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at_checked(split)?;
    let number: f64 = number.parse().ok()?;
    let ms = match unit.trim() {
        "ms" => number,
        "s" => number * 1_000.0,
        "m" => number * 60_000.0,
        "h" => number * 3_600_000.0,
        _ => return None,
    };
    // Whole milliseconds, as it is written in the log and read again: a part of one would be there until the next restart.
    let whole = Duration::try_from_secs_f64(ms.round() / 1_000.0).ok().filter(|span| *span <= READ_MAX)?;
    let span = Span::ms(millis(whole));
    (number == 0.0 || span > Span::ms(0)).then_some(span)
}

impl From<Span> for String {
    fn from(span: Span) -> String {
        span.to_string()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = millis(self.0);
        match ms {
            0 => f.write_str("0s"),
            _ if ms.is_multiple_of(3_600_000) => write!(f, "{}h", ms / 3_600_000),
            _ if ms.is_multiple_of(60_000) => write!(f, "{}m", ms / 60_000),
            _ if ms.is_multiple_of(1_000) => write!(f, "{}s", ms / 1_000),
            _ => write!(f, "{ms}ms"),
        }
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print_the_same() {
        for text in ["250ms", "1s", "2m", "1h", "1500ms"] {
            assert_eq!(Span::try_from(text.to_owned()).unwrap().to_string(), text);
        }
        assert_eq!(Span::try_from("1.5s".to_owned()).unwrap(), Span::ms(1500));
    }

    #[test]
    fn a_day_is_told_as_the_calendar_has_it() {
        for (ms, day) in [
            (0, "1970-01-01"),
            (946_684_799_999, "1999-12-31"),
            (951_825_600_000, "2000-02-29"),
            (951_868_800_000, "2000-03-01"),
            (2_114_337_600_000, "2036-12-31"),
            (4_107_585_600_000, "2100-03-01"),
        ] {
            assert_eq!(WallTime(ms).date(), day);
        }
        assert!(WallTime(u64::MAX).date().len() > 10, "it is far off, and told all the same");
    }

    #[test]
    fn a_duration_is_the_same_after_it_was_written_and_read_again() {
        for text in ["1500.4ms", "0.0015s", "0.6ms", "2.3h", "0.1m", "0s", "0.0s", "720h"] {
            let span = Span::try_from(text.to_owned()).unwrap();
            assert_eq!(Span::try_from(span.to_string()).unwrap(), span, "{text}");
        }
        assert_eq!(Span::try_from("2.3h".to_owned()).unwrap(), Span::secs(8_280));
        assert!(Span::try_from("0.4ms".to_owned()).is_err(), "it is not nothing, and would become that");
    }

    /// A state in which such an order is open, and replies that carry it, could not be read otherwise.
    #[test]
    fn what_an_order_may_take_is_read_also_where_as_much_as_possible_was_declared_for_it() {
        let order = Span(SPAN_MAX + Duration::from_secs(20));
        assert_eq!(Span::try_from(order.to_string()), Ok(order));
        assert!(Span::try_from(Span(READ_MAX + Duration::from_secs(1)).to_string()).is_err());
    }

    #[test]
    fn a_duration_without_unit_is_refused() {
        for bad in ["", "5", "s", "-1s", "1 day", "9999999h", "1..2s"] {
            assert!(Span::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }
}
