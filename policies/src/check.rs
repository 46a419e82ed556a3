//! The checker: judges every plan against the promises before anything of it is proposed.
//!
//! It shares no code with the planner: it counts memory, evidence and rights by itself, from the replicated state and the
//! evidence alone, and it knows no wishes, only what must not be. A plan that breaks a promise is a defect of the
//! planner; it is refused as a whole, and a human is told, because nobody knows what else it got wrong.

mod elsewhere;
mod restraint;
mod room;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    change::Change,
    evidence::{Evidence, HostEvidence, is_there},
    hostfile::Timing,
    ladder::{LadderKind, ladder_of},
    model::Rung,
    names::{GuestName, HostName},
    proof::{Power, PowerReading, Proof, ProofKind},
    state::{ClusterState, Guest, Host, Life, Mode, Phase, Wanted},
    time::{Moment, millis},
};

/// Silence of a supervisor after which a guest that waits there may be acted on without the other voters (R16).
const SUPERVISOR_PATIENCE: Duration = Duration::from_secs(30);

/// No host that was heard more recently is called off by its power device: its next beacons may be on their way (R9).
const SILENT_BEFORE_PROOF: Duration = Duration::from_millis(600);

/// A promise that a plan would break.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// The promise or rule: `S2`, `R20`.
    pub promise: String,
    /// What the plan says, and why that breaks it.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.what)
    }
}

/// Judges a plan. An empty answer means that no promise known here is broken.
#[must_use]
pub fn check(
    state: &ClusterState,
    evidence: &Evidence,
    timing: &Timing,
    now: Moment,
    plan: &[Change],
) -> Vec<Violation> {
    let (started, sent) = (BTreeSet::new(), Vec::new());
    let mut check = Check { state, evidence, timing, now, plan, found: Vec::new(), started, sent };
    if evidence.quorum_since.is_none() && !plan.is_empty() {
        check.breaks("S4", "decides something without a quorum".to_owned());
    }
    check.fences_at_once();
    check.no_storm();
    check.within_budgets();
    for change in plan {
        check.one(change);
    }
    check.found
}

struct Check<'a> {
    state: &'a ClusterState,
    evidence: &'a Evidence,
    timing: &'a Timing,
    now: Moment,
    plan: &'a [Change],
    found: Vec<Violation>,
    /// Guests that this plan starts, moves or climbs a rung for: each at most once.
    started: BTreeSet<&'a GuestName>,
    /// Guests that this plan sends to hosts.
    sent: Vec<(&'a GuestName, &'a HostName)>,
}

