//! What all probes of one supervisor share: trusted authorities, ways to speak TLS, and patterns, each made once and kept.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fmt, fs,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use holdfast_policies::{
    probe::{TlsSettings, pattern},
    secret::closed,
};
use regex::bytes::Regex;
use rustls::{
    ClientConfig, RootCertStore,
    client::{Resumption, WebPkiServerVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{sync::Mutex as AsyncMutex, time::Instant};

use crate::{
    aside::{FILES, of_file, plain_file},
    network::{pinned::Pinned, unchecked::Unchecked},
};

/// What probes share.
pub struct Clients {
    provider: Arc<CryptoProvider>,
    system: AsyncMutex<Option<System>>,
    configs: Mutex<BTreeMap<Key, Kept>>,
    patterns: Mutex<BTreeMap<String, Arc<Regex>>>,
}

/// Why probes cannot be asked.
#[derive(Debug, thiserror::Error)]
#[error("cannot speak tls")]
pub struct ClientsError {
    #[source]
    cause: rustls::Error,
}

/// Most ways to speak TLS, and most patterns, that are kept: more are made anew each time. Each takes some kilobytes,
/// those with the system's authorities share them.
const KEPT_MAX: usize = 256;
/// How long the system's authorities count before they are read again: whoever trusts another one on a host has a minute's patience,
/// and reading them takes some milliseconds.
const SYSTEM_FOR: Duration = Duration::from_secs(60);
/// Largest certificate file, in bytes: a whole system's authorities take 250 KB.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

type Key = (TlsSettings, Vec<Vec<u8>>);

/// The system's authorities, and when they were read.
struct System {
    read: Instant,
    roots: Arc<RootCertStore>,
}

/// A way to speak TLS, and what it was made of: the files as they were then, and the system's authorities where those count.
struct Kept {
    files: Vec<Stamp>,
    system: Option<Arc<RootCertStore>>,
    config: Arc<ClientConfig>,
}

/// A file's time and size: a certificate that is renewed counts with the next question.
type Stamp = (SystemTime, u64);

impl Clients {
    /// Makes what is needed for plain connections; the system's certificates are read when they are first needed.
    ///
    /// # Errors
    /// [`ClientsError`] when there is no cryptography for TLS.
    pub fn new() -> Result<Self, ClientsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        // That this works now makes sure that it does later.
        ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|cause| ClientsError { cause })?;
        Ok(Self { provider, system: AsyncMutex::new(None), configs: Mutex::default(), patterns: Mutex::default() })
    }

    /// A pattern, built once and kept.
    pub(crate) fn pattern(&self, text: &str) -> Result<Arc<Regex>, String> {
        let mut patterns = self.patterns.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = patterns.get(text) {
            return Ok(Arc::clone(known));
        }
        let built = Arc::new(pattern::build(text)?);
        if patterns.len() >= KEPT_MAX {
            patterns.clear();
        }
        patterns.insert(text.to_owned(), Arc::clone(&built));
        Ok(built)
    }

    /// How to speak TLS, offering these protocols.
    pub(crate) async fn tls(&self, settings: &TlsSettings, protocols: &[&[u8]]) -> Result<Arc<ClientConfig>, String> {
        let key: Key = (settings.clone(), protocols.iter().map(|protocol| protocol.to_vec()).collect());
        let mut files = Vec::new();
        for path in [&settings.ca_file, &settings.certificate_file, &settings.key_file].into_iter().flatten() {
            files.push(of_file(path, stamp).await?);
        }
        let system = match settings {
            TlsSettings { verify: true, ca_file: None, .. } => Some(self.system().await?),
            TlsSettings { .. } => None,
        };
        let kept = |configs: &BTreeMap<Key, Kept>| {
            let same = |kept: &&Kept| kept.files == files && is_same(kept.system.as_ref(), system.as_ref());
            configs.get(&key).filter(same).map(|kept| Arc::clone(&kept.config))
        };
        if let Some(config) = kept(&self.configs.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(config);
        }
        let mut config = self.build(settings).await?;
        config.alpn_protocols.clone_from(&key.1);
        // Each question greets anew: what resumes a session does not show the certificate.
        config.resumption = Resumption::disabled();
        let config = Arc::new(config);
        let mut configs = self.configs.lock().unwrap_or_else(PoisonError::into_inner);
        if configs.len() >= KEPT_MAX {
            configs.clear();
        }
        configs.insert(key, Kept { files, system, config: Arc::clone(&config) });
        Ok(config)
    }

    async fn build(&self, settings: &TlsSettings) -> Result<ClientConfig, String> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = if settings.verify {
            let verifier = self.verifier(settings).await?;
            builder.dangerous().with_custom_certificate_verifier(verifier)
        } else {
            let unchecked = Arc::new(Unchecked::new(&self.provider));
            builder.dangerous().with_custom_certificate_verifier(unchecked)
        };
        match (&settings.certificate_file, &settings.key_file) {
            (Some(certificate), Some(key)) => {
                let (chain, key) = (certificates(certificate).await?, private_key(key).await?);
                builder.with_client_auth_cert(chain, key).map_err(|error| format!("{}: {error}", certificate.display()))
            }
            (None, _) | (_, None) => Ok(builder.with_no_client_auth()),
        }
    }

    /// Checks certificates by what is trusted.
    pub(crate) async fn verifier(&self, settings: &TlsSettings) -> Result<Arc<Pinned>, String> {
        let (roots, itself) = match &settings.ca_file {
            Some(path) => {
                let found = certificates(path).await?;
                (Arc::new(authorities(path, &found)?), found)
            }
            None => (self.system().await?, Vec::new()),
        };
        let builder = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&self.provider));
        let vouched = builder.build().map_err(|error| error.to_string())?;
        Ok(Arc::new(Pinned::new(vouched, &itself)))
    }

    /// The authorities that this host trusts.
    async fn system(&self) -> Result<Arc<RootCertStore>, String> {
        let mut system = self.system.lock().await;
        if let Some(known) = system.as_ref().filter(|known| known.read.elapsed() < SYSTEM_FOR) {
            return Ok(Arc::clone(&known.roots));
        }
        if let Some(known) = system.as_mut() {
            // Should reading hang, whoever asks next goes on with what is known.
            known.read = Instant::now();
        }
        let roots = newest(system.as_ref().map(|known| &known.roots), system_authorities().await)?;
        *system = Some(System { read: Instant::now(), roots: Arc::clone(&roots) });
        Ok(roots)
    }
}

