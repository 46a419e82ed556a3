//! Whose certificate a peer showed: a host's, by its common name, or an operator's, by an alternative name of its own kind.
//!
//! An operator's certificate has no common name, so that a supervisor that knows of no operators takes it for nobody's.

use std::fmt;

use holdfast_policies::{
    names::{HostName, OperatorName},
    operators::{OperatorCertificate, Serial},
    revocation::HostCertificate,
    time::WallTime,
};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{PkiError, TlsFiles};

/// What stands before an operator's name in the alternative name (a URI) of their certificate.
pub(super) const OPERATOR_URI: &str = "holdfast:operator:";

/// Who a peer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// A host of the cluster.
    Host(HostCertificate),
    /// A person who gives orders.
    Operator(OperatorCertificate),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(certificate) => write!(f, "{}", certificate.host),
            Self::Operator(certificate) => write!(f, "operator {}", certificate.name),
        }
    }
}

/// Whom the chain's first certificate names. The chain must have been verified before.
///
/// # Errors
/// When there is no certificate, or it names nobody, or more than one, or that is not a name.
pub fn peer(certificates: &[CertificateDer<'_>]) -> Result<Peer, PkiError> {
    let first = certificates.first().ok_or(PkiError::NoCertificate)?;
    let (_, certificate) = X509Certificate::from_der(first).map_err(|error| PkiError::Parse(error.to_string()))?;
    let hosts: Vec<_> = certificate.subject().iter_common_name().collect();
    let operators = operators(&certificate)?;
    let serial = Serial::from_bytes(certificate.raw_serial());
    match (hosts.as_slice(), operators.as_slice()) {
        ([host], []) => {
            let text = host.as_str().map_err(|error| PkiError::Parse(error.to_string()))?;
            Ok(Peer::Host(HostCertificate { host: HostName::new(text)?, serial }))
        }
        ([], [operator]) => {
            Ok(Peer::Operator(OperatorCertificate { name: OperatorName::new(operator.as_str())?, serial }))
        }
        (hosts, []) => Err(PkiError::CommonName { count: hosts.len() }),
        (_, _) => Err(PkiError::TwoRoles),
    }
}

/// The host that the chain's first certificate names, and which certificate of it that is. The chain must have been
/// verified before.
///
/// # Errors
/// As [`peer`], and when it is an operator's.
pub fn peer_host(certificates: &[CertificateDer<'_>]) -> Result<HostCertificate, PkiError> {
    match peer(certificates)? {
        Peer::Host(certificate) => Ok(certificate),
        Peer::Operator(certificate) => Err(PkiError::NotHost { operator: certificate.name }),
    }
}

/// The host that this host's own certificate names, to be compared with the host file.
///
/// # Errors
/// As [`peer_host`], and when the file cannot be read.
pub fn own_host(files: &TlsFiles) -> Result<HostCertificate, PkiError> {
    peer_host(&files.chain()?)
}

/// The operator whose certificate this is.
///
/// # Errors
/// As [`peer`], when the file cannot be read, and when the certificate is a host's.
pub fn own_operator(files: &TlsFiles) -> Result<OperatorCertificate, PkiError> {
    match peer(&files.chain()?)? {
        Peer::Operator(certificate) => Ok(certificate),
        Peer::Host(certificate) => Err(PkiError::NotOperator { host: certificate.host }),
    }
}

/// From when until when a certificate is good, by wall clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Its beginning.
    pub begins: WallTime,
    /// Its end.
    pub ends: WallTime,
}

/// How long this host's, or this operator's, own certificate is good. The end of the authority's own is of no account: who verifies
/// trusts its key, and does not look at dates there.
///
/// # Errors
/// When the file cannot be read, or holds no certificate.
pub fn own_validity(files: &TlsFiles) -> Result<Validity, PkiError> {
    let chain = files.chain()?;
    let first = chain.first().ok_or(PkiError::NoCertificate)?;
    let (_, certificate) = X509Certificate::from_der(first).map_err(|error| PkiError::Parse(error.to_string()))?;
    let validity = certificate.validity();
    let wall = |seconds: i64| WallTime(u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000));
    Ok(Validity { begins: wall(validity.not_before.timestamp()), ends: wall(validity.not_after.timestamp()) })
}

/// The operators that a certificate names.
fn operators(certificate: &X509Certificate<'_>) -> Result<Vec<String>, PkiError> {
    let names = certificate.subject_alternative_name().map_err(|error| PkiError::Parse(error.to_string()))?;
    let names = names.iter().flat_map(|names| &names.value.general_names);
    let uris = names.filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None });
    Ok(uris.filter_map(|uri| uri.strip_prefix(OPERATOR_URI)).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use std::slice;

    use rcgen::{CertificateParams, DnType, Issuer, KeyPair, SanType};
    use rustls::pki_types::pem::PemObject as _;

    use super::{
        super::{issue, issue_operator, make_authority},
        *,
    };

    fn ann() -> OperatorName {
        OperatorName::new("ann").unwrap()
    }

    fn der(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    #[test]
    fn an_operators_certificate_is_no_hosts_and_a_hosts_is_no_operators() {
        let authority = make_authority().unwrap();
        let operator = der(&issue_operator(&authority, &ann(), 30).unwrap().certificate_pem);
        let host = der(&issue(&authority, &HostName::new("ann").unwrap()).unwrap().certificate_pem);
        let Peer::Operator(certificate) = peer(slice::from_ref(&operator)).unwrap() else { panic!("not an operator") };
        assert_eq!(certificate.name, ann());
        assert!(matches!(peer_host(&[operator]), Err(PkiError::NotHost { .. })));
        assert_eq!(peer_host(&[host]).unwrap().host, HostName::new("ann").unwrap());
    }

    #[test]
    fn two_certificates_of_one_operator_or_host_are_told_apart_by_their_serial_numbers() {
        let authority = make_authority().unwrap();
        let of_host = || {
            let issued = issue(&authority, &HostName::new("hv-a").unwrap()).unwrap();
            peer_host(&[der(&issued.certificate_pem)]).unwrap().serial
        };
        assert_ne!(of_host(), of_host());
        let serial = || match peer(&[der(&issue_operator(&authority, &ann(), 30).unwrap().certificate_pem)]).unwrap() {
            Peer::Operator(certificate) => certificate.serial,
            Peer::Host(certificate) => panic!("{certificate}"),
        };
        assert_ne!(serial(), serial());
    }

    #[test]
    fn a_certificate_that_names_a_host_and_an_operator_or_two_operators_or_nobody_is_nobodys() {
        let with = |common: Option<&str>, uris: &[&str]| {
            let authority = make_authority().unwrap();
            let signer = KeyPair::from_pem(&authority.key_pem()).unwrap();
            let issuer = Issuer::from_ca_cert_pem(authority.certificate_pem(), &signer).unwrap();
            let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            if let Some(name) = common {
                params.distinguished_name.push(DnType::CommonName, name);
            }
            params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
            let certificate = params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
            peer(slice::from_ref(certificate.der()))
        };
        assert!(with(Some("hv-a"), &[]).is_ok() && with(None, &["holdfast:operator:ann"]).is_ok());
        assert!(matches!(with(Some("hv-a"), &["holdfast:operator:ann"]), Err(PkiError::TwoRoles)));
        assert!(matches!(with(None, &["holdfast:operator:ann", "holdfast:operator:bob"]), Err(PkiError::TwoRoles)));
        assert!(matches!(with(None, &["https://ann"]), Err(PkiError::CommonName { count: 0 })));
        assert!(matches!(with(None, &["holdfast:operator:ann through hv-a"]), Err(PkiError::Name(_))));
    }
}
