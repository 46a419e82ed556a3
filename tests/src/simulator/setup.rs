//! What a world is made of: hosts, voters, guests, policies. By hand, or by chance from a seed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
};

use holdfast_policies::{
    feature_level::FeatureLevel,
    hostfile::Timing,
    model::{
        FenceLevel, GuestDeclaration, IpmiDevice, LeaseLevel, OnDegraded, Policies, Policy, PowerDevice, Probe,
        QemuDefinition, Rung, Service, Severity, TcpProbe, Vantages,
    },
    names::{GuestName, HostName, PolicyName, ServiceName},
    rules::GuestNeeds,
    time::Span,
};

use super::{breaks::Break, chores::Twin, guard::Watchdog, random::Random};

/// One host.
#[derive(Debug, Clone)]
pub struct HostSetup {
    /// Its name.
    pub name: HostName,
    /// Memory for guests, in MiB.
    pub memory_mib: u64,
    /// Processor cores.
    pub cores: u32,
    /// Whether it runs guests.
    pub guests: bool,
    /// The machine's watchdog, if it has one.
    pub watchdog: Option<Watchdog>,
}

/// Everything that a world is made of.
#[derive(Debug, Clone)]
pub struct Setup {
    /// What chance is made of.
    pub seed: u64,
    /// The hosts; the first `voters` of them vote.
    pub hosts: Vec<HostSetup>,
    /// How many vote.
    pub voters: usize,
    /// What is declared at birth.
    pub policies: Policies,
    /// Guests that run on a host before the cluster knows them.
    pub running: BTreeMap<GuestName, usize>,
    /// Timing of the protocols.
    pub timing: Timing,
    /// Whether clocks drift, slow starts happen and restarts of services may not help.
    pub chance: bool,
    /// The rule that is switched off.
    pub broken: Option<Break>,
    /// Whether hosts have guards that stop guests by lease, and watchdogs.
    pub guarded: bool,
    /// After so many entries a voter takes a snapshot and forgets most of its log.
    pub compacts_every: Option<usize>,
    /// A second machine that may come under a host's name.
    pub twin: Option<Twin>,
    /// How fast each host's clock goes, of a thousand; hosts beyond these get one by chance.
    pub drifts: Vec<u64>,
    /// Whether voters find out how much their own links lose, and doubt themselves for it.
    pub lossy_links: bool,
    /// Hosts that begin with an older version, and the highest feature level that it can do (R26).
    pub old: BTreeMap<usize, FeatureLevel>,
    /// Whether views are as large as those of thousands of guests: they take their time.
    pub large_views: bool,
    /// Whether the disks that agents' memories are on take long, or fail.
    pub bad_disks: bool,
    /// Whether vantages that get no answer of a guest tell when they got the last one, as the product's do.
    pub passes_remembered: bool,
}

impl Setup {
    /// A small world without chance: hosts `hv-0`, `hv-1`, … with 16 GiB each, and the policies given.
    #[must_use]
    pub fn plain(hosts: usize, policies: Policies) -> Self {
        Self {
            seed: 1,
            hosts: (0..hosts).map(host).collect(),
            voters: voters_among(hosts),
            policies,
            running: BTreeMap::new(),
            timing: Timing::default(),
            chance: false,
            broken: None,
            guarded: false,
            compacts_every: None,
            twin: None,
            drifts: Vec::new(),
            lossy_links: false,
            old: BTreeMap::new(),
            large_views: false,
            bad_disks: false,
            passes_remembered: false,
        }
    }

    /// A random world with as many hosts as asked for, between `least` and `most`.
    #[must_use]
    pub fn random(seed: u64, least: usize, most: usize, broken: Option<Break>) -> Self {
        let mut random = Random::new(seed, 1);
        let count = least + random.index(most.saturating_sub(least) + 1);
        let guests: Vec<GuestName> = (0..2 + random.below(count as u64)).map(guest).collect();
        let mut running = BTreeMap::new();
        if random.one_in(4) {
            running.insert(guest(0), random.index(count));
        }
        let names: Vec<HostName> = (0..count).map(|index| host(index).name).collect();
        let policies = policies(&mut random, &guests, &names);
        let timing = Self::random_timing(broken);
        let mut setup = Self { seed, running, timing, chance: true, broken, ..Self::plain(count, policies) };
        // Drawn apart, so that the other worlds stay what they are.
        let mut random = Random::new(seed, 5);
        if random.one_in(3) || broken.is_some_and(Break::is_about_leases) {
            setup.guard(&mut random);
        }
        if broken == Some(Break::R11Copy) {
            setup.twin = Some(Twin { of: random.index(setup.hosts.len()), is_copy: true });
        }
        setup
    }

    /// Gives the hosts watchdogs of all kinds, and many of them a lease level: alone, or after a power device.
    fn guard(&mut self, random: &mut Random) {
        self.guarded = true;
        for host in &mut self.hosts {
            let timeout = random.between(2, 16) * 1_000;
            host.watchdog = match random.below(6) {
                0 => None,
                1 => Some(Watchdog { timeout, is_virtual: true }),
                _ => Some(Watchdog { timeout, is_virtual: false }),
            };
            let lease = FenceLevel::Lease(LeaseLevel::default());
            match random.below(5) {
                0 | 1 => {
                    self.policies.fencing.insert(host.name.clone(), vec![lease]);
                }
                2 | 3 => {
                    self.policies.fencing.insert(host.name.clone(), vec![device(), lease]);
                }
                _ => {}
            }
        }
    }

