//! The questions that can be declared: one type for each kind of probe, after parsing and checking.

use serde::{Deserialize, Serialize};

pub mod guest;
pub mod http;
pub mod network;
pub mod pattern;
pub mod tls;

pub use guest::{Comparison, ExecProbe, FileProbe, HeartbeatProbe, MetricProbe, ProcessProbe, Processes, SystemdProbe};
pub use http::{HttpProbe, HttpVersion, Method, Statuses};
pub use network::{DnsProbe, Grade, GrpcProbe, PluginProbe, RecordKind, RedisProbe, SqlProbe, TcpProbe, TlsProbe};
pub use tls::TlsSettings;

/// What stands for the guest's address in URLs and commands.
pub const ADDRESS: &str = "{address}";

/// One question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// Asks over HTTP.
    Http(Box<HttpProbe>),
    /// Connects over TCP, and perhaps says something and listens.
    Tcp(TcpProbe),
    /// Asks the guest agent whether it is there.
    AgentPing {},
    /// Runs a command in the guest, through its agent.
    Exec(ExecProbe),
    /// Greets over TLS and examines the certificate.
    Tls(TlsProbe),
    /// Asks a name server.
    Dns(DnsProbe),
    /// Asks over gRPC, by its health checking protocol.
    Grpc(GrpcProbe),
    /// Logs in to PostgreSQL and asks a query.
    Postgres(SqlProbe),
    /// Logs in to MySQL or MariaDB and asks a query.
    Mysql(SqlProbe),
    /// Asks Redis a command.
    Redis(RedisProbe),
    /// Sends an ICMP echo request.
    Ping {},
    /// Runs a monitoring plugin on the host that asks.
    Plugin(PluginProbe),
    /// Looks at a file in the guest.
    File(FileProbe),
    /// Asks the guest's systemd for a unit.
    Systemd(SystemdProbe),
    /// Counts processes in the guest.
    Process(ProcessProbe),
    /// Compares a metric of a Prometheus page in the guest.
    Metric(MetricProbe),
    /// Looks for the newest sign of life that the application has written in the guest.
    Heartbeat(HeartbeatProbe),
}

impl Probe {
    /// Whether hosts can ask it.
    #[must_use]
    pub(crate) fn asked_by_hosts(&self) -> bool {
        match self {
            Self::Http(_)
            | Self::Tcp(_)
            | Self::Tls(_)
            | Self::Dns(_)
            | Self::Grpc(_)
            | Self::Postgres(_)
            | Self::Mysql(_)
            | Self::Redis(_)
            | Self::Ping {}
            | Self::Plugin(_) => true,
            Self::AgentPing {}
            | Self::Exec(_)
            | Self::File(_)
            | Self::Systemd(_)
            | Self::Process(_)
            | Self::Metric(_)
            | Self::Heartbeat(_) => false,
        }
    }

    /// Why it cannot be asked in the guest; `None` where it can.
    #[must_use]
    pub fn not_inside(&self) -> Option<&'static str> {
        match self {
            Self::Http(http) => http.not_inside(),
            Self::Tcp(tcp) => tcp.not_inside(),
            Self::AgentPing {}
            | Self::Exec(_)
            | Self::File(_)
            | Self::Systemd(_)
            | Self::Process(_)
            | Self::Metric(_)
            | Self::Heartbeat(_) => None,
            Self::Tls(_)
            | Self::Dns(_)
            | Self::Grpc(_)
            | Self::Postgres(_)
            | Self::Mysql(_)
            | Self::Redis(_)
            | Self::Ping {} => Some("only hosts ask this, over the network"),
            Self::Plugin(_) => Some("the plugin runs on the hosts that ask"),
        }
    }

    /// Whether it cannot be asked without the guest's address, when that many hosts ask it.
    #[must_use]
    pub(crate) fn needs_address(&self, hosts: u32) -> bool {
        match self {
            Self::Http(http) => http.needs_address(),
            Self::Tcp(_)
            | Self::Tls(_)
            | Self::Grpc(_)
            | Self::Postgres(_)
            | Self::Mysql(_)
            | Self::Redis(_)
            | Self::Ping {} => hosts > 0,
            Self::Dns(dns) => dns.server.is_none(),
            Self::Plugin(plugin) => plugin.run.iter().any(|word| word.contains(ADDRESS)),
            Self::AgentPing {}
            | Self::Exec(_)
            | Self::File(_)
            | Self::Systemd(_)
            | Self::Process(_)
            | Self::Metric(_)
            | Self::Heartbeat(_) => false,
        }
    }
}
