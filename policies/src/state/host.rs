//! Hosts: what each one has said of itself, what is wanted of it, and what is known of its boots.
//!
//! ```text
//!  joins        fence opened                     attempt ordered
//! ------> Up ------------------> Fencing, no ----------------------> Fencing, with
//!        ^ ^ |                     attempt   <----------------------    attempt
//!        | +-|--- heard again ----   |          ended without proof        |
//!        |   |                       |                                     |
//!        |   |                       | proof that names the boot           |
//!        |   |  proof by itself      v                                     |
//!        |   +-------------------> Gone <----------------------------------+
//!        |                           |
//!        +---------------------------+  a new boot joins, once no attempt is left (R20);
//!                                       or this one is back, and rid of what it may not run (R10)
//! ```
//! Beside its [`Life`] a host has a [`Mode`], which is what operators want of it and outlasts boots, and it may be quarantined:
//!
//! ```text
//! Active <---> Draining, Maintenance          an operator's word; refused to whoever is fenced or gone
//! any of them ---> Leaving ---> the same      announced; until the next boot joins
//! none ---> contested ---> none               two machines or boots under the name; until a person has settled it (R11)
//! none ---> fenced often ---> none            until it was calm for an hour, or a person's word
//! ```
//! The state is here. Each arrow is applied in one place: `apply/hosts.rs` `host_joined`, `host_gone`, `mode_set`; `apply/fences.rs`
//! `fence_opened`, `fence_attempted`, `fence_ended`, `fence_superseded`; `apply/leases.rs` `host_returned`; `apply/quarantine.rs`. It is
//! decided in `decide/fences.rs`, whose match is over life and verdict; `decide/hosts.rs` has the verdicts, `decide/proofs.rs` and
//! `decide/leases.rs` the proofs, `decide/restraint.rs` what the mode holds back, and `decide/quarantine.rs` what time does to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use serde::{Deserialize, Serialize};

use crate::{
    fence_path::{Drill, PathTest, Wired},
    incident::says_the_same,
    names::{GuestName, Incarnation, OrderId},
    proof::Proof,
};

/// What a host says of itself when it joins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// Its boot.
    pub incarnation: Incarnation,
    /// The machine: changes only when somebody gives the name to another machine (R11).
    pub machine_id: String,
    /// Where its supervisor listens.
    pub address: SocketAddr,
    /// Memory for guests, in MiB.
    pub memory_mib: u64,
    /// Processor cores.
    pub cores: u32,
    /// Whether it runs guests.
    pub guests: bool,
}

/// One host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// What it said of itself.
    pub facts: HostFacts,
    /// What operators want of it.
    pub mode: Mode,
    /// What has been decided about its boot.
    pub life: Life,
    /// Its newest earlier boots: they are over, and none of them joins again (R10, R11).
    #[serde(default)]
    pub past: Vec<Incarnation>,
    /// The log index at which this boot joined.
    #[serde(default)]
    pub joined: u64,
    /// What operators wanted of it before it announced to go: that outlasts its absence.
    #[serde(default)]
    pub mode_on_return: Mode,
    /// The log index at which its mode was set; 0 when it never was.
    #[serde(default)]
    pub mode_since: u64,
    /// The log index at which what has been decided about its boot changed last.
    #[serde(default)]
    pub life_since: u64,
    /// Why it gets no guests for the time being, whatever else is well with it.
    #[serde(default)]
    pub quarantine: Option<Quarantine>,
    /// The log indexes of its newest fences that came to an attempt, oldest first, for as long as they count towards budgets and
    /// a quarantine.
    #[serde(default)]
    pub fences: Vec<u64>,
    /// Levels of its fencing whose device has called it off while it lived (R9): what they say proves nothing, and they
    /// are not asked to switch anything off, which may be another machine.
    #[serde(default)]
    pub distrusted: BTreeSet<usize>,
    /// The log index at which somebody trusted them again, by a word or a new declaration; 0 when nobody has.
    #[serde(default)]
    pub trusted: u64,
    /// The log index at which its fencing was declared as it is; 0 when that was before it joined. It says only when people are
    /// told of what nobody has tried or verified, so it does not matter that older versions do not write it.
    #[serde(default)]
    pub fencing_since: u64,
    /// What is known of the ways to switch it off, by level and by who asked.
    #[serde(default)]
    pub paths: Vec<PathTest>,
    /// Power devices that are known to be its own without a person's word (R9).
    #[serde(default)]
    pub wired: Vec<Wired>,
    /// Tries to switch it on again since it was fenced.
    #[serde(default)]
    pub powered_on: Option<PowerOn>,
    /// A drill of its fencing that is under way.
    #[serde(default)]
    pub drill: Option<Drill>,
    /// Guests that it has released for its announced departure, and that wait for it to come back.
    #[serde(default)]
    pub kept: BTreeSet<GuestName>,
    /// What is committed about its lease, where that is a level of its fencing (R9).
    #[serde(default)]
    pub lease: crate::lease::HostLease,
}

