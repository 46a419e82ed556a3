//! What can be switched off to prove that the checks of this suite can fail.

use std::str::FromStr;

/// A promise that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    /// Votes are acknowledged before they are on disk.
    Votes,
    /// The disk acknowledges everything before it is there.
    Fsync,
    /// Whoever takes itself for the leader answers without asking anybody.
    Reads,
}

impl Break {
    /// All of them.
    pub const ALL: &[Self] = &[Self::Votes, Self::Fsync, Self::Reads];

    /// The promise, as it is written on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Votes => "votes",
            Self::Fsync => "fsync",
            Self::Reads => "reads",
        }
    }

    /// What is done instead of keeping it.
    #[must_use]
    pub fn what(self) -> &'static str {
        match self {
            Self::Votes => "votes are acknowledged at once and reach the disk seconds later",
            Self::Fsync => "the disk acknowledges every write at once and keeps it seconds later",
            Self::Reads => "a voter that takes itself for the leader answers reads without a round to the others",
        }
    }
}

impl FromStr for Break {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().copied().find(|known| known.name() == text);
        found.ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|known| known.name()).collect();
            format!("{text:?} cannot be broken; one of {} can", names.join(", "))
        })
    }
}