impl<'a> Check<'a> {
    /// No two fences at once where one runs at a time.
    fn fences_at_once(&mut self) {
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

    fn breaks(&mut self, promise: &str, what: String) {
        self.found.push(Violation { promise: promise.to_owned(), what });
    }

    fn one(&mut self, change: &'a Change) {
        match change {
            Change::Place { guest, host, .. } => self.place(guest, host),
            Change::Migrate { guest, to, .. } => self.migrate(guest, to),
            Change::Climb { guest, rung, ladder, to, .. } => self.climb(guest, *ladder, *rung, to.as_ref()),
            Change::Stop { guest, .. } => {
                self.once(guest);
                if !matches!(self.phase(guest), Some(Phase::Running { .. } | Phase::Starting { .. })) {
                    self.breaks("S7", format!("stops {guest}, which neither runs nor starts"));
                }
            }
            Change::StrayFound { guest, host, epoch, .. } => {
                let rightful = |tenure: &&crate::state::Tenure| tenure.host == *host && tenure.epoch <= *epoch;
                let known = self.state.guests.get(guest);
                if known.is_some_and(|known| known.tenures().iter().any(rightful)) {
                    self.breaks("S6", format!("has {host} stop {guest}, which it has the right to run"));
                }
                self.hands_on(guest);
            }
            Change::MovedOutside { guest, tenure } => self.follow(guest, tenure),
            Change::FenceOpened { host, evidence, .. } => self.fence(host, evidence),
            Change::FenceAttempted { host, executor, .. } => self.attempt(host, executor),
            Change::DrillBegun { host, .. } => {
                if self.state.guests_of(host).next().is_some() {
                    self.breaks("S8", format!("switches {host} off for a drill while guests run there"));
                }
                if self.state.suspended.is_some() {
                    self.breaks("S8", format!("switches {host} off for a drill while deciding is suspended"));
                }
            }
            Change::Vacated { host } => {
                if !matches!(self.state.hosts.get(host).map(|known| known.mode), Some(Mode::Leaving { .. })) {
                    self.breaks("S8", format!("stops the guests of {host}, which has not announced to go"));
                }
                self.hands_on_host(host, "stops the guests of");
            }
            Change::PowerOnOrdered { host, .. } => self.hands_on_host(host, "switches on"),
            Change::HostGone { proof, .. } => self.gone(proof),
            Change::HostReturned { host, .. } => {
                let there = |seen: &HostEvidence| seen.reports.values().any(|report| is_there(&report.condition));
                if self.evidence.hosts.get(host).is_none_or(there) {
                    self.breaks("R10", format!("takes {host} in again, which was proven gone and runs something"));
                }
            }
            Change::StoppedByLease { guest } => self.once(guest),
            Change::GuestFree { guest, proof } => self.free(guest, proof),
            Change::GuestAdopted { guest, .. } => {
                if !matches!(self.phase(guest), Some(Phase::Unplaced)) {
                    self.breaks("S1", format!("adopts {guest}, which has a place already"));
                }
                self.hands_on_first(guest);
            }
            // These are reported, wished for by people, or start nothing and stop nothing.
            Change::HostJoined { .. }
            | Change::HostArmed { .. }
            | Change::LeaseClosed { .. }
            | Change::MoveAsked { .. }
            | Change::LookedAfter { .. }
            | Change::FenceAllowed { .. }
            | Change::FenceSuperseded { .. }
            | Change::FenceForgotten { .. }
            | Change::QuarantineLifted { .. }
            | Change::NameContested { .. }
            | Change::DeviceDistrusted { .. }
            | Change::DeviceTrusted { .. }
            | Change::DrillEnded { .. }
            | Change::FenceTested { .. }
            | Change::StormHoldReleased { .. }
            | Change::StormEnded
            | Change::ReleaseAgain { .. }
            | Change::Verified { .. }
            | Change::LadderReset { .. }
            | Change::OrderEnded { .. }
            | Change::IncidentOpened { .. }
            | Change::IncidentResolved { .. }
            | Change::Delivered { .. }
            | Change::PoliciesApplied { .. }
            | Change::ModeSet { .. }
            | Change::WantedSet { .. }
            | Change::SuspensionSet { .. }
            | Change::HostRevoked { .. }
            | Change::HostReadmitted { .. }
            | Change::LevelRaised { .. } => {}
        }
    }

    fn phase(&self, guest: &GuestName) -> Option<&'a Phase> {
        self.state.guests.get(guest).map(|known| &known.phase)
    }

    fn once(&mut self, guest: &'a GuestName) {
        if !self.started.insert(guest) {
            self.breaks("S1", format!("does two things to {guest} at once"));
        }
        match self.state.guests.get(guest).map(|known| known.wanted) {
            None => self.breaks("S10", format!("acts on {guest}, which nobody has declared")),
            Some(Wanted::Unmanaged) => self.breaks("S8", format!("acts on {guest}, which is to be left alone")),
            Some(Wanted::Running | Wanted::Stopped) => {}
        }
        self.hands_on(guest);
    }

    /// Only a guest that carries its proof is started, once, where it may run and has room.
    fn place(&mut self, guest: &'a GuestName, host: &'a HostName) {
        self.once(guest);
        match self.state.guests.get(guest) {
            Some(Guest { phase: Phase::Free { .. }, wanted: Wanted::Running, .. }) => {}
            Some(Guest { phase: Phase::Free { .. }, wanted, .. }) => {
                self.breaks("S8", format!("starts {guest}, which is wanted {}", wanted.word()));
            }
            Some(known) => self.breaks("S2", format!("starts {guest} on {host} while it is {}", known.word())),
            None => {}
        }
        self.alone(guest, None);
        self.takes(guest, host);
    }

