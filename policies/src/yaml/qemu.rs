//! Reads `qemu` of a guest: the machine that it is.

use std::path::PathBuf;

use super::{
    across::Seen,
    cpu,
    fields::{Fields, Keys},
    text::quoted,
    value::Value,
    vsock,
};
use crate::{
    model::{Accel, CPU_DEFAULT, Disk, DiskFormat, DisplayModel, KernelBoot, Nic, QemuDefinition, WatchdogModel},
    names::GuestName,
};

const QEMU: Keys = Keys {
    known: &[
        "memory",
        "cpus",
        "cpu",
        "kernel",
        "initrd",
        "append",
        "disks",
        "nics",
        "agent",
        "holdfast_agent",
        "vsock",
        "watchdog",
        "display",
        "accel",
        "machine",
    ],
    later: &[],
    renamed: &[("memory_mib", "write the unit with the number: `memory: 256MiB`")],
};
const DISK: Keys = Keys { known: &["path", "format"], later: &[], renamed: &[] };
const NIC: Keys = Keys { known: &["bridge", "mac"], later: &[], renamed: &[] };

/// Most virtual CPUs that QEMU's q35 machine is built for.
const CPUS_MAX: u32 = 1024;
/// Longest name of a Linux network device in bytes.
const BRIDGE_BYTES_MAX: usize = 15;

/// Reads the machine of a guest.
pub(super) fn read(value: &Value<'_>, name: &GuestName, seen: &mut Seen) -> Option<QemuDefinition> {
    let fields = value.fields(&QEMU)?;
    let memory_mib = fields.need("memory", "memory: 1GiB", Value::memory);
    let cpus = fields.or("cpus", 1, |v| v.number(1..=CPUS_MAX));
    // What is the default is no other machine where it is written out.
    let cpu = fields.optional("cpu", cpu::read).map(|cpu| cpu.filter(|named| named != CPU_DEFAULT));
    let kernel = fields.optional("kernel", Value::absolute_path);
    let initrd = fields.optional("initrd", Value::absolute_path);
    let append = fields.or("append", String::new(), |v| v.text().map(str::to_owned));
    let disks = fields.or("disks", Vec::new(), |v| disks(v, name, seen));
    let nics = fields.or("nics", Vec::new(), |v| nics(v, name, seen));
    let agent = fields.or("agent", true, Value::boolean);
    let holdfast_agent = fields.or("holdfast_agent", false, Value::boolean);
    let vsock = fields.optional("vsock", |v| vsock::read(v, name, seen));
    let watchdog = fields.optional("watchdog", |v| v.one_of(&[("i6300esb", WatchdogModel::I6300esb)]));
    let display = fields.or("display", None, |v| v.one_of(&[("none", None), ("vga", Some(DisplayModel::Vga))]));
    let accel = fields
        .or("accel", Accel::Auto, |v| v.one_of(&[("auto", Accel::Auto), ("kvm", Accel::Kvm), ("tcg", Accel::Tcg)]));
    let machine = fields.or("machine", "q35".to_owned(), machine);
    if agent == Some(false) {
        seen.guest(name, value.at).agent_off = Some(fields.place("agent"));
    }
    seen.guest(name, value.at).own_agent = holdfast_agent == Some(true);
    if fields.has("vsock") && holdfast_agent == Some(false) {
        value.findings.hint(
            fields.place("vsock"),
            "`vsock` is a way to Holdfast's own agent, and the guest is declared without it",
            "add `holdfast_agent: true`, or leave `vsock` out",
        );
    }
    let is_host = |name: &str| name.split(',').next() == Some("host");
    if accel == Some(Accel::Tcg) && matches!(&cpu, Some(Some(name)) if is_host(name)) {
        value.findings.hint(
            fields.place("cpu"),
            "`cpu: host` needs KVM, and the guest is declared with software emulation",
            "leave `accel: tcg` out, or name another model",
        );
    }
    if !fields.has("kernel") {
        without_kernel(value, &fields, disks.as_deref());
    }
    let boot = |path: PathBuf| Some(KernelBoot { kernel: path, initrd: initrd.clone()?, append: append.clone()? });
    Some(QemuDefinition {
        memory_mib: memory_mib?,
        cpus: cpus?,
        cpu: cpu?,
        kernel: match kernel? {
            Some(path) => Some(boot(path)?),
            None => None,
        },
        disks: disks?,
        nics: nics?,
        agent: agent?,
        holdfast_agent: holdfast_agent?,
        vsock: vsock?,
        watchdog: watchdog?,
        display: display?,
        accel: accel?,
        machine: machine?,
    })
}

