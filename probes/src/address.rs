//! The guest's address in a URL that a policy wrote with `{address}`.

use std::net::IpAddr;

use holdfast_policies::probe::ADDRESS;

/// The URL with the address in it; an IPv6 address gets its brackets. `None` where one is asked for and there is none.
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
