//! Reads `rules:`: where guests run, together and apart, and in which order they start. A policy's `placement` is the
//! short way to the commonest of them, for the guests that the policy matches.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    across::Seen,
    fields::{Fields, Keys},
    finding::{Findings, Place},
    guests,
    text::quoted,
    tree::Content,
    value::Value,
};
use crate::{
    model::{Labels, Policies},
    names::{GuestName, HostName, PolicyName, RuleName},
    rules::{Guests, Hosts, Rule, Score},
};

const KINDS: &[&str] = &["hosts", "together", "apart", "order"];
const HOSTS: Keys = Keys { known: &["guests", "on", "labels", "score", "required"], later: &[], renamed: &[] };
const TOGETHER: Keys = Keys { known: &["guests", "required", "yields", "weight"], later: &[], renamed: &[] };
const APART: Keys = Keys { known: &["guests", "required", "yields", "weight", "by"], later: &[], renamed: &[] };
const ORDER: Keys = Keys { known: &["first", "then", "required", "symmetrical"], later: &[], renamed: &[] };
const PLACEMENT: Keys = Keys {
    known: &["apart", "together", "prefer", "require", "avoid", "start_after"],
    later: &[],
    renamed: &[("keep_apart", "write `apart: { app: web }`"), ("affinity", "write `prefer` or `require`")],
};

/// Most rules, those of `placement` included: each is weighed for every guest that is placed.
const RULES_MAX: usize = 1_000;
/// What a preference weighs where nothing is said: less than the default stickiness, so that nothing moves for it.
pub(super) const WEIGHT: i64 = 100;
/// Largest weight or score either way: sums must not overflow.
const WEIGHT_MAX: i64 = 1_000_000;

/// Reads all rules of a section.
pub(super) fn read(section: &Value<'_>, into: &mut BTreeMap<RuleName, Rule>, seen: &mut Seen) {
    let first = |seen: &Seen, name: &RuleName| seen.rules.get(name).copied();
    seen.read_each(section, "rule", into, first, |value, name, seen| {
        seen.rules.insert(name.clone(), value.at);
        value.variant("rule", KINDS, &[]).and_then(|chosen| rule(&chosen))
    });
}

fn rule(chosen: &Value<'_>) -> Option<Rule> {
    match chosen.name {
        "hosts" => hosts(chosen),
        "together" => {
            let fields = chosen.fields(&TOGETHER)?;
            let (guests, required, yields, weight) = group(&fields)?;
            Some(Rule::Together { guests, required, yields, weight })
        }
        "apart" => {
            let fields = chosen.fields(&APART)?;
            let by = fields.optional("by", |v| v.text().map(str::to_owned));
            let (guests, required, yields, weight) = group(&fields)?;
            Some(Rule::Apart { guests, required, yields, weight, by: by? })
        }
        _ => {
            let fields = chosen.fields(&ORDER)?;
            let first = fields.need("first", "first: db-1", Value::named::<GuestName>);
            let then = fields.need("then", "then: web-1", Value::named::<GuestName>);
            let required = fields.or("required", true, Value::boolean);
            let symmetrical = fields.or("symmetrical", false, Value::boolean);
            if first.is_some() && first == then {
                return chosen.wrong("a guest cannot start after itself", "name two guests");
            }
            Some(Rule::Order { first: first?, then: then?, required: required?, symmetrical: symmetrical? })
        }
    }
}

fn group(fields: &Fields<'_>) -> Option<(Guests, bool, Option<GuestName>, i64)> {
    let guests = fields.need("guests", "guests: [web-1, web-2]", which);
    let required = fields.or("required", true, Value::boolean);
    let yields = fields.optional("yields", Value::named::<GuestName>);
    let weight = fields.or("weight", WEIGHT, |v| v.signed(0..=WEIGHT_MAX));
    Some((guests?, required?, yields?, weight?))
}

/// Guests by name or by their labels.
fn which(value: &Value<'_>) -> Option<Guests> {
    if let Content::Map(_) = &value.node.content {
        let labels = guests::labels(value)?;
        if labels.is_empty() {
            return value.wrong("no label is named: the rule would be about every guest", "write `{ app: web }`");
        }
        return Some(Guests::Labelled(labels));
    }
    let items = value.list("name guests, `[web-1, web-2]`, or labels, `{ app: web }`")?;
    let names: Vec<Option<GuestName>> = items.iter().map(Value::named).collect();
    let names: Vec<GuestName> = names.into_iter().collect::<Option<_>>()?;
    if names.is_empty() {
        return value.wrong("no guest is named", "write `[web-1, web-2]`, or labels, `{ app: web }`");
    }
    Some(Guests::Named(names))
}

