//! What goes wrong, and what operators do in the middle of it.

use std::collections::BTreeSet;

use holdfast_policies::{
    change::Change,
    names::GuestName,
    state::{Mode, Wanted},
};

use super::{Ms, device::Device, losses::Loss};

/// Something that happens to the cluster from outside. Hosts by index, times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields say what their names say")]
pub enum Happening {
    /// A supervisor's process ends, and is started again.
    SupervisorCrash { host: usize, back: Ms },
    /// A supervisor of an older version ends, and one of this version is started.
    Upgrade { host: usize, back: Ms },
    /// A supervisor's process stands still.
    SupervisorFreeze { host: usize, time: Ms },
    /// A guard's process ends, or stands still, for so long.
    GuardDown { host: usize, time: Ms },
    /// Power is gone, and the power device with it; `back` later power returns, if it does.
    PowerAndDeviceLost { host: usize, back: Option<Ms> },
    /// An operator gives a host a lease level, or takes it away.
    LeaseLevelIs { host: usize, declared: bool },
    /// Whoever coordinates at that moment: its process ends.
    CoordinatorCrash { back: Ms },
    /// Whoever coordinates at that moment: its process stands still.
    CoordinatorFreeze { time: Ms },
    /// Whoever coordinates at that moment: cut off from all others.
    CoordinatorCut { time: Ms },
    /// Whoever coordinates at that moment hears nobody any more; the others hear it.
    CoordinatorDeaf { time: Ms },
    /// Power is gone; `back` later it returns, if it does.
    PowerCut { host: usize, back: Option<Ms> },
    /// Power is gone everywhere for a moment; one host hangs while it boots.
    Blackout { hangs: Option<usize>, back: Ms },
    /// A whole machine stands still.
    Freeze { host: usize, time: Ms },
    /// A host is cut off from all others.
    Cut { host: usize, time: Ms },
    /// One direction between two hosts is cut.
    OneWay { from: usize, to: usize, time: Ms },
    /// Both directions between two hosts are cut.
    Link { one: usize, other: usize, time: Ms },
    /// The hosts in the set hear only each other.
    Partition { side: BTreeSet<usize>, time: Ms },
    /// Messages of a host are lost, late, out of order, and repeated.
    BadNetwork { host: usize, time: Ms, loss: u64, late: Ms },
    /// A power device behaves differently from here on.
    DeviceIs { host: usize, device: Device },
    /// One of a host's two outlets behaves differently from here on.
    OutletIs { host: usize, outlet: usize, device: Device },
    /// A guest's process ends.
    GuestExits { guest: GuestName },
    /// A guest's kernel panics.
    GuestPanics { guest: GuestName },
    /// A guest runs and does not answer.
    GuestHangs { guest: GuestName },
    /// Another tool moves a guest, if everything is at rest.
    MovedByOthers { guest: GuestName, to: usize },
    /// A guest resets itself, if everything is at rest.
    ResetsItself { guest: GuestName },
    /// A guest that has reset itself a moment ago does so again.
    ResetsItselfAgain { guest: GuestName },
    /// A guest does not answer wherever it is started.
    GuestIsSick { guest: GuestName, time: Ms },
    /// A host cannot stop a guest.
    Stubborn { host: usize, guest: GuestName, time: Ms },
    /// Every start on a host fails.
    StartsFail { host: usize, time: Ms },
    /// Every move away from a host stops midway.
    MovesFail { host: usize, time: Ms },
    /// A host's probes of a guest fail for a reason of its own.
    Blind { host: usize, guest: GuestName, time: Ms },
    /// A host cannot ask a guest's services for a reason of its own: it has no way there, or lacks what it asks with.
    CannotAsk { host: usize, guest: GuestName, time: Ms },
    /// What guests share does not work, and each of them runs: a switch of their network, so that each answers on its own host
    /// alone, or, everywhere, what all their services ask.
    CommonCause { guests: BTreeSet<GuestName>, everywhere: bool, time: Ms },
    /// A host's wall clock jumps ahead.
    WallClock { host: usize, ahead: u64 },
    /// What the agent has on disk is lost, while its supervisor is down.
    AgentDiskLost { host: usize, back: Ms },
    /// A voter's store is lost, while its supervisor is down.
    VoterStoreLost { host: usize, back: Ms },
    /// All voters but one lose their stores for good, and an operator makes a new generation from what is left.
    MajorityLost { survivor: usize, back: Ms, loss: Loss },
    /// An operator sets a host's mode.
    ModeIs { host: usize, mode: Mode },
    /// An operator says what is wanted of a guest.
    WantedIs { guest: GuestName, wanted: Wanted },
    /// An operator suspends deciding, or resumes it.
    Suspended { suspended: bool },
    /// Somebody has a guest moved as the coordinator moves guests.
    Move { guest: GuestName, to: usize },
    /// An operator moves a guest, as `holdfast guest migrate` does: what does not fit is refused, and the guest stays where it is put.
    MoveAsked { guest: GuestName, to: usize, cold: bool },
    /// An operator looks whether a host is off, and says so if it is.
    ConfirmOff { host: usize },
    /// An operator lets the fences go on that a budget holds.
    FencesAllowed,
    /// An operator revokes a host as soon as it is proven gone.
    Revoked { host: usize },
    /// A host without a vote is scrapped, and another machine set up under its name.
    NewMachine { host: usize, back: Ms },
    /// An operator says that a host's name means its new machine, once that has come.
    NameSettled { host: usize },
    /// An operator drills a host's power device, once it is drained.
    Drill { host: usize },
    /// A second machine comes under the name of a host, for so long.
    TwinComes { time: Ms },
    /// It is switched off.
    TwinGoes,
    /// The next time that something of this kind is committed, something else happens at once.
    When { kind: Moment, then: Box<Happening> },
    /// The faults stop; operators do what the pages ask for; everything has to come to rest (L1).
    Heal,
}

/// The worst moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the command that is committed then")]
pub enum Moment {
    FenceOpened,
    FenceAttempted,
    HostGone,
    Placed,
    MoveOrdered,
    OrderEnded,
    Climbed,
}

impl Moment {
    /// Whether it is this command that brings it.
    pub(super) fn is(self, change: &Change) -> bool {
        match self {
            Self::FenceOpened => matches!(change, Change::FenceOpened { .. }),
            Self::FenceAttempted => matches!(change, Change::FenceAttempted { .. }),
            Self::HostGone => matches!(change, Change::HostGone { .. }),
            Self::Placed => matches!(change, Change::Place { .. }),
            Self::MoveOrdered => matches!(change, Change::Migrate { .. }),
            Self::OrderEnded => matches!(change, Change::OrderEnded { .. }),
            Self::Climbed => matches!(change, Change::Climb { .. }),
        }
    }
}

/// A plan: what happens when.
pub type Plan = Vec<(Ms, Happening)>;

/// When everything is mended, each time.
pub(super) fn heals(plan: &[(Ms, Happening)]) -> Vec<Ms> {
    plan.iter().filter(|(_, what)| matches!(what, Happening::Heal)).map(|(at, _)| *at).collect()
}
