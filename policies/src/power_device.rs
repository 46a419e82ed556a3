//! Power devices, as operators declare them: what can switch a host off and say whether it is off.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::time::Span;

/// For how long a device may go on with an `off` after the call that sent it has ended (R20): some controllers accept one and act
/// up to eleven seconds later, and a third more is for those that nobody has measured.
///
/// One time for all devices: whoever waits for what another host has sent, or an earlier process, counts from the order alone.
/// More would be paid wherever it is unclear what came of an `off`: the next level has its turn so much later, and a host that has
/// booted anew is let in so much later.
pub const SETTLE: Duration = Duration::from_secs(15);

/// Something that can switch a host off and say whether it is off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PowerDevice {
    /// The host's baseboard management controller over IPMI 2.0.
    Ipmi(IpmiDevice),
    /// The host's baseboard management controller over Redfish.
    Redfish(RedfishDevice),
    /// Whatever a ClusterLabs fence agent can switch.
    Agent(AgentDevice),
    /// Automation of one's own, asked by signed requests.
    Webhook(WebhookDevice),
    /// Programs of one's own.
    Command(CommandDevice),
    /// The libvirt that runs the host, where the host is itself a virtual machine.
    Libvirt(LibvirtDevice),
    /// The QEMU that the host runs in, where the host is itself a virtual machine, asked by its monitor.
    Qemu(QemuDevice),
}

/// A baseboard management controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpmiDevice {
    /// Name or address of the controller.
    pub address: String,
    /// UDP port. Default 623.
    pub port: u16,
    /// User that may switch the chassis.
    pub user: String,
    /// File with the password, on every host, readable by root only.
    pub password_file: PathBuf,
    /// Cipher suite. Default 17; older controllers want 3.
    pub suite: u8,
    /// The privilege that the session asks for. Default administrator.
    #[serde(default)]
    pub privilege: IpmiPrivilege,
    /// The version of the protocol. Default lanplus.
    #[serde(default)]
    pub interface: IpmiInterface,
    /// Who has checked that this controller is wired to this host (R9). Without it the controller can switch the host
    /// off, but its word is no proof.
    pub wiring_verified_by: Option<String>,
    /// Longest time for the whole level. Default 20s.
    pub timeout: Span,
}

impl IpmiDevice {
    /// The UDP port of controllers.
    pub const PORT: u16 = 623;
    /// The cipher suite of controllers that are not old.
    pub const SUITE: u8 = 17;

    /// A controller as it is where nothing else is declared.
    #[must_use]
    pub fn plain(address: &str, user: &str, password_file: impl Into<PathBuf>) -> Self {
        Self {
            address: address.to_owned(),
            port: Self::PORT,
            user: user.to_owned(),
            password_file: password_file.into(),
            suite: Self::SUITE,
            privilege: IpmiPrivilege::default(),
            interface: IpmiInterface::default(),
            wiring_verified_by: None,
            timeout: Span::secs(20),
        }
    }
}

/// What an IPMI session may do. Both suffice for switching; some controllers know users with the smaller one only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum IpmiPrivilege {
    /// Everything, which is what controllers expect of most users.
    #[default]
    Administrator,
    /// Reading and switching.
    Operator,
}

/// Versions of IPMI over the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum IpmiInterface {
    /// IPMI 2.0, encrypted.
    #[default]
    Lanplus,
    /// IPMI 1.5, not encrypted: for controllers that know nothing else.
    Lan,
}

/// A Redfish service, asked over HTTPS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedfishDevice {
    /// Name or address of the service.
    pub address: String,
    /// TCP port. Default 443.
    pub port: u16,
    /// User that may reset the system.
    pub user: String,
    /// File with the password, on every host, readable by root only.
    pub password_file: PathBuf,
    /// How the user shows who it is. Default basic.
    pub auth: RedfishAuth,
    /// Which system: its id, or its whole path. Needed where the service has more than one.
    pub system: Option<String>,
    /// Whose certificate is believed.
    pub trust: TlsTrust,
    /// As for [`IpmiDevice::wiring_verified_by`].
    pub wiring_verified_by: Option<String>,
    /// Longest time for the whole level. Default 20s.
    pub timeout: Span,
}

/// How a user shows a Redfish service who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum RedfishAuth {
    /// User and password with every request.
    #[default]
    Basic,
    /// A session, for services where basic authentication is switched off.
    Session,
}

/// Which certificate of a server is believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TlsTrust {
    /// One that the system's authorities have signed for its name.
    System,
    /// One that an authority in this file has signed for its name. PEM, on every host.
    CaFile(PathBuf),
    /// Exactly one: the SHA-256 of its DER form, as 64 lower-case hexadecimal digits. For self-signed ones.
    Fingerprint(String),
}

