//! Promises of the YAML layer: the examples read, mistakes show where they stand, all at once, and no text breaks it.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Finding, INPUT_BYTES_MAX, Source, diff, parse, parse_host, parse_identity};
use crate::{
    hostfile::{Timing, WatchdogFile},
    model::{
        Accel, DiskFormat, DisplayModel, OnDegraded, Policies, PowerDevice, QemuDefinition, Receiver, Rung, Severity,
        Vantages,
    },
    names::{GuestName, HostName, RuleName},
    operators::{Certificates, Revoked},
    rules::{CapacitySettings, Hosts, OnShutdown, Rule, Score},
    time::Span,
};

mod fencing;

const WEB: &str = include_str!("../../../examples/policies/web.yaml");
const DATABASE: &str = include_str!("../../../examples/policies/database.yaml");
const FENCING: &str = include_str!("../../../examples/policies/fencing.yaml");
const RULES: &str = include_str!("../../../examples/policies/rules.yaml");
const HOST: &str = include_str!("../../../examples/host.yaml");

fn read(text: &str) -> Result<Policies, Vec<Finding>> {
    parse(&[Source { name: "a.yaml", text }])
}

/// Findings as `line:column what`.
fn mistakes(text: &str) -> Vec<String> {
    let findings = read(text).expect_err(text);
    findings.iter().map(|f| format!("{}:{} {}", f.line, f.column, f.what)).collect()
}

fn host_mistakes(text: &str) -> Vec<String> {
    let findings = parse_host(&Source { name: "host.yaml", text }).expect_err(text);
    findings.iter().map(|f| format!("{}:{} {}", f.line, f.column, f.what)).collect()
}

fn show(findings: &[Finding]) -> String {
    findings.iter().map(|finding| format!("{finding}\n")).collect()
}

#[test]
fn the_examples_read_together() {
    let sources = [("web.yaml", WEB), ("database.yaml", DATABASE), ("rules.yaml", RULES), ("fencing.yaml", FENCING)]
        .map(|(name, text)| Source { name, text });
    let policies = parse(&sources).map_err(|findings| show(&findings)).unwrap();
    assert_eq!(policies.guests.len(), 4);
    assert_eq!((policies.rules.len(), policies.hosts.len(), policies.cluster.tolerate), (4, 3, 1));
    assert_eq!(policies.policies.len(), 3);
    assert_eq!(policies.fencing.len(), 9);
    assert_eq!(policies.alerts.len(), 2);
    for guest in policies.guests.keys() {
        assert!(policies.policy_of(guest).is_some(), "{guest}");
    }
    let kinds: Vec<Vec<_>> =
        policies.policies.values().map(|policy| policy.ladder.iter().map(Rung::name).collect()).collect();
    let killing = ["reset_guest", "failover", "page"];
    assert_eq!(kinds, [&killing[..], &killing, &["restart_service", "reset_guest", "failover", "page"]]);
}

#[test]
fn the_host_example_reads_and_shows_the_real_defaults() {
    let host = parse_host(&Source { name: "host.yaml", text: HOST }).map_err(|findings| show(&findings)).unwrap();
    assert_eq!(host.timing, Timing::default());
    assert_eq!(host.voters.len(), 3);
    assert_eq!(host.memory_mib, Some(56 * 1024));
}

#[test]
fn a_host_file_written_by_serde_reads_back_the_same() {
    let host = parse_host(&Source { name: "host.yaml", text: HOST }).unwrap();
    let text = serde_yaml::to_string(&host).unwrap();
    let again = parse_host(&Source { name: "again.yaml", text: &text }).map_err(|findings| show(&findings)).unwrap();
    assert_eq!(again, host);
}

#[test]
fn an_example_of_what_is_missing_is_shown_whole() {
    let findings = read("policies: { p: { match: { a: b } } }\n").unwrap_err();
    let hint = findings.iter().find_map(|finding| finding.hint.as_deref());
    assert_eq!(hint, Some("add `ladder: [{ reset_guest: {} }, { failover: {} }, { page: {} }]`"));
}

#[test]
fn six_mistakes_are_shown_at_once_where_they_stand() {
    let text = r#"guests:
  web-1:
    labels: { app: web }
    qemu: { memory: 256, disks: [{ path: /srv/web.img }] }
policies:
  web:
    match: { app: web }
    servces: {}
    services:
      http:
        probe: { http: { url: "http://10.0.0.1:8080/" } }
        every: yes
    ladder:
      - failover: { tries: 1 }
      - reset_guest: { tries: 1 }
    placement: { apert: { app: web } }
fencing:
  hv-a:
    - lease: { trusted: ann }
"#;
    let expected = r#"a.yaml:4:21: `memory` must be a memory size, not `256`
      qemu: { memory: 256, disks: [{ path: /srv/web.img }] }
                      ^
  hint: write a whole number and a unit: 256MiB, 4GiB
a.yaml:8:5: unknown key `servces`; did you mean `services`?
      servces: {}
      ^
  hint: allowed here: `match`, `services`, `ladder`, `on_storage_error`, `on_degraded`, `cool_down`, `boot_grace`, `placement`
a.yaml:12:16: `every` must be a duration of at most 30 days, not `yes`
          every: yes
                 ^
  hint: write a number and a unit: 250ms, 1s, 1.5s, 2m, 1h
a.yaml:15:9: `reset_guest` comes after `failover`: a ladder goes from the smallest kill to the largest
        - reset_guest: { tries: 1 }
          ^
  hint: the order is `restart_service`, `reboot_guest`, `reset_guest`, `failover` or `migrate`, `page`
a.yaml:16:18: unknown key `apert`; did you mean `apart`?
      placement: { apert: { app: web } }
                   ^
  hint: allowed here: `apart`, `together`, `prefer`, `require`, `avoid`, `start_after`
a.yaml:19:16: unknown key `trusted`
      - lease: { trusted: ann }
                 ^
  hint: allowed here: `watchdog_trusted_by`
"#;
    assert_eq!(show(&read(text).unwrap_err()), expected);
}

