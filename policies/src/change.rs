//! Commands: the entries of the replicated log.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use crate::applied::{Applied, Refused};
use crate::{
    armed::Armed,
    feature_level::FeatureLevel,
    fence_path::LevelTest,
    ladder::LadderKind,
    lease::SafeAt,
    model::{Policies, Severity},
    names::{Epoch, GuestName, HostName, Incarnation, OrderId, ServiceName},
    operators::Serial,
    order::OrderOutcome,
    proof::Proof,
    revocation::KeyId,
    state::{HostFacts, Mode, Tenure, Wanted},
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
        /// The log index at which the boot had joined that this one was taken to follow, where there was one: another may
        /// have joined since this was proposed. `None` also from a version that does not say, and before all voters look at it
        /// ([`follows`](crate::state::ClusterState::follows)).
        #[serde(default)]
        follows: Option<u64>,
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
        /// From when on its guests cannot run any more by its lease, where that is a level of its fencing; for people.
        #[serde(default)]
        safe_at: Option<SafeAt>,
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
    /// An operator lets an open fence go on for which a budget has no room (S8, S9).
    FenceAllowed {
        /// The host.
        host: HostName,
        /// Who.
        by: String,
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
        /// What it said before it stopped its guests, if that was heard.
        #[serde(default)]
        last_words: Option<String>,
    },
    /// What a boot has armed against itself, as its agent said (R9): the ground of its leases from here on.
    HostArmed {
        /// The host.
        host: HostName,
        /// The boot.
        incarnation: Incarnation,
        /// What.
        armed: Option<Armed>,
        /// The longest lease that it may be granted, in milliseconds.
        lease_ms: u64,
        /// The index of the newest view that its agent had.
        known_view: u64,
        /// The newest index that its agent had seen.
        seen: u64,
    },
    /// A boot is silent: no leader grants it a lease before it has said again what it has armed, so that its last grant is
    /// known.
    LeaseClosed {
        /// The host.
        host: HostName,
        /// The boot.
        incarnation: Incarnation,
    },
    /// A boot that was proven gone is alive, and has released everything that it may not run any more (R10).
    HostReturned {
        /// The host.
        host: HostName,
        /// The boot.
        incarnation: Incarnation,
        /// The newest index that its agent had seen.
        seen: u64,
    },
    /// A host that is back has stopped the guest because its lease had run out (R14): it is released and started anew.
    StoppedByLease {
        /// The guest.
        guest: GuestName,
    },
    /// A host that has announced to go releases the guests that run there; they wait for it, where policies say so.
    Vacated {
        /// The host.
        host: HostName,
    },
    /// A fence of the host is so long ago that it counts towards budgets and a quarantine no more.
    FenceForgotten {
        /// The host.
        host: HostName,
        /// The log index of its first attempt.
        attempted: u64,
    },
    /// A quarantined host may have guests again.
    QuarantineLifted {
        /// The host.
        host: HostName,
        /// The machine that has the name from here on, where another one than before shall have it.
        machine_id: Option<String>,
        /// Who; `None` after a calm time. For a contested name it takes a person, who says with it that no other machine
        /// and no earlier boot under this name runs anything (R11).
        by: Option<String>,
    },
    /// A boot lives beside the one that has joined (R11).
    NameContested {
        /// The host.
        host: HostName,
        /// The boot that has not joined.
        other: Incarnation,
    },
    /// A power device has called the host off while it lived (R9).
    DeviceDistrusted {
        /// The host.
        host: HostName,
        /// The level.
        level: usize,
        /// Who heard the host when.
        why: String,
    },
    /// An operator has checked the power devices of the host.
    DeviceTrusted {
        /// The host.
        host: HostName,
        /// Who.
        by: String,
    },
    /// A host that was fenced is to be switched on again.
    PowerOnOrdered {
        /// The host.
        host: HostName,
        /// Who asks the device.
        executor: HostName,
        /// Which level.
        level: usize,
    },
    /// A host without guests is to be switched off and on, to see that it works.
    DrillBegun {
        /// The host.
        host: HostName,
        /// Who switches it.
        executor: HostName,
        /// By which level.
        level: usize,
        /// Who has it done.
        by: String,
    },
    /// A drill is over.
    DrillEnded {
        /// The host.
        host: HostName,
        /// Why it failed, if it did.
        failed: Option<String>,
    },
    /// The power devices of a host were asked while nothing was wrong; nothing was switched.
    FenceTested {
        /// The host.
        host: HostName,
        /// Who asked.
        executor: HostName,
        /// The machine id that the host had told, with which those of the devices were compared.
        machine_id: String,
        /// The version of the policies that declare the devices which were asked; `None` in logs from before it was told.
        #[serde(default)]
        policy_version: Option<u64>,
        /// What the devices answered.
        levels: Vec<LevelTest>,
    },
    /// An operator has said that fencing goes on in the present storm (R21).
    StormHoldReleased {
        /// Who.
        by: String,
    },
    /// The storm that an operator had released is over: the next one holds again.
    StormEnded,
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
        /// On which ladder.
        #[serde(default)]
        ladder: LadderKind,
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
    /// An operator moves a guest: while it runs where that is possible, else by a stop and a start.
    MoveAsked {
        /// The guest.
        guest: GuestName,
        /// Where to.
        to: HostName,
        /// By a stop and a start in any case, also in place of a live move that has not arrived yet.
        cold: bool,
        /// Who.
        by: String,
    },
    /// An operator has looked after a guest: its failed starts and rungs are forgotten, and it is tried anew.
    LookedAfter {
        /// The guest.
        guest: GuestName,
        /// Who.
        by: String,
    },
    /// A host has something of the guest without a right to run it: it is to stop that.
    StrayFound {
        /// The guest.
        guest: GuestName,
        /// Where it was found.
        host: HostName,
        /// Under which assignment.
        epoch: Epoch,
        /// The host whose guest is kept, if there is one.
        keep: Option<HostName>,
    },
    /// A running guest was moved by other tools: it runs elsewhere under the assignment that is committed, and its own host
    /// has nothing of it. It is followed there.
    MovedOutside {
        /// The guest.
        guest: GuestName,
        /// Where it runs.
        tenure: Tenure,
    },
    /// A running guest is to stop, and to stay so for as long as the reason holds.
    Stop {
        /// The guest.
        guest: GuestName,
        /// Why.
        why: String,
    },
    /// A guest that is being stopped has to be asked for again: the last order failed or was lost.
    ReleaseAgain {
        /// The guest.
        guest: GuestName,
    },
    /// The probes confirm that every service of the guest answers that can be asked.
    Verified {
        /// The guest.
        guest: GuestName,
        /// Those that nobody can ask.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        unasked: Vec<ServiceName>,
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
        /// Who sees what, where it rests on that.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        evidence: Vec<String>,
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
    /// An operator has said what is wanted of a guest.
    WantedSet {
        /// The guest.
        guest: GuestName,
        /// What.
        wanted: Wanted,
        /// Who.
        by: String,
    },
    /// An operator has suspended deciding, or resumed it.
    SuspensionSet {
        /// Whether it is suspended from here on.
        suspended: bool,
        /// Who.
        by: String,
    },
    /// An operator takes a host that is proven gone out of the cluster, and no certificate of its name counts any more (R27).
    HostRevoked {
        /// The host.
        host: HostName,
        /// Why.
        why: String,
        /// The gossip keys that it knows, by their ids.
        keys: BTreeSet<KeyId>,
        /// Who.
        by: String,
    },
    /// One certificate of a revoked name counts: a host may join with it.
    HostReadmitted {
        /// The host.
        host: HostName,
        /// Which.
        serial: Serial,
        /// Who.
        by: String,
    },
    /// All voters, and the members that are heard, can do what this level brings (R26).
    LevelRaised {
        /// The level from here on.
        to: FeatureLevel,
    },
}
