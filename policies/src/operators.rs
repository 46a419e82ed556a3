//! Operators: people who vouch for their orders by certificates of their own, and which of those count no more.
//!
//! Without such a certificate a person's name is the word of the host that passed it on: whoever is root there, or has
//! stolen its key, can give orders in any name.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{names::OperatorName, rules::ClusterSettings};

/// Longest serial number, in hexadecimal digits: certificates have at most 20 bytes (RFC 5280).
const SERIAL_DIGITS_MAX: usize = 40;

/// What marks a serial number where names may stand too: no name has a colon.
const SERIAL_MARK: &str = "serial:";

/// Whether orders need an operator's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Certificates {
    /// The word of a host is enough.
    #[default]
    Optional,
    /// Only an operator's own certificate counts.
    Required,
}

/// An operator's certificate, as far as it matters who gives an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorCertificate {
    /// Whose it is.
    pub name: OperatorName,
    /// Which of theirs it is.
    pub serial: Serial,
}

impl fmt::Display for OperatorCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "certificate {} of {}", self.serial, self.name)
    }
}

/// A certificate's serial number: lower-case hexadecimal digits without leading zeros.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Serial(String);

/// Why a text is not a serial number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a serial number: 1 to {SERIAL_DIGITS_MAX} hexadecimal digits, with or without colons")]
pub struct BadSerial {
    /// The text that was offered.
    pub text: String,
}

impl Serial {
    /// The number whose bytes these are, the highest first.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let nibbles = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0x0f]);
        let digits: String = nibbles.filter_map(|nibble| char::from_digit(u32::from(nibble), 16)).collect();
        Self::trimmed(&digits)
    }

    /// As programs print it: in either case, with or without colons.
    fn parse(text: &str) -> Option<Self> {
        let digits = text.replace(':', "").to_ascii_lowercase();
        let fits = (1..=SERIAL_DIGITS_MAX).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
        fits.then(|| Self::trimmed(&digits))
    }

    fn trimmed(digits: &str) -> Self {
        let rest = digits.trim_start_matches('0');
        Self(if rest.is_empty() { "0".to_owned() } else { rest.to_owned() })
    }
}

impl FromStr for Serial {
    type Err = BadSerial;
    fn from_str(text: &str) -> Result<Self, BadSerial> {
        Self::parse(text).ok_or_else(|| BadSerial { text: text.to_owned() })
    }
}

impl TryFrom<String> for Serial {
    type Error = BadSerial;
    fn try_from(text: String) -> Result<Self, BadSerial> {
        text.parse()
    }
}

impl From<Serial> for String {
    fn from(serial: Serial) -> String {
        serial.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Certificates that count no more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Revoked {
    /// All of one operator.
    Operator(OperatorName),
    /// A single one.
    Serial(Serial),
}

/// Why a text does not say what is revoked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is neither an operator's name nor `serial:` and up to {SERIAL_DIGITS_MAX} hexadecimal digits")]
pub struct BadRevoked {
    /// The text that was offered.
    pub text: String,
}

impl FromStr for Revoked {
    type Err = BadRevoked;
    fn from_str(text: &str) -> Result<Self, BadRevoked> {
        let read = match text.strip_prefix(SERIAL_MARK) {
            Some(serial) => Serial::parse(serial).map(Self::Serial),
            None => OperatorName::new(text).ok().map(Self::Operator),
        };
        read.ok_or_else(|| BadRevoked { text: text.to_owned() })
    }
}

impl TryFrom<String> for Revoked {
    type Error = BadRevoked;
    fn try_from(text: String) -> Result<Self, BadRevoked> {
        text.parse()
    }
}

impl fmt::Display for Revoked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator(name) => write!(f, "{name}"),
            Self::Serial(serial) => write!(f, "{SERIAL_MARK}{serial}"),
        }
    }
}

impl From<Revoked> for String {
    fn from(revoked: Revoked) -> String {
        revoked.to_string()
    }
}

impl ClusterSettings {
    /// Whether a certificate counts no more.
    #[must_use]
    pub fn revokes(&self, certificate: &OperatorCertificate) -> bool {
        self.revoked_operators.iter().any(|revoked| match revoked {
            Revoked::Operator(name) => *name == certificate.name,
            Revoked::Serial(serial) => *serial == certificate.serial,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(name: &str, serial: &[u8]) -> OperatorCertificate {
        OperatorCertificate { name: OperatorName::new(name).unwrap(), serial: Serial::from_bytes(serial) }
    }

    fn revoking(revoked: &str) -> ClusterSettings {
        ClusterSettings {
            revoked_operators: [revoked.parse::<Revoked>().unwrap()].into(),
            ..ClusterSettings::default()
        }
    }

    #[test]
    fn a_name_revokes_all_of_an_operators_certificates_and_a_serial_number_one() {
        let (first, second, other) = (certificate("ann", &[1, 2]), certificate("ann", &[3]), certificate("bob", &[4]));
        let of = |settings: ClusterSettings| [&first, &second, &other].map(|one| settings.revokes(one));
        assert_eq!(of(revoking("ann")), [true, true, false]);
        assert_eq!(of(revoking("serial:102")), [true, false, false]);
        assert_eq!(of(ClusterSettings::default()), [false; 3]);
    }

    #[test]
    fn a_serial_number_is_the_same_however_it_is_printed() {
        // A certificate puts a zero before a number whose first bit is set.
        let certificate = certificate("ann", &[0x00, 0x8f, 0x0a, 0xbc]);
        for printed in ["serial:8f0abc", "serial:8F0ABC", "serial:008f0abc", "serial:8f:0a:bc", "serial:00:8F:0A:BC"] {
            assert!(revoking(printed).revokes(&certificate), "{printed}");
        }
        assert!(!revoking("serial:8f0abd").revokes(&certificate));
    }

    #[test]
    fn what_is_revoked_reads_back_as_it_was_written_and_nonsense_is_refused() {
        for text in ["ann", "serial:8f0abc", "serial:0"] {
            let revoked: Revoked = text.parse().unwrap();
            assert_eq!(String::from(revoked.clone()), text);
            assert_eq!(serde_json::from_value::<Revoked>(serde_json::to_value(&revoked).unwrap()).unwrap(), revoked);
        }
        for wrong in
            ["", "ann through hv-a", "serial:", "serial:xyz", "serial:+1", &format!("serial:{}", "1".repeat(41))]
        {
            assert!(wrong.parse::<Revoked>().is_err(), "{wrong:?}");
        }
    }
}
