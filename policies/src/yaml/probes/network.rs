//! Reads the kinds that ask one port, a name server, or the host's own plugins.

use super::shared::{lines, name, pattern, port, tls as tls_settings, tls_of};
use crate::{
    model::{Probe, TcpProbe},
    probe::{ADDRESS, DnsProbe, Grade, GrpcProbe, PluginProbe, RecordKind, TlsProbe},
    yaml::{fields::Keys, value::Value},
};

const TCP: Keys = Keys { known: &["port", "send", "expect", "expect_matches"], later: &[], renamed: &[] };
const TLS: Keys = Keys {
    known: &["port", "ca_file", "certificate_file", "key_file", "server_name", "verify", "days_left", "expiring"],
    later: &[],
    renamed: &[],
};
const DNS: Keys = Keys {
    known: &["name", "type", "server", "port", "expect"],
    later: &[],
    renamed: &[("kind", "write `type: A`"), ("address", "write `server: 10.0.0.53`")],
};
const GRPC: Keys = Keys { known: &["port", "service", "tls"], later: &[], renamed: &[] };
const PLUGIN: Keys = Keys {
    known: &["run", "warning"],
    later: &[],
    renamed: &[("command", "write `run: [\"/usr/lib/nagios/plugins/check_ssh\", \"{address}\"]`")],
};
const NOTHING: Keys = Keys { known: &[], later: &[], renamed: &[] };

/// Longest time ahead that a certificate can be asked to be valid, in days.
const DAYS_MAX: u32 = 3650;
/// Most answers that are wanted of a name server.
const ANSWERS_MAX: usize = 32;

pub(super) fn tcp(value: &Value<'_>) -> Option<Probe> {
    let fields = value.fields(&TCP)?;
    let port = fields.need("port", "port: 5432", port);
    let send = fields.optional("send", lines);
    let expect = fields.optional("expect", lines);
    let expect_matches = fields.optional("expect_matches", pattern);
    Some(Probe::Tcp(TcpProbe { port: port?, send: send?, expect: expect?, expect_matches: expect_matches? }))
}

pub(super) fn tls(value: &Value<'_>) -> Option<Probe> {
    let fields = value.fields(&TLS)?;
    let port = fields.need("port", "port: 443", port);
    let tls = tls_of(value, &fields);
    let days_left = fields.optional("days_left", |v| v.number(1..=DAYS_MAX));
    let expiring = fields.or("expiring", Grade::Slow, grade);
    Some(Probe::Tls(TlsProbe { port: port?, tls: tls?, days_left: days_left?, expiring: expiring? }))
}

pub(super) fn dns(value: &Value<'_>) -> Option<Probe> {
    let fields = value.fields(&DNS)?;
    let name = fields.need("name", "name: www.example.org", name);
    let kind = fields.or("type", RecordKind::A, |v| v.one_of(&RecordKind::ALL));
    let server = fields.optional("server", Value::address);
    let port = fields.or("port", 53, port);
    let expect = fields.or("expect", Vec::new(), answers);
    Some(Probe::Dns(DnsProbe { name: name?, kind: kind?, server: server?, port: port?, expect: expect? }))
}

fn answers(value: &Value<'_>) -> Option<Vec<String>> {
    let items = value.list("expect: [10.0.0.5]")?;
    if items.len() > ANSWERS_MAX {
        return value.wrong(format!("`expect` has more than {ANSWERS_MAX} answers"), "leave some out");
    }
    let read: Vec<_> = items.iter().map(|item| item.text().map(str::to_owned)).collect();
    read.into_iter().collect()
}

pub(super) fn grpc(value: &Value<'_>) -> Option<Probe> {
    let fields = value.fields(&GRPC)?;
    let port = fields.need("port", "port: 50051", port);
    let service = fields.or("service", String::new(), |v| v.text().map(str::to_owned));
    let tls = fields.optional("tls", tls_settings);
    Some(Probe::Grpc(GrpcProbe { port: port?, service: service?, tls: tls? }))
}

pub(super) fn ping(value: &Value<'_>) -> Option<Probe> {
    value.fields(&NOTHING).map(|_| Probe::Ping {})
}

pub(super) fn plugin(value: &Value<'_>) -> Option<Probe> {
    let fields = value.fields(&PLUGIN)?;
    let run = fields.need("run", "run: [\"/usr/lib/nagios/plugins/check_ssh\", \"{address}\"]", command);
    let warning = fields.or("warning", Grade::Slow, grade);
    Some(Probe::Plugin(PluginProbe { run: run?, warning: warning? }))
}

/// A command whose program is named by its place: a search path may differ from host to host.
fn command(value: &Value<'_>) -> Option<Vec<String>> {
    let run = value.command()?;
    if !run.first().is_some_and(|program| program.starts_with('/')) {
        return value.unexpected("the absolute path of a program, and its arguments", "begin it with `/`");
    }
    if run.iter().any(|word| word.replace(ADDRESS, "").contains("{address")) {
        return value.wrong("a placeholder is not closed", "write `{address}`: the guest's address");
    }
    Some(run)
}

fn grade(value: &Value<'_>) -> Option<Grade> {
    value.one_of(&[("slow", Grade::Slow), ("fail", Grade::Fail)])
}
