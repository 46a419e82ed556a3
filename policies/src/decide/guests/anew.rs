//! A guest that is ill, and would be started anew where it is, while one that it needs is not ready (`Rule::Order`, required).
//!
//! By the rule it starts only when that one is, and without it nothing helps (S8). One that is gone waits where all do that have to be
//! started: it is stopped for good, so that it holds neither room nor a drain, and starts in its turn. One that is there is left as it is,
//! and its ladder goes on when the other one is ready: that may be all that it takes. Meanwhile people are told of both: the other one
//! may be stopped on purpose, and then nobody would be told of anything.

use super::{
    super::{GuestJudgement, fences::open},
    Pass,
    order::Waits,
    running::Run,
};
use crate::{
    change::Change,
    ladder::Trouble,
    model::{Rung, Severity},
    state::ClusterState,
};

impl Pass<'_, '_> {
    /// What has to be up before this rung is taken.
    pub(super) fn anew_after(&self, run: &Run<'_>, rung: Option<&Rung>) -> Option<Waits> {
        let starts_it_anew = matches!(rung, Some(Rung::ResetGuest { .. }));
        starts_it_anew.then(|| self.waits_for_needed(run.name)).flatten()
    }

    /// Has the guest wait for the one that it needs.
    pub(super) fn not_anew(
        &mut self,
        run: &Run<'_>,
        trouble: Trouble,
        why: &str,
        (first, waits): Waits,
        judgement: &mut GuestJudgement,
    ) {
        judgement.doing = format!("{why}; {first}");
        judgement.waits = waits;
        match trouble {
            Trouble::Guest => {
                self.tell_that_it_waits(run, why, &first);
                let why = format!("{why}, and {first}");
                self.decision.commands.push(Change::Stop { guest: run.name.clone(), why });
            }
            Trouble::Service => {
                self.tell_that_it_waits(run, why, &first);
                self.leave_unhealed(run, judgement);
            }
            Trouble::Storage => {}
        }
    }

    /// It does not answer until the other one is up, and people may know of neither. That it is well again ends this.
    fn tell_that_it_waits(&mut self, run: &Run<'_>, why: &str, first: &str) {
        let key = ClusterState::guest_key(run.name);
        if self.round.told.by_key(&key).is_none() {
            let summary = format!("{}: {why}; {first}", run.name);
            open(self.round, self.decision, key, Severity::Warning, summary, None);
        }
    }
}
