//! One simulated host: power, network, power device, virtual machines, and a supervisor around the real [`Agent`].

use std::{collections::BTreeMap, time::Duration};

use super::{FAILING_AFTER, Random, STEP, UP_AFTER};
use crate::{
    agent::{Action, Agent, Disk},
    evidence::{Heard, Marks, SightState},
    hostfile::Timing,
    names::{Epoch, GuestName, HostName, Incarnation, OrderId, ServiceName, Vantage},
    observe::{GuestCondition, GuestReport},
    order::{Order, OrderKind, OrderOutcome},
    state::HostFacts,
    sync::{AgedReading, SightReport, SyncReply, SyncRequest, View},
    time::Moment,
};

/// A virtual machine, as it really is.
#[derive(Debug, Clone)]
pub struct Machine {
    pub epoch: Epoch,
    pub state: Vm,
    pub since: u64,
}

/// What its virtual CPUs do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vm {
    Running,
    /// Paused before the switch-over: everything is still here.
    Paused,
    /// A target; `true` once everything has arrived.
    Incoming(bool),
    Sent,
    Exited,
}

/// How the power device behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    Good,
    Slow,
    Unreachable,
    /// Says that it has switched the host off, which stays on.
    Lying,
}

/// An order that is being carried out; orders of one guest one after another.
#[derive(Debug, Clone)]
pub struct Job {
    pub order: Order,
    pub begun: Option<u64>,
    pub ends: u64,
    pub fails: bool,
}

/// A supervisor's process.
pub struct Supervisor {
    pub agent: Agent,
    nonce: u64,
    sent: BTreeMap<u64, Moment>,
    pub next_sync: u64,
    pub frozen_until: u64,
    pub jobs: Vec<Job>,
    pub readings: BTreeMap<OrderId, Moment>,
    view: View,
    failing_since: BTreeMap<(GuestName, Epoch), u64>,
}

/// A host.
pub struct Node {
    pub name: HostName,
    pub boot: u32,
    pub on: bool,
    pub frozen_until: u64,
    pub cut_until: u64,
    pub back_on: Option<u64>,
    pub device: Device,
    pub supervisor: Option<Supervisor>,
    pub restart_at: u64,
    pub disk: Disk,
    pub lease: Option<Moment>,
    pub machines: BTreeMap<GuestName, Machine>,
    pub heard: BTreeMap<HostName, Heard>,
    pub marks: Marks,
    /// Since when nothing is wrong with it.
    pub well_since: u64,
    /// Boot-time clocks of two machines have nothing in common (R1).
    skew: u64,
}

impl Node {
    pub fn new(index: usize) -> Self {
        let skew = 1_000_000 * (index as u64 + 1);
        Self {
            name: HostName::new(format!("hv-{index}")).unwrap(),
            boot: 1,
            on: true,
            frozen_until: 0,
            cut_until: 0,
            back_on: None,
            device: Device::Good,
            supervisor: None,
            restart_at: 0,
            disk: Disk::default(),
            lease: None,
            machines: BTreeMap::new(),
            heard: BTreeMap::new(),
            marks: Marks::new(Moment(skew)),
            well_since: 0,
            skew,
        }
    }

    pub fn clock(&self, now: u64) -> Moment {
        Moment(now + self.skew)
    }

    pub fn incarnation(&self) -> Incarnation {
        Incarnation::new(format!("{}.{}", self.name, self.boot)).unwrap()
    }

    pub fn facts(&self) -> HostFacts {
        HostFacts {
            incarnation: self.incarnation(),
            machine_id: format!("machine of {}", self.name),
            address: "10.0.0.1:7000".parse().unwrap(),
            memory_mib: 16_384,
            cores: 8,
            guests: true,
        }
    }

    /// Whether the machine itself goes on.
    pub fn alive(&self, now: u64) -> bool {
        self.on && self.frozen_until <= now
    }

    /// Whether datagrams and calls get in and out.
    pub fn connected(&self, now: u64) -> bool {
        self.alive(now) && self.cut_until <= now
    }

    /// Whether its supervisor works and is reached.
    pub fn serves(&self, now: u64) -> bool {
        self.connected(now) && self.supervisor.as_ref().is_some_and(|supervisor| supervisor.frozen_until <= now)
    }

    pub fn lose_power(&mut self) {
        self.on = false;
        self.supervisor = None;
        self.machines.clear();
        self.lease = None;
        self.frozen_until = 0;
    }

    pub fn boot(&mut self, now: u64) {
        self.on = true;
        self.boot += 1;
        self.back_on = None;
        self.restart_at = now;
        self.heard.clear();
        self.marks = Marks::new(self.clock(now));
    }

    pub fn start_supervisor(&mut self, timing: Timing, now: u64) {
        let agent = Agent::new(self.incarnation(), timing, self.disk.clone(), self.lease);
        self.supervisor = Some(Supervisor {
            agent,
            // Never lower than before: nonces also tell a late request from the newest.
            nonce: now * 1_000,
            sent: BTreeMap::new(),
            next_sync: now,
            frozen_until: 0,
            jobs: Vec::new(),
            readings: BTreeMap::new(),
            view: View::default(),
            failing_since: BTreeMap::new(),
        });
    }

