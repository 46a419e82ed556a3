//! HTTP over the network: one connection for each question, redirects only as far as they are wanted, nothing unpacked.
//!
//! What an answer costs is bounded: the head, the part of the body that is read, and with the caller's deadline the time.

use std::{
    error::Error,
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    time::Duration,
};

use futures_util::future::{Either, select};
use holdfast_policies::{
    observe::Outcome,
    probe::{ADDRESS, HttpProbe, HttpVersion, Method, TlsSettings},
};
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Request,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{HeaderName, HeaderValue},
};
use hyper_util::rt::TokioIo;
use regex::bytes::Regex;
use tokio::time::timeout;
use url::{Host, Url};

use crate::{
    address::fill_in,
    finding::{BODY_BYTES_MAX, Finding},
    judge::{self, Answer},
    network::{
        asker::{Asker, connect},
        http2,
        kept::Kept,
        led::Whose,
        stream::Stream,
        trust,
    },
};

/// Largest head of a response, in bytes: servers send a few kilobytes, browsers give up at about 256 KiB.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Most headers of a response.
const HEADERS_MAX: usize = 128;

/// Who asks has not shown who it is, or not as the service wants it (RFC 9110, 15.5.2).
const UNAUTHORIZED: u16 = 401;

/// Asks over HTTP; the caller bounds the time.
pub(crate) async fn ask(asker: &Asker<'_>, probe: &HttpProbe) -> Finding {
    match converse(asker, probe).await {
        Ok(finding) | Err(finding) => finding,
    }
}

async fn converse(asker: &Asker<'_>, probe: &HttpProbe) -> Result<Finding, Finding> {
    let pattern = probe.body_matches.as_deref().map(|text| asker.pattern(text)).transpose()?;
    let mut step = Step::first(asker, probe).await?;
    let mut left = probe.redirects;
    loop {
        let answer = step.take(asker, probe).await?;
        let Some(next) = step.redirected(&answer).filter(|_| probe.redirects > 0) else {
            return Ok(step.judged(&answer, probe, pattern.as_deref()));
        };
        if left == 0 {
            return Err(Finding::fail(format!("more than {} redirects", probe.redirects)));
        }
        left -= 1;
        step = next?;
    }
}

/// One request on the way to an answer.
struct Step {
    url: Url,
    place: Option<SocketAddr>,
    method: Method,
    headers: HeaderMap,
    content: Bytes,
    tls: TlsSettings,
    /// Whose word it is that this place is asked.
    whose: Whose,
}

impl Step {
    async fn first(asker: &Asker<'_>, probe: &HttpProbe) -> Result<Self, Finding> {
        let address = asker.address();
        let url = fill_in(&probe.url, address.as_ref().ok().copied());
        let Some(url) = url else { return Err(Finding::unknown("the guest has no address")) };
        let url = readable(&url)?;
        let place = match &probe.connect_to {
            Some(written) => Some(place(written, address.as_ref().ok().copied(), &url)?),
            None => None,
        };
        let mut headers = HeaderMap::new();
        for (name, value) in &probe.headers {
            insert(&mut headers, name, value)?;
        }
        for (name, file) in &probe.header_files {
            insert(&mut headers, name, &asker.secret(file).await?)?;
        }
        let content = Bytes::from(probe.send.clone().unwrap_or_default());
        let whose = Whose::policy(place.map(|place| place.ip()).or_else(|| literal(&url)));
        Ok(Self { url, place, method: probe.method, headers, content, tls: probe.tls.clone(), whose })
    }

    async fn take(&self, asker: &Asker<'_>, probe: &HttpProbe) -> Result<Answer, Finding> {
        let stream = self.open(asker, probe).await?;
        match probe.version {
            HttpVersion::One => over_one(stream, self.request(false)?.map(|()| Full::new(self.content.clone()))).await,
            HttpVersion::Two => {
                let reply = http2::exchange(stream, self.request(true)?, self.content.clone()).await?;
                Ok(Answer { status: reply.status, location: location(&reply.headers), body: reply.body })
            }
        }
    }

    async fn open(&self, asker: &Asker<'_>, probe: &HttpProbe) -> Result<Stream, Finding> {
        let protocols: &[&[u8]] = match probe.version {
            HttpVersion::One => &[b"http/1.1"],
            HttpVersion::Two => &[b"h2"],
        };
        let host = host(&self.url)?;
        let secured = match self.url.scheme() {
            "https" => Some(asker.tls(&self.tls, host.trim_matches(['[', ']']), protocols).await?),
            _ => None,
        };
        let places = match self.place.or_else(|| literal(&self.url).map(|address| (address, port(&self.url)).into())) {
            Some(place) => self.whose.word_for_place(place)?,
            None => self.whose.word_for_name(host, asker.resolve(host, port(&self.url)).await?)?,
        };
        let plain = first_of(&places, asker.patience(places.len())).await?;
        self.whose.word_for_connection(&plain)?;
        match secured {
            Some(secured) => secured.greet(plain).await,
            None => Ok(Stream::Plain(plain)),
        }
    }

