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
    /// A stable name for delivery bookkeeping and metrics; carries no secret.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::Pagerduty { routing_key_file, .. } => format!("pagerduty:{}", routing_key_file.display()),
            Self::Alertmanager { url, .. } => format!("alertmanager:{url}"),
            Self::Webhook { url, .. } => format!("webhook:{}", url.split(['?', '#']).next().unwrap_or(url)),
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
