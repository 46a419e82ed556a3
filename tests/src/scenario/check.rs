//! Checking a scenario before it is run: mistakes in the file, and what Holdfast does not claim to have.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    format::{Event, Kind, Scenario, Vm},
    map, subjects,
};

/// States of hosts that are known.
const HOST_STATES: &[&str] = &[
    "up",
    "off",
    "down",
    "lost",
    "failed",
    "standby",
    "maintenance",
    "down-in-maintenance",
    "joining",
    "shutting-down",
    "spare",
];
/// States of guests that are known.
const VM_STATES: &[&str] = &["running", "stopped", "failed", "lost", "waiting", "migrating", "paused"];
/// What can be wanted of a guest.
const DESIRED: &[&str] = &["running", "stopped", "disabled", "ignored"];
/// Kinds of rules that are known.
const RULES: &[&str] = &["host-affinity", "host-score", "together", "apart", "order"];
/// Kinds of events that are known, beside those that happen to one host.
const EVENTS: &[&str] = &[
    "state-store-loss",
    "state-store-restore",
    "quorum-lost",
    "suspend-ha",
    "resume-ha",
    "vm-desired",
    "vm-move",
    "vm-stop",
    "vm-add",
    "vm-remove",
    "vm-lock",
    "vm-moved-outside",
    "vm-crash",
    "vm-health-failed",
    "vm-size",
    "vm-load",
];
/// What can be done without a quorum.
const NO_QUORUM: &[&str] = &["ignore", "freeze", "stop", "self-fence", "suicide", "fence", "demote"];
/// What an announced shutdown can do.
const SHUTDOWN: &[&str] = &["conditional", "migrate", "drain", "failover", "freeze"];
/// Knobs of the cluster that make another outcome right, and that Holdfast does not have.
const KNOBS_LACKING: &[&str] = &["auto_rebalance"];
/// The knob by which a guest starts on the host that suits it best, instead of where it is kept: so Holdfast starts guests always.
pub const CHOOSES_AT_START: &str = "rebalance_on_start";
/// Events that mean nothing to Holdfast: it places by what guests are declared to take.
const EVENTS_LACKING: &[&str] = &["vm-load"];
/// What people ask of a supervisor about a guest. Asked of one that does not exist, or for a host that does not, it is refused.
const COMMANDS: &[&str] = &["vm-desired", "vm-move", "vm-stop", "vm-remove"];
/// The last second at which something may happen, and the longest time for it to settle: eleven days, run in seconds.
pub const SECONDS_MAX: f64 = 1_000_000.0;
/// Most hosts, guests, rules and events of a scenario: an order of magnitude above what Holdfast is made for.
const MOST: [usize; 4] = [500, 10_000, 5_000, 20_000];

/// Words that Holdfast has nothing for.
#[must_use]
pub fn unsupported(scenario: &Scenario) -> Vec<String> {
    let mut found = BTreeSet::new();
    for host in scenario.hosts.iter().filter(|host| !HOST_STATES.contains(&host.state.as_str())) {
        found.insert(format!("host:{}", host.state));
    }
    for vm in &scenario.vms {
        of_vm(vm, &mut found);
    }
    for rule in scenario.rules.iter().filter(|rule| !RULES.contains(&rule.kind.as_str())) {
        found.insert(format!("rule:{}", rule.kind));
    }
    for event in &scenario.events {
        if !is_event(&event.kind) {
            found.insert(format!("event:{}", event.kind));
        }
        if let Some(desired) = event.desired.as_ref().filter(|desired| !DESIRED.contains(&desired.as_str())) {
            found.insert(format!("vm:desired:{desired}"));
        }
        let unknown = event.mode.iter().chain(&event.how).filter(|way| is_unknown_way(event, way));
        found.extend(unknown.map(|way| format!("event:{}:{way}", event.kind)));
    }
    let cluster = &scenario.cluster;
    let leaves = scenario.events.iter().any(|event| ["host-shutdown", "host-reboot"].contains(&event.kind.as_str()));
    if let Some(policy) = cluster
        .no_quorum_policy
        .as_ref()
        .filter(|policy| !NO_QUORUM.contains(&policy.as_str()) && matters_without(scenario))
    {
        found.insert(format!("no-quorum-policy:{policy}"));
    }
    if let Some(policy) =
        cluster.shutdown_policy.as_ref().filter(|policy| !SHUTDOWN.contains(&policy.as_str()) && leaves)
    {
        found.insert(format!("cluster:shutdown_policy:{policy}"));
    }
    if let Some(question) = scenario.expect.question.as_ref().filter(|q| super::question::asked(q).is_none()) {
        found.insert(format!("question:{}", question.kind));
    }
    found.extend(scenario.needs.iter().filter(|need| !is_had(scenario, need)).cloned());
    // What any sound supervisor comes to does not depend on them.
    if scenario.strength.as_deref() != Some("core") {
        lacking(scenario, &mut found);
    }
    found.into_iter().collect()
}

