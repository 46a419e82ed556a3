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
    incident::Incident,
    journal::Journal,
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
}

impl Guest {
    /// A guest just declared.
    #[must_use]
    pub fn declared() -> Self {
        Self { phase: Phase::Unplaced, ladder: Ladder::default(), start_failures: BTreeMap::new() }
    }

    /// Every host that may run it.
    #[must_use]
    pub fn tenures(&self) -> Vec<&Tenure> {
        match &self.phase {
            Phase::Unplaced | Phase::Free { .. } => Vec::new(),
            Phase::Starting { tenure, .. } | Phase::Running { tenure, .. } | Phase::Releasing { tenure, .. } => {
                vec![tenure]
            }
            Phase::Migrating(migration) => migration.source.iter().chain(&migration.target).collect(),
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
        self.incidents.values().rev().find(|incident| incident.key == key && incident.is_open())
    }

    /// Whether this is the boot that the host has joined with.
    #[must_use]
    pub fn is_current(&self, host: &HostName, incarnation: &Incarnation) -> bool {
        self.hosts.get(host).is_some_and(|known| known.facts.incarnation == *incarnation)
    }

    /// Whether a sync of this boot may make it join. `seen` is the newest authority that the request says its sender has
    /// seen: a boot that comes after the known one has seen its join after one round trip, a late request of an earlier
    /// boot never has (R11).
    #[must_use]
    pub fn may_join(&self, host: &HostName, incarnation: &Incarnation, seen: Authority) -> bool {
        self.hosts.get(host).is_none_or(|known| {
            let later = (seen.generation, seen.index) >= (self.generation, known.joined);
            known.facts.incarnation == *incarnation || (later && !known.past.contains(incarnation))
        })
    }

    /// The attempt to switch this host off that has not been reported yet, whatever is known of the host meanwhile.
    #[must_use]
    pub fn fence_under_way(&self, host: &HostName) -> Option<OrderId> {
        let aims = |order: &&Order| matches!(&order.kind, OrderKind::Fence { target, .. } if target == host);
        self.orders.values().find(aims).map(|order| order.id)
    }

    /// Guests that this host may run.
    pub fn guests_of<'a>(&'a self, host: &'a HostName) -> impl Iterator<Item = (&'a GuestName, &'a Guest)> {
        self.guests.iter().filter(move |(_, guest)| guest.tenures().iter().any(|tenure| tenure.host == *host))
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
