//! Promises of every kind of probe as it is written.

use crate::{
    model::{Probe, Vantages},
    names::{PolicyName, ServiceName},
    probe::{Grade, HttpVersion, Method, RecordKind},
    yaml::{Source, parse},
};

fn file(probe: &str, rest: &str) -> String {
    format!(
        "policies:\n  p:\n    match: {{ app: web }}\n    services:\n      s:\n        probe: {probe}\n{rest}    ladder: \
         [{{ page: {{}} }}]\n"
    )
}

fn read(probe: &str) -> (Probe, Vantages) {
    let text = file(probe, "");
    let mut policies = parse(&[Source { name: "a.yaml", text: &text }]).map_err(|all| format!("{all:?}")).unwrap();
    let mut policy = policies.policies.remove(&PolicyName::new("p").unwrap()).unwrap();
    let service = policy.services.remove(&ServiceName::new("s").unwrap()).unwrap();
    (service.probe, service.from)
}

fn mistakes(text: &str) -> Vec<String> {
    let findings = parse(&[Source { name: "a.yaml", text }]).expect_err(text);
    findings.iter().map(|f| format!("{}:{} {}", f.line, f.column, f.what)).collect()
}

#[test]
fn every_setting_of_http_is_read() {
    let (probe, from) = read(
        r#"{ http: { url: "https://shop.example/x", method: POST, send: "a\nb", headers: { X-Probe: "1" },
             header_files: { Authorization: /etc/holdfast/token }, status: [200, 300-399], body: "ok",
             body_matches: 'v\d+', json: { "/a/b": 3, "/c": "3", "/d": yes }, redirects: 3, version: 2,
             connect_to: "{address}:8443", tls: { ca_file: /etc/ca.pem, server_name: shop.example } } }"#,
    );
    let Probe::Http(http) = probe else { panic!("{probe:?}") };
    assert_eq!((http.method, http.version, http.redirects), (Method::Post, HttpVersion::Two, 3));
    assert_eq!(http.status.0, [(200, 200), (300, 399)]);
    assert_eq!(http.json["/a/b"], serde_json::json!(3));
    assert_eq!(http.json["/c"], serde_json::json!("3"));
    assert_eq!(http.json["/d"], serde_json::json!("yes"));
    assert_eq!(http.tls.server_name.as_deref(), Some("shop.example"));
    assert_eq!(from, Vantages { inside: false, hosts: 2, agree: 2 });
}

