//! HTTP over the network: one connection for each question, redirects only as far as they are wanted, nothing unpacked.
//!
//! What an answer costs is bounded: the head, the part of the body that is read, and with the caller's deadline the time.

use std::{error::Error, net::SocketAddr};

use holdfast_policies::probe::{HttpProbe, HttpVersion, Method, TlsSettings};
use http_body_util::Full;
use hyper::{
    HeaderMap, Request,
    body::Bytes,
    header::{HeaderName, HeaderValue},
};
use regex::bytes::Regex;
use url::Url;

use crate::{
    address::fill_in,
    finding::Finding,
    judge::{self, Answer},
    network::{
        asker::Asker,
        http1, http2,
        led::Whose,
        places::{first_of, host, literal, place, port, readable},
        stream::Stream,
    },
};

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
            HttpVersion::One => {
                http1::exchange(stream, self.request(false)?.map(|()| Full::new(self.content.clone()))).await
            }
            HttpVersion::Two => {
                let reply = http2::exchange(stream, self.request(true)?, self.content.clone()).await?;
                Ok(Answer { status: reply.status, location: http1::location(&reply.headers), body: reply.body })
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

/// The same ways to speak TLS, without showing who asks, and for whatever name is asked.
fn of_nobody(tls: &TlsSettings) -> TlsSettings {
    TlsSettings { certificate_file: None, key_file: None, server_name: None, ..tls.clone() }
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

#[cfg(test)]
mod tests {
    use super::*;

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
