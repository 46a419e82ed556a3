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

fn of_tls(error: &rustls::Error) -> Finding {
    match error {
        rustls::Error::InvalidCertificate(error) => Finding::fail(in_words(error)),
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

/// What is wrong with a certificate.
pub(crate) fn in_words(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "the certificate has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the certificate is not valid yet".to_owned()
        }
        CertificateError::NotValidForName => "the certificate is for another name".to_owned(),
        CertificateError::NotValidForNameContext { presented, .. } => {
            format!("the certificate is for another name: {}", presented.join(", "))
        }
        CertificateError::UnknownIssuer => "the certificate is from an authority that is not trusted".to_owned(),
        CertificateError::Revoked => "the certificate is revoked".to_owned(),
        error => format!("the certificate is not valid: {error}"),
    }
}
