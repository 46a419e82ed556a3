//! What happens in a scenario: its events in order of time, and what they set going (a shutdown takes its time).

use holdfast_policies::{
    change::Change,
    names::{Epoch, GuestName, HostName},
    rules::Rule,
    state::{Guest, Heading, Life, Mode, Phase, Wanted},
};
use serde_json::Value;

use super::{
    build::{declare, desired, is_drained, kept_on, set_free, wanted},
    check::{CHOOSES_AT_START, turns_on},
    format::{Event, Kind, Scenario, Vm as Declared},
    homeward::Homeward,
    host::{Machine, Node, Vm},
    relief::relieve,
    storm,
    world::{STEP, World, ZERO},
};

/// How long a host that shuts down gives its guests to leave, in milliseconds; then they are stopped.
const SHUTDOWN_LIMIT: u64 = 240_000;
/// How long a host takes at least to shut down, in milliseconds.
const SHUTDOWN: u64 = 3_000;
/// How long a host on standby may have guests in a snapshot, in milliseconds.
const STANDBY_LIMIT: u64 = 150_000;
/// How long a host is off while it reboots, in milliseconds.
const REBOOT: u64 = 60_000;
/// How long hosts that are switched on at the beginning have to be there before anything is decided, in milliseconds.
const BEGINNING: u64 = 4_000;

/// What is still to happen.
pub struct Script {
    events: Vec<Event>,
    shutdowns: Vec<Shutdown>,
    kept: Vec<Kept>,
    held_until: u64,
    homeward: Homeward,
}

struct Shutdown {
    host: HostName,
    reboot: bool,
    since: u64,
}

/// A guest that is switched on together with the host that keeps it.
struct Kept {
    guest: GuestName,
    host: HostName,
    start: bool,
}

impl Script {
    /// The scenario's events. Hosts that are switched on before anything else happens are the initial situation, and so
    /// are their guests: nothing is decided before they are there.
    #[must_use]
    pub fn of(scenario: &Scenario, world: &World) -> Self {
        let mut events = scenario.events.clone();
        events.sort_by(|a, b| a.at.total_cmp(&b.at));
        let first: Vec<&Event> = events.iter().take_while(|event| event.kind == "power-on").collect();
        let booted = |host: &String| first.iter().any(|event| event.host.as_ref() == Some(host));
        let held_until = first.last().map_or(ZERO, |event| ZERO + seconds(event.at) + BEGINNING);
        let is_chosen = turns_on(scenario, CHOOSES_AT_START);
        // Where not all have room, the more important ones start.
        let mut vms: Vec<&Declared> = scenario.vms.iter().collect();
        vms.sort_by(|a, b| b.priority.unwrap_or(0.0).total_cmp(&a.priority.unwrap_or(0.0)));
        let kept = vms.into_iter().filter_map(|vm| {
            let text = vm.host.as_ref().filter(|host| booted(host) && vm.state.as_deref() == Some("stopped"))?;
            let (guest, host) = (world.names.guest(&vm.name)?.clone(), world.names.host(text)?.clone());
            let start = !is_chosen && desired(vm.desired.as_deref()) == Wanted::Running;
            Some(Kept { guest, host, start })
        });
        Self { kept: kept.collect(), events, shutdowns: Vec::new(), held_until, homeward: Homeward::default() }
    }

    /// A host is about to shut down when the scenario begins.
    pub fn leaves(&mut self, world: &World, host: &str) {
        if let Some(host) = world.names.host(host).cloned() {
            self.shutdowns.push(Shutdown { host, reboot: false, since: world.now });
        }
    }

    /// Runs the world until every event has happened and `settle` seconds have passed since.
    pub fn run(mut self, world: &mut World, scenario: &Scenario, settle: f64) {
        let newest = self.events.last().map_or(0.0, |event| event.at);
        let end = ZERO + seconds(newest + settle);
        while world.now < end {
            let due = self.events.iter().take_while(|event| ZERO + seconds(event.at) <= world.now).count();
            for event in self.events.drain(..due).collect::<Vec<_>>() {
                self.happen(world, scenario, &event);
            }
            self.begin(world);
            self.end_standby(world, scenario);
            self.shut_down(world, scenario);
            relieve(world, scenario);
            storm::release(world);
            self.homeward.step(world);
            world.step();
        }
    }

