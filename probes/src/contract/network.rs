//! What every kind of question over the network promises: deadline, bounds, `Unknown` where it could not be asked, and no
//! secret in what it tells.

use std::{
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use holdfast_policies::{
    model::{HttpProbe, Probe, TcpProbe},
    observe::{DETAIL_BYTES_MAX, Observation, Outcome},
    probe::{DnsProbe, Grade, GrpcProbe, HttpVersion, RecordKind, RedisProbe, SqlProbe, TlsProbe, TlsSettings},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
};

use crate::{
    Target, ask,
    contract::{
        plugin::plugin,
        scene::{Here, closed_port, inside, network},
    },
};

const LIMIT: Duration = Duration::from_secs(2);
/// What scheduling on a busy machine may add, before this vantage says itself that it was late.
pub(super) const SLACK: Duration = Duration::from_secs(20);

pub(super) fn lenient() -> TlsSettings {
    TlsSettings { verify: false, ..TlsSettings::default() }
}

pub(super) fn sql(port: u16, password_file: Option<PathBuf>) -> SqlProbe {
    SqlProbe {
        port,
        user: "holdfast".to_owned(),
        password_file,
        database: String::new(),
        before: Vec::new(),
        query: "SELECT 1".to_owned(),
        expect: Some("1".to_owned()),
        tls: None,
    }
}

fn redis(port: u16, password_file: Option<PathBuf>) -> RedisProbe {
    let (command, expect) = (vec!["PING".to_owned()], Some("PONG".to_owned()));
    RedisProbe { port, user: None, password_file, command, expect, tls: None }
}

/// Every kind that speaks to a port of the guest over TCP.
pub(super) fn conversations(port: u16) -> Vec<Probe> {
    let http = HttpProbe::get(format!("http://{{address}}:{port}/"));
    let https = HttpProbe { tls: lenient(), ..HttpProbe::get(format!("https://{{address}}:{port}/")) };
    let http2 = HttpProbe { version: HttpVersion::Two, ..http.clone() };
    let secure_sql = SqlProbe { tls: Some(lenient()), ..sql(port, None) };
    vec![
        Probe::Http(Box::new(http)),
        Probe::Http(Box::new(https)),
        Probe::Http(Box::new(http2)),
        Probe::Tcp(TcpProbe { expect: Some("220 ".to_owned()), ..TcpProbe::to(port) }),
        Probe::Tls(TlsProbe { port, tls: lenient(), days_left: None, expiring: Grade::Slow }),
        Probe::Grpc(GrpcProbe { port, service: String::new(), tls: None }),
        Probe::Postgres(sql(port, None)),
        Probe::Postgres(secure_sql.clone()),
        Probe::Mysql(sql(port, None)),
        Probe::Mysql(secure_sql),
        Probe::Redis(redis(port, None)),
    ]
}

/// A server that says one thing once it has been told so many bytes. Returns its port.
pub(super) async fn server_of_one_word(told: usize, word: Vec<u8>) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_exact(&mut vec![0; told]).await.unwrap();
        stream.write_all(&word).await.unwrap();
        // It does not hang up first.
        let _ = stream.read(&mut [0]).await;
    });
    port
}

pub(super) fn dns(port: u16) -> Probe {
    let name = "www.example".to_owned();
    Probe::Dns(DnsProbe { name, kind: RecordKind::A, server: None, port, expect: Vec::new() })
}

pub(super) async fn asked(probe: &Probe, target: &Target) -> Observation {
    let began = Instant::now();
    let observation = ask(probe, target, LIMIT).await;
    assert!(began.elapsed() < LIMIT + SLACK, "{probe:?} took {:?}", began.elapsed());
    assert!(observation.detail.len() <= DETAIL_BYTES_MAX, "{probe:?}: {observation:?}");
    assert!(!observation.detail.contains(char::is_control), "{probe:?}: {observation:?}");
    observation
}

