//! Power devices: each host's BMC, which can be slow, out of reach, late, or say what is not so.

use holdfast_policies::proof::Power;

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
}

impl World {
    /// Reads a device: how long that takes, and what it says. What is on or off is looked at when it is asked.
    pub(super) fn read_device(&mut self, about: usize, patience: Ms) -> (Ms, Power) {
        let unknown = || Power::Unknown { detail: "no answer".to_owned() };
        let wait = match self.hosts[about].device {
            Device::Good | Device::Lying | Device::Late => self.random.between(20, 300),
            Device::Slow => self.random.between(800, 5_000),
            Device::Unreachable => return (patience, unknown()),
        };
        if wait > patience {
            return (patience, unknown());
        }
        (wait, if self.hosts[about].on { Power::On } else { Power::Off })
    }
}