    /// Until the hosts of the beginning are there, guests start where they are kept.
    fn begin(&mut self, world: &mut World) {
        world.held = world.now < self.held_until;
        for kept in std::mem::take(&mut self.kept) {
            let joined = world.state.hosts.contains_key(&kept.host);
            let leased = world.node(&kept.host).and_then(|node| node.supervisor.as_ref()?.agent.lease()).is_some();
            if !(joined && leased) || world.now + 2_000 < self.held_until {
                if world.held {
                    self.kept.push(kept);
                }
                continue;
            }
            let (guest, host) = (kept.guest, kept.host);
            if world.state.guests.get(&guest).is_some_and(|known| matches!(known.phase, Phase::Unplaced)) {
                set_free(world, &guest);
            }
            kept_on(world, &guest, &host);
            if kept.start {
                start_where_kept(world, guest, host);
            }
        }
    }

    fn happen(&mut self, world: &mut World, scenario: &Scenario, event: &Event) {
        world.stir();
        self.homeward.hear(world, scenario, event);
        let host = event.host.as_ref().and_then(|host| world.names.host(host)).cloned();
        let guest = event.vm.as_ref().and_then(|vm| world.names.guest(vm)).cloned();
        if let Some(host) = host.filter(|_| !event.kind.starts_with("vm-")) {
            self.hits_host(world, event, &host);
        } else if let Some(guest) = guest {
            to_guest(world, scenario, event, &guest);
        } else {
            to_all(world, scenario, event);
        }
    }

    fn hits_host(&mut self, world: &mut World, event: &Event, host: &HostName) {
        let (timing, now) = (world.timing, world.now);
        let mode = |mode: Mode| Change::ModeSet { host: host.clone(), mode, by: "the scenario".to_owned() };
        match event.kind.as_str() {
            "maintenance-on" => drop(world.commit(mode(Mode::Draining))),
            "maintenance-off" => drop(world.commit(mode(Mode::Active))),
            "host-shutdown" | "host-reboot" => {
                let reboot = event.kind == "host-reboot";
                // Maintenance outlasts a reboot, and its guests are on their way already.
                if world.state.hosts.get(host).is_none_or(|known| known.mode != Mode::Draining) {
                    world.commit(mode(Mode::Leaving { reboot }));
                }
                self.shutdowns.push(Shutdown { host: host.clone(), reboot, since: now });
            }
            "host-failure-confirmed" => {
                world.confirmed.insert(host.clone());
                if let Some(node) = world.node(host) {
                    node.power_off();
                }
            }
            kind => {
                let Some(node) = world.node(host) else { return };
                match kind {
                    "power-on" => {
                        node.power_on(timing, now);
                        // Whoever switches a host on that was cut off has plugged its network in.
                        node.network = true;
                    }
                    "power-off" => node.power_off(),
                    "network-loss" => node.network = false,
                    "network-restore" => node.network = true,
                    "state-store-loss" => node.store = false,
                    "state-store-restore" => node.store = true,
                    "agent-dead" => node.supervisor = None,
                    "agent-restart" if node.on => {
                        let lease = node.supervisor.as_ref().and_then(|known| known.agent.lease());
                        node.start_supervisor(timing, lease, now);
                    }
                    "supervisor-stop" => node.may_lead = false,
                    "quorum-lost" => node.store = false,
                    _ => {}
                }
            }
        }
    }

    /// In a snapshot a host on standby can hold nothing, nor can one that shuts down: when the drain has had its time, the
    /// host announces to go, and what has found no other place is stopped.
    fn end_standby(&mut self, world: &mut World, scenario: &Scenario) {
        if scenario.mode != Kind::Snapshot || world.now != ZERO + STANDBY_LIMIT {
            return;
        }
        for host in scenario.hosts.iter().filter(|host| is_drained(scenario, host)) {
            let Some(name) = world.names.host(&host.name).cloned() else { continue };
            if does_not_stop(world, &name) {
                stop_one_by_one(world, &name);
                continue;
            }
            for guest in left_on(world, &name).into_iter().filter(|guest| is_needed(world, guest)).collect::<Vec<_>>() {
                let by = "the scenario".to_owned();
                world.commit(Change::WantedSet { guest, wanted: Wanted::Stopped, by });
            }
            let (mode, by) = (Mode::Leaving { reboot: false }, "the scenario".to_owned());
            world.commit(Change::ModeSet { host: name, mode, by });
        }
    }