#[test]
fn defaults_are_those_that_the_model_documents() {
    let text = r#"
guests: { g: { address: 10.0.0.1, labels: { a: b }, qemu: { memory: 1GiB, disks: [{ path: /d.img }] } } }
policies:
  p:
    match: { a: b }
    services:
      web: { probe: { http: { url: "https://{address}/" } } }
      port: { probe: { tcp: { port: 1 } }, from: { inside: false, hosts: 1 } }
      ping: { probe: agent_ping }
    ladder:
      - restart_service: { run: [x] }
      - reset_guest
      - migrate: {}
      - failover:
      - page
fencing:
  h: [{ ipmi: { address: bmc, user: u, password_file: /p } }, { operator: {} }]
  i: [lease]
  j: [{ lease: { watchdog_trusted_by: ann } }]
alerts: [{ pagerduty: { routing_key_file: /k } }]
"#;
    let policies = read(text).map_err(|findings| show(&findings)).unwrap();
    let guest = policies.guests.values().next().unwrap();
    assert_eq!((guest.priority, guest.qemu.memory_mib, guest.qemu.cpus, guest.qemu.agent), (100, 1024, 1, true));
    assert_eq!((guest.qemu.accel, guest.qemu.machine.as_str()), (Accel::Auto, "q35"));
    assert_eq!((guest.qemu.disks[0].format, guest.qemu.display), (DiskFormat::Raw, None));
    assert_eq!((&guest.qemu.cpu, guest.qemu.processor()), (&None, "max"));
    let policy = policies.policies.values().next().unwrap();
    assert_eq!(
        (policy.cool_down, policy.boot_grace, policy.on_degraded),
        (Span::secs(300), Span::secs(60), OnDegraded::Alert)
    );
    let [ping, port, web] = policy.services.values().collect::<Vec<_>>()[..] else { panic!() };
    assert_eq!((web.every, web.timeout, web.fails_after, web.recovers_after), (Span::secs(2), Span::secs(1), 3, 2));
    assert_eq!(web.from, Vantages { inside: true, hosts: 2, agree: 2 });
    assert_eq!(port.from, Vantages { inside: false, hosts: 1, agree: 1 });
    assert_eq!(ping.from, Vantages { inside: true, hosts: 0, agree: 1 });
    let waits: Vec<_> = policy.ladder.iter().map(|rung| (rung.tries(), rung.wait())).collect();
    let secs = |n| (1, Span::secs(n));
    assert_eq!(waits, [secs(10), secs(60), secs(60), secs(90), secs(0)]);
    assert_eq!(policy.ladder[4], Rung::Page { severity: Severity::Critical });
    let levels = policies.fencing.values().next().unwrap();
    let [PowerDevice::Ipmi(ipmi)] = levels[0].devices() else { panic!() };
    assert_eq!((ipmi.port, ipmi.suite, ipmi.timeout, &ipmi.wiring_verified_by), (623, 17, Span::secs(20), &None));
    let [Receiver::Pagerduty { min_severity, url, .. }] = &policies.alerts[..] else { panic!() };
    assert_eq!((*min_severity, url.as_str()), (Severity::Info, "https://events.pagerduty.com"));
}

#[test]
fn what_two_files_must_not_share_is_found_across_them() {
    let one = r#"
guests:
  a: { labels: { x: y }, qemu: { memory: 1GiB, disks: [{ path: /srv/one.img }], nics: [{ bridge: br0, mac: "52:54:00:00:00:0A" }] } }
policies:
  p: { match: { x: y }, ladder: [page] }
fencing: { h: [{ ipmi: { address: bmc, user: u, password_file: /p } }] }
"#;
    let two = r#"
guests:
  a: { qemu: { memory: 1GiB, kernel: /k } }
  b: { qemu: { memory: 1GiB, disks: [{ path: /srv/./one.img }], nics: [{ bridge: br0, mac: "52:54:00:00:00:0a" }] } }
policies:
  q:
    match: { x: y }
    services: { web: { probe: { http: { url: "http://{address}/" } } } }
    ladder: [page]
fencing: { i: [{ ipmi: { address: bmc, user: u, password_file: /p } }] }
"#;
    let sources = [Source { name: "one.yaml", text: one }, Source { name: "two.yaml", text: two }];
    let findings = parse(&sources).unwrap_err();
    let shown: Vec<_> = findings.iter().map(|f| format!("{}:{}:{} {}", f.file, f.line, f.column, f.what)).collect();
    assert_eq!(
        shown,
        [
            "one.yaml:3:3 guest `a` has no `address`, at which policy `q` asks its service `web`",
            "two.yaml:3:3 guest `a` is declared twice",
            "two.yaml:4:46 disk `/srv/one.img` is already that of guest `a` at one.yaml:3:64",
            "two.yaml:4:92 MAC address `52:54:00:00:00:0a` is already that of guest `a` at one.yaml:3:108",
            "two.yaml:7:12 policies `p` and `q` both match guest `a`",
            "two.yaml:10:35 controller `bmc port 623` is already that of host `h` at one.yaml:6:35",
        ]
    );
}

