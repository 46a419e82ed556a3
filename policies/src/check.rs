//! The checker: judges every plan against the promises before anything of it is proposed.
//!
//! It shares no code with the planner: it counts memory, evidence and rights by itself, from the replicated state and the
//! evidence alone, and it knows no wishes, only what must not be. A plan that breaks a promise is a defect of the
//! planner; it is refused as a whole, and a human is told, because nobody knows what else it got wrong.

mod elsewhere;
mod fences;
mod proofs;
mod restraint;
mod room;
mod service_storm;

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    change::Change,
    evidence::{Evidence, HostEvidence, is_there},
    hostfile::Timing,
    ladder::{LadderKind, ladder_of},
    model::Rung,
    names::{Epoch, GuestName, HostName},
    state::{ClusterState, Guest, Life, Mode, Phase, Position, Tenure, Wanted},
    time::Moment,
};

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
    check.no_service_storm();
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
    fn breaks(&mut self, promise: &str, what: String) {
        self.found.push(Violation { promise: promise.to_owned(), what });
    }

    fn one(&mut self, change: &'a Change) {
        match change {
            Change::Place { guest, host, .. } => self.place(guest, host),
            Change::Migrate { guest, to, .. } => self.migrate(guest, to),
            Change::Climb { guest, rung, ladder, to, .. } => self.climb(guest, *ladder, *rung, to.as_ref()),
            Change::Stop { guest, .. } => self.stop(guest),
            Change::StrayFound { guest, host, epoch, .. } => self.stray(guest, host, *epoch),
            Change::MovedOutside { guest, tenure } => self.follow(guest, tenure),
            Change::FenceOpened { host, evidence, .. } => self.fence(host, evidence),
            Change::FenceAttempted { host, executor, .. } => self.attempt(host, executor),
            Change::DrillBegun { host, .. } => self.drill(host),
            Change::Vacated { host } => self.vacate(host),
            Change::PowerOnOrdered { host, .. } => self.hands_on_host(host, "switches on"),
            Change::HostGone { proof, .. } => self.gone(proof),
            Change::HostReturned { host, .. } => self.take_in_again(host),
            Change::StoppedByLease { guest } => self.once(guest),
            Change::GuestFree { guest, proof } => self.free(guest, proof),
            Change::GuestAdopted { guest, .. } => self.adopt(guest),
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

    fn stop(&mut self, guest: &'a GuestName) {
        self.once(guest);
        if !matches!(self.phase(guest), Some(Phase::Running { .. } | Phase::Starting { .. })) {
            self.breaks("S7", format!("stops {guest}, which neither runs nor starts"));
        }
    }

    fn stray(&mut self, guest: &GuestName, host: &HostName, epoch: Epoch) {
        let rightful = |tenure: &&Tenure| tenure.host == *host && tenure.epoch <= epoch;
        let known = self.state.guests.get(guest);
        if known.is_some_and(|known| known.tenures().iter().any(rightful)) {
            self.breaks("S6", format!("has {host} stop {guest}, which it has the right to run"));
        }
        self.hands_on(guest);
    }

    fn drill(&mut self, host: &HostName) {
        if self.state.guests_of(host).next().is_some() {
            self.breaks("S8", format!("switches {host} off for a drill while guests run there"));
        }
        if self.state.suspended.is_some() {
            self.breaks("S8", format!("switches {host} off for a drill while deciding is suspended"));
        }
    }

    fn vacate(&mut self, host: &HostName) {
        if !matches!(self.state.hosts.get(host).map(|known| known.mode), Some(Mode::Leaving { .. })) {
            self.breaks("S8", format!("stops the guests of {host}, which has not announced to go"));
        }
        self.hands_on_host(host, "stops the guests of");
    }

    fn take_in_again(&mut self, host: &HostName) {
        let there = |seen: &HostEvidence| seen.reports.values().any(|report| is_there(&report.condition));
        if self.evidence.hosts.get(host).is_none_or(there) {
            self.breaks("R10", format!("takes {host} in again, which was proven gone and runs something"));
        }
    }

    fn adopt(&mut self, guest: &GuestName) {
        if !matches!(self.phase(guest), Some(Phase::Unplaced)) {
            self.breaks("S1", format!("adopts {guest}, which has a place already"));
        }
        self.hands_on_first(guest);
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
        // What was tried of a ladder that was longer, before this one was declared, is nothing of this one.
        let stands = |position: &&Position| position.ladder == ladder && position.rung < rungs.len();
        if let Some(position) = known.ladder.position.as_ref().filter(stands) {
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
}

#[cfg(test)]
mod tests;