    /// Shutdowns take their course: guests leave first where the policy says so.
    fn shut_down(&mut self, world: &mut World, scenario: &Scenario) {
        for shutdown in std::mem::take(&mut self.shutdowns) {
            let Some(index) = world.position(&shutdown.host) else { continue };
            let Some(node) = world.nodes.get(index).filter(|node| node.on) else { continue };
            let age = world.now - shutdown.since;
            let ours = |guest: &GuestName| {
                world.state.guests.get(guest).is_some_and(|known| known.wanted != Wanted::Unmanaged)
            };
            let empty = !node.machines.keys().any(ours);
            if age < SHUTDOWN || !(empty || age >= SHUTDOWN_LIMIT) {
                self.shutdowns.push(shutdown);
                continue;
            }
            world.stop_all(index);
            let back_on = shutdown.reboot.then_some(world.now + REBOOT);
            if let Some(node) = world.nodes.get_mut(index) {
                node.power_off();
                (node.orderly, node.back_on) = (true, back_on);
            }
            let host = Some(world.names.of_host(&shutdown.host));
            if scenario.mode == Kind::Timeline {
                world.tell(super::format::Deed { kind: "power-off".to_owned(), host, ..Default::default() });
            }
        }
    }
}

/// Whether a host has a guest that lets itself not be stopped. Nobody switches it off then.
fn does_not_stop(world: &World, host: &HostName) -> bool {
    let stops_there = |phase: &Phase| matches!(phase, Phase::Releasing { tenure, .. } if tenure.host == *host);
    let fails = |guest: &GuestName| world.faults.get(guest).is_some_and(|faults| faults.stop);
    world.state.guests.iter().any(|(name, guest)| stops_there(&guest.phase) && fails(name))
}

/// Has the guests of a host stopped that have no other place, in the order in which they do.
fn stop_one_by_one(world: &mut World, host: &HostName) {
    for guest in left_on(world, host) {
        world.commit(Change::WantedSet { guest, wanted: Wanted::Stopped, by: "the scenario".to_owned() });
    }
}

/// The guests that run on a host, are looked after, and have no other place, as people are told. Others are on their way.
fn left_on(world: &World, host: &HostName) -> Vec<GuestName> {
    let runs_here = |phase: &Phase| matches!(phase, Phase::Running { tenure, .. } if tenure.host == *host);
    let is_told = |name: &GuestName| world.state.open_incident(&format!("leave/{name}")).is_some();
    let here =
        |name: &GuestName, guest: &Guest| runs_here(&guest.phase) && guest.wanted == Wanted::Running && is_told(name);
    world.state.guests.iter().filter(|(name, guest)| here(name, guest)).map(|(name, _)| name.clone()).collect()
}

/// Whether another guest is up that does not run without this one: it would run on if this one just stopped.
fn is_needed(world: &World, guest: &GuestName) -> bool {
    let is_up = |then: &GuestName| world.state.guests.get(then).is_some_and(|known| !known.tenures().is_empty());
    world.state.policies.rules.values().any(|rule| match rule {
        Rule::Order { first, then, required: true, symmetrical: true } => first == guest && is_up(then),
        Rule::Order { .. } | Rule::Hosts { .. } | Rule::Together { .. } | Rule::Apart { .. } => false,
    })
}

fn to_guest(world: &mut World, scenario: &Scenario, event: &Event, guest: &GuestName) {
    let by = "the scenario".to_owned();
    let vm = event.vm.clone().unwrap_or_default();
    let on = |world: &mut World, change: &dyn Fn(&mut Machine)| {
        world.nodes.iter_mut().filter_map(|node| node.machines.get_mut(guest)).for_each(change);
    };
    let now = world.now;
    match event.kind.as_str() {
        "vm-desired" => {
            let wanted = desired(event.desired.as_deref());
            world.commit(Change::WantedSet { guest: guest.clone(), wanted, by });
            if wanted == holdfast_policies::state::Wanted::Running {
                head_where_kept(world, scenario, guest);
            }
        }
        "vm-stop" => {
            let wanted = Wanted::Stopped;
            world.commit(Change::WantedSet { guest: guest.clone(), wanted, by });
        }
        "vm-move" => vm_move(world, event, guest),
        "vm-add" => vm_add(world, scenario, event, guest),
        "vm-remove" => {
            let known = world.state.guests.get(guest);
            let home = known.and_then(|known| known.tenures().first().map(|tenure| tenure.host.clone()));
            world.removed_from.extend(home.map(|home| (guest.clone(), home)));
            world.declared.remove(&vm);
            declare(world, scenario);
        }
        "vm-size" => {
            if let Some(known) = world.declared.get_mut(&vm) {
                resize(known, event);
            }
            declare(world, scenario);
        }
        "vm-lock" => {
            let holder = world.nodes.iter().find(|node| node.machines.contains_key(guest));
            let boot = holder.and_then(Node::incarnation);
            world.faults.entry(guest.clone()).or_default().locked = boot;
        }
        "vm-crash" => on(world, &|machine| machine.state = Vm::Failed),
        "vm-health-failed" => on(world, &|machine| machine.ill = Some(now)),
        "vm-moved-outside" => moved_outside(world, event, guest),
        _ => {}
    }
}

