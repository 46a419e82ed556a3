//! How a problem's rows come out of the cluster's state: what each host has and each guest takes, and where each guest is.

use std::{cmp::Ordering, collections::BTreeSet};

use super::{
    problem::{CPUS, Dimension, MEMORY, PlanGuest, PlanHost, Stage, Standing},
    reason::Reason,
    table::{GuestAt, HostAt, Key, Table},
};
use crate::{
    model::{GuestDeclaration, Policies},
    names::{GuestName, HostName},
    state::{ClusterState, Guest, Host, Life, Migration, MigrationStep, Mode, Phase, Tenure, Wanted},
};

/// All hosts that the state knows, by name.
pub(super) fn hosts<'a>(
    policies: &'a Policies,
    state: &'a ClusterState,
    standing: impl Fn(&HostName) -> Standing,
) -> Table<HostAt, PlanHost<'a>> {
    Table::new(state.hosts.iter().map(|(name, host)| plan_host(policies, name, host, standing(name))).collect())
}

/// All guests that are declared or known, by name. Their rules are not resolved yet.
pub(super) fn guests<'a>(
    policies: &'a Policies,
    state: &'a ClusterState,
    hosts: &Table<HostAt, PlanHost<'a>>,
) -> Table<GuestAt, PlanGuest<'a>> {
    Table::new(joined(policies, state).into_iter().map(|known| plan_guest(hosts, known)).collect())
}

/// Memory, processors, then the declared capacities by name.
pub(super) fn dimensions<'a>(
    policies: &'a Policies,
    hosts: &Table<HostAt, PlanHost<'a>>,
    guests: &Table<GuestAt, PlanGuest<'a>>,
) -> Vec<Dimension<'a>> {
    let declared = policies.hosts.values().flat_map(|host| host.capacity.keys()).map(String::as_str);
    let custom: BTreeSet<&str> = declared.filter(|name| ![MEMORY, CPUS].contains(name)).collect();
    let settings = &policies.cluster;
    let dimension = |name: &'a str| {
        let (is_hard, weight, is_memory) = (settings.is_hard(name), settings.weight(name), name == MEMORY);
        let of_host = |host: &PlanHost<'_>| {
            let declared = host.capacity.and_then(|declared| declared.get(name).copied());
            declared.or_else(|| is_memory.then_some(host.memory_mib))
        };
        let has: Vec<Option<u64>> = hosts.rows().iter().map(of_host).collect();
        // Who says how processors count need not say of every host how many cores it has.
        let counted = name == CPUS && settings.capacities.contains_key(CPUS);
        let size = |(host, has): (&PlanHost<'_>, &Option<u64>)| {
            let size = has.or_else(|| counted.then_some(host.cores.max(1)));
            size.filter(|_| weight > 0)
        };
        // A demand that is named counts; memory and processors are known from the machine itself where it is not.
        let machine: fn(&GuestDeclaration) -> u64 = match name {
            MEMORY => |declared| u64::from(declared.qemu.memory_mib),
            CPUS => |declared| u64::from(declared.qemu.cpus),
            _ => |_| 0,
        };
        let wants = |declared: &GuestDeclaration| declared.needs.demand.get(name).copied();
        let demand = |guest: &PlanGuest<'_>| {
            guest.declared.map_or(0, |declared| wants(declared).unwrap_or_else(|| machine(declared)))
        };
        Dimension {
            name,
            capacity: Table::new(has.iter().map(|has| has.filter(|_| is_hard)).collect()),
            size: Table::new(hosts.rows().iter().zip(&has).map(size).collect()),
            weight: u64::from(weight),
            demand: Table::new(guests.rows().iter().map(demand).collect()),
        }
    };
    [MEMORY, CPUS].into_iter().chain(custom).map(dimension).collect()
}

/// How many starts each host has to carry out already.
pub(super) fn starts(
    hosts: &Table<HostAt, PlanHost<'_>>,
    guests: &Table<GuestAt, PlanGuest<'_>>,
) -> Table<HostAt, u32> {
    let mut starts = Table::filled(hosts.len(), 0);
    for (_, guest) in guests.iter() {
        let host = match guest.stage {
            Stage::Starting => guest.bound,
            Stage::Moving => guest.receives,
            Stage::Free | Stage::Running | Stage::Stopping => None,
        };
        if let Some(host) = host {
            starts[host] += 1;
        }
    }
    starts
}

/// The row of a host among all of them, which are in the order of their names.
pub(super) fn find_host(hosts: &Table<HostAt, PlanHost<'_>>, name: &HostName) -> Option<HostAt> {
    hosts.rows().binary_search_by(|host| host.name.cmp(name)).ok().map(HostAt::of)
}

fn plan_host<'a>(policies: &'a Policies, name: &'a HostName, host: &'a Host, standing: Standing) -> PlanHost<'a> {
    let mode = match host.mode {
        Mode::Active => None,
        Mode::Draining | Mode::Maintenance | Mode::Leaving { .. } => Some(Reason::Mode { mode: host.mode }),
    };
    let life = match host.life {
        Life::Up => None,
        Life::Fencing(_) | Life::Gone { .. } => Some(Reason::Down),
    };
    let witness = (!host.facts.guests).then_some(Reason::Witness);
    let unheard = (standing == Standing::Unheard).then_some(Reason::Unheard);
    let declared = policies.hosts.get(name);
    PlanHost {
        name,
        boot: &host.facts.incarnation,
        labels: declared.map(|declared| &declared.labels),
        capacity: declared.map(|declared| &declared.capacity),
        memory_mib: host.facts.memory_mib,
        out: witness.or(life).or(mode).or(unheard),
        left_alone: host.in_maintenance(),
        gone: matches!(host.life, Life::Gone { .. }) || !host.facts.guests,
        unwell: standing == Standing::Unwell,
        cores: u64::from(host.facts.cores),
    }
}

