//! The replicated state: what the cluster has decided and not yet finished.
//!
//! Guests:
//! ```text
//!             not-here proof / adoption            place               start done
//!  Unplaced ---------------------------> Free ------------> Starting ------------> Running
//!                                         ^                    | start failed        |  ^ \  migrate
//!                                         |  released          v                     |  |  v
//!                                         +--------------- Releasing <---------------+  Migrating
//!                                         +--- host proven gone (from any of them) ---------+
//! ```
//! Hosts: `Up -> Fencing -> Gone -> Up` (a new boot), or `Up -> Gone` when the power device says off by itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use serde::{Deserialize, Serialize};

use crate::{
    fence_path::{Drill, PathTest, Wired},
    incident::Incident,
    journal::Journal,
    ladder::LadderKind,
    model::Policies,
    names::{Epoch, GuestName, HostName, Incarnation, OrderId},
    order::{Order, OrderKind},
    proof::Proof,
    sync::Authority,
};

/// Everything that the voters agree on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct ClusterState {
    /// The cluster generation (R25); 1 from birth.
    pub generation: u32,
    /// The newest log index that changed this state.
    pub applied: u64,
    /// What operators declared.
    pub policies: Policies,
    /// The files that it was read from, for the diff of the next apply.
    pub sources: BTreeMap<String, String>,
    /// Number of the declaration; 0 before the first.
    pub policy_version: u64,
    /// Hosts that have joined.
    pub hosts: BTreeMap<HostName, Host>,
    /// Declared guests.
    pub guests: BTreeMap<GuestName, Guest>,
    /// Orders without a committed result.
    pub orders: BTreeMap<OrderId, Order>,
    /// Number of the newest order.
    pub last_order: u64,
    /// Incidents, open ones and the newest resolved ones.
    pub incidents: BTreeMap<u64, Incident>,
    /// Number of the newest incident.
    pub last_incident: u64,
    /// What was decided, and why.
    pub journal: Journal,
    /// The newest index that changed what agents need to know of (guests' places, hosts, policies).
    pub view_changed: u64,
    /// Nothing is decided while this is set, except what was under way before.
    #[serde(default)]
    pub suspended: Option<Suspension>,
    /// An operator has said that fencing goes on in the present storm (R21).
    #[serde(default)]
    pub storm_release: Option<StormRelease>,
}

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
    /// The log index at which its mode was set; 0 when it never was.
    #[serde(default)]
    pub mode_since: u64,
    /// The log index at which what has been decided about its boot changed last.
    #[serde(default)]
    pub life_since: u64,
    /// Why it gets no guests for the time being, whatever else is well with it.
    #[serde(default)]
    pub quarantine: Option<Quarantine>,
    /// The log indexes of its newest fences that came to an attempt, for as long as they count towards a quarantine.
    #[serde(default)]
    pub fences: Vec<u64>,
    /// Levels of its fencing whose device has called it off while it lived (R9): what they say proves nothing, and they
    /// are not asked to switch anything off, which may be another machine.
    #[serde(default)]
    pub distrusted: BTreeSet<usize>,
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
            QuarantineCause::TwoBoots { other } => write!(f, "its boot {other}, which should be over, is alive"),
            QuarantineCause::FencedOften { times } => write!(f, "it was fenced {times} times within an hour"),
        }
    }
}

impl Host {
    /// Whether nobody knows which machine the name means (R11).
    #[must_use]
    pub fn is_contested(&self) -> bool {
        self.quarantine.as_ref().is_some_and(Quarantine::is_contested)
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

/// What operators want of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// It runs and answers.
    #[default]
    Running,
    /// It does not run.
    Stopped,
    /// It is left alone, however it is.
    Unmanaged,
}

impl Wanted {
    /// The word for it, as in status, journal and metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Unmanaged => "unmanaged",
        }
    }
}

/// Deciding has been suspended by an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspension {
    /// Who.
    pub by: String,
    /// The log index that began it. What was under way then is finished first.
    pub since: u64,
    /// Guests that were being brought back or moved then, and do not run yet.
    #[serde(default)]
    pub under_way: BTreeSet<GuestName>,
}

/// Fencing goes on although many hosts are silent at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StormRelease {
    /// Who said so.
    pub by: String,
    /// The log index of the word.
    pub since: u64,
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
}

/// One guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// Where it is in its life.
    pub phase: Phase,
    /// How far its ladder has been climbed.
    pub ladder: Ladder,
    /// Starts that failed since it last ran, by host.
    pub start_failures: BTreeMap<HostName, u32>,
    /// What operators want of it.
    #[serde(default)]
    pub wanted: Wanted,
    /// Where it is going, from the commit of a move until it runs or the move has failed.
    #[serde(default)]
    pub heading: Option<Heading>,
    /// The host that an operator has moved it to, while it runs there: only a required rule or a drain moves it away.
    #[serde(default)]
    pub settled: Option<HostName>,
    /// Why it is not started any more before a person has looked after it, if so.
    #[serde(default)]
    pub given_up: Option<String>,
    /// Hosts that were ordered to stop what they had of it without a right, with the log index of the newest such order.
    #[serde(default)]
    pub strays: BTreeMap<HostName, u64>,
}

