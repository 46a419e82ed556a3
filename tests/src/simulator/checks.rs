//! The promises and the rules of docs/SAFETY.md, checked against what is really so. Each check names
//! the promise that it guards.
//!
//! Here: what is noted of a promise that was broken, and what is looked at whenever an entry is committed. The checks themselves are
//! in a file for each thing that they are about, such as [`super::start_checks`].

use holdfast_policies::{
    change::{Change, Refused},
    feature_level::FeatureLevel,
    names::{Epoch, GuestName},
    order::{OrderKind, OrderOutcome},
    state::{Host, Life, Wanted},
};

use super::{Ms, voter::LogEntry, world::World};

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The promise or rule.
    pub promise: &'static str,
    /// What happened.
    pub what: String,
    /// When, in simulated milliseconds.
    pub at: Ms,
}

/// What is really committed, from outside.
#[derive(Default)]
pub struct Truth {
    /// The entries' numbers, in order.
    pub log: Vec<u64>,
    /// The state that they make.
    pub state: holdfast_policies::state::ClusterState,
    /// Since when each host may not get a lease: a fence is open, or it is proven gone.
    pub shut_since: Vec<Option<Ms>>,
    /// The newest epoch that ran, by guest, and on which host.
    pub newest: std::collections::BTreeMap<GuestName, (Epoch, usize)>,
}

impl World {
    /// Notes the first promise that was broken; what follows from it is not looked at.
    pub(super) fn violate(&mut self, promise: &'static str, what: String) {
        if self.violation.is_none() {
            self.story.note(self.skipped + self.now, || format!("VIOLATION of {promise}: {what}"));
            self.violation = Some(Violation { promise, what, at: self.skipped + self.now });
        }
    }

    /// S6, and whatever can be seen when an entry is committed.
    pub(super) fn committed(&mut self, index: usize, entry: &LogEntry, at: Ms) {
        if let Some(known) = self.truth.log.get(index) {
            if *known != entry.id {
                self.violate("S6", format!("entry {} was committed, and another one in its place", index + 1));
            }
            return;
        }
        self.truth.log.push(entry.id);
        let Some(command) = &entry.command else { return };
        let number = self.base + index as u64 + 1;
        let change = &command.what;
        let order = match change {
            Change::OrderEnded { order, .. } => self.truth.state.orders.get(order).cloned(),
            _ => None,
        };
        let joined = match change {
            Change::HostJoined { host, .. } => self.truth.state.hosts.get(host).map(|known| known.facts.clone()),
            _ => None,
        };
        let restrained = self.restrained(change);
        let ungrounded = self.ungrounded(change, entry.proposed);
        let before = self.random.one_in(400).then(|| self.truth.state.clone());
        let applied = self.truth.state.apply(number, (**command).clone());
        self.versions.note(&self.truth.state, self.now);
        if let (Some(mut before), Some(refused)) = (before, &applied.refused) {
            before.applied = number;
            if before != self.truth.state {
                self.violate("S7", format!("a command was refused ({refused}) and changed something"));
            }
        }
        self.tell_committed(number, change, applied.refused.as_ref(), at);
        if applied.refused.is_some() {
            return;
        }
        if let Some(why) = restrained.or(ungrounded) {
            self.violate("S5", why);
        }
        self.note_shut();
        self.expect_told(number);
        match change {
            Change::HostGone { proof, .. } => self.check_gone(proof.kind()),
            Change::GuestFree { guest, .. } => self.check_nowhere(guest),
            Change::OrderEnded { outcome: OrderOutcome::Done { .. }, .. } => {
                if let Some(order) = order
                    && let OrderKind::Release { guest, epoch, .. } = &order.kind
                {
                    self.check_released(&order.host, &order.incarnation, guest, *epoch);
                }
            }
            Change::FenceOpened { host, evidence, .. } => self.check_fence(host, evidence, entry.proposed),
            Change::FenceAttempted { host, .. } => {
                self.check_storm(host, entry.proposed);
                self.check_budget(host);
            }
            Change::FenceAllowed { .. } => self.seen.fences_allowed += 1,
            Change::QuarantineLifted { host, .. } => self.forget_fences(host),
            Change::HostRevoked { host, .. } => self.note_revoked(host),
            Change::NameContested { .. } => self.seen.contested += 1,
            Change::StormHoldReleased { .. } => self.seen.holds_released += 1,
            Change::Climb { guest, .. } => {
                self.seen.rungs += 1;
                self.note_let_go(guest);
                self.check_climb(guest);
            }
            Change::IncidentOpened { key, .. } => self.note_incident(key),
            Change::Stop { guest, .. } => self.note_stopped(guest),
            Change::MovedOutside { guest, tenure } => self.check_followed(guest, &tenure.host),
            Change::MoveAsked { .. } => self.seen.moves_asked += 1,
            Change::LevelRaised { to } => {
                self.seen.levels_raised += u64::from(self.upgrades && *to == FeatureLevel::HIGHEST);
            }
            Change::WantedSet { wanted: Wanted::Unmanaged, .. } => self.seen.left_alone += 1,
            Change::HostJoined { host, facts, .. } => {
                let contested = self.truth.state.hosts.get(host).is_some_and(|known| known.is_contested());
                self.seen.contested += u64::from(contested);
                let twice = joined.as_ref().is_some_and(|before| before.incarnation != facts.incarnation);
                self.check_copy(host, &facts.incarnation, joined.as_ref().map(|before| &before.incarnation));
                self.check_joined(host, &facts.incarnation, twice);
                self.check_comes_back(host, &facts.incarnation);
            }
            _ => {}
        }
        self.spring(change);
    }

