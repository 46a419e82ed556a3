//! The API's promises, against a desk that writes down what it is asked.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UnixListener, UnixStream},
    sync::Semaphore,
    time::timeout,
};

use super::{
    super::desk::{
        Answer, Denied, Desk, Request,
        tests::{guest, host, shown},
    },
    client::{ClientError, ask},
    public::QUESTIONS_AT_ONCE,
    *,
};

const LIMIT: Duration = Duration::from_secs(20);

/// Answers something to everything, and remembers it.
#[derive(Default)]
struct Fake {
    asked: Mutex<Vec<Request>>,
}

#[async_trait]
impl Desk for Fake {
    async fn ask(&self, request: Request) -> Result<Answer, Denied> {
        self.asked.lock().unwrap().push(request.clone());
        match request {
            Request::Status => Ok(Answer::Status(shown())),
            Request::Journal { last } => Ok(Answer::Accepted { what: format!("{last} lines") }),
            Request::Explain { guest } => Err(Denied::Unknown(format!("there is no guest {guest}"))),
            Request::Drain { .. } => Err(Denied::NoLeader("no quorum".into())),
            _ => Ok(Answer::Accepted { what: "done".into() }),
        }
    }

    fn metrics(&self) -> String {
        "holdfast_quorum 1\n".into()
    }

    fn alive(&self) -> Result<(), String> {
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        Err("no leader".into())
    }
}

impl Fake {
    fn asked(&self) -> Vec<Request> {
        self.asked.lock().unwrap().clone()
    }
}

async fn local(folder: &Path) -> (PathBuf, Arc<Fake>, Serving) {
    let (socket, fake) = (folder.join(SOCKET_NAME), Arc::new(Fake::default()));
    let serving = serve_local(&socket, Arc::clone(&fake) as Arc<dyn Desk>).await.unwrap();
    (socket, fake, serving)
}

/// Sends bytes, and reads until the other side closes.
async fn raw(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> String {
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = timeout(LIMIT * 2, stream.read_to_end(&mut answer)).await.expect("the connection is closed");
    String::from_utf8_lossy(&answer).into_owned()
}

fn post(body: &str) -> String {
    format!("POST /v1/ask HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn questions_and_denials_cross_the_socket_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, fake, _serving) = local(folder.path()).await;
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(ask(&socket, &Request::Status, LIMIT).await.unwrap(), Ok(Answer::Status(shown())));
    let drain = Request::Drain { host: host("h1"), by: "ann".into() };
    assert_eq!(ask(&socket, &drain, LIMIT).await.unwrap(), Err(Denied::NoLeader("no quorum".into())));
    let large =
        Request::Apply { sources: [("a.yaml".into(), "#".repeat(1 << 20))].into(), by: "ann".into(), dry_run: true };
    assert!(ask(&socket, &large, LIMIT).await.unwrap().is_ok());
    assert_eq!(fake.asked(), [Request::Status, drain, large]);
}

#[tokio::test]
async fn garbage_is_answered_with_400_and_reaches_no_desk() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, fake, _serving) = local(folder.path()).await;
    let bodies = ["", "{", "\"status\" x", r#"{"drain":{"host":"../x","by":"a"}}"#, r#"{"explode":{}}"#, "\u{0}\u{1}"];
    for bytes in bodies.map(post).iter().map(String::as_str).chain(["\u{16}\u{3}\u{1}\r\n\r\n", "POST\r\n\r\n"]) {
        let answer = raw(UnixStream::connect(&socket).await.unwrap(), bytes.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{bytes:?} got {answer:?}");
    }
    let get = raw(
        UnixStream::connect(&socket).await.unwrap(),
        b"GET /v1/ask HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    );
    assert!(get.await.starts_with("HTTP/1.1 405 "));
    assert_eq!(fake.asked(), []);
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused_unread() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, fake, _serving) = local(folder.path()).await;
    let announced = format!(
        "POST /v1/ask HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        REQUEST_BYTES_MAX + 1
    );
    let mut bytes = announced.into_bytes();
    bytes.resize(bytes.len() + REQUEST_BYTES_MAX + 1, b' ');
    let mut stream = UnixStream::connect(&socket).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let mut answer = [0; 64];
    let (_, read) = tokio::join!(writer.write_all(&bytes), timeout(LIMIT, reader.read(&mut answer)));
    let read = read.unwrap().unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 413 "), "{:?}", String::from_utf8_lossy(&answer));
    assert_eq!(fake.asked(), []);
}

#[tokio::test]
async fn a_socket_is_replaced_only_when_nobody_answers_on_it() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join(SOCKET_NAME);
    drop(UnixListener::bind(&socket).unwrap());
    let (socket, fake, serving) = local(folder.path()).await;
    let second = serve_local(&socket, Arc::clone(&fake) as Arc<dyn Desk>).await;
    assert!(matches!(second, Err(ApiError::Running { .. })));
    assert!(ask(&socket, &Request::Status, LIMIT).await.is_ok());
    drop(serving);
    let file = folder.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert!(matches!(serve_local(&file, fake).await, Err(ApiError::InTheWay { .. })));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
}

#[tokio::test]
async fn silence_and_absence_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("silent.sock");
    let _silent = UnixListener::bind(&socket).unwrap();
    let limit = Duration::from_millis(50);
    assert!(matches!(ask(&socket, &Request::Status, limit).await, Err(ClientError::Deadline { .. })));
    let nobody = ask(&folder.path().join("none"), &Request::Status, limit).await;
    assert!(matches!(nobody, Err(ClientError::Unreachable { .. })));
}

