//! Where a host's certificate, key and authority lie, and reading them with care.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::PkiError;

/// Permission bits of group and others: a private key has none of them.
const OTHERS: u32 = 0o077;

/// The three files that a host needs to speak with its peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authority's certificate.
    pub authority: PathBuf,
    /// This host's certificate.
    pub certificate: PathBuf,
    /// This host's private key; mode 0600 or stricter.
    pub key: PathBuf,
}

impl TlsFiles {
    /// The authority as the only root that is trusted.
    pub(super) fn roots(&self) -> Result<RootCertStore, PkiError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.authority)? {
            roots.add(certificate)?;
        }
        Ok(roots)
    }

    /// This host's certificate chain.
    pub(super) fn chain(&self) -> Result<Vec<CertificateDer<'static>>, PkiError> {
        certificates(&self.certificate)
    }

    /// This host's private key.
    pub(super) fn private_key(&self) -> Result<PrivateKeyDer<'static>, PkiError> {
        let metadata = fs::metadata(&self.key).map_err(|source| PkiError::Read { path: self.key.clone(), source })?;
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & OTHERS != 0 {
            return Err(PkiError::KeyExposed { path: self.key.clone(), mode });
        }
        let pem = read(&self.key)?;
        PrivateKeyDer::from_pem_slice(&pem)
            .map_err(|_| PkiError::NoPem { path: self.key.clone(), wanted: "private key" })
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    let no_pem = || PkiError::NoPem { path: path.to_owned(), wanted: "certificate" };
    let pem = read(path)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|_| no_pem())?;
    if found.is_empty() { Err(no_pem()) } else { Ok(found) }
}

fn read(path: &Path) -> Result<Vec<u8>, PkiError> {
    fs::read(path).map_err(|source| PkiError::Read { path: path.to_owned(), source })
}