#[test]
fn booleans_numbers_and_paths_are_strict() {
    let text = r#"
guests:
  g:
    priority: 1001
    address: 0.0.0.0
    labels: { version: 1.10, on: no }
    qemu:
      memory: 1GB
      cpus: "2"
      agent: yes
      disks: [{ path: srv/x.img }]
      nics: [{ bridge: br0, mac: "53:54:00:00:00:01" }]
  g: {}
  "bad name": {}
"#;
    assert_eq!(
        mistakes(text),
        [
            "4:15 `priority` must be a whole number from 0 to 1000, not `1001`",
            "5:14 `address` must be the address of one machine, not `0.0.0.0`",
            "8:15 `memory` must be a memory size, not `1GB`",
            "9:13 `cpus` must be a whole number from 1 to 1024, not the text `\"2\"`",
            "10:14 `agent` must be `true` or `false`, not `yes`",
            "11:23 `path` must be an absolute path without `..`, not `srv/x.img`",
            "12:34 MAC address `53:54:00:00:00:01` is a group address",
            "13:3 key `g` is given twice",
            "14:3 name \"bad name\" is not 1 to 63 letters, digits, '-', '_' or '.', beginning with a letter or digit",
        ]
    );
}

#[test]
fn questions_that_could_never_give_a_verdict_are_refused() {
    let text = r#"
guests:
  g: { labels: { a: b }, address: 10.0.0.1, qemu: { memory: 1GiB, kernel: /k, agent: false } }
policies:
  p:
    match: { a: b }
    services:
      one: { probe: { http: { url: "http://{address}/" } }, from: { hosts: 1, agree: 3 } }
      two: { probe: { exec: { run: [x] } }, from: { hosts: 1 } }
      three: { probe: { tcp: { port: 80 } }, from: { inside: false, hosts: 0 } }
      four: { probe: { http: { url: "ftp://{adress}/" } } }
      five: { probe: { http: { url: "http://{adress}/" } }, timeout: 3s }
      six: { probe: agent_ping, every: 500ms }
      seven: { probe: agent_ping }
      eight: { probe: { htp: {} }, fails_after: 0 }
    ladder: [restart_service]
  everything: { match: {}, ladder: [] }
"#;
    assert_eq!(
        mistakes(text),
        [
            "3:86 guest `g` has no agent, without which policy `p` cannot judge its service `seven`",
            "8:86 `agree` is 3, but there are only 2 vantages: `inside` and 1 hosts",
            "9:60 `hosts` must be 0: this probe runs in the guest, through its agent",
            "10:52 nobody would look: `inside` is false and `hosts` is 0",
            "11:37 URL `ftp://{adress}/`: its scheme is not supported",
            "12:37 URL `http://{adress}/`: it has an unknown placeholder",
            "12:70 `timeout` 3s is longer than `every` 2s: the next question would overtake the answer",
            "13:40 `timeout` 1s, its default, is longer than `every` 500ms: the next question would overtake the answer",
            "15:25 unknown probe `htp`; did you mean `http`?",
            "15:49 `fails_after` must be a whole number from 1 to 100, not `0`",
            "16:14 `restart_service` has no `run`",
            "17:24 `match` is empty: the policy would match every guest",
            "17:36 the ladder has no rung: nothing would be done",
        ]
    );
}

#[test]
fn holdfasts_own_agent_serves_for_all_but_a_reboot() {
    let of = |rungs: &str| {
        format!(
            "guests:\n  g: {{ labels: {{ a: b }}, address: 10.0.0.1, qemu: {{ memory: 1GiB, kernel: /k, agent: false, holdfast_agent: true }} }}\n\
             policies:\n  p: {{ match: {{ a: b }}, services: {{ s: {{ probe: {{ process: {{ name: x }} }} }} }}, ladder: {rungs} }}\n"
        )
    };
    read(&of("[{ restart_service: { run: [x] } }]")).unwrap();
    let reboot = mistakes(&of("[{ reboot_guest: {} }]"));
    assert!(matches!(reboot.as_slice(), [one] if one.contains("no QEMU guest agent")), "{reboot:?}");
}

