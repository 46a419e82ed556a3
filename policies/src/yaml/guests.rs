//! Reads `guests:`.

use std::collections::BTreeMap;

use super::{
    across::Seen,
    fields::{Fields, Keys},
    hosts, qemu,
    text::quoted,
    value::Value,
};
use crate::{
    model::{GuestDeclaration, Labels, Vsock, VsockCarrier},
    names::GuestName,
    rules::GuestNeeds,
};

const GUEST: Keys = Keys {
    known: &[
        "labels",
        "priority",
        "address",
        "qemu",
        "demand",
        "stickiness",
        "best_effort",
        "live_migration",
        "failback",
        "start_tries",
        "relocations",
        "stop_timeout",
    ],
    later: &["libvirt"],
    renamed: &[
        ("desired", "what is wanted of a guest is said by `holdfast guest stop` and `holdfast guest start`"),
        ("memory", OF_THE_MACHINE),
        ("cpus", OF_THE_MACHINE),
        ("disks", OF_THE_MACHINE),
        ("nics", OF_THE_MACHINE),
    ],
};
const OF_THE_MACHINE: &str = "it belongs to the machine: write it below `qemu`";

/// Highest priority. Priorities are ranks, not numbers to count with.
const PRIORITY_MAX: u32 = 1000;
/// Largest stickiness: that of the largest weight of a rule.
const STICKINESS_MAX: i64 = 1_000_000;
/// Most starts on one host, and most hosts that are tried: a bound, so that every row of tries ends.
const TRIES_MAX: u32 = 100;
/// Longest label key or value in bytes.
const LABEL_BYTES_MAX: usize = 128;

/// Reads all guests of a section.
pub(super) fn read(section: &Value<'_>, into: &mut BTreeMap<GuestName, GuestDeclaration>, seen: &mut Seen) {
    seen.read_each(section, "guest", into, |seen, name| seen.guests.get(name).map(|first| first.place), guest);
}

fn guest(value: &Value<'_>, name: &GuestName, seen: &mut Seen) -> Option<GuestDeclaration> {
    let fields = value.fields(&GUEST)?;
    let labels = fields.or("labels", Labels::new(), labels);
    let priority = fields.or("priority", 100, |v| v.number(0..=PRIORITY_MAX));
    let address = fields.optional("address", Value::address);
    let sketch = seen.guest(name, value.at);
    sketch.labels = labels.clone().unwrap_or_default();
    sketch.addressed = fields.has("address");
    if !fields.has("qemu") && !fields.has("libvirt") {
        value.findings.hint(
            value.at,
            format!(
                "guest {} has no `qemu`; taking a guest's definition from its hypervisor is not available in this version",
                quoted(value.name)
            ),
            "add `qemu: { memory: 1GiB, disks: [{ path: /shared/guest.img }] }`",
        );
    }
    let qemu = fields.section("qemu").and_then(|qemu| qemu::read(&qemu, name, seen));
    let needs = needs(&fields);
    if let (Some(qemu), Some(GuestNeeds { live_migration: true, .. })) = (&qemu, &needs)
        && matches!(qemu.vsock, Some(Vsock { carrier: VsockCarrier::Program { .. }, .. }))
    {
        value.findings.hint(
            value.at,
            format!("guest {} has a vsock device with which QEMU does not move it live", quoted(value.name)),
            "add `live_migration: false` to the guest, or use `vsock: { cid: 100 }`",
        );
    }
    Some(GuestDeclaration { labels: labels?, priority: priority?, address: address?, qemu: qemu?, needs: needs? })
}

fn needs(fields: &Fields<'_>) -> Option<GuestNeeds> {
    let default = GuestNeeds::default();
    let demand = fields.or("demand", default.demand, hosts::amounts);
    let stickiness = fields.or("stickiness", default.stickiness, |v| v.signed(0..=STICKINESS_MAX));
    let best_effort = fields.or("best_effort", default.best_effort, Value::boolean);
    let live_migration = fields.or("live_migration", default.live_migration, Value::boolean);
    let failback = fields.or("failback", default.failback, Value::boolean);
    let start_tries = fields.or("start_tries", default.start_tries, |v| v.number(1..=TRIES_MAX));
    let relocations = fields.optional("relocations", |v| v.number(0..=TRIES_MAX));
    let stop_timeout = fields.or("stop_timeout", default.stop_timeout, Value::span);
    Some(GuestNeeds {
        demand: demand?,
        stickiness: stickiness?,
        best_effort: best_effort?,
        live_migration: live_migration?,
        failback: failback?,
        start_tries: start_tries?,
        relocations: relocations?,
        stop_timeout: stop_timeout?,
    })
}

/// Reads labels, of guests and of `match`.
pub(super) fn labels(value: &Value<'_>) -> Option<Labels> {
    let entries = value.map()?;
    let read = entries.iter().map(|entry| Some((entry.name.to_owned(), label(entry)?)));
    let read: Vec<Option<(String, String)>> = read.collect();
    read.into_iter().collect()
}

fn label(entry: &Value<'_>) -> Option<String> {
    let text = entry.text()?;
    if entry.name.len() > LABEL_BYTES_MAX || text.len() > LABEL_BYTES_MAX {
        return entry
            .wrong(format!("label {} is longer than {LABEL_BYTES_MAX} bytes", quoted(entry.name)), "shorten it");
    }
    Some(text.to_owned())
}
