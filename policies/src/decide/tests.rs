//! Decisions by table: one situation, one promise each.

use std::collections::BTreeMap;

use crate::{
    model::{
        Accel, FenceLevel, GuestDeclaration, IpmiDevice, OnDegraded, Policies, Policy, Probe, QemuDefinition, Rung, Service,
        Severity, TcpProbe, Vantages,
    },
    names::{GuestName, HostName, PolicyName, ServiceName},
    time::Span,
};

pub fn name(text: &str) -> GuestName {
    GuestName::new(text).unwrap()
}

/// Guests with one service each, and hosts with one power device each.
pub fn declaration(guests: &[GuestName], hosts: &[HostName]) -> Policies {
    let guest = || GuestDeclaration {
        labels: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
        priority: 100,
        address: None,
        qemu: QemuDefinition {
            memory_mib: 1_024,
            cpus: 1,
            kernel: None,
            disks: Vec::new(),
            nics: Vec::new(),
            agent: true,
            watchdog: None,
            accel: Accel::Auto,
            machine: "q35".to_owned(),
        },
    };
    let policy = Policy {
        matches: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
        services: BTreeMap::from([(ServiceName::new("http").unwrap(), Service {
            probe: Probe::Tcp(TcpProbe { port: 80 }),
            every: Span::ms(500),
            timeout: Span::ms(500),
            fails_after: 3,
            recovers_after: 2,
            from: Vantages { inside: false, hosts: 2, agree: 2 },
        })]),
        ladder: vec![
            Rung::RestartService { run: vec!["restart".to_owned()], tries: 1, wait: Span::secs(3) },
            Rung::ResetGuest { tries: 1, wait: Span::secs(8) },
            Rung::Failover { tries: 2, wait: Span::secs(8) },
            Rung::Page { severity: Severity::Critical },
        ],
        on_degraded: OnDegraded::Alert,
        cool_down: Span::secs(20),
        boot_grace: Span::secs(6),
    };
    let device = || {
        FenceLevel::Ipmi(IpmiDevice {
            address: "10.0.9.1".to_owned(),
            port: 623,
            user: "holdfast".to_owned(),
            password_file: "/etc/holdfast/ipmi".into(),
            suite: 17,
            wiring_verified_by: Some("ann".to_owned()),
            timeout: Span::secs(20),
        })
    };
    Policies {
        guests: guests.iter().map(|name| (name.clone(), guest())).collect(),
        policies: BTreeMap::from([(PolicyName::new("web").unwrap(), policy)]),
        fencing: hosts.iter().map(|host| (host.clone(), vec![device()])).collect(),
        alerts: Vec::new(),
    }
}
