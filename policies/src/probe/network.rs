//! Questions over the network, each to one port of the guest.

use std::{net::IpAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::tls::TlsSettings;

/// What counts when a service answers, and the answer is not all well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// It answers: no reason to touch it.
    #[default]
    Slow,
    /// It counts as failed.
    Fail,
}

/// Connects over TCP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpProbe {
    /// The port at the guest's address.
    pub port: u16,
    /// What is sent once connected.
    #[serde(default)]
    pub send: Option<String>,
    /// Text that must come.
    #[serde(default)]
    pub expect: Option<String>,
    /// Pattern that what comes must match somewhere.
    #[serde(default)]
    pub expect_matches: Option<String>,
}

/// Greets over TLS and examines the certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsProbe {
    /// The port at the guest's address.
    pub port: u16,
    /// How to speak TLS.
    pub tls: TlsSettings,
    /// Fewest days that the certificate must still be valid; fewer of another one of its chain make it slow at most.
    pub days_left: Option<u32>,
    /// What fewer days count as. Default slow.
    pub expiring: Grade,
}

/// Asks a name server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsProbe {
    /// The name that is asked for.
    pub name: String,
    /// The kind of record. Default A.
    pub kind: RecordKind,
    /// Who is asked. Default: the guest's address.
    pub server: Option<IpAddr>,
    /// Default 53.
    pub port: u16,
    /// What must be among the answers; empty: any answer passes.
    pub expect: Vec<String>,
}

/// Kinds of records of the domain name system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum RecordKind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// The name that it stands for.
    Cname,
    /// Mail exchangers.
    Mx,
    /// Name servers.
    Ns,
    /// The name of an address.
    Ptr,
    /// Start of authority.
    Soa,
    /// Services.
    Srv,
    /// Texts.
    Txt,
}

/// Asks over gRPC, by its health checking protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrpcProbe {
    /// The port at the guest's address.
    pub port: u16,
    /// The service's name; empty for the server as a whole.
    pub service: String,
    /// How to speak TLS; without it the connection is in the clear.
    pub tls: Option<TlsSettings>,
}

/// Logs in to a database and asks a query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SqlProbe {
    /// The port at the guest's address.
    pub port: u16,
    /// Who logs in.
    pub user: String,
    /// File with the password, on every host, readable by root only.
    pub password_file: Option<PathBuf>,
    /// The database; empty for the user's default.
    pub database: String,
    /// Statements that are carried out before it is asked, over the same connection; what they give does not matter.
    #[serde(default)]
    pub before: Vec<String>,
    /// What is asked. Default `SELECT 1`.
    pub query: String,
    /// What the first value of the first row must be.
    pub expect: Option<String>,
    /// How to speak TLS; without it the connection is in the clear.
    pub tls: Option<TlsSettings>,
}

/// Asks Redis a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedisProbe {
    /// The port at the guest's address.
    pub port: u16,
    /// Who logs in, where there are users.
    pub user: Option<String>,
    /// File with the password, on every host, readable by root only.
    pub password_file: Option<PathBuf>,
    /// The command and its arguments. Default PING.
    pub command: Vec<String>,
    /// What the reply must be; without it any reply that is no error passes.
    pub expect: Option<String>,
    /// How to speak TLS; without it the connection is in the clear.
    pub tls: Option<TlsSettings>,
}

/// Runs a monitoring plugin on the host that asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginProbe {
    /// Program and arguments; no shell. `{address}` stands for the guest's address.
    pub run: Vec<String>,
    /// What exit code 1 (WARNING) counts as. Default slow.
    pub warning: Grade,
}

impl TcpProbe {
    /// A mere connection.
    #[must_use]
    pub fn to(port: u16) -> Self {
        Self { port, send: None, expect: None, expect_matches: None }
    }

    /// Why it cannot be asked in the guest; `None` where it can.
    #[must_use]
    pub fn not_inside(&self) -> Option<&'static str> {
        let talks = self.send.is_some() || self.expect.is_some() || self.expect_matches.is_some();
        talks.then_some("in the guest a connection is only made, nothing is said or heard")
    }
}

impl RecordKind {
    /// Every kind, by its word.
    pub const ALL: [(&'static str, Self); 9] = [
        ("A", Self::A),
        ("AAAA", Self::Aaaa),
        ("CNAME", Self::Cname),
        ("MX", Self::Mx),
        ("NS", Self::Ns),
        ("PTR", Self::Ptr),
        ("SOA", Self::Soa),
        ("SRV", Self::Srv),
        ("TXT", Self::Txt),
    ];
}
