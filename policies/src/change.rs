//! Commands: the entries of the replicated log.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    model::{Policies, Severity},
    names::{GuestName, HostName, Incarnation, OrderId},
    order::OrderOutcome,
    proof::Proof,
    state::{HostFacts, Mode, Tenure},
    time::WallTime,
};

/// One entry of the log: what is to change, and when the proposer said so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The proposer's wall clock; for people.
    pub at: WallTime,
    /// What.
    pub what: Change,
}

/// What is to change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A host is there, for the first time or with a new boot.
    HostJoined {
        /// The host.
        host: HostName,
        /// What it says of itself.
        facts: HostFacts,
    },
    /// A quorum says that the host has failed: it is to be switched off (S3).
    FenceOpened {
        /// The host.
        host: HostName,
        /// The boot that failed.
        incarnation: Incarnation,
        /// Who heard it when.
        evidence: Vec<String>,
        /// When it was last heard.
        last_well: Option<WallTime>,
    },
    /// One device is to be asked to switch it off.
    FenceAttempted {
        /// The host.
        host: HostName,
        /// Who asks the device.
        executor: HostName,
        /// Which level.
        level: usize,
    },
    /// The fence is not needed: the host is well, and nothing is on its way to its power device.
    FenceSuperseded {
        /// The host.
        host: HostName,
        /// Why.
        why: String,
    },
    /// The boot of a host is proven gone, and so is every guest's right to run there.
    HostGone {
        /// Why we know.
        proof: Proof,
        /// When the host was last heard.
        last_well: Option<WallTime>,
    },
    /// A guest that was never placed is proven to run nowhere.
    GuestFree {
        /// The guest.
        guest: GuestName,
        /// Why we know.
        proof: Proof,
    },
    /// A declared guest was found running on exactly one host.
    GuestAdopted {
        /// The guest.
        guest: GuestName,
        /// Where.
        tenure: Tenure,
    },
    /// A free guest is to start.
    Place {
        /// The guest.
        guest: GuestName,
        /// Where.
        host: HostName,
        /// Why there.
        why: String,
    },
    /// The next step of a guest's ladder.
    Climb {
        /// The guest.
        guest: GuestName,
        /// Index of the rung.
        rung: usize,
        /// For `migrate`: where to.
        to: Option<HostName>,
        /// What happened.
        why: String,
        /// Who saw it.
        evidence: Vec<String>,
        /// When it was last well.
        last_well: Option<WallTime>,
    },
    /// A running guest is to move.
    Migrate {
        /// The guest.
        guest: GuestName,
        /// Where to.
        to: HostName,
        /// Why.
        why: String,
    },
    /// A guest that is being stopped has to be asked for again: the last order failed or was lost.
    ReleaseAgain {
        /// The guest.
        guest: GuestName,
    },
    /// The probes confirm that every service of the guest answers.
    Verified {
        /// The guest.
        guest: GuestName,
    },
    /// The guest has been well for its cool-down: its ladder begins again at the first rung.
    LadderReset {
        /// The guest.
        guest: GuestName,
    },
    /// An agent has reported what came of an order.
    OrderEnded {
        /// The order.
        order: OrderId,
        /// What came of it.
        outcome: OrderOutcome,
    },
    /// Something is to be told to people.
    IncidentOpened {
        /// What it is about.
        key: String,
        /// How urgent.
        severity: Severity,
        /// What happened.
        summary: String,
        /// What a human must do.
        human: Option<String>,
        /// Guests that it concerns.
        guests: Vec<GuestName>,
    },
    /// It is over.
    IncidentResolved {
        /// What it was about.
        key: String,
    },
    /// A receiver has confirmed an incident up to a change.
    Delivered {
        /// The incident.
        incident: u64,
        /// The receiver's key.
        receiver: String,
        /// Up to which change.
        seq: u64,
    },
    /// An operator has declared new policies.
    PoliciesApplied {
        /// The whole declaration.
        policies: Box<Policies>,
        /// The files it was read from.
        sources: BTreeMap<String, String>,
        /// The version that it was compared with; another one in between refuses it.
        base_version: u64,
        /// Who.
        by: String,
    },
    /// An operator has set a host's mode.
    ModeSet {
        /// The host.
        host: HostName,
        /// The mode.
        mode: Mode,
        /// Who.
        by: String,
    },
}

/// What came of applying a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Applied {
    /// Why nothing changed, if so.
    pub refused: Option<Refused>,
    /// Hosts whose agents have something new to fetch. Hints: work is derived from state (R4).
    pub nudge: BTreeSet<HostName>,
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
    /// It is so already.
    #[error("nothing to do: {why}")]
    Already {
        /// Why.
        why: String,
    },
}
