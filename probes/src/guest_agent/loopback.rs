//! Asks services of the guest on its own loopback, without running programs: `tcp`, `http` and `metric`, in plain text.
//!
//! What an answer costs is bounded: its head, the part of its body that is read and kept, and the time. There is no TLS here:
//! `https` is left to the guest's `curl`, where that may be run.

use std::{
    error::Error,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::pin,
    time::Duration,
};

use bytes::Bytes;
use holdfast_policies::{
    model::Probe,
    probe::{HttpProbe, MetricProbe, pattern},
};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, Uri, body::Incoming};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::{
    address::fill_in,
    ask::overslept,
    finding::{BODY_BYTES_MAX, Finding},
    head,
    judge::{self, Answer},
    kinds,
};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Largest part of a page with metrics that is read, in bytes; of it only the lines of one metric are kept. Large exporters
/// have some megabytes.
const PAGE_BYTES_MAX: usize = 8 << 20;

/// Longest line of such a page that can be read, in bytes.
const LINE_BYTES_MAX: usize = 8 << 10;

/// Where a probe would connect to.
///
/// # Errors
/// Why this agent does not ask that.
pub(super) fn place(probe: &Probe) -> Result<SocketAddr, String> {
    if let Some(why) = probe.not_inside() {
        return Err(why.to_owned());
    }
    match probe {
        Probe::Tcp(tcp) => Ok(SocketAddr::new(LOOPBACK, tcp.port)),
        Probe::Http(http) => readable(&http.url).map(|(_, place)| place),
        Probe::Metric(metric) => readable(&metric.url).map(|(_, place)| place),
        Probe::Tls(_)
        | Probe::Dns(_)
        | Probe::Grpc(_)
        | Probe::Postgres(_)
        | Probe::Mysql(_)
        | Probe::Redis(_)
        | Probe::Ping {}
        | Probe::AgentPing {}
        | Probe::Exec(_)
        | Probe::File(_)
        | Probe::Systemd(_)
        | Probe::Process(_)
        | Probe::Heartbeat(_)
        | Probe::Plugin(_) => Err("this agent does not ask that".to_owned()),
    }
}

/// Asks, where this is a question to the loopback; `None` where not.
pub(super) async fn answer(probe: &Probe, within: Duration) -> Option<Finding> {
    let place = place(probe).ok()?;
    // A little is kept for the answer's way, so that a service that is silent is told from an agent that is.
    let (began, limit) = (Instant::now(), within - within / 16);
    Some(match timeout(limit, put(probe, place)).await {
        Ok(Ok(finding) | Err(finding)) => finding,
        Err(_) if overslept(began.elapsed(), limit) => Finding::unknown("the guest let its agent run too late to tell"),
        Err(_) => Finding::fail(format!("no answer within {limit:?}")),
    })
}

async fn put(probe: &Probe, place: SocketAddr) -> Result<Finding, Finding> {
    match probe {
        Probe::Http(probe) => http(probe, place).await,
        Probe::Metric(probe) => metric(probe, place).await,
        _ => connect(place).await.map(|_| Finding::pass("connected")),
    }
}

async fn http(probe: &HttpProbe, place: SocketAddr) -> Result<Finding, Finding> {
    let unusable = |why| Finding::unknown(format!("the pattern cannot be used: {why}"));
    let pattern = probe.body_matches.as_deref().map(pattern::build).transpose().map_err(unusable)?;
    let (status, body) = exchange(request(probe)?, place, Reading::of_beginning()).await?;
    let answer = Answer { status, location: None, body };
    Ok(judge::of_answer(&answer, probe, pattern.as_ref(), &format!("status {status}")))
}

async fn metric(probe: &MetricProbe, place: SocketAddr) -> Result<Finding, Finding> {
    let request = request(&HttpProbe::get(&probe.url))?;
    let (status, body) = exchange(request, place, Reading::of_series(&probe.name)).await?;
    if !(200..300).contains(&status) {
        return Err(Finding::fail(format!("{} cannot be read: status {status}", probe.url)));
    }
    Ok(kinds::of_page(&String::from_utf8_lossy(&body), probe))
}

