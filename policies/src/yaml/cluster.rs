//! Reads `cluster:`: what holds for the whole cluster.

use std::collections::{BTreeMap, BTreeSet};

use super::{across::Seen, capacities, fields::Keys, finding::Findings, text::quoted, value::Value};
use crate::{
    model::Policies,
    operators::{Certificates, Revoked},
    rules::{ClusterSettings, FencesAtOnce, OnShutdown},
    time::Span,
};

const CLUSTER: Keys = Keys {
    known: &[
        "tolerate",
        "failure_domain",
        "refuse_beyond",
        "on_shutdown",
        "fences_per_hour",
        "fences_per_hour_in_all",
        "quarantine_after_fences",
        "fences_at_once",
        "power_on_after_fence",
        "test_fencing_every",
        "operators",
        "revoked_operators",
        "capacities",
    ],
    later: &["rebalance"],
    renamed: &[],
};
/// Most hosts whose loss at once is asked about: beyond it no cluster has a majority of its voters.
const TOLERATE_MAX: u32 = 16;
/// Most fences within an hour that somebody may want to allow: one a minute.
const FENCES_MAX: u32 = 60;

/// Most fences within an hour of all hosts that somebody may want to allow.
const FENCES_IN_ALL_MAX: u32 = 1_000;
/// Shortest time between two tests of a power device: controllers have little to spare, and some log every login.
const TEST_LEAST: Span = Span::secs(60);

/// Reads the section; it may stand once.
pub(super) fn read(section: &Value<'_>, into: &mut ClusterSettings, seen: &mut Seen) {
    if let Some(first) = seen.cluster {
        seen.twice(section, "the section", first);
        return;
    }
    seen.cluster = Some(section.at);
    if let Some(settings) = settings(section, seen) {
        *into = settings;
    }
}

fn settings(value: &Value<'_>, seen: &mut Seen) -> Option<ClusterSettings> {
    let fields = value.fields(&CLUSTER)?;
    let tolerate = fields.or("tolerate", 0, |v| v.number(0..=TOLERATE_MAX));
    let failure_domain = fields.optional("failure_domain", |v| v.text().map(str::to_owned));
    seen.failure_domain = fields.has("failure_domain").then(|| fields.place("failure_domain"));
    let refuse_beyond = fields.or("refuse_beyond", false, Value::boolean);
    let on_shutdown = fields.or("on_shutdown", OnShutdown::Conditional, |v| {
        v.one_of(&[
            ("conditional", OnShutdown::Conditional),
            ("migrate", OnShutdown::Migrate),
            ("failover", OnShutdown::Failover),
            ("freeze", OnShutdown::Freeze),
        ])
    });
    let fences_per_hour = fields.optional("fences_per_hour", |v| v.number(1..=FENCES_MAX));
    let fences_per_hour_in_all = fields.optional("fences_per_hour_in_all", |v| v.number(1..=FENCES_IN_ALL_MAX));
    let quarantine_after_fences = fields.optional("quarantine_after_fences", |v| v.number(1..=FENCES_MAX));
    let fences_at_once = fields.or("fences_at_once", FencesAtOnce::One, |v| {
        v.one_of(&[("one", FencesAtOnce::One), ("one_per_failure_domain", FencesAtOnce::OnePerFailureDomain)])
    });
    let power_on_after_fence = fields.or("power_on_after_fence", false, Value::boolean);
    let test_fencing_every = fields.optional("test_fencing_every", |v| v.span_from(TEST_LEAST));
    let operators = fields.or("operators", Certificates::Optional, |v| {
        v.one_of(&[("optional", Certificates::Optional), ("required", Certificates::Required)])
    });
    let revoked_operators = fields.or("revoked_operators", BTreeSet::new(), revoked);
    let capacities = fields.or("capacities", BTreeMap::new(), |v| capacities::read(v, seen));
    if refuse_beyond == Some(true) && tolerate == Some(0) {
        let what = "`refuse_beyond` refuses what `tolerate` does not allow, and `tolerate` is 0";
        value.findings.hint(fields.place("refuse_beyond"), what, "add `tolerate: 1`");
    }
    if let (Some(Some(quarantine)), Some(Some(budget))) = (quarantine_after_fences, fences_per_hour)
        && quarantine > budget
    {
        let what = format!(
            "`quarantine_after_fences` is {quarantine}, and `fences_per_hour` lets it come to {budget} at most"
        );
        value.findings.hint(fields.place("quarantine_after_fences"), what, format!("write {budget}, or less"));
    }
    Some(ClusterSettings {
        tolerate: tolerate?,
        failure_domain: failure_domain?,
        refuse_beyond: refuse_beyond?,
        on_shutdown: on_shutdown?,
        fences_per_hour: fences_per_hour?,
        rebalance: false,
        power_on_after_fence: power_on_after_fence?,
        fences_per_hour_in_all: fences_per_hour_in_all?,
        quarantine_after_fences: quarantine_after_fences?,
        fences_at_once: fences_at_once?,
        test_fencing_every: test_fencing_every?,
        operators: operators?,
        revoked_operators: revoked_operators?,
        capacities: capacities?,
    })
}

fn revoked(value: &Value<'_>) -> Option<BTreeSet<Revoked>> {
    let example =
        "write `[ann, \"serial:5f3a...\"]`: a name for all certificates of an operator, a serial number for one";
    let items = value.list(example)?;
    let read: Vec<Option<Revoked>> =
        items.iter().map(|item| item.parsed("an operator's name or a serial number", example)).collect();
    read.into_iter().collect()
}

/// A failure domain that no host names would make each host one, silently.
pub(super) fn check(policies: &Policies, seen: &Seen, findings: &Findings<'_>) {
    let (Some(place), Some(label)) = (seen.failure_domain, &policies.cluster.failure_domain) else { return };
    let named = policies.hosts.values().any(|host| host.labels.contains_key(label));
    if !named {
        let what = format!("no host has the label {}, which is to name its failure domain", quoted(label));
        findings.hint(place, what, format!("add `hosts: {{ hv-a: {{ labels: {{ {label}: r1 }} }} }}`"));
    }
}
