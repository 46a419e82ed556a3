//! Scenarios: a situation and what happens in it go in as a neutral JSON file, what Holdfast makes of it comes out.
//!
//! The runner translates and simulates hosts; every decision is the product's own (`holdfast_policies`). Words for which
//! Holdfast has nothing are told as unsupported instead of being guessed at. Where a scenario's wish and a promise of
//! the design collide, the promise wins:
//! - a lost host is fenced only when it may run something (S8), and its guests start elsewhere only with proof (S2), so
//!   that without fencing they wait for a person;
//! - without a quorum nothing is decided (S4), except by decree (`no_quorum_policy: ignore`).
//!
//! Where Holdfast leaves something to people on purpose, and a situation leaves no doubt what they would do, that is done in their
//! place: what may run nowhere is stopped (`nowhere`), hosts that are too full are relieved (`relief`), less important guests make way
//! (`way`), guests that are to go back are moved back when a drain has ended (`homeward`), and fencing goes on after a storm that was
//! none (`storm`).
//!
//! `HOLDFAST_STORY=1` prints every command.

mod alone;
pub mod build;
pub mod check;
mod dependents;
pub mod events;
pub mod format;
mod homeward;
pub mod host;
pub mod judge;
mod lead;
pub mod map;
pub mod names;
mod nowhere;
pub mod on_fail;
mod orders;
pub mod outcome;
mod plain;
pub mod question;
mod relief;
mod shape;
mod storm;
mod subjects;
mod way;
pub mod world;

use serde::Deserialize as _;
use serde_json::{Value, json};

use format::{Kind, Outcome, Scenario};

/// Seconds in which a snapshot's decisions are carried out: a fence, its retries, a start, and one try more.
const SNAPSHOT_SECONDS: f64 = 240.0;
/// Seconds after the newest event when a timeline does not say.
const SETTLE_SECONDS: f64 = 300.0;

/// Most mistakes of a file that are told.
const MISTAKES_TOLD: usize = 20;

/// What came of a file.
#[derive(Debug, Clone, PartialEq)]
pub enum Ran {
    /// It was run.
    Outcome(Box<Outcome>),
    /// It was a question.
    Answer(Value),
    /// It needs what Holdfast does not have.
    Unsupported(Vec<String>),
}

/// Why a file could not be run.
#[derive(Debug, thiserror::Error)]
pub enum BadScenario {
    /// It is not a scenario.
    #[error("it is not a scenario")]
    Shape {
        /// What the parser says, and where.
        source: serde_json::Error,
    },
    /// Parts of it are not what they should be.
    #[error("it is not a scenario{place}: {}", found.join("; "))]
    Parts {
        /// Line and column of the first, where they are known.
        place: String,
        /// Where, what, and what would be right.
        found: Vec<String>,
    },
    /// It speaks of things that it does not have.
    #[error("it contradicts itself: {}", found.join("; "))]
    Mistakes {
        /// Where and what.
        found: Vec<String>,
    },
}

/// Reads a scenario.
///
/// # Errors
/// [`BadScenario`], with place and cause.
pub fn read(text: &str) -> Result<Scenario, BadScenario> {
    // Some editors begin a file with it.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let value: Value = serde_json::from_str(text).map_err(|source| BadScenario::Shape { source })?;
    let value = plain::plain(value);
    let scenario = Scenario::deserialize(&value).map_err(|source| {
        let (source, found) = (with_place(text, source), few(shape::mistakes(&value)));
        if found.is_empty() {
            BadScenario::Shape { source }
        } else {
            BadScenario::Parts { place: place(&source), found }
        }
    })?;
    let found = few(check::mistakes(&scenario));
    if found.is_empty() { Ok(scenario) } else { Err(BadScenario::Mistakes { found }) }
}

/// As many as somebody reads, and how many more there are.
fn few(mut found: Vec<String>) -> Vec<String> {
    let more = found.len().saturating_sub(MISTAKES_TOLD);
    found.truncate(MISTAKES_TOLD);
    found.extend((more > 0).then(|| format!("and {more} more")));
    found
}

/// The same mistake with its place, which a value does not have: it is looked for in the text.
fn with_place(text: &str, found: serde_json::Error) -> serde_json::Error {
    match serde_json::from_str::<Scenario>(text) {
        Err(placed) if placed.to_string().starts_with(&found.to_string()) => placed,
        Ok(_) | Err(_) => found,
    }
}

fn place(source: &serde_json::Error) -> String {
    match source.line() {
        0 => String::new(),
        line => format!(" (line {line}, column {})", source.column()),
    }
}

/// Runs a scenario.
#[must_use]
pub fn run(scenario: &Scenario) -> Ran {
    let unsupported = check::unsupported(scenario);
    if !unsupported.is_empty() {
        return Ran::Unsupported(unsupported);
    }
    match scenario.mode {
        Kind::Question => Ran::Answer(question::answer(scenario)),
        Kind::Snapshot | Kind::Timeline => {
            let followed = nowhere::stopped(on_fail::followed(scenario));
            let scenario = if scenario.mode == Kind::Snapshot { &followed } else { scenario };
            let (mut world, script) = build::build(scenario);
            let settle = match scenario.mode {
                Kind::Timeline => scenario.settle_seconds.unwrap_or(SETTLE_SECONDS).clamp(0.0, check::SECONDS_MAX),
                Kind::Snapshot | Kind::Question => SNAPSHOT_SECONDS,
            };
            script.run(&mut world, scenario, settle);
            Ran::Outcome(Box::new(outcome::outcome(&world)))
        }
    }
}

impl Ran {
    /// As it is printed.
    #[must_use]
    pub fn json(&self) -> Value {
        match self {
            Self::Outcome(outcome) => json!(outcome),
            Self::Answer(answer) => json!({ "answer": answer }),
            Self::Unsupported(words) => json!({ "unsupported": words }),
        }
    }
}