#[test]
fn secrets_and_what_is_not_there_yet_have_their_own_words() {
    let text = r#"
guests: { g: {} }
fencing:
  h:
    - ipmi: { address: "10.0.9.1:623", user: u, password: secret }
    - lease
  i: []
  j: [lease, { lease: { watchdog_trusted_by: ann } }]
  k: [{ lease: { trusted: ann } }]
alerts:
  - pagerduty: { routing_key: secret }
  - webhook: { url: "https://user:secret@host/" }
  - email: {}
"#;
    let shown = show(&read(text).unwrap_err());
    for expected in [
        "a.yaml:2:11: guest `g` has no `qemu`; taking a guest's definition from its hypervisor is not available in this version",
        "a.yaml:5:24: `10.0.9.1:623` is neither an address nor a host name",
        "hint: passwords stay out of policies",
        "a.yaml:7:6: host `i` has 0 fence levels",
        "a.yaml:8:6: host `j` has 2 `lease` levels",
        "a.yaml:9:18: unknown key `trusted`",
        "hint: keys stay out of policies",
        "a.yaml:12:21: URL `https://user:secret@host/`: it contains a user or a password",
        "a.yaml:13:5: unknown receiver `email`",
    ] {
        assert!(shown.contains(expected), "{expected}\n---\n{shown}");
    }
}

#[test]
fn a_syntax_error_is_one_finding_and_other_files_are_still_checked() {
    let sources =
        [Source { name: "a.yaml", text: "guests: { a: [ }\n" }, Source { name: "b.yaml", text: "gests: {}\n" }];
    let findings = parse(&sources).unwrap_err();
    assert_eq!(findings.len(), 2, "{}", show(&findings));
    assert_eq!((findings[0].line, findings[0].column, findings[0].what.starts_with("not YAML: ")), (1, 14, true));
    assert_eq!(findings[1].what, "unknown key `gests`; did you mean `guests`?");
}

#[test]
fn what_stands_in_the_wrong_place_is_told_where_it_belongs() {
    for (text, says) in [
        ("guests:\n  a: { memory: 1GiB, qemu: { memory: 1GiB, kernel: /k } }\n", "write it below `qemu`"),
        ("services: {}\n", "write them below one in `policies`"),
        ("watch: { nginx: { unit: nginx.service } }\n", "holdfast-guest --check"),
    ] {
        let findings = parse(&[Source { name: "a.yaml", text }]).unwrap_err();
        assert_eq!(findings.len(), 1, "{}", show(&findings));
        assert!(findings[0].hint.as_ref().is_some_and(|hint| hint.contains(says)), "{}", show(&findings));
    }
}

#[test]
fn what_is_no_yaml_is_told_with_what_is_usually_meant() {
    for (text, advice) in [
        ("guests:\n\tweb-1: {}\n", "spaces"),
        ("guests:\n  web-1: { labels: { app: web }\n", "as it was opened"),
        ("guests:\n  web-1: { labels: { app: \"web } }\n", "on the same line"),
        ("guests:\n  web-1 { labels: { app: web } }\n", "a colon and a space"),
        ("guests: { a: { labels: { x: y } b: 2 } }\n", "a comma"),
        ("guests:\n  web-1:\n    labels: { app: web }\n   priority: 3\n", "keys of one map"),
        ("hv-a:\n  just text\nmore\n", "`key: value`"),
        ("fencing:\n  hv-f:\n    - operator\n    ipmi: {}\n", "each with `- `"),
        ("guests:\n  web-1:\n    address: 10.0.0.1: 80\n", "quote a text with `: `"),
        ("guests:\n  web-1:\n    address: @home\n", "begins like this"),
        ("guests: { web-1: { labels: { app: *x } } }\n", "begins with `*`"),
    ] {
        let findings = read(text).unwrap_err();
        let hint = findings[0].hint.as_deref().unwrap_or_default();
        assert!(findings.len() == 1 && hint.contains(advice), "{advice}\n---\n{}", show(&findings));
    }
}

#[test]
fn what_would_be_right_is_said_in_the_words_of_the_mistake() {
    for (text, advice) in [
        (
            "policies: { p: { ladder: [restart_service: { run: pkill -x my-app }] } }",
            "write [\"pkill\", \"-x\", \"my-app\"]",
        ),
        ("policies: { p: { ladder: [restart_service: { run: a && b }] } }", "write [\"systemctl\", "),
        ("fencing: { h: [operator: yes] }", "write the word alone"),
        ("fencing: { h: [operator: { name: ann }] }", "nothing is set here"),
        ("cluster: { fences_per_hour: 0 }", "choose a number within these two"),
        ("cluster: { fences_per_hour: \"3\" }", "write digits only"),
        ("hosts: { h: { capacity: { memory: 65536 } } }", "a host's is `memory_mib: 65536`"),
        ("rules: { r: { hosts: { guests: [a], on: { h: always } } } }", "such as `100` or `-50`, `must` or `never`"),
        (
            "rules: { r: { together: { guests: [a, b] }, required: true } }",
            "a setting of `together` stands in its `{ }`",
        ),
    ] {
        let shown = show(&read(text).unwrap_err());
        assert!(shown.contains(advice), "{advice}\n---\n{shown}");
    }
}

