//! A guest that has ceased to answer together with many others, as seen over the network alone ([`ServiceStorm`]): its services are
//! restarted, and nothing larger is done to it while that looks like one cause outside of it (S8, S9).

use std::time::Duration;

use super::{
    super::{GuestJudgement, service_storm::ServiceStorm},
    Pass,
    running::Run,
};
use crate::{ladder::Trouble, model::Rung, time::millis};

/// Why a guest is held, and for how much longer at most.
pub(super) type Hold = (&'static str, Duration);

impl Pass<'_, '_> {
    /// Whether rungs that kill or move the guest are held. What its host tells of it is no matter of the network.
    pub(super) fn hold_of(&mut self, run: &Run<'_>, trouble: Trouble) -> Option<Hold> {
        match trouble {
            Trouble::Service => {}
            Trouble::Guest | Trouble::Storage => return None,
        }
        let round = self.round;
        let storm = self.storm.get_or_insert_with(|| ServiceStorm::of(round));
        storm.holds(round, run.name)
    }

    /// Does not take a rung.
    pub(super) fn hold(
        &mut self,
        run: &Run<'_>,
        rung: &Rung,
        why: &str,
        (held, left): Hold,
        judgement: &mut GuestJudgement,
    ) {
        self.is_holding = true;
        judgement.doing = format!("{why}: the rung {} is held, because {held}", rung.name());
        judgement.waits = Some(("the hold to be over".to_owned(), millis(left)));
        self.leave_unhealed(run, judgement);
    }
}
