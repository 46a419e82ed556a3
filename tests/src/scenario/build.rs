//! The situation that a scenario begins with, made by commands and by agents that really carry them out; only what no
//! command can say (what a guest looks like from outside, what was counted before) is written into the world directly.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_policies::{
    change::Change,
    model::FenceLevel,
    names::{Epoch, GuestName, HostName},
    proof::{Power, PowerReading, Proof, QUIET},
    state::{Guest, Life, Mode, Phase, Wanted},
    time::Moment,
};
use serde_json::Value;

use super::{
    events::Script,
    format::{Event, Host, Kind, Scenario, Vm as Declared},
    host::{Machine, Node, Vm},
    map,
    names::Names,
    on_fail::stop_failed,
    world::{Alone, Faults, Quorum, World, ZERO},
};

/// Hosts that are lost when a snapshot begins fell silent so long after one another, in milliseconds: nothing says that
/// they fell silent at once, and a storm would hold every fence (S9).
const LOST_APART: u64 = 40_000;

/// A world in the situation that the scenario begins with, and what is to happen in it.
#[must_use]
pub fn build(scenario: &Scenario) -> (World, Script) {
    let names = Names::of(scenario);
    let nodes = scenario.hosts.iter().filter_map(|host| {
        let cores = map::host_cores(scenario, host);
        let mut node = Node::new(names.host(&host.name)?.clone(), map::host_memory(scenario, host), cores);
        node.unwell = map::ill_health(host);
        Some(node)
    });
    let mut world = World::new(names.clone(), nodes.collect(), map::fencing(scenario));
    world.now = ZERO - 30_000;
    let (timing, now) = (world.timing, world.now);
    for (node, host) in world.nodes.iter_mut().zip(&scenario.hosts) {
        if is_there(scenario, host) {
            node.power_on(timing, now);
        }
    }
    world.pass(2_000);
    let there = at_the_beginning(scenario);
    for vm in &there {
        let moves_first = scenario.mode == Kind::Snapshot && vm.live_migratable != Some(false);
        world.declared.insert(vm.name.clone(), Declared { moves_first, ..vm.clone() });
    }
    declare(&mut world, scenario);
    for vm in &there {
        guest(&mut world, scenario, vm);
    }
    world.pass(5_000);
    for vm in &there {
        as_it_looks(&mut world, scenario, vm);
        was_to_stop(&mut world, scenario, vm);
    }
    world.pass(1_000);
    while world.now < ZERO {
        world.step();
    }
    for vm in &there {
        // How it will misbehave, it does from the beginning on and not before.
        if let Some(name) = world.names.guest(&vm.name).cloned() {
            world.faults.insert(name, faults(&world.names, vm));
        }
        under_way(&mut world, vm);
        copies(&mut world, scenario, vm);
    }
    let mut lost = 0;
    for host in &scenario.hosts {
        as_host(&mut world, scenario, host, &mut lost);
    }
    authority(&mut world, scenario);
    world.depose();
    world.recording = true;
    let mut script = Script::of(scenario, &world);
    for host in scenario.hosts.iter().filter(|host| host.state == "shutting-down" && !is_drained(scenario, host)) {
        script.leaves(&world, &host.name);
    }
    (world, script)
}

/// Whether the host belongs to the cluster from the beginning. One that is joining does where something may run on it: what that is,
/// nobody else may start.
fn is_there(scenario: &Scenario, host: &Host) -> bool {
    match host.state.as_str() {
        "off" => false,
        "joining" => scenario.vms.iter().any(|vm| may_run_on(vm, host)),
        _ => true,
    }
}

/// Whether the guest may run on the host when the scenario begins.
#[must_use]
pub fn may_run_on(vm: &Declared, host: &Host) -> bool {
    vm.active_on.contains(&host.name) || (may_run(vm) && vm.host.as_ref() == Some(&host.name))
}

fn may_run(vm: &Declared) -> bool {
    matches!(vm.state.as_deref(), Some("running" | "failed" | "lost" | "migrating" | "paused"))
}

/// Guests that are there from the beginning. What runs already and is added later is there too, and is left alone until then.
fn at_the_beginning(scenario: &Scenario) -> Vec<Declared> {
    let late = latecomers(scenario);
    let is_late = |vm: &Declared| late.contains(vm.name.as_str());
    let there = scenario.vms.iter().filter(|vm| !is_late(vm) || may_run(vm));
    let as_left_alone = |vm: &Declared| Declared { desired: Some("ignored".to_owned()), ..vm.clone() };
    there.map(|vm| if is_late(vm) { as_left_alone(vm) } else { vm.clone() }).collect()
}