/// Which authorities count once they were read again. Those that are the same stay the same, so that what is made of them stays
/// too; and while there are none, as when they are being replaced, those of before count.
fn newest(
    known: Option<&Arc<RootCertStore>>,
    read: Result<Arc<RootCertStore>, String>,
) -> Result<Arc<RootCertStore>, String> {
    match (known, read) {
        (Some(known), Ok(read)) if known.roots != read.roots => Ok(read),
        (Some(known), Ok(_) | Err(_)) => Ok(Arc::clone(known)),
        (None, read) => read,
    }
}

fn is_same(one: Option<&Arc<RootCertStore>>, other: Option<&Arc<RootCertStore>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clients")
    }
}

async fn system_authorities() -> Result<Arc<RootCertStore>, String> {
    let read = FILES.run(OsStr::new("the system's authorities"), rustls_native_certs::load_native_certs).await;
    let found = read.map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err("this host trusts no authority: install ca-certificates, or set `ca_file`".to_owned());
    }
    Ok(Arc::new(roots))
}

fn authorities(path: &Path, found: &[CertificateDer<'static>]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in found {
        roots.add(certificate.clone()).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(roots)
}

async fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let (text, _) = of_file(path, content).await?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match read {
        Ok(found) if found.is_empty() => Err(format!("{}: it holds no certificate in PEM", path.display())),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

async fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let (text, mode) = of_file(path, content).await?;
    closed(path, mode).map_err(|error| error.to_string())?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// A file and its mode.
fn content(path: &Path) -> Result<(Vec<u8>, u32), String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    let file = plain_file(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.len() > FILE_BYTES_MAX {
        return Err(format!("{}: it has more than {FILE_BYTES_MAX} bytes", path.display()));
    }
    let mut content = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut content).map_err(failed)?;
    Ok((content, metadata.permissions().mode()))
}

fn stamp(path: &Path) -> Result<Stamp, String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    let metadata = fs::metadata(path).map_err(failed)?;
    Ok((metadata.modified().map_err(failed)?, metadata.len()))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    /// A host that trusts one authority.
    fn trusting() -> Arc<RootCertStore> {
        let params = CertificateParams::new(vec!["authority.example".to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()).unwrap();
        Arc::new(roots)
    }

    #[test]
    fn an_authority_that_a_host_comes_to_trust_counts_and_what_has_not_changed_stays() {
        let (old, new) = (trusting(), trusting());
        let again = Arc::new(RootCertStore { roots: old.roots.clone() });
        let none = || Err("this host trusts no authority".to_owned());
        let counts = |known, read, wanted| Arc::ptr_eq(&newest(known, read).unwrap(), wanted);
        assert!(counts(None, Ok(Arc::clone(&old)), &old));
        assert!(counts(Some(&old), Ok(again), &old));
        assert!(counts(Some(&old), Ok(Arc::clone(&new)), &new));
        assert!(counts(Some(&old), none(), &old), "they are being replaced");
        assert!(newest(None, none()).is_err());
        assert!(is_same(Some(&old), Some(&old)) && !is_same(Some(&old), Some(&new)) && !is_same(None, Some(&new)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_systems_authorities_are_read_again_after_a_while() {
        let (clients, roots) = (Clients::new().unwrap(), Arc::new(RootCertStore::empty()));
        let read = async || clients.system.lock().await.as_ref().map(|system| system.read);
        let began = Instant::now();
        *clients.system.lock().await = Some(System { read: began, roots: Arc::clone(&roots) });
        tokio::time::advance(SYSTEM_FOR / 2).await;
        assert!(Arc::ptr_eq(&clients.system().await.unwrap(), &roots));
        assert_eq!(read().await, Some(began));
        tokio::time::advance(SYSTEM_FOR).await;
        clients.system().await.unwrap();
        assert_ne!(read().await, Some(began));
    }
}