/// Where a guest is going.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heading {
    /// The host.
    pub to: HostName,
    /// The operator who asked for it; `None` when it was decided here.
    pub by: Option<String>,
}

/// A host's right to run a guest, from the commit of its start until proof (R8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenure {
    /// The host.
    pub host: HostName,
    /// Its boot.
    pub incarnation: Incarnation,
    /// The assignment.
    pub epoch: Epoch,
}

/// Where a guest is in its life. Each variant owns what is true in it, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Declared, and never placed by this cluster.
    Unplaced,
    /// Proven to run nowhere.
    Free {
        /// Why we know.
        proof: Proof,
        /// Where it ran last.
        last: Option<HostName>,
        /// Hosts that it should not start on, if there are others.
        avoid: BTreeSet<HostName>,
        /// The log index of the proof.
        since: u64,
    },
    /// Ordered to start; it may run.
    Starting {
        /// Whose right it is.
        tenure: Tenure,
        /// The order.
        order: OrderId,
    },
    /// Reported to run.
    Running {
        /// Whose right it is.
        tenure: Tenure,
        /// The log index of the report.
        since: u64,
        /// The probes have confirmed it since then.
        verified: bool,
        /// A service restart that is being carried out.
        action: Option<OrderId>,
    },
    /// Ordered to stop; it may run until the report.
    Releasing {
        /// Whose right it was.
        tenure: Tenure,
        /// The order; `None` when a new boot of the host has to be asked instead, or the last attempt failed.
        order: Option<OrderId>,
        /// Hosts that it should not start on next.
        avoid: BTreeSet<HostName>,
        /// The log index of the newest failed attempt, and why it failed.
        failed: Option<(u64, String)>,
    },
    /// Moving while it runs; both may run it.
    Migrating(Migration),
}

/// A live migration. A half that is proven not to run is `None`; when both are, the guest is free.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migration {
    /// Where it ran.
    pub source: Option<Tenure>,
    /// Where it goes.
    pub target: Option<Tenure>,
    /// How far it has come.
    pub step: MigrationStep,
    /// Why the move failed, once it has.
    pub failure: Option<String>,
    /// The log index of the newest release of a half that failed.
    #[serde(default)]
    pub release_failed: Option<u64>,
}

/// How far a migration has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MigrationStep {
    /// The target is to start a paused QEMU.
    Receiving {
        /// The order to the target.
        order: OrderId,
    },
    /// The source is to send. Only the source may resume.
    Sending {
        /// The order to the source.
        order: OrderId,
    },
    /// Committed: only the target may resume; the source's remains are to be removed.
    Switched {
        /// The order to the target; `None` once it runs.
        resume: Option<OrderId>,
        /// The order to the source; `None` once it is released.
        release: Option<OrderId>,
    },
    /// Given up before the switch: the source is to resume, the target's remains are to be removed.
    Returning {
        /// The order to the source; `None` once it runs.
        resume: Option<OrderId>,
        /// The order to the target; `None` once it is released.
        release: Option<OrderId>,
    },
    /// Given up for good: whatever is left of both halves is to be removed, then the guest is free.
    Clearing {
        /// The order to the source; `None` when there is none.
        source: Option<OrderId>,
        /// The order to the target; `None` when there is none.
        target: Option<OrderId>,
    },
}

/// How far a guest's ladder has been climbed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Ladder {
    /// Position of the rung taken last and tries on it; `None` when nothing was tried since the last calm.
    pub position: Option<Position>,
}

/// A place on a ladder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Position {
    /// Index of the rung.
    pub rung: usize,
    /// Tries made on it.
    pub tries: u32,
    /// The log index of the newest try, or of the newest recovery after it.
    pub acted: u64,
    /// The guest has recovered since the newest try.
    pub recovered: bool,
    /// The newest try could not be carried out, so there is nothing to wait for.
    pub failed: bool,
    /// Which ladder.
    #[serde(default)]
    pub ladder: LadderKind,
}

impl Guest {
    /// A guest just declared.
    #[must_use]
    pub fn declared() -> Self {
        Self {
            phase: Phase::Unplaced,
            ladder: Ladder::default(),
            start_failures: BTreeMap::new(),
            wanted: Wanted::default(),
            heading: None,
            settled: None,
            given_up: None,
            strays: BTreeMap::new(),
        }
    }

    /// Every host that may run it.
    #[must_use]
    pub fn tenures(&self) -> Vec<&Tenure> {
        self.halves().into_iter().flatten().collect()
    }

