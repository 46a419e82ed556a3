//! Questions to the real programs: Redis, nginx, gRPC's own library, PostgreSQL, MariaDB, dnsmasq and the monitoring plugins.
//!
//! A program that is missing fails its test with the reason; `HOLDFAST_NO_LAB=1` leaves them out.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use holdfast_policies::{
    model::{HttpProbe, Probe, TcpProbe},
    observe::{Observation, Outcome},
    probe::{DnsProbe, Grade, GrpcProbe, HttpVersion, PluginProbe, RecordKind, RedisProbe, SqlProbe, TlsSettings},
};

use crate::{
    ask,
    contract::{
        authority::Authority,
        scene::{closed_port, free_port, network},
    },
};

/// Long enough for a database to come up on a busy machine.
const READY_LIMIT: Duration = Duration::from_secs(120);
const LIMIT: Duration = Duration::from_secs(10);
/// `nobody` and `nogroup` of Debian: databases refuse to run as root.
const NOBODY: u32 = 65534;

/// Whether tests with real programs are to be left out; if so, says that this one was.
fn left_out(what: &str) -> bool {
    let left_out = std::env::var_os("HOLDFAST_NO_LAB").is_some_and(|value| value == "1");
    if left_out {
        eprintln!("left out because of HOLDFAST_NO_LAB=1: {what}");
    }
    left_out
}

