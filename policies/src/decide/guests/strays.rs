//! Strays: what hosts report of a guest without a right to run it. A guest found running twice.
//!
//! ```text
//! state says where  -> that one is kept, the others are stopped (by supersession, or by an order where their epoch is newer)
//! state says nowhere-> (Free) all are stopped, whether it is to run or not, and nothing starts before their hosts have said so;
//!                      a silent host is ordered to and waited for that had something of it when it was last heard
//! state says nothing-> (Unplaced) one is kept: rules, then what runs, then the well host; the others are ordered to stop,
//!                      and the one that is left is adopted
//! moved outside     -> what the state says has nothing of it, and one host alone runs it under the committed assignment: it
//!                      is followed there
//! ```
//! Never both: an order names the host whose guest is kept, and applying refuses it when that one is being stopped.

use std::fmt;

use super::{
    super::{FOREVER, Round, Waits, fences::open},
    GuestJudgement, Pass, STOP_AGAIN_AFTER,
    running::Run,
    wanted::hands_on,
};
use crate::{
    change::Change,
    evidence::{Heard, is_there},
    fit::host_rule_broken,
    model::Severity,
    names::{Epoch, GuestName, HostName},
    observe::GuestCondition,
    order::{Order, OrderKind},
    state::{ClusterState, Life, Mode, Tenure},
    time::millis,
};

/// A guest that a host reports.
pub(super) struct Stray<'a> {
    pub host: &'a HostName,
    pub epoch: Epoch,
    condition: &'a GuestCondition,
}

/// Which one is kept of a guest that was never placed and is found on several hosts; `None` while somebody moves it. A move
/// that was begun in a generation that has ended is finished by nobody: where one side runs, that one is kept; where all has been
/// sent and nothing runs, one of them is, and is started anew once it is adopted (R25).
pub(super) fn keeper<'a>(round: &Round<'_>, name: &GuestName, found: &[Stray<'a>]) -> Option<&'a HostName> {
    if found.iter().any(|stray| goes_on(round.state, stray, found)) {
        return None;
    }
    let worse = |stray: &&Stray<'_>| {
        let host = round.state.hosts.get(stray.host);
        (
            release_of(round.state, name, stray.host).is_some(),
            host_rule_broken(&round.state.policies, name, stray.host).is_some(),
            *stray.condition != GuestCondition::Running,
            host.is_none_or(|host| host.mode != Mode::Active),
            round.hosts.get(stray.host).is_some_and(|judgement| judgement.unwell.is_some()),
            std::cmp::Reverse(stray.epoch),
            stray.host.clone(),
        )
    };
    found.iter().min_by_key(worse).map(|stray| stray.host)
}

/// Whether a stray is half of a move that somebody goes on with.
fn goes_on(state: &ClusterState, half: &Stray<'_>, found: &[Stray<'_>]) -> bool {
    let ended = |stray: &Stray<'_>| state.is_outranked(stray.epoch);
    match half.condition {
        GuestCondition::Incoming => !ended(half),
        // A guest that was found running has no assignment until it has been sent: whose move it was, the other half says, which has.
        GuestCondition::Sent => !ended(half) && (half.epoch.generation > 0 || !found.iter().any(ended)),
        GuestCondition::Running
        | GuestCondition::Paused { .. }
        | GuestCondition::IoError { .. }
        | GuestCondition::Panicked
        | GuestCondition::Exited { .. }
        | GuestCondition::Unknown { .. } => false,
    }
}

/// The open order to release the guest on a host.
pub(super) fn release_of(state: &ClusterState, name: &GuestName, host: &HostName) -> Option<crate::names::OrderId> {
    let releases = |order: &&crate::order::Order| {
        matches!(&order.kind, OrderKind::Release { guest, .. } if guest == name) && order.host == *host
    };
    state.orders.values().find(releases).map(|order| order.id)
}

/// An open order to release the guest, wherever.
fn any_release_of<'a>(state: &'a ClusterState, name: &GuestName) -> Option<&'a Order> {
    state.orders.values().find(|order| matches!(&order.kind, OrderKind::Release { guest, .. } if guest == name))
}

