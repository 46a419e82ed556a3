//! Reads `alerts:`: whom to tell.

use super::{
    across::Seen,
    fields::{Fields, Keys},
    ladder::severity,
    value::Value,
};
use crate::model::{Receiver, Severity};

const RECEIVERS: &[&str] = &["pagerduty", "alertmanager", "webhook"];
const PAGERDUTY: Keys = Keys {
    known: &["routing_key_file", "min_severity", "url"],
    later: &[],
    renamed: &[(
        "routing_key",
        "keys stay out of policies: write it to a file on every host and name that as `routing_key_file`",
    )],
};
const PLAIN: Keys = Keys { known: &["url", "min_severity"], later: &[], renamed: &[] };

/// Most receivers: each is told of everything.
const RECEIVERS_MAX: usize = 16;

/// Reads the receivers of a section.
pub(super) fn read(section: &Value<'_>, into: &mut Vec<Receiver>, seen: &mut Seen) {
    let items = section.list("write `- alertmanager: { url: \"http://10.0.0.9:9093\" }` below it").unwrap_or_default();
    for item in items {
        let Some(receiver) = receiver(&item) else { continue };
        let key = receiver.key();
        if let Some(first) = seen.receivers.get(&key) {
            item.findings.hint(
                item.at,
                "this receiver is declared twice: everybody would be told twice",
                format!("first at {}", item.findings.name(*first)),
            );
            continue;
        }
        seen.receivers.insert(key, item.at);
        into.push(receiver);
        if into.len() == RECEIVERS_MAX + 1 {
            item.findings.add(item.at, format!("there are more than {RECEIVERS_MAX} receivers"));
        }
    }
}

fn receiver(item: &Value<'_>) -> Option<Receiver> {
    let chosen = item.variant("receiver", RECEIVERS, &[])?;
    if chosen.name == "pagerduty" {
        let fields = chosen.fields(&PAGERDUTY)?;
        let routing_key_file =
            fields.need("routing_key_file", "routing_key_file: /etc/holdfast/pagerduty", Value::absolute_path);
        let min_severity = least(&fields);
        let url = fields.or("url", "https://events.pagerduty.com".to_owned(), |v| v.url(false));
        return Some(Receiver::Pagerduty {
            routing_key_file: routing_key_file?,
            min_severity: min_severity?,
            url: url?,
        });
    }
    let fields = chosen.fields(&PLAIN)?;
    let url = fields.need("url", "url: \"http://10.0.0.9:9093\"", |v| v.url(false));
    let min_severity = least(&fields);
    let (url, min_severity) = (url?, min_severity?);
    match chosen.name {
        "alertmanager" => Some(Receiver::Alertmanager { url, min_severity }),
        _ => Some(Receiver::Webhook { url, min_severity }),
    }
}

fn least(fields: &Fields<'_>) -> Option<Severity> {
    fields.or("min_severity", Severity::Info, severity)
}
