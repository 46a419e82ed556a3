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
            return Err(untrusted(&error, leaf));
        }
    }
    validity(leaf, others, probe, unix_now())
}

/// One that calls itself an authority, as most that are self-signed do, is refused for that before anybody looks who vouches for it.
fn untrusted(error: &rustls::Error, leaf: &CertificateDer<'_>) -> Finding {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::Other(_))
            if is_self_signed(leaf) =>
        {
            Finding::fail("the certificate is self-signed and not trusted")
        }
        error => trust::of_tls(error),
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

/// A service fails by its own certificate alone. Another one that it shows may be superfluous, like an old root that no client
/// needs any more: whether the chain holds has been checked.
fn validity(
    leaf: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    probe: &TlsProbe,
    now: i64,
) -> Result<Finding, Finding> {
    let (begin, end) = lasts(leaf).ok_or_else(|| Finding::fail("the certificate cannot be read"))?;
    let days = days_until(end, now);
    let least = i64::from(probe.days_left.unwrap_or(0));
    if end < now {
        return Ok(Finding::fail("the certificate has expired"));
    }
    // Whoever verifies has found it already.
    if begin > now {
        return Ok(Finding::fail("the certificate is not valid yet"));
    }
    if days < least {
        let detail = format!("the certificate is valid for only {days} more days, wanted {least}");
        return Ok(match probe.expiring {
            Grade::Slow => Finding::slow(detail),
            Grade::Fail => Finding::fail(detail),
        });
    }
    let detail = format!("the certificate is valid for {days} more days");
    match others.iter().filter_map(lasts).map(|(_, end)| days_until(end, now)).min() {
        Some(others) if others < least => {
            let how = if others < 0 { "has expired".to_owned() } else { format!("for only {others}") };
            let detail = format!("{detail}, another one that the service shows {how}");
            Ok(if probe.days_left.is_some() { Finding::slow(detail) } else { Finding::pass(detail) })
        }
        Some(_) | None => Ok(Finding::pass(detail)),
    }
}

fn days_until(end: i64, now: i64) -> i64 {
    (end - now).div_euclid(DAY_SECONDS)
}

/// From when and until when a certificate is valid, in Unix seconds.
fn lasts(certificate: &CertificateDer<'_>) -> Option<(i64, i64)> {
    let (_, parsed) = parse_x509_certificate(certificate).ok()?;
    Some((parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp()))
}

#[cfg(test)]
mod tests {
    use holdfast_policies::observe::Outcome;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    /// The first second of 2025.
    const NOW: i64 = 1_735_689_600;

    fn until(year: i32, day: u8) -> CertificateDer<'static> {
        from_until(2019, year, day)
    }

    fn from_until(begin: i32, year: i32, day: u8) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = date_time_ymd(begin, 1, 1);
        params.not_after = date_time_ymd(year, 1, day);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn judged(leaf: CertificateDer<'_>, other: CertificateDer<'_>, days_left: Option<u32>, expiring: Grade) -> Outcome {
        let probe = TlsProbe { port: 443, tls: TlsSettings::default(), days_left, expiring };
        let (Ok(finding) | Err(finding)) = validity(&leaf, &[other], &probe, NOW);
        finding.outcome
    }

    #[test]
    fn a_superfluous_certificate_that_has_expired_does_not_fail_a_service_and_its_own_does() {
        for (leaf, other, days_left, expiring, expected) in [
            (until(2030, 1), until(2020, 1), None, Grade::Fail, Outcome::Pass),
            (until(2030, 1), until(2020, 1), Some(14), Grade::Fail, Outcome::Slow),
            (until(2030, 1), until(2025, 8), Some(14), Grade::Fail, Outcome::Slow),
            (until(2030, 1), until(2025, 8), None, Grade::Fail, Outcome::Pass),
            (until(2030, 1), until(2030, 1), Some(14), Grade::Fail, Outcome::Pass),
            (until(2025, 8), until(2030, 1), Some(14), Grade::Slow, Outcome::Slow),
            (until(2025, 8), until(2030, 1), Some(14), Grade::Fail, Outcome::Fail),
            (until(2025, 8), until(2030, 1), None, Grade::Fail, Outcome::Pass),
            (until(2020, 1), until(2030, 1), None, Grade::Slow, Outcome::Fail),
        ] {
            assert_eq!(judged(leaf, other, days_left, expiring), expected, "{days_left:?} {expiring:?}");
        }
    }

    #[test]
    fn one_that_begins_tomorrow_is_not_taken_for_one_that_lasts_also_where_nobody_verifies_it() {
        for (begin, expected) in [(2025, Outcome::Pass), (2026, Outcome::Fail)] {
            assert_eq!(judged(from_until(begin, 2030, 1), until(2030, 1), Some(14), Grade::Slow), expected, "{begin}");
        }
    }
}