/// Tries to switch a fenced host on again; then a person looks after it.
pub const POWER_ON_TRIES_MAX: u32 = 3;

/// Tries to switch a fenced host on again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerOn {
    /// The order that is being carried out, if any.
    pub order: Option<OrderId>,
    /// Tries made.
    pub tries: u32,
    /// The log index of the newest.
    pub since: u64,
}

/// Fences remembered per host: more than any sensible limit per hour.
pub const FENCES_KEPT_MAX: usize = 64;

/// A host gets no guests until somebody, or a calm time, says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// Why.
    pub cause: QuarantineCause,
    /// The log index that began it.
    pub since: u64,
}

/// Why a host is quarantined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuarantineCause {
    /// Another machine came under its name (R11).
    OtherMachine {
        /// Which machine it says it is.
        claims: String,
    },
    /// A boot that was over is alive beside the one that came after it (R11).
    TwoBoots {
        /// The boot that should be over.
        other: Incarnation,
    },
    /// It was fenced too often.
    FencedOften {
        /// How often within the hour.
        times: u32,
    },
}

impl Quarantine {
    /// Whether nobody knows which machine the name means, so that nothing said about it proves anything (R11).
    #[must_use]
    pub fn is_contested(&self) -> bool {
        match self.cause {
            QuarantineCause::OtherMachine { .. } | QuarantineCause::TwoBoots { .. } => true,
            QuarantineCause::FencedOften { .. } => false,
        }
    }
}

impl std::fmt::Display for Quarantine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.cause {
            QuarantineCause::OtherMachine { claims } => write!(f, "machine {claims} has come under its name"),
            QuarantineCause::TwoBoots { other } => write!(f, "a second boot, {other}, is alive under its name"),
            QuarantineCause::FencedOften { times } => write!(f, "it was fenced {times} times within an hour"),
        }
    }
}

impl Host {
    /// A host that has just joined, as of this log index, and of which nothing else is known.
    #[must_use]
    pub fn joined(facts: HostFacts, index: u64) -> Self {
        Self {
            facts,
            mode: Mode::default(),
            life: Life::Up,
            past: Vec::new(),
            joined: index,
            mode_on_return: Mode::default(),
            mode_since: 0,
            life_since: index,
            quarantine: None,
            fences: Vec::new(),
            distrusted: BTreeSet::new(),
            trusted: 0,
            fencing_since: 0,
            paths: Vec::new(),
            wired: Vec::new(),
            powered_on: None,
            drill: None,
            kept: BTreeSet::new(),
            lease: crate::lease::HostLease::default(),
        }
    }

    /// Whether nobody knows which machine the name means (R11).
    #[must_use]
    pub fn is_contested(&self) -> bool {
        self.quarantine.as_ref().is_some_and(Quarantine::is_contested)
    }

