//! Redis.

use std::process::Command;

use holdfast_policies::{
    model::{Probe, TcpProbe},
    observe::Outcome,
    probe::RedisProbe,
};

use super::{asked, folder, left_out, ready, secret, started};
use crate::contract::{authority::Authority, scene::free_port};

/// Writes the time and reads it back, as the kit does.
const BEAT: &str = "local t = redis.call('TIME'); local v = t[1] .. '.' .. t[2]; redis.call('SET', KEYS[1], v, 'EX', 60); \
                    return redis.call('GET', KEYS[1]) == v and 'OK' or 'lost'";

#[tokio::test]
async fn redis_is_asked_with_its_password_and_a_wrong_one_is_unknown() {
    if left_out("probes against a real Redis") {
        return;
    }
    let (folder, port, secure_port) = (folder(), free_port().await, free_port().await);
    let (right, wrong) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let authority = Authority::new();
    let (certificate, key) = authority.write(folder.path());
    let mut command = Command::new("redis-server");
    command
        .args(["--tls-auth-clients", "no", "--tls-port", &secure_port.to_string(), "--tls-cert-file"])
        .arg(certificate);
    command.arg("--tls-key-file").arg(key).arg("--tls-ca-cert-file").arg(authority.ca_file());
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--requirepass", "pass word"]);
    command.arg("--dir").arg(folder.path());
    let _program = started(&mut command, folder, "redis-server");
    let probe = |password_file, command: &[&str], expect: Option<&str>| {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        let expect = expect.map(str::to_owned);
        Probe::Redis(RedisProbe { port, user: None, password_file, command, expect, tls: None })
    };
    let password = secret(right.path(), "pass word\n");
    ready(&probe(password.clone(), &["PING"], Some("PONG"))).await;
    let asked_for = |command: &'static [&str], expect| {
        let probe = probe(password.clone(), command, expect);
        async move { asked(&probe).await.outcome }
    };
    assert_eq!(asked_for(&["SET", "a", "1"], Some("OK")).await, Outcome::Pass);
    assert_eq!(asked_for(&["GET", "a"], Some("1")).await, Outcome::Pass);
    assert_eq!(asked_for(&["EVAL", BEAT, "1", "beat"], Some("OK")).await, Outcome::Pass);
    assert_eq!(asked_for(&["EVAL", BEAT, "1", "beat"], Some("lost")).await, Outcome::Fail);
    assert_eq!(asked_for(&["GET", "a"], Some("2")).await, Outcome::Fail);
    assert_eq!(asked_for(&["GET", "absent"], Some("2")).await, Outcome::Fail);
    assert_eq!(asked_for(&["INFO", "replication"], Some("role:master")).await, Outcome::Pass);
    assert_eq!(asked_for(&["INFO", "replication"], Some("role:slave")).await, Outcome::Fail);
    assert_eq!(asked_for(&["LPUSH", "a", "1"], None).await, Outcome::Fail, "it says WRONGTYPE");
    for file in [None, secret(wrong.path(), "other")] {
        let seen = asked(&probe(file, &["PING"], None)).await;
        assert_eq!(seen.outcome, Outcome::Unknown, "{seen:?}");
    }
    // A user of its own, who may do one thing.
    let rules = ["ACL", "SETUSER", "prober", "on", ">other", "+ping"];
    assert_eq!(asked(&probe(password.clone(), &rules, Some("OK"))).await.outcome, Outcome::Pass);
    for (user, command, wanted) in [
        ("prober", "PING", Outcome::Pass),
        ("prober", "DBSIZE", Outcome::Unknown),
        ("nobody", "PING", Outcome::Unknown),
    ] {
        let Probe::Redis(plain) = probe(secret(wrong.path(), "other"), &[command], None) else { unreachable!() };
        let seen = asked(&Probe::Redis(RedisProbe { user: Some(user.to_owned()), ..plain })).await;
        assert_eq!(seen.outcome, wanted, "{user} {command}: {seen:?}");
    }
    let Probe::Redis(plain) = probe(password.clone(), &["PING"], Some("PONG")) else { unreachable!() };
    let secure = RedisProbe { port: secure_port, tls: Some(authority.trusted()), ..plain };
    let seen = asked(&Probe::Redis(secure.clone())).await;
    assert_eq!(seen.outcome, Outcome::Pass, "{seen:?}");
    let seen = asked(&Probe::Redis(RedisProbe { port, ..secure })).await;
    assert_eq!(seen.outcome, Outcome::Fail, "no tls is spoken there: {seen:?}");
    let banner = Probe::Tcp(TcpProbe {
        send: Some("PING\r\n".to_owned()),
        expect_matches: Some("^-NOAUTH".to_owned()),
        ..TcpProbe::to(port)
    });
    assert_eq!(asked(&banner).await.outcome, Outcome::Pass);
}