    fn takes(&mut self, guest: &'a GuestName, host: &'a HostName) {
        let Some(known) = self.state.hosts.get(host) else {
            self.breaks("S10", format!("sends {guest} to {host}, which has never joined"));
            return;
        };
        if known.life != Life::Up {
            self.breaks("R20", format!("sends {guest} to {host}, which is fenced or gone"));
        }
        if !known.facts.guests {
            self.breaks("S10", format!("sends {guest} to {host}, which runs no guests"));
        }
        if known.mode != Mode::Active {
            self.breaks("S8", format!("sends {guest} to {host}, which is {}", known.mode.word()));
        }
        self.holds(guest, host);
    }

    fn migrate(&mut self, guest: &'a GuestName, to: &'a HostName) {
        self.once(guest);
        match self.phase(guest) {
            Some(Phase::Running { tenure, .. }) if tenure.host == *to => {
                self.breaks("S8", format!("moves {guest} to {to}, where it is"));
            }
            Some(Phase::Running { tenure, .. }) => self.alone(guest, Some(&tenure.host)),
            _ => self.breaks("S2", format!("moves {guest}, which does not run")),
        }
        self.takes(guest, to);
    }

    /// S8: a rung comes after those below it, and each has its budget.
    fn climb(&mut self, guest: &'a GuestName, ladder: LadderKind, rung: usize, to: Option<&'a HostName>) {
        self.once(guest);
        let Some(known) = self.state.guests.get(guest) else { return };
        if !matches!(known.phase, Phase::Running { action: None, .. }) {
            self.breaks("S7", format!("takes a rung for {guest} while it is {}", known.word()));
        }
        if let Phase::Running { tenure, .. } = &known.phase {
            self.alone(guest, Some(&tenure.host));
        }
        let rungs = ladder_of(&self.state.policies, guest, ladder);
        let Some(taken) = rungs.get(rung) else {
            self.breaks("S8", format!("takes rung {} of {guest}, which has {}", rung + 1, rungs.len()));
            return;
        };
        if let Some(position) = known.ladder.position.as_ref().filter(|position| position.ladder == ladder) {
            if rung < position.rung {
                self.breaks("S8", format!("takes rung {} of {guest} after rung {}", rung + 1, position.rung + 1));
            }
            if rung == position.rung && position.tries >= taken.tries() {
                self.breaks("S8", format!("takes {} of {guest} a {}th time", taken.name(), position.tries + 1));
            }
        }
        if let (Rung::Migrate { .. }, Some(to)) = (taken, to) {
            self.takes(guest, to);
        }
    }

