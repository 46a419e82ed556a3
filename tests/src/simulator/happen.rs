//! What each fault, and each thing that operators do, does to the world.

use holdfast_policies::{
    change::Change,
    model::{FenceLevel, LeaseLevel},
    names::GuestName,
    state::Mode,
};

use super::{Ms, breaks::Break, device::Device, faults::Happening, guest::Vm, queue::Event, world::World};

impl World {
    /// Has something happen.
    pub fn happen(&mut self, what: &Happening) {
        let (now, rested) = (self.now, self.is_at_rest());
        self.rest_since = None;
        self.story.note(self.skipped + now, || format!("== {what:?}"));
        match what {
            Happening::SupervisorCrash { host, back } => self.stop_supervisor(*host, *back),
            Happening::Upgrade { host, back } => self.upgrade(*host, *back),
            Happening::SupervisorFreeze { host, time } => self.stand_still(*host, *time),
            Happening::GuardDown { host, time } => {
                let guard = &mut self.hosts[*host].guard;
                guard.down_until = guard.down_until.max(now + time);
            }
            Happening::PowerAndDeviceLost { host, back } => {
                self.set_device(*host, Device::Unreachable);
                self.power_off(*host, None);
                if let Some(back) = back {
                    self.power_on_after(*host, *back);
                }
            }
            Happening::LeaseLevelIs { host, declared } => self.lease_level_is(*host, *declared),
            Happening::TwinComes { time } => self.twin_comes(*time),
            Happening::TwinGoes => self.twin_goes(),
            Happening::Drill { host } => {
                self.operator(Happening::ModeIs { host: *host, mode: Mode::Draining }, 20);
                self.queue.push(now + 1_000, Event::Operator { what: Box::new(what.clone()), tries: 40 });
            }
            Happening::CoordinatorCrash { back } => {
                if let Some(voter) = self.coordinator() {
                    self.stop_supervisor(voter, *back);
                }
            }
            Happening::CoordinatorFreeze { time } => {
                if let Some(voter) = self.coordinator() {
                    self.stand_still(voter, *time);
                }
            }
            Happening::CoordinatorCut { time } => {
                if let Some(voter) = self.coordinator() {
                    self.network.isolate(voter, now + time);
                }
            }
            Happening::CoordinatorDeaf { time } => {
                if let Some(voter) = self.coordinator() {
                    for other in (0..self.hosts.len()).filter(|other| *other != voter) {
                        self.network.cut(other, voter, now + time);
                    }
                }
            }
            Happening::PowerCut { host, back } => {
                self.power_off(*host, None);
                if let Some(back) = back {
                    self.power_on_after(*host, *back);
                }
            }
            Happening::Blackout { hangs, back } => {
                for host in 0..self.named {
                    self.power_off(host, None);
                    let wait = back + self.random.below(2_000);
                    self.power_on_after(host, wait);
                }
                self.hangs_at_boot.extend(hangs);
            }
            Happening::Freeze { host, time } => self.freeze(*host, *time),
            Happening::Cut { host, time } => self.network.isolate(*host, now + time),
            Happening::OneWay { from, to, time } => self.network.cut(*from, *to, now + time),
            Happening::Link { one, other, time } => {
                self.network.cut(*one, *other, now + time);
                self.network.cut(*other, *one, now + time);
            }
            Happening::Partition { side, time } => {
                for (one, other) in (0..self.hosts.len()).flat_map(|one| (0..self.hosts.len()).map(move |o| (one, o))) {
                    if side.contains(&one) != side.contains(&other) {
                        self.network.cut(one, other, now + time);
                    }
                }
            }
            Happening::BadNetwork { host, time, loss, late } => self.network.spoil(*host, now + time, *loss, *late),
            Happening::DeviceIs { host, device } => self.set_device(*host, *device),
            Happening::OutletIs { host, outlet, device } => {
                self.lies_drawn |= *device == Device::Wrong;
                self.hosts[*host].outlets[*outlet].device = *device;
            }
            Happening::GuestExits { guest } => self.each_running(guest, |machine| machine.state = Vm::Exited),
            Happening::GuestPanics { guest } => self.each_running(guest, |machine| machine.state = Vm::Panicked),
            Happening::GuestHangs { guest } => self.each_running(guest, |machine| machine.ill = true),
            Happening::MovedByOthers { guest, to } => {
                if rested {
                    self.moved_by_others(guest, *to);
                }
            }
            Happening::ResetsItself { guest } => {
                if rested {
                    self.resets_itself(guest);
                }
            }
            Happening::ResetsItselfAgain { guest } => self.resets_itself_again(guest),
            Happening::GuestIsSick { guest, time } => {
                self.sick.insert(guest.clone(), now + time);
                self.each_running(guest, |machine| machine.ill = true);
            }
            Happening::Stubborn { host, guest, time } => {
                self.hosts[*host].stubborn.insert(guest.clone(), now + time);
            }
            Happening::StartsFail { host, time } => self.hosts[*host].starts_fail_until = now + time,
            Happening::MovesFail { host, time } => self.hosts[*host].moves_fail_until = now + time,
            Happening::Blind { host, guest, time } => {
                self.hosts[*host].blind.insert(guest.clone(), now + time);
            }
            Happening::CannotAsk { host, guest, time } => {
                self.hosts[*host].unable.insert(guest.clone(), now + time);
            }
            Happening::CommonCause { guests, everywhere, time } => self.causes.begin(guests, *everywhere, now + time),
            Happening::WallClock { host, ahead } => self.hosts[*host].wall_jump = *ahead,
            Happening::AgentDiskLost { host, back } => {
                if self.hosts[*host].on && !self.hosts[*host].hung {
                    self.stop_supervisor(*host, *back);
                    self.lose_disk(*host);
                }
            }
            Happening::VoterStoreLost { host, back } => {
                // One store at a time: a majority that is lost for good is another story (R25).
                let others = (0..self.voters.len()).filter(|voter| voter != host);
                let whole =
                    others.filter(|voter| self.hosts[*voter].serves(now) && !self.voters[*voter].learner).count();
                if self.hosts[*host].serves(now) && *host < self.voters.len() && whole + 1 == self.voters.len() {
                    self.stop_supervisor(*host, *back);
                    self.lose_store(*host);
                }
            }
            Happening::Revoked { host } => self.revoke_soon(*host),
            Happening::MajorityLost { survivor, back, loss } => self.lose_majority(*survivor, *back, loss),
            Happening::NewMachine { host, back } => self.new_machine(*host, *back),
            Happening::When { kind, then } => self.armed.push((*kind, (**then).clone())),
            Happening::Heal => self.heal(),
            Happening::ModeIs { .. }
            | Happening::WantedIs { .. }
            | Happening::Suspended { .. }
            | Happening::Move { .. }
            | Happening::MoveAsked { .. }
            | Happening::FencesAllowed
            | Happening::NameSettled { .. }
            | Happening::ConfirmOff { .. } => self.operator(what.clone(), 20),
        }
    }

