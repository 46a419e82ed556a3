//! The promises and the rules of docs/SAFETY.md, checked against what is really so. Each check names
//! the promise that it guards.

use holdfast_policies::{
    change::{Change, Refused},
    feature_level::FeatureLevel,
    names::{Epoch, GuestName, HostName, Incarnation},
    order::{OrderKind, OrderOutcome},
    proof::ProofKind,
    state::{Host, Life, Mode, Wanted},
    sync::Authority,
    time::millis,
};

use super::{
    Ms, chores::TWIN_BOOTS, consensus::LogEntry, guest::Vm, host::boot_of, oddities::FASTEST, views::KNOWN_WITHIN,
    world::World,
};

/// A boot that the coordinator heard so long ago is not over; what it has heard since may not have been looked at yet.
const HEARD_NOW: std::ops::Range<Ms> = 50..800;
/// A supervisor hands the lead over once in a minute at most, as its clock counts: the fastest is done with that so early.
const HANDED_OVER_AGAIN: Ms = 60_000 * 1_000 / FASTEST - 1;
/// A well host that reaches the coordinator has a lease after this.
const LEASE_PATIENCE: Ms = 12_000;

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
                self.check_climb(guest);
            }
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

    // ---- starting and running ----

    /// S2, S4, R7, R14, R20: what must be so when virtual CPUs begin to run under a new assignment.
    pub(super) fn check_start(&mut self, host: usize, guest: &GuestName, epoch: Epoch) {
        self.check_elsewhere(host, guest, false);
        self.check_lease_holds(host, guest);
        let (newest, by) = self.truth.newest.get(guest).copied().unwrap_or_default();
        // The same start may be done again by the same host, after a crash in the middle (S7).
        if epoch < newest || (epoch == newest && by != host && epoch != Epoch::default()) {
            let name = &self.hosts[host].name;
            self.violate(
                "R7",
                format!("{name} starts {guest} under epoch {epoch}, and epoch {newest} has run already"),
            );
        }
        self.truth.newest.insert(guest.clone(), (epoch.max(newest), host));
    }

    /// R22, S2: who may let a paused half run.
    pub(super) fn check_resume(&mut self, host: usize, guest: &GuestName, epoch: Epoch) {
        self.check_elsewhere(host, guest, true);
        self.check_lease_holds(host, guest);
        let state = self.hosts[host].machines.get(guest).map(|machine| machine.state);
        let name = self.hosts[host].name.clone();
        // What has been switched in a history that was lost, nobody knows any more.
        if !self.is_of_lost(epoch) && state == Some(Vm::Incoming(true)) && !self.is_switched_to(guest, &name, epoch) {
            self.violate("R22", format!("{name} lets {guest} run before the switch is committed"));
        }
    }

    /// S2: whatever else may have run the guest is gone, released, or (for a resume) paused for good.
    fn check_elsewhere(&mut self, host: usize, guest: &GuestName, resume: bool) {
        for other in (0..self.hosts.len()).filter(|other| *other != host) {
            let Some(machine) = self.hosts[other].machines.get(guest) else { continue };
            let harmless = match machine.state {
                Vm::Exited => true,
                Vm::Incoming(_) | Vm::Sent => resume,
                Vm::Running | Vm::Paused | Vm::Panicked => false,
            };
            if !harmless {
                let (name, state) = (self.hosts[host].name.clone(), machine.state);
                let there = self.hosts[other].name.clone();
                self.violate("S2", format!("{name} lets {guest} run, and {there} still has it ({state:?})"));
            }
        }
    }

    /// S4, R14: virtual CPUs begin to run only while the lease really lasts.
    fn check_lease_holds(&mut self, host: usize, guest: &GuestName) {
        let until = self.hosts[host].lease_until;
        if self.now > until {
            let name = self.hosts[host].name.clone();
            let ago = self.now - until;
            self.violate("R14", format!("{name} lets {guest} run, and its lease ran out {ago} ms ago"));
        }
    }

    /// S1: no guest's virtual CPUs run on two hosts.
    pub(super) fn check_running(&mut self, guest: &GuestName) {
        let runs = |machine: &super::guest::Machine| machine.state == Vm::Running;
        let on: Vec<&str> = self
            .hosts
            .iter()
            .filter(|host| host.machines.get(guest).is_some_and(runs))
            .map(|host| host.name.as_str())
            .collect();
        let witness = self.hosts.iter().find(|host| !host.facts.guests && host.machines.get(guest).is_some_and(runs));
        if on.len() > 1 {
            let on = on.join(" and ");
            self.violate("S1", format!("{guest} runs on {on}"));
        } else if let Some(witness) = witness {
            let name = witness.name.clone();
            self.violate("R8", format!("{guest} runs on {name}, which is to run no guests"));
        }
    }

    // ---- proofs ----

    /// S2, R9: a boot whose lease ran out, with its guard's and its watchdog's time, has nothing left that runs or could.
    fn check_ran_out(&mut self, host: &HostName, incarnation: &Incarnation) {
        let Some(index) = self.machine_of(host, incarnation) else { return };
        let known = &self.hosts[index];
        if !known.on || known.boot_number() != boot_of(incarnation) {
            return;
        }
        let left = known.machines.iter().find(|(_, machine)| machine.state != Vm::Exited);
        if let Some((guest, machine)) = left {
            let (guest, state) = (guest.clone(), machine.state);
            self.violate("S2", format!("{host} is proven gone by its lease, and has {guest} still ({state:?}, R9)"));
        }
    }

    /// S2, R9: a boot that is proven gone is really gone.
    fn check_gone(&mut self, proof: &ProofKind) {
        if let ProofKind::LeaseExpired { host, incarnation, .. } = proof {
            self.check_ran_out(host, incarnation);
            return;
        }
        let (ProofKind::PowerOff { host, incarnation, .. } | ProofKind::Operator { host, incarnation, .. }) = proof
        else {
            return;
        };
        let Some(index) = self.machine_of(host, incarnation) else { return };
        let known = &self.hosts[index];
        if known.on && known.boot_number() == boot_of(incarnation) {
            self.violate("S2", format!("{host} is proven gone, and its boot {incarnation} is on (R9)"));
        }
    }

    /// S2: a guest is followed to where other tools have moved it only if nothing of it is left where it was.
    fn check_followed(&mut self, guest: &GuestName, to: &HostName) {
        self.seen.followed += 1;
        let left = |host: &&super::host::Host| {
            host.name != *to && host.machines.get(guest).is_some_and(|known| known.state != Vm::Exited)
        };
        if let Some(host) = self.hosts.iter().find(left) {
            let name = host.name.clone();
            self.violate("S2", format!("{guest} is followed to {to}, and {name} has it still"));
        }
    }

    /// S2, R8: a guest that was never placed, and is said to be nowhere, is nowhere.
    fn check_nowhere(&mut self, guest: &GuestName) {
        let there =
            self.hosts.iter().find(|host| host.machines.get(guest).is_some_and(|known| known.state != Vm::Exited));
        if let Some(host) = there {
            let name = host.name.clone();
            self.violate("S2", format!("{guest} is said to be on no host, and {name} has it (R8)"));
        }
    }

    /// S2, R9: what is reported released is not there, and its floor is on disk.
    fn check_released(&mut self, host: &HostName, boot: &Incarnation, guest: &GuestName, epoch: Epoch) {
        let Some(index) = self.machine_of(host, boot) else { return };
        let known = &self.hosts[index];
        let left = known.machines.get(guest).filter(|machine| machine.epoch <= epoch && machine.state != Vm::Exited);
        if let Some(machine) = left {
            let state = machine.state;
            self.violate("S2", format!("{host} has reported {guest} released, and has it still ({state:?}, R9)"));
            return;
        }
        let floor = known.disk.floors.get(guest).copied().unwrap_or_default();
        if floor < epoch && !known.floors_lost && known.disk.floors_known {
            self.violate(
                "R9",
                format!("{host} has reported {guest} released up to {epoch}; its floor on disk is {floor}"),
            );
        }
    }

    // ---- authority and leases ----

    /// R3: an agent's word never goes back.
    pub(super) fn check_reply(&mut self, host: usize, _by: usize, _began: Ms, seen: Authority, got: Authority) {
        let newest = &mut self.authorities[host];
        let before = *newest;
        *newest = Authority {
            generation: before.generation.max(got.generation),
            term: before.term.max(got.term),
            index: before.index.max(got.index),
        };
        let back = got.term < seen.term || got.index < seen.index;
        if got.generation < seen.generation || (got.generation == seen.generation && back) {
            let name = self.hosts[host].name.clone();
            self.violate("R3", format!("{name} accepts {got:?} after {seen:?}"));
        }
    }

    /// R2, R10, R12, R20: no lease outlasts what a majority confirmed.
    pub(super) fn check_lease(&mut self, host: usize, sent: Ms, lease_ms: u64) {
        // The agent counts on its own clock, which may be slow.
        let until = sent + self.hosts[host].lasts(lease_ms);
        let lease = millis(self.timing.lease.0);
        if self.hosts[host].floors_lost {
            let name = self.hosts[host].name.clone();
            self.violate("R12", format!("{name} has lost its floors and takes a lease"));
        }
        if let Some(since) = self.truth.shut_since[host]
            && until > since + lease * 21 / 20 + 5
        {
            let name = self.hosts[host].name.clone();
            let ago = self.now - since;
            self.violate("R2", format!("{name} takes a lease {ago} ms after a fence of it was committed (R20)"));
        }
        self.hosts[host].lease_until = self.hosts[host].lease_until.max(until);
    }

    /// R11: a boot joins once.
    fn check_joined(&mut self, host: &HostName, incarnation: &Incarnation, anew: bool) {
        let Some(index) = self.machine_of(host, incarnation) else { return };
        let (boot, number) = (self.hosts[index].boot, boot_of(incarnation));
        // A request of a boot that is over may be late.
        if number != self.hosts[index].boot_number() {
            return;
        }
        if anew && self.joined[index].is_some_and(|(joined, known)| joined == boot && known != number) {
            self.violate("R11", format!("{host} joins with another incarnation, and has not booted"));
        }
        self.joined[index] = Some((boot, number));
    }

    /// R29: who is asked to lead means to stay, and has nothing against it; and nobody asks again within a minute.
    pub(super) fn check_handed_over(&mut self, by: usize, to: usize) {
        let before = self.voters[by].handed_over.replace(self.now);
        if let Some(ago) = before.map(|before| self.now - before).filter(|ago| *ago < HANDED_OVER_AGAIN) {
            let name = self.hosts[by].name.clone();
            self.violate("R29", format!("{name} hands the lead over again {ago} ms after the last time"));
        }
        let name = self.hosts[to].name.clone();
        let stays = |mode| matches!(mode, Mode::Active | Mode::Draining);
        let fit = |host: &Host| host.life == Life::Up && stays(host.mode);
        if !self.truth.state.hosts.get(&name).is_some_and(fit) {
            self.violate("R29", format!("the lead is handed to {name}, which is gone, going, or not to be relied on"));
        }
    }

    /// R11: a copy does not join beside what it is a copy of. While that is not heard, nobody can tell the copy from its
    /// next boot: what comes of it is beyond what is promised.
    fn check_copy(&mut self, host: &HostName, joining: &Incarnation, before: Option<&Incarnation>) {
        let Some(twin) = self.twin.filter(|twin| twin.is_copy && boot_of(joining) >= TWIN_BOOTS) else { return };
        let (now, first) = (self.now, &self.hosts[twin.of]);
        let lives = first.on && before.is_some_and(|before| boot_of(before) == first.boot_number());
        let Some(leader) = self.coordinator().filter(|_| lives) else { return };
        let heard = self.hosts[leader].heard_at(twin.of, first.boot_number());
        if heard.is_some_and(|at| HEARD_NOW.contains(&(now - at))) {
            self.violate("R11", format!("a copy of {host} joins beside it"));
        } else {
            self.story.note(self.skipped + now, || format!("nobody can tell the copy of {host} from its next boot"));
            self.beyond = true;
            self.seen.beyond += 1;
        }
    }

    /// R4, R6: a host that reaches a majority of the voters, and so the coordinator, has a lease, and knows what is committed.
    pub(super) fn check_reach(&mut self) {
        let now = self.now;
        let leader = self.coordinator();
        if leader.is_none() {
            self.led_since = now;
        }
        for host in 0..self.hosts.len() {
            if !leader.is_some_and(|leader| self.reaches(host, leader)) {
                self.reaching[host] = now;
                continue;
            }
            let reaches_for = now - self.reaching[host].max(self.led_since);
            if reaches_for >= LEASE_PATIENCE && self.hosts[host].lease_until < now {
                let name = self.hosts[host].name.clone();
                self.violate("R6", format!("{name} reaches the coordinator through a voter, and has no lease"));
            }
            if reaches_for >= KNOWN_WITHIN {
                self.check_told_views(host);
            }
        }
        self.check_lies();
    }

    /// Whether a host is well, and reaches a majority of the voters over links without a fault, each of which reaches
    /// the coordinator so.
    fn reaches(&self, host: usize, leader: usize) -> bool {
        let now = self.now;
        let both = |one: usize, other: usize| self.network.good(one, other, now) && self.network.good(other, one, now);
        let open = |voter: &usize| self.hosts[*voter].serves(now) && both(host, *voter) && both(leader, *voter);
        let reached = (0..self.voters.len()).filter(open).count();
        let up = self.truth.state.hosts.get(&self.hosts[host].name).is_some_and(|known| {
            let boot = boot_of(&known.facts.incarnation);
            known.life == Life::Up && !known.is_contested() && boot == self.hosts[host].boot_number()
        });
        // A lease is nothing before the guard has it.
        let guarded = !self.guarded || self.hosts[host].guard.down_until <= now;
        self.hosts[host].serves(now) && guarded && !self.disk_is_stuck(host) && up && reached * 2 > self.voters.len()
    }
}
