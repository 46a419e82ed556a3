//! TLS over the network: the handshake, the certificate's name and authority, and how long it is still valid.

use std::time::{SystemTime, UNIX_EPOCH};

use holdfast_policies::probe::{Grade, TlsProbe, TlsSettings};
use rustls::{
    CertificateError,
    client::danger::ServerCertVerifier,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use x509_parser::parse_x509_certificate;

use crate::{
    finding::Finding,
    network::{asker::Asker, stream::Stream, trust},
};

/// Greets and examines; the caller bounds the time.
pub(crate) async fn ask(asker: &Asker<'_>, probe: &TlsProbe) -> Finding {
    match greet(asker, probe).await {
        Ok(finding) | Err(finding) => finding,
    }
}

async fn greet(asker: &Asker<'_>, probe: &TlsProbe) -> Result<Finding, Finding> {
    // The certificate is examined after the greeting, so that all that is wrong with it can be told.
    let lenient = TlsSettings { verify: false, ca_file: None, ..probe.tls.clone() };
    let verifier = match probe.tls.verify {
        true => Some(asker.own("check certificates", asker.clients.verifier(&probe.tls)).await?),
        false => None,
    };
    let Stream::Tls(stream) = asker.open(probe.port, Some(&lenient), &[]).await? else {
        return Err(Finding::unknown("the connection is not one over tls"));
    };
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
    let Some((leaf, others)) = chain.split_first() else {
        return Err(Finding::fail("the service shows no certificate"));
    };
    if let Some(verifier) = verifier {
        let name = match &probe.tls.server_name {
            Some(name) => name.clone(),
            None => asker.address()?.to_string(),
        };
        let name = ServerName::try_from(name).map_err(|error| Finding::unknown(error.to_string()))?;
        if let Err(error) = verifier.verify_server_cert(leaf, others, &name, &[], UnixTime::now()) {
            return Err(Finding::fail(untrusted(&error, leaf)));
        }
    }
    validity(&chain, probe, unix_now())
}

fn untrusted(error: &rustls::Error, leaf: &CertificateDer<'_>) -> String {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) if is_self_signed(leaf) => {
            "the certificate is self-signed and not trusted".to_owned()
        }
        rustls::Error::InvalidCertificate(error) => trust::in_words(error),
        error => format!("tls: {error}"),
    }
}

fn is_self_signed(leaf: &CertificateDer<'_>) -> bool {
    parse_x509_certificate(leaf).is_ok_and(|(_, parsed)| parsed.subject().as_raw() == parsed.issuer().as_raw())
}

fn unix_now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

const DAY_SECONDS: i64 = 24 * 60 * 60;

/// A chain is valid for as long as the certificate that ends first.
fn validity(chain: &[CertificateDer<'_>], probe: &TlsProbe, now: i64) -> Result<Finding, Finding> {
    let mut ends = i64::MAX;
    for certificate in chain {
        let (_, parsed) = parse_x509_certificate(certificate)
            .map_err(|error| Finding::fail(format!("a certificate cannot be read: {error}")))?;
        ends = ends.min(parsed.validity().not_after.timestamp());
    }
    let days = (ends - now).div_euclid(DAY_SECONDS);
    let least = i64::from(probe.days_left.unwrap_or(0));
    if ends < now {
        Ok(Finding::fail("the certificate has expired"))
    } else if days >= least {
        Ok(Finding::pass(format!("the certificate is valid for {days} more days")))
    } else {
        let detail = format!("the certificate is valid for only {days} more days, wanted {least}");
        Ok(match probe.expiring {
            Grade::Slow => Finding::slow(detail),
            Grade::Fail => Finding::fail(detail),
        })
    }
}