/// A program that runs in a folder of its own and dies with this value.
struct Program {
    child: Child,
    _folder: tempfile::TempDir,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// As nobody, where we are root.
fn modest(command: &mut Command) -> &mut Command {
    if nix::unistd::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn given_away(path: &Path) {
    if nix::unistd::geteuid().is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

fn started(command: &mut Command, folder: tempfile::TempDir, package: &str) -> Program {
    let log = fs::File::create(folder.path().join("log")).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    match command.spawn() {
        Ok(child) => Program { child, _folder: folder },
        Err(error) => panic!("{command:?} cannot be run ({error}); install {package}, or set HOLDFAST_NO_LAB=1"),
    }
}

fn done(command: &mut Command, package: &str) {
    match command.stdin(Stdio::null()).output() {
        Ok(output) => assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => panic!("{command:?} cannot be run ({error}); install {package}, or set HOLDFAST_NO_LAB=1"),
    }
}

fn secret(folder: &Path, text: &str) -> Option<PathBuf> {
    let file = folder.join("secret");
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    Some(file)
}

async fn asked(probe: &Probe) -> Observation {
    ask(probe, &network(), LIMIT).await
}

/// Asks until it passes; the last answer is shown if it never does.
async fn ready(probe: &Probe) {
    let limit = Instant::now() + READY_LIMIT;
    loop {
        let seen = asked(probe).await;
        if seen.outcome == Outcome::Pass {
            return;
        }
        assert!(Instant::now() < limit, "{probe:?}: {seen:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

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

#[tokio::test]
async fn nginx_is_asked_over_both_versions_of_http() {
    if left_out("probes against a real nginx") {
        return;
    }
    let (folder, one, two) = (folder(), free_port().await, free_port().await);
    let config = folder.path().join("nginx.conf");
    let text = format!(
        "daemon off; master_process off; pid {0}/pid; error_log {0}/error.log; events {{}}\nhttp {{ access_log off; client_body_temp_path {0}/b; \
         proxy_temp_path {0}/p; fastcgi_temp_path {0}/f; uwsgi_temp_path {0}/u; scgi_temp_path {0}/s;\nserver {{ listen \
         127.0.0.1:{one}; listen 127.0.0.1:{two} http2; location / {{ return 200 '{{\"up\": true}}'; }} location /old \
         {{ return 301 /; }} location /no {{ return 503; }} }} }}\n",
        folder.path().display(),
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-c").arg(&config).arg("-e").arg(folder.path().join("error.log"));
    let _program = started(&mut command, folder, "nginx-light");
    for (port, version) in [(one, HttpVersion::One), (two, HttpVersion::Two)] {
        let get = |path: &str| HttpProbe { version, ..HttpProbe::get(format!("http://{{address}}:{port}{path}")) };
        let mut right = get("/");
        right.json.insert("/up".to_owned(), true.into());
        ready(&Probe::Http(Box::new(right))).await;
        assert_eq!(asked(&Probe::Http(Box::new(get("/no")))).await.outcome, Outcome::Fail);
        assert_eq!(asked(&Probe::Http(Box::new(get("/old")))).await.outcome, Outcome::Fail);
        let followed = HttpProbe { redirects: 1, ..get("/old") };
        let seen = asked(&Probe::Http(Box::new(followed))).await;
        assert_eq!(seen.outcome, Outcome::Pass, "{version:?} {seen:?}");
    }
}

/// A port's health service, asked for one service.
fn grpc(port: u16, service: &str, tls: Option<TlsSettings>) -> Probe {
    Probe::Grpc(GrpcProbe { port, service: service.to_owned(), tls })
}

#[tokio::test]
async fn the_health_service_of_grpc_s_own_library_is_asked_for_every_answer_that_it_has() {
    if left_out("probes against a real gRPC server") {
        return;
    }
    let python = "/usr/bin/python3";
    let has_grpc = Command::new(python).args(["-c", "import grpc"]).output().is_ok_and(|ended| ended.status.success());
    assert!(has_grpc, "install python3-grpcio, or set HOLDFAST_NO_LAB=1");
    let (folder, port, secure_port, bare_port) = (folder(), free_port().await, free_port().await, free_port().await);
    let authority = Authority::new();
    let (certificate, key) = authority.write(folder.path());
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/lab/health_of_grpc.py"));
    command.args([port, secure_port, bare_port].map(|port| port.to_string())).arg(certificate).arg(key);
    let _program = started(&mut command, folder, "python3-grpcio");
    ready(&grpc(port, "", None)).await;
    for tls in [None, Some(authority.trusted())] {
        let port = if tls.is_some() { secure_port } else { port };
        for (service, wanted) in [
            ("", Outcome::Pass),
            ("up", Outcome::Pass),
            ("down", Outcome::Fail),
            ("lost", Outcome::Fail),
            ("absent", Outcome::Fail),
            ("broken", Outcome::Fail),
            ("private", Outcome::Unknown),
        ] {
            let seen = asked(&grpc(port, service, tls.clone())).await;
            assert_eq!(seen.outcome, wanted, "{service:?}, tls: {}: {seen:?}", tls.is_some());
        }
    }
    let seen = asked(&grpc(bare_port, "", None)).await;
    assert_eq!(seen.outcome, Outcome::Unknown, "it has no health service: {seen:?}");
    let hung = ask(&grpc(port, "hung", None), &network(), Duration::from_secs(3)).await;
    assert_eq!(hung.outcome, Outcome::Fail, "{hung:?}");
    let misnamed = TlsSettings { server_name: Some("elsewhere.example".to_owned()), ..authority.trusted() };
    let seen = asked(&grpc(secure_port, "", Some(misnamed))).await;
    assert_eq!(seen.outcome, Outcome::Fail, "{seen:?}");
    let seen = asked(&grpc(port, "", Some(authority.trusted()))).await;
    assert_eq!(seen.outcome, Outcome::Fail, "no tls is spoken there: {seen:?}");
    assert_eq!(asked(&grpc(port, "", None)).await.outcome, Outcome::Pass, "it serves on, whatever was asked");
}

/// A question of an SQL server that it answers with 1, of a user who has a password.
fn sql(port: u16, database: &str) -> SqlProbe {
    SqlProbe {
        port,
        user: "holdfast".to_owned(),
        password_file: None,
        database: database.to_owned(),
        before: Vec::new(),
        query: "SELECT 1".to_owned(),
        expect: Some("1".to_owned()),
        tls: None,
    }
}

/// A password that is missing or wrong is `Unknown`, and over TLS the certificate has to name the server.
async fn secrets_and_names(
    kind: fn(SqlProbe) -> Probe,
    plain: SqlProbe,
    wrong: Option<PathBuf>,
    authority: &Authority,
) {
    for password_file in [None, wrong] {
        let seen = asked(&kind(SqlProbe { password_file, expect: None, ..plain.clone() })).await;
        assert_eq!(seen.outcome, Outcome::Unknown, "{seen:?}");
    }
    let trusted = authority.trusted();
    let misnamed = TlsSettings { server_name: Some("elsewhere.example".to_owned()), ..trusted.clone() };
    for (tls, wanted) in [(trusted, Outcome::Pass), (misnamed, Outcome::Fail)] {
        let seen = asked(&kind(SqlProbe { tls: Some(tls), ..plain.clone() })).await;
        assert_eq!(seen.outcome, wanted, "{seen:?}");
    }
}

#[tokio::test]
async fn postgresql_is_asked_a_query_and_a_wrong_password_is_unknown() {
    if left_out("probes against a real PostgreSQL") {
        return;
    }
    let (folder, port) = (folder(), free_port().await);
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    given_away(&data);
    let (right, wrong) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let password = folder.path().join("pw");
    fs::write(&password, "pass word").unwrap();
    given_away(&password);
    let programs = fs::read_dir("/usr/lib/postgresql").ok().and_then(|mut found| found.find_map(Result::ok));
    let Some(programs) = programs else { panic!("install postgresql, or set HOLDFAST_NO_LAB=1") };
    let programs = programs.path().join("bin");
    let mut initdb = Command::new(programs.join("initdb"));
    initdb.args(["-A", "scram-sha-256", "-U", "holdfast", "--no-sync", "-D"]).arg(&data).arg("--pwfile").arg(&password);
    done(modest(&mut initdb).current_dir("/"), "postgresql");
    // Each role in a way of its own.
    let ways = "host all old 127.0.0.1/32 md5\nhost all clear 127.0.0.1/32 password\nhost all all 127.0.0.1/32 scram-sha-256\n";
    fs::write(data.join("pg_hba.conf"), ways).unwrap();
    let authority = Authority::new();
    let (certificate, key) = authority.write(&data);
    given_away(&certificate);
    given_away(&key);
    let mut command = Command::new(programs.join("postgres"));
    command
        .args(["-c", "ssl=on"])
        .arg("-D")
        .arg(&data)
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-F", "-k", ""])
        .current_dir("/");
    let _program = started(modest(&mut command), folder, "postgresql");
    let password_file = secret(right.path(), "pass word\n");
    let plain = SqlProbe { password_file, ..sql(port, "postgres") };
    ready(&Probe::Postgres(plain.clone())).await;
    for (asking, expect, wanted) in [
        ("SELECT pg_is_in_recovery()", Some("f"), Outcome::Pass),
        ("SELECT pg_is_in_recovery()", Some("t"), Outcome::Fail),
        ("SELECT NULL", Some("1"), Outcome::Fail),
        ("SELECT 1 WHERE false", Some("1"), Outcome::Fail),
        ("SELECT * FROM absent", None, Outcome::Fail),
        ("SELEC 1", None, Outcome::Unknown),
        ("SELECT repeat('x', 10000000)", None, Outcome::Fail),
        ("SELECT generate_series(1, 1000000)", None, Outcome::Fail),
        ("COPY (SELECT 1) TO STDOUT", None, Outcome::Unknown),
    ] {
        let (query, expect) = (asking.to_owned(), expect.map(str::to_owned));
        let seen = asked(&Probe::Postgres(SqlProbe { query, expect, ..plain.clone() })).await;
        assert_eq!(seen.outcome, wanted, "{asking}: {seen:?}");
    }
    // As the kit does: one transaction for all of it.
    let before = vec!["CREATE TABLE IF NOT EXISTS beat (at timestamptz)".to_owned()];
    for (when, wanted) in
        [("now()", Outcome::Pass), ("now()", Outcome::Pass), ("now() - interval '1 s'", Outcome::Fail)]
    {
        let write = "DELETE FROM beat; INSERT INTO beat VALUES (now());";
        let query = format!("{write} SELECT 'ok' FROM beat WHERE at = {when}");
        let (before, expect) = (before.clone(), Some("ok".to_owned()));
        let seen = asked(&Probe::Postgres(SqlProbe { before, query, expect, ..plain.clone() })).await;
        assert_eq!(seen.outcome, wanted, "{when}: {seen:?}");
    }
    other_ways_into_postgresql(&plain, &authority).await;
    secrets_and_names(Probe::Postgres, plain, secret(wrong.path(), "other"), &authority).await;
}

/// MD5 is spoken anywhere, and the password itself is said over TLS alone.
async fn other_ways_into_postgresql(plain: &SqlProbe, authority: &Authority) {
    let roles = [
        "SET password_encryption = md5",
        "CREATE ROLE old LOGIN PASSWORD 'pass word'",
        "CREATE ROLE clear LOGIN PASSWORD 'pass word'",
    ];
    let before = roles.map(str::to_owned).to_vec();
    let seen = asked(&Probe::Postgres(SqlProbe { before, ..plain.clone() })).await;
    assert_eq!(seen.outcome, Outcome::Pass, "{seen:?}");
    for (user, secure, wanted) in [
        ("old", false, Outcome::Pass),
        ("old", true, Outcome::Pass),
        ("clear", false, Outcome::Unknown),
        ("clear", true, Outcome::Pass),
    ] {
        let tls = secure.then(|| authority.trusted());
        let seen = asked(&Probe::Postgres(SqlProbe { user: user.to_owned(), tls, ..plain.clone() })).await;
        assert_eq!(seen.outcome, wanted, "{user}, tls: {secure}: {seen:?}");
    }
}

#[tokio::test]
async fn mariadb_is_asked_a_query_and_a_wrong_password_is_unknown() {
    if left_out("probes against a real MariaDB") {
        return;
    }
    let (folder, port) = (folder(), free_port().await);
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    given_away(&data);
    let right = tempfile::tempdir().unwrap();
    let wrong = tempfile::tempdir().unwrap();
    let datadir = format!("--datadir={}", data.display());
    let mut install = Command::new("mariadb-install-db");
    install.args(["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal", &datadir]);
    done(modest(&mut install).current_dir("/"), "mariadb-server");
    let init = folder.path().join("init.sql");
    fs::write(&init, "CREATE USER holdfast@'127.0.0.1' IDENTIFIED BY 'pass word';\n").unwrap();
    let authority = Authority::new();
    let (certificate, key) = authority.write(folder.path());
    given_away(&key);
    let mut command = Command::new("mariadbd");
    command.arg("--no-defaults").arg(format!("--ssl-cert={}", certificate.display()));
    command.arg(format!("--ssl-key={}", key.display()));
    command.args([datadir.as_str(), "--bind-address=127.0.0.1", &format!("--port={port}")]);
    command.arg(format!("--socket={}/s", data.display())).arg(format!("--init-file={}", init.display()));
    command.arg("--skip-name-resolve").current_dir("/");
    let _program = started(modest(&mut command), folder, "mariadb-server");
    let password_file = secret(right.path(), "pass word\n");
    let plain = SqlProbe { password_file, ..sql(port, "") };
    ready(&Probe::Mysql(plain.clone())).await;
    for (asking, expect, wanted) in [
        ("SELECT @@read_only", Some("0"), Outcome::Pass),
        ("SELECT @@read_only", Some("1"), Outcome::Fail),
        // As the kit asks.
        ("SELECT CONCAT(@@global.read_only) IN ('0', 'OFF')", Some("1"), Outcome::Pass),
        ("SELECT NULL", Some("1"), Outcome::Fail),
        ("DO 1", None, Outcome::Pass),
        ("SELECT * FROM absent.absent", None, Outcome::Unknown),
        ("SELEC 1", None, Outcome::Unknown),
        ("SELECT repeat('x', 10000000)", None, Outcome::Fail),
    ] {
        let (query, expect) = (asking.to_owned(), expect.map(str::to_owned));
        let seen = asked(&Probe::Mysql(SqlProbe { query, expect, ..plain.clone() })).await;
        assert_eq!(seen.outcome, wanted, "{asking}: {seen:?}");
    }
    for (before, wanted) in [
        (&["SET @a = 7"][..], Outcome::Pass),
        (&["SELECT 1 UNION SELECT 2", "SELECT 3", "SET @a = 7"][..], Outcome::Pass),
        (&["SET @a = 8"][..], Outcome::Fail),
        (&["SELEC 1", "SET @a = 7"][..], Outcome::Unknown),
    ] {
        let before = before.iter().map(|statement| (*statement).to_owned()).collect();
        let (query, expect) = ("SELECT @a".to_owned(), Some("7".to_owned()));
        let probe = SqlProbe { before, query, expect, ..plain.clone() };
        let seen = asked(&Probe::Mysql(probe.clone())).await;
        assert_eq!(seen.outcome, wanted, "{probe:?}: {seen:?}");
    }
    secrets_and_names(Probe::Mysql, plain, secret(wrong.path(), "other"), &authority).await;
}

#[tokio::test]
async fn dnsmasq_is_asked_for_records_of_many_kinds() {
    if left_out("probes against a real dnsmasq") {
        return;
    }
    let (folder, port) = (folder(), free_port().await);
    let mut command = Command::new("/usr/sbin/dnsmasq");
    command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--bind-interfaces"]);
    command.args(["--listen-address=127.0.0.1", &format!("--port={port}"), "--pid-file="]);
    command.args(["--address=/www.example/10.0.0.5", "--address=/www.example/fd00::5", "--txt-record=t.example,a b"]);
    command.args([
        "--mx-host=example,mail.example,10",
        "--srv-host=_x._tcp.example,www.example,80",
        "--local=/example/",
    ]);
    let _program = started(&mut command, folder, "dnsmasq-base");
    let dns = |name: &str, kind, expect: &[&str]| {
        let expect = expect.iter().map(|word| (*word).to_owned()).collect();
        Probe::Dns(DnsProbe { name: name.to_owned(), kind, server: None, port, expect })
    };
    ready(&dns("www.example", RecordKind::A, &["10.0.0.5"])).await;
    for (name, kind, expect, wanted) in [
        ("WWW.EXAMPLE.", RecordKind::Aaaa, ["fd00:0::5"], Outcome::Pass),
        ("t.example", RecordKind::Txt, ["a b"], Outcome::Pass),
        ("example", RecordKind::Mx, ["10 mail.example"], Outcome::Pass),
        ("_x._tcp.example", RecordKind::Srv, ["0 0 80 www.example."], Outcome::Pass),
        ("example", RecordKind::Mx, ["20 mail.example"], Outcome::Fail),
        ("absent.example", RecordKind::A, ["10.0.0.5"], Outcome::Fail),
    ] {
        let seen = asked(&dns(name, kind, &expect)).await;
        assert_eq!(seen.outcome, wanted, "{name}: {seen:?}");
    }
}

#[tokio::test]
async fn monitoring_plugins_are_run_and_believed() {
    if left_out("probes by real monitoring plugins") {
        return;
    }
    let port = crate::contract::scene::server(crate::contract::scene::Manner::Says(crate::contract::scene::OK)).await;
    let plugin = |words: &[&str]| {
        let program = format!("/usr/lib/nagios/plugins/{}", words[0]);
        assert!(Path::new(&program).exists(), "install monitoring-plugins-basic, or set HOLDFAST_NO_LAB=1");
        let run = std::iter::once(program).chain(words[1..].iter().map(|word| (*word).to_owned()));
        Probe::Plugin(PluginProbe { run: run.collect(), warning: Grade::Slow })
    };
    let (open, closed) = (port.to_string(), closed_port().to_string());
    for (words, wanted) in [
        (&["check_tcp", "-H", "{address}", "-p", &open][..], Outcome::Pass),
        (&["check_tcp", "-H", "{address}", "-p", &closed], Outcome::Fail),
        (&["check_http", "-I", "{address}", "-p", &open], Outcome::Pass),
        (&["check_dummy", "1", "late"], Outcome::Slow),
        (&["check_dummy", "3"], Outcome::Unknown),
        (&["check_tcp", "--version"], Outcome::Unknown),
    ] {
        let seen = asked(&plugin(words)).await;
        assert_eq!(seen.outcome, wanted, "{words:?}: {seen:?}");
        assert!(!seen.detail.contains('|'), "{seen:?}");
    }
}
