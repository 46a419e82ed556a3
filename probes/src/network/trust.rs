//! What is wrong with a certificate or a handshake, in words, and whose fault it is.

use std::{error::Error, io};

use rustls::{AlertDescription, CertificateError};

use crate::{finding::Finding, network::io_error::of_io_error};

/// Judges an error while greeting over TLS.
pub(crate) fn of_handshake(error: &io::Error) -> Finding {
    match inner(error) {
        Some(error) => of_tls(error),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            Finding::fail("the service hung up during the tls handshake")
        }
        None => of_io_error(error),
    }
}

/// Judges an error in the middle of a conversation, which may be one of TLS: a service refuses our certificate only then.
pub(crate) fn of_io(error: &io::Error) -> Finding {
    match inner(error) {
        Some(error) => of_tls(error),
        None => of_io_error(error),
    }
}

fn inner(error: &io::Error) -> Option<&rustls::Error> {
    let error = error.get_ref()? as &(dyn Error + 'static);
    error.downcast_ref::<rustls::Error>()
}

/// Judges what TLS itself has to say.
pub(crate) fn of_tls(error: &rustls::Error) -> Finding {
    match error {
        rustls::Error::InvalidCertificate(error) if is_beyond_us(error) => {
            Finding::unknown("the certificate is signed in a way that this host cannot check")
        }
        rustls::Error::InvalidCertificate(error) => Finding::fail(in_words(error)),
        // It answers as it always did, and no restart makes it newer.
        rustls::Error::PeerIncompatible(why) => {
            Finding::unknown(format!("this host and the service have no way to speak tls in common: {why:?}"))
        }
        rustls::Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            Finding::unknown("the service speaks no version of tls that this host does (1.2 and 1.3)")
        }
        // It serves whoever offers both versions of HTTP, as users do.
        rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            Finding::unknown("the service does not speak the version of http that is asked for (alpn)")
        }
        rustls::Error::AlertReceived(alert) if is_about_us(*alert) => {
            Finding::unknown(format!("the service refuses our certificate: {alert:?}"))
        }
        rustls::Error::AlertReceived(alert) => {
            Finding::fail(format!("the service refuses the tls handshake: {alert:?}"))
        }
        rustls::Error::FailedToGetCurrentTime | rustls::Error::FailedToGetRandomBytes => {
            Finding::unknown(format!("cannot ask from here: {error}"))
        }
        rustls::Error::InvalidMessage(_) => Finding::fail("the service does not speak tls"),
        error => Finding::fail(format!("tls: {error}")),
    }
}

/// Whether an alert says that our own certificate is missing or wrong: then the service was not asked.
fn is_about_us(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
    )
}

/// Whether it is this host that lacks something to judge a certificate by.
fn is_beyond_us(error: &CertificateError) -> bool {
    matches!(
        error,
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. }
    )
}

/// What is wrong with a certificate.
fn in_words(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "the certificate has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the certificate is not valid yet".to_owned()
        }
        CertificateError::NotValidForName => "the certificate is for another name".to_owned(),
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            "the certificate is for no name at all (it has no subjectAltName)".to_owned()
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            format!("the certificate is for another name: {}", presented.join(", "))
        }
        CertificateError::UnknownIssuer => "the certificate is from an authority that is not trusted".to_owned(),
        CertificateError::Revoked => "the certificate is revoked".to_owned(),
        // The library tells this kind of error by its text alone.
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "the certificate is that of an authority, and not trusted itself".to_owned()
        }
        error => format!("the certificate is not valid: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use holdfast_policies::observe::Outcome;
    use rustls::PeerIncompatible;

    use super::*;

    #[test]
    fn what_this_host_cannot_speak_or_check_accuses_nobody_and_what_the_service_refuses_does() {
        let unsupported = CertificateError::UnsupportedSignatureAlgorithmContext {
            signature_algorithm_id: Vec::new(),
            supported_algorithms: Vec::new(),
        };
        for (error, wanted) in [
            (rustls::Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13), Outcome::Unknown),
            (rustls::Error::AlertReceived(AlertDescription::ProtocolVersion), Outcome::Unknown),
            (rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol), Outcome::Unknown),
            (rustls::Error::InvalidCertificate(unsupported), Outcome::Unknown),
            (rustls::Error::AlertReceived(AlertDescription::UnknownCA), Outcome::Unknown),
            // As one says that has lost its certificate.
            (rustls::Error::AlertReceived(AlertDescription::HandshakeFailure), Outcome::Fail),
            (rustls::Error::AlertReceived(AlertDescription::InternalError), Outcome::Fail),
            (rustls::Error::InvalidCertificate(CertificateError::Expired), Outcome::Fail),
        ] {
            assert_eq!(of_tls(&error).outcome, wanted, "{error}");
        }
    }
}
