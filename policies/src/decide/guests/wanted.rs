//! What operators want of a guest, where it outranks what would be decided otherwise.
//!
//! ```text
//! wanted stopped:    Running --Stop--> Releasing --proof--> Free, and stays there
//! wanted unmanaged:  whatever is begun is finished, and nothing is begun
//! wanted running:    as the rest of this module says
//! ```

use super::{
    super::{FOREVER, fences::open},
    GuestJudgement, Pass, order,
    running::Run,
};
use crate::{
    change::Change,
    hands_off::HandsOff,
    model::Severity,
    names::GuestName,
    state::{ClusterState, Guest, Wanted},
};

/// What people are told of a guest only while it runs.
const OF_ONE_THAT_RUNS: [&str; 4] = ["degraded", "unasked", "warned", "leave"];

/// Why even the end of something begun is left to people: a suspension lets it finish, the others do not.
pub(super) fn left_as_it_is(state: &ClusterState, name: &GuestName) -> Option<HandsOff> {
    state.hands_off(name).filter(|hands_off| match hands_off {
        HandsOff::Unmanaged | HandsOff::Maintenance { .. } => true,
        HandsOff::Suspended { .. } => false,
    })
}

/// What ends that nothing is done to a guest: only people do.
pub(super) fn hands_on(hands_off: &HandsOff) -> (String, u64) {
    let what = match hands_off {
        HandsOff::Unmanaged => "an operator to have it managed again".to_owned(),
        HandsOff::Maintenance { host } => format!("the end of the maintenance of {host}"),
        HandsOff::Suspended { .. } => "deciding to be resumed".to_owned(),
    };
    (what, FOREVER)
}

impl Pass<'_, '_> {
    /// A guest that runs nowhere, and is not to be started: says why.
    pub(super) fn stays_down(&mut self, name: &GuestName, guest: &Guest, judgement: &mut GuestJudgement) -> bool {
        if let Some(hands_off) = self.round.state.hands_off(name) {
            judgement.doing = format!("runs nowhere; {hands_off}");
            judgement.waits = Some(hands_on(&hands_off));
            // Nobody tries any more to place it. After a suspension that goes on.
            match hands_off {
                HandsOff::Unmanaged | HandsOff::Maintenance { .. } => {
                    self.close("placement");
                    OF_ONE_THAT_RUNS.iter().for_each(|about| self.close(about));
                }
                HandsOff::Suspended { .. } => {}
            }
            return true;
        }
        match guest.wanted {
            Wanted::Running | Wanted::Unmanaged => self.has_been_given_up(name, guest, judgement),
            Wanted::Stopped => {
                "stopped, as an operator wants it".clone_into(&mut judgement.doing);
                // That it does not run is what was asked for.
                for about in ["guest", "placement", "twice"].into_iter().chain(OF_ONE_THAT_RUNS) {
                    self.close(about);
                }
                true
            }
        }
    }

    /// A guest whose starts have failed too often waits for a person, who is called until then.
    fn has_been_given_up(&mut self, name: &GuestName, guest: &Guest, judgement: &mut GuestJudgement) -> bool {
        let Some(why) = &guest.given_up else { return false };
        judgement.doing = format!("failed, needs a person: {why}");
        judgement.waits = Some(("a person to say that it is to be started again".to_owned(), FOREVER));
        let summary = format!("{name} is down and is not started any more: {why}");
        let human = format!("Look why {name} does not start, then run `holdfast guest cleanup {name}`.");
        open(self.round, self.decision, ClusterState::guest_key(name), Severity::Critical, summary, Some(human));
        OF_ONE_THAT_RUNS.iter().for_each(|about| self.close(about));
        true
    }

    /// A guest that runs and is wanted stopped, or cannot run without one that is: is stopped, and nothing else is done to
    /// it.
    pub(super) fn is_to_stop(&mut self, run: &Run<'_>, judgement: &mut GuestJudgement) -> bool {
        let why = match run.guest.wanted {
            Wanted::Stopped => Some("an operator wants it stopped".to_owned()),
            Wanted::Running => self.stops_before(run.name).or_else(|| {
                let below = self.round.plan.gives_way_to(run.name)?;
                Some(format!("it is of best effort, and there is no other room for {below}"))
            }),
            Wanted::Unmanaged => None,
        };
        let Some(why) = why else { return false };
        if let Some(hands_off) = self.round.state.hands_off(run.name) {
            judgement.doing = format!("runs on {} and is to stop ({why}); {hands_off}", run.tenure.host);
            judgement.waits = Some(hands_on(&hands_off));
            return true;
        }
        if let Some(then) = order::stops_after(self.round.state, run.name) {
            judgement.doing =
                format!("runs on {} and stops when {then} is down, which does not run without it", run.tenure.host);
            judgement.waits = Some((format!("{then} to stop"), FOREVER));
            return true;
        }
        judgement.doing = format!("about to stop on {}: {why}", run.tenure.host);
        self.decision.commands.push(Change::Stop { guest: run.name.clone(), why });
        true
    }
}
