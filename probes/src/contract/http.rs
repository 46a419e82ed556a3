//! What questions over HTTP, TLS and gRPC promise against servers that are good, wrong and hostile.

use holdfast_policies::{
    model::{HttpProbe, Probe, Statuses},
    observe::{Observation, Outcome},
    probe::{Grade, GrpcProbe, HttpVersion, Method, TlsProbe, TlsSettings},
};
use hyper::{HeaderMap, Response, body::Bytes};
use std::{os::unix::fs::PermissionsExt, time::Duration};
use tokio::net::TcpListener;

use crate::{
    ask,
    contract::{
        authority::{Authority, Kind},
        scene::{HEAD, Here, Manner, OK, here_is, inside, network, server},
    },
};

/// Long enough for any machine; only the outcome matters here.
pub(super) const LIMIT: Duration = Duration::from_secs(20);

pub(super) async fn asked(probe: HttpProbe) -> Observation {
    ask(&Probe::Http(Box::new(probe)), &network(), LIMIT).await
}

fn get(port: u16) -> HttpProbe {
    HttpProbe::get(format!("http://{{address}}:{port}/healthz"))
}

pub(super) fn secure(port: u16, tls: TlsSettings) -> HttpProbe {
    HttpProbe { tls, ..HttpProbe::get(format!("https://{{address}}:{port}/")) }
}

#[tokio::test]
async fn redirects_are_followed_as_far_as_they_are_wanted_and_a_loop_ends() {
    let goal = server(Manner::Says(OK)).await;
    let to_goal: &'static str =
        format!("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{goal}/\r\nContent-Length: 0\r\n\r\n").leak();
    let moved = server(Manner::Says(to_goal)).await;
    assert_eq!(asked(get(moved)).await.outcome, Outcome::Fail);
    assert_eq!(asked(HttpProbe { status: Statuses::only(302), ..get(moved) }).await.outcome, Outcome::Pass);
    assert_eq!(asked(HttpProbe { redirects: 1, ..get(moved) }).await.outcome, Outcome::Pass);
    let round = server(Manner::Says("HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n")).await;
    let seen = asked(HttpProbe { redirects: 3, ..get(round) }).await;
    assert_eq!((seen.outcome, seen.detail.as_str()), (Outcome::Fail, "more than 3 redirects"));
}

#[tokio::test]
async fn an_endless_body_is_read_only_so_far_and_nothing_is_unpacked() {
    let endless = server(Manner::Endless(HEAD)).await;
    assert_eq!(
        asked(get(endless)).await.outcome,
        Outcome::Pass,
        "the status is right, and nothing is wanted of the body"
    );
    let gigabyte = server(Manner::Endless("HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")).await;
    assert_eq!(asked(get(gigabyte)).await.outcome, Outcome::Pass);
    let seen = asked(HttpProbe { body: Some("ok".to_owned()), ..get(gigabyte) }).await;
    assert!(seen.outcome == Outcome::Fail && seen.detail.contains("65536 bytes"), "{seen:?}");
    let packed = server(Manner::Endless("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n")).await;
    let seen = asked(HttpProbe { body: Some("ok".to_owned()), ..get(packed) }).await;
    assert!(seen.detail.contains("65536 bytes"), "{seen:?}");
    let many = server(Manner::Endless("HTTP/1.1 200 OK\r\nA: b\r\nA: ")).await;
    let seen = asked(get(many)).await;
    assert!(seen.outcome == Outcome::Fail && seen.detail.contains("head is larger"), "{seen:?}");
}

/// As old and small servers write them, without any user noticing.
#[tokio::test]
async fn a_head_that_is_written_beside_the_rules_fails_nobody() {
    for head in ["X-Old : a\r\n", "X-Long: a\r\n  b\r\n\tc\r\n", "no header at all\r\n", "X-\u{fc}: a\r\n"] {
        let said: &'static str = format!("HTTP/1.1 200 OK\r\n{head}Content-Length: 2\r\n\r\nok").leak();
        let probe = HttpProbe { body: Some("ok".to_owned()), ..get(server(Manner::Says(said)).await) };
        let seen = asked(probe).await;
        assert_eq!(seen.outcome, Outcome::Pass, "{head:?}: {seen:?}");
    }
}

