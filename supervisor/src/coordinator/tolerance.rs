//! Whether the cluster would survive the losses that its settings say it must: told before the fact, and asked before
//! policies take effect and before an operator starts a guest.

use std::{collections::BTreeSet, time::Duration};

use holdfast_policies::{
    change::Change,
    decide::placement::{problem, problem_under},
    incident::Incident,
    model::{Policies, Severity},
    names::{GuestName, HostName},
    plan::{intolerance, may_start, waiting_for_people},
    state::ClusterState,
    time::Moment,
};

use super::brain::Brain;
use crate::{clock, desk::Denied};

/// How often the answer is looked for: it changes with guests and hosts, and nothing is decided on it.
const EVERY: Duration = Duration::from_secs(10);

/// Looks at a guest on a host for one answer: some milliseconds, because deciding waits meanwhile. A cluster for which they do
/// not suffice is told that nobody knows.
const LOOKS_MAX: u64 = 200_000;

/// The incident that it is told under.
const KEY: &str = "tolerate";

impl Brain {
    /// Levels of fencing that nobody has proven to work for long.
    pub(super) fn stale_paths(&self, state: &ClusterState) -> BTreeSet<(HostName, usize)> {
        let now = clock::moment();
        state.stale_paths(|index| self.evidence.marks.age(index, now))
    }

    /// Tells people when `tolerate` does not hold, and when it holds again.
    pub(super) async fn tell_tolerance(&mut self, now: Moment) {
        if self.tolerance_asked.is_some_and(|at| now.since(at) < EVERY) {
            return;
        }
        self.tolerance_asked = Some(now);
        let change = self.node.read(|state| {
            let room = intolerance(&problem(state, &self.report.hosts), &state.policies.cluster, LOOKS_MAX);
            let wrong: Vec<String> =
                room.into_iter().chain(waiting_for_people(state, &self.stale_paths(state))).collect();
            news(state.open_incident(KEY), (!wrong.is_empty()).then(|| wrong.join("; and ")))
        });
        if let Some(change) = change {
            self.propose(change).await;
        }
    }

    /// Policies under which `tolerate` would cease to hold are refused where the settings say so. Where it does not hold
    /// already, they take effect, so that whoever mends it is not locked out.
    pub(super) fn check_tolerance(&self, policies: &Policies) -> Result<(), Denied> {
        if !policies.cluster.refuse_beyond {
            return Ok(());
        }
        let refused = self.node.read(|state| {
            let judged = &self.report.hosts;
            let before = intolerance(&problem(state, judged), &policies.cluster, LOOKS_MAX);
            let after = intolerance(&problem_under(policies, state, judged), &policies.cluster, LOOKS_MAX);
            after.filter(|_| before.is_none())
        });
        match refused {
            Some(why) => Err(Denied::Refused(format!("`refuse_beyond` is set, and {why}"))),
            None => Ok(()),
        }
    }

    /// A stopped guest with which `tolerate` would cease to hold is not started where the settings say so.
    pub(super) fn check_start(&self, guest: &GuestName) -> Result<(), Denied> {
        let started = self.node.read(|state| {
            let settings = &state.policies.cluster;
            if !settings.refuse_beyond {
                return Ok(());
            }
            may_start(problem(state, &self.report.hosts), settings, guest, LOOKS_MAX)
        });
        started.map_err(|beyond| Denied::Refused(beyond.to_string()))
    }
}

/// What people are told, where they have not been told that yet: what is wrong, or that nothing is any more.
fn news(open: Option<&Incident>, wrong: Option<String>) -> Option<Change> {
    let Some(summary) = wrong else { return open.map(|_| Change::IncidentResolved { key: KEY.to_owned() }) };
    if open.is_some_and(|open| open.summary == summary) {
        return None;
    }
    let human = "Add a host or memory, take guests away, or mend the power devices that are named, before a host fails. \
                 `holdfast simulate --any 1` shows the cases.";
    Some(Change::IncidentOpened {
        key: KEY.to_owned(),
        severity: Severity::Warning,
        summary,
        human: Some(human.to_owned()),
        guests: Vec::new(),
        evidence: Vec::new(),
    })
}
