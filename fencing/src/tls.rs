//! HTTPS clients that believe exactly the certificates that the operator has named.

use std::{io, path::PathBuf, sync::Arc};

use holdfast_policies::model::TlsTrust;
use reqwest::{Certificate, Client, ClientBuilder, redirect};
use ring::digest::{SHA256, digest};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring::default_provider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use crate::{aside, resolver::Resolver};

/// Largest file of authorities, in bytes: the whole of a system's has a quarter of that.
const CA_FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("cannot read the authorities in {path}")]
    Read {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("{path} holds no certificate in PEM form")]
    Pem { path: PathBuf },
    #[error("cannot make an https client")]
    Client(#[source] reqwest::Error),
    #[error("cannot set up tls")]
    Tls(#[source] rustls::Error),
}

/// A client that goes nowhere but where it is sent: no proxy, no redirects.
pub(crate) async fn client(trust: &TlsTrust) -> Result<Client, TlsError> {
    // Whoever installed a provider first keeps it; ours is only needed where nobody did.
    let _ = default_provider().install_default();
    let client = match trust {
        TlsTrust::System => bare(),
        TlsTrust::CaFile(path) => bare().tls_certs_only(authorities(path).await?),
        TlsTrust::Fingerprint(pinned) => bare().tls_backend_preconfigured(pinning(pinned).map_err(TlsError::Tls)?),
    };
    client.build().map_err(TlsError::Client)
}

fn bare() -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("holdfast/", env!("CARGO_PKG_VERSION")))
        .no_proxy()
        .dns_resolver(Resolver)
        .redirect(redirect::Policy::none())
        .referer(false)
        .https_only(true)
        .http1_only()
        // Management controllers serve few connections at once.
        .pool_max_idle_per_host(1)
        // What has been sent may have been carried out: whoever sent it decides whether it is sent again.
        .retry(reqwest::retry::never())
}

async fn authorities(path: &std::path::Path) -> Result<Vec<Certificate>, TlsError> {
    let failed = |cause| TlsError::Read { path: path.to_owned(), cause };
    let (_, pem) = aside::read(path, CA_FILE_BYTES_MAX).await.map_err(failed)?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) | Err(_) => Err(TlsError::Pem { path: path.to_owned() }),
    }
}

fn pinning(pinned: &str) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(default_provider());
    let verifier = Pinned { pinned: pinned.to_owned(), provider: Arc::clone(&provider) };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(config)
}

/// Believes one certificate, whatever name and dates are in it. That the server has its key is checked as always.
#[derive(Debug)]
struct Pinned {
    pinned: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = fingerprint(certificate);
        if shown == self.pinned {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::General(format!("the certificate has the fingerprint {shown}, not the declared one")))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The SHA-256 of a certificate as lower-case hexadecimal digits.
pub(crate) fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    digest(&SHA256, certificate).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether the connection failed because the server's certificate is not believed: then nothing was sent, and asking again
/// changes nothing.
pub(crate) fn is_distrust(error: &reqwest::Error) -> bool {
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        if of_certificate(cause) {
            return true;
        }
        next = cause.source();
    }
    false
}

/// Errors of I/O hide what they carry, and may carry one another.
fn of_certificate(error: &(dyn std::error::Error + 'static)) -> bool {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => of_certificate(inner),
        None => matches!(error.downcast_ref(), Some(rustls::Error::InvalidCertificate(_) | rustls::Error::General(_))),
    }
}
