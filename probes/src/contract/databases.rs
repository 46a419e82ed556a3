//! What questions to databases promise that servers of a script alone can show: how one logs in, and how it is left.

use std::{net::Ipv4Addr, os::unix::fs::PermissionsExt, path::PathBuf};

use holdfast_policies::{model::Probe, observe::Outcome, probe::SqlProbe};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    ask,
    contract::{
        authority::{Authority, Kind},
        network::{SLACK, lenient, server_of_one_word, sql},
        scene::network,
    },
};

/// A file with a password, in a folder that it lives in.
fn password(folder: &tempfile::TempDir) -> PathBuf {
    let file = folder.path().join("password");
    std::fs::write(&file, "secret").unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    file
}

/// A MySQL server that lets everybody in and answers with two rows, with the second one when `then` is over. Returns its port,
/// and what it is told after that.
async fn mysql_of_two_rows(then: impl Future<Output = ()> + Send + 'static) -> (u16, tokio::task::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        say(&mut stream, 0, &mysql_greeting()).await;
        hear(&mut stream).await;
        say(&mut stream, 2, &[0, 0, 0, 2, 0, 0, 0]).await;
        hear(&mut stream).await;
        let end = &[0xfe, 0, 0, 2, 0][..];
        for (number, said) in (1..).zip([&[1_u8][..], b"\x03def", end, b"\x011"]) {
            say(&mut stream, number, said).await;
        }
        then.await;
        for (number, said) in (5..).zip([&b"\x012"[..], end]) {
            say(&mut stream, number, said).await;
        }
        hear(&mut stream).await
    });
    (port, served)
}

/// What a MySQL server says first that offers no TLS.
fn mysql_greeting() -> Vec<u8> {
    mysql_greeting_of("mysql_native_password", false)
}

/// What one says first that has this way in.
fn mysql_greeting_of(way_in: &str, tls: bool) -> Vec<u8> {
    let mut greeting = b"\x0a8.0.36\0\x01\0\0\x0012345678\0".to_vec();
    greeting.extend_from_slice(&[0xff, if tls { 0xff } else { 0xf7 }, 45, 2, 0, 0xff, 0xdf, 21]);
    greeting.extend_from_slice(&[0; 10]);
    greeting.extend_from_slice(b"abcdefghijkl\0");
    greeting.extend_from_slice(way_in.as_bytes());
    greeting.push(0);
    greeting
}

#[tokio::test]
async fn a_server_that_offers_no_tls_is_not_accused_because_a_restart_would_offer_none_either() {
    let secure = |port| SqlProbe { tls: Some(lenient()), ..sql(port, None) };
    let greeting = mysql_greeting();
    let packet = [&[u8::try_from(greeting.len()).unwrap(), 0, 0, 0][..], &greeting].concat();
    for probe in [
        Probe::Mysql(secure(server_of_one_word(0, packet).await)),
        // It is asked with eight bytes (SSLRequest).
        Probe::Postgres(secure(server_of_one_word(8, b"N".to_vec()).await)),
    ] {
        let seen = ask(&probe, &network(), SLACK).await;
        assert_eq!(seen.outcome, Outcome::Unknown, "{probe:?}: {seen:?}");
        assert!(seen.detail.contains("does not offer tls"), "{seen:?}");
    }
}

/// A PostgreSQL server that wants a password hashed in so many rounds, and says no more. Returns its port.
async fn postgres_of_rounds(rounds: u64) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        hear_from_postgres_client(&mut stream).await;
        stream.write_all(b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0").await.unwrap();
        stream.read_u8().await.unwrap();
        let first = hear_from_postgres_client(&mut stream).await;
        let (_, nonce) = first.split_once("n=,r=").unwrap();
        let said = format!("r={nonce}more,s=c2FsdA==,i={rounds}");
        let length = u32::try_from(said.len() + 8).unwrap().to_be_bytes();
        stream.write_all(&[&b"R"[..], &length, &[0, 0, 0, 11], said.as_bytes()].concat()).await.unwrap();
        let _ = stream.read(&mut [0; 256]).await;
    });
    port
}

/// What comes after a length that counts itself.
async fn hear_from_postgres_client(stream: &mut TcpStream) -> String {
    let length = stream.read_u32().await.unwrap() - 4;
    let mut said = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut said).await.unwrap();
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test]
async fn a_postgresql_server_that_wants_a_password_hashed_for_hours_gets_nobody_to_do_it_and_is_not_accused() {
    let folder = tempfile::tempdir().unwrap();
    let file = password(&folder);
    for (rounds, wanted, words) in [
        (4_294_967_295, Outcome::Unknown, "rounds of hashing"),
        (100_001, Outcome::Unknown, "rounds of hashing"),
        // It hangs up then.
        (4_096, Outcome::Fail, "hung up"),
    ] {
        let port = postgres_of_rounds(rounds).await;
        let seen = ask(&Probe::Postgres(sql(port, Some(file.clone()))), &network(), SLACK).await;
        assert!(seen.outcome == wanted && seen.detail.contains(words), "{rounds}: {seen:?}");
    }
}

async fn say(stream: &mut (impl AsyncWrite + Unpin), number: u8, content: &[u8]) {
    let head = [u8::try_from(content.len()).unwrap(), 0, 0, number];
    stream.write_all(&[&head[..], content].concat()).await.unwrap();
    stream.flush().await.unwrap();
}

