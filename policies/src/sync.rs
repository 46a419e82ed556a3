//! Sync: the one RPC between an agent and the coordinator (R2, R3, R6), as values.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    armed::Armed,
    evidence::SightState,
    feature_level::FeatureLevel,
    go_ahead::GoAhead,
    model::{FenceLevel, Policies},
    names::{Epoch, GuestName, HostName, Incarnation, OrderId, ServiceName, Vantage},
    news::{News, ViewMark},
    observe::GuestReport,
    order::{Order, OrderKind, OrderOutcome},
    proof::{Power, PowerReading},
    revocation::{KeyId, Revocation},
    state::{ClusterState, HostFacts},
    time::{Moment, WallTime},
    timing::TimingTold,
};

/// What an agent tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncRequest {
    /// The agent's host; must be the one that its certificate names.
    pub host: HostName,
    /// What it says of itself.
    pub facts: HostFacts,
    /// Echoed in the reply, so that a lease is counted from when this very request was sent (R2).
    pub nonce: u64,
    /// The newest authority that it has seen.
    pub seen: Authority,
    /// Whether it knows its floors (R12).
    pub floors_known: bool,
    /// Every guest that it has, or had and has not released.
    pub reports: Vec<GuestReport>,
    /// What came of orders.
    pub results: Vec<OrderResult>,
    /// What it sees of services: all of it, or what has changed, as `sights_told` says.
    pub sights: Vec<SightReport>,
    /// Why it doubts itself, if it does.
    pub unwell: Option<String>,
    /// The index of the newest view that it has.
    pub known_view: u64,
    /// What its guard has armed (R9); `None` from a guard that arms nothing.
    #[serde(default)]
    pub armed: Option<Armed>,
    /// Whether its host file names a watchdog that its guard can arm; `None` from a supervisor that does not say.
    #[serde(default)]
    pub has_watchdog: Option<bool>,
    /// The highest feature level that its version can do (R26).
    #[serde(default)]
    pub level: FeatureLevel,
    /// The gossip keys that it holds, by their ids; none from a supervisor that does not say.
    #[serde(default)]
    pub gossip_keys: BTreeSet<KeyId>,
    /// `timing` of its host file; `None` from a supervisor that does not say.
    #[serde(default)]
    pub timing: Option<TimingTold>,
    /// When its certificate ends; `None` from a supervisor that does not say.
    #[serde(default)]
    pub certificate_ends: Option<WallTime>,
    /// Which changes `sights` holds; `None` from a supervisor that tells everything every time.
    #[serde(default)]
    pub sights_told: Option<SightsTold>,
    /// The view that it has, if it can be told what has changed since; `None` from a supervisor that wants it whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub has_view: Option<ViewMark>,
}

impl SyncRequest {
    /// What a host of this version says that has nothing to tell but what it is: it knows its floors, has no guests, no results
    /// and no doubts, and has armed nothing.
    #[must_use]
    pub fn of(host: HostName, facts: HostFacts) -> Self {
        Self {
            host,
            facts,
            nonce: 0,
            seen: Authority::default(),
            floors_known: true,
            reports: Vec::new(),
            results: Vec::new(),
            sights: Vec::new(),
            unwell: None,
            known_view: 0,
            armed: None,
            has_watchdog: None,
            level: FeatureLevel::HIGHEST,
            gossip_keys: BTreeSet::new(),
            timing: None,
            certificate_ends: None,
            sights_told: None,
            has_view: None,
        }
    }

    /// The order of this number, if it was given to the boot that sends this, by this generation (R25).
    #[must_use]
    pub fn order_given<'a>(&self, state: &'a ClusterState, order: OrderId) -> Option<&'a Order> {
        let to_it = |order: &&Order| order.host == self.host && order.incarnation == self.facts.incarnation;
        state.orders.get(&order).filter(to_it).filter(|_| state.is_known_by(self.seen))
    }

    /// A reading that came with what this says of an order, on a clock that shows `now`; `None` where nobody asked for it. Only the
    /// executor of an open fence order has a reading, and only of what that order names: the level, as it is declared there.
    #[must_use]
    pub fn reading_asked_for(
        &self,
        state: &ClusterState,
        order: OrderId,
        reading: &AgedReading,
        now: Moment,
    ) -> Option<PowerReading> {
        let order = self.order_given(state, order)?;
        match &order.kind {
            OrderKind::Fence { target, target_incarnation, level, device, .. }
                if *target == reading.host && *target_incarnation == reading.incarnation && *level == reading.level =>
            {
                Some(reading.on_clock(now, device, &self.host))
            }
            _ => None,
        }
    }
}

/// What came of one order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderResult {
    /// The order.
    pub order: OrderId,
    /// What came of it.
    pub outcome: OrderOutcome,
    /// For fence orders: the last power reading.
    pub reading: Option<AgedReading>,
}

/// A power reading that travels: its age instead of a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgedReading {
    /// The host that was asked about.
    pub host: HostName,
    /// The boot.
    pub incarnation: Incarnation,
    /// How long ago the question was sent, in milliseconds.
    pub asked_ago_ms: u64,
    /// The answer.
    pub power: Power,
    /// The devices.
    pub devices: Vec<String>,
    /// Which level.
    pub level: usize,
}

impl AgedReading {
    fn on_clock(&self, now: Moment, declared: &FenceLevel, asker: &HostName) -> PowerReading {
        PowerReading {
            incarnation: self.incarnation.clone(),
            asked: now.minus(Duration::from_millis(self.asked_ago_ms)),
            power: self.power.clone(),
            devices: self.devices.clone(),
            level: self.level,
            declared: declared.clone(),
            asker: Some(asker.clone()),
        }
    }
}

