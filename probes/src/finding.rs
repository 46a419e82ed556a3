//! What one question came to, before its latency is known.

use holdfast_policies::observe::Outcome;

/// An outcome and the reason for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub outcome: Outcome,
    pub detail: String,
}

impl Finding {
    pub fn pass(detail: impl Into<String>) -> Self {
        Self { outcome: Outcome::Pass, detail: detail.into() }
    }

    #[cfg(feature = "network")]
    pub fn slow(detail: impl Into<String>) -> Self {
        Self { outcome: Outcome::Slow, detail: detail.into() }
    }

    pub fn fail(detail: impl Into<String>) -> Self {
        Self { outcome: Outcome::Fail, detail: detail.into() }
    }

    pub fn unknown(detail: impl Into<String>) -> Self {
        Self { outcome: Outcome::Unknown, detail: detail.into() }
    }
}

/// Largest part of a body that is read, in bytes: enough for any health page, and an endless one harms nobody.
pub(crate) const BODY_BYTES_MAX: usize = 64 * 1024;

/// Whether a text is in what was said.
pub(crate) fn contains(body: &[u8], text: &[u8]) -> bool {
    text.is_empty() || body.windows(text.len()).any(|window| window == text)
}

/// Longest part of what was said that is looked at for a detail, in bytes; a detail is shorter still.
const LINE_BYTES_MAX: usize = 1024;

/// The first line that says something.
pub(crate) fn first_line(said: &[u8]) -> Option<String> {
    let said = said.get(..LINE_BYTES_MAX).unwrap_or(said);
    let text = String::from_utf8_lossy(said);
    text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}
