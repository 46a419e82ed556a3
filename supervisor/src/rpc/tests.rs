//! Tests of the RPC over real TLS on loopback.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use holdfast_policies::{
    names::{HostName, OperatorName},
    operators::{OperatorCertificate, Serial},
    revocation::{self, Revocation},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{
    super::pki::{self, fixture::written},
    connection::IN_FLIGHT_PER_CHANNEL,
    *,
};

/// Longer than anything takes that comes about, on a busy machine, too.
const LONG: Duration = Duration::from_secs(20);

fn host(name: &str) -> HostName {
    HostName::new(name).unwrap()
}

fn files(authority: &pki::Authority, name: &str, directory: &Path) -> pki::TlsFiles {
    written(directory, name, authority, &pki::issue(authority, &host(name)).unwrap())
}

fn operator_files(authority: &pki::Authority, name: &str, directory: &Path) -> pki::TlsFiles {
    let issued = pki::issue_operator(authority, &OperatorName::new(name).unwrap(), 1).unwrap();
    written(directory, name, authority, &issued)
}

/// Answers with who asked, on which channel, and the body; `slow` takes its time and `bad` is refused.
#[derive(Default)]
struct Echo {
    asked: AtomicU64,
    /// The time that `slow` takes.
    go_on: tokio::sync::Notify,
}

#[async_trait::async_trait]
impl Handler for Echo {
    async fn handle(&self, peer: HostName, channel: Channel, body: Vec<u8>) -> Result<Vec<u8>, String> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        match body.as_slice() {
            b"slow" => self.go_on.notified().await,
            b"bad" => return Err("not today".to_owned()),
            b"panic" => panic!("on purpose"),
            _ => {}
        }
        Ok(format!("{peer} {channel:?} {}", String::from_utf8_lossy(&body)).into_bytes())
    }

    async fn handle_operator(&self, operator: OperatorCertificate, body: Vec<u8>) -> Result<Vec<u8>, String> {
        Ok(format!("operator {} {}", operator.name, String::from_utf8_lossy(&body)).into_bytes())
    }
}

/// Serves whom a list of revoked hosts lets in.
#[derive(Default)]
struct Listed {
    revoked: Mutex<BTreeMap<HostName, Revocation>>,
    echo: Echo,
}

impl Listed {
    fn revoke(&self, of: &str, readmitted: Option<Serial>) {
        let (by, why, boots) = ("ann".to_owned(), "stolen".to_owned(), Vec::new());
        let revocation = Revocation { since: 1, by, why, boots, keys: [].into(), readmitted };
        self.revoked.lock().unwrap().insert(host(of), revocation);
    }
}

#[async_trait::async_trait]
impl Handler for Listed {
    fn admit(&self, peer: &pki::Peer) -> Result<(), String> {
        let pki::Peer::Host(certificate) = peer else { return Ok(()) };
        revocation::admit(&self.revoked.lock().unwrap(), certificate).map_err(|revoked| revoked.to_string())
    }

    async fn handle(&self, peer: HostName, channel: Channel, body: Vec<u8>) -> Result<Vec<u8>, String> {
        self.echo.handle(peer, channel, body).await
    }
}

struct Pair {
    authority: pki::Authority,
    directory: tempfile::TempDir,
    echo: Arc<Echo>,
    server: Server,
    client: Client,
}

async fn pair(limits: Limits) -> Pair {
    let authority = pki::make_authority().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let tls = pki::server_config(&files(&authority, "hv-b", directory.path())).unwrap();
    let echo = Arc::new(Echo::default());
    let server = Server::serve("127.0.0.1:0".parse().unwrap(), tls, echo.clone(), limits).await.unwrap();
    let client = Client::new(pki::client_config(&files(&authority, "hv-a", directory.path())).unwrap());
    Pair { authority, directory, echo, server, client }
}