/// 64 MiB of one word as `gzip` packs them, which takes a thousandth of that; `None` where there is no `gzip`.
fn bomb() -> Option<Vec<u8>> {
    let pack = "yes hold | head -c 67108864 | gzip -9";
    here_is("gzip").then(|| std::process::Command::new("sh").args(["-c", pack]).output().unwrap().stdout)
}

#[tokio::test]
async fn an_archive_bomb_is_a_short_page_over_every_version_of_http_and_in_the_guest() {
    let Some(bomb) = bomb() else {
        eprintln!("left out because this machine has no gzip");
        return;
    };
    let packed = vec![("content-encoding", "gzip")];
    let two = over_two((200, packed, bomb.clone(), Vec::new())).await;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", bomb.len());
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let one = listener.local_addr().unwrap().port();
    let whole = [head.as_bytes(), &bomb].concat();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 2048]).await;
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, &whole).await;
        }
    });
    let wanted = |probe: HttpProbe| HttpProbe { body: Some("hold\nhold\n".to_owned()), ..probe };
    let size = format!("{} bytes", bomb.len().min(65_536));
    let mut all = vec![asked(wanted(get(one))).await];
    all.push(asked(wanted(HttpProbe { version: HttpVersion::Two, ..get(two) })).await);
    if here_is("curl") {
        all.push(ask(&Probe::Http(Box::new(wanted(get(one)))), &inside(Here), LIMIT).await);
    }
    for seen in all {
        assert!(seen.outcome == Outcome::Fail && seen.detail.contains(&size), "{size}: {seen:?}");
    }
}

#[tokio::test]
async fn the_request_says_what_the_policy_says() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut said = vec![0; 4096];
        let mut length = 0;
        while !said[..length].ends_with(b"a=b") {
            length += tokio::io::AsyncReadExt::read(&mut stream, &mut said[length..]).await.unwrap();
        }
        tokio::io::AsyncWriteExt::write_all(&mut stream, OK.as_bytes()).await.unwrap();
        String::from_utf8_lossy(&said[..length]).into_owned()
    });
    let mut probe = HttpProbe {
        method: Method::Post,
        send: Some("a=b".to_owned()),
        // The name is not resolved: where to connect is written.
        connect_to: Some(format!("{{address}}:{port}")),
        ..HttpProbe::get("http://shop.invalid:81/x?y=z")
    };
    probe.headers.insert("X-Probe".to_owned(), "one".to_owned());
    assert_eq!(asked(probe).await.outcome, Outcome::Pass);
    let heard = heard.await.unwrap().to_lowercase();
    for wanted in ["post /x?y=z http/1.1\r\n", "host: shop.invalid:81\r\n", "x-probe: one\r\n", "content-length: 3\r\n"]
    {
        assert!(heard.contains(wanted), "{heard}");
    }
    assert!(!heard.contains("accept-encoding"), "what is packed is not unpacked: {heard}");
}

#[tokio::test]
async fn a_name_that_cannot_be_resolved_here_is_unknown() {
    let seen = asked(HttpProbe::get(format!("http://{}.example/", "x".repeat(70)))).await;
    assert_eq!(seen.outcome, Outcome::Unknown, "{seen:?}");
}