fn is_unknown_way(event: &Event, way: &str) -> bool {
    match event.kind.as_str() {
        "suspend-ha" => !["freeze", "ignore"].contains(&way),
        "vm-move" => !["live", "cold"].contains(&way),
        _ => false,
    }
}

fn is_event(kind: &str) -> bool {
    EVENTS.contains(&kind) || subjects::is_of_host(kind)
}

/// Whether Holdfast has what a supervisor must know by the scenario's word (`event:power-off`, `rule:order:preferred`, …).
fn is_had(scenario: &Scenario, need: &str) -> bool {
    let mut words = need.split(':');
    let (of, what) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    match of {
        "event" => is_event(what) && !EVENTS_LACKING.contains(&what),
        "rule" => RULES.contains(&what),
        "no-quorum-policy" => NO_QUORUM.contains(&what),
        "cluster" => {
            let knob = what.replace('-', "_");
            let is_known = knob == CHOOSES_AT_START || !scenario.cluster.more.contains_key(&knob);
            is_known && !KNOBS_LACKING.contains(&knob.as_str())
        }
        "vm" => what != "load",
        _ => true,
    }
}

/// Whether a scenario turns a knob of its cluster on.
#[must_use]
pub fn turns_on(scenario: &Scenario, knob: &str) -> bool {
    let is_off = |value: &Value| match value {
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => ["", "no", "off", "none", "false"].contains(&text.as_str()),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    };
    scenario.cluster.more.get(knob).is_some_and(|value| !is_off(value))
}

/// What a scenario turns on that Holdfast does not have.
fn lacking(scenario: &Scenario, found: &mut BTreeSet<String>) {
    let knobs = KNOBS_LACKING.iter().filter(|knob| turns_on(scenario, knob));
    found.extend(knobs.map(|knob| format!("cluster:{knob}")));
    let events = EVENTS_LACKING.iter().filter(|kind| scenario.events.iter().any(|event| event.kind == **kind));
    found.extend(events.map(|kind| format!("event:{kind}")));
}

/// Whether it matters what is done without a quorum.
fn matters_without(scenario: &Scenario) -> bool {
    scenario.mode == Kind::Timeline || matches!(scenario.cluster.quorum, Some(Value::Bool(false)))
}

fn of_vm(vm: &Vm, found: &mut BTreeSet<String>) {
    if let Some(state) = vm.state.as_ref().filter(|state| !VM_STATES.contains(&state.as_str())) {
        found.insert(format!("vm:state:{state}"));
    }
    if let Some(desired) = vm.desired.as_ref().filter(|desired| !DESIRED.contains(&desired.as_str())) {
        found.insert(format!("vm:desired:{desired}"));
    }
    if let Some(then) = vm.multiple_active.as_ref().filter(|then| super::on_fail::found_twice(then).is_none()) {
        found.insert(format!("vm:multiple_active:{then}"));
    }
    for (op, then) in &vm.on_fail {
        if !super::on_fail::KNOWN.contains(&then.as_str()) {
            found.insert(format!("vm:on_fail:{op}:{then}"));
        }
    }
}

/// Mistakes: names that nothing has, names that two have, events that happen to nothing, times that are none. Each says where it
/// stands.
#[must_use]
pub fn mistakes(scenario: &Scenario) -> Vec<String> {
    let mut found = too_much(scenario);
    if scenario.mode == Kind::Question && scenario.expect.question.is_none() {
        found.push("expect: there is no question".to_owned());
    }
    let hosts: BTreeSet<&str> = scenario.hosts.iter().map(|host| host.name.as_str()).collect();
    let added = scenario.events.iter().filter(|event| event.kind == "vm-add").filter_map(|event| event.vm.as_deref());
    let vms: BTreeSet<&str> = scenario.vms.iter().map(|vm| vm.name.as_str()).chain(added).collect();
    let named_twice = twice(scenario.hosts.iter().map(|host| host.name.as_str()));
    found.extend(named_twice.into_iter().map(|name| format!("hosts: two hosts have the name {name:?}")));
    let named_twice = twice(scenario.vms.iter().map(|vm| vm.name.as_str()));
    found.extend(named_twice.into_iter().map(|name| format!("vms: two guests have the name {name:?}")));
    found.extend(subjects::missing(scenario));
    let is_time = |seconds: f64| seconds.is_finite() && (0.0..=SECONDS_MAX).contains(&seconds);
    let settle = scenario.settle_seconds.filter(|settle| !is_time(*settle));
    found.extend(settle.map(|settle| format!("settle_seconds: {settle} is not between 0 and {SECONDS_MAX}")));
    let host = |text: &str, at: String| (!hosts.contains(text)).then(|| format!("{at}: there is no host {text:?}"));
    let vm = |text: &str, at: String| (!vms.contains(text)).then(|| format!("{at}: there is no guest {text:?}"));
    let asked = scenario.expect.question.as_ref().and_then(|question| question.more.get("vm")?.as_str());
    found.extend(asked.and_then(|text| vm(text, "expect.question".to_owned())));
    for (index, known) in scenario.vms.iter().enumerate() {
        let named = known.host.iter().chain(&known.active_on);
        found.extend(named.filter_map(|text| host(text, format!("vms[{index}]"))));
    }
    for (index, event) in scenario.events.iter().enumerate() {
        let at = || format!("events[{index}] ({})", event.kind);
        let is_asked = COMMANDS.contains(&event.kind.as_str());
        let hosts = event.host.iter().chain(event.to.iter().filter(|_| !is_asked));
        found.extend(hosts.filter_map(|text| host(text, at())));
        found.extend(event.vm.iter().filter(|_| !is_asked).filter_map(|text| vm(text, at())));
        if !is_time(event.at) {
            found.push(format!("{}: {} is not a second of a scenario, 0 to {SECONDS_MAX}", at(), event.at));
        }
    }
    found
}