#[test]
fn a_host_of_a_rule_that_nobody_knows_is_told_and_is_no_mistake() {
    let text = r#"
hosts: { hv-x: { labels: { zone: a } } }
rules: { home: { hosts: { guests: { app: web }, on: { hv-a: 10, hv-y: must } } } }
"#;
    let policies = read(text).map_err(|findings| show(&findings)).unwrap();
    let told = policies.strangers_named(|host| host.as_str() == "hv-a");
    assert!(told[0].starts_with("? rule home names the host hv-y, which has never joined"), "{told:?}");
    assert!(told.len() == 2 && told[1].starts_with("? `hosts` names the host hv-x,"), "{told:?}");
    assert!(policies.strangers_named(|_| true).is_empty());
}

#[test]
fn bombs_are_refused_before_they_grow() {
    let mut bomb = String::from("a: &a [x,x,x,x,x,x,x,x,x,x]\n");
    for (name, before) in ('b'..='i').zip('a'..='h') {
        bomb.push_str(&format!("{name}: &{name} [{}]\n", vec![format!("*{before}"); 10].join(",")));
    }
    assert!(mistakes(&bomb)[0].contains("more than 100000 values"), "{:?}", mistakes(&bomb));
    assert!(mistakes(&"[".repeat(10_000))[0].contains("not YAML"));
    assert!(mistakes(&"a".repeat(INPUT_BYTES_MAX + 1))[0].contains("larger than"));
    assert!(mistakes("a: &a [*a]\n")[0].contains("alias"));
    let many = format!("{{{}}}", (0..40_000).map(|n| format!("k{n}: 1")).collect::<Vec<_>>().join(","));
    assert_eq!(read(&many).unwrap_err().len(), 101);
}

#[test]
fn an_alias_stands_for_its_anchor() {
    let text = r#"
policies:
  p: { match: { a: b }, ladder: &ladder [reset_guest, page] }
  q: { match: { a: c }, ladder: *ladder }
"#;
    let policies = read(text).map_err(|findings| show(&findings)).unwrap();
    let ladders: Vec<_> = policies.policies.values().map(|policy| policy.ladder.len()).collect();
    assert_eq!(ladders, [2, 2]);
}

#[test]
fn a_host_file_shows_all_its_mistakes_too() {
    let text = r#"host: hv-a
cluster: c
listen: 10.0.0.1:7400
api: 10.0.0.1
voters: { hv-a: "10.0.0.2:7400", hv-b: "10.0.0.2:7400" }
tls: { ca: ca.pem, certificate: a.pem }
gossip_keys: [a, b, c]
timing: { sync_every: 2s, lease: 1s, suspct_after: 1s }
libvirt: {}
"#;
    assert_eq!(
        host_mistakes(text),
        [
            "3:9 this host listens on 10.0.0.1:7400, but the voter `hv-a` is reached at 10.0.0.2:7400",
            "4:6 `api` must be an address with a port, not `10.0.0.1`",
            "5:1 there are 2 voters",
            "5:40 voters `hv-a` and `hv-b` have the same address",
            "6:1 `tls` has no `key`",
            "7:14 there are 3 gossip keys",
            "8:23 `sync_every` (2s) must be shorter than `wonder_after` (750ms)",
            "8:34 `suspect_after` (1500ms) must be shorter than `lease` (1s)",
            "8:38 unknown key `suspct_after`; did you mean `suspect_after`?",
            "9:1 key `libvirt` is not available in this version",
        ]
    );
    assert_eq!(host_mistakes("# nothing\n"), ["1:1 the host file is empty"]);
}

#[test]
fn a_number_that_is_not_written_is_asked_for_in_digits() {
    let findings = read("guests:\n  a:\n    qemu:\n      memory: 1GiB\n      cpus:\n").unwrap_err();
    let own = findings.iter().find(|finding| finding.what.starts_with("`cpus` must be a whole number")).unwrap();
    assert!(own.what.ends_with("not nothing"), "{own}");
    assert_eq!(own.hint.as_deref(), Some("write digits only, without quotes or a unit"));
}

#[test]
fn a_host_that_listens_everywhere_is_reached_where_the_voters_know_it_and_else_nowhere() {
    let everywhere = HOST.replace("\nlisten: 10.0.0.1:7400", "\nlisten: 0.0.0.0:7400");
    let host =
        parse_host(&Source { name: "host.yaml", text: &everywhere }).map_err(|findings| show(&findings)).unwrap();
    assert_eq!(
        (host.listen.to_string(), host.reached_at().to_string()),
        ("0.0.0.0:7400".into(), "10.0.0.1:7400".into())
    );
    let member = everywhere.replace("\nhost: hv-a", "\nhost: hv-d");
    let found = host_mistakes(&member);
    let what = "`voters` does not name `hv-d`, so others are told to reach it at 0.0.0.0:7400";
    assert!(matches!(found.as_slice(), [one] if one.ends_with(what)), "{found:?}");
}

