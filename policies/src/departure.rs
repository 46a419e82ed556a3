//! Departure: what becomes of the guests of a host that has announced to go.

use crate::{
    names::HostName,
    rules::OnShutdown,
    state::{ClusterState, Mode},
};

/// What becomes of a host's guests before it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// They move away while they run.
    MoveAway,
    /// They are stopped, and start elsewhere.
    StopAndStartElsewhere,
    /// They are stopped, and start on the host again when it is back; elsewhere when that takes too long.
    StopAndKeepForAWhile,
    /// They are stopped, and start on the host again, however long it takes.
    StopAndKeep,
}

impl Departure {
    /// What an announced departure means.
    #[must_use]
    pub fn of(on_shutdown: OnShutdown, reboot: bool) -> Self {
        match (on_shutdown, reboot) {
            (OnShutdown::Conditional, true) => Self::StopAndKeepForAWhile,
            (OnShutdown::Conditional, false) | (OnShutdown::Failover, _) => Self::StopAndStartElsewhere,
            (OnShutdown::Migrate, _) => Self::MoveAway,
            (OnShutdown::Freeze, _) => Self::StopAndKeep,
        }
    }

    /// Whether guests that have stopped wait for the host.
    #[must_use]
    pub fn keeps(self) -> bool {
        match self {
            Self::StopAndKeepForAWhile | Self::StopAndKeep => true,
            Self::MoveAway | Self::StopAndStartElsewhere => false,
        }
    }
}

impl ClusterState {
    /// What becomes of the guests of a host, if it has announced to go.
    #[must_use]
    pub(crate) fn departure(&self, host: &HostName) -> Option<Departure> {
        let known = self.hosts.get(host)?;
        match known.mode {
            Mode::Leaving { .. } if known.in_maintenance() => None,
            Mode::Leaving { reboot } => Some(Departure::of(self.policies.cluster.on_shutdown, reboot)),
            Mode::Active | Mode::Draining | Mode::Maintenance => None,
        }
    }

    /// Whether the host's guests are to move away while they run.
    #[must_use]
    pub fn is_draining(&self, host: &HostName) -> bool {
        let drained = self.hosts.get(host).is_some_and(|known| known.mode == Mode::Draining);
        drained || self.departure(host) == Some(Departure::MoveAway)
    }
}