impl<'b> Pass<'_, 'b> {
    /// What hosts that answer report of the guest, from syncs that came well after this log index.
    pub(super) fn found(&self, name: &GuestName, since: u64) -> Vec<Stray<'b>> {
        let Some(hosts) = self.glance.reported.get(name) else { return Vec::new() };
        let (evidence, told_after) = (self.round.evidence, self.round.told_after(since));
        let stray = |host: &&'b HostName| {
            let seen =
                evidence.hosts.get(*host).filter(|seen| seen.sync.as_ref().is_some_and(|sync| sync.at > told_after))?;
            let report = seen.reports.get(name)?;
            Some(Stray { host, epoch: report.epoch, condition: &report.condition })
        };
        hosts.iter().filter_map(stray).collect()
    }

    /// What a host that is not well heard had of a guest that is proven to run nowhere, when it was last heard. Of the host where it
    /// ran that is over by the proof, unless it was heard after that.
    pub(super) fn may_be_left(&self, name: &GuestName, last: Option<&HostName>, since: u64) -> Option<Stray<'b>> {
        let told_after = self.round.told_after(since);
        self.glance.silent.iter().find_map(|&(host, seen)| {
            let report = seen.reports.get(name).filter(|report| is_there(&report.condition))?;
            let counts = Some(host) != last || seen.sync.as_ref().is_some_and(|sync| sync.at > told_after);
            counts.then_some(Stray { host, epoch: report.epoch, condition: &report.condition })
        })
    }

    /// A host that answers, and had something of the guest in its newest word, which was before it can have known that the guest is proven
    /// to run nowhere. Of the host where it ran that is over by the proof.
    pub(super) fn had_just_now(&self, name: &GuestName, last: Option<&HostName>, since: u64) -> Option<&'b HostName> {
        let (evidence, told_after) = (self.round.evidence, self.round.told_after(since));
        let is_early = |host: &&HostName| {
            let sync = evidence.hosts.get(*host).and_then(|seen| seen.sync.as_ref());
            Some(*host) != last && sync.is_some_and(|sync| sync.at <= told_after)
        };
        self.glance.reported.get(name)?.iter().copied().find(is_early)
    }

    /// Orders the stop of what a silent host may have. An order is not forgotten with the coordinator that gave it (S6), and has its
    /// host fenced if that one fails: nothing else would ever end the wait (L1).
    pub(super) fn stop_left(&mut self, name: &GuestName, left: Stray<'_>) {
        if self.round.state.hosts.get(left.host).is_some_and(|known| known.life == Life::Up) {
            self.stop_strays(name, &[left], None);
        }
    }

    pub(super) fn tell_left(&mut self, name: &GuestName, host: &HostName) {
        let why = format!("{host} had something of it when it was last heard");
        self.tell_of_silent(name, host, &why, &format!("It may run on {host} still."));
    }

    /// Tells of a guest that starts nowhere because a silent host may have it. A person may be the only one who can say what became
    /// of it: not every host can be fenced.
    pub(super) fn tell_of_silent(&mut self, name: &GuestName, host: &HostName, why: &str, first: &str) {
        let summary = format!("{name} starts nowhere: {why}");
        let human = format!(
            "{first} Bring {host} back, or see that it is off and run \
             `holdfast host confirm-off {host} --operator YOUR-NAME`, unless it is fenced."
        );
        open(self.round, self.decision, format!("twice/{name}"), Severity::Critical, summary, Some(human));
    }

    /// Whoever has a guest twice has to look at its disks.
    pub(super) fn tell_strays(&mut self, name: &GuestName, strays: &[Stray<'_>], although: fmt::Arguments<'_>) {
        if strays.is_empty() {
            self.close("twice");
            return;
        }
        let summary = format!("{name} was found on {} {although}", on(strays));
        let human = format!(
            "Look who started {name} there and whether its disks are sound. Holdfast keeps one and stops the rest."
        );
        open(self.round, self.decision, format!("twice/{name}"), Severity::Critical, summary, Some(human));
    }

    /// Orders every stray but the kept one to be stopped, each again after a pause.
    pub(super) fn stop_strays(&mut self, name: &GuestName, strays: &[Stray<'_>], keep: Option<&HostName>) {
        let asked = self.round.state.guests.get(name).map(|guest| &guest.strays);
        for stray in strays.iter().filter(|stray| Some(stray.host) != keep) {
            let newest = asked.and_then(|asked| asked.get(stray.host));
            let again = newest.is_none_or(|index| self.round.age(*index) >= STOP_AGAIN_AFTER);
            if again && release_of(self.round.state, name, stray.host).is_none() {
                let (guest, host, epoch) = (name.clone(), stray.host.clone(), stray.epoch);
                self.decision.commands.push(Change::StrayFound { guest, host, epoch, keep: keep.cloned() });
            }
        }
    }

    /// What the stop of strays waits for: the host that may take longest to answer, or the pause before a failed stop is tried
    /// again; else that it begins, by an order of this round or by the next sync (R10).
    pub(super) fn stop_of_strays(&self, name: &GuestName, keep: Option<&HostName>) -> Waits {
        let asked = &self.round.state.guests.get(name)?.strays;
        let others = || asked.iter().filter(move |(host, _)| Some(*host) != keep);
        let order = |host: &HostName| {
            let order = release_of(self.round.state, name, host)?;
            self.round.answer_to(order, "the word that nothing of it is left")
        };
        let open = others().filter_map(|(host, _)| order(host)).max_by_key(|(_, left)| *left);
        let pause = || {
            let newest = others().map(|(_, index)| STOP_AGAIN_AFTER.saturating_sub(self.round.age(*index))).max()?;
            (!newest.is_zero()).then(|| ("the next try to stop it there".to_owned(), millis(newest)))
        };
        open.or_else(pause).or_else(|| Some(("it to be stopped there".to_owned(), FOREVER)))
    }

    /// Where other tools have moved a guest to, if that is beyond doubt: its own host is well and has nothing of it, and of
    /// all others one well host alone runs it, under the very assignment that is committed. Another epoch would be somebody
    /// else's start of it, and no number that is ours (R7).
    pub(super) fn moved_to(&self, run: &Run<'_>) -> Option<Tenure> {
        let round = self.round;
        let [only] = self.glance.reported.get(run.name)?.as_slice() else { return None };
        let found = self.found(run.name, run.since);
        let [there] = found.as_slice() else { return None };
        let as_committed = there.epoch == run.tenure.epoch && *there.condition == GuestCondition::Running;
        let well = |host: &HostName| {
            let unwell = round.hosts.get(host).is_none_or(|judgement| judgement.unwell.is_some());
            !unwell && release_of(round.state, run.name, host).is_none()
        };
        let is_moved = **only != run.tenure.host && as_committed && self.has_nothing(run);
        if !is_moved || !well(there.host) || !well(&run.tenure.host) {
            return None;
        }
        let incarnation = round.state.hosts.get(there.host)?.facts.incarnation.clone();
        Some(Tenure { host: there.host.clone(), incarnation, epoch: there.epoch })
    }

    /// Whether the guest's own host answers, and says in a sync that came well after the guest began to run that nothing of it
    /// is there.
    fn has_nothing(&self, run: &Run<'_>) -> bool {
        let Some(seen) = run.here.seen.filter(|_| run.here.answers) else { return false };
        let told_after = self.round.told_after(run.since);
        let told = |sync: &Heard| sync.incarnation == run.tenure.incarnation && sync.at > told_after;
        seen.sync.as_ref().is_some_and(told)
            && seen.reports.get(run.name).is_none_or(|report| !is_there(&report.condition))
    }

    /// Follows a guest to where other tools have moved it, unless nothing is to be done to it at present, or a third host is
    /// still to stop what it had of it: nobody knows yet what is left there, and that host may be dead.
    pub(super) fn follow(&mut self, run: &Run<'_>, there: Tenure, judgement: &mut GuestJudgement) {
        let round = self.round;
        let (from, to) = (&run.tenure.host, &there.host);
        judgement.doing = format!("runs on {to}, where other tools have moved it; {from} has nothing of it");
        if let Some(hands_off) = self.hands_off(run) {
            judgement.doing = format!("{}; {hands_off}", judgement.doing);
            judgement.waits = Some(hands_on(&hands_off));
        } else if let Some(order) = any_release_of(round.state, run.name) {
            let host = &order.host;
            judgement.doing = format!("{}; {host} has not said yet that nothing of it is left there", judgement.doing);
            judgement.waits = self.round.answer_to(order.id, "the word that nothing of it is left");
        } else {
            self.decision.commands.push(Change::MovedOutside { guest: run.name.clone(), tenure: there });
        }
    }

    /// A guest that runs where the state says, and is reported elsewhere as well: why nothing is started or moved meanwhile.
    pub(super) fn strays_of_running(&mut self, run: &Run<'_>) -> Option<String> {
        let mut strays = Vec::new();
        let reported = self.glance.reported.get(run.name);
        if reported.is_some_and(|hosts| hosts.iter().any(|host| **host != run.tenure.host)) {
            strays = self.found(run.name, run.since);
            strays.retain(|stray| *stray.host != run.tenure.host);
        }
        if !strays.is_empty() && self.hands_off(run).is_none() {
            // An older epoch is stopped by its agent without an order, as soon as it syncs (R10).
            let newer: Vec<Stray<'_>> =
                strays.iter().filter(|stray| stray.epoch >= run.tenure.epoch).map(Stray::again).collect();
            self.stop_strays(run.name, &newer, Some(&run.tenure.host));
        }
        let asked = if run.guest.strays.is_empty() { None } else { self.being_released(run.name, &run.tenure.host) };
        // What a host that has fallen silent since had of it may run there still: who has been told of it stays told.
        let is_open = strays.is_empty() && asked.as_ref().is_some_and(|host| !self.round.answers(host));
        if !is_open {
            self.tell_strays(run.name, &strays, format_args!("although it runs on {}", run.tenure.host));
        }
        if !strays.is_empty() {
            return Some(format!("found on {} as well, where it is stopped first", on(&strays)));
        }
        asked.map(|host| format!("{host} has not said yet that nothing of it is left there"))
    }

    /// A host, other than this one, that has been ordered to stop what it has of the guest, and has not reported.
    fn being_released(&self, name: &GuestName, but: &HostName) -> Option<HostName> {
        let mut asked = self.round.state.guests.get(name)?.strays.keys().filter(|host| *host != but);
        asked.find(|host| release_of(self.round.state, name, host).is_some()).cloned()
    }
}

impl<'a> Stray<'a> {
    fn again(&self) -> Self {
        Self { host: self.host, epoch: self.epoch, condition: self.condition }
    }
}

/// The hosts of strays, in words.
pub(super) fn on(strays: &[Stray<'_>]) -> String {
    let hosts: Vec<&str> = strays.iter().map(|stray| stray.host.as_str()).collect();
    hosts.join(" and ")
}
