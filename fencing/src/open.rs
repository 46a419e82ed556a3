//! From declared power devices to those that carry it out.

use std::sync::Arc;

use holdfast_policies::model::{FenceLevel, PowerDevice as Declared};

use crate::{
    agent::Agent, command::Command, device::PowerDevice, ipmi::Ipmi, libvirt::Libvirt, qemu::Qemu, redfish::Redfish,
    webhook::Webhook,
};

/// The power devices of a level; none where it has none. Nothing is contacted.
#[must_use]
pub fn devices(level: &FenceLevel) -> Vec<Arc<dyn PowerDevice>> {
    level.devices().iter().map(device).collect()
}

pub(crate) fn device(declared: &Declared) -> Arc<dyn PowerDevice> {
    match declared {
        Declared::Ipmi(settings) => Arc::new(Ipmi::new(settings.clone())),
        Declared::Redfish(settings) => Arc::new(Redfish::new(settings.clone())),
        Declared::Agent(settings) => Arc::new(Agent::new(settings.clone())),
        Declared::Webhook(settings) => Arc::new(Webhook::new(settings.clone())),
        Declared::Command(settings) => Arc::new(Command::new(settings.clone())),
        Declared::Libvirt(settings) => Arc::new(Libvirt::new(settings.clone())),
        Declared::Qemu(settings) => Arc::new(Qemu::new(settings.clone())),
    }
}