#[tokio::test]
async fn certificates_that_are_expired_self_signed_or_for_another_name_are_told_apart() {
    let authority = Authority::new();
    let trusted = authority.trusted();
    for (kind, words) in [
        (Kind::Good, "valid for"),
        (Kind::Expired, "has expired"),
        (Kind::OtherName, "for another name"),
        (Kind::SelfSigned, "self-signed"),
        (Kind::OwnAuthority, "self-signed"),
    ] {
        let port = authority.server(kind, false, OK).await;
        let probe = TlsProbe { port, tls: trusted.clone(), days_left: Some(30), expiring: Grade::Slow };
        let seen = ask(&Probe::Tls(probe.clone()), &network(), LIMIT).await;
        assert_eq!(seen.outcome == Outcome::Pass, kind == Kind::Good, "{seen:?}");
        assert!(seen.detail.contains(words), "{seen:?}");
        let seen = asked(secure(port, trusted.clone())).await;
        assert_eq!(seen.outcome == Outcome::Pass, kind == Kind::Good, "{seen:?}");
        // Only where it is written out is any certificate taken.
        let unverified = TlsSettings { verify: false, ..TlsSettings::default() };
        assert_eq!(asked(secure(port, unverified)).await.outcome, Outcome::Pass);
    }
    let port = authority.server(Kind::Good, false, OK).await;
    // Without the authority's file, those of the system count, and none of them knows it.
    let seen = asked(secure(port, TlsSettings::default())).await;
    assert_ne!(seen.outcome, Outcome::Pass, "{seen:?}");
    for (expiring, wanted) in [(Grade::Slow, Outcome::Slow), (Grade::Fail, Outcome::Fail)] {
        let probe = TlsProbe { port, tls: trusted.clone(), days_left: Some(100_000), expiring };
        assert_eq!(ask(&Probe::Tls(probe), &network(), LIMIT).await.outcome, wanted);
    }
    let named = TlsSettings { server_name: Some("localhost".to_owned()), ..trusted.clone() };
    assert_eq!(asked(secure(port, named)).await.outcome, Outcome::Pass);
    let misnamed = TlsSettings { server_name: Some("elsewhere.example".to_owned()), ..trusted };
    assert_eq!(asked(secure(port, misnamed)).await.outcome, Outcome::Fail);
}

#[tokio::test]
async fn a_service_that_wants_our_certificate_gets_it_and_without_one_was_not_asked() {
    let authority = Authority::new();
    let port = authority.server(Kind::Good, true, OK).await;
    let without = authority.trusted();
    let seen = asked(secure(port, without.clone())).await;
    assert_eq!(seen.outcome, Outcome::Unknown, "{seen:?}");
    let (certificate, key) = authority.client();
    let with = TlsSettings { certificate_file: Some(certificate), key_file: Some(key), ..without };
    let seen = asked(secure(port, with)).await;
    assert_eq!(seen.outcome, Outcome::Pass, "{seen:?}");
}

/// With TLS 1.3 that is said when something is asked.
#[tokio::test]
async fn a_service_over_http2_that_wants_a_certificate_of_ours_was_not_asked_either() {
    let authority = Authority::new();
    let port = authority.server(Kind::Good, true, OK).await;
    let two = HttpProbe { version: HttpVersion::Two, ..secure(port, authority.trusted()) };
    let grpc = GrpcProbe { port, service: String::new(), tls: Some(authority.trusted()) };
    for probe in [Probe::Http(Box::new(two)), Probe::Grpc(grpc)] {
        let seen = ask(&probe, &network(), LIMIT).await;
        assert!(seen.outcome == Outcome::Unknown && seen.detail.contains("refuses our certificate"), "{seen:?}");
    }
}

#[tokio::test]
async fn a_service_without_tls_fails_a_question_over_tls_and_says_why() {
    let port = server(Manner::Says(OK)).await;
    let seen = asked(secure(port, TlsSettings { verify: false, ..TlsSettings::default() })).await;
    assert!(seen.outcome == Outcome::Fail && seen.detail.contains("does not speak tls"), "{seen:?}");
}

/// What a server over HTTP/2 answers: status, content, trailers.
type Answer = (u16, Vec<(&'static str, &'static str)>, Vec<u8>, Vec<(&'static str, &'static str)>);

fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

async fn over_two((status, headers, body, trailers): Answer) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut connection) = h2::server::handshake(stream).await else { continue };
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                drop(request);
                let mut response = Response::builder().status(status).body(()).unwrap();
                response.headers_mut().extend(map(&headers));
                let Ok(mut sending) = respond.send_response(response, false) else { continue };
                let _ = sending.send_data(Bytes::from(body.clone()), trailers.is_empty());
                if !trailers.is_empty() {
                    let _ = sending.send_trailers(map(&trailers));
                }
            }
        }
    });
    port
}

