//! Whether a guest can go on in another machine than it runs in: what a live move must not change.
//!
//! QEMU sends memory and the state of devices, not what is behind the devices: a guest that is sent to a machine with other images
//! goes on with those, and writes to one what it has read from another. So whoever sends a guest compares what it was started with.
//! Compared is also what QEMU would notice at the end of a long move, or not at all. Left out is what may change under a guest that
//! runs: the bridges of its network cards, what it boots next, and how its agent is reached; the type of the machine, which may have
//! two names, and which QEMU compares; and the processor, which has an answer of its own.

use std::fmt;

use crate::machine::{Accel, Disk, DiskFormat, DisplayModel, Nic, QemuDefinition, VsockCarrier, WatchdogModel};

/// What a guest runs with and would not find in the machine that waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What of it.
    pub what: String,
    /// How that is where it runs.
    pub ours: String,
    /// How that is where a machine waits.
    pub theirs: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, ours, theirs } = self;
        write!(f, "{what} is {ours} here and {theirs} there")
    }
}

impl QemuDefinition {
    /// The first thing for which a guest that runs in this machine cannot go on in `theirs`, its processor aside.
    #[must_use]
    pub fn difference(&self, theirs: &Self) -> Option<Difference> {
        // Whatever is added has to be thought of here.
        let Self {
            memory_mib,
            cpus,
            cpu: _,
            kernel: _,
            disks,
            nics,
            agent,
            holdfast_agent: _,
            vsock: _,
            watchdog,
            display,
            accel,
            machine: _,
        } = self;
        of_disks(disks, &theirs.disks)
            .or_else(|| of_nics(nics, &theirs.nics))
            .or_else(|| of("its memory", *memory_mib, theirs.memory_mib, |mib| format!("{mib} MiB")))
            .or_else(|| of("its number of virtual CPUs", *cpus, theirs.cpus, |cpus| cpus.to_string()))
            .or_else(|| of("its acceleration", is_emulated(*accel), is_emulated(theirs.accel), acceleration))
            .or_else(|| of("the agent's port", *agent, theirs.agent, presence))
            .or_else(|| of("the port of holdfast-guest", self.has_own_port(), theirs.has_own_port(), presence))
            .or_else(|| of("its vsock", self.carrier(), theirs.carrier(), carrier))
            .or_else(|| of("its watchdog", *watchdog, theirs.watchdog, model_of_watchdog))
            .or_else(|| of("its display", *display, theirs.display, model_of_display))
    }

    /// Whether there is a device for Holdfast's own agent beside vsock.
    fn has_own_port(&self) -> bool {
        self.holdfast_agent && self.vsock.is_none()
    }

    fn carrier(&self) -> Option<&VsockCarrier> {
        self.vsock.as_ref().map(|vsock| &vsock.carrier)
    }
}

fn of<T: PartialEq>(what: impl Into<String>, ours: T, theirs: T, told: impl Fn(T) -> String) -> Option<Difference> {
    if ours == theirs {
        return None;
    }
    Some(Difference { what: what.into(), ours: told(ours), theirs: told(theirs) })
}

fn of_disks(ours: &[Disk], theirs: &[Disk]) -> Option<Difference> {
    let most = ours.len().max(theirs.len());
    (0..most).find_map(|index| of(format!("disk {}", index + 1), ours.get(index), theirs.get(index), image))
}

fn of_nics(ours: &[Nic], theirs: &[Nic]) -> Option<Difference> {
    let most = ours.len().max(theirs.len());
    let mac = |cards: &[Nic], index: usize| cards.get(index).map(|card| card.mac.to_ascii_lowercase());
    let what = |index: usize| format!("network card {}", index + 1);
    (0..most).find_map(|index| of(what(index), mac(ours, index), mac(theirs, index), |mac| mac.unwrap_or_else(nothing)))
}

fn image(disk: Option<&Disk>) -> String {
    let Some(Disk { path, format }) = disk else { return nothing() };
    let format = match format {
        DiskFormat::Raw => "raw",
        DiskFormat::Qcow2 => "qcow2",
    };
    format!("{} ({format})", path.display())
}

/// `auto` may be either. It is taken for what it is on hosts that are meant for guests.
fn is_emulated(accel: Accel) -> bool {
    match accel {
        Accel::Tcg => true,
        Accel::Auto | Accel::Kvm => false,
    }
}

fn acceleration(is_emulated: bool) -> String {
    if is_emulated { "tcg" } else { "auto or kvm" }.to_owned()
}

fn presence(is_there: bool) -> String {
    if is_there { "present" } else { "absent" }.to_owned()
}

fn carrier(carrier: Option<&VsockCarrier>) -> String {
    match carrier {
        Some(VsockCarrier::Kernel { cid }) => format!("cid {cid}"),
        Some(VsockCarrier::Program { device, socket: _ }) => device.display().to_string(),
        None => nothing(),
    }
}

