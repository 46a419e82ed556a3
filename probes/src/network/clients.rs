//! What all probes of one supervisor share: trusted authorities, ways to speak TLS, and patterns, each made once and kept.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fmt, fs,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
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
use tokio::sync::OnceCell;

use crate::{
    aside::{FILES, plain_file},
    network::unchecked::Unchecked,
};

/// What probes share.
pub struct Clients {
    provider: Arc<CryptoProvider>,
    system: OnceCell<Arc<RootCertStore>>,
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
/// Largest certificate file, in bytes: a whole system's authorities take 250 KB.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

type Key = (TlsSettings, Vec<Vec<u8>>);

/// A way to speak TLS, and the files it was made of as they were then.
struct Kept {
    files: Vec<Stamp>,
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
        Ok(Self { provider, system: OnceCell::new(), configs: Mutex::default(), patterns: Mutex::default() })
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
            files.push(stamp(path).await?);
        }
        let kept = |configs: &BTreeMap<Key, Kept>| {
            configs.get(&key).filter(|kept| kept.files == files).map(|kept| Arc::clone(&kept.config))
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
        configs.insert(key, Kept { files, config: Arc::clone(&config) });
        Ok(config)
    }

    async fn build(&self, settings: &TlsSettings) -> Result<ClientConfig, String> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = if settings.verify {
            let verifier = self.verifier(settings).await?;
            builder.with_webpki_verifier(verifier)
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

    /// Checks certificates by the authorities that are trusted.
    pub(crate) async fn verifier(&self, settings: &TlsSettings) -> Result<Arc<WebPkiServerVerifier>, String> {
        let roots = match &settings.ca_file {
            Some(path) => Arc::new(authorities(path).await?),
            None => Arc::clone(self.system.get_or_try_init(system_authorities).await?),
        };
        let builder = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&self.provider));
        builder.build().map_err(|error| error.to_string())
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

async fn authorities(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path).await? {
        roots.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(roots)
}

async fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let (text, _) = content(path).await?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match read {
        Ok(found) if found.is_empty() => Err(format!("{}: it holds no certificate in PEM", path.display())),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

async fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let (text, mode) = content(path).await?;
    closed(path, mode).map_err(|error| error.to_string())?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// A file and its mode.
async fn content(path: &Path) -> Result<(Vec<u8>, u32), String> {
    let own = path.to_owned();
    FILES.run(path.as_os_str(), move || content_of(&own)).await.map_err(|error| error.to_string())?
}

fn content_of(path: &Path) -> Result<(Vec<u8>, u32), String> {
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

async fn stamp(path: &Path) -> Result<Stamp, String> {
    let own = path.to_owned();
    FILES.run(path.as_os_str(), move || stamp_of(&own)).await.map_err(|error| error.to_string())?
}

fn stamp_of(path: &Path) -> Result<Stamp, String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    let metadata = fs::metadata(path).map_err(failed)?;
    Ok((metadata.modified().map_err(failed)?, metadata.len()))
}
