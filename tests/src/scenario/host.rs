//! One simulated host: power, network, guests as they really are, and a supervisor around the real [`Agent`].

use std::collections::BTreeMap;

use holdfast_policies::{
    agent::{Action, Agent, Disk},
    evidence::SightState,
    hostfile::Timing,
    names::{Epoch, GuestName, HostName, Incarnation, OrderId, ServiceName, Vantage},
    observe::{GuestCondition, GuestReport},
    order::{Order, OrderKind, OrderOutcome},
    state::HostFacts,
    sync::{AgedReading, SightReport, SyncReply, SyncRequest},
    time::Moment,
};

use super::map::HEALTH;

/// How a service that fails is seen: after so many milliseconds.
const FAILING_AFTER: u64 = 1_500;

/// A guest, as it really is.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Under which assignment it was started.
    pub epoch: Epoch,
    /// What its virtual CPUs do.
    pub state: Vm,
    /// Since which millisecond its service fails, if it does.
    pub ill: Option<u64>,
}

/// What a guest's virtual CPUs do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vm {
    /// They run.
    Running,
    /// Stopped on purpose, from outside.
    Paused,
    /// A target of a move; `true` once everything has arrived.
    Incoming(bool),
    /// The source half of a finished move.
    Sent,
    /// Gone: the process does not serve any more.
    Failed,
    /// Found failed in the situation of a snapshot. It does not serve, and what is left of it may still write: it is there until it
    /// is stopped.
    HalfAlive,
}

impl Vm {
    /// Whether stopping it ends anything that is worth telling.
    #[must_use]
    pub fn is_to_be_stopped(self) -> bool {
        match self {
            Self::Running | Self::Paused | Self::Failed | Self::HalfAlive => true,
            Self::Incoming(_) | Self::Sent => false,
        }
    }
}

/// An order that is being carried out; orders about one guest come one after another.
#[derive(Debug, Clone)]
pub struct Job {
    /// The order.
    pub order: Order,
    /// When it ends, once it has begun.
    pub ends: Option<u64>,
}

/// A supervisor's process.
pub struct Supervisor {
    /// The real one.
    pub agent: Agent,
    nonce: u64,
    /// What it carries out.
    pub jobs: Vec<Job>,
    readings: BTreeMap<OrderId, Moment>,
}

/// A host.
pub struct Node {
    /// The product's name.
    pub name: HostName,
    /// Number of its boots; 0 before the first.
    pub boot: u32,
    /// It has power.
    pub on: bool,
    /// Datagrams and calls get in and out.
    pub network: bool,
    /// What the voters agree on reaches it.
    pub store: bool,
    /// It can lead.
    pub may_lead: bool,
    /// Memory for guests, in MiB.
    pub memory_mib: u64,
    /// Processor cores.
    pub cores: u32,
    /// Its supervisor, while that is alive.
    pub supervisor: Option<Supervisor>,
    /// What its supervisor keeps on disk.
    pub disk: Disk,
    /// Guests.
    pub machines: BTreeMap<GuestName, Machine>,
    /// Guests that ran and that it has stopped by itself, under which assignment: it says that they have ended, as after a guard's kill.
    pub ended: BTreeMap<GuestName, Epoch>,
    /// When it last had authority: a lease that was granted.
    pub authority: u64,
    /// When it was last heard by anybody.
    pub heard: u64,
    /// It was shut down in an orderly way, or was known to be off.
    pub orderly: bool,
    /// When it gets power again by itself.
    pub back_on: Option<u64>,
    /// Why it doubts itself, if it does.
    pub unwell: Option<String>,
}

impl Node {
    /// A host that has never had power.
    #[must_use]
    pub fn new(name: HostName, memory_mib: u64, cores: u32) -> Self {
        Self {
            name,
            boot: 0,
            on: false,
            network: true,
            store: true,
            may_lead: true,
            memory_mib,
            cores,
            supervisor: None,
            disk: Disk::default(),
            machines: BTreeMap::new(),
            ended: BTreeMap::new(),
            authority: 0,
            heard: 0,
            orderly: false,
            back_on: None,
            unwell: None,
        }
    }