    /// S3, R16, R17: a fence names its evidence, and the evidence is counted here once more.
    fn fence(&mut self, host: &'a HostName, said: &[String]) {
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

    fn attempt(&mut self, host: &'a HostName, executor: &'a HostName) {
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

    /// R9: a proof of power names the boot that has joined; nothing was heard of it since, nor a moment ago.
    fn gone(&mut self, proof: &Proof) {
        // That a person says so is no decision of the planner.
        if let ProofKind::PowerOff { host, .. } | ProofKind::LeaseExpired { host, .. } = proof.kind() {
            self.hands_on_host(host, "takes for gone");
        }
        let (host, boot) = match proof.kind() {
            ProofKind::PowerOff { host, incarnation, .. } | ProofKind::Operator { host, incarnation, .. } => {
                (host, incarnation)
            }
            ProofKind::LeaseExpired { host, incarnation, .. } => {
                self.lease_ran_out(host, incarnation);
                return;
            }
            ProofKind::Reported { .. } | ProofKind::NotHere { .. } => {
                self.breaks("R9", "takes a guest's proof for a host's".to_owned());
                return;
            }
        };
        if !self.state.is_current(host, boot) {
            self.breaks("R9", format!("proves the boot {boot} of {host}, which is not the one that has joined"));
        }
        let by_power = matches!(proof.kind(), ProofKind::PowerOff { .. });
        let Some(heard) = self.evidence.hosts.get(host).filter(|_| by_power) else { return };
        let says_off = |reading: &&PowerReading| reading.power == Power::Off && reading.incarnation == *boot;
        let levels = self.state.policies.levels_of(host);
        let is_declared = |off: &&PowerReading| levels.get(off.level) == Some(&off.declared);
        let offs: Vec<&PowerReading> = heard.power.values().filter(says_off).filter(is_declared).collect();
        let signs = heard.sync.iter().chain(&heard.heard).filter(|sign| sign.incarnation == *boot);
        let newest = signs.map(|sign| sign.at).max();
        if offs.is_empty() {
            self.breaks("R9", format!("calls {host} off by no device that is declared for it"));
        } else if newest.is_some_and(|at| offs.iter().all(|off| at >= off.asked)) {
            self.breaks("R9", format!("calls {host} off, which was heard after its power device was asked"));
        } else if let Some(at) = newest.filter(|at| self.now.since(*at) < SILENT_BEFORE_PROOF) {
            self.breaks("R9", format!("calls {host} off, which was heard {} ms ago", millis(self.now.since(at))));
        }
    }

    /// R9, R18: a lease has run out only when neither a grant, nor the beginning of this authority, is younger than the longest
    /// lease, guard and watchdog that were committed; all of them counted by clocks that may be 5 % slower (R1). And not while
    /// its host syncs.
    fn lease_ran_out(&mut self, host: &HostName, boot: &crate::names::Incarnation) {
        if !self.state.is_current(host, boot) {
            self.breaks("R9", format!("proves the boot {boot} of {host}, which is not the one that has joined"));
        }
        let longest = self.state.hosts.get(host).map(|known| known.lease.longest).unwrap_or_default();
        let parts = [longest.lease_ms, longest.guard_ms, longest.watchdog_ms];
        let counted: u128 = parts.into_iter().map(u128::from).sum();
        let heard = self.evidence.hosts.get(host);
        let granted = heard.and_then(|heard| heard.granted.as_ref()).filter(|granted| granted.incarnation == *boot);
        let signs = granted.map(|granted| granted.at).into_iter().chain(self.evidence.authority_since);
        if signs.max().is_none_or(|newest| self.now.since(newest).as_millis() * 100 < counted * 105) {
            self.breaks("R9", format!("proves {host} gone by a lease that may last"));
        }
        let synced = heard.and_then(|heard| heard.sync.as_ref()).filter(|sync| sync.incarnation == *boot);
        if synced.is_some_and(|sync| self.now.since(sync.at) < self.timing.suspect_after.0) {
            self.breaks("R9", format!("proves {host} gone by its lease, which syncs"));
        }
    }

    fn free(&mut self, guest: &GuestName, proof: &Proof) {
        if !matches!(self.phase(guest), Some(Phase::Unplaced)) {
            self.breaks("S2", format!("frees {guest}, which has been placed, without its host's word"));
        }
        if !matches!(proof.kind(), ProofKind::NotHere { .. }) {
            self.breaks("R8", format!("places {guest} for the first time on a proof about something else"));
        }
        if let ProofKind::NotHere { hosts } = proof.kind() {
            self.known_to(guest, hosts.keys());
        }
        self.hands_on_first(guest);
    }

    /// R25: the word of a host that a guest is not there counts only when it has learned of this generation.
    fn known_to<'h>(&mut self, guest: &GuestName, mut hosts: impl Iterator<Item = &'h HostName>) {
        let nothing = HostEvidence::default();
        let unlearned = hosts.find(|host| !self.state.is_known_to(self.evidence.hosts.get(*host).unwrap_or(&nothing)));
        if let Some(host) = unlearned {
            self.breaks("R25", format!("believes {host} of {guest}, which has not learned of this generation"));
        }
    }
}

#[cfg(test)]
mod tests;
