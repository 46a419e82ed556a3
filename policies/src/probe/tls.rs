//! How a probe speaks TLS.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How to speak TLS. All files lie on every host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TlsSettings {
    /// Certificates of the authorities that are trusted, as PEM. Default: those of the system.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Our certificate and its chain, as PEM, for services that want one.
    #[serde(default)]
    pub certificate_file: Option<PathBuf>,
    /// Its key, as PEM, readable by root only.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// The name that is asked for and checked. Default: the host that is asked.
    #[serde(default)]
    pub server_name: Option<String>,
    /// Whether the certificate is checked. Default true.
    #[serde(default = "yes")]
    pub verify: bool,
}

fn yes() -> bool {
    true
}

impl Default for TlsSettings {
    fn default() -> Self {
        Self { ca_file: None, certificate_file: None, key_file: None, server_name: None, verify: true }
    }
}
