//! From a declared fence level to the device that carries it out.

use std::sync::Arc;

use holdfast_policies::model::FenceLevel;

use crate::{device::PowerDevice, ipmi::Ipmi};

/// The power device of a level; `None` where only a human can act. Nothing is contacted.
#[must_use]
pub fn device(level: &FenceLevel) -> Option<Arc<dyn PowerDevice>> {
    match level {
        FenceLevel::Ipmi(settings) => Some(Arc::new(Ipmi::new(settings.clone()))),
        FenceLevel::Operator {} => None,
    }
}