#[tokio::test]
async fn the_public_pages_show_and_never_instruct() {
    let fake = Arc::new(Fake::default());
    let serving = serve_public("127.0.0.1:0".parse().unwrap(), Arc::clone(&fake) as Arc<dyn Desk>).await.unwrap();
    let address = serving.address().unwrap();
    let send = |method: &'static str, path: &'static str| async move {
        let bytes = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        raw(TcpStream::connect(address).await.unwrap(), bytes.as_bytes()).await
    };
    for (path, code, has) in [
        ("/metrics", 200, "holdfast_quorum 1"),
        ("/healthz", 200, "ok"),
        ("/readyz", 503, "no leader"),
        ("/v1/status", 200, "\"leader\":\"h2\""),
        ("/v1/guests/web-1/explain", 404, "there is no guest web-1"),
        ("/v1/guests/a%2Fb/explain", 400, "is not 1 to 63"),
        ("/v1/journal?last=7", 200, "7 lines"),
        ("/v1/journal?last=-1", 400, "error"),
        ("/v1/journal?first=1", 400, "error"),
        ("/v1/ask", 404, "there is no such page, but /metrics, "),
        ("/", 404, "/v1/status"),
    ] {
        let answer = send("GET", path).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")) && answer.contains(has), "{path}: {answer}");
    }
    let asked = [Request::Status, Request::Explain { guest: guest("web-1") }, Request::Journal { last: 7 }];
    assert_eq!(fake.asked(), asked);
    for path in ["/v1/status", "/v1/guests/web-1/explain", "/v1/journal", "/metrics"] {
        for method in ["POST", "PUT", "DELETE"] {
            let answer = send(method, path).await;
            assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("only read"), "{method} {path}: {answer}");
        }
    }
    assert!(send("POST", "/v1/ask").await.starts_with("HTTP/1.1 404 "));
    assert_eq!(fake.asked().len(), 3);
}

/// Answers only as many questions as it is let, and counts how many it is asked at once.
struct Slow {
    now: AtomicUsize,
    most: AtomicUsize,
    let_go: Semaphore,
}

#[async_trait]
impl Desk for Slow {
    async fn ask(&self, _request: Request) -> Result<Answer, Denied> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        self.let_go.acquire().await.unwrap().forget();
        self.now.fetch_sub(1, Ordering::SeqCst);
        Ok(Answer::Status(shown()))
    }

    fn metrics(&self) -> String {
        "holdfast_quorum 1\n".into()
    }

    fn alive(&self) -> Result<(), String> {
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

async fn get(address: SocketAddr, path: &str) -> String {
    let bytes = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    raw(TcpStream::connect(address).await.unwrap(), bytes.as_bytes()).await
}

#[tokio::test]
async fn many_who_ask_or_go_away_wait_for_one_another_and_keep_no_metrics_waiting() {
    let slow = Arc::new(Slow { now: AtomicUsize::new(0), most: AtomicUsize::new(0), let_go: Semaphore::new(0) });
    let serving = serve_public("127.0.0.1:0".parse().unwrap(), Arc::clone(&slow) as Arc<dyn Desk>).await.unwrap();
    let address = serving.address().unwrap();
    for _ in 0..8 {
        let mut gone = TcpStream::connect(address).await.unwrap();
        gone.write_all(b"GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    }
    let asking: Vec<_> = (0..16).map(|_| tokio::spawn(get(address, "/v1/status"))).collect();
    let all = async {
        while slow.now.load(Ordering::SeqCst) < QUESTIONS_AT_ONCE {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LIMIT, all).await.expect("some of them are asked");
    for (path, has) in [("/metrics", "holdfast_quorum 1"), ("/healthz", "ok"), ("/readyz", "ok")] {
        let answer = get(address, path).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(has), "{path}: {answer}");
    }
    slow.let_go.add_permits(8 + asking.len());
    for asked in asking {
        let answer = asked.await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    assert_eq!(slow.most.load(Ordering::SeqCst), QUESTIONS_AT_ONCE);
}
