//! MariaDB.

use std::{fs, process::Command};

use holdfast_policies::{model::Probe, observe::Outcome, probe::SqlProbe};

use super::{
    asked, done, folder, given_away, left_out, modest, ready, secret,
    sql::{answers, secrets_and_names, sql},
    started,
};
use crate::contract::{authority::Authority, scene::free_port};

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
    let cases = [
        ("SELECT @@read_only", Some("0"), Outcome::Pass),
        ("SELECT @@read_only", Some("1"), Outcome::Fail),
        // As the kit asks.
        ("SELECT CONCAT(@@global.read_only) IN ('0', 'OFF')", Some("1"), Outcome::Pass),
        ("SELECT NULL", Some("1"), Outcome::Fail),
        ("DO 1", None, Outcome::Pass),
        ("SELECT * FROM absent.absent", None, Outcome::Unknown),
        ("SELEC 1", None, Outcome::Unknown),
        ("SELECT repeat('x', 10000000)", None, Outcome::Fail),
    ];
    answers(Probe::Mysql, &plain, &cases).await;
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
