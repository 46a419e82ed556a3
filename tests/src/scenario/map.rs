//! From a scenario's vocabulary to what an operator of Holdfast would have declared.
//!
//! - A host's score is what a rule weighs; `must` is a weight that nothing else outweighs, because the guest may still
//!   run elsewhere when that host is gone; hosts that are required are a required rule.
//! - A weight of a preferred host counts more than any stickiness where the guest is to go back, and less than it where
//!   not: that is what going back means.
//! - A spare host is one that every guest would rather not start on; what runs there stays.
//! - Resources other than memory may have fractions; they are counted in thousandths.
//! - Capacities weigh in the choice of a host only where the scenario says that its placement balances; elsewhere they are limits
//!   alone.
//! - How many processors a guest has is no demand: hosts may have fewer than all their guests together. They are counted
//!   where guests demand them by name, and tell how busy a host is where not. So it is with the memory of guests in a
//!   timeline: hosts take more than they have where no host has enough, and sooner the emptier ones.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_policies::{
    model::{
        FenceLevel, GuestDeclaration, IpmiDevice, OnDegraded, Policies, Policy, Probe, QemuDefinition, Service,
        Vantages,
    },
    names::{GuestName, HostName, PolicyName, RuleName, ServiceName},
    rules::{CapacitySettings, ClusterSettings, GuestNeeds, Guests, HostDeclaration, Hosts, OnShutdown, Rule, Score},
    time::Span,
};
use serde_json::Value;

use super::{
    build::may_run_on,
    dependents::dependents,
    format::{self, Scenario, Vm},
    names::Names,
};

/// What outweighs every sum of scores that a scenario may state.
const ABSOLUTE: i64 = 1_000_000_000;
/// Scores and failures from here on are without end in Pacemaker's words.
pub const INFINITE: i64 = 1_000_000;
/// One step of a preference, so that it counts more than ties do.
const PREFERENCE: i64 = 10_000;
/// Memory of a host whose memory is not limited, in MiB.
const UNLIMITED_MIB: u64 = 1 << 40;
/// Memory, as a demand and as what a host has.
const MEMORY: &str = "memory_mib";
/// Memory that is only weighed, as what a host has.
const MEMORY_SIZE: &str = "memory_size";
/// Words for processors.
const PROCESSORS: &[&str] = &["cpu", "cpus"];
/// Processor cores of a host of which nothing is said.
const CORES: u32 = 64;
/// The name of the service that answers for a guest's health.
pub const HEALTH: &str = "health";

/// How hosts of a scenario are made to be off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fencing {
    /// By a power device.
    Device,
    /// By themselves, so many seconds after they have lost their right; then their device says off.
    Itself(u64),
    /// By somebody else, who says so.
    External,
    /// By nobody.
    Nobody,
}

/// How hosts are fenced.
#[must_use]
pub fn fencing(scenario: &Scenario) -> Fencing {
    match &scenario.cluster.fencing {
        None | Some(Value::Bool(true)) => Fencing::Device,
        Some(Value::Bool(false) | Value::Null) => Fencing::Nobody,
        Some(Value::String(text)) if text.contains("self-fence") || text.contains("watchdog") => {
            let number = text.split(|c: char| !c.is_ascii_digit()).find(|digits| !digits.is_empty());
            Fencing::Itself(number.and_then(|digits| digits.parse().ok()).unwrap_or(60))
        }
        Some(Value::String(text)) if text.contains("external") => Fencing::External,
        Some(Value::String(text)) if ["false", "none", "no"].contains(&text.as_str()) => Fencing::Nobody,
        Some(_) => Fencing::Device,
    }
}