fn model_of_watchdog(model: Option<WatchdogModel>) -> String {
    match model {
        Some(WatchdogModel::I6300esb) => "i6300esb".to_owned(),
        None => nothing(),
    }
}

fn model_of_display(model: Option<DisplayModel>) -> String {
    match model {
        Some(DisplayModel::Vga) => "vga".to_owned(),
        None => nothing(),
    }
}

fn nothing() -> String {
    "none".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{KernelBoot, VSOCK_PORT, Vsock};

    fn disk(path: &str, format: DiskFormat) -> Disk {
        Disk { path: path.into(), format }
    }

    fn nic(bridge: &str, mac: &str) -> Nic {
        Nic { bridge: bridge.to_owned(), mac: mac.to_owned() }
    }

    fn vsock(cid: u32, port: u32) -> Option<Vsock> {
        Some(Vsock { carrier: VsockCarrier::Kernel { cid }, port })
    }

    fn running() -> QemuDefinition {
        QemuDefinition {
            disks: vec![disk("/srv/a.raw", DiskFormat::Raw), disk("/srv/b.raw", DiskFormat::Raw)],
            nics: vec![nic("br0", "52:54:00:00:00:0a"), nic("br1", "52:54:00:00:00:0b")],
            vsock: vsock(100, VSOCK_PORT),
            ..QemuDefinition::bare(512)
        }
    }

    type Change = fn(&mut QemuDefinition);

    #[test]
    fn a_guest_does_not_go_on_with_other_images_or_devices_than_it_runs_with() {
        let cases: [(Change, &str); 14] = [
            (|other| other.disks.swap(0, 1), "disk 1 is /srv/a.raw (raw) here and /srv/b.raw (raw) there"),
            (
                |other| other.disks[1].path = "/mnt/b.raw".into(),
                "disk 2 is /srv/b.raw (raw) here and /mnt/b.raw (raw) there",
            ),
            (
                |other| other.disks[0].format = DiskFormat::Qcow2,
                "disk 1 is /srv/a.raw (raw) here and /srv/a.raw (qcow2) there",
            ),
            (|other| drop(other.disks.pop()), "disk 2 is /srv/b.raw (raw) here and none there"),
            (
                |other| other.disks.push(disk("/dev/vg/c", DiskFormat::Raw)),
                "disk 3 is none here and /dev/vg/c (raw) there",
            ),
            (|other| other.nics.swap(0, 1), "network card 1 is 52:54:00:00:00:0a here and 52:54:00:00:00:0b there"),
            (|other| drop(other.nics.pop()), "network card 2 is 52:54:00:00:00:0b here and none there"),
            (|other| other.memory_mib = 1024, "its memory is 512 MiB here and 1024 MiB there"),
            (|other| other.cpus = 2, "its number of virtual CPUs is 1 here and 2 there"),
            (|other| other.accel = Accel::Tcg, "its acceleration is auto or kvm here and tcg there"),
            (|other| other.agent = false, "the agent's port is present here and absent there"),
            (|other| other.vsock = vsock(101, VSOCK_PORT), "its vsock is cid 100 here and cid 101 there"),
            (|other| other.watchdog = Some(WatchdogModel::I6300esb), "its watchdog is none here and i6300esb there"),
            (|other| other.display = Some(DisplayModel::Vga), "its display is none here and vga there"),
        ];
        for (change, told) in cases {
            let mut other = running();
            change(&mut other);
            assert_eq!(running().difference(&other).map(|found| found.to_string()).as_deref(), Some(told));
            assert!(other.difference(&running()).is_some(), "{told}");
        }
        let (mut bare, mut own) = (running(), running());
        (bare.vsock, own.vsock, own.holdfast_agent) = (None, None, true);
        let told = bare.difference(&own).map(|found| found.to_string());
        assert_eq!(told.as_deref(), Some("the port of holdfast-guest is absent here and present there"));
    }

    #[test]
    fn a_guest_goes_on_where_nothing_differs_that_is_under_it() {
        let boot = KernelBoot { kernel: "/boot/k".into(), initrd: None, append: String::new() };
        let cases: [&dyn Fn(&mut QemuDefinition); 7] = [
            &|_| {},
            &|other| other.nics[0] = nic("br7", "52:54:00:00:00:0A"),
            &|other| other.kernel = Some(boot.clone()),
            &|other| other.machine = "pc-q35-7.2".to_owned(),
            &|other| other.vsock = vsock(100, 7414),
            &|other| other.holdfast_agent = true,
            &|other| other.accel = Accel::Kvm,
        ];
        for change in cases {
            let mut other = running();
            change(&mut other);
            assert_eq!(running().difference(&other), None, "{other:?}");
        }
    }
}
