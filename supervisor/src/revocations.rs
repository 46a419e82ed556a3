//! Which hosts' certificates count no more, as this host knows it: from its own copy of the state, or from what the
//! coordinator told its agent, whichever is newer; and before it has either, from what it was told before it started (R27).
//!
//! Every handshake, every request, every call and every datagram asks here, so that a revocation counts from its commit on
//! and ends connections that are open.

mod kept;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, PoisonError},
};

pub use kept::{Kept, KeptError};

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
    kept: Arc<Kept>,
}

impl Revocations {
    /// What these know.
    #[must_use]
    pub fn new(replica: SharedReplica, view: watch::Receiver<Arc<View>>, kept: Kept) -> Self {
        Self { replica, view, kept: Arc::new(kept) }
    }

    /// Keeps in this file what the coordinator tells, for as long as it tells anything.
    pub async fn keep(self, path: PathBuf) {
        kept::keep(path, self.kept, self.view).await;
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

    /// Ears that hear whom this one hears. Which boots have joined only those know who have the state.
    #[must_use]
    pub fn ears(&self) -> Ears {
        let (known, replica) = (self.clone(), Arc::clone(&self.replica));
        Ears::new(move |host, incarnation| known.hears(host, incarnation)).knowing(move |host, incarnation| {
            replica.read().unwrap_or_else(PoisonError::into_inner).state.is_current(host, incarnation)
        })
    }

    /// Looks at the newer knowledge: what is revoked, and whether the host has joined. A voter that lags behind, or has
    /// stopped, has it from the coordinator; the coordinator itself from its own copy. What was kept counts until either is
    /// as new.
    fn newest<T>(&self, look: impl FnOnce(&BTreeMap<HostName, Revocation>, bool) -> T, host: &HostName) -> T {
        // Never both locks at once.
        let view = Arc::clone(&self.view.borrow());
        let replica = self.replica.read().unwrap_or_else(PoisonError::into_inner);
        if view.index == 0 && replica.state.applied < self.kept.index {
            // Whether it has joined is not known: nobody could have whose certificate was not readmitted.
            let revoked = &self.kept.revoked;
            look(revoked, revoked.get(host).is_some_and(|revocation| revocation.readmitted.is_some()))
        } else if replica.state.applied >= view.index {
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
        let known = Revocations::new(Arc::clone(&replica), view, Kept::default());
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

    #[tokio::test]
    async fn a_supervisor_that_starts_anew_knows_who_was_revoked_before_it_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = Kept::path(folder.path());
        let certificate = HostCertificate { host: host("m1"), serial: "5f".parse().unwrap() };
        let told = |index, readmitted| Arc::new(View { index, revoked: revoked(readmitted), ..View::default() });
        let (views, view) = watch::channel(Arc::new(View::default()));
        let keeping = tokio::spawn(Revocations::new(Replica::born(), view, Kept::default()).keep(path.clone()));
        views.send_replace(told(7, None));
        drop(views);
        keeping.await.unwrap();

        let (views, view) = watch::channel(Arc::new(View::default()));
        let replica = Replica::born();
        let known = Revocations::new(Arc::clone(&replica), view, Kept::load(&path).unwrap());
        assert!(known.admit(&certificate).is_err() && !known.hears(&host("m1"), &boot("m1.1")));
        assert!(known.hears(&host("h1"), &boot("h1.1")));
        // A voter that catches up knows better from the entry on from which the list was.
        for (applied, counts) in [(6, false), (7, true)] {
            replica.write().unwrap().state.applied = applied;
            assert_eq!(known.admit(&certificate).is_ok(), counts, "{applied}");
        }
        replica.write().unwrap().state.applied = 0;
        views.send_replace(told(9, Some("5f")));
        assert!(known.admit(&certificate).is_ok(), "what it is told counts");
    }
}