/// Guests that come only with an event; what is removed before it is added again is there from the beginning.
fn latecomers(scenario: &Scenario) -> BTreeSet<&str> {
    let mut first: BTreeMap<&str, &Event> = BTreeMap::new();
    for event in scenario.events.iter().filter(|event| ["vm-add", "vm-remove"].contains(&event.kind.as_str())) {
        let Some(vm) = event.vm.as_deref() else { continue };
        let known = first.entry(vm).or_insert(event);
        if event.at < known.at {
            *known = event;
        }
    }
    first.into_iter().filter(|(_, event)| event.kind == "vm-add").map(|(vm, _)| vm).collect()
}

/// Whether the guests of a host move away before those that are left are stopped. In a snapshot a host that shuts down is
/// drained too, unless its policy says otherwise: which of its guests can move is for the decisions to say.
#[must_use]
pub fn is_drained(scenario: &Scenario, host: &Host) -> bool {
    let moves = matches!(scenario.cluster.shutdown_policy.as_deref(), None | Some("migrate" | "drain"));
    match host.state.as_str() {
        "standby" => true,
        "shutting-down" => scenario.mode == Kind::Snapshot && moves,
        _ => false,
    }
}

/// Declares what is declared at the moment.
pub fn declare(world: &mut World, scenario: &Scenario) {
    let policies = Box::new(map::policies(scenario, &world.names, &world.declared));
    let (sources, base_version) = (BTreeMap::new(), world.state.policy_version);
    world.commit(Change::PoliciesApplied { policies, sources, base_version, by: "the scenario".to_owned() });
}

/// Commits that a guest runs nowhere, by the word of every host that could run it.
pub fn set_free(world: &mut World, guest: &GuestName) {
    let asked = world.state.hosts.iter().filter(|(_, host)| !matches!(host.life, Life::Gone { .. }));
    let said: BTreeMap<_, _> = asked.map(|(name, host)| (name.clone(), host.facts.incarnation.clone())).collect();
    if let Ok(proof) = Proof::not_here(said.keys().cloned(), &said) {
        world.commit(Change::GuestFree { guest: guest.clone(), proof });
    }
}

/// Notes where a guest is kept.
pub fn kept_on(world: &mut World, guest: &GuestName, host: &HostName) {
    if let Some(Phase::Free { last, .. }) = world.state.guests.get_mut(guest).map(|known| &mut known.phase) {
        *last = Some(host.clone());
    }
}

/// What is wanted of a guest, in the product's words.
#[must_use]
pub fn wanted(scenario: &Scenario, vm: &Declared) -> Wanted {
    let unmarked = vm.ha_enabled == Some(false) && !scenario.cluster.recover_unmarked_vms;
    if vm.managed == Some(false) || unmarked { Wanted::Unmanaged } else { desired(vm.desired.as_deref()) }
}

/// What is wanted of a guest, from the word alone.
#[must_use]
pub fn desired(word: Option<&str>) -> Wanted {
    match word {
        Some("stopped" | "disabled") => Wanted::Stopped,
        Some("ignored") => Wanted::Unmanaged,
        Some(_) | None => Wanted::Running,
    }
}

fn guest(world: &mut World, scenario: &Scenario, vm: &Declared) {
    let Some(name) = world.names.guest(&vm.name).cloned() else { return };
    set_free(world, &name);
    let host = vm.host.as_ref().or(vm.recorded_host.as_ref()).and_then(|host| world.names.host(host)).cloned();
    let runs = may_run(vm);
    // What was down already when its host went into maintenance, or is down while it joins, is none of that host's guests.
    if let Some(host) = host.as_ref().filter(|_| runs || !is_kept_where_hands_are_off(scenario, vm)) {
        kept_on(world, &name, host);
    }
    let there = host.filter(|host| vm.host.is_some() && runs && world.state.hosts.contains_key(host));
    if let Some(host) = there {
        let from = vm.pending_ops.iter().find(|op| op.op.starts_with("migrate")).and_then(|op| op.from.as_ref());
        let host = from.and_then(|from| world.names.host(from)).cloned().unwrap_or(host);
        world.commit(Change::Place { guest: name.clone(), host, why: "it is there".to_owned() });
    }
    let wanted = wanted(scenario, vm);
    if wanted != Wanted::Running {
        world.commit(Change::WantedSet { guest: name.clone(), wanted, by: "the scenario".to_owned() });
    }
    if let Some(known) = world.state.guests.get_mut(&name) {
        known.start_failures = vm
            .failures
            .iter()
            .filter_map(|(host, count)| Some((world.names.host(host)?.clone(), count_of(count)?)))
            .collect();
    }
}