    fn lease_level_is(&mut self, host: usize, declared: bool) {
        let mut policies = self.to_declare.clone().unwrap_or_else(|| self.truth.state.policies.clone());
        let levels = policies.fencing.entry(self.hosts[host].name.clone()).or_default();
        levels.retain(|level| !matches!(level, FenceLevel::Lease(_)));
        if declared {
            levels.push(FenceLevel::Lease(LeaseLevel::default()));
        } else if levels.is_empty() {
            levels.push(FenceLevel::Operator {});
        }
        if !policies.guests.is_empty() {
            self.declare(policies);
        }
    }

    /// An operator's command goes to whoever coordinates; without a coordinator it is tried again for a while.
    pub(super) fn operator(&mut self, what: Happening, tries: u32) {
        let name = |world: &Self, host: usize| world.hosts[host].name.clone();
        let by = || "ann".to_owned();
        if what == (Happening::Suspended { suspended: false }) && !self.may_resume() {
            self.try_again(what, tries);
            return;
        }
        let change = match &what {
            Happening::ModeIs { host, mode } => {
                Some(Change::ModeSet { host: name(self, *host), mode: *mode, by: by() })
            }
            Happening::WantedIs { guest, wanted } => {
                Some(Change::WantedSet { guest: guest.clone(), wanted: *wanted, by: by() })
            }
            Happening::Suspended { suspended } => Some(Change::SuspensionSet { suspended: *suspended, by: by() }),
            Happening::Move { guest, to } => {
                let (guest, to) = (guest.clone(), name(self, *to));
                Some(Change::Migrate { guest, to, why: "ann wants it".to_owned() })
            }
            Happening::MoveAsked { guest, to, cold } => {
                let (guest, to) = (guest.clone(), name(self, *to));
                Some(Change::MoveAsked { guest, to, cold: *cold, by: by() })
            }
            _ => None,
        };
        let done = match (change, &what) {
            (Some(change), _) => self.operate(change),
            (None, Happening::Drill { host }) => self.begin_drill(*host),
            (None, Happening::Revoked { host }) => self.revoke(*host),
            (None, Happening::NameSettled { host }) => self.settle_new_machine(*host),
            (None, Happening::FencesAllowed) => self.allow_fences(),
            (None, Happening::TwinGoes) => {
                self.twin_goes();
                true
            }
            // The person looks first, and does not lie: the machine is off, whichever boot it was in.
            (None, Happening::ConfirmOff { host }) => {
                let name = name(self, *host);
                let boot = self.truth.state.hosts.get(&name).map(|known| &known.facts.incarnation);
                let machine = boot.and_then(|boot| self.machine_of(&name, boot));
                let off = machine.is_some_and(|machine| !self.hosts[machine].on);
                !off || self.confirm_off(*host)
            }
            (None, _) => true,
        };
        if !done {
            self.try_again(what, tries);
        }
    }

