//! TLS configurations for both ends of a connection.

use std::sync::Arc;

use rustls::{
    ClientConfig, ServerConfig,
    client::Resumption,
    crypto::{CryptoProvider, ring},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version::TLS13,
};

use super::{PkiError, TlsFiles};

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The listening end: TLS 1.3 only, and every client shows a certificate of the cluster's authority.
///
/// # Errors
/// When a file is missing, wrong or exposed.
pub fn server_config(files: &TlsFiles) -> Result<Arc<ServerConfig>, PkiError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(files.roots()?), provider())
        .build()
        .map_err(|error| PkiError::Verifier(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(files.chain()?, files.private_key()?)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The calling end: TLS 1.3 only, trusts nobody but the cluster's authority, and shows its own certificate.
///
/// # Errors
/// When a file is missing, wrong or exposed.
pub fn client_config(files: &TlsFiles) -> Result<Arc<ClientConfig>, PkiError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(files.roots()?)
        .with_client_auth_cert(files.chain()?, files.private_key()?)?;
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use holdfast_policies::names::{HostName, OperatorName};

    use super::{
        super::{Authority, issue, issue_operator, make_authority, own_host, own_operator},
        *,
    };

    fn files(directory: &std::path::Path, mode: u32) -> TlsFiles {
        let authority = make_authority().unwrap();
        let issued = issue(&authority, &HostName::new("hv-a").unwrap()).unwrap();
        let at = |name: &str| directory.join(name);
        fs::write(at("ca"), authority.certificate_pem()).unwrap();
        fs::write(at("cert"), issued.certificate_pem).unwrap();
        fs::write(at("key"), issued.key_pem).unwrap();
        fs::set_permissions(at("key"), fs::Permissions::from_mode(mode)).unwrap();
        TlsFiles { authority: at("ca"), certificate: at("cert"), key: at("key") }
    }

    #[test]
    fn an_authority_read_back_still_issues_certificates_that_name_their_host() {
        let made = make_authority().unwrap();
        let read = Authority::from_pem(made.certificate_pem(), &made.key_pem()).unwrap();
        let issued = issue(&read, &HostName::new("hv-b.rack_1").unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cert");
        fs::write(&path, issued.certificate_pem).unwrap();
        let files = TlsFiles { authority: path.clone(), certificate: path.clone(), key: path };
        assert_eq!(own_host(&files).unwrap().host.as_str(), "hv-b.rack_1");
        assert!(matches!(own_operator(&files), Err(PkiError::NotOperator { .. })));
    }

    #[test]
    fn an_operators_certificate_is_not_taken_for_a_host_files() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path(), 0o600);
        let issued = issue_operator(&make_authority().unwrap(), &OperatorName::new("ann").unwrap(), 1).unwrap();
        fs::write(&files.certificate, issued.certificate_pem).unwrap();
        assert_eq!(own_operator(&files).unwrap().name.as_str(), "ann");
        assert!(matches!(own_host(&files), Err(PkiError::NotHost { .. })));
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let exposed = files(directory.path(), 0o640);
        assert!(matches!(client_config(&exposed), Err(PkiError::KeyExposed { mode: 0o640, .. })));
        assert!(matches!(server_config(&exposed), Err(PkiError::KeyExposed { .. })));
        let private = files(directory.path(), 0o600);
        client_config(&private).unwrap();
        server_config(&private).unwrap();
    }

    #[test]
    fn a_file_without_pem_is_named_in_the_error() {
        let directory = tempfile::tempdir().unwrap();
        let good = files(directory.path(), 0o600);
        fs::write(&good.authority, "not pem").unwrap();
        assert!(client_config(&good).unwrap_err().to_string().contains("ca holds no certificate"));
    }
}
