//! What goes wrong, by kind: what `--only` names, and which of them a burst is drawn from.

use std::{fmt, str::FromStr, time::Duration};

use super::setup::Setup;
use crate::{lab, simulator::random::Random};

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `kill -9` of a supervisor.
    SupervisorKilled,
    /// A supervisor that stands still (SIGSTOP).
    SupervisorStopped,
    /// A supervisor that gets a processor in turns only, as on a machine with too much to do.
    SupervisorStarved,
    /// `kill -9` of all supervisors.
    SupervisorsKilled,
    /// `kill -9` of a guard.
    GuardKilled,
    /// A guard that stands still.
    GuardStopped,
    /// `kill -9` of a QEMU.
    QemuKilled,
    /// A QEMU that stands still.
    QemuStopped,
    /// The service in a guest dies.
    ServiceKilled,
    /// The service in a guest answers no more.
    ServiceHung,
    /// A guest's kernel panics.
    GuestPanicked,
    /// A host's network cable is pulled.
    HostCutOff,
    /// Two hosts do not reach each other.
    LinkCut,
    /// One host does not reach another one, which reaches it.
    OneWayCut,
    /// A cable with a bad contact: half of what is sent is lost, in pieces of some hundred milliseconds.
    BadCable,
    /// A host loses its power, and gets it back.
    PowerCut,
    /// All hosts lose their power at once, and get it back.
    Blackout,
    /// All of a host stands still.
    HostFrozen,
    /// A power device does not answer, answers late, refuses, or does nothing.
    DeviceBad,
    /// A power device says that its host is off while it lives, and its supervisor stands still. Alone: nothing can tell that lie
    /// from the truth where nothing of the host is heard either (docs/SAFETY.md, R9).
    DeviceLies,
    /// An operator drains a host, and resumes it.
    Drained,
    /// An operator has a guest moved.
    Moved,
    /// An operator stops a guest, and starts it.
    GuestStopped,
    /// An operator suspends deciding, and resumes it.
    Suspended,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 24] = [
        Self::SupervisorKilled,
        Self::SupervisorStopped,
        Self::SupervisorStarved,
        Self::SupervisorsKilled,
        Self::GuardKilled,
        Self::GuardStopped,
        Self::QemuKilled,
        Self::QemuStopped,
        Self::ServiceKilled,
        Self::ServiceHung,
        Self::GuestPanicked,
        Self::HostCutOff,
        Self::LinkCut,
        Self::OneWayCut,
        Self::BadCable,
        Self::PowerCut,
        Self::Blackout,
        Self::HostFrozen,
        Self::DeviceBad,
        Self::DeviceLies,
        Self::Drained,
        Self::Moved,
        Self::GuestStopped,
        Self::Suspended,
    ];

    /// Its word on the command line and in the report.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::SupervisorKilled => "supervisor-killed",
            Self::SupervisorStopped => "supervisor-stopped",
            Self::SupervisorStarved => "supervisor-starved",
            Self::SupervisorsKilled => "supervisors-killed",
            Self::GuardKilled => "guard-killed",
            Self::GuardStopped => "guard-stopped",
            Self::QemuKilled => "qemu-killed",
            Self::QemuStopped => "qemu-stopped",
            Self::ServiceKilled => "service-killed",
            Self::ServiceHung => "service-hung",
            Self::GuestPanicked => "guest-panicked",
            Self::HostCutOff => "host-cut-off",
            Self::LinkCut => "link-cut",
            Self::OneWayCut => "one-way-cut",
            Self::BadCable => "bad-cable",
            Self::PowerCut => "power-cut",
            Self::Blackout => "blackout",
            Self::HostFrozen => "host-frozen",
            Self::DeviceBad => "device-bad",
            Self::DeviceLies => "device-lies",
            Self::Drained => "drained",
            Self::Moved => "moved",
            Self::GuestStopped => "guest-stopped",
            Self::Suspended => "suspended",
        }
    }

    /// Draws one of this kind; what a burst is about is hit more often than anything else.
    pub(super) fn draw(self, random: &mut Random, setup: &Setup, focus: &Focus) -> Fault {
        let host = focus.host(random, setup);
        let guest = focus.guest(random, setup);
        match self {
            Self::SupervisorKilled => Fault::SupervisorKilled { host, back: random.one_in(2) },
            Self::SupervisorStopped => Fault::SupervisorStopped { host },
            Self::SupervisorStarved => Fault::SupervisorStarved { host },
            Self::SupervisorsKilled => Fault::SupervisorsKilled,
            Self::GuardKilled => Fault::GuardKilled { host, back: random.one_in(2) },
            Self::GuardStopped => Fault::GuardStopped { host },
            Self::QemuKilled => Fault::QemuKilled { guest },
            Self::QemuStopped => Fault::QemuStopped { guest },
            Self::ServiceKilled => Fault::ServiceHurt { guest, how: Hurt::Killed },
            Self::ServiceHung => Fault::ServiceHurt { guest, how: Hurt::Hung },
            Self::GuestPanicked => Fault::ServiceHurt { guest, how: Hurt::Panicked },
            Self::HostCutOff => Fault::HostCutOff { host },
            Self::LinkCut => Fault::LinkCut { other: another(random, setup, &host), host, both_ways: true },
            Self::OneWayCut => Fault::LinkCut { other: another(random, setup, &host), host, both_ways: false },
            Self::BadCable => Fault::BadCable { host },
            Self::PowerCut => Fault::PowerCut { host },
            Self::Blackout => Fault::Blackout,
            Self::HostFrozen => Fault::HostFrozen { host },
            Self::DeviceBad => Fault::DeviceBad { host, how: bad_device(random) },
            Self::DeviceLies => Fault::DeviceLies { host },
            Self::Drained => Fault::Drained { host: runner(random, setup) },
            Self::Moved => Fault::Moved { guest, to: runner(random, setup), cold: random.one_in(4) },
            Self::GuestStopped => Fault::GuestStopped { guest },
            Self::Suspended => Fault::Suspended,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.word())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let words = || Self::ALL.map(Self::word).join(", ");
        Self::ALL.into_iter().find(|kind| kind.word() == word).ok_or_else(|| format!("no kind {word}; {}", words()))
    }
}