#[test]
fn a_watchdog_needs_whole_seconds_that_make_sense() {
    let with = |watchdog: &str| HOST.replace("  timeout: 10s  ", &format!("  timeout: {watchdog}  "));
    for good in ["2s", "1m", "5m", "3000ms"] {
        let text = with(good);
        let host = parse_host(&Source { name: "host.yaml", text: &text }).map_err(|findings| show(&findings)).unwrap();
        assert_eq!(host.watchdog.unwrap().timeout, Span::try_from(good.to_owned()).unwrap());
    }
    for (bad, shown) in [("1s", "1s"), ("301s", "301s"), ("2500ms", "2500ms"), ("0s", "0s")] {
        let what = format!("a watchdog's time-out must be whole seconds from 2s to 5m, not {shown}");
        let found = host_mistakes(&with(bad));
        assert!(matches!(found.as_slice(), [one] if one.ends_with(&what)), "{found:?}");
    }
    let found = host_mistakes(&HOST.replace("  device: /dev/watchdog", "  device: watchdog"));
    assert!(matches!(found.as_slice(), [one] if one.contains("absolute path")), "{found:?}");
    let without: String = HOST.lines().filter(|line| !line.contains("10s")).map(|line| format!("{line}\n")).collect();
    let host = parse_host(&Source { name: "host.yaml", text: &without }).map_err(|findings| show(&findings)).unwrap();
    assert_eq!(host.watchdog, Some(WatchdogFile::default()));
}

#[test]
fn more_than_thirty_days_cannot_be_declared() {
    let with = |time: &str| {
        format!("guests:\n  g:\n    stop_timeout: {time}\n    qemu: {{ memory: 1GiB, disks: [{{ path: /d.img }}] }}\n")
    };
    let policies = read(&with("720h")).map_err(|findings| show(&findings)).unwrap();
    assert_eq!(policies.guests.values().next().unwrap().needs.stop_timeout, Span::secs(720 * 3_600));
    let found = mistakes(&with("720.5h"));
    assert!(matches!(found.as_slice(), [one] if one.contains("at most 30 days")), "{found:?}");
}

#[test]
fn a_display_is_named_or_none_and_anything_else_is_shown_where_it_stands() {
    let with = |display: &str| {
        read(&format!("guests:\n  g:\n    qemu: {{ memory: 1GiB, disks: [{{ path: /d.img }}], display: {display} }}\n"))
            .map(|policies| policies.guests.values().next().unwrap().qemu.display)
            .map_err(|findings| show(&findings))
    };
    assert_eq!(with("vga"), Ok(Some(DisplayModel::Vga)));
    assert_eq!(with("none"), Ok(None));
    for (wrong, said) in [("qxl", "unknown display `qxl`"), ("VGA", "unknown display `VGA`"), ("[vga]", "`display`")] {
        let told = with(wrong).unwrap_err();
        assert!(told.contains("a.yaml:3:") && told.contains(said), "{told}");
    }
    assert!(with("qxl").unwrap_err().contains("one of `none`, `vga`"));
}

#[test]
fn a_definition_that_an_older_version_has_kept_has_no_display_and_the_default_processor() {
    let definition = QemuDefinition::bare(64);
    let mut kept = serde_json::to_value(&definition).unwrap();
    for key in ["display", "cpu"] {
        kept.as_object_mut().unwrap().remove(key).expect("it is kept");
    }
    let read = serde_json::from_value::<QemuDefinition>(kept).unwrap();
    assert_eq!((read.processor(), &read), ("max", &definition));
}

#[test]
fn a_diff_names_each_changed_path_once() {
    let old = read(WEB).unwrap();
    let text = WEB
        .replace("every: 1s", "every: 2s")
        .replace("  hv-c:", "  hv-d:")
        .replace("    address: 10.0.0.22\n", "    address: 10.0.0.23\n")
        .replace("      watchdog: i6300esb", "      accel: kvm");
    let new = read(&text).map_err(|findings| show(&findings)).unwrap();
    assert_eq!(
        diff(&old, &new),
        [
            "- fencing.hv-c",
            "+ fencing.hv-d",
            "guests.web-2.address: 10.0.0.22 → 10.0.0.23",
            "guests.web-2.qemu.accel: auto → kvm",
            "guests.web-2.qemu.watchdog: i6300esb → none",
            "policies.web.services.http.every: 1s → 2s",
        ]
    );
    assert_eq!(diff(&old, &old), Vec::<String>::new());
}

/// What a slip of the hand, an editor or an attacker puts into a file.
const SNIPPETS: &[&str] = &[
    "",
    "\n",
    " ",
    "\t",
    ":",
    ": ",
    "- ",
    "{",
    "}",
    "[",
    "]",
    ",",
    "\"",
    "'",
    "#",
    "&a ",
    "*a",
    "!t ",
    "|\n",
    ">\n",
    "? ",
    "<<: ",
    "---\n",
    "...\n",
    "%YAML 1.2\n",
    "null",
    "~",
    "999999999999999999999",
    "-1",
    "é",
    "\u{feff}",
    "\r",
    "\r\n",
    "\0",
    "\\u0000",
    "{address}",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_mutation_of_the_examples_panics(
        which in 0..3_usize,
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..30_usize, prop::sample::select(SNIPPETS)), 1..6),
    ) {
        let mut letters: Vec<char> = [WEB, DATABASE, HOST][which].chars().collect();
        for (at, removed, added) in edits {
            let at = at.index(letters.len() + 1);
            let end = (at + removed).min(letters.len());
            letters.splice(at..end, added.chars());
        }
        let text: String = letters.into_iter().collect();
        let findings = read(&text).err().into_iter().chain(parse_host(&Source { name: "h", text: &text }).err());
        for finding in findings.flatten() {
            prop_assert!(finding.line >= 1 && finding.column >= 1);
            // YAML ends a line at a carriage return too.
            prop_assert!(finding.line <= text.split(['\n', '\r']).count(), "{finding}");
            let _ = finding.to_string();
        }
    }

    #[test]
    fn no_text_at_all_panics(text in "\\PC{0,200}", noise in "[ \\n\\-:{}\\[\\]&*!|>%@#,'\"a-c?~]{0,200}") {
        let _ = read(&text);
        let _ = read(&noise);
    }
}

