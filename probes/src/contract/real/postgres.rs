//! PostgreSQL.

use std::{fs, process::Command};

use holdfast_policies::{model::Probe, observe::Outcome, probe::SqlProbe};

use super::{
    asked, done, folder, given_away, left_out, modest, ready, secret,
    sql::{answers, secrets_and_names, sql},
    started,
};
use crate::contract::{authority::Authority, scene::free_port};

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
    let cases = [
        ("SELECT pg_is_in_recovery()", Some("f"), Outcome::Pass),
        ("SELECT pg_is_in_recovery()", Some("t"), Outcome::Fail),
        ("SELECT NULL", Some("1"), Outcome::Fail),
        ("SELECT 1 WHERE false", Some("1"), Outcome::Fail),
        ("SELECT * FROM absent", None, Outcome::Fail),
        ("SELEC 1", None, Outcome::Unknown),
        ("SELECT repeat('x', 10000000)", None, Outcome::Fail),
        ("SELECT generate_series(1, 1000000)", None, Outcome::Fail),
        ("COPY (SELECT 1) TO STDOUT", None, Outcome::Unknown),
    ];
    answers(Probe::Postgres, &plain, &cases).await;
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