/// A guest, what is declared of it, and what is known of it.
type Known<'a> = (&'a GuestName, Option<&'a GuestDeclaration>, Option<&'a Guest>);

/// Guests that are declared, known or both, by name: one walk over both lists.
fn joined<'a>(policies: &'a Policies, state: &'a ClusterState) -> Vec<Known<'a>> {
    let mut all = Vec::with_capacity(state.guests.len());
    let (mut declared, mut known) = (policies.guests.iter().peekable(), state.guests.iter().peekable());
    loop {
        let order = match (declared.peek(), known.peek()) {
            (None, None) => return all,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((one, _)), Some((other, _))) => one.cmp(other),
        };
        let declaration = if order == Ordering::Greater { None } else { declared.next() };
        let guest = if order == Ordering::Less { None } else { known.next() };
        let name = declaration.map(|(name, _)| name).or(guest.map(|(name, _)| name));
        all.extend(name.map(|name| (name, declaration.map(|(_, one)| one), guest.map(|(_, one)| one))));
    }
}

fn plan_guest<'a>(hosts: &Table<HostAt, PlanHost<'a>>, (name, declared, known): Known<'a>) -> PlanGuest<'a> {
    let needs = declared.map(|declared| &declared.needs);
    let priority = declared.map_or(0, |declared| declared.priority);
    let tries = needs.map_or(1, |needs| needs.start_tries.max(1));
    let halves = known.map_or([None, None], Guest::halves);
    let here = halves.map(|half| find_host(hosts, &half?.host));
    let at =
        |tenure: &Tenure| halves.into_iter().zip(here).find(|(half, _)| *half == Some(tenure)).and_then(|(_, at)| at);
    PlanGuest {
        name,
        declared,
        known,
        priority,
        stage: known.map_or(Stage::Free, stage),
        wanted: declared.is_some() && known.is_none_or(|known| known.wanted == Wanted::Running),
        here,
        home: known.and_then(Guest::home).and_then(at),
        bound: known.and_then(bound).and_then(at),
        receives: known.and_then(receives).and_then(at),
        avoid: avoided(known).into_iter().flatten().filter_map(|host| find_host(hosts, host)).collect(),
        failed: known.map_or_else(Vec::new, |known| failed(hosts, known, tries)),
        start_tries: tries,
        stickiness: needs.map_or(0, |needs| needs.stickiness),
        best_effort: needs.is_some_and(|needs| needs.best_effort),
        live_migration: needs.is_some_and(|needs| needs.live_migration),
        failback: needs.is_some_and(|needs| needs.failback),
        host_rules: Vec::new(),
        groups: Vec::new(),
        set: None,
        rank: (priority, false),
    }
}

/// Starts of a guest that have failed, by host. A host that it shuns in this boot counts as tried once more in full.
fn failed(hosts: &Table<HostAt, PlanHost<'_>>, guest: &Guest, tries: u32) -> Vec<(HostAt, u32)> {
    let counted = guest.start_failures.iter().filter_map(|(host, count)| Some((find_host(hosts, host)?, *count)));
    let mut failed: Vec<(HostAt, u32)> = counted.collect();
    for (host, boot) in &guest.shuns {
        let Some(at) = find_host(hosts, host).filter(|at| hosts[*at].boot == boot) else { continue };
        match failed.iter_mut().find(|(host, _)| *host == at) {
            Some((_, count)) => *count = count.saturating_add(tries),
            None => failed.push((at, tries)),
        }
    }
    failed
}

fn stage(guest: &Guest) -> Stage {
    match &guest.phase {
        Phase::Unplaced | Phase::Free { .. } => Stage::Free,
        Phase::Starting { .. } => Stage::Starting,
        Phase::Running { .. } => Stage::Running,
        Phase::Releasing { .. } => Stage::Stopping,
        Phase::Migrating(migration) => match migration.step {
            MigrationStep::Clearing { .. } => Stage::Stopping,
            MigrationStep::Receiving { .. }
            | MigrationStep::Sending { .. }
            | MigrationStep::Switched { .. }
            | MigrationStep::Returning { .. } => Stage::Moving,
        },
    }
}

fn bound(guest: &Guest) -> Option<&Tenure> {
    match &guest.phase {
        Phase::Unplaced | Phase::Free { .. } => None,
        Phase::Starting { tenure, .. } | Phase::Running { tenure, .. } | Phase::Releasing { tenure, .. } => {
            Some(tenure)
        }
        Phase::Migrating(migration) => match migration.step {
            MigrationStep::Returning { .. } => migration.source.as_ref(),
            MigrationStep::Receiving { .. }
            | MigrationStep::Sending { .. }
            | MigrationStep::Switched { .. }
            | MigrationStep::Clearing { .. } => migration.target.as_ref(),
        },
    }
}

fn receives(guest: &Guest) -> Option<&Tenure> {
    match &guest.phase {
        Phase::Migrating(Migration { target, step: MigrationStep::Receiving { .. }, .. }) => target.as_ref(),
        Phase::Unplaced
        | Phase::Free { .. }
        | Phase::Starting { .. }
        | Phase::Running { .. }
        | Phase::Releasing { .. }
        | Phase::Migrating(_) => None,
    }
}

fn avoided(guest: Option<&Guest>) -> Option<&BTreeSet<HostName>> {
    match &guest?.phase {
        Phase::Free { avoid, .. } | Phase::Releasing { avoid, .. } => Some(avoid),
        Phase::Unplaced | Phase::Starting { .. } | Phase::Running { .. } | Phase::Migrating(_) => None,
    }
}
