//! Guests: what each one needs next, from its phase, from what is wanted of it, and from what is seen of it.
//!
//! ```text
//! Unplaced --first--> Free --free--> Starting ----> Running --running--> (ladder, moves, stop) --> Releasing
//!                      ^ ^                            | ^                                            |
//!                      | |                      moves v | on one host                                |
//!                      | +--- nothing left ---- Migrating                                            |
//!                      +------------------------------- proof ---------------------------------------+
//! ```
//! `Pass::guest` is the machine: one match over the phase gives the command, and what is waited for, for how much longer at most
//! (`waits`), at the moment of the round. A phase that takes more than a few lines has its file; what is drawn above is applied where
//! `state/guest.rs` says, and whatever is decided here is only proposed: applying it checks again (S7). What operators want comes
//! first ([`wanted`]), and every phase says in `doing` what is done, or why nothing is.
//!
//! | phase | decided in | waits for | until |
//! | --- | --- | --- | --- |
//! | `Unplaced` | `first.rs` | the word of every host that could run it | that comes, or proof of the host |
//! | `Free` | `free.rs` | a host that can run it | one can |
//! | | | the pause after starts that failed | it has passed |
//! | | | the host that it is moved to | five seconds have passed, then for any other |
//! | | `order.rs` | guests that start before it | they are ready; two minutes where that is merely liked |
//! | | `strays.rs` | hosts to stop what they have of it | they have said so; asked again every ten seconds |
//! | | | silent hosts that had something of it | they are heard, or proven off |
//! | `Starting` | here | the report of the start | the order's deadline |
//! | `Running` | `running.rs` | the report of what is done to it | the order's deadline |
//! | | `ill.rs` | the newest rung to help | the rung's wait |
//! | | `anew.rs` | a guest that it needs, before it is reset | that is ready |
//! | | `held.rs` | the one cause for which it and many others do not answer | five minutes since it last did |
//! | | `condition.rs`, `coming_up.rs` | its services to come up | its time to boot |
//! | | `vanished.rs` | silent hosts to which other tools may have moved it | they are heard, or proven off |
//! | | `moves.rs` | its turn to move; a host that can take it | another move has ended, a pause; one can |
//! | | | those that need it to stop, where it moves by a stop | they are down |
//! | `Releasing` | here | the word that nothing of it is left | the order's deadline; ten seconds after it failed |
//! | `Migrating` | `migration.rs` | what its step waits for | as it says there |
//!
//! What operators keep hands off waits for them, however long; what is on a host that is not well heard waits for what that host
//! waits for.

mod anew;
mod between;
mod coming_up;
mod condition;
mod degraded;
mod first;
pub(super) mod free;
mod glance;
mod held;
mod ill;
mod moves;
pub(super) mod order;
mod reasons;
mod running;
mod strays;
mod unasked;
mod vanished;
mod wanted;
mod warned;
mod without_lease;

use std::{cell::OnceCell, collections::BTreeMap, time::Duration};

pub(super) use reasons::drained;
pub(super) use running::COOL_DOWN;

use super::{
    Decision, GuestJudgement, Round,
    service_storm::{ServiceStorm, is_told, news},
    told::Whose,
};
use crate::{
    change::Change,
    evidence::is_there,
    names::{Epoch, GuestName, HostName},
    observe::GuestReport,
    plan::Subject,
    state::{ClusterState, Life, Phase, Tenure},
    time::millis,
};

/// Pause before a failed stop is tried again.
pub(crate) const STOP_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// One pass over all guests: what has been decided for some bears on the next.
struct Pass<'a, 'b> {
    round: &'a Round<'b>,
    decision: &'a mut Decision,
    /// Moves under way, and those that this pass begins.
    moving: usize,
    /// Whose is the first of them.
    mover: Option<GuestName>,
    /// A host was chosen for a guest beside what the plan has placed, whose room does not hold it: no other guest is sent
    /// anywhere beside the plan before the next round, which sees it there.
    beside: bool,
    glance: glance::Glance<'b>,
    /// What people have been told of the guest that is looked at, and is not over.
    told: Whose<'a>,
    /// What the services of all guests amount to together; looked at once a guest is ill, or people
    /// have been told of a storm.
    storm: Option<ServiceStorm<'b>>,
    /// A rung, or the call at the end of a ladder, is held for that.
    is_holding: bool,
    /// What the journal says was tried for guests; looked at once a guest comes from one of its ladders to the other.
    tries: OnceCell<BTreeMap<&'b GuestName, between::Tries>>,
}