/// Asks all at once, of the same target.
pub(super) async fn all_asked(probes: impl IntoIterator<Item = Probe>, target: &Target) -> Vec<(Probe, Observation)> {
    let asking = probes.into_iter().map(|probe| async move {
        let seen = asked(&probe, target).await;
        (probe, seen)
    });
    join_all(asking).await
}

/// A machine so busy that this process overslept is no failure of the promise: the answer is then `Unknown`, and says so.
pub(super) fn is(observation: &Observation, wanted: Outcome) -> bool {
    observation.outcome == wanted || observation.detail.starts_with("this vantage itself was late")
}

/// A server that does the same to every connection, and counts those that are open.
async fn server<F, D>(serve: F) -> (u16, Arc<AtomicUsize>)
where
    F: Fn(TcpStream) -> D + Send + 'static,
    D: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let open = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&open);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let (serving, count) = (serve(stream), Arc::clone(&count));
            tokio::spawn(async move {
                let _ = serving.await;
                count.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    (port, open)
}

/// Reads to the end and says nothing.
async fn mute(mut stream: TcpStream) -> std::io::Result<()> {
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map(|_| ())
}

#[tokio::test]
async fn a_mute_service_fails_by_the_deadline_whatever_the_kind() {
    let (port, _) = server(mute).await;
    for (probe, seen) in all_asked(conversations(port), &network()).await {
        assert!(is(&seen, Outcome::Fail), "{probe:?}: {seen:?}");
    }
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let seen = asked(&dns(silent.local_addr().unwrap().port()), &network()).await;
    assert!(is(&seen, Outcome::Fail), "{seen:?}");
}

#[tokio::test]
async fn a_refused_connection_fails_whatever_the_kind() {
    let port = closed_port();
    for (probe, seen) in all_asked(conversations(port).into_iter().chain([dns(port)]), &network()).await {
        assert!(is(&seen, Outcome::Fail), "{probe:?}: {seen:?}");
    }
}

#[tokio::test]
async fn a_service_that_hangs_up_fails_whatever_the_kind() {
    let (port, _) = server(|stream| async move {
        drop(stream);
        Ok(())
    })
    .await;
    for (probe, seen) in all_asked(conversations(port), &network()).await {
        assert!(is(&seen, Outcome::Fail), "{probe:?}: {seen:?}");
    }
}

#[tokio::test]
async fn a_service_that_listens_and_has_closed_its_own_half_fails_whatever_the_kind() {
    let (port, _) = server(|mut stream| async move {
        stream.shutdown().await?;
        mute(stream).await
    })
    .await;
    for (probe, seen) in all_asked(conversations(port), &network()).await {
        assert!(is(&seen, Outcome::Fail), "{probe:?}: {seen:?}");
    }
}

/// A port whose queue is full, while what is returned lives: connections to it stay half open for ever.
async fn full_queue() -> (u16, TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let listener = socket.listen(0).unwrap();
    let place = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(connected) = tokio::time::timeout(Duration::from_millis(500), TcpStream::connect(place)).await {
        waiting.push(connected.unwrap());
        assert!(waiting.len() < 64, "the queue has no end");
    }
    (place.port(), listener, waiting)
}

#[tokio::test]
async fn a_connection_that_stays_half_open_fails_by_the_deadline_whatever_the_kind() {
    let (port, _listener, _waiting) = full_queue().await;
    let bare = Probe::Tcp(TcpProbe::to(port));
    for (probe, seen) in all_asked(conversations(port).into_iter().chain([bare]), &network()).await {
        assert!(is(&seen, Outcome::Fail), "{probe:?}: {seen:?}");
    }
}

/// A frame of HTTP/2 (RFC 9113, 4.1).
fn frame(kind: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, 0][..], &stream.to_be_bytes()[..], content].concat()
}

