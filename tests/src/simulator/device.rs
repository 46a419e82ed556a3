//! Power devices: each host's BMC, and the two outlets that feed a host with two power supplies. They can be slow, out of reach,
//! late, or say what is not so ([`super::lies`]).

use holdfast_policies::{
    model::FenceLevel,
    names::{HostName, OrderId},
    proof::Power,
};

use super::{Ms, world::World};

/// How a power device behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// As it should.
    #[default]
    Good,
    /// It takes many seconds for everything.
    Slow,
    /// It does not answer.
    Unreachable,
    /// It says that it has switched the host off, which stays on.
    Lying,
    /// It accepts an off at once and does it seconds later.
    Late,
    /// It says that the host is off, whatever is so, and switches nothing.
    Wrong,
}

/// The outlets of a host that is fed by outlets.
pub const OUTLETS: usize = 2;

/// What feeds one of a host's two power supplies. Each of them alone keeps the host on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlet {
    /// How it behaves: [`Device::Good`], [`Device::Unreachable`], [`Device::Lying`] or [`Device::Wrong`].
    pub device: Device,
    /// Whether it feeds its power supply.
    pub feeds: bool,
}

impl Default for Outlet {
    fn default() -> Self {
        Self { device: Device::Good, feeds: true }
    }
}

impl Outlet {
    fn says(self) -> Power {
        says(self.device, self.feeds)
    }
}

/// Whether the devices of a level are a host's two outlets.
fn has_outlets(level: &FenceLevel) -> bool {
    level.devices().len() == OUTLETS
}

/// The devices of a level, for people.
pub(super) fn device_names(level: &FenceLevel, host: &HostName) -> Vec<String> {
    if has_outlets(level) {
        (1..=OUTLETS).map(|row| format!("outlet {row} of {host}")).collect()
    } else {
        vec![format!("the BMC of {host}")]
    }
}

/// What a device says of what is on.
fn says(device: Device, on: bool) -> Power {
    match (device, on) {
        (Device::Unreachable, _) => Power::Unknown { detail: "no answer".to_owned() },
        (Device::Wrong, _) => Power::Off,
        (Device::Good | Device::Slow | Device::Lying | Device::Late, true) => Power::On,
        (Device::Good | Device::Slow | Device::Lying | Device::Late, false) => Power::Off,
    }
}

impl World {
    /// Reads the devices of a level: how long that takes, and what they say. What is on or off is looked at when it is asked.
    pub(super) fn read_level(&mut self, about: usize, level: &FenceLevel, patience: Ms) -> (Ms, Power) {
        let known = &self.hosts[about];
        let device = if has_outlets(level) { slowest(known.outlets) } else { known.device };
        let wait = match device {
            Device::Good | Device::Lying | Device::Late => self.random.between(20, 300),
            Device::Slow => self.random.between(800, 5_000),
            // Mostly long enough for the host to be heard meanwhile.
            Device::Wrong => self.random.between(20, 1_500),
            Device::Unreachable => patience,
        };
        if wait > patience {
            return (patience, Power::Unknown { detail: "no answer".to_owned() });
        }
        (wait, self.level_says(about, level))
    }

    /// What the devices of a level say all together: off only if every one of them says off.
    pub(super) fn level_says(&self, about: usize, level: &FenceLevel) -> Power {
        let known = &self.hosts[about];
        if !has_outlets(level) {
            return says(known.device, known.on);
        }
        let said = known.outlets.map(Outlet::says);
        if said.contains(&Power::On) {
            Power::On
        } else if said.iter().all(|word| *word == Power::Off) {
            Power::Off
        } else {
            Power::Unknown { detail: "an outlet gives no answer".to_owned() }
        }
    }

    /// Tells both outlets of a host not to feed it; whether none of them has refused. The host is on for as long as one of them
    /// does feed it.
    pub(super) fn switch_outlets(&mut self, about: usize, order: OrderId) -> bool {
        for outlet in &mut self.hosts[about].outlets {
            outlet.feeds &= matches!(outlet.device, Device::Unreachable | Device::Lying | Device::Wrong);
        }
        let outlets = self.hosts[about].outlets;
        if outlets.iter().any(|outlet| outlet.feeds) {
            self.seen.half_off += 1;
        } else if self.hosts[about].on {
            if !self.is_drill(order) && !self.is_lost(order) {
                self.check_still_wanted(about);
            }
            self.seen.both_off += 1;
            self.power_off(about, Some(order));
        }
        outlets.iter().all(|outlet| !matches!(outlet.device, Device::Unreachable | Device::Lying))
    }
}

/// Of two outlets, the one that a question about both waits for.
fn slowest(outlets: [Outlet; OUTLETS]) -> Device {
    let is = |device| outlets.iter().any(|outlet| outlet.device == device);
    if is(Device::Unreachable) {
        Device::Unreachable
    } else if is(Device::Wrong) {
        Device::Wrong
    } else {
        Device::Good
    }
}
