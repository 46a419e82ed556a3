//! Live moves: one committed point at which the assignment changes, and an end in exactly one place (R22).
//!
//! ```text
//! Receiving --it waits--> Sending --all is sent: the switch--> Switched --target runs, source released--> Running (there)
//!    |                       |                                    |
//!    | the target does not   | it was not sent,                   | the target does not run, or is lost
//!    | wait, or is lost      | or the target is lost              v
//!    +-----> Returning <-----+                                Clearing --nothing is left of either half--> Free
//!                |                                                ^
//!                +--- the source does not run, or is lost --------+---- the source is lost (from Receiving and Sending)
//!                v
//!    source runs, target released: Running (here)
//! ```
//! Before the switch only the source may resume; after it only the target. A host is lost when it is proven gone or has booted
//! anew; a half is `None` once it is proven not to run, and when both are the guest is free, however far its move had come.
//!
//! What operators call off before the switch was not sent, or does not wait, as far as this is concerned: `decide/guests/moves.rs` for a
//! guest that is to stop, `apply/called_off.rs` for one that is to stay or to be moved by a stop and a start.
//!
//! [`next_step`] is the machine: what follows, in each step, from what befalls a move. It is carried out in `apply/migrations.rs` and
//! `apply/halves.rs`. [`due`] says what each step waits for and until when, and what the coordinator does where nothing comes. When
//! a move begins is decided in `decide/guests/moves.rs` and applied in `apply/moves.rs`; one that other tools have made begins past
//! its switch (`apply/strays.rs`).

use std::{fmt, time::Duration};

use crate::{
    decide::{FOREVER, Round, Waits, guests::STOP_AGAIN_AFTER},
    feature_level::FeatureLevel,
    model::QemuDefinition,
    names::{GuestName, HostName, OrderId},
    order::{SEND_DEADLINE, send_deadline},
    state::{ClusterState, Migration, MigrationStep, Tenure},
    time::{Span, millis},
};

/// How long after its deadline an order of a move, to a host that is not heard, counts as failed. Nothing is proven by
/// that: the half is still asked to release, and the guest runs on where it was (R4).
const OVERDUE_AFTER: Duration = Duration::from_secs(30);

/// One of the two hosts of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Half {
    /// Where the guest ran.
    Source,
    /// Where it goes.
    Target,
}

impl fmt::Display for Half {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Target => "target",
        })
    }
}

/// What befalls a move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// The order to have a machine wait for the guest has ended.
    Received {
        /// Which.
        order: OrderId,
        /// Where it waits; `None`: it does not.
        uri: Option<String>,
        /// The machine that was to wait.
        machine: Box<QemuDefinition>,
    },
    /// The order to send the guest has ended.
    Sent {
        /// Which.
        order: OrderId,
        /// Everything has arrived.
        all: bool,
    },
    /// An order to let a half run has ended.
    Resumed {
        /// Which.
        order: OrderId,
        /// It runs.
        runs: bool,
    },
    /// An order to release a half has ended. Only proof ends the half itself; where it failed, it is asked again after a pause.
    Released {
        /// Which.
        order: OrderId,
    },
    /// The host of a half is proven gone.
    Gone(Half),
    /// The host of a half has booted anew: that half runs nothing, and its new boot has yet to say so (R9, R10).
    Rebooted(Half),
    /// The coordinator asks again for what failed or was lost.
    AskedAgain,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing: the move waits for something else.
    Nothing,
    /// The source is to send.
    Send {
        /// Who.
        source: Tenure,
        /// Where to.
        uri: String,
        /// The machine there.
        machine: Box<QemuDefinition>,
    },
    /// The committed point: from this entry on only the target may run the guest.
    Switch {
        /// Whose right ends.
        source: Tenure,
        /// Whose right it is.
        target: Tenure,
    },
    /// Given up before the switch: the source goes on, and the target's remains go.
    Return {
        /// The source may have stopped for the move, and is to be let run.
        resume: bool,
    },
    /// Given up for good: what is left of both halves is asked to release.
    Clear,
    /// These halves are asked to release, in whatever boot their hosts have joined with.
    Ask {
        /// The source.
        source: bool,
        /// The target.
        target: bool,
    },
    /// One thing less is waited for; the move ends when it was the last.
    Settle,
}