    fn request(&self, absolute: bool) -> Result<Request<()>, Finding> {
        let url = &self.url;
        let target = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let named = match url.port() {
            Some(port) => format!("{}:{port}", host(url)?),
            None => host(url)?.to_owned(),
        };
        let named = match self.headers.get("host") {
            Some(own) => own.to_str().map_err(|error| unaskable(&error))?.to_owned(),
            None => named,
        };
        let uri = if absolute { format!("{}://{named}{target}", url.scheme()) } else { target };
        let mut request = Request::builder()
            .method(self.method.word())
            .uri(uri)
            .header("user-agent", concat!("holdfast/", env!("CARGO_PKG_VERSION")))
            .header("accept", "*/*")
            .body(())
            .map_err(|error| unaskable(&error))?;
        let headers = request.headers_mut();
        headers.extend(self.headers.clone());
        headers.remove("host");
        if !absolute {
            insert(headers, "host", &named)?;
            insert(headers, "connection", "close")?;
        }
        Ok(request)
    }

    /// A service that refuses our login answers as it should, and no restart mends what stands in our file. One that was shown none,
    /// because somebody else has led to it, refuses nothing of ours.
    fn judged(&self, answer: &Answer, probe: &HttpProbe, pattern: Option<&Regex>) -> Finding {
        let status = answer.status;
        let has_shown = || probe.header_files.keys().any(|name| self.headers.contains_key(name.as_str()));
        if status == UNAUTHORIZED && !probe.status.contains(status) && has_shown() {
            return Finding::unknown(format!("the service refuses our login: status {status}"));
        }
        judge::of_answer(answer, probe, pattern, &format!("status {status}"))
    }

    /// Where an answer leads, if anywhere. What was meant for one place is not told to another.
    fn redirected(&self, answer: &Answer) -> Option<Result<Self, Finding>> {
        if !matches!(answer.status, 301 | 302 | 303 | 307 | 308) {
            return None;
        }
        let url = self.url.join(answer.location.as_deref()?).ok()?;
        if !matches!(url.scheme(), "http" | "https") {
            return Some(Err(Finding::fail("it redirects to something that is not http")));
        }
        let (same, same_host) = (url.origin() == self.url.origin(), url.host() == self.url.host());
        let writes = matches!(self.method, Method::Post | Method::Put);
        // Where the policy says which place a host's name means, it says so of one port: any other one is the service's word.
        let named = same || (same_host && self.place.is_none());
        let again = !writes || (same && matches!(answer.status, 307 | 308));
        Some(Ok(Self {
            place: self.place.filter(|_| same),
            headers: if same { self.headers.clone() } else { HeaderMap::new() },
            method: if again { self.method } else { Method::Get },
            content: if again && same { self.content.clone() } else { Bytes::new() },
            tls: if same_host { self.tls.clone() } else { of_nobody(&self.tls) },
            whose: if named { self.whose } else { self.whose.led_on() },
            url,
        }))
    }
}

fn readable(text: &str) -> Result<Url, Finding> {
    let url = Url::parse(text).map_err(|error| Finding::unknown(format!("{text:?} is no url: {error}")))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        _ => Err(Finding::unknown(format!("{text:?} is not an http or https url"))),
    }
}

fn place(written: &str, address: Option<IpAddr>, url: &Url) -> Result<SocketAddr, Finding> {
    let filled = match (written, address) {
        (ADDRESS, Some(address)) => address.to_string(),
        _ => fill_in(written, address).ok_or_else(|| Finding::unknown("the guest has no address"))?,
    };
    let alone = || filled.parse::<IpAddr>().map(|address| SocketAddr::from((address, port(url))));
    filled.parse().or_else(|_| alone()).map_err(|_| Finding::unknown(format!("{written:?} is no place to connect to")))
}

/// The address that a URL has in place of a name.
fn literal(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(four) => Some(four.into()),
        Host::Ipv6(six) => Some(six.into()),
        Host::Domain(_) => None,
    }
}

/// The same ways to speak TLS, without showing who asks, and for whatever name is asked.
fn of_nobody(tls: &TlsSettings) -> TlsSettings {
    TlsSettings { certificate_file: None, key_file: None, server_name: None, ..tls.clone() }
}

fn host(url: &Url) -> Result<&str, Finding> {
    url.host_str().ok_or_else(|| Finding::unknown("the url names no host"))
}

