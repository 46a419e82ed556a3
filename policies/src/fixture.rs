//! What tests of several modules stand on: a declaration, and a cluster that is brought into a situation by commands.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    change::{Applied, Change, Command, Refused},
    ladder::LadderKind,
    model::{
        FenceLevel, GuestDeclaration, IpmiDevice, OnDegraded, Policies, Policy, Probe, QemuDefinition, Rung, Service,
        Severity, TcpProbe, Vantages,
    },
    names::{GuestName, HostName, Incarnation, OrderId, PolicyName, ServiceName},
    order::{Order, OrderOutcome},
    proof::{Power, PowerReading, Proof, QUIET},
    recovery::{Recovery, next_index},
    reply::{homes, places},
    rules::GuestNeeds,
    state::{ClusterState, HostFacts, Migration, Phase},
    time::{Moment, Span, WallTime},
    tuning::Tuning,
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
        qemu: QemuDefinition::bare(1_024),
        needs: GuestNeeds::default(),
    };
    let policy = Policy {
        matches: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
        services: BTreeMap::from([(
            ServiceName::new("http").unwrap(),
            Service {
                probe: Probe::Tcp(TcpProbe::to(80)),
                every: Span::ms(500),
                timeout: Span::ms(500),
                fails_after: 3,
                recovers_after: 2,
                from: Vantages { inside: false, hosts: 2, agree: 2 },
                tuning: Tuning::default(),
            },
        )]),
        ladder: vec![
            Rung::RestartService { run: vec!["restart".to_owned()], tries: 1, wait: Span::secs(3) },
            Rung::ResetGuest { tries: 1, wait: Span::secs(8) },
            Rung::Failover { tries: 2, wait: Span::secs(8) },
            Rung::Page { severity: Severity::Critical },
        ],
        on_storage_error: Vec::new(),
        on_degraded: OnDegraded::Alert,
        cool_down: Span::secs(20),
        boot_grace: Span::secs(6),
    };
    let device = || {
        FenceLevel::ipmi(IpmiDevice {
            wiring_verified_by: Some("ann".to_owned()),
            ..IpmiDevice::plain("10.0.9.1", "holdfast", "/etc/holdfast/ipmi")
        })
    };
    Policies {
        guests: guests.iter().map(|name| (name.clone(), guest())).collect(),
        policies: BTreeMap::from([(PolicyName::new("web").unwrap(), policy)]),
        fencing: hosts.iter().map(|host| (host.clone(), vec![device()])).collect(),
        ..Policies::default()
    }
}

pub fn host(text: &str) -> HostName {
    HostName::new(text).unwrap()
}

pub fn boot(text: &str) -> Incarnation {
    Incarnation::new(text).unwrap()
}

pub fn facts(host: &str, incarnation: &str) -> HostFacts {
    HostFacts {
        incarnation: boot(incarnation),
        machine_id: format!("machine of {host}"),
        address: "10.0.0.1:7000".parse().unwrap(),
        memory_mib: 8_192,
        cores: 8,
        guests: true,
    }
}

pub fn done() -> OrderOutcome {
    let uri = Some("tcp:10.0.0.2:49152".to_owned());
    OrderOutcome::Done { detail: "it is so".to_owned(), uri, last_seen: None }
}

pub fn failed() -> OrderOutcome {
    OrderOutcome::Failed { detail: "it is not so".to_owned() }
}

pub fn place_on(guest: &str, on: &str) -> Change {
    Change::Place { guest: name(guest), host: host(on), why: String::new() }
}

/// A reading that says off, of the boot `HOST.1`, and of no level that is declared.
pub fn off(of: &str, asked: Moment) -> PowerReading {
    let incarnation = boot(&format!("{of}.1"));
    PowerReading {
        incarnation,
        asked,
        power: Power::Off,
        devices: vec!["bmc".to_owned()],
        level: 0,
        declared: FenceLevel::Operator {},
        asker: None,
    }
}

/// A cluster that is brought into a situation by commands alone.
pub struct Stage {
    pub state: ClusterState,
    pub index: u64,
}

impl Stage {
    /// Hosts that have joined with the boot `HOST.1`, and guests that are proven to run nowhere.
    pub fn new(hosts: &[&str], guests: &[&str]) -> Self {
        let mut stage = Self { state: ClusterState::born(), index: 0 };
        let names: Vec<GuestName> = guests.iter().map(|text| name(text)).collect();
        let on: Vec<HostName> = hosts.iter().map(|text| host(text)).collect();
        stage.declare(declaration(&names, &on));
        for text in hosts {
            stage.join(text, &format!("{text}.1"));
        }
        for guest in names {
            let said = hosts.iter().map(|text| (host(text), boot(&format!("{text}.1")))).collect();
            let proof = Proof::not_here(on.clone(), &said).unwrap();
            stage.must(Change::GuestFree { guest, proof });
        }
        stage
    }