/// The URL, and where it leads, if that is this very machine and in plain text.
fn readable(url: &str) -> Result<(Uri, SocketAddr), String> {
    let url = fill_in(url, Some(LOOPBACK)).and_then(|url| url.parse::<Uri>().ok());
    let url = url.ok_or_else(|| "this is no url".to_owned())?;
    let port = match url.scheme_str() {
        Some("http") => url.port_u16().unwrap_or(80),
        Some("https") => return Err("this agent speaks no TLS".to_owned()),
        Some(_) | None => return Err("this is not an http url".to_owned()),
    };
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let address = if host == "localhost" { Some(LOOPBACK) } else { host.parse().ok() };
    match address.filter(IpAddr::is_loopback) {
        Some(address) => Ok((url, SocketAddr::new(address, port))),
        None => Err("this agent asks its own loopback only".to_owned()),
    }
}

fn request(probe: &HttpProbe) -> Result<Request<Full<Bytes>>, Finding> {
    let (url, _) = readable(&probe.url).map_err(Finding::unknown)?;
    let target = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let named = match (url.host().unwrap_or_default(), url.port_u16()) {
        (host, Some(port)) => format!("{host}:{port}"),
        (host, None) => host.to_owned(),
    };
    let agent = concat!("holdfast-guest/", env!("CARGO_PKG_VERSION"));
    let own = [("host", named.as_str()), ("user-agent", agent), ("accept", "*/*"), ("connection", "close")];
    let mut request = Request::builder().method(probe.method.word()).uri(target);
    for (name, value) in own {
        if !probe.headers.keys().any(|declared| declared.eq_ignore_ascii_case(name)) {
            request = request.header(name, value);
        }
    }
    for (name, value) in &probe.headers {
        request = request.header(name.as_str(), value.as_str());
    }
    let content = Bytes::from(probe.send.clone().unwrap_or_default());
    let made = request.body(Full::new(content));
    made.map_err(|error| Finding::unknown(format!("the request cannot be made: {error}")))
}

async fn connect(place: SocketAddr) -> Result<TcpStream, Finding> {
    TcpStream::connect(place).await.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset | io::ErrorKind::TimedOut => {
            Finding::fail(format!("port {}: {error}", place.port()))
        }
        // Out of files or ports: nothing that the service could do about.
        _ => Finding::unknown(format!("port {}: {error}", place.port())),
    })
}

/// The status, and what is kept of the body.
async fn exchange(
    request: Request<Full<Bytes>>,
    place: SocketAddr,
    reading: Reading<'_>,
) -> Result<(u16, Vec<u8>), Finding> {
    let stream = TokioIo::new(connect(place).await?);
    let (mut sender, connection) = head::reading().handshake(stream).await.map_err(|error| broken(&error))?;
    let exchange = async move {
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        Ok::<_, Finding>((response.status().as_u16(), read(response, reading).await?))
    };
    let mut exchange = pin!(exchange);
    // Both are dropped together, so that nothing goes on after the deadline.
    tokio::select! {
        answer = &mut exchange => answer,
        _ = connection => exchange.await,
    }
}

async fn read(response: Response<Incoming>, mut reading: Reading<'_>) -> Result<Vec<u8>, Finding> {
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken(&error))?;
        if let Some(chunk) = frame.data_ref() {
            reading.take(chunk);
        }
        if reading.has_enough() {
            break;
        }
    }
    Ok(reading.end())
}

/// Whatever breaks an exchange on the loopback is the service's doing.
fn broken(error: &hyper::Error) -> Finding {
    let (mut last, mut next) = (error.to_string(), error.source());
    while let Some(cause) = next {
        (last, next) = (cause.to_string(), cause.source());
    }
    Finding::fail(last)
}

/// A body in the reading: its beginning, or the lines that begin with the name of a metric.
struct Reading<'a> {
    name: Option<&'a str>,
    bytes: usize,
    line: Vec<u8>,
    kept: Vec<u8>,
}

impl<'a> Reading<'a> {
    fn of_beginning() -> Self {
        Self { name: None, bytes: 0, line: Vec::new(), kept: Vec::new() }
    }

    fn of_series(name: &'a str) -> Self {
        Self { name: Some(name), ..Self::of_beginning() }
    }