    /// The timing of random worlds: the product's, with less patience for hosts that were never heard (R19).
    #[must_use]
    pub fn random_timing(broken: Option<Break>) -> Timing {
        let join_grace = if broken == Some(Break::R19) { Span::secs(86_400) } else { Span::secs(20) };
        Timing { join_grace, ..Timing::default() }
    }

    /// The guests that are declared.
    #[must_use]
    pub fn guests(&self) -> BTreeSet<GuestName> {
        self.policies.guests.keys().cloned().collect()
    }
}

fn voters_among(hosts: usize) -> usize {
    if hosts >= 7 { 5 } else { 3.min(hosts) }
}

fn host(index: usize) -> HostSetup {
    let name = named(HostName::new(format!("hv-{index}")));
    HostSetup { name, memory_mib: 16_384, cores: 8, guests: true, watchdog: None }
}

pub(super) fn guest(index: impl Display) -> GuestName {
    named(GuestName::new(format!("g{index}")))
}

/// The policies of a small world, with as many guests as hosts.
#[cfg(test)]
pub(super) fn a_guest_each(hosts: usize) -> Policies {
    let mut policies = Setup::random(1, hosts, hosts, None).policies;
    let declared = policies.guests[&guest(0)].clone();
    policies.guests = (0..hosts).map(|index| (guest(index), declared.clone())).collect();
    policies
}

fn named<T>(name: Result<T, holdfast_policies::names::BadName>) -> T {
    match name {
        Ok(name) => name,
        Err(error) => panic!("the simulator made a bad name: {error}"),
    }
}

/// A declaration with one policy for all guests.
fn policies(random: &mut Random, guests: &[GuestName], hosts: &[HostName]) -> Policies {
    let label = || BTreeMap::from([("app".to_owned(), "web".to_owned())]);
    let mut declared = BTreeMap::new();
    for name in guests {
        let priority = 50 + 50 * u32::try_from(random.below(3)).unwrap_or(0);
        declared.insert(name.clone(), declaration(label(), priority, 512 * (1 + random.below(3))));
    }
    let mut fencing = BTreeMap::new();
    for host in hosts {
        fencing.insert(host.clone(), if random.one_in(12) { vec![FenceLevel::Operator {}] } else { vec![device()] });
    }
    Policies {
        guests: declared,
        policies: BTreeMap::from([(named(PolicyName::new("web")), policy(random, label()))]),
        fencing,
        ..Policies::default()
    }
}

/// A guest with a machine of the given memory.
#[must_use]
pub fn declaration(labels: BTreeMap<String, String>, priority: u32, memory_mib: u64) -> GuestDeclaration {
    GuestDeclaration {
        labels,
        priority,
        address: None,
        qemu: QemuDefinition::bare(u32::try_from(memory_mib).unwrap_or(1_024)),
        needs: GuestNeeds::default(),
    }
}

fn policy(random: &mut Random, matches: BTreeMap<String, String>) -> Policy {
    let service = Service {
        probe: Probe::Tcp(TcpProbe::to(80)),
        every: Span::ms(500),
        timeout: Span::ms(500),
        fails_after: 3,
        recovers_after: 2,
        from: Vantages { inside: false, hosts: 2, agree: if random.one_in(4) { 1 } else { 2 } },
        tuning: holdfast_policies::tuning::Tuning::default(),
    };
    let rungs = [
        Rung::RestartService { run: vec!["restart".to_owned()], tries: 1, wait: Span::secs(3) },
        Rung::ResetGuest { tries: 1, wait: Span::secs(6) },
        Rung::Migrate { tries: 1, wait: Span::secs(6) },
        Rung::Failover { tries: 2, wait: Span::secs(6) },
    ];
    // What a reset would help is never left without one: the page that comes last would not be answered here.
    let reset = |rung: &Rung| matches!(rung, Rung::ResetGuest { .. });
    let mut ladder: Vec<Rung> = rungs.into_iter().filter(|rung| reset(rung) || !random.one_in(3)).collect();
    ladder.push(Rung::Page { severity: Severity::Critical });
    Policy {
        matches,
        services: BTreeMap::from([(named(ServiceName::new("http")), service)]),
        ladder,
        on_storage_error: Vec::new(),
        on_degraded: if random.one_in(2) { OnDegraded::Alert } else { OnDegraded::Migrate },
        cool_down: Span::secs(6),
        boot_grace: Span::secs(5),
    }
}

/// A power device whose wiring somebody has verified.
#[must_use]
pub fn device() -> FenceLevel {
    FenceLevel::ipmi(ipmi("10.0.9.1"))
}

/// The two outlets of a host with two power supplies, whose wiring somebody has verified: all must say off.
#[must_use]
pub fn outlets() -> FenceLevel {
    FenceLevel::Power(["10.0.8.1", "10.0.8.2"].into_iter().map(|address| PowerDevice::Ipmi(ipmi(address))).collect())
}

fn ipmi(address: &str) -> IpmiDevice {
    IpmiDevice {
        wiring_verified_by: Some("ann".to_owned()),
        ..IpmiDevice::plain(address, "holdfast", "/etc/holdfast/ipmi")
    }
}