fn to_all(world: &mut World, scenario: &Scenario, event: &Event) {
    let by = "the scenario".to_owned();
    match event.kind.as_str() {
        "suspend-ha" => {
            world.frozen_as = event.mode.clone();
            world.commit(Change::SuspensionSet { suspended: true, by });
        }
        "resume-ha" => {
            world.commit(Change::SuspensionSet { suspended: false, by });
        }
        "quorum-lost" if scenario.cluster.no_quorum_policy.as_deref() == Some("ignore") => {}
        "quorum-lost" => world.quorum = super::world::Quorum::Lost,
        "state-store-loss" => world.nodes.iter_mut().for_each(|node| node.store = false),
        "state-store-restore" => world.nodes.iter_mut().for_each(|node| node.store = true),
        _ => {}
    }
}

fn vm_move(world: &mut World, event: &Event, guest: &GuestName) {
    let Some(to) = event.to.as_ref().and_then(|to| world.names.host(to)).cloned() else { return };
    let free = world.state.guests.get(guest).is_some_and(|known| matches!(known.phase, Phase::Free { .. }));
    let cold = event.how.as_deref() == Some("cold");
    let declared = world.state.policies.guests.get(guest);
    let stops = cold || declared.is_some_and(|declared| !declared.needs.live_migration);
    // The hypervisor refuses to stop it for that; a live move fails by itself.
    if stops && world.is_locked(guest) {
        return;
    }
    let by = "the scenario".to_owned();
    let refused = world.commit(Change::MoveAsked { guest: guest.clone(), to: to.clone(), cold, by }).refused;
    // What does not run is moved by noting where it is kept.
    if free && refused.is_some() {
        kept_on(world, guest, &to);
    }
}

fn vm_add(world: &mut World, scenario: &Scenario, event: &Event, guest: &GuestName) {
    let vm = event.vm.clone().unwrap_or_default();
    let listed = scenario.vms.iter().find(|known| known.name == vm).cloned();
    let mut said: serde_json::Map<String, Value> = event.more.clone().into_iter().collect();
    said.insert("name".to_owned(), Value::String(vm.clone()));
    let spoken = serde_json::from_value::<Declared>(Value::Object(said)).unwrap_or_default();
    let mut known = listed.unwrap_or(spoken);
    known.name.clone_from(&vm);
    known.host = event.host.clone().or(known.host);
    known.desired = event.desired.clone().or(known.desired);
    let wanted = wanted(scenario, &known);
    let host = known.host.as_ref().and_then(|host| world.names.host(host)).cloned();
    world.declared.insert(vm, known);
    // What was removed runs on, and is found again.
    let is_there = world.nodes.iter().any(|node| node.machines.contains_key(guest));
    if let (true, Some(host)) = (event.already_running && !is_there, &host)
        && let Some(node) = world.node(host).filter(|node| node.on)
    {
        let machine = Machine { epoch: Epoch::default(), state: Vm::Running, ill: None };
        node.machines.insert(guest.clone(), machine);
    }
    declare(world, scenario);
    if world.state.guests.get(guest).is_none_or(|known| known.wanted != wanted) {
        world.commit(Change::WantedSet { guest: guest.clone(), wanted, by: "the scenario".to_owned() });
    }
    if let (false, Some(host)) = (event.already_running || is_there || may_be_left(world, guest), host) {
        set_free(world, guest);
        kept_on(world, guest, &host);
        if wanted == holdfast_policies::state::Wanted::Running {
            head_where_kept(world, scenario, guest);
        }
    }
}

