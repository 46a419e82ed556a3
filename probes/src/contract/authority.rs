//! Certificates for tests: an authority, and good and bad certificates by it; servers that show them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use holdfast_policies::probe::TlsSettings;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{io::AsyncWriteExt, net::TcpListener};
use tokio_rustls::TlsAcceptor;

/// What is special about a certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Good,
    Expired,
    OtherName,
    SelfSigned,
    /// Self-signed, and an authority by its own word: as `openssl req -x509` makes them.
    OwnAuthority,
}

/// An authority and a folder for its files.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, "authority of the tests");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { issuer, folder: tempfile::tempdir().unwrap() };
        std::fs::write(authority.ca_file(), authority.issuer.pem()).unwrap();
        authority
    }

    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The certificate that the newest server shows.
    pub fn shown(&self) -> PathBuf {
        self.folder.path().join("shown.pem")
    }

    /// Files with a client's certificate and key.
    pub fn client(&self) -> (PathBuf, PathBuf) {
        self.write(self.folder.path())
    }

    /// Writes a good certificate and its key into a folder.
    pub fn write(&self, folder: &Path) -> (PathBuf, PathBuf) {
        let (certificate, key) = self.pair(Kind::Good);
        let (certificate_file, key_file) = (folder.join("server.crt"), folder.join("server.key"));
        std::fs::write(&certificate_file, certificate).unwrap();
        std::fs::write(&key_file, key).unwrap();
        std::fs::set_permissions(&key_file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        (certificate_file, key_file)
    }

    /// Trusts this authority and no other.
    pub fn trusted(&self) -> TlsSettings {
        TlsSettings { ca_file: Some(self.ca_file()), ..TlsSettings::default() }
    }

    fn pair(&self, kind: Kind) -> (String, String) {
        let names = match kind {
            Kind::OtherName => vec!["elsewhere.example".to_owned()],
            Kind::Good | Kind::Expired | Kind::SelfSigned | Kind::OwnAuthority => {
                vec!["127.0.0.1".to_owned(), "localhost".to_owned()]
            }
        };
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = date_time_ymd(if kind == Kind::Expired { 2020 } else { 2100 }, 1, 1);
        params.not_before = date_time_ymd(2019, 1, 1);
        params.distinguished_name.push(DnType::CommonName, "service of the tests");
        if kind == Kind::OwnAuthority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        let certificate = match kind {
            Kind::SelfSigned | Kind::OwnAuthority => params.self_signed(&key).unwrap(),
            Kind::Good | Kind::Expired | Kind::OtherName => params.signed_by(&key, &self.issuer).unwrap(),
        };
        (certificate.pem(), key.serialize_pem())
    }

    /// How a server shows a certificate, and whether it wants one of this authority's from its clients.
    pub fn config(&self, kind: Kind, wants_one: bool, protocols: &[&[u8]]) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (certificate, key) = self.pair(kind);
        std::fs::write(self.shown(), &certificate).unwrap();
        let chain = rustls::pki_types::CertificateDer::pem_slice_iter(certificate.as_bytes());
        let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = if wants_one {
            let mut roots = RootCertStore::empty();
            roots.add(self.issuer.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    }

    /// A server that greets over TLS, reads a request and says one thing.
    pub async fn server(&self, kind: Kind, wants_one: bool, says: &'static str) -> u16 {
        let acceptor = TlsAcceptor::from(self.config(kind, wants_one, &[]));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut stream = acceptor.accept(stream).await?;
                    tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 2048]).await?;
                    stream.write_all(says.as_bytes()).await?;
                    stream.shutdown().await
                });
            }
        });
        port
    }
}