fn port(url: &Url) -> u16 {
    url.port_or_known_default().unwrap_or(80)
}

fn insert(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), Finding> {
    let bad =
        || Finding::unknown(format!("the header {name:?} cannot be sent: it has characters that headers cannot have"));
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
    headers.insert(name, HeaderValue::from_str(value).map_err(|_| bad())?);
    Ok(())
}

fn unaskable(error: &dyn Error) -> Finding {
    Finding::unknown(format!("the request cannot be made: {error}"))
}

/// The first of them that can be reached. Where none can, what one of them did to us counts: that this host has no way to
/// another one, as where a name has an IPv6 address and the host has none, takes nothing from it. One that is silent keeps us from
/// the next one for `patience` alone, as it keeps users.
async fn first_of(places: &[SocketAddr], patience: Duration) -> Result<tokio::net::TcpStream, Finding> {
    let mut failed = Finding::unknown("there is no address to connect to");
    let Some((last, others)) = places.split_last() else { return Err(failed) };
    for place in others {
        match timeout(patience, connect(*place)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(finding)) if failed.outcome == Outcome::Unknown => failed = finding,
            Err(_) if failed.outcome == Outcome::Unknown => {
                failed = Finding::fail(format!("{place} does not answer within {patience:?}"));
            }
            Ok(Err(_)) | Err(_) => {}
        }
    }
    match connect(*last).await {
        Err(finding) if failed.outcome == Outcome::Unknown => Err(finding),
        Err(_) => Err(failed),
        connected => connected,
    }
}

async fn over_one(stream: Stream, request: Request<Full<Bytes>>) -> Result<Answer, Finding> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES_MAX).max_headers(HEADERS_MAX);
    // The library tells errors as they are.
    let (stream, _) = Kept::of(stream);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|error| of_error(&error))?;
    let exchange = async move {
        let response = sender.send_request(request).await.map_err(|error| of_error(&error))?;
        let (head, body) = response.into_parts();
        let body = beginning(body, ends_by_hanging_up(&head.headers)).await?;
        Ok(Answer { status: head.status.as_u16(), location: location(&head.headers), body })
    };
    // Both are dropped together, so that nothing goes on after the deadline.
    match select(pin!(exchange), pin!(connection)).await {
        Either::Left((answer, _)) => answer,
        Either::Right((_, exchange)) => exchange.await,
    }
}

/// Whether the end of a body is told by the end of the connection alone (RFC 9112, 6.3).
fn ends_by_hanging_up(headers: &HeaderMap) -> bool {
    !headers.contains_key("content-length") && !headers.contains_key("transfer-encoding")
}

/// Whether the other side has hung up over TLS without saying so there, as many small servers do. Browsers take that for the end.
fn is_hung_up(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::UnexpectedEof)
}

async fn beginning(mut body: Incoming, ends_by_hanging_up: bool) -> Result<Vec<u8>, Finding> {
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) if ends_by_hanging_up && is_hung_up(&error) => break,
            Err(error) => return Err(of_error(&error)),
        };
        let Some(chunk) = frame.data_ref() else { continue };
        read.extend(chunk.iter().take(BODY_BYTES_MAX - read.len()));
        if read.len() >= BODY_BYTES_MAX {
            break;
        }
    }
    Ok(read)
}

