//! Hosts whose guests take more than there is, as when a capacity was lowered or a machine has come back with less memory.
//!
//! Nothing that runs is stopped for it, and nothing more is placed there: people are told, because only they know whether
//! the guests or the figure are wrong.

use std::collections::BTreeSet;

use super::{Decision, Round, fences::open};
use crate::{change::Change, model::Severity};

/// What keys of these incidents begin with; a slash and a host's name follow.
const ABOUT: &str = "capacity";

/// Tells of every host that is too full, and when it no longer is.
pub(super) fn decide(round: &Round<'_>, decision: &mut Decision) {
    let mut told = BTreeSet::new();
    for (host, what, taken, there_is) in &round.plan.overfull {
        let key = format!("{ABOUT}/{host}");
        let summary = format!("the guests of {host} take {taken} of {what}, and it has {there_is}");
        let human = format!(
            "Move guests away from {host} (`holdfast guest migrate`), stop some, or correct the capacity that is declared for it. \
             They run on meanwhile, and no others are placed there."
        );
        open(round, decision, key.clone(), Severity::Warning, summary, Some(human));
        told.insert(key);
    }
    for (_, incident) in round.told.all(ABOUT).filter(|(_, incident)| !told.contains(&incident.key)) {
        decision.commands.push(Change::IncidentResolved { key: incident.key.clone() });
    }
}