/// A ClusterLabs fence agent: a program whose name begins with `fence_`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentDevice {
    /// The program's name, installed on every host that may be asked to fence.
    pub name: String,
    /// Its options, checked against its own description before it is used.
    pub options: BTreeMap<String, String>,
    /// File with the password, on every host, readable by root only.
    pub password_file: Option<PathBuf>,
    /// As for [`IpmiDevice::wiring_verified_by`]. An agent cannot tell which machine is behind it.
    pub wiring_verified_by: Option<String>,
    /// Longest time for the whole level. Default 20s; an agent waits for the power to go by itself.
    pub timeout: Span,
}

/// Automation of one's own, asked over HTTPS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookDevice {
    /// Where: `https://`.
    pub url: String,
    /// The host, as the automation knows it. Default: its name here.
    pub host: String,
    /// File with the key that requests are signed with, on every host, readable by root only.
    pub key_file: PathBuf,
    /// Whose certificate is believed.
    pub trust: TlsTrust,
    /// As for [`IpmiDevice::wiring_verified_by`].
    pub wiring_verified_by: Option<String>,
    /// Longest time for the whole level. Default 20s.
    pub timeout: Span,
}

/// Programs of one's own, each with its arguments; no shell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandDevice {
    /// Tells the power by its exit code: 0 on, 2 off, anything else unknown.
    pub status: Vec<String>,
    /// Switches off: 0 accepted, 3 refused, anything else unknown.
    pub off: Vec<String>,
    /// Switches on, likewise.
    pub on: Option<Vec<String>>,
    /// Prints the UUID of the machine behind it.
    pub machine_id: Option<Vec<String>>,
    /// As for [`IpmiDevice::wiring_verified_by`].
    pub wiring_verified_by: Option<String>,
    /// Longest time for the whole level. Default 20s.
    pub timeout: Span,
}

/// A domain of a libvirt that runs on another machine than the host's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LibvirtDevice {
    /// Where libvirt is, as `virsh` takes it: `qemu+ssh://root@hyper/system`. Holds no password.
    pub uri: String,
    /// Name or UUID of the domain; no number, which libvirt would take for the passing id of some domain.
    pub domain: String,
    /// As for [`IpmiDevice::wiring_verified_by`].
    pub wiring_verified_by: Option<String>,
    /// Longest time for the whole level. Default 20s; libvirt waits for a QEMU that hangs.
    pub timeout: Span,
}

/// A QEMU on the same kernel as whoever is to switch it off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QemuDevice {
    /// The Unix socket of a monitor (`-qmp`) that nobody else uses, on a local file system.
    pub socket: PathBuf,
    /// The file that QEMU keeps locked while it lives (`-pidfile`), on a local file system. A QEMU that quits takes its
    /// socket with it: only the end of this lock then tells that it has ended.
    pub pidfile: PathBuf,
    /// Starts QEMU and ends by itself; no shell. Without it the host cannot be switched on.
    pub start: Option<Vec<String>>,
    /// As for [`IpmiDevice::wiring_verified_by`].
    pub wiring_verified_by: Option<String>,
    /// Longest time for the whole level. Default 20s.
    pub timeout: Span,
}

impl PowerDevice {
    /// Who has checked that it is wired to the host (R9).
    #[must_use]
    pub fn wiring(&self) -> Option<&str> {
        match self {
            Self::Ipmi(device) => device.wiring_verified_by.as_deref(),
            Self::Redfish(device) => device.wiring_verified_by.as_deref(),
            Self::Agent(device) => device.wiring_verified_by.as_deref(),
            Self::Webhook(device) => device.wiring_verified_by.as_deref(),
            Self::Command(device) => device.wiring_verified_by.as_deref(),
            Self::Libvirt(device) => device.wiring_verified_by.as_deref(),
            Self::Qemu(device) => device.wiring_verified_by.as_deref(),
        }
    }

    /// Whether its declaration means whatever is there on the host that asks: a Unix socket, or a `uri` of libvirt that names
    /// no machine. What one host has found out about it holds for that host alone.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Qemu(_) => true,
            Self::Libvirt(device) => {
                let rest = device.uri.split_once("://").map_or("", |(_, rest)| rest);
                rest.split(['/', '?', '#']).next().unwrap_or_default().is_empty()
            }
            // Programs of one's own mean what their author says.
            Self::Ipmi(_) | Self::Redfish(_) | Self::Agent(_) | Self::Webhook(_) | Self::Command(_) => false,
        }
    }

    /// Longest time for switching the host off and seeing that it is off.
    #[must_use]
    pub fn timeout(&self) -> Span {
        match self {
            Self::Ipmi(device) => device.timeout,
            Self::Redfish(device) => device.timeout,
            Self::Agent(device) => device.timeout,
            Self::Webhook(device) => device.timeout,
            Self::Command(device) => device.timeout,
            Self::Libvirt(device) => device.timeout,
            Self::Qemu(device) => device.timeout,
        }
    }
}
