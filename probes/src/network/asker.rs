//! What every question over the network needs: the guest's address, connections, and files of this host.
//!
//! Whatever fails here before the service is reached is this vantage's own trouble, and makes the answer `Unknown` (S5).

use std::{
    fmt::Display,
    io::{self, Read},
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use holdfast_policies::{
    probe::TlsSettings,
    secret::{SECRET_BYTES_MAX, closed, one_line},
};
use regex::bytes::Regex;
use rustls::pki_types::ServerName;
use tokio::{net::TcpStream, time::Instant};
use tokio_rustls::TlsConnector;

use crate::{
    aside::{NAMES, of_file, plain_file},
    finding::Finding,
    network::{clients::Clients, io_error::of_io_error, stream::Stream, trust},
};

/// One question in the asking: from where, to whom, and how long this vantage may take for its own part.
pub(crate) struct Asker<'a> {
    pub clients: &'a Clients,
    address: Option<IpAddr>,
    /// By when this vantage says that it has not done its own part; a little before the question's time is over, when silence
    /// is taken for the service's.
    end: Instant,
    /// How long it may take for that, and how much is left of it.
    own_most: Duration,
    own_left: Mutex<Duration>,
    again_after: Duration,
    /// What was read of secrets, so that no answer that repeats one is shown with it.
    secrets: Mutex<Vec<String>>,
}

impl<'a> Asker<'a> {
    /// Half of the time is for what this vantage has to do itself, so that a name server or a file system of its own
    /// that hangs is not taken for a service that hangs.
    pub fn new(clients: &'a Clients, address: Option<IpAddr>, timeout: Duration) -> Self {
        let (end, own_most) = (Instant::now() + timeout - timeout / 16, timeout / 2);
        let own_left = Mutex::new(own_most);
        Self { clients, address, end, own_most, own_left, again_after: timeout / 3, secrets: Mutex::default() }
    }

    /// After how long a datagram counts as lost and is sent again.
    pub fn again_after(&self) -> Duration {
        self.again_after
    }

    /// How long one of so many addresses may be silent before the next one is tried: a third of the time, and less where that would
    /// leave none for the last one.
    pub fn patience(&self, addresses: usize) -> Duration {
        let parts = u32::try_from(addresses).unwrap_or(u32::MAX).max(3);
        self.again_after * 3 / parts
    }

    /// The guest's address.
    pub fn address(&self) -> Result<IpAddr, Finding> {
        self.address.ok_or_else(|| Finding::unknown("the guest has no address"))
    }

    /// Does something that only concerns this vantage.
    pub async fn own<T, E: Display>(
        &self,
        what: &str,
        doing: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Finding> {
        let began = Instant::now();
        let by = self.end.min(began + self.own_left_after(Duration::ZERO));
        let done = tokio::time::timeout_at(by, doing).await;
        self.own_left_after(began.elapsed());
        match done {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(Finding::unknown(format!("cannot {what}: {error}"))),
            Err(_) => Err(Finding::unknown(format!("cannot {what}: it takes too long here"))),
        }
    }

    /// How long this vantage may still take for its own part, once it has taken so much more.
    fn own_left_after(&self, taken: Duration) -> Duration {
        let mut left = self.own_left.lock().unwrap_or_else(PoisonError::into_inner);
        *left = left.saturating_sub(taken);
        *left
    }

    /// How long this vantage has taken for its own part. The service has not taken it.
    pub fn own_taken(&self) -> Duration {
        self.own_most.saturating_sub(self.own_left_after(Duration::ZERO))
    }

    /// Connects to a port of the guest, and no more.
    pub async fn reach(&self, port: u16) -> Result<TcpStream, Finding> {
        reach((self.address()?, port).into()).await
    }

    /// Connects to a port of the guest, to talk.
    pub async fn connect(&self, port: u16) -> Result<TcpStream, Finding> {
        connect((self.address()?, port).into()).await
    }

    /// Connects to a port of the guest, over TLS where it is set.
    pub async fn open(&self, port: u16, tls: Option<&TlsSettings>, protocols: &[&[u8]]) -> Result<Stream, Finding> {
        let address = self.address()?;
        let secured = match tls {
            None => None,
            Some(settings) => Some(self.tls(settings, &address.to_string(), protocols).await?),
        };
        let plain = connect((address, port).into()).await?;
        match secured {
            None => Ok(Stream::Plain(plain)),
            Some(secured) => secured.greet(plain).await,
        }
    }

    /// Makes ready to speak TLS, before the service is asked anything. `host` is checked unless another name is set.
    pub async fn tls(&self, settings: &TlsSettings, host: &str, protocols: &[&[u8]]) -> Result<Secured, Finding> {
        let config = self.own("prepare tls", self.clients.tls(settings, protocols)).await?;
        let name = settings.server_name.as_deref().unwrap_or(host).trim_end_matches('.').to_owned();
        let name = ServerName::try_from(name.clone())
            .map_err(|_| Finding::unknown(format!("{name:?} cannot be the name in a certificate")))?;
        Ok(Secured { connector: TlsConnector::from(config), name })
    }

    /// Addresses of a host.
    pub async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Finding> {
        let name = host.to_owned();
        let asked = async {
            let found = NAMES.run(host.as_ref(), move || addresses(&name, port)).await??;
            if found.is_empty() { Err(io::Error::other("it has no address")) } else { Ok(found) }
        };
        self.own(&format!("resolve {host:?}"), asked).await
    }

    /// A secret of this host.
    pub async fn secret(&self, path: &Path) -> Result<String, Finding> {
        let secret = self.own("read a secret", of_file(path, secret)).await?;
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).push(secret.clone());
        Ok(secret)
    }

