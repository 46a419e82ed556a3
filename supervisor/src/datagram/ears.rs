//! Whom a socket listens to: everybody who seals with the cluster's key, but for those who were taken out of it (R27). And whom it
//! knows to have joined: of which boot of a host its certificate has vouched.

use std::{fmt, sync::Arc};

use holdfast_policies::names::{HostName, Incarnation};

/// Whether datagrams of a boot are heard; cheap to clone.
#[derive(Clone)]
pub struct Ears {
    hears: Arc<OfBoot>,
    joined: Arc<OfBoot>,
}

/// What is so of a boot of a host.
type OfBoot = dyn Fn(&HostName, &Incarnation) -> bool + Send + Sync;

impl Ears {
    /// Ears that hear whom `hears` says.
    pub fn new(hears: impl Fn(&HostName, &Incarnation) -> bool + Send + Sync + 'static) -> Self {
        Self { hears: Arc::new(hears), joined: Arc::new(|_, _| false) }
    }

    /// The same ears, which know of the boots that have joined.
    #[must_use]
    pub fn knowing(self, joined: impl Fn(&HostName, &Incarnation) -> bool + Send + Sync + 'static) -> Self {
        Self { joined: Arc::new(joined), ..self }
    }

    /// Whether this boot is known to be the one with which its host has joined.
    #[must_use]
    pub fn has_joined(&self, host: &HostName, incarnation: &Incarnation) -> bool {
        (self.joined)(host, incarnation)
    }

    /// Whether this boot is heard.
    #[must_use]
    pub fn hear(&self, host: &HostName, incarnation: &Incarnation) -> bool {
        (self.hears)(host, incarnation)
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
