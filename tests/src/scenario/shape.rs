//! Where a file is not a scenario: each part is read by itself, so that all mistakes are told at once, each with its place.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::format::{Cluster, Event, Expect, Host, Rule, Scenario, Vm};

/// Characters of what is told of one mistake; the rest is the file's own text.
const TOLD_MAX: usize = 300;

/// What the parser says is expected, and what a person calls that.
const IN_WORDS: &[(&str, &str)] = &[
    ("a map", "an object"),
    ("a sequence", "a list"),
    ("a string", "a text"),
    ("string or map", "a text"),
    ("map with a single key", "a text"),
    ("a boolean", "`true` or `false`"),
    ("f64", "a number"),
    ("u32", "a whole number that is not negative"),
    ("usize", "a whole number that is not negative"),
];

/// What the parser says is there, and what a person calls that; the value itself follows.
const FOUND: &[(&str, &str)] = &[
    ("invalid type: ", ""),
    ("invalid value: ", ""),
    ("unknown variant ", ""),
    ("sequence", "a list"),
    ("map", "an object"),
    ("floating point ", "the number "),
    ("integer ", "the number "),
    ("boolean ", ""),
    ("string ", "the text "),
];

/// What is wrong with a file, each with where it stands and what would be right. Empty where every part by itself is right.
#[must_use]
pub fn mistakes(file: &Value) -> Vec<String> {
    let Value::Object(said) = file else {
        return vec![format!("it is {}, where an object should be", kind(file))];
    };
    let least = least_scenario();
    let mut found: Vec<String> = missing(said, &least).collect();
    for (key, value) in said {
        found.extend(match (key.as_str(), value) {
            ("hosts", Value::Array(rows)) => each::<Host>(key, rows, &["name", "state"]),
            ("vms", Value::Array(rows)) => each::<Vm>(key, rows, &["name"]),
            ("rules", Value::Array(rows)) => each::<Rule>(key, rows, &["kind"]),
            ("events", Value::Array(rows)) => each::<Event>(key, rows, &["kind"]),
            ("cluster", Value::Object(said)) => keys::<Cluster>(key, said, &Map::new()),
            ("expect", Value::Object(said)) => keys::<Expect>(key, said, &Map::new()),
            (_, value) => {
                let wrong = wrong::<Scenario>(key, value, &least).map(|why| format!("{key}: {why}"));
                wrong.into_iter().collect::<Vec<String>>()
            }
        });
    }
    found
}

/// The least that is a scenario.
fn least_scenario() -> Map<String, Value> {
    let list = || Value::Array(Vec::new());
    let text = |text: &str| Value::String(text.to_owned());
    let said = [("name", text("")), ("mode", text("timeline")), ("hosts", list()), ("vms", list())];
    said.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// What is wrong with the rows of a list, of which each needs texts under these keys.
fn each<T: DeserializeOwned>(list: &str, rows: &[Value], needs: &[&str]) -> Vec<String> {
    let least: Map<String, Value> = needs.iter().map(|key| ((*key).to_owned(), Value::String(String::new()))).collect();
    let rows = rows.iter().enumerate();
    let found = rows.flat_map(|(index, row)| {
        let at = format!("{list}[{index}]");
        match row {
            Value::Object(said) => keys::<T>(&at, said, &least),
            other => vec![format!("{at}: it is {}, where an object should be", kind(other))],
        }
    });
    found.collect()
}

/// What is wrong with the keys of an object, of which the least is given.
fn keys<T: DeserializeOwned>(at: &str, said: &Map<String, Value>, least: &Map<String, Value>) -> Vec<String> {
    let missing = missing(said, least).map(|what| format!("{at}: {what}"));
    let wrong = said.iter().filter_map(|(key, value)| {
        let why = wrong::<T>(key, value, least)?;
        Some(format!("{at}.{key}: {why}"))
    });
    missing.chain(wrong).collect()
}

fn missing<'a>(said: &'a Map<String, Value>, least: &'a Map<String, Value>) -> impl Iterator<Item = String> + 'a {
    least.keys().filter(move |key| !said.contains_key(*key)).map(|key| format!("there is no `{key}`"))
}

/// What is wrong with one key: everything else is as it should be, so that nothing else can be.
fn wrong<T: DeserializeOwned>(key: &str, value: &Value, least: &Map<String, Value>) -> Option<String> {
    let mut only = least.clone();
    only.insert(key.to_owned(), value.clone());
    let error = serde_json::from_value::<T>(Value::Object(only)).err()?;
    Some(in_words(&error.to_string()).chars().take(TOLD_MAX).collect())
}

/// The parser's words in those of people.
fn in_words(text: &str) -> String {
    if text.contains("untagged enum AffineHost") {
        return "each host is its name, or an object with its `name` and `weight`".to_owned();
    }
    let Some((found, expected)) = text.rsplit_once(", expected ") else {
        return text.replace("missing field ", "there is no ");
    };
    let known = IN_WORDS.iter().find(|(word, _)| *word == expected).map(|(_, called)| *called);
    let is_object = expected.starts_with("struct ");
    let expected = known.unwrap_or(if is_object { "an object" } else { expected });
    let mut found = found.to_owned();
    for (word, called) in FOUND {
        if let Some(rest) = found.strip_prefix(word) {
            found = format!("{called}{rest}");
        }
    }
    format!("it is {found}, where {expected} should be")
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
