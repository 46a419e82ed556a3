//! Reads `policies:`: which guests, which services, from where to look.

use std::collections::BTreeMap;

use super::{
    across::Seen,
    fields::{Fields, Keys},
    guests, hasty, ladder, probes, rules,
    text::quoted,
    tuning,
    value::Value,
};
use crate::{
    model::{Labels, OnDegraded, Policy, Probe, Rung, Service, Vantages},
    names::{PolicyName, ServiceName},
    time::Span,
};

const POLICY: Keys = Keys {
    known: &["match", "services", "ladder", "on_storage_error", "on_degraded", "cool_down", "boot_grace", "placement"],
    later: &[],
    renamed: &[("matches", "write `match: { app: web }`")],
};
const SERVICE: Keys = Keys {
    known: &["probe", "every", "timeout", "fails_after", "recovers_after", "from", "slow", "flaps", "grace", "needs"],
    later: &[],
    renamed: &[],
};
const FROM: Keys = Keys { known: &["inside", "hosts", "agree"], later: &[], renamed: &[] };

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
    seen.read_each(section, "policy", into, |seen, name| seen.policies.get(name).map(|first| first.place), policy);
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
    if let (Some(section), Some(services)) = (fields.section("services"), &services) {
        tuning::check(&section, services);
    }
    let ladder = fields.need("ladder", "ladder: [{ reset_guest: {} }, { failover: {} }, { page: {} }]", ladder::read);
    let rungs = || ladder.iter().flatten();
    sketch.restarts_service = rungs().any(|rung| matches!(rung, Rung::RestartService { .. }));
    sketch.reboots = rungs().any(|rung| matches!(rung, Rung::RebootGuest { .. }));
    if let (Some(section), Some(rungs), Some(services)) = (fields.section("ladder"), &ladder, &services) {
        hasty::check(&section, rungs, services);
    }
    let on_storage_error = fields.or("on_storage_error", Vec::new(), ladder::on_storage_error);
    let on_degraded = fields.or("on_degraded", OnDegraded::Alert, |v| {
        v.one_of(&[("alert", OnDegraded::Alert), ("migrate", OnDegraded::Migrate), ("ladder", OnDegraded::Ladder)])
    });
    if let Some(value) = fields.section("placement")
        && let Some(matches) = &matches
        && let Some(placement) = rules::placement(&value, matches)
    {
        seen.placement_places.push(value.at);
        seen.placements.push((name.clone(), placement));
    }
    let cool_down = fields.or("cool_down", Span::secs(300), Value::span);
    let boot_grace = fields.or("boot_grace", Span::secs(60), Value::span);
    Some(Policy {
        matches: matches?,
        services: services?,
        ladder: ladder?,
        on_storage_error: on_storage_error?,
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
    let probe = fields.need("probe", "probe: { http: { url: \"http://{address}:8080/\" } }", probes::read);
    let every = fields.or("every", Span::secs(2), |v| v.span_from(EVERY_MIN));
    let timeout = fields.or("timeout", Span::secs(1), |v| v.span_from(TIMEOUT_MIN));
    let fails_after = fields.or("fails_after", 3, |v| v.number(1..=COUNT_MAX));
    let recovers_after = fields.or("recovers_after", 2, |v| v.number(1..=COUNT_MAX));
    let from = vantages(&fields, probe.as_ref());
    let tuning = tuning::read(&fields, every, timeout);
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
        tuning: tuning?,
    })
}

/// From where to look. Without a readable probe only what does not depend on it is checked.
fn vantages(service: &Fields<'_>, probe: Option<&Probe>) -> Option<Vantages> {
    let network = probe.is_none_or(Probe::asked_by_hosts);
    let not_inside = probe.and_then(Probe::not_inside);
    let default_hosts = if network { 2 } else { 0 };
    let Some(value) = service.section("from") else {
        return Some(Vantages { inside: not_inside.is_none(), hosts: default_hosts, agree: default_hosts.max(1) });
    };
    let from = value.fields(&FROM)?;
    let inside = from.or("inside", not_inside.is_none(), Value::boolean);
    let hosts = from.or("hosts", default_hosts, |v| v.number(0..=HOSTS_MAX));
    let agree = from.optional("agree", |v| v.number(1..=HOSTS_MAX + 1));
    let (inside, hosts, agree) = (inside?, hosts?, agree?);
    if !network && hosts > 0 {
        let what = "`hosts` must be 0: this probe runs in the guest, through its agent";
        value.findings.hint(from.place("hosts"), what, "leave `hosts` out");
        return None;
    }
    if let (true, Some(why)) = (inside, not_inside) {
        value.findings.hint(from.place("inside"), format!("`inside` must be false: {why}"), "leave `inside` out");
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
