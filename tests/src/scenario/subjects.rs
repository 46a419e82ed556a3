//! What an event happens to: one that does not say would be passed over in silence.

use super::format::{Event, Scenario};

/// Events that happen to one host.
const TO_HOST: &[&str] = &[
    "power-on",
    "power-off",
    "network-loss",
    "network-restore",
    "host-shutdown",
    "host-reboot",
    "host-failure-confirmed",
    "maintenance-on",
    "maintenance-off",
];
/// Events that happen to one host, and mean nothing to Holdfast without one.
const OF_HOST: &[&str] = &["agent-restart", "agent-dead", "supervisor-stop"];
/// Events that take a guest to a host.
const TAKE_TO: &[&str] = &["vm-move", "vm-moved-outside"];

/// Whether a kind of events is known that happen to one host.
pub(super) fn is_of_host(kind: &str) -> bool {
    TO_HOST.contains(&kind) || OF_HOST.contains(&kind)
}

/// Events that do not say what they happen to, each with its place and what is missing.
#[must_use]
pub fn missing(scenario: &Scenario) -> Vec<String> {
    told(scenario, |event| {
        let needs_host = TO_HOST.contains(&event.kind.as_str());
        let needs_guest = event.kind.starts_with("vm-");
        let host = (needs_host && event.host.is_none()).then_some("`host` has to say to which host it happens");
        let guest = (needs_guest && event.vm.is_none()).then_some("`vm` has to say to which guest it happens");
        host.or(guest)
    })
}

/// Events that play no part, because they say nothing that they could happen to.
#[must_use]
pub fn idle(scenario: &Scenario) -> Vec<String> {
    told(scenario, |event| {
        let needs_host = OF_HOST.contains(&event.kind.as_str());
        let needs_target = TAKE_TO.contains(&event.kind.as_str());
        let host = (needs_host && event.host.is_none()).then_some("the host that is not named");
        let target = (needs_target && event.to.is_none()).then_some("the host that `to` does not name");
        host.or(target)
    })
}

fn told(scenario: &Scenario, what: impl Fn(&Event) -> Option<&'static str>) -> Vec<String> {
    let events = scenario.events.iter().enumerate();
    let found = events.filter_map(|(index, event)| Some((index, event, what(event)?)));
    found.map(|(index, event, what)| format!("events[{index}] ({}): {what}", event.kind)).collect()
}
