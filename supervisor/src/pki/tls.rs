//! TLS configurations for both ends of a connection.

use std::sync::Arc;

use rustls::{
    ClientConfig, ServerConfig,
    client::{Resumption, WebPkiServerVerifier},
    crypto::{CryptoProvider, ring},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    time_provider::{DefaultTimeProvider, TimeProvider},
    version::TLS13,
};

use super::{
    PkiError, TlsFiles,
    behind::{Called, Callers},
};

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The listening end: TLS 1.3 only, and every client shows a certificate of the cluster's authority.
///
/// # Errors
/// When a file is missing, wrong or exposed.
pub fn server_config(files: &TlsFiles) -> Result<Arc<ServerConfig>, PkiError> {
    server_by(files, Arc::new(DefaultTimeProvider))
}

fn server_by(files: &TlsFiles, clock: Arc<dyn TimeProvider>) -> Result<Arc<ServerConfig>, PkiError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(files.roots()?), provider())
        .build()
        .map_err(|error| PkiError::Verifier(error.to_string()))?;
    let mut config = ServerConfig::builder_with_details(provider(), clock)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(Callers(verifier)))
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
    client_by(files, Arc::new(DefaultTimeProvider))
}

fn client_by(files: &TlsFiles, clock: Arc<dyn TimeProvider>) -> Result<Arc<ClientConfig>, PkiError> {
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(files.roots()?), provider())
        .build()
        .map_err(|error| PkiError::Verifier(error.to_string()))?;
    let mut config = ClientConfig::builder_with_details(provider(), clock)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Called(verifier)))
        .with_client_auth_cert(files.chain()?, files.private_key()?)?;
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use std::{fs, io, os::unix::fs::PermissionsExt, time::Duration};

    use holdfast_policies::names::{HostName, OperatorName};
    use rustls::pki_types::{ServerName, UnixTime};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::{
        super::{
            Authority, fixture::written, issue, issue_operator, make_authority, own_host, own_operator, own_validity,
        },
        *,
    };

    fn files(directory: &std::path::Path, mode: u32) -> TlsFiles {
        let authority = make_authority().unwrap();
        let issued = issue(&authority, &HostName::new("hv-a").unwrap()).unwrap();
        let files = written(directory, "hv-a", &authority, &issued);
        fs::set_permissions(&files.key, fs::Permissions::from_mode(mode)).unwrap();
        files
    }

    /// A clock that stands still, in seconds after the beginning of 1970.
    #[derive(Debug, Clone, Copy)]
    struct Clock(u64);

    impl TimeProvider for Clock {
        fn current_time(&self) -> Option<UnixTime> {
            Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0)))
        }
    }

    /// Whether both ends come to terms, each by its own clock, when somebody calls `hv-b`.
    async fn meet(caller: (&TlsFiles, Clock), called: (&TlsFiles, Clock)) -> io::Result<()> {
        let client = client_by(caller.0, Arc::new(caller.1)).unwrap();
        let server = server_by(called.0, Arc::new(called.1)).unwrap();
        let (near, far) = tokio::io::duplex(64 * 1024);
        let calls = TlsConnector::from(client).connect(ServerName::try_from("hv-b").unwrap(), near);
        let (calls, answers) = tokio::join!(calls, TlsAcceptor::from(server).accept(far));
        calls?;
        answers?;
        Ok(())
    }

    #[tokio::test]
    async fn hosts_whose_clocks_have_been_set_back_by_an_empty_battery_find_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let authority = make_authority().unwrap();
        let of_host = |name: &str| issue(&authority, &HostName::new(name).unwrap()).unwrap();
        let a = written(folder.path(), "a", &authority, &of_host("hv-a"));
        let b = written(folder.path(), "b", &authority, &of_host("hv-b"));
        let today = Clock(jiff::Timestamp::now().as_second().unsigned_abs());
        let (firmware, centuries) = (Clock(0), Clock(today.0 + 200 * 365 * 24 * 3600));
        for (of_a, of_b) in [(today, today), (firmware, firmware), (today, firmware), (firmware, today)] {
            meet((&a, of_a), (&b, of_b)).await.unwrap_or_else(|error| panic!("{of_a:?} and {of_b:?}: {error}"));
        }
        meet((&a, centuries), (&b, today)).await.expect_err("it has ended, as far as the caller knows");
        meet((&a, today), (&b, centuries)).await.expect_err("it has ended, as far as the called one knows");
        let strange = make_authority().unwrap();
        let issued = issue(&strange, &HostName::new("hv-b").unwrap()).unwrap();
        let stranger =
            TlsFiles { authority: a.authority.clone(), ..written(folder.path(), "stranger", &strange, &issued) };
        meet((&a, firmware), (&stranger, firmware)).await.expect_err("another authority's is none at any time");
        let issued = issue_operator(&authority, &OperatorName::new("ann").unwrap(), 1).unwrap();
        let ann = written(folder.path(), "ann", &authority, &issued);
        meet((&ann, today), (&b, today)).await.unwrap();
        meet((&ann, today), (&b, firmware)).await.expect_err("an operator's is not brought back by an old clock");
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
    fn a_certificate_ends_when_it_was_issued_to_end() {
        const DAY_MS: u64 = 24 * 3_600_000;
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path(), 0o600);
        let now = jiff::Timestamp::now().as_millisecond().unsigned_abs();
        let of_host = own_validity(&files).unwrap();
        assert!(of_host.begins.0 < now && of_host.ends.0 > now + 9 * 365 * DAY_MS, "{of_host:?}");
        let issued = issue_operator(&make_authority().unwrap(), &OperatorName::new("ann").unwrap(), 30).unwrap();
        fs::write(&files.certificate, issued.certificate_pem).unwrap();
        let of_ann = own_validity(&files).unwrap();
        assert!(of_ann.begins.0 < now, "{of_ann:?}");
        assert!((now + 29 * DAY_MS..=now + 31 * DAY_MS).contains(&of_ann.ends.0), "{of_ann:?}");
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
