//! What one question came to, before its latency is known, and which system errors mean what.

use std::io;

use holdfast_policies::observe::Outcome;

/// An outcome and the reason for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub outcome: Outcome,
    pub detail: String,
}

impl Finding {
    pub fn pass(detail: impl Into<String>) -> Self {
        Self { outcome: Outcome::Pass, detail: detail.into() }
    }

    pub fn fail(detail: impl Into<String>) -> Self {
        Self { outcome: Outcome::Fail, detail: detail.into() }
    }

    pub fn unknown(detail: impl Into<String>) -> Self {
        Self { outcome: Outcome::Unknown, detail: detail.into() }
    }
}

/// System errors that the other side caused, by an answer or by silence.
///
/// `EHOSTUNREACH` is among them: the neighbour did not answer ARP, so the guest is silent.
const THEIRS: [i32; 7] = [
    111, // ECONNREFUSED
    104, // ECONNRESET
    103, // ECONNABORTED
    110, // ETIMEDOUT
    113, // EHOSTUNREACH
    112, // EHOSTDOWN
    32,  // EPIPE
];

/// Whether a system error says something about the service. Every other error, such as a missing route, a local
/// firewall or a lack of file descriptors, is this vantage's own and says nothing (S5).
pub(crate) fn is_theirs(errno: i32) -> bool {
    THEIRS.contains(&errno)
}

/// Judges a system error met while connecting to a service.
pub(crate) fn of_io_error(error: &io::Error) -> Finding {
    match error.raw_os_error() {
        Some(errno) if !is_theirs(errno) => Finding::unknown(format!("cannot ask from here: {error}")),
        _ => Finding::fail(error.to_string()),
    }
}

/// Largest part of a body that is read, in bytes: enough for any health page, and an endless one harms nobody.
pub(crate) const BODY_BYTES_MAX: usize = 64 * 1024;

/// Judges a body whose status was right.
pub(crate) fn of_body(body: &[u8], wanted: Option<&str>, status: &str) -> Finding {
    let body = body.get(..BODY_BYTES_MAX).unwrap_or(body);
    match wanted {
        Some(text) if !contains(body, text.as_bytes()) => {
            Finding::fail(format!("{status}, but the body ({} bytes) does not contain {text:?}", body.len()))
        }
        _ => Finding::pass(status),
    }
}

fn contains(body: &[u8], text: &[u8]) -> bool {
    text.is_empty() || body.windows(text.len()).any(|window| window == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_route_or_descriptor_is_not_the_services_fault() {
        for (name, errno) in
            [("ENETUNREACH", 101), ("ENETDOWN", 100), ("EADDRNOTAVAIL", 99), ("EMFILE", 24), ("EPERM", 1)]
        {
            assert_eq!(of_io_error(&io::Error::from_raw_os_error(errno)).outcome, Outcome::Unknown, "{name}");
        }
    }

    #[test]
    fn a_guest_that_does_not_answer_arp_fails() {
        assert_eq!(of_io_error(&io::Error::from_raw_os_error(113)).outcome, Outcome::Fail);
    }

    #[test]
    fn only_the_first_part_of_a_body_is_searched() {
        let mut body = vec![b'x'; BODY_BYTES_MAX];
        body.extend_from_slice(b"ok");
        assert_eq!(of_body(&body, Some("ok"), "200").outcome, Outcome::Fail);
        assert_eq!(of_body(b"all ok", Some("ok"), "200").outcome, Outcome::Pass);
    }
}
