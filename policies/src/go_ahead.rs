//! Go-aheads: whether what a fence order asks for is still wanted at this moment (S3, S6, R20).
//!
//! An order to switch a host off was decided on what was so then. It may be committed seconds later, when a quorum is
//! back, or be found by the next leader; and the host may be well again by that time. So the order stands until its
//! executor has reported, and whether it is to be begun is said anew with every reply:
//!
//! ```text
//!             the target is not heard, and that is not agreed            it has failed
//!   Waits <------------------------------------------------> Given <--------------------+
//!     \                                                       /                         |
//!      +--- heard again, or proven gone ---> Withdrawn <-----+    (silent again) -------+
//! ```
//! What is withdrawn is reported as ended by its executor, without an `off`; that closes the attempt.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    names::{HostName, OrderId},
    order::{Order, OrderKind, Switch},
};

/// What a coordinator says of one open fence order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum GoAhead {
    /// It is to be carried out.
    Given,
    /// It is not to be begun at this moment; what has begun goes on.
    #[default]
    Waits,
    /// It is not to be begun, and no further `off` is to be sent: the target is heard again, or is proven gone.
    Withdrawn,
}

/// What a round of deciding makes of the hosts that are to be switched off. Before the first round nothing is given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GoAheads(BTreeMap<HostName, GoAhead>);

impl GoAheads {
    /// Nothing is known of any host yet.
    #[must_use]
    pub const fn nothing() -> Self {
        Self(BTreeMap::new())
    }

    /// Notes what was found about a host.
    pub(crate) fn note(&mut self, host: &HostName, go_ahead: GoAhead) {
        self.0.insert(host.clone(), go_ahead);
    }

    /// What is said of a fence of this host.
    #[must_use]
    pub fn of(&self, host: &HostName) -> GoAhead {
        self.0.get(host).copied().unwrap_or_default()
    }

    /// What is said of these orders; only of fences.
    pub(crate) fn among<'a>(&self, orders: impl Iterator<Item = &'a Order>) -> BTreeMap<OrderId, GoAhead> {
        orders.filter_map(|order| Some((order.id, self.of(target(order)?)))).collect()
    }
}

/// Whom a fence order aims at. A drill, which aims at a host that is well, and what switches a host on again are no fences.
#[must_use]
pub fn target(order: &Order) -> Option<&HostName> {
    match &order.kind {
        OrderKind::Fence { target, switch: Switch::Off, .. } => Some(target),
        OrderKind::Fence { switch: Switch::OffAndOn | Switch::On, .. }
        | OrderKind::Start { .. }
        | OrderKind::Reboot { .. }
        | OrderKind::Receive { .. }
        | OrderKind::Release { .. }
        | OrderKind::RestartService { .. }
        | OrderKind::Send { .. }
        | OrderKind::Resume { .. } => None,
    }
}

/// The orders that are withdrawn.
#[must_use]
pub fn withdrawn(said: &BTreeMap<OrderId, GoAhead>) -> BTreeSet<OrderId> {
    said.iter().filter(|(_, said)| **said == GoAhead::Withdrawn).map(|(order, _)| *order).collect()
}