#[test]
fn plain_questions_are_asked_inside_too_and_others_from_hosts_alone() {
    let (_, from) = read(r#"{ http: { url: "http://{address}/", status: 200-299 } }"#);
    assert!(from.inside);
    assert!(read("{ tcp: { port: 80 } }").1.inside);
    for probe in [
        r#"{ tcp: { port: 25, expect: "220 " } }"#,
        "{ tls: { port: 443 } }",
        "{ dns: { name: example.org } }",
        "{ grpc: { port: 50051 } }",
        "{ postgres: { user: holdfast } }",
        "{ mysql: { user: holdfast } }",
        "redis",
        "ping",
        r#"{ plugin: { run: ["/usr/lib/nagios/plugins/check_ssh", "{address}"] } }"#,
    ] {
        assert_eq!(read(probe).1, Vantages { inside: false, hosts: 2, agree: 2 }, "{probe}");
        let text = file(probe, "        from: { inside: true }\n");
        let found = mistakes(&text);
        assert!(found[0].contains("`inside` must be false"), "{probe}: {found:?}");
    }
}

#[test]
fn kinds_have_the_defaults_of_their_protocols() {
    let Probe::Postgres(sql) = read("{ postgres: { user: u } }").0 else { panic!() };
    assert_eq!((sql.port, sql.database.as_str(), sql.query.as_str()), (5432, "postgres", "SELECT 1"));
    let Probe::Mysql(sql) = read("{ mysql: { user: u } }").0 else { panic!() };
    assert_eq!((sql.port, sql.database.as_str(), sql.before.len()), (3306, "", 0));
    let Probe::Mysql(sql) = read(r#"{ mysql: { user: u, before: ["SET @a = 1", "DO 1"] } }"#).0 else { panic!() };
    assert_eq!(sql.before, ["SET @a = 1", "DO 1"]);
    let Probe::Redis(redis) = read("redis").0 else { panic!() };
    assert_eq!((redis.port, redis.command), (6379, vec!["PING".to_owned()]));
    let Probe::Dns(dns) = read("{ dns: { name: a.example, type: MX } }").0 else { panic!() };
    assert_eq!((dns.kind, dns.port, dns.server), (RecordKind::Mx, 53, None));
    let Probe::Tls(tls) = read("{ tls: { port: 443, days_left: 14 } }").0 else { panic!() };
    assert_eq!((tls.days_left, tls.expiring, tls.tls.verify), (Some(14), Grade::Slow, true));
    let Probe::Tcp(tcp) = read(r#"{ tcp: { port: 25, send: "EHLO a\r\n", expect_matches: '^220' } }"#).0 else {
        panic!()
    };
    assert_eq!(tcp.send.as_deref(), Some("EHLO a\r\n"));
}

#[test]
fn mistakes_in_probes_are_shown_where_they_stand() {
    for (probe, what) in [
        (r#"{ http: { url: "http://{address}/", status: 99 } }"#, "a status or a range of them"),
        (r#"{ http: { url: "http://{address}/", status: 300-200 } }"#, "a status or a range of them"),
        (r#"{ http: { url: "http://{address}/", body_matches: "a(" } }"#, "unclosed group"),
        (r#"{ http: { url: "http://{address}/", json: { status: ok } } }"#, "is not a JSON pointer"),
        (r#"{ http: { url: "http://{address}/", headers: { Authorization: x } } }"#, "is a secret"),
        (r#"{ http: { url: "http://{address}/", headers: { "a b": x } } }"#, "not the name of a header"),
        (r#"{ http: { url: "http://{address}/", headers: { Content-Length: "3" } } }"#, "set by Holdfast"),
        (r#"{ http: { url: "http://{address}/", tls: { verify: false } } }"#, "`tls` has no use"),
        (r#"{ http: { url: "http://{address}/", send: x } }"#, "`send` needs"),
        (r#"{ http: { url: "http://{address}/", method: HEAD, body: x } }"#, "has no body"),
        (r#"{ http: { url: "http://{address}/", redirects: 99 } }"#, "from 0 to 10"),
        (r#"{ http: { url: "http://{address}/", connect_to: "shop.example" } }"#, "an address, perhaps with a port"),
        (r#"{ http: { url: "https://a.example/", tls: { key_file: /k } } }"#, "belong together"),
        (r#"{ http: { url: "https://a.example/", tls: { ca_file: /k, verify: false } } }"#, "has no use while"),
        ("{ tls: { port: 443, days_left: 0 } }", "from 1 to 3650"),
        ("{ tls: { port: 443, expiring: page } }", "unknown expiring"),
        ("{ tls: { port: 443, server_name: \"a b\" } }", "the name of a host"),
        ("{ dns: { name: example.org, type: HINFO } }", "unknown type"),
        ("{ dns: { name: \"\" } }", "`name` must be text"),
        ("{ grpc: { service: a } }", "has no `port`"),
        ("{ postgres: { user: u, password: p } }", "unknown key `password`"),
        ("{ mysql: {} }", "has no `user`"),
        ("{ redis: { user: u } }", "needs a `password_file`"),
        ("{ mysql: { user: u, before: [a, b, c, d, e, f, g, h, i] } }", "more than 8 statements"),
        ("{ postgres: { user: u, before: \"DO 1\" } }", "must be a list"),
        (r#"{ plugin: { run: ["check_ssh"] } }"#, "the absolute path of a program"),
        (r#"{ ping: { count: 3 } }"#, "unknown key `count`"),
    ] {
        let found = mistakes(&file(probe, ""));
        assert!(found.iter().any(|found| found.starts_with("6:") && found.contains(what)), "{probe}: {found:?}");
    }
}

#[test]
fn a_guest_without_an_address_is_named_when_a_service_is_asked_at_it() {
    let guest = "guests:\n  g:\n    labels: { app: web }\n    qemu: { memory: 64MiB, disks: [{ path: /g.img }] }\n";
    for (probe, needed) in [
        ("ping", true),
        ("{ dns: { name: example.org } }", true),
        ("{ dns: { name: example.org, server: 10.0.0.53 } }", false),
        (r#"{ plugin: { run: ["/bin/check", "{address}"] } }"#, true),
        (r#"{ plugin: { run: ["/bin/check"] } }"#, false),
    ] {
        let text = format!("{guest}{}", file(probe, ""));
        let found = parse(&[Source { name: "a.yaml", text: &text }]);
        let named = found.is_err_and(|all| all.iter().any(|finding| finding.what.contains("has no `address`")));
        assert_eq!(named, needed, "{probe}");
    }
}

#[test]
fn the_example_reads_and_has_one_of_every_kind_that_hosts_ask() {
    let text = include_str!("../../../../examples/policies/probes.yaml");
    let read = parse(&[Source { name: "probes.yaml", text }]).map_err(|all| format!("{all:?}")).unwrap();
    let kinds: std::collections::BTreeSet<String> = read
        .policies
        .values()
        .flat_map(|policy| policy.services.values())
        .filter(|service| service.probe.asked_by_hosts())
        .map(|service| format!("{:?}", service.probe).split(['(', ' ']).next().unwrap_or_default().to_owned())
        .collect();
    let all = ["Dns", "Grpc", "Http", "Mysql", "Ping", "Plugin", "Postgres", "Redis", "Tcp", "Tls"];
    assert_eq!(kinds.iter().map(String::as_str).collect::<Vec<_>>(), all);
}
