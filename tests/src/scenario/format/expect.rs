//! What a scenario expects, as it is written.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::Question;

/// What must come of a scenario.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Expect {
    /// By guest.
    #[serde(default, rename = "final")]
    pub ends: BTreeMap<String, End>,
    /// Of many guests together.
    #[serde(default)]
    pub constraints: Vec<Constraint>,
    /// Hosts that must be fenced.
    #[serde(default)]
    pub must_fence: Vec<String>,
    /// Hosts that must not.
    #[serde(default)]
    pub must_not_fence: Vec<String>,
    /// Hosts that must fence themselves.
    #[serde(default)]
    pub must_go_down: Vec<String>,
    /// No guest runs twice, whatever was found at the beginning.
    #[serde(default)]
    pub never_running_twice: Option<bool>,
    /// A guest starts again only after its host was confirmed off.
    #[serde(default)]
    pub fence_before_restart: bool,
    /// Guests that start only after a host was fenced.
    #[serde(default)]
    pub fence_before_start: Vec<FenceFirst>,
    /// Guests that have no reason to be touched.
    #[serde(default)]
    pub undisturbed: Vec<String>,
    /// Guests that must be moved.
    #[serde(default)]
    pub moves: Vec<Move>,
    /// Guests that must not be moved there.
    #[serde(default)]
    pub forbidden_moves: Vec<ForbiddenMove>,
    /// Guests in order.
    #[serde(default)]
    pub start_order: Vec<StartOrder>,
    /// How often a guest is started, and on how many hosts.
    #[serde(default)]
    pub start_attempts: Vec<StartAttempts>,
    /// When nothing may be done.
    #[serde(default)]
    pub quiet: Vec<Quiet>,
    /// For a question: the question.
    #[serde(default)]
    pub question: Option<Question>,
    /// For a question: its answer.
    #[serde(default)]
    pub answer: Option<Value>,
}

/// Where and how a guest may end.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct End {
    /// What the supervisor may report.
    #[serde(default)]
    pub state_any_of: Vec<String>,
    /// Where it may run; empty: nowhere.
    #[serde(default)]
    pub on_any_of: Vec<String>,
    /// Where it must run, all of them.
    #[serde(default)]
    pub on_all_of: Option<Vec<String>>,
    /// It may run nowhere.
    #[serde(default)]
    pub may_be_absent: bool,
}

/// Something that must hold of many guests together.
#[derive(Debug, Clone, Deserialize)]
pub struct Constraint {
    /// Which kind.
    pub kind: String,
    /// The guests.
    #[serde(default)]
    pub vms: Vec<String>,
    /// For `count-per-host`: at least and at most.
    #[serde(default)]
    pub hosts: BTreeMap<String, (usize, usize)>,
    /// For `running-count`.
    #[serde(default)]
    pub min: usize,
    /// For `running-count`.
    #[serde(default)]
    pub max: usize,
    /// For `balanced-memory`.
    #[serde(default)]
    pub max_ratio: f64,
    /// Missing it is reported, not failed.
    #[serde(default)]
    pub soft: bool,
}

/// Guests that start only after a host was fenced.
#[derive(Debug, Clone, Deserialize)]
pub struct FenceFirst {
    /// The host.
    pub host: String,
    /// The guests.
    pub vms: Vec<String>,
}

/// A guest that must be moved.
#[derive(Debug, Clone, Deserialize)]
pub struct Move {
    /// The guest.
    pub vm: String,
    /// From where, if that matters.
    #[serde(default)]
    pub from: Option<String>,
    /// Where to, if that matters.
    #[serde(default)]
    pub to: Option<String>,
    /// `live` or `cold`.
    pub how: String,
}

/// A guest that must not be moved to some hosts.
#[derive(Debug, Clone, Deserialize)]
pub struct ForbiddenMove {
    /// The guest.
    pub vm: String,
    /// The hosts.
    pub to: Vec<String>,
}

/// Guests in order.
#[derive(Debug, Clone, Deserialize)]
pub struct StartOrder {
    /// What starts first.
    pub first: String,
    /// What starts then.
    pub then: String,
}

/// How often a guest is started.
#[derive(Debug, Clone, Deserialize)]
pub struct StartAttempts {
    /// The guest.
    pub vm: String,
    /// How often.
    pub count: usize,
    /// On how many hosts.
    pub distinct_hosts: usize,
}

/// A time in which nothing may be done.
#[derive(Debug, Clone, Deserialize)]
pub struct Quiet {
    /// From this second.
    pub from: f64,
    /// Up to this one.
    pub to: f64,
}
