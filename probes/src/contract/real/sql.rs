//! What PostgreSQL and MariaDB have in common.

use std::path::PathBuf;

use holdfast_policies::{
    model::Probe,
    observe::Outcome,
    probe::{SqlProbe, TlsSettings},
};

use super::asked;
use crate::contract::{authority::Authority, network};

/// A question of an SQL server that it answers with 1, of a user who has a password.
pub(super) fn sql(port: u16, database: &str) -> SqlProbe {
    SqlProbe { database: database.to_owned(), ..network::sql(port, None) }
}

/// Queries, what is expected of their answers, and what they come to.
pub(super) async fn answers(kind: fn(SqlProbe) -> Probe, plain: &SqlProbe, cases: &[(&str, Option<&str>, Outcome)]) {
    for &(asking, expect, wanted) in cases {
        let (query, expect) = (asking.to_owned(), expect.map(str::to_owned));
        let seen = asked(&kind(SqlProbe { query, expect, ..plain.clone() })).await;
        assert_eq!(seen.outcome, wanted, "{asking}: {seen:?}");
    }
}

/// A password that is missing or wrong is `Unknown`, and over TLS the certificate has to name the server.
pub(super) async fn secrets_and_names(
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