    /// Its present boot.
    #[must_use]
    pub fn incarnation(&self) -> Option<Incarnation> {
        Incarnation::new(format!("{}.{}", self.name, self.boot)).or_else(|_| Incarnation::new("boot")).ok()
    }

    /// What it says of itself.
    #[must_use]
    pub fn facts(&self) -> Option<HostFacts> {
        Some(HostFacts {
            incarnation: self.incarnation()?,
            machine_id: format!("machine of {}", self.name),
            address: std::net::SocketAddr::from(([10, 0, 0, 1], 7_000)),
            memory_mib: self.memory_mib,
            cores: self.cores,
            guests: true,
        })
    }

    /// Whether it is heard at all.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.on && self.network && self.store
    }

    /// Gives it power.
    pub fn power_on(&mut self, timing: Timing, now: u64) {
        if self.on {
            return;
        }
        (self.on, self.orderly, self.back_on) = (true, false, None);
        // Whatever of its supervisor was stopped starts with the machine.
        self.may_lead = true;
        self.boot += 1;
        self.authority = now;
        self.heard = now;
        self.start_supervisor(timing, None, now);
    }

    /// Takes its power away: it does not come back by itself, whatever it was about to do.
    pub fn power_off(&mut self) {
        (self.on, self.back_on) = (false, None);
        self.supervisor = None;
        self.machines.clear();
        self.ended.clear();
    }

    /// Starts its supervisor with what is on disk; `lease` is what the guard holds for it.
    pub fn start_supervisor(&mut self, timing: Timing, lease: Option<Moment>, now: u64) {
        let Some(incarnation) = self.incarnation() else { return };
        let agent = Agent::new(incarnation, timing, self.disk.clone(), lease);
        self.supervisor = Some(Supervisor { agent, nonce: now * 1_000, jobs: Vec::new(), readings: BTreeMap::new() });
    }

    /// What the next sync says.
    pub fn request(&mut self, now: u64) -> Option<SyncRequest> {
        let (facts, host) = (self.facts()?, self.name.clone());
        let clock = Moment(now);
        self.ended.retain(|guest, _| !self.machines.contains_key(guest));
        let here = self.machines.iter().map(|(guest, machine)| report(guest, machine));
        let ended = self.ended.iter().map(|(guest, epoch)| ended(guest, *epoch));
        let reports: Vec<GuestReport> = here.chain(ended).collect();
        let sights = self.machines.iter().filter_map(|(guest, machine)| sight(guest, machine, now)).collect();
        let unwell = self.unwell.clone();
        let supervisor = self.supervisor.as_mut()?;
        supervisor.nonce += 1;
        let readings = &supervisor.readings;
        Some(SyncRequest {
            nonce: supervisor.nonce,
            seen: supervisor.agent.disk().authority,
            floors_known: supervisor.agent.disk().floors_known,
            reports,
            results: supervisor.agent.results(clock, |order| readings.get(&order).copied()),
            sights,
            unwell,
            known_view: supervisor.agent.view(),
            ..SyncRequest::of(host, facts)
        })
    }

    /// Takes a reply in, and returns what was stopped because another assignment has replaced it. `stays` says of which guests
    /// a stop fails.
    pub fn on_reply(&mut self, reply: SyncReply, now: u64, stays: impl Fn(&GuestName) -> bool) -> Vec<GuestName> {
        let mut stopped = Vec::new();
        let Some(supervisor) = &mut self.supervisor else { return stopped };
        let nonce = reply.nonce;
        if reply.lease_ms.is_some() {
            self.authority = now;
        }
        let Ok(actions) = supervisor.agent.on_reply(reply, nonce, Moment(now), Moment(now)) else { return stopped };
        for action in actions {
            match action {
                Action::Persist(disk) => self.disk = disk,
                Action::Carry(order) => supervisor.jobs.push(Job { order: *order, ends: None }),
                Action::StopSuperseded { guest, epoch } => {
                    let is_older = self.machines.get(&guest).is_some_and(|machine| machine.epoch <= epoch);
                    if is_older && !stays(&guest) {
                        self.machines.remove(&guest);
                        stopped.push(guest);
                    }
                }
                Action::Grant(_) | Action::Look(_) | Action::SyncNow => {}
            }
        }
        stopped
    }

    /// An order has been carried out, or could not be.
    pub fn on_done(&mut self, order: OrderId, outcome: OrderOutcome, reading: Option<AgedReading>, now: u64) {
        let Some(supervisor) = &mut self.supervisor else { return };
        supervisor.readings.insert(order, Moment(now));
        supervisor.jobs.retain(|job| job.order.id != order);
        let _ = supervisor.agent.on_done(order, outcome, reading);
    }

    /// Begins what can begin, and returns what has ended.
    pub fn work(&mut self, now: u64) -> Vec<Job> {
        let Some(supervisor) = &mut self.supervisor else { return Vec::new() };
        let mut busy: Vec<GuestName> = Vec::new();
        for job in &mut supervisor.jobs {
            let guest = job.order.kind.guest().map(|(guest, _)| guest.clone());
            if job.ends.is_none() && guest.as_ref().is_none_or(|guest| !busy.contains(guest)) {
                job.ends = Some(now + takes(&job.order.kind));
            }
            busy.extend(guest);
        }
        supervisor.jobs.iter().filter(|job| job.ends.is_some_and(|ends| ends <= now)).cloned().collect()
    }
}

