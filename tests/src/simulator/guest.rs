//! Guests as they really are, and what orders really do to them.

use holdfast_policies::{
    model::FenceLevel,
    names::{Epoch, GuestName, HostName},
    observe::GuestCondition,
    order::{OrderKind, OrderOutcome, Switch},
    proof::Power,
    state::{MigrationStep, Phase},
    sync::AgedReading,
    time::millis,
};

use super::{
    Ms,
    breaks::Break,
    device::{Device, OUTLETS, device_names},
    found::Found,
    host::{Host, Job},
    queue::Event,
    world::World,
};

/// How long a service takes to answer after its machine runs.
pub const UP_AFTER: Ms = 1_500;
/// The shortest work of an order.
const ORDER_MIN: Ms = 50;
/// No order's work is longer, but for those below.
pub const ORDER_MAX: Ms = 750;
/// Sending a guest takes less than this.
pub const SEND_MAX: Ms = 2_050;
/// A start that is slow, as happens by chance, takes less than this.
pub const SLOW_START_MAX: Ms = 12_050;

/// A virtual machine, as it really is.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The assignment that it was started under.
    pub epoch: Epoch,
    /// What its virtual CPUs do.
    pub state: Vm,
    /// Since when.
    pub since: Ms,
    /// It runs, and its services do not answer.
    pub ill: bool,
}

/// What its virtual CPUs do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vm {
    /// They run.
    Running,
    /// Paused before the switch-over: everything is still here.
    Paused,
    /// A target; `true` once everything has arrived.
    Incoming(bool),
    /// A source that has sent everything.
    Sent,
    /// Its kernel has panicked; the process is there.
    Panicked,
    /// Its process is gone.
    Exited,
}

impl Machine {
    /// What its host reports.
    #[must_use]
    pub fn condition(&self) -> GuestCondition {
        match self.state {
            Vm::Running => GuestCondition::Running,
            Vm::Paused => GuestCondition::Paused { reason: "pre-switchover".to_owned() },
            Vm::Incoming(_) => GuestCondition::Incoming,
            Vm::Sent => GuestCondition::Sent,
            Vm::Panicked => GuestCondition::Panicked,
            Vm::Exited => GuestCondition::Exited { detail: "crashed".to_owned() },
        }
    }
}

impl Host {
    /// Whether the guest's service answers here, to whoever reaches this host.
    #[must_use]
    pub fn answers(&self, guest: &GuestName, epoch: Epoch, now: Ms) -> bool {
        self.found(guest, epoch, now) == Found::Answers
    }
}

impl World {
    /// Begins what can begin: orders of one guest one after another.
    pub(super) fn begin_jobs(&mut self, host: usize) {
        let (now, life) = (self.now, self.hosts[host].life);
        let Some(supervisor) = &mut self.hosts[host].supervisor else { return };
        let mut busy: Vec<GuestName> = Vec::new();
        let mut begun: Vec<OrderKind> = Vec::new();
        for job in &mut supervisor.jobs {
            let guest = job.order.kind.guest().map(|(guest, _)| guest.clone());
            if job.begun.is_none() && guest.as_ref().is_none_or(|guest| !busy.contains(guest)) {
                job.begun = Some(now);
                let longest = match &job.order.kind {
                    OrderKind::Send { .. } => SEND_MAX,
                    OrderKind::Start { .. } if self.chance && self.random.one_in(16) => SLOW_START_MAX,
                    _ => ORDER_MAX,
                };
                let mut ends = now + self.random.between(ORDER_MIN, longest);
                if let OrderKind::Fence { target, .. } = &job.order.kind
                    && self.slow_devices.contains(target)
                {
                    ends += self.random.between(4_000, 14_000);
                }
                self.queue.push(ends, Event::JobEnd { host, life, order: job.order.id });
                begun.push(job.order.kind.clone());
            }
            busy.extend(guest);
        }
        for kind in begun {
            if let OrderKind::Start { guest, epoch, .. } | OrderKind::Receive { guest, epoch, .. } = &kind
                && !self.hosts[host].holds_on_to(guest, now)
            {
                self.hosts[host].machines.retain(|name, machine| name != guest || machine.epoch == *epoch);
            }
        }
    }

    /// The work of an order has ended.
    pub(super) fn job_ended(&mut self, host: usize, order: holdfast_policies::names::OrderId) {
        let Some(supervisor) = &self.hosts[host].supervisor else { return };
        let Some(job) = supervisor.jobs.iter().find(|job| job.order.id == order).cloned() else { return };
        let Some((outcome, reading)) = self.finish(host, &job) else { return };
        let now = self.now;
        let clock = self.hosts[host].clock(now);
        let name = &self.hosts[host].name;
        self.story
            .note(self.skipped + now, || format!("{name}: {} ({}): {}", job.order.kind, job.order.id, words(&outcome)));
        if let Some(supervisor) = &mut self.hosts[host].supervisor {
            supervisor.readings.insert(order, clock);
            supervisor.jobs.retain(|job| job.order.id != order);
            supervisor.agent.on_done(order, outcome, reading);
        }
        self.sync_soon(host);
        self.begin_jobs(host);
    }

