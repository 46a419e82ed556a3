//! The scenario file, as it is written: hosts, guests, rules and events in, expectations beside them (`format/expect.rs`).
//!
//! What a file may say and what it means is settled by its format's own page; these types only take it in. A key that
//! is not known here is kept under `more` and said aloud, because a knob that is overlooked judges the wrong thing.

mod expect;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::expect::{Constraint, End, Expect, FenceFirst, ForbiddenMove, Move, Quiet, StartAttempts, StartOrder};

/// Keys that are not known here.
pub type More = BTreeMap<String, Value>;

/// A whole file.
#[derive(Debug, Clone, Deserialize)]
pub struct Scenario {
    /// What it is called.
    pub name: String,
    /// How it is to be judged.
    pub mode: Kind,
    /// How much it says: `core` is what any sound supervisor comes to, whatever knobs it has.
    #[serde(default)]
    pub strength: Option<String>,
    /// What holds for all.
    #[serde(default)]
    pub cluster: Cluster,
    /// Machines.
    pub hosts: Vec<Host>,
    /// Guests.
    pub vms: Vec<Vm>,
    /// Rules between them.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// What happens.
    #[serde(default)]
    pub events: Vec<Event>,
    /// Seconds after the newest event until the outcome is taken.
    #[serde(default)]
    pub settle_seconds: Option<f64>,
    /// What must come of it.
    #[serde(default)]
    pub expect: Expect,
    /// What a supervisor must know to be judged.
    #[serde(default)]
    pub needs: Vec<String>,
}

/// How a scenario is to be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Events at given seconds.
    Timeline,
    /// A situation, and what one carried-out round of deciding makes of it.
    Snapshot,
    /// A question; nothing runs.
    Question,
}

/// What holds for the whole cluster.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Cluster {
    /// Whether the hosts that are up have a quorum, or how it is counted.
    #[serde(default)]
    pub quorum: Option<Value>,
    /// What happens without one.
    #[serde(default)]
    pub no_quorum_policy: Option<String>,
    /// Whether and how hosts are fenced.
    #[serde(default)]
    pub fencing: Option<Value>,
    /// How hosts are chosen; a description.
    #[serde(default)]
    pub placement: Option<Value>,
    /// What an announced shutdown does.
    #[serde(default)]
    pub shutdown_policy: Option<String>,
    /// Guests run on hosts that a rule names, and nowhere else.
    #[serde(default)]
    pub run_only_where_allowed: bool,
    /// Guests that are not marked for it are recovered as well.
    #[serde(default)]
    pub recover_unmarked_vms: bool,
    /// The rest.
    #[serde(flatten)]
    pub more: More,
}

/// One machine.
#[derive(Debug, Clone, Deserialize)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// How it is at the beginning.
    pub state: String,
    /// What it has; what is not named is not limited.
    #[serde(default)]
    pub capacity: BTreeMap<String, f64>,
    /// What is known of its health.
    #[serde(default)]
    pub health: Option<Value>,
    /// It is being fenced.
    #[serde(default)]
    pub fence_pending: bool,
    /// The rest.
    #[serde(flatten)]
    pub more: More,
}

/// One guest.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Vm {
    /// Its name.
    pub name: String,
    /// Where it is, or is kept.
    #[serde(default)]
    pub host: Option<String>,
    /// How it is.
    #[serde(default)]
    pub state: Option<String>,
    /// What is wanted of it.
    #[serde(default)]
    pub desired: Option<String>,
    /// Starts that are tried again on the same host.
    #[serde(default)]
    pub max_restart: Option<u32>,
    /// Hosts that are tried after the first.
    #[serde(default)]
    pub max_relocate: Option<u32>,
    /// It goes back to a better host.
    #[serde(default)]
    pub failback: Option<bool>,
    /// It moves while it runs.
    #[serde(default)]
    pub live_migratable: Option<bool>,
    /// More is more important.
    #[serde(default)]
    pub priority: Option<f64>,
    /// How much better another host must be.
    #[serde(default)]
    pub stickiness: Option<Value>,
    /// What it takes, by resource.
    #[serde(default)]
    pub demand: BTreeMap<String, f64>,
    /// Processors.
    #[serde(default)]
    pub cpu: Option<f64>,
    /// Memory.
    #[serde(default)]
    pub memory_mib: Option<f64>,
    /// Where it is kept or recorded, not running.
    #[serde(default)]
    pub recorded_host: Option<String>,
    /// Failures after which a host is out of the question.
    #[serde(default)]
    pub max_failures_per_host: Option<Value>,
    /// Failures so far, by host.
    #[serde(default)]
    pub failures: BTreeMap<String, Value>,
    /// What went wrong, and where.
    #[serde(default)]
    pub failed_ops: Vec<Op>,
    /// What is under way, and where.
    #[serde(default)]
    pub pending_ops: Vec<Op>,
    /// What a failure leads to, by operation.
    #[serde(default)]
    pub on_fail: BTreeMap<String, String>,
    /// Where it was found.
    #[serde(default)]
    pub active_on: Vec<String>,
    /// What is done where it was found on several hosts.
    #[serde(default, alias = "multiple-active", alias = "on_found_twice", alias = "found_twice")]
    pub multiple_active: Option<String>,
    /// Whether it is looked after.
    #[serde(default)]
    pub managed: Option<bool>,
    /// Whether it is marked for high availability.
    #[serde(default)]
    pub ha_enabled: Option<bool>,
    /// How it will misbehave.
    #[serde(default)]
    pub faults: Option<Value>,
    /// It is not stopped for a more important one before people have looked whether it has another place. Not part of the format.
    #[serde(skip)]
    pub moves_first: bool,
    /// The rest.
    #[serde(flatten)]
    pub more: More,
}

