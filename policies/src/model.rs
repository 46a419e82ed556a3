//! What operators declare: guests, policies, fencing and alert receivers, after parsing and checking.
//!
//! These types are what the rest of Holdfast works with. How they are written in YAML, and how mistakes are
//! shown, is in [`crate::yaml`].

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

pub use crate::{
    fence_level::{FenceLevel, LeaseLevel},
    power_device::{
        AgentDevice, CommandDevice, IpmiDevice, IpmiInterface, IpmiPrivilege, LibvirtDevice, PowerDevice, QemuDevice,
        RedfishAuth, RedfishDevice, SETTLE, TlsTrust, WebhookDevice,
    },
    probe::{ExecProbe, HttpProbe, Probe, Statuses, TcpProbe},
};
use crate::{
    names::{GuestName, HostName, PolicyName, RuleName, ServiceName},
    rules::{ClusterSettings, GuestNeeds, HostDeclaration, Rule},
    time::Span,
    tuning::Tuning,
};

/// Labels by key.
pub type Labels = BTreeMap<String, String>;

/// Everything that `holdfast apply` declares, as one value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Policies {
    /// The guests that Holdfast keeps alive.
    pub guests: BTreeMap<GuestName, GuestDeclaration>,
    /// What must answer in them, and what to do when it does not.
    pub policies: BTreeMap<PolicyName, Policy>,
    /// How each host can be made to be off: levels in the order in which they are tried.
    pub fencing: BTreeMap<HostName, Vec<FenceLevel>>,
    /// Whom to tell.
    pub alerts: Vec<Receiver>,
    /// What is said of hosts: labels and capacities beyond what they report of themselves.
    #[serde(default)]
    pub hosts: BTreeMap<HostName, HostDeclaration>,
    /// Where guests may run, together and apart, and in which order they start.
    #[serde(default)]
    pub rules: BTreeMap<RuleName, Rule>,
    /// What holds for the whole cluster.
    #[serde(default)]
    pub cluster: ClusterSettings,
}

/// One guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestDeclaration {
    /// What policies match on.
    pub labels: Labels,
    /// Higher is placed first. Default 100.
    pub priority: u32,
    /// Where probes reach it: what `{address}` stands for.
    pub address: Option<IpAddr>,
    /// The machine itself.
    pub qemu: QemuDefinition,
    /// What placement, starting and moving must know of it.
    #[serde(default)]
    pub needs: GuestNeeds,
}

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

/// What must answer in the guests that match, and what to do when it does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The labels a guest must all have; a guest is matched by at most one policy.
    #[serde(rename = "match")]
    pub matches: Labels,
    /// Services by name.
    pub services: BTreeMap<ServiceName, Service>,
    /// What to do, from the smallest kill to the largest.
    pub ladder: Vec<Rung>,
    /// What to do when QEMU has stopped the guest because its storage failed. Empty, as by default: a human is called and
    /// nothing is killed, because a guest that is started anew finds the same storage.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_storage_error: Vec<Rung>,
    /// What to do with a guest that is well on a host that is not, or that vantages disagree about.
    pub on_degraded: OnDegraded,
    /// How long a recovery must hold before the ladder begins again at its first rung. Default 5m.
    pub cool_down: Span,
    /// How long after a guest's start its services may fail to answer without being counted. Default 60s.
    pub boot_grace: Span,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// What to ask.
    pub probe: Probe,
    /// How often. Default 2s.
    pub every: Span,
    /// How long to wait for the answer. Default 1s.
    pub timeout: Span,
    /// Failures in a row, at one vantage, that make it suspect. Default 3.
    pub fails_after: u32,
    /// Passes in a row, at one vantage, that clear it. Default 2.
    pub recovers_after: u32,
    /// From where to look.
    pub from: Vantages,
    /// Slowness, flapping, grace, and what it cannot answer without.
    #[serde(flatten)]
    pub tuning: Tuning,
}

/// For so many intervals an answer is good.
const FRESH_INTERVALS: u32 = 3;

impl Service {
    /// How long an answer says something: some intervals, the time that an answer may take, and a second for its way.
    #[must_use]
    pub fn fresh_for(&self) -> Duration {
        self.every.0 * FRESH_INTERVALS + self.timeout.0 + Duration::from_secs(1)
    }
}

/// From where a service is asked, and how many of them must agree that it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vantages {
    /// In the guest, through its agent. Default true.
    pub inside: bool,
    /// From how many hosts over the network. Default 2 for network probes.
    pub hosts: u32,
    /// How many vantages must agree. Default 2, or as many as there are.
    pub agree: u32,
}