/// Answers the first request over HTTP/2 with headers that never end.
async fn headers_without_end(mut stream: TcpStream) -> std::io::Result<()> {
    const HEADERS: u8 = 1;
    stream.write_all(&frame(4, 0, &[])).await?;
    // What clients begin with, and then frames.
    stream.read_exact(&mut [0; 24]).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        stream.read_exact(&mut vec![0; usize::try_from(length).unwrap()]).await?;
        if head[3] == HEADERS {
            break;
        }
    }
    // `:status: 200`, and then `a: b` again and again.
    stream.write_all(&frame(HEADERS, 1, &[0x88])).await?;
    let more = frame(9, 1, &[0, 1, b'a', 1, b'b'].repeat(3_000));
    loop {
        stream.write_all(&more).await?;
    }
}

#[tokio::test]
async fn headers_without_end_fail_in_bounded_memory_over_http2_as_well() {
    let (port, _) = server(headers_without_end).await;
    let http2 = HttpProbe { version: HttpVersion::Two, ..HttpProbe::get(format!("http://{{address}}:{port}/")) };
    let grpc = Probe::Grpc(GrpcProbe { port, service: String::new(), tls: None });
    for (probe, seen) in all_asked([Probe::Http(Box::new(http2)), grpc], &network()).await {
        assert!(is(&seen, Outcome::Fail), "{probe:?}: {seen:?}");
    }
}

/// Interim answers, and frames of a kind that nobody knows: neither is wrong.
#[tokio::test]
async fn what_may_come_before_an_answer_and_does_not_end_is_heard_only_so_far() {
    let interim = b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(500);
    let unknown = frame(0x40, 0, &[]).repeat(1_000);
    for (version, first, more) in
        [(HttpVersion::One, Vec::new(), interim), (HttpVersion::Two, frame(4, 0, &[]), unknown)]
    {
        let (port, _) = server(move |mut stream| {
            let (first, more) = (first.clone(), more.clone());
            async move {
                stream.write_all(&first).await?;
                loop {
                    stream.write_all(&more).await?;
                }
            }
        })
        .await;
        let probe = HttpProbe { version, ..HttpProbe::get(format!("http://{{address}}:{port}/")) };
        // To hear so much takes a while on a busy machine.
        let seen = ask(&Probe::Http(Box::new(probe)), &network(), 10 * LIMIT).await;
        let is_cut = seen.outcome == Outcome::Fail && seen.detail.contains("says more than");
        assert!(is_cut || seen.detail.starts_with("this vantage itself was late"), "{version:?}: {seen:?}");
    }
}

#[tokio::test]
async fn a_service_that_says_nonsense_without_end_fails_in_bounded_memory_whatever_the_kind() {
    for byte in [0u8, b'x', b'*', b'$', b'1', 0x7f, 0xff] {
        let (port, _) = server(move |mut stream| async move {
            loop {
                stream.write_all(&[byte; 16 * 1024]).await?;
            }
        })
        .await;
        for (probe, seen) in all_asked(conversations(port), &network()).await {
            assert!(is(&seen, Outcome::Fail), "{byte} {probe:?}: {seen:?}");
        }
    }
}