/// Without a kernel there must be a disk to boot from, and nothing that belongs to a kernel.
fn without_kernel(value: &Value<'_>, fields: &Fields<'_>, disks: Option<&[Disk]>) {
    for key in ["initrd", "append"] {
        if fields.has(key) {
            value.findings.hint(
                fields.place(key),
                format!("`{key}` belongs to a kernel, and there is none"),
                "add `kernel: /path/on/every/host`, or leave it out",
            );
        }
    }
    if disks.is_some_and(<[Disk]>::is_empty) {
        value.findings.hint(
            value.at,
            "there is nothing to boot from",
            "add `disks: [{ path: /shared/guest.img }]`, or `kernel: /path/on/every/host`",
        );
    }
}

fn machine(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    if text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_')) {
        return Some(text.to_owned());
    }
    value.wrong(
        format!("{} is not a QEMU machine type", quoted(text)),
        "write its name alone: `q35`, `pc`, `pc-q35-7.2`",
    )
}

fn disks(value: &Value<'_>, name: &GuestName, seen: &mut Seen) -> Option<Vec<Disk>> {
    let items = value.list("write `- path: /shared/guest.img` below it, or `[{ path: /shared/guest.img }]`")?;
    let read: Vec<Option<Disk>> = items.iter().map(|item| disk(item, name, seen)).collect();
    read.into_iter().collect()
}

fn disk(value: &Value<'_>, name: &GuestName, seen: &mut Seen) -> Option<Disk> {
    let fields = value.fields(&DISK)?;
    let path = fields.need("path", "path: /shared/guest.img", Value::absolute_path);
    let format =
        fields.or("format", DiskFormat::Raw, |v| v.one_of(&[("raw", DiskFormat::Raw), ("qcow2", DiskFormat::Qcow2)]));
    if let Some(path) = &path {
        seen.disks.push((path.display().to_string(), name.clone(), fields.place("path")));
    }
    Some(Disk { path: path?, format: format? })
}

fn nics(value: &Value<'_>, name: &GuestName, seen: &mut Seen) -> Option<Vec<Nic>> {
    let items = value.list("write `- { bridge: br0, mac: \"52:54:00:12:34:56\" }` below it")?;
    let read: Vec<Option<Nic>> = items.iter().map(|item| nic(item, name, seen)).collect();
    read.into_iter().collect()
}

fn nic(value: &Value<'_>, name: &GuestName, seen: &mut Seen) -> Option<Nic> {
    let fields = value.fields(&NIC)?;
    let bridge = fields.need("bridge", "bridge: br0", bridge);
    let mac = fields.need("mac", "mac: \"52:54:00:12:34:56\"", mac);
    if let Some(mac) = &mac {
        seen.macs.push((mac.clone(), name.clone(), fields.place("mac")));
    }
    Some(Nic { bridge: bridge?, mac: mac? })
}

fn bridge(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let forbidden = |c: char| c.is_whitespace() || matches!(c, '/' | ':' | ',');
    if text.len() > BRIDGE_BYTES_MAX || text.contains(forbidden) || matches!(text, "." | "..") {
        return value.wrong(
            format!("{} cannot be the name of a bridge", quoted(text)),
            "a name of at most 15 bytes without spaces, `/`, `:` and `,`, such as `br0`",
        );
    }
    Some(text.to_owned())
}

/// A unicast MAC address in lower case, so that one address has one spelling.
fn mac(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let octet = |part: &str| {
        (part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()))
            .then(|| u8::from_str_radix(part, 16).ok())
            .flatten()
    };
    let octets: Option<Vec<u8>> = text.split(':').map(octet).collect();
    match octets.as_deref() {
        Some([first, rest @ ..]) if rest.len() == 5 => {
            if first & 1 == 1 {
                return value.wrong(
                    format!("MAC address {} is a group address", quoted(text)),
                    "the first pair must be even; 52:54:00 is customary for virtual machines",
                );
            }
            if *first == 0 && rest.iter().all(|octet| *octet == 0) {
                return value.wrong("MAC address is zero", "52:54:00 and three pairs of your own are customary");
            }
            Some(text.to_ascii_lowercase())
        }
        _ => value.wrong(
            format!("{} is not a MAC address", quoted(text)),
            "write six pairs of hexadecimal digits: \"52:54:00:12:34:56\"",
        ),
    }
}