/// Everything that an operator would have declared for the guests that are declared at the moment.
#[must_use]
pub fn policies(scenario: &Scenario, names: &Names, vms: &BTreeMap<String, Vm>) -> Policies {
    let guests = vms.values().filter_map(|vm| Some((names.guest(&vm.name)?.clone(), guest(scenario, vm))));
    let device = fencing(scenario) == Fencing::Device || matches!(fencing(scenario), Fencing::Itself(_));
    let fenced = scenario.hosts.iter().filter(|_| device).filter_map(|host| names.host(&host.name));
    Policies {
        guests: guests.collect(),
        policies: policy(scenario),
        fencing: fenced.map(|host| (host.clone(), vec![power_device()])).collect(),
        hosts: scenario
            .hosts
            .iter()
            .filter_map(|host| Some((names.host(&host.name)?.clone(), host_declaration(scenario, host))))
            .collect(),
        rules: rules(scenario, names, vms),
        cluster: ClusterSettings {
            on_shutdown: on_shutdown(scenario),
            capacities: capacities(scenario),
            ..ClusterSettings::default()
        },
        ..Policies::default()
    }
}

fn on_shutdown(scenario: &Scenario) -> OnShutdown {
    match scenario.cluster.shutdown_policy.as_deref() {
        // A snapshot's host is drained first; what that has left there is stopped.
        Some("migrate" | "drain") if scenario.mode == format::Kind::Snapshot => OnShutdown::Failover,
        Some("migrate" | "drain") => OnShutdown::Migrate,
        Some("failover") => OnShutdown::Failover,
        Some("freeze") => OnShutdown::Freeze,
        Some(_) | None => OnShutdown::Conditional,
    }
}

fn capacities(scenario: &Scenario) -> BTreeMap<String, CapacitySettings> {
    let sized = is_sized(scenario).then(|| (MEMORY_SIZE.to_owned(), CapacitySettings { hard: false, weight: 100 }));
    let placement = scenario.cluster.placement.as_ref().and_then(Value::as_str);
    if placement.is_some_and(|text| text.contains("balance")) {
        return sized.into_iter().collect();
    }
    // Memory and processors weigh without a declaration too.
    let named = scenario.hosts.iter().flat_map(|host| host.capacity.keys());
    let named = named.filter(|name| ![MEMORY, "cpus"].contains(&name.as_str()));
    named.map(|name| (name.clone(), CapacitySettings { hard: true, weight: 0 })).chain(sized).collect()
}

fn host_declaration(scenario: &Scenario, host: &format::Host) -> HostDeclaration {
    let counted = host.capacity.iter().filter(|(name, _)| *name != MEMORY && is_counted(scenario, name));
    let counted = counted.map(|(name, amount)| (name.clone(), thousandths(*amount)));
    let memory = host.capacity.get(MEMORY).filter(|_| is_sized(scenario));
    let sized = memory.map(|mib| (MEMORY_SIZE.to_owned(), thousandths(*mib)));
    HostDeclaration { capacity: counted.chain(sized).collect(), ..HostDeclaration::default() }
}

/// Memory for guests of a host, in MiB.
#[must_use]
pub fn host_memory(scenario: &Scenario, host: &format::Host) -> u64 {
    let memory = host.capacity.get(MEMORY).filter(|_| !is_sized(scenario));
    memory.map_or(UNLIMITED_MIB, |mib| whole(*mib))
}

/// Whether the memory of hosts is only weighed: what happens to guests is told that have a size and demand nothing.
fn is_sized(scenario: &Scenario) -> bool {
    let is_said = scenario.hosts.iter().any(|host| host.capacity.contains_key(MEMORY));
    is_said && scenario.mode == format::Kind::Timeline && !is_demanded(scenario, MEMORY)
}

/// Processor cores of a host.
#[must_use]
pub fn host_cores(scenario: &Scenario, host: &format::Host) -> u32 {
    let mut told = PROCESSORS.iter().filter(|name| !is_counted(scenario, name));
    let named = told.find_map(|name| host.capacity.get(*name));
    named.map_or(CORES, |cores| processors(*cores))
}

/// Whether a host can be full of what has this name.
fn is_counted(scenario: &Scenario, name: &str) -> bool {
    !PROCESSORS.contains(&name) || is_demanded(scenario, name)
}

/// Whether a guest demands what has this name, from the beginning or later.
fn is_demanded(scenario: &Scenario, name: &str) -> bool {
    let demanded = || scenario.vms.iter().any(|vm| vm.demand.contains_key(name));
    let sized = || {
        scenario.events.iter().filter_map(|event| event.more.get("demand")?.as_object()).any(|it| it.contains_key(name))
    };
    demanded() || sized()
}