/// Names that are there more than once.
fn twice<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    names.filter(|name| !seen.insert(*name)).collect()
}

/// Names that nothing has where that makes no scenario wrong: a command that speaks of one is refused, a rule does without it.
fn strangers(scenario: &Scenario) -> Vec<String> {
    let hosts: BTreeSet<&str> = scenario.hosts.iter().map(|host| host.name.as_str()).collect();
    let added = scenario.events.iter().filter(|event| event.kind == "vm-add").filter_map(|event| event.vm.as_deref());
    let vms: BTreeSet<&str> = scenario.vms.iter().map(|vm| vm.name.as_str()).chain(added).collect();
    let host = |text: &str, at: &str| (!hosts.contains(text)).then(|| format!("{at}: the host {text:?}"));
    let vm = |text: &str, at: &str| (!vms.contains(text)).then(|| format!("{at}: the guest {text:?}"));
    let mut found = Vec::new();
    for (index, known) in scenario.vms.iter().enumerate() {
        found.extend(known.recorded_host.iter().filter_map(|text| host(text, &format!("vms[{index}]"))));
    }
    for (index, rule) in scenario.rules.iter().enumerate() {
        let at = format!("rules[{index}]");
        let named = rule.vms.iter().chain(&rule.first).chain(&rule.then).chain(&rule.dependent);
        found.extend(named.filter_map(|text| vm(text, &at)));
        let places = rule.hosts.iter().map(|host| host.parts().0).chain(rule.scores.keys().map(String::as_str));
        found.extend(places.filter_map(|text| host(text, &at)));
        let unclear = rule.scores.iter().filter(|(_, value)| map::weight(value).is_none());
        found.extend(unclear.map(|(name, value)| format!("{at}: the score {value} of {name:?}")));
        let needed = [("first", &rule.first), ("then", &rule.then)];
        let missing = needed.into_iter().filter(|(_, guest)| rule.kind == "order" && guest.is_none());
        found.extend(missing.map(|(key, _)| format!("{at} (order): the guest that `{key}` does not name")));
    }
    for (index, event) in scenario.events.iter().enumerate() {
        if COMMANDS.contains(&event.kind.as_str()) {
            let at = format!("events[{index}] ({})", event.kind);
            found.extend(event.to.iter().filter_map(|text| host(text, &at)));
            found.extend(event.vm.iter().filter_map(|text| vm(text, &at)));
        }
    }
    found
}

/// What is more than can be run in reasonable time.
fn too_much(scenario: &Scenario) -> Vec<String> {
    let counts = [scenario.hosts.len(), scenario.vms.len(), scenario.rules.len(), scenario.events.len()];
    let named = ["hosts", "vms", "rules", "events"].into_iter().zip(counts).zip(MOST);
    named
        .filter(|((_, count), most)| count > most)
        .map(|((what, count), most)| format!("{what}: {count} are more than {most}"))
        .collect()
}

/// Keys and names that are not known here, as notes; a scenario with them is run all the same.
#[must_use]
pub fn notes(scenario: &Scenario) -> Vec<String> {
    let mut found = strangers(scenario);
    found.extend(subjects::idle(scenario));
    let mut add = |at: String, more: &super::format::More| {
        found.extend(more.iter().filter(|(_, value)| !value.is_null()).map(|(key, _)| format!("{at}.{key}")));
    };
    add("cluster".to_owned(), &scenario.cluster.more);
    for host in &scenario.hosts {
        add(format!("hosts.{}", host.name), &host.more);
    }
    for vm in &scenario.vms {
        add(format!("vms.{}", vm.name), &vm.more);
    }
    for (index, rule) in scenario.rules.iter().enumerate() {
        add(format!("rules[{index}]"), &rule.more);
    }
    found
}
