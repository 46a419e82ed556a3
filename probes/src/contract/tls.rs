//! What greetings over TLS promise: which name and protocols are asked for, which certificates are taken, and that nobody is accused of
//! what this host cannot speak.

use std::net::Ipv4Addr;

use holdfast_policies::{
    model::{HttpProbe, Probe},
    observe::Outcome,
    probe::{Grade, GrpcProbe, HttpVersion, RedisProbe, TlsProbe, TlsSettings},
};
use rustls::server::Acceptor;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{LazyConfigAcceptor, StartHandshake, TlsAcceptor};

use crate::{
    ask,
    contract::{
        authority::{Authority, Kind},
        http::{LIMIT, asked, secure},
        network::{lenient, server_of_one_word},
        scene::{OK, network},
    },
};

/// What a client asks for in its greeting: a name (SNI) and protocols (ALPN).
type Wish = (Option<String>, Vec<String>);

fn wish(start: &StartHandshake<TcpStream>) -> Wish {
    let hello = start.client_hello();
    let protocols = hello.alpn().into_iter().flatten().map(|word| String::from_utf8_lossy(word).into_owned());
    (hello.server_name().map(str::to_owned), protocols.collect())
}

/// A server that hears what is asked for, and hangs up.
async fn hears() -> (u16, mpsc::UnboundedReceiver<Wish>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (heard, wishes) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await.unwrap();
            heard.send(wish(&start)).unwrap();
        }
    });
    (port, wishes)
}

#[tokio::test]
async fn the_name_and_the_protocol_that_the_policy_means_are_asked_for_in_the_greeting() {
    let (port, mut wishes) = hears().await;
    let named = || TlsSettings { server_name: Some("shop.example".to_owned()), ..lenient() };
    let get = |url: String, tls| HttpProbe { tls, ..HttpProbe::get(url) };
    let by_address = |tls| get(format!("https://{{address}}:{port}/"), tls);
    let connect_to = Some(format!("{{address}}:{port}"));
    let elsewhere = HttpProbe { connect_to, ..get("https://www.example/".to_owned(), lenient()) };
    let two = HttpProbe { version: HttpVersion::Two, ..elsewhere.clone() };
    let http = |probe| Probe::Http(Box::new(probe));
    let redis =
        |tls| RedisProbe { port, user: None, password_file: None, command: vec!["PING".to_owned()], expect: None, tls };
    let tls = Probe::Tls(TlsProbe { port, tls: named(), days_left: None, expiring: Grade::Slow });
    let grpc = Probe::Grpc(GrpcProbe { port, service: String::new(), tls: Some(named()) });
    for (probe, name, protocols) in [
        (http(by_address(lenient())), None, &["http/1.1"][..]),
        (http(by_address(named())), Some("shop.example"), &["http/1.1"][..]),
        (http(elsewhere), Some("www.example"), &["http/1.1"][..]),
        (http(two), Some("www.example"), &["h2"][..]),
        (tls, Some("shop.example"), &[][..]),
        (grpc, Some("shop.example"), &["h2"][..]),
        (Probe::Redis(redis(Some(named()))), Some("shop.example"), &[][..]),
    ] {
        let seen = ask(&probe, &network(), LIMIT).await;
        assert_eq!(seen.outcome, Outcome::Fail, "{seen:?}");
        let (asked_for, spoken) = wishes.recv().await.unwrap();
        assert_eq!(asked_for.as_deref(), name, "{probe:?}");
        assert_eq!(spoken, protocols, "{probe:?}");
    }
}

