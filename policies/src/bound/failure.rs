//! The words of bounds: what fails, what a bound is made of, and what stretches it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What fails. Its words are those of the JSON form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Failure {
    /// A service ceases to answer; its guest runs.
    #[serde(rename = "app failed")]
    AppFailed,
    /// The guest's machine ends, or its kernel panics.
    #[serde(rename = "guest process died")]
    GuestDied,
    /// The host is off, and a power device says so that is believed.
    #[serde(rename = "host died, power device answers")]
    HostDied,
    /// The same with the host that coordinates.
    #[serde(rename = "coordinator's host died, power device answers")]
    CoordinatorDied,
    /// The host stands still, or nobody reaches it: it has to be switched off first.
    #[serde(rename = "host frozen or cut off")]
    HostCutOff,
    /// The host has lost its power together with its power device.
    #[serde(rename = "host died, power device does not answer")]
    DeviceSilent,
    /// The host is off, and no power device is believed.
    #[serde(rename = "host died")]
    HostUnproven,
    /// The host is off, stands still or is cut off, and its lease is what proves it.
    #[serde(rename = "host died or cut off, by its lease alone")]
    ByLease,
}

impl Failure {
    /// The words for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::AppFailed => "app failed",
            Self::GuestDied => "guest process died",
            Self::HostDied => "host died, power device answers",
            Self::CoordinatorDied => "coordinator's host died, power device answers",
            Self::HostCutOff => "host frozen or cut off",
            Self::DeviceSilent => "host died, power device does not answer",
            Self::HostUnproven => "host died",
            Self::ByLease => "host died or cut off, by its lease alone",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What a bound is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// From the failure to the verdict.
    Detect,
    /// Rungs, from the verdict until one of them has helped.
    Ladder,
    /// From the verdict to the proof that the host runs nothing any more.
    Prove,
    /// Other guests of the host start first.
    Queue,
    /// Its start elsewhere.
    Start,
    /// From when its machine runs until its services answer.
    Answer,
}

impl Stage {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Detect => "detect",
            Self::Ladder => "ladder",
            Self::Prove => "prove",
            Self::Queue => "queue",
            Self::Start => "start",
            Self::Answer => "answer",
        }
    }
}

/// What makes a failure last longer than its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StretchedBy {
    /// A start that fails.
    FailedStart,
    /// The host that fails coordinates at that moment.
    Coordinator,
    /// The whole failure domain of the host fails.
    Domain,
    /// Another guest has to be ready first.
    Order,
    /// Many hosts fail at once, or the services of many guests (S9).
    Storm,
    /// As many fences as an hour has room for have been.
    Budget,
    /// A live move of the guest is under way.
    Move,
    /// The guest's file systems are frozen. Versions before [`TOLD_ONCE`](crate::feature_level::FeatureLevel::TOLD_ONCE) do not know the
    /// word.
    Freeze,
}
