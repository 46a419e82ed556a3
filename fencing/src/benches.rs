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

/// For how long an off of these devices may still be carried out: they do at once whatever they do, and their tests wait until
/// nothing can be left of it.
pub(crate) const SETTLED: Duration = Duration::from_secs(2);

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

/// The hand of a device that has it as methods of its own; what differs is how a fault is made.
macro_rules! bench {
    ($device:ty, $set:expr) => {
        impl Bench for $device {
            fn device(&self) -> Arc<dyn PowerDevice> {
                Arc::new(<$device>::device(self))
            }
            fn set(&self, fault: Fault) {
                let set: fn(&Self, Fault) = $set;
                set(self, fault);
            }
            fn switch_on(&self, on: bool) {
                self.set_power(on);
            }
            fn is_on(&self) -> bool {
                <$device>::is_on(self)
            }
            fn offs(&self) -> u32 {
                <$device>::offs(self)
            }
        }
    };
    ($device:ty) => {
        bench!($device, |device, fault| {
            let (file, content) = fault.file();
            device.fault(file, content);
        });
    };
}

bench!(Simulator);
bench!(Script);
bench!(Programs);
bench!(Virsh);
bench!(Automation, |automation, fault| automation.quirk(match fault {
    Fault::Stuck => WebhookQuirk::Stuck,
    Fault::Slow => WebhookQuirk::Slow,
    Fault::Fails => WebhookQuirk::Fails,
}));
bench!(Machine, |machine, fault| machine.quirk(match fault {
    Fault::Stuck => QemuQuirk::Stuck,
    Fault::Slow => QemuQuirk::Slow,
    Fault::Fails => QemuQuirk::Fails,
}));

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