    /// The password in a file of this host, where one is needed.
    pub async fn password(&self, file: Option<&Path>) -> Result<Option<String>, Finding> {
        match file {
            Some(file) => self.secret(file).await.map(Some),
            None => Ok(None),
        }
    }

    /// The finding without any secret that was read for it: services repeat what they are told.
    pub fn without_secrets(&self, mut finding: Finding) -> Finding {
        for secret in self.secrets.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            finding.detail = finding.detail.replace(secret, "***");
            let escaped = format!("{secret:?}");
            finding.detail = finding.detail.replace(escaped.trim_matches('"'), "***");
            for word in secret.split_whitespace().filter(|word| word.len() >= WORD_BYTES_MIN) {
                finding.detail = finding.detail.replace(word, "***");
            }
        }
        finding
    }

    /// A pattern, built once and kept.
    pub fn pattern(&self, text: &str) -> Result<Arc<Regex>, Finding> {
        self.clients
            .pattern(text)
            .map_err(|why| Finding::unknown(format!("the pattern {text:?} cannot be used: {why}")))
    }
}

/// Shortest word of a secret that is one by itself, in bytes: a token behind `Bearer`, and not `Bearer`.
const WORD_BYTES_MIN: usize = 8;

/// Most addresses of one host that are tried.
const ADDRESSES_MAX: usize = 4;

async fn reach(place: SocketAddr) -> Result<TcpStream, Finding> {
    TcpStream::connect(place).await.map_err(|error| of_io_error(&error))
}

/// Connects to one place, to talk.
pub(crate) async fn connect(place: SocketAddr) -> Result<TcpStream, Finding> {
    let stream = reach(place).await?;
    // Requests are small and wait for nothing else.
    stream.set_nodelay(true).map_err(|error| of_io_error(&error))?;
    Ok(stream)
}

/// A name and a way to speak TLS to it.
pub(crate) struct Secured {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Secured {
    /// Greets over TLS.
    pub async fn greet(self, plain: TcpStream) -> Result<Stream, Finding> {
        match self.connector.connect(self.name, plain).await {
            Ok(secured) => Ok(Stream::Tls(Box::new(secured))),
            Err(error) => Err(trust::of_handshake(&error)),
        }
    }
}

fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok((host, port).to_socket_addrs()?.take(ADDRESSES_MAX).collect())
}

fn secret(path: &Path) -> Result<String, String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    let file = plain_file(path).map_err(failed)?;
    // The open file is examined, not its name, so that it cannot be exchanged in between.
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    closed(path, mode).map_err(|error| error.to_string())?;
    let mut content = Vec::new();
    file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut content).map_err(failed)?;
    one_line(path, content, SECRET_BYTES_MAX).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use holdfast_policies::observe::Outcome;
    use tokio::time::sleep;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// What comes of something of this vantage's own that takes so many seconds.
    async fn own(asker: &Asker<'_>, seconds: u32) -> Result<(), Finding> {
        let doing = async {
            sleep(SECOND * seconds).await;
            Ok::<_, String>(())
        };
        asker.own("look something up", doing).await
    }

    #[tokio::test(start_paused = true)]
    async fn this_vantage_has_half_of_the_time_for_its_own_part_whatever_the_service_takes() {
        let clients = Clients::new().unwrap();
        let asker = Asker::new(&clients, None, SECOND * 8);
        assert!(own(&asker, 1).await.is_ok());
        // Now the service takes its time, and then there is more to do here.
        sleep(SECOND * 5).await;
        assert!(own(&asker, 1).await.is_ok());
        assert!((SECOND * 2..SECOND * 3).contains(&asker.own_taken()), "the service has taken the rest");
        let asker = Asker::new(&clients, None, SECOND * 8);
        assert!(own(&asker, 3).await.is_ok());
        let late = own(&asker, 2).await.unwrap_err();
        assert!(late.outcome == Outcome::Unknown && late.detail.contains("too long here"), "{late:?}");
    }

    #[test]
    fn addresses_that_are_silent_leave_time_for_the_last_one() {
        let clients = Clients::new().unwrap();
        let asker = Asker::new(&clients, None, SECOND * 12);
        for (addresses, wanted) in [(1, SECOND * 4), (2, SECOND * 4), (3, SECOND * 4), (ADDRESSES_MAX, SECOND * 3)] {
            assert_eq!(asker.patience(addresses), wanted, "{addresses}");
        }
    }

    #[test]
    fn a_token_is_not_shown_without_the_word_before_it_either() {
        let clients = Clients::new().unwrap();
        let asker = Asker::new(&clients, None, SECOND);
        asker.secrets.lock().unwrap().push("Bearer t0k-of-shop".to_owned());
        for (said, shown) in [
            ("bad header Bearer t0k-of-shop", "bad header ***"),
            ("no such token: t0k-of-shop", "no such token: ***"),
            ("Bearer wants a token", "Bearer wants a token"),
        ] {
            assert_eq!(asker.without_secrets(Finding::fail(said)).detail, shown);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_this_vantage_does_when_the_time_is_over_accuses_nobody() {
        let clients = Clients::new().unwrap();
        let (began, asker) = (Instant::now(), Asker::new(&clients, None, SECOND * 8));
        sleep(SECOND * 6).await;
        assert_eq!(own(&asker, 3).await.unwrap_err().outcome, Outcome::Unknown);
        assert!(began.elapsed() < SECOND * 8, "nobody could tell it from a service that is silent");
    }
}