const PLACED: &str = r#"
guests:
  web-1: { labels: { app: web }, qemu: { memory: 1GiB, disks: [{ path: /a.img }] }, demand: { gpu: 1 }, relocations: 3 }
  web-2: { labels: { app: web }, qemu: { memory: 1GiB, disks: [{ path: /b.img }] }, live_migration: false }
  db-1: { qemu: { memory: 1GiB, disks: [{ path: /c.img }] }, stickiness: 0, failback: true, best_effort: true }
policies:
  web:
    match: { app: web }
    ladder: [page]
    placement: { apart: { app: web }, prefer: { zone: a }, require: { ssd: yes }, start_after: [db-1] }
hosts:
  hv-a: { labels: { zone: a, rack: r1, ssd: yes }, capacity: { gpu: 2 } }
rules:
  db: { hosts: { guests: [db-1], on: { hv-a: 100, hv-b: -5, hv-c: never }, required: true } }
  racks: { apart: { guests: [web-1, db-1], required: false, by: rack, weight: 7, yields: db-1 } }
cluster: { tolerate: 1, failure_domain: rack, refuse_beyond: true, on_shutdown: freeze, fences_per_hour: 3, quarantine_after_fences: 2 }
"#;

#[test]
fn placement_rules_needs_and_cluster_settings_read_as_they_are_meant() {
    let policies = read(PLACED).map_err(|findings| show(&findings)).unwrap();
    let guest = |name: &str| &policies.guests[&GuestName::new(name).unwrap()].needs;
    assert_eq!(guest("web-1").demand, BTreeMap::from([("gpu".to_owned(), 1)]));
    assert_eq!((guest("web-1").relocations, guest("web-1").stickiness), (Some(3), 1_000));
    assert!(!guest("web-2").live_migration && guest("db-1").failback && guest("db-1").best_effort);
    let rule = |name: &str| &policies.rules[&RuleName::new(name).unwrap()];
    let Rule::Hosts { hosts: Hosts::Named(scores), required: true, .. } = rule("db") else { panic!() };
    let expected = [("hv-a", Score::By(100)), ("hv-b", Score::By(-5)), ("hv-c", Score::Never)];
    assert_eq!(*scores, expected.map(|(host, score)| (HostName::new(host).unwrap(), score)).into());
    let Rule::Apart { required: false, by: Some(by), weight: 7, yields: Some(_), .. } = rule("racks") else { panic!() };
    assert_eq!(by, "rack");
    let made: Vec<&Rule> =
        policies.rules.iter().filter(|(name, _)| name.as_str().starts_with("web.")).map(|r| r.1).collect();
    let orders = made.iter().filter(|rule| matches!(rule, Rule::Order { required: true, .. })).count();
    assert_eq!((made.len(), orders), (5, 2), "{made:?}");
    let settings = &policies.cluster;
    assert_eq!((settings.tolerate, settings.on_shutdown, settings.fences_per_hour), (1, OnShutdown::Freeze, Some(3)));
    assert_eq!((settings.fences_per_hour_in_all, settings.quarantine_after_fences), (None, Some(2)));
}

#[test]
fn a_quarantine_that_the_budget_of_a_host_never_lets_come_is_a_mistake() {
    let found = mistakes("cluster: { fences_per_hour: 2, quarantine_after_fences: 3 }\n");
    let says = "`quarantine_after_fences` is 3, and `fences_per_hour` lets it come to 2 at most";
    assert!(found.len() == 1 && found[0].contains(says), "{found:?}");
    assert!(read("cluster: { fences_per_hour: 2, quarantine_after_fences: 2 }\n").is_ok());
    assert!(read("cluster: { quarantine_after_fences: 3 }\n").is_ok());
}

