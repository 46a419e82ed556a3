//! Who was stopped to start elsewhere, and is about to: those to whom placement promises the host that they go to.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use super::super::{HostJudgement, HostVerdict, guests::free::HEADING_PATIENCE};
use crate::{
    names::{GuestName, HostName},
    plan::{GuestAt, HostAt, Problem},
    state::{ClusterState, Guest, Phase, Wanted},
};

/// The guests on their way with the hosts that they go to, the most important ones first. Not one that has waited for its host for long
/// enough: it takes part in placement like any other, and would take its room twice. Nor one whose stop has failed, or whose old host
/// does not answer: nobody knows when it would come. `age` is the time since a log index was applied.
pub(super) fn of(
    state: &ClusterState,
    judged: &BTreeMap<HostName, HostJudgement>,
    problem: &Problem<'_>,
    age: impl Fn(u64) -> Duration,
) -> Vec<(GuestAt, HostAt)> {
    let answers = |host: &HostName| judged.get(host).is_some_and(|on| on.verdict == HostVerdict::Healthy);
    let comes = |phase: &Phase| match phase {
        Phase::Releasing { tenure, failed: None, .. } => answers(&tenure.host),
        Phase::Free { since, .. } => age(*since) < HEADING_PATIENCE,
        Phase::Unplaced
        | Phase::Starting { .. }
        | Phase::Running { .. }
        | Phase::Releasing { failed: Some(_), .. }
        | Phase::Migrating(_) => false,
    };
    let goes = |(name, guest): (&GuestName, &Guest)| {
        let heading = guest.heading.as_ref().filter(|_| comes(&guest.phase))?;
        let is_meant = guest.wanted == Wanted::Running && guest.given_up.is_none();
        let is_placed = is_meant && state.hands_off_of(name, guest).is_none();
        Some((problem.guest(name).filter(|_| is_placed)?, problem.host(&heading.to)?))
    };
    let mut found: Vec<(GuestAt, HostAt)> = state.guests.iter().filter_map(goes).collect();
    found.sort_by_key(|(guest, _)| (Reverse(problem.priority(*guest)), *guest));
    found
}
