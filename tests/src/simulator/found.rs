//! What is really so of a guest: as its host has it, and as it shows from elsewhere.

use std::fmt;

use holdfast_policies::names::{Epoch, GuestName};

use super::{
    Ms,
    guest::{UP_AFTER, Vm},
    host::Host,
    world::World,
};

/// What is really so of a guest under an assignment, as it shows from somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Its services answer.
    Answers,
    /// It runs, and its services do not answer.
    Hangs,
    /// It boots after its start.
    Boots,
    /// It boots after a reset of its own.
    BootsAnew,
    /// It is paused.
    Paused,
    /// It was sent away, or waits for what is to be sent to it.
    OnItsWay,
    /// Its process has ended.
    Ended,
    /// Its kernel has panicked.
    Panicked,
    /// There is nothing of it under this assignment.
    Nothing,
    /// Its host is off, hangs or stands still.
    HostDown,
    /// No message passes between the vantage and its host, in one direction or the other.
    CutOff,
    /// It would answer, and what it shares with others does not work.
    Common,
    /// The vantage's probes fail for a reason of their own.
    Blind,
    /// The vantage cannot ask.
    NotAsked,
}

impl Found {
    /// Whether a vantage that has come upon it for long enough rightly says that the service fails.
    pub(super) fn accuses(self) -> bool {
        match self {
            Self::Hangs
            | Self::BootsAnew
            | Self::Ended
            | Self::Panicked
            | Self::Nothing
            | Self::HostDown
            | Self::CutOff
            | Self::Common
            | Self::Blind => true,
            Self::Answers | Self::Boots | Self::Paused | Self::OnItsWay | Self::NotAsked => false,
        }
    }

    /// Whether the guest is over under this assignment, as far as its host goes.
    pub(super) fn is_over(self) -> bool {
        matches!(self, Self::Ended | Self::Panicked | Self::Nothing)
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answers => "it answers",
            Self::Hangs => "it hangs",
            Self::Boots => "it boots",
            Self::BootsAnew => "it boots after a reset of its own",
            Self::Paused => "it is paused",
            Self::OnItsWay => "it was sent away or waits for what is to be sent",
            Self::Ended => "its process has ended",
            Self::Panicked => "its kernel has panicked",
            Self::Nothing => "nothing of it is there",
            Self::HostDown => "its host is off or stands still",
            Self::CutOff => "the network is cut",
            Self::Common => "what it shares with others does not work",
            Self::Blind => "the probes fail by themselves",
            Self::NotAsked => "it cannot be asked from there",
        })
    }
}

impl Host {
    /// What is really so of a guest here, to whoever reaches this host.
    #[must_use]
    pub fn found(&self, guest: &GuestName, epoch: Epoch, now: Ms) -> Found {
        if !self.alive(now) {
            return Found::HostDown;
        }
        let Some(machine) = self.machines.get(guest).filter(|machine| machine.epoch == epoch) else {
            return Found::Nothing;
        };
        match machine.state {
            Vm::Exited => Found::Ended,
            Vm::Panicked => Found::Panicked,
            Vm::Paused => Found::Paused,
            Vm::Incoming(_) | Vm::Sent => Found::OnItsWay,
            Vm::Running if machine.ill => Found::Hangs,
            Vm::Running if now >= machine.since + UP_AFTER => Found::Answers,
            Vm::Running if self.has_reset_itself(guest, epoch) => Found::BootsAnew,
            Vm::Running => Found::Boots,
        }
    }

    /// Whether a guest has reset itself under this assignment: what it boots for is that, and not its start.
    fn has_reset_itself(&self, guest: &GuestName, epoch: Epoch) -> bool {
        let newest = self.resets.get(guest).and_then(|resets| resets.last());
        newest.is_some_and(|(under, _)| *under == epoch)
    }

    /// How it is itself, in words.
    pub(super) fn how(&self, now: Ms) -> &'static str {
        match (self.on, self.hung, self.frozen_until > now, self.serves(now)) {
            (false, ..) => "off",
            (true, true, ..) => "hangs",
            (true, false, true, _) => "stands still",
            (true, false, false, false) => "its supervisor is down or stands still",
            (true, false, false, true) => "well",
        }
    }
}

impl World {
    /// What a host's probes of a guest really come upon.
    pub(super) fn found(&self, host: usize, home: usize, guest: &GuestName, epoch: Epoch) -> Found {
        let now = self.now;
        if self.hosts[host].unable.get(guest).is_some_and(|until| *until > now) {
            return Found::NotAsked;
        }
        if self.hosts[host].blind.get(guest).is_some_and(|until| *until > now) {
            return Found::Blind;
        }
        if !self.network.open(host, home, now) || !self.network.open(home, host, now) {
            return Found::CutOff;
        }
        match self.hosts[home].found(guest, epoch, now) {
            Found::Answers if self.causes.keep(guest, host == home, now) => Found::Common,
            found => found,
        }
    }
}