    fn take(&mut self, chunk: &[u8]) {
        self.bytes = self.bytes.saturating_add(chunk.len());
        if self.name.is_none() {
            keep(&mut self.kept, chunk, BODY_BYTES_MAX);
            return;
        }
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            keep(&mut self.line, piece, LINE_BYTES_MAX);
            if piece.ends_with(b"\n") {
                self.end_line();
            }
        }
    }

    /// A line that does not fit any more is left out whole.
    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let fits = line.ends_with(b"\n") && self.kept.len().saturating_add(line.len()) <= BODY_BYTES_MAX;
        // Longer names that begin alike may have so many lines that there is no room for these.
        if fits && self.name.is_some_and(|name| kinds::is_of(&line, name)) {
            self.kept.extend(line);
        }
    }

    fn has_enough(&self) -> bool {
        match self.name {
            Some(_) => self.bytes >= PAGE_BYTES_MAX,
            None => self.kept.len() >= BODY_BYTES_MAX,
        }
    }

    fn end(mut self) -> Vec<u8> {
        if !self.line.is_empty() && !self.has_enough() {
            self.line.push(b'\n');
            self.end_line();
        }
        self.kept
    }
}

fn keep(kept: &mut Vec<u8>, more: &[u8], most: usize) {
    let room = most.saturating_sub(kept.len());
    kept.extend(more.iter().take(room));
}

#[cfg(test)]
mod tests {
    use holdfast_policies::probe::TcpProbe;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    #[test]
    fn only_the_loopback_is_asked_and_only_in_plain_text() {
        let http = |url: &str| place(&Probe::Http(Box::new(HttpProbe::get(url))));
        for (url, wanted) in [
            ("http://{address}/", "127.0.0.1:80"),
            ("http://{address}:8080/health?deep=1", "127.0.0.1:8080"),
            ("http://localhost:81", "127.0.0.1:81"),
            ("http://[::1]:82/", "[::1]:82"),
        ] {
            assert_eq!(http(url).map(|place| place.to_string()), Ok(wanted.to_owned()), "{url}");
        }
        assert!(http("https://{address}/").unwrap_err().contains("TLS"));
        for url in ["http://10.0.0.1/", "http://shop.example/", "http://0.0.0.0/", "ftp://127.0.0.1/", "no url"] {
            assert!(http(url).is_err(), "{url}");
        }
        assert_eq!(place(&Probe::Tcp(TcpProbe::to(22))).map(|place| place.to_string()), Ok("127.0.0.1:22".to_owned()));
        let redirects = HttpProbe { redirects: 1, ..HttpProbe::get("http://{address}/") };
        assert!(place(&Probe::Http(Box::new(redirects))).is_err(), "they lead away");
    }

    #[test]
    fn of_a_large_page_only_the_lines_of_the_metric_are_kept() {
        let mut reading = Reading::of_series("lag");
        for _ in 0..10_000 {
            reading.take(b"other_metric{a=\"b\"} 1\nla");
            reading.take(b"ter 2\n");
        }
        reading.take(b"lag{db=\"a\"} 3\nlag{db=\"");
        reading.take(&vec![b'x'; LINE_BYTES_MAX]);
        reading.take(b"\"} 4\nlag 5");
        assert_eq!(String::from_utf8(reading.end()).unwrap(), "lag{db=\"a\"} 3\nlag 5\n");
    }

    #[test]
    fn the_lines_of_a_metric_whose_name_is_longer_take_no_room() {
        let mut reading = Reading::of_series("lag");
        for _ in 0..10_000 {
            reading.take(b"lag_seconds_bucket{le=\"1\"} 7\n");
        }
        reading.take(b"lag 3\nlag\t4\n");
        assert_eq!(String::from_utf8(reading.end()).unwrap(), "lag 3\nlag\t4\n");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut reading = Reading::of_series("lag");
        while !reading.has_enough() {
            reading.take(&b"lag 1\n".repeat(1_000));
        }
        assert!(reading.end().len() <= BODY_BYTES_MAX);
        let mut reading = Reading::of_beginning();
        while !reading.has_enough() {
            reading.take(&[b'x'; 1_000]);
        }
        assert_eq!(reading.end().len(), BODY_BYTES_MAX);
    }

    #[tokio::test]
    async fn a_head_that_is_written_beside_the_rules_is_read_as_hosts_read_it() {
        const SAID: &[u8] =
            b"HTTP/1.1 200 OK\r\nX-Old : a\r\nX-Long: a\r\n b\r\nno header\r\nContent-Length : 2\r\n\r\nok";
        let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
        let url = format!("http://{{address}}:{}/", listener.local_addr().unwrap().port());
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 2048]).await;
            stream.write_all(SAID).await.unwrap();
        });
        let probe = Probe::Http(Box::new(HttpProbe { body: Some("ok".to_owned()), ..HttpProbe::get(url) }));
        assert_eq!(answer(&probe, Duration::from_secs(20)).await, Some(Finding::pass("status 200")));
        served.await.unwrap();
    }
}
