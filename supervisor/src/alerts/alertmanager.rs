//! Prometheus Alertmanager API v2: one alert per incident.
//!
//! Alertmanager tells alerts apart by their whole set of labels, so labels hold only what never changes while an incident
//! is open: its number, its key, the cluster. Severity is *not* a label, because a ladder may raise it: the same incident
//! would become a second alert, and the first would be announced as resolved when it is worse. Severity is an annotation;
//! route on `alertname`, `cluster` or `kind`, and use the receiver's `min_severity` to keep small things out.
//!
//! An open alert ends by itself five minutes after it was last sent, so that nobody is kept awake by an alert whose
//! cluster is gone; it is sent again every minute.

use std::time::Duration;

use holdfast_policies::{
    incident::Incident,
    time::{WallTime, millis},
};
use serde_json::json;

use super::{
    cut,
    request::{self, RenderError, Request},
    rfc3339,
};

/// How long an open alert stays without being sent again: Alertmanager's own default, five missed minutes.
const OPEN_FOR: Duration = Duration::from_secs(300);
/// Longest annotation, in characters; notification templates repeat them all.
const ANNOTATION_MAX: usize = 4_096;
/// Longest label value, in characters.
const LABEL_MAX: usize = 512;

pub(super) fn render(base: &str, cluster: &str, incident: &Incident, now: WallTime) -> Result<Request, RenderError> {
    let url = request::join(base, "/api/v2/alerts")?;
    let (starts, ends) = span(incident, now);
    let (kind, _) = incident.key.split_once('/').unwrap_or(("cluster", ""));
    let body = json!([{
        "labels": {
            "alertname": "HoldfastIncident",
            "cluster": cut(cluster, LABEL_MAX),
            "key": cut(&incident.key, LABEL_MAX),
            "kind": cut(kind, LABEL_MAX),
            "incident": incident.id.to_string(),
        },
        "annotations": {
            "summary": cut(&incident.summary, ANNOTATION_MAX),
            "description": cut(&incident.done.join(" "), ANNOTATION_MAX),
            "human": cut(incident.human.as_deref().unwrap_or("nothing"), ANNOTATION_MAX),
            "severity": incident.severity.word(),
        },
        "startsAt": rfc3339(starts),
        "endsAt": rfc3339(ends),
    }]);
    let word = if incident.is_open() { "alert" } else { "resolve" };
    let what = format!("{word} of incident {} change {}", incident.id, incident.seq);
    Request::new(url, "alertmanager", &what, &body, None)
}

/// Start and end, when it is `now` at Alertmanager. The coordinators that opened and resolved the incident may have had faster
/// clocks, and Alertmanager refuses an alert that ends before it starts, and goes on with one that ends later.
fn span(incident: &Incident, now: WallTime) -> (WallTime, WallTime) {
    match incident.resolved {
        Some(resolved) => (incident.opened.min(resolved).min(now), resolved.min(now)),
        None => (incident.opened.min(now), WallTime(now.0.saturating_add(millis(OPEN_FOR)))),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::incident, *};

    fn alert(incident: &Incident, now: u64) -> serde_json::Value {
        let request = render("http://am.example:9093/base/", "prod", incident, WallTime(now)).unwrap();
        assert_eq!(request.url.as_str(), "http://am.example:9093/base/api/v2/alerts");
        serde_json::from_slice::<serde_json::Value>(&request.body).unwrap()[0].clone()
    }

    #[test]
    fn a_change_of_severity_or_story_keeps_every_label() {
        let before = incident(7);
        let mut after = Incident {
            severity: holdfast_policies::model::Severity::Info,
            seq: 9,
            summary: "Worse.".into(),
            ..before.clone()
        };
        after.did("More.".into());
        assert_eq!(alert(&before, 5)["labels"], alert(&after, 6)["labels"]);
        assert_ne!(alert(&before, 5)["annotations"], alert(&after, 5)["annotations"]);
    }

    #[test]
    fn an_alert_never_ends_before_it_starts_whatever_the_clocks_say() {
        let open = incident(7);
        let resolved_early = Incident { resolved: Some(WallTime(5)), ..open.clone() };
        for alert in [alert(&open, 5), alert(&resolved_early, 5)] {
            let at = |key: &str| alert[key].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
            assert!(at("startsAt") <= at("endsAt"), "{alert}");
        }
        assert_eq!(alert(&open, open.opened.0)["endsAt"], "2026-01-02T03:09:05.000Z");
        let resolved_next_year = Incident { resolved: Some(WallTime(open.opened.0 + 31_536_000_000)), ..open.clone() };
        assert_eq!(alert(&resolved_next_year, open.opened.0)["endsAt"], "2026-01-02T03:04:05.000Z", "it is over now");
    }
}
