//! Revoked hosts: whose certificates count no more, and which one does again (R27).
//!
//! ```text
//! joined --HostRevoked (proven gone, no voter)--> revoked --HostReadmitted (one certificate)--> readmitted --HostJoined--> joined
//! ```
//! All certificates of a name are revoked at once, whichever were issued, because nobody may have written down their
//! numbers. What counts again is named by its serial number and not by a date: clocks decide nothing (R1).

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    names::{HostName, Incarnation},
    operators::Serial,
};

/// Names that can be revoked at once: several times as many as a cluster has hosts. None is forgotten, because a certificate
/// is valid for years; a cluster that comes so far makes a new authority.
pub const REVOKED_MAX: usize = 256;

/// Boots remembered of a revoked name: those that are remembered of a host that is revoked twice.
pub const BOOTS_MAX: usize = 2 * (crate::state::PAST_BOOTS_MAX + 1);

/// A host's certificate, as far as it matters whether it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostCertificate {
    /// Whose it is.
    pub host: HostName,
    /// Which of that name.
    pub serial: Serial,
}

impl fmt::Display for HostCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "certificate {} of {}", self.serial, self.host)
    }
}

/// What is known of a revoked name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// The log index of the newest revocation.
    pub since: u64,
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
    /// Boots from before it, the newest last; at most [`BOOTS_MAX`]. None of them joins again, or is heard.
    pub boots: Vec<Incarnation>,
    /// The one certificate of this name that counts, if any.
    #[serde(default)]
    pub readmitted: Option<Serial>,
}

/// Why a certificate does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the certificate {serial} of {host} is revoked")]
pub struct CertificateRevoked {
    /// Whose it is.
    pub host: HostName,
    /// Which.
    pub serial: Serial,
}

/// Whether a certificate counts, as far as these revocations say.
///
/// # Errors
/// [`CertificateRevoked`]
pub fn admit(
    revoked: &BTreeMap<HostName, Revocation>,
    certificate: &HostCertificate,
) -> Result<(), CertificateRevoked> {
    match revoked.get(&certificate.host) {
        Some(revocation) if revocation.readmitted.as_ref() != Some(&certificate.serial) => {
            Err(CertificateRevoked { host: certificate.host.clone(), serial: certificate.serial.clone() })
        }
        Some(_) | None => Ok(()),
    }
}

/// Whether datagrams in the name of this boot are heard. Their seal is the whole cluster's, so of a revoked name only a boot
/// counts that came with the certificate which was readmitted. `joined` is whether a host of that name has joined.
#[must_use]
pub fn is_heard(
    revoked: &BTreeMap<HostName, Revocation>,
    joined: bool,
    host: &HostName,
    incarnation: &Incarnation,
) -> bool {
    revoked.get(host).is_none_or(|revocation| joined && !revocation.boots.contains(incarnation))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{boot, host};

    fn revoked(readmitted: Option<&str>) -> BTreeMap<HostName, Revocation> {
        let readmitted = readmitted.map(|serial| serial.parse().unwrap());
        let (by, why) = ("ann".to_owned(), "stolen".to_owned());
        BTreeMap::from([(host("a"), Revocation { since: 7, by, why, boots: vec![boot("a.1")], readmitted })])
    }

    fn certificate(of: &str, serial: &str) -> HostCertificate {
        HostCertificate { host: host(of), serial: serial.parse().unwrap() }
    }

    #[test]
    fn of_a_revoked_name_only_the_certificate_that_was_readmitted_counts() {
        let counts = |readmitted, of, serial| admit(&revoked(readmitted), &certificate(of, serial)).is_ok();
        assert!(!counts(None, "a", "5f") && !counts(Some("60"), "a", "5f"));
        assert!(counts(Some("60"), "a", "60") && counts(None, "b", "5f"));
        let said = admit(&revoked(None), &certificate("a", "00:5F")).unwrap_err().to_string();
        assert_eq!(said, "the certificate 5f of a is revoked");
    }

    #[test]
    fn a_revoked_name_is_heard_only_by_a_boot_that_came_after_it_and_joined() {
        let heard = |joined, of, incarnation| is_heard(&revoked(None), joined, &host(of), &boot(incarnation));
        assert!(!heard(false, "a", "a.1") && !heard(false, "a", "a.2") && !heard(true, "a", "a.1"));
        assert!(heard(true, "a", "a.2") && heard(false, "b", "b.1"));
    }

    #[test]
    fn a_revocation_reads_back_as_it_was_written() {
        let revocation = revoked(Some("5f")).remove(&host("a")).unwrap();
        let text = serde_json::to_string(&revocation).unwrap();
        assert_eq!(serde_json::from_str::<Revocation>(&text).unwrap(), revocation);
        assert!(serde_json::from_str::<Revocation>(&text.replace("5f", "no number")).is_err());
    }
}
