//! Reads what is said of a service beyond its probe: `slow`, `flaps`, `grace` and `needs`.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    fields::{Fields, Keys},
    text::quoted,
    value::Value,
};
use crate::{
    model::Service,
    names::ServiceName,
    time::Span,
    tuning::{ANSWERS_MIN, Flaps, Slow, Tuning},
};

const SLOW: Keys = Keys { known: &["above", "share", "over"], later: &[], renamed: &[] };
const FLAPS: Keys = Keys { known: &["more_than", "over"], later: &[], renamed: &[] };

/// Shortest window: a shorter one would judge by single answers.
const OVER_MIN: Span = Span::secs(1);
/// Most changes in a window that are still taken one by one.
const CHANGES_MAX: u32 = 1_000;
/// Most services that one service needs.
const NEEDS_MAX: usize = 16;

/// Reads the four keys.
pub(super) fn read(service: &Fields<'_>, every: Option<Span>, timeout: Option<Span>) -> Option<Tuning> {
    let slow = service.optional("slow", |v| slow(v, every, timeout));
    let flaps = service.optional("flaps", flaps);
    let grace = service.optional("grace", Value::span);
    let needs = service.or("needs", BTreeSet::new(), needs);
    Some(Tuning { slow: slow?, flaps: flaps?, grace: grace?, needs: needs? })
}

fn slow(value: &Value<'_>, every: Option<Span>, timeout: Option<Span>) -> Option<Slow> {
    let fields = value.fields(&SLOW)?;
    let above = fields.need("above", "above: 300ms", |v| v.span_from(Span::ms(1)));
    let share = fields.or("share", 50, percent);
    let over = fields.or("over", Span::secs(30), |v| v.span_from(OVER_MIN));
    let (above, share, over) = (above?, share?, over?);
    if let Some(timeout) = timeout.filter(|timeout| above >= *timeout) {
        let what = format!("`above` {above} is not shorter than `timeout` {timeout}: no answer could ever be slow");
        value.findings.hint(fields.place("above"), what, "an answer that takes as long as `timeout` is a failure");
        return None;
    }
    let least = every.map(|every| Span(every.0 * ANSWERS_MIN)).filter(|least| over < *least);
    if let (Some(least), Some(every)) = (least, every) {
        let what = format!("`over` {over} holds fewer than {ANSWERS_MIN} answers at `every` {every}");
        value.findings.hint(fields.place("over"), what, format!("set `over` to at least {least}"));
        return None;
    }
    Some(Slow { above, share, over })
}

fn percent(value: &Value<'_>) -> Option<u8> {
    let text = value.text()?;
    let number = text.strip_suffix('%').and_then(|digits| digits.trim_end().parse::<u8>().ok());
    match number.filter(|number| (1..=100).contains(number)) {
        Some(number) => Some(number),
        None => value.wrong(
            format!("{} must be a share from 1% to 100%, not {}", quoted(value.name), quoted(text)),
            "write a whole number and the sign: 50%",
        ),
    }
}

fn flaps(value: &Value<'_>) -> Option<Flaps> {
    let fields = value.fields(&FLAPS)?;
    let more_than = fields.or("more_than", 4, |v| v.number(1..=CHANGES_MAX));
    let over = fields.or("over", Span::secs(300), |v| v.span_from(OVER_MIN));
    Some(Flaps { more_than: more_than?, over: over? })
}

fn needs(value: &Value<'_>) -> Option<BTreeSet<ServiceName>> {
    if value.is_text() {
        return value.named().map(|name| BTreeSet::from([name]));
    }
    let items = value.list("write the name of a service, or a list of them: [network, database]")?;
    if items.len() > NEEDS_MAX {
        return value.wrong(format!("`needs` names more than {NEEDS_MAX} services"), "name the ones that fail first");
    }
    items.iter().map(Value::named).collect()
}