fn location(headers: &HeaderMap) -> Option<String> {
    headers.get("location").and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// Judges an error by its causes: what this vantage could not do is `Unknown`, what the other side did is `Fail`.
fn of_error(error: &hyper::Error) -> Finding {
    // The library tells this kind of error by its text alone.
    if error.is_parse() && error.to_string().contains("too large") {
        return Finding::fail(format!("the response's head is larger than {HEAD_BYTES_MAX} bytes"));
    }
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    let mut last = error.to_string();
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return trust::of_io(error);
        }
        last = error.to_string();
        next = error.source();
    }
    Finding::fail(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_to_connect_to_takes_the_port_of_the_url_where_it_has_none() {
        let url = Url::parse("https://shop.example/").unwrap();
        for (written, address, wanted) in [
            ("{address}", "10.0.0.5", "10.0.0.5:443"),
            ("{address}", "fd00::5", "[fd00::5]:443"),
            ("{address}:8443", "fd00::5", "[fd00::5]:8443"),
            ("10.0.0.9:81", "10.0.0.5", "10.0.0.9:81"),
        ] {
            assert_eq!(place(written, address.parse().ok(), &url).unwrap().to_string(), wanted);
        }
        assert!(place("{address}", None, &url).is_err());
    }

    #[tokio::test]
    async fn an_address_that_refuses_counts_though_this_host_has_no_way_to_another_one() {
        // Nobody listens at the first, and the kernel has no way to the second over TCP.
        let taken = tokio::net::TcpSocket::new_v4().unwrap();
        taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let (refuses, no_way) = (taken.local_addr().unwrap(), "255.255.255.255:9".parse().unwrap());
        for (places, wanted) in [
            (vec![refuses, no_way], Outcome::Fail),
            (vec![no_way, refuses], Outcome::Fail),
            (vec![no_way], Outcome::Unknown),
            (vec![], Outcome::Unknown),
        ] {
            let failed = first_of(&places, LIMIT).await.unwrap_err();
            assert_eq!(failed.outcome, wanted, "{places:?}: {}", failed.detail);
        }
    }

    /// Long enough for any machine.
    const LIMIT: Duration = Duration::from_secs(20);

    /// As where a name has an IPv6 address, and the way there ends somewhere.
    #[tokio::test]
    async fn an_address_that_is_silent_does_not_keep_the_next_one_from_being_asked() {
        const SHORT: Duration = Duration::from_millis(200);
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        // Its queue is full, so that connections to it stay half open.
        let listener = socket.listen(0).unwrap();
        let (silent, mut waiting) = (listener.local_addr().unwrap(), Vec::new());
        while let Ok(connected) = timeout(SHORT, connect(silent)).await {
            waiting.push(connected.unwrap());
            assert!(waiting.len() < 64, "the queue has no end");
        }
        let answers = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let place = answers.local_addr().unwrap();
        let stream = timeout(LIMIT, first_of(&[silent, place], SHORT)).await.unwrap().unwrap();
        assert_eq!(stream.peer_addr().unwrap(), place);
        // And where the next one refuses, silence is what it comes to.
        drop(answers);
        let failed = timeout(LIMIT, first_of(&[silent, place], SHORT)).await.unwrap().unwrap_err();
        assert!(failed.outcome == Outcome::Fail && failed.detail.contains("does not answer"), "{}", failed.detail);
    }

    #[test]
    fn what_was_meant_for_one_place_is_not_told_to_another() {
        let tls = TlsSettings {
            certificate_file: Some("/c.pem".into()),
            key_file: Some("/k.pem".into()),
            server_name: Some("shop.example".to_owned()),
            ..TlsSettings::default()
        };
        let step = Step {
            url: Url::parse("https://a.example/x").unwrap(),
            place: "10.0.0.1:443".parse().ok(),
            method: Method::Post,
            headers: HeaderMap::from_iter([(HeaderName::from_static("authorization"), HeaderValue::from_static("s"))]),
            content: Bytes::from_static(b"secret"),
            tls: tls.clone(),
            whose: Whose::Policy,
        };
        let to = |status, location: &str| {
            let answer = Answer { status, location: Some(location.to_owned()), body: Vec::new() };
            step.redirected(&answer).unwrap().unwrap()
        };
        let same = to(307, "/y");
        assert_eq!((same.url.as_str(), same.method, same.headers.len()), ("https://a.example/y", Method::Post, 1));
        assert_eq!((&same.tls, same.whose), (&tls, Whose::Policy));
        let other = to(307, "https://b.example/");
        assert!(other.headers.is_empty() && other.content.is_empty() && other.place.is_none());
        assert_eq!((other.tls.clone(), other.whose), (TlsSettings::default(), Whose::Service));
        assert_eq!(other.method, Method::Get, "no service has us write to somebody else");
        let port = to(308, "https://a.example:8443/");
        assert_eq!((port.tls.clone(), port.method), (tls.clone(), Method::Get), "the same host, and another service");
        assert_eq!(port.whose, Whose::Service, "here the name may mean somebody else");
        assert_eq!(to(303, "/z").method, Method::Get);
    }

    /// As where a guest's server knows itself by that name.
    #[test]
    fn a_guest_that_is_asked_for_localhost_leads_nobody_to_their_own() {
        for (place, wanted) in [(Some("10.0.0.5:80"), Whose::Service), (None, Whose::PolicyOfOwn)] {
            let url = Url::parse("http://127.0.0.1/x").unwrap();
            let place: Option<SocketAddr> = place.and_then(|place| place.parse().ok());
            let step = Step {
                whose: Whose::policy(place.map(|place| place.ip()).or_else(|| literal(&url))),
                url,
                place,
                method: Method::Get,
                headers: HeaderMap::new(),
                content: Bytes::new(),
                tls: TlsSettings::default(),
            };
            let location = Some("http://127.0.0.1:6379/".to_owned());
            let next = step.redirected(&Answer { status: 302, location, body: Vec::new() }).unwrap().unwrap();
            assert_eq!((next.place, next.whose), (None, wanted), "{place:?}");
        }
    }
}