/// How the service in a guest, or all of the guest, is hurt from within.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hurt {
    Killed,
    Hung,
    Panicked,
}

/// One thing that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    SupervisorKilled { host: String, back: bool },
    SupervisorStopped { host: String },
    SupervisorStarved { host: String },
    SupervisorsKilled,
    GuardKilled { host: String, back: bool },
    GuardStopped { host: String },
    QemuKilled { guest: String },
    QemuStopped { guest: String },
    ServiceHurt { guest: String, how: Hurt },
    HostCutOff { host: String },
    LinkCut { host: String, other: String, both_ways: bool },
    BadCable { host: String },
    PowerCut { host: String },
    Blackout,
    HostFrozen { host: String },
    DeviceBad { host: String, how: lab::Fault },
    DeviceLies { host: String },
    Drained { host: String },
    Moved { guest: String, to: String, cold: bool },
    GuestStopped { guest: String },
    Suspended,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SupervisorKilled { host, back: true } => write!(out, "the supervisor of {host} crashes"),
            Self::SupervisorKilled { host, back: false } => write!(out, "the supervisor of {host} is killed"),
            Self::SupervisorStopped { host } => write!(out, "the supervisor of {host} stands still"),
            Self::SupervisorStarved { host } => write!(out, "the supervisor of {host} starves"),
            Self::SupervisorsKilled => write!(out, "all supervisors are killed"),
            Self::GuardKilled { host, back: true } => write!(out, "the guard of {host} crashes"),
            Self::GuardKilled { host, back: false } => write!(out, "the guard of {host} is killed"),
            Self::GuardStopped { host } => write!(out, "the guard of {host} stands still"),
            Self::QemuKilled { guest } => write!(out, "the QEMU of {guest} is killed"),
            Self::QemuStopped { guest } => write!(out, "the QEMU of {guest} stands still"),
            Self::ServiceHurt { guest, how: Hurt::Killed } => write!(out, "the service in {guest} is killed"),
            Self::ServiceHurt { guest, how: Hurt::Hung } => write!(out, "the service in {guest} hangs"),
            Self::ServiceHurt { guest, how: Hurt::Panicked } => write!(out, "the kernel of {guest} panics"),
            Self::HostCutOff { host } => write!(out, "{host} is cut off"),
            Self::LinkCut { host, other, both_ways: true } => write!(out, "{host} and {other} lose each other"),
            Self::LinkCut { host, other, both_ways: false } => write!(out, "{other} hears nothing of {host}"),
            Self::BadCable { host } => write!(out, "the cable of {host} has a bad contact"),
            Self::PowerCut { host } => write!(out, "{host} loses its power"),
            Self::Blackout => write!(out, "all hosts lose their power"),
            Self::HostFrozen { host } => write!(out, "{host} freezes"),
            Self::DeviceBad { host, how } => write!(out, "the power device of {host} is {how:?}"),
            Self::DeviceLies { host } => {
                write!(out, "the power device of {host} says off, and its supervisor stands still")
            }
            Self::Drained { host } => write!(out, "an operator drains {host}"),
            Self::Moved { guest, to, cold: false } => write!(out, "an operator moves {guest} to {to}"),
            Self::Moved { guest, to, cold: true } => write!(out, "an operator moves {guest} to {to}, cold"),
            Self::GuestStopped { guest } => write!(out, "an operator stops {guest}"),
            Self::Suspended => write!(out, "an operator suspends deciding"),
        }
    }
}

