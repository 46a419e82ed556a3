//! Reads the kinds that log in to a database.

use super::shared::{lines, port, tls};
use crate::{
    model::Probe,
    probe::{RedisProbe, SqlProbe},
    yaml::{fields::Keys, value::Value},
};

const SQL: Keys = Keys {
    known: &["port", "user", "password_file", "database", "before", "query", "expect", "tls"],
    later: &[],
    renamed: &[("password", "put it into a file with mode 600 on every host, and write `password_file`")],
};
const REDIS: Keys = Keys {
    known: &["port", "user", "password_file", "command", "expect", "tls"],
    later: &[],
    renamed: &[("password", "put it into a file with mode 600 on every host, and write `password_file`")],
};

pub(super) fn postgres(value: &Value<'_>) -> Option<Probe> {
    sql(value, 5432, "postgres").map(Probe::Postgres)
}

pub(super) fn mysql(value: &Value<'_>) -> Option<Probe> {
    sql(value, 3306, "").map(Probe::Mysql)
}

fn sql(value: &Value<'_>, default_port: u16, default_database: &str) -> Option<SqlProbe> {
    let fields = value.fields(&SQL)?;
    let port = fields.or("port", default_port, port);
    let user = fields.need("user", "user: holdfast", word);
    let password_file = fields.optional("password_file", Value::absolute_path);
    let database = fields.or("database", default_database.to_owned(), word);
    let before = fields.or("before", Vec::new(), statements);
    let query = fields.or("query", "SELECT 1".to_owned(), lines);
    let expect = fields.optional("expect", lines);
    let tls = fields.optional("tls", tls);
    Some(SqlProbe {
        port: port?,
        user: user?,
        password_file: password_file?,
        database: database?,
        before: before?,
        query: query?,
        expect: expect?,
        tls: tls?,
    })
}

pub(super) fn redis(value: &Value<'_>) -> Option<Probe> {
    let fields = value.fields(&REDIS)?;
    let port = fields.or("port", 6379, port);
    let user = fields.optional("user", word);
    let password_file = fields.optional("password_file", Value::absolute_path);
    let command = fields.or("command", vec!["PING".to_owned()], Value::command);
    let expect = fields.optional("expect", lines);
    let tls = fields.optional("tls", tls);
    let probe = RedisProbe {
        port: port?,
        user: user?,
        password_file: password_file?,
        command: command?,
        expect: expect?,
        tls: tls?,
    };
    if probe.user.is_some() && probe.password_file.is_none() {
        return value.wrong("`user` needs a `password_file`", "add it, or leave `user` out");
    }
    Some(Probe::Redis(probe))
}

/// Most statements before a query: enough to write something and to make ready for that.
const STATEMENTS_MAX: usize = 8;

fn statements(value: &Value<'_>) -> Option<Vec<String>> {
    let items = value.list("write a list of statements: [\"DELETE FROM beat\", \"INSERT INTO beat VALUES (1)\"]")?;
    if items.len() > STATEMENTS_MAX {
        return value.wrong(format!("`before` has more than {STATEMENTS_MAX} statements"), "a probe asks one thing");
    }
    let read: Vec<Option<String>> = items.iter().map(lines).collect();
    read.into_iter().collect()
}

/// A name without what would end it on the wire.
fn word(value: &Value<'_>) -> Option<String> {
    value.text().map(str::to_owned)
}
