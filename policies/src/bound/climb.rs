//! Failures for which a ladder is climbed: how long until each rung has helped, if it is the one that does.

use std::time::Duration;

use super::{Bound, Case, Failure, Helped, Part, Stage, Stretch, StretchedBy, back, hosts, rounded_up};
use crate::{
    feature_level::FeatureLevel,
    ladder::{Trouble, applies, ladder_of},
    model::Rung,
    observe::FROZEN_MAX,
    time::{Span, millis},
};

/// The bound of a failure that a ladder ends. With its last rung that acts nothing but a person is left.
pub(super) fn bound(case: &Case<'_>, failure: Failure, trouble: Trouble, detect: Part) -> Bound {
    let seen = Duration::from_millis(detect.within_ms.unwrap_or_default());
    let climbed = climbed(case, trouble);
    let ladder = match climbed.last() {
        Some((last, within)) => {
            let words: Vec<String> =
                climbed.iter().map(|(rung, within)| format!("{} if {rung} helps", shown(*within))).collect();
            let because = format!("{}; after {last} a person is called", words.join(", "));
            Part::of(Stage::Ladder, *within, because)
        }
        None => Part::without_bound(Stage::Ladder, "its ladder has nothing that helps: a person is called".to_owned()),
    };
    let rungs = climbed
        .iter()
        .map(|(rung, within)| Helped { rung: (*rung).to_owned(), within_ms: millis(seen.saturating_add(*within)) });
    let rungs = rungs.collect();
    let mut bound = Bound::of(failure, case.first_rung(trouble), detect, vec![ladder]);
    bound.rungs = rungs;
    bound.stretched_by.push(back::failed_start(case));
    bound.stretched_by.extend(on_its_way(case));
    bound.stretched_by.extend(frozen(case, seen).filter(|_| trouble == Trouble::Service));
    bound.stretched_by.extend(hosts::order(case).filter(|_| starts_anew(case, trouble)));
    bound
}

/// Whether a rung starts the guest anew, for which others may have to be ready first.
fn starts_anew(case: &Case<'_>, trouble: Trouble) -> bool {
    let starts = |rung: &Rung| match rung {
        Rung::ResetGuest { .. } | Rung::Failover { .. } => true,
        Rung::RestartService { .. }
        | Rung::RebootGuest { .. }
        | Rung::ResumeGuest { .. }
        | Rung::Migrate { .. }
        | Rung::Page { .. } => false,
    };
    ladder_of(&case.state.policies, case.guest, trouble.ladder()).iter().any(starts)
}

/// No rung is taken for a guest that moves while it runs.
fn on_its_way(case: &Case<'_>) -> Option<Stretch> {
    let needs = &case.state.policies.guests.get(case.guest)?.needs;
    let why = "it is on its way to another host while it runs: no rung is taken before that has ended".to_owned();
    needs.live_migration.then(|| Stretch { by: StretchedBy::Move, by_ms: Some(millis(moves(case))), why })
}

/// No rung is taken for services of a guest whose file systems are frozen, nor before those have been seen to fail anew since.
fn frozen(case: &Case<'_>, seen: Duration) -> Option<Stretch> {
    // Whoever passes an explanation on has to know the word.
    let is_known = case.state.level >= FeatureLevel::TOLD_ONCE;
    let has_agent = case.state.policies.guests.get(case.guest)?.qemu.agent;
    let most = FROZEN_MAX.saturating_add(seen).saturating_add(case.timing.sync_every.0);
    let why = format!(
        "its host sees that QEMU's agent has frozen its file systems, as for a backup: no rung is taken for its services for {} at most",
        Span(FROZEN_MAX)
    );
    (is_known && has_agent).then(|| Stretch { by: StretchedBy::Freeze, by_ms: Some(millis(most)), why })
}

fn shown(within: Duration) -> Span {
    rounded_up(millis(within))
}

/// The rungs that act, in order, each with the longest time from the verdict until its last try has helped.
fn climbed(case: &Case<'_>, trouble: Trouble) -> Vec<(&'static str, Duration)> {
    let rungs = ladder_of(&case.state.policies, case.guest, trouble.ladder());
    // Once its machine runs again, what is left of the trouble is a service that does not answer.
    let first = rungs.iter().position(|rung| applies(rung, trouble)).unwrap_or(rungs.len());
    let left = |rung: &&Rung| applies(rung, trouble) || applies(rung, Trouble::Service);
    let mut climbed = Vec::new();
    let mut before = Duration::ZERO;
    for rung in rungs.iter().skip(first).filter(left) {
        let Some(act) = Act::of(case, rung) else { continue };
        let in_vain = act.lasts(rung.wait().0);
        let helps = act.lasts(answers(case, rung));
        let tried = in_vain.saturating_mul(rung.tries().saturating_sub(1));
        climbed.push((rung.name(), before.saturating_add(tried).saturating_add(helps)));
        before = before.saturating_add(in_vain.saturating_mul(rung.tries()));
    }
    climbed
}

/// How long a service may take to answer after a try that helps: with a longer time the next try is made.
fn answers(case: &Case<'_>, rung: &Rung) -> Duration {
    match case.policy {
        Some(policy) if !policy.services.is_empty() => case.limits.boot.unwrap_or(rung.wait().0),
        Some(_) | None => Duration::ZERO,
    }
}

/// What one try does.
enum Act {
    /// Something in the guest, which runs on: the wait counts from when it is ordered.
    InPlace(Duration),
    /// A start: the wait counts from when the machine runs.
    Anew(Duration),
}

impl Act {
    /// The longest that its orders take; `None` where a rung does nothing that could help.
    fn of(case: &Case<'_>, rung: &Rung) -> Option<Self> {
        let (turn, limits) = (case.turn(), case.limits);
        match rung {
            Rung::RestartService { .. } => Some(Self::InPlace(turn + limits.command)),
            // The order's own deadline is the rung's wait.
            Rung::RebootGuest { wait, .. } => Some(Self::InPlace(turn + wait.0)),
            Rung::ResetGuest { .. } => Some(Self::Anew(turn + limits.start)),
            Rung::Failover { .. } => Some(Self::Anew(turn + limits.stop + turn + limits.start)),
            Rung::Migrate { .. } => Some(Self::Anew(moves(case))),
            Rung::ResumeGuest { .. } | Rung::Page { .. } => None,
        }
    }

    fn lasts(&self, wait: Duration) -> Duration {
        match self {
            Self::InPlace(orders) => (*orders).max(wait),
            Self::Anew(orders) => orders.saturating_add(wait),
        }
    }
}

/// A live move is received, sent and let run, and its source is cleared; one by a stop and a start lets the guest shut down.
fn moves(case: &Case<'_>) -> Duration {
    let (turn, limits) = (case.turn(), case.limits);
    let needs = case.state.policies.guests.get(case.guest).map(|declared| &declared.needs);
    match needs {
        Some(needs) if !needs.live_migration => turn + limits.stop + needs.stop_timeout.0 + turn + limits.start,
        Some(_) | None => {
            let send = limits.send.unwrap_or_else(|| case.state.time_to_send(case.guest).0);
            turn * 4 + limits.start + send + limits.start + limits.stop
        }
    }
}
