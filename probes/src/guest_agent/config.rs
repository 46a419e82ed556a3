//! What the guest's own operator lets the host ask: `/etc/holdfast/guest.yaml`. Nothing else is done, whoever asks.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use holdfast_policies::{model::Probe, names::ServiceName, probe::Processes};
use serde::{Deserialize, Serialize};

use super::{loopback, protocol::SERVICES_MAX, reports, vsock::VsockPort};

/// Where applications report unless the config says otherwise: next to the supervisor's own ports.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7412);

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct GuestConfig {
    /// Services whose death is told at once, by the name that the policy gives them.
    pub watch: BTreeMap<ServiceName, Watched>,
    /// What may be asked.
    pub allow: Allowed,
    /// Applications that report in.
    pub heartbeat: Option<Reports>,
    /// Where the host comes in over vsock. Default: by the virtio-serial port.
    pub vsock: Option<VsockPort>,
}

/// Where applications report in, and which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reports {
    /// Address and port, on loopback. Default 127.0.0.1:7412.
    #[serde(default = "listen")]
    pub listen: SocketAddr,
    /// Names that may report; others get 404.
    pub services: BTreeSet<ServiceName>,
    /// Where reports are kept.
    #[serde(default = "folder", skip)]
    pub folder: PathBuf,
}

fn listen() -> SocketAddr {
    LISTEN
}

fn folder() -> PathBuf {
    reports::FOLDER.into()
}

/// How the process of a service is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Watched {
    /// Its number stands in this file.
    PidFile(PathBuf),
    /// It is the main process of this systemd unit.
    Unit(String),
}

/// What may be asked; what is not named here is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Allowed {
    /// Commands, each with all of its arguments.
    pub commands: Vec<Vec<String>>,
    /// Files that may be looked at, those with process numbers among them.
    pub files: Vec<PathBuf>,
    /// Units that may be asked about.
    pub units: Vec<String>,
    /// Names of processes that may be counted.
    pub processes: Vec<String>,
    /// Ports on the guest's own loopback that may be asked, over TCP and HTTP.
    pub connect: BTreeSet<u16>,
}

/// Why a config cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is not what it should be; the text has line and column.
    #[error("{0}")]
    Wrong(String),
    /// Too much is watched.
    #[error("{0} services are watched, and the most is {SERVICES_MAX}: leave some to the probes")]
    TooMany(usize),
    /// Too many report.
    #[error("{0} services may report, and the most is {SERVICES_MAX}")]
    TooManyReport(usize),
    /// Anybody could report.
    #[error("heartbeat.listen: {0} can be reached from outside the guest; use an address like 127.0.0.1:7412")]
    NotOwn(SocketAddr),
    /// Nobody can listen there.
    #[error("vsock.port: {0} is no port; use one from 1 to 4294967294, such as 7413")]
    NoPort(u32),
}

impl GuestConfig {
    /// Reads the file's text.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config: Self = serde_yaml::from_str(text).map_err(|error| ConfigError::Wrong(error.to_string()))?;
        if config.watch.len() > SERVICES_MAX {
            return Err(ConfigError::TooMany(config.watch.len()));
        }
        if let Some(reports) = &config.heartbeat {
            if reports.services.len() > SERVICES_MAX {
                return Err(ConfigError::TooManyReport(reports.services.len()));
            }
            if !reports::is_own(reports.listen) {
                return Err(ConfigError::NotOwn(reports.listen));
            }
        }
        match config.vsock {
            Some(vsock) if !vsock.is_one() => Err(ConfigError::NoPort(vsock.port)),
            Some(_) | None => Ok(config),
        }
    }

    /// Why a command is not run, if so.
    ///
    /// # Errors
    /// Says what the config would have to allow.
    pub fn may_run(&self, run: &[String]) -> Result<(), String> {
        let allowed = self.allow.commands.iter().any(|command| command.as_slice() == run);
        if allowed { Ok(()) } else { Err(format!("the guest's config allows no command {run:?}")) }
    }

    /// Why a probe is not answered, if so. Kinds that this agent leaves to others are refused too.
    ///
    /// # Errors
    /// Says what the config would have to allow.
    pub fn may_ask(&self, probe: &Probe) -> Result<(), String> {
        let file = |path: &PathBuf| {
            let watched = self.watch.values().any(|watched| matches!(watched, Watched::PidFile(of) if of == path));
            let reported = self.heartbeat.as_ref().is_some_and(|reports| reports.files().any(|of| of == *path));
            if watched || reported || self.allow.files.contains(path) {
                Ok(())
            } else {
                Err(format!("the guest's config allows no file {}", path.display()))
            }
        };
        match probe {
            Probe::AgentPing {} => Ok(()),
            Probe::Exec(exec) => self.may_run(&exec.run),
            Probe::File(probe) => file(&probe.path),
            Probe::Heartbeat(probe) => file(&probe.file),
            Probe::Process(process) => match &process.which {
                Processes::PidFile(path) => file(path),
                Processes::Name(name) if self.allow.processes.contains(name) => Ok(()),
                Processes::Name(name) => Err(format!("the guest's config allows no process {name:?}")),
            },
            Probe::Systemd(systemd) => {
                let unit = &systemd.unit;
                let watched = self.watch.values().any(|watched| matches!(watched, Watched::Unit(of) if of == unit));
                if watched || self.allow.units.contains(unit) {
                    Ok(())
                } else {
                    Err(format!("the guest's config allows no unit {unit}"))
                }
            }
            Probe::Http(_) | Probe::Tcp(_) | Probe::Metric(_) => {
                let port = loopback::place(probe)?.port();
                if self.allow.connect.contains(&port) {
                    Ok(())
                } else {
                    Err(format!("the guest's config allows no connection to port {port}"))
                }
            }
            Probe::Tls(_)
            | Probe::Dns(_)
            | Probe::Grpc(_)
            | Probe::Postgres(_)
            | Probe::Mysql(_)
            | Probe::Redis(_)
            | Probe::Ping {}
            | Probe::Plugin(_) => Err("this agent does not ask that".to_owned()),
        }
    }
}