pub(super) fn decide(round: &Round<'_>, decision: &mut Decision) {
    let mut movers =
        round.state.guests.iter().filter(|(_, guest)| moves::is_moving(round, guest)).map(|(name, _)| name);
    let mover = movers.next().cloned();
    let moving = movers.count() + usize::from(mover.is_some());
    let subjects = round.plan.by_priority();
    let glance = glance::Glance::of(round, &subjects);
    let begun = decision.commands.len();
    let (told, storm) = (Whose::default(), None);
    let (is_holding, tries) = (false, OnceCell::new());
    let mut pass = Pass { round, decision, moving, mover, beside: false, glance, told, storm, is_holding, tries };
    let mut judged = Vec::with_capacity(subjects.len());
    for subject in subjects {
        pass.told = round.told.of_whom(subject.name.as_str());
        let judgement = pass.guest(&subject);
        pass.tell_circle(subject.name);
        judged.push((subject.name.clone(), judgement));
    }
    if is_told(round) {
        pass.storm.get_or_insert_with(|| ServiceStorm::of(round));
    }
    // Before what is done to guests: where that is much, the rest of it waits for the next round.
    if let Some(news) = news(round, pass.storm.as_ref(), pass.is_holding) {
        pass.decision.commands.insert(begun, news);
    }
    // Made at once: that costs less than so many insertions.
    pass.decision.report.guests = judged.into_iter().collect();
}

impl Pass<'_, '_> {
    fn guest(&mut self, subject: &Subject<'_>) -> GuestJudgement {
        let Subject { name, guest, declared, home, .. } = *subject;
        let mut judgement = GuestJudgement::default();
        match &guest.phase {
            Phase::Unplaced => self.unplaced(name, &mut judgement),
            Phase::Free { last, since, .. } => {
                let free = free::Free { name, guest, last: last.as_ref(), since: *since };
                self.free(&free, &mut judgement);
            }
            Phase::Starting { tenure, order } => {
                judgement.doing = format!("starting on {}", tenure.host);
                // Of a host that does not answer, what it waits for itself is told when all hosts have been looked at.
                if self.round.answers(&tenure.host) {
                    judgement.waits = self.round.left_of(*order, "the report of the start");
                }
            }
            Phase::Running { tenure, since, verified, action } => {
                let (since, verified) = (*since, *verified);
                let here = home.map(|at| self.glance.hosts[at]).unwrap_or_default();
                let run = running::Run { name, guest, declared, tenure, here, since, verified, action: *action };
                self.running(&run, &mut judgement);
            }
            Phase::Releasing { tenure, order, failed, .. } => {
                self.releasing(name, tenure, *order, failed.as_ref(), &mut judgement);
            }
            Phase::Migrating(migration) => self.migrating(name, migration, &mut judgement),
        }
        judgement
    }

    /// A stop that was ordered is waited for; one that failed is tried again, and nothing else is done about it (S2).
    fn releasing(
        &mut self,
        name: &GuestName,
        tenure: &Tenure,
        order: Option<crate::names::OrderId>,
        failed: Option<&(u64, String)>,
        judgement: &mut GuestJudgement,
    ) {
        let host = &tenure.host;
        judgement.doing = format!("stopping on {host}");
        // Of a host that does not answer, what it waits for itself is told when all hosts have been looked at.
        let answers = self.round.answers(host);
        if let Some(order) = order {
            if answers {
                judgement.waits = self.round.left_of(order, "the word that nothing of it is left");
            }
            return;
        }
        let left = failed.map(|(index, _)| STOP_AGAIN_AFTER.saturating_sub(self.round.age(*index)));
        let left = left.unwrap_or_default();
        if let Some((_, why)) = failed {
            judgement.doing = format!("it could not be stopped on {host} ({why}), so it starts nowhere else");
        }
        if let Some(hands_off) = wanted::left_as_it_is(self.round.state, name) {
            judgement.doing = format!("{}; {hands_off}", judgement.doing);
            judgement.waits = Some(wanted::hands_on(&hands_off));
        } else if !left.is_zero() {
            judgement.waits = Some(("the next try to stop it".to_owned(), millis(left)));
        } else if answers {
            self.decision.commands.push(Change::ReleaseAgain { guest: name.clone() });
        }
    }
}

/// Guests that a host runs although another assignment has replaced theirs, and under which: its agent is to stop them (R10).
///
/// A guest that other tools have moved has kept its number. Where a host that answers has it, it may be followed there; one
/// that is proven gone runs nothing, and no order reaches it.
#[must_use]
pub fn superseded(state: &ClusterState, host: &HostName, reports: &[GuestReport]) -> Vec<(GuestName, Epoch)> {
    let is_gone = state.hosts.get(host).is_some_and(|known| matches!(known.life, Life::Gone { .. }));
    let wrong = reports.iter().filter(|report| {
        let Some(guest) = state.guests.get(&report.guest) else { return false };
        let tenures = || guest.halves().into_iter().flatten();
        let newest = tenures().map(|tenure| tenure.epoch).max();
        // A newer assignment to this very host stops the older one itself, as the first part of its start.
        let here = tenures().any(|tenure| tenure.host == *host && tenure.epoch >= report.epoch);
        let moved = is_gone && newest == Some(report.epoch) && state.hands_off_of(&report.guest, guest).is_none();
        is_there(&report.condition) && !here && (moved || newest.is_some_and(|newest| newest > report.epoch))
    });
    wrong.map(|report| (report.guest.clone(), report.epoch)).collect()
}

#[cfg(test)]
mod tests;