fn is_kept_where_hands_are_off(scenario: &Scenario, vm: &Declared) -> bool {
    let kept = vm.host.as_ref().or(vm.recorded_host.as_ref());
    let host = scenario.hosts.iter().find(|host| Some(&host.name) == kept);
    let joins = |host: &Host| host.state == "joining" && scenario.mode == Kind::Snapshot;
    host.is_some_and(|host| joins(host) || ["maintenance", "down-in-maintenance"].contains(&host.state.as_str()))
}

fn count_of(value: &Value) -> Option<u32> {
    map::weight(value).map(|count| u32::try_from(count.max(0)).unwrap_or(u32::MAX))
}

/// How a guest will misbehave. A stop that has failed fails again: nothing says that its cause has gone.
fn faults(names: &Names, vm: &Declared) -> Faults {
    let mut faults = Faults { stop: stop_failed(vm), ..Faults::default() };
    let Some(Value::Object(said)) = &vm.faults else { return faults };
    for (key, value) in said {
        let count = || match value {
            Value::Bool(true) => u64::MAX,
            other => other.as_u64().unwrap_or(0),
        };
        match key.as_str() {
            "only_on_host" => faults.only_on = value.as_str().and_then(|host| names.host(host)).cloned(),
            key if key.contains("stop") => faults.stop = count() > 0,
            key if key.contains("migrat") || key.contains("move") => faults.moves = count(),
            key if key.contains("start") => faults.starts = count(),
            _ => {}
        }
    }
    // Beside a number of failures, the host is where they happen; alone, it is the only one that the guest starts on.
    if faults.starts > 0 || faults.moves > 0 {
        faults.at = faults.only_on.take();
    }
    faults
}

/// What no command can say. What has failed in a situation may be half alive; in a story it has ended.
fn as_it_looks(world: &mut World, scenario: &Scenario, vm: &Declared) {
    let Some(name) = world.names.guest(&vm.name).cloned() else { return };
    if world.is_reported_running(&name) {
        world.commit(Change::Verified { guest: name.clone(), unasked: Vec::new() });
    }
    let state = match vm.state.as_deref() {
        Some("failed") if scenario.mode == Kind::Snapshot => Vm::HalfAlive,
        Some("failed") => Vm::Failed,
        Some("paused") => Vm::Paused,
        Some(_) | None => Vm::Running,
    };
    for node in &mut world.nodes {
        if let Some(machine) = node.machines.get_mut(&name) {
            machine.state = state;
        }
    }
}

/// A stop that has failed before the scenario begins was ordered, and the guest may still run. Whatever is on a host that is not heard
/// waits for what becomes of that host, and what is left alone has been stopped by somebody else.
fn was_to_stop(world: &mut World, scenario: &Scenario, vm: &Declared) {
    let Some(guest) = world.names.guest(&vm.name).cloned() else { return };
    let here = vm.failed_ops.iter().any(|op| op.op == "stop" && op.has_failed() && op.host == vm.host);
    let is_heard = |host: &&Host| ["up", "spare", "standby", "shutting-down"].contains(&host.state.as_str());
    let host = scenario.hosts.iter().find(|host| Some(&host.name) == vm.host.as_ref()).filter(is_heard);
    let looked_after = scenario.mode == Kind::Snapshot && wanted(scenario, vm) != Wanted::Unmanaged;
    if host.is_some_and(|host| !is_silent(host)) && here && looked_after && vm.active_on.len() < 2 {
        world.faults.insert(guest.clone(), Faults { stop: true, ..Faults::default() });
        world.commit(Change::Stop { guest, why: "it was to stop".to_owned() });
    }
}

/// Where else it was found. It is active there, whatever became of it at home: what is half alive may write. A host that is silent
/// when the scenario begins was told to stop what it had, and has not answered.
fn copies(world: &mut World, scenario: &Scenario, vm: &Declared) {
    let Some(name) = world.names.guest(&vm.name).cloned() else { return };
    let home = world.state.guests.get(&name).and_then(Guest::home).map(|home| home.host.clone());
    let epoch = found_under(world, &name);
    let state = if vm.state.as_deref() == Some("paused") { Vm::Paused } else { Vm::Running };
    for host in scenario.hosts.iter().filter(|host| vm.active_on.contains(&host.name)) {
        let Some(there) = world.names.host(&host.name).filter(|there| Some(*there) != home.as_ref()).cloned() else {
            continue;
        };
        if let Some(node) = world.node(&there).filter(|node| node.on) {
            node.machines.entry(name.clone()).or_insert(Machine { epoch, state, ill: None });
        }
        if is_silent(host) {
            world.commit(Change::StrayFound { guest: name.clone(), host: there, epoch, keep: home.clone() });
        }
    }
}