/// What one vantage makes of one service; ages instead of moments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SightReport {
    /// The guest.
    pub guest: GuestName,
    /// The service.
    pub service: ServiceName,
    /// From where.
    pub vantage: Vantage,
    /// Under which assignment.
    pub epoch: Epoch,
    /// What the last answers in a row amount to.
    pub state: SightState,
    /// How long ago it last asked, in milliseconds.
    pub age_ms: u64,
    /// How long ago it last passed, in milliseconds.
    pub passed_ago_ms: Option<u64>,
    /// Whether its answers come with a warning. Supervisors that do not know of warnings say nothing of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub warns: bool,
    /// The newest detail.
    pub detail: String,
}

/// How far what a supervisor sees is known, in its own count of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SightsMark {
    /// Which start of the supervisor counts: each has another number.
    pub start: u64,
    /// Up to which change.
    pub change: u64,
}

/// Which changes of what a supervisor sees are in one sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SightsTold {
    /// Which start of the supervisor counts.
    pub start: u64,
    /// Those after this one; 0 for all that it sees.
    pub after: u64,
    /// Up to this one.
    pub upto: u64,
}

impl SightsTold {
    /// How far it is known to whoever knew it up to `known`, and has taken this in. Where something between is missing, as to a
    /// new coordinator, it is known no further than before, and has to be told from there.
    #[must_use]
    pub fn taken_by(self, known: Option<SightsMark>) -> Option<SightsMark> {
        let known = known.filter(|known| known.start == self.start);
        let change = known.map_or(0, |known| known.change);
        if self.after > change {
            return known;
        }
        Some(SightsMark { start: self.start, change: change.max(self.upto) })
    }
}

/// Whose word it is: never to go back (R3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Default)]
pub struct Authority {
    /// The cluster generation.
    pub generation: u32,
    /// The leader's term.
    pub term: u64,
    /// The applied index.
    pub index: u64,
}

/// What the coordinator answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncReply {
    /// The request's nonce.
    pub nonce: u64,
    /// Whose word it is.
    pub authority: Authority,
    /// How long the lease lasts, in milliseconds from when the request was sent; `None`: no lease.
    pub lease_ms: Option<u64>,
    /// Why there is no lease.
    pub why_no_lease: Option<String>,
    /// The open orders for this boot of this host.
    pub orders: Vec<Order>,
    /// Which of them, among the fences, are still wanted; what is not named here is to be carried out.
    #[serde(default)]
    pub go_aheads: BTreeMap<OrderId, GoAhead>,
    /// Guests whose assignment has been replaced, up to which epoch: to be stopped (R10).
    pub superseded: Vec<(GuestName, Epoch)>,
    /// Floors for an agent that has lost its own (R12).
    pub floors: Option<BTreeMap<GuestName, Epoch>>,
    /// What the agent's prober needs to know, when it has changed, to whoever wants it whole.
    pub view: Option<View>,
    /// How far the coordinator knows what the agent's supervisor sees; it is to be told what has changed after that, and
    /// everything when this is `None`. It may be behind: what was just told need not be taken in yet.
    #[serde(default)]
    pub sights_known: Option<SightsMark>,
    /// What has changed of the view, to whoever says which one it has. It may come later than the change: the rest of the reply
    /// does not wait for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub news: Option<News>,
    /// Guests of the host of which a service begins to fail: it is to look whether their file systems are frozen. Nothing from a
    /// coordinator that does not say.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub in_doubt: BTreeSet<GuestName>,
}

/// What every agent knows of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct View {
    /// The index that it was made from.
    pub index: u64,
    /// Which view it is; `None` from a coordinator that does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<ViewMark>,
    /// What operators declared. It changes much more seldom than the rest, and one view has it from the one before.
    #[serde(serialize_with = "declared", deserialize_with = "shared")]
    pub policies: Arc<Policies>,
    /// Where each guest's services should answer.
    pub homes: BTreeMap<GuestName, (HostName, Epoch)>,
    /// Where supervisors listen.
    pub hosts: BTreeMap<HostName, SocketAddr>,
    /// Hosts whose certificates count no more (R27).
    #[serde(default)]
    pub revoked: BTreeMap<HostName, Revocation>,
}

fn declared<S: Serializer>(policies: &Policies, serializer: S) -> Result<S::Ok, S::Error> {
    policies.serialize(serializer)
}

fn shared<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<Policies>, D::Error> {
    Policies::deserialize(deserializer).map(Arc::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(start: u64, after: u64, upto: u64) -> SightsTold {
        SightsTold { start, after, upto }
    }

    fn mark(start: u64, change: u64) -> Option<SightsMark> {
        Some(SightsMark { start, change })
    }

    #[test]
    fn what_was_missed_between_is_never_taken_for_known() {
        for (known, told, expected) in [
            (None, told(1, 0, 7), mark(1, 7)),
            (mark(1, 7), told(1, 7, 9), mark(1, 9)),
            (mark(1, 9), told(1, 7, 8), mark(1, 9)),
            (mark(1, 9), told(1, 0, 9), mark(1, 9)),
            (mark(1, 7), told(1, 8, 9), mark(1, 7)),
            (None, told(1, 7, 9), None),
            (mark(1, 7), told(2, 7, 9), None),
            (mark(1, 7), told(2, 0, 3), mark(2, 3)),
        ] {
            assert_eq!(told.taken_by(known), expected, "{known:?} {told:?}");
        }
    }
}
