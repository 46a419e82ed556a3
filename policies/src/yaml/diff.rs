//! What `holdfast apply` would change, one line per path.

use serde_json::Value;

use crate::model::Policies;

/// One line per change, sorted by path: `policies.web.services.http.every: 2s → 1s`, `+ guests.web-2`, `- fencing.hv-c`.
#[must_use]
pub fn diff(old: &Policies, new: &Policies) -> Vec<String> {
    let mut lines = Vec::new();
    // Both serialise: they are maps with text keys. If one did not, everything would show as changed, not as the same.
    let tree = |policies: &Policies| serde_json::to_value(policies).unwrap_or(Value::Null);
    let (old, new) = (without_guests_of(old, new), without_guests_of(new, old));
    compare("", &tree(&old), &tree(&new), &mut lines);
    lines
}

/// The policies without the guests that others declare in the same way: as trees, thousands of guests would fill the memory.
fn without_guests_of(policies: &Policies, others: &Policies) -> Policies {
    let Policies { guests, policies, fencing, alerts, hosts, rules, cluster } = policies;
    let other = guests.iter().filter(|(name, guest)| others.guests.get(*name) != Some(*guest));
    Policies {
        guests: other.map(|(name, guest)| (name.clone(), guest.clone())).collect(),
        policies: policies.clone(),
        fencing: fencing.clone(),
        alerts: alerts.clone(),
        hosts: hosts.clone(),
        rules: rules.clone(),
        cluster: cluster.clone(),
    }
}

fn compare(path: &str, old: &Value, new: &Value, lines: &mut Vec<String>) {
    match (old, new) {
        _ if old == new => {}
        (Value::Object(old), Value::Object(new)) => {
            let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                each(&below, old.get(key), new.get(key), lines);
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            for index in 0..old.len().max(new.len()) {
                each(&format!("{path}[{index}]"), old.get(index), new.get(index), lines);
            }
        }
        (Value::Null, Value::Object(_) | Value::Array(_)) => lines.push(format!("+ {path}")),
        (Value::Object(_) | Value::Array(_), Value::Null) => lines.push(format!("- {path}")),
        _ => lines.push(format!("{path}: {} → {}", shown(old), shown(new))),
    }
}

fn each(path: &str, old: Option<&Value>, new: Option<&Value>, lines: &mut Vec<String>) {
    match (old, new) {
        (Some(old), Some(new)) => compare(path, old, new, lines),
        (None, Some(new)) => lines.push(format!("+ {path}{}", leaf(new))),
        (Some(old), None) => lines.push(format!("- {path}{}", leaf(old))),
        (None, None) => {}
    }
}

fn leaf(value: &Value) -> String {
    if value.is_object() || value.is_array() { String::new() } else { format!(": {}", shown(value)) }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
