//! An HTTPS server for tests, in this process: one certificate of its own, TLS 1.2 only as with most controllers.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use holdfast_policies::model::TlsTrust;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring::default_provider,
        pki_types::{CertificateDer, PrivateKeyDer},
        version::TLS12,
    },
};

use crate::tls::fingerprint;

/// What a client asks.
pub(crate) struct Request {
    pub method: String,
    pub path: String,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// A header; empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// What it is answered.
pub(crate) struct Reply {
    pub status: u16,
    /// Lines, each with its end.
    pub headers: String,
    pub body: Value,
    /// How late.
    pub late: Duration,
    /// Without end.
    pub endless: bool,
}

impl Reply {
    pub fn new(status: u16, body: Value) -> Self {
        Self { status, headers: String::new(), body, late: Duration::ZERO, endless: false }
    }
}

/// Answers requests.
type Answers = Arc<dyn Fn(&Request) -> Reply + Send + Sync>;

/// The server; it ends with this value.
pub(crate) struct Server {
    folder: TempDir,
    address: SocketAddr,
    certificate: CertificateDer<'static>,
    task: JoinHandle<()>,
}

impl Server {
    pub async fn start(answers: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let certificate = key.cert.der().clone();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), key.cert.pem()).unwrap();
        let private = PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&TLS12])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], private)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), Arc::new(answers)));
        Self { folder, address, certificate, task }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// What believes exactly its certificate.
    pub fn trust(&self) -> TlsTrust {
        TlsTrust::Fingerprint(fingerprint(&self.certificate))
    }

    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A file with a secret, readable by its owner only.
    pub fn secret_file(&self, secret: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.folder.path().join(format!("secret-{secret}"));
        std::fs::write(&path, secret).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, answers: Answers) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, answers) = (acceptor.clone(), Arc::clone(&answers));
        tokio::spawn(async move {
            // A client that does not believe the certificate goes away here.
            let _ = converse(stream, acceptor, answers).await;
        });
    }
}

async fn converse(stream: TcpStream, acceptor: TlsAcceptor, answers: Answers) -> std::io::Result<()> {
    let mut stream = BufReader::new(acceptor.accept(stream).await?);
    while let Some(request) = read(&mut stream).await? {
        let reply = answers(&request);
        tokio::time::sleep(reply.late).await;
        if reply.endless {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            loop {
                stream.write_all(&[b' '; 4096]).await?;
            }
        }
        let Reply { status, headers, body, .. } = reply;
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len());
        stream.write_all(head.as_bytes()).await?;
        stream.flush().await?;
    }
    Ok(())
}

async fn read(stream: &mut BufReader<impl AsyncReadExt + Unpin>) -> std::io::Result<Option<Request>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        if line.trim_end().is_empty() {
            break;
        }
        lines.push(line.trim_end().to_owned());
    }
    let pairs = lines.iter().filter_map(|line| line.split_once(": "));
    let headers = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let mut words = lines[0].split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    let mut request = Request { method, path, headers, body: Vec::new() };
    request.body = vec![0; request.header("content-length").parse().unwrap_or(0)];
    stream.read_exact(&mut request.body).await?;
    Ok(Some(request))
}
