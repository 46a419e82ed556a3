//! Reads `policies:`: which guests, which services, from where to look.

use std::collections::BTreeMap;

use super::{
    across::Seen,
    fields::{Fields, Keys},
    guests, ladder,
    text::quoted,
    value::Value,
};
use crate::{
    model::{ExecProbe, HttpProbe, Labels, OnDegraded, Policy, Probe, Service, TcpProbe, Vantages},
    names::{PolicyName, ServiceName},
    time::Span,
};

const POLICY: Keys = Keys {
    known: &["match", "services", "ladder", "on_degraded", "cool_down", "boot_grace"],
    later: &["placement"],
    renamed: &[("matches", "write `match: { app: web }`")],
};
const SERVICE: Keys = Keys {
    known: &["probe", "every", "timeout", "fails_after", "recovers_after", "from"],
    later: &["slow"],
    renamed: &[],
};
const FROM: Keys = Keys { known: &["inside", "hosts", "agree"], later: &[], renamed: &[] };
const HTTP: Keys = Keys { known: &["url", "status", "body"], later: &[], renamed: &[] };
const TCP: Keys = Keys { known: &["port"], later: &[], renamed: &[] };
const EXEC: Keys = Keys { known: &["run"], later: &[], renamed: &[] };
const NOTHING: Keys = Keys { known: &[], later: &[], renamed: &[] };

/// Shortest interval between two questions and shortest wait: below it, probing itself becomes the load.
const EVERY_MIN: Span = Span::ms(50);
/// Shortest time-out of one question.
const TIMEOUT_MIN: Span = Span::ms(10);
/// Most failures in a row, or tries: a bound, so that every ladder ends.
const COUNT_MAX: u32 = 100;
/// Most hosts that ask one service.
const HOSTS_MAX: u32 = 16;

/// Reads all policies of a section.
pub(super) fn read(section: &Value<'_>, into: &mut BTreeMap<PolicyName, Policy>, seen: &mut Seen) {
    for value in section.map().unwrap_or_default() {
        let Some(name) = value.key_name::<PolicyName>() else { continue };
        if let Some(first) = seen.policies.get(&name) {
            seen.twice(&value, "policy", first.place);
            continue;
        }
        if let Some(policy) = policy(&value, &name, seen) {
            into.insert(name, policy);
        }
    }
}

fn policy(value: &Value<'_>, name: &PolicyName, seen: &mut Seen) -> Option<Policy> {
    let sketch = seen.policy(name, value.at);
    let fields = value.fields(&POLICY)?;
    let matches = fields.need("match", "match: { app: web }", matches);
    sketch.matches = matches.clone().unwrap_or_default();
    sketch.match_place = fields.place("match");
    let services = fields.or("services", BTreeMap::new(), |v| services(v));
    for (service, declared) in services.iter().flatten() {
        sketch.wants(service, declared);
    }
    let ladder = fields.need("ladder", "ladder: [{ reset_guest: {} }, { failover: {} }, { page: {} }]", ladder::read);
    sketch.restarts_service = ladder.iter().flatten().any(|rung| rung.name() == "restart_service");
    let on_degraded = fields.or("on_degraded", OnDegraded::Alert, |v| {
        v.one_of(&[("alert", OnDegraded::Alert), ("migrate", OnDegraded::Migrate)])
    });
    let cool_down = fields.or("cool_down", Span::secs(300), Value::span);
    let boot_grace = fields.or("boot_grace", Span::secs(60), Value::span);
    Some(Policy {
        matches: matches?,
        services: services?,
        ladder: ladder?,
        on_degraded: on_degraded?,
        cool_down: cool_down?,
        boot_grace: boot_grace?,
    })
}

fn matches(value: &Value<'_>) -> Option<Labels> {
    let labels = guests::labels(value)?;
    if labels.is_empty() {
        return value.wrong(
            "`match` is empty: the policy would match every guest",
            "name at least one label: `match: { app: web }`",
        );
    }
    Some(labels)
}

fn services(value: &Value<'_>) -> Option<BTreeMap<ServiceName, Service>> {
    let read = value.map()?.into_iter().map(|value| {
        let (name, service) = (value.key_name(), service(&value));
        Some((name?, service?))
    });
    let read: Vec<Option<(ServiceName, Service)>> = read.collect();
    // Services that were read count for the checks across guests even when another one is wrong, but a finding stands.
    Some(read.into_iter().flatten().collect())
}

