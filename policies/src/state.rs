//! The replicated state: what the cluster has decided and not yet finished.

mod guest;
mod host;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    feature_level::FeatureLevel,
    incident::Incident,
    journal::Journal,
    model::Policies,
    names::{GuestName, HostName, Incarnation, OrderId},
    order::{Order, OrderKind},
    proof::Proof,
    revocation::Revocation,
    sync::Authority,
};

pub use self::{
    guest::{Guest, Heading, Ladder, Migration, MigrationStep, Phase, Position, Tenure, Wanted},
    host::{
        FENCES_KEPT_MAX, Fence, Host, HostFacts, Life, Mode, PAST_BOOTS_MAX, POWER_ON_TRIES_MAX, PowerOn, Quarantine,
        QuarantineCause,
    },
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
    /// Hosts whose certificates count no more, but for those that were readmitted (R27); at most
    /// [`REVOKED_MAX`](crate::revocation::REVOKED_MAX).
    #[serde(default)]
    pub revoked: BTreeMap<HostName, Revocation>,
    /// What may be committed (R26).
    #[serde(default)]
    pub level: FeatureLevel,
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

    /// The log index at which the boot had joined that the next one of this host follows: where another has joined since, the
    /// change that lets it in is refused. `None` before all voters look at it, because an earlier version lets it in (R26).
    #[must_use]
    pub fn follows(&self, host: &HostName) -> Option<u64> {
        let known = self.hosts.get(host)?;
        (self.level >= FeatureLevel::ALIKE).then_some(known.joined)
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

    /// Guests that were found on this host without a right to run there, and of which it has not said that nothing is left.
    pub(crate) fn strays_of<'a>(&'a self, host: &'a HostName) -> impl Iterator<Item = &'a GuestName> {
        let asked = self
            .orders
            .values()
            .filter(move |order| order.host == *host && matches!(order.kind, OrderKind::Release { .. }));
        let guests = asked.filter_map(|order| order.kind.guest()).map(|(guest, _)| guest);
        guests.filter(move |guest| self.guests.get(*guest).is_some_and(|known| known.strays.contains_key(host)))
    }

    /// Whether anything waits for proof that this host runs nothing: a guest that it may run, or one that was found there.
    #[must_use]
    pub fn is_waited_for(&self, host: &HostName) -> bool {
        self.guests_of(host).next().is_some() || self.strays_of(host).next().is_some()
    }

    /// The incident key of a guest.
    #[must_use]
    pub fn guest_key(guest: &GuestName) -> String {
        format!("guest/{guest}")
    }

    /// The incident key of a host.
    #[must_use]
    pub(crate) fn host_key(host: &HostName) -> String {
        format!("host/{host}")
    }

    /// The incident key of what switches a host off, and of what that has proven.
    pub(crate) fn fencing_key(host: &HostName) -> String {
        format!("{}/{host}", Self::FENCING)
    }

    /// What such a key begins with.
    pub(crate) const FENCING: &'static str = "fencing";

    /// That a boot lives which is proven gone, as its incident says.
    pub(crate) fn heard_again(host: &HostName, proof: &Proof) -> String {
        format!("{host} is proven gone ({proof}), and the same boot is heard again")
    }

    /// Whether people have been told that the boot of a host lives although it is proven gone, and nobody has looked since.
    pub(crate) fn is_doubted(&self, host: &HostName) -> bool {
        let Some(Life::Gone { proof }) = self.hosts.get(host).map(|known| &known.life) else { return false };
        let told = self.open_incident(&Self::fencing_key(host));
        told.is_some_and(|open| open.summary == Self::heard_again(host, proof))
    }
}
