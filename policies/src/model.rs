//! What operators declare: guests, policies, fencing and alert receivers, after parsing and checking.
//!
//! These types are what the rest of Holdfast works with. How they are written in YAML, and how mistakes are
//! shown, is in [`crate::yaml`].

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};

pub use crate::{
    fence_level::{FenceLevel, LeaseLevel},
    machine::{
        Accel, CPU_DEFAULT, Disk, DiskFormat, DisplayModel, KernelBoot, Nic, QemuDefinition, VSOCK_PORT, Vsock,
        VsockCarrier, WatchdogModel,
    },
    power_device::{
        AgentDevice, CommandDevice, IpmiDevice, IpmiInterface, IpmiPrivilege, LibvirtDevice, PowerDevice, QemuDevice,
        RedfishAuth, RedfishDevice, SETTLE, TlsTrust, WebhookDevice,
    },
    probe::{ExecProbe, HttpProbe, Probe, Statuses, TcpProbe},
    receiver::{Receiver, Severity},
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

    /// How long it takes at most to ask so many times and to have the last answer, one interval before the first question included.
    #[must_use]
    pub fn answered_within(&self, times: u32) -> Duration {
        self.every.0.saturating_mul(times).saturating_add(self.timeout.0)
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
