//! What is said of a host's health, and what that makes of it for guests.

use holdfast_policies::rules::Score;
use serde_json::Value;

use super::{
    super::format,
    weights::{INFINITE, weight},
};

/// What a host's ill health makes of it for all guests: nothing may run on a red one, and numbers are scores.
pub(super) fn health_score(host: &format::Host) -> Option<Score> {
    let said = health_said(host);
    if said.iter().any(|health| health.as_str().is_some_and(|text| text.eq_ignore_ascii_case("red"))) {
        return Some(Score::Never);
    }
    let bad = said.into_iter().filter_map(weight).filter(|score| *score < 0).fold(0, i64::saturating_add);
    (bad < 0).then_some(if bad <= -INFINITE { Score::Never } else { Score::By(bad) })
}

/// What is said against a host's health, if anything is.
#[must_use]
pub fn ill_health(host: &format::Host) -> Option<String> {
    health_said(host).into_iter().find_map(|health| match health {
        Value::Bool(false) => Some("it is not healthy".to_owned()),
        Value::String(text) if !["ok", "good", "green", "healthy"].contains(&text.to_lowercase().as_str()) => {
            Some(format!("its health is {text}"))
        }
        Value::Number(score) if score.as_f64().is_some_and(|score| score < 0.0) => {
            Some(format!("its health is {score}"))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => None,
    })
}

/// What is said of a host's health: of each of its parts where it has several, else of the whole.
fn health_said(host: &format::Host) -> Vec<&Value> {
    match host.health.as_ref() {
        None => Vec::new(),
        Some(Value::Object(parts)) => parts.values().collect(),
        Some(Value::Array(parts)) => parts.iter().collect(),
        Some(whole) => vec![whole],
    }
}
