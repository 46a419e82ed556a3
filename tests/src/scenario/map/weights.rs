//! What scores and weights of a scenario come to, which may be numbers or words.

use holdfast_policies::rules::Score;
use serde_json::Value;

/// What outweighs every sum of scores that a scenario may state.
pub(super) const ABSOLUTE: i64 = 1_000_000_000;
/// Scores and failures from here on are without end in Pacemaker's words.
pub const INFINITE: i64 = 1_000_000;

/// A number, or infinity in words.
#[must_use]
pub fn weight(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => {
            #[expect(clippy::cast_possible_truncation, reason = "clamped to what fits")]
            let whole = number.as_f64().map(|number| number.clamp(-1e9, 1e9) as i64);
            whole
        }
        Value::String(text) => match text.to_lowercase().trim_start_matches('+') {
            "infinity" | "inf" | "must" => Some(ABSOLUTE),
            "-infinity" | "-inf" | "never" => Some(-ABSOLUTE),
            other => other.parse().ok(),
        },
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

pub(super) fn score(value: &Value) -> Option<Score> {
    let weight = weight(value)?;
    Some(if weight <= -INFINITE { Score::Never } else { Score::By(weight) })
}
