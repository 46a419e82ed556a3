//! Leadership: a coordinator that doubts itself, or is about to go, hands the lead over (R29).

use std::time::Duration;

use super::{HostVerdict, Round};
use crate::{
    names::HostName,
    state::{Life, Mode},
};

/// Leadership is handed over at most this often: a lead that wanders decides nothing.
pub const HAND_OVER_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// The lead is to go to another voter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandOver {
    /// To whom.
    pub to: HostName,
    /// Why.
    pub why: String,
}

/// To whom the lead is to go, if the coordinator should not keep it and somebody is fit for it.
pub(super) fn hand_over(round: &Round<'_>) -> Option<HandOver> {
    let me = round.evidence.me.as_ref()?;
    let why = reason(round, me)?;
    if round.evidence.handed_over.is_some_and(|at| round.now.moment.since(at) < HAND_OVER_AGAIN_AFTER) {
        return None;
    }
    let to = round.evidence.voters.iter().find(|voter| *voter != me && is_fit(round, voter))?.clone();
    Some(HandOver { to, why })
}

fn reason(round: &Round<'_>, me: &HostName) -> Option<String> {
    if let Some(unwell) = round.evidence.hosts.get(me).and_then(|known| known.unwell.as_ref()) {
        return Some(format!("{me} doubts itself: {unwell}"));
    }
    match round.state.hosts.get(me)?.mode {
        Mode::Leaving { .. } => Some(format!("{me} is about to go")),
        Mode::Active | Mode::Draining | Mode::Maintenance => None,
    }
}

/// R29: only a voter that syncs, does not doubt itself, and means to stay.
fn is_fit(round: &Round<'_>, voter: &HostName) -> bool {
    let Some(host) = round.state.hosts.get(voter) else { return false };
    let stays = match host.mode {
        Mode::Active | Mode::Draining => true,
        Mode::Maintenance | Mode::Leaving { .. } => false,
    };
    let judgement = round.hosts.get(voter);
    let well = judgement.is_some_and(|known| known.verdict == HostVerdict::Healthy && known.unwell.is_none());
    stays && well && host.life == Life::Up && !host.is_contested()
}
