//! The desk: what people may ask of a supervisor, and what they are answered. No I/O: the API carries questions here,
//! and whoever implements [`Desk`] answers them.

mod consoles;
pub mod explain;
mod explain_text;
pub mod fence_text;
mod journal;
pub mod plain;
mod simulation_text;
pub mod status;
mod status_text;
mod stock;
mod story;
#[cfg(test)]
pub(crate) mod tests;
mod travel;
mod unknown;
mod voters;
mod voucher;
mod words;

use std::{collections::BTreeMap, net::SocketAddr};

use async_trait::async_trait;
pub use holdfast_policies::bound::Bound;
use holdfast_policies::{
    change::Refused,
    model::Policies,
    names::{GuestName, HostName},
    operators::Serial,
    plan::{Question, Simulation},
    state::Wanted,
    yaml::{self, Finding, Source},
};
use serde::{Deserialize, Serialize};

pub use self::{
    explain::{Explanation, explain},
    journal::{JOURNAL_LINES_MAX, JournalLine, journal},
    simulation_text::simulation_text,
    status::{GuestStatus, HostLife, HostStatus, IncidentStatus, RevokedStatus, Status},
    status_text::Short,
    stock::{Facts, status},
    story::{IncidentStory, StoryLine},
    travel::{read_answer, write_answer},
    unknown::{no_guest, no_host},
    voters::{Step, Unfit, VOTERS_MAX, VoterList, VoterStatus, warning as voters_warning},
    voucher::Voucher,
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
    /// What would the loss of hosts come to?
    Simulate(Question),
    /// The newest journal entries.
    Journal {
        /// How many; at most [`JOURNAL_LINES_MAX`] are answered.
        last: usize,
    },
    /// Which files are the policies?
    Policies,
    /// These files are to be the policies.
    Apply {
        /// File name and text.
        sources: BTreeMap<String, String>,
        /// Who says so.
        by: String,
        /// Only check and compare.
        dry_run: bool,
    },
    /// A guest is to move.
    Migrate {
        /// Which.
        guest: GuestName,
        /// Where to; Holdfast chooses when it is not said.
        to: Option<HostName>,
        /// By a stop and a start in any case, also in place of a live move that has not arrived yet.
        #[serde(default)]
        cold: bool,
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
    /// A host is to be left as it is: it gets no new guests, its guests are not helped, and it is not fenced.
    Maintain {
        /// Which.
        host: HostName,
        /// Who says so.
        by: String,
    },
    /// A host is about to go down on purpose.
    Leave {
        /// Which.
        host: HostName,
        /// It means to come back.
        reboot: bool,
        /// Who says so.
        by: String,
    },
    /// What is wanted of a guest.
    Want {
        /// Which.
        guest: GuestName,
        /// What.
        wanted: Wanted,
        /// Who says so.
        by: String,
    },
    /// Deciding is to be suspended, or to go on.
    Suspend {
        /// Whether it is suspended from here on.
        suspended: bool,
        /// Who says so.
        by: String,
    },
    /// A host that is drained, in maintenance or leaving is to run guests again.
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
    /// Who votes?
    Voters,
    /// A host is to get the log, under a raft id that nobody has had (R24).
    AddVoter {
        /// Which.
        host: HostName,
        /// Who says so.
        by: String,
    },
    /// A host that has the log is to vote.
    PromoteVoter {
        /// Which.
        host: HostName,
        /// Who says so.
        by: String,
    },
    /// A host is to vote no more.
    RemoveVoter {
        /// Which.
        host: HostName,
        /// Even when few voters are left.
        force: bool,
        /// Who says so.
        by: String,
    },
    /// A person has looked after a guest: it is to be tried anew.
    LookedAfter {
        /// Which.
        guest: GuestName,
        /// Who has.
        by: String,
    },
    /// A quarantined host may run guests again; a person answers for its name (R11).
    LiftQuarantine {
        /// Which.
        host: HostName,
        /// The machine that has the name from here on, where another one than before shall have it.
        machine: Option<String>,
        /// Who says so.
        by: String,
    },
    /// A person has checked the wiring of a host's power devices (R9).
    TrustDevice {
        /// Which.
        host: HostName,
        /// Who has.
        by: String,
    },
    /// What do the power devices of a host say? Nothing is switched.
    TestFence {
        /// Which.
        host: HostName,
        /// Who is to ask them; without it several do.
        from: Option<HostName>,
    },
    /// A drained host is to be switched off and on, to see that it works and that it is this host.
    DrillFence {
        /// Which.
        host: HostName,
        /// By which of its levels; the first is 1.
        level: usize,
        /// Who says so.
        by: String,
    },
    /// An open fence is to go on although a budget has no room for it.
    AllowFence {
        /// Of which host.
        host: HostName,
        /// Who says so.
        by: String,
    },
    /// Fencing is to go on in the present storm (R21).
    ReleaseStormHold {
        /// Who says so.
        by: String,
    },
    /// A host that is proven gone is to be taken out of the cluster, and none of its certificates is to count (R27).
    Revoke {
        /// Which.
        host: HostName,
        /// Why.
        why: String,
        /// Who says so.
        by: String,
    },
    /// One certificate of a revoked name is to count.
    Readmit {
        /// Whose.
        host: HostName,
        /// Which.
        serial: Serial,
        /// Who says so.
        by: String,
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
    /// To [`Request::Simulate`].
    Simulated(Simulation),
    /// To [`Request::Journal`], oldest first.
    Journal(Vec<JournalLine>),
    /// To [`Request::Policies`].
    Policies {
        /// The version in force; 0 before the first.
        version: u64,
        /// File name and text, as they were applied.
        sources: BTreeMap<String, String>,
    },
    /// To [`Request::Voters`].
    Voters(VoterList),
    /// To [`Request::Apply`].
    Applied {
        /// The version in force: the new one, or with `dry_run` the one that was compared with.
        version: u64,
        /// One line per change.
        changes: Vec<String>,
        /// Nothing was changed.
        dry_run: bool,
    },
    /// To [`Request::TestFence`].
    FenceTested {
        /// Which.
        host: HostName,
        /// What its devices said.
        said: Vec<fence_text::DeviceSaid>,
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
    /// No quorum, no leader yet, or something is not known yet that has to be: it may work later.
    #[error("{0}")]
    NoLeader(String),
    /// No such guest or host.
    #[error("{0}")]
    Unknown(String),
    /// Another supervisor coordinates: an operator has to ask that one, because nobody can pass their certificate on.
    #[error("{host} coordinates, and is reached at {address}")]
    Elsewhere {
        /// Which.
        host: HostName,
        /// Where it listens.
        address: SocketAddr,
    },
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
            Self::Simulated(simulation) => serde_json::to_value(simulation),
            Self::Journal(lines) => serde_json::to_value(lines),
            Self::Policies { version, sources } => Ok(serde_json::json!({ "version": version, "files": sources })),
            Self::Voters(list) => serde_json::to_value(list),
            Self::Applied { version, changes, dry_run } => {
                Ok(serde_json::json!({ "version": version, "changes": changes, "dry_run": dry_run }))
            }
            Self::FenceTested { host, said } => Ok(serde_json::json!({ "host": host, "devices": said })),
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
        Refused::NoOrder { .. }
        | Refused::Phase { .. }
        | Refused::Guest { .. }
        | Refused::Target { .. }
        | Refused::Host { .. }
        | Refused::Version { .. } => Err(Denied::Refused(said)),
        // It is raised by itself.
        Refused::Level { .. } => Err(Denied::NoLeader(said)),
    }
}

/// Reads the files of an apply and compares them with what is in force: the new policies, and one line per change, and then per
/// doubt (`?`).
///
/// # Errors
/// [`Denied::Findings`] with all mistakes.
pub fn plan(current: &Policies, sources: &BTreeMap<String, String>) -> Result<(Policies, Vec<String>), Denied> {
    let (policies, doubts) = yaml::parse_with_doubts(&named(sources)).map_err(Denied::Findings)?;
    let mut changes = yaml::diff(current, &policies);
    changes.extend(doubts);
    Ok((policies, changes))
}

/// Reads the files of an apply. For thousands of guests that takes parts of a second.
///
/// # Errors
/// [`Denied::Findings`] with all mistakes.
pub fn parse(sources: &BTreeMap<String, String>) -> Result<Policies, Denied> {
    yaml::parse(&named(sources)).map_err(Denied::Findings)
}

fn named(sources: &BTreeMap<String, String>) -> Vec<Source<'_>> {
    sources.iter().map(|(name, text)| Source { name, text }).collect()
}