#[tokio::test]
async fn a_login_that_is_refused_accuses_nobody_and_a_status_that_nobody_has_logged_in_for_does() {
    const REFUSES: &str = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "Bearer of-yesterday").unwrap();
    std::fs::set_permissions(&token, PermissionsExt::from_mode(0o600)).unwrap();
    let port = server(Manner::Says(REFUSES)).await;
    assert_eq!(asked(get(port)).await.outcome, Outcome::Fail);
    let mut with = get(port);
    with.header_files.insert("Authorization".to_owned(), token);
    let seen = asked(with.clone()).await;
    assert_eq!(seen.outcome, Outcome::Unknown, "{seen:?}");
    with.status = Statuses::only(401);
    assert_eq!(asked(with.clone()).await.outcome, Outcome::Pass, "that is what is wanted");
    let elsewhere: &'static str =
        format!("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{port}/\r\nContent-Length: 0\r\n\r\n").leak();
    with.url = get(server(Manner::Says(elsewhere)).await).url;
    (with.status, with.redirects) = (Statuses::only(200), 1);
    let seen = asked(with).await;
    assert_eq!(seen.outcome, Outcome::Fail, "nothing is shown to whom it leads to: {seen:?}");
}

#[tokio::test]
async fn a_header_that_cannot_be_sent_over_http2_accuses_nobody() {
    let port = over_two((200, Vec::new(), b"all ok".to_vec(), Vec::new())).await;
    let mut probe = HttpProbe { version: HttpVersion::Two, ..get(port) };
    probe.headers.insert("TE".to_owned(), "gzip".to_owned());
    let seen = asked(probe).await;
    assert_eq!(seen.outcome, Outcome::Unknown, "{seen:?}");
}

#[tokio::test]
async fn a_grpc_server_behind_a_gate_that_wants_a_login_was_not_asked() {
    for (status, wanted) in
        [(401, Outcome::Unknown), (403, Outcome::Unknown), (404, Outcome::Unknown), (503, Outcome::Fail)]
    {
        let port = over_two((status, Vec::new(), Vec::new(), Vec::new())).await;
        let probe = Probe::Grpc(GrpcProbe { port, service: String::new(), tls: None });
        let seen = ask(&probe, &network(), LIMIT).await;
        assert_eq!(seen.outcome, wanted, "{status}: {seen:?}");
    }
}

#[tokio::test]
async fn http2_is_spoken_and_its_bodies_are_bounded_too() {
    let port = over_two((200, Vec::new(), b"all ok".to_vec(), Vec::new())).await;
    let two = |port| HttpProbe { version: HttpVersion::Two, body: Some("ok".to_owned()), ..get(port) };
    assert_eq!(asked(two(port)).await.outcome, Outcome::Pass);
    assert_eq!(asked(get(port)).await.outcome, Outcome::Fail, "it speaks no HTTP/1.1");
    let large = over_two((200, Vec::new(), vec![b'x'; 8 << 20], Vec::new())).await;
    let seen = asked(two(large)).await;
    assert!(seen.detail.contains("65536 bytes"), "{seen:?}");
}

#[tokio::test]
async fn a_grpc_server_is_believed_about_its_health_and_what_it_does_not_offer_is_unknown() {
    let message = |status: u8| vec![0, 0, 0, 0, 2, 8, status];
    let kind = vec![("content-type", "application/grpc")];
    for (body, code, wanted) in [
        (message(1), "0", Outcome::Pass),
        (message(2), "0", Outcome::Fail),
        (message(3), "0", Outcome::Fail),
        (Vec::new(), "0", Outcome::Fail),
        (Vec::new(), "5", Outcome::Fail),
        (Vec::new(), "14", Outcome::Fail),
        (Vec::new(), "12", Outcome::Unknown),
        (Vec::new(), "16", Outcome::Unknown),
    ] {
        let port = over_two((200, kind.clone(), body, vec![("grpc-status", code)])).await;
        let probe = Probe::Grpc(GrpcProbe { port, service: "shop.v1".to_owned(), tls: None });
        let seen = ask(&probe, &network(), LIMIT).await;
        assert_eq!(seen.outcome, wanted, "{code}: {seen:?}");
    }
    let port = server(Manner::Says(OK)).await;
    let seen = ask(&Probe::Grpc(GrpcProbe { port, service: String::new(), tls: None }), &network(), LIMIT).await;
    assert_eq!(seen.outcome, Outcome::Fail, "{seen:?}");
}
