//! HTTP over the network: status, and text in the body.

use std::{error::Error, io, net::IpAddr};

use holdfast_policies::model::HttpProbe;
use reqwest::Response;

use crate::{
    clients::{Clients, Unresolved, deepest},
    finding::{BODY_BYTES_MAX, Finding, is_theirs, of_body},
};

/// What stands for the guest's address in a URL.
pub(crate) const ADDRESS: &str = "{address}";

/// Asks over HTTP; the caller bounds the time.
pub(crate) async fn ask(clients: &Clients, probe: &HttpProbe, address: Option<IpAddr>) -> Finding {
    let Some(url) = fill_in(&probe.url, address) else {
        return Finding::unknown("the guest has no address");
    };
    let client = match clients.for_url(&url) {
        Ok(client) => client,
        Err(why) => return Finding::unknown(format!("cannot ask over https from here: {why}")),
    };
    match client.get(url).send().await {
        Ok(response) => judge(response, probe).await,
        Err(error) => of_error(&error),
    }
}

/// The URL with the address in it; an IPv6 address gets its brackets.
pub(crate) fn fill_in(url: &str, address: Option<IpAddr>) -> Option<String> {
    if !url.contains(ADDRESS) {
        return Some(url.to_owned());
    }
    let host = match address? {
        IpAddr::V4(four) => four.to_string(),
        IpAddr::V6(six) => format!("[{six}]"),
    };
    // Operators may have written the brackets themselves.
    Some(url.replace("[{address}]", &host).replace(ADDRESS, &host))
}

async fn judge(mut response: Response, probe: &HttpProbe) -> Finding {
    let status = response.status().as_u16();
    if status != probe.status {
        return Finding::fail(format!("status {status}, wanted {}", probe.status));
    }
    let mut body = Vec::new();
    while body.len() < BODY_BYTES_MAX {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend(chunk.iter().take(BODY_BYTES_MAX - body.len())),
            Ok(None) => break,
            Err(error) => return of_error(&error),
        }
    }
    of_body(&body, probe.body.as_deref(), &format!("status {status}"))
}

/// Judges an error by its innermost causes: what this vantage could not do is `Unknown`, what the other side did is `Fail`.
fn of_error(error: &reqwest::Error) -> Finding {
    let why = deepest(error);
    if error.is_builder() || ours(error) {
        Finding::unknown(format!("cannot ask from here: {why}"))
    } else {
        Finding::fail(why)
    }
}

fn ours(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<Unresolved>() {
            return true;
        }
        if let Some(errno) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return !is_theirs(errno);
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_gets_brackets_once() {
        let six = "fd00::7".parse().ok();
        for url in ["http://{address}:80/", "http://[{address}]:80/"] {
            assert_eq!(fill_in(url, six).unwrap(), "http://[fd00::7]:80/");
        }
        assert_eq!(fill_in("http://{address}/", None), None);
        assert_eq!(fill_in("http://app.example/", None).unwrap(), "http://app.example/");
    }
}