    /// What the next sync says. `answers` is the truth about each guest's service, `None` where it cannot be asked.
    pub fn request(&mut self, now: u64, answers: impl Fn(&GuestName, &HostName, Epoch) -> bool) -> SyncRequest {
        let (clock, facts, name) = (self.clock(now), self.facts(), self.name.clone());
        let reports = self.machines.iter().map(|(guest, machine)| GuestReport {
            guest: guest.clone(),
            epoch: machine.epoch,
            condition: match machine.state {
                Vm::Running => GuestCondition::Running,
                Vm::Paused => GuestCondition::Paused { reason: "pre-switchover".to_owned() },
                Vm::Incoming(_) => GuestCondition::Incoming,
                Vm::Sent => GuestCondition::Sent,
                Vm::Exited => GuestCondition::Exited { detail: "crashed".to_owned() },
            },
        });
        let reports = reports.collect();
        let supervisor = self.supervisor.as_mut().unwrap();
        supervisor.nonce += 1;
        supervisor.sent.insert(supervisor.nonce, clock);
        let homes = supervisor.view.homes.clone();
        supervisor.failing_since.retain(|(guest, epoch), _| homes.get(guest).is_some_and(|(_, home)| home == epoch));
        let mut sights = Vec::new();
        for (guest, (home, epoch)) in homes {
            let key = (guest.clone(), epoch);
            let passes = answers(&guest, &home, epoch);
            if passes {
                supervisor.failing_since.remove(&key);
            } else {
                supervisor.failing_since.entry(key.clone()).or_insert(now);
            }
            let failing = supervisor.failing_since.get(&key).is_some_and(|since| now - since >= FAILING_AFTER);
            sights.push(SightReport {
                guest,
                service: ServiceName::new("http").unwrap(),
                vantage: Vantage::Host(name.clone()),
                epoch,
                state: match (passes, failing) {
                    (true, _) => SightState::Passing,
                    (false, true) => SightState::Failing,
                    (false, false) => SightState::Unknown,
                },
                age_ms: 0,
                passed_ago_ms: passes.then_some(0),
                detail: String::new(),
            });
        }
        let readings = supervisor.readings.clone();
        SyncRequest {
            host: name,
            facts,
            nonce: supervisor.nonce,
            seen: supervisor.agent.disk().authority,
            floors_known: supervisor.agent.disk().floors_known,
            reports,
            results: supervisor.agent.results(clock, |order| readings.get(&order).copied()),
            sights,
            unwell: None,
            known_view: supervisor.agent.view(),
            armed: None,
            has_watchdog: None,
        }
    }

    /// Takes a reply in. Writing to disk is instant here; a crash comes between steps.
    pub fn on_reply(&mut self, reply: SyncReply, now: u64, random: &mut Random) {
        let clock = self.clock(now);
        let Some(supervisor) = &mut self.supervisor else { return };
        let Some(sent) = supervisor.sent.get(&reply.nonce).copied() else { return };
        let nonce = reply.nonce;
        let Ok(actions) = supervisor.agent.on_reply(reply, nonce, sent, clock) else { return };
        supervisor.sent.retain(|known, _| *known > nonce);
        let mut written = true;
        for action in actions {
            match action {
                Action::Persist(disk) => {
                    self.disk = disk;
                    written = true;
                }
                Action::Grant(deadline) => self.lease = Some(deadline),
                Action::Carry(order) => {
                    assert!(written, "{order:?} is carried out before it was written down");
                    written = false;
                    let fails = random.one_in(12);
                    supervisor.jobs.push(Job { order, begun: None, ends: 0, fails });
                }
                Action::StopSuperseded { guest, epoch } => {
                    self.machines.retain(|name, machine| *name != guest || machine.epoch > epoch);
                }
                Action::Look(view) => supervisor.view = *view,
                Action::SyncNow => supervisor.next_sync = now,
            }
        }
    }

    pub fn on_done(&mut self, order: OrderId, outcome: OrderOutcome, reading: Option<AgedReading>, now: u64) {
        let clock = self.clock(now);
        let Some(supervisor) = &mut self.supervisor else { return };
        supervisor.readings.insert(order, clock);
        supervisor.jobs.retain(|job| job.order.id != order);
        supervisor.agent.on_done(order, outcome, reading);
        supervisor.next_sync = now;
    }

    /// Begins what can begin and returns what has ended.
    pub fn work(&mut self, now: u64, slow: impl Fn(&HostName) -> bool, random: &mut Random) -> Vec<Job> {
        let Some(supervisor) = &mut self.supervisor else { return Vec::new() };
        let mut busy: Vec<GuestName> = Vec::new();
        for job in &mut supervisor.jobs {
            let guest = job.order.kind.guest().map(|(guest, _)| guest.clone());
            if job.begun.is_none() && guest.as_ref().is_none_or(|guest| !busy.contains(guest)) {
                let longest = match &job.order.kind {
                    OrderKind::Fence { target, .. } if slow(target) => 15_000,
                    OrderKind::Send { .. } => 2_000,
                    _ => 700,
                };
                job.begun = Some(now);
                job.ends = now + STEP + random.below(longest);
                if let OrderKind::Start { guest, epoch, .. } = &job.order.kind {
                    self.machines.retain(|name, machine| name != guest || machine.epoch == *epoch);
                }
            }
            busy.extend(guest);
        }
        supervisor.jobs.iter().filter(|job| job.begun.is_some() && job.ends <= now).cloned().collect()
    }

    pub fn answers(&self, guest: &GuestName, epoch: Epoch, now: u64) -> bool {
        let machine = self.machines.get(guest);
        self.connected(now)
            && machine.is_some_and(|machine| {
                machine.epoch == epoch && machine.state == Vm::Running && now >= machine.since + UP_AFTER
            })
    }
}

pub fn ms(duration: Duration) -> u64 {
    crate::time::millis(duration)
}
