//! Which system errors, met while asking over the network, mean what.

use std::io;

use crate::finding::Finding;

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
fn is_theirs(errno: i32) -> bool {
    THEIRS.contains(&errno)
}

/// Judges a system error met while connecting to a service.
pub(crate) fn of_io_error(error: &io::Error) -> Finding {
    match error.raw_os_error() {
        Some(errno) if !is_theirs(errno) => Finding::unknown(format!("cannot ask from here: {error}")),
        _ => Finding::fail(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use holdfast_policies::observe::Outcome;

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
}
