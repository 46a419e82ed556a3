//! Services whose answers say themselves that not all is well: a certificate that soon ends, the WARNING of a plugin. They
//! answer, so nothing is done to their guest, and somebody is told.

use super::{
    super::{GuestJudgement, fences::open_as_seen},
    Pass,
    running::Run,
};
use crate::model::{Policy, Severity};

/// Most lines of who sees what that go into the log: more than an incident keeps, so that it can say that there are more.
const SEEN_MAX: usize = 16;

impl Pass<'_, '_> {
    /// Tells of services that warn, once for all of them, until none does. What a warning says may be another thing at each
    /// answer (days that are left, megabytes), so that is no part of what is told, and would be news all the time.
    pub(super) fn warned(&mut self, run: &Run<'_>, policy: Option<&Policy>, judgement: &GuestJudgement) {
        let (round, guest) = (self.round, run.name);
        let warning = judgement.services.iter().filter(|(_, own)| own.warns);
        let warning = warning.filter_map(|(name, _)| Some((name, policy?.services.get(name)?)));
        let (mut names, mut seen) = (Vec::new(), Vec::new());
        for (name, service) in warning {
            names.push(name.as_str());
            let said = round.watched(guest, run.tenure.epoch).words(name, service);
            seen.extend(said.into_iter().map(|line| format!("{name}: {line}")));
        }
        if names.is_empty() {
            self.close("warned");
            return;
        }
        seen.truncate(SEEN_MAX);
        let summary = format!("{} of {guest}: what is answered comes with a warning", names.join(", "));
        let human = format!(
            "Read in `holdfast explain {guest}` what it says: a certificate that soon ends, or the WARNING of a plugin. Nothing is \
             restarted or moved for it."
        );
        let key = format!("warned/{guest}");
        open_as_seen(round, self.decision, key, Severity::Warning, summary, Some(human), seen);
    }
}