/// An operation on a guest.
#[derive(Debug, Clone, Deserialize)]
pub struct Op {
    /// Where.
    #[serde(default)]
    pub host: Option<String>,
    /// What: `start`, `stop`, `monitor`, `migrate-in`, …
    pub op: String,
    /// Where a move came from.
    #[serde(default)]
    pub from: Option<String>,
    /// Where it went.
    #[serde(default)]
    pub to: Option<String>,
    /// What came of it.
    #[serde(default)]
    pub result: Option<String>,
}

impl Op {
    /// Whether it went wrong; one that is listed among the failed has, unless it says otherwise.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        !matches!(self.result.as_deref(), Some("ok" | "success"))
    }
}

/// One rule.
#[derive(Debug, Clone, Deserialize)]
pub struct Rule {
    /// Which kind.
    pub kind: String,
    /// The guests that it is about.
    #[serde(default)]
    pub vms: Vec<String>,
    /// For `host-affinity`: the hosts.
    #[serde(default)]
    pub hosts: Vec<AffineHost>,
    /// For `host-score`: a score by host.
    #[serde(default)]
    pub scores: BTreeMap<String, Value>,
    /// Whether it must be so; most kinds must where nothing is said.
    #[serde(default)]
    pub required: Option<bool>,
    /// The one that gives way.
    #[serde(default)]
    pub dependent: Option<String>,
    /// How much it weighs where it is not required.
    #[serde(default, alias = "score")]
    pub weight: Option<Value>,
    /// For `order`: what comes first.
    #[serde(default)]
    pub first: Option<String>,
    /// For `order`: what comes then.
    #[serde(default)]
    pub then: Option<String>,
    /// For `order`: stopping goes the other way round.
    #[serde(default)]
    pub symmetrical: Option<bool>,
    /// The rest.
    #[serde(flatten)]
    pub more: More,
}

/// A host of a `host-affinity` rule: its name, or its name and weight.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum AffineHost {
    /// A name alone.
    Name(String),
    /// A name with how much it is liked.
    Weighed {
        /// The name.
        name: String,
        /// More is better.
        #[serde(default)]
        weight: f64,
    },
}

impl AffineHost {
    /// Name and weight.
    #[must_use]
    pub fn parts(&self) -> (&str, f64) {
        match self {
            Self::Name(name) => (name, 0.0),
            Self::Weighed { name, weight } => (name, *weight),
        }
    }
}

/// Something that happens.
#[derive(Debug, Clone, Deserialize)]
pub struct Event {
    /// At which second.
    #[serde(default)]
    pub at: f64,
    /// What.
    pub kind: String,
    /// To which host.
    #[serde(default)]
    pub host: Option<String>,
    /// To which guest.
    #[serde(default)]
    pub vm: Option<String>,
    /// Where to.
    #[serde(default)]
    pub to: Option<String>,
    /// `live` or `cold`.
    #[serde(default)]
    pub how: Option<String>,
    /// For `suspend-ha`: `freeze` or `ignore`.
    #[serde(default)]
    pub mode: Option<String>,
    /// For `vm-desired`.
    #[serde(default)]
    pub desired: Option<String>,
    /// For `vm-add`: it runs there already.
    #[serde(default)]
    pub already_running: bool,
    /// The rest.
    #[serde(flatten)]
    pub more: More,
}

/// A question.
#[derive(Debug, Clone, Deserialize)]
pub struct Question {
    /// Which kind.
    pub kind: String,
    /// How many hosts.
    #[serde(default)]
    pub n: Option<u32>,
    /// The rest.
    #[serde(flatten)]
    pub more: More,
}

/// What came of a scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Outcome {
    /// Which guests really run, by host.
    #[serde(default)]
    pub hosts: BTreeMap<String, Vec<String>>,
    /// Hosts that were fenced, or are known to have fenced themselves.
    #[serde(default)]
    pub fenced: Vec<String>,
    /// What the supervisor reports of each guest.
    #[serde(default)]
    pub vm_states: BTreeMap<String, String>,
    /// What was done, in order.
    #[serde(default)]
    pub history: Vec<Deed>,
    /// Plans that the checker beside the planner refused. Not part of the format.
    #[serde(skip)]
    pub refused: Vec<String>,
}

/// One thing that was done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Deed {
    /// At which second.
    pub at: f64,
    /// `start`, `stop`, `migrate`, `fence`, `power-off` or `vm-exit`.
    pub kind: String,
    /// Which guest.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub vm: Option<String>,
    /// On which host.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub host: Option<String>,
    /// For `migrate`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub from: Option<String>,
    /// For `migrate`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub to: Option<String>,
    /// For `start`: whether it succeeded.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ok: Option<bool>,
}