    /// What an order really does; `None` when it is not over yet. A crash in the middle has the effect and tells nobody.
    pub(super) fn finish(&mut self, host: usize, job: &Job) -> Option<(OrderOutcome, Option<AgedReading>)> {
        let now = self.now;
        let clock = self.hosts[host].clock(now);
        let agent = &self.hosts[host].supervisor.as_ref()?.agent;
        let late = job.begun.is_some_and(|begun| now - begun > millis(job.order.deadline.0));
        let careless = self.broken == Some(Break::R14);
        let withdrawn = agent.withdrawn().contains(&job.order.id);
        let unable = withdrawn || job.order.kind.needs_lease() && !agent.may_act(clock) && !careless;
        let floored = agent.disk().is_overtaken(&job.order.kind);
        let mut reading = None;
        let done = if late || (unable && !job.shot) || floored || job.fails {
            false
        } else {
            self.effect(host, job, &mut reading)?
        };
        let uri = matches!(job.order.kind, OrderKind::Receive { .. }).then(|| "tcp:10.0.0.1:4444".to_owned());
        let outcome = if done {
            OrderOutcome::Done { detail: "it is so".to_owned(), uri, last_seen: None }
        } else {
            OrderOutcome::Failed { detail: "it is not so".to_owned() }
        };
        Some((outcome, reading))
    }

    fn effect(&mut self, host: usize, job: &Job, reading: &mut Option<AgedReading>) -> Option<bool> {
        let now = self.now;
        match &job.order.kind {
            OrderKind::Start { guest, epoch, .. } => Some(self.start_guest(host, guest, *epoch)),
            OrderKind::Release { guest, .. } => {
                if self.hosts[host].holds_on_to(guest, now) {
                    // R9 broken: "not running" is said without looking whether anything is left.
                    return Some(self.broken == Some(Break::R9Reported));
                }
                self.hosts[host].machines.remove(guest);
                Some(true)
            }
            OrderKind::RestartService { guest, .. } | OrderKind::Reboot { guest, .. } => {
                let times = self.restarted.entry(job.order.id).or_default();
                *times += 1;
                // A host that has lost its disk has forgotten what it began.
                if *times > 1 && !self.hosts[host].disk_was_lost {
                    self.violate("S7", format!("a service of {guest} was restarted twice by {}", job.order.id));
                }
                let helps = self.random.one_in(2) || !self.chance;
                if let Some(machine) = self.hosts[host].machines.get_mut(guest) {
                    machine.ill &= !helps;
                }
                Some(true)
            }
            OrderKind::Receive { guest, epoch, .. } => {
                if self.hosts[host].machines.contains_key(guest) || self.hosts[host].starts_fail_until > now {
                    return Some(false);
                }
                let machine = Machine { epoch: *epoch, state: Vm::Incoming(false), since: now, ill: false };
                self.hosts[host].machines.insert(guest.clone(), machine);
                Some(true)
            }
            OrderKind::Send { guest, epoch, .. } => Some(self.transfer(host, guest, *epoch)),
            OrderKind::Resume { guest, epoch } => Some(self.resume_guest(host, guest, *epoch)),
            OrderKind::Fence { target, switch: Switch::On, .. } => {
                let about = self.host_index(target)?;
                self.power_on_after(about, 10);
                Some(true)
            }
            OrderKind::Fence { target, target_incarnation, level, device, switch } => {
                let about = self.host_index(target)?;
                if !job.shot && !self.shoot(host, about, device, job)? {
                    return Some(false);
                }
                if self.hosts[about].on && self.level_says(about, device) != Power::Off {
                    return Some(false);
                }
                *reading = Some(AgedReading {
                    host: target.clone(),
                    incarnation: target_incarnation.clone(),
                    asked_ago_ms: 0,
                    power: Power::Off,
                    devices: device_names(device, target),
                    level: *level,
                });
                if *switch == Switch::OffAndOn {
                    self.power_on_after(about, 50);
                }
                Some(true)
            }
        }
    }

