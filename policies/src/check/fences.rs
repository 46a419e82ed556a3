//! Fences: each with its evidence, counted here once more, and one at a time where they are to be so (S3, S9, R16, R17, R20).

use std::{collections::BTreeMap, time::Duration};

use super::Check;
use crate::{
    change::Change,
    names::HostName,
    state::{Host, Life},
    time::millis,
};

/// Silence of a supervisor after which a guest that waits there may be acted on without the other voters (R16).
const SUPERVISOR_PATIENCE: Duration = Duration::from_secs(30);

impl<'a> Check<'a> {
    /// No two fences at once where one runs at a time.
    pub(super) fn fences_at_once(&mut self) {
        // By part of the cluster: fences that this plan begins, and fences that are under way.
        let mut parts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for change in self.plan {
            if let Change::FenceAttempted { host, .. } = change {
                parts.entry(self.state.policies.fenced_one_by_one_with(host)).or_default().0 += 1;
            }
        }
        for (name, host) in &self.state.hosts {
            if self.is_being_fenced(host) {
                parts.entry(self.state.policies.fenced_one_by_one_with(name)).or_default().1 += 1;
            }
        }
        for (begun, under_way) in parts.into_values() {
            if begun > 1 || (begun > 0 && under_way > 0) {
                self.breaks("S9", format!("would have {} fences under way at once", begun + under_way));
            }
        }
    }

    /// Whether a device call for this host may be running: its executor lives on in the boot that was ordered (R21), and
    /// has synced within the lease without which it sends nothing (R20).
    fn is_being_fenced(&self, host: &Host) -> bool {
        let Life::Fencing(fence) = &host.life else { return false };
        let order = fence.attempt.as_ref().and_then(|attempt| self.state.orders.get(attempt));
        order.is_some_and(|order| {
            let executor = self.state.hosts.get(&order.host);
            let sync = self.evidence.hosts.get(&order.host).and_then(|seen| seen.sync.as_ref());
            let synced = sync.map(|sync| sync.at).or(self.evidence.quorum_since);
            let may_act = synced.is_some_and(|at| self.now.since(at) < self.timing.lease.0 * 21 / 20);
            executor.is_some_and(|known| known.life == Life::Up && known.facts.incarnation == order.incarnation)
                && may_act
        })
    }

    /// S3, R16, R17: a fence names its evidence, and the evidence is counted here once more.
    pub(super) fn fence(&mut self, host: &'a HostName, said: &[String]) {
        if said.is_empty() {
            self.breaks("S3", format!("fences {host} and names no evidence"));
        }
        let Some(known) = self.state.hosts.get(host) else {
            self.breaks("S3", format!("fences {host}, which has never joined"));
            return;
        };
        self.hands_on_host(host, "fences");
        if self.evidence.me.as_ref() == Some(host) {
            self.breaks("S3", format!("fences {host}, which is the coordinator itself"));
        }
        let heard = self.evidence.hosts.get(host);
        let boot = &known.facts.incarnation;
        let synced = heard.and_then(|heard| heard.sync.as_ref()).filter(|sync| sync.incarnation == *boot);
        if let Some(sync) = synced
            && self.now.since(sync.at) < self.timing.suspect_after.0
        {
            self.breaks("R16", format!("fences {host}, which synced {} ms ago", millis(self.now.since(sync.at))));
        }
        let unsynced = synced.map_or(Duration::MAX, |sync| self.now.since(sync.at));
        let (silent, asked) = self.silent_for(host);
        if silent * 2 <= asked && unsynced < SUPERVISOR_PATIENCE {
            self.breaks("R17", format!("fences {host} by {silent} of {asked} other voters"));
        }
    }

    /// How many of the other voters have not heard the host for long enough, and how many other voters there are.
    fn silent_for(&self, host: &HostName) -> (usize, usize) {
        let long = |age: Duration| age >= self.timing.suspect_after.0;
        let heard = self.evidence.hosts.get(host);
        let others = self.evidence.voters.iter().filter(|voter| *voter != host);
        let says_silent = |voter: &&HostName| {
            if self.evidence.me.as_ref() == Some(*voter) {
                let newest = heard.and_then(|heard| heard.sync.iter().chain(&heard.heard).map(|sign| sign.at).max());
                return newest.is_none_or(|at| long(self.now.since(at)));
            }
            let answer = heard.and_then(|heard| heard.answers.get(*voter)).filter(|answer| answer.counts);
            answer.is_some_and(|answer| answer.age.is_none_or(|age| long(age + self.now.since(answer.asked))))
        };
        (others.clone().filter(says_silent).count(), others.count())
    }

    pub(super) fn attempt(&mut self, host: &'a HostName, executor: &'a HostName) {
        let fencing = self.state.hosts.get(host).is_some_and(|known| matches!(known.life, Life::Fencing(_)));
        if !fencing {
            self.breaks("S3", format!("has {host} switched off without a fence that is open"));
        }
        if host == executor {
            self.breaks("S3", format!("has {host} switch itself off"));
        }
        if self.state.hosts.get(executor).is_none_or(|known| known.life != Life::Up) {
            self.breaks("R20", format!("has {host} switched off by {executor}, which has no lease"));
        }
        if self.state.fence_under_way(host).is_some() {
            self.breaks("R20", format!("has {host} switched off twice at once"));
        }
    }
}