#[tokio::test]
async fn a_self_signed_certificate_is_taken_where_it_is_trusted_itself_whatever_it_calls_itself() {
    let authority = Authority::new();
    for kind in [Kind::SelfSigned, Kind::OwnAuthority] {
        let port = authority.server(kind, false, OK).await;
        let itself = TlsSettings { ca_file: Some(authority.shown()), ..TlsSettings::default() };
        let misnamed = TlsSettings { server_name: Some("elsewhere.example".to_owned()), ..itself.clone() };
        for (tls, wanted, words) in [
            (itself, Outcome::Pass, "valid for"),
            (misnamed, Outcome::Fail, "for another name"),
            (authority.trusted(), Outcome::Fail, "self-signed and not trusted"),
        ] {
            let probe = TlsProbe { port, tls: tls.clone(), days_left: Some(30), expiring: Grade::Slow };
            let seen = ask(&Probe::Tls(probe), &network(), LIMIT).await;
            assert!(seen.outcome == wanted && seen.detail.contains(words), "{seen:?}");
            let seen = asked(secure(port, tls)).await;
            assert_eq!(seen.outcome, wanted, "{seen:?}");
        }
    }
}

/// What a server answers first that knows no newer version than TLS 1.0 (RFC 2246): an alert, or a greeting in that version.
fn of_old() -> [Vec<u8>; 2] {
    let alert = vec![21, 3, 1, 0, 2, 2, 70];
    // Version, random, no session, one cipher, no compression.
    let greeting: Vec<u8> = [&[3, 1][..], &[7; 32], &[0, 0, 0x2f, 0]].concat();
    let length = u8::try_from(greeting.len()).unwrap();
    let message = [&[2, 0, 0, length][..], &greeting].concat();
    [alert, [&[22, 3, 1, 0, length + 4][..], &message].concat()]
}

#[tokio::test]
async fn a_service_with_which_this_host_has_no_version_of_tls_in_common_is_not_accused() {
    for said in of_old() {
        let port = server_of_one_word(5, said).await;
        let seen = asked(secure(port, TlsSettings { verify: false, ..TlsSettings::default() })).await;
        assert_eq!(seen.outcome, Outcome::Unknown, "{seen:?}");
    }
}

/// A server that reads a request, says this and hangs up, and does not say over TLS that it will.
async fn hangs_up_after(authority: &Authority, says: &'static str) -> u16 {
    let acceptor = TlsAcceptor::from(authority.config(Kind::Good, false, &[]));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = acceptor.accept(stream).await.unwrap();
            let _ = stream.read(&mut [0; 2048]).await.unwrap();
            stream.write_all(says.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
        }
    });
    port
}

#[tokio::test]
async fn a_page_that_ends_with_its_connection_is_whole_though_the_server_just_hangs_up() {
    let authority = Authority::new();
    for (says, wanted) in [
        ("HTTP/1.1 200 OK\r\n\r\nall ok", Outcome::Pass),
        ("HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nall ok", Outcome::Pass),
        ("HTTP/1.1 200 OK\r\n\r\nall ", Outcome::Fail),
        ("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nall ok", Outcome::Fail),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nall ok\r\n", Outcome::Fail),
    ] {
        let port = hangs_up_after(&authority, says).await;
        let probe = HttpProbe { body: Some("ok".to_owned()), ..secure(port, authority.trusted()) };
        let seen = asked(probe).await;
        assert_eq!(seen.outcome, wanted, "{says}: {seen:?}");
    }
}

#[tokio::test]
async fn a_service_that_refuses_the_version_of_http_that_is_asked_for_is_not_accused() {
    let authority = Authority::new();
    let acceptor = TlsAcceptor::from(authority.config(Kind::Good, false, &[b"http/1.1"]));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // It ends with an alert.
            let _ = acceptor.accept(stream).await;
        }
    });
    let two = HttpProbe { version: HttpVersion::Two, ..secure(port, authority.trusted()) };
    let grpc = GrpcProbe { port, service: String::new(), tls: Some(authority.trusted()) };
    for probe in [Probe::Http(Box::new(two)), Probe::Grpc(grpc)] {
        let seen = ask(&probe, &network(), LIMIT).await;
        assert!(seen.outcome == Outcome::Unknown && seen.detail.contains("alpn"), "{probe:?}: {seen:?}");
    }
}
