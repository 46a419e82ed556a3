//! Certificates that are trusted themselves, beside those that an authority vouches for.
//!
//! ```text
//!   an authority that is trusted vouches for it ───────► taken
//!   it stands in `ca_file` itself, byte for byte ──────► taken, while it is valid and for its names
//! ```
//! `openssl req -x509` makes certificates that call themselves authorities, services show those as their own, and whoever is to
//! trust one gets a copy of it. The library takes no authority for a service, and most other clients take this one.

use std::{collections::BTreeSet, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use sha2::{Digest, Sha256};
use x509_parser::parse_x509_certificate;

/// What stands for a certificate: files with those of a whole system have hundreds.
type Hash = [u8; 32];

/// Takes what is vouched for, and what is trusted itself.
#[derive(Debug)]
pub(crate) struct Pinned {
    vouched: Arc<WebPkiServerVerifier>,
    itself: BTreeSet<Hash>,
}

impl Pinned {
    /// By the authorities that `vouched` knows; those in `itself` are trusted themselves, too.
    pub fn new(vouched: Arc<WebPkiServerVerifier>, itself: &[CertificateDer<'_>]) -> Self {
        Self { vouched, itself: itself.iter().map(hash).collect() }
    }
}

fn hash(certificate: &CertificateDer<'_>) -> Hash {
    Sha256::digest(certificate).into()
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.vouched.verify_server_cert(shown, others, name, ocsp, now) {
            Err(_) if self.itself.contains(&hash(shown)) => by_itself(shown, name, now),
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.vouched.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.vouched.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.vouched.supported_verify_schemes()
    }
}

/// What is left to ask of a certificate whose every byte is trusted: whether it is valid now, and for this name.
fn by_itself(
    certificate: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<ServerCertVerified, Error> {
    let (_, parsed) = parse_x509_certificate(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let (validity, now) = (parsed.validity(), i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    if now < validity.not_before.timestamp() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > validity.not_after.timestamp() {
        return Err(CertificateError::Expired.into());
    }
    verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
    Ok(ServerCertVerified::assertion())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
    use rustls::RootCertStore;

    use super::*;

    /// The first seconds of 2018, 2025 and 2035.
    const EARLY: u64 = 1_514_764_800;
    const NOW: u64 = 1_735_689_600;
    const LATE: u64 = 2_051_222_400;

    /// As `openssl req -x509` makes them, from 2019 to 2030.
    fn of_itself(name: &str) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params.not_before, params.not_after) = (date_time_ymd(2019, 1, 1), date_time_ymd(2030, 1, 1));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn trusting(certificates: &[CertificateDer<'static>]) -> Pinned {
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            roots.add(certificate.clone()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let vouched = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        Pinned::new(vouched, certificates)
    }

    #[test]
    fn one_that_is_trusted_itself_is_taken_while_it_is_valid_and_for_its_names_and_no_other_is() {
        let (own, other) = (of_itself("shop.example"), of_itself("shop.example"));
        let trusting = trusting(std::slice::from_ref(&own));
        let judged = |shown, name: &str, at| {
            let (name, at) = (ServerName::try_from(name.to_owned()).unwrap(), Duration::from_secs(at));
            trusting.verify_server_cert(shown, &[], &name, &[], UnixTime::since_unix_epoch(at)).map(|_| ())
        };
        assert_eq!(judged(&own, "shop.example", NOW), Ok(()));
        assert_eq!(judged(&own, "shop.example", EARLY), Err(CertificateError::NotValidYet.into()));
        assert_eq!(judged(&own, "shop.example", LATE), Err(CertificateError::Expired.into()));
        assert!(judged(&own, "elsewhere.example", NOW).is_err());
        assert!(judged(&other, "shop.example", NOW).is_err(), "the same words, by another key");
    }
}
