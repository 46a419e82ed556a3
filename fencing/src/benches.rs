//! Devices under test, each with a hand on the host behind it.

use std::{sync::Arc, time::Duration};

use crate::{
    Power, PowerDevice,
    agent::tests::Script,
    command::tests::Programs,
    fake::{FakeDevice, Manner},
    libvirt::tests::Virsh,
    qemu::tests::{Machine, Quirk as QemuQuirk},
    redfish::scripted::{Quirk, Scripted},
    simulator::Simulator,
    webhook::tests::{Automation, Quirk as WebhookQuirk},
};

/// What is wrong with a device.
pub enum Fault {
    /// It accepts and does nothing.
    Stuck,
    /// It answers late.
    Slow,
    /// It answers that something went wrong.
    Fails,
}

impl Fault {
    /// The file that makes it, and its content, for devices whose faults are files.
    fn file(&self) -> (&'static str, &'static str) {
        match self {
            Self::Stuck => ("stuck", ""),
            Self::Slow => ("slow", "0.4"),
            Self::Fails => ("fail", ""),
        }
    }
}

/// A device and a hand on the host behind it.
pub trait Bench {
    fn device(&self) -> Arc<dyn PowerDevice>;
    fn set(&self, fault: Fault);
    fn switch_on(&self, on: bool);
    fn is_on(&self) -> bool;
    fn offs(&self) -> u32;
}

impl Bench for Arc<FakeDevice> {
    fn device(&self) -> Arc<dyn PowerDevice> {
        Arc::clone(self) as Arc<dyn PowerDevice>
    }
    fn set(&self, fault: Fault) {
        self.set_manner(match fault {
            Fault::Stuck => Manner::Stuck,
            Fault::Slow => Manner::Slow(Duration::from_millis(400)),
            Fault::Fails => Manner::Fails,
        });
    }
    fn switch_on(&self, on: bool) {
        self.set_power(if on { Power::On } else { Power::Off });
    }
    fn is_on(&self) -> bool {
        self.power() == Power::On
    }
    fn offs(&self) -> u32 {
        FakeDevice::offs(self)
    }
}

impl Bench for Simulator {
    fn device(&self) -> Arc<dyn PowerDevice> {
        Arc::new(Simulator::device(self))
    }
    fn set(&self, fault: Fault) {
        let (file, content) = fault.file();
        self.fault(file, content);
    }
    fn switch_on(&self, on: bool) {
        self.set_power(on);
    }
    fn is_on(&self) -> bool {
        Simulator::is_on(self)
    }
    fn offs(&self) -> u32 {
        Simulator::offs(self)
    }
}

impl Bench for Scripted {
    fn device(&self) -> Arc<dyn PowerDevice> {
        Arc::new(Scripted::device(self))
    }
    fn set(&self, fault: Fault) {
        self.quirk(match fault {
            Fault::Stuck => Quirk::Stuck,
            Fault::Slow => Quirk::Slow(Duration::from_millis(400)),
            Fault::Fails => Quirk::Answers(500),
        });
    }
    fn switch_on(&self, on: bool) {
        self.set_power(if on { "On" } else { "Off" });
    }
    fn is_on(&self) -> bool {
        self.power() == "On"
    }
    fn offs(&self) -> u32 {
        Scripted::offs(self)
    }
}

impl Bench for Script {
    fn device(&self) -> Arc<dyn PowerDevice> {
        Arc::new(Script::device(self))
    }
    fn set(&self, fault: Fault) {
        let (file, content) = fault.file();
        self.fault(file, content);
    }
    fn switch_on(&self, on: bool) {
        self.set_power(on);
    }
    fn is_on(&self) -> bool {
        Script::is_on(self)
    }
    fn offs(&self) -> u32 {
        Script::offs(self)
    }
}

impl Bench for Programs {
    fn device(&self) -> Arc<dyn PowerDevice> {
        Arc::new(Programs::device(self))
    }
    fn set(&self, fault: Fault) {
        let (file, content) = fault.file();
        self.fault(file, content);
    }
    fn switch_on(&self, on: bool) {
        self.set_power(on);
    }
    fn is_on(&self) -> bool {
        Programs::is_on(self)
    }
    fn offs(&self) -> u32 {
        Programs::offs(self)
    }
}

impl Bench for Automation {
    fn device(&self) -> Arc<dyn PowerDevice> {
        Arc::new(Automation::device(self))
    }
    fn set(&self, fault: Fault) {
        self.quirk(match fault {
            Fault::Stuck => WebhookQuirk::Stuck,
            Fault::Slow => WebhookQuirk::Slow,
            Fault::Fails => WebhookQuirk::Fails,
        });
    }
    fn switch_on(&self, on: bool) {
        self.set_power(on);
    }
    fn is_on(&self) -> bool {
        Automation::is_on(self)
    }
    fn offs(&self) -> u32 {
        Automation::offs(self)
    }
}

impl Bench for Virsh {
    fn device(&self) -> Arc<dyn PowerDevice> {
        Arc::new(Virsh::device(self))
    }
    fn set(&self, fault: Fault) {
        let (file, content) = fault.file();
        self.fault(file, content);
    }
    fn switch_on(&self, on: bool) {
        self.set_power(on);
    }
    fn is_on(&self) -> bool {
        Virsh::is_on(self)
    }
    fn offs(&self) -> u32 {
        Virsh::offs(self)
    }
}

impl Bench for Machine {
    fn device(&self) -> Arc<dyn PowerDevice> {
        Arc::new(Machine::device(self))
    }
    fn set(&self, fault: Fault) {
        self.quirk(match fault {
            Fault::Stuck => QemuQuirk::Stuck,
            Fault::Slow => QemuQuirk::Slow,
            Fault::Fails => QemuQuirk::Fails,
        });
    }
    fn switch_on(&self, on: bool) {
        self.set_power(on);
    }
    fn is_on(&self) -> bool {
        Machine::is_on(self)
    }
    fn offs(&self) -> u32 {
        Machine::offs(self)
    }
}
