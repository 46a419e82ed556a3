//! What happens in a scenario: its events in order of time, and what they set going. What happens to guests is in `events/guest.rs`;
//! a shutdown takes its time (`events/leaving.rs`).

mod guest;
mod kept;
mod leaving;

use holdfast_policies::{
    change::Change,
    names::{GuestName, HostName},
    state::{Mode, Phase, Wanted},
};

use self::{guest::to_guest, kept::start_where_kept, leaving::Shutdown};
use super::{
    build::{desired, kept_on, set_free},
    check::{CHOOSES_AT_START, turns_on},
    format::{Event, Scenario, Vm as Declared},
    homeward::Homeward,
    relief::relieve,
    storm,
    world::{STEP, World, ZERO},
};

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

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be a second of a scenario")]
fn seconds(at: f64) -> u64 {
    (at.max(0.0) * 1_000.0) as u64 / STEP * STEP
}
