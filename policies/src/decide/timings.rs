//! Hosts that have another `timing` in their host file than the cluster: people are told, and nothing else is made of it.
//!
//! What was told stays as it is until all is known: a new coordinator has not heard everybody yet.

use std::collections::BTreeSet;

use super::{Decision, Round, by_word::look_at_each, fences::open};
use crate::{
    model::Severity,
    names::HostName,
    timing::{Common, Difference, is_same_everywhere},
};

/// What keys of these incidents begin with; a slash and a host's name follow.
const ABOUT: &str = "timing";

/// Tells of every host that differs, and when it no longer does.
pub(super) fn decide(round: &Round<'_>, decision: &mut Decision) {
    let told: BTreeSet<&str> = round.told.all(ABOUT).map(|(whose, _)| whose).collect();
    if told.is_empty() && is_same_everywhere(round.evidence) {
        return;
    }
    let common = Common::of(round.evidence);
    look_at_each(round, decision, ABOUT, |decision, (name, _), seen| {
        // Its version does not say: nobody knows, and it is accused of nothing.
        let Some(said) = &seen.timing else { return false };
        let compared = common.compare(said);
        let differs = !compared.differences.is_empty();
        if differs && (compared.is_complete || !told.contains(name.as_str())) {
            tell(round, decision, name, &compared.differences);
        }
        differs || !compared.is_complete
    });
}

fn tell(round: &Round<'_>, decision: &mut Decision, name: &HostName, differences: &[Difference]) {
    let words: Vec<String> = differences.iter().map(ToString::to_string).collect();
    let summary = format!("the timing of {name} is not the cluster's: {}", words.join("; "));
    let human = format!(
        "`timing:` has to be the same in all host files, because what one host waits for others count on; what most voters have \
         is taken for the cluster's. Put it right in the host file of {name}, or in those of the others if that of {name} is \
         right, and restart the supervisor there, and for `lease` its guard too."
    );
    open(round, decision, format!("{ABOUT}/{name}"), Severity::Warning, summary, Some(human));
}
