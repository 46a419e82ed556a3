//! What is looked up for every guest in every round, gathered once: how it is with the guest's host, and who else reports it.

use std::collections::{BTreeMap, BTreeSet};

use super::{super::Round, Pass, order::that_start_after};
use crate::{
    change::Change,
    evidence::{HostEvidence, is_there},
    names::{GuestName, HostName},
    observe::GuestReport,
    plan::{HostAt, Subject, Table},
    state::{ClusterState, Host, Life, Mode, Phase},
};

/// A host, for the guests that are there.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Here<'b> {
    /// Whether it can carry out orders.
    pub answers: bool,
    /// What the state knows of it.
    pub known: Option<&'b Host>,
    /// What has been heard of it.
    pub seen: Option<&'b HostEvidence>,
}

impl<'b> Here<'b> {
    /// What it said of a guest in its newest sync.
    pub(super) fn report(&self, guest: &GuestName) -> Option<&'b GuestReport> {
        self.seen?.reports.get(guest)
    }
}

/// Gathered from the whole state and all evidence.
pub(super) struct Glance<'b> {
    /// All hosts of the plan.
    pub hosts: Table<HostAt, Here<'b>>,
    /// Hosts that answer and have something of a guest; those are left out that have all the guests that are to run there
    /// and nothing else, as most hosts do in most rounds.
    pub reported: BTreeMap<&'b GuestName, Vec<&'b HostName>>,
    /// Hosts that do not answer and are not proven gone, with what the boot that has joined has said last: what it had of guests may
    /// be there still.
    pub silent: Vec<(&'b HostName, &'b HostEvidence)>,
    /// The guests that start after others, by rules.
    pub second: BTreeSet<&'b GuestName>,
    /// Whether every host is active: none in maintenance, drained or about to go.
    pub all_active: bool,
}

impl<'b> Glance<'b> {
    pub(super) fn of(round: &Round<'b>, subjects: &[Subject<'b>]) -> Self {
        let state: &'b ClusterState = round.state;
        let hosts = round.plan.problem.for_each_host(|name| Here {
            answers: round.answers(name),
            known: state.hosts.get(name),
            seen: round.evidence.hosts.get(name),
        });
        let reported = reported(round, &hosts, subjects);
        let all_active = state.hosts.values().all(|host| host.mode == Mode::Active);
        let silent = silent(round, &hosts);
        Self { hosts, reported, silent, second: that_start_after(&state.policies), all_active }
    }
}

fn silent<'b>(round: &Round<'b>, hosts: &Table<HostAt, Here<'b>>) -> Vec<(&'b HostName, &'b HostEvidence)> {
    let silent = hosts.iter().filter(|(_, here)| !here.answers).filter_map(|(at, here)| {
        let known = here.known.filter(|known| !matches!(known.life, Life::Gone { .. }))?;
        let seen = here.seen?;
        let sync = seen.sync.as_ref()?;
        (sync.incarnation == known.facts.incarnation).then_some((round.plan.problem.host_name(at), seen))
    });
    silent.collect()
}

/// Who reports guests, but for hosts that report as many as are to run there, and exactly those.
fn reported<'b>(
    round: &Round<'b>,
    hosts: &Table<HostAt, Here<'b>>,
    subjects: &[Subject<'b>],
) -> BTreeMap<&'b GuestName, Vec<&'b HostName>> {
    let mut expected = round.plan.problem.for_each_host(|_| 0_usize);
    let running = subjects.iter().filter(|subject| matches!(subject.guest.phase, Phase::Running { .. }));
    for (at, name) in running.filter_map(|subject| Some((subject.home?, subject.name))) {
        if hosts[at].report(name).is_some_and(|report| is_there(&report.condition)) {
            expected[at] += 1;
        }
    }
    let mut reported: BTreeMap<&'b GuestName, Vec<&'b HostName>> = BTreeMap::new();
    for (at, here) in
        hosts.iter().filter(|(_, here)| here.answers && here.known.is_some_and(|known| known.facts.guests))
    {
        let there =
            || here.seen.into_iter().flat_map(|seen| &seen.reports).filter(|(_, report)| is_there(&report.condition));
        if there().count() == expected[at] {
            continue;
        }
        for (guest, _) in there() {
            reported.entry(guest).or_default().push(round.plan.problem.host_name(at));
        }
    }
    reported
}

impl Pass<'_, '_> {
    /// Closes the incident `ABOUT/GUEST` of the guest that is looked at, if it is open.
    pub(super) fn close(&mut self, about: &str) {
        if let Some(open) = self.told.about(about) {
            self.decision.commands.push(Change::IncidentResolved { key: open.key.clone() });
        }
    }
}
