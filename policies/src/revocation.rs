//! Revoked hosts: whose certificates count no more, and which one does again (R27).
//!
//! ```text
//! joined --HostRevoked (proven gone, no voter)--> revoked --HostReadmitted (one certificate)--> readmitted --HostJoined--> joined
//! ```
//! All certificates of a name are revoked at once, whichever were issued, because nobody may have written down their
//! numbers. What counts again is named by its serial number and not by a date: clocks decide nothing (R1).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};

use crate::{
    change::Change,
    evidence::Evidence,
    model::Severity,
    names::{HostName, Incarnation},
    operators::Serial,
    state::{ClusterState, Life},
};

/// Names that can be revoked at once: several times as many as a cluster has hosts. None is forgotten, because a certificate
/// is valid for years; a cluster that comes so far makes a new authority.
pub const REVOKED_MAX: usize = 256;

/// Boots remembered of a revoked name: those that are remembered of a host that is revoked twice.
pub const BOOTS_MAX: usize = 2 * (crate::state::PAST_BOOTS_MAX + 1);

/// Gossip keys remembered of a revoked name: a host holds two at once, and a name that is revoked again may have known others.
pub const KEYS_MAX: usize = 16;

/// Longest that is remembered of who revoked a name and why, in bytes: every host is told all of it.
pub const WORD_BYTES_MAX: usize = 800;

/// The incident of a gossip key that a revoked host knows.
const KEY_INCIDENT: &str = "gossip_key";

/// Names a gossip key and says nothing about it: what stands in the clear in every datagram that is sealed under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(pub [u8; 4]);

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
    /// The gossip keys that the cluster, or it itself, had when it was revoked: it knows them; at most [`KEYS_MAX`].
    #[serde(default)]
    pub keys: BTreeSet<KeyId>,
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

/// What is to be told of gossip keys that revoked hosts know: a warning while any host holds one, because a host that holds a
/// key opens what is sealed under it. A host that is up and has not said which it holds may hold any: it keeps nobody from being
/// warned, and what was told stays as it is until it has said so.
#[must_use]
pub fn news_of_keys(state: &ClusterState, evidence: &Evidence) -> Option<Change> {
    let up = state.hosts.iter().filter(|(_, host)| host.life == Life::Up).map(|(name, _)| evidence.hosts.get(name));
    let said: Vec<_> = up.map(|seen| seen.filter(|seen| seen.sync.is_some())).collect();
    let all_have = said.iter().all(Option::is_some);
    let held: BTreeSet<KeyId> = said.into_iter().flatten().flat_map(|seen| seen.gossip_keys.iter().copied()).collect();
    let known_by = state.revoked.iter().filter(|(_, revocation)| !revocation.keys.is_disjoint(&held));
    let names: Vec<&str> = known_by.map(|(name, _)| name.as_str()).collect();
    let open = state.open_incident(KEY_INCIDENT);
    if open.is_some() && !all_have {
        return None;
    }
    if names.is_empty() {
        return open.map(|_| Change::IncidentResolved { key: KEY_INCIDENT.to_owned() });
    }
    let summary =
        format!("whoever has {} knows the gossip key, and can speak for any host in gossip", names.join(", "));
    if open.is_some_and(|open| open.summary == summary) {
        return None;
    }
    let human = "Change the gossip key on all hosts, as \"Changing the gossip key\" in docs/OPERATING.md says. This ends when no \
                 host holds the old one any more.";
    Some(Change::IncidentOpened {
        key: KEY_INCIDENT.to_owned(),
        severity: Severity::Warning,
        summary,
        human: Some(human.to_owned()),
        guests: Vec::new(),
        evidence: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        evidence::{Heard, HostEvidence},
        fixture::{Stage, boot, host},
        time::Moment,
    };

    fn revoked(readmitted: Option<&str>) -> BTreeMap<HostName, Revocation> {
        let readmitted = readmitted.map(|serial| serial.parse().unwrap());
        let (by, why, boots, keys) = ("ann".to_owned(), "stolen".to_owned(), vec![boot("a.1")], [KeyId([1; 4])].into());
        BTreeMap::from([(host("a"), Revocation { since: 7, by, why, boots, keys, readmitted })])
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

    #[test]
    fn a_gossip_key_that_a_revoked_host_knows_is_told_of_until_nobody_holds_it() {
        let mut stage = Stage::new(&["b", "c"], &[]);
        let heard = |holds: &[(&str, &[u8])]| {
            let seen = |(of, keys): &(&str, &[u8])| {
                let sync = Some(Heard { at: Moment(1), incarnation: boot(&format!("{of}.1")) });
                let gossip_keys = keys.iter().map(|key| KeyId([*key; 4])).collect();
                (host(of), HostEvidence { sync, gossip_keys, ..HostEvidence::default() })
            };
            Evidence { hosts: holds.iter().map(seen).collect(), ..Evidence::default() }
        };
        assert_eq!(news_of_keys(&stage.state, &heard(&[("b", &[1]), ("c", &[1])])), None, "nobody is revoked");
        stage.state.revoked = revoked(None);
        assert_eq!(news_of_keys(&stage.state, &heard(&[("b", &[2])])), None, "nobody is known to hold it");
        let early = news_of_keys(&stage.state, &heard(&[("b", &[1])]));
        assert!(
            matches!(early, Some(Change::IncidentOpened { .. })),
            "c, which has not said anything, holds up nobody"
        );
        let told = news_of_keys(&stage.state, &heard(&[("b", &[2, 1]), ("c", &[2])])).unwrap();
        assert!(matches!(&told, Change::IncidentOpened { summary, .. } if summary.starts_with("whoever has a knows")));
        stage.must(told);
        assert_eq!(news_of_keys(&stage.state, &heard(&[("b", &[2, 1]), ("c", &[2])])), None, "said once");
        assert_eq!(news_of_keys(&stage.state, &heard(&[("b", &[2])])), None, "c may hold it still");
        let over = news_of_keys(&stage.state, &heard(&[("b", &[2]), ("c", &[2])])).unwrap();
        assert_eq!(over, Change::IncidentResolved { key: "gossip_key".to_owned() });
        stage.must(over);
        let back = news_of_keys(&stage.state, &heard(&[("b", &[2]), ("c", &[1])]));
        assert!(matches!(back, Some(Change::IncidentOpened { .. })), "somebody has brought it back");
    }
}