    /// Restraint: what nobody may begin just now, if this begins it.
    fn restrained(&self, change: &Change) -> Option<String> {
        let state = &self.truth.state;
        let hands_off = |guest: &GuestName| {
            let home = state.guests.get(guest).and_then(|known| known.home()).map(|home| home.host.clone());
            home.is_some_and(|home| state.hosts.get(&home).is_some_and(Host::in_maintenance))
        };
        let unmanaged =
            |guest: &GuestName| state.guests.get(guest).is_some_and(|known| known.wanted == Wanted::Unmanaged);
        match change {
            Change::FenceOpened { host, .. } | Change::DrillBegun { host, .. } if state.suspended.is_some() => {
                Some(format!("{host} is to be switched off, and deciding is suspended"))
            }
            Change::FenceOpened { host, .. } if state.hosts.get(host).is_some_and(Host::in_maintenance) => {
                Some(format!("{host} is to be fenced, and is in maintenance"))
            }
            Change::Place { guest, .. } | Change::Climb { guest, .. } | Change::Migrate { guest, .. }
                if state.suspended.as_ref().is_some_and(|suspension| !suspension.under_way.contains(guest)) =>
            {
                Some(format!("something is begun with {guest}, and deciding is suspended"))
            }
            Change::Place { guest, .. } | Change::Climb { guest, .. } if unmanaged(guest) => {
                Some(format!("something is done about {guest}, which is to be left alone"))
            }
            Change::Climb { guest, .. } if hands_off(guest) => {
                Some(format!("something is done about {guest}, and its host is in maintenance"))
            }
            _ => None,
        }
    }

    fn tell_committed(&mut self, number: u64, change: &Change, refused: Option<&Refused>, at: Ms) {
        if !self.story.told {
            return;
        }
        let said: Vec<String> = self
            .truth
            .state
            .journal
            .entries()
            .rev()
            .take_while(|entry| entry.index == number)
            .map(|entry| format!("journal: {}", entry.what))
            .collect();
        for line in said.into_iter().rev() {
            self.story.note(at, || line);
        }
        if let Some(refused) = refused {
            let text: String = format!("{change:?}").chars().take(160).collect();
            self.story.note(at, || format!("refused: {refused} ({text})"));
        }
    }

    pub(super) fn note_shut(&mut self) {
        for index in 0..self.hosts.len() {
            let known = self.truth.state.hosts.get(&self.hosts[index].name);
            let shut = known.is_some_and(|known| known.life != Life::Up);
            let since = &mut self.truth.shut_since[index];
            *since = if shut { since.or(Some(self.now)) } else { None };
        }
    }
}
