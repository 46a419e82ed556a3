//! Making the cluster's authority and issuing certificates of hosts and operators.

use holdfast_policies::names::{HostName, OperatorName};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::pki_types::DnsName;

use super::{PkiError, peer::OPERATOR_URI};

/// How long certificates are valid: longer than hypervisor hosts live, because an expired certificate would take down
/// the very thing that is to keep others up. A host is removed by revocation (R27), not by waiting.
const VALID_YEARS: i32 = 10;

/// The cluster's certificate authority: it can sign certificates of hosts and operators.
pub struct Authority {
    certificate_pem: String,
    key: KeyPair,
}

/// A certificate with its private key, both in PEM.
pub struct Issued {
    /// The certificate, for `tls.certificate`.
    pub certificate_pem: String,
    /// The private key, for `tls.key`; write it with mode 0600.
    pub key_pem: String,
}

impl Authority {
    /// The authority's certificate, which every host needs.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The authority's private key, which only the operator needs; write it with mode 0600.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// Reads an authority back.
    ///
    /// # Errors
    /// When either text is not PEM of the right kind, or the certificate is not an authority's.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, PkiError> {
        let authority = Self { certificate_pem: certificate_pem.to_owned(), key: KeyPair::from_pem(key_pem)? };
        Issuer::from_ca_cert_pem(&authority.certificate_pem, &authority.key)?;
        Ok(authority)
    }
}

/// Makes a new authority with a fresh key.
///
/// # Errors
/// When the system has no randomness, or the library refuses the parameters.
pub fn make_authority() -> Result<Authority, PkiError> {
    let key = KeyPair::generate()?;
    let mut params = dated(CertificateParams::default());
    params.distinguished_name.push(DnType::CommonName, "holdfast cluster authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let certificate = params.self_signed(&key)?;
    Ok(Authority { certificate_pem: certificate.pem(), key })
}

/// Issues a certificate for `host`, good for both ends of a connection.
///
/// # Errors
/// [`PkiError::NotDns`] when the name cannot be a DNS name; otherwise when signing fails.
pub fn issue(authority: &Authority, host: &HostName) -> Result<Issued, PkiError> {
    if DnsName::try_from(host.as_str()).is_err() {
        return Err(PkiError::NotDns { host: host.to_string() });
    }
    let mut params = dated(CertificateParams::new(Vec::<String>::new())?);
    // Set by hand: the library would turn a name such as "10.0.0.1" into an address.
    params.subject_alt_names = vec![rcgen::SanType::DnsName(host.as_str().try_into()?)];
    params.distinguished_name.push(DnType::CommonName, host.as_str());
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    sign(authority, params)
}

/// Issues a certificate for an operator, good for `days` days and for the calling end alone.
///
/// # Errors
/// When signing fails.
pub fn issue_operator(authority: &Authority, operator: &OperatorName, days: u16) -> Result<Issued, PkiError> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    // No common name: that is what makes a certificate a host's.
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationalUnitName, "holdfast operator");
    params.subject_alt_names = vec![rcgen::SanType::URI(format!("{OPERATOR_URI}{operator}").try_into()?)];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    // A day more at both ends, for clocks that differ and because dates begin at midnight.
    let (year, month, day) = date_in(-1);
    params.not_before = date_time_ymd(year, month, day);
    let (year, month, day) = date_in(i64::from(days) + 1);
    params.not_after = date_time_ymd(year, month, day);
    sign(authority, params)
}

/// Signs a certificate for a fresh key, which is good for nothing but showing who has it.
fn sign(authority: &Authority, mut params: CertificateParams) -> Result<Issued, PkiError> {
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate_pem, &authority.key)?;
    let key = KeyPair::generate()?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(Issued { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
}

/// Year, month and day in so many days.
fn date_in(days: i64) -> (i32, u8, u8) {
    let then = jiff::Timestamp::now().checked_add(jiff::SignedDuration::from_hours(24 * days));
    let date = then.unwrap_or(jiff::Timestamp::MAX).to_zoned(jiff::tz::TimeZone::UTC).date();
    (i32::from(date.year()), date.month().unsigned_abs(), date.day().unsigned_abs())
}

/// Valid from the first day of last year, so that a host whose clock is behind at installation can join, for
/// [`VALID_YEARS`] from this year on.
fn dated(mut params: CertificateParams) -> CertificateParams {
    let year = i32::from(jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).year());
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_before = date_time_ymd(year - 1, 1, 1);
    params.not_after = date_time_ymd(year + VALID_YEARS, 12, 31);
    params
}