fn processors(amount: f64) -> u32 {
    u32::try_from(whole(amount.ceil())).unwrap_or(u32::MAX).max(1)
}

fn thousandths(amount: f64) -> u64 {
    whole((amount * 1_000.0).round())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what fits")]
fn whole(amount: f64) -> u64 {
    amount.clamp(0.0, 1e15) as u64
}

fn guest(scenario: &Scenario, vm: &Vm) -> GuestDeclaration {
    let mut demand: BTreeMap<String, f64> = vm.demand.clone();
    let memory = demand.remove(MEMORY).or(vm.memory_mib).unwrap_or(0.0);
    if is_sized(scenario) {
        demand.insert(MEMORY_SIZE.to_owned(), memory);
    }
    let demand: BTreeMap<String, u64> =
        demand.iter().map(|(name, amount)| (name.clone(), thousandths(*amount))).collect();
    let bare = QemuDefinition::bare(u32::try_from(whole(memory)).unwrap_or(u32::MAX));
    GuestDeclaration {
        labels: BTreeMap::from([("app".to_owned(), "guest".to_owned())]),
        priority: priority(scenario, vm),
        address: None,
        qemu: QemuDefinition { cpus: vm.cpu.map_or(bare.cpus, processors), ..bare },
        needs: needs(scenario, vm, demand),
    }
}

/// The rank among the scenario's priorities, which may be negative or broken. Of equals, one that gives way comes last.
fn priority(scenario: &Scenario, vm: &Vm) -> u32 {
    let mine = vm.priority.unwrap_or(0.0);
    let lower: BTreeSet<u64> = scenario
        .vms
        .iter()
        .map(|other| other.priority.unwrap_or(0.0))
        .filter(|other| *other < mine)
        .map(f64::to_bits)
        .collect();
    let rank = u32::try_from(lower.len()).unwrap_or(u32::MAX).min(1_000_000);
    100 + 2 * rank + u32::from(!gives_way_apart(scenario, vm))
}

fn needs(scenario: &Scenario, vm: &Vm, demand: BTreeMap<String, u64>) -> GuestNeeds {
    let default = GuestNeeds::default();
    let said = vm.stickiness.as_ref().and_then(weight);
    // What does not go back is not moved to where it would be liked better either.
    let stickiness = match (said, vm.failback) {
        (Some(said), _) => said,
        (None, Some(false)) => ABSOLUTE / 10,
        (None, _) => default.stickiness,
    };
    let hosts = u32::try_from(scenario.hosts.len()).unwrap_or(u32::MAX);
    let per_host = vm.max_failures_per_host.as_ref().and_then(weight).and_then(|n| u32::try_from(n).ok());
    GuestNeeds {
        demand,
        stickiness,
        live_migration: vm.live_migratable.unwrap_or(true),
        failback: vm.failback.unwrap_or(false),
        start_tries: match (vm.max_restart, per_host) {
            (Some(again), _) => again.saturating_add(1),
            (None, Some(per_host)) => per_host.max(1),
            (None, None) => default.start_tries,
        },
        relocations: vm.max_relocate.or(per_host.map(|_| hosts.saturating_sub(1))),
        stop_timeout: default.stop_timeout,
        best_effort: gives_way(scenario, vm),
    }
}

/// Whether a running guest gives way to those of higher priority: where the scenario ranks its guests and looks at one
/// situation, that is what the ranks are for, and so is saying which of those that are kept apart gives way. Not while it may have
/// another place to move to.
fn gives_way(scenario: &Scenario, vm: &Vm) -> bool {
    let rank = |vm: &Vm| vm.priority.unwrap_or(0.0);
    let is_below = || scenario.vms.iter().any(|other| rank(other) > rank(vm));
    scenario.mode == format::Kind::Snapshot && !vm.moves_first && (is_below() || gives_way_apart(scenario, vm))
}

/// Whether the guest is the one that gives way where a rule of a situation requires guests to be apart, or does not run without
/// that one.
fn gives_way_apart(scenario: &Scenario, vm: &Vm) -> bool {
    if scenario.mode != format::Kind::Snapshot {
        return false;
    }
    let mut found: BTreeSet<&str> = scenario.rules.iter().filter_map(who_gives_way).collect();
    let mut known = 0;
    // Each round but the last adds a guest.
    while found.len() > known {
        known = found.len();
        for rule in scenario.rules.iter().filter(|rule| rule.kind == "order") {
            let stops_first = rule.required.unwrap_or(true) && rule.symmetrical.unwrap_or(true);
            let (first, then) = (rule.first.as_deref(), rule.then.as_deref());
            if let (true, Some(then)) = (stops_first && first.is_some_and(|first| found.contains(first)), then) {
                found.insert(then);
            }
        }
    }
    found.contains(vm.name.as_str())
}

/// Who gives way in a rule that requires guests to be apart.
fn who_gives_way(rule: &format::Rule) -> Option<&str> {
    let said = rule.weight.as_ref().and_then(weight);
    let required = rule.required.unwrap_or_else(|| said.is_none_or(|weight| weight.abs() >= INFINITE));
    let apart = if said.is_some_and(|weight| weight < 0) { "together" } else { "apart" };
    rule.dependent.as_deref().filter(|_| required && rule.kind == apart)
}

/// A number, or infinity in words.
#[must_use]
pub fn weight(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => {
            #[expect(clippy::cast_possible_truncation, reason = "clamped to what fits")]
            let whole = number.as_f64().map(|number| number.clamp(-1e9, 1e9) as i64);
            whole
        }
        Value::String(text) => match text.to_lowercase().trim_start_matches('+') {
            "infinity" | "inf" | "must" => Some(ABSOLUTE),
            "-infinity" | "-inf" | "never" => Some(-ABSOLUTE),
            other => other.parse().ok(),
        },
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn score(value: &Value) -> Option<Score> {
    let weight = weight(value)?;
    Some(if weight <= -INFINITE { Score::Never } else { Score::By(weight) })
}

fn rules(scenario: &Scenario, names: &Names, vms: &BTreeMap<String, Vm>) -> BTreeMap<RuleName, Rule> {
    let mut rules: Vec<Rule> = scenario.rules.iter().filter_map(|rule| mapped(rule, names)).collect();
    let declared: Vec<GuestName> = vms.keys().filter_map(|vm| names.guest(vm).cloned()).collect();
    let spare = scenario.hosts.iter().filter(|host| host.state == "spare");
    rules.extend(spare.filter_map(|host| not_on_spare(names, vms, host)));
    let ill = scenario.hosts.iter().filter_map(|host| Some((names.host(&host.name)?.clone(), health_score(host)?)));
    let ill: BTreeMap<HostName, Score> = ill.collect();
    if !ill.is_empty() {
        rules.push(Rule::Hosts { guests: Guests::Named(declared.clone()), hosts: Hosts::Named(ill), required: false });
    }
    if scenario.cluster.run_only_where_allowed {
        rules.extend(declared.into_iter().map(|guest| only_where_allowed(scenario, names, guest)));
    }
    rules.extend(vms.values().filter_map(|vm| where_it_failed(names, vm)));
    rules.extend(dependents(scenario).into_iter().filter_map(|(first, then)| {
        let (first, then) = (names.guest(first)?.clone(), names.guest(then)?.clone());
        Some(Rule::Order { first, then, required: true, symmetrical: true })
    }));
    let named = rules.into_iter().enumerate();
    named.filter_map(|(index, rule)| Some((RuleName::new(format!("rule-{:03}", index + 1)).ok()?, rule))).collect()
}

/// A spare host is liked by nobody. What runs there when the scenario begins has nowhere that it would be better off: a host that has
/// taken over is none that is spared.
fn not_on_spare(names: &Names, vms: &BTreeMap<String, Vm>, host: &format::Host) -> Option<Rule> {
    let others = vms.values().filter(|vm| !may_run_on(vm, host));
    let guests: Vec<GuestName> = others.filter_map(|vm| names.guest(&vm.name).cloned()).collect();
    if guests.is_empty() {
        return None;
    }
    let hosts = BTreeMap::from([(names.host(&host.name)?.clone(), Score::By(-ABSOLUTE / 100))]);
    Some(Rule::Hosts { guests: Guests::Named(guests), hosts: Hosts::Named(hosts), required: false })
}

/// Hosts on which a guest has failed as often as it may are out of the question for it.
fn where_it_failed(names: &Names, vm: &Vm) -> Option<Rule> {
    let most = vm.max_failures_per_host.as_ref().and_then(weight).filter(|most| *most > 0).unwrap_or(INFINITE);
    let failed = vm.failures.iter().filter(|(_, count)| weight(count).is_some_and(|count| count >= most));
    let hosts: BTreeMap<HostName, Score> =
        failed.filter_map(|(host, _)| Some((names.host(host)?.clone(), Score::Never))).collect();
    let guests = Guests::Named(vec![names.guest(&vm.name)?.clone()]);
    (!hosts.is_empty()).then_some(Rule::Hosts { guests, hosts: Hosts::Named(hosts), required: false })
}

/// Whether a situation forbids a guest on a host: by a score, by how often it has failed there, because no rule allows it there, or
/// because nothing may run on a host in that health.
#[must_use]
pub fn is_banned(scenario: &Scenario, vm: &Vm, host: &str) -> bool {
    let mine = || scenario.rules.iter().filter(|rule| rule.vms.contains(&vm.name));
    let scores = || mine().filter_map(|rule| rule.scores.get(host));
    let is_named = || mine().any(|rule| rule.hosts.iter().any(|known| known.parts().0 == host));
    let is_allowed = || is_named() || scores().filter_map(weight).any(|weight| weight >= 0);
    let most = vm.max_failures_per_host.as_ref().and_then(weight).filter(|most| *most > 0).unwrap_or(INFINITE);
    let is_ill = |known: &format::Host| known.name == host && matches!(health_score(known), Some(Score::Never));
    vm.failures.get(host).and_then(weight).is_some_and(|count| count >= most)
        || scenario.hosts.iter().any(is_ill)
        || scores().filter_map(score).any(|score| matches!(score, Score::Never))
        || (scenario.cluster.run_only_where_allowed && !is_allowed())
}

/// The hosts that any rule allows the guest, and no others.
fn only_where_allowed(scenario: &Scenario, names: &Names, guest: GuestName) -> Rule {
    let text = names.of_guest(&guest);
    let mine = scenario.rules.iter().filter(|rule| rule.vms.contains(&text));
    let scored = mine.clone().flat_map(|rule| {
        rule.scores
            .iter()
            .filter(|(_, value)| weight(value).is_some_and(|weight| weight >= 0))
            .map(|(host, _)| host.as_str())
    });
    let affine = mine.clone().flat_map(|rule| rule.hosts.iter().map(|host| host.parts().0));
    let hosts = scored.chain(affine).filter_map(|host| names.host(host));
    Rule::Hosts {
        guests: Guests::Named(vec![guest]),
        hosts: Hosts::Named(hosts.map(|host| (host.clone(), Score::By(0))).collect()),
        required: true,
    }
}

fn mapped(rule: &format::Rule, names: &Names) -> Option<Rule> {
    let guests = || Guests::Named(rule.vms.iter().filter_map(|vm| names.guest(vm).cloned()).collect());
    let yields = rule.dependent.as_ref().and_then(|vm| names.guest(vm).cloned());
    let said = rule.weight.as_ref().and_then(weight);
    let opposite = said.is_some_and(|weight| weight < 0);
    let required = rule.required.unwrap_or_else(|| said.is_none_or(|weight| weight.abs() >= INFINITE));
    let weight = said.map_or(PREFERENCE, i64::abs);
    match rule.kind.as_str() {
        "host-affinity" => {
            let required = rule.required.unwrap_or(true);
            let hosts = rule.hosts.iter().filter_map(|host| {
                let (name, weight) = host.parts();
                #[expect(clippy::cast_possible_truncation, reason = "clamped to what fits")]
                let weight = weight.clamp(-10_000.0, 10_000.0) as i64;
                let liked = if required { weight } else { weight.saturating_add(1) };
                Some((names.host(name)?.clone(), Score::By(liked * PREFERENCE)))
            });
            Some(Rule::Hosts { guests: guests(), hosts: Hosts::Named(hosts.collect()), required })
        }
        "host-score" => {
            let scores =
                rule.scores.iter().filter_map(|(host, value)| Some((names.host(host)?.clone(), score(value)?)));
            Some(Rule::Hosts { guests: guests(), hosts: Hosts::Named(scores.collect()), required: false })
        }
        "together" if !opposite => Some(Rule::Together { guests: guests(), required, yields, weight }),
        "apart" if opposite => Some(Rule::Together { guests: guests(), required, yields, weight }),
        // What likes to be together with less than nothing likes to be apart.
        "together" | "apart" => Some(Rule::Apart { guests: guests(), required, yields, weight, by: None }),
        "order" => Some(Rule::Order {
            first: names.guest(rule.first.as_ref()?)?.clone(),
            then: names.guest(rule.then.as_ref()?)?.clone(),
            required: rule.required.unwrap_or(true),
            symmetrical: rule.symmetrical.unwrap_or(true),
        }),
        _ => None,
    }
}

/// One policy for all: a service that answers as long as nobody says that the guest is not well.
fn policy(scenario: &Scenario) -> BTreeMap<PolicyName, Policy> {
    let service = Service {
        probe: Probe::AgentPing {},
        every: Span::ms(500),
        timeout: Span::ms(500),
        fails_after: 3,
        recovers_after: 2,
        from: Vantages { inside: true, hosts: 0, agree: 1 },
        tuning: holdfast_policies::tuning::Tuning::default(),
    };
    let policy = Policy {
        matches: BTreeMap::from([("app".to_owned(), "guest".to_owned())]),
        services: ServiceName::new(HEALTH).into_iter().map(|name| (name, service.clone())).collect(),
        ladder: Vec::new(),
        on_storage_error: Vec::new(),
        on_degraded: if scenario.hosts.iter().any(|host| ill_health(host).is_some()) {
            OnDegraded::Migrate
        } else {
            OnDegraded::Alert
        },
        cool_down: match scenario.mode {
            // As where a policy says nothing: what has failed long ago says nothing of the next failure.
            format::Kind::Timeline => Span::secs(300),
            // All that has failed belongs to the situation.
            format::Kind::Snapshot | format::Kind::Question => Span::secs(24 * 3_600),
        },
        boot_grace: Span::secs(10),
    };
    PolicyName::new("guest").into_iter().map(|name| (name, policy.clone())).collect()
}

/// What is said of a host's health: of each of its parts where it has several, else of the whole.
fn health_said(host: &format::Host) -> Vec<&Value> {
    match host.health.as_ref() {
        None => Vec::new(),
        Some(Value::Object(parts)) => parts.values().collect(),
        Some(Value::Array(parts)) => parts.iter().collect(),
        Some(whole) => vec![whole],
    }
}

/// What a host's ill health makes of it for all guests: nothing may run on a red one, and numbers are scores.
fn health_score(host: &format::Host) -> Option<Score> {
    let said = health_said(host);
    if said.iter().any(|health| health.as_str().is_some_and(|text| text.eq_ignore_ascii_case("red"))) {
        return Some(Score::Never);
    }
    let bad = said.into_iter().filter_map(weight).filter(|score| *score < 0).fold(0, i64::saturating_add);
    (bad < 0).then_some(if bad <= -INFINITE { Score::Never } else { Score::By(bad) })
}

/// What is said against a host's health, if anything is.
#[must_use]
pub fn ill_health(host: &format::Host) -> Option<String> {
    health_said(host).into_iter().find_map(|health| match health {
        Value::Bool(false) => Some("it is not healthy".to_owned()),
        Value::String(text) if !["ok", "good", "green", "healthy"].contains(&text.to_lowercase().as_str()) => {
            Some(format!("its health is {text}"))
        }
        Value::Number(score) if score.as_f64().is_some_and(|score| score < 0.0) => {
            Some(format!("its health is {score}"))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => None,
    })
}

fn power_device() -> FenceLevel {
    FenceLevel::ipmi(IpmiDevice {
        wiring_verified_by: Some("the scenario".to_owned()),
        ..IpmiDevice::plain("10.0.9.1", "holdfast", "/etc/holdfast/ipmi")
    })
}