    /// The same, without an allocation: of ten thousand guests many are asked for it in every round.
    #[must_use]
    pub fn halves(&self) -> [Option<&Tenure>; 2] {
        match &self.phase {
            Phase::Unplaced | Phase::Free { .. } => [None, None],
            Phase::Starting { tenure, .. } | Phase::Running { tenure, .. } | Phase::Releasing { tenure, .. } => {
                [Some(tenure), None]
            }
            Phase::Migrating(migration) => [migration.source.as_ref(), migration.target.as_ref()],
        }
    }

    /// Where its services should answer: the host that runs it, as far as is committed.
    #[must_use]
    pub fn home(&self) -> Option<&Tenure> {
        match &self.phase {
            Phase::Running { tenure, .. } => Some(tenure),
            Phase::Migrating(migration) => match &migration.step {
                MigrationStep::Switched { .. } => migration.target.as_ref(),
                MigrationStep::Receiving { .. } | MigrationStep::Sending { .. } | MigrationStep::Returning { .. } => {
                    migration.source.as_ref()
                }
                MigrationStep::Clearing { .. } => None,
            },
            Phase::Unplaced | Phase::Free { .. } | Phase::Starting { .. } | Phase::Releasing { .. } => None,
        }
    }

    /// Whether something is under way whose end has to be known before the guest may be forgotten.
    #[must_use]
    pub fn is_between(&self) -> bool {
        matches!(self.phase, Phase::Starting { .. } | Phase::Releasing { .. } | Phase::Migrating(_))
    }

    /// The word for its phase, as in status, API and metrics.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match &self.phase {
            Phase::Unplaced => "unplaced",
            Phase::Free { .. } if self.wanted == Wanted::Stopped => "stopped",
            Phase::Free { .. } if self.given_up.is_some() => "failed",
            Phase::Free { .. } => "waiting",
            Phase::Starting { .. } => "starting",
            Phase::Running { .. } => "running",
            Phase::Releasing { .. } => "stopping",
            Phase::Migrating(_) => "migrating",
        }
    }
}

impl ClusterState {
    /// The state at birth.
    #[must_use]
    pub fn born() -> Self {
        Self { generation: 1, ..Self::default() }
    }

    /// The open incident with this key, if any.
    #[must_use]
    pub fn open_incident(&self, key: &str) -> Option<&Incident> {
        self.incidents.values().rev().find(|incident| incident.is_open() && incident.key == key)
    }

    /// Whether this is the boot that the host has joined with.
    #[must_use]
    pub fn is_current(&self, host: &HostName, incarnation: &Incarnation) -> bool {
        self.hosts.get(host).is_some_and(|known| known.facts.incarnation == *incarnation)
    }

    /// Whether a sync of this boot may make it join. `seen` is the newest authority that the request says its sender has
    /// seen: a boot that comes after the known one has seen its join after one round trip, a late request of an earlier
    /// boot never has. An earlier boot that has seen it is alive beside the known one: its join is what quarantines the
    /// name. A name that is contested already takes nobody in (R11).
    #[must_use]
    pub fn may_join(&self, host: &HostName, incarnation: &Incarnation, seen: Authority) -> bool {
        self.hosts.get(host).is_none_or(|known| {
            let later = (seen.generation, seen.index) >= (self.generation, known.joined);
            !known.is_contested() && (known.facts.incarnation == *incarnation || later)
        })
    }

    /// Whether what this machine and boot says is the word of the host that has joined, and not of another under its name.
    #[must_use]
    pub fn speaks_for(&self, host: &HostName, facts: &HostFacts) -> bool {
        self.hosts.get(host).is_some_and(|known| {
            known.facts.incarnation == facts.incarnation && known.facts.machine_id == facts.machine_id
        })
    }

    /// The attempt to switch this host off that may still do so, whatever is known of the host or of the executor meanwhile
    /// (R20).
    #[must_use]
    pub fn fence_under_way(&self, host: &HostName) -> Option<OrderId> {
        let aims = |order: &&Order| matches!(&order.kind, OrderKind::Fence { target, switch, .. } if target == host && switch.switches_off());
        self.orders.values().find(aims).map(|order| order.id)
    }

    /// Guests that this host may run.
    pub fn guests_of<'a>(&'a self, host: &'a HostName) -> impl Iterator<Item = (&'a GuestName, &'a Guest)> {
        self.guests.iter().filter(move |(_, guest)| guest.halves().into_iter().flatten().any(|half| half.host == *host))
    }

    /// The incident key of a guest.
    #[must_use]
    pub fn guest_key(guest: &GuestName) -> String {
        format!("guest/{guest}")
    }

    /// The incident key of a host.
    #[must_use]
    pub fn host_key(host: &HostName) -> String {
        format!("host/{host}")
    }
}
