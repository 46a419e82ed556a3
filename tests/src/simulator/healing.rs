//! What happens once faults have stopped: what was broken works again, and operators do what the pages ask for.

use holdfast_policies::{
    change::Change,
    model::FenceLevel,
    names::GuestName,
    state::{Life, Mode, Wanted},
};

use super::{
    Ms,
    device::Device,
    faults::Happening,
    world::{Healing, World},
};

/// How long it takes a person to look at every host.
pub(super) const LOOKING: Ms = 20_000;
/// What is off when the faults stop comes back within this, if it does.
pub(super) const BACK_WITHIN: Ms = 10_000;
/// A voter that is found to be off comes back after this.
pub(super) const VOTER_BACK_AFTER: Ms = 8_000;

impl World {
    /// The faults stop, and operators do what the pages ask for.
    pub(super) fn heal(&mut self) {
        let now = self.now;
        let bound = self.heal_bound();
        self.story.note(self.real(), || bound.words());
        self.armed.clear();
        self.network.repair();
        // Links that were bad a moment ago may have lost what is expected.
        self.untold.clear();
        self.sick.clear();
        self.causes.end();
        self.healing = Some(Healing { since: now, limit: bound.limit() });
        self.twin_goes();
        for index in 0..self.named {
            self.set_device(index, Device::Good);
            let known = &mut self.hosts[index];
            for outlet in &mut known.outlets {
                (outlet.device, outlet.feeds) = (Device::Good, outlet.feeds || known.on);
            }
            known.stubborn.clear();
            known.blind.clear();
            known.unable.clear();
            (known.starts_fail_until, known.moves_fail_until) = (0, 0);
            // A voter comes back; of the others, some do.
            if !known.on && (index < self.voters.len() || self.random.one_in(2)) {
                let wait = self.random.below(BACK_WITHIN);
                self.power_on_after(index, wait);
            }
        }
        self.look_after();
    }

    /// Once faults have stopped, operators look every few seconds: they take back what they
    /// have set, confirm what is off, and begin ladders anew.
    pub(super) fn look_after(&mut self) {
        self.recover_once_more();
        if self.truth.state.suspended.is_some() {
            self.operator(Happening::Suspended { suspended: false }, 0);
        }
        let unwanted = self.truth.state.guests.iter().filter(|(_, known)| known.wanted != Wanted::Running);
        for guest in unwanted.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.operator(Happening::WantedIs { guest, wanted: Wanted::Running }, 0);
        }
        for host in 0..self.named {
            let known = self.truth.state.hosts.get(&self.hosts[host].name);
            if known.is_some_and(|known| known.mode != Mode::Active) {
                self.operator(Happening::ModeIs { host, mode: Mode::Active }, 0);
            }
        }
        self.twin_goes();
        self.settle_names();
        self.settle_new_machines();
        self.lift_quarantines();
        self.readmit();
        self.allow_fences();
        for host in 0..self.named {
            self.look_after_devices(host);
            self.look_after_hung(host);
            // Votes are needed back, whatever switched their hosts off meanwhile.
            if host < self.voters.len() && !self.hosts[host].on {
                self.power_on_after(host, VOTER_BACK_AFTER);
            }
            let life = self.truth.state.hosts.get(&self.hosts[host].name).map(|known| &known.life);
            let waits = matches!(life, Some(Life::Up | Life::Fencing(_)));
            if waits && !self.hosts[host].on {
                self.operator(Happening::ConfirmOff { host }, 0);
            }
        }
        self.release_hold();
        let stuck: Vec<GuestName> = self
            .truth
            .state
            .guests
            .iter()
            .filter(|(name, known)| {
                let policies = &self.truth.state.policies;
                known.ladder.position.as_ref().is_some_and(|position| {
                    position.rung + 1 >= holdfast_policies::ladder::ladder_of(policies, name, position.ladder).len()
                })
            })
            .map(|(name, _)| name.clone())
            .collect();
        for guest in stuck {
            self.operate(Change::LadderReset { guest });
        }
    }

    /// Whoever is paged for a storm hold looks at every host. What is off is confirmed to be; where the others are heard again,
    /// or hang for certain, no switch has failed that they would be cut off by, and fencing may go on (R21). Looking takes so
    /// long that no silence counts any more which came from the faults themselves.
    fn release_hold(&mut self) {
        let now = self.now;
        let looked = self.healing.is_some_and(|healing| now - healing.since >= LOOKING);
        let holds = self.truth.state.open_incident("storm").is_some() && self.truth.state.storm_release.is_none();
        let (hung, others): (Vec<_>, Vec<_>) = self.hosts.iter().take(self.named).partition(|host| host.hung);
        let found = others.iter().all(|host| !host.on || host.alive(now));
        if looked && holds && found && !hung.is_empty() {
            self.operate(Change::StormHoldReleased { by: "ann".to_owned() });
        }
    }

    /// A host that hangs is switched off by whoever looks at it where no device can, and started again where no guest
    /// waits for its fence.
    fn look_after_hung(&mut self, host: usize) {
        if !self.hosts[host].hung {
            return;
        }
        let name = self.hosts[host].name.clone();
        let state = &self.truth.state;
        let has_device = state.policies.levels_of(&name).iter().any(FenceLevel::has_device);
        let waited_for = state.guests_of(&name).next().is_some();
        if !waited_for || !has_device || host < self.voters.len() {
            self.power_off(host, None);
            if !waited_for || host < self.voters.len() {
                self.power_on_after(host, 6_000);
            }
        }
    }
}
