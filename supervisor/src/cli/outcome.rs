//! What a command came to, as text or JSON, and its exit code.

use std::{
    borrow::Cow,
    io::{self, Write},
};

use holdfast_policies::yaml::Finding;
use serde_json::{Value, json};

use super::{
    super::{api::client::ClientError, desk::Denied},
    hostfile::HostFileError,
};
use crate::causes::with_causes;

/// What whoever is not root on a host can do.
const NOT_ROOT: &str = "run it as root (sudo), or as an operator with a certificate (--identity)";

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

impl Failure {
    /// Why the host file cannot be used for a command, and who can do without one.
    pub(super) fn without_host_file(error: HostFileError) -> Self {
        let hint = match &error {
            HostFileError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "on a host of the cluster name its file with --config, elsewhere an operator's identity with --identity"
            }
            HostFileError::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => NOT_ROOT,
            HostFileError::Read { .. } | HostFileError::Findings(_) => return error.into(),
        };
        Self::Failed(format!("{}; {hint}", with_causes(&error)))
    }
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
            ClientError::Unreachable { socket, source } if source.kind() == io::ErrorKind::PermissionDenied => {
                let socket = socket.display();
                Self::Failed(format!("may not ask the supervisor at {socket}: {source}; {NOT_ROOT}"))
            }
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
        // Not what is empty, which is an answer as well: what has nothing to say.
        (Ok(reply), true) if reply.json.as_str() == Some("") => (reply.code, Ok(())),
        (Ok(reply), true) => (reply.code, out.write_all(json_line(&reply.json).as_bytes())),
        (Ok(reply), false) => (reply.code, out.write_all(plain(&reply.text).as_bytes())),
        (Err(failure), true) => (failure.code(), out.write_all(json_line(&failure.json()).as_bytes())),
        (Err(failure), false) => (failure.code(), err.write_all(plain(&failure.text()).as_bytes())),
    };
    match written.and_then(|()| out.flush()) {
        // Whoever reads only the beginning, such as `head`, has had enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            // Where not even that can be said, the exit code has to do.
            let _ = writeln!(err, "error: the answer cannot be written: {error}");
            code.max(1)
        }
        Ok(()) | Err(_) => code,
    }
}

/// Text without what a terminal would obey. Much of it others have said: services, guests, and whoever answers for the cluster.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    let obeyed = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if text.contains(obeyed) { text.replace(obeyed, "\u{fffd}").into() } else { text.into() }
}

/// JSON as a line. Not all that a terminal would obey is escaped by whoever writes JSON; it stands in texts alone, where it can be.
pub(super) fn json_line(json: &Value) -> String {
    let mut line = String::new();
    for c in json.to_string().chars() {
        if c.is_control() {
            line.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            line.push(c);
        }
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use std::io::Error;

    use super::*;

    fn text(failure: &Failure) -> (u8, String) {
        (failure.code(), failure.text())
    }

    #[test]
    fn whoever_is_not_root_is_told_so_and_not_that_nobody_runs() {
        let denied = || Error::from(io::ErrorKind::PermissionDenied);
        let socket = ClientError::Unreachable { socket: "/run/holdfast/holdfast.sock".into(), source: denied() };
        let file = HostFileError::Read { path: "/etc/holdfast/holdfast.yaml".into(), source: denied() };
        for failure in [Failure::from(socket), Failure::without_host_file(file)] {
            let (code, said) = text(&failure);
            assert!(code == 1 && said.contains("run it as root (sudo)") && said.contains("--identity"), "{said}");
            assert!(!said.contains("does it run?"), "{said}");
        }
        let gone = Error::from(io::ErrorKind::NotFound);
        let socket = ClientError::Unreachable { socket: "/run/holdfast/holdfast.sock".into(), source: gone };
        let (code, said) = text(&Failure::from(socket));
        assert!(code == 3 && said.contains("does it run?"), "{said}");
    }

    #[test]
    fn where_there_is_no_host_file_both_ways_on_are_named() {
        let source = Error::from(io::ErrorKind::NotFound);
        let missing = HostFileError::Read { path: "/etc/holdfast/holdfast.yaml".into(), source };
        let (code, said) = text(&Failure::without_host_file(missing));
        assert!(code == 1 && said.contains("--config") && said.contains("--identity"), "{said}");
    }

    #[test]
    fn an_answer_that_cannot_be_written_is_not_lost_in_silence() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(Error::from(io::ErrorKind::StorageFull))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut err = Vec::new();
        let code = show(Ok(Reply::text("yes\n".to_owned())), false, &mut Full, &mut err);
        let said = String::from_utf8(err).unwrap();
        assert!(code == 1 && said.starts_with("error: the answer cannot be written: "), "{said}");
    }

    #[test]
    fn a_terminal_is_told_nothing_that_it_would_obey() {
        let said = "web-1\u{1b}[2J is up\u{9b}31m\r\n\tits console: login\u{7}\n";
        for result in [Ok(Reply::text(said.to_owned())), Err(Failure::Failed(said.to_owned()))] {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            show(result, false, &mut out, &mut err);
            let shown = String::from_utf8([out, err].concat()).unwrap();
            assert!(shown.contains("web-1") && shown.contains("\n\tits console: login"), "{shown:?}");
            assert!(!shown.contains(|c: char| c.is_control() && c != '\n' && c != '\t'), "{shown:?}");
        }
        let line = json_line(&json!({ "said": said }));
        assert!(line.ends_with("}\n") && !line.trim_end().contains(char::is_control), "{line:?}");
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), json!({ "said": said }));
    }
}
