//! Verifies hosts' certificates on a machine whose wall clock is behind.
//!
//! A machine with an empty battery boots in the year of its firmware, and after a power cut all of them may. The wall clock is for
//! people (R1): it must not keep a cluster apart whose time server is one of its guests. A host's certificate that the authority
//! has signed and that has not begun shows nothing but a clock that is behind, so it is verified as of its own beginning.
//!
//! That it has ended is believed: a clock that is ahead by years is somebody's mistake, and one that is right cannot be told from
//! it. So are both ends of an operator's certificate, which is meant to end soon: it is not to come back with an old clock.

use std::{sync::Arc, time::Duration};

use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::peer::peer_host;

/// When a certificate is verified: now, or when it begins, where that is later and it is a host's. Whether the authority has
/// signed it is not known yet; a certificate that it has not is refused at any time.
fn as_of(certificate: &CertificateDer<'_>, now: UnixTime) -> UnixTime {
    let begins = begin_of_host(certificate).filter(|begins| now < *begins);
    if begins.is_some() {
        tracing::debug!("this host's clock is behind the beginning of a peer's certificate");
    }
    begins.unwrap_or(now)
}

fn begin_of_host(certificate: &CertificateDer<'_>) -> Option<UnixTime> {
    peer_host(std::slice::from_ref(certificate)).ok()?;
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let begins = u64::try_from(parsed.validity().not_before.timestamp()).ok()?;
    Some(UnixTime::since_unix_epoch(Duration::from_secs(begins)))
}

/// What is not about dates is for the verifier within: both traits have the same methods for it.
macro_rules! signatures_as_within {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.0.verify_tls12_signature(message, certificate, signed)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.0.verify_tls13_signature(message, certificate, signed)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.supported_verify_schemes()
        }
    };
}

/// Verifies those who call.
#[derive(Debug)]
pub(super) struct Callers(pub(super) Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Callers {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.0.verify_client_cert(end_entity, intermediates, as_of(end_entity, now))
    }

    signatures_as_within!();
}

/// Verifies those who are called.
#[derive(Debug)]
pub(super) struct Called(pub(super) Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for Called {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let now = as_of(end_entity, now);
        self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    signatures_as_within!();
}
