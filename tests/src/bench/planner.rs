//! One round of deciding after a host is proven gone: every guest runs and answers, those of one host are to be placed.

use std::{collections::BTreeMap, fs, time::Instant};

use anyhow::{Context, Result, ensure};
use holdfast_policies::{
    change::{Change, Command},
    decide::decide,
    evidence::{Evidence, Heard, HostEvidence, Sight, SightState},
    hostfile::Timing,
    model::{
        FenceLevel, GuestDeclaration, OnDegraded, Policies, Policy, Probe, QemuDefinition, Rung, Service, TcpProbe,
        Vantages,
    },
    names::{Epoch, GuestName, HostName, Incarnation, PolicyName, ServiceName, Vantage},
    observe::{GuestCondition, GuestReport},
    proof::{Power, PowerReading, Proof, QUIET},
    rules::GuestNeeds,
    state::{ClusterState, Guest, Host, HostFacts, Phase, Tenure},
    time::{Moment, Now, Span, WallTime},
};
use serde::Serialize;

/// Hosts and guests of each measurement.
pub const SIZES: &[(usize, usize)] = &[(16, 100), (64, 1_000), (256, 5_000), (1_000, 10_000)];

/// Rounds measured; the median of them is told.
const ROUNDS: usize = 15;

/// One size.
#[derive(Debug, Serialize)]
pub struct Measured {
    /// Hosts.
    pub hosts: usize,
    /// Guests.
    pub guests: usize,
    /// Guests that the lost host has left.
    pub free: usize,
    /// Guests placed by the round.
    pub placed: usize,
    /// The median time of one whole round, in milliseconds.
    pub ms: f64,
    /// The shortest of them, in milliseconds: what it takes where nobody else wants the core.
    pub best_ms: f64,
    /// The median of the processor time of one whole round, in milliseconds.
    pub cpu_ms: f64,
    /// Memory of the process at that time, in MiB: state and evidence included.
    pub rss_mb: f64,
}

/// Measures one size.
///
/// # Errors
/// When the round does not place what the lost host has left, or a name cannot be made.
pub fn measure(hosts: usize, guests: usize) -> Result<Measured> {
    let (state, evidence, now) = cluster(hosts, guests)?;
    let free = state.guests.values().filter(|guest| matches!(guest.phase, Phase::Free { .. })).count();
    let (mut times, mut cpu_times) = (Vec::new(), Vec::new());
    let mut placed = 0;
    for _ in 0..ROUNDS {
        let (began, cpu_began) = (Instant::now(), cpu_ms()?);
        let decision = decide(&state, &evidence, &Timing::default(), now);
        times.push(began.elapsed().as_secs_f64() * 1_000.0);
        cpu_times.push(cpu_ms()? - cpu_began);
        placed = decision.commands.iter().filter(|change| matches!(change, Change::Place { .. })).count();
    }
    ensure!(placed == free.min(64), "{placed} of {free} guests were placed");
    times.sort_by(f64::total_cmp);
    cpu_times.sort_by(f64::total_cmp);
    let cpu_ms = *cpu_times.get(ROUNDS / 2).context("some rounds were measured")?;
    let ms = *times.get(ROUNDS / 2).context("some rounds were measured")?;
    let best_ms = *times.first().context("some rounds were measured")?;
    Ok(Measured { hosts, guests, free, placed, ms, best_ms, cpu_ms, rss_mb: resident_mb()? })
}

/// Processor time that this thread has had, in milliseconds.
fn cpu_ms() -> Result<f64> {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(std::time::Duration::from(time).as_secs_f64() * 1_000.0)
}

pub(super) fn resident_mb() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status").context("reading the process's status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS in the process's status")?;
    let kib: f64 = line.split_whitespace().nth(1).context("no figure after VmRSS")?.parse()?;
    Ok((kib / 102.4).round() / 10.0)
}

fn host_name(row: usize) -> Result<HostName> {
    Ok(HostName::new(format!("host-{row:04}"))?)
}

/// A cluster in which all is well, but that its last host has just been proven gone.
fn cluster(hosts: usize, guests: usize) -> Result<(ClusterState, Evidence, Now)> {
    let now = Now { moment: Moment(1_000_000), wall: WallTime(1_000_000) };
    let mut state = ClusterState { policies: policies(guests)?, ..ClusterState::born() };
    let mut evidence = Evidence { quorum_since: Some(Moment(1_000)), ..Evidence::default() };
    evidence.me = Some(host_name(0)?);
    evidence.marks.applied(1, Moment(2_000));
    for row in 0..hosts {
        let name = host_name(row)?;
        let incarnation = Incarnation::new(format!("boot-{row:04}"))?;
        if row < 5 {
            evidence.voters.insert(name.clone());
        }
        let heard = Some(Heard { at: now.moment, incarnation: incarnation.clone() });
        evidence.hosts.insert(name.clone(), HostEvidence { sync: heard.clone(), heard, ..HostEvidence::default() });
        state.hosts.insert(name, host(incarnation)?);
    }
    for row in 0..guests {
        run(&mut state, &mut evidence, row, hosts, now)?;
    }
    lose(&mut state, &host_name(hosts - 1)?)?;
    Ok((state, evidence, now))
}