    /// Whether hands are kept off it: an announcement to go does not end its maintenance.
    #[must_use]
    pub fn in_maintenance(&self) -> bool {
        match self.mode {
            Mode::Maintenance => true,
            Mode::Leaving { .. } => self.mode_on_return == Mode::Maintenance,
            Mode::Active | Mode::Draining => false,
        }
    }

    /// Whether this boot has joined, now or at an earlier time.
    #[must_use]
    pub fn knows_boot(&self, incarnation: &Incarnation) -> bool {
        self.facts.incarnation == *incarnation || self.past.contains(incarnation)
    }
}

/// Earlier boots remembered per host. A sync that is older than so many boots does not come in any more.
pub const PAST_BOOTS_MAX: usize = 16;

/// What operators want of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It runs guests.
    #[default]
    Active,
    /// Its guests move away, and it gets no new ones.
    Draining,
    /// Hands off: its guests are left as they are, whatever happens to them, it gets no new ones, and it is not fenced.
    Maintenance,
    /// It has said that it is about to go: it gets no new guests, and its silence is no failure.
    Leaving {
        /// It means to come back.
        reboot: bool,
    },
}

impl Mode {
    /// The word for it, as in status, journal and metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Maintenance => "maintenance",
            Self::Leaving { reboot: true } => "rebooting",
            Self::Leaving { reboot: false } => "shutting_down",
        }
    }
}

/// What has been decided about a host's boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Life {
    /// Nothing against it.
    Up,
    /// It is to be switched off; until proof or supersession it gets no lease and no start (R20).
    Fencing(Fence),
    /// Proven not to run anything any more.
    Gone {
        /// Why we know.
        proof: Proof,
    },
}

/// An open fence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// The log index that opened it.
    pub opened: u64,
    /// The evidence that it rests on.
    pub evidence: Vec<String>,
    /// The order that is being carried out, if any.
    pub attempt: Option<OrderId>,
    /// Attempts made.
    pub attempts: u32,
    /// The level to try next.
    pub next_level: usize,
    /// The log index at which the newest attempt ended without proof.
    pub failed: Option<u64>,
    /// Why the newest attempt failed.
    pub last_error: Option<String>,
    /// Why each level that has been tried failed, by its position: each reason once, oldest first.
    #[serde(default)]
    pub errors: BTreeMap<usize, Vec<String>>,
    /// From when on its guests cannot run any more by its lease, in words for people, where somebody could say it.
    #[serde(default)]
    pub safe_at: Option<String>,
    /// The operator who lets it go on although a budget has no room for it.
    #[serde(default)]
    pub allowed: Option<String>,
}

/// Levels whose errors are remembered: as many as a host may have.
const ERRORS_MAX: usize = 8;

/// Errors that are remembered of a level: hosts that take turns may each fail in a way of their own.
const ERRORS_OF_LEVEL_MAX: usize = 3;

impl Fence {
    /// Remembers why a level failed, unless that is known: an error that differs from a known one only in its numbers, which
    /// are times and counts, says the same. None takes the place of another, or hosts that fail in turn, each in a way of its
    /// own, would be news again and again.
    pub(crate) fn note_error(&mut self, level: usize, error: &str) {
        if !self.errors.contains_key(&level) && self.errors.len() >= ERRORS_MAX {
            return;
        }
        let known = self.errors.entry(level).or_default();
        if known.len() < ERRORS_OF_LEVEL_MAX && !known.iter().any(|known| says_the_same(known, error)) {
            known.push(error.to_owned());
        }
    }

    /// Why the levels that have been tried failed, in one line.
    pub(crate) fn errors_said(&self) -> String {
        let mut errors = self.errors.iter().map(|(level, errors)| (level + 1, errors.join("; also: ")));
        match (errors.next(), errors.next()) {
            (Some((_, only)), None) => only,
            (first, second) => {
                let all = first.into_iter().chain(second).chain(errors);
                all.map(|(level, said)| format!("level {level}: {said}")).collect::<Vec<_>>().join("; ")
            }
        }
    }
}
