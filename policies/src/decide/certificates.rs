//! Hosts whose certificate ends soon. `holdfast init` gives all hosts of a cluster the same last day, and after it no supervisor
//! speaks with another: people are told while there is time for making others.
//!
//! What a certificate says of its end is meant for wall clocks, so it is the coordinator's that is asked. Words are all that
//! follows from it (R1).

use std::time::Duration;

use super::{Decision, Round, by_word::look_at_each, fences::open};
use crate::{
    model::Severity,
    names::HostName,
    time::{WallTime, millis},
};

/// What keys of these incidents begin with; a slash and a host's name follow.
const ABOUT: &str = "certificate";

/// How long before its end a certificate is told of: two rounds of a monthly maintenance.
const TOLD_BEFORE: Duration = Duration::from_secs(60 * 24 * 3600);

/// How long before its end a person is called for it: whom a receiver tells of nothing less has a fortnight left.
const CALLED_BEFORE: Duration = Duration::from_secs(14 * 24 * 3600);

/// Tells of every host whose certificate ends soon, and when it has another.
pub(super) fn decide(round: &Round<'_>, decision: &mut Decision) {
    look_at_each(round, decision, ABOUT, |decision, (name, _), seen| {
        let Some(ends) = seen.certificate_ends else { return false };
        let Some(severity) = urgency(ends, round.now.wall) else { return false };
        tell(round, decision, name, ends, severity);
        true
    });
}

/// How urgent it is to make another; `None` while there is time.
fn urgency(ends: WallTime, now: WallTime) -> Option<Severity> {
    let left = ends.0.saturating_sub(now.0);
    if left <= millis(CALLED_BEFORE) {
        Some(Severity::Critical)
    } else {
        (left <= millis(TOLD_BEFORE)).then_some(Severity::Warning)
    }
}

/// The day and not what is left of the time: the same words every day are no news.
fn tell(round: &Round<'_>, decision: &mut Decision, name: &HostName, ends: WallTime, severity: Severity) {
    let summary = format!("the certificate of {name} ends on {}", ends.date());
    let human = format!(
        "From then on no other supervisor speaks with that of {name}. Make another where the cluster's authority is kept \
         (`holdfast host certificate {name} --ca cluster/authority --out {name}`), put it and its key in the place of the old ones \
         on {name}, and restart the supervisor there. Look after the other hosts, too: those of one `holdfast init` end together."
    );
    open(round, decision, format!("{ABOUT}/{name}"), severity, summary, Some(human));
}
