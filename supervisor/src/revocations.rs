//! Which hosts' certificates count no more, as this host knows it: from its own copy of the state, or from what the
//! coordinator told its agent, whichever is newer (R27).
//!
//! Every handshake, every request, every call and every datagram asks here, so that a revocation counts from its commit on
//! and ends connections that are open.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
};

use holdfast_policies::{
    names::{HostName, Incarnation},
    revocation::{CertificateRevoked, HostCertificate, Revocation, admit, is_heard},
    sync::View,
};
use tokio::sync::watch;

use crate::{datagram::Ears, replica::SharedReplica};

/// What is known of revoked hosts; cheap to clone.
#[derive(Debug, Clone)]
pub struct Revocations {
    replica: SharedReplica,
    view: watch::Receiver<Arc<View>>,
}

impl Revocations {
    /// What these two know.
    #[must_use]
    pub fn new(replica: SharedReplica, view: watch::Receiver<Arc<View>>) -> Self {
        Self { replica, view }
    }

    /// Whether a certificate counts.
    ///
    /// # Errors
    /// [`CertificateRevoked`]
    pub fn admit(&self, certificate: &HostCertificate) -> Result<(), CertificateRevoked> {
        self.newest(|revoked, _| admit(revoked, certificate), &certificate.host)
    }

    /// Whether datagrams of this boot are heard.
    #[must_use]
    pub fn hears(&self, host: &HostName, incarnation: &Incarnation) -> bool {
        self.newest(|revoked, joined| is_heard(revoked, joined, host, incarnation), host)
    }

    /// Ears that hear whom this one hears.
    #[must_use]
    pub fn ears(&self) -> Ears {
        let known = self.clone();
        Ears::new(move |host, incarnation| known.hears(host, incarnation))
    }

    /// Looks at the newer knowledge: what is revoked, and whether the host has joined. A voter that lags behind, or has
    /// stopped, has it from the coordinator; the coordinator itself from its own copy.
    fn newest<T>(&self, look: impl FnOnce(&BTreeMap<HostName, Revocation>, bool) -> T, host: &HostName) -> T {
        // Never both locks at once.
        let view = Arc::clone(&self.view.borrow());
        let replica = self.replica.read().unwrap_or_else(PoisonError::into_inner);
        if replica.state.applied >= view.index {
            look(&replica.state.revoked, replica.state.hosts.contains_key(host))
        } else {
            look(&view.revoked, view.hosts.contains_key(host))
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_policies::operators::Serial;

    use super::*;
    use crate::{desk::tests::host, replica::Replica};

    fn revoked(readmitted: Option<&str>) -> BTreeMap<HostName, Revocation> {
        let readmitted = readmitted.map(|serial| serial.parse::<Serial>().unwrap());
        let (by, why, boots) = ("ann".to_owned(), "stolen".to_owned(), vec![boot("m1.1")]);
        BTreeMap::from([(host("m1"), Revocation { since: 7, by, why, boots, keys: [].into(), readmitted })])
    }

    fn boot(text: &str) -> Incarnation {
        Incarnation::new(text).unwrap()
    }

    #[test]
    fn the_newer_of_what_a_host_has_applied_and_what_it_was_told_counts() {
        let (views, view) = watch::channel(Arc::new(View::default()));
        let replica = Replica::born();
        let known = Revocations::new(Arc::clone(&replica), view);
        let certificate = HostCertificate { host: host("m1"), serial: "5f".parse().unwrap() };
        let counts = |known: &Revocations| (known.admit(&certificate).is_ok(), known.hears(&host("m1"), &boot("m1.1")));
        assert_eq!(counts(&known), (true, true));
        // A member has no state of its own.
        views.send_replace(Arc::new(View { index: 7, revoked: revoked(None), ..View::default() }));
        assert_eq!(counts(&known), (false, false));
        // A voter has.
        {
            let mut replica = replica.write().unwrap();
            replica.state.applied = 9;
            replica.state.revoked = revoked(Some("5f"));
        }
        assert_eq!(counts(&known), (true, false), "its boot from before is not heard");
        let ears = known.ears();
        assert!(!ears.hear(&host("m1"), &boot("m1.2")), "not before it has joined");
        assert!(ears.hear(&host("h1"), &boot("h1.1")));
    }
}
