//! The places that a URL means, and the first of them that can be reached.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use holdfast_policies::{observe::Outcome, probe::ADDRESS};
use tokio::time::timeout;
use url::{Host, Url};

use crate::{address::fill_in, finding::Finding, network::asker::connect};

pub(super) fn readable(text: &str) -> Result<Url, Finding> {
    let url = Url::parse(text).map_err(|error| Finding::unknown(format!("{text:?} is no url: {error}")))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        _ => Err(Finding::unknown(format!("{text:?} is not an http or https url"))),
    }
}

pub(super) fn place(written: &str, address: Option<IpAddr>, url: &Url) -> Result<SocketAddr, Finding> {
    let filled = match (written, address) {
        (ADDRESS, Some(address)) => address.to_string(),
        _ => fill_in(written, address).ok_or_else(|| Finding::unknown("the guest has no address"))?,
    };
    let alone = || filled.parse::<IpAddr>().map(|address| SocketAddr::from((address, port(url))));
    filled.parse().or_else(|_| alone()).map_err(|_| Finding::unknown(format!("{written:?} is no place to connect to")))
}

/// The address that a URL has in place of a name.
pub(super) fn literal(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(four) => Some(four.into()),
        Host::Ipv6(six) => Some(six.into()),
        Host::Domain(_) => None,
    }
}

pub(super) fn host(url: &Url) -> Result<&str, Finding> {
    url.host_str().ok_or_else(|| Finding::unknown("the url names no host"))
}

pub(super) fn port(url: &Url) -> u16 {
    url.port_or_known_default().unwrap_or(80)
}

/// The first of them that can be reached. Where none can, what one of them did to us counts: that this host has no way to
/// another one, as where a name has an IPv6 address and the host has none, takes nothing from it. One that is silent keeps us from
/// the next one for `patience` alone, as it keeps users.
pub(super) async fn first_of(places: &[SocketAddr], patience: Duration) -> Result<tokio::net::TcpStream, Finding> {
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
}
