//! The cluster's own certificates: made by `holdfast init`, checked on every connection between supervisors.
//!
//! One authority signs one certificate per host. The common name is the host's name, and that name, not an address, is
//! who a peer is. The same authority signs operators' certificates, which are good for nothing but giving orders. Sessions
//! are never resumed, so that every connection checks the certificate again (R27).

mod authority;
mod behind;
mod files;
#[cfg(test)]
pub(crate) mod fixture;
mod peer;
mod tls;

pub use authority::{Authority, Issued, issue, issue_operator, make_authority};
pub use files::TlsFiles;
pub use peer::{Peer, Validity, own_host, own_operator, own_validity, peer, peer_host};
pub use tls::{client_config, server_config};

use std::{io, path::PathBuf};

use holdfast_policies::names::{BadName, HostName, OperatorName};

/// Why certificates could not be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be read.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// A private key that others may read is no longer private.
    #[error("{path} has mode {mode:04o}; a private key must not be open to group or others: chmod 0600 it", path = path.display())]
    KeyExposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file does not hold the PEM section that was expected.
    #[error("{path} holds no {wanted} in PEM", path = path.display())]
    NoPem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
    },
    /// The host's name cannot stand in a certificate.
    #[error("the host name {host:?} cannot be a DNS name in a certificate: use letters, digits, '-' and '.' only")]
    NotDns {
        /// The name.
        host: String,
    },
    /// Making or reading a certificate or key failed.
    #[error("cannot make or read a certificate")]
    Generate(#[from] rcgen::Error),
    /// A certificate cannot be parsed.
    #[error("the certificate cannot be read: {0}")]
    Parse(String),
    /// The peer showed no certificate.
    #[error("the peer showed no certificate")]
    NoCertificate,
    /// The certificate has no common name, or several.
    #[error("the certificate has {count} common names, but must have exactly one: the host's name")]
    CommonName {
        /// How many there are.
        count: usize,
    },
    /// Whom it names has no name.
    #[error("the certificate names neither a host nor an operator")]
    Name(#[from] BadName),
    /// The certificate names an operator and a host, or several operators.
    #[error("the certificate names an operator, and somebody else too")]
    TwoRoles,
    /// The certificate is an operator's where a host's is needed.
    #[error("the certificate is that of the operator {operator}, and not a host's")]
    NotHost {
        /// Whose it is.
        operator: OperatorName,
    },
    /// The certificate is a host's where an operator's is needed.
    #[error("the certificate is that of the host {host}, and not an operator's")]
    NotOperator {
        /// Whose it is.
        host: HostName,
    },
    /// The TLS library refuses the certificates.
    #[error("the TLS library refuses these certificates")]
    Tls(#[from] rustls::Error),
    /// The verifier cannot be built from the authority's certificate.
    #[error("the authority's certificate cannot verify peers: {0}")]
    Verifier(String),
}