#[test]
fn a_capacity_is_hard_and_weighs_100_unless_something_else_is_said_and_can_hold() {
    let with =
        |capacities: &str| PLACED.replace("tolerate: 1,", &format!("tolerate: 1, capacities: {{ {capacities} }},"));
    let said = read(&with("gpu: { hard: false, weight: 250 }, cpus: {}, memory_mib: { weight: 0 }"));
    let settings = said.map_err(|findings| show(&findings)).unwrap().cluster;
    let expected = [("cpus", true, 100), ("gpu", false, 250), ("memory_mib", true, 0)]
        .map(|(name, hard, weight)| (name.to_owned(), CapacitySettings { hard, weight }));
    assert_eq!(settings.capacities, expected.into());
    assert!(!settings.is_hard("gpu") && settings.is_hard("memory_mib") && settings.is_hard("what nobody names"));
    assert_eq!((settings.weight("gpu"), settings.weight("what nobody names")), (250, 100));
    for (wrong, says) in [
        ("gpuu: { weight: 50 }", "no host has the capacity `gpuu`; did you mean `gpu`?"),
        ("memory_mib: { hard: false }", "`memory_mib` is always hard"),
        ("gpu: { hard: false, weight: 0 }", "`gpu` is neither hard nor has a weight"),
        ("gpu: { weight: 1001 }", "`weight` must be a whole number from 0 to 1000, not `1001`"),
        ("gpu: { soft: true }", "unknown key `soft`"),
        ("g pu: { weight: 50 }", "`g pu` cannot be the name of a capacity"),
        ("gpu: 2", "`gpu` must be a map of settings"),
    ] {
        let found = mistakes(&with(wrong));
        assert!(found.len() == 1 && found[0].contains(says), "{wrong}: {found:?}");
        assert!(found[0].starts_with("16:"), "where it stands: {found:?}");
    }
}

#[test]
fn policies_that_were_stored_before_capacities_had_settings_are_read_as_they_were_meant() {
    let mut stored = serde_json::to_value(read(PLACED).map_err(|findings| show(&findings)).unwrap().cluster).unwrap();
    assert!(stored.as_object_mut().unwrap().remove("capacities").is_some());
    let settings: crate::rules::ClusterSettings = serde_json::from_value(stored).unwrap();
    assert!(settings.capacities.is_empty() && settings.is_hard("gpu"));
}

#[test]
fn operators_are_as_free_as_before_unless_certificates_are_required() {
    let cluster = |text: &str| read(&format!("cluster: {{ {text} }}\n")).map_err(|found| show(&found)).unwrap().cluster;
    let unsaid = cluster("tolerate: 0");
    assert_eq!((unsaid.operators, unsaid.revoked_operators.len()), (Certificates::Optional, 0));
    let said = cluster("operators: required, revoked_operators: [bob, \"serial:5F:0a\"]");
    assert_eq!(said.operators, Certificates::Required);
    assert_eq!(said.revoked_operators, ["bob", "serial:5f0a"].map(|text| text.parse::<Revoked>().unwrap()).into());
    for (wrong, says) in [
        ("operators: require", "unknown operators `require`; did you mean `required`?"),
        ("revoked_operators: ann", "`revoked_operators` must be a list"),
        ("revoked_operators: [\"serial:zz\"]", "must be an operator's name or a serial number"),
        ("revoked_operators: [ann through hv-a]", "must be an operator's name or a serial number"),
    ] {
        let found = mistakes(&format!("cluster: {{ {wrong} }}\n"));
        assert!(found.len() == 1 && found[0].contains(says), "{wrong}: {found:?}");
    }
}

#[test]
fn an_identity_file_names_a_certificate_and_voters_and_nothing_else() {
    let identity = |text: &str| parse_identity(&Source { name: "identity.yaml", text });
    let text = "tls: { ca: ca.pem, certificate: a.pem, key: a.key }\nvoters: { hv-a: \"10.0.0.1:7400\" }\n";
    let read = identity(text).map_err(|findings| show(&findings)).unwrap();
    assert_eq!((read.tls.key.to_str(), read.voters.len()), (Some("a.key"), 1));
    let found = show(&identity(&text.replace("voters:", "host: hv-a\nvoter:")).unwrap_err());
    for says in ["unknown key `host`", "unknown key `voter`; did you mean `voters`?", "has no `voters`"] {
        assert!(found.contains(says), "{says} is not in {found}");
    }
    assert!(show(&identity("# nothing\n").unwrap_err()).contains("the identity file is empty"));
}

#[test]
fn a_rule_that_could_never_hold_or_names_nobody_is_shown_where_it_stands() {
    let with = |rules: &str| PLACED.replace("rules:\n", &format!("rules:\n{rules}\n"));
    let only = |rules: &str, expected: &str| {
        let found = mistakes(&with(rules));
        assert!(found.len() == 1 && found[0].contains(expected), "{found:?}");
    };
    only("  a: { order: { first: web-1, then: db-1 } }", "wait for each other in a circle");
    only("  a: { together: { guests: [web-1, nobody] } }", "names `nobody`, which is no guest");
    only("  a: { order: { first: web-1, then: web-1 } }", "cannot start after itself");
    only("  a: { hosts: { guests: [web-1] } }", "names hosts either with `on` or by `labels`");
    only("  a: { apart: { guests: {} } }", "no label is named");
    only("  a: { hosts: { guests: [web-1], on: { hv-a: 01 } } }", "must be a whole number from -1000000");
    only("  a: { beside: { guests: [web-1] } }", "unknown rule `beside`");
    let nobody = PLACED.replace("failure_domain: rack", "failure_domain: row");
    assert!(mistakes(&nobody)[0].contains("no host has the label `row`"), "{:?}", mistakes(&nobody));
}
