//! Reads `fencing:`: how each host can be made to be off.

use std::collections::BTreeMap;

use super::{across::Seen, device, fields::Keys, text::quoted, value::Value};
use crate::{
    model::{FenceLevel, LeaseLevel, PowerDevice},
    names::HostName,
};

const LEVELS: &[&str] =
    &["ipmi", "redfish", "agent", "webhook", "command", "libvirt", "qemu", "all", "lease", "operator"];
const LEASE: Keys = Keys { known: &["watchdog_trusted_by"], later: &[], renamed: &[] };
const OPERATOR: Keys = Keys { known: &[], later: &[], renamed: &[] };

/// Most levels of one host; every level costs its time-out.
const LEVELS_MAX: usize = 8;
/// Most devices of one level: power supplies that one machine has.
const DEVICES_MAX: usize = 8;

/// Reads the levels of all hosts of a section.
pub(super) fn read(section: &Value<'_>, into: &mut BTreeMap<HostName, Vec<FenceLevel>>, seen: &mut Seen) {
    let first = |seen: &Seen, host: &HostName| seen.fencing.get(host).copied();
    seen.read_each(section, "fencing of host", into, first, |value, host, seen| {
        seen.fencing.insert(host.clone(), value.at);
        levels(value, host, seen)
    });
}

fn levels(value: &Value<'_>, host: &HostName, seen: &mut Seen) -> Option<Vec<FenceLevel>> {
    let items = value.list("write `- ipmi: { … }` or `- operator` below it")?;
    if items.is_empty() || items.len() > LEVELS_MAX {
        return value.wrong(
            format!("host {} has {} fence levels", quoted(value.name), items.len()),
            format!("give 1 to {LEVELS_MAX}, at least `- operator`"),
        );
    }
    let read: Vec<Option<FenceLevel>> = items.iter().map(|item| level(item, host, seen)).collect();
    let read: Option<Vec<FenceLevel>> = read.into_iter().collect();
    let leases = read.iter().flatten().filter(|level| matches!(level, FenceLevel::Lease(_))).count();
    if leases > 1 {
        return value.wrong(
            format!("host {} has {leases} `lease` levels", quoted(value.name)),
            "a host has one lease; keep one of them",
        );
    }
    read
}

fn level(item: &Value<'_>, host: &HostName, seen: &mut Seen) -> Option<FenceLevel> {
    let chosen = item.variant("fence level", LEVELS, &[])?;
    match chosen.name {
        "operator" => chosen.fields(&OPERATOR).map(|_| FenceLevel::Operator {}),
        "lease" => lease(&chosen).map(FenceLevel::Lease),
        "all" => all(&chosen, host, seen).map(FenceLevel::Power),
        _ => device::read(&chosen, host, seen).map(|device| FenceLevel::Power(vec![device])),
    }
}

fn lease(value: &Value<'_>) -> Option<LeaseLevel> {
    let fields = value.fields(&LEASE)?;
    let watchdog_trusted_by = fields.optional("watchdog_trusted_by", |v| v.text().map(str::to_owned))?;
    Some(LeaseLevel { watchdog_trusted_by })
}

/// Devices that must all say off, as those of a host with two power supplies.
fn all(value: &Value<'_>, host: &HostName, seen: &mut Seen) -> Option<Vec<PowerDevice>> {
    let items = value.list("write `all: [ { ipmi: { … } }, { agent: { … } } ]`")?;
    if items.len() < 2 || items.len() > DEVICES_MAX {
        return value.wrong(
            format!("`all` has {} device{}", items.len(), if items.len() == 1 { "" } else { "s" }),
            format!("give 2 to {DEVICES_MAX}; a single device is a level by itself, without `all`"),
        );
    }
    let read: Vec<Option<PowerDevice>> = items
        .iter()
        .map(|item| {
            let chosen = item.variant("power device", device::KINDS, &[])?;
            device::read(&chosen, host, seen)
        })
        .collect();
    read.into_iter().collect()
}
