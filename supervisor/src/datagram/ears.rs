//! Whom a socket listens to: everybody who seals with the cluster's key, but for those who were taken out of it (R27).

use std::{fmt, sync::Arc};

use holdfast_policies::names::{HostName, Incarnation};

/// Whether datagrams of a boot are heard; cheap to clone.
#[derive(Clone)]
pub struct Ears(Arc<Listens>);

/// Whether a boot of a host is listened to.
type Listens = dyn Fn(&HostName, &Incarnation) -> bool + Send + Sync;

impl Ears {
    /// Ears that hear whom `hears` says.
    pub fn new(hears: impl Fn(&HostName, &Incarnation) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(hears))
    }

    /// Whether this boot is heard.
    #[must_use]
    pub fn hear(&self, host: &HostName, incarnation: &Incarnation) -> bool {
        (self.0)(host, incarnation)
    }
}

impl Default for Ears {
    /// Ears that hear everybody.
    fn default() -> Self {
        Self::new(|_, _| true)
    }
}

impl fmt::Debug for Ears {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ears")
    }
}