fn host(incarnation: Incarnation) -> Result<Host> {
    let facts = HostFacts {
        incarnation,
        machine_id: "machine".to_owned(),
        address: "10.0.0.1:7000".parse()?,
        memory_mib: 262_144,
        cores: 64,
        guests: true,
    };
    Ok(Host::joined(facts, 1))
}

/// Has a guest run and answer, as two other hosts see it.
fn run(state: &mut ClusterState, evidence: &mut Evidence, row: usize, hosts: usize, now: Now) -> Result<()> {
    let name = GuestName::new(format!("guest-{row:05}"))?;
    let home = row % hosts;
    let host = host_name(home)?;
    let incarnation = Incarnation::new(format!("boot-{home:04}"))?;
    let epoch = Epoch::default();
    let report = GuestReport::new(name.clone(), epoch, GuestCondition::Running);
    evidence.hosts.entry(host.clone()).or_default().reports.insert(name.clone(), report);
    let passing = Sight {
        epoch,
        state: SightState::Passing,
        at: now.moment,
        since: now.moment,
        passed: Some(now.moment),
        warns: false,
        detail: "open".to_owned(),
    };
    let vantages = (1..=2).map(|step| Ok((Vantage::Host(host_name((home + step) % hosts)?), passing.clone())));
    let sights: BTreeMap<Vantage, Sight> = vantages.collect::<Result<_>>()?;
    evidence.services.insert(name.clone(), BTreeMap::from([(ServiceName::new("http")?, sights)]));
    let tenure = Tenure { host, incarnation, epoch };
    let phase = Phase::Running { tenure, since: 1, verified: true, action: None };
    state.guests.insert(name, Guest { phase, ..Guest::declared(0) });
    Ok(())
}

/// The host is proven gone, by the one way in which that can be.
fn lose(state: &mut ClusterState, host: &HostName) -> Result<()> {
    let incarnation = state.hosts.get(host).context("the host is there")?.facts.incarnation.clone();
    let (asked, devices, declared) = (Moment(900_000), vec!["bmc".to_owned()], FenceLevel::Operator {});
    let (power, asker) = (Power::Off, None);
    let reading = PowerReading { incarnation: incarnation.clone(), asked, power, devices, level: 0, declared, asker };
    let proof = Proof::power_off(host, &incarnation, &reading, Some("ann"), None, QUIET)
        .map_err(|missing| anyhow::anyhow!("no proof: {missing:?}"))?;
    let what = Change::HostGone { proof, last_well: None, last_words: None };
    let applied = state.apply(2, Command { at: WallTime(999_000), what });
    ensure!(applied.refused.is_none(), "{host} is not gone: {:?}", applied.refused);
    Ok(())
}

fn policies(guests: usize) -> Result<Policies> {
    let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
    let service = Service {
        probe: Probe::Tcp(TcpProbe::to(80)),
        every: Span::secs(2),
        timeout: Span::secs(1),
        fails_after: 3,
        recovers_after: 2,
        from: Vantages { inside: false, hosts: 2, agree: 2 },
        tuning: holdfast_policies::tuning::Tuning::default(),
    };
    let policy = Policy {
        matches: labels.clone(),
        services: BTreeMap::from([(ServiceName::new("http")?, service)]),
        ladder: vec![
            Rung::ResetGuest { tries: 1, wait: Span::secs(60) },
            Rung::Failover { tries: 2, wait: Span::secs(90) },
        ],
        on_storage_error: Vec::new(),
        on_degraded: OnDegraded::Alert,
        cool_down: Span::secs(300),
        boot_grace: Span::secs(60),
    };
    let mut policies = Policies::default();
    policies.policies.insert(PolicyName::new("web")?, policy);
    for row in 0..guests {
        let size = u32::try_from(row % 4)?;
        let guest = GuestDeclaration {
            labels: labels.clone(),
            priority: 100 + size,
            address: None,
            qemu: machine(1_024 << size),
            needs: GuestNeeds::default(),
        };
        policies.guests.insert(GuestName::new(format!("guest-{row:05}"))?, guest);
    }
    Ok(policies)
}

fn machine(memory_mib: u32) -> QemuDefinition {
    QemuDefinition { cpus: 2, ..QemuDefinition::bare(memory_mib) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_over_a_small_cluster_places_what_the_lost_host_has_left() {
        let measured = measure(16, 100).unwrap();
        assert_eq!((measured.free, measured.placed), (6, 6));
    }
}