/// What follows in this step from what befalls the move.
pub(crate) fn next_step(migration: &Migration, event: Event) -> Next {
    use Half::{Source, Target};
    let (source, target) = (&migration.source, &migration.target);
    match (&migration.step, event) {
        (MigrationStep::Receiving { order: waited }, Event::Received { order, uri, machine }) if *waited == order => {
            match (uri, source) {
                (Some(uri), Some(source)) => Next::Send { source: source.clone(), uri, machine },
                (Some(_), None) | (None, _) => Next::Return { resume: false },
            }
        }
        (MigrationStep::Sending { order: waited }, Event::Sent { order, all }) if *waited == order => {
            match (source, target) {
                (Some(source), Some(target)) if all => Next::Switch { source: source.clone(), target: target.clone() },
                (Some(_) | None, Some(_) | None) => Next::Return { resume: true },
            }
        }
        (
            MigrationStep::Receiving { .. } | MigrationStep::Sending { .. },
            Event::Gone(Source) | Event::Rebooted(Source),
        ) => Next::Clear,
        (
            MigrationStep::Receiving { .. } | MigrationStep::Sending { .. },
            Event::Gone(Target) | Event::Rebooted(Target),
        ) => Next::Return { resume: true },

        (
            MigrationStep::Switched { resume, .. } | MigrationStep::Returning { resume, .. },
            Event::Resumed { order, runs },
        ) if *resume == Some(order) => {
            if runs {
                Next::Settle
            } else {
                Next::Clear
            }
        }
        (
            MigrationStep::Switched { release, .. } | MigrationStep::Returning { release, .. },
            Event::Released { order },
        ) if *release == Some(order) => Next::Settle,

        (MigrationStep::Switched { .. }, Event::Gone(Source)) => Next::Settle,
        (MigrationStep::Switched { .. }, Event::Rebooted(Source)) => Next::Ask { source: true, target: false },
        (MigrationStep::Switched { .. }, Event::Gone(Target) | Event::Rebooted(Target)) => Next::Clear,
        (MigrationStep::Switched { release, .. }, Event::AskedAgain) if is_unasked(source, *release) => {
            Next::Ask { source: true, target: false }
        }

        (MigrationStep::Returning { .. }, Event::Gone(Source) | Event::Rebooted(Source)) => Next::Clear,
        (MigrationStep::Returning { .. }, Event::Gone(Target)) => Next::Settle,
        (MigrationStep::Returning { .. }, Event::Rebooted(Target)) => Next::Ask { source: false, target: true },
        (MigrationStep::Returning { release, .. }, Event::AskedAgain) if is_unasked(target, *release) => {
            Next::Ask { source: false, target: true }
        }

        (MigrationStep::Clearing { source: from, target: to }, Event::Released { order })
            if *from == Some(order) || *to == Some(order) =>
        {
            Next::Settle
        }
        (MigrationStep::Clearing { .. }, Event::Gone(Source | Target)) => Next::Settle,
        (MigrationStep::Clearing { .. }, Event::Rebooted(half)) => {
            Next::Ask { source: half == Source, target: half == Target }
        }
        (MigrationStep::Clearing { source: from, target: to }, Event::AskedAgain)
            if is_unasked(source, *from) || is_unasked(target, *to) =>
        {
            Next::Ask { source: is_unasked(source, *from), target: is_unasked(target, *to) }
        }

        // What this step does not wait for, or has been answered.
        (
            MigrationStep::Receiving { .. }
            | MigrationStep::Sending { .. }
            | MigrationStep::Switched { .. }
            | MigrationStep::Returning { .. }
            | MigrationStep::Clearing { .. },
            Event::Received { .. }
            | Event::Sent { .. }
            | Event::Resumed { .. }
            | Event::Released { .. }
            | Event::AskedAgain,
        ) => Next::Nothing,
    }
}

/// What a move waits for, and what is to be done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Due {
    /// For what, and at most for how much longer.
    pub waits: Waits,
    /// What the coordinator does, if it is not only to wait.
    pub act: Option<Act>,
}

/// What the coordinator does about a move that does not go on by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act {
    /// It asks again for what failed or was lost.
    AskAgain,
    /// It takes an order for failed whose host says nothing, or whose end nobody wants to wait for.
    TakeForFailed {
        /// Which.
        order: OrderId,
        /// Why.
        detail: String,
    },
}

/// What this step waits for at the moment of the round. Everything else comes by results, and by what befalls the hosts.
pub(crate) fn due(round: &Round<'_>, migration: &Migration) -> Due {
    let (source, target) = (&migration.source, &migration.target);
    match &migration.step {
        MigrationStep::Receiving { order } | MigrationStep::Sending { order } => {
            Due { waits: round.left_of(*order, "the report"), act: overdue(round, *order) }
        }
        MigrationStep::Switched { resume, release } => last_steps(round, migration, *resume, &[(source, *release)]),
        MigrationStep::Returning { resume, release } => last_steps(round, migration, *resume, &[(target, *release)]),
        MigrationStep::Clearing { source: from, target: to } => {
            last_steps(round, migration, None, &[(source, *from), (target, *to)])
        }
    }
}

/// An order of a move whose host has fallen silent does not hold the guest for ever.
fn overdue(round: &Round<'_>, id: OrderId) -> Option<Act> {
    let order = round.state.orders.get(&id)?;
    let is_late = round.age(order.issued) >= order.deadline.0 + OVERDUE_AFTER && !round.answers(&order.host);
    let detail = || format!("{} has been silent for longer than it may take", order.host);
    is_late.then(|| Act::TakeForFailed { order: id, detail: detail() })
}

