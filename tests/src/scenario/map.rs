//! From a scenario's vocabulary to what an operator of Holdfast would have declared: what is said of the whole cluster here, and a file
//! for each part of the declaration.
//!
//! A weight of a preferred host counts more than any stickiness where the guest is to go back, and less than it where not: that is
//! what going back means.

mod guests;
mod health;
mod rules;
mod sizes;
mod weights;

use std::collections::BTreeMap;

use holdfast_policies::{
    model::{FenceLevel, IpmiDevice, OnDegraded, Policies, Policy, Probe, Service, Vantages},
    names::{PolicyName, ServiceName},
    rules::{ClusterSettings, OnShutdown},
    time::Span,
};
use serde_json::Value;

use self::{
    guests::guest,
    rules::rules,
    sizes::{capacities, host_declaration},
};
pub use self::{
    health::ill_health,
    rules::is_banned,
    sizes::{host_cores, host_memory},
    weights::{INFINITE, weight},
};
use super::{
    format::{self, Scenario, Vm},
    names::Names,
};

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

fn power_device() -> FenceLevel {
    FenceLevel::ipmi(IpmiDevice {
        wiring_verified_by: Some("the scenario".to_owned()),
        ..IpmiDevice::plain("10.0.9.1", "holdfast", "/etc/holdfast/ipmi")
    })
}
