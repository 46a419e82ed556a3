//! Where a service may lead whoever asks it.
//!
//! ```text
//!   policy ── names a place ──► asked, whatever it is
//!   service ── redirects ─────► asked, unless it is this host itself, or what only this host can reach
//! ```
//! A service runs in a guest, and a guest is not trusted. Whoever follows its redirects asks in this host's name: programs on the
//! loopback take whoever comes for their own, and what a cloud tells its machines about themselves lies at a link-local address.
//! Where the policy itself names such a place, its services may lead to others of that kind.

use std::net::{IpAddr, SocketAddr};

use tokio::net::TcpStream;

use crate::finding::Finding;

/// Whose word it is that a place is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The policy's, or that of a service on a host that it names.
    Policy,
    /// The policy's, which names this host itself.
    PolicyOfOwn,
    /// A service's, which leads to somewhere else.
    Service,
}

impl Whose {
    /// The policy's; `address` is what it names, if that is known before a name is resolved.
    pub fn policy(address: Option<IpAddr>) -> Self {
        if address.is_some_and(is_own) { Self::PolicyOfOwn } else { Self::Policy }
    }

    /// Once a service has led to another host.
    pub fn led_on(self) -> Self {
        match self {
            Self::Policy | Self::Service => Self::Service,
            Self::PolicyOfOwn => Self::PolicyOfOwn,
        }
    }

    /// Whether a place may be asked that is written as an address. Who is led to their own loopback by it, as users are too, have not
    /// been served.
    pub fn word_for_place(self, place: SocketAddr) -> Result<Vec<SocketAddr>, Finding> {
        match self {
            Self::Service if is_own(place.ip()) => {
                Err(Finding::fail(format!("it redirects to {place}, which is nobody else's than of whoever asks")))
            }
            Self::Policy | Self::PolicyOfOwn | Self::Service => Ok(vec![place]),
        }
    }

    /// The places of a name that may be asked. What a name means on this host may be this host's own doing.
    pub fn word_for_name(self, name: &str, places: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Finding> {
        match self {
            Self::Policy | Self::PolicyOfOwn => Ok(places),
            Self::Service => {
                let others: Vec<_> = places.into_iter().filter(|place| !is_own(place.ip())).collect();
                if others.is_empty() { Err(not_followed(name)) } else { Ok(others) }
            }
        }
    }

    /// Whether a connection that stands may be used: it may have come about to this host by an address of its own.
    pub fn word_for_connection(self, stream: &TcpStream) -> Result<(), Finding> {
        match (self, stream.local_addr(), stream.peer_addr()) {
            (Self::Service, Ok(here), Ok(there)) if here.ip() == there.ip() => Err(not_followed(&there.to_string())),
            _ => Ok(()),
        }
    }
}

fn not_followed(to: &str) -> Finding {
    Finding::unknown(format!("it redirects to {to}, which here is this host itself, and is not followed"))
}

/// Whether an address means whoever uses it: loopback, any, link-local.
fn is_own(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(four) => {
            let [first, ..] = four.octets();
            first == 0 || four.is_loopback() || four.is_link_local()
        }
        IpAddr::V6(six) => {
            let [first, ..] = six.segments();
            six.is_loopback() || six.is_unspecified() || first & 0xffc0 == 0xfe80
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_policies::observe::Outcome;
    use tokio::net::TcpListener;

    use super::*;

    fn place(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_service_leads_nobody_to_the_host_that_asks_it() {
        let own = ["127.0.0.1:80", "127.8.8.8:80", "0.0.0.0:80", "169.254.169.254:80", "[::1]:80", "[::]:80"];
        for own in own.into_iter().chain(["[::ffff:127.0.0.1]:80", "[fe80::1]:80"]) {
            let refused = Whose::Service.word_for_place(place(own)).unwrap_err();
            assert_eq!(refused.outcome, Outcome::Fail, "{own}");
            let refused = Whose::Service.word_for_name("shop.example", vec![place(own)]).unwrap_err();
            assert_eq!(refused.outcome, Outcome::Unknown, "the name may be in this host's own file: {own}");
            assert!(Whose::policy(None).word_for_place(place(own)).is_ok(), "the policy may say so: {own}");
        }
        for other in ["10.0.0.5:80", "192.0.2.1:80", "[fd00::5]:80", "[2001:db8::1]:80"] {
            assert_eq!(Whose::Service.word_for_place(place(other)).unwrap(), [place(other)]);
        }
        let mixed = vec![place("127.0.0.1:80"), place("10.0.0.5:80")];
        assert_eq!(Whose::Service.word_for_name("shop.example", mixed).unwrap(), [place("10.0.0.5:80")]);
    }

    #[test]
    fn whose_word_counts_is_not_forgotten_on_the_way() {
        let (guest, own) = (Whose::policy("10.0.0.5".parse().ok()), Whose::policy("127.0.0.1".parse().ok()));
        assert_eq!((guest, guest.led_on(), guest.led_on().led_on()), (Whose::Policy, Whose::Service, Whose::Service));
        assert_eq!((own, own.led_on()), (Whose::PolicyOfOwn, Whose::PolicyOfOwn));
    }

    #[tokio::test]
    async fn any_address_of_this_host_is_known_by_the_connection() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        assert_eq!(Whose::Service.word_for_connection(&stream).unwrap_err().outcome, Outcome::Unknown);
        assert!(Whose::Policy.word_for_connection(&stream).is_ok());
    }
}