/// Whether nobody hears the host when the scenario begins, and it may run something.
fn is_silent(host: &Host) -> bool {
    ["lost", "failed"].contains(&host.state.as_str()) || host.fence_pending
}

/// What is found on a host that is not the assigned one was started under an older assignment; a guest that is left alone was
/// brought there by other tools, and has kept its own.
fn found_under(world: &World, name: &GuestName) -> Epoch {
    let left_alone = world.state.guests.get(name).filter(|guest| guest.wanted == Wanted::Unmanaged);
    let kept = left_alone.and_then(|guest| guest.tenures().first().map(|tenure| tenure.epoch));
    kept.unwrap_or_default()
}

/// What has been ordered and not yet carried out when the scenario begins.
fn under_way(world: &mut World, vm: &Declared) {
    let Some(guest) = world.names.guest(&vm.name).cloned() else { return };
    let host = |text: &Option<String>| text.as_ref().and_then(|text| world.names.host(text)).cloned();
    let why = || "it was under way".to_owned();
    let moved = vm.pending_ops.iter().filter(|op| op.op.starts_with("migrate")).find_map(|op| host(&op.to));
    let started = vm.pending_ops.iter().filter(|op| op.op == "start").find_map(|op| host(&op.host));
    if let Some(to) = moved {
        world.commit(Change::Migrate { guest, to, why: why() });
    } else if let Some(host) = started {
        world.commit(Change::Place { guest, host, why: why() });
    }
}

fn as_host(world: &mut World, scenario: &Scenario, host: &Host, lost: &mut u64) {
    let Some(name) = world.names.host(&host.name).cloned() else { return };
    let mode = match host.state.as_str() {
        _ if is_drained(scenario, host) => Some(Mode::Draining),
        "maintenance" | "down-in-maintenance" => Some(Mode::Maintenance),
        // Until it has joined, nobody has its guests do anything, and it gets none.
        "joining" if scenario.mode == Kind::Snapshot && is_there(scenario, host) => Some(Mode::Maintenance),
        "shutting-down" => Some(Mode::Leaving { reboot: false }),
        _ => None,
    };
    if let Some(mode) = mode {
        world.commit(Change::ModeSet { host: name.clone(), mode, by: "the scenario".to_owned() });
    }
    if is_silent(host) {
        *lost += 1;
        let since = world.now - LOST_APART * *lost;
        if let Some(node) = world.node(&name) {
            (node.network, node.heard, node.authority) = (false, since, since);
        }
    }
    let incarnation = world.state.hosts.get(&name).map(|known| known.facts.incarnation.clone());
    let Some(incarnation) = incarnation else { return };
    if host.state == "failed" || host.fence_pending {
        let evidence = vec!["it is to be fenced since before the scenario began".to_owned()];
        world.commit(Change::FenceOpened {
            host: name.clone(),
            incarnation: incarnation.clone(),
            evidence,
            last_well: None,
            safe_at: None,
        });
    }
    if ["down", "down-in-maintenance"].contains(&host.state.as_str()) {
        if let Some(node) = world.node(&name) {
            node.power_off();
            node.orderly = true;
        }
        let reading = PowerReading {
            incarnation: incarnation.clone(),
            asked: Moment(world.now),
            power: Power::Off,
            devices: vec!["bmc".to_owned()],
            level: 0,
            declared: FenceLevel::Operator {},
            asker: None,
        };
        if let Ok(proof) = Proof::power_off(&name, &incarnation, &reading, Some("the scenario"), None, QUIET) {
            world.commit(Change::HostGone { proof, last_well: None, last_words: None });
        }
    }
}

/// Who decides, and what hosts do without authority.
fn authority(world: &mut World, scenario: &Scenario) {
    let policy = scenario.cluster.no_quorum_policy.as_deref();
    world.quorum = match &scenario.cluster.quorum {
        _ if policy == Some("ignore") => Quorum::Given,
        Some(Value::Bool(false)) => Quorum::Lost,
        Some(Value::String(text)) if text.contains("majority") => Quorum::Majority,
        Some(Value::Bool(true)) => Quorum::Given,
        _ if scenario.mode == Kind::Timeline => Quorum::Majority,
        _ => Quorum::Given,
    };
    let lease = 4_000;
    world.alone = match (world.fencing, policy) {
        (map::Fencing::Itself(seconds), _) => Alone::GoDown(lease + seconds * 1_000),
        (_, Some("self-fence" | "suicide" | "fence")) => Alone::GoDown(lease),
        (_, Some("stop" | "demote")) => Alone::StopGuests(lease),
        (_, _) => Alone::Keep,
    };
}
