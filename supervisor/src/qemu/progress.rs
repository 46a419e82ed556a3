//! How far a guest has come that is being sent away, for whoever asks what its host does with it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_policies::observe::Sending;

/// Of one guest; cheap to clone. Nothing while it is not sent.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Mutex<Option<Sending>>>);

impl Progress {
    /// Notes how far it is, or that it is not sent any more.
    pub fn note(&self, sending: Option<Sending>) {
        *self.kept() = sending;
    }

    /// How far it is.
    pub fn told(&self) -> Option<Sending> {
        *self.kept()
    }

    fn kept(&self) -> MutexGuard<'_, Option<Sending>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
