//! What came of a command: whose agents have something new to fetch, or why nothing changed.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    feature_level::FeatureLevel,
    fit::Unfit,
    names::{GuestName, HostName, OrderId},
};

/// What came of applying a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Applied {
    /// Why nothing changed, if so.
    pub refused: Option<Refused>,
    /// Hosts whose agents have something new to fetch. Hints: work is derived from state (R4).
    pub nudge: BTreeSet<HostName>,
    /// Those among them that have an order, or wait for their lease. The others only have something to know.
    #[serde(default)]
    pub at_once: BTreeSet<HostName>,
}

/// Why a command changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refused {
    /// No such host.
    #[error("there is no host {host}")]
    NoHost {
        /// The name.
        host: HostName,
    },
    /// No such guest.
    #[error("there is no guest {guest}")]
    NoGuest {
        /// The name.
        guest: GuestName,
    },
    /// No such order; its result was committed already, or it was superseded.
    #[error("order {order} is not open")]
    NoOrder {
        /// The order.
        order: OrderId,
    },
    /// The guest is elsewhere in its life.
    #[error("{guest} is {is}, not {needed}")]
    Phase {
        /// The guest.
        guest: GuestName,
        /// Its phase.
        is: String,
        /// The phase that the command needs.
        needed: String,
    },
    /// The guest is not to be touched, or not in this way.
    #[error("{guest} cannot be changed: {why}")]
    Guest {
        /// The guest.
        guest: GuestName,
        /// Why not.
        why: String,
    },
    /// The guest may not go to the host.
    #[error("{guest} cannot go to {host}: {why}")]
    Target {
        /// The guest.
        guest: GuestName,
        /// The host.
        host: HostName,
        /// Why not.
        why: Unfit,
    },
    /// The host cannot take part.
    #[error("{host} {why}")]
    Host {
        /// The host.
        host: HostName,
        /// Why not.
        why: String,
    },
    /// Somebody else was faster.
    #[error("the policies have become version {is} since version {base} was read")]
    Version {
        /// The committed version.
        is: u64,
        /// The version that the command was based on.
        base: u64,
    },
    /// Not everybody knows such a command yet (R26).
    #[error("that needs feature level {needs}, and the cluster is at {is}")]
    Level {
        /// The level that it comes with.
        needs: FeatureLevel,
        /// The committed one.
        is: FeatureLevel,
    },
    /// It is so already.
    #[error("nothing to do: {why}")]
    Already {
        /// Why.
        why: String,
    },
}