impl Pair {
    async fn ask(&self, body: &str, timeout: Duration) -> Result<String, CallError> {
        let address = self.server.address();
        let reply = self.client.call(&host("hv-b"), address, Channel::Sync, body.into(), timeout).await;
        reply.map(|body| String::from_utf8(body).unwrap())
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < LONG, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_request_is_answered_with_the_callers_name_from_its_certificate() {
    let pair = pair(Limits::default()).await;
    assert_eq!(pair.ask("hello", LONG).await.unwrap(), "hv-a Sync hello");
    assert_eq!(pair.ask("bad", LONG).await, Err(CallError::Refused("not today".into())));
    assert_eq!(pair.ask("panic", LONG).await, Err(CallError::Refused("the handler failed".into())));
}

#[tokio::test]
async fn an_operator_gives_orders_and_says_nothing_that_hosts_say_to_each_other() {
    let pair = pair(Limits::default()).await;
    let files = operator_files(&pair.authority, "ann", pair.directory.path());
    let client = Client::new(pki::client_config(&files).unwrap());
    for channel in Channel::ALL {
        let answer = client.call(&host("hv-b"), pair.server.address(), channel, b"drain".to_vec(), LONG).await;
        if channel == Channel::Client {
            assert_eq!(answer, Ok(b"operator ann drain".to_vec()));
        } else {
            assert!(matches!(&answer, Err(CallError::Refused(why)) if why.contains("ann")), "{channel:?}: {answer:?}");
        }
    }
    assert_eq!(pair.echo.asked.load(Ordering::Relaxed), 0, "nothing was taken for a host's");
}

#[tokio::test]
async fn an_operators_certificate_is_good_for_calling_alone() {
    let pair = pair(Limits::default()).await;
    // Named like a host, which its authority cannot know to be wrong.
    let tls = pki::server_config(&operator_files(&pair.authority, "hv-d", pair.directory.path())).unwrap();
    let limits = Limits::default();
    let server = Server::serve("127.0.0.1:0".parse().unwrap(), tls, pair.echo.clone(), limits).await.unwrap();
    let refused = pair.client.call(&host("hv-d"), server.address(), Channel::Client, vec![], LONG).await;
    assert!(matches!(refused, Err(CallError::Unreachable(_))), "{refused:?}");
}

#[tokio::test]
async fn an_operator_with_a_certificate_of_another_authority_is_refused() {
    let pair = pair(Limits::default()).await;
    let directory = tempfile::tempdir().unwrap();
    let mut stranger = operator_files(&pki::make_authority().unwrap(), "ann", directory.path());
    stranger.authority = pair.directory.path().join("hv-a.ca");
    let client = Client::new(pki::client_config(&stranger).unwrap());
    let refused = client.call(&host("hv-b"), pair.server.address(), Channel::Client, vec![], LONG).await;
    assert!(matches!(refused, Err(CallError::Unreachable(_))), "{refused:?}");
    until("the failed handshake counted", || pair.server.counters().handshakes_failed() >= 1).await;
}

#[tokio::test]
async fn a_slow_request_does_not_hold_up_the_others() {
    let pair = pair(Limits::default()).await;
    pair.ask("warm", LONG).await.unwrap();
    let (slow, fast) = tokio::join!(pair.ask("slow", LONG), async {
        let fast = pair.ask("fast", LONG).await;
        pair.echo.go_on.notify_one();
        fast
    });
    assert_eq!((slow.unwrap().as_str(), fast.unwrap().as_str()), ("hv-a Sync slow", "hv-a Sync fast"));
}

#[tokio::test]
async fn channels_that_are_full_of_slow_requests_leave_raft_its_share_of_the_connection() {
    let pair = pair(Limits::default()).await;
    let ask = |channel: Channel, body: &'static str| {
        let (client, address) = (pair.client.clone(), pair.server.address());
        async move { client.call(&host("hv-b"), address, channel, body.into(), LONG).await }
    };
    let others = Channel::ALL.into_iter().filter(|channel| *channel != Channel::Raft);
    let slow =
        others.flat_map(|channel| [channel; IN_FLIGHT_PER_CHANNEL]).map(|channel| tokio::spawn(ask(channel, "slow")));
    let slow: Vec<_> = slow.collect();
    until("all of them are under way", || pair.echo.asked.load(Ordering::Relaxed) == slow.len() as u64).await;
    assert_eq!(ask(Channel::Raft, "vote").await, Ok(b"hv-a Raft vote".to_vec()));
    slow.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn garbage_on_the_rpc_socket_is_counted_and_changes_nothing() {
    let limits = Limits { handshake: Duration::from_secs(3), ..Limits::default() };
    let pair = pair(limits).await;
    pair.ask("before", LONG).await.unwrap();
    let address = pair.server.address();
    let counters = pair.server.counters();

    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let _silent = TcpStream::connect(address).await.unwrap();
    until("both failed handshakes counted", || counters.handshakes_failed() == 2).await;

    for garbage in [&[0xff; 64][..], &[0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 99, 0]] {
        let refused = counters.frames_refused();
        let tls = pki::client_config(&files(&pair.authority, "hv-c", pair.directory.path())).unwrap();
        let tcp = TcpStream::connect(address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("hv-b").unwrap();
        let mut stream = tokio_rustls::TlsConnector::from(tls).connect(name, tcp).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        stream.flush().await.unwrap();
        until("the bad frame counted", || counters.frames_refused() == refused + 1).await;
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.is_empty(), "the connection is closed without an answer");
    }
    assert_eq!(pair.echo.asked.load(Ordering::Relaxed), 1, "no garbage reached the handler");
    assert_eq!(pair.ask("after", LONG).await.unwrap(), "hv-a Sync after");
}

#[tokio::test]
async fn a_client_with_a_certificate_of_another_authority_is_refused() {
    let pair = pair(Limits::default()).await;
    let other = pki::make_authority().unwrap();
    let directory = tempfile::tempdir().unwrap();
    // It trusts the server, so that the refusal is the server's.
    let mut stranger = files(&other, "hv-a", directory.path());
    stranger.authority = pair.directory.path().join("hv-a.ca");
    let client = Client::new(pki::client_config(&stranger).unwrap());
    let refused = client.call(&host("hv-b"), pair.server.address(), Channel::Raft, vec![], LONG).await;
    assert!(matches!(refused, Err(CallError::Unreachable(_))), "{refused:?}");
    until("the failed handshake counted", || pair.server.counters().handshakes_failed() >= 1).await;
    assert_eq!(pair.echo.asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_server_that_is_another_host_is_not_called() {
    let pair = pair(Limits::default()).await;
    let wrong = pair.client.call(&host("hv-c"), pair.server.address(), Channel::Raft, vec![], LONG).await;
    assert!(matches!(wrong, Err(CallError::Unreachable(_))), "{wrong:?}");
    assert_eq!(pair.echo.asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_revoked_certificate_loses_its_connection_and_gets_no_other_and_a_new_one_of_the_name_is_served() {
    let pair = pair(Limits::default()).await;
    let listed = Arc::new(Listed::default());
    let tls = pki::server_config(&files(&pair.authority, "hv-c", pair.directory.path())).unwrap();
    let limits = Limits::default();
    let server = Server::serve("127.0.0.1:0".parse().unwrap(), tls, listed.clone(), limits).await.unwrap();
    let as_host = |name: &str| {
        let files = files(&pair.authority, name, pair.directory.path());
        (Client::new(pki::client_config(&files).unwrap()), pki::own_host(&files).unwrap().serial)
    };
    let ask = async |client: &Client| {
        client.call(&host("hv-c"), server.address(), Channel::Sync, b"hello".to_vec(), LONG).await
    };
    let ((revoked, _), (other, _)) = (as_host("hv-a"), as_host("hv-d"));
    assert_eq!(ask(&revoked).await, Ok(b"hv-a Sync hello".to_vec()));
    assert_eq!(ask(&other).await, Ok(b"hv-d Sync hello".to_vec()));

    listed.revoke("hv-a", None);
    let told = |refused: &Result<Vec<u8>, CallError>| matches!(refused, Err(CallError::Refused(why)) if why.ends_with("of hv-a is revoked"));
    let open = ask(&revoked).await;
    assert!(told(&open), "the open connection: {open:?}");
    let (another, _) = as_host("hv-a");
    let refused = ask(&another).await;
    assert!(told(&refused), "another connection: {refused:?}");
    until("the refused handshake counted", || server.counters().handshakes_failed() >= 1).await;
    assert_eq!(ask(&other).await, Ok(b"hv-d Sync hello".to_vec()));

    let (renewed, serial) = as_host("hv-a");
    listed.revoke("hv-a", Some(serial));
    assert_eq!(ask(&renewed).await, Ok(b"hv-a Sync hello".to_vec()));
    assert!(ask(&revoked).await.is_err(), "the lost one counts as little as before");
    assert_eq!(listed.echo.asked.load(Ordering::Relaxed), 4, "nothing of it reached the handler");
}

#[tokio::test]
async fn a_host_whose_certificate_is_revoked_is_not_called_any_more() {
    let pair = pair(Limits::default()).await;
    let revoked = Arc::new(AtomicBool::new(false));
    let tls = pki::client_config(&files(&pair.authority, "hv-d", pair.directory.path())).unwrap();
    let client = Client::choosy(tls, {
        let revoked = Arc::clone(&revoked);
        move |certificate| match revoked.load(Ordering::Relaxed) {
            true => Err(format!("the {certificate} is revoked")),
            false => Ok(()),
        }
    });
    let ask = async || client.call(&host("hv-b"), pair.server.address(), Channel::Sync, b"hello".to_vec(), LONG).await;
    assert!(ask().await.is_ok());
    revoked.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        let refused = ask().await;
        assert!(matches!(&refused, Err(CallError::Unreachable(why)) if why.contains("is revoked")), "{refused:?}");
    }
    revoked.store(false, Ordering::Relaxed);
    assert!(ask().await.is_ok());
    assert_eq!(pair.echo.asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_counted() {
    let pair = pair(Limits { connections: 1, ..Limits::default() }).await;
    pair.ask("first", LONG).await.unwrap();
    let mut second = TcpStream::connect(pair.server.address()).await.unwrap();
    assert_eq!(second.read(&mut [0; 1]).await.unwrap_or(0), 0, "closed at once");
    assert_eq!(pair.server.counters().connections_refused(), 1);
}

#[tokio::test]
async fn one_operators_connections_leave_room_for_hosts_and_for_other_operators() {
    let pair = pair(Limits { per_operator: 1, ..Limits::default() }).await;
    let as_operator = |files: &pki::TlsFiles| Client::new(pki::client_config(files).unwrap());
    let ann = operator_files(&pair.authority, "ann", pair.directory.path());
    let bob = operator_files(&pair.authority, "bob", pair.directory.path());
    let (first, second, other) = (as_operator(&ann), as_operator(&ann), as_operator(&bob));
    let order = async |client: &Client| {
        client.call(&host("hv-b"), pair.server.address(), Channel::Client, b"drain".to_vec(), LONG).await
    };
    assert_eq!(order(&first).await, Ok(b"operator ann drain".to_vec()));
    assert!(order(&second).await.is_err(), "ann has as many as she may");
    assert_eq!(pair.server.counters().connections_refused(), 1);
    assert_eq!(order(&other).await, Ok(b"operator bob drain".to_vec()));
    assert_eq!(pair.ask("hello", LONG).await.unwrap(), "hv-a Sync hello");
    assert_eq!(order(&first).await, Ok(b"operator ann drain".to_vec()), "the first one stays");
}

#[tokio::test]
async fn no_more_is_read_of_a_connection_than_there_is_room_for() {
    let pair = pair(Limits { bytes_per_connection: 7, ..Limits::default() }).await;
    assert!(pair.ask("longer than all of the room", LONG).await.is_ok(), "it has the room alone");
    let asked = || pair.echo.asked.load(Ordering::Relaxed);
    let (first, second, ()) = tokio::join!(pair.ask("slow", LONG), pair.ask("slow", LONG), async {
        until("the first is worked on", || asked() == 2).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(asked(), 2, "the second is not read meanwhile");
        pair.echo.go_on.notify_one();
        until("the second is read", || asked() == 3).await;
        pair.echo.go_on.notify_one();
    });
    assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
}

#[tokio::test]
async fn an_operators_connection_ends_in_time_and_whoever_calls_on_makes_another_one() {
    let pair = pair(Limits { operator_life: Duration::from_millis(300), ..Limits::default() }).await;
    let files = operator_files(&pair.authority, "ann", pair.directory.path());
    let tls = pki::client_config(&files).unwrap();
    let name = rustls::pki_types::ServerName::try_from("hv-b").unwrap();
    let tcp = TcpStream::connect(pair.server.address()).await.unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(Arc::clone(&tls)).connect(name, tcp).await.unwrap();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(LONG, stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok() && rest.is_empty(), "it says nothing, and lasts all the same");

    let client = Client::new(tls);
    for _ in 0..2 {
        let answered =
            client.call(&host("hv-b"), pair.server.address(), Channel::Client, b"drain".to_vec(), LONG).await;
        assert_eq!(answered, Ok(b"operator ann drain".to_vec()));
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
}

#[tokio::test]
async fn one_hosts_connections_leave_room_for_other_hosts() {
    let pair = pair(Limits { per_host: 1, ..Limits::default() }).await;
    let as_host =
        |name: &str| Client::new(pki::client_config(&files(&pair.authority, name, pair.directory.path())).unwrap());
    let ask = async |client: &Client| {
        client.call(&host("hv-b"), pair.server.address(), Channel::Sync, b"hello".to_vec(), LONG).await
    };
    assert_eq!(pair.ask("first", LONG).await.unwrap(), "hv-a Sync first");
    assert!(ask(&as_host("hv-a")).await.is_err(), "it has as many as it may, whatever certificate it shows");
    assert_eq!(pair.server.counters().connections_refused(), 1);
    assert_eq!(ask(&as_host("hv-c")).await, Ok(b"hv-c Sync hello".to_vec()));
    assert_eq!(pair.ask("second", LONG).await.unwrap(), "hv-a Sync second", "the first one stays");
}

#[tokio::test]
async fn connections_that_say_nothing_keep_no_host_out() {
    let limits = Limits { connections: 2, handshakes: 2, handshake: LONG, ..Limits::default() };
    let pair = pair(limits).await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(TcpStream::connect(pair.server.address()).await.unwrap());
    }
    until("those make room for each other", || pair.server.counters().handshakes_failed() == 6).await;
    assert_eq!(pair.ask("hello", LONG).await.unwrap(), "hv-a Sync hello");
    assert_eq!(pair.server.counters().connections_refused(), 0);
    let mut first = silent.remove(0);
    assert_eq!(first.read(&mut [0; 1]).await.unwrap_or(0), 0, "closed long before its time for a handshake was over");
}

/// Forwards to `to` until `cut`, and from then on swallows: a host whose power was cut sends neither data nor FIN.
async fn swallowing_proxy(to: SocketAddr, cut: Arc<tokio::sync::Notify>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut first = true;
        while let Ok((mut inner, _)) = listener.accept().await {
            let (cut, mortal) = (Arc::clone(&cut), std::mem::take(&mut first));
            tokio::spawn(async move {
                let mut outer = TcpStream::connect(to).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut inner, &mut outer) => {}
                    () = cut.notified(), if mortal => std::future::pending().await,
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_dead_connection_does_not_stick() {
    let pair = pair(Limits::default()).await;
    let cut = Arc::new(tokio::sync::Notify::new());
    let address = swallowing_proxy(pair.server.address(), Arc::clone(&cut)).await;
    let (client, peer) = (&pair.client, host("hv-b"));
    client.call(&peer, address, Channel::Raft, b"one".to_vec(), LONG).await.unwrap();
    cut.notify_one();
    tokio::task::yield_now().await;
    let began = Instant::now();
    let lost = client.call(&peer, address, Channel::Raft, b"two".to_vec(), Duration::from_millis(200)).await;
    assert_eq!(lost, Err(CallError::Timeout));
    assert!(began.elapsed() < LONG);
    client.call(&peer, address, Channel::Raft, b"three".to_vec(), LONG).await.unwrap();
}

#[tokio::test]
async fn a_call_to_nobody_ends_within_its_timeout() {
    let pair = pair(Limits::default()).await;
    // Accepts connections and never says a word, as a frozen process does.
    let frozen = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = frozen.local_addr().unwrap();
    let result = pair.client.call(&host("hv-b"), address, Channel::Raft, vec![], Duration::from_millis(100)).await;
    assert!(matches!(&result, Err(CallError::Unreachable(why)) if why.ends_with("within 100ms")), "{result:?}");
}