fn hosts(chosen: &Value<'_>) -> Option<Rule> {
    let fields = chosen.fields(&HOSTS)?;
    let guests = fields.need("guests", "guests: [db-1]", which);
    let required = fields.or("required", false, Value::boolean);
    let hosts = match (fields.section("on"), fields.section("labels")) {
        (Some(on), None) => scores(&on).map(Hosts::Named),
        (None, Some(labels)) => {
            let score = fields.or("score", Score::By(WEIGHT), score);
            Some(Hosts::Labelled(guests::labels(&labels)?, score?))
        }
        (Some(_), Some(_)) | (None, None) => {
            let hint = "write `on: { hv-a: 100, hv-b: never }`, or `labels: { zone: a }`";
            chosen.findings.hint(chosen.at, "a rule of hosts names hosts either with `on` or by `labels`", hint);
            None
        }
    };
    if fields.has("score") && !fields.has("labels") {
        let hint = "write the score behind each host: `on: { hv-a: 100 }`";
        chosen.findings.hint(fields.place("score"), "`score` belongs to `labels`", hint);
    }
    Some(Rule::Hosts { guests: guests?, hosts: hosts?, required: required? })
}

/// Hosts with a score each; a list of hosts likes them all the same.
fn scores(value: &Value<'_>) -> Option<BTreeMap<HostName, Score>> {
    let read: Vec<Option<(HostName, Score)>> = if let Content::List(_) = &value.node.content {
        let items = value.list("write `[hv-a, hv-b]`")?;
        items.iter().map(|item| Some((item.named()?, Score::By(WEIGHT)))).collect()
    } else {
        value.map()?.iter().map(|entry| Some((entry.key_name()?, score(entry)?))).collect()
    };
    let scores: BTreeMap<HostName, Score> = read.into_iter().collect::<Option<_>>()?;
    if scores.is_empty() {
        return value.wrong("no host is named", "write `{ hv-a: 100 }`");
    }
    Some(scores)
}

fn score(value: &Value<'_>) -> Option<Score> {
    match value.text()? {
        "must" => Some(Score::Must),
        "never" => Some(Score::Never),
        // A word is no number that is written badly: whoever writes one looks for the two that there are.
        text if text.bytes().all(|b| b.is_ascii_alphabetic()) => value
            .wrong(format!("{} is no score", quoted(text)), "write a number such as `100` or `-50`, `must` or `never`"),
        _ => value.signed(-WEIGHT_MAX..=WEIGHT_MAX).map(Score::By),
    }
}

/// A policy's `placement`, until all guests are known.
pub(super) struct Placement {
    matches: Labels,
    rules: Vec<Rule>,
    start_after: Vec<(GuestName, Place)>,
}

/// Reads a policy's `placement`.
pub(super) fn placement(value: &Value<'_>, matches: &Labels) -> Option<Placement> {
    let fields = value.fields(&PLACEMENT)?;
    let mut rules = Vec::new();
    let own = || Guests::Labelled(matches.clone());
    for (key, together) in [("apart", false), ("together", true)] {
        let Some(labels) = fields.section(key) else { continue };
        let (guests, required, yields) = (Guests::Labelled(guests::labels(&labels)?), true, None);
        rules.push(if together {
            Rule::Together { guests, required, yields, weight: WEIGHT }
        } else {
            Rule::Apart { guests, required, yields, weight: WEIGHT, by: None }
        });
    }
    let preferences = [
        ("prefer", Score::By(WEIGHT), false),
        ("require", Score::By(WEIGHT), true),
        ("avoid", Score::By(-WEIGHT), false),
    ];
    for (key, score, required) in preferences {
        let Some(labels) = fields.section(key) else { continue };
        let hosts = Hosts::Labelled(guests::labels(&labels)?, score);
        rules.push(Rule::Hosts { guests: own(), hosts, required });
    }
    let start_after = fields.or("start_after", Vec::new(), |v| {
        let items = v.list("write `[db-1]`")?;
        let read: Vec<Option<(GuestName, Place)>> =
            items.iter().map(|item| Some((item.named()?, item.place()))).collect();
        read.into_iter().collect()
    })?;
    Some(Placement { matches: matches.clone(), rules, start_after })
}

