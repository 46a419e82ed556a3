//! How everything is, as one value: what `holdfast status --json` and `/v1/status` show.

use std::collections::BTreeMap;

use holdfast_policies::{
    decide::{HostVerdict, Services, services::as_map},
    feature_level::FeatureLevel,
    incident::Stages,
    model::Severity,
    names::{GuestName, HostName, Incarnation},
    state::{Mode, Wanted},
};
use serde::{Deserialize, Serialize};

/// How everything is. Its JSON form is an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The cluster's id.
    pub cluster: String,
    /// When this was so.
    pub at: String,
    /// Who leads.
    pub leader: Option<HostName>,
    /// Whether a majority of the voters follows the leader; without it nothing is decided.
    pub quorum: bool,
    /// The newest term.
    pub term: u64,
    /// Hosts with a vote.
    pub voters: Vec<HostName>,
    /// Those of them that do not answer the leader as voters, as where their address has changed.
    #[serde(default)]
    pub mute_voters: Vec<HostName>,
    /// Number of the declaration in force; 0 before the first.
    pub policy_version: u64,
    /// Why fencing is held, if it is (S9).
    pub storm_hold: Option<String>,
    /// Who has suspended deciding, if somebody has.
    #[serde(default)]
    pub suspended_by: Option<String>,
    /// What may be committed (R26).
    #[serde(default)]
    pub feature_level: FeatureLevel,
    /// Hosts that keep it from being raised to what this version can do, and what they can; `null` for one that has not said
    /// so. Once it is raised, hosts of an older version that are heard nevertheless: they vote no more, and are to be upgraded.
    #[serde(default)]
    pub behind: BTreeMap<HostName, Option<FeatureLevel>>,
    /// Names whose certificates count no more.
    #[serde(default)]
    pub revoked: BTreeMap<HostName, RevokedStatus>,
    /// Hosts that have joined.
    pub hosts: BTreeMap<HostName, HostStatus>,
    /// Declared guests.
    pub guests: BTreeMap<GuestName, GuestStatus>,
    /// Open incidents, the most severe first, then the newest resolved ones.
    pub incidents: Vec<IncidentStatus>,
    /// Receivers that could not be told, and why.
    pub alert_troubles: Vec<String>,
}

/// A name whose certificates count no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedStatus {
    /// Who revoked it.
    pub by: String,
    /// Why.
    pub why: String,
    /// The serial number of the one that counts again, if any.
    pub readmitted: Option<String>,
}

/// How a host is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostStatus {
    /// What it amounts to.
    pub verdict: HostVerdict,
    /// Who heard it when.
    pub evidence: Vec<String>,
    /// Its boot.
    pub incarnation: Incarnation,
    /// What operators want of it.
    pub mode: Mode,
    /// What it is to be when it is back from the shutdown or reboot that it has announced, if not active.
    #[serde(default)]
    pub mode_on_return: Option<Mode>,
    /// Whether it votes.
    pub voter: bool,
    /// Whether it runs guests; a witness does not.
    pub runs_guests: bool,
    /// Its memory for guests.
    pub memory_mib: u64,
    /// Guests that it may run.
    pub guests: Vec<GuestName>,
    /// What has been decided about its boot.
    pub life: HostLife,
    /// Why we know that it is gone, when it is.
    pub proof: Option<String>,
    /// What is waited for.
    pub waits: Option<String>,
    /// From when on its guests cannot run any more by its lease, where they wait for that.
    #[serde(default)]
    pub safe_at: Option<SafeStatus>,
    /// Why it doubts itself, if it does.
    pub unwell: Option<String>,
    /// Why it stops its guests, or has, because it has lost its lease, if it said so.
    #[serde(default)]
    pub last_words: Option<String>,
    /// Why it is quarantined, if it is.
    #[serde(default)]
    pub quarantine: Option<String>,
    /// Levels of its fencing whose device is not trusted (R9); the first is 1.
    #[serde(default)]
    pub distrusted: Vec<usize>,
    /// Guests that wait for it to come back.
    #[serde(default)]
    pub kept: Vec<GuestName>,
    /// What is known of its power devices, by level; the first is 1.
    #[serde(default)]
    pub fencing: BTreeMap<usize, LevelStatus>,
    /// Who has it drilled, if somebody has.
    #[serde(default)]
    pub drilled_by: Option<String>,
}

/// What is known of one level of power devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LevelStatus {
    /// How long ago, in milliseconds, all of its devices last answered; `None` when they never did.
    pub proven_ago_ms: Option<u64>,
    /// Who or what has verified that they are the host's own; without it their word is no proof (R9).
    pub wiring: Option<String>,
    /// Who could not reach them last, and why.
    pub unreached: BTreeMap<HostName, String>,
}

/// From when on a host's guests cannot run any more by its lease (R9): the lease, the guard and the watchdog after the last
/// grant, and 5 % of all three together for clocks (R1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SafeStatus {
    /// When.
    pub at: String,
    /// How much longer, in milliseconds.
    pub left_ms: u64,
    /// When its last lease can have been granted.
    pub granted_at: String,
    /// The longest lease.
    pub lease_ms: u64,
    /// The longest time until its guard has stopped the guests, or has petted the watchdog for the last time.
    pub guard_ms: u64,
    /// The watchdog's time-out.
    pub watchdog_ms: u64,
}

/// What has been decided about a host's boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostLife {
    /// Nothing against it.
    Up,
    /// It is to be switched off.
    Fencing,
    /// Proven not to run anything any more.
    Gone,
}

/// How a guest is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestStatus {
    /// `unplaced`, `waiting`, `starting`, `running`, `stopping`, `migrating`, `stopped` or `failed`.
    pub state: String,
    /// What operators want of it.
    #[serde(default)]
    pub wanted: Wanted,
    /// The host that runs it, or may run it.
    pub host: Option<HostName>,
    /// Its assignment.
    pub epoch: Option<String>,
    /// Whether the probes have confirmed it since it started.
    pub verified: bool,
    /// What is done about it, or why nothing is.
    pub doing: String,
    /// What is waited for.
    pub waits: Option<String>,
    /// Its services.
    #[serde(serialize_with = "as_map")]
    pub services: Services,
    /// Why it is not started any more before a person has looked after it, if so.
    #[serde(default)]
    pub given_up: Option<String>,
    /// The host that it is on its way to.
    #[serde(default)]
    pub heading: Option<HostName>,
    /// Hosts that were ordered to stop what they had of it without a right.
    #[serde(default)]
    pub strays: Vec<HostName>,
}

/// One incident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentStatus {
    /// Unique number.
    pub id: u64,
    /// What it is about: `guest/web-1`, `host/hv-a`.
    pub key: String,
    /// Whether it still goes on.
    pub open: bool,
    /// How urgent it is.
    pub severity: Severity,
    /// What happened.
    pub summary: String,
    /// What a human must do; usually nothing.
    pub human: Option<String>,
    /// The rung taken last.
    pub rung: Option<String>,
    /// The proof that let a guest start elsewhere, as a sentence.
    pub proof: Option<String>,
    /// When it was opened.
    pub opened_at: String,
    /// When it ended.
    pub resolved_at: Option<String>,
    /// How long it went on, so far or altogether.
    pub lasted_ms: u64,
    /// How long each stage took.
    pub stages: Stages,
}