fn service(value: &Value<'_>) -> Option<Service> {
    let fields = value.fields(&SERVICE)?;
    let probe = fields.need("probe", "probe: { http: { url: \"http://{address}:8080/\" } }", probe);
    let every = fields.or("every", Span::secs(2), |v| v.span_from(EVERY_MIN));
    let timeout = fields.or("timeout", Span::secs(1), |v| v.span_from(TIMEOUT_MIN));
    let fails_after = fields.or("fails_after", 3, |v| v.number(1..=COUNT_MAX));
    let recovers_after = fields.or("recovers_after", 2, |v| v.number(1..=COUNT_MAX));
    let from = vantages(&fields, probe.as_ref());
    if let (Some(every), Some(timeout)) = (every, timeout)
        && timeout > every
    {
        let (key, default) = if fields.has("timeout") { ("timeout", "") } else { ("every", ", its default,") };
        value.findings.hint(
            fields.place(key),
            format!("`timeout` {timeout}{default} is longer than `every` {every}: the next question would overtake the answer"),
            format!("set `timeout` to at most {every}, or `every` to at least {timeout}"),
        );
    }
    Some(Service {
        probe: probe?,
        every: every?,
        timeout: timeout?,
        fails_after: fails_after?,
        recovers_after: recovers_after?,
        from: from?,
    })
}

fn probe(value: &Value<'_>) -> Option<Probe> {
    let chosen = value.variant("probe", &["http", "tcp", "agent_ping", "exec"], &[])?;
    match chosen.name {
        "http" => {
            let fields = chosen.fields(&HTTP)?;
            let url = fields.need("url", "url: \"http://{address}:8080/\"", |v| v.url(true));
            let status = fields.or("status", 200, |v| v.number(100..=599));
            let body = fields.optional("body", |v| v.text().map(str::to_owned));
            Some(Probe::Http(HttpProbe { url: url?, status: status?, body: body? }))
        }
        "tcp" => {
            let fields = chosen.fields(&TCP)?;
            let port = fields.need("port", "port: 5432", |v| v.number(1..=u16::MAX));
            Some(Probe::Tcp(TcpProbe { port: port? }))
        }
        "exec" => {
            let fields = chosen.fields(&EXEC)?;
            let run = fields.need("run", "run: [\"systemctl\", \"is-active\", \"nginx\"]", Value::command);
            Some(Probe::Exec(ExecProbe { run: run? }))
        }
        _ => chosen.fields(&NOTHING).map(|_| Probe::AgentPing {}),
    }
}

/// From where to look. Without a readable probe only what does not depend on it is checked.
fn vantages(service: &Fields<'_>, probe: Option<&Probe>) -> Option<Vantages> {
    let network = matches!(probe, Some(Probe::Http(_) | Probe::Tcp(_)) | None);
    let default_hosts = if network { 2 } else { 0 };
    let Some(value) = service.section("from") else {
        return Some(Vantages { inside: true, hosts: default_hosts, agree: default_hosts.max(1) });
    };
    let from = value.fields(&FROM)?;
    let inside = from.or("inside", true, Value::boolean);
    let hosts = from.or("hosts", default_hosts, |v| v.number(0..=HOSTS_MAX));
    let agree = from.optional("agree", |v| v.number(1..=HOSTS_MAX + 1));
    let (inside, hosts, agree) = (inside?, hosts?, agree?);
    if !network && hosts > 0 {
        let what = "`hosts` must be 0: this probe runs in the guest, through its agent";
        value.findings.hint(from.place("hosts"), what, "leave `hosts` out");
        return None;
    }
    let vantages = hosts + u32::from(inside);
    if vantages == 0 {
        return value
            .wrong("nobody would look: `inside` is false and `hosts` is 0", "set `inside: true` or `hosts: 2`");
    }
    let agree = agree.unwrap_or(vantages.min(2));
    if agree > vantages {
        let what = format!("`agree` is {agree}, but there are only {vantages} vantages: {}", sum(inside, hosts));
        value.findings.hint(
            from.place("agree"),
            what,
            format!("set `agree` to at most {vantages}, or look from more hosts"),
        );
        return None;
    }
    Some(Vantages { inside, hosts, agree })
}

fn sum(inside: bool, hosts: u32) -> String {
    if inside { format!("{} and {hosts} hosts", quoted("inside")) } else { format!("{hosts} hosts") }
}
