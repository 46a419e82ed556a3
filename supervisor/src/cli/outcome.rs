//! What a command came to, as text or JSON, and its exit code.

use std::io::{self, Write};

use holdfast_policies::yaml::Finding;
use serde_json::{Value, json};

use super::{
    super::{api::client::ClientError, desk::Denied},
    hostfile::HostFileError,
};
use crate::causes::with_causes;

/// What is printed when a command has done its work.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) text: String,
    pub(super) json: Value,
    /// The exit code: 0, or 1 for an answer that is a no.
    pub(super) code: u8,
}

impl Reply {
    /// A reply that is text, in JSON too.
    pub(super) fn text(text: String) -> Self {
        Self { json: Value::String(text.clone()), text, code: 0 }
    }
}

/// Why a command has not done its work.
#[derive(Debug)]
pub(super) enum Failure {
    /// Refused, or failed.
    Failed(String),
    /// The command line is wrong; the whole message.
    Usage(String),
    /// Files have mistakes.
    Findings(Vec<Finding>),
    /// It may work later.
    Unavailable(String),
}

impl Failure {
    /// The exit code, as `--help` documents it.
    fn code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) | Self::Findings(_) => 2,
            Self::Unavailable(_) => 3,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Failed(why) | Self::Unavailable(why) => format!("error: {why}\n"),
            Self::Usage(message) => format!("{}\n", message.trim_end()),
            Self::Findings(findings) => {
                let shown: Vec<String> = findings.iter().map(|finding| format!("{finding}\n")).collect();
                format!("{}error: {}\n", shown.join(""), count(findings))
            }
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Failed(why) | Self::Unavailable(why) => json!({ "error": why }),
            Self::Usage(message) => {
                let first = message.lines().next().unwrap_or_default();
                json!({ "error": first.strip_prefix("error: ").unwrap_or(first) })
            }
            Self::Findings(findings) => json!({ "error": count(findings), "findings": findings }),
        }
    }
}

fn count(findings: &[Finding]) -> String {
    let plural = if findings.len() == 1 { "" } else { "s" };
    format!("{} mistake{plural}", findings.len())
}

impl From<HostFileError> for Failure {
    fn from(error: HostFileError) -> Self {
        match error {
            HostFileError::Findings(findings) => Self::Findings(findings),
            HostFileError::Read { .. } => Self::Failed(with_causes(&error)),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match &error {
            ClientError::Refused { code, .. } if !code.is_server_error() => Self::Failed(with_causes(&error)),
            ClientError::Garbled(_) => Self::Failed(with_causes(&error)),
            ClientError::Unreachable { .. }
            | ClientError::Deadline { .. }
            | ClientError::Broken(_)
            | ClientError::Refused { .. } => Self::Unavailable(with_causes(&error)),
        }
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Findings(findings) => Self::Findings(findings),
            Denied::Refused(why) | Denied::Unknown(why) => Self::Failed(why),
            Denied::NoLeader(why) => Self::Unavailable(why),
            Denied::Elsewhere { .. } => Self::Unavailable(denied.to_string()),
        }
    }
}

/// Prints what a command came to; returns the exit code.
pub(super) fn show(result: Result<Reply, Failure>, json: bool, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let (code, written) = match (result, json) {
        (Ok(reply), true) if reply.text.is_empty() => (reply.code, Ok(())),
        (Ok(reply), true) => (reply.code, writeln!(out, "{}", reply.json)),
        (Ok(reply), false) => (reply.code, out.write_all(reply.text.as_bytes())),
        (Err(failure), true) => (failure.code(), writeln!(out, "{}", failure.json())),
        (Err(failure), false) => (failure.code(), err.write_all(failure.text().as_bytes())),
    };
    match written.and_then(|()| out.flush()) {
        // Whoever reads only the beginning, such as `head`, has had enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => code.max(1),
        Ok(()) | Err(_) => code,
    }
}