/// Whether something of a guest that is added may be left on a host that says nothing: only what becomes of that host can tell.
fn may_be_left(world: &World, guest: &GuestName) -> bool {
    let is_silent = |host: &HostName| {
        let is_heard = world.nodes.iter().any(|node| node.name == *host && node.connected());
        let is_gone = world.state.hosts.get(host).is_none_or(|known| matches!(known.life, Life::Gone { .. }));
        !is_heard && !is_gone
    };
    let may_run = world.state.guests.get(guest).is_some_and(|known| !known.tenures().is_empty());
    may_run || world.removed_from.get(guest).is_some_and(is_silent)
}

fn resize(known: &mut Declared, event: &Event) {
    if let Some(Value::Object(demand)) = event.more.get("demand") {
        for (name, amount) in demand {
            known.demand.insert(name.clone(), amount.as_f64().unwrap_or(0.0));
        }
    }
    let said = |key: &str| event.more.get(key).and_then(Value::as_f64);
    if let Some(memory) = said("memory_mib") {
        known.demand.insert("memory_mib".to_owned(), memory);
    }
    match (said("cpu"), known.demand.get_mut("cpu")) {
        (Some(cpu), Some(demanded)) => *demanded = cpu,
        (Some(cpu), None) => known.cpu = Some(cpu),
        (None, _) => {}
    }
}

fn moved_outside(world: &mut World, event: &Event, guest: &GuestName) {
    let Some(to) = event.to.as_ref().and_then(|to| world.names.host(to)).cloned() else { return };
    if !world.nodes.iter().any(|node| node.machines.contains_key(guest)) {
        kept_on(world, guest, &to);
        return;
    }
    // What runs is taken nowhere where nobody answers, by whatever tool. Other tools need nothing of what the voters agree on.
    if !world.node(&to).is_some_and(|node| node.on && node.network) {
        return;
    }
    let machine = world.nodes.iter_mut().find_map(|node| node.machines.remove(guest));
    if let (Some(machine), Some(node)) = (machine, world.node(&to)) {
        node.machines.insert(guest.clone(), machine);
    }
}

/// Has a guest start where it is kept, if nothing speaks against that; else placement finds a host for it. One that starts
/// after another goes there when its turn has come.
fn start_where_kept(world: &mut World, guest: GuestName, host: HostName) {
    if world.state.unfit(&guest, &host).is_some() {
        return;
    }
    let follows = |rule: &Rule| matches!(rule, Rule::Order { then, .. } if *then == guest);
    if !world.state.policies.rules.values().any(follows) {
        world.commit(Change::Place { guest, host, why: "it is kept there".to_owned() });
    } else if let Some(known) = world.state.guests.get_mut(&guest) {
        known.heading = Some(Heading { to: host, by: None });
    }
}

/// Has a guest that runs nowhere start where it is kept, as it does where its administrator starts it by hand, if nothing speaks against
/// that host and its host is not to be chosen anew.
fn head_where_kept(world: &mut World, scenario: &Scenario, guest: &GuestName) {
    if turns_on(scenario, CHOOSES_AT_START) {
        return;
    }
    let kept = match world.state.guests.get(guest).map(|known| &known.phase) {
        Some(Phase::Free { last: Some(last), avoid, .. }) if !avoid.contains(last) => last.clone(),
        Some(_) | None => return,
    };
    // What is kept together with others goes to where they are.
    let policies = &world.state.policies;
    let has_set = |rule: &Rule| match rule {
        Rule::Together { guests, required: true, .. } => guests.among(&policies.guests).contains(guest),
        Rule::Together { .. } | Rule::Apart { .. } | Rule::Hosts { .. } | Rule::Order { .. } => false,
    };
    let is_heard = world.nodes.iter().any(|node| node.name == kept && node.connected());
    if !is_heard || policies.rules.values().any(has_set) || world.state.unfit(guest, &kept).is_some() {
        return;
    }
    if let Some(known) = world.state.guests.get_mut(guest) {
        known.heading = Some(Heading { to: kept, by: None });
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be a second of a scenario")]
fn seconds(at: f64) -> u64 {
    (at.max(0.0) * 1_000.0) as u64 / STEP * STEP
}