/// What one service needs has to be there, and not to need it in turn.
pub(super) fn check(section: &Value<'_>, services: &BTreeMap<ServiceName, Service>) {
    for value in section.map().unwrap_or_default() {
        let Some((name, service)) = services.iter().find(|(name, _)| name.as_str() == value.name) else { continue };
        for need in &service.tuning.needs {
            if !services.contains_key(need) {
                let what = format!("{} needs {}, which is no service here", quoted(value.name), quoted(need.as_str()));
                value.findings.hint(value.at, what, "name services of the same policy, each by its key");
            } else if reaches(services, need, name) {
                let what = format!("{} and {} need each other", quoted(value.name), quoted(need.as_str()));
                value.findings.hint(value.at, what, "leave the one out that can answer without the other");
            }
        }
    }
}

/// Whether needs lead from one service to another; every service is looked at once.
fn reaches(services: &BTreeMap<ServiceName, Service>, from: &ServiceName, to: &ServiceName) -> bool {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(name) = next.pop() {
        if name == to {
            return true;
        }
        if seen.insert(name) {
            next.extend(services.get(name).into_iter().flat_map(|service| &service.tuning.needs));
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use crate::{
        model::{OnDegraded, Policies},
        time::Span,
        tuning::{Flaps, Slow},
        yaml::{Source, parse},
    };

    fn read(services: &str) -> Result<Policies, Vec<String>> {
        let text = format!(
            "policies:\n  p:\n    match: {{ a: b }}\n    on_degraded: ladder\n    ladder: [page]\n    services:\n{services}"
        );
        let findings = parse(&[Source { name: "a.yaml", text: &text }]);
        findings.map_err(|all| all.iter().map(|f| format!("{}:{} {}", f.line, f.column, f.what)).collect())
    }

    #[test]
    fn every_setting_reads_as_it_is_meant_and_has_its_default() {
        let policies = read(
            "      net: { probe: agent_ping, slow: { above: 300ms }, flaps: {} }\n      web: { probe: agent_ping, slow: { above: 5ms, share: 7%, over: 1m }, flaps: { more_than: 2, over: 9s }, grace: 3s, needs: net }\n      db: { probe: agent_ping, needs: [net, web] }\n",
        )
        .unwrap();
        let policy = policies.policies.values().next().unwrap();
        assert_eq!(policy.on_degraded, OnDegraded::Ladder);
        let of = |name: &str| &policy.services.iter().find(|(key, _)| key.as_str() == name).unwrap().1.tuning;
        assert_eq!(of("net").slow, Some(Slow { above: Span::ms(300), share: 50, over: Span::secs(30) }));
        assert_eq!(of("net").flaps, Some(Flaps { more_than: 4, over: Span::secs(300) }));
        assert_eq!(of("web").slow, Some(Slow { above: Span::ms(5), share: 7, over: Span::secs(60) }));
        assert_eq!(of("web").flaps, Some(Flaps { more_than: 2, over: Span::secs(9) }));
        assert_eq!((of("web").grace, of("db").grace), (Some(Span::secs(3)), None));
        assert_eq!((of("web").needs.len(), of("db").needs.len()), (1, 2));
    }

    #[test]
    fn what_could_never_be_found_or_needs_itself_is_shown_where_it_stands() {
        let found = read(
            "      a: { probe: agent_ping, slow: { above: 1s } }\n      b: { probe: agent_ping, slow: { above: 5ms, over: 9s } }\n      c: { probe: agent_ping, slow: { share: 50 } }\n      d: { probe: agent_ping, flaps: { more_than: 0 }, needs: e }\n      e: { probe: agent_ping, needs: [g] }\n      g: { probe: agent_ping, needs: e }\n      h: { probe: agent_ping, needs: nobody }\n",
        )
        .unwrap_err();
        let expected = [
            "7:46 `above` 1s is not shorter than `timeout` 1s: no answer could ever be slow",
            "8:57 `over` 9s holds fewer than 5 answers at `every` 2s",
            "9:39 `slow` has no `above`",
            "9:46 `share` must be a share from 1% to 100%, not `50`",
            "10:51 `more_than` must be a whole number from 1 to 1000, not `0`",
            "11:7 `e` and `g` need each other",
            "12:7 `g` and `e` need each other",
            "13:7 `h` needs `nobody`, which is no service here",
        ];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.ends_with(expected.split_once(' ').unwrap().1), "{found} / {expected}");
        }
    }
}
