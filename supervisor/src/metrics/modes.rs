//! What people want of hosts and guests, and what holds Holdfast back from acting: as the coordinator knows it.

use holdfast_policies::{
    names::{GuestName, HostName},
    state::{Mode, Wanted},
};
use prometheus::{IntGauge, IntGaugeVec, Registry};

use super::{
    labels::{HostMode, Wish},
    names,
    series::{gauge, gauges, one_of, put},
};

/// One picture of all modes and holds.
#[derive(Debug, Default)]
pub struct Modes<'a> {
    /// Each host, what is wanted of it, and whether it is quarantined.
    pub hosts: Vec<(&'a HostName, Mode, bool)>,
    /// Each guest, what is wanted of it, and whether it is given up.
    pub guests: Vec<(&'a GuestName, Wanted, bool)>,
    /// Deciding is suspended.
    pub suspended: bool,
    /// Fencing is held.
    pub storm_hold: bool,
}

/// The families.
pub(super) struct ModeMetrics {
    host_mode: IntGaugeVec,
    host_quarantined: IntGaugeVec,
    guest_wanted: IntGaugeVec,
    guest_given_up: IntGaugeVec,
    suspended: IntGauge,
    storm_hold: IntGauge,
}

impl ModeMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            host_mode: gauges(registry, names::HOST_MODE, &["host", "mode"])?,
            host_quarantined: gauges(registry, names::HOST_QUARANTINED, &["host"])?,
            guest_wanted: gauges(registry, names::GUEST_WANTED, &["guest", "wanted"])?,
            guest_given_up: gauges(registry, names::GUEST_GIVEN_UP, &["guest"])?,
            suspended: gauge(registry, names::SUSPENDED)?,
            storm_hold: gauge(registry, names::STORM_HOLD)?,
        })
    }

    /// Replaces what is shown.
    pub(super) fn set(&self, modes: &Modes<'_>) {
        for family in [&self.host_mode, &self.host_quarantined, &self.guest_wanted, &self.guest_given_up] {
            family.reset();
        }
        for (host, mode, quarantined) in &modes.hosts {
            one_of(&self.host_mode, &[host.as_str()], HostMode::of(*mode));
            put(&self.host_quarantined, &[host.as_str()], i64::from(*quarantined));
        }
        for (guest, wanted, given_up) in &modes.guests {
            one_of(&self.guest_wanted, &[guest.as_str()], Wish::of(*wanted));
            put(&self.guest_given_up, &[guest.as_str()], i64::from(*given_up));
        }
        self.suspended.set(i64::from(modes.suspended));
        self.storm_hold.set(i64::from(modes.storm_hold));
    }
}

impl HostMode {
    fn of(mode: Mode) -> Self {
        match mode {
            Mode::Active => Self::Active,
            Mode::Draining => Self::Draining,
            Mode::Maintenance => Self::Maintenance,
            Mode::Leaving { reboot: true } => Self::Rebooting,
            Mode::Leaving { reboot: false } => Self::ShuttingDown,
        }
    }
}

impl Wish {
    fn of(wanted: Wanted) -> Self {
        match wanted {
            Wanted::Running => Self::Running,
            Wanted::Stopped => Self::Stopped,
            Wanted::Unmanaged => Self::Unmanaged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Label;

    #[test]
    fn labels_are_the_words_of_status_and_journal() {
        let modes = [Mode::Active, Mode::Draining, Mode::Maintenance];
        let leaving = [true, false].map(|reboot| Mode::Leaving { reboot });
        for mode in modes.into_iter().chain(leaving) {
            assert_eq!(HostMode::of(mode).word(), mode.word());
        }
        for wanted in [Wanted::Running, Wanted::Stopped, Wanted::Unmanaged] {
            assert_eq!(Wish::of(wanted).word(), wanted.word());
        }
    }
}