/// Turns the policies' placements into rules, once all guests are known, and checks all rules against the guests.
pub(super) fn settle(policies: &mut Policies, seen: &Seen, findings: &Findings<'_>) {
    let mut made = Vec::new();
    for (policy, placement) in &seen.placements {
        let mut rules = placement.rules.clone();
        let all = Guests::Labelled(placement.matches.clone());
        for (first, place) in &placement.start_after {
            if !seen.guests.contains_key(first) {
                findings.hint(*place, format!("there is no guest {}", quoted(first.as_str())), "name a declared guest");
            }
            let others = all.among(&policies.guests).into_iter().filter(|then| *then != first);
            rules.extend(others.map(|then| Rule::Order {
                first: first.clone(),
                then: then.clone(),
                required: true,
                symmetrical: false,
            }));
        }
        made.extend(rules.into_iter().enumerate().map(|(index, rule)| (derived(policy, index), rule)));
    }
    for (name, rule) in made {
        if let Some(place) = seen.rules.get(&name) {
            let what = format!("rule {} has the name of one that a policy's `placement` makes", quoted(name.as_str()));
            findings.hint(*place, what, "give it another name");
        }
        policies.rules.insert(name, rule);
    }
    strangers(policies, seen, findings);
    cycles(policies, seen, findings);
    let place = || seen.rules.values().next().or(seen.placement_places.first()).copied();
    if let Some(place) = place().filter(|_| policies.rules.len() > RULES_MAX) {
        let what = format!("there are {} rules, those of `placement` included", policies.rules.len());
        findings.hint(place, what, format!("use labels, so that there are at most {RULES_MAX}"));
    }
}

/// The name of a rule that a policy's placement makes. Policy names are cut so that it is a name in any case.
fn derived(policy: &PolicyName, index: usize) -> RuleName {
    let short: String = policy.as_str().chars().take(40).collect();
    let fallback = || RuleName::new(format!("placement.{index}"));
    #[expect(clippy::expect_used, reason = "digits and a fixed word are a name")]
    RuleName::new(format!("{short}.placement.{index}")).or_else(|_| fallback()).expect("a fixed word is a name")
}

/// A guest that a rule names and nobody has declared is a spelling mistake.
fn strangers(policies: &Policies, seen: &Seen, findings: &Findings<'_>) {
    for (name, place) in &seen.rules {
        let named: Vec<&GuestName> = match policies.rules.get(name) {
            Some(Rule::Hosts { guests: Guests::Named(names), .. }) => names.iter().collect(),
            Some(Rule::Together { guests, yields, .. } | Rule::Apart { guests, yields, .. }) => {
                let names = match guests {
                    Guests::Named(names) => names.as_slice(),
                    Guests::Labelled(_) => &[],
                };
                names.iter().chain(yields).collect()
            }
            Some(Rule::Order { first, then, .. }) => vec![first, then],
            Some(Rule::Hosts { guests: Guests::Labelled(_), .. }) | None => Vec::new(),
        };
        for guest in named.into_iter().filter(|guest| !seen.guests.contains_key(*guest)) {
            let what = format!("rule {} names {}, which is no guest", quoted(name.as_str()), quoted(guest.as_str()));
            findings.hint(*place, what, "name a declared guest");
        }
    }
}

/// Guests that wait for each other would wait for ever.
fn cycles(policies: &Policies, seen: &Seen, findings: &Findings<'_>) {
    let mut after: BTreeMap<&GuestName, BTreeSet<&GuestName>> = BTreeMap::new();
    for rule in policies.rules.values() {
        if let Rule::Order { first, then, required: true, .. } = rule {
            after.entry(then).or_default().insert(first);
        }
    }
    // Taking away, again and again, whoever waits for nobody leaves the circles and what hangs on them.
    loop {
        let waiting: BTreeSet<&GuestName> = after.keys().copied().collect();
        let before: usize = after.values().map(BTreeSet::len).sum();
        for firsts in after.values_mut() {
            firsts.retain(|first| waiting.contains(first));
        }
        after.retain(|_, firsts| !firsts.is_empty());
        if after.values().map(BTreeSet::len).sum::<usize>() == before {
            break;
        }
    }
    let names: Vec<String> = after.keys().take(10).map(|guest| quoted(guest.as_str())).collect();
    let place = seen.rules.values().next().or(seen.placement_places.first());
    if let (false, Some(place)) = (names.is_empty(), place) {
        let what = format!("guests wait for each other in a circle: {}", names.join(", "));
        findings.hint(*place, what, "take one of the orders away");
    }
}
