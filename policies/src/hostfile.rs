//! The host file: who a supervisor is, where it listens, whom it joins, which keys it holds.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use crate::{names::HostName, time::Span};

/// `/etc/holdfast/holdfast.yaml`, parsed. Paths that are not absolute count from the host file's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostFile {
    /// This host.
    pub host: HostName,
    /// The cluster's id, made by `holdfast init`; peers of another cluster are refused.
    pub cluster: String,
    /// Durable state: raft log, floors.
    #[serde(default = "default_state_dir")]
    pub state_dir: PathBuf,
    /// State that must die with the host: incarnation, sockets, pid files. Put it on a tmpfs.
    #[serde(default = "default_run_dir")]
    pub run_dir: PathBuf,
    /// UDP for gossip, beacons and nudges; TCP on the same port for mutual-TLS RPC.
    pub listen: SocketAddr,
    /// Read-only HTTP: `/metrics`, `/healthz`, `/readyz`, `/v1/...`. None: not served.
    #[serde(default)]
    pub api: Option<SocketAddr>,
    /// Who votes at the cluster's birth, and whom this host asks first when it starts; afterwards the committed membership
    /// counts (R23).
    pub voters: BTreeMap<HostName, SocketAddr>,
    /// Whether this host runs guests. Default true; a witness says false.
    #[serde(default = "default_true")]
    pub guests: bool,
    /// Certificates for RPC.
    pub tls: TlsFiles,
    /// Gossip keys, newest first: the first seals, all open (rotation). One or two.
    pub gossip_keys: Vec<PathBuf>,
    /// What this machine is, for R11 and for wiring checks. Default: the DMI product UUID, else `/etc/machine-id`.
    #[serde(default)]
    pub machine_id: Option<String>,
    /// Memory for guests in MiB. Default: the machine's memory less 10 %.
    #[serde(default)]
    pub memory_mib: Option<u64>,
    /// The QEMU driver.
    #[serde(default)]
    pub qemu: QemuHost,
    /// The watchdog that switches this host off when it cannot stop its guests itself. None: there is none.
    #[serde(default)]
    pub watchdog: Option<WatchdogFile>,
    /// Timing; the same on every host of a cluster.
    #[serde(default)]
    pub timing: Timing,
}

/// A watchdog that the guard arms while this host has to stop its guests at the end of its lease (R14).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WatchdogFile {
    /// Its device. Default `/dev/watchdog`.
    pub device: PathBuf,
    /// How long after the last pet it fires; whole seconds, as drivers count. A longer one forgives longer stalls of this
    /// machine; guests of a host that was lost by its lease alone start that much later, and 5 % of it for clocks. A longer one than
    /// before counts from the host's next boot: until then somebody may count on the shorter one. Default 10s.
    pub timeout: Span,
}

impl WatchdogFile {
    /// Shortest time-out: the guard pets four times a second, and a machine under load may hold it up for a second.
    pub const TIMEOUT_MIN: Span = Span::secs(2);
    /// Longest time-out: nobody wants guests to wait longer than that for a start elsewhere.
    pub const TIMEOUT_MAX: Span = Span::secs(300);
}

impl Default for WatchdogFile {
    fn default() -> Self {
        Self { device: PathBuf::from("/dev/watchdog"), timeout: Span::secs(10) }
    }
}

/// Certificate files in PEM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The cluster's certificate authority.
    pub ca: PathBuf,
    /// This host's certificate; its common name is the host's name.
    pub certificate: PathBuf,
    /// This host's private key, mode 0600.
    pub key: PathBuf,
}

/// An operator's identity file: their certificate, and whom to ask where the coordinator is. Paths that are not absolute
/// count from its folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFile {
    /// The operator's certificate and private key, and the authority that the cluster's hosts must have theirs from.
    pub tls: TlsFiles,
    /// The voters, or some of them.
    pub voters: BTreeMap<HostName, SocketAddr>,
}

/// How QEMU is run on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QemuHost {
    /// The program. Default `qemu-system-x86_64`, found in PATH.
    pub binary: PathBuf,
    /// A cgroup v2 folder of our own; every guest gets a child of it. Default: `holdfast` below the mounted cgroup v2.
    pub cgroup: Option<PathBuf>,
    /// Where incoming migrations are received. Default: the address of `listen`.
    pub migrate_address: Option<IpAddr>,
    /// A folder on a disk of this host that copies of QEMU's own output go to, as `GUEST.log`. It lies with the other files of its guest,
    /// below `run_dir`, and goes with the host. Default: there are no copies.
    pub log_dir: Option<PathBuf>,
    /// Whether QEMU confines itself by its sandbox, where it can. Default: it does. Without it a guest that has taken over its QEMU can
    /// run programs on the host.
    pub sandbox: bool,
}

impl Default for QemuHost {
    fn default() -> Self {
        let binary = PathBuf::from("qemu-system-x86_64");
        Self { binary, cgroup: None, migrate_address: None, log_dir: None, sandbox: true }
    }
}

impl HostFile {
    /// Where others reach this host, and live moves come in unless something else is said: what the voters know it by, because a
    /// voter may listen on all its addresses; else where it listens.
    #[must_use]
    pub fn reached_at(&self) -> SocketAddr {
        self.voters.get(&self.host).copied().unwrap_or(self.listen)
    }
}

/// Timing of the protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timing {
    /// Larger values gossip less and notice later. Default 200ms.
    pub gossip_interval: Span,
    /// How often an agent syncs. Default 250ms.
    pub sync_every: Span,
    /// Silence after which the power device is asked for its status. Default 750ms.
    pub wonder_after: Span,
    /// Silence after which a host is suspect. Default 1.5s.
    pub suspect_after: Span,
    /// How long a lease lasts. Default 4s.
    pub lease: Span,
    /// Silence after quorum of a host with assignments that was never heard (R19). Default 60s.
    pub join_grace: Span,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            gossip_interval: Span::ms(200),
            sync_every: Span::ms(250),
            wonder_after: Span::ms(750),
            suspect_after: Span::ms(1_500),
            lease: Span::secs(4),
            join_grace: Span::secs(60),
        }
    }
}

fn default_state_dir() -> PathBuf {
    PathBuf::from("/var/lib/holdfast")
}

fn default_run_dir() -> PathBuf {
    PathBuf::from("/run/holdfast")
}

fn default_true() -> bool {
    true
}
