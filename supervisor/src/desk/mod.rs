//! The desk: what people may ask of a supervisor, and what they are answered. No I/O: the API carries questions here,
//! and whoever implements [`Desk`] answers them.

mod bound;
pub mod explain;
mod explain_text;
mod journal;
pub mod status;
mod status_text;
mod story;
#[cfg(test)]
pub(crate) mod tests;
mod words;

use std::collections::BTreeMap;

use async_trait::async_trait;
use holdfast_policies::{
    change::Refused,
    model::Policies,
    names::{GuestName, HostName},
    yaml::{self, Finding, Source},
};
use serde::{Deserialize, Serialize};

pub use self::{
    bound::Bound,
    explain::{Explanation, explain},
    journal::{JOURNAL_LINES_MAX, JournalLine, journal},
    status::{Facts, GuestStatus, HostLife, HostStatus, IncidentStatus, Status, status},
    story::{IncidentStory, StoryLine},
    words::rfc3339,
};

/// A question or an instruction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How is everything?
    Status,
    /// How is this guest, what protects it, and what has happened to it?
    Explain {
        /// Which.
        guest: GuestName,
    },
    /// The newest journal entries.
    Journal {
        /// How many; at most [`JOURNAL_LINES_MAX`] are answered.
        last: usize,
    },
    /// These files are to be the policies.
    Apply {
        /// File name and text.
        sources: BTreeMap<String, String>,
        /// Who says so.
        by: String,
        /// Only check and compare.
        dry_run: bool,
    },
    /// A running guest is to move.
    Migrate {
        /// Which.
        guest: GuestName,
        /// Where to; Holdfast chooses when it is not said.
        to: Option<HostName>,
        /// Who says so.
        by: String,
    },
    /// A host's guests are to move away, and it is to get no new ones.
    Drain {
        /// Which.
        host: HostName,
        /// Who says so.
        by: String,
    },
    /// A drained host is to run guests again.
    Resume {
        /// Which.
        host: HostName,
        /// Who says so.
        by: String,
    },
    /// A person has made sure that a host is off (R9).
    ConfirmOff {
        /// Which.
        host: HostName,
        /// Who has made sure.
        person: String,
    },
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Status),
    /// To [`Request::Explain`].
    Explanation(Explanation),
    /// To [`Request::Journal`], oldest first.
    Journal(Vec<JournalLine>),
    /// To [`Request::Apply`].
    Applied {
        /// The version in force: the new one, or with `dry_run` the one that was compared with.
        version: u64,
        /// One line per change.
        changes: Vec<String>,
        /// Nothing was changed.
        dry_run: bool,
    },
    /// It is committed, and will be done.
    Accepted {
        /// What.
        what: String,
    },
    /// It is so already.
    Ignored {
        /// What is so.
        why: String,
    },
}

/// Why there is no answer, or why nothing is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Denied {
    /// The files have mistakes.
    #[error("{count} mistake{plural} in the policies", count = .0.len(), plural = if .0.len() == 1 { "" } else { "s" })]
    Findings(Vec<Finding>),
    /// The cluster's state does not allow it.
    #[error("{0}")]
    Refused(String),
    /// No quorum, or no leader yet: it may work later.
    #[error("{0}")]
    NoLeader(String),
    /// No such guest or host.
    #[error("{0}")]
    Unknown(String),
}

/// Whoever answers. A question may be dropped half-way when its asker goes away or its time is up; what was committed
/// by then is done all the same.
#[async_trait]
pub trait Desk: Send + Sync {
    /// Answers a question, or carries an instruction to its commit.
    ///
    /// # Errors
    /// [`Denied`]
    async fn ask(&self, request: Request) -> Result<Answer, Denied>;

    /// The page for Prometheus.
    fn metrics(&self) -> String;

    /// Whether this process works.
    ///
    /// # Errors
    /// Why not, in a sentence.
    fn alive(&self) -> Result<(), String>;

    /// Whether this supervisor takes part: it is in touch with a leader.
    ///
    /// # Errors
    /// Why not, in a sentence.
    fn ready(&self) -> Result<(), String>;
}

impl Answer {
    /// What is in it, without the word that says what it is an answer to.
    #[must_use]
    pub fn content(&self) -> serde_json::Value {
        let content = match self {
            Self::Status(status) => serde_json::to_value(status),
            Self::Explanation(explanation) => serde_json::to_value(explanation),
            Self::Journal(lines) => serde_json::to_value(lines),
            Self::Applied { version, changes, dry_run } => {
                Ok(serde_json::json!({ "version": version, "changes": changes, "dry_run": dry_run }))
            }
            Self::Accepted { what } => Ok(serde_json::json!({ "what": what })),
            Self::Ignored { why } => Ok(serde_json::json!({ "why": why })),
        };
        // All of them are maps with text keys, which serialise.
        content.unwrap_or_default()
    }
}

/// What to answer when a command was committed and changed nothing.
///
/// # Errors
/// [`Denied`] unless what was asked for is so already.
pub fn of_refusal(refused: Refused) -> Result<Answer, Denied> {
    let said = refused.to_string();
    match refused {
        Refused::Already { why } => Ok(Answer::Ignored { why }),
        Refused::NoHost { .. } | Refused::NoGuest { .. } => Err(Denied::Unknown(said)),
        Refused::NoOrder { .. } | Refused::Phase { .. } | Refused::Host { .. } | Refused::Version { .. } => {
            Err(Denied::Refused(said))
        }
    }
}

/// Reads the files of an apply and compares them with what is in force: the new policies, and one line per change.
///
/// # Errors
/// [`Denied::Findings`] with all mistakes.
pub fn plan(current: &Policies, sources: &BTreeMap<String, String>) -> Result<(Policies, Vec<String>), Denied> {
    let sources: Vec<Source<'_>> = sources.iter().map(|(name, text)| Source { name, text }).collect();
    let policies = yaml::parse(&sources).map_err(Denied::Findings)?;
    let changes = yaml::diff(current, &policies);
    Ok((policies, changes))
}