/// Whether a guest is being sent by a host that has not synced for as long as it takes until the shortest send counts as failed.
/// Its own move waits on: until its time is over the host may be sending, and be heard again.
pub(crate) fn is_sent_unheard(round: &Round<'_>, id: OrderId) -> bool {
    let Some(order) = round.state.orders.get(&id) else { return false };
    let unsynced = round.hosts.get(&order.host).map_or(0, |judgement| judgement.unsynced_ms);
    unsynced >= millis(SEND_DEADLINE.0 + OVERDUE_AFTER) && !round.answers(&order.host)
}

/// What the last steps wait for; where a half is unasked and its host answers, it is asked again after a pause.
fn last_steps(
    round: &Round<'_>,
    migration: &Migration,
    resume: Option<OrderId>,
    halves: &[(&Option<Tenure>, Option<OrderId>)],
) -> Due {
    let answers = |half: &Option<Tenure>| half.as_ref().is_some_and(|half| round.answers(&half.host));
    let unasked = halves.iter().any(|(half, release)| is_unasked(half, *release) && answers(half));
    let rested = migration.release_failed.is_none_or(|index| round.age(index) >= STOP_AGAIN_AFTER);
    Due { waits: end_of(round, migration, resume, halves), act: (unasked && rested).then_some(Act::AskAgain) }
}

/// The order that may take longest; else a half that is to be asked, and whose host is not heard, or that is asked again after a
/// pause.
fn end_of(
    round: &Round<'_>,
    migration: &Migration,
    resume: Option<OrderId>,
    halves: &[(&Option<Tenure>, Option<OrderId>)],
) -> Waits {
    let resumed = resume.and_then(|order| round.answer_to(order, "the report that it runs"));
    let released = halves.iter().filter_map(|(_, order)| {
        let order = (*order)?;
        round.answer_to(order, "the word that nothing of it is left")
    });
    let silent = || {
        let mut hosts = halves.iter().flat_map(|(half, _)| half.iter()).map(|half| &half.host);
        let host = hosts.find(|host| !round.answers(host))?;
        Some((format!("{host}, which is not well heard"), FOREVER))
    };
    let pause = || {
        let left = STOP_AGAIN_AFTER.saturating_sub(round.age(migration.release_failed?));
        (!left.is_zero()).then(|| ("the next try to remove what is left of it".to_owned(), millis(left)))
    };
    released.chain(resumed).max_by_key(|(_, left)| *left).or_else(silent).or_else(pause)
}

/// Whether a half may still run, and no order to release it is open.
fn is_unasked(half: &Option<Tenure>, release: Option<OrderId>) -> bool {
    half.is_some() && release.is_none()
}

impl ClusterState {
    /// How long the guest may take to be sent while it runs, by the memory that is declared for it. One whose declaration has
    /// changed since it was started does not fit its target, and never arrives.
    pub(crate) fn time_to_send(&self, guest: &GuestName) -> Span {
        let declared = self.policies.guests.get(guest).filter(|_| self.level >= FeatureLevel::LONG_SENDS);
        // R26: every version gives a guest this much; it is also what one has that is declared no more.
        declared.map_or(SEND_DEADLINE, |declared| send_deadline(declared.qemu.memory_mib))
    }
}

impl Migration {
    /// Which half is on this host, of the two that a move has.
    pub(crate) fn half_on(&self, host: &HostName) -> Half {
        match &self.source {
            Some(source) if source.host == *host => Half::Source,
            Some(_) | None => Half::Target,
        }
    }

    /// A half, while it is not proven gone.
    pub(crate) fn of(&self, half: Half) -> Option<&Tenure> {
        match half {
            Half::Source => self.source.as_ref(),
            Half::Target => self.target.as_ref(),
        }
    }

    /// A half has gone with its host, and whatever it was asked for is not waited for any more.
    pub(crate) fn lose(&mut self, half: Half) {
        match half {
            Half::Source => self.source = None,
            Half::Target => self.target = None,
        }
        if let Some(release) = self.step.release(half) {
            *release = None;
        }
    }
}

impl MigrationStep {
    /// The order to release a half, in the steps that may have one.
    pub(crate) fn release(&mut self, half: Half) -> Option<&mut Option<OrderId>> {
        match (self, half) {
            (Self::Switched { release, .. }, Half::Source)
            | (Self::Returning { release, .. }, Half::Target)
            | (Self::Clearing { source: release, .. }, Half::Source)
            | (Self::Clearing { target: release, .. }, Half::Target) => Some(release),
            (Self::Receiving { .. } | Self::Sending { .. }, Half::Source | Half::Target)
            | (Self::Switched { .. }, Half::Target)
            | (Self::Returning { .. }, Half::Source) => None,
        }
    }

    /// An order has been answered: it is not waited for any more.
    pub(crate) fn forget(&mut self, order: OrderId) {
        let waited = match self {
            Self::Receiving { .. } | Self::Sending { .. } => return,
            Self::Switched { resume, release } | Self::Returning { resume, release } => [resume, release],
            Self::Clearing { source, target } => [source, target],
        };
        for waited in waited {
            if *waited == Some(order) {
                *waited = None;
            }
        }
    }
}

#[cfg(test)]
mod tests;