async fn hear(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await.unwrap();
    let mut content = vec![0; usize::from(head[0])];
    stream.read_exact(&mut content).await.unwrap();
    content
}

#[tokio::test]
async fn a_mysql_server_that_has_the_password_not_at_hand_is_told_it_over_tls_and_never_in_the_clear() {
    const SHA2: &str = "caching_sha2_password";
    let folder = tempfile::tempdir().unwrap();
    let file = password(&folder);
    for secure in [true, false] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = TlsAcceptor::from(Authority::new().config(Kind::Good, false, &[]));
        let served = tokio::spawn(async move {
            let (mut plain, _) = listener.accept().await.unwrap();
            say(&mut plain, 0, &mysql_greeting_of(SHA2, true)).await;
            if !secure {
                return full_login(plain, 2).await;
            }
            assert_eq!(hear(&mut plain).await.len(), 32, "a request for tls");
            full_login(acceptor.accept(plain).await.unwrap(), 3).await
        });
        let tls = secure.then(lenient);
        let seen = ask(&Probe::Mysql(SqlProbe { tls, ..sql(port, Some(file.clone())) }), &network(), SLACK).await;
        let told = tokio::time::timeout(SLACK, served).await.unwrap().unwrap();
        if secure {
            assert_eq!((seen.outcome, told.as_deref()), (Outcome::Pass, Some(&b"secret\0"[..])), "{seen:?}");
        } else {
            assert!(seen.outcome == Outcome::Unknown && seen.detail.contains("set `tls`"), "{seen:?}");
            assert_eq!(told.as_deref(), Some(&b"\0"[..]), "it is refused, and not left waiting");
        }
    }
}

/// Whoever just hangs up, or says too little, is counted as a broken connection, and in the end this host is blocked.
#[tokio::test]
async fn a_mysql_server_by_which_nobody_can_log_in_is_left_by_a_login_that_it_refuses() {
    const NATIVE: &str = "mysql_native_password";
    for (secure, wants, wanted) in
        [(true, NATIVE, 0), (true, "client_ed25519", 64), (false, "client_ed25519", 64), (false, "dialog", 1)]
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = tokio::spawn(async move {
            let (mut plain, _) = listener.accept().await.unwrap();
            say(&mut plain, 0, &mysql_greeting()).await;
            let login = hear(&mut plain).await;
            say(&mut plain, 2, &[&b"\xfe"[..], wants.as_bytes(), b"\0abcdefghijklmnopqrst\0"].concat()).await;
            let told = hear(&mut plain).await;
            say(&mut plain, 4, b"\xff\x15\x04#28000Access denied").await;
            (login, told)
        });
        let tls = secure.then(lenient);
        let seen = ask(&Probe::Mysql(SqlProbe { tls, ..sql(port, None) }), &network(), SLACK).await;
        assert_eq!(seen.outcome, Outcome::Unknown, "{seen:?}");
        let (login, told) = tokio::time::timeout(SLACK, served).await.unwrap().unwrap();
        assert!(!secure || login[32..34] == [0, 0], "nobody is named where no tls is offered");
        assert_eq!(told, vec![0; wanted], "{wants}");
    }
}

/// Hears a login, wants the password itself, and answers the question after that. Returns what it was told as the password.
async fn full_login(mut stream: impl AsyncRead + AsyncWrite + Unpin, number: u8) -> Option<Vec<u8>> {
    let login = hear(&mut stream).await;
    assert!(!login.windows(6).any(|part| part == b"secret"), "the proof is not the password");
    // `perform_full_authentication`.
    say(&mut stream, number, &[1, 4]).await;
    let mut head = [0; 4];
    stream.read_exact(&mut head).await.ok()?;
    let mut told = vec![0; usize::from(head[0])];
    stream.read_exact(&mut told).await.unwrap();
    if told == [0] {
        return Some(told);
    }
    say(&mut stream, number + 2, &[0, 0, 0, 2, 0, 0, 0]).await;
    hear(&mut stream).await;
    let end = &[0xfe, 0, 0, 2, 0][..];
    for (number, said) in (1..).zip([&[1_u8][..], b"\x03def", end, b"\x011", end]) {
        say(&mut stream, number, said).await;
    }
    assert_eq!(hear(&mut stream).await, [1], "a farewell");
    Some(told)
}

#[tokio::test]
async fn a_mysql_server_is_told_farewell_after_all_rows_so_that_it_counts_no_broken_connection() {
    let (port, served) = mysql_of_two_rows(std::future::ready(())).await;
    let seen = ask(&Probe::Mysql(sql(port, None)), &network(), SLACK).await;
    assert_eq!(seen.outcome, Outcome::Pass, "{seen:?}");
    assert_eq!(tokio::time::timeout(SLACK, served).await.unwrap().unwrap(), [1]);
}

#[tokio::test]
async fn an_answer_of_mysql_does_not_wait_for_rows_that_nobody_reads() {
    let (go_on, told) = tokio::sync::oneshot::channel();
    let (port, served) = mysql_of_two_rows(async { told.await.unwrap() }).await;
    let seen = ask(&Probe::Mysql(sql(port, None)), &network(), SLACK).await;
    assert_eq!(seen.outcome, Outcome::Pass, "{seen:?}");
    go_on.send(()).unwrap();
    assert_eq!(tokio::time::timeout(SLACK, served).await.unwrap().unwrap(), [1], "it is told farewell all the same");
}
