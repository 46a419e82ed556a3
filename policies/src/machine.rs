//! A guest's machine: processors, memory and what is attached to it, as QEMU is started with it on whichever host.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A guest as the QEMU driver starts it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QemuDefinition {
    /// Memory in MiB; placement treats it as hard.
    pub memory_mib: u32,
    /// Virtual CPUs. Default 1.
    pub cpus: u32,
    /// Which processor they are, as QEMU's `-cpu` names it: a model and its flags. Default [`CPU_DEFAULT`]: a guest that has it
    /// moves live only between hosts with the same processors. Either moves live only to a machine that has the same.
    #[serde(default)]
    pub cpu: Option<String>,
    /// Direct kernel boot; `None` boots from the first disk.
    pub kernel: Option<KernelBoot>,
    /// Disks in order.
    pub disks: Vec<Disk>,
    /// Network cards in order.
    pub nics: Vec<Nic>,
    /// Whether there is a channel for the QEMU guest agent. Default true.
    pub agent: bool,
    /// Whether there is a channel for Holdfast's own agent, `holdfast-guest`. Default false: a guest that has it moves live
    /// only between machines that were started with it.
    #[serde(default)]
    pub holdfast_agent: bool,
    /// A vsock device, by which Holdfast's own agent is reached in place of its channel. Default none.
    #[serde(default)]
    pub vsock: Option<Vsock>,
    /// Emulated hardware watchdog.
    pub watchdog: Option<WatchdogModel>,
    /// Graphics card, and with it a screen of which a picture can be kept; nobody looks at it live. Default none: a guest
    /// that has one moves live only between machines that were started with it.
    #[serde(default)]
    pub display: Option<DisplayModel>,
    /// Hardware acceleration. Default auto.
    pub accel: Accel,
    /// QEMU machine type. Default `q35`.
    pub machine: String,
}

impl QemuDefinition {
    /// A machine of so much memory in MiB, as it is where nothing else is declared, with nothing attached.
    #[must_use]
    pub fn bare(memory_mib: u32) -> Self {
        Self {
            memory_mib,
            cpus: 1,
            cpu: None,
            kernel: None,
            disks: Vec::new(),
            nics: Vec::new(),
            agent: true,
            holdfast_agent: false,
            vsock: None,
            watchdog: None,
            display: None,
            accel: Accel::Auto,
            machine: "q35".to_owned(),
        }
    }

    /// Which processor its virtual CPUs are.
    #[must_use]
    pub fn processor(&self) -> &str {
        self.cpu.as_deref().unwrap_or(CPU_DEFAULT)
    }
}

/// All that QEMU can give a guest on its host: with KVM the host's own processor.
pub const CPU_DEFAULT: &str = "max";

/// The port at which Holdfast's own agent listens on vsock, unless another is declared on both sides.
pub const VSOCK_PORT: u32 = 7413;

/// A vsock device, and where Holdfast's own agent listens behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vsock {
    /// What carries it on the host.
    pub carrier: VsockCarrier,
    /// The agent's port in the guest. Default [`VSOCK_PORT`].
    pub port: u32,
}

/// What carries a guest's vsock on its host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VsockCarrier {
    /// The kernel, by its module `vhost_vsock`.
    Kernel {
        /// The guest's number among all that speak vsock on a host. It goes with the guest, so no other guest has it.
        cid: u32,
    },
    /// A program of the guest's own beside QEMU, such as `vhost-device-vsock`. QEMU does not move such a guest live.
    Program {
        /// The socket at which that program waits for QEMU.
        device: PathBuf,
        /// The socket at which it takes connections to the guest, and is told the port by `CONNECT`.
        socket: PathBuf,
    },
}

/// Direct kernel boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelBoot {
    /// Kernel image on every host.
    pub kernel: PathBuf,
    /// Initial RAM disk on every host.
    pub initrd: Option<PathBuf>,
    /// Kernel command line.
    pub append: String,
}

/// One disk image, on storage that every host reaches under the same path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// The image.
    pub path: PathBuf,
    /// Its format. Default raw.
    pub format: DiskFormat,
}

/// Image formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskFormat {
    /// Raw bytes.
    Raw,
    /// QEMU copy-on-write.
    Qcow2,
}

/// One network card: a tap device on a bridge of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// The bridge, which has the same name on every host.
    pub bridge: String,
    /// Fixed MAC address, so that the guest keeps its identity when it moves.
    pub mac: String,
}

/// Emulated hardware watchdogs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WatchdogModel {
    /// Intel 6300ESB (PCI).
    I6300esb,
}

/// Emulated graphics cards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DisplayModel {
    /// Standard VGA (PCI), for which Linux, Windows and firmware bring a driver.
    Vga,
}

/// Acceleration of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accel {
    /// KVM when it works on the host, else software emulation.
    Auto,
    /// KVM; starting fails where it does not work.
    Kvm,
    /// Software emulation.
    Tcg,
}