    /// Tells a power device to switch its host off. `None`: it will, later.
    fn shoot(&mut self, by: usize, about: usize, level: &FenceLevel, job: &Job) -> Option<bool> {
        if level.devices().len() == OUTLETS {
            return Some(self.switch_outlets(about, job.order.id));
        }
        match self.hosts[about].device {
            Device::Unreachable | Device::Lying => Some(false),
            // It says off already, so that it is not told to.
            Device::Wrong => Some(true),
            Device::Good | Device::Slow => {
                if !self.is_drill(job.order.id) && !self.is_lost(job.order.id) {
                    self.check_still_wanted(about);
                }
                self.power_off(about, Some(job.order.id));
                Some(true)
            }
            Device::Late => {
                let at = self.now + self.random.between(500, 8_000);
                self.queue.push(at, Event::LateOff { target: about, order: job.order.id });
                let life = self.hosts[by].life;
                self.queue.push(at + 50, Event::JobEnd { host: by, life, order: job.order.id });
                if let Some(supervisor) = &mut self.hosts[by].supervisor {
                    for known in &mut supervisor.jobs {
                        known.shot |= known.order.id == job.order.id;
                    }
                }
                None
            }
        }
    }

    fn start_guest(&mut self, host: usize, guest: &GuestName, epoch: Epoch) -> bool {
        let now = self.now;
        if self.hosts[host].starts_fail_until > now {
            return false;
        }
        match self.hosts[host].machines.get(guest) {
            Some(known) if known.epoch == epoch && known.state == Vm::Running => return true,
            Some(known) if known.epoch != epoch => return false,
            Some(_) | None => {}
        }
        self.check_start(host, guest, epoch);
        let ill = self.sick.get(guest).is_some_and(|until| *until > now);
        let machine = Machine { epoch, state: Vm::Running, since: now, ill };
        self.hosts[host].machines.insert(guest.clone(), machine);
        self.check_running(guest);
        true
    }

    fn resume_guest(&mut self, host: usize, guest: &GuestName, epoch: Epoch) -> bool {
        let Some(known) = self.hosts[host].machines.get(guest).filter(|known| known.epoch == epoch) else {
            return false;
        };
        match known.state {
            Vm::Running => return true,
            Vm::Incoming(false) | Vm::Exited | Vm::Panicked => return false,
            Vm::Paused | Vm::Incoming(true) | Vm::Sent => {}
        }
        self.check_resume(host, guest, epoch);
        self.let_run(host, guest);
        true
    }

    fn let_run(&mut self, host: usize, guest: &GuestName) {
        let now = self.now;
        if let Some(machine) = self.hosts[host].machines.get_mut(guest) {
            machine.state = Vm::Running;
            machine.since = now.saturating_sub(UP_AFTER);
        }
        self.check_running(guest);
    }

    fn transfer(&mut self, source: usize, guest: &GuestName, epoch: Epoch) -> bool {
        let now = self.now;
        let runs = self.hosts[source].machines.get(guest);
        if !runs.is_some_and(|known| known.epoch == epoch && known.state == Vm::Running) {
            return false;
        }
        let waits = |other: &usize| {
            *other != source
                && self.hosts[*other].alive(now)
                && self.network.open(source, *other, now)
                && self.network.open(*other, source, now)
                && self.hosts[*other].machines.get(guest).is_some_and(|known| known.state == Vm::Incoming(false))
        };
        let Some(target) = (0..self.hosts.len()).find(waits) else { return false };
        let stops_midway = self.hosts[source].moves_fail_until > now;
        let Some(machine) = self.hosts[source].machines.get_mut(guest) else { return false };
        if stops_midway {
            // It stops between the pause and the switch-over.
            machine.state = Vm::Paused;
            return false;
        }
        let ill = machine.ill;
        machine.state = Vm::Sent;
        if let Some(machine) = self.hosts[target].machines.get_mut(guest) {
            machine.state = Vm::Incoming(true);
            machine.ill = ill;
        }
        if self.broken == Some(Break::R22) {
            self.let_run(target, guest);
        }
        true
    }

    /// Whether the cluster has committed that this host's half of a move may run.
    pub(super) fn is_switched_to(&self, guest: &GuestName, host: &HostName, epoch: Epoch) -> bool {
        match self.truth.state.guests.get(guest).map(|known| &known.phase) {
            Some(Phase::Migrating(migration)) => {
                let target = migration.target.as_ref();
                matches!(migration.step, MigrationStep::Switched { .. })
                    && target.is_some_and(|target| target.host == *host && target.epoch == epoch)
            }
            Some(Phase::Running { tenure, .. }) => tenure.host == *host && tenure.epoch == epoch,
            Some(Phase::Unplaced | Phase::Free { .. } | Phase::Starting { .. } | Phase::Releasing { .. }) | None => {
                false
            }
        }
    }
}

fn words(outcome: &OrderOutcome) -> &str {
    match outcome {
        OrderOutcome::Done { .. } => "done",
        OrderOutcome::Failed { .. } => "failed",
    }
}
