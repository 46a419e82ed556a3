//! What the guard reads and answers again and again: a longer lease with every sync, and how it is twice a second. Both are
//! read and written without allocating, once the buffers of a connection have grown to what they need.

use std::{collections::BTreeSet, net::SocketAddr};

use holdfast_policies::{armed::ArmedWatchdog, names::Incarnation, time::Moment};
use serde::{Deserialize, Serialize};

use super::protocol::{Guest, Hardened, Stopped};

/// A query as our supervisor writes it. Another spelling is understood as well, and allocates.
const QUERY: &[u8] = br#"{"request":"query"}"#;

/// How a grant begins.
const GRANT: &[u8] = br#"{"request":"grant","#;

/// Whether a line asks how it is.
pub(super) fn is_query(line: &[u8]) -> bool {
    line == QUERY
}

/// The deadline that a line grants; `None` for whatever else, and for what has to be refused with a reason.
pub(super) fn granted(line: &[u8]) -> Option<Moment> {
    // A line that cannot be read costs an allocation here, so what cannot be a grant is not tried.
    let read: Granting<'_> = line.starts_with(GRANT).then(|| serde_json::from_slice(line).ok())??;
    (read.request == "grant").then_some(read.deadline)
}

/// A grant whose words stay in the line.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Granting<'a> {
    request: &'a str,
    deadline: Moment,
}

/// The answer to a query, borrowed from what is known. On the wire it is [`super::protocol::Reply::Status`].
#[derive(Debug, Serialize)]
#[serde(tag = "reply", rename = "status")]
pub(super) struct Said<'a> {
    pub(super) incarnation: &'a Incarnation,
    pub(super) pid: u32,
    pub(super) started: Moment,
    pub(super) deadline: Option<Moment>,
    pub(super) guests: &'a BTreeSet<Guest>,
    pub(super) voters: &'a [SocketAddr],
    pub(super) refused: u64,
    pub(super) armed: SaidArmed<'a>,
    pub(super) unarmed: Option<&'a str>,
    pub(super) stopped: &'a [Stopped],
    pub(super) hardened: Option<&'a Hardened>,
}

/// What is armed, borrowed.
#[derive(Debug, Serialize)]
pub(super) struct SaidArmed<'a> {
    pub(super) stops: bool,
    pub(super) guard_ms: u64,
    pub(super) watchdog: Option<&'a ArmedWatchdog>,
}

/// Writes an answer as a line, in place of what is in `output`. Answers consist of names, numbers and text; should one not be
/// writable as JSON, the empty line is no valid answer.
pub(super) fn write_line(output: &mut Vec<u8>, answer: &impl Serialize) {
    output.clear();
    if serde_json::to_writer(&mut *output, answer).is_err() {
        output.clear();
    }
    output.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::{super::protocol::Request, *};

    #[test]
    fn what_the_supervisor_sends_again_and_again_is_known_at_sight() {
        let line = |request: &Request| serde_json::to_vec(request).unwrap();
        assert!(is_query(&line(&Request::Query {})));
        assert_eq!(granted(&line(&Request::Grant { deadline: Moment(7) })), Some(Moment(7)));
    }

    #[test]
    fn what_is_no_plain_grant_is_left_to_be_refused_with_a_reason() {
        for line in [
            r#"{"request":"grant","deadline":-1}"#,
            r#"{"request":"grant","deadline":7,"more":1}"#,
            r#"{"request":"grant","deadline":7,"deadline":8}"#,
            r#"{"request":"grant","request":"revoke","deadline":7}"#,
            r#"{"request":"grant","deadline":7} x"#,
            r#"{"request":"grant","#,
            r#"{"request":"revoke"}"#,
            "",
        ] {
            assert_eq!(granted(line.as_bytes()), None, "{line}");
        }
    }
}
