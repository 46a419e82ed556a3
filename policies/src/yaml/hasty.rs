//! Tells of rungs that wait for less time than it takes until a recovery is seen: a try that has helped would be followed by the
//! next one. It may be meant, so it is no mistake.

use std::collections::BTreeMap;

use super::{finding::Place, ladder::RESTART_SERVICE, text::quoted, value::Value};
use crate::{
    model::{Rung, Service},
    names::ServiceName,
    time::Span,
};

/// Looks at the rungs of a ladder that has been read, beside the value that they were read from.
pub(super) fn check(ladder: &Value<'_>, rungs: &[Rung], services: &BTreeMap<ServiceName, Service>) {
    for (item, rung) in ladder.list("").unwrap_or_default().iter().zip(rungs) {
        let Some(slowest) = services.iter().filter_map(|(name, service)| seen(rung, name, service)).max() else {
            continue;
        };
        if rung.wait() < slowest.after {
            let (at, default) = wait_of(item, rung);
            ladder.findings.doubt(at, told(rung, default, &slowest));
        }
    }
}

/// When a service is seen to answer again at the latest, if it does so right after a try.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Seen<'s> {
    /// That long after the try.
    after: Span,
    name: &'s ServiceName,
    /// What that is made of, for people.
    made_of: String,
}

fn seen<'s>(rung: &Rung, name: &'s ServiceName, service: &Service) -> Option<Seen<'s>> {
    let Service { every, timeout, recovers_after, .. } = service;
    let (passes, each) = match rung {
        Rung::RestartService { .. } | Rung::RebootGuest { .. } | Rung::ResumeGuest { .. } => {
            (*recovers_after, format!("`recovers_after` {recovers_after} times `every` {every}"))
        }
        // Under a new epoch the first pass counts at once.
        Rung::ResetGuest { .. } | Rung::Failover { .. } | Rung::Migrate { .. } => (1, format!("`every` {every}")),
        Rung::Page { .. } => return None,
    };
    let after = Span(service.answered_within(passes));
    Some(Seen { after, name, made_of: format!("{each}, and `timeout` {timeout}") })
}

/// Where a rung's `wait` stands, and whether it stands there; without it, where the rung does.
fn wait_of(item: &Value<'_>, rung: &Rung) -> (Place, &'static str) {
    let fields = item.variant("rung", &[rung.name()], &[]).and_then(|chosen| chosen.fields(&RESTART_SERVICE));
    let default = if fields.as_ref().is_some_and(|fields| fields.has("wait")) { "" } else { ", its default," };
    (fields.map_or(item.at, |fields| fields.place("wait")), default)
}

fn told(rung: &Rung, default: &str, slowest: &Seen<'_>) -> String {
    let Seen { after, name, made_of } = slowest;
    format!(
        "{} waits {}{default} and its service {} may be seen to answer again only after {after} ({made_of}): a try that has helped \
         may be followed by the next one; ask it more often, or set `wait` to at least {after}",
        quoted(rung.name()),
        rung.wait(),
        quoted(name.as_str()),
    )
}

#[cfg(test)]
mod tests {
    use super::super::{Source, parse_with_doubts};

    fn doubts(text: &str) -> Vec<String> {
        let (_, doubts) = parse_with_doubts(&[Source { name: "a.yaml", text }]).unwrap();
        doubts
    }

    /// A policy with services that are asked every second and every `every`.
    fn policy(every: &str, ladder: &str) -> String {
        format!(
            "policies:
  web:
    match: {{ app: web }}
    services:
      http: {{ probe: {{ http: {{ url: \"http://{{address}}/\" }} }}, every: 1s, timeout: 500ms }}
      worker: {{ probe: {{ systemd: {{ unit: worker.service }} }}, every: {every}, timeout: 2s }}
    ladder: {ladder}
"
        )
    }

    #[test]
    fn a_wait_that_ends_before_a_recovery_is_seen_is_told_where_it_stands() {
        let text = policy("5s", "[{ restart_service: { run: [x], wait: 11s } }, reset_guest, page]");
        assert_eq!(
            doubts(&text),
            [
                "? a.yaml:7:51: `restart_service` waits 11s and its service `worker` may be seen to answer again only after 12s \
              (`recovers_after` 2 times `every` 5s, and `timeout` 2s): a try that has helped may be followed by the next one; ask \
              it more often, or set `wait` to at least 12s"
            ]
        );
        assert!(doubts(&text.replace("11s", "12s")).is_empty(), "it is long enough");
        let told = doubts(&policy("5s", "[{ restart_service: { run: [x] } }, page]"));
        let [told] = &told[..] else { panic!("{told:?}") };
        assert!(told.starts_with("? a.yaml:7:16: `restart_service` waits 10s, its default, and its service"), "{told}");
    }

    #[test]
    fn after_a_new_start_one_pass_is_enough() {
        let ladder = "[reboot_guest, reset_guest, { failover: { wait: 50s } }, page]";
        let told = doubts(&policy("50s", ladder));
        let words: Vec<_> = told.iter().filter_map(|line| line.split(": ").nth(1)?.split(' ').next()).collect();
        assert_eq!(words, ["`reboot_guest`", "`failover`"], "{told:?}");
        assert!(told.iter().any(|line| line.ends_with("set `wait` to at least 52s")), "{told:?}");
    }

    #[test]
    fn a_ladder_that_only_calls_somebody_waits_for_nothing() {
        assert!(doubts(&policy("10m", "[page]")).is_empty());
    }
}