/// One rung of a ladder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    /// Runs a command in the guest that restarts the service.
    RestartService {
        /// Program and arguments; no shell.
        run: Vec<String>,
        /// How often before the next rung. Default 1.
        tries: u32,
        /// How long to wait for the service to answer. Default 10s.
        wait: Span,
    },
    /// Asks the guest, through its agent, to reboot: its programs end in order, its file systems are left clean, and its
    /// QEMU goes on.
    RebootGuest {
        /// How often before the next rung. Default 1.
        tries: u32,
        /// How long the reboot may take, and the service to answer again. Default 60s.
        wait: Span,
    },
    /// Lets a guest run again that QEMU has stopped because its storage failed. Where that still fails, it stops again.
    ResumeGuest {
        /// How often before the next rung. Default 1.
        tries: u32,
        /// How long to wait for the service to answer. Default 10s.
        wait: Span,
    },
    /// Stops the guest hard and starts it again on the same host.
    ResetGuest {
        /// How often before the next rung. Default 1.
        tries: u32,
        /// How long to wait for the service to answer. Default 60s.
        wait: Span,
    },
    /// Stops the guest and starts it on another host.
    Failover {
        /// How often before the next rung. Default 1.
        tries: u32,
        /// How long to wait for the service to answer. Default 90s.
        wait: Span,
    },
    /// Moves the running guest to another host.
    Migrate {
        /// How often before the next rung. Default 1.
        tries: u32,
        /// How long to wait for the service to answer. Default 60s.
        wait: Span,
    },
    /// Calls a human.
    Page {
        /// How urgently. Default critical.
        severity: Severity,
    },
}

/// What to do with a degraded guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum OnDegraded {
    /// Tell somebody.
    #[default]
    Alert,
    /// Move it to a host that is well, and tell somebody.
    Migrate,
    /// Climb the ladder as for a failure when a service is slow or flaps; tell somebody of the rest.
    Ladder,
}

/// How urgent an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// For the record.
    Info,
    /// Odd, handled, look when convenient.
    Warning,
    /// Something does not answer; Holdfast is at it.
    Error,
    /// A human must act.
    Critical,
}

/// Where alerts go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Receiver {
    /// PagerDuty Events API v2.
    Pagerduty {
        /// File with the routing key.
        routing_key_file: PathBuf,
        /// Least severity that is sent. Default info.
        min_severity: Severity,
        /// Default `https://events.pagerduty.com`.
        url: String,
    },
    /// Prometheus Alertmanager API v2.
    Alertmanager {
        /// Base URL.
        url: String,
        /// Least severity that is sent. Default info.
        min_severity: Severity,
    },
    /// A POST of the incident as JSON.
    Webhook {
        /// Where to.
        url: String,
        /// Least severity that is sent. Default info.
        min_severity: Severity,
    },
}

impl Policies {
    /// The policy that a guest falls under, if any: the first, by name, whose labels it all has.
    #[must_use]
    pub fn policy_of(&self, guest: &GuestName) -> Option<(&PolicyName, &Policy)> {
        self.policy_for(self.guests.get(guest)?)
    }

    /// The policy that a guest with this declaration falls under, if any.
    #[must_use]
    pub fn policy_for(&self, declared: &GuestDeclaration) -> Option<(&PolicyName, &Policy)> {
        let labels = &declared.labels;
        self.policies
            .iter()
            .find(|(_, policy)| policy.matches.iter().all(|(key, value)| labels.get(key) == Some(value)))
    }
}

impl Rung {
    /// Tries before the next rung.
    #[must_use]
    pub fn tries(&self) -> u32 {
        match self {
            Self::RestartService { tries, .. }
            | Self::RebootGuest { tries, .. }
            | Self::ResumeGuest { tries, .. }
            | Self::ResetGuest { tries, .. }
            | Self::Failover { tries, .. }
            | Self::Migrate { tries, .. } => *tries,
            Self::Page { .. } => 1,
        }
    }

    /// How long to wait for recovery after one try.
    #[must_use]
    pub fn wait(&self) -> Span {
        match self {
            Self::RestartService { wait, .. }
            | Self::RebootGuest { wait, .. }
            | Self::ResumeGuest { wait, .. }
            | Self::ResetGuest { wait, .. }
            | Self::Failover { wait, .. }
            | Self::Migrate { wait, .. } => *wait,
            Self::Page { .. } => Span::ms(0),
        }
    }

    /// The rung's key in YAML.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::RestartService { .. } => "restart_service",
            Self::RebootGuest { .. } => "reboot_guest",
            Self::ResumeGuest { .. } => "resume_guest",
            Self::ResetGuest { .. } => "reset_guest",
            Self::Failover { .. } => "failover",
            Self::Migrate { .. } => "migrate",
            Self::Page { .. } => "page",
        }
    }
}

impl Receiver {
    /// A stable name for delivery bookkeeping and metrics; carries no secret.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::Pagerduty { routing_key_file, .. } => format!("pagerduty:{}", routing_key_file.display()),
            Self::Alertmanager { url, .. } => format!("alertmanager:{url}"),
            Self::Webhook { url, .. } => format!("webhook:{}", url.split(['?', '#']).next().unwrap_or(url)),
        }
    }

    /// Least severity that is sent.
    #[must_use]
    pub fn min_severity(&self) -> Severity {
        match self {
            Self::Pagerduty { min_severity, .. }
            | Self::Alertmanager { min_severity, .. }
            | Self::Webhook { min_severity, .. } => *min_severity,
        }
    }
}
