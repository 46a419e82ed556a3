//! A power device: the thing that can switch a host off and say whether it is off.

use std::time::Duration;

use async_trait::async_trait;
use holdfast_policies::time::Span;

/// What suffices for devices that answer at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// What one call may take of its level's time where it may wait for the power to go: a quarter is left for asking whether it is gone.
pub(crate) fn most_of(level: Span) -> Duration {
    level.0 * 3 / 4
}

/// Whether a device says that its host has power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// The host has power.
    On,
    /// The host has none.
    Off,
}

/// What a device answered. Never a bool: "no" and "nobody knows" call for different things.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Answer<T> {
    /// The device said so.
    Confirmed(T),
    /// It was not done and will not be: the device, or a check before it was asked, said no. Trying again soon is no use.
    Refused {
        /// Why, for people; carries no secret.
        detail: String,
        /// It does not let us in: it does not take our user, password or key. Every further try may lock that user out, for
        /// people too.
        denied: bool,
    },
    /// Nobody knows; after an `off`, the host may go off yet.
    Unknown {
        /// Why, for people; carries no secret.
        detail: String,
    },
}

impl<T> Answer<T> {
    /// A refusal that has nothing to do with who we are.
    pub fn refused(detail: impl Into<String>) -> Self {
        Self::Refused { detail: detail.into(), denied: false }
    }

    /// The refusal of a device that does not let us in.
    pub fn denied(detail: impl Into<String>) -> Self {
        Self::Refused { detail: detail.into(), denied: true }
    }

    /// An answer that says nothing.
    pub fn unknown(detail: impl Into<String>) -> Self {
        Self::Unknown { detail: detail.into() }
    }

    /// What follows from what was confirmed. Any other answer stays what it is.
    pub fn and_then<U>(self, follows: impl FnOnce(T) -> Answer<U>) -> Answer<U> {
        match self {
            Self::Confirmed(value) => follows(value),
            Self::Refused { detail, denied } => Answer::Refused { detail, denied },
            Self::Unknown { detail } => Answer::Unknown { detail },
        }
    }
}

/// One power device of one host.
///
/// Every call ends by its deadline, counted from the call, and may be dropped at any point without leaving a process behind.
#[async_trait]
pub trait PowerDevice: Send + Sync {
    /// Asks whether the host has power; harmless.
    async fn status(&self, deadline: Duration) -> Answer<Power>;

    /// Orders power off. `Confirmed` means that the device accepted the order, not that the host is off.
    async fn off(&self, deadline: Duration) -> Answer<()>;

    /// Orders power on. `Confirmed` means that the device accepted the order, not that the host is on.
    async fn on(&self, deadline: Duration) -> Answer<()>;

    /// Longest time that one call may take of a level's: one that hangs must leave time for others, and a late `off` must
    /// be bounded (R20). Devices that wait for the power to go before they answer need more.
    fn patience(&self) -> Duration {
        PATIENCE
    }

    /// For how much longer an `off` may still be carried out that was accepted, or of which nobody waits to hear any more. An
    /// attempt is not over before, unless the host is seen to be off: it could be back, and be switched off late (R20).
    fn goes_on_for(&self) -> Duration {
        Duration::ZERO
    }

    /// What this device is, for people and the journal; carries no secret.
    fn describe(&self) -> String;

    /// The UUID of the machine behind the device, lower case with hyphens; `Refused` where it cannot tell. Devices disagree about
    /// its byte order: compare with [`crate::machine_id::same_machine`].
    async fn machine_id(&self, deadline: Duration) -> Answer<String>;
}
