//! Hosts that have long not been well by their own word: a disk that is full or does not answer, a link that loses much, too little time
//! of their processors. Guests go elsewhere meanwhile where they can, and by themselves such hosts fail nobody: but where the disk is
//! the reason nothing is carried out there, and whoever is ill there waits for somebody to mend it.

use std::time::Duration;

use super::{Decision, Round, by_word::look_at_each, fences::open, restraint::is_missed};
use crate::{model::Severity, names::HostName};

/// What keys of these incidents begin with; a slash and a host's name follow.
const ABOUT: &str = "unwell";

/// How long a host says so before anybody is told: backups, updates and moves of many guests are nobody's business.
const PATIENCE: Duration = Duration::from_secs(300);

/// Tells of every host that has long not been well, and when it is.
pub(super) fn decide(round: &Round<'_>, decision: &mut Decision) {
    look_at_each(round, decision, ABOUT, |decision, (name, host), seen| {
        let Some((since, why)) = &seen.unwell_for else { return false };
        // Whoever has it in maintenance works on it.
        if is_missed(host) && round.now.moment.since(*since) >= PATIENCE {
            tell(round, decision, name, why);
        }
        true
    });
}

/// Once: what it complains of changes with every look at its link.
fn tell(round: &Round<'_>, decision: &mut Decision, name: &HostName, why: &str) {
    let key = format!("{ABOUT}/{name}");
    if round.told.by_key(&key).is_some() {
        return;
    }
    let summary = format!("{name} has not been well for minutes, by its own word");
    let human = format!(
        "Mend what it complains of: {why}. Until it says that it is well, other hosts are preferred to it; and where it carries no orders \
         out, no guest there is stopped, reset or started: move those that matter, or take {name} out of use."
    );
    open(round, decision, key, Severity::Error, summary, Some(human));
}
