//! When nothing is done to a guest: what operators have said outranks every other reason to act.
//!
//! Looking goes on meanwhile: verdicts, reports and incidents are as always. What was begun before is finished, so that
//! no guest is left half started or half moved.

use std::{collections::BTreeSet, fmt};

use crate::{
    names::{GuestName, HostName},
    state::{ClusterState, Guest, Host, Life, Phase, Wanted},
};

/// Why nothing is done to a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandsOff {
    /// It is wanted [`Wanted::Unmanaged`].
    Unmanaged,
    /// Its host is in maintenance ([`Host::in_maintenance`]).
    Maintenance {
        /// The host.
        host: HostName,
    },
    /// Deciding is suspended, and the guest was not being brought back when that began.
    Suspended {
        /// By whom.
        by: String,
    },
}

impl fmt::Display for HandsOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unmanaged => write!(f, "it is unmanaged, so it is left alone"),
            Self::Maintenance { host } => write!(f, "{host} is in maintenance, so it is left alone"),
            Self::Suspended { by } => write!(f, "deciding is suspended by {by}"),
        }
    }
}

impl ClusterState {
    /// Why nothing is done to the guest; `None` when it is looked after.
    #[must_use]
    pub fn hands_off(&self, name: &GuestName) -> Option<HandsOff> {
        self.hands_off_of(name, self.guests.get(name)?)
    }

    /// The same, for whoever has looked the guest up already.
    #[must_use]
    pub(crate) fn hands_off_of(&self, name: &GuestName, guest: &Guest) -> Option<HandsOff> {
        if guest.wanted == Wanted::Unmanaged {
            return Some(HandsOff::Unmanaged);
        }
        if let Some(host) = self.in_maintenance(guest) {
            return Some(HandsOff::Maintenance { host: host.clone() });
        }
        let suspension = self.suspended.as_ref()?;
        let ended = match guest.phase {
            Phase::Running { .. } => true,
            // It has been tried everywhere: what is left is to try it again and again.
            Phase::Free { .. } => self.starts_nowhere(name),
            Phase::Unplaced | Phase::Starting { .. } | Phase::Releasing { .. } | Phase::Migrating(_) => false,
        };
        let finishing = suspension.under_way.contains(name) && !ended;
        (!finishing).then(|| HandsOff::Suspended { by: suspension.by.clone() })
    }

    /// The host in maintenance that the guest runs on, or was left down on. One that was being sent away from it by its
    /// ladder or by an operator goes on.
    fn in_maintenance<'a>(&'a self, guest: &'a Guest) -> Option<&'a HostName> {
        let host = match &guest.phase {
            Phase::Running { tenure, .. } => &tenure.host,
            Phase::Free { last: Some(last), avoid, .. } if !avoid.contains(last) && guest.heading.is_none() => last,
            Phase::Unplaced
            | Phase::Free { .. }
            | Phase::Starting { .. }
            | Phase::Releasing { .. }
            | Phase::Migrating(_) => return None,
        };
        self.hosts.get(host).is_some_and(Host::in_maintenance).then_some(host)
    }

    /// Guests that are being brought back or moved at this moment, or whose host is being fenced: what a suspension lets
    /// finish. It ends for each when it runs, or has been tried everywhere in vain.
    #[must_use]
    pub fn under_way(&self) -> BTreeSet<GuestName> {
        let fenced = |host: &HostName| self.hosts.get(host).is_some_and(|host| matches!(host.life, Life::Fencing(_)));
        let begun = |guest: &Guest| match &guest.phase {
            Phase::Unplaced => false,
            Phase::Free { last, .. } => last.is_some(),
            Phase::Running { tenure, .. } => fenced(&tenure.host),
            Phase::Starting { .. } | Phase::Releasing { .. } | Phase::Migrating(_) => true,
        };
        let meant = self.guests.iter().filter(|(_, guest)| guest.wanted == Wanted::Running && begun(guest));
        meant.map(|(name, _)| name.clone()).collect()
    }
}