/// How long an order takes here, in milliseconds.
fn takes(kind: &OrderKind) -> u64 {
    match kind {
        OrderKind::Start { .. } | OrderKind::Release { .. } | OrderKind::Send { .. } => 1_500,
        OrderKind::RestartService { .. } | OrderKind::Reboot { .. } | OrderKind::Fence { .. } => 1_000,
        OrderKind::Receive { .. } | OrderKind::Resume { .. } => 250,
    }
}

fn report(guest: &GuestName, machine: &Machine) -> GuestReport {
    let condition = match machine.state {
        Vm::Running => GuestCondition::Running,
        Vm::Paused => GuestCondition::Paused { reason: "paused on purpose".to_owned() },
        Vm::Incoming(_) => GuestCondition::Incoming,
        Vm::Sent => GuestCondition::Sent,
        Vm::Failed | Vm::HalfAlive => GuestCondition::Exited { detail: "it has failed".to_owned() },
    };
    GuestReport::new(guest.clone(), machine.epoch, condition)
}

fn ended(guest: &GuestName, epoch: Epoch) -> GuestReport {
    let condition = GuestCondition::Exited { detail: "its host has stopped it by itself".to_owned() };
    GuestReport::new(guest.clone(), epoch, condition)
}

fn sight(guest: &GuestName, machine: &Machine, now: u64) -> Option<SightReport> {
    let since = machine.ill.filter(|_| !matches!(machine.state, Vm::Failed | Vm::HalfAlive));
    let passes = since.is_none() && machine.state == Vm::Running;
    let failing = since.is_some_and(|since| now.saturating_sub(since) >= FAILING_AFTER);
    Some(SightReport {
        guest: guest.clone(),
        service: ServiceName::new(HEALTH).ok()?,
        vantage: Vantage::Inside,
        epoch: machine.epoch,
        state: match (passes, failing) {
            (true, _) => SightState::Passing,
            (false, true) => SightState::Failing,
            (false, false) => SightState::Unknown,
        },
        age_ms: 0,
        passed_ago_ms: passes.then_some(0),
        warns: false,
        detail: String::new(),
    })
}
