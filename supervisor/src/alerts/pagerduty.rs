//! PagerDuty Events API v2: one event per change of an incident, held together by its `dedup_key`.
//!
//! The whole payload goes along when an incident is resolved too, so that its log at PagerDuty ends with the whole story.

use holdfast_policies::incident::Incident;
use serde_json::{Map, Value, json};

use super::{
    cut,
    request::{self, RenderError, Request},
    rfc3339,
    secrets::Secrets,
};

/// Longest `dedup_key`, in characters (PagerDuty's rule).
const DEDUP_MAX: usize = 255;
/// Longest `payload.summary`, in characters (PagerDuty's rule).
const SUMMARY_MAX: usize = 1_024;
/// Longest sentence in the details. With 24 sentences the event stays far below PagerDuty's 512 KB.
const SENTENCE_MAX: usize = 1_024;
/// Guests named in the details; a pager is no inventory.
const GUESTS_MAX: usize = 50;

pub(super) fn render(
    base: &str,
    cluster: &str,
    incident: &Incident,
    secrets: &Secrets,
) -> Result<Request, RenderError> {
    let key = secrets.routing_key.as_ref().ok_or(RenderError::NoRoutingKey)?;
    let url = request::join(base, "/v2/enqueue")?;
    let action = if incident.is_open() { "trigger" } else { "resolve" };
    let body = json!({
        "routing_key": key.reveal(),
        "event_action": action,
        "dedup_key": dedup_key(cluster, incident),
        "client": "Holdfast",
        "payload": payload(cluster, incident),
    });
    let what = format!("{action} of incident {} change {}", incident.id, incident.seq);
    Request::new(url, "pagerduty", &what, &body, Some(key))
}

/// `holdfast/<cluster>/<key>#<id>`. When it is too long the key loses its end, never the number that makes it unique.
fn dedup_key(cluster: &str, incident: &Incident) -> String {
    let end = format!("#{}", incident.id);
    let begin = format!("holdfast/{cluster}/{}", incident.key);
    format!("{}{end}", cut(&begin, DEDUP_MAX.saturating_sub(end.len())))
}

fn payload(cluster: &str, incident: &Incident) -> Value {
    let (class, source) = incident.key.split_once('/').unwrap_or(("cluster", &incident.key));
    json!({
        "summary": cut(if incident.summary.is_empty() { &incident.key } else { &incident.summary }, SUMMARY_MAX),
        "source": if source.is_empty() { cluster } else { source },
        "severity": incident.severity.word(),
        "timestamp": rfc3339(incident.opened),
        "component": incident.key,
        "group": cluster,
        "class": class,
        "custom_details": details(cluster, incident),
    })
}

/// What the person who is woken reads: what to do first, then what happened and what was done.
fn details(cluster: &str, incident: &Incident) -> Value {
    let mut details = Map::new();
    let mut say = |key: &str, value: Value| details.insert(key.to_owned(), value);
    let nothing =
        if incident.is_open() { "Nothing for the moment; Holdfast is at it." } else { "Nothing; it is over." };
    say("what_you_must_do", json!(cut(incident.human.as_deref().unwrap_or(nothing), SENTENCE_MAX)));
    say("what_happened", json!(cut(&incident.summary, SENTENCE_MAX)));
    say("what_holdfast_did", incident.done.iter().map(|sentence| cut(sentence, SENTENCE_MAX)).collect());
    say("cluster", json!(cluster));
    say("incident", json!(incident.id));
    say("change", json!(incident.seq));
    say("guests", incident.guests.iter().take(GUESTS_MAX).map(|guest| guest.as_str()).collect());
    if let Some(rung) = &incident.rung {
        say("rung", json!(rung));
    }
    if let Some((word, sentence)) = &incident.proof {
        say("proof", json!(cut(&format!("{word}: {sentence}"), SENTENCE_MAX)));
    }
    if let Some(resolved) = incident.resolved {
        say("resolved", json!(rfc3339(resolved)));
    }
    details.into()
}

#[cfg(test)]
mod tests {
    use super::{
        super::{request::Secret, tests::incident},
        *,
    };