    fn try_again(&mut self, what: Happening, tries: u32) {
        if tries > 0 {
            let event = Event::Operator { what: Box::new(what), tries: tries - 1 };
            self.queue.push(self.now + 500, event);
        }
    }

    /// Something was committed: what waited for such a moment happens.
    pub(super) fn spring(&mut self, change: &Change) {
        let Some(position) = self.armed.iter().position(|(kind, _)| kind.is(change)) else { return };
        let (_, what) = self.armed.remove(position);
        self.sprung.push(what);
    }

    fn each_running(&mut self, guest: &GuestName, change: impl Fn(&mut super::guest::Machine)) {
        for host in 0..self.hosts.len() {
            if let Some(machine) = self.hosts[host].machines.get_mut(guest)
                && machine.state == Vm::Running
            {
                change(machine);
                self.sync_soon(host);
            }
        }
    }

    pub(super) fn set_device(&mut self, host: usize, device: Device) {
        self.hosts[host].device = device;
        self.lies_drawn |= device == Device::Wrong;
        let name = self.hosts[host].name.clone();
        if device == Device::Slow {
            self.slow_devices.insert(name);
        } else {
            self.slow_devices.remove(&name);
        }
    }

    pub(super) fn stop_supervisor(&mut self, host: usize, back: Ms) {
        if !self.hosts[host].on || self.hosts[host].hung {
            return;
        }
        self.crash_supervisor(host);
        let (boot, life) = (self.hosts[host].boot, self.hosts[host].life);
        self.queue.push(self.now + back.max(100), Event::SupervisorUp { host, boot, life });
    }

    fn stand_still(&mut self, host: usize, time: Ms) {
        let until = self.now + time;
        if let Some(supervisor) = &mut self.hosts[host].supervisor {
            supervisor.frozen_until = supervisor.frozen_until.max(until);
        }
    }

    fn freeze(&mut self, host: usize, time: Ms) {
        let known = &mut self.hosts[host];
        if known.on {
            let from = known.frozen_until.max(self.now);
            known.frozen_until = known.frozen_until.max(self.now + time);
            known.frozen_total += known.frozen_until - from;
        }
    }

    pub(super) fn lose_disk(&mut self, host: usize) {
        let known = &mut self.hosts[host];
        known.disk = holdfast_policies::agent::Disk::default();
        (known.floors_lost, known.disk_was_lost) = (true, true);
        known.disk.floors_known = self.broken == Some(Break::R12);
    }

    /// Power goes, by a fence or by itself.
    pub(super) fn power_off(&mut self, host: usize, fence: Option<holdfast_policies::names::OrderId>) {
        if !self.hosts[host].on {
            return;
        }
        if let Some(order) = fence {
            self.check_shot(host, order);
        }
        self.story.note(self.skipped + self.now, || format!("{} loses power", self.hosts[host].name));
        if host < self.voters.len() {
            self.voters[host].crash();
        }
        self.hosts[host].lose_power();
        if fence.is_none() {
            // Not its own button: nothing feeds it.
            self.hosts[host].outlets.iter_mut().for_each(|outlet| outlet.feeds = false);
        }
        self.reaching[host] = self.now;
        self.twin_shares_power(host);
        if fence.is_some() && self.chance && self.random.one_in(2) {
            let wait = self.random.between(3_000, 25_000);
            self.power_on_after(host, wait);
        }
    }

    /// Power returns later, unless it has until then.
    pub fn power_on_after(&mut self, host: usize, wait: Ms) {
        let boot = self.hosts[host].boot;
        self.queue.push(self.now + wait, Event::PowerOn { host, boot });
    }
}