/// What a burst is mostly about: faults that meet are worth more than as many that have nothing to do with each other.
#[derive(Debug, Clone)]
pub(super) struct Focus {
    host: String,
    guest: String,
}

impl Focus {
    pub(super) fn draw(random: &mut Random, setup: &Setup) -> Self {
        Self { host: any_host(random, setup), guest: any_guest(random, setup) }
    }

    fn host(&self, random: &mut Random, setup: &Setup) -> String {
        let other = any_host(random, setup);
        if random.one_in(2) { self.host.clone() } else { other }
    }

    fn guest(&self, random: &mut Random, setup: &Setup) -> String {
        let other = any_guest(random, setup);
        if random.one_in(2) { self.guest.clone() } else { other }
    }
}

fn any_host(random: &mut Random, setup: &Setup) -> String {
    one_of(random, setup.hosts.iter().map(|spec| spec.name.as_str()))
}

fn any_guest(random: &mut Random, setup: &Setup) -> String {
    one_of(random, setup.guests.iter().map(|spec| spec.name.as_str()))
}

fn runner(random: &mut Random, setup: &Setup) -> String {
    one_of(random, setup.runners().into_iter())
}

fn another(random: &mut Random, setup: &Setup, host: &str) -> String {
    one_of(random, setup.hosts.iter().map(|spec| spec.name.as_str()).filter(|name| *name != host))
}

fn one_of<'a>(random: &mut Random, names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    names.get(random.index(names.len())).copied().unwrap_or_default().to_owned()
}

fn bad_device(random: &mut Random) -> lab::Fault {
    match random.below(5) {
        0 => lab::Fault::Stuck,
        1 => lab::Fault::Fail,
        2 => lab::Fault::WrongPassword,
        3 => lab::Fault::Slow(Duration::from_millis(random.between(500, 6_000))),
        _ => lab::Fault::Unreachable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_word_of_its_own_and_is_found_by_it() {
        for kind in Kind::ALL {
            assert_eq!(kind.word().parse(), Ok(kind));
        }
        assert!("nothing".parse::<Kind>().unwrap_err().contains("power-cut"));
    }
}
