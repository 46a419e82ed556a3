//! Which power devices of a host prove something, and which have their turn before.

use std::collections::BTreeSet;

use super::Case;
use crate::{model::FenceLevel, names::HostName, state::ClusterState};

/// What the power devices of a host are good for. Those that are not trusted are good for nothing.
pub(super) enum Devices<'a> {
    /// The word of one level is proof; in a fence those before it have their turn first.
    Prove { level: &'a FenceLevel, turns: Vec<&'a FenceLevel> },
    /// They can switch it off, and nobody has verified their wiring, or they are known not to answer.
    Switch { turns: Vec<&'a FenceLevel> },
    /// There are none.
    None,
}

impl<'a> Devices<'a> {
    /// `silent` says which levels are known not to answer: they have their turn, and prove nothing.
    pub(super) fn of(state: &'a ClusterState, host: &HostName, silent: impl Fn(usize) -> bool) -> Self {
        let distrusted = state.hosts.get(host).map(|known| &known.distrusted);
        let trusted = |row: &usize| distrusted.is_none_or(|distrusted| !distrusted.contains(row));
        let mut turns = Vec::new();
        for (row, level) in state.policies.levels_of(host).iter().enumerate() {
            if !level.has_device() || !trusted(&row) {
                continue;
            }
            turns.push(level);
            if state.wiring_of(host, row).is_some() && !silent(row) {
                return Self::Prove { level, turns };
            }
        }
        if turns.is_empty() { Self::None } else { Self::Switch { turns } }
    }

    /// The levels that have their turn when the host is to be switched off.
    pub(super) fn turns(&self) -> Option<&[&'a FenceLevel]> {
        match self {
            Self::Prove { turns, .. } | Self::Switch { turns } => Some(turns.as_slice()),
            Self::None => None,
        }
    }

    /// With what is known of the loss that is supposed, if one is.
    pub(super) fn of_lost(case: &Case<'a>, host: &HostName) -> Self {
        match case.loss {
            Some(supposed) => Self::of(case.state, host, |row| supposed.loss.silent.contains(&(host.clone(), row))),
            None => Self::of(case.state, host, |_| false),
        }
    }
}

/// The levels of a host whose devices have their turn in a fence, up to the one whose word is proof; `None` where no device's
/// is. Those that `silent` names are known not to answer.
pub(crate) fn levels_to_proof<'a>(
    state: &'a ClusterState,
    host: &HostName,
    silent: &BTreeSet<(HostName, usize)>,
) -> Option<Vec<&'a FenceLevel>> {
    match Devices::of(state, host, |row| silent.contains(&(host.clone(), row))) {
        Devices::Prove { turns, .. } => Some(turns),
        Devices::Switch { .. } | Devices::None => None,
    }
}