    /// PagerDuty's published rules (api-schema, events-v2; lengths from its documentation), as complaints.
    fn complaints(event: &Value) -> Vec<String> {
        let mut bad = Vec::new();
        let top = ["routing_key", "event_action", "dedup_key", "client", "client_url", "links", "images", "payload"];
        let inner = ["summary", "source", "severity", "timestamp", "component", "group", "class", "custom_details"];
        let keys =
            |value: &Value| value.as_object().map(|map| map.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
        bad.extend(keys(event).iter().filter(|key| !top.contains(&key.as_str())).map(|key| format!("unknown {key}")));
        bad.extend(
            keys(&event["payload"])
                .iter()
                .filter(|key| !inner.contains(&key.as_str()))
                .map(|key| format!("unknown payload.{key}")),
        );
        let mut text = |at: &str, least: usize, most: usize| match event.pointer(at).and_then(Value::as_str) {
            Some(text) if (least..=most).contains(&text.chars().count()) => {}
            other => bad.push(format!("{at} is {other:?}")),
        };
        text("/routing_key", 32, 32);
        text("/dedup_key", 1, 255);
        text("/client", 1, 255);
        text("/payload/summary", 1, 1024);
        text("/payload/source", 1, usize::MAX);
        for optional in ["component", "group", "class"] {
            text(&format!("/payload/{optional}"), 1, usize::MAX);
        }
        let mut one_of = |at: &str, words: &[&str]| match event.pointer(at).and_then(Value::as_str) {
            Some(word) if words.contains(&word) => {}
            other => bad.push(format!("{at} is {other:?}")),
        };
        one_of("/event_action", &["trigger", "acknowledge", "resolve"]);
        one_of("/payload/severity", &["critical", "error", "warning", "info"]);
        let time = event.pointer("/payload/timestamp").and_then(Value::as_str).unwrap_or_default();
        if time.parse::<jiff::Timestamp>().is_err() {
            bad.push(format!("/payload/timestamp is {time:?}"));
        }
        if !event["payload"]["custom_details"].is_object() || event.to_string().len() > 512 * 1024 {
            bad.push("custom_details or size".to_owned());
        }
        bad
    }

    fn event(incident: &Incident) -> Value {
        let secrets = Secrets { routing_key: Some(Secret::new("0123456789abcdef0123456789abcdef".to_owned())) };
        let request = render("https://events.pagerduty.com/", "prod", incident, &secrets).unwrap();
        assert_eq!(request.url.as_str(), "https://events.pagerduty.com/v2/enqueue");
        assert!(!format!("{request:?}").contains("0123456789"), "{request:?}");
        assert_eq!(request.without_secrets("bad 0123456789abcdef0123456789abcdef!"), "bad (secret)!");
        serde_json::from_slice(&request.body).unwrap()
    }

    #[test]
    fn an_event_keeps_pagerdutys_published_rules() {
        let open = incident(7);
        let trigger = event(&open);
        assert_eq!(complaints(&trigger), Vec::<String>::new());
        assert_eq!(trigger["dedup_key"], "holdfast/prod/guest/web-1#7");
        assert_eq!(trigger["event_action"], "trigger");
        assert_eq!(trigger["payload"]["source"], "web-1");
        assert_eq!(trigger["payload"]["class"], "guest");
        assert_eq!(trigger["payload"]["timestamp"], "2026-01-02T03:04:05.000Z");
        let resolve = event(&Incident { resolved: Some(holdfast_policies::time::WallTime(1_767_323_100_000)), ..open });
        assert_eq!(complaints(&resolve), Vec::<String>::new());
        assert_eq!(resolve["event_action"], "resolve");
        assert_eq!(resolve["dedup_key"], trigger["dedup_key"], "a resolve must find its trigger");
        assert_eq!(resolve["payload"]["custom_details"]["what_holdfast_did"][0], "Fenced hv-a.");
    }

    #[test]
    fn an_incident_of_any_length_still_keeps_the_rules_and_its_number() {
        let long = "ä".repeat(100_000);
        let incident = Incident {
            key: format!("guest/{long}"),
            summary: long.clone(),
            done: vec![long.clone(); holdfast_policies::incident::DONE_MAX],
            human: Some(long),
            ..incident(u64::MAX)
        };
        let event = event(&incident);
        let complaints: Vec<_> =
            complaints(&event).into_iter().filter(|complaint| !complaint.contains("size")).collect();
        assert_eq!(complaints, Vec::<String>::new());
        assert!(event["dedup_key"].as_str().unwrap().ends_with(&format!("#{}", u64::MAX)));
        let empty = Incident { key: String::new(), summary: String::new(), ..super::super::tests::incident(1) };
        assert!(!self::event(&empty).is_null());
    }
}