    pub fn declare(&mut self, policies: Policies) {
        let (base_version, by) = (self.state.policy_version, "ann".to_owned());
        self.must(Change::PoliciesApplied { policies: Box::new(policies), sources: BTreeMap::new(), base_version, by });
    }

    /// Applies a change. One that changes the view says so, or hosts would never be told of it.
    pub fn apply(&mut self, what: Change) -> Applied {
        let view = |state: &ClusterState| (homes(state), places(state), state.revoked.clone(), state.policy_version);
        let before = view(&self.state);
        self.index += 1;
        let applied = self.state.apply(self.index, Command { at: WallTime(self.index * 1_000), what });
        let after = view(&self.state);
        if after != before {
            assert_eq!(self.state.view_changed, self.index, "a change is not marked: {before:?} {after:?}");
        }
        applied
    }

    pub fn must(&mut self, what: Change) {
        let text = format!("{what:?}");
        assert_eq!(self.apply(what).refused, None, "{text}");
    }

    pub fn refused(&mut self, what: Change) -> Refused {
        let before = self.state.clone();
        let refused = self.apply(what).refused.expect("it is refused");
        assert_eq!(ClusterState { applied: self.index, ..before }, self.state, "a refused command changes nothing");
        refused
    }

    pub fn join(&mut self, on: &str, incarnation: &str) {
        self.must(Change::HostJoined { host: host(on), facts: facts(on, incarnation), follows: None });
    }

    pub fn place(&mut self, guest: &str, on: &str) {
        self.must(Change::Place { guest: name(guest), host: host(on), why: "the test wants it".to_owned() });
    }

    /// Has the guest run on the host, verified.
    pub fn run(&mut self, guest: &str, on: &str) {
        self.place(guest, on);
        self.end(on, done());
        self.must(Change::Verified { guest: name(guest), unasked: Vec::new() });
    }

    pub fn migrate(&mut self, guest: &str, to: &str) {
        self.must(Change::Migrate { guest: name(guest), to: host(to), why: "the test wants it".to_owned() });
    }

    pub fn climb(&mut self, guest: &str, rung: usize) -> Change {
        let (guest, why) = (name(guest), "http does not answer".to_owned());
        Change::Climb {
            guest,
            rung,
            ladder: LadderKind::Recovery,
            to: None,
            why,
            evidence: Vec::new(),
            last_well: None,
        }
    }

    /// The only open order of the host.
    pub fn order(&self, on: &str) -> &Order {
        let orders: Vec<&Order> = self.state.orders.values().filter(|order| order.host == host(on)).collect();
        assert_eq!(orders.len(), 1, "{orders:?}");
        orders[0]
    }

    pub fn orders(&self, on: &str) -> Vec<String> {
        let orders = self.state.orders.values().filter(|order| order.host == host(on));
        orders.map(|order| order.kind.to_string()).collect()
    }

    /// The only open order of the host has ended.
    pub fn end(&mut self, on: &str, outcome: OrderOutcome) -> OrderId {
        let order = self.order(on).id;
        self.must(Change::OrderEnded { order, outcome });
        order
    }

    pub fn gone(&mut self, on: &str) -> Change {
        let incarnation = self.state.hosts[&host(on)].facts.incarnation.clone();
        let reading = PowerReading { incarnation: incarnation.clone(), ..off(on, Moment(10)) };
        let proof = Proof::power_off(&host(on), &incarnation, &reading, Some("ann"), None, QUIET).unwrap();
        Change::HostGone { proof, last_well: None, last_words: None }
    }

    pub fn fence(&mut self, on: &str) {
        let incarnation = self.state.hosts[&host(on)].facts.incarnation.clone();
        self.must(Change::FenceOpened {
            host: host(on),
            incarnation,
            evidence: vec!["silent".to_owned()],
            last_well: None,
            safe_at: None,
        });
    }

    pub fn phase(&self, guest: &str) -> &Phase {
        &self.state.guests[&name(guest)].phase
    }

    pub fn migration(&self, guest: &str) -> &Migration {
        match self.phase(guest) {
            Phase::Migrating(migration) => migration,
            other => panic!("{guest} is not migrating but {other:?}"),
        }
    }

    /// A recovery that fits this state, as generation 2.
    pub fn recovery(state: &ClusterState) -> Recovery {
        Recovery {
            generation: 2,
            index: next_index(state.applied),
            at: WallTime(9_000_000),
            survivor: host("a"),
            newest: Some(WallTime(8_000_000)),
            by: "ann".to_owned(),
            revoked: [].into(),
        }
    }

    /// Makes generation 2 of the cluster (R25).
    pub fn recover(&mut self) {
        let recovery = Self::recovery(&self.state);
        self.state.recover(&recovery).unwrap();
        self.index = self.state.applied;
    }

    /// Hosts that may run the guest.
    pub fn may_run(&self, guest: &str) -> BTreeSet<String> {
        self.state.guests[&name(guest)].tenures().iter().map(|tenure| tenure.host.to_string()).collect()
    }
}
