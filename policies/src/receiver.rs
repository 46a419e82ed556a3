//! Whom to tell of incidents, and from which urgency on.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How urgent an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// For the record.
    Info,
    /// Odd, handled, look when convenient.
    Warning,
    /// Something does not answer; Holdfast is at it.
    Error,
    /// A human must act.
    Critical,
}

impl Severity {
    /// All of them, the least first.
    pub const ALL: [Self; 4] = [Self::Info, Self::Warning, Self::Error, Self::Critical];

    /// The word for it, as in YAML, alerts and JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

/// Where alerts go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Receiver {
    /// PagerDuty Events API v2.
    Pagerduty {
        /// File with the routing key.
        routing_key_file: PathBuf,
        /// Least severity that is sent. Default info.
        min_severity: Severity,
        /// Default `https://events.pagerduty.com`.
        url: String,
    },
    /// Prometheus Alertmanager API v2.
    Alertmanager {
        /// Base URL.
        url: String,
        /// Least severity that is sent. Default info.
        min_severity: Severity,
    },
    /// A POST of the incident as JSON.
    Webhook {
        /// Where to.
        url: String,
        /// Least severity that is sent. Default info.
        min_severity: Severity,
    },
}

impl Receiver {
    /// A stable name for delivery bookkeeping; not for people, see [`Self::shown`].
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::Pagerduty { routing_key_file, .. } => format!("pagerduty:{}", routing_key_file.display()),
            Self::Alertmanager { url, .. } => format!("alertmanager:{url}"),
            Self::Webhook { url, .. } => format!("webhook:{}", url.split(['?', '#']).next().unwrap_or(url)),
        }
    }

    /// A name for people, that carries no secret: chat services put theirs into the path of the address that they give out.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::Pagerduty { .. } => self.key(),
            Self::Alertmanager { url, .. } => format!("alertmanager:{}", without_path(url)),
            Self::Webhook { url, .. } => format!("webhook:{}", without_path(url)),
        }
    }

    /// Least severity that is sent.
    #[must_use]
    pub fn min_severity(&self) -> Severity {
        match self {
            Self::Pagerduty { min_severity, .. }
            | Self::Alertmanager { min_severity, .. }
            | Self::Webhook { min_severity, .. } => *min_severity,
        }
    }
}

/// Scheme and host of a URL, and whether there is more.
fn without_path(url: &str) -> String {
    let begin = url.find("://").map_or(0, |at| at + "://".len());
    let host = url.get(begin..).unwrap_or_default().split(['/', '?', '#']).next().unwrap_or_default();
    let shown = url.get(..begin + host.len()).unwrap_or_default();
    let has_more = url.trim_end_matches('/').len() > shown.len();
    format!("{shown}{}", if has_more { "/…" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_shown_the_host_of_a_receiver_and_no_secret_of_its_address() {
        let webhook = |url: &str| Receiver::Webhook { url: url.to_owned(), min_severity: Severity::Info }.shown();
        assert_eq!(
            webhook("https://hooks.example:8443/services/T0/hunter2?a#b"),
            "webhook:https://hooks.example:8443/…"
        );
        assert_eq!(webhook("https://hooks.example?token=hunter2"), "webhook:https://hooks.example/…");
        assert_eq!(webhook("https://hooks.example/"), "webhook:https://hooks.example");
        assert_eq!(webhook("none"), "webhook:none");
        let alertmanager = Receiver::Alertmanager { url: "http://[::1]:9093".to_owned(), min_severity: Severity::Info };
        assert_eq!(alertmanager.shown(), "alertmanager:http://[::1]:9093");
    }
}