#[tokio::test]
async fn a_service_that_drips_fails_by_the_deadline_whatever_the_kind() {
    let (port, _) = server(|mut stream| async move {
        loop {
            stream.write_all(b"1").await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    for (probe, seen) in all_asked(conversations(port), &network()).await {
        assert!(is(&seen, Outcome::Fail), "{probe:?}: {seen:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_asked_from_here_is_unknown_whatever_the_kind() {
    // The kernel refuses to connect to the broadcast address, and sends nothing.
    let unreachable = Target { address: Some(IpAddr::V4(Ipv4Addr::BROADCAST)), ..network() };
    let no_address = Target { address: None, ..network() };
    for target in [unreachable, no_address] {
        for probe in conversations(80).into_iter().chain([dns(53), Probe::Ping {}]) {
            let seen = asked(&probe, &target).await;
            assert_eq!(seen.outcome, Outcome::Unknown, "{probe:?}: {seen:?}");
        }
    }
}

#[tokio::test]
async fn files_of_this_host_that_are_missing_or_open_to_others_make_it_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let open = folder.path().join("open");
    std::fs::write(&open, "secret\n").unwrap();
    std::fs::set_permissions(&open, PermissionsExt::from_mode(0o644)).unwrap();
    // Whoever opened it would wait until somebody writes into it.
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
    let (port, _) = server(mute).await;
    for file in [Path::new("/nowhere/file"), &open, &pipe] {
        let file = Some(file.to_owned());
        let mut http = HttpProbe::get(format!("http://{{address}}:{port}/"));
        http.header_files.insert("Authorization".to_owned(), file.clone().unwrap());
        let tls = TlsSettings { ca_file: file.clone(), ..TlsSettings::default() };
        let https = HttpProbe { tls: tls.clone(), ..HttpProbe::get(format!("https://{{address}}:{port}/")) };
        for probe in [
            Probe::Http(Box::new(http)),
            Probe::Http(Box::new(https)),
            Probe::Tls(TlsProbe { port, tls, days_left: None, expiring: Grade::Slow }),
            Probe::Postgres(sql(port, file.clone())),
            Probe::Mysql(sql(port, file.clone())),
            Probe::Redis(redis(port, file)),
        ] {
            let seen = asked(&probe, &network()).await;
            assert_eq!(seen.outcome, Outcome::Unknown, "{probe:?}: {seen:?}");
        }
    }
}

#[tokio::test]
async fn kinds_that_only_hosts_ask_are_unknown_in_the_guest() {
    let all = conversations(80).into_iter().chain([dns(53), Probe::Ping {}, plugin("exit 0")]);
    for probe in all.filter(|probe| probe.not_inside().is_some()) {
        let seen = asked(&probe, &inside(Here)).await;
        assert_eq!(seen.outcome, Outcome::Unknown, "{probe:?}: {seen:?}");
    }
}

#[tokio::test]
async fn a_question_that_is_dropped_leaves_no_connection_behind() {
    let (port, open) = server(mute).await;
    for probe in conversations(port) {
        let target = network();
        let asking = tokio::spawn(async move { ask(&probe, &target, Duration::from_secs(60)).await });
        until("the connection", || open.load(Ordering::SeqCst) == 1).await;
        asking.abort();
        until("its end", || open.load(Ordering::SeqCst) == 0).await;
    }
}

pub(super) async fn until(what: &str, condition: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < limit, "{what} has not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_service_that_repeats_what_it_is_told_gets_no_secret_into_the_detail() {
    const SECRET: &str = "correct horse \"battery\"";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, SECRET).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    let (port, _) = server(|mut stream| async move {
        let mut said = vec![0; 2048];
        let count = stream.read(&mut said).await?;
        let said = String::from_utf8_lossy(&said[..count]).into_owned();
        let answer = if said.starts_with('*') {
            format!("-ERR unknown command {}\r\n", said.replace("\r\n", " "))
        } else {
            let body = serde_json::json!({ "echo": said }).to_string();
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        };
        stream.write_all(answer.as_bytes()).await
    })
    .await;
    let mut http = HttpProbe::get(format!("http://{{address}}:{port}/"));
    http.header_files.insert("A".to_owned(), file.clone());
    http.json.insert("/echo".to_owned(), "nothing".into());
    for probe in [Probe::Http(Box::new(http)), Probe::Redis(redis(port, Some(file)))] {
        let seen = asked(&probe, &network()).await;
        assert_ne!(seen.outcome, Outcome::Pass);
        assert!(!seen.detail.contains("horse"), "{seen:?}");
    }
}

#[tokio::test]
async fn this_machine_answers_its_own_echo_requests() {
    let seen = asked(&Probe::Ping {}, &network()).await;
    let allowed = nix::unistd::geteuid().is_root();
    assert!(is(&seen, Outcome::Pass) || (!allowed && seen.outcome == Outcome::Unknown), "{seen:?}");
}
